"""A page is global by its own entry or by any pointer on the way to it ("Addressing and Memory
Protection" of Sv32: a pointer's G makes all mappings of the levels below it global)."""

from __future__ import annotations

import random
from functools import reduce
from operator import or_

import numpy as np
import pytest

from harness.inspect import graph as graphs
from harness.inspect.diff import Change, Difference, diff
from harness.inspect.lint import lint
from harness.inspect.ranges import Dump, dump
from harness.inspect.riscv import memory_type
from harness.inspect.select import condition
from harness.inspect.snapshot import Snapshot
from harness.paging.entry import Leaf
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, G, R, U, V, W
from tests.inspect.spaces import everything

PAGE = V | R | W | U | A | D
TABLE_BYTES = 1 << 12
MODES = [Mode.SV32, Mode.SV39, Mode.SV48, Mode.SV57]


def hart(mode: Mode) -> Cpu:
    return Cpu.in_mode(mode, 0)


def to(table: int) -> int:
    return table * TABLE_BYTES >> 2 | V


def memory_of(cpu: Cpu, tables: list[dict[int, int]]) -> BufferMemory:
    """Tables one after the other from 0 up, by their slots that are not 0."""
    kind = {4: np.uint32, 8: np.uint64}[cpu.format.entry_bytes]
    words = np.zeros((len(tables), TABLE_BYTES // cpu.format.entry_bytes), kind)
    for number, slots in enumerate(tables):
        for slot, raw in slots.items():
            words[number, slot] = raw
    return BufferMemory(words.reshape(-1).view(np.uint8))


def tables_of(cpu: Cpu, seed: int) -> list[dict[int, int]]:
    """Two tables a level below the root, each reached in several ways, some by G."""
    source = random.Random(seed)
    levels = len(cpu.format.levels)
    made: list[dict[int, int]] = []
    for number in range(1 + 2 * (levels - 1)):
        level, first = levels - 1 - (number + 1) // 2, (number + 1) // 2 * 2 + 1
        slots = {}
        for slot in range(4):
            if level and source.random() < 0.8:
                slots[slot] = to(first + source.randrange(2)) | source.choice((0, 0, 0, G))
            else:
                frame = source.randrange(1 << 4) << cpu.format.levels[level].shift >> 2
                slots[slot] = frame | PAGE | source.choice((0, 0, G))
        made.append(slots)
    return made


def of_each(cpu: Cpu, memory: BufferMemory) -> dict[int, tuple[int, bool]]:
    """By the address of each page the size, and whether an entry on the way or its own has G."""
    found = {}
    for one in everything(memory, cpu.roots):
        if isinstance(one.entry, Leaf):
            way = (memory.load(slot.address, cpu.format.entry_bytes) or 0 for slot in one.slots)
            found[one.address] = one.entry.size, bool(reduce(or_, way) & G)
    return found


def dumped(cpu: Cpu, memory: BufferMemory, where: str = "", **options: object) -> Dump:
    chosen = condition(cpu, memory_type.types(None), where) if where else None
    return dump(memory, cpu.format, cpu.roots, chosen=chosen, **options)  # type: ignore[arg-type]


def compared(cpu: Cpu, before: list[dict[int, int]], after: list[dict[int, int]]) -> Difference:
    sides = (memory_of(cpu, tables) for tables in (before, after))
    return diff(*(graphs.read(memory, cpu.format, cpu.roots) for memory in sides))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_every_page_is_shown_as_global_as_its_way_makes_it(mode: Mode, seed: int) -> None:
    cpu = hart(mode)
    memory = memory_of(cpu, tables_of(cpu, seed))
    expected = of_each(cpu, memory)
    assert {is_global for _, is_global in expected.values()} == {False, True}
    for exact in (False, True):
        found = {
            one.first + number * one.size: (one.size, bool(one.bits & G))
            for one in dumped(cpu, memory, exact=exact, each=1 << 20).ranges
            for number in range(one.pages)
        }
        assert found == expected
    for where, wanted in (("G", True), ("not G", False)):
        ranges = dumped(cpu, memory, where).ranges
        count = sum(1 for _, is_global in expected.values() if is_global is wanted)
        assert sum(one.pages * one.aliases for one in ranges) == count
        assert {bool(one.bits & G) for one in ranges} == {wanted}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_user_pages_that_are_global_by_a_pointer_are_odd(mode: Mode, seed: int) -> None:
    cpu = hart(mode)
    memory = memory_of(cpu, tables_of(cpu, seed))
    broken, _ = lint(Snapshot("test", cpu, memory, None), memory_type.types(None), (), 1 << 20)
    [found] = [one for one in broken if one.rule.name == "global-user"]
    assert found.count == sum(is_global for _, is_global in of_each(cpu, memory).values())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_pages_that_a_pointer_makes_global_are_different(mode: Mode, seed: int) -> None:
    cpu = hart(mode)
    before = tables_of(cpu, seed)
    after = [dict(slots) for slots in before]
    after[0][random.Random(seed).choice([s for s, raw in before[0].items() if not raw & R])] ^= G
    old, new = (of_each(cpu, memory_of(cpu, tables)) for tables in (before, after))
    changed = {address for address in old if old[address] != new[address]}
    assert changed
    found = compared(cpu, before, after)
    assert found.pages() == {Change.ATTRIBUTES: len(changed)}
    assert changed >= {one.before.first for one in found}
    for one in found:
        sides = [bool(side.bits & G) for side in (one.before, one.after)]
        assert sides == [old[one.before.first][1], new[one.before.first][1]]


def leading(cpu: Cpu, pointers: int, *leaves: int) -> list[dict[int, int]]:
    """One table a level; `pointers` is what all of them have besides, of those on level 1."""
    above = [{0: to(number + 1)} for number in range(len(cpu.format.levels) - 2)]
    lowest = len(above) + 1
    return [*above, {0: to(lowest) | pointers}, dict(enumerate(leaves))]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_a_page_is_no_more_global_by_both(mode: Mode) -> None:
    cpu = hart(mode)
    frames = [number << 10 | PAGE for number in (8, 9)]
    by_pointer, by_both = leading(cpu, G, *frames), leading(cpu, G, frames[0], frames[1] | G)
    by_pages = leading(cpu, 0, *(raw | G for raw in frames))
    for other in (by_both, by_pages):
        assert compared(cpu, by_pointer, other).same
        assert len(dumped(cpu, memory_of(cpu, other)).ranges) == 1
    found = compared(cpu, by_pointer, leading(cpu, 0, *frames)).pages()
    assert found == {Change.ATTRIBUTES: 2}
    exact = list(dumped(cpu, memory_of(cpu, by_both), exact=True).ranges)
    assert [one.raw for one in exact] == [frames[0], frames[1] | G]
    assert all(one.bits & G for one in exact)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_parts_of_a_larger_page_are_as_global_as_it_is(mode: Mode) -> None:
    cpu = hart(mode)
    entries = cpu.format.levels[0].entries
    split = leading(cpu, G, *(number << 10 | PAGE for number in range(entries)))
    for own, change in ((G, Change.SIZE), (0, Change.SIZE | Change.ATTRIBUTES)):
        whole = leading(cpu, 0)
        whole[-2][0] = PAGE | own
        assert [one.change for one in compared(cpu, whole, split)] == [change]
        assert [one.change for one in compared(cpu, split, whole)] == [change]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_a_shared_table_is_shown_with_and_without_a_global_pointer(mode: Mode) -> None:
    cpu = hart(mode)
    tables = leading(cpu, 0, 8 << 10 | PAGE)
    tables[0][3] = tables[0][0] | G
    ranges = list(dumped(cpu, memory_of(cpu, tables)).ranges)
    there = 3 << cpu.format.levels[-1].shift
    assert [(one.first, one.aliases, bool(one.bits & G)) for one in ranges] == [
        (0, 1, False),
        (there, 1, True),
    ]
