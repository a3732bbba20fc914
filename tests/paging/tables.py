"""The tables of a manual, bit by bit, to hold a format against."""

from __future__ import annotations

from typing import NamedTuple

from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format

KIND, RESERVED, RIGHT, IGNORED = "kind", "reserved", "right", "ignored"


class Entry(NamedTuple):
    """One kind of entry as a manual's table has it.

    raw     a well-formed entry of the kind, its address zero
    kind    Pointer, or Leaf
    size    of the page, in bytes
    ranges  bits high:low to what they are: KIND, RESERVED, RIGHT, or how far left the bits of the
            address move; bits that are in no range are ignored
    """

    format: Format
    level: int
    raw: int
    kind: type
    size: int | None
    ranges: dict[tuple[int, int], str | int]


def complaints(entry: Entry) -> list[str]:
    """Where the format reads a bit of the entry otherwise than the table says."""
    format, level, raw, kind, size, ranges = entry
    plain, wrong = format.decode(raw, level), []
    if type(plain) is not kind or (isinstance(plain, Leaf) and plain.size != size):
        wrong.append(f"{raw:#x} is {plain}")
    for bit in range(8 * format.entry_bytes):
        [what] = [one for (high, low), one in ranges.items() if low <= bit <= high] or [IGNORED]
        found = format.decode(raw ^ 1 << bit, level)
        address = found.address if isinstance(found, Leaf) else None
        address = found.table.address if isinstance(found, Pointer) else address
        same_rights = format.granted(raw ^ 1 << bit, level) == format.granted(raw, level)
        if what == KIND:
            fits = found != Malformed(1 << bit) and (type(found), sized(found)) != (kind, size)
        elif what == RESERVED:
            fits = found == Malformed(1 << bit)
        elif what == RIGHT:
            fits = type(found) is kind and address == 0 and not same_rights
        elif what == IGNORED:
            fits = found == plain and same_rights
        else:
            fits = type(found) is kind and address == 1 << bit + int(what) and same_rights
        if not fits:
            wrong.append(f"bit {bit} is {what}, and makes it {found}")
    return wrong


def sized(entry: object) -> int | None:
    return entry.size if isinstance(entry, Leaf) else None


def is_absent(format: Format, level: int, raw: int) -> bool:
    return format.decode(raw, level) == Absent()
