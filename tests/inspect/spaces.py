"""Spaces made at random, and all that is in them found one entry at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.inspect.snapshot import Snapshot
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.bulk import Leaves
from harness.paging.entry import Absent, Entry, Leaf, Pointer
from harness.paging.format import Format
from harness.paging.memory import BufferMemory, Memory
from harness.paging.table import Root, Slot, Table

P, RW, US, PWT, PCD, A, D, PS, G, XD = (1 << n for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 63))

GUARDED = """
title = "Guarded"
arch = "power"
levels = [4]

[[map]]
virtual = 0x1000
size = "4K"
count = 2
rights = "urwx"
bits = ["R", "C", "ATT=2"]

[[map]]
virtual = 0x3000
size = "4K"
rights = "urwx"
bits = ["R", "C"]
"""
"""A layout of POWER, of which nothing is fetched from the first pages: their storage is guarded."""


def memory_of(words: list[int]) -> BufferMemory:
    return BufferMemory(np.array(words, np.uint64).view(np.uint8))


def layered(seed: int, levels: int, loops: float = 0.0) -> BufferMemory:
    """Three tables a level, the root at 0, every pointer to one of the next level: each table is
    reached in many ways and with many rights.  Runs of pages, repeated ones, malformed entries,
    tables without memory; `loops` is how often a pointer leads to any table instead."""
    source = random.Random(seed)
    tables = 1 + 3 * (levels - 1)
    words = [0] * (512 * tables)
    for table in range(tables):
        level = levels - 1 - (table + 2) // 3
        base = 512 * table
        if level == 0:
            _fill(words, base, source)
            continue
        for slot in source.sample((0, 1, 2, 17, 18, 255, 256, 257, 511), 4):
            target = 1 + 3 * (levels - 1 - level) + source.randrange(3)
            if source.random() < loops:
                target = source.randrange(tables)
            elif source.random() < 0.05:
                target = tables + source.randrange(2)
            words[base + slot] = target << 12 | _flags(source)
            if level < 3 and source.random() < 0.2:
                frame = source.randrange(8) << 12 + 9 * level
                words[base + slot] = frame | _flags(source) | PS | source.choice((0, 0, 1 << 12))
    return memory_of(words)


def _fill(words: list[int], base: int, source: random.Random) -> None:
    """Runs of pages on frames in a row, on any frames and on one, and one page evenly apart."""
    for _ in range(4):
        slot, flags = source.randrange(480), _flags(source) & ~(A | D)
        frame, step = source.randrange(1 << 20), source.choice((0, 1, 1, 7))
        for place in range(source.randrange(1, 12)):
            raw = (frame + step * place) << 12 | flags | source.choice((0, 0, A, A | D))
            words[base + slot + place] = raw
    if source.random() < 0.5:
        apart = source.choice((2, 5, 16))
        for slot in range(apart, 2 * apart + apart * source.randrange(1, 4), apart):
            words[base + slot] = 0x777 << 12 | P | RW | A


def _flags(source: random.Random) -> int:
    flags = P | source.choice((0, RW, US, RW | US, RW | US)) | source.choice((0, 0, XD, G, PCD, A))
    return flags | (1 << 51 if source.random() < 0.05 else 0)


@dataclass(frozen=True)
class Found:
    """What is at one address, and how it was reached: the slots from a root down.

    above, granted  the rights that the entries above it give, and with its own
    """

    address: int
    slots: tuple[Slot, ...]
    raw: int | None
    entry: Entry | None
    above: int
    granted: int

    @property
    def slot(self) -> Slot:
        return self.slots[-1]


def everything(memory: Memory, roots: Iterable[Root]) -> Iterator[Found]:
    """Every entry that is not absent at every address, pointers too; of the slots of a table that
    have no memory the first."""
    for root in roots:
        format = root.table.format
        yield from _held(memory, format, root.slots(), (), format.rights_mask)


def _held(
    memory: Memory,
    format: Format,
    slots: Iterable[tuple[int, Slot]],
    above: tuple[Slot, ...],
    granted: int,
) -> Iterator[Found]:
    unbacked = False
    for address, slot in slots:
        way = (*above, slot)
        raw = memory.load(slot.address, format.entry_bytes)
        if raw is None:
            if not unbacked:
                yield Found(address, way, None, None, granted, granted)
            unbacked = True
            continue
        entry = format.decode(raw, slot.level)
        if isinstance(entry, Absent):
            continue
        given = granted & format.granted(raw, slot.level)
        yield Found(address, way, raw, entry, granted, given)
        if isinstance(entry, Pointer):
            below = ((address + s.index * s.size, s) for s in entry.table.slots())
            yield from _held(memory, format, below, way, given)


def loops(found: Iterable[Found]) -> set[Slot]:
    """The slots that lead to a table which is in use at the slot's own level or above."""
    every = list(found)
    missing = {one.slot.table for one in every if one.raw is None}
    highest: dict[Physical, int] = {}
    for one in every:
        for table in {one.slot.table, *_target(one)} - missing:
            highest[table.address] = max(highest.get(table.address, 0), table.level)
    return {
        one.slot
        for one in every
        for table in _target(one)
        if highest.get(table.address, -1) >= one.slot.level
    }


def _target(one: Found) -> tuple[Table, ...]:
    return (one.entry.table,) if isinstance(one.entry, Pointer) else ()


def physical(one: Found) -> int:
    return one.entry.address if isinstance(one.entry, Leaf) else 0


def listed(snapshot: Snapshot) -> Leaves:
    """All that a snapshot's space holds."""
    return bulk.leaves(snapshot.memory, snapshot.cpu.roots)


def same(here: Leaves, there: Leaves) -> bool:
    """Whether two listings are the same row by row."""
    columns = ("virtual", "end", "level", "raw", "physical", "granted")
    return all(np.array_equal(getattr(here, name), getattr(there, name)) for name in columns)
