"""Memory in segments is where each says, whichever of several that overlap comes first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.content import Content
from harness.inspect.sources.segments import SegmentMemory
from harness.paging.address import Physical, Span

SIZE = 0x100
WORDS = {place: int.from_bytes(bytes(range(place, place + 8)), "little") for place in range(0xF8)}
"""What the file has at each place: byte N is N."""


def of(path: Path, *segments: tuple[int, int, int]) -> SegmentMemory:
    (path / "file").write_bytes(bytes(range(SIZE)))
    first, size, offset = (np.array(column, np.uint64) for column in zip(*segments, strict=True))
    return SegmentMemory.of(Content.of_file(path / "file"), first, size, offset)


def test_of_segments_that_overlap_the_first_has_what_both_hold(tmp_path: Path) -> None:
    memory = of(tmp_path, (0x1010, 0x20, 0x80), (0x1000, 0x18, 0x40), (0x1008, 0x8, 0))
    assert memory.backed == (Span(0x1000, 0x102F),)
    assert memory.load(Physical(0x1000), 8) == WORDS[0x40]
    assert memory.load(Physical(0x1010), 8) == WORDS[0x50]
    assert memory.load(Physical(0x1018), 8) == WORDS[0x88]
    assert memory.load(Physical(0x1028), 8) == WORDS[0x98]
    assert memory.load(Physical(0x1030), 8) is None
    assert memory.load(Physical(0xFF8), 8) is None


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("offsets", [(0, 0x40), (1, 0x41), (3, 0x40), (0, 0x43)])
def test_words_are_read_wherever_in_the_file_they_lie(
    tmp_path: Path, offsets: tuple[int, int], size: int
) -> None:
    memory = of(tmp_path, (0x1000, 0x10, offsets[0]), (0x2000, 0x10, offsets[1]))
    places = [0x1000, 0x1008, 0x1800, 0x2000, 0x2008]
    words, backed = memory.gather(np.array(places, np.uint64), size)
    assert backed is not None
    assert backed.tolist() == [True, True, False, True, True]
    there = [offsets[0], offsets[0] + 8, offsets[1], offsets[1] + 8]
    expected = [WORDS[place] & (1 << 8 * size) - 1 for place in there]
    assert words[backed].tolist() == expected
    words, backed = memory.gather(np.array(places[3:], np.uint64), size)
    assert (words.tolist(), backed) == (expected[2:], None)


def test_a_word_is_read_whole_of_which_the_end_lies_where_no_other_was_read(tmp_path: Path) -> None:
    """Behind a word that is aligned, one that goes on in the next page of the file."""
    octets = bytes(1 + place % 251 for place in range(0x3000))
    (tmp_path / "file").write_bytes(octets)
    first, size, offset = (
        np.array(column, np.uint64) for column in ((0, 8, 16), (8, 8, 8), (0x100, 0xFFC, 0x1FFF))
    )
    memory = SegmentMemory.of(Content.of_file(tmp_path / "file"), first, size, offset)
    words, backed = memory.gather(first, 8)
    assert backed is None
    expected = [int.from_bytes(octets[at : at + 8], "little") for at in offset.tolist()]
    assert words.tolist() == expected


def test_a_segment_reaches_the_last_byte_of_the_file_and_no_further(tmp_path: Path) -> None:
    assert of(tmp_path, (0x1000, 0x40, SIZE - 0x40)).backed == (Span(0x1000, 0x103F),)
    for segment in (
        (0x1000, 0x40, SIZE - 0x3F),
        ((1 << 64) - 0x20, 0x40, 0),
        (0x1000, 0x40, (1 << 64) - 0x20),
    ):
        with pytest.raises(SourceError, match="cut short: it has 256 bytes"):
            of(tmp_path, (0, 8, 0), segment)


def test_segments_without_a_byte_hold_nothing(tmp_path: Path) -> None:
    memory = of(tmp_path, (0x1000, 0, 0), (0x2000, 0, 1 << 63))
    assert memory.backed == ()
    assert memory.load(Physical(0x1000), 8) is None


@pytest.mark.parametrize("offset", [0, 8, 3])
@pytest.mark.parametrize("size", [4, 8])
def test_words_of_big_endian_memory_have_their_highest_byte_first(
    tmp_path: Path, offset: int, size: int
) -> None:
    memory = of(tmp_path, (0x1000, 32, offset), (0x2000, 32, offset)).in_order("big")
    addresses = [start + at for start in (0x1000, 0x2000) for at in range(0, 32, size)]
    # Byte N of the file is N.
    expected = [
        int.from_bytes(bytes(range(place, place + size)), "big")
        for place in (offset + address % 0x1000 for address in addresses)
    ]
    assert [memory.load(Physical(one), size) for one in addresses] == expected
    words, backed = memory.gather(np.array(addresses, np.uint64), size)
    assert (words.tolist(), backed) == (expected, None)
