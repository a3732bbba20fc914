"""A space as it is read in two ways, and walked one address after the other: each thing that is
otherwise is told, by the row that it is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check import debugger
from harness.check.compare import EXAMPLES, Comparison
from harness.check.debugger import MONITOR_MEMORY, compare_walkers, oracles_of, report, spread
from harness.check.riscv import foreign as of_riscv
from harness.check.x86 import foreign as of_x86
from harness.paging import bulk
from harness.paging.bulk import End, Leaves
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from tests.paging.machines import memory_of

PAGE, LARGE = 0x1000, 2 << 20
P, W, U, A, G = 1, 2, 4, 1 << 5, 1 << 8
AT = 5 * PAGE
"""Where the first of two pages is, which is alone in what is around it; the second follows it."""
BIG = 3 * LARGE

RESERVED = 1 << 50


def tables(**changed: int) -> BufferMemory:
    """Tables at 0 to 0x3000, from the root down: two pages of 4K, one of 2M, one entry that is
    malformed, and one that leads to a table without memory; `changed` are words by their names."""
    words = dict[int, int]()
    words[0] = 0x1000 | P | W | U
    words[0x1000] = 0x2000 | P | W | U
    words[0x2000] = 0x3000 | P | W | U
    places = {
        "first": (0x3000 + 8 * 5, 0x70_0000 | P | W),
        "second": (0x3000 + 8 * 6, 0x70_1000 | P | U),
        "beside": (0x3000 + 8 * 8, 0),
        "big": (0x2000 + 8 * 3, 4 * LARGE | P | U | 1 << 7),
        "malformed": (0x3000 + 8 * 20, 0x70_2000 | P | RESERVED),
        "unbacked": (0x2000 + 8 * 5, 0x100_0000 | P | W | U),
    }
    for name, (place, word) in places.items():
        words[place] = changed.get(name, word)
    return memory_of([words.get(8 * number, 0) for number in range(4 * 512)])


CPU = Cpu.long_mode(4, 0)
ROWS = 5


def compared(seen: BufferMemory, only: int | None = None) -> Comparison:
    return compare_walkers(CPU, tables(), seen, only)


def told(found: Comparison) -> list[tuple[int, str, str]]:
    assert all(one.oracle == MONITOR_MEMORY for one in found.disagreements)
    assert all(one.access is None for one in found.disagreements)
    return [(one.address, one.expected, one.observed) for one in found.disagreements]


def test_the_same_tables_agree() -> None:
    found = compared(tables())
    assert (found.oracle, found.compared, found.disagreed) == (MONITOR_MEMORY, ROWS, 0)


FIRST = f"leaf {0x70_0000 | P | W:#x} at level 0"


@pytest.mark.parametrize("bit", [W, U, A, G, 1 << 9, 1 << 13])
def test_a_word_that_is_read_otherwise_is_told_by_its_row_and_by_its_walks(bit: int) -> None:
    other = 0x70_0000 | P | W
    found = compared(tables(first=other ^ bit))
    seen = f"leaf {other ^ bit:#x} at level 0"
    assert told(found) == [
        (AT, FIRST, seen),
        (AT, FIRST, seen),  # the walk of its first address, and of its last
        (AT + PAGE - 1, FIRST, seen),
    ]
    assert (found.compared, found.disagreed) == (ROWS, 3)


def test_how_a_row_ends_is_told() -> None:
    found = compared(tables(first=0x70_0000 | P | W | RESERVED))
    seen = f"malformed {0x70_0000 | P | W | RESERVED:#x} at level 0"
    assert told(found)[0] == (AT, FIRST, seen)
    assert found.disagreed == 3


def test_a_row_that_is_missing_is_told_by_the_number_of_rows() -> None:
    """And by those that are in its place."""
    found = compared(tables(second=0))
    assert (0, "5 rows in all", "4 rows in all") in told(found)
    absent = AT + PAGE, f"leaf {0x70_1000 | P | U:#x} at level 0", "absent 0x0 at level 0"
    assert absent in told(found)
    more = compared(tables(beside=0x70_3000 | P))
    assert (0, "5 rows in all", "6 rows in all") in told(more)


@pytest.mark.parametrize(
    ("gone", "beside", "raw"),
    [
        (AT + PAGE, AT + PAGE, 0x70_1000 | P | U),  # behind the row that is left
        (AT, AT + PAGE - 1, 0x70_0000 | P | W),  # in front of it
    ],
)
def test_what_is_beside_a_row_and_is_none_is_told(
    gone: int, beside: int, raw: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tables()
    leaves = bulk.leaves(here, CPU.roots)
    left = leaves.take(leaves.virtual != np.uint64(gone))

    def found(total: int, only: int | None = None) -> Comparison:
        monkeypatch.setattr(debugger, "_rows", lambda *_: replace(left, total=total))
        return compare_walkers(CPU, here, here, only)

    whole = found(ROWS - 1)
    assert told(whole) == [(beside, "no such row", f"leaf {raw:#x} at level 0")]
    # Of one address that is asked about, nothing is beside it; nor of rows that are not all.
    assert not found(ROWS - 1, only=AT).disagreed and not found(ROWS).disagreed


COLUMNS: dict[str, Callable[[Leaves, int], Any]] = {
    "end": lambda rows, lane: rows.end[lane] ^ (End.LEAF ^ End.ABSENT),
    "level": lambda rows, lane: 1 - rows.level[lane],
    "raw": lambda rows, lane: rows.raw[lane] ^ np.uint64(1 << 9),
    "physical": lambda rows, lane: rows.physical[lane] ^ np.uint64(PAGE),
    "granted": lambda rows, lane: rows.granted[lane] ^ np.uint64(W),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("at", [AT, BIG])
def test_what_all_rows_say_alike_and_walks_do_not_is_told(
    name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that lists otherwise than it walks."""
    here = tables()
    rows = bulk.leaves(here, CPU.roots)
    [lane] = np.flatnonzero(rows.virtual == np.uint64(at))
    column = getattr(rows, name).copy()
    column[lane] = COLUMNS[name](rows, int(lane))
    monkeypatch.setattr(debugger, "_rows", lambda *_: replace(rows, **{name: column}))
    found = compare_walkers(CPU, here, here)
    size = PAGE if at == AT else LARGE
    if name != "level":  # by which a row is as large as it is
        assert [one[0] for one in told(found)] == [at, at + size - 1]
    assert at in {one[0] for one in told(found)}


