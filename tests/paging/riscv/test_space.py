"""Spaces of RISC-V's tables: what entries become, and what is to be flushed for it.

What is expected is from the privileged specification 1.13, "Supervisor Memory-Management Fence
Instruction", "Virtual Address Translation Process" (what may be kept), and the extensions Svnapot,
Svpbmt, Svrsw60t59b and Svvptc.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bits import attributes, carried, stale, withheld
from harness.paging.copy import copy_range
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.isolation import IsolatedSpace
from harness.paging.memory import Words
from harness.paging.reshape import collapse, move, split
from harness.paging.riscv.formats import sv
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.table import Table
from harness.paging.value import Value
from harness.paging.visit import visits
from tests.paging.spaces import RISCV, World, granted, leaf_level, physical

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
RSW, N = 3 << 8, 1 << 63
PAGE, GROUP, MEGA = 1 << 12, 1 << 16, 1 << 21


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


@pytest.fixture(params=RISCV)
def world(request: pytest.FixtureRequest) -> World:
    return World(RISCV[request.param])


@pytest.fixture
def grouped() -> World:
    return two_groups()


def two_groups() -> World:
    """A space that has two pages of 64 KiB, from 0 on."""
    world = World(RISCV["sv39"])
    frames = np.array([0x50000, 0x90000], np.uint64)
    world.space.map(Virtual(0), frames, 0, R | W | U, size=GROUP).done()
    return world


def raw_at(world: World, address: int, level: int = 0) -> int:
    return world.space.read(world.space.slot(Virtual(address), level))


def told(flush: Flush) -> tuple[list[int], bool, bool]:
    """Addresses, everything, global pages; it is done then."""
    found = flush.addresses.tolist(), flush.everything, flush.global_pages
    flush.done()
    return found


def keeps_absent(world: World) -> bool:
    """All but Sv48, which has Svvptc here."""
    return world.format is not RISCV["sv48"]


# ---- entries ----


def test_tables_and_pages_hold_what_the_manual_says(world: World) -> None:
    world.space.map(Virtual(PAGE), np.array([0x5000], np.uint64), 0, R | X | A).done()
    assert raw_at(world, PAGE) == 0x5000 >> 2 | V | R | X | A
    table = world.space.slot(Virtual(PAGE), 0).table.address
    assert raw_at(world, PAGE, 1) == table >> 2 | V


def test_a_page_without_rights_is_none_and_w_needs_r(world: World) -> None:
    frames = np.array([0], np.uint64)
    for level in range(len(world.format.levels)):
        for wrong in (0, W, W | X, U, U | W):
            before = world.snapshot()
            with pytest.raises(SpaceError, match=f"cannot map at 0x0, level {level}: "):
                world.space.map(Virtual(0), frames, level, wrong)
            with pytest.raises(SpaceError, match="cannot map at 0x0, level 0: "):
                world.space.map_range(Virtual(0), Physical(0), PAGE, wrong)
            assert world.snapshot() == before


@pytest.mark.parametrize("level", [0, 1])
def test_protect_makes_no_pointer_and_nothing_reserved_of_a_page(world: World, level: int) -> None:
    space, size = world.space, world.size(level)
    space.map(Virtual(0), world.frames(1, level), level, R | W).done()
    space.map(Virtual(size), world.frames(1, level, first=9), level, X).done()
    before = world.snapshot()
    both, first = Span.of(0, 2 * size), Span.of(0, size)
    for span, given, mask in (
        (both, 0, None),
        (both, W, None),
        (both, 0, R),
        (both, W, W),
        (first, U, R | W | U),
        (first, 0, R),
    ):
        with pytest.raises(SpaceError, match=r"malformed: it has|would be no page any more"):
            space.protect(span, given, mask)
        assert world.snapshot() == before
    # One right alone can be taken and given where the others let it.
    assert told(space.protect(first, 0, W)) == ([0], False, False)
    assert told(space.protect(both, X, X)) == ([0], False, False)
    assert [granted(space, at) for at in (0, size)] == [{"read", "execute"}, {"execute"}]
    assert raw_at(world, 0, level) & (R | W | X) == R | X


def test_what_makes_an_entry_a_page_is_not_to_be_given() -> None:
    world = World(RISCV["sv57"])
    world.space.map(Virtual(0), world.frames(1), 0, R).done()
    for wrong in (V, N, 1 << 10, 1 << 54):
        with pytest.raises(SpaceError, match=r"are not to be given so|are not free"):
            world.space.protect(Span.of(0, PAGE), wrong, wrong)
    with pytest.raises(SpaceError, match="PBMT=3"):
        world.space.protect(Span.of(0, PAGE), bits(62, 61), bits(62, 61))


def test_memory_types_go_with_pages_of_every_size() -> None:
    world = World(RISCV["sv57"])
    world.space.map_range(Virtual(0), Physical(0), 1 << 30, R | 1 << 61).done()
    for level in (2, 1):
        assert raw_at(world, 0, level) >> 61 == 1
        split(world.space, Virtual(0)).done()
    assert raw_at(world, 0) >> 61 == 0b101  # N, and type 1
    split(world.space, Virtual(0)).done()
    assert raw_at(world, 0) >> 61 == 1


def test_a_copied_page_can_be_read_and_executed_and_not_written(world: World) -> None:
    space, child = world.space, world.new_space()
    space.map(Virtual(0), world.frames(1), 0, R | W | X | A | D).done()
    with copy_range(space, child, Span.of(0, PAGE)).flush as flush:
        assert told(flush) == ([0], False, False)
    assert raw_at(world, 0) & bits(7, 0) == V | R | X | A | D
    assert child.read(child.slot(Virtual(0), 0)) & bits(7, 0) == V | R | X | D


def test_no_root_entry_can_withhold_execution(world: World) -> None:
    roots = world.new_roots()
    user_table = world.allocator.allocate(world.format, roots[0].table.level)
    with pytest.raises(ValueError, match="cannot withhold execution"):
        IsolatedSpace(world.memory, roots, world.allocator, roots[0], user_table)


# ---- what is flushed ----


class Flips(NamedTuple):
    """The bits of an entry, of which those are the software's that the machine ignores."""

    format: Format
    level: int
    raw: int
    ignored: int


