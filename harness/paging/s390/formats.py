"""The formats of s390's region, segment and page tables.

Source: z/Architecture Principles of Operation, chapter 3, "Dynamic Address Translation", "Region-
table entries", "Segment-table entries" and "Page-table entries".  Bits are numbered here as
everywhere in the library, from the lowest; the manual numbers them from the highest.

An entry of zero is there: I, which is another bit in page tables, says that one is not.  Reference
and change are kept in storage keys, outside the tables, and every page can be read.

Not read here: a region table of which only a part is there (TF and TL of the entry above it, or TL
of the ASCE, which Linux leaves whole).  An entry that says so is malformed, with that reason.

No `Space` is built of these tables: an entry in use is changed by instructions that flush as they
do so (IPTE, IDTE, CSP: "Modification of Translation Tables"), and not by stores to memory.
"""

from __future__ import annotations

from functools import cache

from harness.paging.format import Field, Format, Grant, Level, Pattern, Reserved, Shape, bits

INVALID = bits(5)
PAGE_INVALID = bits(10)
PROTECT = bits(9)
NO_EXECUTE = bits(8)
FC = bits(10)
COMMON = bits(4)
TYPE = bits(3, 2)
OFFSET = bits(7, 6)
LENGTH = bits(1, 0)
CHANGE_OVERRIDE = bits(9)

_PROTECTS = {"write": Grant(PROTECT, PROTECT)}


@cache
def dat(edat1: bool = False, edat2: bool = False, iep: bool = False) -> Format:
    """The format of all five levels; the ASCE says at which a walk begins.

    edat1  the enhanced-DAT facility 1 applies: 1M frames, protection in region tables
    edat2  facility 2 too: 2G frames
    iep    the instruction-execution-protection facility applies

    Raises ValueError for facility 2 without facility 1.
    """
    if edat2 and not edat1:
        raise ValueError("enhanced-DAT facility 2 is not there without facility 1")
    large = {"P": PROTECT, "FC": FC, **({"IEP": NO_EXECUTE} if iep else {})}
    rights = {"write": PROTECT, **({"execute": NO_EXECUTE} if iep else {})}
    return Format(
        name="s390",
        entry_bytes=8,
        levels=(
            _page(iep),
            _segment(edat1, large),
            _region("RTTE", 1, 31, edat1, large if edat2 else None),
            _region("RSTE", 2, 42, edat1, None),
            _region("RFTE", 3, 53, edat1, None),
        ),
        rights=rights,
        denied=PROTECT | (NO_EXECUTE if iep else 0),
        accessed=0,
        dirty=0,
        byte_order="big",
        flushing=None,
    )


def _page(iep: bool) -> Level:
    names = {"P": PROTECT, "I": PAGE_INVALID, **({"IEP": NO_EXECUTE} if iep else {})}
    page = Shape(
        Pattern(PAGE_INVALID, 0),
        False,
        (Field(bits(63, 12)),),
        (Reserved(bits(11), "bit 52 of a page-table entry"),),
        bits=names,
    )
    return Level("PTE", 12, 8, (page,), (Pattern(PAGE_INVALID, PAGE_INVALID),), PAGE_INVALID)


def _segment(edat1: bool, large: dict[str, int]) -> Level:
    """Page tables have 2 KiB, and an address of 1M frames begins at bit 20."""
    type = Reserved(TYPE, "the type of another table", value=0)
    names = {"P": PROTECT, "I": INVALID, "CS": COMMON, "TT": TYPE}
    told = INVALID | (FC if edat1 else 0)
    table = Shape(
        Pattern(told, 0), True, (Field(bits(63, 11)),), (type,), grants=_PROTECTS, bits=names
    )
    frame = Shape(
        Pattern(told, FC),
        False,
        (Field(bits(63, 20)),),
        (type,),
        bits={**names, **large},
    )
    shapes = (table, frame) if edat1 else (table,)
    return Level("STE", 20, 11, shapes, (Pattern(INVALID, INVALID),), INVALID)


def _region(name: str, type: int, shift: int, edat1: bool, large: dict[str, int] | None) -> Level:
    """A region-third, -second or -first-table entry; those of the third can map frames of 2G."""
    kind = Reserved(TYPE, "the type of another table", value=type << 2)
    names = {"I": INVALID, "TT": TYPE, **({"P": PROTECT} if edat1 else {})}
    told = INVALID | (FC if large else 0)
    table = Shape(
        Pattern(told, 0),
        True,
        (Field(bits(63, 12)),),
        (
            kind,
            Reserved(OFFSET, "a table that begins later is not read here"),
            Reserved(LENGTH, "a table that ends sooner is not read here", value=LENGTH),
        ),
        grants=_PROTECTS if edat1 else {},
        bits={**names, "TF": OFFSET, "TL": LENGTH},
    )
    if large is None:
        return Level(name, shift, 11, (table,), (Pattern(INVALID, INVALID),), INVALID)
    frame = Shape(
        Pattern(told, FC), False, (Field(bits(63, 31)),), (kind,), bits={**names, **large}
    )
    return Level(name, shift, 11, (table, frame), (Pattern(INVALID, INVALID),), INVALID)
