"""One slot of a space at a time, at any level: read, set, cleared, stepped from, walked down.

These are what code is made of that goes through tables by itself; `Space` works on ranges.
A slot is a place and a `Value` what stands there, and both are values: a step returns a new
slot.  No slot stands for a root; `root` gives the one in which the walk of an address begins.
"""

from __future__ import annotations

import warnings

import numpy as np

from harness.paging.address import Virtual
from harness.paging.bits import stale
from harness.paging.entry import Pointer
from harness.paging.errors import SpaceError
from harness.paging.flush import Flush
from harness.paging.lock import TableLock
from harness.paging.space import Space
from harness.paging.table import Slot, Table
from harness.paging.tree import Run
from harness.paging.value import Value


def root(space: Space, address: Virtual) -> Slot:
    """The slot of the root table that spans an address."""
    return space.root_for(address).table.slot_for(address)


def value(space: Space, slot: Slot) -> Value:
    """What stands in the slot; SpaceError where there is no memory."""
    return Value(space.format, slot.level, space.read(slot))


def is_empty(space: Space, slot: Slot) -> bool:
    """Whether the slot is as in a new table."""
    return space.read(slot) == space.format.levels[slot.level].empty


def table(space: Space, slot: Slot) -> Table:
    """The table that the slot points to; SpaceError if it points to none."""
    entry = value(space, slot).entry
    if not isinstance(entry, Pointer):
        raise SpaceError(f"{describe(space, slot)}, which leads to no table")
    return entry.table


def walk(space: Space, slot: Slot, address: Virtual) -> Slot:
    """The slot for an address one level down; SpaceError unless the slot points to a table."""
    return table(space, slot).slot_for(address)


def walk_alloc(space: Space, slot: Slot, address: Virtual, table_bits: int | None = None) -> Slot:
    """As `walk`, but a table is put into an empty slot before.

    Raises SpaceError where something else than a table stands, and OutOfTables.
    """
    if is_empty(space, slot):
        populate(space, slot, table_bits)
    return walk(space, slot, address)


def populate(space: Space, slot: Slot, table_bits: int | None = None) -> None:
    """Puts a new table into an empty slot; does nothing if another thread was faster.

    It is allocated without a lock, and given back if the slot is found filled under the lock.

    Raises SpaceError at level 0, and OutOfTables.
    """
    if not slot.level:
        raise SpaceError(f"{slot} can point to no table")
    bits = space.format.open_pointer(slot.level) if table_bits is None else table_bits
    made, pointer = space.new_table(slot.level - 1, bits)
    with lock(space, slot):
        if is_empty(space, slot):
            space.link(slot, made, pointer)
            return
    space.allocator.free(made)


def following(slot: Slot) -> Slot:
    """The next slot of the same table; IndexError after the last."""
    return slot.table.slot(slot.index + 1)


def preceding(slot: Slot) -> Slot:
    """The slot before in the same table; IndexError before the first."""
    return slot.table.slot(slot.index - 1)


def lock(space: Space, slot: Slot) -> TableLock:
    """The lock of the slot's table, for `with`; see `harness.paging.lock` for the order."""
    return space.lock(slot.table)


def put(space: Space, slot: Slot, value: Value, address: Virtual) -> Flush:
    """Writes a value of the slot's own level; to be done under the slot's lock.

    A table that the slot pointed to stays the space's until that is torn down.

    address  one that the slot spans, at which the machine may hold what stood there

    Raises SpaceError for a value of another level or format, and for an address that does not
    use the slot.
    """
    if value.level != slot.level or value.format is not space.format:
        raise SpaceError(f"{value} cannot stand in {slot}")
    tables = space.path(address, slot.level)
    if tables[-1].slot_for(address) != slot:
        raise SpaceError(f"{address:#x} does not use {slot}")
    before, after = (np.array([raw], np.uint64) for raw in (space.read(slot), value.raw))
    wide = space.is_shared(tables) or Value(space.format, slot.level, int(before[0])).points
    flush = Flush()
    run = Run(slot, Virtual(address & -slot.size), before, shared=wide)
    space.break_before(slot, before, after, flush)
    space.write(slot, value.raw)
    space.forget(run, after, flush)
    return flush


def clear(space: Space, slot: Slot, address: Virtual) -> Flush:
    """Leaves nothing in the slot; otherwise as `put`."""
    empty = space.format.levels[slot.level].empty
    return put(space, slot, Value(space.format, slot.level, empty), address)


def describe(space: Space, slot: Slot) -> str:
    """The slot and what stands in it, for messages."""
    return f"{slot} holds {value(space, slot)}"


def clear_bad(space: Space, slot: Slot) -> Flush:
    """Clears an entry that cannot be right, with a RuntimeWarning that says what it was.

    Nothing needs to be flushed if it was malformed, unless the machine keeps such entries
    (RISC-V): everything then, since nobody said at what addresses the slot is reached.
    """
    warnings.warn(f"cleared: {describe(space, slot)}", RuntimeWarning, stacklevel=2)
    empty = space.format.levels[slot.level].empty
    before, after = (np.array([raw], np.uint64) for raw in (space.read(slot), empty))
    space.write(slot, empty)
    flush = Flush()
    if stale(space.format, slot.level, before, after).any():
        flush.add_everything()
        space.settle(flush)
    return flush


def none_or_clear_bad(space: Space, slot: Slot, flush: Flush | None = None) -> bool:
    """Whether there is nothing to walk down to; a malformed entry is cleared first.

    flush  takes what must be flushed for that; needed where the machine keeps malformed entries
           (RISC-V), and SpaceError is raised there without it
    """
    found = value(space, slot)
    if found.bad:
        if flush is None and space.flushing.faults:
            raise SpaceError(
                f"{describe(space, slot)}, which the machine may keep: to clear it takes a Flush"
            )
        cleared = clear_bad(space, slot)
        if flush is not None:
            flush.absorb(cleared)
    return found.none or found.bad
