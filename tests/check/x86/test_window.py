"""The window lies in a hole that no layout uses, and hides nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.check.hole import find_hole, find_root_hole
from harness.check.x86.window import check_root, new_root, open_window
from harness.machine.errors import Misuse
from harness.machine.ram import ARENA, TABLE_ARENA, beside
from harness.machine.stub import StubImage
from harness.machine.x86.stub import BUILD
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.space import Space, SpaceError, TableAllocator
from harness.paging.walk import walk
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.paging.x86.load import read_pdptes

RAM = 64 << 20
GIB = 1 << 30
POINTER = 0x7
"""P, RW and US: a pointer that gives every right."""


class Bench:
    """A space in RAM of its own, above the machine's part."""

    def __init__(self, levels: int) -> None:
        self.memory = BufferMemory(np.zeros(RAM, np.uint8))
        self.free = beside(ARENA, RAM)
        self.allocator = TableAllocator(self.memory, Span(ARENA.stop, ARENA.stop + (8 << 20) - 1))
        root = self.allocator.allocate(formats.long_mode(levels, 40, True, True), levels - 1)
        self.cpu = Cpu.long_mode(levels, root.address)
        self.space = Space(self.memory, self.cpu.roots, self.allocator)

    def page(self, virtual: int) -> None:
        frame = np.array([48 << 20], np.uint64)
        self.space.map(Virtual(virtual), frame, 0, formats.RW | formats.US)

    def entry(self, virtual: int, level: int, raw: int) -> None:
        self.space.write(self.space.slot(Virtual(virtual), level), raw)

    def physical(self, cpu: Cpu, virtual: int) -> int | None:
        root = root_for(cpu, Virtual(virtual))
        assert root is not None
        return walk(self.memory, root, Virtual(virtual)).physical


@pytest.fixture(params=[4, 5])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_a_cr3_that_can_be_loaded_and_leads_to_tables_is_taken(bench: Bench) -> None:
    check_root(bench.free, bench.cpu)
    low = replace(bench.cpu, cr3=bench.cpu.cr3 | 0xFFF)  # PWT and PCD, and what is ignored
    check_root(bench.free, low)
    last = Bench(bench.cpu.levels).memory.span.last + 1 - 0x1000
    check_root(bench.free, replace(bench.cpu, cr3=last))
    check_root(bench.free, replace(bench.cpu, cr3=ARENA.stop))


@pytest.mark.parametrize(
    ("cr3", "why"),
    [
        (1 << 40, "0x10000000000 in it is reserved"),
        (1 << 63, "0x8000000000000000 in it is reserved"),
        (1 << 64, "CR3 has 64 bits"),
        (-0x1000, "CR3 has 64 bits"),
    ],
)
def test_a_cr3_that_mov_refuses_is_refused(bench: Bench, cr3: int, why: str) -> None:
    with pytest.raises(Misuse, match=f"CR3 cannot be loaded with {cr3:#x}: {why}"):
        check_root(bench.free, replace(bench.cpu, cr3=cr3))


@pytest.mark.parametrize("root", [0, ARENA.stop - 0x1000, RAM])
def test_a_root_that_is_no_table_of_the_caller_s_is_refused(bench: Bench, root: int) -> None:
    with pytest.raises(Misuse, match=f"has the root table at {root:#x}, where there is no memory"):
        check_root(bench.free, replace(bench.cpu, cr3=root))


def test_the_hole_of_a_root_is_the_first_empty_slot_from_the_middle_on(bench: Bench) -> None:
    """Of the 256 slots of a half: 128 to 255, then 0 to 127; a note of the software's is taken."""
    (root, _) = bench.cpu.roots
    raw = {128: 0x1007, 129: 1 << 9}
    found = []
    for taken in (), (128,), (128, 129), range(128, 256), range(256):
        for index in range(256):
            value = raw.get(index, POINTER) if index in taken else 0
            bench.memory.store(root.table.slot(index).address, 8, value)
        try:
            first, (slot,) = find_root_hole(bench.memory, root)
        except SpaceError as error:
            assert "no empty slot" in str(error)
            continue
        assert first == slot.index * slot.size
        found.append(slot.index)
    assert found == [128, 129, 130, 0]


def test_the_hole_is_the_first_absent_slot_at_the_lowest_level_that_fits(bench: Bench) -> None:
    bench.page(0)
    first, (slot,) = find_hole(bench.memory, bench.cpu.roots, GIB)
    assert (first, slot.level) == (GIB, 2)
    first, (slot,) = find_hole(bench.memory, bench.cpu.roots, GIB + 1)
    assert (first, slot.level) == (1 << 39, 3)


@pytest.mark.parametrize("withheld", [formats.RW, formats.US, formats.XD])
def test_a_hole_below_an_entry_that_withholds_a_right_is_none(bench: Bench, withheld: int) -> None:
    bench.page(0)
    slot = bench.space.slot(Virtual(0), 3)
    bench.space.write(slot, bench.space.read(slot) ^ withheld)
    first, _ = find_hole(bench.memory, bench.cpu.roots, GIB)
    assert first >= 1 << 39


