"""Memory of a guest that is handed to code under test."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from harness.check.region import ALLOC, FRAME, FREE, POISON, Region, astray, uncleared
from harness.machine.ram import Ram
from harness.paging.address import Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu as Hart
from harness.paging.space import SpaceError
from harness.paging.x86.cpu import Cpu

BEGIN, COUNT = 48 << 20, 4
FIRST, SIZE = BEGIN + FRAME, (1 + COUNT) * FRAME
"""The first frame that is handed out, behind that at the region's address."""


@pytest.fixture
def ram() -> Iterator[Ram]:
    made = Ram(64 << 20)
    made.buffer[BEGIN - FRAME : BEGIN + 8 * FRAME] = 1
    yield made
    made.close()


@pytest.fixture
def region(ram: Ram) -> Region:
    return Region(ram, Span.of(BEGIN, SIZE))


def test_all_of_it_is_zero_at_first_and_nothing_beside_it_is(ram: Ram, region: Region) -> None:
    assert not ram.buffer[BEGIN : BEGIN + SIZE].any()
    assert ram.buffer[BEGIN - FRAME : BEGIN].all()
    assert ram.buffer[BEGIN + SIZE : BEGIN + 8 * FRAME].all()


def test_what_code_stores_at_its_pointers_is_in_the_ram(ram: Ram, region: Region) -> None:
    assert (region.address, region.size) == (BEGIN, SIZE)
    ctypes.c_uint64.from_address(region.pointer).value = 0x1122
    ctypes.c_uint64.from_address(region.base + BEGIN + 8).value = 0x3344
    assert ram.buffer[BEGIN : BEGIN + 16].view("<u8").tolist() == [0x1122, 0x3344]


def test_ram_need_not_begin_at_physical_address_0() -> None:
    ram = Ram(64 << 20, base=2 << 30)
    try:
        region = Region(ram, Span.of((2 << 30) + BEGIN, SIZE))
        assert region.base + region.address == region.pointer
        assert region.pointer == ram.buffer[BEGIN:].ctypes.data
        ctypes.c_uint64.from_address(region.base + region.address).value = 0x1122
        assert ram.buffer[BEGIN : BEGIN + 8].view("<u8").tolist() == [0x1122]
        ram.buffer[BEGIN + 2 * FRAME : BEGIN + 3 * FRAME] = 1
        assert [region.frame(), region.table()] == [(2 << 30) + FIRST + n * FRAME for n in (0, 1)]
        frames = ram.buffer[BEGIN + FRAME : BEGIN + 3 * FRAME].reshape(2, FRAME)
        assert (frames == [[POISON], [0]]).all()
    finally:
        ram.close()


def test_each_frame_is_given_once_and_again_when_it_is_back(region: Region) -> None:
    frames = [region.frame() for _ in range(COUNT)]
    assert frames == [FIRST + FRAME * number for number in range(COUNT)]
    with pytest.raises(SpaceError, match=r"the region 0x3000000..0x3004fff has no free frame"):
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


@pytest.mark.parametrize("address", [BEGIN, FIRST + 1, FIRST + 2 * FRAME, 0])
def test_what_was_not_given_is_not_taken_back(region: Region, address: int) -> None:
    region.frame()
    with pytest.raises(SpaceError, match=r"is not a frame that the region .* has given"):
        region.take_back(address)
    region.take_back(FIRST)
    with pytest.raises(SpaceError, match="is not a frame"):
        region.take_back(FIRST)


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
    assert [alloc(), alloc(), alloc(), alloc()] == [first, *(FIRST + n * FRAME for n in (2, 3)), 0]
    assert not recwarn.list


def test_frames_are_taken_back_in_the_same_time_however_many_are_back(ram: Ram) -> None:
    region = Region(ram, Span.of(BEGIN, 3 * FRAME))
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
    assert [alloc(), alloc(), alloc()] == [FIRST, FIRST + FRAME, 0]
    free(FIRST)
    region.remaining = None
    assert [alloc(), alloc(), alloc(), alloc()] == [
        *(FIRST, FIRST + 2 * FRAME, FIRST + 3 * FRAME),
        0,
    ]


