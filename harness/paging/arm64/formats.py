"""The formats of arm64's translation tables: VMSAv8-64, stage 1 of the EL1&0 regime.

Source: Arm ARM, DDI 0487, chapter D8, "Translation table descriptor formats", "Memory access
control" and "Hardware updates to the translation tables".

The manual counts levels from the root down; level n here is its level 3-n, and its level -1 is 4.
A format is that of one half: TTBR0_EL1 and TTBR1_EL1 each have a granule and a size, so a space
is one half, too.  The contiguous bit is a hint: entries of a group have it, each with its own
address, and to keep them alike is left to who sets it.

What may be kept of a descriptor is in "TLB maintenance": not one that is invalid, has AF=0 or too
large an address, but permissions.  A valid one must be invalid, and flushed, before another leads
elsewhere, is of another size, memory type or shareability, or is global where it was not
("Using break-before-make when updating translation table entries").  That nothing else of a
contiguous group may change while it is valid, and that shareability may not, is what Linux holds to
(pgattr_change_is_safe).  FEAT_BBM, which allows more, is not made use of.  A flush of an address is
TLBI VAE1 or VAAE1, which reach tables as well (VALE1 does not).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from harness.paging.format import (
    Breaking,
    Field,
    Flushing,
    Forbidden,
    Format,
    Grant,
    Level,
    Pattern,
    Reserved,
    Shape,
    bits,
)

VALID = bits(0)
TYPE = bits(1, 0)
ATTR = bits(4, 2)
NS = bits(5)
AP_EL0 = bits(6)
AP_READ_ONLY = bits(7)
SH = bits(9, 8)
AF = bits(10)
NG = bits(11)
NT = bits(16)
GP = bits(50)
DBM = bits(51)
CONTIGUOUS = bits(52)
PXN = bits(53)
UXN = bits(54)
PO_INDEX = bits(62, 60)
PXN_TABLE = bits(59)
UXN_TABLE = bits(60)
AP_TABLE_NO_EL0 = bits(61)
AP_TABLE_READ_ONLY = bits(62)
NS_TABLE = bits(63)

_FLUSHING = Flushing(denials=True, breaks=Breaking(ATTR | SH | NT, CONTIGUOUS))

_INVALID = Pattern(VALID, 0)
_TABLE = _PAGE = Pattern(TYPE, TYPE)
_BLOCK = Pattern(TYPE, VALID)
_NO_BLOCK = (_INVALID, _BLOCK)
"""What is absent where no block can be: its type is invalid too."""

_LEAF = {
    **{"AttrIndx": ATTR, "NS": NS, "AP[1]": AP_EL0, "AP[2]": AP_READ_ONLY, "AF": AF, "nG": NG},
    **{"GP": GP, "DBM": DBM, "Contiguous": CONTIGUOUS, "PXN": PXN, "UXN": UXN},
}
_IN_TABLES = {
    **{"PXNTable": PXN_TABLE, "UXNTable": UXN_TABLE, "NSTable": NS_TABLE},
    **{"APTable[0]": AP_TABLE_NO_EL0, "APTable[1]": AP_TABLE_READ_ONLY},
}

_TABLE_GRANTS = {
    "user": Grant(AP_TABLE_NO_EL0, AP_TABLE_NO_EL0),
    "write": Grant(AP_TABLE_READ_ONLY, AP_TABLE_READ_ONLY),
    "user execute": Grant(UXN_TABLE, UXN_TABLE),
    "supervisor execute": Grant(PXN_TABLE, PXN_TABLE),
}
_DIRTY_GRANTS = {
    "user": Grant(AP_EL0),
    "write": Grant(AP_READ_ONLY | DBM, AP_READ_ONLY),
    "user execute": Grant(UXN, UXN),
    "supervisor execute": Grant(PXN, PXN),
}
"""Those of a page where hardware keeps the dirty state: DBM makes it writable whatever AP[2] is."""


def _reserved(reason: str) -> tuple[Forbidden, ...]:
    """The type of a block where none can be, and what such a descriptor is."""
    return (Forbidden(_BLOCK, reason),)


_BOTTOM = 3
LARGEST_OUTPUT = 52
SMALLEST_INPUT = 16


class Granule(NamedTuple):
    """A size of pages and tables.

    page    log2 of it
    blocks  levels of the manual at which blocks can be, and those at which only the wide addresses
            of 52 bits bring them
    """

    name: str
    page: int
    blocks: tuple[int, ...]
    wide_blocks: tuple[int, ...]

    @property
    def stride(self) -> int:
        """Bits of an address that each whole level translates."""
        return self.page - 3


GRANULES = {
    "4K": Granule("4K", 12, (1, 2), (0,)),
    "16K": Granule("16K", 14, (2,), (1,)),
    "64K": Granule("64K", 16, (2,), (1,)),
}


def stage1(
    granule: str,
    address_bits: int,
    output_bits: int,
    wide: bool = False,
    hierarchical: bool = True,
    hardware_dirty: bool = False,
    big_endian: bool = False,
) -> Format:
    """The format of one half of the addresses.

    granule         "4K", "16K" or "64K"
    address_bits    those that are translated: 64 - TxSZ
    output_bits     those of physical addresses: what TCR_EL1.IPS says, at most 48 unless `wide`
    wide            descriptors hold 52 bits: TCR_EL1.DS=1 with 4K and 16K (FEAT_LPA2), a processor
                    with FEAT_LPA with 64K
    hierarchical    whether tables withhold rights: TCR_EL1.HPDx=0
    hardware_dirty  TCR_EL1.HA=HD=1
    big_endian      SCTLR_EL1.EE=1

    Raises ValueError for what no processor has.
    """
    if granule not in GRANULES:
        raise ValueError(f"a granule is 4K, 16K or 64K, not {granule}")
    size = GRANULES[granule]
    widest = LARGEST_OUTPUT if wide else 48
    if not 32 <= output_bits <= widest:
        raise ValueError(f"physical addresses have 32 to {widest} bits here, not {output_bits}")
    widest = LARGEST_OUTPUT if wide or granule == "64K" else 48
    least = max(SMALLEST_INPUT, size.page + 1)
    if not least <= address_bits <= widest:
        raise ValueError(f"{granule} translates {least} to {widest} bits here, not {address_bits}")
    half = _Half(size, output_bits, wide, hierarchical, hardware_dirty)
    return _format(half, address_bits, big_endian)


@cache
def _format(half: _Half, address_bits: int, big_endian: bool) -> Format:
    """The same of a half that there can be, always the same object."""
    size = half.granule
    levels = -(-(address_bits - size.page) // size.stride)
    return Format(
        name=f"arm64 {size.name} {address_bits}-bit",
        entry_bytes=8,
        levels=tuple(half.level(number, address_bits) for number in range(levels)),
        rights={
            "user": AP_EL0,
            "write": AP_READ_ONLY,
            "user execute": UXN,
            "supervisor execute": PXN,
        },
        denied=AP_READ_ONLY | UXN | PXN,
        accessed=AF,
        dirty=0,
        fleeting=NG,
        byte_order="big" if big_endian else "little",
        bottom=_BOTTOM,
        flushing=_FLUSHING,
    )


class _Half(NamedTuple):
    granule: Granule
    output_bits: int
    wide: bool
    hierarchical: bool
    hardware_dirty: bool

    def level(self, number: int, address_bits: int) -> Level:
        size = self.granule
        manual, shift = _BOTTOM - number, size.page + size.stride * number
        index_bits = min(size.stride, address_bits - shift)
        name = f"L{manual}"
        if number == 0:
            why = f"a page without bit 1: type 0b01 is reserved at {name}, where pages have 0b11"
            page = (self._leaf(_PAGE, shift),)
            return Level(name, shift, index_bits, page, _NO_BLOCK, reserved=_reserved(why))
        if manual in size.blocks or (self.wide and manual in size.wide_blocks):
            shapes = (self._table(), self._leaf(_BLOCK, shift))
            return Level(name, shift, index_bits, shapes, (_INVALID,))
        why = f"a block: type 0b01 is reserved at {name}, which has none"
        table = (self._table(),)
        return Level(name, shift, index_bits, table, _NO_BLOCK, reserved=_reserved(why))

    def _table(self) -> Shape:
        low = self.granule.page
        return Shape(
            _TABLE,
            True,
            self._address(low),
            self._beyond(low),
            grants=_TABLE_GRANTS if self.hierarchical else {},
            notes=False,
            bits=_IN_TABLES,
            ignored=NS_TABLE if self.hierarchical else sum(_IN_TABLES.values()),
        )

    def _leaf(self, when: Pattern, shift: int) -> Shape:
        names = _LEAF if self._holds_52_in_sh() else {**_LEAF, "SH": SH}
        return Shape(
            when,
            False,
            self._address(shift),
            self._beyond(shift),
            grants=_DIRTY_GRANTS if self.hardware_dirty else None,
            bits=names if when is _PAGE else {**names, "nT": NT},
            ignored=NS if self.hardware_dirty else NS | DBM,
        )

    def _holds_52_in_sh(self) -> bool:
        return self.wide and self.granule.name != "64K"

    def _placed(self, low: int) -> tuple[Field, ...]:
        """Where an address stands whose bits below `low` are zero; those of a block are ignored."""
        if self._holds_52_in_sh():
            return (Field(bits(49, low)), Field(bits(9, 8), 50 - 8))
        if self.wide:
            return (Field(bits(47, low)), Field(bits(15, 12), 48 - 12))
        return (Field(bits(47, low)),)

    def _address(self, low: int) -> tuple[Field, ...]:
        """The same, as far as the output size goes."""
        inside = bits(self.output_bits - 1, 0)
        return tuple(Field(mask & inside >> shift, shift) for mask, shift in self._placed(low))

    def _beyond(self, low: int) -> tuple[Reserved, ...]:
        """An address beyond the output size is an address size fault."""
        inside = bits(self.output_bits - 1, 0)
        mask = sum(mask & ~(inside >> shift) for mask, shift in self._placed(low))
        return (Reserved(mask, f"beyond {self.output_bits} bits"),) if mask else ()
