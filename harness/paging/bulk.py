"""Walks and leaves of millions of addresses at once, as arrays.

`walk` is the definition; a test holds that these give the same answers on random memory.
Addresses, entries and rights are uint64 arrays of shape (n,), one lane or row an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache, reduce
from itertools import groupby
from operator import or_
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.paging.errors import TooManyTables
from harness.paging.format import Format, Grant, Level, Pattern, Shape
from harness.paging.memory import Mask, Memory, Words, distinct, within
from harness.paging.table import Root, Table

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Parts = tuple[Words, Words]
"""The first and the last slot that are there of each of some tables."""

LANES = 1 << 15
"""Lanes worked on together, so that the arrays in between stay in the cache."""


class End(IntEnum):
    """How a walk ended."""

    LEAF = 0
    ABSENT = 1
    MALFORMED = 2
    UNBACKED = 3
    NO_ROOT = 4
    OUTSIDE = 5


POINTER = 255
"""In place of an `End`: the walk goes on."""


@dataclass(frozen=True)
class Walks:
    """Many walks, one a lane.

    end       uint8, an `End`
    level     uint8, the level at which the walk ended
    raw       the entry it ended at; 0 where it is unbacked, outside its table or there is no root
    physical  the translation where the end is LEAF, else 0
    granted   the rights that the entries read give together
    above     the rights that those above the level where the walk ended give together
    """

    address: Words
    end: Bytes
    level: Bytes
    raw: Words
    physical: Words
    granted: Words
    above: Words


def walk(memory: Memory, roots: Iterable[Root], addresses: Words) -> Walks:
    """Translates every address from the root whose span holds it."""
    n, walks = len(addresses), _begun(addresses)
    for table, served in groupby(roots, key=lambda root: root.table):
        spans = [root.span for root in served]
        for start in range(0, n, LANES):
            part = addresses[start : start + LANES]
            inside = within(part, *spans)
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
        given = granted_by(format, level, granted, raw)
        if backed is not None:
            given = np.where(backed, given, granted)
        kind = kinds(format, level, raw, backed)
        stops = kind != POINTER
        if stops.any():
            ended = lanes[stops]
            walks.end[ended] = kind[stops]
            walks.level[ended] = level
            walks.raw[ended] = raw[stops]
            walks.granted[ended] = given[stops]
            walks.above[ended] = granted[stops]
            if here.pages:
                found = kind[stops] == End.LEAF
                physical = physical_of(here, raw[stops], address[stops])
                walks.physical[ended] = np.where(found, physical, np.uint64(0))
            goes = ~stops
            address, lanes, raw, given = address[goes], lanes[goes], raw[goes], given[goes]
        if not len(lanes):
            return
        assert here.pointer is not None
        if here.pointer.bounds is not None:
            inside = _is_there(format, level, raw, address)
            ended = lanes[~inside]
            walks.end[ended], walks.level[ended] = End.OUTSIDE, level - 1
            walks.granted[ended] = walks.above[ended] = given[~inside]
            address, lanes, raw, given = address[inside], lanes[inside], raw[inside], given[inside]
            if not len(lanes):
                return
        base, granted = address_of(here.pointer, raw), given


def _is_there(format: Format, level: int, raw: Words, address: Words) -> Mask:
    """Whether the table that each pointer at `level` leads to has the slot of its address."""
    below = format.levels[level - 1]
    index = (address >> np.uint64(below.shift)) & np.uint64(below.entries - 1)
    first, last = bounds_of(format, level, raw)
    found: Mask = (index >= first) & (index <= last)
    return found


def bounds_of(format: Format, level: int, raw: Words) -> Parts:
    """The first and the last slot that are there of the tables that pointers lead to:
    `Format.slots_below` for arrays."""
    here, entries = format.levels[level], format.levels[level - 1].entries
    assert here.pointer is not None
    if (bounds := here.pointer.bounds) is None:
        return np.zeros_like(raw), np.full(len(raw), entries - 1, np.uint64)
    first, last = (
        (raw & np.uint64(mask)) >> np.uint64((mask & -mask).bit_length() - 1) for mask in bounds
    )
    part = np.uint64(entries >> bounds.last.bit_count())
    return first * part, (last + np.uint64(1)) * part - np.uint64(1)


def _begun(addresses: Words) -> Walks:
    """Walks that have found no root."""
    n = len(addresses)
    return Walks(
        addresses,
        np.full(n, End.NO_ROOT, np.uint8),
        np.zeros(n, np.uint8),
        *(np.zeros(n, np.uint64) for _ in range(4)),
    )


def walk_words(roots: Iterable[Root], words: Words, addresses: Words) -> Walks:
    """The walks of many addresses, the entries given instead of read.

    words  shape (levels, n): the entry that each walk finds at each level, should it come there

    All roots are tables of the same level.  The tables' addresses play no part.
    """
    roots, walks = tuple(roots), _begun(addresses)
    if not roots:
        return walks
    table = roots[0].table
    format = table.format
    going = within(addresses, *(root.span for root in roots))
    granted: Words | np.uint64 = np.uint64(format.rights_mask)
    for level in range(table.level, -1, -1):
        here, raw = format.levels[level], words[level]
        given = granted_by(format, level, granted, raw)
        kind = kinds(format, level, raw)
        ended = going & (kind != POINTER)
        np.copyto(walks.end, kind, where=ended)
        walks.level[ended] = level
        np.copyto(walks.raw, raw, where=ended)
        np.copyto(walks.granted, given, where=ended)
        np.copyto(walks.above, granted, where=ended)
        if here.pages:
            physical = physical_of(here, raw, addresses)
            np.copyto(walks.physical, physical, where=ended & (kind == End.LEAF))
        going &= ~ended
        granted = given
        if here.pointer is not None and here.pointer.bounds is not None:
            ended = going & ~_is_there(format, level, raw, addresses)
            walks.end[ended], walks.level[ended] = End.OUTSIDE, level - 1
            for rights in (walks.granted, walks.above):
                np.copyto(rights, given, where=ended)
            going &= ~ended
    return walks


def granted_by(format: Format, level: int, above: Words | np.uint64, raw: Words) -> Words:
    """The rights that are left of those given above by entries at a level."""
    return np.bitwise_and(_given(format, level, raw), above)


def _given(format: Format, level: int, raw: Words) -> Words:
    """`Format.granted` for arrays, of which only the bits of rights count."""
    here = format.levels[level]
    *first, last = here.shapes
    given = _given_in(format, last, raw)
    if not here.grants_alike:
        for shape in reversed(first):
            given = np.where(matches(shape.when, raw), _given_in(format, shape, raw), given)
    return given


def _given_in(format: Format, shape: Shape, raw: Words) -> Words:
    """The same where all entries are read in one shape."""
    if shape.grants is None:
        return raw ^ np.uint64(format.denied)
    taken, moves, wide = _moves(format, shape)
    given = np.full(len(raw), format.rights_mask & ~taken, np.uint64)
    for one, bit in wide:
        there = (raw ^ np.uint64(one.inverted)) & np.uint64(one.mask) != 0
        given |= there * np.uint64(bit)
    for (mask, inverted), left in moves:
        moved = (raw ^ np.uint64(inverted)) & np.uint64(mask)
        given |= moved << np.uint64(left) if left >= 0 else moved >> np.uint64(-left)
    return given


@lru_cache
def _moves(
    format: Format, shape: Shape
) -> tuple[int, list[tuple[Grant, int]], list[tuple[Grant, int]]]:
    """How the rights of a shape come to their bits of `Format.rights`: these bits; those of single
    bits that move left together, and how far; the others, each with its bit."""
    assert shape.grants is not None
    together: dict[int, Grant] = {}
    wide = []
    for name, one in shape.grants.items():
        bit = format.rights[name]
        if one.mask.bit_count() > 1:
            wide.append((one, bit))
            continue
        left = bit.bit_length() - one.mask.bit_length()
        mask, inverted = together.get(left, Grant(0))
        together[left] = Grant(mask | one.mask, inverted | one.inverted)
    taken = reduce(or_, (format.rights[name] for name in shape.grants), 0)
    return taken, [(one, left) for left, one in together.items()], wide


def kinds(format: Format, level: int, raw: Words, backed: Mask | None = None) -> Bytes:
    """The `End` of each raw entry at `level`, or POINTER: `Format.decode` for arrays."""
    here = format.levels[level]
    first = here.shapes[0]
    kind = np.full(len(raw), _kind(first), np.uint8)
    clean = _is_clean(first, raw)
    if not clean.all():
        kind[~clean] = End.MALFORMED
        for shape, earlier in zip(here.shapes[1:], here.earlier[1:], strict=True):
            chosen = _is_clean(shape, raw)
            for pattern in earlier:
                chosen &= ~matches(pattern, raw)
            kind[chosen] = _kind(shape)
        for pattern in here.absent:
            kind[matches(pattern, raw)] = End.ABSENT
    for pattern in here.aside:
        kind[matches(pattern, raw)] = End.ABSENT
    if backed is not None:
        kind[~backed] = End.UNBACKED
    return kind


def is_reserved(here: Level, raw: Words) -> Mask:
    """Which entries are as `Level.reserved` says."""
    found = np.zeros(len(raw), np.bool_)
    for pattern, _ in here.reserved:
        found |= matches(pattern, raw)
    return found


def _kind(shape: Shape) -> int:
    return POINTER if shape.points else int(End.LEAF)


def _is_clean(shape: Shape, raw: Words) -> Mask:
    """Which entries match a shape and are not malformed in it."""
    clean = matches(shape.clean, raw)
    for pattern, _ in shape.forbidden:
        clean &= ~matches(pattern, raw)
    return clean


def matches(pattern: Pattern, raw: Words) -> Mask:
    """`Pattern.matches` for arrays."""
    found: Mask = (raw & np.uint64(pattern.mask)) == np.uint64(pattern.value)
    return found


def physical_of(here: Level, raw: Words, addresses: Words) -> Words:
    """What addresses translate to by leaves at a level."""
    *first, last = here.pages
    physical = _physical_in(here, last, raw, addresses)
    for shape in reversed(first):
        found = _physical_in(here, shape, raw, addresses)
        physical = np.where(matches(shape.when, raw), found, physical)
    return physical


def frames_of(here: Level, raw: Words, addresses: Words) -> Words:
    """Where the memory begins that slots map which hold leaves at a level; of a leaf larger than
    its slot, the slot's part.

    addresses  the first that each slot spans
    """
    if len(here.pages) == 1:
        assert here.leaf is not None
        return address_of(here.leaf, raw)
    return physical_of(here, raw, addresses)


def _physical_in(here: Level, shape: Shape, raw: Words, addresses: Words) -> Words:
    """The same where all leaves are of one shape."""
    return address_of(shape, raw) | addresses & np.uint64(here.page_size(shape) - 1)


def address_of(shape: Shape, raw: Words) -> Words:
    """`Shape.address_of` for arrays."""
    if not shape.address:  # a page so large that only the one at 0 is not beyond the output size
        return np.zeros_like(raw)
    parts = ((raw & np.uint64(mask)) << np.uint64(shift) for mask, shift in shape.address)
    return reduce(or_, parts)


@dataclass(frozen=True)
class Leaves:
    """What a space holds, a row a thing, in order of roots and addresses.

    virtual   the first address that the row spans
    end       uint8: LEAF, MALFORMED or UNBACKED
    level     uint8, where the row was found
    raw       the entry, 0 where it is unbacked
    physical  what the first address translates to if the end is LEAF, else 0
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

    def take(self, chosen: Mask | Counts) -> Leaves:
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