FLIPS = {
    "Sv32 page": Flips(sv(32), 0, V | R | W | 0x5 << 10, RSW),
    "Sv32 megapage": Flips(sv(32), 1, V | R | W | 0x5 << 20, RSW),
    "Sv32 pointer": Flips(sv(32), 1, V | 0x5 << 10, RSW),
    "Sv39 page": Flips(sv(39), 0, V | R | W | X | 0x5 << 10, RSW),
    "Sv39 gigapage": Flips(sv(39), 2, V | R | 0x5 << 28, RSW),
    "Sv48 pointer": Flips(sv(48), 3, V | 0x5 << 10, RSW),
    "Sv57 page with all": Flips(
        sv(57, True, True, True), 0, V | R | W | X | 0x5 << 10, RSW | bits(60, 59)
    ),
    "Sv57 64K page": Flips(
        sv(57, True, True, True), 0, N | V | R | W | 0x58 << 10, RSW | bits(60, 59)
    ),
    "Sv57 pointer with all": Flips(sv(57, True, True, True), 2, V | 0x5 << 10, RSW | bits(60, 59)),
    "malformed": Flips(sv(39), 1, V | W | 0x5 << 20, RSW),
    "a malformed pointer": Flips(sv(39), 1, V | U | 0x5 << 10, RSW),
}


@pytest.mark.parametrize("name", FLIPS)
def test_every_bit_that_the_machine_reads_is_flushed_both_ways(name: str) -> None:
    """Any entry that was read may be kept, whatever it says."""
    format, level, raw, ignored = FLIPS[name]
    for bit in range(8 * format.entry_bytes):
        before, after = np.array([raw], np.uint64), np.array([raw ^ 1 << bit], np.uint64)
        wanted = not ignored >> bit & 1
        assert stale(format, level, before, after).tolist() == [wanted], bit
        if raw ^ 1 << bit & V:
            assert stale(format, level, after, before).tolist() == [wanted], bit


