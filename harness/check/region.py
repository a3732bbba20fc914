"""A piece of a guest's RAM for code under test, which keeps its tables and frames there."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence

import numpy as np

from harness.check.keys import in_units
from harness.machine.ram import Ram
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.format import Format
from harness.paging.memory import Memory
from harness.paging.space import SpaceError
from harness.paging.table import Root

ALLOC = ctypes.CFUNCTYPE(ctypes.c_uint64)
"""`uint64_t alloc(void)`: the physical address of a frame, 0 where there is none."""

FREE = ctypes.CFUNCTYPE(None, ctypes.c_uint64)
"""`void free(uint64_t frame)`"""

FRAME = 1 << 12
"""Bytes of a frame: what the smallest page and every table takes."""

POISON = 0xA5
"""Every byte of a frame that is handed out.  Words of it are entries with reserved bits set, so
that a table that no one has cleared shows."""


class Region:
    """Memory from `address` on: its first frame, and others that are handed out one by one.

    address    the physical address of its first byte.  The frame there is the caller's, for a root
               table: it is zero, and never handed out
    size       how many bytes there are, all zero at first
    pointer    where this process has the first byte, for code that runs in it
    base       where this process would have physical address 0, to which physical addresses are
               added: RAM need not begin there
    alloc      what gives a frame, a function for C
    free       what takes one back, a function for C: where it was not out, `check` raises, since
               nothing can be raised through C
    remaining  how many more frames there are before there are none; None for as many as fit.  Tests
               set it to see a failure at every allocation in turn

    Code under test that is handed `alloc` has that first frame and what it allocates; code that is
    not may divide the region as it likes.
    """

    def __init__(self, ram: Ram, span: Span) -> None:
        self._ram, self.span = ram, span
        self.address, self.size = Physical(span.first), span.size
        self.base: int = ram.buffer.ctypes.data - ram.base
        self.pointer = self.base + self.address
        self.remaining: int | None = None
        self.alloc, self.free = ALLOC(self._alloc), FREE(self._take_back)
        self._next, self._free, self._out = span.first + FRAME, list[int](), set[int]()
        self._wrong: SpaceError | None = None
        ram.clear(range(span.first, span.last + 1))

    def frame(self) -> Physical:
        """The physical address of a frame, full of POISON; SpaceError where there is none."""
        if self.remaining == 0 or (not self._free and self._next + FRAME - 1 > self.span.last):
            raise SpaceError(f"the region {self.span} has no free frame")
        if self.remaining is not None:
            self.remaining -= 1
        if self._free:
            address = self._free.pop()
        else:
            address, self._next = self._next, self._next + FRAME
        self._out.add(address)
        self._fill(address, POISON)
        return Physical(address)

    def table(self) -> Physical:
        """The same with all bytes zero."""
        address = self.frame()
        self._fill(address, 0)
        return address

    def take_back(self, address: int) -> None:
        """Takes a frame back, which is the next to be handed out; SpaceError for one that is not
        out."""
        if address not in self._out:
            raise SpaceError(
                f"{address:#x} is not a frame that the region {self.span} has given, or it is back"
                " already"
            )
        self._out.remove(address)
        self._free.append(address)

    def check(self) -> None:
        """Raises, once, the SpaceError of the first frame that C gave back and that was not out."""
        wrong, self._wrong = self._wrong, None
        if wrong is not None:
            raise wrong

    def is_back(self, address: int) -> bool:
        """Whether a frame was handed out and is back."""
        return self.span.first < address < self._next and address not in self._out

    def _take_back(self, address: int) -> None:
        try:
            self.take_back(address)
        except SpaceError as error:
            self._wrong = self._wrong or error

    def _fill(self, address: int, octet: int) -> None:
        first = address - self._ram.base
        self._ram.buffer[first : first + FRAME] = octet

    def _alloc(self) -> int:
        try:
            return self.frame()
        except SpaceError:
            return 0


def _or_a_page(format: Format, level: int) -> str:
    """What else may be wrong where what was taken for a table is a page's frame."""
    above = format.levels[level + 1] if level + 1 < len(format.levels) else None
    if above is None or above.leaf is None:
        return ""
    page = f"a page of {in_units(above.size)}"
    change = "set PS in" if "PS" in above.leaf.bits else "have no pointer in"
    return f"; or, where {page} was meant, {change} the {above.name} that leads there"


def astray(
    memory: Memory,
    roots: Sequence[Root],
    regions: Sequence[Region],
    beside: Span,
    own: Collection[int] = (),
) -> str | None:
    """Which table of code that keeps its root in a region is none of its own, in a sentence: it
    lies outside all regions, or in a frame that was given back; None where there is none.

    beside  where it may share tables that the library made
    own     the addresses of tables that the harness has there for itself
    """
    if not any(root.table.address in region.span for root in roots for region in regions):
        return None
    tables = bulk.leaves(memory, roots, limit=0).tables
    for address, level in zip(tables.address.tolist(), tables.level.tolist(), strict=True):
        mine = next((region for region in regions if address in region.span), None)
        if mine is None and address not in beside and address not in own:
            spans = " and ".join(str(region.span) for region in regions)
            return (
                f"the table at {address:#x}, level {level}, lies outside the region {spans}: no one"
                " has handed out that memory, and an entry leads there"
            )
        if mine is not None and mine.is_back(address):
            return (
                f"the table at {address:#x}, level {level}, is a frame that was given back to the"
                f" region {mine.span}, and an entry still leads there"
            )
    return None


def uncleared(memory: Memory, roots: Sequence[Root]) -> str | None:
    """Which table is a frame as a region hands it out, never cleared, in a sentence; None where
    there is none.

    The topmost is named.  Its first or its last entry is as it was: few tables have both in use.
    """
    format = roots[0].table.format
    width = format.entry_bytes
    poison = int.from_bytes([POISON] * width)
    tables = bulk.leaves(memory, roots, limit=0).tables
    for level in reversed(range(len(format.levels))):
        addresses = tables.address[tables.level == level]
        slots = np.arange(0, format.table_bytes(level), width, dtype=np.uint64)
        ends, _ = memory.gather((addresses[:, None] + slots[[0, -1]]).ravel(), width)
        found = addresses[(ends.reshape(-1, 2) == poison).any(axis=1)]
        if len(found):
            words, _ = memory.gather(found[0] + slots, width)
            return (
                f"the table at {found[0]:#x}, level {level}, was not cleared: of its {len(slots)}"
                f" entries {int((words == poison).sum())} are {poison:#x}, with which a region"
                " fills each frame that it hands out. Clear it before use, or take it from"
                f" region.table(){_or_a_page(format, level)}"
            )
    return None
