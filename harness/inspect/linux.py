"""What Linux reads into an entry, in words: the same on every architecture, whatever its bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Final

from harness.inspect.decode import Bits, Reading, Role, named
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux.entries import (
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


def said(meaning: Meaning, parts: tuple[Bits, ...], marks: set[str]) -> str:
    """What an entry says, and which of the marks that have these names it carries."""
    found = ", ".join(part.name for part in parts if part.value and part.name in marks)
    return phrase(meaning) + (f"; {found}" if found else "")


def doubt(meaning: Meaning) -> str:
    """Why an entry is nothing that Linux writes, for all that it has the form."""
    match meaning:
        case Swap(area, offset):
            why = "and that is its header" if not offset else "and no area has so many"
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
    for (_, called), run in groupby(wanted, key=lambda bit: (_block(mask, bit), name(1 << bit))):
        part = sum(1 << bit for bit in run)
        yield part, called, (raw & part) // (part & -part)


def ignored(reading: Reading) -> int:
    """The bits that the machine ignores."""
    return reduce(or_, (part.mask for part in named(reading, Role.IGNORED)), 0)


def _block(mask: int, bit: int) -> int:
    """The number of bits above `bit` that are not in the mask: neighbours have the same."""
    return (~mask >> bit & (1 << 64 - bit) - 1).bit_count()
