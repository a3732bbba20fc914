"""One entry as it stands in memory, with all that is needed to say what it means."""

from __future__ import annotations

from dataclasses import dataclass

from harness.paging.address import Physical, Span
from harness.paging.entry import Entry, Leaf, Malformed, Pointer
from harness.paging.format import Format


@dataclass(frozen=True, slots=True)
class Value:
    """A raw entry, read from a table at `level`, which is what decides how it reads."""

    format: Format
    level: int
    raw: int

    @property
    def entry(self) -> Entry:
        """The entry, decoded."""
        return self.format.decode(self.raw, self.level)

    @property
    def bottom(self) -> bool:
        """Whether it can only be a page."""
        return self.level == 0

    @property
    def size(self) -> int:
        """Bytes of address space that it spans."""
        return self.format.levels[self.level].size

    @property
    def mask(self) -> int:
        """Leaves of an address the first one that the entry spans."""
        return -self.size

    def clip(self, address: int, span: Span) -> Span:
        """The addresses from `address` to where the entry or the span ends.

        Both ends are included, so the last entry of the address space needs no special case.
        """
        return Span(address, min(address | self.size - 1, span.last))

    @property
    def none(self) -> bool:
        """Whether nothing was ever written here, or all of it was cleared."""
        return self.raw == self.format.levels[self.level].empty

    @property
    def present(self) -> bool:
        """Whether the machine looks at it."""
        return not self.format.levels[self.level].is_absent(self.raw)

    @property
    def bad(self) -> bool:
        """Whether the machine finds reserved bits set in it."""
        return isinstance(self.entry, Malformed)

    @property
    def leaf(self) -> bool:
        """Whether the machine finds a page."""
        return isinstance(self.entry, Leaf)

    @property
    def huge(self) -> bool:
        """Whether the machine finds a page larger than the smallest."""
        return not self.bottom and self.leaf

    @property
    def points(self) -> bool:
        """Whether the machine finds a table."""
        return isinstance(self.entry, Pointer)

    @property
    def frame(self) -> Physical:
        """Physical address of the page or the table; ValueError where it is neither."""
        entry = self.entry
        if isinstance(entry, Leaf):
            return entry.address
        if isinstance(entry, Pointer):
            return entry.table.address
        raise ValueError(f"{self} leads nowhere")

    def __str__(self) -> str:
        kind = type(self.entry).__name__.lower()
        return f"{self.format.levels[self.level].name} {self.raw:#x} ({kind}) at level {self.level}"
