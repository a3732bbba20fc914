"""One slot at a time, at every level."""

from dataclasses import replace

import pytest

from harness.paging import slots
from harness.paging.address import Physical, Virtual
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.table import Slot
from harness.paging.value import Value
from tests.paging.spaces import FORMATS, UNEVEN, World, granted, physical


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


def down(world: World, address: int) -> Slot:
    """The level-0 slot of an address, by steps."""
    slot = slots.root(world.space, Virtual(address))
    while slot.level:
        slot = slots.walk_alloc(world.space, slot, Virtual(address))
    return slot


def test_the_root_slot_is_the_one_that_the_address_uses(world: World) -> None:
    for root in world.space.roots:
        level = world.format.levels[root.table.level]
        for address in (root.span.first, root.span.first + level.size, root.span.last):
            slot = slots.root(world.space, Virtual(address))
            assert slot.table == root.table
            assert slot.index == address // level.size % level.entries


def test_a_walk_by_steps_ends_where_the_definition_does(world: World) -> None:
    address = world.size(2) + world.size(1) + world.page
    slot = down(world, address)
    leaf = Value(world.format, 0, world.format.leaf(8 * world.page, 0, world.rights("write")))
    with slots.lock(world.space, slot):
        assert not slots.put(world.space, slot, leaf, Virtual(address))
    assert physical(world.space, address) == 8 * world.page
    assert granted(world.space, address) == {"write"}
    assert slots.value(world.space, slot) == leaf
    tables = len(world.format.levels) - 1
    assert world.space.account().tables == (
        *[1] * tables,
        len({r.table for r in world.space.roots}),
    )


def test_a_step_makes_no_table_where_one_is(world: World) -> None:
    slot = down(world, 0)
    world.allocator.remaining = 0
    assert down(world, 0) == slot


def test_a_step_down_needs_a_table(world: World) -> None:
    slot = slots.root(world.space, Virtual(0))
    with pytest.raises(SpaceError, match=r"slot 0 of the level-\d table at 0x.*leads to no table"):
        slots.walk(world.space, slot, Virtual(0))
    world.space.map(Virtual(0), world.frames(1, 1), 1, world.rights())
    with pytest.raises(SpaceError, match="leads to no table"):
        slots.walk_alloc(world.space, world.space.slot(Virtual(0), 1), Virtual(0))
    with pytest.raises(SpaceError, match="can point to no table"):
        slots.populate(world.space, down(world, world.table_span))


def test_an_allocation_that_fails_fills_no_slot(world: World) -> None:
    slot = slots.root(world.space, Virtual(0))
    world.allocator.remaining = 0
    before = world.snapshot()
    with pytest.raises(OutOfTables):
        slots.walk_alloc(world.space, slot, Virtual(0))
    assert world.snapshot() == before


def test_neighbours_are_slots_of_the_same_table(world: World) -> None:
    slot = down(world, world.page)
    assert slots.following(slot) == down(world, 2 * world.page)
    assert slots.preceding(slot) == down(world, 0)
    assert slot == down(world, world.page), "a step changed the slot it began at"


def test_no_step_leads_out_of_a_table(world: World) -> None:
    with pytest.raises(IndexError):
        slots.preceding(down(world, 0))
    with pytest.raises(IndexError):
        slots.following(down(world, world.table_span - world.page))


def test_clearing_a_page_returns_its_flush(world: World) -> None:
    world.space.map(Virtual(world.page), world.frames(1), 0, world.rights())
    slot = down(world, world.page)
    with (
        slots.lock(world.space, slot),
        slots.clear(world.space, slot, Virtual(world.page)) as flush,
    ):
        assert flush.addresses.tolist() == [world.page]
        assert not flush.everything
    assert slots.value(world.space, slot).none


def test_an_address_anywhere_in_the_page_flushes_the_page(world: World) -> None:
    for level in world.format.page_levels()[:2]:
        at = 3 * world.size(level)
        world.space.map(Virtual(at), world.frames(1, level), level, world.rights())
        slot = world.space.slot(Virtual(at), level)
        with slots.clear(world.space, slot, Virtual(at + world.size(level) - 1)) as flush:
            assert flush.addresses.tolist() == [at]


def test_clearing_a_pointer_flushes_all_that_lay_below(world: World) -> None:
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    slot = world.space.slot(Virtual(0), 1)
    with slots.clear(world.space, slot, Virtual(0)) as flush:
        assert flush.everything
    assert physical(world.space, 0) is None