def test_what_is_absent_is_flushed_when_it_comes(world: World) -> None:
    absent = np.array([0, R | W | 0x5 << 10, 0], np.uint64)
    after = np.array([V | R | 0x5 << 10, V | R | 0x5 << 10, 0x60], np.uint64)
    kept = keeps_absent(world)
    assert stale(world.format, 0, absent, after).tolist() == [kept, kept, False]


def test_a_new_page_is_flushed_and_with_a_new_table_everything_is(world: World) -> None:
    space, absent = world.space, keeps_absent(world)
    first = space.map(Virtual(0), world.frames(1), 0, R)
    assert told(first) == (([0], True, False) if absent else ([], False, False))
    second = space.map(Virtual(PAGE), world.frames(2), 0, R)
    assert told(second) == (([PAGE, 2 * PAGE], False, False) if absent else ([], False, False))
    large = space.map(Virtual(world.table_span), world.frames(1, 1), 1, R)
    assert told(large) == (([world.table_span], False, False) if absent else ([], False, False))


def test_a_table_is_new_until_a_flush_of_everything_is_done(world: World) -> None:
    space, absent, size = world.space, keeps_absent(world), world.table_span

    def mapped(address: int) -> Flush:
        return space.map(Virtual(address), world.frames(1), 0, R)

    space.populate(Span.of(0, PAGE))
    one, other = mapped(0), mapped(PAGE)
    assert one.everything == other.everything == absent
    one.done()
    with mapped(2 * PAGE) as flush:
        assert not flush.everything
    # A table that came since a flush was asked for is not known to the machine by it.
    space.populate(Span.of(size, PAGE))
    early = mapped(size)
    space.populate(Span.of(2 * size, PAGE))
    early.done()
    with mapped(2 * size) as flush:
        assert flush.everything == absent
    other.done()


def test_a_flush_of_pages_leaves_a_table_new(world: World) -> None:
    space, absent, size = world.space, keeps_absent(world), world.table_span
    space.map(Virtual(0), world.frames(1), 0, R).done()
    space.populate(Span.of(size, PAGE))
    with space.unmap(Span.of(0, PAGE)) as flush:
        assert not flush.everything
    with space.map(Virtual(size), world.frames(1), 0, R) as flush:
        assert flush.everything == absent


def test_by_the_flush_with_which_a_table_goes_others_are_known(world: World) -> None:
    space, size = world.space, world.table_span
    space.populate(Span.of(0, PAGE))
    space.populate(Span.of(size, PAGE))
    with space.free_empty(Span.of(0, PAGE)) as flush:
        assert flush.everything
    with space.map(Virtual(size), world.frames(1), 0, R) as flush:
        assert not flush.everything


@pytest.mark.parametrize("how", ["made", "written", "taken over"])
def test_below_a_global_pointer_a_table_is_new_until_global_ones_are_flushed(
    world: World, how: str
) -> None:
    """That an entry is absent which such a pointer led to is global, too, and outlives a flush of
    one address space ("Supervisor Memory-Management Fence Instruction")."""
    space, absent, size = world.space, keeps_absent(world), world.table_span
    top = len(world.format.levels) - 1
    space.populate(Span.of(0, PAGE), top - 1, table_bits=G if how == "made" else 0)
    if how != "made":
        root = space.slot(Virtual(0), top)
        space.write(root, space.read(root) | G)
    if how == "taken over":
        space = Space(world.memory, space.roots, world.allocator)
    half = Virtual(space.roots[1].span.first)
    space.map(Virtual(0), world.frames(1), 0, R).done()  # what is kept of the root is global now
    if top > 1:
        space.populate(Span.of(size, PAGE))
    fresh = absent and top > 1
    with space.map(half, world.frames(1), 0, R) as flush:
        assert flush.everything == absent and not flush.global_pages
    with space.map(Virtual(half + PAGE), world.frames(1), 0, R) as flush:
        assert not flush.everything  # known by a flush of one address space
    if top > 1:
        with space.map(Virtual(size), world.frames(1), 0, R) as flush:
            assert (flush.everything, flush.global_pages) == (fresh, absent)
        with space.map(Virtual(size + PAGE), world.frames(1), 0, R) as flush:
            assert not flush.everything


