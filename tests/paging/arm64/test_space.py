"""Spaces of arm64's tables: break-before-make, and what is to be flushed.

What is expected is from the Arm ARM (DDI 0487), "TLB maintenance" and "Using break-before-make when
updating translation table entries"; of contiguous entries and of shareability, from Linux
(pgattr_change_is_safe).
"""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64.formats import stage1
from harness.paging.bits import breaks, stale
from harness.paging.copy import copy_range
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.errors import SpaceError
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.reshape import collapse, move, split
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.table import Root
from harness.paging.value import Value
from tests.paging.spaces import ARM64, World, look

ATTR, NS, AP1, AP2, SH, AF, NG = 7 << 2, 1 << 5, 1 << 6, 1 << 7, 3 << 8, 1 << 10, 1 << 11
NT, GP, DBM, CONT, PXN, UXN = 1 << 16, 1 << 50, 1 << 51, 1 << 52, 1 << 53, 1 << 54
PAGE, BLOCK = 1 << 12, 1 << 21
K4 = ARM64["arm64 4K"]
TOP = (1 << 64) - (1 << 37)
"""Where the space of `K4` begins."""


@pytest.fixture
def world() -> World:
    return World(K4)


def seen(space: Space, address: int) -> object:
    """What the machine finds at an address."""
    return look(space, address).steps[-1].entry


def told(flush: Flush) -> tuple[list[int], bool, bool]:
    """Addresses, everything, global pages; it is not done yet."""
    return flush.addresses.tolist(), flush.everything, flush.global_pages


def page(world: World, bits: int = 0, address: int = TOP) -> None:
    world.space.map(Virtual(address), np.array([0x5000], np.uint64), 0, bits).done()


# What changes in a leaf, and whether it must be absent in between.
CHANGES = [
    *((bit, bit, True) for bit in (0x1000, 1 << 39, 4, 8, 16, 1 << 8, 1 << 9, NT, CONT)),
    *((bit, bit, False) for bit in (AP1, AP2, PXN, UXN, AF, DBM, GP, NS, 1 << 55, 1 << 63)),
    (NG, NG, None),
]


@pytest.mark.parametrize(("before", "after", "breaking"), CHANGES)
def test_what_must_be_absent_in_between(before: int, after: int, breaking: bool | None) -> None:
    plain, other = 0x5000 | 3 | AF * (before != AF), 0
    other = plain ^ after
    both = np.array([plain, other], np.uint64)
    found = breaks(K4, 0, both, both[::-1].copy()).tolist()
    if breaking is None:  # to become global, and not to become less so
        assert found == [False, True]
    else:
        assert found == [breaking, breaking]


def test_of_a_block_bit_16_is_nt_and_its_address_begins_at_bit_21() -> None:
    block = np.array([BLOCK | 1 | AF], np.uint64)
    for bit, breaking in ((NT, True), (1 << 15, False), (1 << 20, False), (1 << 22, True)):
        assert breaks(K4, 1, block, block ^ np.uint64(bit)).tolist() == [breaking], hex(bit)


def test_nothing_else_of_a_contiguous_entry_may_change() -> None:
    for bit, breaking in ((AP2, True), (AF, True), (1 << 55, False)):
        before = np.array([0x5000 | 3 | CONT], np.uint64)
        assert breaks(K4, 0, before, before ^ np.uint64(bit)).tolist() == [breaking]


def test_of_lpa2_bits_9_to_8_are_the_address_and_break_as_such() -> None:
    before = np.array([0x5000 | 3], np.uint64)
    assert breaks(ARM64["arm64 LPA2"], 0, before, before | np.uint64(1 << 8)).all()


def test_what_is_not_kept_breaks_nothing() -> None:
    for before in (0, 2, 0x5000 | 1, 3 | 1 << 40):  # invalid, or an address size fault
        for after in (0, 0x5000 | 3):
            words = (np.array([word], np.uint64) for word in (before, after))
            assert not breaks(K4, 0, *words).any()
    gone = np.array([0x5000 | 3], np.uint64)
    for after in (0, 0x5000 | 1, 3 | 1 << 40):
        assert breaks(K4, 0, gone, np.array([after], np.uint64)).all()