def test_of_a_row_without_memory_the_first_address_alone_is_walked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked = list[int]()
    walk = debugger._walk

    def noted(cpu: Any, memory: Any, address: int) -> Any:
        walked.append(address)
        return walk(cpu, memory, address)

    monkeypatch.setattr(debugger, "_walk", noted)
    assert not compared(tables()).disagreed
    unbacked = 5 * LARGE
    assert unbacked in walked and unbacked + PAGE - 1 not in walked
    rows = [(AT, PAGE), (AT + PAGE, PAGE), (20 * PAGE, PAGE), (BIG, LARGE)]
    rows.append((unbacked, PAGE))  # by the level at which its table would be
    inside = [one for first, size in rows for one in (first, first + size - 1)]
    beside = [one for first, size in rows for one in (first - 1, first + size)]
    assert sorted(walked) == sorted(
        [*(one for one in inside if one != unbacked + PAGE - 1), *beside]
    )


@pytest.mark.parametrize(("only", "row"), [(AT, True), (AT + PAGE, True), (AT + 8, False)])
def test_one_address_is_compared_alone(only: int, row: bool) -> None:
    found = compared(tables(second=0x70_1000 | P | W), only)
    wrong = only == AT + PAGE
    assert (found.compared, found.disagreed > 0) == (int(row), wrong)
    assert {one.address // PAGE for one in found.disagreements} == (
        {only // PAGE} if wrong else set()
    )


def test_as_many_as_are_shown_are_described_and_all_counted() -> None:
    comparison = Comparison("some")
    asked = list[int]()

    def describe(lane: int) -> tuple[int, str, str]:
        asked.append(lane)
        return 0x1000 * lane, f"expected {lane}", f"observed {lane}"

    report(comparison, np.arange(20) % 2 == 1, describe)
    assert asked == [1, 3, 5, 7, 9][:EXAMPLES]
    assert comparison.disagreed == 10
    [first, *_] = comparison.disagreements
    shown = first.oracle, first.address, first.access, first.expected, first.observed
    assert shown == ("some", 0x1000, None, "expected 1", "observed 1")
    report(comparison, np.zeros(20, np.bool_), describe)
    assert (comparison.disagreed, len(asked)) == (10, EXAMPLES)


def rows_of(level: list[int], granted: list[int]) -> Any:
    return SimpleNamespace(
        virtual=np.arange(len(level), dtype=np.uint64),
        level=np.array(level, np.uint8),
        granted=np.array(granted, np.uint64),
    )


def test_a_sample_has_rows_of_every_kind_from_the_first_to_the_last() -> None:
    """Kinds are told by level and rights alike."""
    rows = rows_of([0] * 90 + [1] * 3 + [0] * 7, [7] * 93 + [3] * 7)
    assert spread(rows, None).tolist() == list(range(100))
    assert spread(rows, 100).tolist() == list(range(100))
    assert spread(rows, 99).tolist() != list(range(100))
    chosen = spread(rows, 12).tolist()
    assert len(chosen) == 12 and len(set(chosen)) == 12 and chosen == sorted(chosen)
    kinds = [range(90), range(90, 93), range(93, 100)]
    counts = [sum(one in kind for one in chosen) for kind in kinds]
    assert counts[1] == 3 and counts[2] >= 4 and counts[0] >= 4
    for kind in kinds:
        assert {kind[0], kind[-1]} <= set(chosen)
    few = spread(rows, 2).tolist()
    assert [sum(one in kind for one in few) for kind in kinds] == [1, 1, 1]


def test_an_architecture_has_its_own_oracles_or_none() -> None:
    assert oracles_of("x86") is of_x86
    assert oracles_of("riscv") is of_riscv
    assert oracles_of("s390") is None
