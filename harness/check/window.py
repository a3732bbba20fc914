"""The window: pages in a hole of a tested space, from which the stub of a guest makes its accesses.

What these pages are is the architecture's: its module `window` has the entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from harness.check.hole import Hole, find_hole
from harness.machine.guest import StubGuest
from harness.machine.stub import StubImage
from harness.paging.address import Span
from harness.paging.format import Format
from harness.paging.memory import BufferMemory
from harness.paging.space import SpaceError, TableAllocator
from harness.paging.table import Root, Slot


class Entries(Protocol):
    """The entries of the window's pages, from its first on: `entries` of a module `window`."""

    def __call__(self, format: Format, image: StubImage) -> Sequence[int]: ...


@dataclass(frozen=True)
class Window:
    """The window in a space: its addresses, and the slot that it fills."""

    span: Span
    hole: tuple[Slot, ...]


def open_window(
    memory: BufferMemory,
    roots: Sequence[Root],
    image: StubImage,
    allocator: TableAllocator,
    entries: Entries,
    hole: Hole | None = None,
) -> Window:
    """Maps the window into a space, by tables of its own.

    hole  where to put it; found unless given

    Raises SpaceError where the space has no hole for it.
    """
    if hole is None:
        deep = [root for root in roots if root.table.level]
        if not deep:
            raise SpaceError(
                "no root has a table of tables with a free slot, where the machine maps the page of"
                " its own program: it needs one that both privileges may execute below"
            )
        hole = find_hole(memory, deep, min(root.table.format.levels[1].size for root in deep))
    first, (slot, *_) = hole
    format = slot.table.format
    tables = [allocator.allocate(format, level) for level in range(slot.level)]
    leaves = entries(format, image)
    for number, leaf in enumerate(leaves):
        memory.store(tables[0].slot(number).address, format.entry_bytes, leaf)
    for table, way_in in zip(tables, (*(upper.slot(0) for upper in tables[1:]), slot), strict=True):
        pointer = format.pointer(table.address, way_in.level, 0)
        memory.store(way_in.address, format.entry_bytes, pointer)
    span = Span.of(first, len(leaves) * format.levels[0].size)
    return Window(span, (slot,))


@contextmanager
def window_in(
    guest: StubGuest[Any, Any], memory: BufferMemory, roots: Sequence[Root], entries: Entries
) -> Iterator[Span]:
    """The span that the window takes, in a space in a guest's memory, while the block runs.

    Raises SpaceError where the space has no hole for it.
    """
    arena = guest.image.table_arena
    allocator = TableAllocator(memory, Span(arena.start, arena.stop - 1))
    window = open_window(memory, roots, guest.image, allocator, entries)
    try:
        yield window.span
    finally:
        for slot in window.hole:
            memory.store(slot.address, slot.table.format.entry_bytes, 0)
