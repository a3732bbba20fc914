"""Tables of which a part is there, as pointers say (TF, TL): nothing else is read or listed."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest

from harness.inspect import find, graph, tour
from harness.inspect import garbage as garbages
from harness.inspect.graph import RowKind
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.entry import Pointer
from harness.paging.memory import BigEndianMemory, Mask, Words
from harness.paging.s390.cpu import Cpu, Mode
from harness.paging.table import Table
from harness.paging.walk import leaves
from tests.paging.s390 import drawn
from tests.paging.s390.beside import cpu_of

Parts = set[tuple[int, int, range]]
"""What is there of tables: level, address, slots."""


class Watched(BigEndianMemory):
    """Memory of which only some words may be read."""

    def __init__(self, octets: bytes, allowed: set[int]):
        super().__init__(octets)
        self.allowed = np.array(sorted(allowed), np.uint64)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        outside = addresses[~np.isin(addresses, self.allowed)]
        assert not len(outside), f"{int(outside[0]):#x} is of no table that is there"
        return super().gather(addresses, size)


def sparse(source: random.Random) -> bytearray:
    """Tables of every level in which few entries are there: zero would be one."""
    made = bytearray(drawn.storage(source))
    for table in range(drawn.TABLES):
        kept = source.sample(drawn.SLOTS, 4)
        for index in range(2048):
            at, level = drawn.FIRST + table * drawn.SIZE + 8 * index, table // 2
            if (level and index not in kept) or (not level and index % 256 not in drawn.PAGES[::2]):
                made[at : at + 8] = (0x20 if level else 0x400).to_bytes(8, "big")
    return made


def space(seed: int, mode: Mode) -> tuple[Cpu, bytes, Parts]:
    """A CPU and storage at random, and what is there of tables by the definition."""
    source = random.Random(seed)
    octets = bytes(sparse(source))
    cpu, memory = cpu_of(drawn.machine(source, mode.value)), BigEndianMemory(octets)
    parts: Parts = set()

    def enter(table: Table, slots: range) -> None:
        if not slots or (part := (table.level, table.address, slots)) in parts:
            return
        parts.add(part)
        for index in slots:
            raw = memory.load(table.slot(index).address, 8)
            entry = cpu.format.decode(raw, table.level) if raw is not None else None
            if raw is not None and isinstance(entry, Pointer):
                enter(entry.table, cpu.format.slots_below(raw, table.level))

    for root in cpu.roots:
        enter(root.table, root.indices)
    return cpu, octets, parts


def watched(octets: bytes, parts: Parts) -> Watched:
    return Watched(octets, {table + 8 * slot for _, table, slots in parts for slot in slots})


SPACES = [(seed, mode) for seed in range(3) for mode in Mode]


@pytest.mark.parametrize(("seed", "mode"), SPACES)
def test_layers_are_the_parts_of_tables_that_are_there(seed: int, mode: Mode) -> None:
    cpu, octets, parts = space(seed, mode)
    found = [
        (layer.level, address, range(first, last + 1))
        for layer in bulk.layers(watched(octets, parts), cpu.roots, 1 << 16)
        for address, first, last in zip(
            *(one.tolist() for one in (layer.address, layer.first, layer.last)), strict=True
        )
    ]
    assert found == sorted(parts, key=lambda one: (-one[0], one[1], one[2].start, one[2].stop))


@pytest.mark.parametrize(("seed", "mode"), SPACES)
def test_rows_are_what_walks_find(seed: int, mode: Mode) -> None:
    cpu, octets, parts = space(seed, mode)
    memory = watched(octets, parts)
    read = graph.read(memory, cpu.format, cpu.roots)
    expected = sorted(
        (one.address, one.level, one.granted, 0 if one.unbacked else one.steps[-1].raw)
        for one in leaves(memory, cpu.roots)
    )
    assert read.total == len(expected)
    found = sorted(
        row
        for rows in graph.rows(read, each=len(expected))
        for row in zip(
            rows.virtual.tolist(),
            [rows.level] * len(rows.virtual),
            rows.granted.tolist(),
            rows.raw.tolist(),
            strict=True,
        )
    )
    assert found == expected
    garbages.find(memory, read, None, ())


def test_a_table_that_is_reached_with_two_lengths_is_counted_once() -> None:
    """A segment table, its first and its last quarter by one pointer, all of it by another."""
    words = np.full(0x9000 // 8, 0x20, np.uint64)
    words[0x8000 // 8 :] = 0x400
    words[:3] = [0x4000 | 4 | bounds for bounds in (0x00, 0xC3, 0x03)]
    words[[0x4000 // 8 + slot for slot in (0, 600, 2047)]] = 0x8000
    words[0x8000 // 8] = 0
    memory = BigEndianMemory(words.astype(">u8").view(np.uint8))
    cpu = Cpu.in_mode(Mode.REGION_THIRD, 0)
    read = graph.read(memory, cpu.format, cpu.roots)
    pages = [
        address
        for rows in graph.rows(read, each=10)
        for address in rows.virtual[rows.kind == RowKind.PAGE].tolist()
    ]
    table = 1 << 31
    assert pages == [
        *(0, table + (2047 << 20)),
        *(2 * table + (slot << 20) for slot in (0, 600, 2047)),
    ]
    top, segments, bottom = find.tables(read)
    assert (segments.entries, segments.ends, segments.paths, segments.slots) == (3, 3, 3, 3)
    assert [slot.index for slot in segments.leaders] == [0, 1, 2]
    assert (top.entries, top.ends, bottom.paths) == (3, 5, 5)
    assert find.addresses(read, Physical(0), 1).total == 5


def test_of_parts_of_tables_beyond_the_limit_none_is_read() -> None:
    """Two quarters of segment tables, of which one may be read."""
    words = np.full(0x10000 // 8, 0x20, np.uint64)
    words[0x8000 // 8 :][:256] = 0x400
    words[:2] = [0x4000 | 4, 0xC000 | 4]
    words[[0x4000 // 8, 0xC000 // 8]] = 0x8000
    words[0x8000 // 8] = 0
    memory = BigEndianMemory(words.astype(">u8").view(np.uint8))
    cpu = Cpu.in_mode(Mode.REGION_THIRD, 0)
    for quarters, unread in (1, 1), (2, 0):
        read = graph.read(memory, cpu.format, cpu.roots, 512 * quarters * graph.LEADING)
        assert (read.unread, read.total) == (unread, 2)


@pytest.mark.parametrize(("apart", "garbage"), [(0x800, []), (0x1000, [0x4000])])
def test_tables_outside_memory_that_follow_each_other_are_in_order(
    apart: int, garbage: list[int]
) -> None:
    """A page table has 2 KiB, a segment table 16."""
    words = np.full(0x8000 // 8, 0x20, np.uint64)
    words[0] = 0x4000 | 3 | 4
    words[0x4000 // 8 :][:64] = 0x10_0000 + apart * np.arange(64, dtype=np.uint64)
    memory = BigEndianMemory(words.astype(">u8").view(np.uint8))
    cpu = Cpu.in_mode(Mode.REGION_THIRD, 0)
    backed = np.array([0], np.uint64), np.array([0x7FFF], np.uint64)
    found = garbages.find(memory, graph.read(memory, cpu.format, cpu.roots), backed, ())
    assert found.tables.tolist() == garbage


def test_a_tour_reads_no_slots_that_are_not_there() -> None:
    below = 0
    for seed, mode in SPACES[:4]:
        cpu, octets, parts = space(seed, mode)
        memory, places = watched(octets, parts), list(tour.starts(cpu))
        for place in islice(places, 20):  # those that are added, too
            lines = tour.lines(memory, place.table, place.there)
            assert [line.slot.index for line in lines if line.there] == list(place.there)
            assert all(line.raw is None for line in lines if not line.there)
            places += [led for line in lines if (led := tour.entered(place, line))]
            below += bool(place.way)
    assert below
