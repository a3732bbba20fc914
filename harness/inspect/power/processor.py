"""From the registers that a source has, and those given in their place, to the state of a
processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from harness.inspect.power import paths
from harness.inspect.snapshot import SourceError
from harness.paging.memory import Memory
from harness.paging.power.cpu import (
    ADDRESS_BITS,
    ROOT_BITS,
    ROOT_SIZE,
    ChainError,
    Cpu,
    load,
    tree_bits,
)

NAMES: Final = ("ptcr", "pid", "quadrant0", "quadrant3", "amr", "iamr")
"""What can be given: PTCR and PIDR, by which memory leads to the trees, or the first doublewords of
process table entries; and AMR and IAMR."""

_FIELDS: Final = ("quadrant0", "quadrant3", "amr", "iamr")
"""Those of them that are fields of the state."""

_NEITHER: Final = (
    "add --ptcr, and --pid for a process other than 0; or --quadrant0 or --quadrant3, the first"
    " doubleword of its process table entry"
)


def cpu_of(title: str, memory: Memory, given: Mapping[str, int]) -> Cpu:
    """The processor with these registers, and whose trees its memory leads to.

    Raises SourceError where nothing tells where they are, what should lead there does not, or there
    may be no such trees.
    """
    if not {"ptcr", "quadrant0", "quadrant3"} & given.keys():
        raise SourceError(f"{title} does not record PTCR: {_NEITHER}")
    return cpu_with(Cpu(None, sets_marks=False), memory, given)


def cpu_with(usual: Cpu, memory: Memory, given: Mapping[str, int]) -> Cpu:
    """The state of `usual` but for these registers, in the format of its paths where
    these have one.

    Raises SourceError as `cpu_of` does.
    """
    if "pid" in given and "ptcr" not in given:
        raise SourceError("--pid chooses an entry of the process table, to which --ptcr leads")
    try:
        cpu = usual
        if "ptcr" in given:
            found = load(memory, given["ptcr"], given.get("pid", 0))
            cpu = replace(cpu, quadrant0=found.quadrant0, quadrant3=found.quadrant3)
        own = {name: given[name] for name in _FIELDS if name in given}
        cpu = replace(cpu, **own)  # type: ignore[arg-type]
    except ChainError as error:
        raise SourceError(f"PTCR {given['ptcr']:#x} leads nowhere: {error}") from None
    except ValueError as error:
        raise SourceError(str(error)) from None
    if not cpu.roots:
        raise SourceError(_treeless(cpu))
    parts = paths.parts(cpu, memory)
    return cpu if len(parts) > 1 else parts[0]


def _treeless(cpu: Cpu) -> str:
    """Why no address is translated."""
    for descriptor in (cpu.quadrant0, cpu.quadrant3):
        if descriptor:
            return (
                f"the process table entry {descriptor:#x} describes a tree that is not supported,"
                f" of {tree_bits(descriptor)} bits with a root of {descriptor & ROOT_SIZE}: trees"
                f" have {ADDRESS_BITS} bits, and roots {ROOT_BITS}"
            )
    return "no process has a tree: process table entries are 0, or not there"


QUADRANTS: Final = {0: "quadrant0", 3: "quadrant3"}
"""What gives the tree of a quadrant, where PTCR does not."""


def unsure(given: Mapping[str, int]) -> frozenset[str]:
    """What would give the trees of which nothing is known."""
    return frozenset() if "ptcr" in given else frozenset(QUADRANTS.values()) - given.keys()


def assumed(given: Mapping[str, int], source: str) -> Iterator[str]:
    """What is assumed of a processor of which a source has memory alone, a sentence each."""
    if "ptcr" in given and "pid" not in given:
        yield f"PIDR=0, since {source} does not record it (--pid)"
    for number, name in QUADRANTS.items():
        if name in unsure(given):
            yield f"nothing of quadrant {number} (--{name}, or --ptcr)"
    yield from left_open(given)


MARKS: Final = (
    "the processor sets neither R nor C, so that an access that needs one set faults, as on POWER9"
)


def left_open(given: Mapping[str, int]) -> Iterator[str]:
    """The same of what accesses depend on, whatever tables say."""
    yield from keys(given)
    yield MARKS


def keys(given: Mapping[str, int]) -> Iterator[str]:
    """That key 0 denies nothing, where AMR or IAMR is not given."""
    missing = [name for name in ("amr", "iamr") if name not in given]
    if missing:
        said = " and ".join(f"{name.upper()}=0" for name in missing)
        yield f"{said} ({', '.join(f'--{name}' for name in missing)})"
