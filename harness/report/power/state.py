"""The state of a POWER processor, in words and as what JSON can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from harness.paging.power.cpu import Cpu, is_supported, root_address


def root(address: int) -> str:
    """What leads to the root of an address."""
    return f"quadrant {address >> 62}"


def notes(cpu: Cpu) -> Iterator[str]:
    """What there is to know of a state before anything that is said of its tables, a sentence
    each."""
    for name, key in (("AMR", cpu.amr >> 62), ("IAMR", cpu.iamr >> 62 & 1)):
        denied = {"AMR": ("", "reads", "writes", "reads or writes"), "IAMR": ("", "fetches")}
        if key:
            yield (
                f"Key 0 of {name} is {key}, so that privileged code {denied[name][key]} nothing of"
                " the pages of problem state."
            )


def root_text(cpu: Cpu, lost: Collection[str] = ()) -> str:
    """The process table entries of the quadrants, and where they lead; `lost` are those that were
    not given."""
    return "; ".join(
        f"quadrant {number} {_root(one, f'quadrant{number}' in lost)}" for number, one in _each(cpu)
    )


def _each(cpu: Cpu) -> Iterator[tuple[int, int | None]]:
    yield 0, cpu.quadrant0
    yield 3, cpu.quadrant3


def _root(descriptor: int | None, lost: bool) -> str:
    if lost:
        return "not given"
    if descriptor is None:
        return "without a process"
    if not descriptor:
        return "0x0 (no tree)"
    if not is_supported(descriptor):
        return f"{descriptor:#x} (a tree that is not supported)"
    return f"{descriptor:#x} (root at {root_address(descriptor):#x})"


def rows(cpu: Cpu, lost: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """The registers of a state, and what they hold; `lost` are those that were not given."""
    for number, one in _each(cpu):
        yield f"quadrant {number}", _root(one, f"quadrant{number}" in lost)
    yield "AMR", f"{cpu.amr:#x}"
    yield "IAMR", f"{cpu.iamr:#x}"


def as_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return {
        "architecture": cpu.architecture,
        **{f"quadrant{number}": None if one is None else hex(one) for number, one in _each(cpu)},
        "amr": hex(cpu.amr),
        "iamr": hex(cpu.iamr),
        "roots": [_root_object(number, one) for number, one in _each(cpu)],
        "smallest_page": 1 << cpu.page_bits,
        "sets_marks": cpu.sets_marks,
    }


def _root_object(number: int, descriptor: int | None) -> dict[str, Any]:
    there = descriptor is not None and is_supported(descriptor)
    return {
        "quadrant": number,
        "root": hex(root_address(descriptor)) if there and descriptor is not None else None,
    }


def ungiven(_: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What of that is another where the trees of quadrants are not given."""
    return dict.fromkeys(names)


def rootless(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of that is another where it is not known where the root is."""
    return {
        "quadrant0": None,
        "quadrant3": None,
        "roots": [{**one, "root": None} for one in found["roots"]],
    }
