"""The tables of a space as the graph that they are: each is read once a level and looked at once
for each set of rights with which it is reached, and for whether a pointer on the way makes what
lies below lasting, however many addresses lead there.

A space of a few tables can have billions of pages.  What is asked of whole spaces is asked of
this graph, so that its cost is that of the tables, and pages come with the number of their
addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import POINTER, Bytes, Counts, End, Layer
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.table import Root

ENTRIES: Final = 1 << 24
"""Entries of tables that are read, and rows that are looked at, unless told otherwise: those of
64 GiB in pages of 4 KiB."""

FEWER: Final = 1 << 22
"""The same where much is kept of each row: those of 16 GiB."""

LEADING: Final = 4
"""One in so many of them may be above level 0: what leads on takes more memory than what does not.
So there are, unless told otherwise, 8,192 tables above level 0, which map 8 TiB in pages of 2 MiB;
with FEWER a quarter of that."""


class RowKind(IntEnum):
    """What a row of a space is.

    PAGE       a page
    ABSENT     nothing; of use where two spaces are compared
    MALFORMED  an entry with reserved bits set, or one that is absent to the machine and reserved
    UNBACKED   the first slot of a table that has no memory behind it; it stands for those that
               follow up to the next row of the table
    SELF_MAP   a pointer to a table that is in use at the pointer's own level or above, so that
               tables are read as lower ones, and in the end as pages
    UNREAD     a pointer to a table that was not looked at, because there are too many
    POINTER    any other pointer; left out unless it is asked for
    """

    PAGE = End.LEAF
    ABSENT = End.ABSENT
    MALFORMED = End.MALFORMED
    UNBACKED = End.UNBACKED
    SELF_MAP = 5
    UNREAD = 6
    POINTER = bulk.POINTER


@dataclass(frozen=True)
class Floor:
    """All tables at one level.

    layer  what is in them; a table of which pointers show two parts is there as two
    base   of the root level: the first address that each table spans; else empty
    first  of each table: the first slot that is used
    stop   of each table: the slot after the last that is used
    child  of each row: the number of the table one floor down that it leads to; -1 where it is
           no pointer, -2 where the table was not read
    back   of each row: whether it leads to a table that is in use at this level or above
    below  of each table: how many ends lie in and under it, tables not read counted as one
    pages  the same of pages alone; empty where no slot of the graph leads back up
    """

    layer: Layer
    base: Words
    first: Counts
    stop: Counts
    child: Counts
    back: Mask
    below: Counts
    pages: Counts

    @property
    def owner(self) -> Counts:
        """The number of the table of each row."""
        return np.repeat(np.arange(len(self.layer.table)), np.diff(self.layer.start))


@dataclass(frozen=True)
class Graph:
    """The tables of a space, from the roots' level down.

    limit  how many rows are looked at
    """

    format: Format
    floors: tuple[Floor, ...]
    limit: int

    @property
    def total(self) -> int:
        """How many ends the space has: what `bulk.leaves` would list."""
        return int(self.floors[0].below.sum()) if self.floors else 0

    def floor(self, level: int) -> Floor:
        """All tables at a level that has some."""
        return self.floors[self.floors[0].layer.level - level]

    @property
    def tables(self) -> int:
        """How many tables were read, each counted once a level."""
        return sum(len(distinct(floor.layer.table)) for floor in self.floors)

    @property
    def unread(self) -> int:
        """How many slots lead to tables that were not read."""
        return sum(int(np.count_nonzero(floor.child == -2)) for floor in self.floors)

    @property
    def cut(self) -> tuple[str, ...]:
        """What was not read, a sentence; none where all was."""
        return tuple(
            f"{count:,} slots lead to tables that were not read: of the tables {where}, no more"
            f" than {most:,} entries are read."
            for where, most, count in (
                ("above the lowest level", self.limit // LEADING, self._unread(lowest=False)),
                ("of the lowest level", self.limit, self._unread(lowest=True)),
            )
            if count
        )

    def _unread(self, lowest: bool) -> int:
        """How many slots lead to tables that were not read, of the lowest level or above it."""
        return sum(
            int(np.count_nonzero(floor.child == -2))
            for floor in self.floors
            if (floor.layer.level == 1) is lowest
        )


def read(memory: Memory, format: Format, roots: Iterable[Root], limit: int = ENTRIES) -> Graph:
    """Reads every table once a level: of the lowest level at most as many as hold `limit` entries,
    of those above together one in LEADING of that."""
    roots = tuple(roots)
    if not roots:
        return Graph(format, (), limit)
    level = roots[0].table.level
    layer = _joined([bulk.root_layer(memory, root, reserved=True) for root in roots])
    base = np.array([root.first_address(0) for root in roots], np.uint64)
    first, stop = (
        np.array([getattr(root.indices, end) for root in roots]) for end in ("start", "stop")
    )
    seen, budget, leading = _with_memory(layer, first), limit, limit // LEADING
    parts: list[Floor] = []
    while True:
        points = np.flatnonzero(layer.kind == POINTER)
        child, back = _leading_nowhere(len(layer.kind), bool(len(points)))
        parts.append(Floor(layer, base, first, stop, child, back, *[np.zeros(0, np.int64)] * 2))
        if not len(points):
            break
        tables, shown, numbers = bulk.targets_of(format, level, layer.raw[points])
        level -= 1
        entries = format.levels[level].entries
        first, stop = np.zeros(len(tables), np.int64), np.full(len(tables), entries)
        if shown is not None:
            first = shown[0].astype(np.int64)
            stop = np.maximum(first, shown[1].astype(np.int64) + 1)
        most = leading if level else budget
        readable = int(np.searchsorted(np.cumsum(stop - first), most, side="right"))
        child[points] = np.where(numbers < readable, numbers, -2)
        back[points] = np.isin(tables, seen)[numbers]
        tables, first, stop = tables[:readable], first[:readable], stop[:readable]
        leading -= int((stop - first).sum())
        if not readable:
            break
        shown = shown and (shown[0][:readable], shown[1][:readable])
        slots = np.arange(entries, dtype=np.uint64)
        layer = bulk.read_layer(memory, format, level, tables, slots, shown, reserved=True)
        base = np.zeros(0, np.uint64)
        seen = np.concatenate([seen, _with_memory(layer, first)])
    return Graph(format, tuple(_with_counts(parts)), limit)


def without(graph: Graph, tables: Words) -> Graph:
    """The graph without what lies in some tables and under them; slots that lead there stay."""
    floors = []
    for floor, under in zip(graph.floors, graph.floors[1:], strict=False):
        away = np.isin(under.layer.table, tables)
        lost = (floor.child >= 0) & away[floor.child]
        floors.append(replace(floor, child=np.where(lost, -1, floor.child)))
    return replace(graph, floors=tuple(_with_counts([*floors, *graph.floors[len(floors) :]])))


def _leading_nowhere(count: int, written: bool) -> tuple[Counts, Mask]:
    """`child` and `back` of rows that lead nowhere yet; they take memory if they are written."""
    nowhere, never = np.broadcast_to(np.int64(-1), count), np.broadcast_to(np.False_, count)
    return (nowhere.copy(), never.copy()) if written else (nowhere, never)


def _with_memory(layer: Layer, first: Counts) -> Words:
    """The tables that have memory behind the first entries that are used."""
    held = np.diff(layer.start) > 0
    row = layer.start[:-1][held]
    unbacked = np.zeros(len(layer.table), np.bool_)
    unbacked[held] = (layer.kind[row] == End.UNBACKED) & (layer.index[row] == first[held])
    return layer.table[~unbacked]


def _joined(layers: list[Layer]) -> Layer:
    before = np.cumsum([0, *(len(layer.raw) for layer in layers)])
    starts = [layer.start[1:] + rows for layer, rows in zip(layers, before, strict=False)]
    return Layer(
        layers[0].level,
        np.concatenate([layer.table for layer in layers]),
        np.concatenate([[0], *starts]).astype(np.int64),
        np.concatenate([layer.index for layer in layers]),
        np.concatenate([layer.raw for layer in layers]),
        np.concatenate([layer.kind for layer in layers]),
    )


def _with_counts(parts: list[Floor]) -> list[Floor]:
    """Floors with the number of ends below each table, counted from the bottom up."""
    floors: list[Floor] = []
    loops = any(floor.back.any() for floor in parts)
    for floor in reversed(parts):
        under = floors[-1].below if floors else None
        if under is None:  # as it would come out, for little: most rows are on this floor
            below = np.diff(floor.layer.start)
        else:
            below = weighed(floor, np.ones(len(floor.child), np.int64), under)
        pages = floor.pages
        if loops:  # what was not read may be pages
            shown = (floor.layer.kind == RowKind.PAGE) | (floor.child == -2)
            pages = weighed(floor, shown, floors[-1].pages if floors else None)
        floors.append(replace(floor, below=below, pages=pages))
    return floors[::-1]


def weighed(floor: Floor, weight: Counts | Mask, under: Counts | None) -> Counts:
    """The sum of the rows' weights in each table of a floor; a pointer has that of the table that
    it leads to instead.

    under  of each table of the next floor; None where there is none
    """
    if under is not None:
        weight = weight.astype(np.int64)
        followed = floor.child >= 0
        weight[followed] = under[floor.child[followed]]
    ahead = np.zeros(len(weight) + 1, np.int64)
    np.cumsum(weight, out=ahead[1:])
    return np.diff(ahead[floor.layer.start])


@dataclass(frozen=True)
class Rows:
    """Rows of one level, in order of their lowest addresses; arrays of shape (n,).

    level     of all of them
    virtual   the lowest address of the row
    highest   the highest of its addresses
    kind      uint8, a `RowKind`
    raw       the entry, 0 where it is unbacked
    physical  where the page begins, or the table: that which a SELF_MAP or UNREAD leads to, that
              in which an UNBACKED is; else 0
    slots     how many slots the row stands for: 1, of UNBACKED more
    above     the rights that the entries on the way give together
    granted   those that are left with the row's own
    lasting   whether a pointer on the way makes the row lasting (`Flushing.lasting_tables`)
    paths     at how many addresses the row is, all with these rights
    group     rows with the same number have their addresses at the same distances from another
    view      which table it is in, and with which rights that was reached: rows with the same
              number have that in common
    window    whether a self-map lies on the way, so that the row is another view of a table
    below     how many ends lie below a pointer or UNREAD, else 0
    shown     how many pages lie below a SELF_MAP, or what was not read, else 0
    """

    level: int
    virtual: Words
    highest: Words
    kind: Bytes
    raw: Words
    physical: Words
    slots: Counts
    above: Words
    granted: Words
    lasting: Mask
    paths: Words
    group: Counts
    view: Counts
    window: Mask
    below: Counts
    shown: Counts

    @property
    def left_out(self) -> int:
        """How many of the rows are tables that `rows` did not look at, since there are too many."""
        return int(np.count_nonzero(self.view < 0))

    def take(self, chosen: Mask | Counts) -> Rows:
        """The chosen rows."""
        columns = (getattr(self, field.name)[chosen] for field in fields(self)[1:])
        return Rows(self.level, *columns)


class _Views(NamedTuple):
    """Tables of a floor, by number, each as it is reached with certain rights.

    base, highest  the first address of the lowest and of the highest span that it serves
    lasting        whether a pointer on the way makes lasting what lies below
    """

    table: Counts
    base: Words
    highest: Words
    granted: Words
    lasting: Mask
    paths: Words
    group: Counts
    window: Mask

    @classmethod
    def together(cls, parts: list[_Views]) -> _Views:
        joined: Any = map(np.concatenate, zip(*parts, strict=True))
        return cls(*joined)

    def take(self, chosen: slice | Mask | Counts) -> _Views:
        columns: Any = (column[chosen] for column in self)
        return _Views(*columns)


def rows(
    graph: Graph, span: Span | None = None, each: int | None = None, pointers: bool = False
) -> Iterator[Rows]:
    """All that a space holds, in blocks, from the roots' level down: every end and every self-map
    once for each set of rights with which its table is reached.

    span      looks at these addresses alone: at rows that lie in them, at least with a part
    each      gives every end at every of its addresses instead, self-maps as the pages that they
              show; of the ends in order of address at least this many, where there are as many
    pointers  gives the other pointers, too

    Where more rows than the limit of the graph would have to be looked at, the rest comes as
    UNREAD rows, which have the view -1.
    """
    if not graph.floors:
        return
    format, budget = graph.format, graph.limit
    views, numbers, groups = _roots(graph), 0, 1
    for depth, floor in enumerate(graph.floors):
        level, leading = floor.layer.level, []
        under = graph.floors[depth + 1 :][:1]
        for part in floor.layer.parts(views.table):
            block, child = _looked_at(format, floor, views.take(part), numbers + part.start)
            if span is not None:
                inside = _meets(block, format.levels[level].size, span)
                block, child = block.take(inside), child[inside]
            followed = child >= 0
            if under:
                block.below[followed] = under[0].below[child[followed]]
                loops = (block.kind == RowKind.SELF_MAP) & followed
                if loops.any():
                    block.shown[loops] = under[0].pages[child[loops]]
                leading.append(_leading(format, block.take(followed), child[followed]))
            loops = (block.kind == RowKind.SELF_MAP) & ~block.window
            if not pointers:
                block = block.take(~followed if each is not None else ~followed | loops)
            yield block
        if not leading:
            return
        numbers += len(views.table)
        views = _Views.together(leading)
        whole = _whole(views, format.levels[level].size, span)
        if each is None:
            views, groups = _met(format, views, whole, groups)
        else:
            ends = np.where(whole, under[0].below[views.table], 0)
            views = views.take(np.cumsum(ends) - ends < each)
        lines = np.diff(under[0].layer.start)[views.table]
        fits = np.cumsum(lines) <= budget
        if not fits.all():
            yield _left_out(level, views.take(~fits), under[0])
        views = views.take(fits)
        budget -= int(lines[fits].sum())


def rows_cut(graph: Graph, left_out: int) -> tuple[str, ...]:
    """What is missing where rows were left out, besides what was not read: a sentence each."""
    if not left_out:
        return graph.cut
    return (
        *graph.cut,
        f"{left_out:,} tables were not looked at: there are more than {graph.limit:,} rows.",
    )


def _roots(graph: Graph) -> _Views:
    floor = graph.floors[0]
    n = len(floor.base)
    return _Views(
        np.arange(n),
        floor.base,
        floor.base,
        np.full(n, graph.format.rights_mask, np.uint64),
        np.zeros(n, np.bool_),
        np.ones(n, np.uint64),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
    )


def _looked_at(format: Format, floor: Floor, views: _Views, number: int) -> tuple[Rows, Counts]:
    """All rows of some tables as they are on the ways there, pointers of kind POINTER too; and
    the `child` of each.

    number  of the first view
    """
    layer = floor.layer
    here = format.levels[layer.level]
    lines, counts = layer.lines(views.table)
    place = np.repeat(np.arange(len(views.table)), counts)
    offset = layer.index[lines].astype(np.uint64) << np.uint64(here.shift)
    raw, kind, child = layer.raw[lines], layer.kind[lines], floor.child[lines]
    above, unbacked = views.granted[place], kind == RowKind.UNBACKED
    granted = np.where(unbacked, above, bulk.granted_by(format, layer.level, above, raw))
    physical, slots = np.zeros(len(raw), np.uint64), np.ones(len(raw), np.int64)
    pages, points = kind == RowKind.PAGE, kind == POINTER
    if here.leaf is not None:
        physical[pages] = bulk.frames_of(here, raw[pages], offset[pages])
    if here.pointer is not None:
        physical[points] = bulk.address_of(here.pointer, raw[points])
    if unbacked.any():
        physical[unbacked] = layer.table[views.table][place[unbacked]]
        slots = _stands_for(floor, views, lines, place)
    kind = np.where(floor.back[lines], np.uint8(RowKind.SELF_MAP), kind)
    kind[child == -2] = RowKind.UNREAD
    block = Rows(
        layer.level,
        views.base[place] | offset,
        views.highest[place] | offset,
        kind,
        raw,
        physical,
        slots,
        above,
        granted,
        views.lasting[place],
        views.paths[place],
        views.group[place],
        place + number,
        views.window[place],
        (child == -2).astype(np.int64),
        np.zeros(len(raw), np.int64),
    )
    return block, child


def _stands_for(floor: Floor, views: _Views, lines: slice | Counts, place: Counts) -> Counts:
    """How many slots each row stands for: those up to the next row where it is unbacked."""
    layer = floor.layer
    index = layer.index[lines].astype(np.int64)
    upto = floor.stop[views.table][place]
    following = place[1:] == place[:-1]
    upto[:-1][following] = index[1:][following]
    return np.where(layer.kind[lines] == RowKind.UNBACKED, upto - index, 1)


def _meets(block: Rows, size: int, span: Span) -> Mask:
    """Which rows have a part in the span."""
    last = block.virtual + (block.slots.astype(np.uint64) * np.uint64(size) - np.uint64(1))
    inside: Mask = (block.virtual <= np.uint64(span.last)) & (last >= np.uint64(span.first))
    return inside


def _leading(format: Format, block: Rows, child: Counts) -> _Views:
    """Pointers as views of the tables that they lead to, one a pointer."""
    window = block.window | (block.kind == RowKind.SELF_MAP)
    return _Views(
        child,
        block.virtual,
        block.highest,
        block.granted,
        block.lasting | makes_lasting(format, block.raw),
        block.paths,
        block.group,
        window,
    )


def makes_lasting(format: Format, pointers: Words) -> Mask:
    """Which pointers make lasting what lies below."""
    if format.flushing is None or not format.flushing.lasting_tables:
        return np.zeros(len(pointers), np.bool_)
    found: Mask = pointers & np.uint64(format.lasting) != 0
    return found


def with_lasting(format: Format, raw: Words, lasting: Mask) -> Words:
    """Entries with the bit that makes pages lasting where pointers on the way do."""
    if not lasting.any():
        return raw
    return np.where(lasting, raw | np.uint64(format.lasting), raw)


def _whole(views: _Views, size: int, span: Span | None) -> Mask:
    """Which views have all of their lowest addresses in the span."""
    if span is None:
        return np.ones(len(views.table), np.bool_)
    last = views.base + np.uint64(size - 1)
    inside: Mask = (views.base >= np.uint64(span.first)) & (last <= np.uint64(span.last))
    return inside


def _met(format: Format, views: _Views, whole: Mask, groups: int) -> tuple[_Views, int]:
    """Views of the same table that are alike but for their addresses, joined; and the number of
    the next group.

    One that is not whole stays alone.
    """
    key = views.table << 1 | views.lasting
    for right in format.rights.values():
        key = key << 1 | (views.granted & np.uint64(right) != 0)
    key = np.where(whole, key << 1 | views.window, -1 - np.arange(len(key)))
    found = met(key, views.paths, views.highest, views.group, groups)
    together = views.take(found.first)._replace(
        paths=found.paths, highest=found.highest, group=found.group
    )
    return together, found.groups


class Met(NamedTuple):
    """Things of which the equal ones are one, in the order in which they first stood.

    first    where the first of each stood
    paths    in how many ways each is reached
    highest  the highest address of each
    group    of each: a new one where several were joined
    groups   the number of the next group
    """

    first: Counts
    paths: Words
    highest: Words
    group: Counts
    groups: int


def met(key: Words | Counts, paths: Words, highest: Words, group: Counts, groups: int) -> Met:
    """What is left where those of equal `key` are joined; arrays of shape (n,), and `groups` the
    number of the next group."""
    _, first, inverse, counts = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    sums, tops = np.zeros(len(first), np.uint64), np.zeros(len(first), np.uint64)
    np.add.at(sums, inverse, paths)
    np.maximum.at(tops, inverse, highest)
    kept, several = group[first], counts > 1
    new = int(np.count_nonzero(several))
    kept[several] = groups + np.arange(new)
    order = np.argsort(first)
    return Met(first[order], sums[order], tops[order], kept[order], groups + new)


def _left_out(level: int, views: _Views, floor: Floor) -> Rows:
    """Tables that are not looked at, as rows of the slots that lead to them."""
    n = len(views.table)
    return Rows(
        level,
        views.base,
        views.highest,
        np.full(n, RowKind.UNREAD, np.uint8),
        np.zeros(n, np.uint64),
        floor.layer.table[views.table],
        np.ones(n, np.int64),
        views.granted,
        views.granted,
        views.lasting,
        views.paths,
        views.group,
        np.full(n, -1, np.int64),
        views.window,
        floor.below[views.table],
        np.zeros(n, np.int64),
    )


def no_rows() -> Rows:
    """Rows of an empty space."""
    words, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    kinds, mask = np.zeros(0, np.uint8), np.zeros(0, np.bool_)
    return Rows(
        level=0,
        virtual=words,
        highest=words,
        kind=kinds,
        raw=words,
        physical=words,
        slots=counts,
        above=words,
        granted=words,
        lasting=mask,
        paths=words,
        group=counts,
        view=counts,
        window=mask,
        below=counts,
        shown=counts,
    )
