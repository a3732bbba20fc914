"""An entry of s390, bit by bit, in the words of the Principles of Operation.

The manual was not at hand: names and sections are those by which Linux and QEMU cite it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from harness.inspect.decode import Part, Reading, Role, runs
from harness.paging.entry import Absent
from harness.paging.format import Field, Level, Shape, bits
from harness.paging.s390.cpu import Cpu, Mode
from harness.paging.s390.formats import (
    COMMON,
    FC,
    INVALID,
    NO_EXECUTE,
    PAGE_INVALID,
    PROTECT,
)

_SECTIONS: Final = (
    "Page-Table Entries",
    "Segment-Table Entries",
    *(["Region-Table Entries"] * 3),
)

_TABLES: Final = ("page", *(mode.value for mode in Mode))
"""What tables are called, by their levels."""

_KEY: Final = bits(16, 11)
"""In frames of 1M and 2G: ACCF validity, access key and fetch protection."""

_SOFTWARE: Final = bits(7, 0)
"""In page-table entries."""


class _Label(NamedTuple):
    """What one bit is; neighbours with the same label are one part."""

    name: str
    role: Role
    field: Field | None = None
    why: str = ""
    must_be: int = 0


_ROLES: Final = {
    "P": Role.RIGHT,
    "IEP": Role.RIGHT,
    "CS": Role.GLOBAL,
    "CR": Role.GLOBAL,
    "FC": Role.KIND,
    "TT": Role.KIND,
    "TF": Role.KIND,
    "TL": Role.KIND,
}


def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level` to this processor, which has that level."""
    format = cpu.format
    here, entry = format.levels[level], format.decode(raw, level)
    shape = None if isinstance(entry, Absent) else here.shape(raw)
    labels = [_label(here, level, shape, raw, 1 << bit) for bit in range(8 * format.entry_bytes)]
    parts = tuple(_part(level, shape, raw, label, mask) for label, mask in runs(labels))
    return Reading(level, here.name, _SECTIONS[level], format.entry_bytes, raw, entry, parts, None)


def _label(here: Level, level: int, shape: Shape | None, raw: int, mask: int) -> _Label:
    if mask == (INVALID if level else PAGE_INVALID):
        return _Label("I", Role.PRESENT)
    if shape is None:
        return _Label("ignored", Role.IGNORED, why="free for software, since I=1")
    for part in shape.reserved:
        name = next((one for one, named in here.bits.items() if named & mask), "0")
        if mask & part.mask and (name != "TT" or (raw ^ part.value) & part.mask):
            required = part.value // (part.mask & -part.mask)
            return _Label(name, Role.RESERVED, None, part.reason, required)
    for field in shape.address:
        if mask & field.mask:
            return _Label("origin" if shape.points else "frame", Role.ADDRESS, field)
    for name, named in shape.bits.items():
        if mask & named:
            return _Label(name, _ROLES[name])
    if mask & FC and mask & here.telling:
        return _Label("FC", Role.KIND)
    if why := _why(level, shape, mask):
        return _Label("ignored", Role.IGNORED, why=why)
    return _Label("0", Role.UNCHECKED, why="should be 0, and is not looked at")


def _why(level: int, shape: Shape, mask: int) -> str:
    """Why translation does not look at a bit; empty where it should be 0."""
    if not level and mask & _SOFTWARE:
        return "free for software"
    if not shape.points and mask & _KEY:
        return "of the storage key that the frame has with EDAT, which is not looked at here"
    if mask & (PROTECT | NO_EXECUTE | FC | COMMON):
        return "a facility has it, which is off or is not there"
    return ""


def _part(level: int, shape: Shape | None, raw: int, label: _Label, mask: int) -> Part:
    value = (raw & mask) // (mask & -mask)
    if label.field is not None:
        assert shape is not None
        value = (raw & mask) << label.field.shift
        what = f"{_TABLES[level - 1]} table" if shape.points else "frame"
        meaning = f"the {what} is at {shape.address_of(raw):#x}"
    elif label.role is Role.RESERVED:
        wrong = value != label.must_be
        meaning = f"{label.why}: {'any access faults' if wrong else 'must be 0'}"
    elif label.role in (Role.IGNORED, Role.UNCHECKED):
        meaning = label.why
    else:
        meaning = _meaning(level, label.name, value)
    section = _SECTIONS[level]
    return Part(mask, label.name, value, meaning, label.role, section, label.why, label.must_be)


def _meaning(level: int, name: str, value: int) -> str:
    """What a part says that is neither an address, nor reserved, nor ignored."""
    if name == "TT":
        return f"of a {_TABLES[level]} table"
    if name == "TF":
        return f"the table below begins with quarter {value}"
    if name == "TL":
        return f"the table below ends with quarter {value}"
    return _SAID[name][value]


_SAID: Final = {
    "I": ("valid", "invalid: every access faults"),
    "P": ("stores", "no stores"),
    "IEP": ("fetches of instructions", "no fetches of instructions"),
    "CS": ("of this space alone", "common: in all spaces that are not private"),
    "CR": ("of this space alone", "common: in all spaces that are not private"),
    "FC": ("leads to a table", "a frame as large as the slot"),
}
"""What single bits say when clear and when set."""
