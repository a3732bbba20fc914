"""The state in which tables are read, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.inspect.snapshot import Snapshot
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode
from harness.paging.x86.formats import PCD, PWT
from harness.report.visible import visible

_PCID: Final = (1 << 12) - 1
"""The bits of CR3 that hold the PCID where CR4.PCIDE=1 (SDM 4.5.2)."""


def head_lines(snapshot: Snapshot) -> Iterator[str]:
    """What was looked at, by which CR3, and what there is to know of it."""
    known = snapshot.given is None or snapshot.cpu.base not in snapshot.given.unplaced
    cr3 = cr3_text(snapshot.cpu) if known else "CR3 not given"
    yield f"{visible(snapshot.title)}, {cr3}"
    yield from (f"Note: {sentence}" for sentence in notes(snapshot))


def notes(snapshot: Snapshot) -> Iterator[str]:
    """What there is to know of a snapshot before anything that is said of it, a sentence each."""
    if not snapshot.cpu.wp:
        yield (
            "CR0.WP=0, so the supervisor writes to every page that it can reach, whatever the"
            " entries withhold (SDM volume 3A, 4.6.1)."
        )
    yield from snapshot.notes


def cr3_text(cpu: Cpu) -> str:
    """CR3, and where it has other bits than an address, where it leads and what these are."""
    rest = list(_rest(cpu))
    if not rest:
        return f"CR3 {cpu.cr3:#x}"
    what = "PDPTEs" if cpu.mode is Mode.PAE else "root"
    return f"CR3 {cpu.cr3:#x} ({what} at {cpu.base:#x}; {', '.join(rest)})"


def _rest(cpu: Cpu) -> Iterator[str]:
    """What the bits of CR3 are that are no part of the address (SDM 4.3, 4.4.1, 4.5.2)."""
    left = cpu.cr3 & ~cpu.base
    mark = cpu.mark
    if mark is not None and left & 1 << mark.bit:
        yield f"{1 << mark.bit:#x} is the {mark.name} bit"
        left &= ~(1 << mark.bit)
    named: list[tuple[str, int]] = [("PWT", PWT), ("PCD", PCD)]
    if cpu.long:
        if cpu.cr4 & Cr4.PCIDE:
            named = []
            if left & _PCID:
                yield f"PCID {left & _PCID:#x}"
            left &= ~_PCID
        named += [(str(bit.name), int(bit)) for bit in Cr3]
    for name, bit in named:
        if left & bit:
            yield f"{bit:#x} is {name}"
        left &= ~bit
    if left:
        yield f"{left:#x} is ignored"
