"""What Linux reads into an entry, in words: the same on every architecture, whatever its bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Final, NamedTuple

from harness.inspect.decode import Bits, LinuxReading, Reading, Role, named
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux.away import Dialect
from harness.paging.linux.entries import (
    SWAP_PAGES,
    Device,
    Marker,
    Meaning,
    Migration,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
)

_BACK: Final = {
    Type.MIGRATION_READ: "read-only",
    Type.MIGRATION_READ_EXCLUSIVE: "read-only, of one process alone",
    Type.MIGRATION_WRITE: "writable",
}
"""How a page comes back from migration."""


Named = tuple[int, str, str]
"""A bit or a field, its name, and what it says when set."""


class Spelling(NamedTuple):
    """What the bits are called that a dialect keeps, of an architecture that keeps what is away in
    type and offset.

    valid    the bit that makes an entry one of the machine's
    present  what Linux keeps in a page that it calls present
    away     the marks of a page that is away
    kept     the bit that says, without `valid`, that the page is there and nobody may access it
    address  the bits of that page's address
    rights   the names of the bits that such a page has in place of its rights
    fixed    what is set in all entries of pages that are away
    """

    valid: int
    present: tuple[Named, ...]
    away: tuple[Named, ...]
    kept: int
    address: int
    rights: frozenset[str]
    fixed: tuple[Named, ...] = ()

    @property
    def named(self) -> tuple[Named, ...]:
        """All that have a name of Linux's."""
        return (*self.present, *self.away)


def spelled(spelling: Spelling, linux: Dialect, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry, bit by bit."""
    raw, level = reading.raw, reading.level
    meaning: Meaning = linux.decode(raw, level)
    why = ""
    if not raw & spelling.valid and not linux.written(raw, level):
        why, meaning = doubt(meaning), Unknown(raw)
    parts = tuple(_parts(spelling, linux, reading, meaning))
    marks = {name for _, name, _ in spelling.named}
    return LinuxReading(meaning, said(meaning, parts, marks) + why, None, parts)


def _parts(
    spelling: Spelling, linux: Dialect, reading: Reading, meaning: Meaning
) -> Iterator[Bits]:
    """The bits that the machine ignores."""
    names = tuple(_names(spelling, linux, reading.level, meaning))

    def name(bit: int) -> str:
        return next((called for mask, called in names if mask & bit), "unused")

    withheld = bool(reading.raw & spelling.kept)
    for mask, called, value in cut(reading.raw, ignored(reading), name):
        words = _words(spelling, linux, meaning, called, value, withheld)
        if called == "address" and isinstance(meaning, ProtNone):
            value = meaning.address
        yield Bits(mask, called, value, words)


def _names(
    spelling: Spelling, linux: Dialect, level: int, meaning: Meaning
) -> Iterator[tuple[int, str]]:
    """What bits are called, those that come first before others."""
    if isinstance(meaning, ProtNone | Leaf):
        yield from ((mask, called) for mask, called, _ in spelling.present)
    if isinstance(meaning, ProtNone):
        yield spelling.kept, "PROT_NONE"
        yield spelling.address, "address"
        leaf = linux.format.levels[level].leaf
        assert leaf is not None
        yield from ((mask, called) for called, mask in leaf.bits.items())
    elif isinstance(meaning, Swap | Migration | Poison | Marker):
        yield from ((mask, called) for mask, called, _ in (*spelling.fixed, *spelling.away))
        yield linux.fields.offset, "offset"
        yield linux.fields.type, "type"


def _words(
    spelling: Spelling, linux: Dialect, meaning: Meaning, name: str, value: int, withheld: bool
) -> str:
    """What a part says; `withheld` of a page to which all rights were taken."""
    if name == "address":
        assert isinstance(meaning, ProtNone)
        return f"the page is at {meaning.address:#x}"
    if name == "PROT_NONE":
        kept = "the page is there, and nobody may access it"
        return kept if value else "not used: a large page that is being split"
    if name == "type":
        types = linux.fields.types
        return (
            types[value].name.lower().replace("_", " ") if value in types else f"swap area {value}"
        )
    if name == "offset":
        return "which page, or what is remembered"
    for mask, called, words in (*spelling.fixed, *spelling.named):
        if called == name:  # of a field, 0 is a value like others
            return words if value or mask.bit_count() > 1 else "no"
    if name == "unused":
        return "set, and means nothing to Linux" if value else "nothing"
    if withheld and name in spelling.rights:
        return "the rights that come back are those of the mapping"
    return "as it will be when the page is present again"


def said(meaning: Meaning, parts: tuple[Bits, ...], marks: set[str]) -> str:
    """What an entry says, and which of the marks that have these names it carries."""
    found = ", ".join(part.name for part in parts if part.value and part.name in marks)
    return phrase(meaning) + (f"; {found}" if found else "")


def doubt(meaning: Meaning) -> str:
    """Why an entry is nothing that Linux writes, for all that it has the form."""
    match meaning:
        case Swap(area, offset):
            why = "but other bits are set or missing"
            if not 0 < offset < SWAP_PAGES:
                why = "and no area has so many" if offset else "and that is its header"
            return f": in swap it would be page {offset:#x} of area {area}, {why}"
        case ProtNone(address):
            return f": without rights it would be the page at {address:#x}, where it has no memory"
        case Unknown():
            return " at this level"
    return f": {phrase(meaning)}, it would say, but other bits are set or missing"


def phrase(meaning: Meaning) -> str:
    """What an entry says."""
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


def cut(raw: int, mask: int, name: Callable[[int], str]) -> Iterator[tuple[int, str, int]]:
    """The bits under the mask, from the highest down, cut where their names change: of each part
    its mask, its name and its value.  `name` is that of a bit."""
    wanted = [bit for bit in reversed(range(64)) if mask >> bit & 1]
    # Bits that follow one another have the same sum of their number and their place in the list.
    placed = groupby(enumerate(wanted), key=lambda one: (sum(one), name(1 << one[1])))
    for (_, called), run in placed:
        part = sum(1 << bit for _, bit in run)
        yield part, called, (raw & part) // (part & -part)


def ignored(reading: Reading) -> int:
    """The bits that the machine ignores."""
    return reduce(or_, (part.mask for part in named(reading, Role.IGNORED)), 0)
