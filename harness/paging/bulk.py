"""Walks and leaves of millions of addresses at once, as arrays.

`walk` is the definition; a test holds that these give the same answers on random memory.
Addresses, entries and rights are uint64 arrays of shape (n,), one lane or row an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import groupby, pairwise, zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.paging.format import Format, Shape
from harness.paging.memory import Mask, Memory, Words
from harness.paging.table import Root, Table

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

LANES = 1 << 14
"""Lanes worked on together, so that the arrays in between stay in the cache."""


class End(IntEnum):
    """How a walk ended."""

    LEAF = 0
    ABSENT = 1
    MALFORMED = 2
    UNBACKED = 3
    NO_ROOT = 4


_POINTER = 255
"""In place of an `End`: the walk goes on."""


@dataclass(frozen=True)
class Walks:
    """Many walks, one a lane.

    end       uint8, an `End`
    level     uint8, the level at which the walk ended
    raw       the entry it ended at; 0 where it is unbacked or there is no root
    physical  the translation where the end is LEAF, else 0
    granted   the rights that the entries read give together
    """

    address: Words
    end: Bytes
    level: Bytes
    raw: Words
    physical: Words
    granted: Words


def walk(memory: Memory, roots: Iterable[Root], addresses: Words) -> Walks:
    """Translates every address from the root whose span holds it."""
    n = len(addresses)
    walks = Walks(
        addresses,
        np.full(n, End.NO_ROOT, np.uint8),
        np.zeros(n, np.uint8),
        *(np.zeros(n, np.uint64) for _ in range(3)),
    )
    for table, served in groupby(roots, key=lambda root: root.table):
        spans = [root.span for root in served]
        for start in range(0, n, LANES):
            part = addresses[start : start + LANES]
            inside = np.zeros(len(part), np.bool_)
            for span in spans:
                inside |= (part >= np.uint64(span.first)) & (part <= np.uint64(span.last))
            lanes = np.arange(start, start + len(part))
            if inside.all():
                _descend(memory, table, part, lanes, walks)
            elif inside.any():
                _descend(memory, table, part[inside], lanes[inside], walks)
    return walks


def _descend(memory: Memory, table: Table, address: Words, lanes: Counts, walks: Walks) -> None:
    """Walks `address` down from one table and writes the answers to `lanes` of `walks`."""
    format = table.format
    base: Words | np.uint64 = np.uint64(table.address)
    granted = np.full(len(address), format.rights_mask, np.uint64)
    for level in range(table.level, -1, -1):
        here = format.levels[level]
        index = (address >> np.uint64(here.shift)) & np.uint64(here.entries - 1)
        slot = base + index * np.uint64(format.entry_bytes)
        raw, backed = memory.gather(slot, format.entry_bytes)
        given = granted & (raw ^ np.uint64(format.denied))
        if backed is not None:
            given = np.where(backed, given, granted)
        kind = _kinds(format, level, raw, backed)
        stops = kind != _POINTER
        if stops.any():
            ended = lanes[stops]
            walks.end[ended] = kind[stops]
            walks.level[ended] = level
            walks.raw[ended] = raw[stops]
            walks.granted[ended] = given[stops]
            if here.leaf is not None:
                offset = address[stops] & np.uint64(here.size - 1)
                found = kind[stops] == End.LEAF
                physical = _address(here.leaf, raw[stops]) | offset
                walks.physical[ended] = np.where(found, physical, np.uint64(0))
            goes = ~stops
            address, lanes, raw, given = address[goes], lanes[goes], raw[goes], given[goes]
        if not len(lanes):
            return
        assert here.pointer is not None
        base, granted = _address(here.pointer, raw), given


def _kinds(format: Format, level: int, raw: Words, backed: Mask | None) -> Bytes:
    """The `End` of each raw entry at `level`, or _POINTER: `Format.decode` for arrays."""
    here = format.levels[level]
    if here.leaf is None:
        kind = _kinds_of(here.pointer, _POINTER, raw)
    elif here.pointer is None:
        kind = _kinds_of(here.leaf, End.LEAF, raw)
    else:
        points = (raw & np.uint64(here.points.mask)) == np.uint64(here.points.value)
        kind = _kinds_of(here.pointer, _POINTER, raw)
        if not points.all():
            kind = np.where(points, kind, _kinds_of(here.leaf, End.LEAF, raw))
    present = (raw & np.uint64(format.present.mask)) == np.uint64(format.present.value)
    if not present.all():
        kind[~present] = End.ABSENT
    if backed is not None:
        kind[~backed] = End.UNBACKED
    return kind


def _kinds_of(shape: Shape | None, wellformed: int, raw: Words) -> Bytes:
    assert shape is not None
    kind = np.full(len(raw), wellformed, np.uint8)
    if shape.reserved_mask:
        kind[(raw & np.uint64(shape.reserved_mask)) != 0] = End.MALFORMED
    return kind


def _address(shape: Shape, raw: Words) -> Words:
    """`Shape.address_of` for arrays."""
    parts = [(raw & np.uint64(mask)) << np.uint64(shift) for mask, shift in shape.address]
    address = parts[0]
    for part in parts[1:]:
        address |= part
    return address


@dataclass(frozen=True)
class Leaves:
    """What a space holds, a row a thing, in order of roots and addresses.

    virtual   the first address that the row spans
    end       uint8: LEAF, MALFORMED or UNBACKED
    level     uint8, where the row was found
    raw       the entry, 0 where it is unbacked
    physical  where the page begins if the end is LEAF, else 0
    granted   the rights that the entries from the root to here give together
    total     how many rows the space has; more than are here where a limit cut the listing
    tables    every table that was read, once a level however often it is reached
    """

    virtual: Words
    end: Bytes
    level: Bytes
    raw: Words
    physical: Words
    granted: Words
    total: int
    tables: Tables

    @property
    def complete(self) -> bool:
        """Whether every row of the space is here."""
        return self.total == len(self.virtual)

    def take(self, chosen: Mask) -> Leaves:
        """The chosen rows; the total and the tables stay those of the space."""
        return replace(
            self,
            virtual=self.virtual[chosen],
            end=self.end[chosen],
            level=self.level[chosen],
            raw=self.raw[chosen],
            physical=self.physical[chosen],
            granted=self.granted[chosen],
        )


@dataclass(frozen=True)
class Tables:
    """The tables of a space, a row a table and level.

    address  where the table is
    level    uint8
    paths    in how many ways it is reached from the roots; 1 unless it is shared
    """

    address: Words
    level: Bytes
    paths: Words


@dataclass
class _Layer:
    """All tables at one level, each decoded once, and the rows (entries not absent) in them.

    table   addresses of the tables, shape (t,)
    start   rows start[i]:start[i+1] are those of table i, shape (t+1,)
    index   slot of each row in its table
    kind    `End` or _POINTER of each row
    child   for each row that is a pointer: number of its table in the layer below
    ahead   how many ends lie in and under the rows before each row
    before  and how many before the first row of each table
    below   how many ends lie in and under each table
    """

    level: int
    table: Words
    start: Counts
    index: npt.NDArray[np.uint16]
    raw: Words
    kind: Bytes
    child: Counts
    ahead: Counts
    before: Counts
    below: Counts


def leaves(memory: Memory, roots: Iterable[Root], limit: int = 1 << 26) -> Leaves:
    """Lists all that a space holds, as `walk.leaves` does, but each table is read once.

    At most the first `limit` rows are listed; the total is exact all the same, whatever
    the number of aliases.
    """
    roots = tuple(roots)
    trees = [_layers(memory, root) for root in roots]
    totals = [int(layers[0].below.sum()) for layers in trees]
    n = min(sum(totals), limit)
    found = Leaves(
        virtual=np.empty(n, np.uint64),
        end=np.empty(n, np.uint8),
        level=np.empty(n, np.uint8),
        raw=np.empty(n, np.uint64),
        physical=np.empty(n, np.uint64),
        granted=np.empty(n, np.uint64),
        total=sum(totals),
        tables=_tables(trees),
    )
    place = 0
    for root, layers, total in zip(roots, trees, totals, strict=True):
        reached = _Reached(
            np.zeros(1, np.int64),
            np.array([root.first_address(0)], np.uint64),
            np.array([root.table.format.rights_mask], np.uint64),
            np.array([place], np.int64),
        )
        _list(root.table.format, layers, reached, found)
        place += total
    return found


def _layers(memory: Memory, root: Root) -> list[_Layer]:
    """Every table at and below a root, level by level from the top."""
    format = root.table.format
    layers: list[_Layer] = []
    tables = np.array([root.table.address], np.uint64)
    for level in range(root.table.level, -1, -1):
        here = format.levels[level]
        slots = np.arange(here.entries, dtype=np.uint64)
        if not layers:
            slots = slots[here.index(root.span.first) : here.index(root.span.last) + 1]
        layer = _layer(memory, format, level, tables, slots)
        layers.append(layer)
        points = layer.kind == _POINTER
        if not points.any():
            break
        assert here.pointer is not None
        targets = _address(here.pointer, layer.raw[points])
        tables, child = np.unique(targets, return_inverse=True)
        if len(tables) == len(targets):
            tables, child = targets, np.arange(len(targets))
        layer.child[points] = child
    for upper, lower in reversed(list(pairwise(layers))):
        _count(upper, lower)
    return layers


def _layer(memory: Memory, format: Format, level: int, tables: Words, slots: Words) -> _Layer:
    """Reads the given slots of every table and keeps what is not absent.

    Of the slots of one table that are unbacked, the first stands for all.
    """
    offsets = slots * np.uint64(format.entry_bytes)
    index = np.empty(len(tables) * len(slots), np.uint16)
    raw = np.empty(len(index), np.uint64)
    kind = np.empty(len(index), np.uint8)
    start = np.zeros(len(tables) + 1, np.int64)
    slot_numbers = slots.astype(np.uint16)
    together = max(1, LANES // len(slots))
    for first in range(0, len(tables), together):
        part = tables[first : first + together]
        words, backed = memory.gather((part[:, None] + offsets).ravel(), format.entry_bytes)
        kinds = _kinds(format, level, words, backed)
        held = (kinds != End.ABSENT).reshape(len(part), len(slots))
        if backed is not None:
            held &= _first_unbacked_only(backed.reshape(held.shape))
        counts = np.count_nonzero(held, axis=1)
        filled = start[first]
        start[first + 1 : first + 1 + len(part)] = filled + np.cumsum(counts)
        rows = slice(filled, start[first + len(part)])
        chosen = held.ravel()
        raw[rows] = words[chosen]
        kind[rows] = kinds[chosen]
        index[rows] = np.broadcast_to(slot_numbers, held.shape)[held]
    n = start[-1]
    return _Layer(
        level,
        tables,
        start,
        index[:n],
        raw[:n],
        kind[:n],
        child=np.full(n, -1),
        ahead=np.arange(n),
        before=start[:-1],
        below=np.diff(start),
    )


def _first_unbacked_only(backed: Mask) -> Mask:
    """All but the second and later unbacked slots of each table; shape (tables, slots)."""
    keep = backed.copy()
    torn = np.flatnonzero(~backed.all(axis=1))
    keep[torn, backed[torn].argmin(axis=1)] = True
    return keep


def _count(layer: _Layer, lower: _Layer) -> None:
    """Puts the ends under each pointer of a layer in place of the pointer's own row."""
    weight = np.ones(len(layer.kind), np.int64)
    points = layer.kind == _POINTER
    weight[points] = lower.below[layer.child[points]]
    total = np.concatenate([[0], np.cumsum(weight)])
    layer.ahead, layer.before = total[:-1], total[layer.start[:-1]]
    layer.below = total[layer.start[1:]] - layer.before