@dataclass(frozen=True)
class Layer:
    """All tables at one level, each read once, and the rows (entries not absent) in them.

    table  addresses of the tables, shape (t,)
    start  rows start[i]:start[i+1] are those of table i, shape (t+1,)
    index  slot of each row in its table
    raw    the entry of each row
    kind   `End` or POINTER of each row
    """

    level: int
    table: Words
    start: Counts
    index: npt.NDArray[np.uint16]
    raw: Words
    kind: Bytes

    def lines(self, tables: Counts) -> tuple[slice | Counts, Counts]:
        """Which rows are those of some tables, table after table, and how many each has."""
        begin = self.start[tables]
        counts = self.start[tables + 1] - begin
        return _runs(begin, counts), counts

    def parts(self, tables: Counts) -> Iterator[slice]:
        """Cuts some tables, in order, into parts that hold LANES rows together, and one table at
        least."""
        upto = np.cumsum(self.start[tables + 1] - self.start[tables])
        first = done = 0
        while first < len(upto):
            last = max(first + 1, int(np.searchsorted(upto, done + LANES, side="right")))
            yield slice(first, last)
            first, done = last, int(upto[last - 1])


@dataclass(frozen=True)
class _Tree:
    """A layer and all that lies under it.

    below  how many ends lie in and under each table of the layer
    links  where the rows lead; None where no row is a pointer, so that each is one end
    """

    layer: Layer
    below: Counts
    links: _Links | None