def test_a_copy_that_is_undone_has_the_machine_forget_nothing(world: World) -> None:
    space, other, size = world.space, world.new_space(), world.table_span
    other.map(Virtual(size), world.frames(1), 0, R).done()
    early = [space.map(Virtual(at), world.frames(1), 0, R | W) for at in (0, size)]
    with pytest.raises(SpaceError, match="is taken in the target"):
        copy_range(space, other, Span.of(0, 2 * size))
    with space.map(Virtual(PAGE), world.frames(1), 0, R) as flush:
        assert flush.everything == keeps_absent(world)
    for flush in early:
        flush.done()


def test_by_slots_a_new_table_is_flushed_with_what_comes_into_it(world: World) -> None:
    space, absent = world.space, keeps_absent(world)
    slot = slots.root(space, Virtual(0))
    while slot.level:
        slot = slots.walk_alloc(space, slot, Virtual(0))
    page = Value(world.format, 0, world.format.leaf(0x5000, 0, R))
    flush = slots.put(space, slot, page, Virtual(0))
    assert told(flush) == (([0], True, False) if absent else ([], False, False))
    more = Value(world.format, 0, world.format.leaf(0x5000, 0, R | W))
    assert told(slots.put(space, slot, more, Virtual(0))) == ([0], False, False)
    assert told(slots.clear(space, slot, Virtual(0))) == ([0], False, False)


def test_a_table_that_goes_takes_all_that_is_kept_along(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, R).done()
    with space.unmap(Span.of(0, PAGE)) as flush:
        assert not flush.everything
    with space.free_empty(Span.of(0, PAGE)) as flush:
        assert flush.everything and not flush.global_pages
    assert physical(space, 0) is None


@pytest.mark.parametrize("kept", [U, A, D, bits(62, 61), N], ids=["U", "A", "D", "PBMT=3", "N"])
def test_a_malformed_pointer_is_kept_and_no_leaf(kept: int) -> None:
    """R=W=X=0 makes it a pointer, and what else is set only reserved ("Virtual Address Translation
    Process"): a flush of the address is not for it."""
    world = World(RISCV["sv39"])
    space = world.space
    slot = space.slot(Virtual(0), 1)
    bad = Value(world.format, 1, V | kept | 0x90000 << 10)
    assert bad.bad
    page = Value(world.format, 1, world.format.leaf(MEGA, 1, R))
    slots.put(space, slot, bad, Virtual(0)).done()
    assert told(slots.put(space, slot, page, Virtual(0))) == ([0], True, False)
    slots.put(space, slot, bad, Virtual(0)).done()
    assert told(slots.clear(space, slot, Virtual(0))) == ([0], True, False)
    assert told(slots.put(space, slot, bad, Virtual(0))) == ([0], True, False)
    written = Value(world.format, 1, V | W | 0x5 << 20)  # reserved too, but no pointer
    slots.put(space, slot, written, Virtual(0)).done()
    assert told(slots.put(space, slot, page, Virtual(0))) == ([0], False, False)


def test_what_is_malformed_and_cleared_is_flushed(world: World) -> None:
    space, bad = world.space, V | W | 0x5 << 10
    slot = space.slot(Virtual(0), 0)
    space.write(slot, bad)
    with pytest.warns(RuntimeWarning, match="cleared"):
        flush = slots.clear_bad(space, slot)
    assert told(flush) == ([], True, True)
    space.write(slot, bad)
    with pytest.raises(SpaceError, match="to clear it takes a Flush"):
        slots.none_or_clear_bad(space, slot)
    assert space.read(slot) == bad
    flush = Flush()
    with pytest.warns(RuntimeWarning, match="cleared"):
        assert slots.none_or_clear_bad(space, slot, flush)
    assert told(flush) == ([], True, True)
    assert slots.none_or_clear_bad(space, slot) and not space.read(slot)


def test_a_collapse_ends_a_table(world: World) -> None:
    space, count = world.space, world.table_span // world.page
    space.map(Virtual(0), world.frames(count, first=count), 0, R | W).done()
    with collapse(space, Virtual(0), 1) as flush:
        assert flush.everything and not flush.global_pages
        assert flush.addresses.tolist() == list(range(0, world.table_span, world.page))
    assert leaf_level(space, 0) == 1