def test_tables_break_by_their_address_alone() -> None:
    table = 0x5000 | 3
    for after, breaking in ((table | 1 << 61, False), (0x6000 | 3, True), (1, True), (0, True)):
        words = (np.array([word], np.uint64) for word in (table, after))
        assert breaks(K4, 1, *words).tolist() == [breaking]


def test_what_is_stale() -> None:
    """Rights are kept, given or withheld; AF=0, what is invalid and what is too large are not."""
    page = 0x5000 | 3

    def gone(before: int, after: int, format: Format = K4, level: int = 0) -> bool:
        words = (np.array([word], np.uint64) for word in (before, after))
        return bool(stale(format, level, *words)[0])

    for bit in (AP1, AP2, PXN, UXN, NG, ATTR, SH, CONT, GP):
        assert gone(page, page | bit) and gone(page | bit, page), hex(bit)
    assert not gone(page, page | AF) and gone(page | AF, page)
    for bit in (DBM, NS, 1 << 55, 1 << 63):
        assert not gone(page, page | bit) and not gone(page | bit, page), hex(bit)
    dirty = stage1("4K", 48, 48, hardware_dirty=True)
    assert gone(page, page | DBM, dirty) and gone(page | DBM, page, dirty)
    for before in (0, 1, page | 1 << 40):
        assert not gone(before, page)
    for bit in (1 << 59, 1 << 60, 1 << 61, 1 << 62):
        assert gone(page, page | bit, level=1) and gone(page | bit, page, level=1)
        # Tables have no access flag: bit 10 means nothing there.
        assert not gone(page, page ^ AF, level=1) and not gone(page ^ AF, page, level=1)
        free = stage1("4K", 48, 48, hierarchical=False)
        assert not gone(page, page | bit, free, 1)


# ---- what a space does ----


def test_rights_change_at_once(world: World) -> None:
    page(world, NG)
    with world.space.protect(Span.of(TOP, PAGE), AP1 | AP2, AP1 | AP2) as flush:
        assert told(flush) == ([TOP], False, False)
        assert isinstance(seen(world.space, TOP), Leaf)
    with world.space.protect(Span.of(TOP, PAGE), 0, AP2) as flush:  # given: it is denied by the TLB
        assert told(flush) == ([TOP], False, False)
        assert look(world.space, TOP).steps[-1].raw == 0x5000 | 3 | NG | AP1


def test_the_access_flag_of_a_contiguous_page_comes_after_a_flush_too(world: World) -> None:
    page(world, CONT | NG)
    space = world.space
    with space.rewrite(Span.of(TOP, PAGE), lambda raw, level: raw | np.uint64(AF)) as flush:
        assert told(flush)[0] == [TOP]
        assert seen(space, TOP) == Absent()
    assert look(space, TOP).steps[-1].raw == 0x5000 | 3 | CONT | NG | AF


def test_another_memory_type_comes_after_the_flush(world: World) -> None:
    page(world, AF)
    space, slot = world.space, world.space.slot(Virtual(TOP), 0)
    with space.protect(Span.of(TOP, PAGE), 4, ATTR) as flush:
        assert told(flush) == ([TOP], False, True)
        assert isinstance(seen(space, TOP), Absent)
        assert space.read(slot) == space.words(slot, 1)[0] == 0x5000 | 3 | AF | 4
        assert look(space, TOP).steps[-1].raw == 0
    assert look(space, TOP).steps[-1].raw == 0x5000 | 3 | AF | 4


