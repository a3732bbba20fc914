"""The tables of a space as they were written beside those that a monitor finds, and as they are
found by physical addresses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.tables import TABLE_BYTES, TableImage, add_walks, compare_tables, images_of
from harness.paging.address import Physical, Span
from harness.paging.memory import BigEndianMemory, BufferMemory, Words
from harness.paging.riscv.formats import sv
from harness.paging.s390.formats import dat
from harness.paging.table import Root, Table
from harness.paging.x86.cpu import Cpu
from tests.paging.machines import memory_of

TABLES = (0, 0x1000, 0x2000, 0x3000)


def space() -> tuple[BufferMemory, Cpu]:
    """Four tables, one below the other, that lead to a page."""
    words = [0] * (4 * 512)
    for table in range(3):
        words[512 * table] = (table + 1) << 12 | 7
    words[512 * 3 + 5] = 0x70_0000 | 7
    return memory_of(words), Cpu.long_mode(4, 0)


def image() -> TableImage:
    memory, cpu = space()
    return TableImage.of(memory, cpu.roots)


def at(*addresses: int) -> Words:
    return np.array(addresses, np.uint64)


def test_an_image_has_every_table_with_all_its_words() -> None:
    found = image()
    assert found.address.tolist() == list(TABLES)
    assert found.words.shape == (4, 512) and found.words[3, 5] == 0x70_0000 | 7


def test_an_address_is_in_a_table_from_its_first_byte_to_its_last() -> None:
    moved = TableImage(at(0x1000, 0x3000), image().words[:2], image().format)
    inside = at(0x1000, 0x1FFF, 0x3000, 0x3008, 0x3FFF)
    outside = at(0, 0xFFF, 0x2000, 0x2FFF, 0x4000, 1 << 63)
    assert moved.holds(inside).all() and not moved.holds(outside).any()
    none = TableImage(at(), image().words[:0], image().format)
    assert not none.holds(inside).any()
    for address in inside.tolist():
        held = moved.holding(address)
        assert held.address.tolist() == [address & ~0xFFF] and len(held.words) == 1
    assert all(not len(moved.holding(address).address) for address in outside.tolist()[:5])


class Monitor:
    """One that finds these bytes; it notes what it is asked."""

    def __init__(self, octets: Any) -> None:
        self.octets, self.asked = octets, list[tuple[int, int]]()

    def read_physical(self, address: int, size: int) -> bytes:
        self.asked.append((address, size))
        return bytes(self.octets[address : address + size])


def compared(octets: Any, *images: TableImage) -> tuple[Comparison, list[tuple[int, int]]]:
    monitor: Any = Monitor(octets)
    return compare_tables(monitor, *images), monitor.asked


def test_tables_that_are_found_as_they_were_written_agree() -> None:
    memory, _ = space()
    found, asked = compared(memory.octets, image())
    assert (found.oracle, found.compared, found.disagreed) == (TABLE_BYTES, 4, 0)
    assert asked == [(table, 0x1000) for table in TABLES]


def test_a_word_that_is_found_otherwise_is_told_with_how_many_more_there_are() -> None:
    octets = space()[0].octets.copy()
    octets[0x3000 + 8 * 5] ^= 1
    octets[0x3000 + 8 * 9] ^= 2
    octets[0x1000 + 8 * 511 + 7] ^= 0x80
    found, _ = compared(octets, image())
    assert (found.compared, found.disagreed) == (4, 2)
    told = [(one.address, one.access, one.expected, one.observed) for one in found.disagreements]
    assert told == [
        (
            0x1000 + 8 * 511,
            None,
            "0x0, as it was written",
            f"{1 << 63:#x}, and 0 more in this table",
        ),
        (
            0x3000 + 8 * 5,
            None,
            f"{0x70_0000 | 7:#x}, as it was written",
            f"{0x70_0000 | 6:#x}, and 1 more in this table",
        ),
    ]
    assert all(one.oracle == TABLE_BYTES for one in found.disagreements)


def test_words_have_the_size_and_the_order_that_the_format_has() -> None:
    octets = np.zeros(0x1000, np.uint8)
    octets[:8] = range(1, 9)
    for format, kind, words in (
        (sv(32), BufferMemory, [0x0403_0201, 0x0807_0605]),
        (sv(39), BufferMemory, [0x0807_0605_0403_0201]),
        (dat(edat1=True, edat2=True, iep=True), BigEndianMemory, [0x0102_0304_0506_0708]),
    ):
        size = format.table_bytes(0)
        count = size // format.entry_bytes
        held = np.array([words + [0] * (count - len(words))], np.uint64)
        found, asked = compared(octets, TableImage(at(0), held, format))
        assert (found.compared, found.disagreed, asked) == (1, 0, [(0, size)])
        assert kind(octets).load(Physical(0), format.entry_bytes) == words[0]


def test_roots_with_tables_of_several_formats_have_an_image_of_each() -> None:
    memory = BufferMemory(np.zeros(0x8000, np.uint8))
    memory.store(Physical(0x1000), 8, 0x4000 >> 2 | 1)
    wide, narrow = sv(39), sv(48)
    roots = (
        Root(Table(wide, Physical(0x1000), 2), Span.of(0, 1 << 38)),
        Root(Table(narrow, Physical(0x2000), 3), Span.of(1 << 40, 1 << 39)),
        Root(Table(wide, Physical(0x3000), 2), Span.of(1 << 50, 1 << 38)),
    )
    found = images_of(memory, roots)
    assert [(one.format, one.address.tolist()) for one in found] == [
        (wide, [0x1000, 0x3000, 0x4000]),
        (narrow, [0x2000]),
    ]


@pytest.mark.parametrize(
    ("oracle", "address", "walked"),
    [(PROBE, 0x5008, True), (TABLE_BYTES, 0x5008, False), (PROBE, 1 << 47, False)],
)
def test_walks_are_put_beside_what_is_about_virtual_addresses(
    oracle: str, address: int, walked: bool
) -> None:
    memory, cpu = space()
    comparison = Comparison(oracle)
    other = Disagreement(oracle, 0x6000, None, "", "")
    comparison.disagree(2, [Disagreement(oracle, address, None, "", ""), other])
    add_walks(comparison, memory, cpu)
    found, second = comparison.disagreements
    assert (found.walk is not None) is walked
    assert found.walk is None or found.walk.physical == 0x70_0008
    assert (second.walk is not None) is (oracle != TABLE_BYTES)


def test_the_format_of_an_image_is_that_of_its_roots() -> None:
    assert image().format is Cpu.long_mode(4, 0).format
