"""What is told apart of accesses in a space that changes: what a machine may keep of them, what
they leave in entries one after the other, and what a flush names.  Walks are made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.live import (
    Asked,
    Flushed,
    _change,
    _Kept,
    _lanes_of,
    _meet,
    _pages,
    _without_frames,
    from_root,
    in_turn,
    kept_code,
    watch,
)
from harness.paging.address import Span
from harness.paging.bulk import End, Paths, Walks
from harness.paging.format import Flushing, Format
from harness.paging.memory import Mask, Words
from harness.paging.riscv.formats import sv
from harness.paging.x86.formats import long_mode

SV39, LONG_MODE = sv(39), long_mode(4, 40, True, True)
PAGE, LARGE, LARGEST = 12, 21, 30
"""Offset bits of the pages of levels 0, 1 and 2."""
FREE = 0x7000_0000
"""Where nothing is."""


def words(*values: int) -> Words:
    return np.array(values, np.uint64)


def lanes(*values: int) -> Mask:
    return np.array(values, np.bool_)


def asked(format: Format, address: list[int], **given: Any) -> Asked:
    """Reads that are allowed and end at level 0, unless more is given; the entries of levels 0, 1
    and 2 of lane n are at 0x1000, 0x2000 and 0x3000 plus 8n, 0xA0, 0xB0 and 0xC0."""
    count = len(address)
    each = np.arange(count, dtype=np.uint64)
    slot = words(0x1000, 0x2000, 0x3000)[:, None] + each * np.uint64(8)
    raw = np.broadcast_to(words(0xA0, 0xB0, 0xC0)[:, None], (3, count)).copy()
    level = np.array(given.pop("level", [0] * count), np.uint8)
    end = np.array(given.pop("end", [End.LEAF] * count), np.uint8)
    used = np.arange(3)[:, None] >= level[None, :]
    zero = np.zeros(count, np.uint64)
    values: dict[str, Any] = {
        "cpu": SimpleNamespace(roots=[SimpleNamespace(table=SimpleNamespace(format=format))]),
        "address": words(*address),
        "key": each,
        "reads": np.ones(count, np.bool_),
        "writes": np.zeros(count, np.bool_),
        "fetches": np.zeros(count, np.bool_),
        "allowed": np.ones(count, np.bool_),
        "lasting": np.zeros(count, np.bool_),
        "walks": Walks(words(*address), end, level, zero, zero, zero, zero),
        "paths": Paths(slot, raw, used),
        "sets": np.zeros((3, count), np.uint64),
        "aimed": zero,
        "value": zero,
    }
    return Asked(**{**values, **given})


def test_a_flush_names_all_addresses_of_a_page() -> None:
    flush = Flushed(words(0x40_3FFF, 0x8000_0000), global_pages=True)
    for shift, named in (
        (PAGE, [False, True, True, False, False, False, True]),
        (LARGE, [False, True, True, True, True, False, True]),
        (LARGEST, [True, True, True, True, True, True, True]),
    ):
        at = words(0x3F_FFFF, 0x40_3000, 0x40_3FFF, 0x40_4000, 0x5F_FFFF, 0x60_0000, 0x8000_0001)
        assert flush.names(at, np.full(7, shift, np.uint64)).tolist() == named
    both = flush.names(words(0x40_4000, 0x40_4000), words(PAGE, LARGE))
    assert both.tolist() == [False, True], "each by the size of its own page"
    assert Flushed(None, global_pages=False).names(words(0, 1 << 63), words(PAGE, LARGE)).all()
    assert not Flushed(words(), global_pages=True).names(words(0), words(PAGE)).any()


def test_a_flush_is_of_everything_where_all_addresses_are_and_lasting_pages_too() -> None:
    for addresses in None, words(), words(0x1000):
        for lasting in False, True:
            flush = Flushed(addresses, lasting)
            assert flush.everything == (addresses is None and lasting)


ENDS = [End.LEAF, End.LEAF, End.ABSENT, End.MALFORMED, End.UNBACKED, End.NO_ROOT]
"""Of accesses the first of which is allowed, and no other."""


@pytest.mark.parametrize(
    ("flushing", "kept"),
    [
        (Flushing(), [0]),
        (Flushing(denials=True), [0, 1]),
        (Flushing(absent=True), [0, 2]),
        (Flushing(faults=True), [0, 3]),
        (Flushing(denials=True, absent=True, faults=True), [0, 1, 2, 3]),
    ],
)
def test_what_a_machine_may_keep_is_what_the_format_says(
    flushing: Flushing, kept: list[int]
) -> None:
    allowed = lanes(1, 0, 0, 0, 0, 0)
    format = replace(SV39, flushing=flushing)
    made = asked(format, [0] * 6, end=ENDS, allowed=allowed)
    assert np.flatnonzero(made.kept).tolist() == kept
    assert made.allowed.tolist() == allowed.tolist(), "which is not what is kept"


def test_a_bit_is_set_anew_where_an_access_is_made_and_finds_it_clear() -> None:
    sets = np.zeros((3, 5), np.uint64)
    sets[0] = 1 << 6, 1 << 5, 1 << 6, 0, 1 << 6
    sets[2, 3] = 1
    made = asked(
        SV39, [0] * 5, sets=sets, allowed=lanes(1, 1, 0, 1, 1), level=[0, 0, 0, 0, 1]
    )  # 0xA0 has bits 5 and 7
    assert made.sets_anew.tolist() == [True, False, False, True, False]
    assert made.after[0].tolist() == [0xE0, 0xA0, 0xA0, 0xA0, 0xE0]
    assert made.after[2].tolist() == [0xC0, 0xC0, 0xC0, 0xC1, 0xC0]


def test_the_size_of_a_page_is_that_of_the_level_where_its_walk_ended() -> None:
    made = asked(SV39, [0] * 3, level=[2, 0, 1])
    assert made.shift.tolist() == [LARGEST, PAGE, LARGE]
    assert len(made) == 3 and made.format is SV39


def test_accesses_in_another_order_are_the_same_accesses() -> None:
    sets = np.arange(9, dtype=np.uint64).reshape(3, 3)
    made = asked(SV39, [0x1000, 0x2000, 0x3000], sets=sets, level=[0, 1, 2], number=7, first=5)
    order, value = np.array([2, 0, 1]), words(10, 11, 12)
    other = made.reordered(order, value)
    assert other.address.tolist() == [0x3000, 0x1000, 0x2000]
    assert other.sets.tolist() == [[2, 0, 1], [5, 3, 4], [8, 6, 7]]
    assert other.walks.level.tolist() == [2, 0, 1]
    assert other.paths.used[0].tolist() == [False, True, False]
    assert other.paths.slot[1].tolist() == [0x2010, 0x2000, 0x2008]
    assert other.value.tolist() == [10, 11, 12]
    assert (other.number, other.first, other.cpu) == (7, 5, made.cpu)


def test_a_job_watches_the_path_from_the_root_down_and_then_the_word() -> None:
    made = asked(
        *(SV39, [0] * 3),
        level=[0, 2, 1],
        allowed=lanes(1, 1, 0),
        aimed=words(0x5008, 0x600F, 0x7000),
    )
    jobs = np.zeros(3, [("where", "u8", 5), ("watched", "u1")])
    watch(jobs, made, FREE)
    assert jobs["where"].tolist() == [
        [0x3000, 0x2000, 0x1000, 0x5008, 0],
        [0x3008, FREE, FREE, 0x6008, 0],
        [0x3010, 0x2010, FREE, FREE, 0],
    ]
    assert jobs["watched"].tolist() == [4, 4, 4]


def test_entries_are_shown_before_and_after_from_the_root_down() -> None:
    made = asked(SV39, [0] * 3, level=[0, 1, 2])
    after = np.array([(1, 2, 3, 4)], [("a", "u8"), ("b", "u8"), ("c", "u8"), ("d", "u8")])
    result: Any = {"after": list(after[0])}
    shown = [from_root(made, lane, result) for lane in range(3)]
    assert shown == [
        "0xc0 -> 0x1, 0xb0 -> 0x2, 0xa0 -> 0x3",
        "0xc0 -> 0x1, 0xb0 -> 0x2",
        "0xc0 -> 0x1",
    ]


def test_an_access_finds_what_those_before_it_left() -> None:
    """Lanes 0 to 3 are by one page, the last by another below the same root's entry: lane 1 sets
    A and lane 2 D, as bits 6 and 7 of RISC-V's leaves."""
    made = asked(SV39, [0x1000] * 4 + [0x20_0000])
    slot, raw = made.paths.slot.copy(), np.full((3, 5), 1, np.uint64)
    slot[:, :4] = slot[:, :1]
    slot[2] = slot[2, 0]
    used = made.paths.used.copy()
    used[0, 3] = False
    made = replace(made, paths=Paths(slot, raw, used))
    after = raw.copy()
    after[0, 1] |= 1 << 6
    after[0, 2] |= 1 << 7
    after[0, 3] |= 1 << 7
    after[2, 0] |= 1 << 6
    found = in_turn(made, after)
    assert found[0].tolist() == [1, 0x41, 0xC1, 0x81, 1], "lane 3 has no entry there"
    assert found[1].tolist() == [1] * 5
    assert found[2].tolist() == [0x41] * 5
    assert after[0].tolist() == [1, 0x41, 0x81, 0x81, 1], "which is left as it was"


