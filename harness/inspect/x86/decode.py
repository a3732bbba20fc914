"""An entry of x86, bit by bit, in the words of volume 3A of the SDM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from harness.inspect.decode import MemoryType, Part, Reading, Role, runs
from harness.inspect.x86.memory_type import AT_RESET, BITS, index_of
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.format import Field, Reserved, Shape
from harness.paging.table import Table
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Cr4, Mode

_LONG_TABLES: Final = {
    ("PML5E", False): "4-14",
    ("PML4E", False): "4-15",
    ("PDPTE", True): "4-16",
    ("PDPTE", False): "4-17",
    ("PDE", True): "4-18",
    ("PDE", False): "4-19",
    ("PTE", True): "4-20",
}

_TABLES: Final[Mapping[Mode, Mapping[tuple[str, bool], str]]] = {
    Mode.LEVEL_4: _LONG_TABLES,
    Mode.LEVEL_5: _LONG_TABLES,
    Mode.BITS_32: {("PDE", True): "4-4", ("PDE", False): "4-5", ("PTE", True): "4-6"},
    Mode.PAE: {
        ("PDPTE", False): "4-8",
        ("PDE", True): "4-9",
        ("PDE", False): "4-10",
        ("PTE", True): "4-11",
    },
}
"""The table that describes an entry, by its name and whether it is a page."""

_ABSENT_TABLES: Final = {Mode.BITS_32: "figure 4-4", Mode.PAE: "figure 4-7"}
_ABSENT_TABLE: Final = "figure 4-11"
"""Where the manual draws entries that are not present, by mode; the last is long mode's."""

_ROLES: Final = {
    "P": Role.PRESENT,
    "W": Role.RIGHT,
    "U": Role.RIGHT,
    "XD": Role.RIGHT,
    "PWT": Role.TYPE,
    "PCD": Role.TYPE,
    "PAT": Role.TYPE,
    "A": Role.USE,
    "D": Role.USE,
    "PS": Role.KIND,
    "G": Role.GLOBAL,
    "KEY": Role.KEY,
    "C": Role.MARK,
    "shared": Role.MARK,
}
"""What the names of formats are for."""

_OF_POINTERS: Final = {"P", "W", "U", "XD", "PWT", "PCD", "A", "PS", "C", "shared"}
"""Those that mean something in an entry that leads to a table."""

_SECTIONS: Final = {
    Role.RIGHT: "4.6.1",
    Role.TYPE: "4.9.2",
    Role.USE: "4.8",
    Role.GLOBAL: "4.10.2.4",
    Role.KEY: "4.6.2",
    Role.MARK: "APM 2, 7.10; TDX",
    Role.RESERVED: "4.7",
}
"""Where the manual says what a role is about; for the others, where it describes the entry."""

_HLAT_RESTART: Final = formats.bits(11)


def levels_of(cpu: Cpu) -> range:
    """The levels at which an entry can be read, from 0 up; PAE paging's registers are the last."""
    return range(formats.PDPTE_LEVEL + 1 if cpu.mode is Mode.PAE else cpu.levels)


