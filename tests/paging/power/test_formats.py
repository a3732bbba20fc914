"""What each bit of each entry means, as the Power ISA has it (3.0, Book III, "Radix Tree
Translation"), bit by bit, counted from the lowest."""

from __future__ import annotations

import pytest

from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.memory import BigEndianMemory
from harness.paging.power import cpu, formats
from harness.paging.power.formats import radix
from harness.paging.table import Root, Table
from harness.paging.walk import walk
from tests.paging.spaces import World
from tests.paging.tables import KIND, RESERVED, RIGHT, Entry, complaints

BITS = {
    **{"VALID": (63, 63), "LEAF": (62, 62), "REFERENCE": (8, 8), "CHANGE": (7, 7), "ATT": (5, 4)},
    **{"PRIVILEGED": (3, 3), "READ": (2, 2), "WRITE": (1, 1), "EXECUTE": (0, 0)},
    **{"NEXT_SIZE": (4, 0)},
}
IN_TABLES_OF_TREES = {
    **{"QUADRANT": (63, 62), "UNTRANSLATED": (61, 52), "ROOT_BASE": (59, 8), "ROOT_SIZE": (4, 0)},
    **{"HOST_RADIX": (63, 63), "TABLE_BASE": (59, 12), "TABLE_SIZE": (4, 0)},
}
"""Bits high:low of entries; of addresses, PTCR, and entries of partition and process tables."""


def test_the_names_of_bits_stand_for_those_of_the_manual() -> None:
    for module, named in ((formats, BITS), (cpu, IN_TABLES_OF_TREES)):
        for name, (high, low) in named.items():
            assert getattr(module, name) == (1 << high + 1) - (1 << low), name


SMALL, LARGE = radix(12), radix(16)
V, L = 1 << 63, 1 << 62
LEAF = {(63, 62): KIND, (3, 0): RIGHT}
LOWEST = {(63, 63): KIND, (62, 62): RESERVED, (3, 0): RIGHT}
"""Of a page that gives nothing: each of R, RW and X gives a right."""

DIRECTORY = {(63, 62): KIND, (4, 0): RESERVED}

ENTRIES = {
    "4K page": Entry(
        *(SMALL, 0, V | L, Leaf, 1 << 12),
        {**LOWEST, (56, 12): 0},
    ),
    "64K page": Entry(
        *(LARGE, 0, V | L, Leaf, 1 << 16),
        {**LOWEST, (56, 16): 0},
    ),
    "2M page": Entry(SMALL, 1, V | L, Leaf, 1 << 21, {**LEAF, (56, 21): 0}),
    "1G page": Entry(LARGE, 2, V | L, Leaf, 1 << 30, {**LEAF, (56, 30): 0}),
    "directory of 4K pages": Entry(SMALL, 1, V | 9, Pointer, None, {**DIRECTORY, (59, 12): 0}),
    "directory of 64K pages": Entry(LARGE, 1, V | 5, Pointer, None, {**DIRECTORY, (59, 8): 0}),
    "directory of 2M pages": Entry(LARGE, 2, V | 9, Pointer, None, {**DIRECTORY, (59, 12): 0}),
    "root": Entry(
        *(SMALL, 3, V | 9, Pointer, None),
        {(63, 63): KIND, (62, 62): RESERVED, (59, 12): 0, (4, 0): RESERVED},
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_bit_of_an_entry_means_what_the_manual_says(entry: str) -> None:
    assert not complaints(ENTRIES[entry])


def rights(format: Format, raw: int, level: int = 0) -> set[str]:
    return set(format.rights_of(format.granted(raw, level)))


def test_the_authority_to_write_brings_that_to_read() -> None:
    for encoded in range(16):
        expected = set()
        expected |= {"user"} if not encoded & 8 else set()
        expected |= {"read"} if encoded & 6 else set()
        expected |= {"write"} if encoded & 2 else set()
        expected |= {"execute"} if encoded & 1 else set()
        assert rights(SMALL, V | L | encoded) == expected
    assert rights(SMALL, V | 9, 1) == {"read", "write", "execute", "user"}


def test_rights_that_can_be_given_are_and_writing_alone_is_refused() -> None:
    assert SMALL.granting("read", "write", "user") == 6
    assert SMALL.granting("read") == 12
    with pytest.raises(ValueError, match="cannot give write alone"):
        SMALL.granting("write")


def test_a_table_of_another_size_is_malformed_by_the_bits_that_differ() -> None:
    assert SMALL.decode(V | 5, 1) == Malformed(5 ^ 9)
    assert LARGE.decode(V | 9, 1) == Malformed(5 ^ 9)


def test_tables_have_the_sizes_of_power9() -> None:
    def geometry(format: Format) -> list[tuple[int, int]]:
        return [(one.shift, one.index_bits) for one in format.levels]

    assert geometry(SMALL) == [(12, 9), (21, 9), (30, 9), (39, 13)]
    assert geometry(LARGE) == [(16, 5), (21, 9), (30, 9), (39, 13)]
    assert (SMALL.table_bytes(3), SMALL.table_bytes(0), LARGE.table_bytes(0)) == (65536, 4096, 256)


def test_a_walk_reads_entries_with_the_highest_byte_first() -> None:
    content = bytearray(0x20000)
    content[0:8] = bytes.fromhex("8000000000010009")
    content[0x10000:0x10008] = bytes.fromhex("c000000040000004")
    root = Root(Table(LARGE, Physical(0), 3), Span(0, (1 << 52) - 1))
    found = walk(BigEndianMemory(content), root, Virtual(0x12345678))
    assert found.physical == 0x52345678
    assert LARGE.rights_of(found.granted) == ("read", "user")


def test_pages_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="12 or 16 bits, not 14"):
        radix(14)


def test_that_an_entry_is_a_leaf_is_no_news_where_it_can_be_nothing_else() -> None:
    for page_bits in (12, 16):
        lowest, middle = radix(page_bits).levels[:2]
        assert lowest.leaf is not None and "L" not in lowest.leaf.bits
        assert middle.leaf is not None and "L" in middle.leaf.bits


def test_a_table_that_is_given_back_is_flushed_with_everything() -> None:
    """RIC=0 of tlbie, which has an address, reaches no directory entries ("TLB Invalidate")."""
    world, page = World(SMALL), Span.of(0, 1 << 12)
    world.space.map(Virtual(page.first), world.frames(1), 0, 0).done()
    with world.space.unmap(page) as flush:
        assert not flush.everything and flush.addresses.tolist() == [0]
    with world.space.free_empty(Span.of(0, 1 << 21)) as flush:
        assert flush.everything