def test_a_split_makes_a_pointer_of_a_page(world: World) -> None:
    """A flush of an address is for leaves, and what is written is a pointer."""
    space, size = world.space, world.table_span
    space.map(Virtual(size), world.frames(1, 1), 1, R | W).done()
    assert told(split(space, Virtual(size))) == ([size], True, False)


def test_moved_pages_are_flushed_where_they_were_and_where_they_come(world: World) -> None:
    space, absent = world.space, keeps_absent(world)
    space.map(Virtual(0), world.frames(2), 0, R | W).done()
    flush = move(space, Span.of(0, 2 * PAGE), Virtual(8 * PAGE))
    there = [8 * PAGE, 9 * PAGE] if absent else []
    assert told(flush) == ([0, PAGE, *there], False, False)


def test_shared_root_entries_are_flushed_where_they_come(world: World) -> None:
    other = world.new_space()
    world.space.map(Virtual(0), world.frames(1), 0, R).done()
    with sync_roots(world.space, [other], world.space.roots[0].span) as flush:
        assert flush.everything == keeps_absent(world)
    assert physical(other, 0) == physical(world.space, 0)
    assert not sync_roots(world.space, [other], world.space.roots[0].span)


def test_global_pages_outlive_a_flush_of_one_address_space(world: World) -> None:
    """G of the page, and of any pointer to it, before and after."""
    space, absent = world.space, keeps_absent(world)
    space.map(Virtual(0), world.frames(1), 0, R).done()
    space.map(Virtual(PAGE), world.frames(1), 0, R | G).done()
    with space.map(Virtual(2 * PAGE), world.frames(1), 0, R | G) as flush:
        assert flush.global_pages == absent
    assert told(space.protect(Span.of(PAGE, PAGE), X | R)) == ([PAGE], False, True)
    assert told(space.protect(Span.of(0, PAGE), X | R)) == ([0], False, False)
    assert told(space.protect(Span.of(0, PAGE), G, G)) == ([0], False, True)
    assert told(space.unmap(Span.of(0, 3 * PAGE))) == ([0, PAGE, 2 * PAGE], False, True)


@pytest.mark.parametrize("top", [False, True])
def test_what_lies_below_a_global_pointer_is_global(world: World, top: bool) -> None:
    space, levels = world.space, len(world.format.levels)
    space.map(Virtual(0), world.frames(1), 0, R).done()
    slot = space.slot(Virtual(0), levels - 1 if top else 1)
    space.write(slot, space.read(slot) | G)
    assert told(space.protect(Span.of(0, PAGE), R | X)) == ([0], False, True)
    assert told(space.unmap(Span.of(0, PAGE))) == ([0], False, True)
    with space.free_empty(Span.of(0, PAGE)) as flush:
        assert flush.everything and flush.global_pages


def test_a_page_made_of_a_global_table_is_global(world: World) -> None:
    space, count = world.space, world.table_span // world.page
    space.map(Virtual(0), world.frames(count, first=count), 0, R).done()
    slot = space.slot(Virtual(0), 1)
    space.write(slot, space.read(slot) | G)
    with collapse(space, Virtual(0), 1) as flush:
        assert flush.global_pages
    assert raw_at(world, 0, 1) & bits(9, 0) == V | R | G
    assert told(split(space, Virtual(0))) == ([0], True, True)
    assert raw_at(world, 0) & bits(9, 0) == V | R | G


def test_what_a_shared_table_holds_is_flushed_everywhere(world: World) -> None:
    space, top = world.space, len(world.format.levels) - 1
    space.map(Virtual(0), world.frames(1), 0, R).done()
    root, other = space.slot(Virtual(0), top), Virtual(world.size(top))
    space.write(space.slot(other, top), space.read(root))
    with space.protect(Span.of(0, PAGE), R | X) as flush:
        assert flush.everything and flush.global_pages  # nobody looks for G on the other way
    at = Virtual(PAGE)
    with space.map(at, world.frames(1), 0, R) as flush:  # it comes on the other way as well
        assert flush.everything == keeps_absent(world)
    new = Virtual(2 * other)
    space.populate(Span.of(new, PAGE))
    with space.protect(Span.of(0, PAGE), R | X) as flush:
        assert not flush  # it was so, and nothing is known by that
    with space.map(new, world.frames(1), 0, R) as flush:
        assert flush.everything == keeps_absent(world)