@pytest.mark.parametrize("used", [None, 0, 1, 511])
@pytest.mark.parametrize("level", range(4))
def test_a_table_that_no_one_has_cleared_is_named(
    ram: Ram, region: Region, level: int, used: int | None
) -> None:
    memory, cpu = BufferMemory(ram.buffer), Cpu.long_mode(4, region.address)
    words = ram.buffer.view("<u8")
    at = region.address
    for above in range(3, level, -1):
        below = region.frame() if above == level + 1 else region.table()
        words[at // 8 + above] = below | 0x3
        at = below
    if level == 3:
        ram.buffer[at : at + FRAME] = POISON
    assert at == BEGIN + (3 - level) * FRAME
    if used is not None:
        words[at // 8 + used] = 0
    left = 512 if used is None else 511
    found = uncleared(memory, cpu.roots) or ""
    page = {0: "2M was meant, set PS in the PDE", 1: "1G was meant, set PS in the PDPTE"}.get(level)
    end = f"; or, where a page of {page} that leads there" if page else ""
    assert found.endswith(f"take it from region.table(){end}")
    assert found.startswith(
        f"the table at {at:#x}, level {level}, was not cleared: of its 512 entries {left} are"
        " 0xa5a5a5a5a5a5a5a5,"
    )
    ram.buffer[at : at + FRAME] = 0
    assert uncleared(memory, cpu.roots) is None


@pytest.mark.parametrize(("left", "named"), [(0, True), (511, True), (1, False), (510, False)])
def test_a_table_is_not_cleared_where_its_first_or_last_entry_is_not(
    ram: Ram, region: Region, left: int, named: bool
) -> None:
    words, at = ram.buffer.view("<u8"), region.address // 8
    words[at : at + 512] = 0
    words[at + left] = int.from_bytes([POISON] * 8)
    found = uncleared(BufferMemory(ram.buffer), Cpu.long_mode(4, region.address).roots) or ""
    assert ("was not cleared: of its 512 entries 1 are" in found) is named
    assert bool(found) is named


def test_where_pages_have_no_bit_of_their_own_none_is_named() -> None:
    words = np.zeros(4 * FRAME // 8, np.uint64)
    words[0], words[FRAME // 8] = FRAME >> 2 | 1, 2 * FRAME >> 2 | 1
    words[2 * FRAME // 8 :] = int.from_bytes([POISON] * 8)
    memory = BufferMemory(words.view(np.uint8))
    found = uncleared(memory, Hart(satp=8 << 60).roots) or ""
    assert found.startswith(f"the table at {2 * FRAME:#x}, level 0, was not cleared: of its 512")
    assert found.endswith(
        "; or, where a page of 2M was meant, have no pointer in the PTE that leads there"
    )


def test_the_frame_at_its_address_is_zero_whatever_is_handed_out(ram: Ram, region: Region) -> None:
    assert not ram.buffer[BEGIN : BEGIN + SIZE].any()
    assert (ram.buffer[BEGIN - 1], ram.buffer[BEGIN + SIZE]) == (1, 1)
    while region.alloc():
        pass
    assert not ram.buffer[BEGIN:FIRST].any()
    assert (ram.buffer[FIRST : BEGIN + SIZE] == POISON).all()


TABLES = Span.of(0x200_0000, 0x10_0000)
"""Where tables of the library are, beside those of the region."""


@pytest.mark.parametrize("level", range(3))
def test_a_table_outside_the_region_or_given_back_is_named(
    ram: Ram, region: Region, level: int
) -> None:
    memory, cpu = BufferMemory(ram.buffer), Cpu.long_mode(4, region.address)
    words, tables = ram.buffer.view("<u8"), [region.table() for _ in range(3)]

    def link(*below: int) -> None:
        for at, table in zip((region.address, *below), below, strict=False):
            words[at // 8 : at // 8 + 512] = 0
            words[at // 8 + 5] = table | 0x3

    def said(*regions: Region) -> str | None:
        return astray(memory, cpu.roots, regions, TABLES)

    link(*tables)
    assert said(region) is None
    number, beyond = 2 - level, region.span.last + 1
    away: list[int] = [*tables]
    away[number] = beyond
    link(*away)
    assert said(region) == (
        f"the table at {beyond:#x}, level {level}, lies outside the region {region.span}: no one"
        " has handed out that memory, and an entry leads there"
    )
    assert said() is None  # the root is in none
    assert said(region, Region(ram, Span.of(beyond, FRAME))) is None
    away[number] = TABLES.first
    link(*away)
    assert said(region) is None
    link(*tables)
    region.take_back(tables[number])
    assert said(region) == (
        f"the table at {tables[number]:#x}, level {level}, is a frame that was given back to the"
        f" region {region.span}, and an entry still leads there"
    )
