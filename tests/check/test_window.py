"""A window is there while it is needed, and maps what the architecture says, in every format whose
empty entries are zero."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.hole import find_hole
from harness.check.window import open_window, window_in
from harness.paging.address import Physical, Span
from harness.paging.allocator import TableAllocator
from harness.paging.entry import Leaf
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.format import Format
from harness.paging.table import Root
from tests.paging.spaces import ARM64, FORMATS, POWER, RISCV, ROOM, World, look, physical

ARENA = range(ROOM.size * 3 // 4, ROOM.size)
"""Where the tables of the window are; what the space has begins with the room."""

EVERY = {**FORMATS, **RISCV, **ARM64, **POWER}
PAGES = 3


def every_right(format: Format) -> int:
    return format.granting(*format.rights)


def entries(format: Format, image: Any) -> list[int]:
    """Pages one after the other, from the one after the image's first frame on, backwards."""
    size = format.levels[0].size
    return [
        format.leaf(Physical((image.first + PAGES - n) * size), 0, every_right(format))
        for n in range(PAGES)
    ]


IMAGE: Any = SimpleNamespace(table_arena=ARENA, first=20)
GUEST: Any = SimpleNamespace(image=IMAGE)


@pytest.fixture(params=EVERY)
def world(request: pytest.FixtureRequest) -> World:
    """A space with a page at the beginning of each root, below entries that give every right."""
    made = World(EVERY[request.param])
    for number, root in enumerate(made.space.roots):
        frame = made.frames(1, first=8 + number)
        made.space.map(
            root.first_address(root.indices[0]), frame, 0, every_right(made.format)
        ).done()
    return made


def mapped(world: World) -> list[int | None]:
    return [physical(world.space, root.span.first) for root in world.space.roots]


def test_the_pages_of_a_window_are_there_for_as_long_as_it_is_open(world: World) -> None:
    before, there = world.memory.octets.tobytes(), mapped(world)
    assert all(one is not None for one in there)
    with window_in(GUEST, world.memory, world.space.roots, entries) as span:
        assert span.size == PAGES * world.page
        for n in range(PAGES):
            at = span.first + n * world.page
            for inside in (0, world.page - 1):
                assert physical(world.space, at + inside) == (23 - n) * world.page + inside
            assert isinstance(look(world.space, at).steps[-1].entry, Leaf)
        assert physical(world.space, span.last + 1) is None
        assert mapped(world) == there
        now = np.frombuffer(before, np.uint8) != world.memory.octets
        changed = np.flatnonzero(now[: ARENA.start]).tolist()
        slot = look(world.space, span.first).steps
        [own] = [one.slot for one in slot if one.slot.address < ARENA.start and one.raw][-1:]
        entry = range(own.address, own.address + world.format.entry_bytes)
        assert changed and set(changed) <= set(entry), "one entry leads there"
    assert world.memory.octets[: ARENA.start].tobytes() == before[: ARENA.start]
    assert physical(world.space, span.first) is None


def test_a_window_is_closed_whatever_happens_in_it(world: World) -> None:
    before = world.memory.octets[: ARENA.start].tobytes()
    with (
        pytest.raises(KeyError),
        window_in(GUEST, world.memory, world.space.roots, entries),
    ):
        raise KeyError
    assert world.memory.octets[: ARENA.start].tobytes() == before


def test_a_window_lies_in_the_smallest_slot_that_has_room_unless_one_is_given(world: World) -> None:
    roots = world.space.roots
    size = min(root.table.format.levels[1].size for root in roots)
    allocator = TableAllocator(world.memory, Span(ARENA.start, ARENA.stop - 1))
    first, slots = find_hole(world.memory, roots, size)
    found = open_window(world.memory, roots, IMAGE, allocator, entries)
    assert (found.span.first, found.hole) == (first, slots)
    assert [slot.level for slot in slots] == [1], "beside the pages that are there"
    assert look(world.space, first).steps[-1].slot.table.address == ARENA.start
    top = len(world.format.levels) - 1
    root = roots[-1]
    at = next(n for n in root.indices if not world.space.read(root.table.slot(n)))
    hole = root.first_address(at), (root.table.slot(at),)
    other = open_window(world.memory, roots, IMAGE, allocator, entries, hole)
    assert (other.span.first, other.hole) == hole
    below = [step.slot.table.address for step in look(world.space, hole[0]).steps[-top:]]
    assert len(set(below)) == top and all(one in ARENA for one in below)
    for span in found.span, other.span:
        assert physical(world.space, span.first) == 23 * world.page


def test_the_tables_of_a_window_are_in_the_arena_and_none_is_where_they_have_no_room(
    world: World,
) -> None:
    size, roots = world.format.table_bytes(0), world.space.roots
    for short in (0, 1):
        arena = range(ARENA.start, ARENA.start + size - short)
        guest: Any = SimpleNamespace(image=SimpleNamespace(table_arena=arena, first=20))
        if short:
            with pytest.raises(OutOfTables), window_in(guest, world.memory, roots, entries):
                pass
        else:
            with window_in(guest, world.memory, roots, entries) as span:
                table = look(world.space, span.first).steps[-1].slot.table
                assert (table.address, table.level) == (arena.start, 0)


def test_a_space_that_leads_into_itself_everywhere_has_no_window(world: World) -> None:
    before = world.memory.octets.tobytes()
    for root in world.space.roots:
        for index in root.indices:
            slot = root.table.slot(index)
            raw = world.format.pointer(root.table.address, slot.level, 0)
            world.memory.store(slot.address, world.format.entry_bytes, raw)
    full = world.memory.octets.tobytes()
    assert full != before
    with (
        pytest.raises(SpaceError, match="the tables leave no"),
        window_in(GUEST, world.memory, world.space.roots, entries),
    ):
        pass
    assert world.memory.octets.tobytes() == full


def test_a_root_that_is_a_table_of_pages_alone_has_no_window() -> None:
    world = World(RISCV["sv39"])
    pages = Root(world.allocator.allocate(world.format, 0), Span.of(0, 2 << 20))
    with (
        pytest.raises(SpaceError, match=r"^no root has a table of tables with a free slot, where"),
        window_in(GUEST, world.memory, (pages,), entries),
    ):
        pass
    with window_in(GUEST, world.memory, (pages, *world.space.roots), entries) as span:
        assert physical(world.space, span.first) == 23 * world.page