class _Links(NamedTuple):
    """From the rows of a layer to the tables of the next.

    under  the tree of the layer one level down
    child  number of its table there for each row that is a pointer, 0 for any other
    ahead  how many ends lie in and under the rows before each row
    """

    under: _Tree
    child: Counts
    ahead: Counts


def leaves(memory: Memory, roots: Iterable[Root], limit: int = 1 << 26) -> Leaves:
    """Lists all that a space holds, as `walk.leaves` does, but each table is read once.

    At most the first `limit` rows are listed; the total is exact all the same, whatever
    the number of aliases.
    """
    roots = tuple(roots)
    trees = [_tree(memory, one.table.format, root_layer(memory, one)) for one in roots]
    totals = [int(tree.below[0]) for tree in trees]
    found = _Rows.empty(min(sum(totals), limit))
    place = 0
    for root, tree, total in zip(roots, trees, totals, strict=True):
        _list(root.table.format, tree, _Reached.root(root, place), found)
        place += total
    return Leaves(*found, total=sum(totals), tables=_tables(trees))


class Pieces(NamedTuple):
    """Tables at one level, in order of address; one of which pointers show several parts stands
    there once for each.

    address      of the table
    first, last  the slots of it that are there
    """

    format: Format
    level: int
    address: Words
    first: Words
    last: Words

    @property
    def tables(self) -> Words:
        """The addresses of the tables, each once."""
        return distinct(self.address)

    @property
    def memory(self) -> tuple[Words, Words]:
        """Where each piece begins in memory, and the last of its bytes."""
        each = np.uint64(self.format.entry_bytes)
        end = self.address + (self.last + np.uint64(1)) * each - np.uint64(1)
        return self.address + self.first * each, end


