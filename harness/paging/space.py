"""A space under construction: maps pages, allocating the tables on the way.

Only a space changes memory, and a request that it refuses changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.paging.address import Physical, Span, Virtual, aligned
from harness.paging.entry import Pointer
from harness.paging.format import Format
from harness.paging.memory import Words, WritableMemory
from harness.paging.table import Root, Slot, Table


class SpaceError(ValueError):
    """A request that a space cannot fulfil; the space is as it was before."""


class TableAllocator:
    """Hands out empty tables from a span of physical memory, lowest address first."""

    def __init__(self, memory: WritableMemory, span: Span) -> None:
        self.memory = memory
        self.span = span
        self.next = span.first

    def allocate(self, format: Format, level: int) -> Table:
        """A new, empty table, aligned to its size; SpaceError when no room is left."""
        size = format.table_bytes(level)
        address = -(-self.next // size) * size
        if address + size - 1 > self.span.last:
            raise SpaceError(f"no room for a level-{level} table: {self.span} is used up")
        self.next = address + size
        table = Table(format, Physical(address), level)
        slots = np.arange(address, self.next, format.entry_bytes, dtype=np.uint64)
        self.memory.scatter(slots, format.entry_bytes, np.zeros(len(slots), np.uint64))
        return table


class Space:
    """An address space: the roots where its walks begin, and the tables below them.

    memory     holds the tables
    roots      where walks begin, for instance `Cpu.roots`; their tables exist already
    allocator  where further tables come from
    """

    def __init__(
        self, memory: WritableMemory, roots: tuple[Root, ...], allocator: TableAllocator
    ) -> None:
        self.memory = memory
        self.roots = roots
        self.allocator = allocator
        self.format = roots[0].table.format

    def map(
        self,
        first: Virtual,
        frames: Words,
        level: int,
        bits: int,
        table_bits: int | None = None,
    ) -> None:
        """Maps pages of the size of `level`, one after the other from `first` on.

        frames      physical address of each page, uint64, shape (n,)
        bits        what the leaves hold besides the address
        table_bits  what new pointers hold besides the address; all rights unless given

        Raises SpaceError for a page size that the format lacks, a misaligned or too wide
        address, a bit that a leaf may not have, a range that no root serves, pages that
        overlap with what is there, and memory exhausted.
        """
        raw = self._leaves(first, frames, level, bits)
        pieces = list(self._pieces(first, len(frames), level))
        for piece in pieces:
            self._check_free(piece, level)
        slots = self._slots([Virtual(piece.first) for piece in pieces], level, table_bits)
        size = self.format.levels[level].size
        for piece, slot in zip(pieces, slots, strict=True):
            index = (piece.first - first) // size
            self.memory.scatter(
                self._addresses(slot, piece.size // size),
                self.format.entry_bytes,
                raw[index : index + piece.size // size],
            )

    def slot(self, address: Virtual, level: int, table_bits: int | None = None) -> Slot:
        """The slot of `address` at `level`, the tables above it allocated as needed.

        Raises SpaceError where something else than a table is in the way, where no root
        serves the address, and when memory is exhausted.
        """
        return self._slots([address], level, table_bits)[0]

    def write(self, slot: Slot, raw: int) -> None:
        """Writes one raw entry, whatever it says."""
        self.memory.store(slot.address, self.format.entry_bytes, raw)

    def read(self, slot: Slot) -> int:
        """The raw entry in a slot; SpaceError where there is no memory."""
        raw = self.memory.load(slot.address, self.format.entry_bytes)
        if raw is None:
            raise SpaceError(f"{slot} has no memory behind it")
        return raw

    def _leaves(self, first: Virtual, frames: Words, level: int, bits: int) -> Words:
        """The entries that map `frames`."""
        leaf = self.format.levels[level].leaf if level < len(self.format.levels) else None
        if leaf is None:
            known = ", ".join(map(str, self.format.page_levels()))
            raise SpaceError(f"{self.format.name} has pages at levels {known}, not at {level}")
        try:
            attributes = self.format.leaf(0, level, bits)
            for frame in {int(frames.min()), int(frames.max())} if len(frames) else ():
                leaf.encode(frame)
            low = int(np.bitwise_or.reduce(frames)) & self.format.levels[level].size - 1
            leaf.encode(low)
        except ValueError as error:
            raise SpaceError(f"cannot map at {first:#x}, level {level}: {error}") from None
        raw = np.full(len(frames), attributes, np.uint64)
        for mask, shift in leaf.address:
            raw |= frames >> np.uint64(shift) & np.uint64(mask)
        return raw

    def _pieces(self, first: Virtual, pages: int, level: int) -> Iterable[Span]:
        """The range cut where a new table begins."""
        here = self.format.levels[level]
        if not aligned(first, here.size):
            raise SpaceError(f"{first:#x} is no multiple of the page size {here.size:#x}")
        if not pages:
            return ()
        span = Span.of(first, pages * here.size)
        root = self._root(first)
        if not root.span.covers(span):
            raise SpaceError(f"{span} leaves {root.span}, the addresses that its root serves")
        return span.pieces(here.size * here.entries)

    def _check_free(self, span: Span, level: int) -> None:
        """SpaceError unless nothing is there for the pages of one table."""
        table = self._root(Virtual(span.first)).table
        while table.level > level:
            slot = table.slot_for(span.first)
            raw = self.read(slot)
            if not raw:
                return
            table = self._pointed(slot, raw, span.first)
        slot = table.slot_for(span.first)
        size = self.format.levels[level].size
        words, backed = self.memory.gather(
            self._addresses(slot, span.size // size), self.format.entry_bytes
        )
        taken = words != 0 if backed is None else (words != 0) | ~backed
        if taken.any():
            index = int(taken.argmax())
            raise SpaceError(
                f"{span.first + index * size:#x} is taken:"
                f" its level-{level} entry is {int(words[index]):#x}"
            )

    def _slots(
        self, addresses: Iterable[Virtual], level: int, table_bits: int | None
    ) -> list[Slot]:
        """The slots of several addresses at one level; all tables are allocated or none."""
        if table_bits is None:
            table_bits = self.format.granting(*self.format.rights)
        mark, made = self.allocator.next, list[Slot]()
        try:
            return [self._slot(address, level, table_bits, made) for address in addresses]
        except SpaceError:
            for slot in made:
                self.write(slot, 0)
            self.allocator.next = mark
            raise

    def _slot(self, address: Virtual, level: int, table_bits: int, made: list[Slot]) -> Slot:
        table = self._root(address).table
        if not 0 <= level <= table.level:
            raise SpaceError(f"{self.format.name} has levels 0 to {table.level}, not {level}")
        while table.level > level:
            slot = table.slot_for(address)
            raw = self.read(slot)
            if raw:
                table = self._pointed(slot, raw, address)
                continue
            table = self.allocator.allocate(self.format, slot.level - 1)
            try:
                self.write(slot, self.format.pointer(table.address, slot.level, table_bits))
            except ValueError as error:
                raise SpaceError(f"no table can be put above {address:#x}: {error}") from None
            made.append(slot)
        return table.slot_for(address)

    def _pointed(self, slot: Slot, raw: int, address: int) -> Table:
        """The table that an entry leads to; SpaceError if it leads to none."""
        entry = self.format.decode(raw, slot.level)
        if not isinstance(entry, Pointer):
            kind = type(entry).__name__.lower()
            raise SpaceError(
                f"{address:#x} is taken: its level-{slot.level} entry is {raw:#x}, {kind}"
            )
        return entry.table

    def _addresses(self, slot: Slot, n: int) -> Words:
        """Physical addresses of `n` slots of one table, from `slot` on."""
        width = self.format.entry_bytes
        return np.arange(slot.address, slot.address + n * width, width, dtype=np.uint64)

    def _root(self, address: Virtual) -> Root:
        for root in self.roots:
            if address in root.span:
                return root
        spans = " and ".join(str(root.span) for root in self.roots)
        raise SpaceError(f"{address:#x} is not an address of this space, which has {spans}")
