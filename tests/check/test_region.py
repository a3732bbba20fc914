"""Memory of a guest that is handed to code under test."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from harness.check.region import ALLOC, FRAME, FREE, POISON, Region
from harness.machine.ram import Ram
from harness.paging.address import Span
from harness.paging.space import SpaceError
from harness.paging.x86.cpu import Cpu

BEGIN, COUNT = 48 << 20, 4


@pytest.fixture
def ram() -> Iterator[Ram]:
    made = Ram(64 << 20)
    made.buffer[BEGIN - FRAME : BEGIN + 8 * FRAME] = 1
    yield made
    made.close()


@pytest.fixture
def region(ram: Ram) -> Region:
    return Region(ram, Span.of(BEGIN, COUNT * FRAME))


def test_all_of_it_is_zero_at_first_and_nothing_beside_it_is(ram: Ram, region: Region) -> None:
    assert not ram.buffer[BEGIN : BEGIN + COUNT * FRAME].any()
    assert ram.buffer[BEGIN - FRAME : BEGIN].all()
    assert ram.buffer[BEGIN + COUNT * FRAME : BEGIN + 8 * FRAME].all()


def test_what_code_stores_at_its_pointers_is_in_the_ram(ram: Ram, region: Region) -> None:
    assert (region.address, region.size) == (BEGIN, COUNT * FRAME)
    ctypes.c_uint64.from_address(region.pointer).value = 0x1122
    ctypes.c_uint64.from_address(region.base + BEGIN + 8).value = 0x3344
    assert ram.buffer[BEGIN : BEGIN + 16].view("<u8").tolist() == [0x1122, 0x3344]


def test_each_frame_is_given_once_and_again_when_it_is_back(region: Region) -> None:
    frames = [region.frame() for _ in range(COUNT)]
    assert frames == [BEGIN + FRAME * number for number in range(COUNT)]
    with pytest.raises(SpaceError, match=r"the region 0x3000000..0x3003fff has no free frame"):
        region.frame()
    region.take_back(frames[1])
    assert region.frame() == frames[1]


def test_a_frame_that_no_one_has_cleared_is_no_table(ram: Ram, region: Region) -> None:
    frame, table = region.frame(), region.table()
    format = Cpu.long_mode(4, 0).format
    word = int(ram.buffer[frame : frame + 8].view("<u8")[0])
    assert (ram.buffer[frame : frame + FRAME] == POISON).all()
    assert all(format.malformed(word, level) for level in range(4))
    assert not ram.buffer[table : table + FRAME].any()


@pytest.mark.parametrize("address", [BEGIN - FRAME, BEGIN + 1, BEGIN + 2 * FRAME, 0])
def test_what_was_not_given_is_not_taken_back(region: Region, address: int) -> None:
    region.frame()
    with pytest.raises(SpaceError, match=r"is not a frame that the region .* has given"):
        region.take_back(address)
    region.take_back(BEGIN)
    with pytest.raises(SpaceError, match="is not a frame"):
        region.take_back(BEGIN)


def test_what_c_gives_back_that_was_not_out_is_raised_once_and_the_first_of_it(
    region: Region, recwarn: pytest.WarningsRecorder
) -> None:
    alloc, free = region.alloc, region.free
    region.check()
    first, second = alloc(), alloc()
    free(first)
    region.check()
    free(first)
    free(second + 1)
    free(0)
    with pytest.raises(
        SpaceError, match=f"^{first:#x} is not a frame that .* or it is back already"
    ):
        region.check()
    region.check()
    assert [alloc(), alloc(), alloc(), alloc()] == [first, *(BEGIN + n * FRAME for n in (2, 3)), 0]
    assert not recwarn.list


def test_frames_are_taken_back_in_the_same_time_however_many_are_back(ram: Ram) -> None:
    region = Region(ram, Span.of(BEGIN, 2 * FRAME))
    frames = [region.frame(), region.frame()]

    class Stack(list[int]):
        def __contains__(self, item: object) -> bool:
            raise AssertionError("the stack is searched")

    region._free = Stack()
    for frame in frames:
        region.take_back(frame)
    assert [region.frame(), region.frame()] == frames[::-1]


def test_its_functions_are_those_of_c_and_give_0_where_there_is_none(region: Region) -> None:
    alloc, free = ALLOC(ctypes.cast(region.alloc, ctypes.c_void_p).value or 0), region.free
    assert isinstance(free, FREE)
    region.remaining = 2
    assert [alloc(), alloc(), alloc()] == [BEGIN, BEGIN + FRAME, 0]
    free(BEGIN)
    region.remaining = None
    assert [alloc(), alloc(), alloc(), alloc()] == [
        *(BEGIN, BEGIN + 2 * FRAME, BEGIN + 3 * FRAME),
        0,
    ]
