"""Room in a tested space for what is the harness's: slots that hold nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from operator import itemgetter

from harness.check.keys import in_units
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.entry import Pointer
from harness.paging.memory import BufferMemory
from harness.paging.space import SpaceError
from harness.paging.table import Root, Slot

Hole = tuple[Virtual, tuple[Slot, ...]]
"""Absent slots side by side, and the first address that they span."""


def find_hole(
    memory: BufferMemory, roots: Iterable[Root], size: int, kept: Collection[Span] = ()
) -> Hole:
    """Absent slots that span `size` bytes: one at the lowest level that can, or several in a root
    table where no level can.

    The tables above it grant every right and are reached in one way only, so that what is
    mapped there is not seen elsewhere but as data, through a self-map.  Nothing of it is in a span
    that is `kept`.  Raises SpaceError where there is none.
    """
    roots = tuple(roots)
    shared = _seen_elsewhere(memory, roots)
    for level, root in sorted(_fitting(roots, size), key=itemgetter(0)):
        count = -(-size // root.table.format.levels[level].size)
        hole = _hole(memory, root.slots(), level, count, shared, kept)
        if hole is not None:
            return hole
    raise SpaceError(
        f"the tables leave no {in_units(size)} of addresses free, at which the machine maps its own"
        " program and RAM: leave that many empty, side by side, in the root's table or in one to"
        " which a single entry leads, with every right"
    )


def _fitting(roots: Iterable[Root], size: int) -> Iterator[tuple[int, Root]]:
    """The levels at which a slot below a root spans so much, or the root's where none does."""
    for root in roots:
        levels = root.table.format.levels
        fitting = [n for n, level in enumerate(levels) if level.size >= size]
        for level in fitting or [len(levels) - 1]:
            yield level, root


def _seen_elsewhere(memory: BufferMemory, roots: tuple[Root, ...]) -> set[tuple[int, int]]:
    """Tables, by address and level, whose entries are seen in other places too: by another path,
    or at a higher level, where what is a page here would be a table."""
    tables = bulk.leaves(memory, roots, limit=0).tables
    found = (tables.address.tolist(), tables.level.tolist(), tables.paths.tolist())
    rows, highest = list(zip(*found, strict=True)), dict[int, int]()
    for address, level, _ in rows:
        highest[address] = max(level, highest.get(address, level))
    return {
        (address, level) for address, level, paths in rows if paths > 1 or level < highest[address]
    }


def find_root_hole(memory: BufferMemory, root: Root) -> Hole:
    """An absent slot of a root table, from the middle of the root's span on, where few programs
    have anything: a space that changes has nothing beside it, now or later.

    Raises SpaceError where there is none.
    """
    middle = len(root.indices) // 2
    for index in (*root.indices[middle:], *root.indices[:middle]):
        slot = root.table.slot(index)
        if memory.load(slot.address, slot.table.format.entry_bytes) == 0:
            return root.first_address(index), (slot,)
    raise SpaceError(
        f"{root.table} has no empty slot, of which the machine needs one to map its own program and"
        " RAM"
    )


def _hole(
    memory: BufferMemory,
    slots: Iterable[tuple[Virtual, Slot]],
    level: int,
    count: int,
    shared: set[tuple[int, int]],
    kept: Collection[Span],
) -> Hole | None:
    found: list[tuple[Virtual, Slot]] = []
    passed: set[int] = set()
    for first, slot in slots:
        format = slot.table.format
        raw = memory.load(slot.address, format.entry_bytes)
        if slot.level == level:
            kept_by_some = any(one.clip(Span.of(first, slot.size)) for one in kept)
            found = [] if raw or kept_by_some else [*found, (first, slot)]
            if len(found) == count:
                return found[0][0], tuple(slot for _, slot in found)
        elif raw and raw not in passed and format.granted(raw, slot.level) == format.rights_mask:
            passed.add(raw)  # what two entries lead to is seen elsewhere
            entry = format.decode(raw, slot.level)
            if not isinstance(entry, Pointer):
                continue
            if (entry.table.address, entry.table.level) not in shared:
                below = ((Virtual(first + s.index * s.size), s) for s in entry.table.slots())
                hole = _hole(memory, below, level, count, shared, kept)
                if hole is not None:
                    return hole
    return None