def _paths(layers: Sequence[_Layer]) -> list[Words]:
    """In how many ways each table of each layer is reached."""
    paths = [np.ones(1, np.uint64)]
    for upper, lower in pairwise(layers):
        per_row = np.repeat(paths[-1], np.diff(upper.start))[upper.kind == _POINTER]
        reached = np.zeros(len(lower.table), np.uint64)
        np.add.at(reached, upper.child[upper.kind == _POINTER], per_row)
        paths.append(reached)
    return paths


class _Reached(NamedTuple):
    """Tables of a layer, by number, and how each was reached.

    base     the first address that it spans
    granted  the rights on the way to it
    place    where in the listing its first end goes
    """

    table: Counts
    base: Words
    granted: Words
    place: Counts

    def take(self, chosen: slice | Mask) -> _Reached:
        return _Reached(
            self.table[chosen], self.base[chosen], self.granted[chosen], self.place[chosen]
        )


def _list(format: Format, layers: Sequence[_Layer], reached: _Reached, found: Leaves) -> None:
    """Writes the ends in and under the tables reached to their places, as far as there is room."""
    layer, room = layers[0], len(found.virtual)
    upto = np.cumsum(layer.start[reached.table + 1] - layer.start[reached.table])
    first = 0
    while first < len(upto):
        done = int(upto[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(upto, done + LANES, side="right")))
        below = _list_tables(format, layer, reached.take(slice(first, last)), found)
        first = last
        if len(layers) > 1:
            wanted = (layers[1].below[below.table] > 0) & (below.place < room)
            _list(format, layers[1:], below.take(wanted), found)


