"""What else an access comes to where what was assumed of the processor is not so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import Translation
from harness.inspect.x86.likely import NARROWEST, highest_bit
from harness.paging.x86.access import Allowed, Fault, Outcome, Unbacked
from harness.paging.x86.cpu import Cpu, Efer, Mode
from harness.paging.x86.formats import ADDRESS


def others(snapshot: Snapshot, found: Translation) -> Iterator[tuple[str, str, Cpu]]:
    """The processors that read these entries in another way, where what decides it is assumed: what
    was, and what it is there."""
    cpu = snapshot.cpu
    if cpu.mode is Mode.BITS_32:
        return
    if "efer" in snapshot.unsure:
        names = [f"EFER.NXE={int(nxe)}" for nxe in (cpu.nxe, not cpu.nxe)]
        yield names[0], names[1], replace(cpu, efer=cpu.efer ^ Efer.NXE)
    if "maxphyaddr" not in snapshot.unsure:
        return
    told, entries = f"MAXPHYADDR={cpu.maxphyaddr}", [stage.reading for stage in found.stages]
    highest = highest_bit(*(reading.entry for reading in entries))
    if highest >= NARROWEST:
        yield told, f"MAXPHYADDR={highest} or less", replace(cpu, maxphyaddr=highest)
    wrong = [one.raw & part.mask & ADDRESS for one in entries for part in one.parts if part.wrong]
    if wrong and (width := max(wrong).bit_length()) > cpu.maxphyaddr:
        yield told, f"MAXPHYADDR={width} or more", replace(cpu, maxphyaddr=width)


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether an access ends in the same way: at the same place, or by the same error code."""
    if isinstance(one, Fault) and isinstance(other, Fault):
        return (one.vector, one.error) == (other.vector, other.error)
    if isinstance(one, Allowed) and isinstance(other, Allowed):
        return one.physical == other.physical
    return isinstance(one, Unbacked) and isinstance(other, Unbacked)
