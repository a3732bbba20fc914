"""Entries bit by bit, as lines of text and as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.check.keys import in_units
from harness.inspect.decode import Bits, LinuxReading, Part, Reading, Register, Role
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux import entries
from harness.report.text import aligned, all_digits, bits_name

_KINDS = {
    Absent: "absent",
    Malformed: "malformed",
    Leaf: "page",
    Pointer: "table",
    entries.ProtNone: "prot-none",
    entries.Swap: "swap",
    entries.Migration: "migration",
    entries.Device: "device",
    entries.Poison: "poison",
    entries.Marker: "marker",
    entries.Unknown: "unknown",
}
"""What kinds of entries are called in objects, as the machine and as Linux read them."""

_SPOKEN_BY_MEANING = {Role.ADDRESS, Role.IGNORED, Role.RESERVED, Role.UNCHECKED}
"""Roles of parts that say nothing by being set: what an entry means tells of them."""

HEAD = ("bits", "name", "value", "meaning")
"""What the columns of bits hold; of what the machine reads, the manual's section is the next.  Bits
are from the lowest up, as in the manual's tables."""

Read = tuple[Reading, LinuxReading | None, Sequence[str]]
Readings = Sequence[Read]
"""Entries as the machine reads them, each with what Linux keeps in it where that is wanted, and
with what it probably is where it makes no sense."""


def says(reading: Reading) -> str:
    """What an entry says, as a phrase."""
    match reading.entry:
        case Absent():
            return "not present"
        case Malformed():
            parts = (part for part in reading.parts if part.wrong)
            wrong = ((part.value << part.low, part.reason) for part in parts)
            said = (f"{value:#x} {reason}" if value else reason for value, reason in wrong)
            return f"reserved: {', '.join(said)}"
        case Leaf(address, size):
            return f"{in_units(size)} page at {address:#x}"
        case Pointer(table):
            return f"table at {table.address:#x}"


def flags(reading: Reading) -> str:
    """The names of what is set in an entry, from the lowest bit up; of a field, its value too."""
    found = (
        bits_name(part.name, part.mask, part.value)
        for part in reversed(reading.parts)
        if part.value and part.role not in _SPOKEN_BY_MEANING
    )
    return " ".join(found)


def raw_text(reading: Reading) -> str:
    """The raw entry, all of its digits."""
    return all_digits(reading.raw, reading.entry_bytes)


def decoded_lines(
    values: Sequence[Readings], registers: Sequence[Register], manual: str
) -> Iterator[str]:
    """Values of the root's register bit by bit, then raw entries, each with its readings: one
    reading bit by bit, several a line each.

    manual  whose sections are named
    """
    for number, register in enumerate(registers):
        yield from [""] if number else []
        yield from register_lines(register, manual)
    if not values:
        return
    yield from [""] if registers else []
    if len(values) > 1:
        yield from _entries_lines([reading for readings in values for reading in readings])
        return
    [readings] = values
    if len(readings) == 1:
        yield from reading_lines(*readings[0], manual)
    else:
        yield from readings_lines(readings)


def reading_lines(
    reading: Reading, linux: LinuxReading | None, likely: Sequence[str], manual: str
) -> Iterator[str]:
    """One entry: what it says, then every bit."""
    what = f"{_with_article(reading.name)}, at level {reading.counted}"
    yield f"{raw_text(reading)} as {what}: {says(reading)}"
    yield ""
    rows = (_row(part, part.section) for part in reversed(reading.parts))
    yield from _table([(*HEAD, manual), *rows])
    if linux is not None:
        yield ""
        kind = f", {linux.memory_type}" if linux.memory_type else ""
        yield f"To Linux: {linux.said}{kind}"
        yield ""
        yield from _table([HEAD, *(_row(part) for part in reversed(linux.parts))])
    if likely:
        yield ""
        yield f"Likely: {'; '.join(likely)}"


def register_lines(register: Register, manual: str) -> Iterator[str]:
    """One value of the register of the root: where it leads, then every bit."""
    refused = f"; {register.reserved:#x} in it is reserved" if register.reserved else ""
    leads = register.leads_to is not None
    where = f": {register.what} at {register.leads_to:#x}" if leads else ""
    yield f"{register.raw:#x} as {register.name}{where}{refused}"
    yield ""
    rows = (_row(part, part.section) for part in reversed(register.parts))
    yield from _table([(*HEAD, manual), *rows])