def test_a_flush_that_is_not_done_is_a_warning(world: World) -> None:
    if keeps_absent(world):
        with pytest.warns(RuntimeWarning, match="Flush of everything"):
            world.space.map(Virtual(0), world.frames(1), 0, R)
    else:
        world.space.map(Virtual(0), world.frames(1), 0, R)


def test_software_s_bits_need_nothing(world: World) -> None:
    space = world.space
    space.map(Virtual(0), world.frames(1), 0, R | RSW).done()
    assert not space.protect(Span.of(0, PAGE), 0, RSW)
    assert raw_at(world, 0) & bits(9, 0) == V | R
    slot = space.slot(Virtual(PAGE), 0)
    assert not slots.put(space, slot, Value(world.format, 0, 0x60), Virtual(PAGE))
    assert not slots.clear(space, slot, Virtual(PAGE))


def test_in_the_end_no_table_is_left(world: World) -> None:
    space = world.space
    first, last = space.roots[0].span.first, space.roots[1].span.last
    for address in (first, last + 1 - PAGE):
        space.map(Virtual(address), world.frames(1), 0, R).done()
    with space.tear_down() as flush:
        assert flush.everything and flush.global_pages
    assert not any(space.account().tables)


# ---- groups ----


def test_the_sixteen_slots_of_a_64k_page_hold_the_same(grouped: World) -> None:
    low = N | V | R | W | U
    for slot in range(16):
        assert raw_at(grouped, slot * PAGE) == 0x58000 >> 2 | low
        assert raw_at(grouped, GROUP + slot * PAGE) == 0x98000 >> 2 | low
    for at in (0x123, 0xFFFF, 0x10000, 0x1ABCD):
        assert physical(grouped.space, at) == at + (0x50000 if at < GROUP else 0x80000)
    assert [visit.span.size for visit in visits(grouped.space, Span.of(0, GROUP))] == [PAGE] * 16


@pytest.mark.parametrize("what", ["the address", "the frame", "the size", "no Svnapot"])
def test_a_64k_page_is_aligned(grouped: World, what: str) -> None:
    world = World(sv(39)) if what == "no Svnapot" else grouped
    before = world.snapshot()
    at = 0x41000 if what == "the address" else 0x40000
    frame = 0x58000 if what == "the frame" else 0x50000
    size = 0x8000 if what == "the size" else GROUP
    words = {
        "the address": "0x41000 is not a multiple of the page size 0x10000",
        "the frame": "no entry of this kind can hold physical address 0x58000",
        "the size": "pages at levels 0, 1, 2, not at 0 of 0x8000 bytes",
        "no Svnapot": "pages at levels 0, 1, 2, not at 0 of 0x10000 bytes",
    }
    with pytest.raises(SpaceError, match=words[what]):
        world.space.map(Virtual(at), np.array([frame], np.uint64), 0, R, size=size)
    assert world.snapshot() == before


def test_a_range_is_mapped_in_64k_pages_where_they_fit() -> None:
    world = World(RISCV["sv39"])
    world.space.map_range(Virtual(MEGA - 0x13000), Physical(MEGA - 0x13000), 0x33000, R).done()
    low = [raw_at(world, MEGA - 0x13000 + step * PAGE) for step in range(0x33)]
    assert [raw >> 63 for raw in low] == [0] * 3 + [1] * 48
    assert [physical(world.space, MEGA + at) for at in (-0x13000, -1, 0, 0x1FFFF)] == [
        MEGA + at for at in (-0x13000, -1, 0, 0x1FFFF)
    ]


EVERY = [step * PAGE for step in range(16)]


