"""A tour through tables: the addresses are those of the walks that lead to them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.inspect import tour
from harness.inspect.sources import layout
from harness.inspect.tour import Place
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86.cpu import Cpu, Mode


@pytest.mark.parametrize("name", ["halves", "rights", "page-sizes", "self-map", "aliases"])
def test_every_page_is_come_to_by_following_pointers(name: str) -> None:
    snapshot = layout.snapshot(name, None, {})
    cpu, memory = snapshot.cpu, snapshot.memory
    listed = bulk.leaves(memory, cpu.roots)
    pages = listed.virtual[listed.end == End.LEAF]
    assert len(pages)
    some = pages[np.linspace(0, len(pages) - 1, 40).astype(np.int64)]
    (start,) = tour.starts(cpu)
    for address in map(Virtual, some.tolist()):
        root = root_for(cpu, address)
        assert root is not None
        found = walk(memory, root, address)
        place: Place = start
        for step in found.steps[:-1]:
            below = tour.entered(place, tour.lines(memory, place.table)[step.slot.index])
            assert below is not None
            place = below
        last = found.steps[-1].slot
        assert place.table == last.table
        assert place.address(last.index) == address
        assert tour.reached(cpu, memory, address) == (place, last.index)


def test_the_rights_are_those_of_the_way() -> None:
    snapshot = layout.snapshot("rights", None, {})
    found = bulk.leaves(snapshot.memory, snapshot.cpu.roots)
    for virtual, granted in zip(found.virtual.tolist(), found.granted.tolist(), strict=True):
        reached = tour.reached(snapshot.cpu, snapshot.memory, Virtual(virtual))
        assert reached is not None
        place, index = reached
        line = tour.lines(snapshot.memory, place.table)[index]
        assert line.raw is not None
        assert place.granted & snapshot.cpu.format.granted(line.raw, place.table.level) == granted


def test_a_right_that_is_missing_far_above_stays_missing() -> None:
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    for slot, raw in ((0, 0x1003), (0x1000, 0x2007), (0x2000, 0x3007)):
        memory.store(Physical(slot), 8, raw)
    cpu = Cpu.long_mode(4, 0)
    reached = tour.reached(cpu, memory, Virtual(0))
    assert reached is not None
    assert cpu.format.rights_of(reached[0].granted) == ("write", "execute")


def test_one_goes_up_the_way_that_one_came() -> None:
    snapshot = layout.snapshot("linux-5", None, {})
    address = Virtual(0x5555_5555_4000)
    reached = tour.reached(snapshot.cpu, snapshot.memory, address)
    assert reached is not None
    place: Place | None = reached[0]
    root = root_for(snapshot.cpu, address)
    assert root is not None
    steps = walk(snapshot.memory, root, address).steps
    for number, step in reversed([*enumerate(steps)]):
        assert place is not None
        assert place.table == step.slot.table
        assert [*zip(place.way, place.raws, strict=True)] == [one[:2] for one in steps[:number]]
        place = place.above()
    assert place is None


def test_an_upper_half_has_the_addresses_of_its_own_root() -> None:
    memory = BufferMemory(np.zeros(0x1000, np.uint8))
    (start,) = tour.starts(Cpu.long_mode(4, 0))
    assert start.address(255) == 0x7F80_0000_0000
    assert start.address(256) == 0xFFFF_8000_0000_0000
    assert len(tour.lines(memory, start.table)) == 512
    assert start.span is None


def test_a_table_spans_what_the_slot_that_leads_to_it_spans() -> None:
    words = {0: 0x1003, 0x1000 + 8 * 3: 0x2003, 0x2000 + 8 * 5: 0x3003}
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    for slot, raw in words.items():
        memory.store(Physical(slot), 8, raw)
    address = Virtual(3 << 30 | 5 << 21 | 7 << 12)
    reached = tour.reached(Cpu.long_mode(4, 0), memory, address)
    assert reached is not None
    place, index = reached
    assert (place.table.address, index) == (0x3000, 7)
    spans = []
    while place.way:
        spans.append(place.span)
        above = place.above()
        assert above is not None
        place = above
    assert spans == [Span.of(3 << 30 | 5 << 21, 1 << 21), Span.of(3 << 30, 1 << 30),
                     Span.of(0, 1 << 39)]  # fmt: skip
    assert place.span is None


def test_an_address_that_is_not_canonical_is_reached_in_no_table() -> None:
    memory = BufferMemory(np.zeros(0x1000, np.uint8))
    assert tour.reached(Cpu.long_mode(4, 0), memory, Virtual(1 << 47)) is None
    assert tour.reached(Cpu.long_mode(5, 0), memory, Virtual(1 << 47)) is not None


def test_a_walk_that_leaves_memory_ends_in_the_table_that_is_not_there() -> None:
    memory = BufferMemory(np.zeros(0x1000, np.uint8))
    memory.store(Physical(0), 8, 0x10_0003)
    reached = tour.reached(Cpu.long_mode(4, 0), memory, Virtual(5 << 30))
    assert reached is not None
    place, index = reached
    assert (place.table.address, place.table.level, index) == (0x10_0000, 2, 5)
    assert place.raws == (0x10_0003,)


def test_each_page_directory_of_pae_paging_is_a_start() -> None:
    cpu = Cpu(0x8000_0001, 0, 0x20, 0, pdptes=(0x1001, 0, 0x2001, 0x1001))
    assert cpu.mode is Mode.PAE
    first, second = tour.starts(cpu)
    assert [len(start.roots) for start in (first, second)] == [2, 1]
    assert second.address(1) == 0x8020_0000


def test_a_slot_without_memory_is_neither_absent_nor_entered() -> None:
    memory = BufferMemory(np.zeros(0x800, np.uint8))
    memory.store(Physical(8), 8, 0x5007)
    (start,) = tour.starts(Cpu.long_mode(4, 0))
    lines = tour.lines(memory, start.table)
    assert lines[256].raw is None
    assert tour.entered(start, lines[256]) is None
    assert tour.next_held(lines, 1, 1) == 256
    assert tour.next_held(lines, 256, -1) == 1
    assert tour.next_held(lines, 1, -1) is None
