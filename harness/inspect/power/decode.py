"""An entry of a radix tree, bit by bit, in the words of the Power ISA, Book III.

Bits are numbered from the lowest, as everywhere here; the manual numbers them from the highest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from harness.inspect.decode import MemoryType, Part, Reading, Role, runs
from harness.inspect.power.memory_type import AT_RESET, index_of
from harness.paging.entry import Absent, Leaf
from harness.paging.format import Field, Level, Shape, bits
from harness.paging.power.cpu import PAGE_BITS, Cpu, is_of_other_size
from harness.paging.power.formats import (
    ATT,
    CHANGE,
    EXECUTE,
    LEAF,
    NEXT_SIZE,
    PRIVILEGED,
    READ,
    REFERENCE,
    VALID,
    WRITE,
)

TREES: Final = "Radix Tree Translation"
DIRECTORY: Final = "Page Directory Entry"
PAGE: Final = "Page Table Entry"
AUTHORITY: Final = "Encoded Access Authority"
ATTRIBUTES: Final = "Radix Tree Storage Attributes"
RECORDING: Final = "Reference and Change Recording"

SOFTWARE: Final = bits(61) | bits(11, 9)
"""What of a page is free for software (SW0, and SW1 to SW3)."""


class _Known(NamedTuple):
    """A field: its role, where it is described, and what it says when clear and when set."""

    name: str
    role: Role
    section: str
    said: tuple[str, str] = ("", "")


_PAGE: Final = {
    REFERENCE: _Known("R", Role.USE, RECORDING, ("", "used by an access")),
    CHANGE: _Known("C", Role.USE, RECORDING, ("", "written")),
    ATT: _Known("ATT", Role.TYPE, ATTRIBUTES),
    PRIVILEGED: _Known(
        "EAA0", Role.RIGHT, AUTHORITY,
        ("for problem state; privileged accesses as key 0 of AMR and IAMR lets them",
         "privileged: not for problem state"),
    ),
    READ: _Known("EAA1", Role.RIGHT, AUTHORITY, ("no reads, unless EAA2 is 1", "reads")),
    WRITE: _Known("EAA2", Role.RIGHT, AUTHORITY, ("no writes", "writes, and reads")),
    EXECUTE: _Known("EAA3", Role.RIGHT, AUTHORITY, ("no fetches", "fetches")),
}  # fmt: skip
"""The fields of a page besides its address."""

_TYPES: Final = (
    "normal memory",
    "normal memory, in strong access order (SAO)",
    "non-idempotent I/O: not cached, guarded, nothing is fetched from it",
    "tolerant I/O: not cached",
)
"""By ATT."""


class _Label(NamedTuple):
    """What one bit is; neighbours with the same label are one part."""

    name: str
    role: Role
    section: str
    known: _Known | None = None
    field: Field | None = None
    why: str = ""
    must_be: int | None = 0


def reader(cpu: Cpu, raw: int, level: int) -> Cpu:
    """The state that reads an entry: of the format of the other size, where the entry leads to a
    page table of that."""
    if is_of_other_size(cpu.format.decode(raw, level), level):
        return replace(cpu, page_bits=sum(PAGE_BITS) - cpu.page_bits)
    return cpu


def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level`."""
    format = reader(cpu, raw, level).format
    here, entry = format.levels[level], format.decode(raw, level)
    shape = None if isinstance(entry, Absent) else here.shape(raw)
    labels = [_label(here, shape, 1 << bit) for bit in range(64)]
    parts = tuple(_part(cpu, format.levels, level, shape, raw, *one) for one in runs(labels))
    memory_type = None
    if isinstance(entry, Leaf):
        number = index_of(here.page_bits, raw)
        memory_type = MemoryType(number, AT_RESET[number], f"ATT={number}")
    section = TREES if shape is None else DIRECTORY if shape.points else PAGE
    return Reading(level, here.name, section, format.entry_bytes, raw, entry, parts, memory_type)


def _label(here: Level, shape: Shape | None, mask: int) -> _Label:
    if mask == VALID:
        return _Label("V", Role.PRESENT, TREES)
    if shape is None:
        return _Label("ignored", Role.IGNORED, TREES, why="free for software, since V=0")
    section = DIRECTORY if shape.points else PAGE
    for part in shape.reserved:
        if mask & part.mask and not part.mask & NEXT_SIZE:
            must_be = part.value // (part.mask & -part.mask)
            return _Label("L", Role.RESERVED, section, why=part.reason, must_be=must_be)
    if mask == LEAF:
        return _Label("L", Role.KIND, section)
    for field in shape.address:
        if mask & field.mask:
            return _Label("NLB" if shape.points else "RPN", Role.ADDRESS, section, field=field)
    if shape.points:
        if mask & NEXT_SIZE:
            [size] = (part for part in shape.reserved if part.mask & NEXT_SIZE)
            return _Label("NLS", Role.RESERVED, section, why=size.reason, must_be=size.value)
        if mask & bits(59, 8):
            why = "below the table, which is aligned to its size: ignored"
            return _Label("NLB", Role.IGNORED, section, why=why)
        return _Label("reserved", Role.IGNORED, section, why="reserved, and not checked")
    for field_mask, known in _PAGE.items():
        if mask & field_mask:
            return _Label(known.name, known.role, known.section, known)
    if mask & SOFTWARE:
        return _Label("SW", Role.IGNORED, section, why="free for software")
    if mask & bits(56, 12):
        return _Label("RPN", Role.IGNORED, section, why="below the page: ignored")
    return _Label("reserved", Role.IGNORED, section, why="reserved, and not checked")


def _part(
    cpu: Cpu,
    levels: tuple[Level, ...],
    level: int,
    shape: Shape | None,
    raw: int,
    label: _Label,
    mask: int,
) -> Part:
    value = (raw & mask) // (mask & -mask)
    meaning = label.why
    if label.field is not None:
        assert shape is not None
        value = raw & mask
        meaning = f"the {'table' if shape.points else 'page'} is at {shape.address_of(raw):#x}"
    elif label.name == "NLS":
        meaning = f"{1 << value} entries in the table"
        if value != label.must_be:
            meaning = f"{label.why}, of {1 << value} entries: any access faults"
    elif label.role is Role.RESERVED:
        wrong = value != label.must_be
        meaning = f"{label.why}: any access faults" if wrong else _kind(shape)
    elif label.role is Role.PRESENT:
        meaning = "valid" if value else "not valid: every access faults"
    elif label.name == "L":
        meaning = _kind(shape)
    elif label.name == "ATT":
        meaning = _TYPES[value]
    elif label.role is Role.USE and not value:
        what = "written" if label.name == "C" else "used"
        access = "a write" if label.name == "C" else "an access"
        doing = "sets it" if cpu.sets_marks else "faults: the processor does not set it"
        meaning = f"not {what} since it was cleared: {access} {doing}"
    elif label.known is not None:
        meaning = label.known.said[value]
    reason = label.why if label.role in (Role.RESERVED, Role.IGNORED) else ""
    return Part(mask, label.name, value, meaning, label.role, label.section, reason, label.must_be)


def _kind(shape: Shape | None) -> str:
    return "leads to a table" if shape is not None and shape.points else "a page"
