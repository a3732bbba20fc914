"""The formats of x86 page tables.  Each reads like the tables of the SDM, volume 3A, chapter 4.

Bits are written as in the manual: the highest and the lowest, both included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape
from harness.paging.format import bits as bits

PAGE_BITS = 12
"""log2 of the smallest page, and of the size of a table."""

INDEX_BITS = 9
"""Bits of an address that each level of 8-byte entries translates."""

SHORT_INDEX_BITS = 10
"""The same for the 4-byte entries of 32-bit paging."""

LEGACY_ADDRESS_BITS = 32
"""Width of addresses outside long mode."""

KEYS = 16
"""Protection keys."""

PDPTES = 4
"""PDPTE registers of PAE paging."""

PDPTE_BYTES = 8
"""What each takes in memory."""

PDPTE_LEVEL = 2
"""The level of what they would be entries of: they lead to tables at level 1."""

WIDEST = 52
"""No physical address is wider (bits)."""

ADDRESS = bits(WIDEST - 1, PAGE_BITS)
"""The bits of an entry among which those of its address are, whatever the processor's width."""

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
KEY_SHIFT = 59
KEY = bits(KEY_SHIFT + 3, KEY_SHIFT)
XD = bits(63)

_ENTRY = {"P": P, "W": RW, "U": US, "PWT": PWT, "PCD": PCD, "A": A}
_LEAF = {**_ENTRY, "D": D, "G": G}
_PRESENT = Pattern(P, P)
_TABLE = Pattern(P | PS, P)
_LARGE = Pattern(P | PS, P | PS)
"""What tells tables from large pages, where both can be."""

_ABSENT = (Pattern(P, 0),)


def key_of(raw: int) -> int:
    """The protection key of a leaf of long mode (SDM 4.6.2)."""
    return (raw & KEY) >> KEY_SHIFT


def address_bits(levels: int) -> int:
    """Width of the addresses that long mode translates: 48 or 57 bits."""
    return PAGE_BITS + levels * INDEX_BITS


def long_mode(
    levels: int,
    maxphyaddr: int,
    nxe: bool,
    page1gb: bool,
    amd: bool = False,
    mark: Mark | None = None,
) -> Format:
    """4-level and 5-level paging (SDM 4.5, tables 4-14 to 4-20).

    amd   bit 8 of a PML4E and PML5E must be zero, which Intel ignores (APM volume 2, 5.3.3)
    mark  the bit that marks encrypted or shared memory

    Raises ValueError for another number of levels, or a width that is not 32 to 52 bits.
    """
    found = _long_mode(levels, maxphyaddr, nxe, page1gb, amd)
    return found if mark is None else _marked(found, mark)


class Mark(NamedTuple):
    """A bit of every entry and of CR3 that is part of no address, and never reserved: the C-bit of
    SME and SEV (APM volume 2, 7.10 and 15.34), or the shared bit of TDX."""

    name: str
    bit: int


@cache
def _marked(format: Format, mark: Mark) -> Format:
    """The format with a bit that marks memory."""
    mask = bits(mark.bit)

    def marked(shape: Shape) -> Shape:
        address = tuple(field._replace(mask=field.mask & ~mask) for field in shape.address)
        reserved = (part._replace(mask=part.mask & ~mask) for part in shape.reserved)
        return replace(
            shape,
            address=address,
            reserved=tuple(part for part in reserved if part.mask),
            bits={**shape.bits, mark.name: mask},
        )

    levels = tuple(level.changed(marked) for level in format.levels)
    return replace(format, name=f"{format.name}, {mark.name} in bit {mark.bit}", levels=levels)


