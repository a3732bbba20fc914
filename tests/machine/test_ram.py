from __future__ import annotations

import itertools
import os

import numpy as np
import pytest

from harness.machine.errors import Misuse
from harness.machine.ram import (
    ARENA,
    HIGH,
    JOB_ARENA,
    LARGEST_RAM,
    RAM_UNIT,
    STUB,
    TABLE_ARENA,
    Ram,
    beside,
)

SMALLEST = ARENA.stop + RAM_UNIT


def test_the_parts_of_the_arena_lie_inside_it_apart() -> None:
    parts = [STUB, TABLE_ARENA, JOB_ARENA]
    assert all(part.start in ARENA and part[-1] in ARENA for part in parts)
    assert all(low.stop <= high.start for low, high in itertools.pairwise(parts))


def test_what_is_beside_an_arena_is_the_caller_s_but_for_the_devices() -> None:
    size = 4 * len(ARENA)
    above, mib = range(ARENA.stop, size), 1 << 20
    assert beside(ARENA, size) == (above,)
    low = (range(0xA0000), range(mib, ARENA.stop))
    moved = range(ARENA.stop, 2 * ARENA.stop)
    assert beside(moved, size) == (*low, range(moved.stop, size))
    assert beside(moved, moved.stop) == low


@pytest.mark.parametrize(
    "size", [-1, 0, 1, ARENA.stop, SMALLEST - 1, SMALLEST + 4096, LARGEST_RAM + RAM_UNIT, 1 << 60]
)
def test_a_size_that_no_guest_can_have_is_refused(size: int) -> None:
    with pytest.raises(Misuse, match=f"^{size} bytes of RAM"):
        Ram(size)


@pytest.mark.parametrize("size", [SMALLEST, LARGEST_RAM])
def test_ram_is_zero_writable_and_of_its_size(size: int) -> None:
    ram = Ram(size)
    assert len(ram.buffer) == ram.size == size == os.fstat(ram.fd).st_size
    assert ram.buffer[0] == ram.buffer[-1] == 0
    ram.buffer[-1] = 7
    assert os.pread(ram.fd, 1, size - 1) == b"\x07"
    ram.close()


@pytest.mark.parametrize(
    ("size", "high"),
    [
        (SMALLEST, RAM_UNIT),
        (LARGEST_RAM, -RAM_UNIT),
        (LARGEST_RAM, 4096),
        (LARGEST_RAM, len(HIGH) + RAM_UNIT),
    ],
)
def test_high_ram_that_no_guest_can_have_is_refused(size: int, high: int) -> None:
    with pytest.raises(Misuse, match=f"^{high} bytes of RAM from 0x100000000 on"):
        Ram(size, high)


@pytest.mark.parametrize("high", [RAM_UNIT, len(HIGH)])
def test_high_ram_follows_low_ram_in_the_file_and_only_what_is_written_takes_room(
    high: int,
) -> None:
    ram = Ram(LARGEST_RAM, high)
    assert (len(ram.buffer), len(ram.high), ram.size) == (LARGEST_RAM, high, LARGEST_RAM)
    ram.high[0], ram.high[-1] = 7, 8
    assert os.pread(ram.fd, 1, LARGEST_RAM) == b"\x07"
    assert os.pread(ram.fd, 1, LARGEST_RAM + high - 1) == b"\x08"
    assert os.fstat(ram.fd).st_size == ram.total == LARGEST_RAM + high
    assert os.fstat(ram.fd).st_blocks * 512 <= 2 * RAM_UNIT
    ram.close()


def test_a_view_is_the_memory_itself() -> None:
    ram = Ram(SMALLEST)
    dtype = np.dtype([("a", "<u8"), ("b", "<u4")])
    view = ram.view(range(0x1000, 0x1000 + 30), dtype)
    view["b"] = 0x01020304
    assert len(view) == 2
    assert ram.buffer[0x1008:0x100C].tolist() == [4, 3, 2, 1]
    ram.close()


def test_closing_gives_the_file_back_once() -> None:
    ram = Ram(SMALLEST)
    fd = ram.fd
    view = ram.buffer[:8]
    ram.close()
    ram.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert view.tolist() == [0] * 8
