"""What is different between two spaces, or between two moments of one.

Both are gone through together, from the roots down, and a pair of tables is looked at once for
each pair of rights with which they are reached, and for whether pointers make what lies below
lasting.  What counts is what addresses lead to: a table that has moved, or a large page split into
small ones, is no difference of the pages below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Any, Final, NamedTuple

import numpy as np

from harness.inspect.graph import (
    Floor,
    Graph,
    RowKind,
    Rows,
    makes_lasting,
    met,
    no_rows,
    with_lasting,
)
from harness.inspect.ranges import Range, Ranges, follow, of_rows, reduced, together
from harness.inspect.snapshot import QuestionError
from harness.paging import bulk
from harness.paging.bits import (
    address_mask,
    attributes,
    carried,
    offending_bits,
    read_by_machine,
    structure_mask,
)
from harness.paging.bulk import LANES, Bytes, Counts
from harness.paging.format import Format
from harness.paging.memory import Mask, Words


class Change(IntFlag):
    """What is different at an address.

    MAPPED      there was nothing
    UNMAPPED    there is nothing any more
    KIND        it is a page no more, or one now
    MOVED       it leads to other memory
    RIGHTS      all levels together give other rights
    ATTRIBUTES  memory type, global or key, or rights of its own entry that have no effect
    SIZE        the page is of another size
    USED        accessed or dirty
    SOFTWARE    bits that the machine does not look at
    """

    MAPPED = 1
    UNMAPPED = 2
    KIND = 4
    MOVED = 8
    RIGHTS = 16
    ATTRIBUTES = 32
    SIZE = 64
    USED = 128
    SOFTWARE = 256


LANES_COMPARED: Final = 1 << 23
"""Slots that are compared at most, one pair of rights and tables after the other."""

PAIRS: Final = 1 << 18
"""Pairs of tables that may wait, beyond those that can be compared, until equal ones are joined."""

DIFFERENCES: Final = 1 << 18
"""Differences that are kept; where there are more, the result says that it was cut."""


class Changed(NamedTuple):
    """Neighbours that are different in the same way.

    change         all that is different
    before, after  the same addresses then and now, by entries of the same size; ABSENT for nothing
    then, now      the sizes of the pages themselves, in bytes, which may be larger; of what is no
                   page, those of the slots where it was found
    """

    change: Change
    before: Range
    after: Range
    then: int
    now: int


@dataclass(frozen=True)
class Difference:
    """All that is different between two spaces.

    before, after  ranges with the same addresses, in order
    change         uint16, a `Change` each
    then, now      uint8, the levels of the pages themselves, or where what is none was found
    cut            what was not compared, a sentence each
    """

    before: Ranges
    after: Ranges
    change: Counts
    then: Bytes
    now: Bytes
    cut: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.change)

    @property
    def same(self) -> bool:
        """Whether the spaces are known to be the same."""
        return not len(self) and not self.cut

    def __iter__(self) -> Iterator[Changed]:
        levels = self.before.format.levels
        columns = (self.change, self.then, self.now)
        lists = (column.tolist() for column in columns)
        for before, after, change, then, now in zip(self.before, self.after, *lists, strict=True):
            yield Changed(Change(change), before, after, levels[then].size, levels[now].size)

    def pages(self) -> dict[Change, int]:
        """How many entries are different in each way, at all their addresses; one that is in
        several ways counts in each."""
        each = self.before.pages.astype(np.uint64) * self.before.paths
        counts = {kind: int(each[self.change & kind != 0].sum()) for kind in Change}
        return {kind: count for kind, count in counts.items() if count}


class _Half(NamedTuple):
    """One side of pairs of tables.

    table     its number on its floor; -1 where it has none: then there is, all over
    kind      this, ABSENT for nothing
    raw       its entry without the address, as it would be at level `leaf`
    leaf      where it was found
    physical  of a page, where the part begins that these addresses lead to; the table that a
              self-map or a table not read is, or that has no memory
    granted   the rights with which the table is reached, or those of the page
    lasting   whether a pointer on the way makes lasting what lies below, or the page
    """

    table: Counts
    kind: Bytes
    raw: Words
    leaf: Bytes
    physical: Words
    granted: Words
    lasting: Mask


class _Pairs(NamedTuple):
    """Pairs of what both spaces have for the same addresses, at one level."""

    base: Words
    highest: Words
    paths: Words
    group: Counts
    before: _Half
    after: _Half


class _Lanes(NamedTuple):
    """Slots of one side: their entries, and where these lead.

    leaf     the level of the entry, above that of the slot where a larger page covers it
    lasting  whether a pointer on the way makes it lasting
    """

    kind: Bytes
    raw: Words
    child: Counts
    leaf: Bytes
    physical: Words
    granted: Words
    lasting: Mask


def diff(before: Graph, after: Graph) -> Difference:
    """What is different between two spaces.

    What self-maps show is not compared: the tables are, where they are in use.

    Raises QuestionError where the modes of both split addresses into other indices.
    """
    format, other = before.format, after.format
    shapes = [[(level.shift, level.index_bits) for level in one.levels] for one in (format, other)]
    if shapes[0] != shapes[1]:
        first, second = (
            one.name if format.name != other.name else f"{one.name} from {one.levels[-1].name} on"
            for one in (format, other)
        )
        raise QuestionError(
            f"{first} and {second} paging split addresses into other indices:"
            " compare two spaces of one mode"
        )
    found, cut, count = list[Difference](), (*before.cut, *after.cut), 0
    waiting = _Waiting(_roots(before, after))
    for part in _parts(before, after, waiting):
        found.append(_merged(format, other, [part], ()))
        count += len(found[-1])
        if count > DIFFERENCES:
            cut = (*cut, f"There are more than {DIFFERENCES:,} differences: others are left out.")
            break
    if waiting.cut:
        cut = (*cut, f"There are more than {LANES_COMPARED:,} slots: others were not compared.")
    return _merged(format, other, found, cut)


def _parts(before: Graph, after: Graph, waiting: _Waiting) -> Iterator[Difference]:
    """What is different, a part at a time, from the roots' level down."""
    sides = [
        _Side(
            one.format,
            {floor.layer.level: floor for floor in one.floors},
            np.uint64(other.format.rights_mask & ~one.format.rights_mask),
        )
        for one, other in ((before, after), (after, before))
    ]
    budget, levels = LANES_COMPARED, before.format.levels
    for level in range(len(levels) - 1, -1, -1):
        pairs, entries = waiting.taken(), levels[level].entries
        budget -= len(pairs.base) * entries
        waiting.room = budget // levels[max(level - 1, 0)].entries
        at_once = max(1, LANES // entries)
        for start in range(0, len(pairs.base), at_once):
            changed, below = _compared(level, _take(pairs, slice(start, start + at_once)), *sides)
            waiting.add(below)
            yield changed


class _Waiting:
    """Pairs that are to be compared next, equal ones joined, and no more of them than can be.

    room  how many can be
    cut   whether there were more
    """

    def __init__(self, pairs: _Pairs):
        self.room = len(pairs.base)
        self.cut = False
        self._parts, self._count, self._groups = [pairs], len(pairs.base), 1

    def add(self, pairs: _Pairs) -> None:
        """Adds pairs, as long as there is room."""
        if self._count > self.room + PAIRS:
            return
        self._parts.append(pairs)
        self._count += len(pairs.base)
        if self._count > self.room + PAIRS:
            self._join()

    def taken(self) -> _Pairs:
        """All of them; none wait any more."""
        self._join()
        (pairs,) = self._parts
        if len(pairs.base) > self.room:
            self.cut, pairs = True, _take(pairs, slice(self.room))
        self._parts, self._count = [_take(pairs, slice(0))], 0
        return pairs

    def _join(self) -> None:
        pairs, self._groups = _met(_together(self._parts), self._groups)
        self._parts, self._count = [pairs], len(pairs.base)


class _Side(NamedTuple):
    """One of the spaces.

    floors  by level
    always  the rights that entries of the other space can withhold, and its own cannot
    """

    format: Format
    floors: dict[int, Floor]
    always: np.uint64


def _take(part: Any, chosen: Any) -> Any:
    """The chosen of pairs, or of one side of them."""
    columns = (_take(c, chosen) if isinstance(c, tuple) else c[chosen] for c in part)
    return type(part)(*columns)


def _together(parts: list[Any]) -> Any:
    """Pairs, or sides of them, one after the other."""
    columns = (
        _together(list(c)) if isinstance(c[0], tuple) else np.concatenate(c)
        for c in zip(*parts, strict=True)
    )
    return type(parts[0])(*columns)


def _roots(before: Graph, after: Graph) -> _Pairs:
    """The root tables, those together that serve the same addresses."""
    bases = [
        one.floors[0].base if one.floors else np.zeros(0, np.uint64) for one in (before, after)
    ]
    base = np.union1d(*bases)

    def half(own: Words, format: Format) -> _Half:
        place = np.searchsorted(own, base)
        there = np.isin(base, own)
        none = _nothing(len(base))
        granted = np.full(len(base), format.rights_mask, np.uint64)
        return none._replace(table=np.where(there, place, -1), granted=granted)

    n = len(base)
    halves = (half(bases[0], before.format), half(bases[1], after.format))
    return _Pairs(base, base, np.ones(n, np.uint64), np.zeros(n, np.int64), *halves)


def _nothing(n: int) -> _Half:
    """The side of pairs where there is nothing."""
    words = np.zeros(n, np.uint64)
    kind = np.full(n, RowKind.ABSENT, np.uint8)
    never = np.zeros(n, np.bool_)
    return _Half(np.full(n, -1), kind, words, np.zeros(n, np.uint8), words, words, never)


def _compared(level: int, pairs: _Pairs, before: _Side, after: _Side) -> tuple[Difference, _Pairs]:
    """What is different in some pairs of tables, and the pairs that lie below."""
    here = before.format.levels[level]
    some, others = _lanes(before, level, pairs.before), _lanes(after, level, pairs.after)
    place = np.repeat(np.arange(len(pairs.base)), here.entries)
    sides = before, after
    above = _rights_differ(*sides, pairs.before.granted, pairs.after.granted)
    above |= pairs.before.lasting != pairs.after.lasting
    # Most slots are the same, and nothing more is asked of them.
    interesting = (some.kind != others.kind) | (some.raw != others.raw) | above[place]
    # But for entries that one side reads in another way than the other.
    interesting |= (some.leaf != others.leaf) | (before.always != after.always)
    interesting &= (some.kind != RowKind.ABSENT) | (others.kind != RowKind.ABSENT)
    interesting |= (some.kind == RowKind.POINTER) | (others.kind == RowKind.POINTER)
    lanes = np.flatnonzero(interesting)
    place = place[lanes]
    offset = (lanes % here.entries).astype(np.uint64) << np.uint64(here.shift)
    some = _completed(before, level, pairs.before, _take(some, lanes), place, offset)
    others = _completed(after, level, pairs.after, _take(others, lanes), place, offset)
    every = _Pairs(
        pairs.base[place] | offset,
        pairs.highest[place] | offset,
        pairs.paths[place],
        pairs.group[place],
        _half(before.format, some, pairs.before, place),
        _half(after.format, others, pairs.after, place),
    )
    down = (some.kind == RowKind.POINTER) | (others.kind == RowKind.POINTER)
    rights = _rights_differ(*sides, some.granted, others.granted)
    change = _changes(before.format, level, some, others, rights)
    change[down] = 0
    shown = change != 0
    found, some, others = _take(every, shown), _take(some, shown), _take(others, shown)
    difference = Difference(
        _ranges(before, level, found, some),
        _ranges(after, level, found, others),
        change[shown],
        some.leaf,
        others.leaf,
        (),
    )
    return difference, _take(every, down)


def _lanes(side: _Side, level: int, half: _Half) -> _Lanes:
    """All slots of one side of some pairs; where they lead is still to be found out."""
    format, here = side.format, side.format.levels[level]
    n, entries = len(half.table), here.entries
    kind, raw = np.repeat(half.kind, entries), np.repeat(_lowered(format, level, half), entries)
    child, leaf = np.full(n * entries, -1), np.repeat(half.leaf, entries)
    tables = np.flatnonzero(half.table >= 0)
    if len(tables):
        floor = side.floors[level]
        layer, numbers = floor.layer, half.table[tables]
        lines, counts = layer.lines(numbers)
        first = np.repeat(tables * entries, counts)
        place = first + layer.index[lines]
        leaf.reshape(n, entries)[tables] = level
        kinds = np.where(floor.back[lines], np.uint8(RowKind.SELF_MAP), layer.kind[lines])
        kinds[floor.child[lines] == -2] = RowKind.UNREAD
        kind[place], raw[place], child[place] = kinds, layer.raw[lines], floor.child[lines]
        # Of the slots without memory the first stands for all up to the next row.
        unbacked = kinds == RowKind.UNBACKED
        if unbacked.any():
            stop = np.minimum(
                np.append(place[1:], n * entries), first + floor.stop[np.repeat(numbers, counts)]
            )
            for begin, end in zip(place[unbacked].tolist(), stop[unbacked].tolist(), strict=True):
                kind[begin:end] = RowKind.UNBACKED
    blank = np.broadcast_to(np.uint64(0), len(kind))
    return _Lanes(kind, raw, child, leaf, blank, blank, np.repeat(half.lasting, entries))


def _lowered(format: Format, level: int, half: _Half) -> Words:
    """The entries of larger pages as pages at a level have them, without addresses."""
    raw = half.raw.copy()
    for source in range(level + 1, len(format.levels)):
        pages = (half.leaf == source) & (half.kind == RowKind.PAGE)
        for value in np.unique(raw[pages]).tolist():
            bits = carried(format, attributes(format, source, value), source, level)
            raw[pages & (half.raw == value)] = bits | structure_mask(format, level) & value
    return raw


def _completed(
    side: _Side, level: int, half: _Half, lanes: _Lanes, place: Counts, offset: Words
) -> _Lanes:
    """The lanes with physical addresses and rights.

    place   the pair of each
    offset  from the first address of the pair
    """
    format, here = side.format, side.format.levels[level]
    own = half.table[place] >= 0
    granted = half.granted[place]
    given = bulk.granted_by(format, level, granted, lanes.raw)
    granted = np.where(own & (lanes.kind != RowKind.UNBACKED), given, granted)
    granted[lanes.kind == RowKind.ABSENT] = 0
    physical = half.physical[place]
    pages = lanes.kind == RowKind.PAGE
    physical = np.where(pages, physical + offset, physical)
    leaves = own & pages
    if here.leaf is not None and leaves.any():
        physical[leaves] = bulk.frames_of(here, lanes.raw[leaves], offset[leaves])
    points = own & ((lanes.kind == RowKind.SELF_MAP) | (lanes.kind == RowKind.UNREAD))
    if here.pointer is not None and points.any():
        physical[points] = bulk.address_of(here.pointer, lanes.raw[points])
    unbacked = own & (lanes.kind == RowKind.UNBACKED)
    if unbacked.any():
        physical[unbacked] = side.floors[level].layer.table[half.table[place[unbacked]]]
    return lanes._replace(physical=physical, granted=granted)


def _half(format: Format, lanes: _Lanes, half: _Half, place: Counts) -> _Half:
    """Lanes as sides of the pairs below them; `place` is the pair that each is of."""
    points = lanes.kind == RowKind.POINTER
    raw = np.where(half.table[place] >= 0, lanes.raw, half.raw[place])
    lasting = lanes.lasting | points & makes_lasting(format, lanes.raw)
    return _Half(
        np.where(points, lanes.child, -1),
        np.where(points, np.uint8(RowKind.ABSENT), lanes.kind),
        np.where(points, np.uint64(0), raw),
        np.where(points, np.uint8(0), lanes.leaf),
        np.where(points, np.uint64(0), lanes.physical),
        lanes.granted,
        lasting,
    )


def _rights_differ(before: _Side, after: _Side, some: Words, others: Words) -> Mask:
    """Whether rights that entries of both sides grant come to different ones."""
    differ: Mask = (some | before.always) != (others | after.always)
    return differ


def _changes(format: Format, level: int, some: _Lanes, others: _Lanes, rights: Mask) -> Counts:
    """All that is different between slots none of which is a pointer, a `Change` each; and where
    `rights` are."""
    change = np.zeros(len(some.kind), np.int64)

    def note(kind: Change, where: Mask) -> None:
        change[where] |= kind

    seen = read_by_machine(format, level)
    address, used = address_mask(format, level), format.accessed | format.dirty
    note(Change.MAPPED, some.kind == RowKind.ABSENT)
    note(Change.UNMAPPED, others.kind == RowKind.ABSENT)
    there = (some.kind != RowKind.ABSENT) & (others.kind != RowKind.ABSENT)
    same = some.kind == others.kind
    note(Change.KIND, there & ~same)
    pages = (some.kind == RowKind.PAGE) & same
    loops = (some.kind == RowKind.SELF_MAP) & same
    note(Change.KIND, (some.kind == RowKind.MALFORMED) & same & (some.raw != others.raw))
    note(Change.MOVED, (pages | loops) & (some.physical != others.physical))
    note(Change.RIGHTS, (pages | loops) & rights)
    # A page is no more lasting by its own entry than by a pointer.
    ways = (with_lasting(format, side.raw, side.lasting) for side in (some, others))
    differ = np.bitwise_xor(*ways)
    others_ = seen & ~(address | used | format.rights_mask)
    own = differ & np.uint64(format.rights_mask) != 0
    note(Change.ATTRIBUTES, pages & ((differ & np.uint64(others_) != 0) | own & ~rights))
    note(Change.SIZE, pages & (some.leaf != others.leaf))
    note(Change.USED, pages & (differ & np.uint64(used) != 0))
    unseen = (1 << 8 * format.entry_bytes) - 1 & ~seen
    note(Change.SOFTWARE, pages & (differ & np.uint64(unseen) != 0))
    return change


def _ranges(side: _Side, level: int, pairs: _Pairs, half: _Lanes) -> Ranges:
    """One side of what is different."""
    ranges = of_rows(side.format, _rows(side, level, pairs, half))
    # What is malformed is so by the bits of the level where it stands.
    odd = (half.kind == RowKind.MALFORMED) & (half.leaf > level)
    for leaf in np.unique(half.leaf[odd]).tolist():
        chosen = odd & (half.leaf == leaf)
        raw = half.raw[chosen]
        ranges.bits[chosen] = offending_bits(side.format, leaf, raw)
    return ranges


def _rows(side: _Side, level: int, pairs: _Pairs, half: _Lanes) -> Rows:
    """The same as rows."""
    n = len(pairs.base)
    return replace(
        no_rows(),
        level=level,
        virtual=pairs.base,
        highest=pairs.highest,
        kind=half.kind,
        raw=half.raw,
        physical=half.physical,
        slots=np.ones(n, np.int64),
        above=half.granted,
        granted=half.granted,
        lasting=half.lasting,
        paths=pairs.paths,
        group=pairs.group,
        view=np.full(n, -1),
        window=np.zeros(n, np.bool_),
        **_below(side, half),
    )


def _below(side: _Side, half: _Lanes) -> dict[str, Counts]:
    """How many ends lie below each lane that is a self-map or a table not read, and how many pages
    below one that is a self-map, else 0: `below` and `shown` of rows."""
    below: Counts = (half.kind == RowKind.UNREAD).astype(np.int64)
    shown = np.zeros(len(below), np.int64)
    loops = half.kind == RowKind.SELF_MAP
    for leaf in np.unique(half.leaf[loops]).tolist():
        chosen, floor = loops & (half.leaf == leaf), side.floors[leaf - 1]
        order = np.argsort(floor.layer.table)
        place = np.searchsorted(floor.layer.table, half.physical[chosen], sorter=order)
        below[chosen] = floor.below[order[place]]
        shown[chosen] = floor.pages[order[place]]
    return {"below": below, "shown": shown}


def _met(pairs: _Pairs, groups: int) -> tuple[_Pairs, int]:
    """Equal pairs joined, and the number of the next group."""
    if not len(pairs.base):
        return pairs, groups
    number = _numbers([c.astype(np.uint64) for half in pairs[-2:] for c in half])
    found = met(number, pairs.paths, pairs.highest, pairs.group, groups)
    left: _Pairs = _take(pairs, found.first)
    left = left._replace(paths=found.paths, highest=found.highest, group=found.group)
    return left, found.groups


def _numbers(columns: Sequence[Words]) -> Words:
    """A number for each row, the same for rows that are equal; sorting those is many times quicker
    than sorting rows."""
    number, limit = np.zeros(len(columns[0]), np.uint64), 1
    for column in columns:
        part, count = _dense(column)
        if limit * count > 1 << 63:
            number, limit = _ranks(number)
        if limit * count > 1 << 63:
            part, count = _ranks(column)
        number, limit = number * np.uint64(count) + part, limit * count
    return number


def _dense(column: Words) -> tuple[Words, int]:
    """Each word without the bits that all have clear, and how many such there can be."""
    used = int(np.bitwise_or.reduce(column))
    packed, width = np.zeros(len(column), np.uint64), 0
    while used:
        low = (used & -used).bit_length() - 1
        run = (~(used >> low) & -~(used >> low)).bit_length() - 1
        field = (1 << run) - 1
        packed |= (column >> np.uint64(low) & np.uint64(field)) << np.uint64(width)
        width, used = width + run, used & ~(field << low)
    return packed, 1 << width


def _ranks(column: Words) -> tuple[Words, int]:
    """The rank of each word among those that there are, and how many these are."""
    distinct, rank = np.unique(column, return_inverse=True)
    return rank.astype(np.uint64), len(distinct)


def _merged(
    format: Format, other: Format, parts: list[Difference], cut: tuple[str, ...]
) -> Difference:
    """Parts as one, in order, neighbours joined that are different in the same way."""
    before = together(format, [part.before for part in parts])
    after = together(other, [part.after for part in parts])
    if not parts:
        none = np.zeros(0, np.uint8)
        return Difference(before, after, none.astype(np.int64), none, none, cut)
    order = np.argsort(np.concatenate([part.before.first for part in parts]), kind="stable")
    change, then, now = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("change", "then", "now")
    )
    follows = follow(before) & follow(after)
    for column in (change, then, now):
        follows &= column[1:] == column[:-1]
    start = np.concatenate([[True], ~follows])[: len(change)]
    return Difference(
        _reduced(before, follows, start, then),
        _reduced(after, follows, start, now),
        change[start],
        then[start],
        now[start],
        cut,
    )


def _reduced(ranges: Ranges, follows: Mask, start: Mask, leaf: Bytes) -> Ranges:
    """Each range that follows joined to the one before; parts of one slot, which was found at the
    level `leaf`, are as the slot is."""
    found = reduced(ranges, follows)
    single = (RowKind.SELF_MAP, RowKind.UNREAD, RowKind.MALFORMED)
    parts = np.isin(found.kind, single) & (leaf[start] > found.level)
    return replace(
        found,
        below=np.where(parts, ranges.below[start], found.below),
        shown=np.where(parts, ranges.shown[start], found.shown),
        pieces=np.where(parts, 1, found.pieces),
    )
