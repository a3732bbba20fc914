"""Which tables cannot be meant: how many entries it takes, and which entries count."""

from __future__ import annotations

import numpy as np
import pytest

from harness.inspect import garbage, graph
from harness.inspect.garbage import Extents, Garbage
from harness.paging.memory import BigEndianMemory, BufferMemory
from harness.paging.x86.cpu import Cpu
from tests.inspect.s390 import spaces
from tests.inspect.spaces import PCD, PS, PWT, RW, P

ROOT, DIRECTORY, LOWER, PAGES = range(4)
OUTSIDE = 1 << 36
"""Where no memory is."""

BACKED = (np.array([0], np.uint64), np.array([0x1F_FFFF], np.uint64))


def found(words: dict[int, int], level: int = 0, backed: Extents | None = None) -> Garbage:
    """What is found in a space whose one table at a level holds these words."""
    tables = np.zeros(512 * 4, np.uint64)
    for table in range(3 - level):
        tables[512 * table] = (table + 1) << 12 | P | RW
    for index, word in words.items():
        tables[512 * (3 - level) + index] = word
    memory, cpu = BufferMemory(tables.view(np.uint8)), Cpu.long_mode(4, 0)
    return garbage.find(memory, graph.read(memory, cpu.format, cpu.roots), backed, ("PWT", "PCD"))


def is_garbage(words: dict[int, int], level: int = 0, backed: Extents | None = None) -> bool:
    return [int(table) for table in found(words, level, backed).tables] == [(3 - level) << 12]


def malformed(count: int, first: int = 0) -> dict[int, int]:
    """Entries of which each has another reserved bit set than the one before."""
    return {first + n: 0x1000 | P | 1 << 40 + n % 12 for n in range(count)}


def pages(count: int, first: int) -> dict[int, int]:
    return {first + n: 0x1000 | P | RW for n in range(count)}


def pointers(count: int, first: int) -> dict[int, int]:
    """Addresses of the upper half, which are no entries that are present."""
    return {first + n: 0xFFFF_8880_0000_1000 + 8 * n for n in range(count)}


@pytest.mark.parametrize(
    ("wild", "meant", "garbage"),
    [
        (16, 0, True),
        (15, 0, False),
        (16, 64, True),
        (16, 65, False),
        (20, 80, True),
        (20, 81, False),
    ],
)
def test_it_takes_16_entries_and_a_fifth_of_all(wild: int, meant: int, garbage: bool) -> None:
    assert is_garbage({**malformed(wild), **pages(meant, 100)}) is garbage
    assert is_garbage({**pointers(wild, 0), **pages(meant, 100)}) is garbage


@pytest.mark.parametrize(("meant", "garbage"), [(64, True), (65, False)])
def test_entries_of_both_kinds_count_together(meant: int, garbage: bool) -> None:
    words = {**malformed(8), **pointers(8, 8), **pages(meant, 100)}
    assert is_garbage(words) is garbage
    assert (found(words).addresses.tolist() == [0x3000]) is not garbage


def test_a_table_with_a_few_addresses_among_its_entries_is_told_apart() -> None:
    assert found(pointers(1, 5)).addresses.tolist() == [0x3000]
    for words in ({}, pages(5, 0), malformed(5)):
        assert found(words).tables.tolist() == found(words).addresses.tolist() == []


@pytest.mark.parametrize(
    ("word", "address"),
    [
        (0xFFFF_8000_0000_0000, True),
        (0xFFFF_FFFE_FFFF_FFF8, True),
        (0xFFFF_7FFF_FFFF_FFF8, False),
        (0xFFFF_FFFF_FF00_0000, False),  # the upper 40 bits are all set: a marker of Linux
        (0xFFFF_FFFF_FE00_0000, True),
        (0xFFFF_8000_0000_0004, False),
        (0xFFFF_8000_0000_0002, False),
        (0xFFFF_8000_0000_0001, False),
    ],
)
def test_an_address_is_aligned_and_of_the_upper_half(word: int, address: bool) -> None:
    assert (found({7: word}).addresses.tolist() == [0x3000]) is address


def test_a_mistake_that_repeats_itself_is_no_garbage() -> None:
    same = {n: 0x1000 * n | P | 1 << 45 for n in range(200)}
    assert not is_garbage(same)
    # Every other entry is wrong: 15 of 30, and each of them begins anew.
    assert not is_garbage({2 * n: 0x1000 | P | 1 << 45 for n in range(15)})
    assert not is_garbage({**pages(30, 0), **{2 * n: 0x1000 | P | 1 << 45 for n in range(15)}})
    assert is_garbage({**pages(32, 0), **{2 * n: 0x1000 | P | 1 << 45 for n in range(16)}})


