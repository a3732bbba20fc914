"""Tables whose content cannot be meant: data that lies where entries should, memory that was freed
and used again, a pointer to the wrong place.

What software keeps in entries that are not present is its own, and so is where it maps devices; so
a table is judged by entries that no software makes many of, and that differ from their neighbours:
a mistake in code repeats itself, data do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Final, NamedTuple

import numpy as np

from harness.inspect.graph import Floor, Graph
from harness.paging import bulk
from harness.paging.bits import Kind, kinds, offending_bits
from harness.paging.bulk import LANES
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words

LEAST: Final = 16
"""Entries of a table that cannot be meant, at least, for all of it to be garbage..."""

SHARE: Final = 5
"""... and one in so many of all that are present or cannot be meant."""

Extents = tuple[Words, Words]
"""Where each piece of memory begins and ends, in order."""


class Garbage(NamedTuple):
    """Tables by what is wrong with them, their addresses sorted.

    tables     which are garbage as a whole
    addresses  which are not, and hold addresses of the upper half where entries should be
    """

    tables: Words
    addresses: Words


def find(memory: Memory, graph: Graph, backed: Extents | None, device: Sequence[str]) -> Garbage:
    """The tables of a space whose content cannot be meant, each judged at the highest level at
    which it is used.

    backed  where memory is, None where that is not known
    device  the names of the bits of which a device's pages have one
    """
    seen, wrong, odd = (np.zeros(0, np.uint64) for _ in range(3))
    for floor in graph.floors:
        level = floor.layer.level
        tables = np.setdiff1d(floor.layer.table, seen)
        seen = np.union1d(seen, tables)
        for part, words in words_of(memory, graph.format, floor, tables):
            addresses = _addresses(words)
            present = _present(graph.format, level, words)
            wild = addresses | present & _strange(graph.format, level, words, backed, device)
            count, used = wild.sum(axis=1), (present | addresses).sum(axis=1)
            garbage = (count >= LEAST) & (count * SHARE >= used)
            wrong = np.union1d(wrong, part[garbage])
            odd = np.union1d(odd, part[~garbage & addresses.any(axis=1)])
    return Garbage(wrong, odd)


def words_of(
    memory: Memory, format: Format, floor: Floor, tables: Words
) -> Iterator[tuple[Words, Words]]:
    """Tables of a floor with all their words, shape (tables, entries), as many at once as is quick;
    words without memory, and those of slots that no pointer says are there, are as in an empty
    table."""
    level, order = floor.layer.level, np.argsort(floor.layer.table, kind="stable")
    empty, entries = format.levels[level].empty, format.levels[level].entries
    address, first, stop = (
        one[order] for one in (floor.layer.table, floor.first[:, None], floor.stop[:, None])
    )
    tables, slots = np.intersect1d(address, tables), np.arange(entries, dtype=np.uint64)
    at_once = max(1, LANES // entries)
    for start in range(0, len(tables), at_once):
        part = tables[start : start + at_once]
        piece = slice(
            np.searchsorted(address, part[0]), np.searchsorted(address, part[-1], side="right")
        )
        # Between the tables asked for are others.
        own = np.isin(address[piece], part)
        number = np.searchsorted(part, address[piece][own])
        shown = (slots >= first[piece][own]) & (slots < stop[piece][own])
        there = np.zeros((len(part), entries), np.bool_)
        np.logical_or.at(there, number, shown)
        words, backed = bulk.gather_slots(memory, format, part, slots, there)
        held = there.ravel() if backed is None else there.ravel() & backed
        yield part, np.where(held, words, np.uint64(empty)).reshape(-1, entries)


def _present(format: Format, level: int, words: Words) -> Mask:
    found: Mask = kinds(format, level, words.ravel()).reshape(words.shape) != Kind.ABSENT
    return found


def _addresses(words: Words) -> Mask:
    """Which entries are not present and hold an aligned address of the upper half.

    In 64-bit entries those whose upper 17 bits are set and the upper 40 are not: Linux's markers,
    which are all ones but for a few bits, are none.  32-bit entries have no such bits.
    """
    upper = words >> np.uint64(47) == np.uint64((1 << 17) - 1)
    markers = words >> np.uint64(24) == np.uint64((1 << 40) - 1)
    found: Mask = upper & ~markers & (words & np.uint64(7) == 0)
    return found


def _strange(
    format: Format, level: int, words: Words, backed: Extents | None, device: Sequence[str]
) -> Mask:
    """Which entries, if they are present, have reserved bits set, others than the entry before
    has; or lead to where no memory is, without following the entry before, and have none of the
    bits that a device's pages have."""
    here, present = format.levels[level], _present(format, level, words)
    flat = words.ravel()
    wrong = offending_bits(format, level, flat).reshape(words.shape)
    offending = np.where(present, wrong, np.uint64(0))
    strange: Mask = (offending != 0) & (offending != _before(offending))
    if backed is None:
        return strange
    points = kinds(format, level, flat).reshape(words.shape) == Kind.POINTER
    marked = np.uint64(reduce(or_, (here.bits.get(name, 0) for name in device), 0))
    index = np.tile(np.arange(here.entries, dtype=np.uint64) << np.uint64(here.shift), len(words))
    targets = []
    if here.pointer is not None:
        tables = bulk.address_of(here.pointer, flat)
        targets.append((tables, format.table_bytes(level - 1), points))
    if here.leaf is not None:
        frames = bulk.frames_of(here, flat, index)
        targets.append((frames, here.size, ~points if here.pointer else True))
    for each, size, chosen in targets:
        target = each.reshape(words.shape)
        step = target - _before(target)
        follows = (step == 0) | (step == np.uint64(size))
        astray = chosen & (offending == 0) & (words & marked == 0)
        strange |= astray & ~follows & ~covered(backed, target, np.uint64(size))
    return strange


def _before(words: Words) -> Words:
    """The entry before each in its table; none is before the first."""
    before = np.zeros_like(words)
    before[:, 1:] = words[:, :-1]
    return before


def covered(backed: Extents, address: Words, size: np.uint64) -> Mask:
    """Which stretches of memory of a size lie wholly in one piece."""
    first, last = backed
    if not len(first):
        return np.zeros(address.shape, np.bool_)
    number = np.searchsorted(first, address, side="right") - 1
    end = address + (size - np.uint64(1))
    inside: Mask = (number >= 0) & (end <= last[np.maximum(number, 0)])
    return inside
