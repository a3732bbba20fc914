"""The window: a page in a hole of the tested space, from which the stub makes its accesses.

EL0 and EL1 both execute it, so EL0 may read it and nobody may write it.  It has AF, so that no
engine writes to it or faults there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.check.hole import Hole, find_hole
from harness.machine.stub import StubImage
from harness.paging.address import Physical, Span
from harness.paging.arm64.cpu import Cpu
from harness.paging.memory import BufferMemory
from harness.paging.space import TableAllocator
from harness.paging.table import Slot, Table


@dataclass(frozen=True)
class Window:
    """The window in a space: its addresses, the slot that it fills, and the tables below that."""

    span: Span
    hole: tuple[Slot, ...]
    tables: tuple[Table, ...]


def open_window(
    memory: BufferMemory,
    cpu: Cpu,
    image: StubImage,
    allocator: TableAllocator,
    hole: Hole | None = None,
) -> Window:
    """Maps the window into the space of `cpu`, by tables of its own.

    hole  where to put it; found unless given

    Raises SpaceError where the space has no hole for it.
    """
    format = cpu.roots[0].table.format
    width = format.entry_bytes
    first, (slot, *_) = hole or find_hole(memory, cpu.roots, format.levels[1].size)
    tables = [allocator.allocate(format, level) for level in range(slot.level)]
    granted = format.granting("user", "user execute", "supervisor execute")
    leaf = format.leaf(Physical(image.user.start), 0, granted | format.accessed)
    memory.store(tables[0].slot(0).address, width, leaf)
    for table, way_in in zip(tables, (*(upper.slot(0) for upper in tables[1:]), slot), strict=True):
        memory.store(way_in.address, width, format.pointer(table.address, way_in.level, 0))
    return Window(Span.of(first, format.levels[0].size), (slot,), tuple(tables))


@contextmanager
def window_in(
    memory: BufferMemory, cpu: Cpu, image: StubImage, allocator: TableAllocator
) -> Iterator[Span]:
    """The span that the window takes while the block runs.

    Raises SpaceError where the space has no hole for it.
    """
    window = open_window(memory, cpu, image, allocator)
    try:
        yield window.span
    finally:
        for slot in window.hole:
            memory.store(slot.address, slot.table.format.entry_bytes, 0)
        for table in window.tables:
            allocator.free(table)
