"""The life of a space, in formats that share nothing but the rules of the library."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from harness.paging.address import Physical, Span, Virtual
from harness.paging.allocator import TableAllocator
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.format import Format
from harness.paging.lock import TableLock
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.s390.formats import dat
from harness.paging.space import Space
from harness.paging.table import Root, Table
from harness.paging.tree import COUNTED_LEVELS
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import PAT, PAT_LARGE, PCD, long_mode, paging32
from tests.paging.spaces import (
    FORMATS,
    ROOM,
    SHORT,
    UNEVEN,
    World,
    empty,
    given,
    granted,
    leaf_level,
    physical,
    software_bit,
    tables_under,
)


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


@pytest.fixture
def x86() -> World:
    return World(FORMATS["x86-5"])


def test_every_page_of_a_batch_is_mapped_to_its_frame_at_every_level(world: World) -> None:
    for level in world.format.page_levels():
        first, size = 16 * world.size(1) if level == 0 else 0, world.size(level)
        world = World(world.format)
        frames = world.frames(5, level)[::-1].copy()
        world.space.map(Virtual(first), frames, level, world.rights("write"))
        for page, frame in enumerate(frames.tolist()):
            for offset in (0, size - 1):
                assert physical(world.space, first + page * size + offset) == frame + offset
            assert leaf_level(world.space, first + page * size) == level
        assert granted(world.space, first) == {"write"}


def test_a_batch_may_cross_tables_at_every_level_and_leaves_its_neighbours_alone(
    world: World,
) -> None:
    first = world.size(len(world.format.levels) - 1) - 3 * world.page
    world.space.map(Virtual(first), world.frames(7), 0, world.rights())
    assert [physical(world.space, first + n * world.page) for n in range(-1, 8)] == [
        None,
        *world.frames(7).tolist(),
        None,
    ]


def test_the_last_page_of_the_address_space_can_be_mapped_and_unmapped(world: World) -> None:
    last = world.space.roots[-1].span.last
    span = Span(last - 2 * world.page + 1, last)
    world.space.map(Virtual(span.first), world.frames(2), 0, world.rights())
    assert physical(world.space, last) == 10 * world.page - 1
    with world.space.unmap(span) as flush:
        assert flush.addresses.tolist() == [span.first, span.first + world.page]
    assert empty(world.space, last)


def test_a_batch_may_cross_from_one_root_to_the_next_where_they_meet() -> None:
    world = World(UNEVEN)
    border = world.space.roots[1].span.first
    world.space.map(Virtual(border - 2 * world.page), world.frames(4), 0, world.rights())
    assert [physical(world.space, border + n * world.page) for n in range(-2, 2)] == (
        world.frames(4).tolist()
    )
    with world.space.unmap(world.pages(border - world.page, 2)) as flush:
        assert len(flush.addresses) == 2


def test_an_empty_batch_changes_nothing(world: World) -> None:
    before = world.snapshot()
    world.space.map(Virtual(0), world.frames(0), 0, world.rights())
    world.space.map_range(Virtual(0), Physical(0), 0, world.rights())
    assert world.snapshot() == before


def test_map_range_takes_the_largest_pages_that_both_alignments_allow(world: World) -> None:
    small, large = world.size(0), world.size(1)
    first, size = large - small, small + 2 * large + 3 * small
    world.space.map_range(Virtual(first), Physical(5 * large - small), size, world.rights("write"))
    levels = [leaf_level(world.space, first + at) for at in range(0, size, small)]
    per_large = large // small
    assert levels == [0] + [1] * 2 * per_large + [0] * 3
    for at in range(0, size, small):
        assert physical(world.space, first + at) == 5 * large - small + at
    assert empty(world.space, first - 1)
    assert empty(world.space, first + size)


def test_map_range_never_takes_a_page_that_the_distance_misaligns(world: World) -> None:
    size = world.size(1)
    world.space.map_range(Virtual(size), Physical(2 * size + world.page), size, world.rights())
    assert leaf_level(world.space, size) == 0
    assert physical(world.space, 2 * size - 1) == 3 * size + world.page - 1


def test_map_range_reaches_the_largest_page_by_way_of_all_others() -> None:
    world = World(UNEVEN)
    span = Span(world.size(2) - world.page, 2 * world.size(2) + world.page - 1)
    world.space.map_range(Virtual(span.first), Physical(span.first), span.size, world.rights())
    tiles = [leaf_level(world.space, at) for at in range(span.first, span.last, world.page)]
    assert tiles == [0, *[2] * (world.size(2) // world.page), 0]


def test_attributes_move_to_where_a_larger_page_has_them(x86: World) -> None:
    x86.space.map_range(Virtual(0), Physical(0), x86.size(1) + x86.page, PAT | PCD)
    assert x86.space.read(x86.space.slot(Virtual(0), 1)) & (PAT_LARGE | PCD) == PAT_LARGE | PCD
    assert x86.space.read(x86.space.slot(Virtual(x86.size(1)), 0)) & (PAT | PCD) == PAT | PCD
    other = World(UNEVEN)
    color = UNEVEN.levels[0].bits["COLOR"]
    other.space.map_range(Virtual(0), Physical(0), other.size(1), color)
    raw = other.space.read(other.space.slot(Virtual(0), 1))
    assert raw & (color | UNEVEN.levels[1].bits["COLOR"]) == UNEVEN.levels[1].bits["COLOR"]


def test_unmap_clears_all_kinds_of_entries_and_passes_over_holes(world: World) -> None:
    space, page = world.space, world.page
    space.map(Virtual(0), world.frames(2), 0, world.rights())
    space.map(Virtual(4 * page), world.frames(1), 0, world.rights())
    space.map(Virtual(world.table_span), world.frames(1, 1), 1, world.rights())
    software = space.slot(Virtual(2 * page), 0)
    space.write(software, 0x60)
    with space.unmap(Span(0, 2 * world.table_span - 1)) as flush:
        assert flush.addresses.tolist() == [0, page, 4 * page, world.table_span]
        assert not flush.everything
    assert all(empty(space, at) for at in range(0, 2 * world.table_span, page))


def test_unmap_of_nothing_has_nothing_to_flush(world: World) -> None:
    assert not world.space.unmap(world.space.roots[0].span)


def test_protect_changes_rights_and_nothing_else(world: World) -> None:
    space, page = world.space, world.page
    used = world.format.accessed | world.format.dirty
    space.map(Virtual(0), world.frames(3), 0, world.rights("write", "user", "execute") | used)
    with space.protect(Span.of(page, page), world.rights("user")) as flush:
        assert flush.addresses.tolist() == [page]
    assert granted(space, page) == {"user"}
    assert granted(space, 0) == granted(space, 2 * page) == {"write", "user", "execute"}
    assert physical(space, page) == world.frames(3)[1]
    assert space.read(space.slot(Virtual(page), 0)) & used == used


def test_protect_of_pages_of_several_sizes_reaches_each_in_its_place() -> None:
    world = World(UNEVEN)
    color = [level.bits["COLOR"] for level in UNEVEN.levels]
    world.space.map(Virtual(0), world.frames(8), 0, color[0])
    world.space.map(Virtual(world.table_span), world.frames(1, 1), 1, color[1])
    half = color[0] & -color[0]
    with world.space.protect(Span(0, 2 * world.table_span - 1), half, color[0]) as flush:
        assert len(flush.addresses) == 9
    assert world.space.read(world.space.slot(Virtual(0), 0)) & color[0] == half
    raw = world.space.read(world.space.slot(Virtual(world.table_span), 1))
    assert raw & color[1] == color[1] & -color[1]


def test_protect_passes_over_what_software_keeps_at_any_level(world: World) -> None:
    space, kept = world.space, software_bit(world.format)
    for level in range(len(world.format.levels)):
        slot = space.slot(Virtual((1 << level) * world.size(level)), level)
        space.write(slot, kept)
        assert not space.protect(space.roots[0].span, world.rights("write"))
        assert space.read(slot) == kept


def test_only_what_narrows_is_flushed(world: World) -> None:
    space, format = world.space, world.format
    span = world.pages(0, 1)
    space.map(Virtual(0), world.frames(1), 0, world.rights("user"))

    def flushed(given: int, mask: int) -> bool:
        with space.protect(span, given, mask) as flush:
            return bool(len(flush.addresses))

    write, user = format.rights["write"], format.rights["user"]
    software = software_bit(format)
    assert not flushed(write, write)
    assert not flushed(format.accessed | format.dirty, format.accessed | format.dirty)
    assert not flushed(software, software)
    assert not flushed(write, write)
    assert flushed(0, format.dirty)
    assert flushed(0, format.accessed)
    assert flushed(0, write)
    assert flushed(write, write | user)
    assert flushed(write | user, write | user) is (format is not SHORT)  # SMEP, SMAP and the like
    assert flushed(format.levels[0].bits["G"], format.levels[0].bits["G"])
    execute = format.rights["execute"]
    assert not flushed(0, execute)
    assert flushed(execute, execute)


def test_a_flush_tells_whether_global_pages_are_in_it(world: World) -> None:
    lasting = world.format.levels[0].bits["G"]
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    world.space.map(Virtual(world.page), world.frames(1), 0, lasting)
    with world.space.unmap(world.pages(0, 1)) as flush:
        assert not flush.global_pages
    with world.space.unmap(world.pages(world.page, 1)) as flush:
        assert flush.global_pages


def test_what_lies_under_a_shared_table_is_flushed_everywhere(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    slot = space.slot(Virtual(0), 1)
    space.write(space.slot(Virtual(world.table_span), 1), space.read(slot))
    with space.unmap(world.pages(0, 1)) as flush:
        assert flush.everything
    assert empty(space, world.table_span)
    before = world.allocator.gave
    [table] = {t for t in tables_under(space) if t.level == 0}
    with space.free_empty(world.pages(0, 1)) as flush:
        assert flush.everything
    assert before(table), "the second pointer still leads there"
    with space.free_empty(world.pages(world.table_span, 1)) as flush:
        assert not flush.everything
    assert not before(table)


def test_the_bit_of_global_pages_says_nothing_in_a_pointer() -> None:
    world = World(FORMATS["x86-4"])
    format, space = world.format, world.space
    space.populate(Span.of(0, world.page), table_bits=format.open_pointer(1) | format.lasting)
    with space.free_empty(Span.of(0, world.page)) as flush:
        assert flush.addresses.tolist() and not flush.global_pages


def test_rewrite_is_given_what_is_there_and_nothing_else(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(2), 0, world.rights())
    space.write(space.slot(Virtual(3 * world.page), 0), 0x60)
    seen = []

    def change(raw: Words, level: int) -> Words:
        seen.append((level, len(raw)))
        return np.where(raw == 0x60, np.uint64(0x40), raw)

    assert not space.rewrite(Span(0, world.table_span - 1), change)
    assert set(seen) == {(0, 3)}
    assert space.read(space.slot(Virtual(3 * world.page), 0)) == 0x40


def test_a_rewrite_that_is_refused_for_its_last_entry_changes_none(world: World) -> None:
    first = world.table_span - world.page
    world.space.map(Virtual(first), world.frames(2), 0, world.rights("write"))
    before = world.snapshot()
    leaf = world.format.levels[0].leaf
    assert leaf is not None
    wrong = np.uint64(leaf.reserved_mask & -leaf.reserved_mask)
    last = world.space.read(world.space.slot(Virtual(world.table_span), 0))

    def change(raw: Words, level: int) -> Words:
        return np.where(raw == last, raw | wrong, np.uint64(0))

    with pytest.raises(SpaceError, match="malformed"):
        world.space.rewrite(world.pages(first, 2), change)
    assert world.snapshot() == before


def test_populate_makes_the_tables_so_that_mapping_needs_none(world: World) -> None:
    span = Span(0, 3 * world.table_span - 1)
    world.space.populate(span)
    tables = world.space.account().tables
    assert tables[0] == 3
    world.allocator.remaining = 0
    world.space.map(Virtual(0), world.frames(3 * 8), 0, world.rights())
    assert world.space.account().tables == tables


def test_tables_are_given_the_rights_that_are_asked_for(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights("write", "user"), world.rights("write"))
    assert granted(space, 0) == {"write"}


def test_free_empty_frees_what_is_empty_and_only_that(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    space.map(Virtual(world.table_span), world.frames(1), 0, world.rights())
    with space.unmap(world.pages(0, 1)):
        pass
    with space.free_empty(Span(0, 2 * world.table_span - 1)) as flush:
        assert flush.addresses.tolist() == [0]
    assert space.account().tables[0] == 1
    assert physical(space, world.table_span) is not None
    with space.unmap(world.pages(world.table_span, 1)):
        pass
    roots = len({root.table for root in space.roots})
    with space.free_empty(space.roots[0].span):
        pass
    assert space.account().tables == (*[0] * (len(world.format.levels) - 1), roots)


def test_tables_are_freed_after_the_flush_and_not_before(world: World) -> None:
    space = world.space
    space.populate(world.pages(0, 1))
    [table] = [table for table in tables_under(space) if table.level == 0]
    flush = space.free_empty(world.pages(0, 1))
    assert world.allocator.gave(table)
    assert space.account().tables[0] == 1
    flush.done()
    assert not world.allocator.gave(table)
    assert space.account().tables[0] == 0


def test_a_flush_that_is_done_after_the_end_of_the_space_frees_nothing_again(world: World) -> None:
    space = world.space
    space.populate(world.pages(0, 1))
    [table] = [table for table in tables_under(space) if table.level == 0]
    late = space.free_empty(world.pages(0, 1))
    space.tear_down().done()
    assert not world.allocator.gave(table)
    again = world.allocator.allocate(world.format, 0)
    late.done()
    assert world.allocator.gave(again)


def test_the_account_is_of_every_table_by_level_and_zero_in_the_end(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    space.map(Virtual(world.size(2)), world.frames(1), 0, world.rights())
    found = tables_under(space)
    account = space.account()
    for level in range(len(world.format.levels)):
        assert account.tables[level] == sum(table.level == level for table in found)
    entry = world.format.entry_bytes
    sizes = {t: entry * world.format.levels[t.level].entries for t in found}
    assert account.bytes == sum(sizes.values())
    assert account.counted == sum(n for t, n in sizes.items() if t.level < COUNTED_LEVELS)
    with space.tear_down() as flush:
        assert flush.everything and flush.global_pages
        assert space.account() == account
    assert space.account().bytes == space.account().counted == 0
    assert not any(space.account().tables)
    assert not any(map(world.allocator.gave, found))


def test_bits_beyond_the_mask_are_not_to_be_given(world: World) -> None:
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    write = world.format.rights["write"]
    before = world.snapshot()
    with pytest.raises(SpaceError, match=f"bits {write:#x} are not to be given so"):
        world.space.protect(world.pages(0, 1), write, 0)
    with pytest.raises(SpaceError, match=f"bits {write:#x} are not to be given so"):
        world.space.protect(world.pages(0, 1), write | world.format.dirty, world.format.dirty)
    assert world.snapshot() == before


@pytest.mark.parametrize(("name", "counted"), [("x86-4", 3), ("x86-5", 3), ("uneven", 3)])
def test_as_page_tables_count_those_of_the_three_lowest_levels(name: str, counted: int) -> None:
    """What Linux shows as VmPTE: PTE, PMD and PUD tables (mm_pgtables_bytes)."""
    world = World(FORMATS[name])
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    sizes = [world.format.table_bytes(level) for level in range(counted)]
    roots_counted = len(world.format.levels) == counted
    extra = sizes[-1] if roots_counted else 0  # a table for each of the two roots
    assert world.space.account().counted == sum(sizes) + extra


def test_a_pointer_in_the_first_and_in_the_last_slot_of_a_root_is_taken_over(world: World) -> None:
    for root in world.space.roots:
        for end in root.span.first, root.span.last + 1 - world.page:
            world.space.map(Virtual(end), world.frames(1), 0, world.rights())
    again = Space(world.memory, world.space.roots, world.allocator)
    assert again.account() == world.space.account()
    again.tear_down().done()
    assert not given(world)


def test_to_put_nothing_changes_nothing(world: World) -> None:
    before = world.snapshot()
    world.space.put(world.space.roots[0].table.slot(0), np.zeros(0, np.uint64))
    assert world.snapshot() == before


def test_there_is_no_level_above_the_root_s(world: World) -> None:
    for level in -1, len(world.format.levels), len(world.format.levels) + 1:
        with pytest.raises(SpaceError, match=f"has pages at levels .*, not at {level}"):
            world.space.map(Virtual(0), world.frames(1), level, world.rights())


def test_the_root_needs_no_room(world: World) -> None:
    """Tables at the roots' level are there already."""
    top = len(world.format.levels) - 1
    span = Span.of(0, world.size(top) * world.format.levels[top].entries)
    if top < 3:  # in x86 no root serves a whole table
        world.allocator.span = Span.of(0, world.format.table_bytes(top))
        world.space.populate(span, top)