def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level` to this CPU, which has that level."""
    kind = _kind(cpu, raw, level)
    labels = [_label(cpu, kind, bit) for bit in range(8 * kind.entry_bytes)]
    parts = tuple(_part(cpu, kind, label, mask) for label, mask in runs(labels))
    memory_type = _memory_type(kind) if isinstance(kind.entry, Leaf | Pointer) else None
    return Reading(
        level, kind.name, kind.table, kind.entry_bytes, raw, kind.entry, parts, memory_type
    )


class _Kind(NamedTuple):
    """How the entry is to be read: `shape` is None where it is not present, `names` are the parts
    that it may have, `page` tells a page, well-formed or not, from a pointer, and `register` a
    PDPTE of PAE paging, which is held in a register and not in a table."""

    level: int
    name: str
    entry_bytes: int
    raw: int
    entry: Entry
    shape: Shape | None
    page: bool
    register: bool
    names: Mapping[str, int]
    table: str


def _kind(cpu: Cpu, raw: int, level: int) -> _Kind:
    format = cpu.format
    register = cpu.mode is Mode.PAE and level == formats.PDPTE_LEVEL
    if register:
        names = {"P": formats.P, "PWT": formats.PWT, "PCD": formats.PCD, "A": formats.A}
        shape: Shape | None = cpu.pdpte
        name, page, entry = "PDPTE", False, _pdpte(cpu, raw)
    else:
        here = format.levels[level]
        name, entry = here.name, format.decode(raw, level)
        shape, page = here.shape(raw), not here.is_pointer(raw)
        names = {n: mask for n, mask in here.bits.items() if page or n in _OF_POINTERS}
        if here.leaf is None:
            names.pop("PS", None)
    table = f"table {_TABLES[cpu.mode][name, page]}"
    if isinstance(entry, Absent):
        table = _ABSENT_TABLES.get(cpu.mode, _ABSENT_TABLE)
        shape, names = None, {}
    return _Kind(level, name, format.entry_bytes, raw, entry, shape, page, register, names, table)


def _pdpte(cpu: Cpu, raw: int) -> Entry:
    """What a PDPTE of PAE paging says; one that is malformed can be in memory, in no register."""
    if not raw & formats.P:
        return Absent()
    if wrong := cpu.malformed_pdpte(raw):
        return Malformed(wrong)
    table = Table(cpu.format, cpu.pdpte.address_of(raw), formats.PDPTE_LEVEL - 1)
    return Pointer(table)


class _Label(NamedTuple):
    """What one bit is; neighbours with the same label are one part.

    field  of an address: the part of it that the bit is in
    why    for what is reserved or ignored: the reason
    """

    name: str
    role: Role
    field: Field | None = None
    why: str = ""


def _label(cpu: Cpu, kind: _Kind, bit: int) -> _Label:
    mask = 1 << bit
    if mask == formats.P:
        return _Label("P", Role.PRESENT)
    if kind.shape is None:
        return _Label("ignored", Role.IGNORED, why="ignored, since the entry is not present")
    for part in kind.shape.reserved:
        if mask & part.mask:
            return _reserved(part, mask)
    for field in kind.shape.address:
        if mask & field.mask:
            return _Label("address", Role.ADDRESS, field)
    for name, named in kind.names.items():
        if mask & named:
            off = _switched_off(cpu, name)
            return _Label(name, Role.IGNORED if off else _ROLES[name], why=off)
    if mask == _HLAT_RESTART and cpu.long and not cpu.amd:
        return _Label("R", Role.IGNORED, why="ignored but in HLAT paging, which it restarts")
    if mask == formats.PS and cpu.mode is Mode.BITS_32:
        return _Label("PS", Role.IGNORED, why="ignored, since CR4.PSE=0")
    return _Label("ignored", Role.IGNORED, why="ignored: free for software")


def _reserved(part: Reserved, mask: int) -> _Label:
    name = {formats.XD: "XD", formats.PS: "PS"}.get(part.mask, "reserved")
    return _Label(name, Role.RESERVED, why=part.reason)


def _switched_off(cpu: Cpu, name: str) -> str:
    """Why this CPU ignores a part that others use; empty where it does not."""
    if name == "G" and not cpu.cr4 & Cr4.PGE:
        return "ignored, since CR4.PGE=0"
    if name == "KEY" and not cpu.cr4 & (Cr4.PKE | Cr4.PKS):
        return "ignored, since CR4.PKE=0 and CR4.PKS=0"
    return ""


def _part(cpu: Cpu, kind: _Kind, label: _Label, mask: int) -> Part:
    value = (kind.raw & mask) // (mask & -mask)
    if label.field is not None:
        value = (kind.raw & mask) << label.field.shift
    if label.role is Role.RESERVED:
        meaning = f"{label.why}: {_consequence(cpu, kind) if value else 'must be 0'}"
    elif label.role is Role.ADDRESS:
        meaning = _address_meaning(kind, value)
    elif label.role is Role.IGNORED:
        meaning = label.why
    else:
        meaning = _meaning(cpu, kind, label.name, value)
    section = _SECTIONS.get(label.role, kind.table)
    if label.role is Role.RESERVED and kind.register:
        section = "4.4.1"
    return Part(mask, label.name, value, meaning, label.role, section, label.why)


def _consequence(cpu: Cpu, kind: _Kind) -> str:
    """What comes of a reserved bit that is set."""
    if kind.register and cpu.pdptes_checked is None:
        return "loading it raises #GP(0)"
    return "any access faults"


def _address_meaning(kind: _Kind, value: int) -> str:
    assert kind.shape is not None
    what = "the page" if kind.page else "the table"
    if len(kind.shape.address) == 1:
        return f"{what} is at {value:#x}"
    return f"{value:#x} of the address: {what} is at {kind.shape.address_of(kind.raw):#x}"


def _meaning(cpu: Cpu, kind: _Kind, name: str, value: int) -> str:
    """What a part says that is neither an address, nor reserved, nor ignored."""
    if name in BITS:
        chosen, of = _memory_type(kind), "page" if kind.page else "table it leads to"
        return (
            f"part of PAT index {chosen.index}, {chosen.name} after a reset: the type of the {of}"
        )
    if name == "KEY":
        return f"key {value}: {_judges(cpu)}"
    return _SAID[name][value]


_SAID: Final[Mapping[str, tuple[str, str]]] = {
    "C": ("not encrypted", "encrypted (SME, SEV)"),
    "shared": ("private to the guest", "shared with the host (TDX)"),
    "P": ("not present: every access faults", "present"),
    "W": (
        "no writes here, whatever other levels say",
        "writes, where every level allows them",
    ),
    "U": (
        "for the supervisor alone, whatever other levels say",
        "user accesses, where every level allows them",
    ),
    "XD": (
        "fetches, where every level allows them",
        "no fetches here, whatever other levels say",
    ),
    "A": ("not used since it was cleared", "used by an access"),
    "D": ("not written since it was cleared", "written"),
    "PS": ("leads to a table", "is a page"),
    "G": (
        "dropped from the TLB when CR3 is loaded",
        "stays in the TLB when CR3 is loaded",
    ),
}
"""What single bits say when clear and when set."""


def _judges(cpu: Cpu) -> str:
    """Which registers decide about a key."""
    user = "PKRU decides on a user page" if cpu.cr4 & Cr4.PKE else ""
    supervisor = "IA32_PKRS on a supervisor page" if cpu.cr4 & Cr4.PKS else ""
    if user and supervisor:
        return f"{user}, {supervisor}"
    return user or f"{supervisor.replace(' on', ' decides on')}"


def _memory_type(kind: _Kind) -> MemoryType:
    index = index_of(kind.names, kind.raw)
    said = f"PAT index {index}, by the PAT as after a reset"
    return MemoryType(index, AT_RESET[index], said)
