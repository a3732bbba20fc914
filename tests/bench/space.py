"""The library: how fast a space is changed, and what Linux's old names cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.copy import copy_range
from harness.paging.linux.folded import Folded
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.value import Value
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu
from tests.bench.measure import SAMPLES, Figure, rate, seconds

PAGES = 1 << 18
COPIED = 1 << 17
CALLS = 20_000
WALKS = 500
FORMAT = formats.long_mode(4, 40, True, True)
PAGE = FORMAT.levels[0].size
BITS = FORMAT.granting("write", "user")
FRAMES = np.random.default_rng(1).permutation(PAGES).astype(np.uint64) * np.uint64(PAGE)
ALL = Span.of(0, PAGES * PAGE)


class Bed:
    """Memory with two empty spaces in it, and again when they are asked for."""

    def __init__(self) -> None:
        self.memory = BufferMemory(np.zeros(PAGES * 16 + (1 << 20), np.uint8))
        self.renew()

    def renew(self) -> None:
        tables = TableAllocator(self.memory, self.memory.span)
        roots = [Cpu.long_mode(4, tables.allocate(FORMAT, 3).address).roots for _ in range(2)]
        self.space, self.other = (Space(self.memory, root, tables) for root in roots)

    def fill(self, pages: int = PAGES) -> None:
        self.renew()
        self.space.map(Virtual(0), FRAMES[:pages], 0, BITS)

    def store(self, words: int = PAGES) -> None:
        """A store of as many words, which is the least that a change of the pages takes."""
        where = np.arange(0, words * FORMAT.entry_bytes, FORMAT.entry_bytes, dtype=np.uint64)
        self.memory.scatter(where, FORMAT.entry_bytes, FRAMES[:words])


def figures() -> Iterator[Figure]:
    """map_pages_per_s, unmap_pages_per_s, protect_pages_per_s, copy_pages_per_s,
    map_calls_per_s, folded_ratio."""
    bed = Bed()
    words = "a store of as many words"

    def protect() -> None:
        bed.space.protect(ALL, FORMAT.granting("user")).done()

    def copy() -> None:
        copy_range(bed.space, bed.other, Span.of(0, COPIED * PAGE)).flush.done()

    changes: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "map": (lambda: bed.space.map(Virtual(0), FRAMES, 0, BITS), bed.renew),
        "unmap": (lambda: bed.space.unmap(ALL).done(), bed.fill),
        "protect": (protect, bed.fill),
    }
    for name, (change, prepare) in changes.items():
        yield rate(f"{name}_pages_per_s", PAGES, change, words, bed.store, prepare)
    yield rate(
        "copy_pages_per_s",
        COPIED,
        copy,
        words,
        lambda: bed.store(COPIED),
        lambda: bed.fill(COPIED),
    )
    yield calls(bed)
    yield folded(bed)


def calls(bed: Bed) -> Figure:
    """A page a call, where the tables are there."""
    single = [(Virtual(page * PAGE), FRAMES[page : page + 1]) for page in range(CALLS)]

    def prepare() -> None:
        bed.renew()
        bed.space.populate(Span.of(0, CALLS * PAGE))

    def map_each() -> None:
        for address, frame in single:
            bed.space.map(address, frame, 0, BITS)

    def store_each() -> None:
        for address, _ in single:
            bed.memory.store(Physical(address // PAGE * FORMAT.entry_bytes), FORMAT.entry_bytes, 0)

    return rate("map_calls_per_s", CALLS, map_each, "a store each", store_each, prepare)


def folded(bed: Bed) -> Figure:
    """A walk from pgd to pte as Linux writes it, to the same with generic slots."""
    bed.fill()
    names = Folded(FORMAT)
    addresses = [Virtual(page * PAGE) for page in range(WALKS)]

    def old() -> None:
        for address in addresses:
            assert old_walk(names, bed.space, address) is not None

    def generic() -> None:
        for address in addresses:
            assert generic_walk(bed.space, address) is not None

    old()
    generic()
    pairs = [(seconds(old), seconds(generic)) for _ in range(20 * SAMPLES)]
    samples = tuple(ours / theirs for ours, theirs in pairs)
    return Figure("folded_ratio", "", samples, "generic slots", sorted(samples)[len(samples) // 2])


def old_walk(k: Folded, mm: Space, address: Virtual) -> Value | None:
    """The entry of a small page by Linux's names for four or five levels."""
    pgd = k.pgd_offset(mm, address)
    if k.pgd_none(k.pgdp_get(pgd)) or k.pgd_bad(k.pgdp_get(pgd)):
        return None
    p4d = k.p4d_offset(pgd, address)
    if k.p4d_none(k.p4dp_get(p4d)) or k.p4d_bad(k.p4dp_get(p4d)):
        return None
    pud = k.pud_offset(p4d, address)
    if k.pud_none(k.pudp_get(pud)) or k.pud_bad(k.pudp_get(pud)):
        return None
    pmd = k.pmd_offset(pud, address)
    if k.pmd_none(k.pmdp_get(pmd)) or k.pmd_bad(k.pmdp_get(pmd)):
        return None
    return k.ptep_get(k.pte_offset_map(pmd, address))


def generic_walk(space: Space, address: Virtual) -> Value | None:
    """The same at any number of levels."""
    slot = slots.root(space, address)
    while slot.level:
        if slots.value(space, slot).none or not slots.value(space, slot).points:
            return None
        slot = slots.walk(space, slot, address)
    return slots.value(space, slot)
