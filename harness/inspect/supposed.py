"""Whether a fault that was seen may come of an entry that is not known.

Where a walk ends at an entry that was not given, or that a file lacks, entries are put in its
place, and in tables below it, and the access is asked again.  They are one of each kind: absent, a
page with every choice of rights and marks, what is malformed by each rule, one that leads nowhere.
What none of them gives may be given all the same, so that nothing is claimed of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, Final

from harness.inspect import architecture
from harness.inspect.fault import Explanation
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import free_tables
from harness.inspect.snapshot import Snapshot
from harness.inspect.trial import each
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.format import Format, Shape
from harness.paging.table import Slot, Table


def is_open(snapshot: Snapshot, one: Explanation) -> bool:
    """Whether what an access comes to depends on an entry that the machine has and the snapshot
    lacks."""
    found = one.translation
    return found.end is End.UNBACKED and (found.given is not None or snapshot.partial)


def depends(
    snapshot: Snapshot, explained: Sequence[Explanation], gives: Callable[[Any], bool]
) -> str | None:
    """What decides whether accesses give a fault, a phrase; None where they do not, by all that was
    tried.

    gives  whether an outcome is that fault
    """
    for one in explained:
        if is_open(snapshot, one) and any(map(gives, _outcomes(snapshot, one))):
            return _lacking(one)
    return None


def _lacking(one: Explanation) -> str:
    found = one.translation
    slot = found.walk and found.walk.unbacked
    assert slot is not None
    format = slot.table.format
    if found.given:
        return f"the {format.levels[slot.level].name}, which is not given"
    if found.partly:
        return f"{slot}, which lies outside memory"
    level = format.number(slot.level)
    return f"the level-{level} table at {slot.table.address:#x}, which lies outside memory"


def _outcomes(snapshot: Snapshot, one: Explanation) -> Iterator[Any]:
    """What an access comes to with one supposed entry after another."""
    found, asked = one.translation, architecture.of(one.cpu)
    slot = found.walk and found.walk.unbacked
    assert slot is not None
    for words in _supposed(slot, found.address):
        memory = Overlay(snapshot.memory, words)
        yield asked.outcome(one.cpu, memory, found.asked, one.access)


def _supposed(slot: Slot, address: Virtual) -> Iterator[Mapping[int, int]]:
    """Words of memory by which the walk of an address goes on from a slot and ends."""
    format, words = slot.table.format, dict[int, int]()
    free = free_tables(format, {slot.table.address})
    while True:
        level = slot.level
        yield from ({**words, slot.address: raw} for raw in _entries(format, level))
        if not level:
            return
        below = next(free)
        words[slot.address] = format.pointer(below, level, format.open_pointer(level))
        slot = Table(format, below, level - 1).slot_for(address)


CHANGED: Final = (
    "the entries are what the handler read after the fault, and another processor changed them in"
    " between"
)
"""Why entries that were given do not give a fault."""

_FIELD: Final = 1 << 4
"""Values of a field that are tried at most."""


def _entries(format: Format, level: int) -> Iterator[int]:
    """Entries of a level at which a walk ends."""
    here = format.levels[level]
    yield from (pattern.value for pattern in here.absent)
    for shape in here.shapes:
        start, marks = shape.clean.value, _marks(format, shape)
        full = start | marks  # which keeps a page one, where it is rights that tell it from a table
        yield from (full ^ bit for bit in each(shape.reserved_mask))
        yield full | shape.address_mask
        for chosen in _choices(marks):
            yield start | chosen
            for field in shape.bits.values():
                if field & (shape.taken | marks):
                    continue
                low = field & -field
                for value in range(1, min(field // low, _FIELD) + 1):
                    yield start | chosen | value * low & field


def _marks(format: Format, shape: Shape) -> int:
    """The bits of a shape that give rights or note accesses."""
    rights = format.rights_mask
    if shape.grants is not None:
        rights = reduce(or_, (one.mask for one in shape.grants.values()), 0)
    return (rights | format.accessed | format.dirty) & ~shape.taken


def _choices(mask: int) -> Iterator[int]:
    """All numbers with no bits but those of a mask."""
    chosen = mask
    while chosen:
        yield chosen
        chosen = chosen - 1 & mask
    yield 0