def test_a_table_that_no_pointer_can_lead_to_goes_back() -> None:
    format, base = FORMATS["x86-4"], 1 << 40  # MAXPHYADDR is 40
    memory = BufferMemory(np.zeros(1 << 16, np.uint8), base)
    allocator = TableAllocator(memory, memory.span)
    root = allocator.allocate(format, 3)
    space = Space(memory, (Root(root, Span(0, (1 << 47) - 1)),), allocator)
    with pytest.raises(SpaceError, match="cannot be put in place"):
        space.populate(Span(0, 0))
    for table in range(1, 16):
        for level in range(4):
            assert not allocator.gave(Table(format, Physical(base + 0x1000 * table), level))


def test_tables_that_several_places_need_are_made_once(world: World) -> None:
    """Two level-0 tables below one of each other level: that many are enough."""
    world.allocator.remaining = len(world.format.levels)
    first = Virtual(world.table_span - world.page)
    world.space.map(first, world.frames(2), 0, world.rights())
    assert world.allocator.remaining == 0
    assert world.space.account().tables[:-1] == (2, *[1] * (len(world.format.levels) - 2))


def test_runs_reach_the_last_address_of_a_span_even_if_it_begins_an_entry(world: World) -> None:
    world.space.map(Virtual(world.table_span - world.page), world.frames(2), 0, world.rights())
    first, second = world.space.runs(Span(0, world.table_span))
    assert first.span == Span(0, world.table_span - 1)
    assert second.span == Span.of(world.table_span, world.page)


