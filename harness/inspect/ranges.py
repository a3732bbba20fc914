"""A whole space as ranges: neighbours that say the same merged, shared tables folded.

Nothing is dropped.  Every page is in one range, or is another address of one that is; what is
no page and not absent (a malformed entry, a table without memory, a self-map) has ranges of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, reduce
from operator import or_
from typing import Any, Final, NamedTuple

import numpy as np

from harness.inspect import graph as graphs
from harness.inspect.graph import RowKind, Rows, with_lasting
from harness.paging.address import Span
from harness.paging.bits import address_mask, offending_bits, read_by_machine
from harness.paging.bulk import Bytes, Counts, granted_by
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words
from harness.paging.table import Root

RANGES: Final = 1 << 20
"""Ranges that are kept; where a space has more, the result says that it was cut."""

Chosen = Callable[[Format, Rows], Mask]
"""Which rows of a block are wanted."""


class Range(NamedTuple):
    """One range, as people and programs read it.

    first, last   its lowest addresses
    kind          what all of it is
    level         where its entries are; each of them spans `size` bytes
    pages         how many entries, of one size, follow each other
    granted       the rights that the entries from a root to here give together
    own           the rights that its own entries give
    bits          what its entries have in common: of pages all bits that the machine reads but
                  the address, accessed and dirty, and the lasting bit where pointers give it;
                  of malformed entries the reserved bits
    raw           the first entry
    physical      where the first page lies; of a self-map or a table not read the table that it
                  leads to, of a table without memory where it is
    pieces        how many runs of frames that follow each other; 1 where all do
    repeated      whether all pages are the same frame
    accessed, dirty  how many of the entries have the bit
    paths         at how many addresses the range is because tables are shared
    times, stride that many equal ranges lie `stride` bytes apart in the same table
    highest       the first address of the last of all of them
    below         of a self-map or a table not read, how many ends lie below each slot in sum
    shown         of a self-map, how many pages
    """

    first: int
    last: int
    kind: RowKind
    level: int
    size: int
    pages: int
    granted: int
    own: int
    bits: int
    raw: int
    physical: int
    pieces: int
    repeated: bool
    accessed: int
    dirty: int
    paths: int
    times: int
    stride: int
    highest: int
    below: int
    shown: int

    @property
    def aliases(self) -> int:
        """At how many addresses each of its pages is."""
        return self.paths * self.times


@dataclass(frozen=True)
class Ranges:
    """Ranges in order of their first addresses, a column a field of `Range`, shape (n,).

    lasting  whether a pointer on the way makes the pages lasting, whatever their own `bits` say
    tail     the physical address after the last page
    group    ranges with the same number have their aliases at the same distances from one another
    view     the table, as it is reached, in which all of the range is; -1 where it is in several
    """

    format: Format
    first: Words
    level: Bytes
    kind: Bytes
    pages: Counts
    granted: Words
    bits: Words
    lasting: Mask
    raw: Words
    physical: Words
    tail: Words
    pieces: Counts
    repeated: Mask
    accessed: Counts
    dirty: Counts
    paths: Words
    times: Counts
    stride: Words
    highest: Words
    below: Counts
    shown: Counts
    group: Counts
    view: Counts

    def __len__(self) -> int:
        return len(self.first)

    def take(self, chosen: Mask | Counts | slice) -> Ranges:
        """The chosen ranges, in their order."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _COLUMNS})

    @property
    def size(self) -> Words:
        """Bytes that each entry spans."""
        return _sizes(self.format).take(self.level)

    @property
    def end(self) -> Words:
        """The address after each range; 0 after the top of the address space."""
        return self.first + self.pages.astype(np.uint64) * self.size

    @property
    def own(self) -> Words:
        """The rights that the entries themselves give."""
        own = self.granted.copy()
        entries = self.kind != RowKind.UNBACKED
        every = np.uint64(self.format.rights_mask)
        for level in np.unique(self.level[entries]).tolist():
            here = entries & (self.level == level)
            own[here] = granted_by(self.format, level, every, self.raw[here])
        return own

    def __iter__(self) -> Iterator[Range]:
        columns: dict[str, Any] = {name: getattr(self, name).tolist() for name in _COLUMNS}
        columns["size"] = self.size.tolist()
        columns["last"] = (self.end - np.uint64(1)).tolist()
        columns["own"] = self.own.tolist()
        columns["bits"] = with_lasting(self.format, self.bits, self.lasting).tolist()
        columns["kind"] = map(RowKind, columns["kind"])
        return map(Range._make, zip(*(columns[name] for name in Range._fields), strict=True))


