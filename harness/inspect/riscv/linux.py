"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from harness.inspect.decode import Bits, LinuxReading, Reading
from harness.inspect.linux import cut, doubt, ignored, said
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Leaf
from harness.paging.format import bits
from harness.paging.linux.away import Meaning
from harness.paging.linux.entries import Marker, Migration, ProtNone, Swap, Unknown
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import V
from harness.paging.riscv.linux import (
    DEVMAP,
    EXCLUSIVE,
    PROT_NONE,
    SPECIAL,
    TYPES,
    Linux,
)

_PRESENT: Final = (
    (SPECIAL, "special", "neither counted nor held by Linux"),
    (DEVMAP, "devmap", "a page of a device's memory, mapped like a file"),
)
"""In a page that Linux calls present: a bit, its name, and what it says when set."""

_AWAY: Final = (
    (bits(63, 12), "offset", "which page, or what is remembered"),
    (bits(11, 7), "type", ""),
    (EXCLUSIVE, "exclusive", "the page belongs to one process alone"),
)
"""The same of an entry whose page is away."""

_RIGHTS: Final = ("R", "W", "X", "U")

_MARKS: Final = {name for _, name, _ in _PRESENT} | {"exclusive"}


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry of Sv39, Sv48 or Sv57.

    Raises QuestionError for another mode.
    """
    try:
        linux = Linux(cpu.format)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    raw, level = reading.raw, reading.level
    meaning = linux.decode(raw, level)
    why = ""
    if not raw & V and not linux.written(raw, level):
        why, meaning = doubt(meaning), Unknown(raw)
    parts = tuple(_parts(linux, reading, meaning))
    return LinuxReading(meaning, said(meaning, parts, _MARKS) + why, None, parts)


def _parts(linux: Linux, reading: Reading, meaning: Meaning) -> Iterator[Bits]:
    """The bits that the machine ignores."""
    names = tuple(_names(linux, reading.level, meaning))

    def name(bit: int) -> str:
        return next((called for mask, called in names if mask & bit), "unused")

    for mask, called, value in cut(reading.raw, ignored(reading), name):
        words = _said(meaning, called, value, bool(reading.raw & PROT_NONE))
        if called == "address" and isinstance(meaning, ProtNone):
            value = meaning.address
        yield Bits(mask, called, value, words)


def _names(linux: Linux, level: int, meaning: Meaning) -> Iterator[tuple[int, str]]:
    """What bits are called, those that come first before others."""
    if isinstance(meaning, ProtNone | Leaf):
        yield from ((mask, called) for mask, called, _ in _PRESENT)
    if isinstance(meaning, ProtNone):
        yield PROT_NONE, "PROT_NONE"
        yield bits(53, 10), "address"
        yield from ((mask, called) for called, mask in linux.format.levels[level].bits.items())
    elif isinstance(meaning, Swap | Migration | Marker):
        yield from ((mask, called) for mask, called, _ in _AWAY)


def _said(meaning: Meaning, name: str, value: int, withheld: bool) -> str:
    """What a part says; `withheld` of a page to which all rights were taken, which keeps R."""
    if name == "address":
        assert isinstance(meaning, ProtNone)
        return f"the page is at {meaning.address:#x}"
    if name == "PROT_NONE":
        kept = "the page is there, and nobody may access it"
        return kept if value else "not used: a large page that is being split"
    if name == "type":
        return (
            TYPES[value].name.lower().replace("_", " ") if value in TYPES else f"swap area {value}"
        )
    for _, called, words in (*_PRESENT, *_AWAY):
        if called == name:
            return words if value or called == "offset" else "no"
    if name == "unused":
        return "set, and means nothing to Linux" if value else "nothing"
    if withheld and name in _RIGHTS:
        return "the rights that come back are those of the mapping"
    return "as it will be when the page is present again"
