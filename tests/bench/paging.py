"""The library: walks and leaves of a dense space of 4K pages on random frames."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64 import Cpu as Arm
from harness.paging.arm64 import Half
from harness.paging.arm64 import bulk as arm64
from harness.paging.arm64.formats import AF, AP_EL0
from harness.paging.memory import BufferMemory
from harness.paging.riscv import Cpu as Hart
from harness.paging.riscv import Mode
from harness.paging.riscv import bulk as riscv
from harness.paging.riscv.formats import A, D, R, V, W
from harness.paging.space import Space, TableAllocator
from harness.paging.walk import walk
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu
from tests.bench.measure import Figure, rate

PAGES = 1 << 21
LANES = 1 << 21
SCALAR = 50_000


@cache
def dense() -> tuple[BufferMemory, Cpu]:
    """A 4-level space with PAGES pages from address 0 on."""
    memory = BufferMemory(np.zeros(PAGES * 8 + (1 << 20), np.uint8))
    allocator = TableAllocator(memory, memory.span)
    root = allocator.allocate(formats.long_mode(4, 40, True, True), 3)
    cpu = Cpu.long_mode(4, root.address)
    frames = np.random.default_rng(1).permutation(PAGES).astype(np.uint64) << np.uint64(12)
    Space(memory, cpu.roots, allocator).map(Virtual(0), frames, 0, cpu.format.granting("write"))
    return memory, cpu


def layered(left: int, page: int, table: int) -> tuple[BufferMemory, int]:
    """The same in tables of four levels, and the root's address: the pages' tables, then those
    that point to them, up to the root.

    left         by how much the number of a frame or a table is moved in an entry
    page, table  what the entries hold besides
    """
    frames = np.random.default_rng(1).permutation(PAGES).astype(np.uint64)
    layers = [frames << np.uint64(left) | np.uint64(page)]
    address = 0
    for _ in range(3):
        tables = (len(layers[-1]) + 511) // 512
        pointers = np.zeros((tables + 511) // 512 * 512, np.uint64)
        below = (address >> 12) + np.arange(tables, dtype=np.uint64)
        pointers[:tables] = below << np.uint64(left) | np.uint64(table)
        address += 8 * len(layers[-1])
        layers.append(pointers)
    return BufferMemory(np.concatenate(layers).view(np.uint8)), address


def figures() -> Iterator[Figure]:
    """walks_per_s, leaves_per_s, scalar_walks_per_s, riscv_walks_per_s,
    arm64_walks_per_s."""
    memory, cpu = dense()
    span = Span(0, PAGES * cpu.format.levels[0].size - 1)
    random = np.random.default_rng(2)
    addresses = random.integers(span.first, span.last, LANES, dtype=np.uint64, endpoint=True)
    words = memory.octets.view(np.uint64)
    index = random.integers(0, len(words), LANES)
    yield rate(
        "walks_per_s",
        LANES,
        lambda: bulk.walk(memory, cpu.roots, addresses),
        "one random read for each",
        lambda: words[index],
    )
    yield rate(
        "leaves_per_s",
        PAGES,
        lambda: bulk.leaves(memory, cpu.roots),
        "a copy of the tables",
        words.copy,
    )
    some = [Virtual(address) for address in addresses[:SCALAR].tolist()]
    root = cpu.roots[0]

    def walk_each() -> None:
        for address in some:
            walk(memory, root, address)

    def read_each() -> None:
        for address in some:
            for _ in root.table.format.levels:
                memory.load(Physical(address & 0xFFF8), 8)

    yield rate(
        "scalar_walks_per_s",
        SCALAR,
        walk_each,
        "a read of memory for each level",
        read_each,
    )
    memory, root_address = layered(10, V | R | W | A | D, V)
    hart = Hart.in_mode(Mode.SV48, root_address)
    kind = random.integers(0, 4, LANES).astype(np.uint8)
    user = random.integers(0, 2, LANES).astype(np.bool_)
    yield rate(
        "riscv_walks_per_s",
        LANES,
        lambda: riscv.outcomes(hart, memory, addresses, kind, user),
        "one random read for each",
        lambda: words[index],
    )
    memory, root_address = layered(12, 3 | AF | AP_EL0, 3)
    processor = Arm.of(Half("4K", 48, root_address), None)
    yield rate(
        "arm64_walks_per_s",
        LANES,
        lambda: arm64.outcomes(processor, memory, addresses, kind, user),
        "one random read for each",
        lambda: words[index],
    )