_COLUMNS = tuple(field.name for field in fields(Ranges))[1:]


@dataclass(frozen=True)
class Dump:
    """A space as ranges.

    total   how many ends the space has: pages at every address, malformed entries and the like
    tables  how many tables were read, once a level
    cut     what was left out, a sentence each; empty where nothing was
    """

    ranges: Ranges
    total: int
    tables: int
    cut: tuple[str, ...]


def dump(
    memory: Memory,
    format: Format,
    roots: Iterable[Root],
    *,
    span: Span | None = None,
    chosen: Chosen | None = None,
    exact: bool = False,
    each: int | None = None,
) -> Dump:
    """A whole space as ranges.

    span    what is in these addresses, at least with a part
    chosen  the rows that are wanted; without it all are
    exact   a range holds neighbours alone that differ in nothing but the address of their frames,
            which follow each other: every entry can be told from it
    each    folds nothing: every page at every of its addresses, self-maps as the pages that they
            show, of all that is there the first so many
    """
    graph = graphs.read(memory, format, roots)
    cut = graph.cut
    parts, count, looked_at = list[Ranges](), 0, 0
    for rows in graphs.rows(graph, span, each and each + 1):
        looked_at += len(rows.virtual)
        if each is None:
            rows = rows.take(~rows.window)
        if chosen is not None:
            rows = rows.take(chosen(format, rows))
        parts.append(merged(of_rows(format, rows, exact), exact))
        count += len(parts[-1])
        if count > RANGES:
            cut = (*cut, f"There are more than {RANGES:,} ranges: the others are left out.")
            break
    ranges = merged(together(format, parts), exact)
    if each is None:
        ranges = folded(ranges)
    else:
        ranges = _first(ranges, each)
        if looked_at > each:
            cut = (*cut, f"Only the first {each:,} rows were looked at, of {graph.total:,}.")
    return Dump(ranges, graph.total, graph.tables, cut)


def _first(ranges: Ranges, limit: int) -> Ranges:
    """The first ranges that have `limit` pages together."""
    before = np.cumsum(ranges.pages) - ranges.pages
    kept = ranges.take(before < limit)
    return replace(kept, pages=np.minimum(kept.pages, limit - before[: len(kept)]))


def of_rows(format: Format, rows: Rows, exact: bool = False) -> Ranges:
    """Each row as a range."""
    n, level = len(rows.virtual), rows.level
    pages = rows.kind == RowKind.PAGE
    size = np.uint64(format.levels[level].size)
    one, none = np.ones(n, np.int64), np.zeros(n, np.int64)

    def has(bit: int) -> Counts:
        there: Mask = pages & (rows.raw & np.uint64(bit) != 0)
        return there.astype(np.int64)

    return Ranges(
        format=format,
        first=rows.virtual,
        level=np.full(n, level, np.uint8),
        kind=rows.kind,
        pages=rows.slots,
        granted=rows.granted,
        bits=_in_common(format, rows, exact),
        lasting=pages & rows.lasting,
        raw=rows.raw,
        physical=rows.physical,
        tail=np.where(pages, rows.physical + size, rows.physical),
        pieces=one,
        repeated=np.ones(n, np.bool_),
        accessed=has(format.accessed),
        dirty=has(format.dirty),
        paths=rows.paths,
        times=one,
        stride=np.zeros(n, np.uint64),
        highest=rows.highest,
        below=np.where(pages, none, rows.below),
        shown=rows.shown,
        group=rows.group,
        view=rows.view,
    )


def _in_common(format: Format, rows: Rows, exact: bool) -> Words:
    """What neighbours must have in common besides rights, to be one range."""
    mask = _compared(format, rows.level, exact)
    # Where a pointer makes all lasting it is only to `exact` that their own bit tells them apart.
    raw = rows.raw if exact else with_lasting(format, rows.raw, rows.lasting)
    common = raw & np.uint64(mask)
    odd = rows.kind != RowKind.PAGE
    raw = rows.raw[odd]
    wrong = offending_bits(format, rows.level, raw)
    common[odd] = np.where(rows.kind[odd] == RowKind.MALFORMED, raw if exact else wrong, raw)
    return common


@lru_cache
def _compared(format: Format, level: int, exact: bool) -> int:
    if exact:
        return ~address_mask(format, level) & (1 << 8 * format.entry_bytes) - 1
    seen = read_by_machine(format, level) & ~(format.accessed | format.dirty)
    return seen & ~address_mask(format, level)


