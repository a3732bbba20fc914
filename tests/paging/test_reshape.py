"""Pages moved, split and collapsed."""

import numpy as np
import pytest

from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.reshape import collapse, move, split
from harness.paging.x86.formats import PAT, PAT_LARGE, A, D, G
from tests.paging.spaces import FORMATS, World, empty, granted, leaf_level, physical


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


def test_move_takes_everything_along_and_leaves_nothing_behind(world: World) -> None:
    space, page, large = world.space, world.page, world.table_span
    bits = world.rights("write") | world.format.accessed
    space.map(Virtual(page), world.frames(3), 0, bits)
    space.write(space.slot(Virtual(5 * page), 0), 0x60)
    space.map(Virtual(large), world.frames(1, 1), 1, bits)
    span, to = Span(0, 2 * large - 1), 4 * large
    with move(space, span, Virtual(to)) as flush:
        assert flush.addresses.tolist() == [page, 2 * page, 3 * page, large]
    for at in range(0, span.size, page):
        assert empty(space, at)
    assert [physical(space, to + n * page) for n in range(5)] == [
        None,
        *world.frames(3).tolist(),
        None,
    ]
    assert space.read(space.slot(Virtual(to + page), 0)) & bits == bits
    assert space.read(space.slot(Virtual(to + 5 * page), 0)) == 0x60
    assert leaf_level(space, to + large) == 1
    assert physical(space, to + large + page) == 8 * large + page


@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_nothing_may_be_where_pages_move_to_not_even_in_a_hole(world: World, where: int) -> None:
    for page in 0, 2:
        world.space.map(Virtual(page * world.page), world.frames(1), 0, world.rights())
    taken, to = Virtual((8 + where) * world.page), Virtual(8 * world.page)
    world.space.map(taken, world.frames(1, first=50), 0, world.rights())
    before = world.snapshot()
    with pytest.raises(SpaceError, match=f"^{taken:#x} is taken: its level-0 entry"):
        move(world.space, world.pages(0, 4), to)
    assert world.snapshot() == before


def test_small_pages_move_by_any_number_of_pages(world: World) -> None:
    count = 2 * world.table_span // world.page
    world.space.map(Virtual(0), world.frames(count), 0, world.rights())
    to = 3 * world.table_span - world.page
    move(world.space, world.pages(0, count), Virtual(to)).done()
    assert [physical(world.space, to + n * world.page) for n in range(count)] == (
        world.frames(count).tolist()
    )


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (lambda w: w.table_span + w.page, "level 1, cannot be moved by"),
        (lambda w: 0, "they overlap"),
        (lambda w: 2 * w.table_span, "is taken: its level-0 entry"),
        (lambda w: -w.table_span, "is not an address of this space"),
    ],
    ids=["misaligned", "overlap", "taken", "negative"],
)
def test_a_move_that_cannot_be_changes_nothing(world: World, to: object, words: str) -> None:
    assert callable(to)
    space = world.space
    space.map(Virtual(0), world.frames(1, 1), 1, world.rights())
    space.map(Virtual(2 * world.table_span + world.page), world.frames(1), 0, world.rights())
    if "level-0" in words:
        space.unmap(Span.of(0, world.table_span)).done()
        space.map(Virtual(0), world.frames(2), 0, world.rights())
    before = world.snapshot()
    with pytest.raises(SpaceError, match=words):
        move(space, Span.of(0, world.table_span), Virtual(to(world)))
    assert world.snapshot() == before


def test_a_move_beyond_the_last_address_changes_nothing(world: World) -> None:
    last = world.space.roots[-1].span.last
    world.space.map(Virtual(0), world.frames(2), 0, world.rights())
    before = world.snapshot()
    with pytest.raises(SpaceError, match=rf"{last + 1 - world.page:#x}\.\..* leaves"):
        move(world.space, world.pages(0, 2), Virtual(last + 1 - world.page))
    assert world.snapshot() == before


