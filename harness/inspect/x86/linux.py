"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Final

from harness.inspect.decode import Bits, LinuxReading, Reading, Role, named
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux.entries import (
    DEVMAP,
    EXCLUSIVE,
    PROT_NONE,
    SAVED_DIRTY,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    Device,
    Linux,
    Marker,
    Meaning,
    Migration,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
)
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import P, bits

_PRESENT: Final = (
    (SPECIAL, "special", "neither counted nor held by Linux"),
    (UFFD_WP.present, "uffd-wp", "writes are reported to userfaultfd"),
    (SOFT_DIRTY.present, "soft-dirty", "written since soft-dirty was cleared"),
    (DEVMAP, "devmap", "a page of a device's memory, mapped like a file"),
    (SAVED_DIRTY, "saved dirty", "written, kept here in place of D while the page is read-only"),
)
"""In a page that Linux calls present: a bit, its name, and what it says when set."""

_AWAY: Final = (
    (bits(63, 59), "type"),
    (bits(58, 9), "offset"),
    (EXCLUSIVE.away, EXCLUSIVE.name),
    (UFFD_WP.away, UFFD_WP.name),
    (SOFT_DIRTY.away, SOFT_DIRTY.name),
)
"""In an entry whose page is away."""

_BACK: Final = {
    Type.MIGRATION_READ: "read-only",
    Type.MIGRATION_READ_EXCLUSIVE: "read-only, of one process alone",
    Type.MIGRATION_WRITE: "writable",
}
"""How a page comes back from migration."""


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry of 4- or 5-level paging.

    Raises QuestionError for another mode.
    """
    if not cpu.long:
        raise QuestionError(f"what Linux keeps in entries of {cpu.format.name} is not known here")
    linux = Linux(cpu.format)
    raw, level = reading.raw, reading.level
    meaning = linux.decode(raw, level)
    doubt = ""
    if not raw & P and not linux.written(raw, level):
        doubt, meaning = _doubt(meaning), Unknown(raw)
    page = isinstance(meaning, Leaf | ProtNone)
    ignored = reduce(or_, (part.mask for part in named(reading, Role.IGNORED)), 0)
    cache = linux.cache(raw, level).name.replace("_MINUS", "-") if page else None
    parts = tuple(_parts(linux, reading, meaning, ignored))
    return LinuxReading(meaning, _said(meaning, parts) + doubt, cache, parts)


def _doubt(meaning: Meaning) -> str:
    """Why an entry is nothing that Linux writes, for all that it has the form."""
    match meaning:
        case Swap(area, offset):
            why = "and that is its header" if not offset else "and no area has so many"
            return f": in swap it would be page {offset:#x} of area {area}, {why}"
        case ProtNone(address):
            return f": without rights it would be the page at {address:#x}, where it has no memory"
        case Unknown():
            return " at this level"
    return f": {_phrase(meaning)}, it would say, but other bits are set or missing"


def _said(meaning: Meaning, parts: tuple[Bits, ...]) -> str:
    marks = {name for _, name, _ in _PRESENT} | {EXCLUSIVE.name}
    found = ", ".join(part.name for part in parts if part.value and part.name in marks)
    return _phrase(meaning) + (f"; {found}" if found else "")


def _phrase(meaning: Meaning) -> str:
    match meaning:
        case Absent():
            return "nothing"
        case Pointer():
            return "a table"
        case Leaf():
            return "a page"
        case Malformed():
            return "an entry that the machine refuses"
        case ProtNone(address):
            return f"the page at {address:#x}, which nobody may access (PROT_NONE)"
        case Swap(area, offset):
            return f"a page in swap: number {offset:#x} of area {area}"
        case Migration(type, address, young, dirty):
            was = [name for name, on in (("accessed", young), ("dirty", dirty)) if on]
            more = f", and was {' and '.join(was)}" if was else ""
            return f"the page at {address:#x} is being moved, comes back {_BACK[type]}{more}"
        case Device(type, address):
            lent = type in (Type.LENT_READ, Type.LENT_WRITE)
            where = "is lent to a device" if lent else "is a device's own memory"
            write = type in (Type.DEVICE_WRITE, Type.LENT_WRITE)
            return f"the page at {address:#x} {where}, {'writable' if write else 'read-only'}"
        case Poison(address):
            return f"the page at {address:#x} is lost to a memory error"
        case Marker(notes):
            return f"no page, a marker: {notes.name or int(notes)}"
        case Unknown():
            return "nothing that Linux writes"


def _parts(linux: Linux, reading: Reading, meaning: Meaning, mask: int) -> Iterator[Bits]:
    """The bits under the mask, from the highest down, cut where their names change."""
    names = {bit: _name(linux, reading, meaning, 1 << bit) for bit in range(64)}
    wanted = [bit for bit in reversed(range(64)) if mask >> bit & 1]
    for (_, name), run in groupby(wanted, key=lambda bit: (_block(mask, bit), names[bit])):
        part = sum(1 << bit for bit in run)
        value = (reading.raw & part) // (part & -part)
        yield _bits(meaning, part, name, value)


def _block(mask: int, bit: int) -> int:
    """The number of bits above `bit` that are not in the mask: neighbours have the same."""
    return (~mask >> bit & (1 << 64 - bit) - 1).bit_count()


def _name(linux: Linux, reading: Reading, meaning: Meaning, bit: int) -> str:
    level = linux.format.levels[reading.level]
    if isinstance(meaning, ProtNone | Leaf):
        if isinstance(meaning, ProtNone):
            if bit & bits(51, level.shift):
                return "address"
            if bit == PROT_NONE:
                return "PROT_NONE"
        for mask, name, _ in _PRESENT:
            if bit == mask:
                return name
        if isinstance(meaning, ProtNone):
            for name, mask in level.bits.items():
                if bit & mask:
                    return name
    elif isinstance(meaning, Swap | Migration | Device | Poison | Marker):
        for mask, name in _AWAY:
            if bit & mask:
                return name
    return "unused"


def _bits(meaning: Meaning, mask: int, name: str, value: int) -> Bits:
    if name == "address":
        assert isinstance(meaning, ProtNone)
        return Bits(mask, name, meaning.address, f"inverted: the page is at {meaning.address:#x}")
    if name == "offset":
        offset = ~value & mask // (mask & -mask)
        return Bits(mask, name, offset, "inverted: which page, or what is remembered")
    if name == "type":
        special = value in Type.__members__.values()
        said = Type(value).name.lower().replace("_", " ") if special else f"swap area {value}"
        return Bits(mask, name, value, said)
    if name == "unused":
        return Bits(
            mask, name, value, "nothing" if not value else "set, and means nothing to Linux"
        )
    return Bits(mask, name, value, _mark(meaning, name, value))


def _mark(meaning: Meaning, name: str, value: int) -> str:
    if name == "PROT_NONE":
        return "the page is there, and nobody may access it" if value else "not used"
    if isinstance(meaning, ProtNone) and name == "PS":
        return "a large page that is being split" if value else "not being split"
    for _, mark, said in _PRESENT:
        if mark == name:
            return said if value else "no"
    if name == EXCLUSIVE.name:
        return "the page belongs to one process alone" if value else "no"
    return "as it will be when the page is present again"
