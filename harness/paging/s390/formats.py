"""The formats of s390's region, segment and page tables.

Source: z/Architecture Principles of Operation, chapter 3, "Dynamic Address Translation", "Region-
table entries", "Segment-table entries" and "Page-table entries".  Bits are numbered here as
everywhere in the library, from the lowest; the manual numbers them from the highest.

An entry of zero is there: I, which is another bit in page tables, says that one is not.  TF and TL
of a region-table entry say which quarters of the table below are there, so that tables are 4 to
16 KiB long.  Reference and change are kept in storage keys, outside the tables, and every page can
be read.

What a space has to flush rests on "Modification of Translation Tables": an entry that is there
may become another only by way of an invalid one, and TLBs keep none that is invalid.  To be
flushed, an address is meant for IPTE, or IDTE for large frames; everything is PTLB on one
processor, and IDTE on all.  The store that makes an entry invalid is the space's: where another
processor may be using the entry, the manual wants IPTE or IDTE to do that too.

The manual was not at hand.  Linux (arch/s390/mm/pgtable.c) has ptep_xchg_direct invalidate what is
there before it stores another, though it only gives a right; of ptep_reset_dat_prot, which clears P
by RDP where there is that instruction, it says that the architecture forbids to change an entry
that is valid, but in bits that are the software's.

Bits that have no meaning here are free, as QEMU and Linux's KVM have it (gaccess.c).
"""

from __future__ import annotations

from functools import cache

from harness.paging.format import (
    Bounds,
    Breaking,
    Field,
    Flushing,
    Format,
    Grant,
    Level,
    Pattern,
    Reserved,
    Shape,
    bits,
)

INVALID = bits(5)
PAGE_INVALID = bits(10)
PROTECT = bits(9)
NO_EXECUTE = bits(8)
FC = bits(10)
COMMON = bits(4)
TYPE = bits(3, 2)
OFFSET = bits(7, 6)
LENGTH = bits(1, 0)

_PROTECTS = {"write": Grant(PROTECT, PROTECT)}
_EVERY = -1
"""Of the bits that the machine reads, none changes in an entry that is there."""
_FLUSHING = Flushing(denials=True, leaves_alone=True, breaks=Breaking(_EVERY, tables=_EVERY))
_NO_COMMON_SEGMENT = Reserved(COMMON, "a common segment in a private space")
_NO_COMMON_REGION = Reserved(COMMON, "a common region in a private space")


@cache
def dat(
    edat1: bool = False,
    edat2: bool = False,
    iep: bool = False,
    private: bool = False,
    levels: int = 5,
) -> Format:
    """The format of the tables at the lowest levels, 2 to 5 of them; the ASCE says how many.

    edat1    the enhanced-DAT facility 1 applies: 1M frames, protection in region tables
    edat2    facility 2 too: 2G frames
    iep      the instruction-execution-protection facility applies
    private  the ASCE has P, so that no segment and no region is common

    Raises ValueError for facility 2 without facility 1.
    """
    if edat2 and not edat1:
        raise ValueError("enhanced-DAT facility 2 is not there without facility 1")
    large = {"P": PROTECT, "FC": FC, **({"IEP": NO_EXECUTE} if iep else {})}
    rights = {"write": PROTECT, **({"execute": NO_EXECUTE} if iep else {})}
    all_levels = (
        _page(iep),
        _segment(edat1, large, private),
        _region("RTTE", 1, 31, edat1, large if edat2 else None, private),
        _region("RSTE", 2, 42, edat1),
        _region("RFTE", 3, 53, edat1),
    )
    return Format(
        name="s390",
        entry_bytes=8,
        levels=all_levels[:levels],
        rights=rights,
        denied=sum(rights.values()),
        accessed=0,
        dirty=0,
        byte_order="big",
        flushing=_FLUSHING,
    )


def _page(iep: bool) -> Level:
    names = {"P": PROTECT, "I": PAGE_INVALID, **({"IEP": NO_EXECUTE} if iep else {})}
    page = Shape(
        Pattern(PAGE_INVALID, 0),
        False,
        (Field(bits(63, 12)),),
        (Reserved(bits(11), "bit 52 (by the manual) of a page-table entry"),),
        bits=names,
    )
    return Level("PTE", 12, 8, (page,), (Pattern(PAGE_INVALID, PAGE_INVALID),), PAGE_INVALID)


def _segment(edat1: bool, large: dict[str, int], private: bool) -> Level:
    """Page tables have 2 KiB, and an address of 1M frames begins at bit 20."""
    type = Reserved(TYPE, "the type of another table", value=0)
    reserved = (type, _NO_COMMON_SEGMENT) if private else (type,)
    names = {"P": PROTECT, "I": INVALID, "CS": COMMON, "TT": TYPE}
    told = INVALID | (FC if edat1 else 0)
    table = Shape(
        Pattern(told, 0), True, (Field(bits(63, 11)),), reserved, grants=_PROTECTS, bits=names
    )
    frame = Shape(
        Pattern(told, FC),
        False,
        (Field(bits(63, 20)),),
        reserved,
        bits={**names, **large},
    )
    shapes = (table, frame) if edat1 else (table,)
    return Level("STE", 20, 11, shapes, (Pattern(INVALID, INVALID),), INVALID)


def _region(
    name: str,
    type: int,
    shift: int,
    edat1: bool,
    large: dict[str, int] | None = None,
    private: bool = False,
) -> Level:
    """A region-third, -second or -first-table entry; those of the third can map frames of 2G."""
    kind = Reserved(TYPE, "the type of another table", value=type << 2)
    names = {"I": INVALID, "TT": TYPE, **({"P": PROTECT} if edat1 else {})}
    told = INVALID | (FC if large else 0)
    table = Shape(
        Pattern(told, 0),
        True,
        (Field(bits(63, 12)),),
        (kind, _NO_COMMON_REGION) if large and private else (kind,),
        grants=_PROTECTS if edat1 else {},
        bounds=Bounds(OFFSET, LENGTH),
        bits={**names, "TF": OFFSET, "TL": LENGTH, **({"CR": COMMON} if large else {})},
    )
    if large is None:
        return Level(name, shift, 11, (table,), (Pattern(INVALID, INVALID),), INVALID)
    reserved = (kind, _NO_COMMON_REGION) if private else (kind,)
    frame = Shape(
        Pattern(told, FC),
        False,
        (Field(bits(63, 31)),),
        reserved,
        bits={**names, "CR": COMMON, **large},
    )
    return Level(name, shift, 11, (table, frame), (Pattern(INVALID, INVALID),), INVALID)
