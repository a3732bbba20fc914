"""The formats of RISC-V page tables: Sv32, Sv39, Sv48 and Sv57.

Source: the privileged specification 1.13, chapter "Supervisor-Level ISA", sections "Sv32", "Sv39",
"Sv48" and "Sv57", and the chapters of the extensions Svnapot, Svpbmt, Svrsw60t59b and Svvptc; what
is to be flushed, section "Supervisor Memory-Management Fence Instruction".

A pointer gives no rights and takes none.  Whether the machine sets A and D or faults where they are
clear (Svadu, Svade) is a matter of an access, as are SUM and MXR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from harness.paging.format import (
    Field,
    Flushing,
    Forbidden,
    Format,
    Level,
    Pattern,
    Reserved,
    Shape,
    bits,
)

PAGE_BITS = 12
"""log2 of the smallest page, and of the size of a table."""

V, R, W, X, U, G, A, D = (bits(number) for number in range(8))
RSW = bits(9, 8)
PBMT = bits(62, 61)
N = bits(63)

NAPOT_BITS = 16
"""log2 of the page that N makes of 16 neighbours: 64 KiB, the only size there is."""

_ABSENT = (Pattern(V, 0),)
_POINTER = Pattern(V | R | W | X, V)
_PAGE = Pattern(V, V)
_NAPOT = Pattern(V | N, V | N)

_WRITE_ONLY = Forbidden(Pattern(R | W, W), "W without R")
_NO_RIGHTS = Forbidden(Pattern(R | W | X, 0), "R=W=X=0 at level 0")
_NO_TYPE = Forbidden(Pattern(PBMT, PBMT), "PBMT=3")
_NO_MEMORY_TYPE = Reserved(PBMT, "PBMT where it means nothing")
_NO_NAPOT = Reserved(N, "N where it means nothing")

_FLUSHING = Flushing(absent=True, denials=True, faults=True, leaves_alone=True, lasting_tables=True)
"""Any entry that was read may be kept.  SFENCE.VMA with an address in rs1 is for leaves alone."""

_NAMES = {"V": V, "R": R, "W": W, "X": X, "U": U, "G": G, "A": A, "D": D, "RSW": RSW}


@cache
def sv(
    address_bits: int,
    svnapot: bool = False,
    svpbmt: bool = False,
    svrsw60t59b: bool = False,
    svvptc: bool = False,
) -> Format:
    """The format of addresses of 32, 39, 48 or 57 bits, on a machine with these extensions.

    svpbmt  as menvcfg.PBMTE has it: while that is 0, PBMT is reserved
    svvptc  what is newly valid is seen in time without a flush

    Raises ValueError for another width, and for an extension in Sv32, which has but Svvptc.
    """
    if address_bits not in (32, 39, 48, 57):
        raise ValueError(
            f"RISC-V translates addresses of 32, 39, 48 or 57 bits, not {address_bits}"
        )
    if address_bits == 32:
        if svnapot or svpbmt or svrsw60t59b:
            raise ValueError("entries of Sv32 have no bits for Svnapot, Svpbmt or Svrsw60t59b")
        levels = tuple(_level(number, 10, bits(31, 10), (), _NAMES) for number in range(2))
        return _format("Sv32", 4, levels, svvptc)
    highest = 58 if svrsw60t59b else 60
    high = (Reserved(bits(highest, 54), f"bits {highest}:54"), _NO_MEMORY_TYPE, _NO_NAPOT)
    names = {**_NAMES, "PBMT": PBMT} if svpbmt else _NAMES
    pages = tuple(
        _level(number, 9, bits(53, 10), high, names)
        for number in range((address_bits - PAGE_BITS) // 9)
    )
    lowest = _with_napot(pages[0]) if svnapot else pages[0]
    return _format(f"Sv{address_bits}", 8, (lowest, *pages[1:]), svvptc)


def _format(name: str, entry_bytes: int, levels: tuple[Level, ...], svvptc: bool) -> Format:
    return Format(
        name=name,
        entry_bytes=entry_bytes,
        levels=levels,
        rights={"read": R, "write": W, "execute": X, "user": U},
        denied=0,
        accessed=A,
        dirty=D,
        lasting=G,
        flushing=replace(_FLUSHING, absent=not svvptc),
    )


def _level(
    number: int, index_bits: int, ppn: int, high: tuple[Reserved, ...], names: Mapping[str, int]
) -> Level:
    """Entries of a level.

    ppn   the bits that hold the physical page number
    high  what is reserved above it; a page may have a memory type where that has a name
    """
    shift = PAGE_BITS + index_bits * number
    low = bits(9 + index_bits * number, 10) if number else 0
    reserved = tuple(part for part in high if part is not _NO_MEMORY_TYPE or "PBMT" not in names)
    if number:
        reserved += (Reserved(low, "below a superpage"),)
    forbidden: tuple[Forbidden, ...] = (_WRITE_ONLY,) if number else (_WRITE_ONLY, _NO_RIGHTS)
    if "PBMT" in names:
        forbidden += (_NO_TYPE,)
    page = Shape(
        _PAGE, False, (Field(ppn & ~low, 2),), reserved, forbidden, bits=names, ignored=RSW
    )
    if not number:
        return Level("PTE", shift, index_bits, (page,), _ABSENT)
    pointer = Shape(
        _POINTER,
        True,
        (Field(ppn, 2),),
        (*high, Reserved(U | A | D, "U, A or D in a pointer")),
        grants={},
        notes=False,
        bits={name: _NAMES[name] for name in ("V", "R", "W", "X", "G", "RSW")},
        ignored=RSW,
    )
    return Level("PTE", shift, index_bits, (pointer, page), _ABSENT)


def _with_napot(level: Level) -> Level:
    """Level 0 with Svnapot: an entry with N is one of the 16 alike of a 64K page, of whose page
    number the lowest four bits tell the size."""
    [page] = level.shapes
    [address] = page.address
    page = replace(page, reserved=tuple(part for part in page.reserved if part is not _NO_NAPOT))
    size = Reserved(bits(13, 10), "a NAPOT page of another size than 64K", value=bits(13))
    napot = replace(
        page,
        when=_NAPOT,
        address=(Field(address.mask & ~size.mask, address.shift),),
        reserved=(*page.reserved, size),
        size=NAPOT_BITS,
        bits={**page.bits, "N": N},
    )
    return replace(level, shapes=(napot, page))
