"""The window: two pages in a hole of the tested space, from which the stub makes its accesses.

The supervisor executes the first and the user the second; both lead to the page of the stub that
holds the accesses.  They are accessed, so that no engine writes to them or faults there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.check.hole import find_hole
from harness.machine.stub import StubImage
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu
from harness.paging.space import TableAllocator

PAGES = 2


@contextmanager
def window_in(
    memory: BufferMemory, cpu: Cpu, image: StubImage, allocator: TableAllocator
) -> Iterator[Span]:
    """The span that the window takes, by a table of its own, while the block runs.

    Raises SpaceError where the space has no hole for it.
    """
    format = cpu.format
    page, width = format.levels[0].size, format.entry_bytes
    first, (slot, *_) = find_hole(memory, cpu.roots, format.levels[1].size)
    tables = [allocator.allocate(format, level) for level in range(slot.level)]
    shared = format.granting("read", "execute") | format.accessed
    code = Physical(image.user.start)
    for number, bits in enumerate((shared, shared | format.rights["user"])):
        memory.store(tables[0].slot(number).address, width, format.leaf(code, 0, bits))
    for table, way_in in zip(tables, (*(upper.slot(0) for upper in tables[1:]), slot), strict=True):
        memory.store(way_in.address, width, format.pointer(table.address, way_in.level, 0))
    try:
        yield Span.of(first, PAGES * page)
    finally:
        memory.store(slot.address, width, 0)
        for table in tables:
            allocator.free(table)
