"""What Linux keeps in the bits of POWER entries that the hardware does not look at.

A dialect beside the formats: to the hardware each entry here says what `power.formats` says and no
more.  It is Linux 6.12 (6.12.117) for book3s64 with radix trees, with page migration and memory
failure; this architecture has no write protection by userfaultfd.  Sources: pgtable.h and radix.h
in arch/powerpc/include/asm/book3s/64 for the bits and widths; swap.h and swapops.h in include/linux
for the types.

present   the hardware's bits, and besides them in a leaf: 11 devmap, 10 special, 9 soft-dirty
invalid   V=0, L=1 and 61 (SW0) set: a page while its entry is changed, or while it is split
away      62 (L) set, 52:PAGE_SHIFT offset, 9 soft-dirty, 5 exclusive, 4:0 type, the rest 0

A page of PROT_NONE is present, privileged and gives nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.paging.entry import Absent
from harness.paging.format import bits
from harness.paging.linux.away import Away, Dialect, Fields, Meaning
from harness.paging.linux.entries import Notes, Type, Unknown
from harness.paging.memory import Words
from harness.paging.power.formats import CHANGE, LEAF, REFERENCE, VALID, WRITE

SOFT_DIRTY: Final = bits(9)
"""Written since it was last asked, in a leaf and in the entry of a page that is away."""

SPECIAL: Final = bits(10)
"""In a leaf: a page that Linux neither counts nor holds."""

DEVMAP: Final = bits(11)
"""In a leaf: a page of a device's memory that is mapped like a file."""

INVALID: Final = bits(61)
"""With V=0 and L=1: a page whose entry is being changed."""

EXCLUSIVE: Final = bits(5)
"""In the entry of a page in swap: it belongs to one process alone."""

TYPES: Final = {
    27: Type.POISON,
    28: Type.MIGRATION_READ,
    29: Type.MIGRATION_READ_EXCLUSIVE,
    30: Type.MIGRATION_WRITE,
    31: Type.MARKER,
}
"""What the type field of an entry says whose page is away; lower ones are numbers of swap areas."""

_HIGHEST: Final = 52
"""The highest bit of an offset (_PAGE_PA_MAX)."""

_PHYSICAL_BITS: Final = 51
"""The width of addresses of memory (R_MAX_PHYSMEM_BITS)."""


@dataclass(frozen=True)
class Linux(Dialect):
    """How Linux reads the entries of one `format`, whose smallest pages are PAGE_SIZE."""

    special = SPECIAL
    devmap = DEVMAP

    @property
    def fields(self) -> Fields:  # type: ignore[override]
        """Where an entry has what it says whose page is away."""
        page_bits = self.format.levels[0].shift
        return Fields(
            type=bits(4, 0),
            offset=bits(_HIGHEST, page_bits),
            page_bits=page_bits,
            frame_bits=_PHYSICAL_BITS - page_bits,
            types=TYPES,
            notes=Notes.POISONED,
            exclusive=EXCLUSIVE,
        )

    def decode(self, raw: int, level: int) -> Meaning:
        if raw & VALID:
            return self.format.decode(raw, level)
        if not raw:
            return Absent()
        if not raw & LEAF:
            return Unknown(raw)
        if self.present(raw, level):
            return self.format.decode(raw | VALID, level)
        return self.away(raw, level)

    def encode(self, away: Away, level: int = 0) -> int:
        return super().encode(away, level) | LEAF

    def written(self, raw: int, level: int) -> bool:
        return super().written(raw if raw & VALID else raw & ~SOFT_DIRTY, level)

    def stays(self, level: int) -> int:
        return VALID | INVALID if level < 2 else VALID

    def read_only(self, raw: Words) -> Words:
        found: Words = raw & ~np.uint64(WRITE)
        return found

    def fresh(self, raw: Words, private: bool) -> Words:
        found: Words = raw & ~np.uint64(REFERENCE if private else REFERENCE | CHANGE)
        return found
