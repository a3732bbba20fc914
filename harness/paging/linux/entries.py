"""What Linux keeps in the bits of x86-64 entries that the hardware does not look at.

A dialect beside the formats: to the hardware each entry here says what `x86.formats` says and
no more.  It is Linux 6.12 with what distributions build in: page migration, memory failure,
device memory, soft-dirty tracking, write protection by userfaultfd.  Sources: pgtable_types.h,
pgtable_64.h and pgtable-invert.h in its arch/x86/include/asm for the bits, swap.h and swapops.h
in include/linux for the types, mm/memory.c and mm/huge_memory.c for what a fork does.

present    the hardware's bits, and besides them in a leaf: 58 saved dirty, 57 devmap,
           11 soft-dirty, 10 uffd-wp, 9 special
PROT_NONE  the same with P=0, bit 8 set and the address bits (51 down) inverted
away       63:59 type, 58:9 offset inverted, 3 exclusive, 2 uffd-wp, 1 soft-dirty, the rest 0

Inversion answers L1TF: a processor may speculate on the address in an entry that is not
present, and the inverse of an address of memory is one where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from harness.paging.address import Physical
from harness.paging.bits import Kind, kinds
from harness.paging.copy import Fork, ForkRefused
from harness.paging.entry import Absent, Entry, Leaf
from harness.paging.format import Format
from harness.paging.memory import Mask, Words
from harness.paging.x86.formats import PAGE_BITS, PCD, PS, PWT, RW, US, A, D, G, P, bits

SPECIAL = bits(9)
"""In a leaf: a page that Linux neither counts nor holds."""

DEVMAP = bits(57)
"""In a leaf: a page of a device's memory that is mapped like a file."""

SAVED_DIRTY = bits(58)
"""In a read-only leaf in place of D, for read-only with D is a shadow stack to the hardware."""

PROT_NONE = G
"""With P=0: a page that is there and that nobody may access."""

_ADDRESS_TOP = 51
"""The highest address bit of an entry, whatever the processor's MAXPHYADDR."""

_TYPE_SHIFT, _TYPE = 59, bits(63, 59)
_OFFSET_SHIFT, _OFFSET = 9, bits(58, 9)
_DIRTY = D | SAVED_DIRTY
_STRAY = A | D
"""Bits that some processors set in entries that are not present; an entry of them is empty."""

_PAT_INDEX = 4


class Mark(NamedTuple):
    """A note about a page, in one bit while the page is present and in another while it is away."""

    name: str
    present: int
    away: int


SOFT_DIRTY = Mark("soft-dirty", bits(11), RW)
UFFD_WP = Mark("uffd-wp", bits(10), US)
EXCLUSIVE = Mark("exclusive", 0, PWT)
"""The page belongs to one process alone; of a present page Linux keeps that elsewhere."""


_MARKS = SOFT_DIRTY.away | UFFD_WP.away | EXCLUSIVE.away

SWAP_PAGES = 1 << 32
"""More pages than any area of swap has: its header, which is page 0 and never holds anything else,
counts them in 32 bits (union swap_header in include/linux/swap.h)."""


class Cache(IntEnum):
    """Memory types by their index in the PAT as Linux loads it: PAT, PCD and PWT from the top.

    It repeats WB at 4 and UC- at 6.
    """

    WB = 0
    WC = 1
    UC_MINUS = 2
    UC = 3
    WP = 5
    WT = 7


class Type(IntEnum):
    """The type field of an entry whose page is away.  Lower values are numbers of swap areas."""

    POISON = 23
    MIGRATION_READ = 24
    MIGRATION_READ_EXCLUSIVE = 25
    MIGRATION_WRITE = 26
    DEVICE_WRITE = 27
    DEVICE_READ = 28
    LENT_WRITE = 29
    LENT_READ = 30
    MARKER = 31


class Counted(IntEnum):
    """What a copied entry counts as.  Linux's resident set is PAGE, MIGRATION and DEVICE."""

    NOTHING = 0
    PAGE = 1
    SPECIAL = 2
    DEVMAP = 3
    SWAP = 4
    MIGRATION = 5
    DEVICE = 6
    POISON = 7
    MARKER = 8


class Notes(IntFlag):
    """What a marker remembers about a place without a page."""

    UFFD_WP = 1
    POISONED = 2


@dataclass(frozen=True, slots=True)
class ProtNone:
    """A page of `size` bytes at physical `address`, present to Linux and not to the hardware:
    mapped without any right, or a large page that is being split."""

    address: Physical
    size: int


@dataclass(frozen=True, slots=True)
class Swap:
    """A page in swap: the `offset`-th of area `area`."""

    area: int
    offset: int


