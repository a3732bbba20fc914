"""What accesses reach is put where they reach it, and looked at afterwards: no more and no less.

Entries and words are made by hand: a table of one page of physical addresses is all the memory that
there is, and no architecture plays a part."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.check.compare import Comparison
from harness.check.marks import mark
from harness.check.reached import Code, Reached, asked_of, left_as, marked, put_paths, words_after
from harness.check.tables import TableImage
from harness.paging.address import Span
from harness.paging.bulk import Paths
from harness.paging.memory import BufferMemory, Mask, Words
from tests.paging.toys import MIXED

BASE, SIZE = 0x10_0000, 0x8000
FRAMES = (Span.of(BASE + 0x1000, 0x1000), Span.of(BASE + 0x4000, 0x2000))
TABLES = BASE + 0x4800
"""Memory, what of it may be reached, and where tables are in it."""

FIRST, LAST = FRAMES[0].first, FRAMES[1].last
CODE = 0xC0DE_0000
"""What code is made of that names its frame: half a word."""


def words(*values: int) -> Words:
    return np.array(values, np.uint64)


def lanes(*values: int) -> Mask:
    return np.array(values, np.bool_)


def put_code(memory: BufferMemory, physical: Words) -> None:
    memory.scatter(physical, 4, physical | np.uint64(CODE))


CODES = Code(put_code, lambda physical: physical | np.uint64(CODE))


def memory() -> BufferMemory:
    return BufferMemory(np.zeros(SIZE, np.uint8), BASE)


def paths(count: int, levels: int = 3) -> Paths:
    """Paths whose entries say their lane and level; in the last lane one level less is walked, from
    below the root, and in the one before no page table is read."""
    slot, raw = np.zeros((2, levels, count), np.uint64)
    for level in range(levels):
        for lane in range(count):
            slot[level, lane] = 0x1000 * (level + 1) + 8 * lane
            raw[level, lane] = 0xA00 + 0x10 * level + lane
    used = np.ones((levels, count), np.bool_)
    used[levels - 1, count - 1] = False
    used[0, count - 2] = False
    return Paths(slot, raw, used)


class TestAsked:
    """Which accesses a guest is asked for."""

    def image(self, address: int) -> TableImage:
        """One table of 256 bytes."""
        return TableImage(words(address), np.zeros((1, 32), np.uint64), MIXED)

    def test_what_reaches_a_table_or_no_memory_is_left_out_and_counted(self) -> None:
        size = 32 * MIXED.entry_bytes
        by_entries = words(
            *(FIRST, FIRST - 1, FRAMES[0].last + 1, LAST, LAST + 1),
            *(TABLES, TABLES + size - 1, TABLES - 1, TABLES + size),
        )
        comparison = Comparison("probe")
        asked = asked_of(
            *(comparison, np.ones(9, np.bool_), by_entries, FRAMES),
            [self.image(BASE), self.image(TABLES)],
        )
        assert asked.tolist() == [True, False, False, True, False, False, False, True, True]
        assert comparison.not_comparable == Counter(
            {"the page has no memory behind it": 3, "the page holds a table": 2}
        )

    def test_what_reaches_no_page_is_asked_wherever_its_entries_lead(self) -> None:
        comparison = Comparison("probe")
        asked = asked_of(comparison, lanes(0, 0), words(0, TABLES), FRAMES, [self.image(TABLES)])
        assert asked.all() and not comparison.not_comparable

    def test_a_table_that_is_beyond_the_frames_is_no_memory(self) -> None:
        comparison = Comparison("probe")
        asked = asked_of(comparison, lanes(1), words(BASE), FRAMES, [self.image(BASE)])
        assert not asked.any()
        assert comparison.not_comparable == Counter({"the page has no memory behind it": 1})


def reached(
    ram: BufferMemory, allowed: Mask, fetch: Mask, data: Words, by_entries: Words, width: int = 8
) -> Reached:
    return marked(
        ram,
        FRAMES,
        width,
        CODES,
        allowed=allowed,
        fetch=fetch,
        paths=paths(len(data)),
        data=data,
        by_entries=by_entries,
    )


class TestMarked:
    """What is put where accesses lead."""

    def test_words_and_code_name_their_frames_and_nothing_else_is_written(self) -> None:
        ram, data = memory(), words(FIRST + 8, FIRST + 0x10, FIRST + 0x18, FIRST + 0x20)
        found = reached(ram, lanes(1, 1, 0, 0), lanes(0, 1, 0, 1), data, data)
        assert found.word.tolist() == [True, False, False, False]
        assert not found.astray.any()
        assert found.data.tolist() == data.tolist()
        code = CODE | FIRST + 0x10
        assert found.content.tolist() == [int(mark(data)[0]), code, 0, 0]
        assert found.stored.tolist() == [(1 << 64) - 1 - one for one in found.content.tolist()]
        wanted = np.zeros(SIZE // 8, np.uint64)
        wanted[(FIRST - BASE) // 8 + 1 : (FIRST - BASE) // 8 + 3] = found.content[:2]
        assert ram.octets.view(np.uint64).tolist() == wanted.tolist()

    @pytest.mark.parametrize("width", [4, 8])
    def test_of_a_narrow_word_the_bytes_are_those_of_the_mark(self, width: int) -> None:
        for offset in range(0, 8, width):
            ram, data = memory(), words(LAST - 7 + offset)
            found = reached(ram, lanes(1), lanes(0), data, data, width)
            whole = int(mark(words(LAST - 7))[0])
            assert found.content.tolist() == [whole >> 8 * offset & (1 << 8 * width) - 1]

    def test_what_the_reference_leads_elsewhere_is_astray(self) -> None:
        """Whether that is a frame or not; the mark is where the entries lead, and not compared."""
        data = words(FIRST, LAST + 1, FIRST + 8, FIRST - 8, LAST + 1)
        by_entries = words(FIRST + 8, LAST - 7, FIRST + 8, FIRST - 8, LAST - 7)
        ram = memory()
        found = reached(ram, lanes(1, 1, 1, 1, 0), lanes(0, 0, 0, 0, 0), data, by_entries)
        assert found.astray.tolist() == [True, True, False, True, False]
        assert found.word.tolist() == [False, False, True, False, False]
        written = [FIRST + 8, LAST - 7]
        assert found.content.tolist() == [int(one) for one in mark(words(*written, FIRST + 8))] + [
            *(0, 0)
        ]
        there = np.flatnonzero(ram.octets.view(np.uint64)) * 8 + BASE
        assert sorted(there.tolist()) == written


def a_record(count: int, steps: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    each = [("where", "u8", steps), ("word", "u8", steps), ("after", "u8", steps)]
    return np.zeros(count, [*each, ("patched", "u1"), ("watched", "u1")])


class TestPaths:
    """What jobs put back, and what is looked at afterwards."""

    def expected(self) -> Reached:
        ram, data = memory(), words(FIRST, FIRST + 8, FIRST + 16, FIRST + 24)
        return reached(ram, lanes(1, 0, 1, 1), lanes(0, 0, 1, 0), data, data)

    def test_a_job_has_the_path_from_the_root_down_and_then_the_word(self) -> None:
        expected, jobs = self.expected(), a_record(4, 5)
        put_paths(jobs, expected)
        mine = [int(one) for one in expected.content]
        assert jobs["where"].tolist() == [
            [0x3000, 0x2000, 0x1000, FIRST, 0],
            [0x3008, 0x2008, 0x1008, 0, 0],
            [0x3010, 0x2010, 0, 0, 0],
            [0x2018, 0x1018, FIRST + 24, 0, 0],
        ]
        assert jobs["word"].tolist() == [
            [0xA20, 0xA10, 0xA00, mine[0], 0],
            [0xA21, 0xA11, 0xA01, 0, 0],
            [0xA22, 0xA12, 0, 0, 0],
            [0xA13, 0xA03, mine[3], 0, 0],
        ]
        assert jobs["patched"].tolist() == jobs["watched"].tolist() == [4, 3, 2, 3]

    def test_walks_may_begin_at_any_level(self) -> None:
        ram, data = memory(), words(*(FIRST + 8 * lane for lane in range(4)))
        every = paths(4, levels=4)
        every.used[:] = [[level <= lane for lane in range(4)] for level in range(4)]
        expected = replace(
            reached(ram, lanes(0, 0, 0, 0), lanes(0, 0, 0, 0), data, data), paths=every
        )
        jobs = a_record(4, 5)
        put_paths(jobs, expected)
        assert jobs["where"].tolist() == [
            [0x1000, 0, 0, 0, 0],
            [0x2008, 0x1008, 0, 0, 0],
            [0x3010, 0x2010, 0x1010, 0, 0],
            [0x4018, 0x3018, 0x2018, 0x1018, 0],
        ]
        assert jobs["watched"].tolist() == [1, 2, 3, 4]

    def seen(self, expected: Reached, writes: Mask) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """What a guest sees that leaves entries as they are, but sets bit 12 of those that lanes 0
        and 3 have at level 0."""
        jobs = a_record(4, 5)
        put_paths(jobs, expected)
        jobs["after"] = jobs["word"]
        jobs["after"][0, 2] |= 1 << 12
        jobs["after"][3, 1] |= 1 << 12
        jobs["after"][0, 3] = expected.stored[0] if writes[0] else expected.content[0]
        jobs["after"][3, 2] = expected.stored[3] if writes[3] else expected.content[3]
        return jobs

    def compared(
        self, seen: np.ndarray[tuple[int], np.dtype[np.void]], writes: Mask, free: int = 0
    ) -> list[bool]:
        expected = self.expected()

        def changed(level: int) -> tuple[Words, Words]:
            sets = np.where(lanes(1, 0, 0, 1), 1 << 12 if level == 0 else 0, 0).astype(np.uint64)
            return expected.paths.raw[level] | sets, np.full(4, free, np.uint64)

        found: list[bool] = left_as(expected, seen, changed, writes).tolist()
        return found

    @pytest.mark.parametrize("writes", [(0, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 1)])
    def test_what_is_left_as_it_should_be_agrees(self, writes: tuple[int, ...]) -> None:
        seen = self.seen(self.expected(), lanes(*writes))
        assert self.compared(seen, lanes(*writes)) == [True] * 4
        other = lanes(*(not one for one in writes))
        assert self.compared(seen, other) == [False, True, True, False], "the words are others"

    def test_each_entry_and_the_word_are_looked_at(self) -> None:
        writes = lanes(1, 0, 0, 0)
        for lane, count in enumerate((4, 3, 2, 3)):
            for column in range(5):
                for bit in (0, 12, 63):
                    seen = self.seen(self.expected(), writes)
                    seen["after"][lane, column] ^= np.uint64(1 << bit)
                    wanted = [one != lane or column >= count for one in range(4)]
                    assert self.compared(seen, writes) == wanted, (lane, column, bit)

    def test_bits_that_may_be_either_are_free_in_entries_and_not_in_words(self) -> None:
        seen = self.seen(self.expected(), lanes(0, 0, 0, 0))
        seen["after"][:, 0] ^= np.uint64(1 << 5)
        assert self.compared(seen, lanes(0, 0, 0, 0), 1 << 5) == [True] * 4
        assert self.compared(seen, lanes(0, 0, 0, 0), 1 << 6) == [False] * 4
        seen = self.seen(self.expected(), lanes(0, 0, 0, 0))
        seen["after"][0, 3] ^= np.uint64(1 << 5)
        assert self.compared(seen, lanes(0, 0, 0, 0), 1 << 5) == [False, True, True, True]

    def test_of_a_word_those_bits_count_that_it_has(self) -> None:
        expected, writes = self.expected(), lanes(1, 0, 0, 1)
        seen = self.seen(expected, writes)
        seen["after"][0, 3] &= 0xFFFF_FFFF
        seen["after"][3, 2] &= 0xFFFF_FFFF
        seen["after"][[0, 3], [2, 1]] ^= 1 << 12
        same = replace(expected)

        def unchanged(level: int) -> tuple[Words, Words]:
            return same.paths.raw[level], np.zeros(4, np.uint64)

        narrow = left_as(same, seen, unchanged, writes, np.uint64(0xFFFF_FFFF))
        assert narrow.tolist() == [True] * 4
        assert left_as(same, seen, unchanged, writes).tolist() == [False, True, True, False]

    def test_entries_are_shown_from_the_root_down_without_the_word(self) -> None:
        expected = self.expected()
        seen = self.seen(expected, lanes(0, 0, 0, 0))
        shown = [words_after(seen[lane], expected.paths, lane) for lane in range(4)]
        assert shown == [
            *("0xa20, 0xa10, 0x1a00", "0xa21, 0xa11, 0xa01", "0xa22, 0xa12", "0xa13, 0x1a03"),
        ]
