"""Spaces of s390's tables: zero is an entry, and an entry becomes another by way of an invalid one.

What is expected is from the Principles of Operation, chapter 3, "Modification of Translation
Tables".
"""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging.address import Physical, Span, Virtual
from harness.paging.bits import breaks, stale
from harness.paging.copy import copy_range
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.errors import SpaceError
from harness.paging.reshape import collapse, split
from harness.paging.s390.formats import dat
from harness.paging.space import Space
from harness.paging.table import Root
from harness.paging.visit import visits
from tests.paging.s390.test_formats import ENTRIES
from tests.paging.spaces import S390, World, given, look

FORMAT = S390["s390"]
PAGE, SEGMENT = 1 << 12, 1 << 20
P, IEP = 0x200, 0x100


@pytest.fixture
def world() -> World:
    return World(FORMAT)


def test_a_page_at_zero_is_a_page_in_every_operation(world: World) -> None:
    space, page = world.space, Span.of(PAGE, PAGE)
    space.map(Virtual(PAGE), np.array([0], np.uint64), 0, 0).done()
    assert look(space, PAGE).steps[-1].raw == 0
    assert [found.raw for found in visits(space, Span.of(0, 3 * PAGE))] == [0x400, 0, 0x400]
    with pytest.raises(SpaceError, match="is taken: its level-0 entry is 0x0"):
        space.map(Virtual(PAGE), np.array([0x5000], np.uint64), 0, 0)
    child = world.new_space()
    copy_range(space, child, Span.of(0, SEGMENT)).flush.done()
    assert look(child, PAGE).steps[-1].raw == P == look(space, PAGE).steps[-1].raw
    with space.free_empty(Span.of(0, SEGMENT)) as flush:
        assert not flush.everything
    with space.unmap(page) as flush:
        assert flush.addresses.tolist() == [PAGE]
    assert look(space, PAGE).steps[-1].raw == 0x400
    space.free_empty(page).done()
    child.tear_down().done()
    space.tear_down().done()
    assert not given(world)


def test_new_tables_are_full_of_what_is_invalid_at_their_level(world: World) -> None:
    world.space.slot(Virtual(0), 0)
    for step in look(world.space, PAGE).steps:
        here = world.format.levels[step.slot.level]
        assert world.space.read(step.slot.table.slot(here.entries - 1)) == here.empty
    pointers = look(world.space, 0).steps[:-1]
    assert [step.raw & 0xFFF & ~0x800 for step in pointers] == [0xF, 0xB, 0x7, 0]


@pytest.mark.parametrize("bit", [P, IEP, 0x1000])
def test_an_entry_that_is_there_is_invalid_before_it_is_another(bit: int, world: World) -> None:
    before = np.array([0x5000], np.uint64)
    assert breaks(FORMAT, 0, before, before ^ np.uint64(bit)).all()
    assert stale(FORMAT, 0, before, before ^ np.uint64(bit)).all()
    for software in (1, 0x80):
        assert not breaks(FORMAT, 0, before, before | np.uint64(software)).any()
        assert not stale(FORMAT, 0, before, before | np.uint64(software)).any()
    world.space.map(Virtual(0), before, 0, 0).done()
    with world.space.protect(Span.of(0, PAGE), P):
        assert look(world.space, 0).steps[-1].entry == Absent()
    assert look(world.space, 0).steps[-1].raw == 0x5000 | P


COMMON, BOUNDS = {(4, 4)}, {(7, 6), (1, 0)}
BESIDES: dict[str, set[tuple[int, int]]] = {
    **dict.fromkeys(("segment", "segment with EDAT", "1M frame", "2G frame"), COMMON),
    **{name: BOUNDS for name in ENTRIES if name.startswith("region")},
    "region third with EDAT": COMMON | BOUNDS,
}
"""What the machine reads of an entry and is neither its address nor a right nor what makes it one:
the common bit, TF and TL."""


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_breaks_and_is_flushed_by_all_that_the_machine_reads(name: str) -> None:
    """Whether a bit is set or cleared: software's alone may change in an entry that is there."""
    format, level, raw, _, _, ranges = ENTRIES[name]
    addressed = {bit for bit, what in ranges.items() if what == 0}
    read = [*ranges, *BESIDES.get(name, ())]
    [(_, lowest)] = addressed
    for before in (raw, raw | 0xA << lowest):
        for bit in range(64):
            words = (np.array([word], np.uint64) for word in (before, before ^ 1 << bit))
            one, other = words
            wanted = any(low <= bit <= high for high, low in read)
            assert breaks(format, level, one, other).tolist() == [wanted], (hex(before), bit)
            assert stale(format, level, one, other).tolist() == [wanted], (hex(before), bit)