def test_every_failure_of_an_allocation_leaves_a_move_undone(world: World) -> None:
    space, to = world.space, world.size(2) - world.table_span
    count = 2 * world.table_span // world.page
    space.map(Virtual(0), world.frames(count), 0, world.rights())
    account = space.account()
    for allowed in range(10):
        world.allocator.remaining = allowed
        try:
            move(space, world.pages(0, count), Virtual(to)).done()
            break
        except OutOfTables:
            assert space.account() == account
            assert [physical(space, n * world.page) for n in range(count)] == (
                world.frames(count).tolist()
            )
    assert allowed > 0
    assert physical(space, to) == world.frames(1)[0]


def test_split_makes_pages_that_are_alike_at_every_level(world: World) -> None:
    for level in world.format.page_levels()[1:]:
        world = World(world.format)
        space, size, below = world.space, world.size(level), world.size(level - 1)
        bits = world.rights("write", "user") | world.format.dirty
        space.map(Virtual(size), world.frames(1, level), level, bits)
        with split(space, Virtual(size + below)) as flush:
            assert flush.addresses.tolist() == [size]
        for at in range(0, size, below):
            assert physical(space, size + at) == 8 * size + at
            assert leaf_level(space, size + at) == level - 1
        assert granted(space, size) == granted(space, 2 * size - 1) == {"write", "user"}
        assert space.read(space.slot(Virtual(size), level - 1)) & world.format.dirty


def test_split_and_collapse_move_named_bits_to_their_places() -> None:
    world = World(FORMATS["x86-4"])
    space = world.space
    space.map(Virtual(0), world.frames(1, 1), 1, PAT_LARGE | G)
    with split(space, Virtual(0)) as flush:
        assert flush.global_pages
    raw = space.read(space.slot(Virtual(0), 0))
    assert raw & (PAT | PAT_LARGE | G) == PAT | G
    with collapse(space, Virtual(0), 1):
        pass
    raw = space.read(space.slot(Virtual(0), 1))
    assert raw & (PAT_LARGE | G) == PAT_LARGE | G
    assert physical(space, world.page) == 8 * world.table_span + world.page


@pytest.mark.parametrize("what", ["a hole", "a smallest page", "a software entry"])
def test_what_cannot_be_split_is_a_sentence(world: World, what: str) -> None:
    if what == "a smallest page":
        world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    if what == "a software entry":
        world.space.write(world.space.slot(Virtual(0), 1), 0x60)
    before = world.snapshot()
    with pytest.raises(SpaceError, match=r"^0x0 lies in no page that can be split: its level-\d"):
        split(world.space, Virtual(0))
    assert world.snapshot() == before


def test_a_split_without_memory_changes_nothing(world: World) -> None:
    world.space.map(Virtual(0), world.frames(1, 1), 1, world.rights())
    world.allocator.remaining = 0
    before = world.snapshot()
    with pytest.raises(OutOfTables):
        split(world.space, Virtual(0))
    assert world.snapshot() == before


def full_table(world: World, bits: int) -> None:
    count = world.table_span // world.page
    frames = world.frames(count, first=4 * count)
    world.space.map(Virtual(world.table_span), frames, 0, bits)


def test_collapse_makes_one_page_and_frees_the_table_after_the_flush(world: World) -> None:
    space, large = world.space, world.table_span
    full_table(world, world.rights("write"))
    flush = collapse(space, Virtual(large + world.page), 1)
    assert flush.addresses.tolist() == list(range(large, 2 * large, world.page))
    assert space.account().tables[0] == 1
    flush.done()
    assert space.account().tables[0] == 0
    assert leaf_level(space, large) == 1
    assert physical(space, large + world.page) == 4 * large + world.page
    assert granted(space, large) == {"write"}


def test_the_large_page_was_used_if_any_small_one_was(world: World) -> None:
    full_table(world, world.rights("write"))
    slot = world.space.slot(Virtual(world.table_span + 2 * world.page), 0)
    used = world.format.accessed | world.format.dirty
    world.space.write(slot, world.space.read(slot) | used)
    collapse(world.space, Virtual(world.table_span), 1).done()
    raw = world.space.read(world.space.slot(Virtual(world.table_span), 1))
    assert raw & used == used


