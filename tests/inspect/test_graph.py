"""Tables that are read once a level, and the rows that they come to on every way."""

from __future__ import annotations

import numpy as np
import pytest

from harness.inspect import graph
from harness.inspect.graph import RowKind
from harness.paging.address import Span
from harness.paging.x86.cpu import Cpu
from tests.inspect.spaces import memory_of

CPU = Cpu.long_mode(4, 0)


def read(words: list[int], **options: int) -> graph.Graph:
    return graph.read(memory_of(words), CPU.format, CPU.roots, **options)


def shared_table() -> graph.Graph:
    """Two level-1 slots in a row that lead to one table with one page."""
    words = [0] * 512 * 4
    words[0], words[512], words[1024:1026], words[1536] = 0x1007, 0x2007, [0x3007] * 2, 0x5007
    return read(words)


def test_what_is_joined_has_a_group_of_its_own() -> None:
    words = [np.array(column, np.uint64) for column in ([7, 8, 7, 9], [1, 2, 3, 4], [5, 6, 1, 2])]
    found = graph.met(words[0], words[1], words[2], np.array([0, 4, 0, 0]), 5)
    assert found.first.tolist() == [0, 1, 3]
    assert (found.paths.tolist(), found.highest.tolist()) == ([4, 2, 4], [5, 6, 2])
    assert (found.group.tolist(), found.groups) == ([5, 4, 0], 6)


@pytest.mark.parametrize(
    ("last", "paths"), [((2 << 21) - 1, [2]), ((2 << 21) - 2, [1, 1]), (2 << 21, [2])]
)
def test_a_table_is_joined_with_itself_where_all_of_both_is_asked_for(
    last: int, paths: list[int]
) -> None:
    rows = list(graph.rows(shared_table(), Span(0, last)))
    assert [count for row in rows for count in row.paths.tolist()] == paths


@pytest.mark.parametrize(("first", "last"), [(0x1000, 0x1FFF), (0x1FFF, 0x1FFF), (0x1000, 0x1000)])
def test_a_page_that_ends_where_a_span_begins_has_no_part_in_it(first: int, last: int) -> None:
    words = [0] * 512 * 4
    words[0], words[512], words[1024] = 0x1007, 0x2007, 0x3007
    words[1536:1539] = [0x5007, 0x6007, 0x7007]
    pages = [
        row.take(row.kind == RowKind.PAGE) for row in graph.rows(read(words), Span(first, last))
    ]
    assert [page for row in pages for page in row.virtual.tolist()] == [0x1000]


def test_of_a_table_that_is_not_whole_in_a_span_no_page_is_counted_on() -> None:
    """The only page of the first table is before the span; one page there is asked for, and is."""
    words = [0] * 512 * 5
    words[0], words[512], words[1024:1026] = 0x1007, 0x2007, [0x3007, 0x4007]
    words[1536] = words[2048] = 0x5007
    asked = graph.rows(read(words), Span(0x1000, (2 << 21) - 1), each=1)
    pages = [row.take(row.kind == RowKind.PAGE) for row in asked]
    assert [page for row in pages for page in row.virtual.tolist()] == [1 << 21]


def test_a_self_map_that_another_shows_is_not_given_again() -> None:
    words = [0] * 512
    words[300], words[301] = 3, 3
    rows = [row for row in graph.rows(read(words)) if (row.kind == RowKind.SELF_MAP).any()]
    loops = [row.take(row.kind == RowKind.SELF_MAP) for row in rows]
    assert not any(row.window.any() for row in loops)
    assert [(row.level, len(row.virtual)) for row in loops] == [(3, 2)]
    pages = list(graph.rows(read(words), each=10))
    assert {kind for row in pages for kind in row.kind.tolist()} == {RowKind.PAGE}


def test_no_rows_are_none_in_every_column() -> None:
    none = graph.no_rows()
    assert {len(getattr(none, name)) for name in none.__dataclass_fields__ if name != "level"} == {
        0
    }


def test_tables_that_are_left_out_have_no_view() -> None:
    words = [0] * 512 * 3
    words[0], words[1] = 0x1007, 0x2007
    words[512] = words[1024] = 0x5087
    few = graph.Graph(CPU.format, read(words).floors, 1)
    rows = [row for row in graph.rows(few) if (row.kind == RowKind.UNREAD).any()]
    assert [row.view.tolist() for row in rows] == [[-1]]
    assert [row.left_out for row in rows] == [1]


def test_tables_above_the_lowest_level_have_a_share_of_what_is_read() -> None:
    """Of two level-0 tables and one of each level above, 1,024 entries are read at most below."""
    words = [0] * 512 * 5
    words[0], words[512], words[1024:1026] = 0x1007, 0x2007, [0x3007, 0x4007]
    words[1536] = words[2048] = 0x9007
    share = 512 * graph.LEADING
    assert (read(words, limit=2 * share).unread, read(words, limit=2 * share - 1).unread) == (0, 1)
    assert read(words, limit=share).tables == 2


def test_what_was_not_read_stays_so_in_a_graph_without_some_tables() -> None:
    """Of ten level-0 tables eight are read."""
    words = [0] * 512 * 13
    words[0], words[512] = 0x1007, 0x2007
    words[1024:1034] = [0x3007 + 0x1000 * n for n in range(10)]
    words[1536::512] = [0x9007] * 10
    whole = read(words, limit=2 * 512 * graph.LEADING)
    assert (whole.unread, whole.total) == (2, 10)
    for number in range(8):
        less = graph.without(whole, np.array([0x3000 + 0x1000 * number], np.uint64))
        assert (less.unread, less.total) == (2, 10)
        assert less.floors[2].child[:10].tolist() == [
            -1 if one == number else one if one < 8 else -2 for one in range(10)
        ]
