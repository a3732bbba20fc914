"""Memory read once, and spaces with more tables than there should be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from harness.check.held import HeldMemory
from harness.inspect import held
from harness.inspect.held import hold_tables
from harness.inspect.snapshot import SourceError
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.errors import TooManyTables
from harness.paging.memory import BigEndianMemory, BufferMemory, Mask, Words
from harness.paging.table import Root
from harness.paging.x86.cpu import Cpu, Mode
from tests.inspect.spaces import same

UNIT = 0x1000
ROOTS = Cpu.long_mode(4, 0).roots


def memory_of(tables: np.ndarray) -> BufferMemory:
    """Tables from address 0 on, shape (n, entries)."""
    return BufferMemory(np.ascontiguousarray(tables).view(np.uint8).ravel())


def holding(memory: BufferMemory, asked: list[int]) -> HeldMemory:
    """A copy of a memory, which notes the units that are read."""

    def read(addresses: Words) -> tuple[np.ndarray, Mask]:
        asked.extend(addresses.tolist())
        units = memory.octets.reshape(-1, UNIT)
        backed = addresses < np.uint64(len(memory.octets))
        number = np.where(backed, addresses, 0) // np.uint64(UNIT)
        return np.where(backed[:, None], units[number.astype(np.int64)], 0), backed

    return HeldMemory(UNIT, read)


def chain() -> np.ndarray:
    """A path of four tables, another way to the last, and one to where there is no memory."""
    tables = np.zeros((8, 512), np.uint64)
    for level, (here, there) in enumerate(((0, 3), (3, 1), (1, 6))):
        tables[here, level + 1] = there * UNIT | 7
    tables[1, 100] = 6 * UNIT | 7
    tables[3, 200] = 0x99_0000 | 7
    tables[6, 5:10] = 0x1234_5003
    return tables


@pytest.mark.parametrize("size", [4, 8])
def test_a_word_is_that_of_the_memory_whenever_it_is_read(size: int) -> None:
    random = np.random.default_rng(size)
    there, asked = memory_of(random.integers(0, 1 << 64, (4, 512), np.uint64)), list[int]()
    here = holding(there, asked)
    for unit in (2, 0, 3, 5, 1, 2, 4, 5):
        for address in (unit * UNIT, unit * UNIT + 8 * size, (unit + 1) * UNIT - size):
            expected = there.load(Physical(address), size)
            assert here.load(Physical(address), size) == expected
            assert (expected is None) == (unit >= 4)
    assert asked == [unit * UNIT for unit in (2, 0, 3, 5, 1, 4)]


@pytest.mark.parametrize("size", [4, 8])
def test_many_words_are_those_of_the_memory_and_each_unit_is_read_once(size: int) -> None:
    random = np.random.default_rng(size)
    there, asked = memory_of(random.integers(0, 1 << 64, (4, 512), np.uint64)), list[int]()
    here = holding(there, asked)
    for units in (2, 4), (4, 0, 2), (5, 1, 3, 0, 1):
        offset = random.integers(0, UNIT // size, 100, np.uint64) * np.uint64(size)
        addresses = random.choice(np.array(units, np.uint64), 100) * np.uint64(UNIT) + offset
        words, backed = here.gather(addresses, size)
        there_too = [there.load(Physical(address), size) for address in addresses.tolist()]
        assert backed is not None
        assert backed.tolist() == [word is not None for word in there_too]
        assert words.tolist() == [word or 0 for word in there_too]
    assert asked == [unit * UNIT for unit in (2, 4, 0, 1, 3, 5)]
    assert here.gather(np.array([UNIT, 0], np.uint64), size)[1] is None, "all have memory"
    assert len(asked) == 6


@pytest.mark.parametrize("size", [4, 8])
def test_words_are_those_of_memory_of_the_same_byte_order(size: int) -> None:
    random, asked = np.random.default_rng(size), list[int]()
    octets = random.integers(0, 256, 2 * UNIT, np.uint8)
    there = BigEndianMemory(octets)
    here = HeldMemory(UNIT, holding(BufferMemory(octets), asked).read, "big")
    addresses = np.arange(0, 2 * UNIT, size, dtype=np.uint64)
    expected = there.gather(addresses, size)[0].tolist()
    assert here.gather(addresses, size)[0].tolist() == expected
    assert [here.load(Physical(int(one)), size) for one in addresses[-9:]] == expected[-9:]


def test_what_was_read_is_not_asked_for_again_by_any_address_in_it() -> None:
    there, asked = memory_of(chain()), list[int]()
    here = holding(there, asked)
    here.hold(np.array([UNIT + 1, 2 * UNIT - 1, 5], np.uint64))
    assert asked == [0, UNIT]
    here.read = held.refuse  # raises for whatever it is asked
    here.hold(np.array([3, UNIT + 7], np.uint64))
    assert here.load(Physical(8), 8) == 3 * UNIT | 7


def test_spans_are_read_by_the_units_in_which_any_of_their_bytes_lie() -> None:
    rows = [(0x10, 0x20), (3 * UNIT - 1, 3 * UNIT), (5 * UNIT, 8 * UNIT - 1), (UNIT - 1, UNIT - 1)]
    asked = list[int]()
    here = holding(memory_of(chain()), asked)
    first, last = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    here.hold_spans(first, last)
    assert asked == [unit * UNIT for unit in (0, 2, 3, 5, 6, 7)]
    here.hold_spans(first[:0], last[:0])
    here.hold_spans(np.array([0], np.uint64), np.array([UNIT], np.uint64))
    assert asked[6:] == [UNIT]


def test_tables_are_read_once_and_nothing_else_is() -> None:
    there, asked = memory_of(chain()), list[int]()
    here = holding(there, asked)
    hold_tables(here, ROOTS)
    assert sorted(asked) == [0, UNIT, 3 * UNIT, 6 * UNIT, 0x99_0000]
    here.read = held.refuse
    rows = [bulk.leaves(memory, ROOTS) for memory in (here, there)]
    assert same(*rows)
    assert rows[0].total == 11
    assert here.load(Physical(0x99_0008), 8) is None
    assert here.load(Physical(6 * UNIT + 44), 4) == 0
    with pytest.raises(SourceError, match="the memory at 0x2000 was not read"):
        here.load(Physical(0x2008), 8)


def test_what_was_read_stays_when_the_guest_goes_on() -> None:
    there = memory_of(chain())
    here = holding(there, [])
    hold_tables(here, ROOTS)
    there.octets.setflags(write=True)
    there.octets[:] = 0xFF
    assert here.load(Physical(8), 8) == 3 * UNIT | 7


def test_layers_are_the_tables_that_a_listing_reads() -> None:
    memory = memory_of(chain())
    listed = bulk.leaves(memory, ROOTS).tables
    layers = [layer.tables.tolist() for layer in bulk.layers(memory, ROOTS, 100)]
    for level, tables in enumerate(reversed(layers)):
        assert tables == listed.address[listed.level == level].tolist()
    assert list(bulk.layers(memory, (), 100)) == []
    pae = Cpu.in_mode(Mode.PAE, 0).roots
    assert list(bulk.layers(memory, pae, 100)) == []


@pytest.mark.parametrize("levels", [4, 5])
def test_tables_that_contain_themselves_are_few(levels: int) -> None:
    memory = memory_of(np.full((1, 512), 7, np.uint64))
    layers = bulk.layers(memory, Cpu.long_mode(levels, 0).roots, 100)
    assert [layer.tables.tolist() for layer in layers] == [[0]] * levels


def scattered(tables: int) -> np.ndarray:
    """Data of which every word is a pointer to some table."""
    random = np.random.default_rng(7)
    return random.integers(0, tables, (tables, 512), np.uint64) << np.uint64(12) | np.uint64(7)


def test_more_tables_than_there_may_be_are_refused_in_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = memory_of(scattered(1 << 12))
    roots: tuple[Root, ...] = ROOTS
    tracemalloc.start()
    with pytest.raises(TooManyTables, match="more than 1,000 tables"):
        list(bulk.layers(memory, roots, 1000))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    aliases = np.full((4, 512), 7, np.uint64) | np.arange(4, dtype=np.uint64)[:, None] << 12
    with pytest.raises(TooManyTables, match="more than 640 pointers"):
        list(bulk.layers(memory_of(np.vstack([aliases, scattered(8)])), roots, 10))
    assert held.MOST_TABLES * 512 * UNIT == 128 << 30  # of pages of 4 KiB, as is said of it
    monkeypatch.setattr(held, "MOST_TABLES", 1000)
    with pytest.raises(SourceError, match="this is hardly a space: there are more than 1,000"):
        hold_tables(holding(memory, []), roots)
