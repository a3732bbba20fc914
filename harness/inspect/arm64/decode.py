"""A descriptor of arm64, bit by bit, in the words of the Arm ARM (DDI 0487)."""

from __future__ import annotations

from typing import Final, NamedTuple

from harness.inspect.arm64.memory_type import described, index_of, name_of
from harness.inspect.decode import MemoryType, Part, Reading, Role, runs
from harness.paging.arm64.cpu import Cpu
from harness.paging.arm64.formats import (
    AF,
    AP_EL0,
    AP_READ_ONLY,
    AP_TABLE_NO_EL0,
    AP_TABLE_READ_ONLY,
    ATTR,
    CONTIGUOUS,
    DBM,
    GP,
    NG,
    NS,
    NS_TABLE,
    NT,
    PO_INDEX,
    PXN,
    PXN_TABLE,
    SH,
    UXN,
    UXN_TABLE,
)
from harness.paging.entry import Absent, Leaf
from harness.paging.format import Field, Level, Shape, bits

DESCRIPTORS: Final = "descriptor formats"
PERMISSIONS: Final = "memory access control"
UPDATES: Final = "hardware updates"
ATTRIBUTES: Final = "memory region attributes"
OTHERS: Final = "other descriptor fields"


class _Known(NamedTuple):
    """A field of a descriptor: its bits, its role, where it is described, and what it says when
    clear and when set; of a field of several bits nothing."""

    name: str
    mask: int
    role: Role
    section: str
    said: tuple[str, str] = ("", "")


_TABLE: Final = (
    _Known("PXNTable", PXN_TABLE, Role.RIGHT, PERMISSIONS,
           ("EL1 executes as entries below say", "EL1 executes nothing below")),
    _Known("UXNTable", UXN_TABLE, Role.RIGHT, PERMISSIONS,
           ("EL0 executes as entries below say", "EL0 executes nothing below")),
    _Known("APTable[0]", AP_TABLE_NO_EL0, Role.RIGHT, PERMISSIONS,
           ("EL0 reaches what entries below say", "EL0 reaches nothing below")),
    _Known("APTable[1]", AP_TABLE_READ_ONLY, Role.RIGHT, PERMISSIONS,
           ("writes as entries below say", "nothing below is written")),
    _Known("NSTable", NS_TABLE, Role.IGNORED, DESCRIPTORS),
)  # fmt: skip

_PAGE: Final = (
    _Known("AttrIndx", ATTR, Role.TYPE, ATTRIBUTES),
    _Known("NS", NS, Role.IGNORED, DESCRIPTORS),
    _Known("AP[1]", AP_EL0, Role.RIGHT, PERMISSIONS,
           ("for EL1 alone", "for EL0 too; EL1 uses no data of it while PSTATE.PAN=1")),
    _Known("AP[2]", AP_READ_ONLY, Role.RIGHT, PERMISSIONS, ("writes", "read-only")),
    _Known("SH", SH, Role.TYPE, ATTRIBUTES),
    _Known("AF", AF, Role.USE, UPDATES),
    _Known("nG", NG, Role.GLOBAL, OTHERS,
           ("global: in all address spaces", "of one address space (ASID)")),
    _Known("nT", NT, Role.KIND, OTHERS,
           ("used for translation", "not cached, and may fault: set while a block is changed"
            " (FEAT_BBM)")),
    _Known("GP", GP, Role.RIGHT, OTHERS,
           ("not guarded", "guarded: indirect branches need BTI (FEAT_BTI)")),
    _Known("DBM", DBM, Role.USE, UPDATES),
    _Known("Contiguous", CONTIGUOUS, Role.KIND, OTHERS),
    _Known("PXN", PXN, Role.RIGHT, PERMISSIONS,
           ("EL1 executes, unless EL0 may write", "EL1 does not execute")),
    _Known("UXN", UXN, Role.RIGHT, PERMISSIONS, ("EL0 executes", "EL0 does not execute")),
)  # fmt: skip

_SHARED: Final = ("non-shareable", "reserved", "outer shareable", "inner shareable")

GROUP: Final = {
    (12, 0): 16, (12, 1): 16, (12, 2): 16,
    (14, 0): 128, (14, 1): 32,
    (16, 0): 32, (16, 1): 32,
}  # fmt: skip
"""Entries of a contiguous group, by log2 of the granule and the level; there are none at others
("Contiguous bit")."""


class _Label(NamedTuple):
    """What one bit is; neighbours with the same label are one part."""

    name: str
    role: Role
    section: str
    known: _Known | None = None
    field: Field | None = None
    why: str = ""


