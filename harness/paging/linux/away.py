"""The entries of pages that are away, as Linux has them on most architectures: type and offset; and
what a fork makes of entries there.

Those of x86-64, which are inverted and can be of pages of devices, are in `entries`.
Source: swap.h and swapops.h in include/linux of Linux 6.12; mm/memory.c and mm/huge_memory.c for
the fork.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import ClassVar, Final

import numpy as np

from harness.paging.address import Physical
from harness.paging.bulk import Bytes
from harness.paging.copy import Fork, ForkRefused
from harness.paging.entry import Absent, Entry
from harness.paging.format import Format
from harness.paging.linux.entries import (
    SWAP_PAGES,
    Counted,
    Marker,
    Migration,
    Notes,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
    forked,
)
from harness.paging.memory import Mask, Words

Away = Swap | Migration | Poison | Marker
Meaning = Entry | ProtNone | Away | Unknown

_COUNTED: Final = {
    Type.POISON: Counted.POISON,
    Type.MIGRATION_READ: Counted.MIGRATION,
    Type.MIGRATION_READ_EXCLUSIVE: Counted.MIGRATION,
    Type.MIGRATION_WRITE: Counted.MIGRATION,
    Type.MARKER: Counted.MARKER,
}
_MOVING: Final = (int(Counted.MIGRATION),)
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
    exclusive   the bit of a page in swap that belongs to one process alone
    uffd_wp     the bit by which userfaultfd keeps writes away; 0 where there is none
    """

    type: int
    offset: int
    page_bits: int
    frame_bits: int
    types: Mapping[int, Type]
    notes: Notes
    exclusive: int
    uffd_wp: int = 0

    @property
    def marks(self) -> int:
        """Bits that Linux sets besides."""
        return self.exclusive | self.uffd_wp

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
    """How Linux reads and copies the entries of one `format`, as a `copy.Dialect` does.

    fields           the architecture's
    special, devmap  in a leaf: of a page that Linux neither counts nor holds, and of one of a
                     device's memory that is mapped like a file
    """

    format: Format

    fields: ClassVar[Fields]
    special: ClassVar[int]
    devmap: ClassVar[int]

    @abstractmethod
    def decode(self, raw: int, level: int) -> Meaning:
        """What the entry says: to the hardware where it is present, else to Linux."""

    @abstractmethod
    def stays(self, level: int) -> int:
        """The bits of which one set has Linux call an entry present."""

    @abstractmethod
    def read_only(self, raw: Words) -> Words:
        """Pages that nobody may write, and else as they were (pte_wrprotect)."""

    @abstractmethod
    def fresh(self, raw: Words, private: bool) -> Words:
        """Pages as a child has them: not accessed, and those that it shares not written, either
        (pte_mkold, pte_mkclean); without what userfaultfd was told of the parent's."""

    def wrprotect(self, raw: int, level: int) -> int:
        """The entry of a page that nobody may write."""
        return int(self.read_only(np.array([raw], np.uint64))[0])

    def present(self, raw: int, level: int) -> bool:
        """Whether Linux calls the entry present: a table, or a page even if PROT_NONE, or while it
        is split, which only 2M pages are."""
        return bool(raw & self.stays(level))

    @property
    def counted(self) -> type[IntEnum]:
        return Counted

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """What copy_page_range makes of the entries.

        Neither side may write private pages, not even once they have moved back into place, and a
        page in swap belongs to neither alone.  The child's pages are not accessed, those it shares
        not dirty, and it is not registered with userfaultfd.  Refused: what is malformed or nothing
        that Linux writes.
        """
        parent = self.read_only(raw) if private else raw.copy()
        counted = np.full(len(raw), Counted.PAGE, np.uint8)
        counted[raw & np.uint64(self.special) != 0] = Counted.SPECIAL
        counted[raw & np.uint64(self.devmap) != 0] = Counted.DEVMAP
        here = Fork(parent, self.fresh(parent, private), counted)
        there = partial(self._fork_away, private=private)
        return forked(self.format, raw, level, self.stays(level), here, self._check_copyable, there)

    def _check_copyable(self, raw: Words, level: int, away: Mask) -> None:
        """ForkRefused for an entry among those `away` that Linux does not write at the level."""
        moving = np.isin(self._kinds(raw), _MOVING) & (level < 2)
        refused = away & (raw != 0) & ~moving & (level > 0)
        if refused.any():
            index = int(refused.argmax())
            raise ForkRefused(index, f"Linux writes no such entry at level {level}")

    def _kinds(self, raw: Words) -> Bytes:
        """What each entry counts as that is away."""
        types = (raw & np.uint64(self.fields.type)) // np.uint64(_lowest(self.fields.type))
        found = np.full(len(raw), Counted.SWAP, np.uint8)
        for number, type in self.fields.types.items():
            found[types == number] = _COUNTED[type]
        return found

    def _fork_away(self, raw: Words, private: bool) -> Fork:
        """The fork of entries that are not present and not refused."""
        fields, counted = self.fields, self._kinds(raw)
        parent = np.where(counted == Counted.SWAP, raw & ~np.uint64(fields.exclusive), raw)
        if private:
            read = fields.packed(fields.number(Type.MIGRATION_READ), 0)
            moving = parent & ~np.uint64(fields.type) | np.uint64(read)
            parent = np.where(counted == Counted.MIGRATION, moving, parent)
        child = parent & ~np.uint64(fields.uffd_wp)
        marker, notes = counted == Counted.MARKER, np.uint64(_lowest(fields.offset))
        child[marker] &= ~(np.uint64(Notes.UFFD_WP) * notes)
        child[marker & (child & (np.uint64(_EVERY_NOTE) * notes) == 0)] = 0
        nothing = raw == 0
        child[nothing], counted[nothing] = 0, Counted.NOTHING
        return Fork(parent, child, counted)

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