def test_a_hole_in_a_shared_table_is_none(bench: Bench) -> None:
    bench.page(0)
    pointer = bench.space.read(bench.space.slot(Virtual(0), 3))
    bench.entry(1 << 39, 3, pointer)
    first, _ = find_hole(bench.memory, bench.cpu.roots, GIB)
    assert first >= 1 << 40


def test_a_hole_in_a_table_that_is_one_of_a_higher_level_too_is_none(bench: Bench) -> None:
    """Through a self-map that the user may use as well, the root is a table of every level: what a
    window there has as pages would elsewhere be tables, all of RAM among them."""
    root = bench.cpu.roots[-1].table
    bench.memory.store(root.slot(510).address, 8, root.address | POINTER)
    _, (slot,) = find_hole(bench.memory, bench.cpu.roots, GIB)
    assert (slot.table, slot.level) == (root, bench.cpu.levels - 1)


def test_no_entry_of_the_window_changes_while_the_guest_runs_there(bench: Bench) -> None:
    """Through a self-map they are pages' entries, in which A would be set by nobody's access."""
    window = open_window(bench.memory, bench.cpu, StubImage.load(BUILD), bench.allocator)
    root = root_for(bench.cpu, Virtual(window.span.first))
    assert root is not None
    for step in walk(bench.memory, root, Virtual(window.span.first + ARENA.start)).steps:
        assert step.raw & formats.A, step


def test_a_space_without_a_hole_is_refused_with_a_sentence() -> None:
    bench = Bench(4)
    table = bench.cpu.roots[0].table
    for slot in table.slots():
        bench.space.write(slot, formats.P | formats.RW)  # a pointer to frame 0, for no user
    with pytest.raises(SpaceError, match=r"tables leave no \w+ of addresses free"):
        find_hole(bench.memory, bench.cpu.roots, GIB)


