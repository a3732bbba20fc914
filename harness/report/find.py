"""Addresses of physical memory, and the tables in it, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.check.keys import in_units
from harness.inspect.architecture import effective_of, never_withheld
from harness.inspect.find import Addresses, Shared, Spoilt, TableUse
from harness.paging.processor import Cpu
from harness.report.objects import slot_object, span_object
from harness.report.text import aligned, counted, letters, limited, rights


def addresses_lines(cpu: Cpu, found: Addresses) -> Iterator[str]:
    """The addresses that lead to a place, and the tables that are there."""
    rows: list[Sequence[str]] = [("address", "page", "rights", "entry")]
    rows += (
        (
            f"{one.virtual:#x}",
            f"{in_units(one.size)} at {one.page:#x}",
            letters(cpu.format, effective_of(cpu, one.granted, one.raw), never_withheld(cpu)),
            f"{one.raw:#x}",
        )
        for one in found.shown
    )
    if found.shown:
        yield from aligned(rows)
    if found.total:
        yield f"{counted(found.total, 'address')} of {found.physical:#x}{_first(found)}."
    else:
        yield f"No address leads to {found.physical:#x}."
    for use in found.tables:
        yield f"It is in {use.table}, {_reached(use)}."
    for one in found.spoilt:
        yield f"Not by {one.slot}, {one.raw:#x}, which is malformed: {_why(one)}."
    yield from limited(found.total_spoilt, "malformed entries", len(found.spoilt))


def _why(one: Spoilt) -> str:
    """What is wrong with an entry."""
    return ", ".join(map(str, one.slot.table.format.malformed(one.raw, one.slot.level)))


def _first(found: Addresses) -> str:
    shown = len(found.shown)
    return f"; the first {shown:,} are shown (--limit)" if shown < found.total else ""


def tables_lines(uses: Sequence[TableUse], limit: int) -> Iterator[str]:
    """The tables of a space, and how many there are at each level."""
    rows: list[Sequence[str]] = [("level", "table", "entries", "ends below", "reached")]
    rows += (
        (
            str(use.table.format.number(use.table.level)),
            f"{use.table.address:#x}",
            f"{use.entries:,}" if use.entries or not use.ends else "no memory",
            f"{use.ends:,}",
            _reached(use),
        )
        for use in uses[:limit]
    )
    yield from aligned(rows)
    numbers = [use.table.format.number(use.table.level) for use in uses]
    each = [f"{count:,} at level {number}" for number, count in Counter(numbers).items()]
    yield f"{counted(len(uses), 'table')}: {', '.join(each)}."
    yield from limited(len(uses), "tables", limit)


def _reached(use: TableUse) -> str:
    if not use.slots:
        return "as a root"
    first = use.leaders[0]
    more = f" and {use.slots - 1:,} more" if use.slots > 1 else ""
    ways = f", in {use.paths:,} ways" if use.paths > 1 else ""
    return f"by slot {first.index} of {first.table.address:#x}{more}{ways}"


def shared_lines(found: Sequence[Shared], limit: int) -> Iterator[str]:
    """Memory that is mapped more than once."""
    if not found:
        yield "No frame is mapped more than once."
        return
    rows: list[Sequence[str]] = [("physical", "size", "addresses")]
    rows += (
        (str(one.span), in_units(one.span.size), f"{one.addresses:,}") for one in found[:limit]
    )
    yield from aligned(rows)
    size = in_units(sum(one.span.size for one in found))
    yield f"{size} of memory in {counted(len(found), 'piece')} is mapped more than once."
    yield from limited(len(found), "pieces", limit)


def addresses_object(cpu: Cpu, found: Addresses) -> dict[str, Any]:
    """The addresses of a place as what JSON can hold."""
    format, kept = cpu.format, never_withheld(cpu)
    return {
        "physical": hex(found.physical),
        "total": found.total,
        "addresses": [
            {
                "virtual": hex(one.virtual),
                "physical": hex(one.page),
                "size": one.size,
                "level": one.level,
                "raw": hex(one.raw),
                "rights": rights(format, one.granted),
                "effective_rights": rights(format, effective_of(cpu, one.granted, one.raw) | kept),
            }
            for one in found.shown
        ],
        "tables": [table_object(use) for use in found.tables],
        "malformed": [
            {"slot": slot_object(one.slot), "raw": hex(one.raw), "why": _why(one)}
            for one in found.spoilt
        ],
    }


def table_object(use: TableUse) -> dict[str, Any]:
    """A table as what JSON can hold."""
    return {
        "address": hex(use.table.address),
        "level": use.table.level,
        "entries": use.entries,
        "ends": use.ends,
        "paths": use.paths,
        "slots": use.slots,
        "leaders": [slot_object(slot) for slot in use.leaders],
    }


def shared_object(one: Shared) -> dict[str, Any]:
    """Memory that is mapped more than once as what JSON can hold."""
    return {**span_object(one.span), "aliases": one.addresses}