def test_of_many_pages_those_alone_are_absent_that_must_be(world: World) -> None:
    page(world, 4)
    world.space.map(Virtual(TOP + PAGE), world.frames(3), 0, 0).done()
    with world.space.protect(Span.of(TOP, 3 * PAGE), 4 | AP2, ATTR | AP2) as flush:
        assert flush.addresses.tolist() == [TOP, TOP + PAGE, TOP + 2 * PAGE]
        kinds = [type(seen(world.space, TOP + n * PAGE)) for n in range(4)]
        assert kinds == [Leaf, Absent, Absent, Leaf]
    for n in range(3):
        assert look(world.space, TOP + n * PAGE).steps[-1].raw & (ATTR | AP2) == 4 | AP2


def test_a_page_that_is_changed_again_before_the_flush_is_the_latest(world: World) -> None:
    page(world)
    span = Span.of(TOP, PAGE)
    first = world.space.protect(span, 4, ATTR)
    second = world.space.protect(span, AP2, AP2)
    second.done()
    assert isinstance(seen(world.space, TOP), Absent)
    first.done()
    assert look(world.space, TOP).steps[-1].raw == 0x5000 | 3 | 4 | AP2


def test_what_comes_where_a_page_was_waits_for_its_flush(world: World) -> None:
    page(world)
    space, span = world.space, Span.of(TOP, PAGE)
    gone = space.unmap(span)
    space.map(Virtual(TOP), np.array([0x9000], np.uint64), 0, 0).done()
    with pytest.raises(SpaceError, match="is taken: its level-0 entry is 0x9003"):
        space.map(Virtual(TOP), np.array([0x9000], np.uint64), 0, 0)
    assert isinstance(seen(space, TOP), Absent)
    gone.done()
    assert look(space, TOP).physical == 0x9000


def test_what_was_unmapped_again_before_it_came_never_comes(world: World) -> None:
    page(world)
    space, span = world.space, Span.of(TOP, PAGE)
    first = space.protect(span, 4, ATTR)
    second = space.unmap(span)
    third = space.map(Virtual(TOP), np.array([0x9000], np.uint64), 0, 0)
    for flush, kind in ((third, Absent), (second, Absent), (first, Leaf)):
        assert isinstance(seen(space, TOP), Absent)
        flush.done()
        assert isinstance(seen(space, TOP), kind)
    with space.unmap(span):
        space.protect(span, 8, ATTR).done()
    assert look(space, TOP).steps[-1].raw == 0


def test_a_block_is_absent_until_its_table_comes_and_back(world: World) -> None:
    space = world.space
    space.map(Virtual(TOP), np.array([BLOCK], np.uint64), 1, NG).done()
    with split(space, Virtual(TOP)) as flush:
        assert told(flush) == ([TOP], False, False)
        assert isinstance(seen(space, TOP), Absent)
        # The space goes on with the table.
        space.protect(Span.of(TOP, PAGE), AP1, AP1).done()
        assert isinstance(seen(space, TOP), Absent)
    assert look(space, TOP).level == 0 and look(space, TOP).steps[-1].raw & AP1
    space.protect(Span.of(TOP, PAGE), 0, AP1).done()
    with collapse(space, Virtual(TOP), 1) as flush:
        assert flush.addresses.tolist() == list(range(TOP, TOP + BLOCK, PAGE))
        assert isinstance(seen(space, TOP), Absent)
    assert look(space, TOP).steps[-1].raw == BLOCK | 1 | NG
    assert space.account().tables[0] == 0


def test_a_moved_page_is_gone_before_the_flush_and_may_be_there(world: World) -> None:
    page(world)
    with move(world.space, Span.of(TOP, PAGE), Virtual(TOP + BLOCK)) as flush:
        assert flush.addresses.tolist() == [TOP]
        assert isinstance(seen(world.space, TOP), Absent)
        assert look(world.space, TOP + BLOCK).physical == 0x5000


