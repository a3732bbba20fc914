"""The definition: from an address to its walk, and all that a space maps."""

import random
from collections.abc import Sequence
from itertools import product

import pytest

from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.memory import BufferMemory
from harness.paging.table import Root
from harness.paging.walk import Walk, leaves, walk
from tests.paging.machines import READERS, cpu_of, memory_of
from tests.paging.rules import Machine, is_canonical
from tests.paging.toys import MIXED_ROOTS, SCATTERED, SCATTERED_ROOTS

KB = 1 << 10


def test_a_walk_keeps_every_step() -> None:
    words = [0] * 512 * 4
    raws = [0x1007, 0x2003, 0x3005, 0x8000_0000_00AB_C067]
    for table, (index, raw) in enumerate(zip((0o400, 1, 2, 0o777), raws, strict=True)):
        words[512 * table + index] = raw
    address = Virtual(0o177777_400_001_002_777_1234)
    root = cpu_of(Machine()).roots[1]
    found = walk(memory_of(words), root, address)
    assert [step.raw for step in found.steps] == raws
    assert [step.slot.level for step in found.steps] == [3, 2, 1, 0]
    assert [step.slot.address for step in found.steps] == [0x800, 0x1008, 0x2010, 0x3FF8]
    assert [type(step.entry) for step in found.steps] == [Pointer, Pointer, Pointer, Leaf]
    assert found.physical == 0xABC000 + 0o1234
    assert found.leaf == Leaf(Physical(0xABC000), 4 * KB)
    assert (found.root, found.address, found.level, found.unbacked) == (root, address, 0, None)


@pytest.mark.parametrize(("level", "size"), [(0, 4 * KB), (1, 2 * KB * KB), (2, KB * KB * KB)])
def test_the_offset_of_a_page_is_as_wide_as_the_page(level: int, size: int) -> None:
    words = [0] * 512 * 4
    for table in range(3 - level):
        words[512 * table] = (table + 1) * 4096 | 7
    words[512 * (3 - level)] = 3 * size | (0x87 if level else 7)
    root = cpu_of(Machine()).roots[0]
    for offset in (0, 1, size - 1):
        assert walk(memory_of(words), root, Virtual(offset)).physical == 3 * size + offset
    assert walk(memory_of(words), root, Virtual(size)).physical is None


def test_an_absent_entry_and_a_malformed_one_end_a_walk_at_their_level() -> None:
    words = [0] * 1024
    words[0], words[1] = 0x1001, 1 | 1 << 51 | 1 << 7
    root = cpu_of(Machine()).roots[0]
    absent = walk(memory_of(words), root, Virtual(0))
    assert (absent.level, absent.steps[-1].entry, absent.leaf) == (2, Absent(), None)
    malformed = walk(memory_of(words), root, Virtual(1 << 39))
    assert malformed.steps[-1].entry == Malformed(1 << 51 | 1 << 7)
    assert (malformed.level, malformed.physical) == (3, None)


def test_no_memory_is_an_answer_of_its_own() -> None:
    words = [0] * 512
    words[0] = 0x7000 | 7
    found = walk(memory_of(words), cpu_of(Machine()).roots[0], Virtual(0o5_0000))
    assert found.unbacked is not None
    assert (found.unbacked.address, found.unbacked.level, found.level) == (0x7000, 2, 2)
    assert (len(found.steps), found.leaf, found.physical) == (1, None, None)
    rootless = walk(memory_of(words), cpu_of(Machine(), 0x9000).roots[0], Virtual(0))
    assert (rootless.steps, rootless.level, rootless.physical) == ((), 3, None)


def test_an_address_that_the_root_does_not_serve_is_refused() -> None:
    lower, upper = cpu_of(Machine()).roots
    for root, address in ((lower, 1 << 47), (upper, 0), (upper, (1 << 64) - (1 << 47) - 1)):
        with pytest.raises(ValueError, match=f"{address:#x} is not in the root's span"):
            walk(memory_of([0] * 512), root, Virtual(address))


