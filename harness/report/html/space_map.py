"""What the map of a space is drawn from: its tables, each once, as numbers and short strings.

`map.js` builds of it what is opened, and adds up addresses and rights on the way down; what
entries mean is said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from harness.check.keys import LETTERS, in_units
from harness.inspect import architecture
from harness.inspect import graph as graphs
from harness.inspect.graph import Floor, Graph, RowKind
from harness.inspect.snapshot import Snapshot
from harness.paging import bulk
from harness.paging.bits import address_mask
from harness.paging.bulk import POINTER
from harness.paging.entry import Leaf
from harness.paging.format import Format
from harness.paging.memory import Mask, Words
from harness.paging.processor import Cpu
from harness.paging.table import Table
from harness.paging.walk import Step
from harness.report import state
from harness.report.text import letters, meaning, set_bits, table_name

ENTRIES: Final = 1 << 22
"""Entries of tables that are read for a map: the tables of 16 GiB in 4-KByte pages."""

PDPTES: Final = 4
"""Roots of PAE paging: the registers that CR3 leads to."""

RUNS: Final = 1 << 18
"""Runs that a map shows, some 6 MB of text; a page with many more takes seconds to open."""


def as_object(snapshot: Snapshot) -> dict[str, Any] | None:
    """The map of a snapshot's space as what JSON can hold; None where there is no root.

    levels  name of a table, log2 of the bytes that an entry spans, entries, and name of an entry,
            from level 0 up
    bytes   width of an entry
    rights  the letters of rights; a set of rights is a number, its bit i the letter i
    effective
            of pages, by the rights of the way and of the entry: those that have an effect
    legend  samples of rights, and what their colours mean
    roots   first address, last address, the address that slot 0 of the table would span, and the
            register that leads there; the table of root i is table i
    kinds   what entries are: kind, rights, text, and bytes from the memory of one to the next
    tables  level, address, paths, pages, bytes that they map, rights of pages under it, first slot
            and the slot after the last, and runs of entries that say the same side by side: slot,
            count, kind, and address or number of a table, -1 of one that is not shown
    unread  slots that lead to tables that are not shown

    Addresses are hexadecimal, without 0x, and counts strings: they can have more than 53 bits.
    """
    roots, format = snapshot.cpu.roots, snapshot.cpu.format
    graph = graphs.read(snapshot.memory, format, roots, ENTRIES)
    if not graph.floors:
        return None
    kinds, tables = dict[_Said, int](), _tables(graph, snapshot.cpu)
    rights, register = partial(_rights, format), state.of(snapshot.cpu).root
    return {
        "levels": [
            [table_name(level), level.shift, level.entries, level.name] for level in format.levels
        ],
        "bytes": format.entry_bytes,
        "rights": letters(format, format.rights_mask),
        "effective": _effective(snapshot.cpu),
        "legend": _legend(format),
        "roots": [
            [
                *(f"{at:x}" for at in (root.span.first, root.span.last, root.first_address(0))),
                register(root.span.first) if len(roots) < PDPTES else "PDPTE",
            ]
            for root in roots
        ],
        "tables": [
            [
                one.table.level,
                f"{one.table.address:x}",
                str(one.paths),
                str(one.pages),
                str(one.size),
                sorted(set(map(rights, one.granted))),
                one.first,
                one.stop,
                ";".join(_run_text(snapshot.cpu, one.table, run, kinds) for run in one.runs),
            ]
            for one in tables
        ],
        "kinds": list(kinds),
        "unread": sum(run.count for one in tables for run in one.runs if run.child == NOT_SHOWN),
    }


_Said = tuple[str, int, str, str]
"""Kind, rights, text, and the step in hexadecimal digits."""


# ---- tables ----

NO_TABLE: Final = -2
NOT_SHOWN: Final = -1


@dataclass(frozen=True, slots=True)
class _Run:
    """Entries of one table that lie side by side and say the same.

    index  slot of the first
    kind   a `RowKind`, or POINTER
    raw    the first entry
    frame  where the memory begins that it maps, if it is a page
    step   bytes from there to that of the next
    child  the number of the table that they lead to, or NO_TABLE or NOT_SHOWN
    loops  whether that table is in use above
    """

    index: int
    count: int
    kind: int
    raw: int
    frame: int
    step: int
    child: int
    loops: bool


@dataclass
class _Table:
    """A table of the map, with the slots first..stop-1.

    paths    in how many ways it is reached from the roots
    pages    how many lie in and under it, on all ways down from it, and `size` their bytes
    granted  the rights that these pages have as far as it and what is under it decides
    """

    table: Table
    first: int
    stop: int
    runs: list[_Run]
    paths: int = 0
    pages: int = 0
    size: int = 0
    granted: frozenset[int] = frozenset()


def _tables(graph: Graph, cpu: Cpu) -> list[_Table]:
    """The tables that are shown, from those of the roots down, a floor after the other."""
    tables: list[_Table] = []
    for floor in graph.floors:
        room = RUNS - sum(len(one.runs) for one in tables)
        below = len(tables) + len(floor.layer.table)
        tables += _of_floor(graph.format, floor, below, room)
        if len(tables) < below:
            break
    for root, one in zip(cpu.roots, tables, strict=False):
        one.first = graph.format.levels[one.table.level].index(root.span.first)
        one.paths = 1
    for one in tables:
        one.runs = [
            run if run.child < len(tables) else replace(run, child=NOT_SHOWN) for run in one.runs
        ]
        for run in one.runs:
            if run.child >= 0:
                tables[run.child].paths += one.paths * run.count
    for one in reversed(tables):
        _sum_up(cpu, one, tables)
    return tables


def _of_floor(format: Format, floor: Floor, below: int, room: int) -> Iterator[_Table]:
    """The first tables of a floor, as many as have no more runs than there is room for.

    below  the number of the first table of the floor under it
    """
    layer = floor.layer
    frames = _frames(format, floor)
    start = np.flatnonzero(_begins(format, floor, frames))
    count = np.diff(np.append(start, len(layer.raw)))
    kind, raw, child = layer.kind[start], layer.raw[start], floor.child[start]
    step = frames[start + (count > 1)] - frames[start]
    child = np.where(child >= 0, child + below, np.where(child == -1, NO_TABLE, NOT_SHOWN))
    of_page = (frames[start], step)
    columns = (layer.index[start], count, kind, raw, *of_page, child, floor.back[start])
    runs = list(map(_Run, *(column.tolist() for column in columns)))
    bounds = np.searchsorted(start, layer.start).tolist()
    addresses, stops = layer.table.tolist(), floor.stop.tolist()
    for number, (address, stop) in enumerate(zip(addresses, stops, strict=True)):
        if bounds[number + 1] > room:
            return
        table = Table(format, address, layer.level)
        yield _Table(table, 0, stop, runs[bounds[number] : bounds[number + 1]])


def _frames(format: Format, floor: Floor) -> Words:
    """Where the memory begins that each row of a floor maps, 0 of what is no page."""
    layer, here = floor.layer, format.levels[floor.layer.level]
    frames, pages = np.zeros_like(layer.raw), layer.kind == RowKind.PAGE
    offset = layer.index[pages].astype(np.uint64) << np.uint64(here.shift)
    if here.leaf is not None:
        frames[pages] = bulk.frames_of(here, layer.raw[pages], offset)
    return frames


def _begins(format: Format, floor: Floor, frames: Words) -> Mask:
    """The rows of a floor with which a run begins."""
    layer = floor.layer
    begins = np.ones(len(layer.raw), np.bool_)
    if len(begins) < 2:
        return begins
    owner = floor.owner
    raw = layer.raw
    beside = (owner[1:] == owner[:-1]) & (layer.index[1:] == layer.index[:-1] + 1)
    onward = frames[1:] - frames[:-1]
    same = beside & (raw[1:] == raw[:-1]) & (onward == 0)
    mask = np.uint64(address_mask(format, layer.level))
    follows = beside & (layer.kind[1:] == RowKind.PAGE) & ((raw[1:] ^ raw[:-1]) & ~mask == 0)
    follows &= onward == np.uint64(format.levels[layer.level].size)
    joins = same | follows
    # A run goes on as it began, so that one number tells how its addresses follow each other.
    turns = same[1:] != same[:-1]
    joins[1:] &= ~(joins[:-1] & turns)
    begins[1:] = ~joins
    return begins


def _sum_up(cpu: Cpu, one: _Table, tables: Sequence[_Table]) -> None:
    """Writes down what lies in and under a table, given the same of those under it."""
    format, granted = one.table.format, set[int]()
    for run in one.runs:
        own = _own(cpu, one.table, run)
        if run.kind == RowKind.PAGE:
            one.pages += run.count
            one.size += run.count * format.levels[one.table.level].size
            granted.add(own)
        elif run.child >= 0:
            below = tables[run.child]
            one.pages += run.count * below.pages
            one.size += run.count * below.size
            granted |= {own & given for given in below.granted}
    one.granted = frozenset(granted)


# ---- what they say ----


def _effective(cpu: Cpu) -> list[int]:
    """By the rights of a way as a number of the map: those that have an effect."""
    format, always = cpu.format, _rights(cpu.format, 0)
    number = np.arange(1 << len(letters(format, format.rights_mask)))
    granted = np.zeros(len(number), np.uint64)
    for bit in format.rights.values():
        letter = _rights(format, bit) & ~always
        granted[number & letter != 0] |= np.uint64(bit)
    found = architecture.effective_together(cpu, granted).tolist()
    return [_rights(format, one) for one in found]


def _own(cpu: Cpu, table: Table, run: _Run) -> int:
    """The rights that an entry gives, of a page those that have an effect for all it says."""
    given = table.format.granted(run.raw, table.level)
    if run.kind != RowKind.PAGE:
        return given
    return architecture.effective_in_of(cpu, given, run.raw)


def _legend(format: Format) -> list[tuple[str, str]]:
    """Samples of rights as this format has them, and what each is."""
    bits = {LETTERS[name]: bit for name, bit in format.rights.items()}
    user, read, write, execute = (bits.get(letter, 0) for letter in "urwx")
    granted = [read | user | more for more in (0, write, execute, write | execute)]
    samples = [*dict.fromkeys(letters(format, one) for one in granted)]
    legend = [(text, SAID["w" in text, "x" in text]) for text in samples]
    if user:
        said = "the supervisor's: outlined, and half as high in strips"
        legend.append((letters(format, read | write), said))
    return legend


SAID: Final = {
    (False, False): "read only",
    (True, False): "writable",
    (False, True): "executable",
    (True, True): "writable and executable",
}
"""What pages are, by whether they can be written and executed."""


def _rights(format: Format, granted: int) -> int:
    """Rights as a number of the map: bit i is its letter i."""
    given = letters(format, granted)
    return sum(1 << place for place, letter in enumerate(given) if letter != "-")


def _run_text(cpu: Cpu, table: Table, run: _Run, kinds: dict[_Said, int]) -> str:
    """A run in one word; the kinds that it needs are added."""
    format, here = table.format, table.format.levels[table.level]
    rights = _rights(format, _own(cpu, table, run))
    bits = " ".join(set_bits(here, run.raw)) if run.raw else ""
    holds = f"{run.raw:x}"
    if run.kind == RowKind.PAGE:
        page = format.decode(run.raw, table.level)
        assert isinstance(page, Leaf)
        kind, text = in_units(page.size), bits
        holds = f"{run.frame:x}"
    elif run.kind == POINTER:
        kind, text = "table", "a self-map" if run.loops else ""
        holds = str(run.child)
    elif run.kind == RowKind.UNBACKED:
        kind, text = "unbacked", "no memory behind the table from here on"
    else:
        step = Step(table.slot(run.index), run.raw, format.decode(run.raw, table.level))
        kind, text = "malformed", meaning(format, step)
    number = kinds.setdefault((kind, rights, text, f"{run.step:x}"), len(kinds))
    return f"{run.index},{run.count},{number},{holds}"