def layers(memory: Memory, roots: Iterable[Root], most: int) -> Iterator[Pieces]:
    """All tables of a space, level by level from the roots down: what is there of each, once.

    The tables of one level are read when the next level is asked for, and those of level 0 never.
    It takes memory for `most` tables, whatever they hold.

    Raises TooManyTables where there are more of them, or POINTERS times as many pointers.
    """
    roots = tuple(roots)
    below, found, pointers = np.empty(0, np.uint64), 0, 0
    for level in range(max((root.table.level for root in roots), default=-1), -1, -1):
        format = roots[0].table.format
        tables = _pieces(format, level, below, [one for one in roots if one.table.level == level])
        found += len(tables.address)
        if found > most:
            raise TooManyTables(f"there are more than {most:,} tables")
        yield tables
        if level:
            targets = [np.empty(0, np.uint64)]
            for part in _leading(memory, tables):
                targets.append(distinct(part))
                pointers += len(part)
                if pointers > most * POINTERS:
                    raise TooManyTables(f"there are more than {most * POINTERS:,} pointers")
                if sum(map(len, targets)) > 2 * most:
                    targets = [distinct(np.concatenate(targets))]
                    if len(targets[0]) > most:
                        raise TooManyTables(f"there are more than {most:,} tables")
            below = distinct(np.concatenate(targets))


POINTERS = 64
"""How many times as many pointers as tables a space may have where their number is bounded: Linux
leads 65,536 of them to one table."""


def _pieces(format: Format, level: int, pointers: Words, roots: Iterable[Root]) -> Pieces:
    """What pointers lead to, by those of their bits that say where, and what roots begin at: of a
    root's table, the slots from the first to the last that serve one of its spans."""
    rooted: dict[int, range] = {}
    for root in roots:
        own, more = root.indices, rooted.get(root.table.address, root.indices)
        rooted[root.table.address] = range(min(own.start, more.start), max(own.stop, more.stop))
    address, first, last = (
        np.array(column, np.uint64)
        for column in (
            list(rooted),
            [slots.start for slots in rooted.values()],
            [slots.stop - 1 for slots in rooted.values()],
        )
    )
    if len(pointers):
        pointer = format.levels[level + 1].pointer
        assert pointer is not None
        parts = bounds_of(format, level + 1, pointers)
        address = np.concatenate([address, address_of(pointer, pointers)])
        first, last = (
            np.concatenate([mine, theirs])
            for mine, theirs in zip((first, last), parts, strict=True)
        )
    order = np.lexsort((last, first, address))
    address, first, last = address[order], first[order], last[order]
    new = first <= last
    new[1:] &= (address[1:] != address[:-1]) | (first[1:] != first[:-1]) | (last[1:] != last[:-1])
    return Pieces(format, level, address[new], first[new], last[new])


