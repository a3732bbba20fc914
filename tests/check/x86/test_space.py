"""The space in a guest's RAM, without a guest: frames come one after the other to the last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.check.space import TABLES, NotedMemory
from harness.check.x86.fixtures import lacking
from harness.check.x86.space import GuestSpace
from harness.machine.ram import ARENA
from harness.machine.x86.guest import Guest
from harness.paging.address import Physical, Virtual
from harness.paging.space import SpaceError

PAGE = 0x1000
FIRST = ARENA.stop + TABLES
"""Where frames begin."""
FREE = 16
"""Pages of RAM above the tables."""


def guest(pages: int = FREE, **has: Any) -> Guest:
    """As much of a guest as a space asks for."""
    features = {"smep": False, "smap": False, "gigabyte_pages": True, **has}
    size = FIRST + pages * PAGE
    made = SimpleNamespace(
        image=SimpleNamespace(arena=ARENA),
        ram=SimpleNamespace(buffer=np.zeros(size, np.uint8), size=size, base=0),
        info=SimpleNamespace(has=features.__getitem__, physical_bits=40, vendor="GenuineIntel"),
        engine=SimpleNamespace(name="tcg"),
    )
    return cast(Guest, made)


def test_five_levels_need_a_processor_that_has_them_and_four_do_not() -> None:
    with_la57, without = guest(la57=True), guest(la57=False)
    assert lacking(without, 5) == "tcg has a processor without LA57, so no five levels"
    assert [lacking(without, 4), lacking(with_la57, 4), lacking(with_la57, 5)] == [None] * 3


def test_frames_follow_each_other_and_are_given_once() -> None:
    space = GuestSpace(guest(), 4)
    first = FIRST
    assert space.frames(2).tolist() == [first, first + PAGE]
    assert space.frames(1).tolist() == [first + 2 * PAGE]


def test_frames_are_given_to_the_last_and_not_beyond() -> None:
    space = GuestSpace(guest(), 4)
    assert len(space.frames(FREE)) == FREE
    with pytest.raises(SpaceError, match="RAM has no 1 free frames of 0x1000 bytes"):
        space.frames(1)
    with pytest.raises(SpaceError):
        GuestSpace(guest(), 4).frames(FREE + 1)


def test_larger_frames_are_aligned_to_their_size() -> None:
    space = GuestSpace(guest(3 * 512), 4)
    space.frames(1)
    (large,) = space.frames(1, 1).tolist()
    assert large % (2 << 20) == 0
    assert space.frames(1).tolist() == [large + (2 << 20)]


def test_a_space_beside_another_shares_its_tables_and_frames() -> None:
    machine = guest()
    space = GuestSpace(machine, 4)
    beside = GuestSpace(machine, 4, space)
    taken = [*space.frames(1).tolist(), *beside.frames(1).tolist(), *space.frames(1).tolist()]
    assert taken == [FIRST + n * PAGE for n in range(3)]
    assert beside.memory is space.memory and beside.allocator is space.allocator
    assert beside.cpu.cr3 != space.cpu.cr3


@pytest.mark.parametrize("levels", [4, 5])
def test_the_state_is_that_of_the_guest_s_processor(levels: int) -> None:
    for feature in "smep", "smap", "gigabyte_pages":
        for given in False, True:
            cpu = GuestSpace(guest(**{feature: given}), levels).cpu
            assert (cpu.levels, cpu.maxphyaddr) == (levels, 40)
            assert getattr(cpu, {"gigabyte_pages": "page1gb"}.get(feature, feature)) == given


def test_memory_notes_what_was_there_before_each_store_while_it_is_asked_to() -> None:
    memory = NotedMemory(np.zeros(64, np.uint8))
    memory.store(Physical(8), 8, 1)
    memory.notes = []
    memory.store(Physical(8), 8, 2)
    memory.scatter(np.array([16, 8], np.uint64), 8, np.array([3, 4], np.uint64))
    noted = [(addresses.tolist(), before.tolist()) for addresses, before in memory.notes]
    assert noted == [([8], [1]), ([16, 8], [0, 2])]
    assert [memory.load(Physical(address), 8) for address in (8, 16)] == [4, 3]
    memory.notes = None
    memory.store(Physical(8), 8, 5)
    assert memory.load(Physical(8), 8) == 5


def test_what_is_mapped_is_in_the_guest_s_ram() -> None:
    machine = guest()
    space = GuestSpace(machine, 4)
    space.map(Virtual(0x40_0000), space.frames(1), 0, space.format.granting("write"))
    root = int(machine.ram.buffer[space.cpu.cr3 : space.cpu.cr3 + 8].view(np.uint64)[0])
    assert root & 1


@pytest.mark.parametrize(("size", "pages"), [(PAGE, 1), (5 * PAGE, 5)])
def test_a_region_is_a_piece_of_ram_that_is_given_once(size: int, pages: int) -> None:
    machine: Any = guest()
    machine.ram.clear = lambda span: None  # as of one that is zero
    space = GuestSpace(machine, 4)
    region = space.region(size)
    assert (region.address, region.size) == (FIRST, size)
    assert space.frames(1).tolist() == [FIRST + pages * PAGE]
    with pytest.raises(SpaceError, match="RAM has no"):
        space.region(FREE * PAGE)


@pytest.mark.parametrize("size", [0, -1, 100])
def test_a_region_has_at_least_its_first_frame(size: int) -> None:
    with pytest.raises(SpaceError, match=f"a region of {size} bytes has no room for its first"):
        GuestSpace(guest(), 4).region(size)