@dataclass(frozen=True, slots=True)
class Migration:
    """The page at physical `address` is being moved.  `type` tells the right that it gets back,
    `young` and `dirty` the A and D bits that it had."""

    type: Type
    address: Physical
    young: bool = False
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """The page at physical `address` lies in a device's own memory (DEVICE), or in ordinary
    memory that a device uses alone for now (LENT)."""

    type: Type
    address: Physical


@dataclass(frozen=True, slots=True)
class Poison:
    """The page at physical `address` is lost to a memory error."""

    address: Physical


@dataclass(frozen=True, slots=True)
class Marker:
    """No page; something to remember about its place."""

    notes: Notes


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither empty nor present, and nothing that Linux writes at this level."""

    raw: int


Away = Swap | Migration | Device | Poison | Marker
Meaning = Entry | ProtNone | Away | Unknown

_MIGRATION = (Type.MIGRATION_READ, Type.MIGRATION_READ_EXCLUSIVE, Type.MIGRATION_WRITE)
_NOTES = int(Notes.UFFD_WP | Notes.POISONED)
_DEVICE = (Type.DEVICE_WRITE, Type.DEVICE_READ, Type.LENT_WRITE, Type.LENT_READ)

_COUNTED = np.full(len(Type.__members__) + Type.POISON, Counted.SWAP, np.uint8)
_COUNTED[Type.POISON] = Counted.POISON
_COUNTED[list(_MIGRATION)] = Counted.MIGRATION
_COUNTED[list(_DEVICE)] = Counted.DEVICE
_COUNTED[Type.MARKER] = Counted.MARKER

# The highest level at which Linux writes an entry of each type.
_HIGHEST = np.isin(np.arange(len(_COUNTED)), _MIGRATION).astype(np.uint8)

# The type that a fork of private memory leaves, so that neither side may write.
_PRIVATE = np.arange(len(_COUNTED), dtype=np.uint64)
_PRIVATE[list(_MIGRATION)] = Type.MIGRATION_READ
_PRIVATE[Type.DEVICE_WRITE] = Type.DEVICE_READ


@dataclass(frozen=True)
class Linux:
    """How Linux reads and writes the entries of one x86-64 `format`; a `copy.Dialect`, and what
    `folded` asks."""

    format: Format

    table_bits: ClassVar[int] = RW | US | A | D
    special: ClassVar[int] = SPECIAL
    devmap: ClassVar[int] = DEVMAP
    write_bits: ClassVar[int] = RW
    dirty_bits: ClassVar[int] = _DIRTY

    @property
    def counted(self) -> type[IntEnum]:
        return Counted

    def decode(self, raw: int, level: int) -> Meaning:
        """What the entry says: to the hardware where it is present, else to Linux."""
        if raw & P:
            return self.format.decode(raw, level)
        if not raw & ~_STRAY:
            return Absent()
        if raw & _stays(level):
            address = Physical(~raw & self._address(level))
            return ProtNone(address, self.format.levels[level].size)
        away = self._decode_away(raw)
        return away if level <= _highest(away) else Unknown(raw)

    def _decode_away(self, raw: int) -> Away:
        type, offset = raw >> _TYPE_SHIFT, (~raw & _OFFSET) >> _OFFSET_SHIFT
        address = Physical((offset & (1 << self._frame_bits) - 1) << PAGE_BITS)
        if type < Type.POISON:
            return Swap(type, offset)
        if type == Type.POISON:
            return Poison(address)
        if type in _MIGRATION:
            flags = offset >> self._frame_bits
            return Migration(Type(type), address, bool(flags & 1), bool(flags & 2))
        if type in _DEVICE:
            return Device(Type(type), address)
        return Marker(Notes(offset & _NOTES))

    def written(self, raw: int, level: int) -> bool:
        """Whether Linux can have written an entry that is not present: what its fields say is
        possible, and nothing else is set in it but marks, and A and D."""
        meaning = self.decode(raw, level)
        if isinstance(meaning, ProtNone):
            return meaning.address < 1 << self._frame_bits + PAGE_BITS
        if isinstance(meaning, Swap) and not 0 < meaning.offset < SWAP_PAGES:
            return False
        if not isinstance(meaning, Away):
            return isinstance(meaning, Absent)
        try:
            return self.encode(meaning, level) == raw & ~(_MARKS | _STRAY)
        except ValueError:
            return False

    def encode(self, away: Away, level: int = 0) -> int:
        """The entry that says `away`, without marks.

        Raises ValueError where Linux has none: at level 1 for all but a migration, above it for
        anything; a field too large, a wrong type, a marker that remembers nothing.
        """
        if not 0 <= level <= _highest(away):
            raise ValueError(f"Linux writes no level-{level} entry that says {away}")
        match away:
            case Swap(area, offset):
                # The one offset left out: with it an entry of area 0 would be empty.
                last = (_OFFSET >> _OFFSET_SHIFT) - 1
                if not (0 <= area < Type.POISON and 0 <= offset <= last):
                    raise ValueError(
                        f"{away} does not fit: areas end at {Type.POISON - 1}, offsets at {last:#x}"
                    )
                return _packed(area, offset)
            case Migration(type, address, young, dirty):
                flags = (young | dirty << 1) << self._frame_bits
                return _packed(_checked(type, _MIGRATION), self._frame(address) | flags)
            case Device(type, address):
                return _packed(_checked(type, _DEVICE), self._frame(address))
            case Poison(address):
                return _packed(Type.POISON, self._frame(address))
            case Marker(notes):
                if not notes or int(notes) & ~_NOTES:
                    raise ValueError(f"a marker remembers {Notes(_NOTES)!r} or part, not {notes!r}")
                return _packed(Type.MARKER, notes)

    def present(self, raw: int, level: int) -> bool:
        """Whether Linux calls the entry present: a table, or a page even if PROT_NONE."""
        return bool(raw & P or raw & _stays(level))

    def marked(self, raw: int, level: int, mark: Mark) -> bool:
        """Whether the entry carries the mark."""
        return bool(raw & (mark.present if self.present(raw, level) else mark.away))

    def mark(self, raw: int, level: int, mark: Mark, on: bool = True) -> int:
        """The entry with the mark set or cleared; ValueError where it has no place for it."""
        bit = mark.present if self.present(raw, level) else mark.away
        if not raw or not bit:
            raise ValueError(f"the level-{level} entry {raw:#x} has no place for {mark.name}")
        return raw | bit if on else raw & ~bit

    def cache(self, raw: int, level: int) -> Cache:
        """The memory type of a page."""
        index = (raw & (PCD | PWT)) // PWT | (_PAT_INDEX if raw & self._pat(level) else 0)
        return Cache({4: Cache.WB, 6: Cache.UC_MINUS}.get(index, index))

    def with_cache(self, raw: int, level: int, cache: Cache) -> int:
        """The page with another memory type.  PAT is bit 7 at level 0, bit 12 above."""
        pat = self._pat(level)
        low = (cache & ~_PAT_INDEX) * PWT
        return raw & ~(pat | PCD | PWT) | low | (pat if cache & _PAT_INDEX else 0)

    def protect(self, raw: int, level: int, rights: int | None) -> int:
        """The page with other rights: `Format.granting(...)`, or None for none (PROT_NONE).

        All else that the entry says stays.  Raises ValueError for an entry that is no page, and
        for PROT_NONE above level 1, where Linux has none.
        """
        if isinstance(self.decode(raw, level), ProtNone):
            kept = (raw ^ self._address(level)) & ~PROT_NONE
        elif isinstance(self.decode(raw, level), Leaf):
            kept = raw & ~P
        else:
            raise ValueError(f"the level-{level} entry {raw:#x} is no page to be protected")
        kept &= ~self.format.rights_mask
        if rights is not None and rights & RW:
            return kept & ~SAVED_DIRTY | (D if kept & SAVED_DIRTY else 0) | rights | P
        kept = kept & ~D | (SAVED_DIRTY if kept & D else 0)
        if rights is not None:
            return kept | rights | P
        if not _stays(level):
            raise ValueError(f"Linux has no PROT_NONE at level {level}, as for {raw:#x}")
        return kept ^ self._address(level) | PROT_NONE

    def large(self, raw: int, level: int) -> bool:
        """Whether an entry that is present is that of a large page."""
        return bool(raw & PS)

    def wrprotect(self, raw: int, level: int) -> int:
        """The entry of a page that nobody may write."""
        if not raw & (RW | D):  # a page with D alone is a shadow stack, which can be written
            return raw
        return self.protect(raw, level, raw & self.format.rights_mask & ~RW)

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """What copy_page_range makes of the entries; soft-dirty of a device's page is lost.

        Neither side may write private pages, not even once they have moved back into place, and
        a page in swap belongs to neither alone.  The child's pages are not accessed, those it
        shares not dirty, and it is not registered with userfaultfd.  Refused: what is malformed
        or nothing that Linux writes, and a page lent to a device, which Linux takes back first.
        """
        here, there = self._fork_here(raw, private), partial(_fork_away, private=private)
        return forked(self.format, raw, level, P | _stays(level), here, self._check_copyable, there)

    def _fork_here(self, raw: Words, private: bool) -> Fork:
        """The fork of entries that are present, in arrays of its own."""
        counted = np.full(len(raw), Counted.PAGE, np.uint8)
        counted[raw & SPECIAL != 0] = Counted.SPECIAL
        counted[raw & DEVMAP != 0] = Counted.DEVMAP
        if not private:
            return Fork(raw.copy(), raw & ~np.uint64(A | _DIRTY | UFFD_WP.present), counted)
        saved = (raw & np.uint64(D)) * np.uint64(SAVED_DIRTY // D)
        # D goes from read-only pages too: with it one is a shadow stack, which can be written.
        parent: Words = raw & ~np.uint64(RW | D) | saved
        return Fork(parent, parent & ~np.uint64(A | UFFD_WP.present), counted)

    def _check_copyable(self, raw: Words, level: int, away: Mask) -> None:
        """ForkRefused for an entry among those `away` that is not to be copied."""
        type = raw >> np.uint64(_TYPE_SHIFT)
        lent = (type == Type.LENT_WRITE) | (type == Type.LENT_READ)
        unknown = _HIGHEST[type] < level
        refused = away & (raw & ~np.uint64(_STRAY) != 0) & (lent | unknown)
        if refused.any():
            index = int(refused.argmax())
            why = f"Linux writes no such entry at level {level}"
            raise ForkRefused(index, why if unknown[index] else "its page is lent to a device")

    @property
    def _frame_bits(self) -> int:
        """Width of a frame number in an offset (MAX_PHYSMEM_BITS less the page's bits)."""
        return (52 if len(self.format.levels) == 5 else 46) - PAGE_BITS

    def _frame(self, address: int) -> int:
        frame = address >> PAGE_BITS
        if frame << PAGE_BITS != address or not 0 <= frame < 1 << self._frame_bits:
            width = self._frame_bits + PAGE_BITS
            raise ValueError(f"{address:#x} is not the address of a page, {width} bits wide")
        return frame

    def _address(self, level: int) -> int:
        """The bits of a page's entry that are inverted with P=0."""
        return bits(_ADDRESS_TOP, self.format.levels[level].shift)

    def _pat(self, level: int) -> int:
        return self.format.levels[level].bits["PAT"]


def forked(
    format: Format,
    raw: Words,
    level: int,
    stays: int,
    here: Fork,
    check: Callable[[Words, int, Mask], None],
    there: Callable[[Words], Fork],
) -> Fork:
    """The fork of entries at a level.  Raises ForkRefused for one that is malformed.

    stays  the bits of which one set has Linux call an entry present
    here   the fork of all as if they were present, in arrays of its own
    check  raises ForkRefused for one that is not to be copied, of all, their level and which of
           them are away
    there  the fork of those that are away
    """
    malformed = kinds(format, level, raw) == Kind.MALFORMED
    if malformed.any():
        raise ForkRefused(int(malformed.argmax()), "it has reserved bits set")
    away = raw & np.uint64(stays) == 0
    if away.any():
        check(raw, level, away)
        here.parent[away], here.child[away], here.counted[away] = there(raw[away])
    return here


def _fork_away(raw: Words, private: bool) -> Fork:
    """The fork of entries that are not present and not refused."""
    type = raw >> np.uint64(_TYPE_SHIFT)
    counted = _COUNTED[type]
    parent = np.where(counted == Counted.SWAP, raw & ~np.uint64(EXCLUSIVE.away), raw)
    if private:
        parent = parent & ~np.uint64(_TYPE) | _PRIVATE[type] << np.uint64(_TYPE_SHIFT)
        lost = (type == Type.DEVICE_WRITE) * np.uint64(SOFT_DIRTY.away)
        parent &= ~lost
    child = parent & ~np.uint64(UFFD_WP.away)
    # In a marker, whose offset is inverted, a set bit is a note that is not there.
    marker = counted == Counted.MARKER
    child[marker] |= np.uint64(int(Notes.UFFD_WP) << _OFFSET_SHIFT)
    child[marker & (child >> np.uint64(_OFFSET_SHIFT) & _NOTES == _NOTES)] = 0
    nothing = raw & ~np.uint64(_STRAY) == 0
    child[nothing], counted[nothing] = 0, Counted.NOTHING
    return Fork(parent, child, counted)


def _stays(level: int) -> int:
    """The bits of which one set keeps a page present to Linux when P=0.  A large page keeps PS
    while it is split, and only 2M pages are ever split or PROT_NONE."""
    return (PROT_NONE, PROT_NONE | PS)[level] if level < 2 else 0


def _highest(away: Away) -> int:
    """The highest level at which Linux writes such an entry."""
    return 1 if isinstance(away, Migration) else 0


def _packed(type: int, offset: int) -> int:
    return type << _TYPE_SHIFT | ~(offset << _OFFSET_SHIFT) & _OFFSET


def _checked(type: Type, right: tuple[Type, ...]) -> Type:
    if type not in right:
        names = ", ".join(t.name for t in right)
        raise ValueError(f"{type.name} is not the type wanted, which is one of {names}")
    return type