@pytest.mark.parametrize("level", range(5))
def test_what_leads_nowhere_neither_breaks_nor_is_flushed(level: int) -> None:
    empty = FORMAT.levels[level].empty
    wrong = 0x800 if level == 0 else (level - 1) << 2 ^ 0x4
    before = np.array([empty, empty | 0x5000, wrong], np.uint64)
    after = np.array([0x7007 | (level - 1 & 3) << 2 if level else 0x5000] * 3, np.uint64)
    assert not breaks(FORMAT, level, before, after).any()
    assert not stale(FORMAT, level, before, after).any()


def test_what_was_invalid_needs_no_flush(world: World) -> None:
    with world.space.map(Virtual(0), np.array([0x5000], np.uint64), 0, 0) as flush:
        assert not flush.everything and not len(flush.addresses)


def test_frames_of_1m_are_made_of_pages_and_cut_into_them(world: World) -> None:
    world.space.map_range(Virtual(SEGMENT), Physical(SEGMENT), SEGMENT, IEP).done()
    assert look(world.space, SEGMENT).leaf == Leaf(Physical(SEGMENT), SEGMENT)
    with split(world.space, Virtual(SEGMENT)) as flush:
        assert flush.everything, "IPTE flushes no segment"
        assert look(world.space, SEGMENT).steps[-1].entry == Absent()
    assert look(world.space, SEGMENT + PAGE).steps[-1].raw == SEGMENT + PAGE | IEP
    collapse(world.space, Virtual(SEGMENT), 1).done()
    assert look(world.space, SEGMENT).steps[-1].raw == SEGMENT | IEP | 0x400


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_space_has_no_parts_of_tables(level: int, world: World) -> None:
    """Whether they are there before, or come in by a pointer that says so."""
    space = world.space
    space.map(Virtual(0), np.array([0x5000], np.uint64), 0, 0).done()
    root = space.root_for(0)
    slot = next(step.slot for step in look(space, 0).steps if step.slot.level == level)
    whole = space.read(slot)
    assert isinstance(FORMAT.decode(whole, level), Pointer)
    for part in (whole ^ 1, whole | 0x40):
        world.memory.store(slot.address, 8, part)
        with pytest.raises(SpaceError, match="of the 2048 slots of a table"):
            space.map(Virtual(PAGE), np.array([0x6000], np.uint64), 0, 0)
        with pytest.raises(SpaceError, match="of the 2048 slots of a table"):
            list(visits(space, Span.of(0, PAGE)))
        with pytest.raises(SpaceError, match="of the 2048 slots of a table"):
            Space(world.memory, (root,), world.allocator)


def test_a_root_may_serve_a_part_of_its_table() -> None:
    world = World(FORMAT)
    table = world.allocator.allocate(FORMAT, 2)
    space = Space(world.memory, (Root(table, Span.of(0, 512 << 31)),), world.allocator)
    with pytest.raises(SpaceError, match="is not an address of this space"):
        space.map(Virtual(512 << 31), np.array([0x5000], np.uint64), 0, 0)
    space.map(Virtual((512 << 31) - PAGE), np.array([0x5000], np.uint64), 0, 0).done()
    space.tear_down().done()


def test_without_edat_pages_have_one_size() -> None:
    world = World(FORMAT)
    format = dat()
    table = world.allocator.allocate(format, 1)
    space = Space(world.memory, (Root(table, Span.of(0, 1 << 31)),), world.allocator)
    with pytest.raises(SpaceError, match="s390 has pages at levels 0, not at 1"):
        space.map(Virtual(0), np.array([0], np.uint64), 1, 0)
