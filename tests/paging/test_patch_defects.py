"""What the proposed page-table API got wrong, each as it is right here.

The proposal is the patch "Proof-of-concept: better(?) page-table manipulation API" (linux-mm,
2018).  Its function is named where a test is about one.
"""

from collections.abc import Callable

import pytest

from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.allocator import TableAllocator
from harness.paging.copy import copy_range
from harness.paging.errors import OutOfTables
from harness.paging.format import Format
from harness.paging.linux.entries import Counted, Linux, ProtNone
from harness.paging.linux.folded import Folded
from harness.paging.reshape import split
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.table import Slot, Table
from harness.paging.value import Value
from harness.paging.x86.formats import PAT, PS, RW, US, P
from tests.paging.spaces import FORMATS, ROOM, World, granted, physical, tables_under


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    """Every format, the made-up one among them."""
    return World(FORMATS[request.param])


@pytest.fixture(params=["x86-4", "x86-5"])
def x86(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


def filled(table: Table, space: Space) -> list[int]:
    """The indices of the slots that hold anything."""
    return [slot.index for slot in table.slots() if space.read(slot)]


# ptp_init, ptp_walk_alloc: a pretended entry above the root, which is the root's entry 0


def test_the_first_step_fills_the_entry_of_the_address_and_no_other(world: World) -> None:
    top = world.format.levels[-1]
    for index in (1, top.entries // 2 - 1):
        address = Virtual(index * top.size)
        slot = slots.root(world.space, address)
        assert (slot.level, slot.index) == (len(world.format.levels) - 1, index)
        slots.walk_alloc(world.space, slot, address)
    assert filled(world.space.root_for(0).table, world.space) == [1, top.entries // 2 - 1]


def test_the_table_of_the_first_step_is_accounted(world: World) -> None:
    before = world.space.account()
    slots.walk_alloc(world.space, slots.root(world.space, Virtual(0)), Virtual(0))
    after = world.space.account()
    below = len(world.format.levels) - 2
    assert after.tables[below] == before.tables[below] + 1 == 1
    assert after.bytes == before.bytes + world.format.table_bytes(below)


# ptv_pfn: BUG() for every leaf


def test_the_frame_of_a_page_can_be_taken_at_every_level(world: World) -> None:
    for level in world.format.page_levels():
        frame = Physical(3 * world.size(level))
        leaf = Value(world.format, level, world.format.leaf(frame, level, 0))
        assert leaf.frame == frame


# ptp_alloc, ptp_free: who loses the race leaks its table


class Racing(TableAllocator):
    """Has something happen while a table is being allocated, once."""

    def __init__(self, world: World, meanwhile: Callable[[], object]) -> None:
        super().__init__(world.memory, Span(ROOM.size // 2, ROOM.last))
        self.meanwhile: Callable[[], object] | None = meanwhile
        self.given: list[Table] = []
        self.returned: list[Table] = []

    def allocate(self, format: Format, level: int) -> Table:
        table = super().allocate(format, level)
        self.given.append(table)
        happens, self.meanwhile = self.meanwhile, None
        if happens:
            happens()
        return table

    def free(self, table: Table) -> None:
        super().free(table)
        self.returned.append(table)


def test_the_loser_of_a_race_gives_its_table_back(world: World) -> None:
    address = Virtual(world.size(1))
    slot = slots.root(world.space, address)
    racing = Racing(world, lambda: slots.populate(world.space, slot))
    world.space.allocator = racing
    below = slots.walk_alloc(world.space, slot, address)
    loser, winner = racing.given
    assert below.table == winner
    assert racing.returned == [loser]
    assert tables_under(world.space).count(winner) == 1
    assert world.space.account().tables[winner.level] == 1


# ptp_convert: level 3 is a p4d where it is a pgd, and the other way round


def test_a_level_3_entry_is_a_pgd_with_four_levels_and_a_p4d_with_five() -> None:
    for name, pgd_level in ("x86-4", 3), ("x86-5", 4):
        world = World(FORMATS[name])
        k = Folded(world.format)
        address = Virtual(5 << 39)
        pgd = k.pgd_offset(world.space, address)
        p4d = k.p4d_alloc(world.space, pgd, address)
        assert p4d is not None
        assert (pgd[1].level, p4d[1].level, p4d[1].index) == (pgd_level, 3, 5)


# ptp_alloc_one: a new table is a value without flags, which ptv_swap and ptv_leaf take for swap


def test_a_new_table_is_a_table_from_the_start(world: World) -> None:
    for level in range(1, len(world.format.levels)):
        table, raw = world.space.new_table(level - 1, world.format.open_pointer(level))
        pointer = Value(world.format, level, raw)
        assert pointer.points and pointer.present
        assert not pointer.leaf
        assert pointer.frame == table.address


def test_a_new_table_is_no_swap_entry(x86: World) -> None:
    slot = slots.root(x86.space, Virtual(0))
    while slot.level:
        below = slots.walk_alloc(x86.space, slot, Virtual(0))
        raw = x86.space.read(slot)
        assert Linux(x86.format).decode(raw, slot.level) == x86.format.decode(raw, slot.level)
        assert slots.table(x86.space, slot) == below.table
        slot = below


# ptv_swap: whatever is neither zero nor present


def test_a_prot_none_page_is_present_and_counts_as_a_page(x86: World) -> None:
    linux = Linux(x86.format)
    address, child = Virtual(0x5000), x86.new_space()
    none = linux.protect(0x9000 | P | RW | US, 0, None)
    x86.space.write(x86.space.slot(address, 0), none)
    assert linux.present(none, 0)
    assert linux.decode(none, 0) == ProtNone(Physical(0x9000), 1 << 12)
    copied = copy_range(x86.space, child, Span.of(address, 1 << 12), linux)
    copied.flush.done()
    assert copied.counts[Counted.PAGE] == 1
    assert copied.counts.get(Counted.SWAP, 0) == 0


# ptv_huge: bit 7, which is PAT in a small page


def test_the_pat_bit_of_a_small_page_makes_it_no_large_one(x86: World) -> None:
    small = Value(x86.format, 0, 0x1000 | P | PAT)
    assert small.leaf and not small.huge
    assert Value(x86.format, 1, 0x20_0000 | P | PS).huge


# copy_pt_range: goes on for ever where a table below cannot be had, and forgets the error


def test_a_copy_that_runs_out_of_tables_at_any_depth_stops_says_so_and_is_undone(
    world: World,
) -> None:
    frames = world.frames(2)
    for first in (0, world.size(1), world.size(2)):
        world.space.map(Virtual(first), frames, 0, world.rights("write"))
    child = world.new_space()
    whole = Span(0, 2 * world.size(2) - 1)
    needed = len(tables_under(world.space)) - len({r.table for r in world.space.roots})
    for allowed in range(needed):
        world.allocator.remaining = allowed
        before = world.snapshot()
        tables = tables_under(child)
        with pytest.raises(OutOfTables):
            copy_range(world.space, child, whole)
        assert world.snapshot() == before
        assert tables_under(child) == tables
        assert "write" in granted(world.space, 0)
    world.allocator.remaining = needed
    copy_range(world.space, child, whole).flush.done()
    assert "write" not in granted(world.space, 0)
    assert physical(child, world.size(2)) == frames[0]


# copy_pt_leaf: -EAGAIN of a large page that was split meanwhile becomes -ENOMEM


def test_a_large_page_that_is_split_during_its_copy_is_copied_in_small_ones(
    world: World,
) -> None:
    size, page = world.size(1), world.page
    world.space.map(Virtual(0), world.frames(1, 1), 1, world.rights("write"))
    child = world.new_space()
    child.allocator = Racing(world, lambda: split(world.space, Virtual(0)).done())
    copied = copy_range(world.space, child, Span.of(0, size))
    copied.flush.done()
    assert sum(copied.counts.values()) == size // page
    for space in world.space, child:
        assert [physical(space, n * page) for n in range(size // page)] == [
            8 * size + n * page for n in range(size // page)
        ]
        assert granted(space, 0) == set()


# sync_global_pgds: compares whole entries


def top_slot(space: Space) -> tuple[Virtual, Slot]:
    """The last slot of the last root, and its first address."""
    return list(space.roots[-1].slots())[-1]


def test_entries_that_differ_in_accessed_and_software_bits_alone_are_in_sync(
    world: World,
) -> None:
    reference, space = world.space, world.new_space()
    address, slot = top_slot(reference)
    slots.populate(reference, slot)
    _, other = top_slot(space)
    there = reference.read(slot) | world.format.accessed
    space.write(other, there)
    sync_roots(reference, [space], Span.of(address, slot.size))
    assert space.read(other) == there
