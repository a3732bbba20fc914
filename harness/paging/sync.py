"""Root entries shared among spaces, as a kernel's half of the addresses is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Leaf, Pointer
from harness.paging.errors import SpaceError
from harness.paging.flush import Flush
from harness.paging.lock import held
from harness.paging.space import Space
from harness.paging.table import Slot


def sync_roots(reference: Space, spaces: Iterable[Space], span: Span) -> Flush:
    """Gives every space the root entries that the reference has for a span, both ends included.

    Spaces share the tables below them then.  These stay the reference's: the others read them,
    and do not change or free them.  What is to be flushed, where the machine may still hold that
    nothing was there before, is to be flushed in each of the spaces.

    An entry that a space has already must lead to where the reference's does; the rest of it,
    such as whether it was accessed, is that space's own.  SpaceError otherwise, and for a space
    of another format, with no space changed.
    """
    spaces = tuple(spaces)
    for space in spaces:
        if space.format is not reference.format:
            raise SpaceError(
                f"{space.format.name} has no use for entries of {reference.format.name}"
            )
    with held(space.lock(root.table) for space in (reference, *spaces) for root in space.roots):
        missing = [
            (space, slot, raw)
            for address, raw in _root_entries(reference, span)
            for space in spaces
            for slot in _unless_there(space, address, raw)
        ]
        for space, slot, raw in missing:
            space.put(slot, np.array([raw], np.uint64))
    flush = Flush()
    if missing and reference.flushing.absent:
        flush.add_everything()
    return flush


def _root_entries(space: Space, span: Span) -> Iterator[tuple[Virtual, int]]:
    """The root entries for a span that are not empty, each with the first address of its part."""
    for served in space.served(span):
        table = space.root_for(served.first).table
        for piece in served.pieces(space.format.levels[table.level].size):
            raw = space.read(table.slot_for(piece.first))
            if raw != space.format.levels[table.level].empty:
                yield Virtual(piece.first), raw


def _unless_there(space: Space, address: Virtual, raw: int) -> list[Slot]:
    """The root slot of an address if it is empty; SpaceError if it leads elsewhere than `raw`."""
    slot = space.root_for(address).table.slot_for(address)
    there = space.read(slot)
    if there == space.format.levels[slot.level].empty:
        return [slot]
    if _target(slot, raw) is None or _target(slot, there) != _target(slot, raw):
        raise SpaceError(
            f"{address:#x} cannot be shared: its level-{slot.level} entry is {there:#x} here,"
            f" {raw:#x} in the reference"
        )
    return []


def _target(slot: Slot, raw: int) -> Physical | None:
    """Where an entry leads."""
    entry = slot.table.format.decode(raw, slot.level)
    if isinstance(entry, Pointer):
        return entry.table.address
    return entry.address if isinstance(entry, Leaf) else None