@pytest.mark.parametrize("machine", READERS, ids=str)
def test_a_table_that_points_to_itself_is_walked_once_a_level(machine: Machine) -> None:
    words = [3] * 512
    found = walk(memory_of(words), cpu_of(machine).roots[0], Virtual(0x1234))
    assert len(found.steps) == machine.levels
    assert found.physical == 0x234


def test_a_walk_changes_nothing() -> None:
    octets = bytes(range(1, 256)) * 16 + bytes(16)
    memory = BufferMemory(octets)
    first = walk(memory, cpu_of(Machine()).roots[0], Virtual(8))
    assert walk(memory, cpu_of(Machine()).roots[0], Virtual(8)) == first
    assert memory.octets.tobytes() == octets


# -- Leaves, against brute force ---------------------------------------------------------------
#
# What a space holds is known without any walk of the library: every smallest page of a small
# space is translated by the arithmetic below, and a leaf is a run of pages of one entry.


def mixed_entries(source: random.Random) -> list[int]:
    """2 KByte of tables of the format MIXED, every table in reach of every other."""
    words = []
    for _ in range(256):
        raw = source.choice((0, 0, 2, 2, 6, 6, 6, 3)) | source.choice((0, 8, 16, 24))
        raw |= source.randrange(9) << 8 if raw & 4 else source.randrange(64) << 11
        if source.random() < 0.1:
            raw |= source.choice((1 << 8, 1 << 10, 1 << 40, 1 << 41))
        words.append(raw)
    return words


Line = tuple[int, str, int, int, int, int]
"""First address, end, level, raw entry, physical address and rights."""


def mixed_end(words: Sequence[int], table: int, page: int) -> tuple[str, int, int, int, int]:
    """End, level, raw entry, physical address and rights of one 256-byte page of MIXED."""
    granted = 0b11000
    for level, index in ((2, page >> 8), (1, page >> 3 & 31), (0, page & 7)):
        number = table // 8 + index
        if number >= len(words):
            return "unbacked", level, 0, 0, granted
        raw = words[number]
        granted &= raw ^ 1 << 4
        if raw & 3 != 2:
            return "absent", level, raw, 0, granted
        large = level == 1 and not raw & 4
        if raw >> 40 & 3 or (large and raw >> 8 & 7):
            return "malformed", level, raw, 0, granted
        frame = (raw & 0xFF_FFFF_FFFF) >> 8 << 8
        if large or level == 0:
            return "leaf", level, raw, frame, granted
        table = frame
    raise AssertionError("level 0 cannot point")


def mixed_listing(words: Sequence[int]) -> list[Line]:
    """What a space of MIXED holds: each leaf and malformed entry where it begins, and of the
    slots of one table that have no memory, the first."""
    listing: list[Line] = []
    for first, table in ((0, 0), (0x180000, 0x100)):
        for page in range(1024):
            end, level, raw, physical, granted = mixed_end(words, table, page)
            pages = (1, 8, 256)[level]
            begins = page % pages == 0
            if end == "unbacked":
                before = page - pages
                same_table = page // (8, 256, 1024)[level] == before // (8, 256, 1024)[level]
                begins &= not (same_table and mixed_end(words, table, before)[:2] == (end, level))
            if begins and end != "absent":
                listing.append((first + 256 * page, end, level, raw, physical, granted))
    return listing


def row(found: Walk) -> Line:
    """A walk as the listing above has it."""
    if found.unbacked is not None:
        return found.address, "unbacked", found.level, 0, 0, found.granted
    step = found.steps[-1]
    end = "leaf" if found.leaf else "malformed"
    physical = found.leaf.address if found.leaf else 0
    return found.address, end, found.level, step.raw, physical, found.granted


@pytest.mark.parametrize("seed", range(20))
def test_leaves_are_what_brute_force_finds(seed: int) -> None:
    words = mixed_entries(random.Random(seed))
    expected = mixed_listing(words)
    assert [row(found) for found in leaves(memory_of(words), MIXED_ROOTS)] == expected


