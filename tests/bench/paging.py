"""The library: walks and leaves of a dense space of 4K pages on random frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np

from harness.paging import bulk, processor
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64 import Cpu as Arm64Cpu
from harness.paging.arm64 import Half
from harness.paging.arm64 import bulk as arm64
from harness.paging.memory import BY_ORDER, BufferMemory, Words
from harness.paging.power import Cpu as PowerCpu
from harness.paging.power import bulk as power
from harness.paging.riscv import Cpu as RiscvCpu
from harness.paging.riscv import Mode as RiscvMode
from harness.paging.riscv import bulk as riscv
from harness.paging.s390 import AddressSpace, Mode
from harness.paging.s390 import Cpu as S390Cpu
from harness.paging.s390 import bulk as s390
from harness.paging.space import Space, TableAllocator
from harness.paging.walk import walk
from harness.paging.x86.cpu import Cpu
from tests.bench.measure import Figure, rate

C = TypeVar("C", bound=processor.Cpu)

PAGES = 1 << 21
LANES = 1 << 21
SCALAR = 50_000


def dense(cpu_of: Callable[[Physical], C], *rights: str) -> tuple[BufferMemory, C]:
    """A space with PAGES pages of these rights from address 0 on, and the state that `cpu_of` makes
    of the address of its root's table."""
    root = cpu_of(Physical(0)).roots[0]
    format = root.table.format
    memory = BY_ORDER[format.byte_order](np.zeros(PAGES * 8 + (1 << 20), np.uint8))
    allocator = TableAllocator(memory, memory.span)
    cpu = cpu_of(allocator.allocate(format, root.table.level).address)
    frames = np.random.default_rng(1).permutation(PAGES).astype(np.uint64) << np.uint64(12)
    bits = format.granting(*rights) | format.accessed | format.dirty
    Space(memory, cpu.roots, allocator).map(Virtual(0), frames, 0, bits).done()
    return memory, cpu


def figures() -> Iterator[Figure]:
    """walks_per_s, leaves_per_s, scalar_walks_per_s, and of the outcomes of accesses
    riscv_walks_per_s, arm64_walks_per_s, s390_walks_per_s, power_walks_per_s."""
    memory, cpu = dense(partial(Cpu.long_mode, 4), "write")
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
    yield from accesses(random, addresses, lambda: words[index])


def accesses(
    random: np.random.Generator, addresses: Words, reads: Callable[[], object]
) -> Iterator[Figure]:
    """The outcomes of accesses in problem state, or U-mode, and privileged; `reads` is as in
    `figures`."""
    user = random.integers(0, 2, LANES).astype(np.bool_)
    kind = random.integers(0, 3, LANES).astype(np.uint8)
    space = np.full(LANES, AddressSpace.PRIMARY, np.uint8)

    def of(name: str, outcomes: Callable[[], object]) -> Figure:
        return rate(f"{name}_walks_per_s", LANES, outcomes, "one random read for each", reads)

    memory, hart = dense(partial(RiscvCpu.in_mode, RiscvMode.SV48), "read", "write")
    yield of("riscv", lambda: riscv.outcomes(hart, memory, addresses, kind, user))
    memory, element = dense(lambda root: Arm64Cpu.of(Half("4K", 48, root), None), "user", "write")
    yield of("arm64", lambda: arm64.outcomes(element, memory, addresses, kind, user))
    memory, cpu = dense(partial(S390Cpu.in_mode, Mode.REGION_SECOND), "write")
    yield of("s390", lambda: s390.outcomes(cpu, memory, addresses, kind, space))
    memory, thread = dense(PowerCpu.of, "read", "write", "user")
    yield of("power", lambda: power.outcomes(thread, memory, addresses, kind, user))
