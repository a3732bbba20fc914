"""Linux's old names for the levels: pgd, p4d, pud, pmd, pte, thin over `slots`.

Code that was written for them runs unchanged, but that what C has as globals are attributes of
one object here, which stands for a kernel booted with three levels, with four or with five:

    k = Folded(space.format)
    pgd = k.pgd_offset(mm, address)
    p4d = k.p4d_alloc(mm, pgd, address)

With four levels the p4d is folded, as in Linux: a pgd is always present and never bad, its p4d
is the same entry, and setting or clearing a pgd's table does nothing.  With three, as Sv39 has,
so is the pud.  Of x86-64 unless another architecture's dialect of Linux is given.

`mm` is a `Space`, a `pud_t *` a `Place`, a `pud_t` a `Value`, and `*pud` is `pudp_get(pud)`.
NULL is None.  Ends are exclusive and wrap to 0 here, as the old code expects.  As there, the
setters leave flushing to the caller.  Two things differ.  A `bad` entry is one that is no
pointer, for hardware and space may set in a pointer what Linux would not.  And
`none_or_clear_bad` clears what is malformed only: a page that old code overlooks survives, and
the step below it raises SpaceError.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from harness.paging import slots
from harness.paging.address import Physical, Virtual
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.format import Format
from harness.paging.linux.entries import Linux, ProtNone
from harness.paging.lock import TableLock
from harness.paging.space import Space
from harness.paging.table import Slot, Table
from harness.paging.value import Value


class Names(Protocol):
    """What the old names ask of an architecture's Linux.

    table_bits       what it sets in a pointer besides what makes it one (_PAGE_TABLE)
    special, devmap  as `away.Dialect` has them
    write_bits       those of which one says that a page may be written
    dirty_bits       those of which one says that it was
    """

    @property
    def table_bits(self) -> int: ...
    @property
    def special(self) -> int: ...
    @property
    def devmap(self) -> int: ...
    @property
    def write_bits(self) -> int: ...
    @property
    def dirty_bits(self) -> int: ...
    def decode(self, raw: int, level: int) -> Any:
        """What an entry says."""

    def present(self, raw: int, level: int) -> bool:
        """Whether Linux calls it present."""

    def large(self, raw: int, level: int) -> bool:
        """Whether it is that of a large page, where it is present."""

    def wrprotect(self, raw: int, level: int) -> int:
        """The entry of a page that nobody may write."""


Place = tuple[Space, Slot]
"""A pointer to an entry: the slot, and the space that it was reached in."""


class Folded:
    """The old names in a kernel booted with the levels of `format`; `linux` is what its Linux
    keeps in entries, that of x86-64 unless given.

    Raises ValueError for a format of other levels than 3 to 5.
    """

    def __init__(self, format: Format, linux: Names | None = None) -> None:
        if len(format.levels) not in (3, 4, 5):
            raise ValueError(f"Linux's names are for 3 to 5 levels, {format.name} has others")
        pte, pmd, pud, *rest = format.levels
        p4d, pgd = (rest[0], rest[-1]) if rest else (pud, pud)
        self.format = format
        self.linux = Linux(format) if linux is None else linux
        self.PAGE_SHIFT, self.PMD_SHIFT, self.PUD_SHIFT = pte.shift, pmd.shift, pud.shift
        self.P4D_SHIFT, self.PGDIR_SHIFT = p4d.shift, pgd.shift
        self.PTRS_PER_PTE, self.PTRS_PER_PMD = pte.entries, pmd.entries
        self._four, self._five = len(rest) > 0, len(rest) > 1
        self.PTRS_PER_PUD = pud.entries if self._four else 1
        self.PTRS_PER_P4D, self.PTRS_PER_PGD = p4d.entries if self._five else 1, pgd.entries
        self.pte_index, self.pmd_index = pte.index, pmd.index
        self.pud_index = pud.index if self._four else lambda address: 0
        self.p4d_index = p4d.index if self._five else lambda address: 0
        self.pgd_index = pgd.index
        self.pmd_addr_end, self.pud_addr_end, self.p4d_addr_end, self.pgd_addr_end = (
            partial(_addr_end, level.size) for level in (pmd, pud, p4d, pgd)
        )

    def pgtable_l5_enabled(self) -> bool:
        return self._five

    def pgtable_l4_enabled(self) -> bool:
        return self._four

    # From an address to its entries.

    def pgd_offset(self, mm: Space, address: Virtual) -> Place:
        if mm.format is not self.format:
            raise SpaceError(f"a space of {mm.format.name} has no pgd under {self.format.name}")
        return mm, slots.root(mm, address)

    def _offset(self, place: Place, address: Virtual) -> Place:
        mm, slot = place
        return mm, slots.walk(mm, slot, address)

    def p4d_offset(self, pgd: Place, address: Virtual) -> Place:
        return self._offset(pgd, address) if self._five else pgd

    def pud_offset(self, p4d: Place, address: Virtual) -> Place:
        return self._offset(p4d, address) if self._four else p4d

    pmd_offset = pte_offset_kernel = pte_offset_map = _offset

    def _alloc(self, mm: Space, place: Place, address: Virtual) -> Place | None:
        """The entry below, a table made for it if need be; None without memory."""
        try:
            return mm, slots.walk_alloc(mm, place[1], address, self.linux.table_bits)
        except OutOfTables:
            return None

    def p4d_alloc(self, mm: Space, pgd: Place, address: Virtual) -> Place | None:
        return self._alloc(mm, pgd, address) if self._five else pgd

    def pud_alloc(self, mm: Space, p4d: Place, address: Virtual) -> Place | None:
        return self._alloc(mm, p4d, address) if self._four else p4d

    pmd_alloc = pte_alloc_map = _alloc

    # What an entry says.

    def _get(self, place: Place) -> Value:
        mm, slot = place
        return slots.value(mm, slot)

    pgdp_get = p4dp_get = pudp_get = pmdp_get = ptep_get = _get

    def _none(self, value: Value) -> bool:
        return value.none

    def pgd_none(self, pgd: Value) -> bool:
        return self._five and pgd.none

    def p4d_none(self, p4d: Value) -> bool:
        return self._four and p4d.none

    pud_none = pmd_none = pte_none = _none

    def _present(self, value: Value) -> bool:
        return self.linux.present(value.raw, value.level)

    def pgd_present(self, pgd: Value) -> bool:
        return not self._five or pgd.present

    def p4d_present(self, p4d: Value) -> bool:
        return not self._four or self._present(p4d)

    pud_present = pmd_present = pte_present = _present

    def _bad(self, value: Value) -> bool:
        return not value.points

    def pgd_bad(self, pgd: Value) -> bool:
        return self._five and not pgd.points

    def p4d_bad(self, p4d: Value) -> bool:
        return self._four and not p4d.points

    pud_bad = pmd_bad = _bad

    def _leaf(self, value: Value) -> bool:
        return self._present(value) and self.linux.large(value.raw, value.level)

    def pgd_leaf(self, pgd: Value) -> bool:
        return False

    p4d_leaf = pgd_leaf
    pud_leaf = pmd_leaf = _leaf

    def _trans_huge(self, value: Value) -> bool:
        return self._leaf(value) and not value.raw & self.linux.devmap

    pud_trans_huge = pmd_trans_huge = _trans_huge

    def _devmap(self, value: Value) -> bool:
        return self._present(value) and bool(value.raw & self.linux.devmap)

    pud_devmap = pmd_devmap = pte_devmap = _devmap

    def pte_special(self, pte: Value) -> bool:
        return self._present(pte) and bool(pte.raw & self.linux.special)

    def _is_swap(self, value: Value) -> bool:
        return not value.none and not self._present(value)

    is_swap_pmd = is_swap_pte = _is_swap

    def _val(self, value: Value) -> int:
        return value.raw

    pgd_val = p4d_val = pud_val = pmd_val = pte_val = _val

    def _pfn(self, value: Value) -> int:
        meaning = self.linux.decode(value.raw, value.level)
        address = meaning.address if isinstance(meaning, ProtNone) else value.frame
        return address >> self.PAGE_SHIFT

    pgd_pfn = p4d_pfn = pud_pfn = pmd_pfn = pte_pfn = _pfn

    def _write(self, value: Value) -> bool:
        return bool(value.raw & self.linux.write_bits)

    pud_write = pmd_write = pte_write = _write

    def _young(self, value: Value) -> bool:
        return bool(value.raw & self.format.accessed)

    pud_young = pmd_young = pte_young = _young

    def _dirty(self, value: Value) -> bool:
        return bool(value.raw & self.linux.dirty_bits)

    pud_dirty = pmd_dirty = pte_dirty = _dirty

    # Other values.

    def _wrprotect(self, value: Value) -> Value:
        return replace(value, raw=self.linux.wrprotect(value.raw, value.level))

    pud_wrprotect = pmd_wrprotect = pte_wrprotect = _wrprotect

    def _mkold(self, value: Value) -> Value:
        return replace(value, raw=value.raw & ~self.format.accessed)

    pud_mkold = pmd_mkold = pte_mkold = _mkold

    # Changes.

    def _set(self, place: Place, value: Value) -> None:
        mm, slot = place
        if value.level != slot.level:
            raise SpaceError(f"{value} cannot stand in {slot}")
        mm.write(slot, value.raw)

    set_pgd = set_p4d = set_pud = set_pmd = set_pte = _set

    def _set_at(self, mm: Space, address: int, place: Place, value: Value) -> None:
        self._set(place, value)

    set_pud_at = set_pmd_at = set_pte_at = _set_at

    def _populate(self, mm: Space, place: Place, table: Table) -> None:
        _, slot = place
        mm.link(slot, table, self.format.pointer(table.address, slot.level, self.linux.table_bits))

    def pgd_populate(self, mm: Space, pgd: Place, p4d: Table) -> None:
        if self._five:
            self._populate(mm, pgd, p4d)

    def p4d_populate(self, mm: Space, p4d: Place, pud: Table) -> None:
        if self._four:
            self._populate(mm, p4d, pud)

    pud_populate = pmd_populate = _populate

    def _clear(self, place: Place) -> None:
        mm, slot = place
        mm.write(slot, 0)

    def pgd_clear(self, pgd: Place) -> None:
        if self._five:
            self._clear(pgd)

    def p4d_clear(self, p4d: Place) -> None:
        if self._four:
            self._clear(p4d)

    pud_clear = pmd_clear = _clear

    def pte_clear(self, mm: Space, address: int, pte: Place) -> None:
        self._clear(pte)

    def _get_and_clear(self, mm: Space, address: int, place: Place) -> Value:
        value = self._get(place)
        self._clear(place)
        return value

    ptep_get_and_clear = pmdp_huge_get_and_clear = pudp_huge_get_and_clear = _get_and_clear

    def _none_or_clear_bad(self, place: Place) -> bool:
        mm, slot = place
        return slots.none_or_clear_bad(mm, slot)

    def pgd_none_or_clear_bad(self, pgd: Place) -> bool:
        return self._five and self._none_or_clear_bad(pgd)

    def p4d_none_or_clear_bad(self, p4d: Place) -> bool:
        return self._four and self._none_or_clear_bad(p4d)

    pud_none_or_clear_bad = pmd_none_or_clear_bad = _none_or_clear_bad

    # Tables and their locks.

    def _pgtable(self, value: Value) -> Physical:
        """The address of the table below; the old names give it as the direct map has it."""
        if not value.points:
            raise SpaceError(f"{value} leads to no table")
        return value.frame

    pgd_page_paddr = p4d_page_paddr = pud_page_paddr = pmd_page_paddr = _pgtable

    def _lockptr(self, mm: Space, place: Place) -> TableLock:
        """The lock of the table that the entry stands in."""
        return slots.lock(mm, place[1])

    pud_lockptr = pmd_lockptr = _lockptr

    def pte_lockptr(self, mm: Space, pmd: Place) -> TableLock:
        """The lock of the table that the pmd leads to."""
        return mm.lock(slots.table(mm, pmd[1]))


def _addr_end(size: int, address: Virtual, end: Virtual) -> Virtual:
    """Where an entry's range or the range up to `end` is over, whichever comes first; 0 is the
    end of the address space."""
    boundary = (address + size & -size) % _WRAP
    return Virtual(boundary) if (boundary - 1) % _WRAP < (end - 1) % _WRAP else end


_WRAP = 1 << 64
