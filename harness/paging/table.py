"""Tables, the slots in them, and the roots where walks begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.paging.address import Physical, Span, Virtual

if TYPE_CHECKING:
    from harness.paging.format import Format


@dataclass(frozen=True, slots=True)
class Table:
    """One block of entries at a physical address, at a level (0 is the bottom)."""

    format: Format
    address: Physical
    level: int

    @property
    def size(self) -> int:
        """Bytes that the table itself takes."""
        return self.format.table_bytes(self.level)

    def slot(self, index: int) -> Slot:
        """The slot at `index`; IndexError beyond the table."""
        entries = self.format.levels[self.level].entries
        if not 0 <= index < entries:
            raise IndexError(f"{self} has slots 0 to {entries - 1}, not {index}")
        return Slot(self, index)

    def slot_for(self, address: int) -> Slot:
        """The slot that a walk of `address` uses in this table."""
        return Slot(self, self.format.levels[self.level].index(address))

    def slots(self) -> Iterator[Slot]:
        """Every slot in order."""
        for index in range(self.format.levels[self.level].entries):
            yield Slot(self, index)

    def __str__(self) -> str:
        return f"the level-{self.format.number(self.level)} table at {self.address:#x}"


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one entry.  Moving to a neighbour or down a walk gives a new slot."""

    table: Table
    index: int

    @property
    def level(self) -> int:
        return self.table.level

    @property
    def address(self) -> Physical:
        """Physical address of the entry."""
        return Physical(self.table.address + self.index * self.table.format.entry_bytes)

    @property
    def size(self) -> int:
        """Bytes of address space that the slot spans."""
        return self.table.format.levels[self.table.level].size

    def packed(self) -> int:
        """The slot as one integer: its physical address with the level in the low bits.

        Entries are aligned to their width, which leaves the bits free: three of them for
        8-byte entries, two for 4-byte entries; a format with more levels is refused when it
        is made.  Tables are aligned to their size.
        """
        return self.address | self.level

    @classmethod
    def unpack(cls, format: Format, packed: int) -> Slot:
        """The slot that `packed()` was made from; ValueError for a level the format lacks."""
        level = packed & format.entry_bytes - 1
        if level >= len(format.levels):
            raise ValueError(f"{packed:#x} names level {level}, which {format.name} lacks")
        address = packed - level
        offset = address & format.table_bytes(level) - 1
        table = Table(format, Physical(address - offset), level)
        return cls(table, offset // format.entry_bytes)

    def __str__(self) -> str:
        return f"slot {self.index} of {self.table}"


@dataclass(frozen=True, slots=True)
class Root:
    """The table where walks of the addresses in `span` begin."""

    table: Table
    span: Span

    @property
    def indices(self) -> range:
        """Which slots of the table serve the span."""
        level = self.table.format.levels[self.table.level]
        return range(level.index(self.span.first), level.index(self.span.last) + 1)

    def slots(self) -> Iterator[tuple[Virtual, Slot]]:
        """The slots that serve the span, each with the first address that it spans."""
        for index in self.indices:
            yield self.first_address(index), Slot(self.table, index)

    def first_address(self, index: int) -> Virtual:
        """The first address that slot `index` of the root table spans."""
        level = self.table.format.levels[self.table.level]
        below = (self.span.first >> level.shift) - level.index(self.span.first)
        return Virtual((below + index) << level.shift)
