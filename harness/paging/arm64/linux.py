"""What Linux keeps in the bits of arm64 entries that the hardware does not look at.

A dialect beside the formats: to the hardware each entry here says what `arm64.formats` says and no
more.  It is Linux 6.12 as Debian builds it: page migration, memory failure, device memory that is
mapped like files, write protection by userfaultfd; this architecture has no soft-dirty tracking,
and the kernel no private memory of devices.  Sources: pgtable.h and pgtable-prot.h in its
arch/arm64/include/asm for the bits, swap.h and swapops.h in include/linux for the types.

present    the hardware's bits, and besides them in a leaf: 62:60 protection key (FEAT_S1POE),
           58 uffd-wp, 57 devmap, 56 special, 55 dirty, 51 (DBM) writable, with or without hardware
           that keeps the dirty state
PROT_NONE  bit 0 clear and bit 11 (nG) set, AP[1]=0 and UXN=1; the rest as it was, its type too
split      the same of a 2M page with other rights, while it is split
away       61:12 offset, 10:6 type, 3 uffd-wp, 2 exclusive, the rest 0

That is so since 6.10 or 6.11, of protection keys since 6.12.  Before, PROT_NONE was bit 58, a 2M
page that is split had bit 59, and what is away 57:8 offset, 7:3 type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from harness.paging.arm64.formats import (
    AF,
    AP_EL0,
    AP_READ_ONLY,
    DBM,
    GRANULES,
    NG,
    PO_INDEX,
    UXN,
    VALID,
)
from harness.paging.entry import Absent, Leaf
from harness.paging.format import bits
from harness.paging.linux.away import Dialect, Fields, Meaning
from harness.paging.linux.entries import Notes, ProtNone, Type, Unknown
from harness.paging.memory import Words

DIRTY: Final = bits(55)
"""In a leaf: the page was written, as Linux knows while the hardware does not."""

SPECIAL: Final = bits(56)
"""In a leaf: a page that Linux neither counts nor holds."""

DEVMAP: Final = bits(57)
"""In a leaf: a page of a device's memory that is mapped like a file."""

UFFD_WP: Final = bits(58)
"""In a leaf: userfaultfd keeps writes away."""

KEY: Final = PO_INDEX
"""In a leaf: the protection key, for which POR_EL0 may withhold rights (PTE_PO_IDX_0 to _2)."""

WRITE: Final = DBM
"""In a leaf: the page may be written, once it is dirty."""

PRESENT_INVALID: Final = NG
"""With bit 0 clear: a page that is there and that nobody may access."""

EXCLUSIVE: Final = bits(2)
"""In the entry of a page in swap: it belongs to one process alone."""

AWAY_UFFD_WP: Final = bits(3)
"""In the entry of a page that is away: userfaultfd keeps writes away."""

TYPES: Final = {
    27: Type.POISON,
    28: Type.MIGRATION_READ,
    29: Type.MIGRATION_READ_EXCLUSIVE,
    30: Type.MIGRATION_WRITE,
    31: Type.MARKER,
}
"""What the type field of an entry says whose page is away; lower ones are numbers of swap areas."""

_FIELDS: Final = Fields(
    type=bits(10, 6),
    offset=bits(61, 12),
    page_bits=GRANULES["4K"].page,
    frame_bits=52 - GRANULES["4K"].page,
    types=TYPES,
    notes=Notes.UFFD_WP | Notes.POISONED,
    exclusive=EXCLUSIVE,
    uffd_wp=AWAY_UFFD_WP,
)


@dataclass(frozen=True)
class Linux(Dialect):
    """How Linux reads the entries of one `format`, of the 4K granule.

    Raises ValueError for the others, whose kernels have other levels and widths.
    """

    fields: ClassVar[Fields] = _FIELDS
    special: ClassVar[int] = SPECIAL
    devmap: ClassVar[int] = DEVMAP

    def __post_init__(self) -> None:
        if self.format.levels[0].shift != GRANULES["4K"].page:
            raise ValueError(f"what Linux keeps in entries of {self.format.name} is not known here")

    def decode(self, raw: int, level: int) -> Meaning:
        if raw & VALID:
            return self.format.decode(raw, level)
        if not raw:
            return Absent()
        if self.present(raw, level):
            return self._withheld(raw, level)
        return self.away(raw, level)

    def _withheld(self, raw: int, level: int) -> ProtNone | Unknown:
        """The page that an entry keeps which is not valid: the one that it would map if it were."""
        entry = self.format.decode(raw | VALID, level)
        none = not raw & AP_EL0 and bool(raw & UXN)
        if not isinstance(entry, Leaf) or not (none or level == 1):
            return Unknown(raw)
        return ProtNone(entry.address, entry.size)

    def stays(self, level: int) -> int:
        return VALID | PRESENT_INVALID if level < 2 else VALID

    def read_only(self, raw: Words) -> Words:
        """A page that may be written is so no more, and what the hardware knew of its being written
        goes to DIRTY."""
        closed = raw & ~np.uint64(WRITE) | np.uint64(AP_READ_ONLY)
        written = raw & np.uint64(AP_READ_ONLY) == 0
        kept = np.where(written, closed | np.uint64(DIRTY), closed)
        return np.where(raw & np.uint64(WRITE) != 0, kept, raw)

    def fresh(self, raw: Words, private: bool) -> Words:
        old: Words = raw & ~np.uint64(AF | UFFD_WP)
        return old if private else old & ~np.uint64(DIRTY) | np.uint64(AP_READ_ONLY)
