"""Formats that no machine has, to show that the library is made for formats and not for one.

MIXED has tables of 4, 32 and 8 entries, pages of 256 bytes and of 2 KByte, presence in a field of
two bits, a bit that is set in pointers and not in leaves, and two roots with a table each.
SCATTERED has 4-byte entries, and large pages whose address lies in two fields, the upper part
below the lower one.
"""

from __future__ import annotations

from dataclasses import replace

from harness.paging.address import Physical, Span
from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape
from harness.paging.table import Root, Table

_BITS = {"W": 1 << 3, "LOCKED": 1 << 4, "SEEN": 1 << 5}
_BEYOND = Reserved(3 << 40, "beyond 40 bits")
_ANY, _TABLE, _PAGE = Pattern(0b11, 0b10), Pattern(0b111, 0b110), Pattern(0b111, 0b010)
_POINTER = Shape(_TABLE, True, (Field(0xFF_FFFF_FF00),), (_BEYOND,), bits=_BITS)
_SMALL = Shape(_ANY, False, (Field(0xFF_FFFF_FF00),), (_BEYOND,), bits=_BITS)
_LARGE = Shape(
    _PAGE,
    False,
    (Field(0xFF_FFFF_F800),),
    (_BEYOND, Reserved(0x700, "below a large page")),
    bits=_BITS,
)
_NOTHING = (Pattern(0b10, 0), Pattern(0b11, 0b11))

MIXED = Format(
    name="mixed",
    entry_bytes=8,
    levels=(
        Level("ML0", 8, 3, (_SMALL,), _NOTHING),
        Level("ML1", 11, 5, (_POINTER, _LARGE), _NOTHING),
        Level("ML2", 16, 2, (replace(_POINTER, when=_ANY),), _NOTHING),
    ),
    rights={"write": 1 << 3, "open": 1 << 4},
    denied=1 << 4,
    accessed=1 << 5,
    dirty=0,
)

MIXED_ROOTS = (
    Root(Table(MIXED, Physical(0x000), 2), Span(0x00000, 0x3FFFF)),
    Root(Table(MIXED, Physical(0x100), 2), Span(0x180000, 0x1BFFFF)),
)

SCATTERED = Format(
    name="scattered",
    entry_bytes=4,
    levels=(
        Level(
            "SL0",
            12,
            10,
            (Shape(Pattern(1, 1), False, (Field(0xFFFFF000),), bits={"W": 2}),),
            (Pattern(1, 0),),
        ),
        Level(
            "SL1",
            22,
            10,
            (
                Shape(Pattern(0x81, 1), True, (Field(0xFFFFF000),), bits={"W": 2}),
                Shape(
                    Pattern(0x81, 0x81),
                    False,
                    (Field(0xFFC00000), Field(0x1FE000, 19)),
                    (Reserved(1 << 21, "beyond 40 bits"),),
                    bits={"W": 2},
                ),
            ),
            (Pattern(1, 0),),
        ),
    ),
    rights={"write": 2},
    denied=0,
    accessed=1 << 5,
    dirty=1 << 6,
)

SCATTERED_ROOTS = (Root(Table(SCATTERED, Physical(0), 1), Span(0, 0xFFFFFFFF)),)