def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level` to this processor, whose tables have one format."""
    format = cpu.format
    here, entry = format.levels[level], format.decode(raw, level)
    shape = None if isinstance(entry, Absent) else here.shape(raw)
    labels = [_label(here, shape, 1 << bit) for bit in range(64)]
    parts = tuple(_part(cpu, level, shape, raw, label, mask) for label, mask in runs(labels))
    memory_type = None
    if isinstance(entry, Leaf):
        number = index_of({"AttrIndx": ATTR}, raw)
        memory_type = MemoryType(number, name_of(cpu.memory_type(raw)), f"AttrIndx={number}")
    return Reading(
        *(level, here.name, _called(shape, level), format.entry_bytes, raw, entry, parts),
        memory_type,
        format.number(level),
    )


def unchecked(shape: Shape) -> int:
    """The bits that should be zero (RES0), where a descriptor has its address or would have more of
    it: nothing checks them, and the address has no part of them."""
    named = sum(shape.bits.values()) | shape.address_mask | shape.reserved_mask
    return bits(51 if shape.points else 49, 12) & ~named


def _called(shape: Shape | None, level: int) -> str:
    """What the manual calls such a descriptor."""
    if shape is None:
        return "invalid descriptor"
    return (
        "table descriptor"
        if shape.points
        else "page descriptor"
        if not level
        else ("block descriptor")
    )


def _label(here: Level, shape: Shape | None, mask: int) -> _Label:
    if mask & here.presence or mask == 2:
        return _Label("type", Role.PRESENT, DESCRIPTORS)
    if shape is None:
        return _Label("ignored", Role.IGNORED, DESCRIPTORS, why="free for software: invalid")
    for part in shape.reserved:
        if mask & part.mask:
            return _Label("address", Role.RESERVED, DESCRIPTORS, why=part.reason)
    for field in shape.address:
        if mask & field.mask:
            return _Label("address", Role.ADDRESS, DESCRIPTORS, field=field)
    for known in _TABLE if shape.points else _PAGE:
        if mask & known.mask & sum(shape.bits.values()):
            if known.role is Role.IGNORED or mask & shape.ignored:
                return _Label(known.name, Role.IGNORED, known.section, why=_WHY[known.name])
            return _Label(known.name, known.role, known.section, known)
    if mask & unchecked(shape):
        return _Label("RES0", Role.UNCHECKED, DESCRIPTORS, why="RES0, and not checked")
    if mask & PO_INDEX:  # of tables these are rights
        return _Label("POIndex", Role.IGNORED, PERMISSIONS, why=_WHY["POIndex"])
    if mask & bits(59):  # as above
        why = "free for software, or PBHA (FEAT_HPDS2), or AttrIndx[3] (FEAT_AIE)"
    elif shape.points or mask & bits(58, 55):
        why = "free for software"
    else:
        why = "RES0, and not checked"
    return _Label("ignored", Role.IGNORED, OTHERS, why=why)


_WHY: Final = {
    "NS": "ignored, outside the Secure state",
    "NSTable": "ignored, outside the Secure state",
    "POIndex": "the overlay, with TCR2_EL1.POE or E0POE (FEAT_S1POE); else free for software, or"
    " PBHA (FEAT_HPDS2)",
    "DBM": "ignored, unless TCR_EL1.HA=1 and HD=1",
    **dict.fromkeys(
        ("PXNTable", "UXNTable", "APTable[0]", "APTable[1]"), "ignored, with TCR_EL1.HPDn=1"
    ),
}
"""Why a field plays no part."""


def _part(cpu: Cpu, level: int, shape: Shape | None, raw: int, label: _Label, mask: int) -> Part:
    value = (raw & mask) // (mask & -mask)
    if label.field is not None:
        assert shape is not None
        value = (raw & mask) << label.field.shift
        meaning = f"the {'table' if shape.points else 'page'} is at {shape.address_of(raw):#x}"
    elif label.role is Role.RESERVED:
        wrong = "an address size fault" if value else "must be 0"
        meaning = f"{label.why}: {wrong}"
    elif label.role is Role.PRESENT:
        meaning = _type(level, shape, value)
    elif label.known is None:
        meaning = label.why
    else:
        meaning = _meaning(cpu, level, label.known.name, value) or label.known.said[bool(value)]
    return Part(mask, label.name, value, meaning, label.role, label.section, label.why)


def _type(level: int, shape: Shape | None, value: int) -> str:
    if shape is None:
        what = "reserved at this level" if value & 1 else "invalid"
        return f"{what}: a translation fault"
    return "a table" if shape.points else "a block" if level else "a page"


def _meaning(cpu: Cpu, level: int, name: str, value: int) -> str:
    """What a field says that depends on the state, or has several bits; else nothing."""
    match name:
        case "AttrIndx":
            octet = cpu.mair >> 8 * value & 0xFF
            return f"{described(octet)}, byte {value} of MAIR_EL1, {octet:#04x}"
        case "SH":
            return _SHARED[value]
        case "AF" if not value:
            doing = "sets it" if cpu.sets_access_flag else "faults (HA=0)"
            return f"not used since it was cleared: an access {doing}"
        case "AF":
            return "used by an access"
        case "DBM":
            return ("AP[2] is as it says", "a write clears AP[2], which says whether it is dirty")[
                value
            ]
        case "Contiguous" if value:
            count = GROUP.get((cpu.format.levels[0].shift, level))
            if count is None:
                return "ignored at this level"
            return f"a hint: one of {count} entries, all alike, that follow each other"
        case "Contiguous":
            return "on its own"
        case "AP[2]" if cpu.keeps_dirty_state:
            return ("writes", "read-only, unless DBM=1")[value]
    return ""
