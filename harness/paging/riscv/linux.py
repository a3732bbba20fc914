"""What Linux keeps in the bits of RISC-V entries that the hardware does not look at.

A dialect beside the formats: to the hardware each entry here says what `riscv.formats` says and no
more.  It is Linux 6.12 for 64 bits as Debian builds it: page migration, and device memory that is
mapped like files; this architecture has neither soft-dirty tracking nor write protection by
userfaultfd, and the kernel neither memory failure nor private memory of devices.  Sources:
pgtable.h, pgtable-bits.h, pgtable-64.h and sparsemem.h in its arch/riscv/include/asm for the bits,
swap.h and swapops.h in include/linux for the types.

present    the hardware's bits, and besides them in a leaf: 9 devmap, 8 special
PROT_NONE  V=0 and bit 5 (G) set; the rest as it was, A and D too, R set (PAGE_NONE)
split      V=0 and bit 5 clear, and some of R, W and X left: a large page while it is split
away       63:12 offset, 11:7 type, 6 exclusive, the rest 0

Levels are folded as on x86: what a mode lacks is the pgd, so that with Sv39 p4d and pud are, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from harness.paging.entry import Absent, Leaf
from harness.paging.format import bits
from harness.paging.linux.away import Dialect, Fields, Meaning
from harness.paging.linux.entries import Notes, ProtNone, Type, Unknown
from harness.paging.memory import Words
from harness.paging.riscv.formats import PAGE_BITS, A, D, G, R, V, W, X

SPECIAL: Final = bits(8)
"""In a leaf: a page that Linux neither counts nor holds."""

DEVMAP: Final = bits(9)
"""In a leaf: a page of a device's memory that is mapped like a file."""

PROT_NONE: Final = G
"""With V=0: a page that is there and that nobody may access."""

EXCLUSIVE: Final = A
"""In the entry of a page in swap: it belongs to one process alone."""

_LEAF: Final = R | W | X

TYPES: Final = {
    28: Type.MIGRATION_READ,
    29: Type.MIGRATION_READ_EXCLUSIVE,
    30: Type.MIGRATION_WRITE,
    31: Type.MARKER,
}
"""What the type field of an entry says whose page is away; lower values are numbers of swap areas.
Without the types that this kernel lacks there are five areas more than on x86."""

AREAS: Final = min(TYPES)
"""The number of swap areas."""

_FIELDS: Final = Fields(
    type=bits(11, 7),
    offset=bits(63, 12),
    page_bits=PAGE_BITS,
    frame_bits=56 - PAGE_BITS,
    types=TYPES,
    notes=Notes.POISONED,  # the other is of write protection by userfaultfd
    exclusive=EXCLUSIVE,
)


@dataclass(frozen=True)
class Linux(Dialect):
    """How Linux reads the entries of one `format`: of Sv39, Sv48 or Sv57.

    Raises ValueError for Sv32, whose kernel has other widths.
    """

    fields: ClassVar[Fields] = _FIELDS
    special: ClassVar[int] = SPECIAL
    devmap: ClassVar[int] = DEVMAP
    table_bits: ClassVar[int] = 0
    write_bits: ClassVar[int] = W
    dirty_bits: ClassVar[int] = D

    def __post_init__(self) -> None:
        if self.format.entry_bytes != 8:
            raise ValueError(f"what Linux keeps in entries of {self.format.name} is not known here")

    def decode(self, raw: int, level: int) -> Meaning:
        """What the entry says: to the hardware where it is present, else to Linux."""
        if raw & V:
            return self.format.decode(raw, level)
        if not raw:
            return Absent()
        if self.present(raw, level):
            return self._withheld(raw, level)
        return self.away(raw, level)

    def _withheld(self, raw: int, level: int) -> ProtNone | Unknown:
        """The page that an entry with V=0 keeps: the one that it would map with V=1."""
        entry = self.format.decode(raw | V, level)
        return ProtNone(entry.address, entry.size) if isinstance(entry, Leaf) else Unknown(raw)

    def stays(self, level: int) -> int:
        return (V | PROT_NONE, V | PROT_NONE | _LEAF)[level] if level < 2 else V

    def large(self, raw: int, level: int) -> bool:
        """Whether an entry that is present is that of a large page."""
        return bool(raw & _LEAF)

    def read_only(self, raw: Words) -> Words:
        found: Words = raw & ~np.uint64(W)
        return found

    def fresh(self, raw: Words, private: bool) -> Words:
        found: Words = raw & ~np.uint64(A if private else A | D)
        return found

    def protect(self, raw: int, level: int, rights: int | None) -> int:
        """The page with other rights: `Format.granting(...)`, or None for none (PROT_NONE), which
        keeps R alone.

        All else that the entry says stays.  Raises ValueError for an entry that is no page, and
        for PROT_NONE above level 1, where Linux has none.
        """
        if not isinstance(self.decode(raw, level), Leaf | ProtNone):
            raise ValueError(f"the level-{level} entry {raw:#x} is no page to be protected")
        kept = raw & ~(V | PROT_NONE | self.format.rights_mask)
        if rights is not None:
            return kept | rights | V
        if level > 1:
            raise ValueError(f"Linux has no PROT_NONE at level {level}, as for {raw:#x}")
        return kept | PROT_NONE | R