def test_one_slot_at_a_time(world: World) -> None:
    page(world)
    space, slot = world.space, world.space.slot(Virtual(TOP), 0)
    with slots.put(space, slot, Value(K4, 0, 0x9000 | 3), Virtual(TOP)) as flush:
        assert told(flush) == ([TOP], False, True)
        assert slots.value(space, slot).raw == 0x9000 | 3
        assert isinstance(seen(space, TOP), Absent)
    assert look(space, TOP).physical == 0x9000
    with slots.clear(space, slot, Virtual(TOP)):
        pass
    assert isinstance(seen(space, TOP), Absent)


def test_a_table_that_is_gone_and_made_again_waits_for_the_flush(world: World) -> None:
    page(world)
    space = world.space
    space.unmap(Span.of(TOP, PAGE)).done()
    flush = space.free_empty(Span.of(TOP, BLOCK))
    assert told(flush) == ([TOP], False, False)
    page(world)
    assert isinstance(seen(space, TOP), Absent)
    flush.done()
    assert look(space, TOP).physical == 0x5000
    assert space.account().tables[:2] == (1, 1)


def test_what_waits_in_a_table_that_is_given_back_is_forgotten(world: World) -> None:
    page(world)
    space = world.space
    waits = space.unmap(Span.of(TOP, PAGE))
    table = space.slot(Virtual(TOP), 0).table
    space.free_empty(Span.of(TOP, BLOCK)).done()
    assert table.address in {world.allocator.allocate(K4, 0).address for _ in range(2)}
    world.memory.store(Physical(table.address), 8, 0x1234)
    waits.done()
    assert world.memory.load(Physical(table.address), 8) == 0x1234


def test_a_space_that_is_torn_down_waits_for_nothing(world: World) -> None:
    page(world)
    waits = world.space.protect(Span.of(TOP, PAGE), 4, ATTR)
    world.space.tear_down().done()
    before = world.memory.octets.tobytes()
    waits.done()
    assert world.memory.octets.tobytes() == before


def test_a_fork_takes_the_right_to_write_at_once(world: World) -> None:
    page(world, AF | AP1)
    child = world.new_space()
    with copy_range(world.space, child, Span.of(TOP, PAGE)).flush as flush:
        assert told(flush) == ([TOP], False, True)
        assert look(world.space, TOP).steps[-1].raw == 0x5000 | 3 | AF | AP1 | AP2
    assert look(child, TOP).steps[-1].raw == 0x5000 | 3 | AP1 | AP2


def test_the_kernel_s_half_is_a_space_of_its_own_and_can_be_shared(world: World) -> None:
    page(world)
    other = world.new_space()
    with sync_roots(world.space, [other], Span.of(TOP, BLOCK)) as flush:
        assert not flush
    assert look(other, TOP).physical == 0x5000


@pytest.mark.parametrize("granule", ["4K", "16K", "64K"])
@pytest.mark.parametrize("wide", [False, True])
def test_ranges_are_mapped_in_the_largest_blocks_of_every_granule(granule: str, wide: bool) -> None:
    format = stage1(granule, 48, 52 if wide else 48, wide=wide)
    world = World(format)
    level = len(format.levels) - 1
    here = format.levels[level]
    root = Root(world.allocator.allocate(format, level), Span.of(0, here.size * here.entries))
    space = Space(world.memory, (root,), world.allocator)
    sizes = [format.levels[number].size for number in format.page_levels()]
    top = max(size for size in sizes if size <= 1 << 40)
    first = top - sizes[0]
    # Bits 51:48 lie elsewhere in an entry of 52 bits.
    frame = (0xA << 48 if wide else 0) + first
    space.map_range(Virtual(first), Physical(frame), top + 2 * sizes[0], NG | AP1).done()
    for address, size in ((first, sizes[0]), (top, top), (2 * top, sizes[0])):
        found = look(space, address)
        assert found.leaf and found.leaf.size == size
        assert found.physical == frame + address - first
    with split(space, Virtual(top)) as flush:
        assert flush.addresses.tolist() == [top]
    assert isinstance(look(space, top).steps[-2].entry, Pointer)
    assert look(space, top + 12345).physical == frame + top + 12345 - first