def _list_tables(format: Format, layer: _Layer, reached: _Reached, found: Leaves) -> _Reached:
    """Writes the ends in a few tables to their places, and returns where the pointers lead."""
    here = format.levels[layer.level]
    begin, end = layer.start[reached.table], layer.start[reached.table + 1]
    counts = end - begin
    n = int(counts.sum())
    rows: slice | Counts = slice(begin[0], end[-1])
    if not n or (begin[1:] != end[:-1]).any():
        rows = np.repeat(begin - (np.cumsum(counts) - counts), counts) + np.arange(n)
    raw, kind = layer.raw[rows], layer.kind[rows]
    virtual = layer.index[rows].astype(np.uint64) << np.uint64(here.shift)
    virtual += np.repeat(reached.base, counts)
    place = np.repeat(reached.place - layer.before[reached.table], counts) + layer.ahead[rows]
    gives = raw ^ np.uint64(format.denied)
    gives[kind == End.UNBACKED] = format.rights_mask
    granted = np.repeat(reached.granted, counts) & gives

    physical = np.zeros(n, np.uint64) if here.leaf is None else _address(here.leaf, raw)
    physical[kind != End.LEAF] = 0
    columns: tuple[npt.NDArray[Any], ...] = (virtual, kind, raw, physical, granted)
    into: tuple[npt.NDArray[Any], ...] = (
        found.virtual,
        found.end,
        found.raw,
        found.physical,
        found.granted,
    )
    points = kind == _POINTER
    ends = ~points & (place < len(found.virtual))
    if n and ends.all() and place[-1] - place[0] == n - 1:
        there = slice(int(place[0]), int(place[-1]) + 1)
        found.level[there] = layer.level
        for column, values in zip(into, columns, strict=True):
            column[there] = values
    else:
        found.level[place[ends]] = layer.level
        for column, values in zip(into, columns, strict=True):
            column[place[ends]] = values[ends]
    return _Reached(layer.child[rows][points], virtual[points], granted[points], place[points])


