"""A space as ranges, for people and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from harness.check.keys import in_units
from harness.inspect import architecture
from harness.inspect.architecture import Types, effective_of, never_withheld
from harness.inspect.graph import RowKind
from harness.inspect.ranges import Dump, Range
from harness.inspect.select import KINDS, fields
from harness.paging.entry import Absent
from harness.paging.format import Format
from harness.paging.processor import Cpu
from harness.report.text import aligned, bits_name, counted, letters, limited, rights

_CONTIGUOUS: Final = ", contiguous"

HEAD = ("addresses", "size", "pages", "rights", "type", "bits", "A", "D", "physical", "")


def dump_lines(
    cpu: Cpu, types: Types, dump: Dump, limit: int, narrow: bool = False
) -> Iterator[str]:
    """The first `limit` ranges as a table, and what they are in sum.

    narrow  whether it is left out of each what goes without saying: its last address, which its
            size gives, and that its frames follow each other
    """
    rows: list[Sequence[str]] = [HEAD]
    rows += (cells(cpu, types, one) for one in dump.ranges.take(slice(limit)))
    if narrow:
        rows = [_shortened(row) for row in rows]
    if len(rows) > 1:
        yield from aligned(rows)
    yield in_sum(dump)
    yield from notes(dump, limit)


def _shortened(row: Sequence[str]) -> Sequence[str]:
    """A line of HEAD for a narrow terminal."""
    addresses, *rest, physical, noted = row
    return (addresses.partition("..")[0], *rest, physical.removesuffix(_CONTIGUOUS), noted)


def in_sum(dump: Dump) -> str:
    """How much there is, in a sentence."""
    if not dump.total:
        return f"Nothing is mapped; the space has {counted(dump.tables, 'table')}."
    shown = counted(len(dump.ranges), "range") if len(dump.ranges) else "Nothing of that kind"
    return (
        f"{shown}; the space has {counted(dump.total, 'entry')}, each counted at all its addresses,"
        f" in {counted(dump.tables, 'table')}."
    )


def notes(dump: Dump, limit: int) -> Iterator[str]:
    """What is not shown, a sentence each."""
    yield from dump.cut
    yield from limited(len(dump.ranges), "ranges", limit)


def cells(cpu: Cpu, types: Types, one: Range, part: bool = False) -> tuple[str, ...]:
    """What a line of HEAD says of a range; `part` where it may be a part of what is there, as far
    as another space is different."""
    format, kept = cpu.format, never_withheld(cpu)
    addresses = f"{one.first:#x}..{one.last:#x}"
    size = in_units(one.pages * one.size)
    effective = _effective(cpu, one)
    given = letters(format, effective, kept)
    if one.kind != RowKind.PAGE:
        what = f"{one.pages:,} x {in_units(one.size)}" if one.pages > 1 else in_units(one.size)
        if one.kind == RowKind.UNBACKED:
            what = ""  # what its entries would map cannot be known
        blank = ("",) * 5
        given = given if one.shown else ""
        return (addresses, size, what, given, *blank, "; ".join(_odd(cpu, one, part)))
    return (
        addresses,
        size,
        f"{one.pages:,} x {in_units(one.size)}",
        given,
        _type(cpu, types, one),
        " ".join(_set(cpu, one)),
        _share(one.accessed, one) if format.accessed else "",
        _share(one.dirty, one) if format.dirty else "",
        _frames(one),
        "; ".join(_notes(format, one, effective)),
    )


def _effective(cpu: Cpu, one: Range) -> int:
    """The effective rights of a range: of pages by what their entries have in common; of what is
    none, the rights of its way."""
    if one.kind != RowKind.PAGE:
        return one.granted
    return effective_of(cpu, one.granted, one.bits)


def _odd(cpu: Cpu, one: Range, part: bool) -> Iterator[str]:
    """What a range is that has no pages."""
    level = cpu.format.number(one.level)
    if one.kind == RowKind.MALFORMED:
        wrong = cpu.format.malformed(one.raw, one.level)
        if isinstance(cpu.format.decode(one.raw, one.level), Absent):
            yield f"malformed: {', '.join(part.reason for part in wrong)}"
        elif all(part.mask == part.value for part in wrong):
            yield f"malformed: {', '.join(map(str, wrong))}"
        else:
            yield f"malformed, reserved bits set: {', '.join(map(str, wrong))}"
    elif one.kind == RowKind.UNBACKED:
        table = f"the level-{level} table at {one.physical:#x}"
        yield f"what {table} has here lies outside memory" if part else _unbacked(cpu, one, table)
    elif one.kind == RowKind.SELF_MAP:
        root = one.physical in {root.table.address for root in cpu.roots}
        above = "the root" if root else f"a table in use at level {level} or above"
        said = f"{counted(one.below, 'entry')} through it{'' if one.shown else ', and no page'}"
        yield f"self-map to {one.physical:#x}, {above}: {said}"
    else:
        yield f"not read: the table at {one.physical:#x}"
    yield from _aliases(one)


def _unbacked(cpu: Cpu, one: Range, what: str) -> str:
    """Which tables lie outside memory, or which slots of one; `what` names the first."""
    here = cpu.format.levels[one.level]
    first = here.index(one.first)
    slots = range(first, min(first + one.pages, here.entries))
    whole = len(slots) == here.entries or any(
        slots == root.indices for root in cpu.roots if root.table.address == one.physical
    )
    if not whole:
        which = f"slots {slots[0]} to {slots[-1]}" if len(slots) > 1 else f"slot {first}"
        what = f"{which} of {what}"
    if one.pieces > 1:
        what += f" and the {counted(one.pieces - 1, 'table')} after it"
    single = one.pieces == 1 and (whole or len(slots) == 1)
    return f"{what} {'lies' if single else 'lie'} outside memory"


def _notes(format: Format, one: Range, effective: int) -> Iterator[str]:
    if one.own != effective:
        yield f"own rights {letters(format, one.own)}"
    yield from _aliases(one)


def _aliases(one: Range) -> Iterator[str]:
    if one.times > 1:
        yield f"{one.times:,} times, every {in_units(one.stride)}"
    if one.paths > 1:
        yield f"{one.paths:,} times by shared tables"
    if one.times > 1 and one.paths > 1:
        yield f"{one.aliases:,} in all"
    if one.aliases > 1:
        yield f"the last at {one.highest:#x}"


def _frames(one: Range) -> str:
    if one.pages == 1:
        return f"{one.physical:#x}"
    if one.repeated:
        return f"{one.physical:#x}, one frame"
    if one.pieces == 1:
        return f"{one.physical:#x}{_CONTIGUOUS}"
    return f"{one.physical:#x}, scattered in {one.pieces:,}"


def _share(count: int, one: Range) -> str:
    """How many of the pages have a bit, in a word where it is none or all."""
    every = one.pages * one.times
    return "-" if not count else "all" if count == every else f"{count:,}"


def _set(cpu: Cpu, one: Range) -> Iterator[str]:
    """The named bits that are set, those of the memory type left out; of a field, its value."""
    shown = architecture.of(cpu).memory_types.BITS
    for name, mask in fields(cpu.format, one.level).items():
        value = (one.bits & mask) // (mask & -mask)
        if value and name not in shown:
            yield bits_name(name, mask, value)


def _type(cpu: Cpu, types: Types, one: Range) -> str:
    bits = cpu.format.levels[one.level].bits
    return types[architecture.of(cpu).memory_types.index_of(bits, one.bits)]


def as_objects(cpu: Cpu, types: Types, ranges: Iterable[Range]) -> Iterator[dict[str, Any]]:
    """Ranges as what JSON can hold."""
    format, kept = cpu.format, never_withheld(cpu)
    known = lru_cache(maxsize=None)(lambda granted: rights(format, granted))
    for one in ranges:
        found = {
            "first": hex(one.first),
            "last": hex(one.last),
            "kind": KINDS.get(one.kind),
            "level": one.level,
            "size": one.size,
            "pages": one.pages,
            "rights": known(one.granted),
            "own_rights": known(one.own),
            "effective_rights": known(_effective(cpu, one) | kept),
            "memory_type": None,
            "common": hex(one.bits),
            "raw": hex(one.raw),
            "physical": hex(one.physical),
            "pieces": one.pieces,
            "one_frame": one.repeated,
            "accessed": one.accessed,
            "dirty": one.dirty,
            "aliases": one.aliases,
            "paths": one.paths,
            "times": one.times,
            "stride": one.stride,
            "highest": hex(one.highest),
            "below": one.below,
        }
        if one.kind == RowKind.PAGE:
            found["memory_type"] = _type(cpu, types, one)
        yield found


def dump_object(cpu: Cpu, types: Types, dump: Dump, limit: int) -> dict[str, Any]:
    """A dump as what JSON can hold, with at most `limit` ranges."""
    return {
        "pat": list(types),
        "ends": dump.total,
        "tables_read": dump.tables,
        "total": len(dump.ranges),
        "ranges": list(as_objects(cpu, types, dump.ranges.take(slice(limit)))),
        "cut": list(dump.cut),
    }


def dump_csv(cpu: Cpu, types: Types, dump: Dump, limit: int) -> str:
    """Ranges as CSV, a column a key of the JSON object; rights by their names with blanks."""
    text = io.StringIO()
    writer: Any = None
    for found in as_objects(cpu, types, dump.ranges.take(slice(limit))):
        for key in ("rights", "own_rights", "effective_rights"):
            found[key] = " ".join(found[key])
        if writer is None:
            writer = csv.DictWriter(text, found, lineterminator="\n")
            writer.writeheader()
        writer.writerow(found)
    return text.getvalue()


def typed(cpu: Cpu, dump: Dump) -> bool:
    """Whether pages have other than the first memory type, so that what these are matters."""
    pages = dump.ranges.take(dump.ranges.kind == RowKind.PAGE)
    index = architecture.of(cpu).memory_types.index
    return any(
        index(here, pages.bits[pages.level == number]).any()
        for number, here in enumerate(cpu.format.levels)
    )
