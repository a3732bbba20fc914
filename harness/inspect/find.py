"""The way back: from physical memory to the addresses that lead there, and to the tables in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from harness.inspect import graph as graphs
from harness.inspect.graph import Floor, Graph, RowKind, weighed
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bulk import Counts
from harness.paging.format import Format
from harness.paging.memory import Mask, distinct
from harness.paging.table import Slot, Table


class Address(NamedTuple):
    """One address that leads to a place in physical memory.

    page     where the page begins that both lie in
    size     of that page, in bytes
    granted  the rights that all entries on the way give together
    """

    virtual: Virtual
    page: Physical
    size: int
    level: int
    raw: int
    granted: int


class Spoilt(NamedTuple):
    """A malformed entry that would map a place, were it not malformed."""

    slot: Slot
    raw: int


@dataclass(frozen=True)
class Addresses:
    """All addresses of a place in physical memory.

    total   how many there are
    shown   the first of them, in order of the roots' spans
    tables  the tables that are there
    spoilt  the first entries that would lead there, were they not malformed, each table looked at
            once; and how many there are
    """

    physical: Physical
    total: int
    shown: tuple[Address, ...]
    tables: tuple[TableUse, ...]
    spoilt: tuple[Spoilt, ...]
    total_spoilt: int


def addresses(graph: Graph, physical: Physical, limit: int) -> Addresses:
    """Every address that leads to a place, counted, and the first `limit` of them; none of those
    by way of tables that were not read, of which `graph.cut` tells."""
    hits: list[_Hits] = []
    for floor in reversed(graph.floors):
        pages = _covers(graph, floor, physical)
        below = weighed(floor, pages, hits[-1].below if hits else None)
        hits.append(_Hits(floor, pages, below))
    hits.reverse()
    total = int(hits[0].below.sum()) if hits else 0
    found = _listed(graph.format, hits, physical)
    there = tuple(use for use in tables(graph) if physical in use.span)
    spoilt = [one for floor in graph.floors for one in _spoilt(graph.format, floor, physical)]
    shown = tuple(islice(found, limit))
    return Addresses(physical, total, shown, there, tuple(spoilt[:limit]), len(spoilt))


class _Hits(NamedTuple):
    """Where the pages are that hold a place.

    pages  of each row of the floor, whether it is one
    below  of each table, how many are in and under it
    """

    floor: Floor
    pages: Mask
    below: Counts


def _covers(graph: Graph, floor: Floor, physical: int) -> Mask:
    """Which rows of a floor are pages that hold a place."""
    here = graph.format.levels[floor.layer.level]
    pages = floor.layer.kind == RowKind.PAGE
    if here.leaf is None:
        return np.zeros(len(pages), np.bool_)
    offset = floor.layer.index.astype(np.uint64) << np.uint64(here.shift)
    page = bulk.frames_of(here, floor.layer.raw, offset)
    covers: Mask = pages & (page == np.uint64(physical & -here.size))
    return covers


def _spoilt(format: Format, floor: Floor, physical: int) -> Iterator[Spoilt]:
    """The malformed entries of a floor that would map a place as pages."""
    layer, here = floor.layer, format.levels[floor.layer.level]
    malformed = layer.kind == RowKind.MALFORMED
    if here.pointer is not None:
        malformed &= ~bulk.matches(here.pointer.when, layer.raw)
    odd = np.flatnonzero(malformed)
    raw = layer.raw[odd]
    covers = np.zeros(len(odd), np.bool_)
    for shape in here.pages:
        size = here.page_size(shape)
        mask = np.uint64(shape.when.mask & ~here.presence)
        alike = (raw ^ np.uint64(shape.when.value)) & mask == 0
        page = bulk.address_of(shape, raw) & np.uint64(-size & (1 << 64) - 1)
        covers |= alike & (page == np.uint64(physical & -size))
    rows = odd[covers]
    for slot, word in zip(_slots(format, floor, rows), layer.raw[rows].tolist(), strict=True):
        yield Spoilt(slot, word)


def _listed(format: Format, hits: list[_Hits], physical: int) -> Iterator[Address]:
    """The addresses one by one, going down only where there are some."""
    if hits:
        for table, base in enumerate(hits[0].floor.base.tolist()):
            yield from _listed_below(format, hits, physical, table, base, format.rights_mask)


def _listed_below(
    format: Format, hits: list[_Hits], physical: int, table: int, base: int, granted: int
) -> Iterator[Address]:
    (floor, pages, _), under = hits[0], hits[1:]
    layer, here = floor.layer, format.levels[floor.layer.level]
    rows = slice(layer.start[table], layer.start[table + 1])
    child, leads = floor.child[rows], pages[rows]
    if under:
        leads = leads | (child >= 0) & (under[0].below[child] > 0)
    for row in (np.flatnonzero(leads) + rows.start).tolist():
        raw, lower = int(layer.raw[row]), int(floor.child[row])
        virtual = base | int(layer.index[row]) << here.shift
        given = granted & format.granted(raw, layer.level)
        if lower >= 0:
            yield from _listed_below(format, under, physical, lower, virtual, given)
        else:
            offset = physical & here.size - 1
            page = Physical(physical - offset)
            yield Address(Virtual(virtual | offset), page, here.size, layer.level, raw, given)


@dataclass(frozen=True)
class TableUse:
    """A table that is in use at a level.

    entries  how many of its slots are not absent
    ends     how many pages and other ends lie in and under it
    paths    in how many ways it is reached from the roots
    slots    how many slots lead to it, in tables that are each counted once
    leaders  the first of them, LEADERS at most; none where it is a root
    """

    table: Table
    entries: int
    ends: int
    paths: int
    slots: int
    leaders: tuple[Slot, ...]

    @property
    def span(self) -> Span:
        """The physical addresses of the table."""
        return Span.of(self.table.address, self.table.size)


LEADERS: Final = 8
"""Slots that a table is said to be reached by; there may be more."""


def tables(graph: Graph) -> Iterator[TableUse]:
    """The tables of a space, from the roots' level down, each once a level."""
    format = graph.format
    above: Floor | None = None
    paths = np.zeros(0, np.uint64)
    for number, floor in enumerate(graph.floors):
        layer, level = floor.layer, floor.layer.level
        n = len(layer.table)
        rows = np.zeros(0, np.int64)
        if above is None:
            paths = np.ones(n, np.uint64)
        else:
            rows = np.flatnonzero(above.child >= 0)
            along = paths[above.owner[rows]]
            paths = np.zeros(n, np.uint64)
            np.add.at(paths, above.child[rows], along)
            rows = rows[np.argsort(above.child[rows], kind="stable")]
        slots = np.bincount(above.child[rows], minlength=n) if above else np.zeros(n, np.int64)
        upto = np.cumsum(slots)
        once = _once(format, floor)
        # Where there is no memory there is no entry, but a row that stands for all that would be.
        entries = weighed(floor, once & (layer.kind != RowKind.UNBACKED), None)
        under = graph.floors[number + 1].below if number + 1 < len(graph.floors) else None
        ends = _ends(floor, once, under)
        columns = (layer.table, entries, ends, paths, slots, upto)
        merged: dict[int, TableUse] = {}
        for address, held, ends, ways, count, last in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            first = rows[last - count : last][:LEADERS]
            leaders = tuple(_slots(format, above, first)) if above else ()
            table = Table(format, Physical(address), level)
            use = TableUse(table, held, ends, ways, count, leaders)
            # A root that serves several spans is one table, and so are parts that pointers show.
            merged[address] = _both(merged[address], use) if address in merged else use
        yield from merged.values()
        above = floor