def fetches(address: list[int], aimed: list[int], **given: Any) -> Asked:
    return asked(
        LONG_MODE, address, aimed=words(*aimed), fetches=np.ones(len(address), np.bool_), **given
    )


def named(physical: Words) -> Words:
    """What the code at a physical address is found as."""
    return physical + np.uint64(1)


def flush(*addresses: int) -> Flushed:
    return Flushed(words(*addresses), global_pages=True)


BEFORE = fetches([0x40_1000, 0x40_2000], [0x9000, 0xA000], level=[1, 1])
NOW = fetches([0x40_1000, 0x40_2000], [0xB000, 0xC000], level=[1, 1])
OLD = words(0x9001, 0xA001)
"""Of what is found, what the code was before; the page has 2M."""
BOTH = lanes(1, 1)


@pytest.mark.parametrize(
    ("since", "kept"),
    [
        ([flush(0x40_3000)], [True, True]),
        ([flush(0x40_1000)], [False, True]),
        ([flush(0x40_3000, 0x40_2000)], [True, False]),
        ([flush(0x60_0000)], [False, False]),
        ([flush(0x60_0000), flush(0x5F_F000)], [True, True]),
        ([], [False, False]),
        ([flush(0x40_3000), Flushed(None, global_pages=False)], [False, False]),
    ],
)
def test_code_in_a_large_page_is_kept_if_another_part_of_it_was_flushed(
    since: list[Flushed], kept: list[bool]
) -> None:
    assert kept_code(NOW, OLD, BOTH, [BEFORE, *since], named).tolist() == kept