def test_the_brute_force_meets_every_end_at_every_level_where_it_can_be() -> None:
    listings = [mixed_listing(mixed_entries(random.Random(seed))) for seed in range(20)]
    assert {line[1:3] for listing in listings for line in listing} == {
        *product(("malformed", "unbacked"), (0, 1)),
        *product(("leaf",), (0, 1)),
        ("malformed", 2),
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_array_of_leaves_is_what_brute_force_finds(seed: int) -> None:
    words = mixed_entries(random.Random(seed))
    found = bulk.leaves(memory_of(words), MIXED_ROOTS)
    columns = (found.virtual, found.end, found.level, found.raw, found.physical, found.granted)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    named = [(v, bulk.End(end).name.lower(), *rest) for v, end, *rest in rows]
    assert named == mixed_listing(words)


@pytest.mark.parametrize("seed", range(20))
def test_walks_of_an_uneven_format_are_what_brute_force_finds(seed: int) -> None:
    words = mixed_entries(random.Random(seed))
    memory = memory_of(words)
    for root, page in product(MIXED_ROOTS, range(1024)):
        end, level, _, physical, granted = mixed_end(words, root.table.address, page)
        offset = 0x77 if level == 0 else page % 8 << 8 | 0x77
        found = walk(memory, root, Virtual(root.span.first + 256 * page + 0x77))
        assert found.level == level
        assert found.granted == granted
        assert found.physical == (physical | offset if end == "leaf" else None)


def test_a_scattered_address_is_walked_to() -> None:
    memory = BufferMemory(bytearray(8 * KB))
    memory.store(Physical(0), 4, 0x1003)
    memory.store(Physical(4092), 4, 0x40_0083 | 0xA5 << 13)
    memory.store(Physical(0x1000 + 4), 4, 0xFFFF_F001)
    (root,) = SCATTERED_ROOTS
    assert walk(memory, root, Virtual(0x1234)).physical == 0xFFFF_F234
    assert walk(memory, root, Virtual(0xFFFF_FFFF)).physical == 0xA5_007F_FFFF
    assert [found.address for found in leaves(memory, SCATTERED_ROOTS)] == [0x1000, 0xFFC0_0000]
    assert SCATTERED.decode(0x20_0081, 1) == Malformed(1 << 21)


def test_leaves_of_both_halves_come_in_order_with_canonical_addresses() -> None:
    words = [0] * 512 * 2
    words[0] = words[255] = words[256] = words[511] = 0x1007
    words[512] = words[1023] = 0x4000_0087
    found = list(leaves(memory_of(words), cpu_of(Machine()).roots))
    gigabyte, slot = 1 << 30, 1 << 39
    firsts = [0, 255 * slot, (1 << 64) - 256 * slot, (1 << 64) - slot]
    expected = [first + place for first in firsts for place in (0, 511 * gigabyte)]
    assert [one.address for one in found] == expected
    assert all(is_canonical(Machine(), one.address) for one in found)


def test_a_shared_table_is_listed_wherever_it_is_reached() -> None:
    words = [0] * 512 * 4
    words[3], words[512 + 1], words[1024 + 5] = 0x1007, 0x2007, 0x3007
    words[9], words[512 + 2] = 0x1003, 0x2005
    words[1536 + 7] = 0x8067
    found = list(leaves(memory_of(words), cpu_of(Machine()).roots))
    assert [(one.address, one.granted) for one in found] == [
        (a << 39 | b << 30 | 5 << 21 | 7 << 12, 1 << 63 | rights)
        for a, b, rights in ((3, 1, 6), (3, 2, 4), (9, 1, 2), (9, 2, 0))
    ]


def test_only_the_slots_of_the_span_are_listed() -> None:
    words = [0x1003] * 512 + [0x4000_0083] * 512
    table = cpu_of(Machine()).roots[0].table
    few = Root(table, Span(1 << 39, (3 << 39) - 1))
    assert [found.address for found in leaves(memory_of(words), [few])] == [
        (1 << 39) + (n << 30) for n in range(2 * 512)
    ]
