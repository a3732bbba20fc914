"""The formats of x86 page tables.  Each reads like the tables of the SDM, volume 3A, chapter 4.

Bits are written as in the manual: the highest and the lowest, both included.
"""

from __future__ import annotations

from functools import cache

from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape

PAGE_BITS = 12
"""log2 of the smallest page, and of the size of a table."""

INDEX_BITS = 9
"""Bits of an address that each level of 8-byte entries translates."""


def bits(high: int, low: int | None = None) -> int:
    """The mask of bits high:low."""
    low = high if low is None else low
    return (1 << high + 1) - (1 << low)


P = bits(0)
RW = bits(1)
US = bits(2)
PWT = bits(3)
PCD = bits(4)
A = bits(5)
D = bits(6)
PS = bits(7)
PAT = bits(7)
G = bits(8)
PAT_LARGE = bits(12)
KEY = bits(62, 59)
XD = bits(63)

_ENTRY = {"P": P, "W": RW, "U": US, "PWT": PWT, "PCD": PCD, "A": A}
_LEAF = {**_ENTRY, "D": D, "G": G, "KEY": KEY, "XD": XD}


def address_bits(levels: int) -> int:
    """Width of the addresses that long mode translates: 48 or 57 bits."""
    return PAGE_BITS + levels * INDEX_BITS


@cache
def long_mode(levels: int, maxphyaddr: int, nxe: bool, page1gb: bool) -> Format:
    """4-level and 5-level paging (SDM 4.5, tables 4-14 to 4-20).

    Raises ValueError for another number of levels, or a width that is not 32 to 52 bits.
    """
    if levels not in (4, 5):
        raise ValueError(f"long mode has 4 or 5 levels, not {levels}")
    if not 32 <= maxphyaddr <= 52:
        raise ValueError(f"MAXPHYADDR is 32 to 52 bits, not {maxphyaddr}")

    everywhere: tuple[Reserved, ...] = ()
    if maxphyaddr < 52:
        everywhere += (Reserved(bits(51, maxphyaddr), f"beyond MAXPHYADDR {maxphyaddr}"),)
    if not nxe:
        everywhere += (Reserved(XD, "XD while EFER.NXE=0"),)
    no_page = Reserved(PS, "PS where no page can be")

    def address(low: int) -> tuple[Field, ...]:
        return (Field(bits(maxphyaddr - 1, low)),)

    table = address(PAGE_BITS)
    pointer = Shape(table, everywhere)
    only_pointer = Shape(table, (*everywhere, no_page))
    page4k = Shape(table, everywhere)
    page2m = Shape(address(21), (*everywhere, Reserved(bits(20, 13), "below a 2M page")))
    page1g = Shape(address(30), (*everywhere, Reserved(bits(29, 13), "below a 1G page")))

    points = Pattern(PS, 0)
    small = {**_LEAF, "PAT": PAT}
    large = {**_LEAF, "PS": PS, "PAT": PAT_LARGE}
    above = {**_ENTRY, "PS": PS, "XD": XD}
    pdpte = Level("PDPTE", 30, INDEX_BITS, pointer, page1g, points, large)
    if not page1gb:
        pdpte = Level("PDPTE", 30, INDEX_BITS, only_pointer, None, points, above)

    return Format(
        name=f"x86-64 {levels}-level",
        entry_bytes=8,
        present=Pattern(P, P),
        levels=(
            Level("PTE", PAGE_BITS, INDEX_BITS, None, page4k, points, small),
            Level("PDE", 21, INDEX_BITS, pointer, page2m, points, large),
            pdpte,
            Level("PML4E", 39, INDEX_BITS, only_pointer, None, points, above),
            Level("PML5E", 48, INDEX_BITS, only_pointer, None, points, above),
        )[:levels],
        rights={"write": RW, "user": US, "execute": XD},
        denied=XD,
        accessed=A,
        dirty=D,
    )
