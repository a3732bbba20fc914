"""Root entries shared among spaces."""

import pytest

from harness.paging.address import Span, Virtual
from harness.paging.errors import SpaceError
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from tests.paging.spaces import FORMATS, World, physical


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    """A kernel with a page in the first, the third and the last root slot of its half."""
    world = World(FORMATS[request.param])
    for address in kernel_pages(world):
        world.space.map(Virtual(address), world.frames(1), 0, world.rights("write"))
    return world


def top(world: World) -> int:
    """Bytes that a root slot spans."""
    return world.size(len(world.format.levels) - 1)


def half(world: World) -> Span:
    return world.space.roots[1].span


def kernel_pages(world: World) -> list[int]:
    first, last = half(world).first, half(world).last
    return [first, first + 2 * top(world), last + 1 - world.page]


def test_every_space_sees_what_the_reference_maps(world: World) -> None:
    spaces = [world.new_space() for _ in range(3)]
    sync_roots(world.space, spaces, half(world))
    for space in spaces:
        for address in kernel_pages(world):
            assert physical(space, address) == physical(world.space, address) is not None


def test_what_a_space_has_where_the_reference_has_nothing_stays(world: World) -> None:
    space = world.new_space()
    own = half(world).first + top(world)
    space.map(Virtual(own), world.frames(1), 0, world.rights())
    sync_roots(world.space, [space], half(world))
    assert physical(space, own) == world.frames(1)[0]
    assert physical(world.space, own) is None


def test_what_the_reference_maps_later_is_seen_too(world: World) -> None:
    space = world.new_space()
    sync_roots(world.space, [space], half(world))
    late = kernel_pages(world)[0] + world.page
    world.space.map(Virtual(late), world.frames(1), 0, world.rights())
    assert physical(space, late) == physical(world.space, late) is not None


def test_both_ends_are_included_and_nothing_beyond_them_is(world: World) -> None:
    first, third, last = kernel_pages(world)
    space = world.new_space()
    sync_roots(world.space, [space], Span(first, first))
    assert [physical(space, at) is None for at in (first, third, last)] == [False, True, True]
    sync_roots(world.space, [space], Span(first + 1, first + 2 * top(world)))
    assert [physical(space, at) is None for at in (first, third, last)] == [False, False, True]
    sync_roots(world.space, [space], Span(half(world).last, half(world).last))
    assert physical(space, last) is not None


def test_an_entry_that_leads_elsewhere_is_refused_and_no_space_is_changed(world: World) -> None:
    spaces = [world.new_space() for _ in range(3)]
    own = kernel_pages(world)[1]
    spaces[1].map(Virtual(own), world.frames(1, first=40), 0, world.rights())
    before = world.snapshot()
    level = len(world.format.levels) - 1
    with pytest.raises(SpaceError, match=rf"^{own:#x} cannot be shared: its level-{level} entry"):
        sync_roots(world.space, spaces, half(world))
    assert world.snapshot() == before


@pytest.mark.parametrize("frame", [8, 9])
def test_a_large_page_in_a_root_is_shared_if_it_is_the_same(frame: int) -> None:
    world = World(FORMATS["uneven"])
    space, first = world.new_space(), Virtual(half(world).first)
    world.space.map(first, world.frames(1, 2, first=8), 2, world.rights())
    space.map(first, world.frames(1, 2, first=frame), 2, world.rights("write"))
    if frame == 8:
        sync_roots(world.space, [space], half(world))
    else:
        with pytest.raises(SpaceError, match="cannot be shared"):
            sync_roots(world.space, [space], half(world))
    assert physical(space, first) == frame * world.size(2)


def test_a_malformed_reference_is_not_taken_for_an_equal(world: World) -> None:
    level = len(world.format.levels) - 1
    pointer = world.format.levels[level].pointer
    assert pointer is not None
    bad = pointer.reserved_mask & -pointer.reserved_mask | pointer.when.value
    first = half(world).first
    space = world.new_space()
    for each in world.space, space:
        each.write(each.root_for(first).table.slot_for(first), bad)
    with pytest.raises(SpaceError, match="cannot be shared"):
        sync_roots(world.space, [space], half(world))


def test_spaces_do_not_change_or_free_what_is_the_reference_s(world: World) -> None:
    first = kernel_pages(world)[0]
    space = world.new_space()
    sync_roots(world.space, [space], half(world))
    with pytest.raises(SpaceError, match="not this space's"):
        space.unmap(Span.of(first, world.page))
    assert not space.free_empty(half(world))
    space.tear_down().done()
    assert physical(world.space, first) is not None
    assert world.allocator.gave(world.space.slot(Virtual(first), 0).table)


def test_the_reference_itself_may_be_among_the_spaces(world: World) -> None:
    before = world.snapshot()
    sync_roots(world.space, [world.space], half(world))
    assert world.snapshot() == before


def test_spaces_of_another_format_are_refused() -> None:
    four, five = World(FORMATS["x86-4"]), World(FORMATS["x86-5"])
    with pytest.raises(SpaceError, match="x86-64 5-level has no use for"):
        sync_roots(four.space, [five.space], half(four))


def test_a_span_that_leaves_the_half_is_refused(world: World) -> None:
    last = half(world).last
    with pytest.raises(SpaceError, match="leaves"):
        sync_roots(world.space, list[Space](), Span(last, last + 1))
