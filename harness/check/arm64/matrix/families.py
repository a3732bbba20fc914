"""The families of cases that make arm64's matrix: what varies in each, declared as products.

leaf     a page or a block has every combination of AP, UXN, PXN, AF and DBM
table    a table withholds every combination of rights, from pages that have every combination
type     a descriptor has each of the four types
ignored  a descriptor has each bit that means nothing to permissions, and some together
size     a table, a page or a block is at an address with each high bit, under each IPS
root     the root is
hole     each bit of an address above those translated is flipped, with tags, EPD and E0PD
short    addresses have every number of bits, so that roots are short and walks begin at each level
place    pages of all sizes are accessed at several places
pair     the same, where the half in which the stub runs has another granule
align    data is aligned or not, and is refused for that before anything else (SCTLR_EL1.A)
device   the same where it may be anywhere in Normal memory, and must be aligned in Device memory

Each is tried at every level, by EL0 and EL1, by loads, stores, fetches, SWP, LDTR and STTR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product as every
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.check.arm64.matrix.chain import ACCESSES, NOWHERE, REGION, Chain, Lanes
from harness.check.arm64.matrix.setting import MODES, Control, Setting
from harness.check.marks import WORD
from harness.check.matrix import Plain
from harness.check.product import Axis, Product, Rule, Value
from harness.paging.arm64.access import Kind
from harness.paging.arm64.cpu import OUTPUT_BITS, Features
from harness.paging.arm64.formats import (
    AF,
    AP_EL0,
    AP_READ_ONLY,
    AP_TABLE_NO_EL0,
    AP_TABLE_READ_ONLY,
    DBM,
    GRANULES,
    PXN,
    PXN_TABLE,
    UXN,
    UXN_TABLE,
)
from harness.paging.bulk import Bytes, Counts
from harness.paging.memory import Words

PRESETS: Final = ("quick", "full")

Chosen = Mapping[str, npt.NDArray[Any]]
"""The values of each axis, lane by lane."""

_LEAF: Final = {
    "AP1": AP_EL0,
    "AP2": AP_READ_ONLY,
    "UXN": UXN,
    "PXN": PXN,
    "AF": AF,
    "DBM": DBM,
}
_TABLE: Final = {
    "APTABLE0": AP_TABLE_NO_EL0,
    "APTABLE1": AP_TABLE_READ_ONLY,
    "UXNTABLE": UXN_TABLE,
    "PXNTABLE": PXN_TABLE,
}
_TYPE_LEAF, _TYPE_TABLE = 1, 3
_TOP_LEVEL: Final = 4
_FLAG: Final = (0, 1)


def _flags(names: Iterable[str]) -> tuple[Axis, ...]:
    return tuple(Axis(name, _FLAG) for name in names)


_WHO: Final = (Axis("access", tuple(ACCESSES)), Axis("el", _FLAG))
_ACCESS: Final = (*_WHO, *_flags(("pan", "uao")))
_RULES: Final = (
    Rule(
        "UAO is for LDTR and STTR",
        lambda values: (
            (values["uao"] == 1) & (values["access"] != "ldtr") & (values["access"] != "sttr")
        ),
    ),
)
_NO_BLOCK_AT_THE_TOP: Final = Rule(
    "a block at level -1 ends QEMU 7.2 itself (tcg-arm-block-anywhere)",
    lambda values: values["type"] == _TYPE_LEAF,
)


@dataclass(frozen=True)
class Family(Plain):
    """Cases of one setting that vary the same things.

    level     of the descriptor that varies
    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    change    what makes of permissive lanes those of the cases
    """

    name: str
    setting: Setting
    level: int
    product: Product
    controls: tuple[Control, ...]
    change: Callable[[Family, Chain, Chosen, Lanes], None]

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        return {"family": self.name, **self.setting.values(), "level": self.level}

    def lacks(self, control: Control) -> str | None:
        return control.lacks(self.setting.features)


def lanes(family: Family, chain: Chain, control: Control, numbers: Counts) -> Lanes:
    """The cases of a family with these numbers."""
    places = family.product.places(numbers)
    chosen = {axis.name: axis.array.take(places[axis.name]) for axis in family.product.axes}
    made = permissive(family, chain, control, chosen)
    family.change(family, chain, chosen, made)
    return made


def permissive(family: Family, chain: Chain, control: Control, chosen: Chosen) -> Lanes:
    """Lanes whose path ends in a page at the family's level that permits everything, but for what
    the axes say, to whoever makes the access."""
    kind, el0 = _kinds(chosen["access"]), chosen["el"] == 0
    n, levels = len(kind), family.setting.levels
    there = np.where(kind == Kind.FETCH, np.uint64(chain.code), np.uint64(chain.data))
    words = np.zeros((levels, n), np.uint64)
    for level in range(1, levels):
        words[level] = pointer_to(chain.tables[level - 1])
    data_bytes = 4 if family.name in (ALIGN, DEVICE) else WORD
    as_el0 = el0 | (kind == Kind.LDTR) | (kind == Kind.STTR)
    leaf = np.where(as_el0, np.uint64(AP_EL0 | AF), np.uint64(AF))
    for name, bit in _LEAF.items():
        if name in chosen:
            leaf = leaf & ~np.uint64(bit) | np.where(
                chosen[name] == 1, np.uint64(bit), np.uint64(0)
            )
    words[family.level] = frame(family.setting, family.level, there) | leaf
    none = np.zeros(n, np.bool_)
    return Lanes(
        words=words,
        address=address_of(family.setting, control, there),
        kind=kind,
        el0=el0,
        pan=chosen["pan"] == 1 if "pan" in chosen else none,
        uao=chosen["uao"] == 1 if "uao" in chosen else none,
        size=np.full(n, data_bytes, np.uint8),
    )


def _kinds(names: npt.NDArray[np.str_]) -> Bytes:
    """The accesses of these names."""
    found = np.zeros(len(names), np.uint8)
    for name, kind in ACCESSES.items():
        found[names == name] = kind
    return found


def pointer_to(table: int) -> int:
    """The descriptor that leads to a table."""
    return table | _TYPE_TABLE


def frame(setting: Setting, level: int, physical: Words) -> Words:
    """The address and the type of the page or block at a level in which `physical` lies."""
    size = np.uint64(1 << setting.shift(level))
    kind = np.uint64(_TYPE_LEAF if level else _TYPE_TABLE)
    found: Words = physical & ~(size - np.uint64(1)) | kind
    return found


def address_of(setting: Setting, control: Control, physical: Words) -> Words:
    """The address that leads to a physical one by pages of any size, by the middle of the root."""
    top, bits = setting.shift(setting.levels - 1), setting.address_bits
    entries = 1 << bits - top
    half = (1 << 64) - (1 << bits) if control.high else 0
    found: Words = physical & np.uint64((1 << top) - 1) | np.uint64(entries // 2 << top | half)
    return found


def descriptor_bit(setting: Setting, bit: int) -> int:
    """Where a descriptor has a bit of a physical address; 0 where it has no place for it."""
    if setting.wide and setting.granule == "64K" and bit >= 48:
        return 1 << bit - 48 + 12
    if setting.wide and bit >= 50:
        return 1 << bit - 50 + 8
    return 1 << bit if bit < 48 or setting.wide else 0


def blocks_of(setting: Setting) -> tuple[int, ...]:
    """The levels at which pages and blocks can be, from 0 up."""
    size = GRANULES[setting.granule]
    manual = (3, *size.blocks, *(size.wide_blocks if setting.wide else ()))
    return tuple(sorted(3 - level for level in manual if 3 - level < setting.levels))


# ---- what each family changes ----


def _nothing(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    """All is in the axes that the permissive lanes have."""


def _table(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    _page_below(family, chain, chosen, into)
    word = np.full(len(into), pointer_to(chain.tables[family.level - 1]), np.uint64)
    for name, bit in _TABLE.items():
        word |= np.where(chosen[name] == 1, np.uint64(bit), np.uint64(0))
    into.words[family.level] = word


def _page_below(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    """The permissive page, with what the axes say of it, at level 0."""
    there = np.where(into.fetch, np.uint64(chain.code), np.uint64(chain.data))
    rights = into.words[family.level] & np.uint64(sum(_LEAF.values()))
    into.words[0] = frame(family.setting, 0, there) | rights


def _type(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    kind = chosen["type"].astype(np.uint64)
    leaf = into.words[family.level] & ~np.uint64(3)
    if family.level:
        _page_below(family, chain, chosen, into)
        below = np.uint64(chain.tables[family.level - 1])
        leaf = np.where(kind == _TYPE_TABLE, below, leaf)
    into.words[family.level] = leaf | kind


def _ignored(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    if family.level:
        points = chosen["points"] == 1
        page = into.words[family.level].copy()
        _page_below(family, chain, chosen, into)
        below = np.uint64(pointer_to(chain.tables[family.level - 1]))
        into.words[family.level] = np.where(points, below, page)
    into.words[family.level] |= _together(chosen["set"])


def _together(sets: npt.NDArray[Any]) -> Words:
    """The bits that the values of the axis `set` stand for."""
    found = np.zeros(len(sets), np.uint64)
    for one in np.unique(sets).tolist():
        found[sets == one] = _mask(str(one))
    return found


def _mask(together: str) -> int:
    return 0 if together == "none" else sum(1 << int(bit) for bit in together.split("+"))


def _size(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    if family.level:
        points = chosen["points"] == 1
        page = into.words[family.level].copy()
        _page_below(family, chain, chosen, into)
        below = np.uint64(pointer_to(chain.tables[family.level - 1]))
        into.words[family.level] = np.where(points, below, page)
    for bit in NOWHERE:
        held = np.uint64(descriptor_bit(family.setting, bit))
        into.words[family.level] |= held * (chosen["beyond"] == bit)


def _hole(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] ^= _together(chosen["set"])


def _short(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] ^= np.where(
        chosen["outside"] == 1, np.uint64(1 << family.setting.address_bits), np.uint64(0)
    )


def _place(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    offset = chosen["offset"].astype(np.uint64)
    into.address[:] += offset
    page = np.uint64((1 << family.setting.shift(0)) - 1)
    if not family.level:
        into.words[0] += offset & ~page


def _aligned(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    _short(family, chain, chosen, into)
    into.address[:] += chosen["offset"].astype(np.uint64)
    invalid = np.where(chosen["valid"] == 1, np.uint64(0), np.uint64(3))
    into.words[0] &= ~invalid


# ---- what is tried ----

ALIGN, DEVICE = "align", "device"

_LEAF_IGNORED: Final = ("none", "5", "11", "50", "52", "55", "56", "57", "58", "59", "60", "61")
_SETS: Final = (*_LEAF_IGNORED, "62", "63", "11+52+55+58", "55+56+57+58+59+60+61+62+63")
_OFFSETS: Final = (0, 0x10, 0x7F0, 0xFF0, 0x1000, 0x4000, REGION // 2 + 0x20, REGION - 16)
_DATA: Final = tuple(name for name, kind in ACCESSES.items() if kind is not Kind.FETCH)
_ALIGNED: Final = (
    Axis("offset", (0, 1, 2, 4)),
    *_flags(("AP1", "AP2", "AF", "valid", "outside")),
    *(Axis("access", _DATA), Axis("el", _FLAG), *_flags(("pan", "uao"))),
)
_AMO_IS_ALIGNED: Final = Rule(
    "whether SWP of what is not aligned faults is left to the machine (FEAT_LSE2)",
    lambda values: (values["access"] == "swap") & (values["offset"] % 4 != 0),
)
_TAGS: Final = ("56+63", "57+60+62", "55+56+57+58+59+60+61+62+63")


def families(preset: str, mode: str, features: Features, new: bool = True) -> Iterator[Family]:
    """What a preset tries in a mode of a processor.

    new  whether a block at level -1 leaves QEMU alive
    """
    setting = Setting(mode, MODES[mode].bits, features)
    ips = setting.address_bits if setting.wide else 48
    full = preset == "full"
    whole = full or features.pan < 3  # without EPAN, half of the states are skipped
    widths = tuple(bits for bits in OUTPUT_BITS if bits <= features.output_bits)
    blocks = blocks_of(setting)
    both = tuple(Control(high, ips=ips) for high in (False, True))
    beside = tuple(
        Control(high, ips=ips, beside=granule)
        for high, granule in every((False, True), GRANULES)
        if granule != Control.beside
    )

    def family(
        name: str,
        level: int,
        axes: tuple[Axis, ...],
        change: Callable[[Family, Chain, Chosen, Lanes], None],
        controls: tuple[Control, ...],
        of: Setting = setting,
        rules: tuple[Rule, ...] = (),
    ) -> Family:
        return Family(name, of, level, Product(axes, rules), controls, change)

    permitted = tuple(
        Control(high, ha, hd, wxn=wxn, epan=epan, ips=ips)
        for high, ha, hd, wxn, epan in every((False, True), repeat=5)
        if whole or high == wxn ^ epan ^ hd
    )
    withheld = tuple(
        Control(high, ha, ha, hpd=hpd, wxn=wxn, epan=epan, ips=ips)
        for high, ha, hpd, wxn, epan in every((False, True), repeat=5)
        if full or (high == hpd ^ wxn and (whole or epan == high ^ ha))
    )
    marks = tuple(Control(high, ha, ha, ips=ips) for high, ha in every((False, True), repeat=2))
    sizes = tuple(
        Control(high, ips=width, ha=high, hd=high) for high, width in every((False, True), widths)
    )
    for level in range(setting.levels):
        points = Axis("points", _FLAG if level in blocks and level else (int(level > 0),))
        types = (Axis("type", (0, 1, 2, 3)), *_flags(("AP1", "AF")), *_ACCESS)
        ends = () if new or level < _TOP_LEVEL else (_NO_BLOCK_AT_THE_TOP,)
        yield family("type", level, types, _type, marks, rules=(*_RULES, *ends))
        sets = (Axis("set", _SETS), points, *_flags(("AF",)), *_ACCESS)
        yield family("ignored", level, sets, _ignored, marks, rules=_RULES)
        lowest = setting.shift(level) if level in blocks else 0
        held = (bit for bit in NOWHERE if descriptor_bit(setting, bit) and bit >= lowest)
        yield family("size", level, (Axis("beyond", (0, *held)), points, *_WHO), _size, sizes)
        if level:
            rights = (*_flags((*_TABLE, "AP1", "AP2", "UXN", "PXN", "DBM")), *_ACCESS)
            yield family("table", level, rights, _table, withheld, rules=_RULES)
        if level in blocks:
            flags = (*_flags(_LEAF), *_ACCESS)
            yield family("leaf", level, flags, _nothing, permitted, rules=_RULES)
            places = (Axis("offset", _OFFSETS), *_WHO)
            yield family("place", level, places, _place, both)
            yield family("pair", level, places, _place, beside)
    roots = tuple(
        Control(high, ips=width, beyond=beyond)
        for high, width in every((False, True), widths)
        for beyond in NOWHERE
        if min(width, ips) <= beyond < 48
    )
    yield family("root", 0, _WHO, _nothing, roots)
    by_a = tuple(
        Control(high, ha, ha, aligns=aligns, device=device, ips=ips)
        for high, ha, aligns, device in every((False, True), repeat=4)
        if full or high == ha ^ device
    )
    for name, aligns, rules in ((ALIGN, True, _RULES), (DEVICE, False, (*_RULES, _AMO_IS_ALIGNED))):
        some = tuple(control for control in by_a if control.aligns == aligns)
        yield family(name, 0, _ALIGNED, _aligned, some, rules=rules)
    flips = ("none", *map(str, range(setting.address_bits, 64)), *_TAGS)
    closed = tuple(
        Control(high, tbi=tbi, tbid=tbid, e0pd=e0pd, epd=epd, ips=ips)
        for high, tbi, tbid, e0pd, epd in every((False, True), repeat=5)
    )
    yield family("hole", 0, (Axis("set", flips), *_ACCESS), _hole, closed, rules=_RULES)
    for bits in lengths(setting):
        of = Setting(mode, bits, features)
        for level in blocks_of(of):
            yield family("short", level, (*_flags(("outside",)), *_WHO), _short, both, of)


def lengths(setting: Setting) -> range:
    """Every number of bits that addresses can have (AArch64.S1MinTxSZ, AArch64.MaxTxSZ)."""
    least = 64 - (47 if setting.granule == "64K" else 48)
    if not setting.features.ttst:
        least = 64 - 39
    return range(least, setting.address_bits + 1)
