"""What each bit of each entry means, as the Principles of Operation have it (chapter 3, "Dynamic
Address Translation"), bit by bit, counted from the lowest."""

from __future__ import annotations

import pytest

from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.formats import dat
from harness.paging.table import Root, Table
from harness.paging.walk import walk
from tests.paging.tables import KIND, RESERVED, RIGHT, Entry, complaints

OLD, NEW = dat(), dat(edat1=True, edat2=True, iep=True)
REGION: dict[tuple[int, int], str | int] = {
    (5, 5): KIND,
    (3, 2): RESERVED,
    (63, 12): 0,
}
"""TF and TL are none of these: a table of which only a part is there is a table."""

ENTRIES = {
    "page": Entry(
        *(OLD, 0, 0, Leaf, 1 << 12),
        {(63, 12): 0, (11, 11): RESERVED, (10, 10): KIND, (9, 9): RIGHT},
    ),
    "page with IEP": Entry(
        *(NEW, 0, 0, Leaf, 1 << 12),
        {(63, 12): 0, (11, 11): RESERVED, (10, 10): KIND, (9, 8): RIGHT},
    ),
    "segment": Entry(
        *(OLD, 1, 0, Pointer, None),
        {(63, 11): 0, (9, 9): RIGHT, (5, 5): KIND, (3, 2): RESERVED},
    ),
    "segment with EDAT": Entry(
        *(NEW, 1, 0, Pointer, None),
        {(63, 11): 0, (10, 10): KIND, (9, 9): RIGHT, (5, 5): KIND, (3, 2): RESERVED},
    ),
    "1M frame": Entry(
        *(NEW, 1, 1 << 10, Leaf, 1 << 20),
        {(63, 20): 0, (10, 10): KIND, (9, 8): RIGHT, (5, 5): KIND, (3, 2): RESERVED},
    ),
    "region third": Entry(OLD, 2, 0b0111, Pointer, None, REGION),
    "region third with EDAT": Entry(
        *(NEW, 2, 0b0111, Pointer, None),
        {**REGION, (10, 10): KIND, (9, 9): RIGHT},
    ),
    "2G frame": Entry(
        *(NEW, 2, 1 << 10 | 0b0100, Leaf, 1 << 31),
        {(63, 31): 0, (10, 10): KIND, (9, 8): RIGHT, (5, 5): KIND, (3, 2): RESERVED},
    ),
    "region second": Entry(OLD, 3, 0b1011, Pointer, None, REGION),
    "region second with EDAT": Entry(NEW, 3, 0b1011, Pointer, None, {**REGION, (9, 9): RIGHT}),
    "region first": Entry(OLD, 4, 0b1111, Pointer, None, REGION),
    "region first with EDAT": Entry(NEW, 4, 0b1111, Pointer, None, {**REGION, (9, 9): RIGHT}),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_bit_of_an_entry_means_what_the_manual_says(entry: str) -> None:
    assert not complaints(ENTRIES[entry])


def test_zero_is_a_page_and_a_segment_and_an_empty_table_is_filled_with_what_is_invalid() -> None:
    assert OLD.decode(0, 0) == Leaf(Physical(0), 4096)
    assert isinstance(OLD.decode(0, 1), Pointer)
    assert isinstance(OLD.decode(0, 2), Malformed), "the type of a segment-table entry"
    assert [level.empty for level in OLD.levels] == [0x400, 0x20, 0x20, 0x20, 0x20]
    assert all(OLD.decode(OLD.levels[n].empty, n) == Absent() for n in range(5))
    assert OLD.decode(0x20, 0) == Leaf(Physical(0), 4096), "I is another bit of pages"


def test_tables_have_the_geometry_of_the_manual() -> None:
    def geometry(format: Format) -> list[tuple[int, int, int]]:
        sizes = map(format.table_bytes, range(5))
        return [
            (one.shift, one.entries, size) for one, size in zip(format.levels, sizes, strict=True)
        ]

    assert geometry(OLD) == geometry(NEW)
    assert geometry(OLD) == [
        (12, 256, 2048),
        (20, 2048, 16384),
        (31, 2048, 16384),
        (42, 2048, 16384),
        (53, 2048, 16384),
    ]


def test_a_walk_reads_entries_with_the_highest_byte_first() -> None:
    content = bytearray(0x10000)
    content[0:8] = bytes.fromhex("0000000000008000")  # segment 0: a page table at 0x8000
    content[0x8008:0x8010] = bytes.fromhex("0000000012345200")  # page 1: protected
    root = Root(Table(OLD, Physical(0), 1), Span(0, (1 << 31) - 1))
    found = walk(BigEndianMemory(content), root, Virtual(0x1ABC))
    assert found.physical == 0x12345ABC
    assert OLD.rights_of(found.granted) == ()


def test_rights_are_given_by_bits_that_are_clear() -> None:
    assert (OLD.granting("write"), OLD.granting()) == (0, 0x200)
    names = ("write", "execute"), ("write",), ("execute",), ()
    assert [NEW.granting(*given) for given in names] == [0, 0x100, 0x200, 0x300]


PRIVATE = dat(edat1=True, edat2=True, private=True)
LEAST = {0: 0, 1: 0, 2: 0b0100, 3: 0b1000, 4: 0b1100}
"""Entries of each level that are there, with an address of 0."""


def test_bit_59_is_wrong_in_a_private_space_where_it_makes_something_common() -> None:
    for level, least in LEAST.items():
        for large in (0, 1 << 10) if level in (1, 2) else (0,):
            common = least | large | 1 << 4
            assert NEW.decode(common, level) == NEW.decode(least | large, level)
            wrong = Malformed(1 << 4) if level in (1, 2) else PRIVATE.decode(least, level)
            assert PRIVATE.decode(common, level) == wrong
    one = dat(edat1=True, private=True)
    assert isinstance(one.decode(1 << 4 | 0b0100, 2), Pointer), "common regions come with EDAT-2"


@pytest.mark.parametrize("level", [2, 3, 4])
def test_tf_and_tl_say_which_quarters_of_a_table_are_there(level: int) -> None:
    for first in range(4):
        for last in range(4):
            raw = LEAST[level] | first << 6 | last
            assert OLD.slots_below(raw, level) == range(512 * first, 512 * (last + 1))
    assert OLD.slots_below(0x20000, 1) == range(256), "a page table is whole"


def test_facility_2_comes_with_facility_1() -> None:
    with pytest.raises(ValueError, match="facility 2 is not there without facility 1"):
        dat(edat2=True)
