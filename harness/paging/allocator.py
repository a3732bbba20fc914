"""Where tables come from, and where they go back to."""

from __future__ import annotations

from collections import defaultdict
from heapq import heappop, heappush
from threading import Lock

import numpy as np

from harness.paging.address import Physical, Span
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.format import Format
from harness.paging.memory import WritableMemory
from harness.paging.table import Table


class TableAllocator:
    """Hands out empty tables from a span of physical memory, lowest address first.

    remaining  how many more tables it gives before it claims to have none; None for as many
               as fit.  Tests set it to see a failure at every allocation in turn.
    next       the first address that was never part of a table

    Threads may share an allocator, and so may spaces.
    """

    def __init__(self, memory: WritableMemory, span: Span) -> None:
        self.memory = memory
        self.span = span
        self.next = span.first
        self.remaining: int | None = None
        self._levels: dict[int, int] = {}
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._lock = Lock()

    def allocate(self, format: Format, level: int) -> Table:
        """A new, empty table, aligned to its size; OutOfTables when no room is left."""
        size = format.table_bytes(level)
        with self._lock:
            address = self._take(size, level)
            self._levels[address] = level
        slots = np.arange(address, address + size, format.entry_bytes, dtype=np.uint64)
        empty = np.full(len(slots), format.levels[level].empty, np.uint64)
        self.memory.scatter(slots, format.entry_bytes, empty)
        return Table(format, Physical(address), level)

    def free(self, table: Table) -> None:
        """Takes a table back; SpaceError for one that is not out."""
        with self._lock:
            if self._levels.get(table.address) != table.level:
                raise SpaceError(f"{table} cannot be freed: it is not handed out")
            del self._levels[table.address]
            heappush(self._free[table.size], table.address)

    def gave(self, table: Table) -> bool:
        """Whether the table came from here, for that level, and is not back."""
        return self._levels.get(table.address) == table.level

    def _take(self, size: int, level: int) -> int:
        if self.remaining is not None:
            if not self.remaining:
                raise OutOfTables(f"no level-{level} table is to be had: the allowance is used up")
            self.remaining -= 1
        if self._free[size]:
            return heappop(self._free[size])
        address = -(-self.next // size) * size
        if address + size - 1 > self.span.last:
            raise OutOfTables(f"no room for a level-{level} table: {self.span} is used up")
        self.next = address + size
        return address