def register_object(register: Register) -> dict[str, Any]:
    """One value of the register of the root as what JSON can hold."""
    return {
        "register": register.name,
        "raw": hex(register.raw),
        "leads_to": None if register.leads_to is None else hex(register.leads_to),
        "reserved": hex(register.reserved),
        "parts": [_part_object(part) for part in register.parts],
    }


def readings_lines(readings: Readings) -> Iterator[str]:
    """The same raw entry at several levels, a line each."""
    yield f"{raw_text(readings[0][0])} at every level"
    yield from _table(_rows(readings))
    yield from _guesses(((reading.name, likely) for reading, _, likely in readings), "as ")


def _entries_lines(readings: Readings) -> Iterator[str]:
    """Several entries, each at one level or at all, a line each."""
    heads = ["raw", *(raw_text(reading) for reading, *_ in readings)]
    yield from aligned([(head, *row) for head, row in zip(heads, _rows(readings), strict=True)])
    yield from _guesses(
        (f"{reading.name} {raw_text(reading)}", likely) for reading, _, likely in readings
    )


def _with_article(name: str) -> str:
    """The name of an entry, whose letters are spelled out, behind a or an: an STE, an L3 entry."""
    return f"{'an' if name[0] in 'AEFHILMNORSX' else 'a'} {name}"


def _rows(readings: Readings) -> Iterator[tuple[str, ...]]:
    """Entries as cells, below their heads."""
    with_linux = any(linux for _, linux, _ in readings)
    yield ("level", "entry", "meaning", "bits", *(["to Linux"] if with_linux else []))
    for reading, linux, _ in readings:
        said = [linux.said] if linux else []
        yield (str(reading.counted), reading.name, says(reading), flags(reading), *said)


def _guesses(found: Iterable[tuple[str, Sequence[str]]], before: str = "") -> Iterator[str]:
    """What entries that make no sense probably are, those of which the same is said together."""
    named: dict[str, list[str]] = {}
    for which, likely in found:
        if likely:
            named.setdefault("; ".join(likely), []).append(which)
    rows = [(", ".join(which), said) for said, which in named.items()]
    if before:
        rows = [(before + _with_article(which), said) for which, said in rows]
    if rows:
        yield ""
        yield "Likely"
        yield from _table(rows)


def as_object(
    reading: Reading, linux: LinuxReading | None, likely: Sequence[str]
) -> dict[str, Any]:
    """One entry as what JSON can hold."""
    said: dict[str, Any] = dict.fromkeys(("physical", "size", "reserved"))
    match reading.entry:
        case Leaf(address, size):
            said |= {"physical": hex(address), "size": size}
        case Pointer(table):
            said |= {"physical": hex(table.address)}
        case Malformed(bits):
            said |= {"reserved": hex(bits)}
    return {
        "level": reading.level,
        "entry": reading.name,
        "raw": hex(reading.raw),
        "kind": _KINDS[type(reading.entry)],
        "says": says(reading),
        "section": reading.table,
        **said,
        "memory_type": reading.memory_type and reading.memory_type.name,
        "pat_index": reading.memory_type and reading.memory_type.index,
        "likely": list(likely),
        "parts": [_part_object(part) for part in reading.parts],
        "linux": linux
        and {
            "kind": _KINDS[type(linux.meaning)],
            "says": linux.said,
            "memory_type": linux.memory_type,
            "parts": [bits_object(part) for part in linux.parts],
        },
    }


def _part_object(part: Part) -> dict[str, Any]:
    """A part of an entry or of CR3 as what JSON can hold."""
    return {
        **bits_object(part),
        "role": part.role.name.lower(),
        "section": part.section,
        "wrong": part.wrong,
    }


def bits_text(part: Bits) -> str:
    """Which bits a part is, as the manual writes them: 63, or 62:59."""
    return str(part.high) if part.high == part.low else f"{part.high}:{part.low}"


def bits_object(part: Bits) -> dict[str, Any]:
    """Some bits of a word as what JSON can hold."""
    return {
        "bits": bits_text(part),
        "mask": hex(part.mask),
        "name": part.name,
        "value": hex(part.value),
        "meaning": part.meaning,
    }


def _row(part: Bits, *more: str) -> tuple[str, ...]:
    return (bits_text(part), part.name, f"{part.value:#x}", part.meaning, *more)


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned([*rows])]
