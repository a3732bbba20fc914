"""What of s390's tables and registers may be changed to let an access pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from harness.inspect.remedy import Remedy
from harness.inspect.trial import Move, Moves, Register, giving
from harness.inspect.trial import remedies as tried
from harness.paging.address import Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.s390.access import Access, Allowed, Reason, outcome
from harness.paging.s390.cpu import PARTS, Cpu, Cr0
from harness.paging.s390.formats import INVALID, LENGTH, OFFSET, PAGE_INVALID
from harness.paging.walk import Step, Walk, walk


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not, the likeliest to be meant first."""
    return tried(_MOVES, cpu, memory, address, access)


def _walk(cpu: Cpu, memory: Memory, address: Virtual, _: Access) -> Walk | None:
    root = root_for(cpu, address)
    return None if root is None else walk(memory, root, address)


def _states(cpu: Cpu, _: Walk | None, reason: Reason, __: Access) -> Iterator[Cpu]:
    match reason:
        case Reason.LOW_ADDRESS:
            yield replace(cpu, cr0=cpu.cr0 & ~Cr0.LOW_ADDRESS_PROTECTION)
        case Reason.EXECUTE_DENIED:
            yield replace(cpu, cr0=cpu.cr0 & ~Cr0.IEP)
        case Reason.OUTSIDE:
            # Of a root's table that has not all entries, the fewest quarters more that will do.
            for quarters in range(cpu.designation.quarters + 1, PARTS + 1):
                yield replace(cpu, asce=replace(cpu.designation, quarters=quarters).raw)


def _entries(_: Cpu, found: Walk, reason: Reason, __: Access) -> Iterator[Move]:
    last = found.steps[-1]
    match reason:
        case Reason.NOT_PRESENT:
            yield from _validated(last)
        case Reason.RESERVED:
            yield from _wellformed(last)
        case Reason.OUTSIDE if found.outside is not None:
            yield _longer(last, found.outside.index)
        case Reason.WRITE_DENIED:
            yield from giving(found, "write")
        case Reason.EXECUTE_DENIED:
            yield from giving(found, "execute")


def _validated(step: Step) -> Iterator[Move]:
    """The entry without I, where it holds more than that."""
    slot, raw, entry = step
    assert isinstance(entry, Absent)
    mask = INVALID if slot.level else PAGE_INVALID
    level = slot.table.format.levels[slot.level]
    if level.shape(raw & ~mask).address_of(raw):
        yield Move(step, 0, mask)


def _wellformed(step: Step) -> Iterator[Move]:
    """The bits that make an entry malformed, as they must be."""
    slot, raw, entry = step
    assert isinstance(entry, Malformed)
    for part in slot.table.format.levels[slot.level].shape(raw).reserved:
        if wrong := (raw ^ part.value) & part.mask:
            yield Move(step, wrong & part.value, wrong & ~part.value)
            return


def _longer(step: Step, index: int) -> Move:
    """TF and TL of a pointer, by the fewest bits, such that its table has a slot."""
    slot, raw, _ = step
    entries = slot.table.format.levels[slot.level - 1].entries
    part = index // (entries // PARTS)
    new = raw
    for mask, numbers in ((OFFSET, range(part + 1)), (LENGTH, range(part, PARTS))):
        low = mask & -mask
        if (raw & mask) // low not in numbers:
            best = min(numbers, key=lambda one: (one * low ^ raw & mask).bit_count())
            new = new & ~mask | best * low
    return Move(step, new & ~raw, raw & ~new)


_MOVES: Final[Moves] = Moves(
    outcome=outcome,
    allowed=Allowed,
    walk=_walk,
    absent=Reason.NOT_PRESENT,
    unbacked=Reason.NO_MEMORY,
    entries=_entries,
    states=_states,
    registers={
        "cr0": Register(
            "CR0",
            {"IEP": int(Cr0.IEP), "low-address-protection": int(Cr0.LOW_ADDRESS_PROTECTION)},
            int(Cr0.IEP | Cr0.LOW_ADDRESS_PROTECTION),
        ),
        "asce": Register("ASCE", {"TL": PARTS - 1}),
    },
    page=lambda cpu, table, access: 0,
    pointer=lambda _: 0,
    address=lambda shape: shape.address_mask,
)
