"""A range shown with its holes."""

from itertools import pairwise

import pytest

from harness.paging.address import Span, Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.errors import SpaceError
from harness.paging.sync import sync_roots
from harness.paging.visit import Visit, visit, visits
from tests.paging.spaces import FORMATS, World


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    """Pages at 0 and 2, a software entry at 3, a large page in the third table's place."""
    world = World(FORMATS[request.param])
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, world.rights())
    space.map(Virtual(2 * world.page), world.frames(1), 0, world.rights())
    space.write(space.slot(Virtual(3 * world.page), 0), 0x60)
    space.map(Virtual(2 * world.table_span), world.frames(1, 1), 1, world.rights())
    return world


def test_the_spans_tile_the_range_in_order(world: World) -> None:
    whole = world.space.roots[0].span
    for span in (
        whole,
        Span(world.page // 2, 3 * world.table_span),
        Span(2 * world.table_span + 1, 2 * world.table_span + 1),
        Span(whole.last, whole.last),
    ):
        found = list(visits(world.space, span))
        assert found[0].span.first == span.first
        assert found[-1].span.last == span.last
        for one, other in pairwise(found):
            assert other.span.first == one.span.last + 1


def test_everything_is_found_in_its_place(world: World) -> None:
    page, large = world.page, world.table_span
    found = list(visits(world.space, Span(0, 3 * large - 1)))
    assert [(each.span, type(each.entry), each.slot.level) for each in found] == [
        (Span.of(0, page), Leaf, 0),
        (Span.of(page, page), Absent, 0),
        (Span.of(2 * page, page), Leaf, 0),
        (Span.of(3 * page, page), Absent, 0),
        (Span(4 * page, large - 1), Absent, 0),
        (Span.of(large, large), Absent, 1),
        (Span.of(2 * large, large), Leaf, 1),
    ]
    assert [each.raw for each in found if isinstance(each.entry, Absent)] == [0, 0x60, 0, 0]
    assert all(world.space.read(each.slot) == each.raw for each in found)


def test_a_malformed_entry_is_shown_and_ends_nothing(world: World) -> None:
    pointer = world.format.levels[1].pointer
    assert pointer is not None
    bad = pointer.reserved_mask & -pointer.reserved_mask | pointer.when.value
    world.space.write(world.space.slot(Virtual(world.table_span), 1), bad)
    found = list(visits(world.space, Span(world.table_span, 3 * world.table_span - 1)))
    assert [type(each.entry) for each in found] == [Malformed, Leaf]


class Notes:
    """Notes what it is shown, and looks below tables down to a level."""

    def __init__(self, lowest: int) -> None:
        self.lowest = lowest
        self.shown: list[tuple[str, int, int]] = []

    def table(self, visit: Visit) -> bool:
        assert isinstance(visit.entry, Pointer)
        self.note("table", visit)
        return visit.slot.level > self.lowest

    def filled(self, visit: Visit) -> None:
        self.note("filled", visit)

    def hole(self, visit: Visit) -> None:
        assert visit.raw == 0
        self.note("hole", visit)

    def note(self, what: str, visit: Visit) -> None:
        self.shown.append((what, visit.slot.level, visit.span.first))


def test_a_visitor_is_shown_tables_before_what_lies_below(world: World) -> None:
    notes = Notes(lowest=0)
    visit(world.space, Span(0, 3 * world.table_span - 1), notes)
    page, large, top = world.page, world.table_span, len(world.format.levels) - 1
    assert notes.shown == [
        *[("table", level, 0) for level in range(top, 0, -1)],
        ("filled", 0, 0),
        ("hole", 0, page),
        ("filled", 0, 2 * page),
        ("filled", 0, 3 * page),
        ("hole", 0, 4 * page),
        ("hole", 1, large),
        ("filled", 1, 2 * large),
    ]


def test_a_visitor_decides_what_it_is_shown(world: World) -> None:
    notes = Notes(lowest=1)
    visit(world.space, Span(0, world.table_span - 1), notes)
    assert {what for what, _, _ in notes.shown} == {"table"}


def test_tables_of_another_space_are_shown_too() -> None:
    world = World(FORMATS["x86-5"])
    half = world.space.roots[1].span
    world.space.map(Virtual(half.first), world.frames(1), 0, world.rights())
    other = world.new_space()
    sync_roots(world.space, [other], half)
    first = next(visits(other, half))
    assert isinstance(first.entry, Leaf)


def test_a_range_that_is_not_served_is_refused(world: World) -> None:
    last = world.space.roots[-1].span.last
    with pytest.raises(SpaceError, match="leaves"):
        list(visits(world.space, Span(last, last + 1)))
