"""An entry of RISC-V, bit by bit, in the words of the privileged specification."""

from __future__ import annotations

from typing import Final, NamedTuple

from harness.inspect.decode import MemoryType, Part, Reading, Role, runs
from harness.inspect.riscv.memory_type import AT_RESET
from harness.paging.entry import Absent, Leaf
from harness.paging.format import Field, Level, Shape
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import PBMT, A, D, N, R, U, V, W, X

TRANSLATION: Final = "Translation Process"


class _Label(NamedTuple):
    """What one bit is; neighbours with the same label are one part."""

    name: str
    role: Role
    section: str
    field: Field | None = None
    why: str = ""
    must_be: int | None = 0


_ROLES: Final = {
    "R": Role.RIGHT,
    "W": Role.RIGHT,
    "X": Role.RIGHT,
    "U": Role.RIGHT,
    "G": Role.GLOBAL,
    "A": Role.USE,
    "D": Role.USE,
    "PBMT": Role.TYPE,
    "N": Role.KIND,
}
_SECTIONS: Final = {"PBMT": "Svpbmt", "N": "Svnapot", "A": "Svade, Svadu", "D": "Svade, Svadu"}


def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level` to this hart, which has that level."""
    format = cpu.format
    here, entry = format.levels[level], format.decode(raw, level)
    shape = None if isinstance(entry, Absent) else here.shape(raw)
    bits = range(8 * format.entry_bytes)
    labels = [_label(cpu, here, shape, raw, 1 << bit) for bit in bits]
    parts = tuple(_part(cpu, here, shape, raw, label, mask) for label, mask in runs(labels))
    memory_type = None
    if isinstance(entry, Leaf):
        number = (raw & PBMT) >> 61 if "PBMT" in here.bits else 0
        said = f"PBMT={number}" if "PBMT" in here.bits else "no entry says otherwise"
        memory_type = MemoryType(number, AT_RESET[number], said)
    return Reading(
        level, here.name, _section(cpu), format.entry_bytes, raw, entry, parts, memory_type
    )


def _section(cpu: Cpu) -> str:
    """Where the entries of the mode are described."""
    return cpu.mode.value.capitalize()


def _label(cpu: Cpu, here: Level, shape: Shape | None, raw: int, mask: int) -> _Label:
    section = _section(cpu)
    if mask == V:
        return _Label("V", Role.PRESENT, section)
    if shape is None:
        return _Label("ignored", Role.IGNORED, section, why="free for software, since V=0")
    for odd in shape.forbidden:
        # What is wrong are the bits that are set; where none is, all that are clear.
        if odd.pattern.matches(raw) and mask & (odd.pattern.value or odd.pattern.mask):
            name = next(name for name, named in here.bits.items() if mask & named)
            together = name if odd.pattern.value else "XWR"
            return _Label(together, Role.RESERVED, TRANSLATION, why=odd.reason, must_be=None)
    for part in shape.reserved:
        if mask & part.mask:
            required = part.value // (part.mask & -part.mask)
            return _Label(
                _reserved_name(part.mask, mask), Role.RESERVED, TRANSLATION, None, part.reason,
                required,
            )  # fmt: skip
    for field in shape.address:
        if mask & field.mask:
            return _Label("PPN", Role.ADDRESS, section, field)
    for name, named in shape.bits.items():
        if mask & named & ~shape.ignored:
            role = Role.KIND if shape.points and mask & (R | W | X) else _ROLES[name]
            return _Label(name, role, _SECTIONS.get(name, section))
        if mask & named:
            return _Label(name, Role.IGNORED, section, why="free for software")
    if mask & here.telling:  # N of a page that is as large as its slot
        [name] = (name for name, named in here.bits.items() if mask & named)
        return _Label(name, _ROLES[name], _SECTIONS.get(name, section))
    why = "free for software (Svrsw60t59b)"
    return _Label("ignored", Role.IGNORED, section, why=why)


def _reserved_name(part: int, mask: int) -> str:
    """What a bit is called that is reserved here and has a name elsewhere."""
    names = {N: "N", PBMT: "PBMT", U: "U", A: "A", D: "D"}
    return next((name for bits, name in names.items() if mask & bits), "reserved")


def _part(cpu: Cpu, here: Level, shape: Shape | None, raw: int, label: _Label, mask: int) -> Part:
    value = (raw & mask) // (mask & -mask)
    if label.field is not None:
        assert shape is not None
        value = (raw & mask) << label.field.shift
        meaning = f"the {'table' if shape.points else 'page'} is at {shape.address_of(raw):#x}"
    elif label.role is Role.RESERVED:
        wrong = value != label.must_be
        meaning = f"{label.why}: {'any access faults' if wrong else 'must be 0'}"
        if label.must_be and not wrong:
            meaning = f"must be {label.must_be:#x}, else {label.why}"
    elif label.role is Role.IGNORED:
        meaning = label.why
    else:
        meaning = _meaning(cpu, shape, label.name, value)
    return Part(
        mask, label.name, value, meaning, label.role, label.section, label.why, label.must_be
    )


_TYPES: Final = {
    0: "PMA: as the platform has it",
    1: "NC: not cached, weakly ordered, for main memory",
    2: "IO: not cached, strongly ordered, for devices",
}


def _meaning(cpu: Cpu, shape: Shape | None, name: str, value: int) -> str:
    """What a part says that is neither an address, nor reserved, nor ignored."""
    if name == "PBMT":
        return _TYPES[value]
    if shape is not None and shape.points and name in "RWX":
        return "0, as R and W and X of all that lead to a table"
    if name == "A" and not value:
        return f"not used since it was cleared: an access {_marks(cpu)}"
    if name == "D" and not value:
        return f"not written since it was cleared: a write {_marks(cpu)}"
    if name == "G" and shape is not None and shape.points:
        return ("not global by this entry", "all that lies below is global")[value]
    return _SAID[name][value]


def _marks(cpu: Cpu) -> str:
    return "sets it" if cpu.sets_marks else "faults (Svade)"


_SAID: Final = {
    "V": ("not valid: every access faults", "valid"),
    "R": ("no reads", "reads"),
    "W": ("no writes", "writes"),
    "X": ("no fetches", "fetches; and reads, where MXR=1"),
    "U": (
        "for S-mode alone",
        "for U-mode; S-mode never fetches here, and reads and writes where SUM=1",
    ),
    "G": ("of one address space", "global: in all address spaces"),
    "A": ("", "used by an access"),
    "D": ("", "written"),
    "N": ("a page as large as its slot", "one of the 16 entries, all alike, of a 64K page"),
}
"""What single bits say when clear and when set."""