def _leading(memory: Memory, tables: Pieces) -> Iterator[Words]:
    """The pointers in some tables, some tables at a time, as far as they say where they lead."""
    format = tables.format
    here = format.levels[tables.level]
    assert here.pointer is not None
    telling = np.uint64(_telling(here.pointer))
    slots = np.arange(here.entries, dtype=np.uint64)
    together = max(1, LANES // here.entries)
    for start in range(0, len(tables.address), together):
        part = slice(start, start + together)
        there = _there(slots, (tables.first[part], tables.last[part]))
        words, backed = gather_slots(memory, format, tables.address[part], slots, there)
        points = kinds(format, tables.level, words, backed) == POINTER
        yield words[points if there is None else points & there.ravel()] & telling


def _telling(pointer: Shape) -> int:
    """The bits of pointers that say where they lead, and to how much of the table."""
    bounds = pointer.bounds
    return pointer.address_mask | (bounds.first | bounds.last if bounds else 0)


def _there(slots: Words, parts: Parts | None) -> Mask | None:
    """Which slots of each of some tables are there, shape (tables, slots); None where all are."""
    if parts is None:
        return None
    first, last = (one[:, None] for one in parts)
    there: Mask = (slots >= first) & (slots <= last)
    return None if there.all() else there


def gather_slots(
    memory: Memory, format: Format, tables: Words, slots: Words, there: Mask | None
) -> tuple[Words, Mask | None]:
    """The words in some slots of each table, shape (tables * slots,), and which have memory; what
    is not there is not read, and passes for a 0 that has."""
    places = tables[:, None] + slots * np.uint64(format.entry_bytes)
    if there is None:
        return memory.gather(places.ravel(), format.entry_bytes)
    words, backed = np.zeros(places.size, np.uint64), None
    read = there.ravel()
    words[read], has = memory.gather(places[there], format.entry_bytes)
    if has is not None:
        backed = np.ones(places.size, np.bool_)
        backed[read] = has
    return words, backed


def root_layer(memory: Memory, root: Root, reserved: bool = False) -> Layer:
    """The slots of a root's table that serve its span; `reserved` is that of `read_layer`."""
    format, level = root.table.format, root.table.level
    slots = np.arange(root.indices.start, root.indices.stop, dtype=np.uint64)
    table = np.array([root.table.address], np.uint64)
    return read_layer(memory, format, level, table, slots, reserved=reserved)


def _tree(memory: Memory, format: Format, layer: Layer) -> _Tree:
    """Every table under those of a layer."""
    points = layer.kind == POINTER
    if not points.any():
        return _Tree(layer, np.diff(layer.start), None)
    raw, below = layer.raw[points], layer.level - 1
    targets, parts, numbers = targets_of(format, layer.level, raw)
    all_slots = np.arange(format.levels[below].entries, dtype=np.uint64)
    under = _tree(memory, format, read_layer(memory, format, below, targets, all_slots, parts))
    child = np.zeros(len(points), np.int64)
    child[points] = numbers
    ends = np.where(points, under.below[child], 1)
    ahead = np.concatenate([[0], np.cumsum(ends)])
    return _Tree(layer, np.diff(ahead[layer.start]), _Links(under, child, ahead))


def targets_of(format: Format, level: int, raw: Words) -> tuple[Words, Parts | None, Counts]:
    """The tables that pointers at a level lead to, each once, in the order in which they are led to
    first; which slots of each are there, where it is not all; and the number of each pointer's
    table.  A table of which two pointers show two parts counts as two."""
    pointer = format.levels[level].pointer
    assert pointer is not None
    # Where none repeats the rows to list lie side by side.
    leads, numbers = _distinct(raw & np.uint64(_telling(pointer)))
    parts = None if pointer.bounds is None else bounds_of(format, level, leads)
    return address_of(pointer, leads), parts, numbers


def _distinct(words: Words) -> tuple[Words, Counts]:
    """The words without repetition in the order of their first appearance, and the number of each
    one among them."""
    found, first, numbers = np.unique(words, return_index=True, return_inverse=True)
    if len(found) == len(words):
        return words, np.arange(len(words))
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return found[order], place[numbers]


def read_layer(
    memory: Memory,
    format: Format,
    level: int,
    tables: Words,
    slots: Words,
    parts: Parts | None = None,
    *,
    reserved: bool = False,
) -> Layer:
    """Reads the given slots of every table and keeps what is not absent.

    Of the slots of one table that are unbacked, the first stands for all.

    parts     the first and the last slot of each table that are there, where it is not all
    reserved  whether absent entries that `Level.reserved` names are kept too, as MALFORMED
    """
    together = max(1, LANES // len(slots))
    numbers = np.tile(slots.astype(np.uint16), min(together, len(tables)))
    # Only what is written of these takes memory.
    index = np.empty(len(tables) * len(slots), np.uint16)
    raw = np.empty(len(index), np.uint64)
    kind = np.empty(len(index), np.uint8)
    start = np.zeros(len(tables) + 1, np.int64)
    for first in range(0, len(tables), together):
        part = tables[first : first + together]
        shown = parts and (parts[0][first : first + together], parts[1][first : first + together])
        there = _there(slots, shown)
        words, backed = gather_slots(memory, format, part, slots, there)
        found = kinds(format, level, words, backed)
        if reserved and format.levels[level].reserved:
            found[is_reserved(format.levels[level], words) & (found == End.ABSENT)] = End.MALFORMED
        held = (found != End.ABSENT).reshape(len(part), len(slots))
        if there is not None:
            held &= there
        if backed is not None:
            held &= _first_unbacked_only(backed.reshape(held.shape))
        last = first + len(part)
        start[first + 1 : last + 1] = start[first] + np.cumsum(np.count_nonzero(held, axis=1))
        rows = slice(start[first], start[last])
        # Full tables need no sifting, and it would take as long as reading them.
        chosen = slice(held.size) if held.all() else held.ravel()
        raw[rows], kind[rows] = words[chosen], found[chosen]
        index[rows] = numbers[: held.size][chosen]
    n = start[-1]
    return Layer(level, tables, start, index[:n], raw[:n], kind[:n])


def _first_unbacked_only(backed: Mask) -> Mask:
    """All but the second and later unbacked slots of each table; shape (tables, slots)."""
    keep = backed.copy()
    torn = np.flatnonzero(~backed.all(axis=1))
    keep[torn, backed[torn].argmin(axis=1)] = True
    return keep


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

    @classmethod
    def root(cls, root: Root, place: int) -> _Reached:
        return cls(
            np.zeros(1, np.int64),
            np.array([root.first_address(0)], np.uint64),
            np.array([root.table.format.rights_mask], np.uint64),
            np.array([place], np.int64),
        )

    def take(self, chosen: slice | Mask) -> _Reached:
        return _Reached(
            self.table[chosen], self.base[chosen], self.granted[chosen], self.place[chosen]
        )


class _Rows(NamedTuple):
    """Columns of `Leaves`."""

    virtual: Words
    end: Bytes
    level: Bytes
    raw: Words
    physical: Words
    granted: Words

    @classmethod
    def empty(cls, n: int) -> _Rows:
        """Room for `n` rows, in two blocks: much of the cost of a listing is the first touch of
        its memory, and large blocks come in large pages."""
        virtual, raw, physical, granted = np.empty((4, n), np.uint64)
        end, level = np.empty((2, n), np.uint8)
        return cls(virtual, end, level, raw, physical, granted)

    def take(self, chosen: slice | Mask) -> _Rows:
        """The chosen rows; those of a slice share their memory with these."""
        return _Rows(
            self.virtual[chosen],
            self.end[chosen],
            self.level[chosen],
            self.raw[chosen],
            self.physical[chosen],
            self.granted[chosen],
        )

    def put(self, place: Counts, rows: _Rows) -> None:
        """Writes rows to their places, as far as there is room."""
        fits = place < len(self.virtual)
        place, rows = place[fits], rows.take(fits)
        self.virtual[place] = rows.virtual
        self.end[place] = rows.end
        self.level[place] = rows.level
        self.raw[place] = rows.raw
        self.physical[place] = rows.physical
        self.granted[place] = rows.granted


def _list(format: Format, tree: _Tree, reached: _Reached, found: _Rows) -> None:
    """Writes the ends in and under the tables reached to their places, as far as there is room."""
    for part in map(reached.take, tree.layer.parts(reached.table)):
        if tree.links is None:
            _list_ends(format, tree.layer, part, found)
        else:
            below = _list_tables(format, tree.layer, tree.links, part, found)
            _list(format, tree.links.under, below, found)


def _list_ends(format: Format, layer: Layer, reached: _Reached, found: _Rows) -> None:
    """Lists tables without pointers: the rows of each stand together in the listing too."""
    lines, counts = layer.lines(reached.table)
    place = _runs(reached.place, counts)
    if isinstance(place, slice) and place.stop <= len(found.virtual):
        _fill(found.take(place), format, layer, reached, lines, counts)
        return
    if isinstance(place, slice):
        place = np.arange(place.start, place.stop)
    rows = _Rows.empty(len(place))
    _fill(rows, format, layer, reached, lines, counts)
    found.put(place, rows)


def _list_tables(
    format: Format, layer: Layer, links: _Links, reached: _Reached, found: _Rows
) -> _Reached:
    """Lists the ends in some tables, and returns where their pointers lead."""
    lines, counts = layer.lines(reached.table)
    rows = _Rows.empty(int(counts.sum()))
    _fill(rows, format, layer, reached, lines, counts)
    first = reached.place - links.ahead[layer.start[reached.table]]
    place = np.repeat(first, counts) + links.ahead[lines]
    points = rows.end == POINTER
    found.put(place[~points], rows.take(~points))
    below = _Reached(links.child[lines], rows.virtual, rows.granted, place)
    holds = links.under.below[below.table] > 0
    return below.take(points & holds & (place < len(found.virtual)))


def _fill(
    rows: _Rows,
    format: Format,
    layer: Layer,
    reached: _Reached,
    lines: slice | Counts,
    counts: Counts,
) -> None:
    """Writes the lines of a layer, as they are on the ways by which its tables were reached."""
    here = format.levels[layer.level]
    virtual, granted = rows.virtual, rows.granted
    rows.raw[:] = raw = layer.raw[lines]
    rows.end[:] = end = layer.kind[lines]
    rows.level[:] = layer.level
    virtual[:] = layer.index[lines]
    virtual <<= np.uint64(here.shift)
    virtual |= np.repeat(reached.base, counts)
    above = np.repeat(reached.granted, counts)
    np.bitwise_and(_given(format, layer.level, raw), above, out=granted)
    if here.leaf is None:
        rows.physical[:] = 0
    else:
        rows.physical[:] = frames_of(here, raw, virtual)
    if (end != End.LEAF).any():
        rows.physical[end != End.LEAF] = 0
        np.copyto(granted, above, where=end == End.UNBACKED)


def _runs(first: Counts, counts: Counts) -> slice | Counts:
    """The numbers first[0], first[0] + 1, ..., counts[0] of them, then those from first[1] on,
    and so on; as a slice where each run begins where the one before it ends."""
    if (first[1:] == first[:-1] + counts[:-1]).all():
        return slice(int(first[0]), int(first[-1] + counts[-1]))
    before = np.cumsum(counts) - counts
    return np.repeat(first - before, counts) + np.arange(counts.sum())


def _tables(trees: Iterable[_Tree]) -> Tables:
    """The tables of all roots, those that are reached from several counted once."""
    layers = [(one.layer, paths) for tree in trees for one, paths in _paths(tree)]
    address = np.concatenate([layer.table for layer, _ in layers])
    level = np.concatenate([np.full(len(one.table), one.level, np.uint8) for one, _ in layers])
    paths = np.concatenate([paths for _, paths in layers])
    order = np.lexsort((address, level))
    address, level, paths = address[order], level[order], paths[order]
    new = np.ones(len(address), np.bool_)
    new[1:] = (address[1:] != address[:-1]) | (level[1:] != level[:-1])
    return Tables(address[new], level[new], np.add.reduceat(paths, np.flatnonzero(new)))


def _paths(tree: _Tree) -> Iterator[tuple[_Tree, Words]]:
    """Each layer, and in how many ways each of its tables is reached."""
    paths = np.ones(1, np.uint64)
    while True:
        yield tree, paths
        if tree.links is None:
            return
        points = tree.layer.kind == POINTER
        along = np.repeat(paths, np.diff(tree.layer.start))[points]
        paths = np.zeros(len(tree.links.under.layer.table), np.uint64)
        np.add.at(paths, tree.links.child[points], along)
        tree = tree.links.under


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
        going = going & (kinds(format, level, raw, backed) == POINTER)
        if here.pointer.bounds is not None:
            going &= _is_there(format, level, raw, addresses)
        table = np.where(going, address_of(here.pointer, raw), table)
    return found