def test_the_window_maps_all_ram_and_only_inside_its_span(bench: Bench) -> None:
    bench.page(0x7000)
    before = bulk.leaves(bench.memory, bench.cpu.roots).virtual.tolist()
    tables = TableAllocator(bench.memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
    image = StubImage.load(BUILD)
    window = open_window(bench.memory, bench.cpu, image, tables)
    after = bulk.leaves(bench.memory, bench.cpu.roots)
    assert [one for one in after.virtual.tolist() if one not in window.span] == before
    entry = replace(bench.cpu, cr3=window.state.entry_cr3)
    for physical in (0, image.text.start, image.user.start, image.data.start, RAM - 1):
        assert bench.physical(bench.cpu, window.span.first + physical) == physical
        assert bench.physical(entry, window.span.first + physical) == physical
    stub = bulk.leaves(bench.memory, entry.roots)
    stub = stub.take(np.array([one not in window.span for one in stub.virtual.tolist()]))
    assert (stub.virtual == stub.physical).all()  # and what it enters by, nothing else
    assert stub.virtual.tolist() == list(range(image.text.start, image.data.stop, 4096))
    assert window.span == Span.of(window.span.first, RAM)
    inside = np.array([one in window.span for one in after.virtual.tolist()])
    noted = after.raw[inside] & np.uint64(formats.A | formats.D)
    assert (noted == formats.A | formats.D).all()  # so that no access sets them (SDM 4.8)


@pytest.mark.parametrize(("small", "levels"), [(True, {0}), (False, {0, 1})])
def test_the_window_has_small_pages_where_they_are_asked_for(
    bench: Bench, small: bool, levels: set[int]
) -> None:
    tables = TableAllocator(bench.memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
    image = StubImage.load(BUILD)
    window = open_window(bench.memory, bench.cpu, image, tables, in_small_pages=small)
    leaves = bulk.leaves(bench.memory, bench.cpu.roots)
    assert set(leaves.level.tolist()) == levels
    size = np.array([4096, 2 << 20])[leaves.level]
    assert size.sum() == RAM
    assert (leaves.virtual - leaves.physical == window.span.first).all()


def test_only_the_user_code_of_the_stub_is_the_users(bench: Bench) -> None:
    tables = TableAllocator(bench.memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
    image = StubImage.load(BUILD)
    window = open_window(bench.memory, bench.cpu, image, tables)
    leaves = bulk.leaves(bench.memory, bench.cpu.roots)
    user = leaves.physical[(leaves.granted & np.uint64(formats.US)) != 0]
    assert user.tolist() == list(range(image.user.start, image.user.stop, 4096))
    text = np.isin(leaves.physical, np.arange(image.text.start, image.text.stop, 4096))
    assert not (leaves.granted[text] & np.uint64(formats.RW)).any()
    assert window.span.size == RAM


# ---- with LASS ----


def test_with_lass_the_stub_is_in_both_halves(bench: Bench) -> None:
    cpu = replace(bench.cpu, cr4=bench.cpu.cr4 | Cr4.LASS)
    bench.page(0x7000)
    before = bulk.leaves(bench.memory, cpu.roots).virtual.tolist()
    tables = TableAllocator(bench.memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
    image = StubImage.load(BUILD)
    window = open_window(bench.memory, cpu, image, tables)
    upper, lower = window.spans
    assert (upper.first >> 63, lower.first >> 63) == (1, 0)
    assert (window.state.window, window.state.user_window) == (upper.first, lower.first)
    leaves = bulk.leaves(bench.memory, cpu.roots)
    assert leaves.virtual[~window.holds(leaves.virtual)].tolist() == before
    stub = range(image.text.start, image.data.stop, 4096)
    below = leaves.take((leaves.virtual >> np.uint64(63) == 0) & window.holds(leaves.virtual))
    assert (below.virtual - below.physical == lower.first).all()
    assert below.physical.tolist() == list(stub)
    entry = replace(cpu, cr3=window.state.entry_cr3)
    for physical in (0, image.text.start, image.data.start, RAM - 1):
        assert bench.physical(cpu, upper.first + physical) == physical
        assert bench.physical(entry, upper.first + physical) == physical
    window.close(bench.memory)
    assert bulk.leaves(bench.memory, cpu.roots).virtual.tolist() == before


def test_with_lass_a_space_without_a_hole_in_either_half_is_refused(bench: Bench) -> None:
    cpu = replace(bench.cpu, cr4=bench.cpu.cr4 | Cr4.LASS)
    tables = TableAllocator(bench.memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
    for root in cpu.roots:
        slots = [slot for _, slot in root.slots()]
        held = [bench.memory.load(slot.address, 8) for slot in slots]
        for slot in slots:
            bench.memory.store(slot.address, 8, formats.P)  # a pointer to frame 0, for no user
        with pytest.raises(SpaceError, match=r"tables leave no \w+ of addresses free"):
            open_window(bench.memory, cpu, StubImage.load(BUILD), tables)
        for slot, raw in zip(slots, held, strict=True):
            bench.memory.store(slot.address, 8, raw or 0)


# ---- outside long mode ----


class Legacy:
    """A root without entries, in RAM of its own."""

    def __init__(self, mode: Mode) -> None:
        self.memory = BufferMemory(np.zeros(RAM, np.uint8))
        self.allocator = TableAllocator(self.memory, Span(4 << 20, (8 << 20) - 1))
        usual = Cpu.in_mode(mode, 0, cr4=0)
        self.cpu = new_root(self.memory, usual, self.allocator)
        self.image = StubImage.load(BUILD)

    def physical(self, address: int) -> int | None:
        root = root_for(self.cpu, Virtual(address))
        assert root is not None
        return walk(self.memory, root, Virtual(address)).physical


@pytest.fixture(params=[Mode.BITS_32, Mode.PAE], ids=lambda mode: mode.value)
def legacy(request: pytest.FixtureRequest) -> Legacy:
    return Legacy(request.param)


def test_where_no_level_is_large_enough_the_hole_is_several_slots(legacy: Legacy) -> None:
    size = legacy.cpu.format.levels[1].size
    taken = next(slot for first, slot in legacy.cpu.roots[0].slots() if first == size)
    legacy.memory.store(taken.address, legacy.cpu.format.entry_bytes, POINTER)
    first, slots = find_hole(legacy.memory, legacy.cpu.roots, RAM)
    assert first == 2 * size
    assert [slot.index for slot in slots] == list(range(2, 2 + RAM // size))


def test_such_a_window_maps_all_ram_and_closes(legacy: Legacy) -> None:
    window = open_window(legacy.memory, legacy.cpu, legacy.image, legacy.allocator)
    assert window.span.size == RAM
    for offset in (0, legacy.image.text.start, RAM // 2, RAM - 1):
        assert legacy.physical(window.span.first + offset) == offset
    assert legacy.physical(window.span.last + 1) is None
    window.close(legacy.memory)
    assert legacy.physical(window.span.first) is None


def test_a_window_is_not_where_the_stub_is_entered(legacy: Legacy) -> None:
    """At the addresses that it is linked at, which its entry tables map to themselves."""
    base = 24 << 20
    image = legacy.image.moved(base)
    window = open_window(legacy.memory, legacy.cpu, image, legacy.allocator)
    assert window.span.first > image.data.stop
    entry = replace(legacy.cpu, cr3=window.state.entry_cr3)
    if entry.mode is Mode.PAE:
        entry = replace(entry, pdptes=read_pdptes(legacy.memory, entry.cr3))
    for part in (image.text, image.user, image.data):
        legacy.cpu = entry
        assert legacy.physical(part.start) == part.start
        assert legacy.physical(window.span.first + part.start) == part.start


def test_pdptes_lie_where_cr3_says_and_lead_to_a_table_each() -> None:
    legacy = Legacy(Mode.PAE)
    assert legacy.cpu.cr3 % 4096 and legacy.cpu.cr3 % 32 == 0
    assert read_pdptes(legacy.memory, legacy.cpu.cr3) == legacy.cpu.pdptes
    assert len({raw & ~1 for raw in legacy.cpu.pdptes}) == 4
