"""The tables and frames of the matrix, one table a level."""

from __future__ import annotations

from itertools import pairwise

import pytest

from harness.check.chain import _frames
from harness.check.stage import MODES, Control, Model
from harness.machine.ram import ARENA
from harness.paging.address import Span
from harness.paging.x86.cpu import Cpu

LARGE = 2 << 20


@pytest.mark.parametrize("mode", MODES)
def test_every_size_of_page_has_frames_in_the_memory_of_a_mode(mode: str) -> None:
    model = Model(mode)
    data, _, _ = _frames(model.cpu(Control()), model.frames)
    assert len(data) == len(list(model.format.page_levels()))
    assert ARENA.stop <= model.frames.first and model.frames.last < model.ram_bytes


@pytest.mark.parametrize("first", [LARGE, LARGE - 0x2000, LARGE - 0x3000, LARGE + 1])
@pytest.mark.parametrize(
    ("size", "levels"),
    [(0x4000, 1), (2 * LARGE, 1), (7 * LARGE, 2), (1 << 30, 2), (4 << 30, 3)],
)
def test_frames_share_no_byte_and_none_lies_outside(first: int, size: int, levels: int) -> None:
    """Not that of data and code either, which only level 0 has besides those of each."""
    memory = Span.of(first, size)
    data, code, mixed = (each.tolist() for each in _frames(Cpu.long_mode(4, 0), memory))
    assert len(data) == len(code) == len(mixed) == levels
    assert mixed[1:] == code[1:]
    sizes = [0x1000, LARGE, 1 << 30]
    starts = [*zip(data, sizes, strict=False), *zip(code, sizes, strict=False), (mixed[0], 0x1000)]
    assert all(start % size == 0 for start, size in starts)
    spans = sorted((Span.of(start, size) for start, size in starts), key=lambda one: one.first)
    assert memory.first <= spans[0].first and spans[-1].last <= memory.last
    assert all(one.last < other.first for one, other in pairwise(spans))