def _both(one: TableUse, other: TableUse) -> TableUse:
    return replace(
        one,
        entries=one.entries + other.entries,
        ends=one.ends + other.ends,
        paths=one.paths + other.paths,
        slots=one.slots + other.slots,
        leaders=(*one.leaders, *other.leaders)[:LEADERS],
    )


def _once(format: Format, floor: Floor) -> Mask:
    """Which rows stand for a slot that no earlier row does: parts of a table can overlap."""
    layer = floor.layer
    once = np.ones(len(layer.raw), np.bool_)
    if len(distinct(layer.table)) < len(layer.table):
        slot = layer.table[floor.owner] + layer.index * np.uint64(format.entry_bytes)
        once[:] = False
        once[np.unique(slot, return_index=True)[1]] = True
    return once


def _ends(floor: Floor, once: Mask, under: Counts | None) -> Counts:
    """How many ends lie in each table of a floor and under it, by the rows that count.

    under  of each table of the next floor; None where there is none
    """
    if once.all():
        return floor.below
    weight = once.astype(np.int64)
    if under is not None:
        followed = once & (floor.child >= 0)
        weight[followed] = under[floor.child[followed]]
    return weighed(floor, weight, None)


def _slots(format: Format, floor: Floor, rows: Counts) -> Iterator[Slot]:
    """The slots of some rows."""
    layer = floor.layer
    owner = np.searchsorted(layer.start, rows, side="right") - 1
    tables, index = layer.table[owner].tolist(), layer.index[rows].tolist()
    for address, place in zip(tables, index, strict=True):
        yield Slot(Table(format, Physical(address), layer.level), place)


class Shared(NamedTuple):
    """Neighbouring physical memory that has the same number of addresses, two or more."""

    span: Span
    addresses: int


def shared(*spaces: Graph) -> tuple[list[Shared], tuple[str, ...]]:
    """All memory that is mapped more than once, in all of these spaces together, that with the most
    addresses first; and what was not looked at, a sentence each.

    Pages of all sizes count, and tables that self-maps show as pages.
    """
    places, changes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    cut = list[str]()
    for graph in spaces:
        left_out = 0
        for rows in graphs.rows(graph):
            left_out += rows.left_out
            size = np.uint64(graph.format.levels[rows.level].size)
            pages = rows.kind == RowKind.PAGE
            paths = rows.paths[pages].astype(np.int64)
            places += rows.physical[pages], rows.physical[pages] + size
            changes += paths, -paths
        cut += graphs.rows_cut(graph, left_out)
    place, number = np.unique(np.concatenate(places), return_inverse=True)
    change = np.zeros(len(place), np.int64)
    np.add.at(change, number, np.concatenate(changes))
    # A place where nothing changes divides nothing.
    place, change = place[change != 0], change[change != 0]
    counts = np.cumsum(change)
    chosen = np.flatnonzero(counts > 1)
    first, last = place[chosen], place[chosen + 1] - np.uint64(1)
    order = np.lexsort((first, -counts[chosen]))
    columns = (first[order].tolist(), last[order].tolist(), counts[chosen][order].tolist())
    found = [Shared(Span(a, b), n) for a, b, n in zip(*columns, strict=True)]
    return found, tuple(cut)
