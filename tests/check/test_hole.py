"""Room for what is the harness's: what is found is free, and seen in one place alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from harness.check.hole import find_hole, find_root_hole
from harness.paging.address import Physical, Span
from harness.paging.entry import Pointer
from harness.paging.errors import SpaceError
from harness.paging.table import Root, Table
from tests.paging.spaces import SHORT, UNEVEN, World

Path = tuple[Root, Table, int, bool]
"""A table that a root leads to: the first address that it serves by this path, and whether all
entries above it give every right."""

SIZES = (1, 64, 65, 512, 1500, 2048, 2049, 3 * 2048, 9 * 2048)


def paths(world: World) -> list[Path]:
    """Every way to every table, one by one."""
    found: list[Path] = []

    def enter(root: Root, table: Table, first: int, gives: bool) -> None:
        found.append((root, table, first, gives))
        for slot in table.slots() if table.level else ():
            raw = world.memory.load(slot.address, world.format.entry_bytes)
            assert raw is not None
            entry = world.format.decode(raw, table.level)
            if isinstance(entry, Pointer):
                all_ = world.format.granted(raw, table.level) == world.format.rights_mask
                enter(root, entry.table, first + slot.index * slot.size, gives and all_)

    for root in world.space.roots:
        enter(root, root.table, root.span.first, True)
    return found


def holes(world: World, size: int, kept: list[Span]) -> Iterator[tuple[int, int, int]]:
    """Level, first address and number of slots of all that could be found."""
    every = paths(world)
    ways = Counter((table.address, table.level) for _, table, _, _ in every)
    highest: dict[int, int] = {}
    for _, table, _, _ in every:
        highest[table.address] = max(table.level, highest.get(table.address, 0))
    for root, table, first, gives in every:
        level = world.format.levels[table.level]
        alone = ways[table.address, table.level] == 1 and table.level == highest[table.address]
        if not gives or (table is not root.table and not alone):
            continue
        count = -(-size // level.size)
        if count > 1 and (table.level < 2 or level.size >= size):
            continue
        for index in range(level.entries - count + 1):
            at = first + index * level.size
            words = [
                world.memory.load(table.slot(index + n).address, world.format.entry_bytes)
                for n in range(count)
            ]
            span = Span.of(at, count * level.size)
            if not any(words) and not any(one.clip(span) for one in kept):
                yield table.level, at, count


def drawn(seed: int) -> tuple[World, list[Span]]:
    """A space in which little is free: with pages, tables that are seen twice, or above each other,
    and pointers that withhold a right."""
    source = random.Random(seed)
    world = World(source.choice((UNEVEN, SHORT)))
    format, width = world.format, world.format.entry_bytes
    every = format.granting(*format.rights)
    made: list[Table] = []
    for root in world.space.roots:
        made.append(root.table)
        for index in range(16):
            kind = source.choice(("page", "page", "table", "table", "free" if seed % 3 else "page"))
            slot = root.table.slot(index)
            if kind == "page":
                word = format.leaf(Physical(index * 2048), 2, every)
            elif kind == "table":
                table = world.allocator.allocate(format, 1)
                made.append(table)
                word = format.pointer(table.address, 2, source.choice((every, every, 0)))
            else:
                word = 0
            world.memory.store(slot.address, width, word)
    for table in [one for one in made if one.level == 1]:
        for index in range(4):
            kind = source.choice(("page", "page", "table", "again", "free" if seed % 2 else "page"))
            word = 0
            if kind == "page":
                word = format.leaf(Physical(index * 512), 1, every)
            elif kind in ("table", "again"):
                below = [one for one in made if one.level == 0]
                if kind == "table" or not below:
                    below = [world.allocator.allocate(format, 0)]
                    made.append(below[0])
                word = format.pointer(source.choice(below).address, 1, every)
            world.memory.store(table.slot(index).address, width, word)
    for table in [one for one in made if one.level == 0]:
        for index in range(8):
            word = format.leaf(Physical(64 * index), 0, every) if source.random() < 0.9 else 0
            world.memory.store(table.slot(index).address, width, word)
    if source.random() < 0.4:  # a table of pages that is one of tables too
        one = source.choice([one for one in made if one.level == 1])
        two = source.choice([one for one in made if one.level == 1])
        word = format.pointer(two.address, 1, every)
        world.memory.store(one.slot(source.randrange(4)).address, width, word)
    kept = []
    if seed % 2:
        starts = source.sample(range(100, 64 * 1024, 500), 24)
        kept = [Span.of(one, source.choice((8, 64, 700))) for one in starts]
    return world, kept


def test_what_is_found_is_free_seen_once_and_the_smallest_that_fits() -> None:
    found = Counter[object]()
    for seed in range(20):
        world, kept = drawn(seed)
        for size in SIZES:
            expected = list(holes(world, size, kept))
            fitting = [level.size >= size for level in world.format.levels]
            expected = [one for one in expected if fitting[one[0]] or not any(fitting)]
            if not expected:
                with pytest.raises(SpaceError, match="the tables leave no"):
                    find_hole(world.memory, world.space.roots, size, kept)
                found["none"] += 1
                continue
            at, slots = find_hole(world.memory, world.space.roots, size, kept)
            level = min(level for level, _, _ in expected)
            assert (slots[0].level, int(at), len(slots)) in expected
            assert slots[0].level == level
            assert [slot.index for slot in slots] == [slots[0].index + n for n in range(len(slots))]
            assert len({slot.table for slot in slots}) == 1
            found[level, len(slots) > 1] += 1
    assert found.keys() == {"none", (0, False), (1, False), (2, False), (2, True)}, found


def test_a_free_slot_of_a_root_is_one_from_the_middle_on() -> None:
    world = World(UNEVEN)
    for root in world.space.roots:
        order = [*range(8, 16), *range(8)]
        for index in order:
            first, (slot,) = find_root_hole(world.memory, root)
            assert (slot.index, first) == (index, root.span.first + index * 2048)
            world.memory.store(slot.address, 8, 1)
        with pytest.raises(SpaceError, match="has no empty slot"):
            find_root_hole(world.memory, root)
