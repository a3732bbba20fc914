"""The comparison with a manual's table is tested: one wrong line of a table is found."""

from __future__ import annotations

import pytest

from harness.paging.entry import Leaf, Pointer
from harness.paging.x86.formats import long_mode
from tests.paging.tables import IGNORED, KIND, RESERVED, RIGHT, Entry, complaints, is_absent

LARGE_PAGE = Entry(
    *(long_mode(4, 40, True, True), 1, 0x81, Leaf, 1 << 21),
    {
        **{(63, 63): RIGHT, (51, 40): RESERVED, (39, 21): 0, (20, 13): RESERVED},
        **{(7, 7): KIND, (2, 1): RIGHT, (0, 0): KIND},
    },
)


def test_a_table_that_is_right_has_no_complaints() -> None:
    assert not complaints(LARGE_PAGE)
    assert is_absent(LARGE_PAGE.format, 1, 0x80)


@pytest.mark.parametrize("line", LARGE_PAGE.ranges)
@pytest.mark.parametrize("wrong", [KIND, RESERVED, RIGHT, IGNORED, 0, 1])
def test_a_line_that_is_wrong_is_found(line: tuple[int, int], wrong: str | int) -> None:
    if wrong != LARGE_PAGE.ranges[line]:
        table = LARGE_PAGE._replace(ranges={**LARGE_PAGE.ranges, line: wrong})
        assert len(complaints(table)) == line[0] - line[1] + 1


def test_another_kind_or_size_is_found() -> None:
    assert complaints(LARGE_PAGE._replace(kind=Pointer))
    assert complaints(LARGE_PAGE._replace(size=4096))