def test_to_change_a_part_splits_the_page_first(grouped: World) -> None:
    space = grouped.space
    space.write(space.slot(Virtual(5 * PAGE), 0), raw_at(grouped, 5 * PAGE) | A)
    space.write(space.slot(Virtual(6 * PAGE), 0), raw_at(grouped, 6 * PAGE) | A | D)
    assert told(space.protect(Span.of(3 * PAGE, 2 * PAGE), R)) == (EVERY, False, False)
    for step in range(16):
        rights = R if step in (3, 4) else R | W | U
        assert raw_at(grouped, step * PAGE) == (0x50 + step) << 10 | V | rights | A | D
    assert raw_at(grouped, GROUP) >> 63
    assert told(space.unmap(Span.of(GROUP + 15 * PAGE, PAGE))) == (
        [GROUP + at for at in EVERY],
        False,
        False,
    )
    assert raw_at(grouped, GROUP + 15 * PAGE) == 0
    assert raw_at(grouped, GROUP + 14 * PAGE) == 0x9E << 10 | V | R | W | U


def test_a_page_that_is_cut_at_the_end_of_a_range_is_split(grouped: World) -> None:
    flush = grouped.space.protect(Span.of(0, GROUP + PAGE), R)
    assert flush.addresses.tolist() == [*EVERY, *(GROUP + at for at in EVERY)]
    flush.done()
    assert {raw_at(grouped, at) for at in EVERY} == {0x58000 >> 2 | N | V | R}
    assert raw_at(grouped, GROUP) == 0x90 << 10 | V | R
    assert raw_at(grouped, GROUP + PAGE) == 0x91 << 10 | V | R | W | U


def test_to_change_all_of_it_leaves_it_one(grouped: World) -> None:
    space = grouped.space
    assert told(space.protect(Span.of(0, GROUP), R)) == (EVERY, False, False)
    assert {raw_at(grouped, at) for at in EVERY} == {0x58000 >> 2 | N | V | R}
    assert told(space.unmap(Span.of(0, GROUP))) == (EVERY, False, False)
    assert physical(space, GROUP) == 0x90000


def test_a_refused_change_of_a_part_splits_nothing(grouped: World) -> None:
    before = grouped.snapshot()
    with pytest.raises(SpaceError, match="W without R"):
        grouped.space.protect(Span.of(PAGE, PAGE), W)
    with pytest.raises(SpaceError, match="malformed"):
        grouped.space.rewrite(Span.of(PAGE, PAGE), lambda raw, level: raw | np.uint64(1 << 54))
    assert grouped.snapshot() == before


def test_a_rewrite_of_a_part_is_given_small_pages(grouped: World) -> None:
    seen: list[list[int]] = []

    def change(raw: Words, level: int) -> Words:
        seen.append(raw.tolist())
        return raw

    with grouped.space.rewrite(Span.of(PAGE, 2 * PAGE), change) as flush:
        assert flush.addresses.tolist() == EVERY
    assert seen[-1] == [0x51 << 10 | V | R | W | U, 0x52 << 10 | V | R | W | U]


def test_one_slot_that_changes_is_flushed_for_all(grouped: World) -> None:
    """A machine may keep what one slot says for the others."""
    space = grouped.space
    slot = space.slot(Virtual(7 * PAGE), 0)
    flush = slots.clear(space, slot, Virtual(7 * PAGE))
    assert told(flush) == (EVERY, False, False)
    # One that is absent may be kept as a group as well.
    other = Value(grouped.format, 0, N | 0x58000 >> 2)
    space.write(slot, other.raw)
    page = Value(grouped.format, 0, 0x57 << 10 | V | R)
    assert told(slots.put(space, slot, page, Virtual(7 * PAGE))) == (EVERY, False, False)


def test_the_slots_of_a_group_are_those_from_its_own_address_on(grouped: World) -> None:
    space = grouped.space
    first = Virtual(space.roots[1].span.first + 6 * GROUP)
    space.map(first, np.array([0xD0000], np.uint64), 0, R | W, size=GROUP).done()
    at = Virtual(first + 7 * PAGE)
    flush = slots.clear(space, space.slot(at, 0), at)
    assert told(flush) == ([first + number * PAGE for number in range(16)], False, False)


