"""The tables and frames of the matrix, one table a level."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.x86.matrix.chain import Lanes, _frames, _in_stub, _walks
from harness.check.x86.matrix.stage import MODES, Control, Model
from harness.machine.ram import ARENA
from harness.paging.address import Span
from harness.paging.bulk import End
from harness.paging.x86.cpu import Cpu, Mode
from harness.paging.x86.formats import A, P

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


def test_what_call_stores_is_an_address_of_the_stub_s_code() -> None:
    code, at = range(0x1000, 0x3000), 1 << 40
    guest: Any = SimpleNamespace(image=SimpleNamespace(text=code))
    chain: Any = SimpleNamespace(window=SimpleNamespace(state=SimpleNamespace(window=at)))
    edges = np.array([code.start - 1, code.start, code.stop - 1, code.stop], np.uint64)
    assert _in_stub(guest, chain, edges + np.uint64(at)).tolist() == [False, True, True, False]
    assert not _in_stub(guest, chain, edges).any()


def test_an_absent_pdpte_leads_nowhere_be_it_a_register_or_read_from_memory() -> None:
    """Below it nothing is read, though the tables under it would let the access through; bit 5 is
    reserved in a register, and A where it is taken for an entry (SDM volume 3A, 4.4.1)."""
    cpu = replace(Cpu.in_mode(Mode.PAE, 0), pdptes=(0x1000 | P,) * 4)
    reserved, n = 1 << 63, 4
    none, no = np.zeros(n, np.uint8), np.zeros(n, np.bool_)
    lanes = Lanes(
        words=np.full((2, n), 0x2000 | P, np.uint64),
        address=np.zeros(n, np.uint64),
        kind=none,
        user=no,
        wruss=no,
        branch=no,
        implicit=no,
        ac=no,
        width=none,
        page=none,
        backed=~no,
        flush=none,
        changed=np.zeros(n, np.uint64),
        pdpte=np.array([[0x1000 | P, 0x1000, reserved | P, 0x1000 | A | P]], np.uint64),
        register=np.zeros((1, n), np.uint8),
    )
    walks, refused, marked = _walks(cpu, lanes, None)
    assert walks.end[~refused].tolist() == [End.LEAF, End.NO_ROOT]
    assert refused.tolist() == [False, False, True, True] and not marked.any()
    walks, refused, marked = _walks(cpu, lanes, reserved)
    assert walks.end.tolist() == [End.LEAF, End.NO_ROOT, End.MALFORMED, End.LEAF]
    assert marked.tolist() == [[A, 0, 0, 0]] and not refused.any()