@cache
def _long_mode(levels: int, maxphyaddr: int, nxe: bool, page1gb: bool, amd: bool) -> Format:
    if levels not in (4, 5):
        raise ValueError(f"long mode has 4 or 5 levels, not {levels}")
    table, everywhere = _address(maxphyaddr, PAGE_BITS), _everywhere(maxphyaddr, nxe)
    no_page = Reserved(PS, "PS where no page can be")
    no_global = (Reserved(G, "bit 8 on AMD"),) if amd else ()

    leaf = {**_LEAF, "KEY": KEY, "XD": XD}
    above = {**_ENTRY, "PS": PS, "XD": XD}
    pointer = Shape(_TABLE, True, table, everywhere, bits=above)
    only_pointer = Shape(_PRESENT, True, table, (*everywhere, no_page), bits=above)
    top_pointer = Shape(_PRESENT, True, table, (*everywhere, no_page, *no_global), bits=above)
    page1g = Shape(
        _LARGE,
        False,
        _address(maxphyaddr, 30),
        (*everywhere, Reserved(bits(29, 13), "below a 1G page")),
        bits={**leaf, "PS": PS, "PAT": PAT_LARGE},
    )
    pdpte = (pointer, page1g) if page1gb else (only_pointer,)

    return Format(
        name=f"x86-64 {levels}-level",
        entry_bytes=8,
        levels=(
            *_page_levels(maxphyaddr, everywhere, leaf, above),
            Level("PDPTE", 30, INDEX_BITS, pdpte, _ABSENT),
            Level("PML4E", 39, INDEX_BITS, (top_pointer,), _ABSENT),
            Level("PML5E", 48, INDEX_BITS, (top_pointer,), _ABSENT),
        )[:levels],
        rights={"write": RW, "user": US, "execute": XD},
        denied=XD,
        accessed=A,
        dirty=D,
        lasting=G,
        exclusive=US,  # SMEP and SMAP keep the supervisor out of user pages
        shadow=RW,  # CR4.CET (SDM 4.6.1)
    )


@cache
def pae(maxphyaddr: int, nxe: bool, pdptes: Shape | None = None) -> Format:
    """PAE paging below its PDPTEs (SDM 4.4.2, tables 4-9 to 4-11).

    The PDPTEs are registers, not entries of a table: `pdpte` is how they read.

    pdptes  how they do where they are none, but entries of a third level

    Raises ValueError for a width that is not 32 to 52 bits.
    """
    always = Reserved(bits(62, WIDEST), f"bits 62:{WIDEST}, which are reserved in PAE paging")
    everywhere = (*_everywhere(maxphyaddr, nxe), always)
    leaf, above = {**_LEAF, "XD": XD}, {**_ENTRY, "PS": PS, "XD": XD}
    levels: tuple[Level, ...] = _page_levels(maxphyaddr, everywhere, leaf, above)
    if pdptes is not None:
        levels += (Level("PDPTE", 30, PDPTES.bit_length() - 1, (pdptes,), _ABSENT),)
    return Format(
        name="x86 PAE",
        entry_bytes=8,
        levels=levels,
        rights={"write": RW, "user": US, "execute": XD},
        denied=XD,
        accessed=A,
        dirty=D,
        lasting=G,
        exclusive=US,  # SMEP and SMAP keep the supervisor out of user pages
        shadow=RW,  # CR4.CET (SDM 4.6.1)
    )


@cache
def pdpte(maxphyaddr: int, checked: int = -1) -> Shape:
    """How a present PDPTE of PAE paging reads (SDM 4.4.1, table 4-8): it grants and notes nothing.

    checked  the bits that a machine looks at, of those that are reserved

    Raises ValueError for a width that is not 32 to 52 bits.
    """
    reserved = (
        Reserved(bits(2, 1), "bits 2:1 of a PDPTE"),
        Reserved(bits(8, 5), "bits 8:5 of a PDPTE"),
        *_beyond(maxphyaddr),
        Reserved(bits(63, WIDEST), f"bits 63:{WIDEST} of a PDPTE"),
    )
    return Shape(
        _PRESENT,
        True,
        _address(maxphyaddr, PAGE_BITS),
        tuple(part._replace(mask=part.mask & checked) for part in reserved if part.mask & checked),
        grants={},
        notes=False,
        bits={"P": P, "PWT": PWT, "PCD": PCD, "A": A},
    )


