"""Pages moved to other addresses, split into smaller ones, collapsed into a larger one.

A space must be left alone by other threads meanwhile.
"""

from __future__ import annotations

import numpy as np

from harness.paging.address import Span, Virtual, aligned
from harness.paging.bits import attributes, grouped, ungrouped, withheld
from harness.paging.entry import Leaf
from harness.paging.errors import SpaceError
from harness.paging.flush import Flush
from harness.paging.lock import held
from harness.paging.space import Batch, Space
from harness.paging.tree import Run


def move(space: Space, span: Span, to: Virtual, table_bits: int | None = None) -> Flush:
    """Moves all that the span holds to `to` and up, where nothing may be.

    Rights that tables withhold do not move along; `table_bits` is as for `Space.map`.

    Raises SpaceError as `map` and `unmap` do, where the two ranges overlap, and for a page
    whose size the distance is not a multiple of.
    """
    space.root_for(to)
    target, distance = Span.of(to, span.size), to - span.first
    if target.clip(span):
        raise SpaceError(f"{span} cannot be moved to {target}: they overlap")
    for run in space.runs(target):
        if run.filled.any():
            taken = run.trimmed()
            raise SpaceError(
                f"{taken.first:#x} is taken: its level-{run.level} entry is {int(taken.raw[0]):#x}"
            )
    runs = space.filled(span)
    space.clear_ground([_moved(space, run, distance) for run in runs], table_bits)
    flush = Flush()
    for run in runs:
        with space.lock(run.slot.table):
            now = run._replace(raw=space.words(run.slot, len(run.raw)))
            gone = space.format.levels[run.level].emptied(now.raw)
            space.break_before(run.slot, now.raw, gone, flush)
            space.put(run.slot, gone)
        space.forget(now, gone, flush)
        flush.absorb(space.place([_moved(space, now, distance)]))
    return flush


def split(space: Space, address: Virtual) -> Flush:
    """Makes the page at `address` many of the next smaller size, alike in all else.

    Raises SpaceError where there is no page, or none smaller, and OutOfTables.
    """
    run = space.run(address, address)
    format, slot, raw = space.format, run.slot, int(run.raw[0])
    entry, level = format.decode(raw, slot.level), slot.level - 1
    flush = Flush()
    if isinstance(entry, Leaf) and entry.size > slot.size:
        with space.lock(slot.table):
            space.ungroup(address, flush)
        return flush
    if not isinstance(entry, Leaf) or level < 0:
        raise SpaceError(
            f"{address:#x} lies in no page that can be split: its level-{slot.level} entry"
            f" is {raw:#x}"
        )
    below = format.levels[level]
    size = max(below.page_size(shape) for shape in below.pages)
    bits = space.carried(address, attributes(format, slot.level, raw), slot.level, level)
    frames = np.arange(entry.address, entry.address + entry.size, size, dtype=np.uint64)
    leaves = space.leaves(run.first, frames, level, bits, size)
    table, pointer = space.new_table(level, format.open_pointer(slot.level))
    space.put(table.slot(0), leaves)
    after = np.array([pointer], np.uint64)
    with space.lock(slot.table):
        space.break_before(slot, run.raw, after, flush)
        space.link(slot, table, pointer)
    space.forget(run, after, flush)
    return flush


def collapse(space: Space, address: Virtual, level: int) -> Flush:
    """Makes one page at `level` of the table that spans `address` there.

    The table must be full of pages that lie one after the other and are alike; the large page
    is accessed and dirty if any of them is, lacks the rights that the pointer withheld, and is
    global where the pointer said so.

    Raises SpaceError where that is not so, or the frames are not aligned for such a page.
    """
    format, lower = space.format, level - 1
    tables = space.path(address, max(lower, 0))
    if tables[-1].level != lower:
        raise SpaceError(f"{address:#x} has no level-{lower} table to make a page of")
    slot, table = tables[-2].slot_for(address), tables[-1]
    first, flush = Virtual(address & -slot.size), Flush()
    with held([space.lock(slot.table), space.lock(table)]):
        run = space.run(first, first + slot.size - 1)
        bits, frame = _alike(space, run, lower)
        pointer = space.read(slot)
        bits = space.carried(first, bits, lower, level)
        if space.flushing.lasting_tables:
            bits |= pointer & format.lasting
        leaf = space.leaves(first, np.array([frame], np.uint64), level, bits)
        withhold = format.rights_mask & ~format.granted(pointer, level)
        space.forget_table(slot, first, pointer, run.shared, flush)
        after = withheld(format, level, leaf, withhold)
        space.break_before(slot, np.array([pointer], np.uint64), after, flush)
        space.put(slot, after)
    space.forget(run, format.levels[run.level].emptied(run.raw), flush)
    space.drop(table, flush)
    return flush


def _alike(space: Space, run: Run, level: int) -> tuple[int, int]:
    """What the page has besides its address that is made of all pages of a full table, each of
    which is alike but for being accessed or dirty, and its address."""
    format = space.format
    used = np.uint64(format.accessed | format.dirty)
    size, entries = format.levels[level].size, format.levels[level].entries
    raw = ungrouped(format, run.level, run.raw, run.addresses)
    entry = format.decode(int(raw[0]), run.level)
    if isinstance(entry, Leaf) and run.level == level:
        bits = attributes(format, level, int(raw[0])) & ~int(used)
        frames = np.uint64(entry.address) + np.arange(entries, dtype=np.uint64) * np.uint64(size)
        if np.array_equal(raw & ~used, space.leaves(run.first, frames, level, bits)):
            return bits | int(np.bitwise_or.reduce(raw) & used), entry.address
    raise SpaceError(
        f"the level-{level} table at {run.first:#x} is not full of pages that are alike and lie"
        " one after the other"
    )


def _moved(space: Space, run: Run, distance: int) -> Batch:
    size = run.slot.size
    for shape in space.format.levels[run.level].groups:
        if grouped(space.format, run.level, run.raw).any():
            size = space.format.levels[run.level].page_size(shape)
    if not aligned(distance, size):
        raise SpaceError(
            f"the page of {size:#x} bytes at {run.first:#x}, level {run.level}, cannot be"
            f" moved by {distance:#x} bytes: split it first"
        )
    return Batch(Virtual(run.first + distance), run.level, run.raw)
