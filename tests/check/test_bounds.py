"""What a layout may ask for, to the entry."""

import random

import pytest

from harness.check.bounds import Run, refuse
from harness.paging.x86.formats import long_mode

FORMAT = long_mode(4, 40, True, True)
TIB = 1 << 40


def run(count: int, together: bool) -> Run:
    return Run("map 1", FORMAT, 0, 0, count, 0x1000, together)


@pytest.mark.parametrize(
    ("most", "together", "words"),
    [
        (1 << 24, True, "at most 16,777,216 are"),  # 64G in pages of 4K
        (1 << 16, False, "put one by one .* at most 65,536 are"),
    ],
)
def test_as_many_entries_as_there_may_be_are_taken(most: int, together: bool, words: str) -> None:
    refuse("file", [run(most, together)], TIB)
    half = most // 2
    refuse("file", [run(half, together), run(half, together)], TIB)
    for runs in [run(most + 1, together)], [run(half, together), run(half + 1, together)]:
        with pytest.raises(ValueError, match=f"file: {most + 1:,} entries .*{words}"):
            refuse("file", runs, TIB)


def test_tables_must_have_room_for_all_entries_and_for_those_that_lead_to_them() -> None:
    """513 pages of 4K: two tables of level 0, one of each other level."""
    refuse("file", [run(513, True)], 5 * 0x1000)
    with pytest.raises(ValueError, match="map 1: 5 tables are needed"):
        refuse("file", [run(513, True)], 5 * 0x1000 - 1)
    with pytest.raises(
        ValueError, match=r"513 entries are asked for, and `tables` \(4K\) has room"
    ):
        refuse("file", [run(513, True)], 0x1000)


@pytest.mark.parametrize(
    ("virtual", "level", "count", "step", "tables"),
    [
        (0, 0, 1, 0x1000, 4),
        (0, 0, 512, 0x1000, 4),
        (0x1000, 0, 512, 0x1000, 5),
        (1 << 30, 0, 512, 0x1000, 4),
        (0, 1, 1, 2 << 20, 3),
        (0, 0, 3, 1 << 30, 3 + 3 + 1 + 1),
        (0, 3, 1, 512 << 30, 1),
    ],
)
def test_tables_are_counted_at_every_level(
    virtual: int, level: int, count: int, step: int, tables: int
) -> None:
    assert Run("map 1", FORMAT, virtual, level, count, step, True).tables == tables


def test_two_runs_meet_where_an_address_has_an_entry_of_both() -> None:
    source, met = random.Random(1), 0
    for _ in range(600):
        runs, covered = [], []
        for _ in range(2):
            level, count = source.randrange(2), source.randrange(1, 5)
            size = FORMAT.levels[level].size
            step = size * source.choice((1, 1, 2, 3, 513))
            first = size * source.randrange(1024 >> 9 * level)
            runs.append(Run("map", FORMAT, first, level, count, step, True))
            pages = [range(first + n * step, first + n * step + size, 0x1000) for n in range(count)]
            covered.append({address for page in pages for address in page})
        meet = not covered[0].isdisjoint(covered[1])
        assert runs[0].meets(runs[1]) == runs[1].meets(runs[0]) == meet, runs
        met += meet
    assert 100 < met < 500
