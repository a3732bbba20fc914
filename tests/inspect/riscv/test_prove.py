"""Where the machine's own memory gives way to RISC-V's tables, before any machine runs."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import prove as generic
from harness.inspect.prove import Part
from harness.machine.riscv.processor import RAM_BASE
from harness.paging import bulk
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode

UNIT, OWN = 4 << 20, 8
"""What the machine needs itself: 32 MiB in eight pieces of 4 MiB."""


def listing(tables: list[int], pages: list[int]) -> list[Part]:
    """A space with tables and pages of 4K at physical addresses."""
    memory = BufferMemory(np.zeros(4096, np.uint8))
    cpu = Cpu.in_mode(Mode.SV39, 0)
    empty = bulk.leaves(memory, cpu.roots)
    leaves = replace(
        empty,
        physical=np.array(pages, np.uint64),
        level=np.zeros(len(pages), np.uint8),
        end=np.full(len(pages), End.LEAF, np.uint8),
        tables=replace(empty.tables, address=np.array(tables, np.uint64)),
    )
    return [Part(cpu.format, cpu.roots, leaves)]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_where_no_table_is_and_the_fewest_pages_are(seed: int) -> None:
    source, count = random.Random(seed), 24
    spans = range(RAM_BASE - 2 * UNIT, RAM_BASE + 30 * UNIT, 4096)
    tables = [source.choice(spans) for _ in range(source.randrange(1, 12))]
    pages = [source.choice(spans) for _ in range(source.randrange(12))]
    cpu = Cpu.in_mode(Mode.SV39, max(tables))
    base, size = generic.room(cpu, listing(tables, pages), count * UNIT, RAM_BASE)

    def lost(first: int, those: list[int]) -> int:
        return sum(first <= at < first + OWN * UNIT for at in those)

    def cost(first: int) -> tuple[int, int, int]:
        return lost(first, [cpu.base]), lost(first, [*tables, cpu.base]), lost(first, pages)

    places = range(RAM_BASE, RAM_BASE + (count - OWN) * UNIT + 1, UNIT)
    assert cost(base) == min(map(cost, places))
    inside = [at for at in (*tables, *pages) if RAM_BASE <= at < RAM_BASE + count * UNIT]
    assert size >= max([base + OWN * UNIT - RAM_BASE, *(at + 1 - RAM_BASE for at in inside)])


def test_what_is_below_ram_takes_no_room() -> None:
    cpu = Cpu.in_mode(Mode.SV39, RAM_BASE + 9 * UNIT)
    found = generic.room(cpu, listing([cpu.base], [0, RAM_BASE - 4096]), 24 * UNIT, RAM_BASE)
    assert found == (RAM_BASE, 10 * UNIT)
    # The page before the first is in none of the units, and the first byte of RAM is in one.
    at = np.array([RAM_BASE - 4096, RAM_BASE], np.uint64)
    assert generic._in_units(at, np.uint64(4096), 3, RAM_BASE).tolist() == [1, 0, 0]
    assert generic._in_units(at[:1], np.uint64(4097), 3, RAM_BASE).tolist() == [1, 0, 0]


def test_the_stub_stays_below_4_gib() -> None:
    every = list(range(RAM_BASE, (1 << 32) - UNIT, UNIT))
    cpu = Cpu.in_mode(Mode.SV39, RAM_BASE)
    base, _ = generic.room(cpu, listing(every, []), 3 << 30, RAM_BASE)
    assert base <= (1 << 32) - (OWN + 1) * UNIT
