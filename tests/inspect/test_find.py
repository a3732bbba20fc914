"""What leads to physical memory is what following every path finds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import find, graph
from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Leaf, Pointer
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import PS, RW, US, P
from harness.report.find import tables_lines
from tests.inspect.spaces import everything, layered, memory_of, physical

SPACES = [(levels, seed, loops) for levels in (4, 5) for seed in (0, 1) for loops in (0.0, 0.1)]


def read(memory: BufferMemory, levels: int) -> graph.Graph:
    state = Cpu.long_mode(levels, 0)
    return graph.read(memory, state.format, state.roots)


@pytest.mark.parametrize(("levels", "seed", "loops"), SPACES)
def test_every_address_of_a_place_is_found_with_its_rights(
    levels: int, seed: int, loops: float
) -> None:
    memory = layered(seed, levels, loops)
    every = list(everything(memory, Cpu.long_mode(levels, 0).roots))
    pages = [one for one in every if isinstance(one.entry, Leaf)]
    space = read(memory, levels)
    for place in sorted({physical(one) for one in pages})[::7]:
        asked = place + 0x123
        want = [
            find.Address(
                Virtual(one.address + asked - physical(one)),
                Physical(physical(one)),
                one.slot.size,
                one.slot.level,
                one.raw or 0,
                one.granted,
            )
            for one in pages
            if physical(one) <= asked < physical(one) + one.slot.size
        ]
        found = find.addresses(space, Physical(asked), 1 << 20)
        assert list(found.shown) == want
        few = find.addresses(space, Physical(asked), 3)
        assert (few.total, few.shown) == (len(want), found.shown[:3])


@pytest.mark.parametrize(("levels", "seed", "loops"), SPACES)
def test_every_table_is_found_with_the_slots_that_lead_to_it(
    levels: int, seed: int, loops: float
) -> None:
    memory = layered(seed, levels, loops)
    every = list(everything(memory, Cpu.long_mode(levels, 0).roots))
    paths: Counter[tuple[int, int]] = Counter()
    leaders: dict[tuple[int, int], set[object]] = {}
    for one in every:
        if isinstance(one.entry, Pointer):
            table = one.entry.table
            paths[table.address, table.level] += 1
            leaders.setdefault((table.address, table.level), set()).add(one.slot)
    got = {(use.table.address, use.table.level): use for use in find.tables(read(memory, levels))}
    root = got.pop((Physical(0), levels - 1))
    assert (root.slots, root.leaders, root.ends) == (0, (), read(memory, levels).total)
    assert {key: use.paths for key, use in got.items()} == paths
    for key, use in got.items():
        assert use.slots == len(leaders[key])
        assert set(use.leaders) <= leaders[key]
        assert len(set(use.leaders)) == min(use.slots, find.LEADERS)
    there = [one.slot for one in every if one.raw is not None]
    held = Counter((slot.table.address, slot.level, slot.index) for slot in there)
    per_table = Counter((address, level) for address, level, _ in held)
    assert {key: use.entries for key, use in got.items() if use.entries} == {
        key: count for key, count in per_table.items() if key != (0, levels - 1)
    }


@pytest.mark.parametrize(("levels", "seed", "loops"), SPACES)
def test_memory_with_several_addresses_is_found_and_counted(
    levels: int, seed: int, loops: float
) -> None:
    memory = layered(seed, levels, loops)
    every = everything(memory, Cpu.long_mode(levels, 0).roots)
    spans = [(physical(one), one.slot.size) for one in every if isinstance(one.entry, Leaf)]
    frames: Counter[int] = Counter()
    for first, size in spans:
        if size < 1 << 30:
            frames.update(range(first >> 12, first + size >> 12))
    large = [(first, size) for first, size in spans if size == 1 << 30]
    found, cut = find.shared(read(memory, levels))
    assert cut == ()
    assert [-one.addresses for one in found] == sorted(-one.addresses for one in found)
    for one in found:
        frame = one.span.first >> 12
        there = sum(first <= one.span.first < first + size for first, size in large)
        assert one.addresses == frames[frame] + there
        assert one.addresses == frames[one.span.last >> 12] + there
    covered = sum(one.span.size >> 12 for one in found if one.span.last < 1 << 30)
    small = sum(
        count + sum(first <= frame << 12 < first + size for first, size in large) > 1
        for frame, count in frames.items()
        if frame < 1 << 18
    )
    if not large:
        assert covered == small


def test_memory_with_two_addresses_is_shared_and_with_one_is_not() -> None:
    words = [0] * 2048
    words[0], words[512], words[1024] = 0x1003, 0x2003, 0x3003
    words[1536:1540] = 0x5003, 0x6003, 0x5003, 0x7003
    assert find.shared(read(memory_of(words), 4)) == ([(Span(0x5000, 0x5FFF), 2)], ())


def test_a_billion_addresses_are_counted() -> None:
    space = read(memory_of([3] * 512), 5)
    found = find.addresses(space, Physical(0), 5)
    assert found.total == 512**5
    assert [one.virtual for one in found.shown] == [n << 12 for n in range(5)]
    ((one,), _) = find.shared(space)
    assert (one.span.first, one.span.last, one.addresses) == (0, 4095, 512**5)


def test_what_nothing_leads_to_has_no_address() -> None:
    found = find.addresses(read(memory_of([0] * 512), 4), Physical(0x1000), 5)
    assert (found.total, found.shown, found.tables) == (0, (), ())
    empty = graph.read(memory_of([0] * 512), Cpu.long_mode(4, 0).format, ())
    assert find.addresses(empty, Physical(0), 1).total == 0
    assert find.shared(empty) == ([], ())


def test_a_place_in_a_table_names_the_table() -> None:
    words = np.zeros(1024, np.uint64)
    words[5] = words[511] = 0x1007
    (use,) = find.addresses(read(memory_of(words.tolist()), 4), Physical(0x1008), 1).tables
    assert (use.table.address, use.table.level, use.slots, use.entries) == (0x1000, 2, 2, 0)
    assert [slot.index for slot in use.leaders] == [5, 511]


def test_a_root_of_both_halves_is_one_table_with_the_entries_of_both() -> None:
    words = [0] * 512 + [0] * 512
    words[0] = words[5] = words[256] = words[510] = words[511] = 0x1007
    root, below = find.tables(read(memory_of(words), 4))
    assert (root.table.address, root.entries, root.paths) == (0, 5, 2)
    assert (below.table.address, below.entries, below.slots, below.paths) == (0x1000, 0, 5, 5)


def test_a_table_without_memory_has_no_entries() -> None:
    memory = BufferMemory(np.zeros(0x1000, np.uint8))
    memory.store(Physical(8), 8, 0x10_0007)
    root, below = find.tables(read(memory, 4))
    assert (root.entries, below.table.address, below.entries) == (1, 0x10_0000, 0)
    state = Cpu.long_mode(4, 0x10_0000)
    (alone,) = find.tables(graph.read(memory, state.format, state.roots))
    assert alone.entries == 0
    assert any("no memory" in line for line in tables_lines([alone], 10))


def test_what_was_not_looked_at_is_told() -> None:
    state, memory = Cpu.long_mode(4, 0), memory_of([3] * 512)
    deep = graph.read(memory, state.format, state.roots, limit=512 * graph.LEADING)
    assert find.addresses(deep, Physical(0), 1).total == 0
    sentence = (
        "512 slots lead to tables that were not read: of the tables above the lowest level, no"
        " more than 512 entries are read."
    )
    assert (deep.cut, find.shared(deep)) == ((sentence,), ([], (sentence,)))
    words = np.zeros(1024, np.uint64)
    words[[0, 1, 512]] = 0x1003, 0x1007, 0x1007
    wide = replace(graph.read(memory_of(words.tolist()), state.format, state.roots), limit=1)
    _, cut = find.shared(wide)
    assert cut == ("2 tables were not looked at: there are more than 1 rows.",)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_malformed_entry_is_named_by_what_it_would_map(levels: int) -> None:
    """Pages of two sizes, and no pointers: where these would lead nobody knows."""
    full, table = P | RW | US, 0x1000
    memory = BufferMemory(np.zeros(8 * table, np.uint8))
    words = memory.octets.view("<u8")
    for depth in range(levels - 1):
        words[depth * 512] = (depth + 1) * table | full
    top, bad = levels - 1, 1 << 51
    words[top * 512 + 7] = 0x40_3000 | full | bad
    words[top * 512 + 8] = 0x40_3000 | full
    words[(top - 1) * 512 + 9] = 0x40_0000 | full | PS | bad
    words[(top - 1) * 512 + 10] = 0x40_3000 | full | bad  # a pointer
    words[(top - 1) * 512 + 11] = 0x60_0000 | full | PS | bad
    found = find.addresses(read(memory, levels), Physical(0x40_3123), 9)
    assert (found.total, found.total_spoilt) == (1, 2)
    assert [(one.slot.level, one.slot.index) for one in found.spoilt] == [(1, 9), (0, 7)]
    few = find.addresses(read(memory, levels), Physical(0x40_3123), 1)
    assert (len(few.spoilt), few.total_spoilt) == (1, 2)
