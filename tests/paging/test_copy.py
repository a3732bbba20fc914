"""A fork: what both sides hold afterwards, how it goes on after a pause, how it is undone."""

from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum

import numpy as np
import pytest

from harness.paging.address import Span, Virtual
from harness.paging.copy import Copy, Dialect, Fork, ForkRefused, Hardware, Page, copy_range
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.format import Format
from harness.paging.memory import Words
from harness.paging.reshape import split
from harness.paging.space import Space
from harness.paging.table import Table
from tests.paging.spaces import (
    FORMATS,
    World,
    empty,
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
def child(world: World) -> Space:
    return world.new_space()


def fill(world: World, bits: int | None = None) -> Span:
    """Small pages in the first and third table's place, a large page in the second's."""
    bits = world.rights("write", "user") if bits is None else bits
    large = world.table_span
    world.space.map(Virtual(0), world.frames(3), 0, bits)
    world.space.map(Virtual(large), world.frames(1, 1), 1, bits)
    world.space.map(Virtual(2 * large + world.page), world.frames(2, first=20), 0, bits)
    return Span(0, 3 * large - 1)


def filled(world: World) -> list[int]:
    """The first addresses of all pages that `fill` maps."""
    page, large = world.page, world.table_span
    return [0, page, 2 * page, large, 2 * large + page, 2 * large + 2 * page]


def test_after_a_fork_both_sides_see_the_same_pages_and_neither_may_write(
    world: World, child: Space
) -> None:
    span = fill(world)
    before = {at: physical(world.space, at) for at in range(0, span.size, world.page)}
    copied = copy_range(world.space, child, span)
    assert copied.flush.addresses.tolist() == filled(world)
    copied.flush.done()
    for at, frame in before.items():
        assert physical(world.space, at) == physical(child, at) == frame
    for at in filled(world):
        assert granted(world.space, at) == granted(child, at) == {"user"}
        assert leaf_level(child, at) == leaf_level(world.space, at)
    per_large = world.table_span // world.page
    assert copied.counts == {Page.PAGE: 5 + per_large}


def test_a_shared_range_stays_writable_on_both_sides_and_needs_no_flush(
    world: World, child: Space
) -> None:
    span = fill(world)
    copied = copy_range(world.space, child, span, private=False)
    assert not copied.flush
    for at in filled(world):
        assert granted(world.space, at) == granted(child, at) == {"write", "user"}


def test_the_child_has_accessed_nothing_and_the_parent_keeps_what_it_noted(
    world: World, child: Space
) -> None:
    format = world.format
    fill(world, world.rights("write") | format.accessed | format.dirty)
    copy_range(world.space, child, world.pages(0, 1)).flush.done()
    mine, its = (space.read(space.slot(Virtual(0), 0)) for space in (world.space, child))
    assert mine & (format.accessed | format.dirty) == format.accessed | format.dirty
    assert its & (format.accessed | format.dirty) == format.dirty
    other = world.new_space()
    copy_range(world.space, other, world.pages(world.page, 1), private=False).flush.done()
    its = other.read(other.slot(Virtual(world.page), 0))
    assert not its & (format.accessed | format.dirty)


def test_what_was_not_writable_needs_no_flush(world: World, child: Space) -> None:
    span = fill(world, world.rights("user"))
    copied = copy_range(world.space, child, span)
    assert not copied.flush


def test_only_the_span_is_copied(world: World, child: Space) -> None:
    fill(world)
    copy_range(world.space, child, world.pages(world.page, 1)).flush.done()
    assert [physical(child, n * world.page) for n in range(3)] == [
        None,
        world.frames(3)[1],
        None,
    ]
    assert granted(world.space, 0) == {"write", "user"}


def test_the_child_s_tables_withhold_what_the_parent_s_do(world: World, child: Space) -> None:
    bits = world.rights("write", "user", "execute")
    world.space.map(Virtual(0), world.frames(1), 0, bits, world.rights("user"))
    copy_range(world.space, child, world.pages(0, 1), private=False)
    assert granted(child, 0) == granted(world.space, 0) == {"user"}


def test_copying_holes_makes_no_tables(world: World, child: Space) -> None:
    world.space.populate(world.pages(0, 1))
    before = child.account()
    assert copy_range(world.space, child, world.space.roots[0].span).counts == {}
    assert child.account() == before


def test_a_range_is_copied_across_roots_and_to_the_last_address() -> None:
    world = World(FORMATS["uneven"])
    last = world.space.roots[-1].span.last
    border = world.space.roots[1].span.first
    for first in (border - world.page, border, last + 1 - world.page):
        world.space.map(Virtual(first), world.frames(1), 0, world.rights("write"))
    child = world.new_space()
    copied = copy_range(world.space, child, Span(0, last))
    copied.flush.done()
    assert copied.counts == {Page.PAGE: 3}
    assert physical(child, last) == 9 * world.page - 1


def test_a_copy_can_be_left_between_any_two_steps_and_goes_on(world: World, child: Space) -> None:
    span = fill(world)
    copy = Copy(world.space, child, span)
    steps = 0
    while copy.step():
        steps += 1
        late = Virtual(span.first + 2 * world.table_span)
        for table in tables_under(world.space):
            with world.space.lock(table):
                pass
        if steps == 1:
            world.space.map(late, world.frames(1, first=40), 0, world.rights("write"))
    assert steps >= 2
    copied = copy.finish()
    copied.flush.done()
    assert physical(child, 2 * world.table_span) == 40 * world.page
    assert copied.counts == {Page.PAGE: 6 + world.table_span // world.page}


def test_a_copy_is_not_finished_before_its_last_step(world: World, child: Space) -> None:
    span = fill(world)
    copy = Copy(world.space, child, span)
    assert copy.step()
    with pytest.raises(SpaceError, match=f"has only come to {world.table_span:#x}"):
        copy.finish()
    while copy.step():
        pass
    copy.finish().flush.done()


def test_a_page_that_is_split_meanwhile_is_copied_as_a_table(
    world: World, child: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.space.map(Virtual(0), world.frames(1, 1), 1, world.rights("write"))
    grow = child.grow

    def late(places: list[tuple[Virtual, int]], bits: Callable[[int], int]) -> list[Table]:
        monkeypatch.undo()
        split(world.space, Virtual(0)).done()
        return grow(places, bits)

    monkeypatch.setattr(child, "grow", late)
    copied = copy_range(world.space, child, Span(0, world.table_span - 1))
    copied.flush.done()
    assert copied.counts == {Page.PAGE: world.table_span // world.page}
    for at in range(0, world.table_span, world.page):
        assert physical(child, at) == 8 * world.table_span + at
        assert leaf_level(child, at) == 0


def state(world: World, child: Space) -> object:
    """What a failed copy must leave as it was."""
    entries = [
        [space.read(slot) for table in tables_under(space) for slot in table.slots()]
        for space in (world.space, child)
    ]
    return entries, world.space.account(), child.account()


def test_every_failure_of_an_allocation_is_reported_and_undone(world: World, child: Space) -> None:
    far = world.size(2) * (len(world.format.levels) - 1)
    span = fill(world)
    world.space.map(Virtual(far), world.frames(1), 0, world.rights("write"))
    child.populate(Span.of(far, world.page), level=1)
    before = state(world, child)
    for allowed in range(20):
        world.allocator.remaining = allowed
        try:
            copied = copy_range(world.space, child, Span(0, far + world.page - 1))
        except OutOfTables:
            assert state(world, child) == before
        else:
            break
    copied.flush.done()
    assert allowed >= 2
    assert physical(child, far) == world.frames(1)[0]
    assert physical(child, span.first) == world.frames(1)[0]


def test_a_copy_that_failed_can_be_done_again(world: World, child: Space) -> None:
    span = fill(world)
    copy = Copy(world.space, child, span)
    world.allocator.remaining = len(world.format.levels) - 1
    assert copy.step()
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert all(empty(child, at) for at in range(0, span.size, world.page))
    world.allocator.remaining = None
    while copy.step():
        pass
    copied = copy.finish()
    assert copied.counts == {Page.PAGE: 5 + world.table_span // world.page}
    assert copied.flush.addresses.tolist() == filled(world)
    for at in filled(world):
        assert physical(child, at) == physical(world.space, at) is not None
    copied.flush.done()


def test_what_the_machine_noted_meanwhile_survives_the_undoing(world: World, child: Space) -> None:
    span = fill(world)
    copy = Copy(world.space, child, span)
    assert copy.step()
    slot = world.space.slot(Virtual(0), 0)
    world.space.write(slot, world.space.read(slot) | world.format.accessed)
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert world.space.read(slot) & world.format.accessed
    assert granted(world.space, 0) == {"write", "user"}


def test_what_others_changed_meanwhile_is_left_alone_by_the_undoing(
    world: World, child: Space
) -> None:
    span = fill(world)
    copy = Copy(world.space, child, span)
    assert copy.step()
    world.space.unmap(world.pages(0, 1)).done()
    child.unmap(world.pages(world.page, 1)).done()
    child.map(Virtual(world.page), world.frames(1, first=50), 0, world.rights())
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert empty(world.space, 0)
    assert physical(child, world.page) == 50 * world.page
    assert empty(child, 2 * world.page)
    assert granted(world.space, world.page) == {"write", "user"}


@pytest.mark.parametrize("what", ["software entry", "malformed entry", "taken", "cut", "foreign"])
def test_what_cannot_be_copied_is_a_sentence_and_both_spaces_are_as_before(
    world: World, child: Space, what: str
) -> None:
    span, large = fill(world), world.table_span
    words = {
        "software entry": rf"^{2 * large:#x} cannot be copied: .*its level-0 entry is 0x60",
        "malformed entry": rf"^{2 * large:#x} cannot be copied: .*its level-0 entry is 0x",
        "taken": rf"^{2 * large + world.page:#x} is taken in the target: its level-0 entry is",
        "cut": "cuts a level-1 entry",
        "foreign": "not this space's",
    }
    if what == "software entry":
        world.space.write(world.space.slot(Virtual(2 * large), 0), 0x60)
    if what == "malformed entry":
        leaf = world.format.levels[0].leaf
        assert leaf is not None
        bad = leaf.reserved_mask & -leaf.reserved_mask | leaf.when.value
        world.space.write(world.space.slot(Virtual(2 * large), 0), bad)
    if what == "taken":
        child.map(Virtual(2 * large + world.page), world.frames(1), 0, world.rights())
    if what == "cut":
        span = Span(0, large + world.page - 1)
    if what == "foreign":
        other = world.new_space()
        table = other.slot(Virtual(0), 0).table
        pointer = world.format.pointer(table.address, 1, world.rights())
        world.space.write(world.space.slot(Virtual(3 * large), 1), pointer)
        span = Span(0, 4 * large - 1)
    before = state(world, child) if what != "foreign" else world.snapshot()
    with pytest.raises(SpaceError, match=words[what]):
        copy_range(world.space, child, span)
    assert (state(world, child) if what != "foreign" else child.account()) == (
        before if what != "foreign" else world.new_space().account()
    )
    assert granted(world.space, 0) == {"write", "user"}


@pytest.mark.parametrize(
    ("first", "beyond"), [(0, -8), (8, 0)], ids=["ends in a page", "begins in a page"]
)
def test_a_span_that_begins_or_ends_in_a_page_is_refused(
    world: World, child: Space, first: int, beyond: int
) -> None:
    span = Span(first, 2 * world.page + beyond - 1)
    with pytest.raises(SpaceError, match="does not begin and end"):
        copy_range(world.space, child, span)


def test_tables_are_linked_at_each_level_as_the_parent_s_are(world: World, child: Space) -> None:
    """Each pointer of the parent withholds another right, or none."""
    world.space.map(Virtual(0), world.frames(1), 0, world.rights("write", "user"))
    rights = [("write",), ("user",), ("execute",), ()]
    for level in range(1, len(world.format.levels)):
        slot = world.space.slot(Virtual(0), level)
        table = world.space.pointed(world.space.read(slot), level)
        assert table is not None
        bits = world.rights(*rights[level - 1]) | world.format.accessed
        world.space.write(slot, world.format.pointer(table.address, level, bits))
    copy_range(world.space, child, world.pages(0, 1)).flush.done()
    for level in range(1, len(world.format.levels)):
        bits = child.pointer_bits(child.slot(Virtual(0), level))
        assert bits == world.rights(*rights[level - 1]), level
        raw = child.read(child.slot(Virtual(0), level))
        assert not raw & world.format.accessed, "nobody has used the child's tables"


def test_what_the_target_has_where_nothing_is_copied_to_stays(world: World, child: Space) -> None:
    for page in 0, 2:
        world.space.map(Virtual(page * world.page), world.frames(1), 0, world.rights())
    child.map(Virtual(world.page), world.frames(1, first=50), 0, world.rights())
    copy_range(world.space, child, world.pages(0, 3)).flush.done()
    frame = world.frames(1)[0]
    assert [physical(child, n * world.page) for n in range(3)] == [frame, 50 * world.page, frame]


def failed(
    world: World, child: Space, meanwhile: Callable[[], None], dialect: Dialect | None = None
) -> None:
    """A copy of what `fill` maps that fails after its first table, and after `meanwhile`."""
    copy = Copy(world.space, child, fill(world), dialect)
    assert copy.step()
    meanwhile()
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass


def test_tables_that_the_target_had_stay_its_own_when_a_copy_is_undone(
    world: World, child: Space
) -> None:
    child.populate(world.pages(0, 1))
    before = child.account()
    failed(world, child, lambda: None)
    assert child.account() == before


def test_what_others_put_where_nothing_was_copied_to_is_left_alone_by_the_undoing(
    world: World, child: Space
) -> None:
    """A note of the software's, even one that has no more than the accessed bit."""
    note, free = world.format.accessed, Virtual(5 * world.page)
    failed(world, child, lambda: child.write(child.slot(free, 0), note))
    assert child.read(child.slot(free, 0)) == note


def test_what_others_put_in_a_hole_between_copied_pages_is_left_alone(
    world: World, child: Space
) -> None:
    note, hole = world.format.accessed, Virtual(world.page)
    fill(world)
    world.space.unmap(world.pages(hole, 1)).done()
    copy = Copy(world.space, child, Span(0, 3 * world.table_span - 1))
    copy.step()
    child.write(child.slot(hole, 0), note)
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert child.read(child.slot(hole, 0)) == note
    assert empty(child, 0) and empty(child, 2 * world.page)


def test_empty_tables_that_the_target_had_anywhere_stay_when_a_copy_is_undone(
    world: World, child: Space
) -> None:
    large = world.table_span
    fill(world)
    world.space.map(Virtual(3 * large), world.frames(1), 0, world.rights())
    child.populate(world.pages(2 * large, 1))
    before = child.account()
    copy = Copy(world.space, child, Span(2 * large, 4 * large - 1))
    copy.step()
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert child.account() == before
    assert empty(child, 2 * large + world.page)


def test_an_empty_table_that_others_put_in_place_of_a_copied_page_stays(
    world: World, child: Space
) -> None:
    large = world.table_span
    fill(world)
    child.populate(world.pages(0, 1))
    copy = Copy(world.space, child, Span(0, 3 * large - 1))
    copy.step()
    copy.step()
    assert leaf_level(child, large) == 1
    child.write(child.slot(Virtual(large), 1), 0)
    child.populate(world.pages(large, 1))
    before = child.account()
    world.allocator.remaining = 0
    with pytest.raises(OutOfTables):
        while copy.step():
            pass
    assert child.account() == before


def test_tables_that_others_have_freed_meanwhile_are_not_freed_again(
    world: World, child: Space
) -> None:
    def free() -> None:
        span = Span(0, world.table_span - 1)
        child.unmap(span).done()
        child.free_empty(span).done()

    before = child.account()
    failed(world, child, free)
    assert child.account() == before


def test_a_copy_that_is_done_takes_no_further_step(world: World, child: Space) -> None:
    fill(world)
    copy = Copy(world.space, child, world.pages(0, 1))
    while copy.step():
        pass
    before = state(world, child)
    assert not copy.step()
    assert state(world, child) == before
    done = copy.finish()
    assert done.counts == {Page.PAGE: 1}
    done.flush.done()


@pytest.mark.parametrize("lacking", ["source", "target"])
def test_a_span_that_one_of_the_spaces_does_not_serve_is_refused_before_a_step(
    lacking: str,
) -> None:
    world = World(FORMATS["uneven"])
    half = Space(world.memory, world.new_roots()[:1], world.allocator)
    first = half.roots[0].span.last + 1
    spaces = (half, world.space) if lacking == "source" else (world.space, half)
    with pytest.raises(SpaceError):
        Copy(*spaces, Span(first, first + world.page - 1))


def test_where_there_is_no_right_to_write_none_is_withheld() -> None:
    format = replace(FORMATS["short"], rights={})
    raw = np.array([format.leaf(0x1000, 0, 1)], np.uint64)
    assert Hardware(format).fork(raw, 0, private=True).parent.tolist() == raw.tolist()


SHADOWING = [format for format in FORMATS.values() if format.shadow]


def shadow_stack(format: Format, raw: int) -> bool:
    """Whether an entry of a page makes it one (SDM volume 3A, 4.6.1)."""
    return raw & (format.shadow | format.dirty) == format.dirty


@pytest.mark.parametrize("format", SHADOWING, ids=lambda format: format.name)
@pytest.mark.parametrize("was", ["written", "read", "a shadow stack"])
def test_where_there_are_shadow_stacks_no_private_page_is_one(format: Format, was: str) -> None:
    world = World(format)
    child = world.new_space()
    dirty = 0 if was == "read" else format.dirty
    rights = world.rights("user") if was == "a shadow stack" else world.rights("write", "user")
    world.space.map(Virtual(0), world.frames(1), 0, rights | format.accessed | dirty)
    before = world.space.read(world.space.slot(Virtual(0), 0))
    assert shadow_stack(format, before) == (was == "a shadow stack")
    with copy_range(
        world.space, child, world.pages(0, 1), Hardware(format, shadow_stacks=True)
    ).flush as flush:
        assert flush.addresses.tolist() == [0]
    for space in (world.space, child):
        raw = space.read(space.slot(Virtual(0), 0))
        assert not shadow_stack(format, raw)
        assert granted(space, 0) == {"user"}
    parent = world.space.read(world.space.slot(Virtual(0), 0))
    assert parent & format.accessed


def test_where_there_are_none_a_private_page_stays_dirty(world: World, child: Space) -> None:
    """Where a dialect has no bit of its own, D is the only note that a page was written."""
    fill(world, world.rights("write") | world.format.dirty)
    copy_range(world.space, child, world.pages(0, 1)).flush.done()
    for space in (world.space, child):
        assert space.read(space.slot(Virtual(0), 0)) & world.format.dirty


def test_a_shared_shadow_stack_stays_one() -> None:
    format = SHADOWING[0]
    world = World(format)
    other = world.new_space()
    world.space.map(Virtual(0), world.frames(1), 0, world.rights("user") | format.dirty)
    dialect = Hardware(format, shadow_stacks=True)
    copied = copy_range(world.space, other, world.pages(0, 1), dialect, private=False)
    assert not copied.flush
    assert shadow_stack(format, world.space.read(world.space.slot(Virtual(0), 0)))


def test_a_copied_page_is_taken_back_though_it_was_marked_accessed_since(
    world: World, child: Space
) -> None:
    def mark() -> None:
        slot = child.slot(Virtual(0), 0)
        child.write(slot, child.read(slot) | world.format.accessed | world.format.dirty)

    failed(world, child, mark)
    assert empty(child, 0)


def test_what_a_dialect_has_set_in_the_parent_is_cleared_by_the_undoing(
    world: World, child: Space
) -> None:
    class Marking(Hardware):
        def fork(self, raw: Words, level: int, private: bool) -> Fork:
            mark = np.uint64(software_bit(world.format) if level == 0 else 0)
            forked = super().fork(raw, level, private)
            return forked._replace(parent=forked.parent | mark)

    slot = world.space.slot(Virtual(0), 0)
    failed(world, child, lambda: None, Marking(world.format))
    assert world.space.read(slot) == world.format.leaf(
        world.frames(1)[0], 0, world.rights("write", "user")
    )


def test_a_span_that_is_not_served_is_refused(world: World, child: Space) -> None:
    last = world.space.roots[-1].span.last
    with pytest.raises(SpaceError, match="leaves"):
        copy_range(world.space, child, Span(last + 1 - world.page, last + world.page))


def test_spaces_of_different_formats_cannot_be_copied() -> None:
    with pytest.raises(SpaceError, match="x86-64 4-level cannot be copied to uneven"):
        copy_range(World(FORMATS["x86-4"]).space, World(FORMATS["uneven"]).space, Span(0, 4095))


class Sort(IntEnum):
    KEPT = 0
    NOTE = 1
    GONE = 2


class Notes:
    """A dialect in which 0x60 is a note that the child gets changed, and 0x40 one that it does
    not get."""

    counted = Sort

    def __init__(self, format: Format) -> None:
        self.format = format

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        if (raw == 0x20).any():
            raise ForkRefused(int((raw == 0x20).argmax()), "it is a secret")
        parent, child = raw.copy(), raw.copy()
        child[raw == 0x60] = 0x68
        child[raw == 0x40] = 0
        counted = np.zeros(len(raw), np.uint8)
        counted[raw == 0x60], counted[raw == 0x40] = Sort.NOTE, Sort.GONE
        return Fork(parent, child, counted)


def test_a_dialect_decides_what_becomes_of_entries(world: World, child: Space) -> None:
    space, page = world.space, world.page
    space.map(Virtual(0), world.frames(1), 0, world.rights("write"))
    for n, raw in (2, 0x60), (3, 0x40), (4, 0x60):
        space.write(space.slot(Virtual(n * page), 0), raw)
    copied = copy_range(space, child, world.pages(0, 8), Notes(world.format))
    assert not copied.flush
    assert copied.counts == {Sort.KEPT: 1, Sort.NOTE: 2, Sort.GONE: 1}
    assert granted(child, 0) == {"write"}
    assert [child.read(child.slot(Virtual(n * page), 0)) for n in range(1, 6)] == [
        0,
        0x68,
        0,
        0x68,
        0,
    ]


def test_what_did_not_occur_is_not_counted(world: World, child: Space) -> None:
    world.space.write(world.space.slot(Virtual(0), 0), 0x40)
    copied = copy_range(world.space, child, world.pages(0, 8), Notes(world.format))
    assert copied.counts == {Sort.GONE: 1}


def test_what_a_dialect_refuses_is_named_by_its_address(world: World, child: Space) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights("write"))
    space.write(space.slot(Virtual(3 * world.page), 0), 0x20)
    words = f"^{3 * world.page:#x} cannot be copied: it is a secret; its level-0 entry is 0x20$"
    with pytest.raises(SpaceError, match=words):
        copy_range(space, child, world.pages(0, 8), Notes(world.format))


def test_the_hardware_s_dialect_agrees_with_the_definition_of_a_page(world: World) -> None:
    hardware = Hardware(world.format)
    good = np.array([world.format.leaf(8 * world.page, 0, 0)], np.uint64)
    assert hardware.fork(good, 0, True).counted.tolist() == [Page.PAGE]
    with pytest.raises(ForkRefused) as refused:
        hardware.fork(np.concatenate([good, np.array([0x60], np.uint64)]), 0, True)
    assert refused.value.index == 1