@pytest.mark.parametrize("page", [0, 1, -1])
def test_use_is_no_difference_between_small_pages(world: World, page: int) -> None:
    full_table(world, world.rights("write"))
    count = world.format.levels[0].entries
    slot = world.space.slot(Virtual(world.table_span + page % count * world.page), 0)
    world.space.write(slot, world.space.read(slot) | world.format.accessed)
    collapse(world.space, Virtual(world.table_span), 1).done()
    raw = world.space.read(world.space.slot(Virtual(world.table_span), 1))
    assert raw & world.format.accessed and not raw & world.format.dirty


def test_a_collapse_gives_no_right_that_the_pointer_withheld(world: World) -> None:
    full_table(world, world.rights("write", "user", "execute"))
    slot = world.space.slot(Virtual(world.table_span), 1)
    pointed = slots.table(world.space, slot)
    narrow = world.format.pointer(pointed.address, 1, world.rights("user"))
    world.space.write(slot, narrow)
    collapse(world.space, Virtual(world.table_span), 1).done()
    assert leaf_level(world.space, world.table_span) == 1
    assert granted(world.space, world.table_span) == {"user"}


@pytest.mark.parametrize(
    "flaw", ["a hole", "another frame", "another right", "frames misaligned", "no table"]
)
def test_what_cannot_be_collapsed_is_a_sentence(world: World, flaw: str) -> None:
    space, large, count = world.space, world.table_span, world.table_span // world.page
    first = 4 * count + (flaw == "frames misaligned")
    if flaw != "no table":
        frames = world.frames(count, first=first)
        frames[-1] += np.uint64(world.page * (flaw == "another frame"))
        space.map(Virtual(large), frames, 0, world.rights())
    if flaw == "a hole":
        space.unmap(world.pages(large + 3 * world.page, 1)).done()
    if flaw == "another right":
        space.protect(world.pages(large + 3 * world.page, 1), world.rights("write")).done()
    before = world.snapshot()
    with pytest.raises(SpaceError, match=rf"{large:#x}.*level|level.*{large:#x}"):
        collapse(space, Virtual(large), 1)
    assert world.snapshot() == before


def test_a_collapse_to_a_level_without_pages_is_refused() -> None:
    world = World(FORMATS["x86-4"])
    world.space.map(Virtual(0), world.frames(512, 2, first=512), 2, world.rights())
    before = world.snapshot()
    with pytest.raises(SpaceError, match="has pages at levels 0, 1, 2, not at 3"):
        collapse(world.space, Virtual(0), 3)
    with pytest.raises(SpaceError, match="no level--1 table"):
        collapse(world.space, Virtual(0), 0)
    assert world.snapshot() == before


def test_a_table_with_tables_below_is_not_collapsed(world: World) -> None:
    world.space.map(Virtual(0), world.frames(world.table_span // world.page, first=3), 0, 0)
    before = world.snapshot()
    with pytest.raises(SpaceError, match="the level-1 table at 0x0 is not full of pages"):
        collapse(world.space, Virtual(0), 2)
    assert world.snapshot() == before


def test_accessed_and_dirty_survive_a_split() -> None:
    world = World(FORMATS["x86-4"])
    world.space.map_range(Virtual(0), Physical(0), world.table_span, A | D)
    split(world.space, Virtual(0)).done()
    assert world.space.read(world.space.slot(Virtual(world.page), 0)) & (A | D) == A | D


def test_a_move_from_anywhere_leads_where_it_did(world: World) -> None:
    """The target lies as far behind what is moved as the new address says, not from 0 on."""
    world.space.map(Virtual(3 * world.page), world.frames(2), 0, world.rights("write"))
    to = world.table_span + world.page
    move(world.space, world.pages(3 * world.page, 2), Virtual(to)).done()
    for page in range(2):
        assert physical(world.space, (3 + page) * world.page) is None
        assert physical(world.space, to + page * world.page) == world.frames(2)[page]


def test_any_address_of_a_table_collapses_all_of_it(world: World) -> None:
    count = world.table_span // world.page
    first, frames = 3 * world.table_span, world.frames(count, first=8 * count)
    world.space.map(Virtual(first), frames, 0, world.rights("write"))
    collapse(world.space, Virtual(first + world.page), 1).done()
    assert leaf_level(world.space, first) == 1
    assert physical(world.space, first + world.page) == frames[1]
    assert physical(world.space, 0) is None
