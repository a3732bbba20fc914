"""The window: two pages in a hole of the tested space, from which the stub makes its accesses.

The supervisor executes the first and the user the second; both lead to the page of the stub that
holds the accesses.  They are accessed, so that no engine writes to them or faults there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.check.hole import Hole, find_hole
from harness.machine.stub import StubImage
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu
from harness.paging.space import TableAllocator
from harness.paging.table import Slot, Table

PAGES = 2


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
    format = cpu.format
    page, width = format.levels[0].size, format.entry_bytes
    first, (slot, *_) = hole or find_hole(memory, cpu.roots, format.levels[1].size)
    tables = [allocator.allocate(format, level) for level in range(slot.level)]
    shared = format.granting("read", "execute") | format.accessed
    code = Physical(image.user.start)
    for number, bits in enumerate((shared, shared | format.rights["user"])):
        memory.store(tables[0].slot(number).address, width, format.leaf(code, 0, bits))
    for table, way_in in zip(tables, (*(upper.slot(0) for upper in tables[1:]), slot), strict=True):
        memory.store(way_in.address, width, format.pointer(table.address, way_in.level, 0))
    return Window(Span.of(first, PAGES * page), (slot,), tuple(tables))


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
            memory.store(slot.address, cpu.format.entry_bytes, 0)
        for table in window.tables:
            allocator.free(table)