def test_split_goes_from_size_to_size() -> None:
    world = World(RISCV["sv39"])
    space = world.space
    space.map(Virtual(0), np.array([MEGA], np.uint64), 1, R | W | X | U | G | A | D).done()
    assert told(split(space, Virtual(0))) == ([0], True, True)
    held = V | R | W | X | U | G | A | D
    assert raw_at(world, 0x15000) == (MEGA + 0x18000) >> 2 | N | held
    assert told(split(space, Virtual(0x15000))) == ([GROUP + at for at in EVERY], False, True)
    assert raw_at(world, 0x15000) == (MEGA + 0x15000) >> 2 | held
    assert raw_at(world, 0) >> 63 and raw_at(world, 0x20000) >> 63
    with pytest.raises(SpaceError, match="lies in no page that can be split"):
        split(space, Virtual(0x15000))
    with collapse(space, Virtual(0), 1):
        pass
    assert raw_at(world, 0, 1) == MEGA >> 2 | held


def test_a_part_is_not_copied_nor_moved(grouped: World) -> None:
    child, before = grouped.new_space(), grouped.snapshot()
    with pytest.raises(SpaceError, match=r"cuts a level-0 entry of 0x0\.\.0xffff: split it first"):
        copy_range(grouped.space, child, Span.of(PAGE, PAGE))
    with pytest.raises(SpaceError, match="cuts the level-0 entry"):
        move(grouped.space, Span.of(0, PAGE), Virtual(0x40000))
    with pytest.raises(SpaceError, match="the page of 0x10000 bytes at 0x0, level 0, cannot be"):
        move(grouped.space, Span.of(0, GROUP), Virtual(0x41000))
    assert grouped.snapshot() == before
    move(grouped.space, Span.of(0, GROUP), Virtual(0x40000)).done()
    assert physical(grouped.space, 0x4FFFF) == 0x5FFFF
    with copy_range(grouped.space, child, Span.of(GROUP, GROUP)).flush as flush:
        assert flush.addresses.tolist() == [GROUP + at for at in EVERY]
    assert physical(child, GROUP + 0x1234) == 0x91234


def test_of_a_group_that_is_none_what_is_there_is_changed(grouped: World) -> None:
    """Others have taken slots out of it: they stay as they are, and the rest is split."""
    space = grouped.space
    space.write(space.slot(Virtual(2 * PAGE), 0), 0)
    space.write(space.slot(Virtual(3 * PAGE), 0), 0x77 << 10 | V | R)
    space.protect(Span.of(0, PAGE), R).done()
    assert [raw_at(grouped, at) for at in EVERY[:5]] == [
        0x50 << 10 | V | R,
        0x51 << 10 | V | R | W | U,
        0,
        0x77 << 10 | V | R,
        0x54 << 10 | V | R | W | U,
    ]


def test_what_a_64k_page_holds_besides_its_address() -> None:
    format = sv(57, svnapot=True, svpbmt=True)
    raw = N | 1 << 61 | 0x58 << 10 | V | R | W | A
    assert attributes(format, 0, raw) == 1 << 61 | R | W | A
    assert format.leaf(0x50000, 0, attributes(format, 0, raw), GROUP) == raw
    assert carried(format, 1 << 61 | R | W, 0, 2) == 1 << 61 | R | W


def test_a_right_is_withheld_in_pages_and_not_in_pointers() -> None:
    format = sv(39, svnapot=True)
    raw = np.array([V | R | W | X, N | V | R | W | 0x58 << 10], np.uint64)
    assert withheld(format, 0, raw, W).tolist() == [V | R | X, N | V | R | 0x58 << 10]
    pointer = np.array([V | 0x5 << 10, V | R | W], np.uint64)
    assert withheld(format, 1, pointer, W).tolist() == [V | 0x5 << 10, V | R]
    assert withheld(format, 1, V | 0x5 << 10, W) == V | 0x5 << 10


@pytest.mark.parametrize("allowed", range(4))
def test_without_memory_nothing_changes(allowed: int) -> None:
    world = World(RISCV["sv57"])
    world.allocator.remaining = allowed
    before = world.snapshot()
    with pytest.raises(OutOfTables):
        world.space.map_range(Virtual(0xF000), Physical(0xF000), 0x12000, R)
    assert world.snapshot() == before


def test_tables_that_are_there_are_taken_over() -> None:
    world = World(RISCV["sv48"])
    world.space.map(Virtual(0), world.frames(1), 0, R).done()
    again = Space(world.memory, world.space.roots, world.allocator)
    assert again.account() == world.space.account()
    assert again.owns(Table(world.format, world.space.slot(Virtual(0), 0).table.address, 0))