def test_clearing_a_pointer_flushes_the_global_pages_that_may_lie_below(world: World) -> None:
    global_page = world.rights() | world.format.levels[0].bits["G"]
    world.space.map(Virtual(0), world.frames(1), 0, global_page)
    for level in range(1, len(world.format.levels)):
        slot = world.space.slot(Virtual(0), level)
        pointer = slots.value(world.space, slot)
        with slots.clear(world.space, slot, Virtual(0)) as flush:
            assert flush.everything and flush.global_pages
        assert not slots.put(world.space, slot, pointer, Virtual(0))


def test_a_reload_of_the_root_is_enough_unless_a_page_is_global(world: World) -> None:
    for level in world.format.page_levels():
        for lasting in (0, world.format.levels[level].bits["G"]):
            space = World(world.format).space
            space.map(Virtual(0), world.frames(1, level), level, world.rights() | lasting)
            slot = space.slot(Virtual(0), level)
            with slots.clear(space, slot, Virtual(0)) as flush:
                assert flush.global_pages is bool(lasting)
                assert not flush.everything


def test_in_a_format_without_global_pages_a_reload_of_the_root_is_always_enough() -> None:
    world = World(replace(UNEVEN, lasting=0))
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    with slots.clear(world.space, world.space.slot(Virtual(0), 1), Virtual(0)) as flush:
        assert flush.everything and not flush.global_pages


def test_clearing_what_a_shared_table_holds_flushes_everything(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    space.write(space.slot(Virtual(world.table_span), 1), space.read(space.slot(Virtual(0), 1)))
    with slots.clear(space, down(world, 0), Virtual(0)) as flush:
        assert flush.everything


def test_clearing_what_is_malformed_needs_no_flush(world: World) -> None:
    leaf = world.format.levels[0].leaf
    assert leaf is not None
    slot = down(world, 0)
    bad = leaf.reserved_mask & -leaf.reserved_mask | leaf.when.value
    world.space.write(slot, bad)
    assert not slots.clear(world.space, slot, Virtual(0))
    assert slots.value(world.space, slot).none


def test_putting_what_narrows_nothing_needs_no_flush(world: World) -> None:
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    slot = down(world, 0)
    wider = world.format.leaf(8 * world.page, 0, world.rights("write"))
    assert not slots.put(world.space, slot, Value(world.format, 0, wider), Virtual(0))
    upper = world.space.slot(Virtual(0), 1)
    same = slots.value(world.space, upper)
    assert not slots.put(world.space, upper, same, Virtual(0))


def test_a_value_stands_only_at_its_own_level(world: World) -> None:
    slot = down(world, 0)
    for wrong in Value(world.format, 1, 0), Value(replace(world.format), 0, 0):
        with pytest.raises(SpaceError, match="cannot stand in slot 0 of the level-0 table"):
            slots.put(world.space, slot, wrong, Virtual(0))


def test_an_address_that_does_not_use_the_slot_is_refused(world: World) -> None:
    slot = down(world, 0)
    with pytest.raises(SpaceError, match="does not use slot 0 of the level-0 table"):
        slots.clear(world.space, slot, Virtual(world.page))


def test_a_malformed_entry_is_cleared_aloud_and_anything_else_is_not(world: World) -> None:
    pointer = world.format.levels[1].pointer
    assert pointer is not None
    slot = world.space.slot(Virtual(0), 1)
    assert slots.none_or_clear_bad(world.space, slot)
    bad = pointer.reserved_mask & -pointer.reserved_mask | pointer.when.value
    world.space.write(slot, bad)
    assert slots.value(world.space, slot).bad
    with pytest.warns(RuntimeWarning, match=rf"{bad:#x} \(malformed\) at level 1"):
        assert slots.none_or_clear_bad(world.space, slot)
    world.space.write(slot, bad)
    with pytest.warns(RuntimeWarning) as warned:
        assert not slots.clear_bad(world.space, slot)
    assert [one.filename for one in warned] == [__file__], "the warning is about the caller"
    assert slots.value(world.space, slot).none
    slots.populate(world.space, slot)
    assert not slots.none_or_clear_bad(world.space, slot)
    assert slots.value(world.space, slot).points


def test_the_table_of_a_slot_is_where_its_entry_says(world: World) -> None:
    slot = world.space.slot(Virtual(0), 1)
    slots.populate(world.space, slot, world.rights())
    table = slots.table(world.space, slot)
    assert table.level == 0
    pointer = world.format.pointer(table.address, 1, world.rights())
    assert slots.value(world.space, slot).raw == pointer
    assert slots.value(world.space, slot).frame == Physical(table.address)