def together(format: Format, parts: Sequence[Ranges]) -> Ranges:
    """The ranges of several, in order of their first addresses."""
    if not parts:
        return of_rows(format, graphs.no_rows())
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in _COLUMNS
    }
    every = Ranges(format, **columns)
    return every.take(np.argsort(every.first, kind="stable"))


def merged(ranges: Ranges, exact: bool = False) -> Ranges:
    """Ranges in order, those joined that follow each other and say the same.

    Such that have aliases must have them at the same distances.
    """
    return reduced(ranges, follow(ranges, exact))


def follow(ranges: Ranges, exact: bool = False) -> Mask:
    """Which ranges, from the second on, can be joined to the one before; shape (n - 1,)."""
    follows: Mask = ranges.end[:-1] == ranges.first[1:]
    for name in ("level", "kind", "granted", "bits", "lasting", "group"):
        column = getattr(ranges, name)
        follows &= column[1:] == column[:-1]
    if exact:
        follows &= _onward(ranges)
    return follows


def _onward(ranges: Ranges) -> Mask:
    """Which ranges, from the second on, go on where the frames of the one before end."""
    found: Mask = (ranges.tail[:-1] == ranges.physical[1:]) & (ranges.kind[1:] == RowKind.PAGE)
    return found


def reduced(ranges: Ranges, follows: Mask) -> Ranges:
    """Each range that follows joined to the one before."""
    if not follows.any():
        return ranges
    start = np.flatnonzero(np.concatenate([[True], ~follows]))
    stop = np.append(start[1:], len(ranges))
    same = ranges.repeated & (ranges.physical == np.repeat(ranges.physical[start], stop - start))
    pieces = ranges.pieces.copy()
    # Slots of one table without memory are one piece as frames in a row are.
    table = (ranges.kind == RowKind.UNBACKED)[1:] & (ranges.physical[1:] == ranges.physical[:-1])
    pieces[1:] -= (_onward(ranges) | table) & follows
    view = np.where(
        np.minimum.reduceat(ranges.view, start) == np.maximum.reduceat(ranges.view, start),
        ranges.view[start],
        -1,
    )
    summed: dict[str, Any] = {
        name: np.add.reduceat(column, start)
        for name, column in (
            ("pages", ranges.pages),
            ("pieces", pieces),
            ("accessed", ranges.accessed),
            ("dirty", ranges.dirty),
            ("below", ranges.below),
            ("shown", ranges.shown),
        )
    }
    return replace(
        ranges.take(start),
        tail=ranges.tail[stop - 1],
        repeated=np.logical_and.reduceat(same, start),
        view=view,
        **summed,
    )


def folded(ranges: Ranges) -> Ranges:
    """Ranges in order, those in one table that are equal and evenly apart shown as one."""
    plain = (ranges.view >= 0) & ((ranges.pieces == 1) | ranges.repeated)
    plain &= ranges.kind == RowKind.PAGE
    candidates = np.flatnonzero(plain)
    keys = [
        getattr(ranges, name)[candidates]
        for name in ("pages", "repeated", "bits", "lasting", "granted", "physical", "view")
    ]
    order = np.lexsort(keys)
    candidates = candidates[order]
    new = np.ones(len(candidates), np.bool_)
    new[1:] = reduce(or_, (key[order][1:] != key[order][:-1] for key in keys), False)
    start = np.flatnonzero(new)
    times = np.diff(np.append(start, len(candidates)))
    if len(start) == len(candidates):
        return ranges
    first = ranges.first[candidates]
    gap = np.zeros(len(candidates), np.uint64)
    gap[:-1] = first[1:] - first[:-1]
    stride = np.repeat(gap[start], times)
    last = np.append(start[1:], len(candidates)) - 1
    uneven = gap != stride
    uneven[last] = False
    even = ~np.logical_or.reduceat(uneven, start) & (times > 1)
    kept, repeats = candidates[start[even]], times[even]
    gone = np.zeros(len(ranges), np.bool_)
    gone[candidates[np.repeat(even, times)]] = True
    gone[kept] = False
    columns: dict[str, Any] = {
        name: getattr(ranges, name).copy()
        for name in ("times", "stride", "highest", "accessed", "dirty")
    }
    columns["times"][kept] = repeats
    columns["stride"][kept] = gap[start[even]]
    columns["highest"][kept] = ranges.highest[candidates[last[even]]]
    for name in ("accessed", "dirty"):
        columns[name][kept] = np.add.reduceat(columns[name][candidates], start)[even]
    return replace(ranges, **columns).take(~gone)


@lru_cache
def _sizes(format: Format) -> Words:
    return np.array([level.size for level in format.levels], np.uint64)