@pytest.mark.parametrize(
    ("level", "flags", "step", "garbage"),
    [
        (0, 0, 0x3000, True),
        (0, 0, 0x1000, False),
        (0, 0, 0, False),
        (0, PCD, 0x3000, False),
        (0, PWT, 0x3000, False),
        (0, RW, 0x3000, True),
        (1, 0, 0x2000, True),
        (1, 0, 0x1000, False),
        (1, PCD, 0x2000, False),
        (1, PS, 0x20_0000, False),
        (1, PS, 0x60_0000, True),
        (1, PS, 0, False),
        (2, PS, 1 << 30, False),
        (2, PS, 3 << 30, True),
        (2, 0, 0x5000, True),
        (2, 0, 0x1000, False),
    ],
)
def test_what_follows_no_order_where_no_memory_is_cannot_be_meant(
    level: int, flags: int, step: int, garbage: bool
) -> None:
    words = {n: OUTSIDE + n * step | P | flags for n in range(1, 40)}
    assert is_garbage(words, level, BACKED) is garbage
    assert not is_garbage(words, level)


def test_what_lies_in_memory_may_be_in_any_order() -> None:
    assert not is_garbage({n: (n * 7 % 512) << 12 | P for n in range(1, 100)}, 0, BACKED)
    # The last frame of memory, and the one after it, by turns.
    edge = {n: (0x1F_F000 if n % 2 else OUTSIDE) | P for n in range(1, 32)}
    assert not is_garbage(edge, 0, BACKED)
    assert is_garbage({**edge, 32: OUTSIDE | P}, 0, BACKED)


def test_a_mistake_that_repeats_itself_is_none_wherever_its_entries_lead() -> None:
    words = {n: OUTSIDE + n * 0x3000 | P | 1 << 45 for n in range(1, 60)}
    assert not is_garbage(words, 0, BACKED)


def test_tables_may_lie_anywhere_in_memory_where_a_large_page_could_not() -> None:
    backed = (np.array([0], np.uint64), np.array([0x4F_FFFF], np.uint64))
    words = {n: (0x40_1000 if n % 2 else 0x1000) | P for n in range(1, 60)}
    assert not is_garbage(words, 1, backed)
    assert is_garbage({n: raw & ~0x1000 | PS for n, raw in words.items()}, 1, backed)


@pytest.mark.parametrize(
    ("address", "size", "inside"),
    [
        (0x1000, 0x1000, True),
        (0x1001, 0x1000, False),
        (0xFFF, 1, False),
        (0x1FFF, 1, True),
        (0x2000, 1, False),
        (0x4000, 0x1000, True),
        (0x4000, 0x1001, False),
        (0x3FFF, 2, False),
        (0x5000, 1, False),
    ],
)
def test_a_stretch_is_covered_by_one_piece(address: int, size: int, inside: bool) -> None:
    pieces = np.array([0x1000, 0x4000], np.uint64), np.array([0x1FFF, 0x4FFF], np.uint64)
    at = np.array([address], np.uint64)
    assert garbage.covered(pieces, at, np.uint64(size)).tolist() == [inside]
    nothing = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    assert garbage.covered(nothing, at, np.uint64(size)).tolist() == [False]


def test_words_without_memory_and_those_of_no_slot_are_as_in_an_empty_table() -> None:
    """Of s390, whose empty entries are not 0: of its segment table a quarter is there."""
    whole = spaces.memory(s0=spaces.PAGES, s511=spaces.PAGES, s600=spaces.PAGES)
    octets, cpu = whole.octets[: spaces.SEGMENTS + 601 * 8], spaces.CPU
    memory = BigEndianMemory(octets.copy())
    read = graph.read(memory, cpu.format, cpu.roots)
    expected = {(0, spaces.PAGES): {}, (1, spaces.SEGMENTS): dict.fromkeys((0, 511), spaces.PAGES)}
    for (level, table), held in expected.items():
        tables = np.array([table], np.uint64)
        ((_, words),) = garbage.words_of(memory, cpu.format, read.floor(level), tables)
        here = cpu.format.levels[level]
        assert words.tolist() == [[held.get(slot, here.empty) for slot in range(here.entries)]]
