"""The entries of pages that are away, as Linux has them on most architectures: type and offset.

Those of x86-64, which are inverted and can be of pages of devices, are in `entries`.
Source: swap.h and swapops.h in include/linux of Linux 6.12.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from harness.paging.address import Physical
from harness.paging.entry import Absent, Entry
from harness.paging.format import Format
from harness.paging.linux.entries import (
    SWAP_PAGES,
    Marker,
    Migration,
    Notes,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
)

Away = Swap | Migration | Poison | Marker
Meaning = Entry | ProtNone | Away | Unknown

_EVERY_NOTE: Final = int(Notes.UFFD_WP | Notes.POISONED)


@dataclass(frozen=True)
class Fields:
    """Where an entry has what it says.

    type        the mask of the type
    offset      the mask of the offset: in swap a page's, else its frame number, and above that of
                one that moves, A and D
    page_bits   log2 of the size of a page
    frame_bits  how wide a frame number is (MAX_PHYSMEM_BITS less the page's bits)
    types       what a type says that is no number of an area of swap
    notes       what a marker can remember
    marks       bits that Linux sets besides: of a page of one process alone, of userfaultfd
    """

    type: int
    offset: int
    page_bits: int
    frame_bits: int
    types: Mapping[int, Type]
    notes: Notes
    marks: int

    @property
    def areas(self) -> int:
        """The number of areas of swap."""
        return min(self.types)

    @property
    def last(self) -> int:
        """The highest offset."""
        return self.offset // _lowest(self.offset)

    def number(self, type: Type) -> int | None:
        """The number of a type; None where this kernel lacks it."""
        return next((number for number, one in self.types.items() if one is type), None)

    def read(self, raw: int) -> Away:
        """What an entry says that is neither empty nor present to Linux."""
        number = (raw & self.type) // _lowest(self.type)
        offset = (raw & self.offset) // _lowest(self.offset)
        if number < self.areas:
            return Swap(number, offset)
        type = self.types[number]
        if type is Type.MARKER:
            return Marker(Notes(offset & _EVERY_NOTE))
        frame, flags = offset & (1 << self.frame_bits) - 1, offset >> self.frame_bits
        address = Physical(frame << self.page_bits)
        if type is Type.POISON:
            return Poison(address)
        return Migration(type, address, bool(flags & 1), bool(flags & 2))

    def packed(self, number: int | None, offset: int) -> int:
        """The entry with this type and offset."""
        assert number is not None
        return number * _lowest(self.type) | offset * _lowest(self.offset)

    def frame(self, address: Physical) -> int:
        """The frame number of a page; raises ValueError where an address is none of a page."""
        frame = address >> self.page_bits
        if frame << self.page_bits != address or not 0 <= frame < 1 << self.frame_bits:
            width = self.frame_bits + self.page_bits
            raise ValueError(f"{address:#x} is not the address of a page, {width} bits wide")
        return frame


def _lowest(mask: int) -> int:
    return mask & -mask


def highest(away: Away) -> int:
    """The highest level at which Linux writes such an entry."""
    return 1 if isinstance(away, Migration) else 0


@dataclass(frozen=True)
class Dialect(ABC):
    """How Linux reads the entries of one `format`; `fields` is the architecture's."""

    format: Format

    fields: ClassVar[Fields]

    @abstractmethod
    def decode(self, raw: int, level: int) -> Meaning:
        """What the entry says: to the hardware where it is present, else to Linux."""

    @abstractmethod
    def present(self, raw: int, level: int) -> bool:
        """Whether Linux calls the entry present: a table, or a page even if PROT_NONE, or while it
        is split, which only 2M pages are."""

    def away(self, raw: int, level: int) -> Away | Unknown:
        """What an entry says that is neither empty nor present to Linux."""
        away = self.fields.read(raw)
        return away if level <= highest(away) else Unknown(raw)

    def written(self, raw: int, level: int) -> bool:
        """Whether Linux can have written an entry that is not present: what its fields say is
        possible, and nothing else is set in it but marks."""
        meaning = self.decode(raw, level)
        if isinstance(meaning, Swap) and meaning.offset >= SWAP_PAGES:
            return False
        if not isinstance(meaning, Away):
            return isinstance(meaning, Absent | ProtNone)
        try:
            return self.encode(meaning, level) == raw & ~self.fields.marks
        except ValueError:
            return False

    def encode(self, away: Away, level: int = 0) -> int:
        """The entry that says `away`, without marks.

        Raises ValueError where Linux has none: at level 1 for all but a migration, above it for
        anything; a field too large, a type that this kernel lacks, a marker that remembers nothing
        or what this kernel does not have.
        """
        if not 0 <= level <= highest(away):
            raise ValueError(f"Linux writes no level-{level} entry that says {away}")
        fields = self.fields
        match away:
            case Swap(area, offset):
                # Page 0 of an area is its header, and of area 0 the entry would be empty.
                if not (0 <= area < fields.areas and 0 < offset <= fields.last):
                    raise ValueError(
                        f"{away} does not fit: areas end at {fields.areas - 1}, offsets are 1 to"
                        f" {fields.last:#x}"
                    )
                return fields.packed(area, offset)
            case Migration(type, address, young, dirty):
                number = fields.number(type)
                if number is None or type in (Type.MARKER, Type.POISON):
                    raise ValueError(f"{type.name} is not the type of a migration")
                marks = (young | dirty << 1) << fields.frame_bits
                return fields.packed(number, fields.frame(address) | marks)
            case Poison(address):
                if (number := fields.number(Type.POISON)) is None:
                    raise ValueError("this kernel loses no pages to errors of memory")
                return fields.packed(number, fields.frame(address))
            case Marker(notes):
                if not notes or notes & ~fields.notes:
                    raise ValueError(f"a marker remembers {fields.notes!r}, not {notes!r}")
                return fields.packed(fields.number(Type.MARKER), notes)
