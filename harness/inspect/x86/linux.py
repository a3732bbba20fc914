"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.inspect.decode import Bits, LinuxReading, Reading
from harness.inspect.linux import cut, doubt, ignored, said
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Leaf
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

_MARKS: Final = {name for _, name, _ in _PRESENT} | {EXCLUSIVE.name}


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry of 4- or 5-level paging.

    Raises QuestionError for another mode.
    """
    if not cpu.long:
        raise QuestionError(f"what Linux keeps in entries of {cpu.format.name} is not known here")
    linux = Linux(cpu.format)
    raw, level = reading.raw, reading.level
    meaning = linux.decode(raw, level)
    why = ""
    if not raw & P and not linux.written(raw, level):
        why, meaning = doubt(meaning), Unknown(raw)
    page = isinstance(meaning, Leaf | ProtNone)
    cache = linux.cache(raw, level).name.replace("_MINUS", "-") if page else None
    parts = tuple(_parts(linux, reading, meaning))
    return LinuxReading(meaning, said(meaning, parts, _MARKS) + why, cache, parts)


def _parts(linux: Linux, reading: Reading, meaning: Meaning) -> Iterator[Bits]:
    """The bits that the machine ignores."""

    def name(bit: int) -> str:
        return _name(linux, reading, meaning, bit)

    for part, called, value in cut(reading.raw, ignored(reading), name):
        yield _bits(meaning, part, called, value)


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
    for _, mark, words in _PRESENT:
        if mark == name:
            return words if value else "no"
    if name == EXCLUSIVE.name:
        return "the page belongs to one process alone" if value else "no"
    return "as it will be when the page is present again"