def test_tables_of_others_are_not_taken_over(world: World) -> None:
    theirs = TableAllocator(world.memory, Span(ROOM.size // 2, ROOM.last))
    table = theirs.allocate(world.format, 0)
    slot = world.space.slot(Virtual(0), 1)
    account = world.space.account()
    world.space.write(slot, world.format.pointer(table.address, 1, world.rights()))
    again = Space(world.memory, world.space.roots, world.allocator)
    assert again.account() == account
    assert not again.owns(table)
    again.tear_down().done()
    assert theirs.gave(table)


def test_of_a_root_s_table_only_the_slots_that_it_serves_are_taken_over() -> None:
    world = World(FORMATS["x86-4"])
    lower, upper = world.space.roots
    for root in lower, upper:
        world.space.map(Virtual(root.span.first), world.frames(1), 0, world.rights())
    half = Space(world.memory, (lower,), world.allocator)
    assert half.account().tables == (1, 1, 1, 1)


def test_free_empty_flushes_where_each_table_was(world: World) -> None:
    large = world.table_span
    for table in (0, 1, 2):
        world.space.populate(world.pages(table * large, 1))
    with world.space.free_empty(Span(large, 3 * large - 1)) as flush:
        assert flush.addresses.tolist() == [large, 2 * large]
    with world.space.free_empty(Span(0, 3 * large - 1)) as flush:
        assert flush.addresses.tolist() == [0]


def test_a_slot_that_holds_nothing_may_be_cut(world: World) -> None:
    large = world.table_span
    world.space.map(Virtual(large), world.frames(1, 1), 1, world.rights())
    for span in (
        Span(large, 2 * large + world.page - 1),
        Span(large - world.page, 2 * large - 1),
        Span(large - world.page, 2 * large + world.page - 1),
    ):
        (run,) = world.space.filled(span)
        assert run.span == Span.of(large, large)


def test_a_table_is_shared_while_more_than_one_pointer_leads_to_it(world: World) -> None:
    space, large = world.space, world.table_span
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    slot, other = (space.slot(Virtual(at), 1) for at in (0, large))
    pointer = space.read(slot)
    table = space.path(0)[-1]
    for shared in (False, True, False, True):
        assert space.is_shared(space.path(0)) is shared
        space.write(other, 0 if shared else pointer)
    for _ in range(3):
        space.write(slot, 0)
        space.write(slot, pointer)
    assert space.is_shared(space.path(0)) is False
    assert space.path(0)[-1] == table and space.owns(table)


def test_what_lies_below_a_shared_table_is_shared(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    top = space.path(Virtual(0))[0].level
    first, other = (space.slot(Virtual(n * world.format.levels[top].size), top) for n in (0, 1))
    assert not space.is_shared(space.path(Virtual(0)))
    space.write(other, space.read(first))
    assert space.is_shared(space.path(Virtual(0)))


def test_a_space_owns_what_its_allocator_gave_at_the_level_for_which_it_did(world: World) -> None:
    theirs = TableAllocator(world.memory, Span(ROOM.size // 2, ROOM.last))
    root = world.space.roots[0].table
    assert world.space.owns(root)
    assert not Space(world.memory, world.space.roots, theirs).owns(root)
    assert not world.space.owns(Table(world.format, root.address, root.level - 1))


def test_a_table_that_was_linked_since_the_way_was_walked_is_gone_down_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, at = world.space, Virtual(world.table_span)
    space.map(at, world.frames(1), 0, world.rights())
    every = space.path(at)
    walked = iter([every[:1], every[:2]])  # as they were before each next table was linked
    monkeypatch.setattr(space, "path", lambda address, level=0: next(walked, every))
    assert space.lowest(at, 0) == every[-1]


def test_tables_that_are_there_are_taken_over_with_the_pointers_to_each(world: World) -> None:
    at = Virtual(0)
    world.space.map(at, world.frames(1), 0, world.rights())
    slot, other = (world.space.slot(Virtual(n * world.table_span), 1) for n in (0, 1))
    alone = Space(world.memory, world.space.roots[:1], world.allocator)
    assert not alone.is_shared(alone.path(at))
    world.space.write(other, world.space.read(slot))
    again = Space(world.memory, world.space.roots, world.allocator)
    assert again.is_shared(again.path(at)) and again.owns(again.path(at)[-1])
    again.write(other, 0)
    assert not again.is_shared(again.path(at))


def test_memory_that_says_of_each_word_that_it_is_there_is_memory(world: World) -> None:
    class Sure(BufferMemory):
        def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
            words, _ = super().gather(addresses, size)
            return words, np.ones(len(words), np.bool_)

    space = Space(Sure(world.memory.octets), world.space.roots, world.allocator)
    space.map(Virtual(0), world.frames(3), 0, world.rights())
    with space.unmap(world.pages(0, 3)) as flush:
        assert flush.addresses.tolist() == [n * world.page for n in range(3)]


def test_free_empty_leaves_the_tables_of_others_alone(world: World) -> None:
    theirs = TableAllocator(world.memory, Span(ROOM.size // 2, ROOM.last))
    empty_table = theirs.allocate(world.format, 0)
    slot = world.space.slot(Virtual(0), 1)
    world.space.write(slot, world.format.pointer(empty_table.address, 1, world.rights()))
    before = world.memory.octets.tobytes()
    assert not world.space.free_empty(world.pages(0, 1))
    assert world.memory.octets.tobytes() == before
    assert theirs.gave(empty_table)


def test_the_lock_of_a_table_that_is_not_the_space_s_is_the_one_of_its_upper_levels(
    world: World,
) -> None:
    foreign = Table(world.format, Physical(ROOM.last + 1 - world.format.table_bytes(0)), 0)
    assert world.space.lock(foreign) is world.space.lock(world.space.roots[0].table)
    world.space.populate(world.pages(0, 1))
    [own] = [table for table in tables_under(world.space) if table.level == 0]
    assert world.space.lock(own) is not world.space.lock(foreign)


def test_a_slot_without_memory_cannot_be_read(world: World) -> None:
    beyond = Table(world.format, Physical(ROOM.last + 1), 0)
    for read in (
        lambda: world.space.read(beyond.slot(0)),
        lambda: world.space.words(beyond.slot(0), 1),
        lambda: world.space.words(beyond.slot(0), 2),
        lambda: world.space.write(beyond.slot(0), 0),
    ):
        with pytest.raises(SpaceError, match="has no memory behind it"):
            read()


def test_a_space_that_was_torn_down_refuses_all(world: World) -> None:
    with world.space.tear_down():
        pass
    with pytest.raises(SpaceError, match="torn down"):
        world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    with pytest.raises(SpaceError, match="torn down"):
        world.space.tear_down()


def test_tear_down_clears_roots_that_belong_to_somebody_else(world: World) -> None:
    roots = tuple(
        Root(
            Table(world.format, Physical(ROOM.last + 1 - root.table.size), root.table.level),
            root.span,
        )
        for root in world.space.roots[:1]
    )
    world.allocator.span = Span(0, ROOM.last // 2)
    space = Space(world.memory, roots, world.allocator)
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    assert space.account().tables[-1] == 0
    with space.tear_down():
        pass
    assert not any(world.memory.octets[roots[0].table.address :])


def test_a_space_takes_over_the_tables_that_its_roots_lead_to(world: World) -> None:
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    again = Space(world.memory, world.space.roots, world.allocator)
    assert again.account() == world.space.account()
    with again.unmap(world.pages(0, 1)), again.free_empty(world.pages(0, 1)):
        pass
    assert again.account().tables[0] == 0


def test_a_root_s_pointers_for_addresses_of_another_root_are_not_the_space_s(world: World) -> None:
    top, lower, upper = len(world.format.levels) - 1, *halves(world)
    roots = [world.allocator.allocate(world.format, top) for _ in range(2)]
    served = []
    for root, serves in zip(roots, (lower, upper), strict=True):
        for half in lower, upper:
            below = world.allocator.allocate(world.format, top - 1)
            pointer = world.format.pointer(below.address, top, world.rights())
            slot = root.slot_for(half.first)
            world.memory.store(slot.address, world.format.entry_bytes, pointer)
            served.append((below, half == serves))
    space = Space(world.memory, tuple(map(Root, roots, (lower, upper))), world.allocator)
    assert [space.owns(table) for table, _ in served] == [serves for _, serves in served]
    with space.tear_down():
        pass
    assert [world.allocator.gave(table) for table, _ in served] == [
        not serves for _, serves in served
    ]


def halves(world: World) -> tuple[Span, Span]:
    """The addresses that the lower and the upper half of a root table serve."""
    one, other = (root.span for root in world.space.roots)
    if len({root.table for root in world.space.roots}) > 1:
        return Span.of(0, one.size // 2), Span.of(one.size // 2, one.size // 2)
    return one, other


def test_a_table_that_is_linked_again_before_the_flush_is_not_freed_by_it(world: World) -> None:
    space = world.space
    space.populate(world.pages(0, 1))
    slot = space.slot(Virtual(0), 1)
    pointer = space.read(slot)
    with space.free_empty(world.pages(0, 1)):
        upper = space.slot(Virtual(0), 1)
        space.write(upper, pointer)
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    assert physical(space, 0) == world.frames(1)[0]
    assert len(given(world)) == sum(space.account().tables)


def test_a_self_map_is_no_table_to_change_through(x86: World) -> None:
    root = x86.space.roots[0].table
    top = x86.size(root.level)
    pointer = x86.format.pointer(root.address, root.level, x86.format.open_pointer(root.level))
    x86.space.write(root.slot(3), pointer)
    again = Space(x86.memory, x86.space.roots, x86.allocator)
    for space in x86.space, again:
        before = x86.snapshot()
        with pytest.raises(SpaceError, match="not this space's"):
            space.map(Virtual(3 * top), x86.frames(1), 0, x86.rights())
        assert x86.snapshot() == before
    again.map(Virtual(0), x86.frames(1), 0, x86.rights())
    with again.unmap(x86.pages(0, 1)) as flush:
        assert flush.everything, "the page was reachable through the self-map too"


@pytest.mark.parametrize("action", ["map", "map_range", "populate", "slot"])
def test_every_failure_of_an_allocation_leaves_the_space_as_it_was(
    world: World, action: str
) -> None:
    first = world.size(len(world.format.levels) - 1) - 3 * world.table_span
    actions: dict[str, Callable[[], object]] = {
        "map": lambda: world.space.map(
            Virtual(first), world.frames(world.table_span * 6 // world.page), 0, world.rights()
        ),
        "map_range": lambda: world.space.map_range(
            Virtual(first + world.page), Physical(0), 4 * world.table_span, world.rights()
        ),
        "populate": lambda: world.space.populate(Span.of(first, 6 * world.table_span)),
        "slot": lambda: world.space.slot(Virtual(first), 0),
    }
    tables = world.space.account()
    for allowed in range(100):
        world.allocator.remaining = allowed
        before = [world.space.read(slot) for r in world.space.roots for slot in r.table.slots()]
        try:
            actions[action]()
        except OutOfTables:
            assert world.space.account() == tables
            assert len(given(world)) == sum(tables.tables)
            after = [world.space.read(slot) for r in world.space.roots for slot in r.table.slots()]
            assert after == before
        else:
            break
    needed = sum(world.space.account().tables) - sum(tables.tables)
    assert allowed == needed > 0


def test_tables_that_a_failure_gave_back_are_used_again(world: World) -> None:
    world.allocator.remaining = 1
    with pytest.raises(OutOfTables):
        world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    assert given(world) == {root.table.address for root in world.space.roots}
    used = world.allocator.next
    world.allocator.remaining = 1
    world.space.populate(world.pages(0, 1), level=len(world.format.levels) - 2)
    assert world.allocator.next == used
    assert len(given(world)) == len({root.table for root in world.space.roots}) + 1


def test_a_table_is_empty_whatever_it_held_before(world: World) -> None:
    world.space.map(Virtual(0), world.frames(3), 0, world.rights())
    world.space.tear_down().done()
    assert not given(world)
    used, space = world.allocator.next, world.new_space()
    space.populate(world.pages(0, 1))
    assert world.allocator.next == used
    assert all(empty(space, n * world.page) for n in range(3))


def hooked(world: World, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Has something happen after a request was checked and before the first lock is taken."""
    lock = world.space.lock

    def late(table: Table) -> TableLock:
        monkeypatch.undo()
        action()
        return lock(table)

    monkeypatch.setattr(world.space, "lock", late)


def test_what_the_machine_notes_while_rights_change_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, used = world.space, world.format.accessed | world.format.dirty
    space.map(Virtual(0), world.frames(1), 0, world.rights("write"))
    slot = space.slot(Virtual(0), 0)
    hooked(world, monkeypatch, lambda: space.write(slot, space.read(slot) | used))
    space.protect(world.pages(0, 1), world.rights()).done()
    assert space.read(slot) & used == used
    assert granted(space, 0) == set()


def test_what_others_unmap_meanwhile_is_not_rewritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(2), 0, world.rights())
    seen: list[int] = []

    def change(raw: Words, level: int) -> Words:
        seen.append(len(raw))
        assert raw.all()
        return raw

    hooked(world, monkeypatch, lambda: space.unmap(world.pages(0, 1)).done())
    assert not space.rewrite(world.pages(0, 2), change)
    assert seen == [2, 1]


def test_what_others_map_meanwhile_is_theirs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    space.map(Virtual(2 * world.page), world.frames(1), 0, world.rights())
    late = Virtual(world.page)
    hooked(world, monkeypatch, lambda: space.map(late, world.frames(1), 0, world.rights()))
    with space.unmap(world.pages(0, 3)) as flush:
        assert flush.addresses.tolist() == [0, 2 * world.page]
    assert physical(space, late) == world.frames(1)[0]


def test_memory_that_is_used_up_is_a_sentence(world: World) -> None:
    world.allocator.span = Span(0, world.allocator.next - 1)
    before = world.snapshot()
    with pytest.raises(OutOfTables, match="no room for a level-"):
        world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    assert world.snapshot() == before


def test_populating_more_than_memory_holds_is_refused_at_once(x86: World) -> None:
    with pytest.raises(OutOfTables, match="more level-0 tables"):
        x86.space.populate(x86.space.roots[0].span)


def reserved_bit(format: Format) -> int:
    """The lowest bit that is reserved in a level-0 leaf."""
    leaf = format.levels[0].leaf
    assert leaf is not None
    return leaf.reserved_mask & -leaf.reserved_mask


# Every request that cannot be, with the words that its refusal must have.
REFUSED: dict[str, tuple[Callable[[World], object], str]] = {
    "overlap": (
        lambda w: w.space.map(Virtual(0), w.frames(4), 0, 0),
        r"^{page:#x} is taken: its level-0 entry is 0x",
    ),
    "a page over a table": (
        lambda w: w.space.map(Virtual(0), w.frames(1, 1), 1, 0),
        r"^0x0 is taken: its level-1 entry is 0x",
    ),
    "a table over a page": (
        lambda w: w.space.map(Virtual(3 * w.table_span + w.page), w.frames(1), 0, 0),
        r"is taken: its level-1 entry is 0x.*, leaf",
    ),
    "a page over a software entry": (
        lambda w: w.space.map(Virtual(2 * w.page), w.frames(1), 0, 0),
        r"is taken: its level-0 entry is 0x60",
    ),
    "misaligned address": (
        lambda w: w.space.map(Virtual(4 * w.page + 8), w.frames(1), 0, 0),
        r"is not a multiple of the page size {page:#x}",
    ),
    "misaligned address of a large page": (
        lambda w: w.space.map(Virtual(4 * w.table_span + w.page), w.frames(1, 1), 1, 0),
        r"is not a multiple of the page size {large:#x}",
    ),
    "misaligned frame": (
        lambda w: w.space.map(Virtual(4 * w.page), w.frames(3) + np.uint64(8), 0, 0),
        r"level 0: no entry of this kind can hold physical address",
    ),
    "misaligned frame of one large page": (
        lambda w: w.space.map(Virtual(4 * w.table_span), w.frames(1, first=9), 1, 0),
        r"level 1: no entry of this kind can hold physical address",
    ),
    "a frame beyond the width of addresses": (
        lambda w: w.space.map(Virtual(4 * w.page), w.frames(2) | np.uint64(1 << 60), 0, 0),
        r"at {four:#x}, level 0: no entry of this kind can hold physical address 0x1",
    ),
    "one frame beyond the width of addresses": (
        lambda w: w.space.map(Virtual(4 * w.page), w.frames(1) | np.uint64(1 << 60), 0, 0),
        r"at {four:#x}, level 0: no entry of this kind can hold physical address 0x1",
    ),
    "a range that wraps": (
        lambda w: w.space.map(Virtual(w.space.roots[-1].span.last + 1 - w.page), w.frames(2), 0, 0),
        r"leaves 0x.*, the addresses that its level-\d root serves",
    ),
    "a range that leaves its half": (
        lambda w: w.space.map_range(
            Virtual(w.space.roots[-1].span.last + 1 - w.page), Physical(0), 2 * w.page, 0
        ),
        r"leaves 0x.*, the addresses that its level-\d root serves",
    ),
    "an address beyond the roots": (
        lambda w: w.space.map(Virtual(w.space.roots[-1].span.last + 1), w.frames(1), 0, 0),
        r"is not an address of this space",
    ),
    "a negative address": (
        lambda w: w.space.map(Virtual(-w.page), w.frames(1), 0, 0),
        r"-0x.* is not an address of this space",
    ),
    "a range at a negative address": (
        lambda w: w.space.map(Virtual(-w.page), w.frames(2), 0, 0),
        r"-0x.* is not an address of this space",
    ),
    "a range of sizes at a negative address": (
        lambda w: w.space.map_range(Virtual(-w.page), Physical(0), 2 * w.page, 0),
        r"-0x.* is not an address of this space",
    ),
    "a range of frames below zero": (
        lambda w: w.space.map_range(Virtual(4 * w.page), Physical(-w.page), w.page, 0),
        r"at {four:#x}, level 0: no entry of this kind can hold physical address -0x",
    ),
    "a range of frames that ends beyond the width of addresses": (
        lambda w: w.space.map_range(Virtual(4 * w.page), Physical(1 << 60), 2 * w.page, 0),
        r"at {four:#x}, level 0: no entry of this kind can hold physical address 0x1",
    ),
    "a range of sizes that are no multiple of a page": (
        lambda w: w.space.map_range(Virtual(4 * w.page), Physical(0), w.page + 8, 0),
        r"cannot map {more:#x} bytes at {four:#x} to 0x0: not all are multiples of {page:#x}, a"
        r" page at level 0",
    ),
    "a range that begins in a page": (
        lambda w: w.space.map_range(Virtual(4 * w.page + 8), Physical(8), w.page, 0),
        r"cannot map {page:#x} bytes at .* to 0x8: not all are multiples of {page:#x}",
    ),
    "a range whose frames begin in a page": (
        lambda w: w.space.map_range(Virtual(4 * w.page), Physical(8), w.page, 0),
        r"cannot map {page:#x} bytes at {four:#x} to 0x8: not all are multiples of {page:#x}",
    ),
    "a range of a negative size": (
        lambda w: w.space.map_range(Virtual(4 * w.page), Physical(0), -w.page, 0),
        r"cannot map -0x.* bytes at {four:#x}",
    ),
    "a level that has no pages": (
        lambda w: w.space.map(Virtual(0), w.frames(1), 7, 0),
        r"has pages at levels 0, 1, 2, not at 7",
    ),
    "a negative level": (
        lambda w: w.space.map(Virtual(0), w.frames(1), -1, 0),
        r"has pages at levels 0, 1, 2, not at -1",
    ),
    "a slot at a level that has no tables": (
        lambda w: w.space.slot(Virtual(0), 7),
        r"^0x0 has tables at levels 0 to \d, not at 7",
    ),
    "a flag that the format lacks": (
        lambda w: w.space.map(Virtual(4 * w.page), w.frames(2), 0, w.format.levels[0].presence),
        r"at {four:#x}, level 0: bits 0x.* are not free in a",
    ),
    "a flag wider than an entry": (
        lambda w: w.space.map(Virtual(4 * w.page), w.frames(1), 0, 1 << 64),
        r"at {four:#x}, level 0: bits 0x1[0]* are not free in a",
    ),
    "a flag of tables that the format lacks": (
        lambda w: w.space.map(
            Virtual(9 * w.table_span), w.frames(1), 0, 0, table_bits=w.format.levels[0].presence
        ),
        r"cannot be put in place: bits 0x.* are not free",
    ),
    "protect with a flag that the format lacks": (
        lambda w: w.space.protect(w.pages(0, 4), w.format.levels[0].presence),
        r"at 0x0, level 0",
    ),
    "a flag of a range that the format lacks": (
        lambda w: w.space.map_range(
            Virtual(4 * w.page), Physical(0), w.page, w.format.levels[0].presence
        ),
        r"at {four:#x}, level 0: bits 0x.* are not free in a",
    ),
    "protect under a mask that takes the address": (
        lambda w: w.space.protect(w.pages(0, 4), 0, (1 << 32) - 1),
        r"cannot change 0x0 under mask 0xfffffff. at 0x0, level 0",
    ),
    "protect under a mask wider than an entry": (
        lambda w: w.space.protect(w.pages(0, 4), 0, 1 << 64),
        r"cannot change 0x0 under mask 0x10000000000000000 at 0x0, level 0",
    ),
    "unmap that begins in a page": (
        lambda w: w.space.unmap(Span(8, 2 * w.page - 1)),
        r"does not begin and end at a multiple of {page:#x}.*level 0",
    ),
    "protect of nothing under a mask that takes the address": (
        lambda w: w.space.protect(w.pages(4 * w.page, 1), 0, (1 << 32) - 1),
        r"cannot change 0x0 under mask 0xfffffff. at {four:#x}, level 0",
    ),
    "populate of a level that has no tables": (
        lambda w: w.space.populate(w.pages(0, 1), 7),
        r"^0x0 has tables at levels 0 to \d, not at 7",
    ),
    "protect with a bit that is reserved": (
        lambda w: w.space.protect(w.pages(0, 4), *[reserved_bit(w.format)] * 2),
        r"at 0x0, level 0: bits 0x\w+ are not free in a",
    ),
    "protect under a mask that takes presence": (
        lambda w: w.space.protect(w.pages(0, 4), 0, w.format.levels[0].presence),
        r"cannot change 0x0 under mask 0x\w+ at 0x0, level 0",
    ),
    "unmap of a part of a page": (
        lambda w: w.space.unmap(Span(0, w.page)),
        r"does not begin and end at a multiple of {page:#x}",
    ),
    "unmap that cuts the end of a large page": (
        lambda w: w.space.unmap(Span(0, 3 * w.table_span + w.page - 1)),
        r"cuts the level-1 entry 0x.* at {third:#x}: split it first",
    ),
    "unmap that cuts the start of a large page": (
        lambda w: w.space.unmap(Span(3 * w.table_span + w.page, 4 * w.table_span - 1)),
        r"cuts the level-1 entry 0x.* at {third:#x}: split it first",
    ),
    "protect with a malformed entry in the way": (
        lambda w: w.space.protect(Span(0, 6 * w.table_span - 1), 0),
        r"^the level-1 entry 0x.* at {fifth:#x} is malformed: it has 0x.* \(b",
    ),
    "unmap with a malformed entry in the way": (
        lambda w: w.space.unmap(Span(0, 6 * w.table_span - 1)),
        r"^the level-1 entry 0x.* at {fifth:#x} is malformed: it has 0x.* \(b",
    ),
    "map with a malformed entry in the way": (
        lambda w: w.space.map(Virtual(5 * w.table_span), w.frames(1), 0, 0),
        r"^{fifth:#x} is taken: its level-1 entry is 0x.*, malformed",
    ),
    "map into a foreign table": (
        lambda w: w.space.map(Virtual(6 * w.table_span), w.frames(1), 0, 0),
        r"^{sixth:#x} lies in the level-0 table at 0x.*, which is not this space's",
    ),
    "unmap in a foreign table": (
        lambda w: w.space.unmap(Span(0, 7 * w.table_span - 1)),
        r"malformed|not this space's",
    ),
    "unmap beyond the roots": (
        lambda w: w.space.unmap(Span.of(w.space.roots[-1].span.last + 1, w.page)),
        r"is not an address of this space",
    ),
}
# The made-up format's tables span too little to hold all that stands in the way in one.
CASES = [pytest.param(name, case, id=f"{name}-{case}") for name, case in product(FORMATS, REFUSED)]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_request_that_cannot_be_is_a_sentence_and_changes_nothing(name: str, case: str) -> None:
    world = World(FORMATS[name])
    space, large = world.space, world.table_span
    foreign = world.new_space()
    foreign.map(Virtual(6 * large), world.frames(1), 0, world.rights())
    space.map(Virtual(world.page), world.frames(1), 0, world.rights())
    space.write(space.slot(Virtual(2 * world.page), 0), 0x60)
    space.map(Virtual(3 * large), world.frames(1, 1), 1, world.rights())
    pointer = world.format.levels[1].pointer
    assert pointer is not None
    malformed = pointer.reserved_mask & -pointer.reserved_mask | pointer.when.value
    space.write(space.slot(Virtual(5 * large), 1), malformed)
    shared = foreign.read(foreign.slot(Virtual(6 * large), 1))
    space.write(space.slot(Virtual(6 * large), 1), shared)
    before = world.snapshot()
    action, words = REFUSED[case]
    expected = words.format(
        page=world.page,
        large=large,
        four=4 * world.page,
        more=world.page + 8,
        third=3 * large,
        fifth=5 * large,
        sixth=6 * large,
    )
    with pytest.raises(SpaceError) as refusal:
        action(world)
    assert re.search(expected, str(refusal.value)), str(refusal.value)
    assert re.search(r"0x\d.*levels? ?-?\d|level-\d.*0x\d", str(refusal.value))
    assert "\n" not in str(refusal.value)
    assert world.snapshot() == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_range_of_sizes_that_leaves_the_space_is_refused_whole(name: str) -> None:
    world = World(FORMATS[name])
    end, size = world.space.roots[-1].span.last + 1, world.page + world.table_span
    first = Virtual(end - world.page)
    frame = Physical(first % world.table_span)
    with pytest.raises(SpaceError) as refusal:
        world.space.map_range(first, frame, size, 0)
    assert str(refusal.value).startswith(f"{Span.of(first, size)} ")


@pytest.mark.parametrize("name", ["x86-4", "x86-5"])
def test_more_tables_than_there_is_room_for_are_not_begun_with(name: str) -> None:
    world = World(FORMATS[name])
    before = world.snapshot()
    with pytest.raises(OutOfTables, match="needs more level-0 tables than there is room for"):
        world.space.populate(world.space.roots[0].span)
    assert world.snapshot() == before


def test_an_address_in_two_fields_is_written_as_one_page_s_is() -> None:
    """A 4M page above 4 GiB has bits 39:32 of its address in 20:13 (SDM table 4-4)."""
    world = World(paging32(40, True, True))
    frames = [0x40_0000, 1 << 32, 0xFF_FFC0_0000]
    world.space.map(Virtual(0), np.array(frames, np.uint64), 1, 0)
    entries = [world.space.read(world.space.slot(Virtual(n << 22), 1)) for n in range(3)]
    assert entries == [0x40_0081, 0x2081, 0xFFDF_E081]


def test_a_bit_that_small_pages_lack_is_refused_where_no_page_is() -> None:
    """Bit 12 is PAT of a large page, and of the address of a small one."""
    world = World(FORMATS["x86-4"])
    with pytest.raises(SpaceError, match="cannot change 0x1000 under mask 0x1000 at 0x0, level 0"):
        world.space.protect(world.pages(0, 1), PAT_LARGE, PAT_LARGE)


@pytest.mark.parametrize("name", FORMATS)
def test_of_a_run_that_is_cut_the_entry_at_the_cut_is_named(name: str) -> None:
    world = World(FORMATS[name])
    large = world.table_span
    world.space.map(Virtual(large), world.frames(2, 1), 1, world.rights())
    first, second = (
        world.space.read(world.space.slot(Virtual(at), 1)) for at in (large, 2 * large)
    )
    for span, raw, at in (
        (Span(large, 2 * large + world.page - 1), second, 2 * large),
        (Span(large + world.page, 3 * large - 1), first, large),
    ):
        with pytest.raises(SpaceError, match=f"cuts the level-1 entry {raw:#x} at {at:#x}: split"):
            world.space.unmap(span)


def test_an_attribute_that_larger_pages_lack_is_refused_for_them() -> None:
    low, middle, top = UNEVEN.levels
    world = World(
        replace(UNEVEN, levels=(low, middle.changed(lambda shape: replace(shape, bits={})), top))
    )
    before, at = world.snapshot(), Virtual(3 * world.table_span)
    color = low.bits["COLOR"] & -low.bits["COLOR"]
    with pytest.raises(SpaceError, match=f"^cannot map at {at:#x}, level 1: a U1 has no COLOR"):
        world.space.map_range(at, Physical(0), world.table_span, color)
    assert world.snapshot() == before
    world.space.map_range(at, Physical(0), world.page, color)


def test_execution_cannot_be_withheld_where_the_format_lacks_the_bit() -> None:
    world = World(long_mode(4, 40, False, True))
    with pytest.raises(SpaceError, match="level 0: bits 0x8000000000000000 are not free"):
        world.space.map(Virtual(0), world.frames(1), 0, world.rights("write"))


def test_frames_whose_address_is_scattered_over_the_entry_are_found_again() -> None:
    world = World(paging32(40, pse=True, pse36=True))
    root = Root(world.allocator.allocate(world.format, 1), Span(0, (1 << 32) - 1))
    space = Space(world.memory, (root,), world.allocator)
    frames = np.array([0xFF_FFC0_0000, 0x1_0040_0000, 0x80_0000], np.uint64)
    space.map(Virtual(0x40_0000), frames, 1, 0)
    assert [physical(space, n << 22) for n in range(1, 4)] == frames.tolist()
    with pytest.raises(SpaceError, match=r"no entry of this kind can hold .* 0x10000000000"):
        space.map(Virtual(0x4000_0000), np.array([0, 1 << 40], np.uint64), 1, 0)
    space.map_range(Virtual(0x8000_0000), Physical(0xFF00_0000), 0x100_0000, 0)
    assert physical(space, 0x80FF_FFFF) == 0xFFFF_FFFF


def test_a_torn_table_is_not_taken_for_an_empty_one() -> None:
    world = World(FORMATS["x86-4"])
    world.space.write(world.space.roots[0].table.slot(0), world.format.pointer(1 << 30, 3, 0))
    with pytest.raises(SpaceError, match="not this space's"):
        world.space.map(Virtual(0), world.frames(1), 0, world.rights())


def test_the_root_of_a_cpu_is_taken_as_it_is() -> None:
    world = World(FORMATS["x86-4"])
    root = world.allocator.allocate(world.format, 3)
    cpu = Cpu.long_mode(4, root.address)
    space = Space(world.memory, cpu.roots, world.allocator)
    space.map(Virtual(cpu.roots[1].span.first), world.frames(1), 0, 0)
    assert physical(space, cpu.roots[1].span.first) == world.frames(1)[0]


@pytest.mark.parametrize("format", [replace(dat(), flushing=None)], ids=repr)
def test_a_space_is_not_built_of_tables_whose_flushes_are_not_known(format: Format) -> None:
    memory = BufferMemory(np.zeros(1 << 20, np.uint8))
    allocator = TableAllocator(memory, ROOM)
    root = Root(allocator.allocate(format, 1), Span(0, 0))
    with pytest.raises(SpaceError, match=f"of {format.name} tables is not known here: they can be"):
        Space(memory, (root,), allocator)