def test_code_is_kept_for_what_finds_it_alone() -> None:
    since = flush(0x40_3000)
    for earlier, data, suspects, wanted in (
        (BEFORE, OLD, lanes(0, 1), [False, True]),
        (BEFORE, words(0x9001, 0xC001), BOTH, [True, False]),
        (replace(BEFORE, fetches=lanes(1, 0)), OLD, BOTH, [True, False]),
        (replace(BEFORE, allowed=lanes(0, 1)), OLD, BOTH, [False, True]),
        (replace(BEFORE, address=words(0x40_1000, 0x40_2004)), OLD, BOTH, [True, False]),
        (fetches([0x40_1000, 0x40_2000], [0x9000, 0xA000], level=[1, 0]), OLD, BOTH, [True, False]),
    ):
        assert kept_code(NOW, data, suspects, [earlier, since], named).tolist() == wanted
    data_alone = replace(NOW, fetches=lanes(1, 0))
    assert kept_code(data_alone, OLD, BOTH, [BEFORE, since], named).tolist() == [True, False]


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        ({"end": [End.ABSENT, End.LEAF], "allowed": lanes(0, 1)}, {}, "was unmapped"),
        ({"allowed": lanes(0, 1)}, {}, "lost rights"),
        ({"end": [End.MALFORMED, End.LEAF], "allowed": lanes(0, 1)}, {}, "lost rights"),
        ({}, {"allowed": lanes(0, 1)}, "was mapped or got rights"),
        ({}, {"aimed": words(0x5000, 0)}, "was led elsewhere"),
        ({}, {"aimed": words(0, 0x5000)}, "was changed"),
        ({}, {"allowed": lanes(1, 0)}, "was changed"),
        ({}, {}, "was changed"),
    ],
)
def test_what_became_of_a_page_is_put_into_words(
    now: dict[str, Any], before: dict[str, Any], said: str
) -> None:
    """By what was made of the same access before, not of others."""
    at = [0x1000, 0x2000]
    assert _change(asked(SV39, at, **now), asked(SV39, at, **before), 0) == said


def test_the_pages_that_are_tried_are_some_of_a_span_and_both_beside_it() -> None:
    page, top = 0x1000, (1 << 64) - 0x1000
    assert _pages(Span.of(0x5000, page), page, 64).tolist() == [0x4000, 0x5000, 0x6000]
    assert _pages(Span(0x5FFF, 0x6000), page, 64).tolist() == [0x4000, 0x5000, 0x6000, 0x7000]
    assert _pages(Span.of(0, page), page, 1).tolist() == [top, 0, page]
    assert _pages(Span.of(top, page), page, 1).tolist() == [top - page, top, 0]
    few = _pages(Span.of(0x10_0000, 101 * page), page, 3).tolist()
    assert few == [0x10_0000 + page * number for number in (-1, 0, 50, 100, 101)]


def test_a_page_meets_a_span_by_any_of_its_bytes() -> None:
    spans = (Span(0x1FFF, 0x2000), Span.of(0x9000, 1))
    pages = words(*range(0, 0xB000, 0x1000))
    assert pages[_meet(pages, 0x1000, spans)].tolist() == [0x1000, 0x2000, 0x9000]


def test_an_access_reaches_no_frame_outside_ram_or_below_the_first() -> None:
    first, ram = 0x8000, Span(0x1000, 0xFFFF)
    at = [0x7FF8, 0x8000, 0xFFF8, 0x1_0000, 0, 0x8000]
    end = [End.LEAF] * 5 + [End.UNBACKED]
    made = asked(SV39, at, end=end, allowed=lanes(1, 1, 1, 1, 0, 0))
    made = replace(made, walks=replace(made.walks, physical=words(*at)))
    assert _without_frames(made, first, ram).tolist() == [True, False, False, True, False, True]


def test_the_lanes_that_something_kept_may_serve_are_all_of_theirs() -> None:
    kept = [_Kept(0, np.array([5, 6]), np.array([1, 3])), _Kept(2, np.array([0]), np.array([3]))]
    assert _lanes_of(kept, 5).tolist() == [False, True, False, True, False]
    assert not _lanes_of([], 3).any()
