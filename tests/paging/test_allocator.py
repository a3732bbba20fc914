"""Tables come from a span and nothing else, and go back to where they came from."""

import numpy as np
import pytest

from harness.paging.address import Physical, Span
from harness.paging.allocator import TableAllocator
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.memory import BigEndianMemory, BufferMemory
from harness.paging.s390.formats import dat
from harness.paging.table import Table
from tests.paging.spaces import FORMATS, UNEVEN

X86 = FORMATS["x86-4"]


def allocator(first: int, size: int) -> TableAllocator:
    return TableAllocator(BufferMemory(np.full(1 << 16, 0xFF, np.uint8)), Span.of(first, size))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("first", [0, 0x1000, 0x3000])
def test_as_many_tables_are_given_as_fit_and_no_more(first: int, count: int) -> None:
    tables = allocator(first, count * 0x1000)
    given = [tables.allocate(X86, 0).address for _ in range(count)]
    assert given == [first + n * 0x1000 for n in range(count)]
    with pytest.raises(OutOfTables, match="no room for a level-0 table"):
        tables.allocate(X86, 0)
    assert tables.next == first + count * 0x1000


def test_a_table_that_lacks_one_byte_of_room_is_not_given() -> None:
    for tables in allocator(0, 0xFFF), allocator(1, 0x1000), allocator(1, 0x1FFE):
        with pytest.raises(OutOfTables):
            tables.allocate(X86, 0)
    assert allocator(1, 0x1FFF).allocate(X86, 0).address == 0x1000


def test_a_table_is_aligned_to_its_size_and_empty() -> None:
    tables = allocator(0, 0x1000)
    assert [tables.allocate(UNEVEN, level).address for level in (1, 2, 0, 1)] == [
        0,  # 4 entries of 8 bytes
        0x80,  # 16 of them, so aligned to 128 bytes
        0x100,
        0x140,
    ]
    octets = tables.memory.octets  # type: ignore[attr-defined]
    for first, size in (0, 0x20), (0x80, 0x80), (0x100, 0x40), (0x140, 0x20):
        assert not octets[first : first + size].any()
    assert (octets[0x20:0x80] == 0xFF).all() and (octets[0x160:] == 0xFF).all()


def test_a_table_that_comes_back_is_given_again_the_lowest_first() -> None:
    tables = allocator(0, 0x4000)
    given = [tables.allocate(X86, 0) for _ in range(4)]
    for one in given[2], given[0], given[1]:
        tables.free(one)
        assert not tables.gave(one)
    assert [tables.allocate(X86, 1).address for _ in range(3)] == [0, 0x1000, 0x2000]
    with pytest.raises(OutOfTables):
        tables.allocate(X86, 0)


def test_only_what_was_given_can_come_back_once_and_at_its_level() -> None:
    tables = allocator(0, 0x2000)
    given = tables.allocate(X86, 1)
    for wrong in (
        Table(X86, given.address, 0),
        Table(X86, Physical(0x1000), 1),
        Table(X86, Physical(given.address + 8), 1),
    ):
        assert not tables.gave(wrong)
        with pytest.raises(SpaceError, match="is not handed out"):
            tables.free(wrong)
    assert tables.gave(given)
    tables.free(given)
    with pytest.raises(SpaceError, match="is not handed out"):
        tables.free(given)


def test_an_allowance_ends_before_the_room_does() -> None:
    tables = allocator(0, 0x4000)
    tables.remaining = 2
    assert [tables.allocate(X86, 0).address for _ in range(2)] == [0, 0x1000]
    with pytest.raises(OutOfTables, match="the allowance is used up"):
        tables.allocate(X86, 0)
    assert tables.remaining == 0
    tables.remaining = None
    assert [tables.allocate(X86, 0).address for _ in range(2)] == [0x2000, 0x3000]


@pytest.mark.parametrize("level", range(5))
def test_a_new_table_is_full_of_entries_that_are_absent(level: int) -> None:
    """On s390 zero is a page, or a table: I is bit 5 of an entry, and bit 10 of one for a page."""
    format = dat()
    memory = BigEndianMemory(np.full(1 << 16, 0xFF, np.uint8))
    table = TableAllocator(memory, Span.of(0, 1 << 16)).allocate(format, level)
    words = {memory.load(slot.address, 8) for slot in table.slots()}
    assert words == {1 << 5 if level else 1 << 10}