@cache
def paging32(maxphyaddr: int, pse: bool, pse36: bool) -> Format:
    """32-bit paging (SDM 4.3, tables 4-3 to 4-6).  There is no right to execute to take away.

    pse    4M pages (CR4.PSE); without them PS is ignored
    pse36  a 4M page can lie above 4 GiB (CPUID.01H:EDX[17])

    Raises ValueError for a width that is not 32 to 52 bits.
    """
    short = _address(LEGACY_ADDRESS_BITS, PAGE_BITS)
    above = {**_ENTRY, "PS": PS}
    page4k = Shape(_PRESENT, False, short, bits={**_LEAF, "PAT": PAT})
    pde: tuple[Shape, ...] = (Shape(_PRESENT, True, short, bits=above, ignored=PS),)
    if pse:
        pde = (
            Shape(_TABLE, True, short, bits=above),
            _page4m(_width(maxphyaddr), pse36),
        )
    return Format(
        name="x86 32-bit",
        entry_bytes=4,
        levels=(
            Level("PTE", PAGE_BITS, SHORT_INDEX_BITS, (page4k,), _ABSENT),
            Level("PDE", 22, SHORT_INDEX_BITS, pde, _ABSENT),
        ),
        rights={"write": RW, "user": US},
        denied=0,
        accessed=A,
        dirty=D,
        lasting=G,
        exclusive=US,  # SMEP and SMAP keep the supervisor out of user pages
        shadow=RW,  # CR4.CET (SDM 4.6.1)
    )


def _page4m(maxphyaddr: int, pse36: bool) -> Shape:
    """A 4M page: bits of its address above 31 are scattered over bits 20:13 (SDM table 4-4)."""
    width = min(40, maxphyaddr) if pse36 else 32
    address = _address(32, 22)
    if width > 32:
        address += (Field(bits(width - 20, 13), 32 - 13),)
    return Shape(
        _LARGE,
        False,
        address,
        (Reserved(bits(21, width - 19), "below a 4M page"),),
        bits={**_LEAF, "PS": PS, "PAT": PAT_LARGE},
    )


def _page_levels(
    maxphyaddr: int,
    everywhere: tuple[Reserved, ...],
    leaf: Mapping[str, int],
    above: Mapping[str, int],
) -> tuple[Level, Level]:
    """The two levels that PAE and long mode share: 4K and 2M pages.

    leaf, above  the bits that have names in every page, and in a pointer
    """
    table = _address(maxphyaddr, PAGE_BITS)
    page4k = Shape(_PRESENT, False, table, everywhere, bits={**leaf, "PAT": PAT})
    pointer = Shape(_TABLE, True, table, everywhere, bits=above)
    page2m = Shape(
        _LARGE,
        False,
        _address(maxphyaddr, 21),
        (*everywhere, Reserved(bits(20, 13), "below a 2M page")),
        bits={**leaf, "PS": PS, "PAT": PAT_LARGE},
    )
    return (
        Level("PTE", PAGE_BITS, INDEX_BITS, (page4k,), _ABSENT),
        Level("PDE", 21, INDEX_BITS, (pointer, page2m), _ABSENT),
    )


def _address(maxphyaddr: int, low: int) -> tuple[Field, ...]:
    """Where an entry holds an address whose bits below `low` are zero."""
    return (Field(bits(_width(maxphyaddr) - 1, low)),)


def _width(maxphyaddr: int) -> int:
    if not 32 <= maxphyaddr <= WIDEST:
        raise ValueError(f"MAXPHYADDR is 32 to {WIDEST} bits, not {maxphyaddr}")
    return maxphyaddr


def _everywhere(maxphyaddr: int, nxe: bool) -> tuple[Reserved, ...]:
    """What is reserved in every 8-byte entry: address bits that the processor lacks, and XD."""
    found = _beyond(maxphyaddr)
    if not nxe:
        found += (Reserved(XD, "XD while EFER.NXE=0"),)
    return found


def _beyond(maxphyaddr: int) -> tuple[Reserved, ...]:
    """The address bits that the processor lacks; none where it has them all."""
    if _width(maxphyaddr) == WIDEST:
        return ()
    return (Reserved(bits(WIDEST - 1, maxphyaddr), f"beyond MAXPHYADDR {maxphyaddr}"),)