def _tables(trees: Sequence[Sequence[_Layer]]) -> Tables:
    """The tables of all roots, those that are reached from several counted once."""
    layers = [layer for tree in trees for layer in tree]
    address = np.concatenate([layer.table for layer in layers])
    level = np.concatenate([np.full(len(one.table), one.level, np.uint8) for one in layers])
    paths = np.concatenate([paths for tree in trees for paths in _paths(tree)])
    order = np.lexsort((address, level))
    address, level, paths = address[order], level[order], paths[order]
    new = np.ones(len(address), np.bool_)
    new[1:] = (address[1:] != address[:-1]) | (level[1:] != level[:-1])
    return Tables(address[new], level[new], np.add.reduceat(paths, np.flatnonzero(new)))


@dataclass(frozen=True)
class Paths:
    """The entries that many walks read, for every lane and level; arrays of shape (levels, n).

    The first index is the level; where `used` is false the walk read no entry at that level.
    """

    slot: Words
    raw: Words
    used: Mask


def paths(memory: Memory, root: Root, addresses: Words) -> Paths:
    """Every step of the walks of addresses that all begin at one root's table."""
    format = root.table.format
    shape = (len(format.levels), len(addresses))
    found = Paths(np.zeros(shape, np.uint64), np.zeros(shape, np.uint64), np.zeros(shape, np.bool_))
    table = np.full(len(addresses), root.table.address, np.uint64)
    going = np.ones(len(addresses), np.bool_)
    for level in range(root.table.level, -1, -1):
        here = format.levels[level]
        index = (addresses >> np.uint64(here.shift)) & np.uint64(here.entries - 1)
        slot = table + index * np.uint64(format.entry_bytes)
        raw, backed = memory.gather(slot, format.entry_bytes)
        going &= True if backed is None else backed
        found.slot[level], found.raw[level], found.used[level] = slot, raw, going
        if here.pointer is None:
            break
        going = going & (_kinds(format, level, raw, backed) == _POINTER)
        table = np.where(going, _address(here.pointer, raw), table)
    return found
