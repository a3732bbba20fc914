"""Ranges tell what walks find: every page at every address, with the rights that it has there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise

import pytest

from harness.inspect import graph as graphs
from harness.inspect.graph import RowKind
from harness.inspect.ranges import Dump, Range, dump
from harness.paging.address import Span
from harness.paging.bits import address_mask
from harness.paging.entry import Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from tests.inspect.spaces import A, D, Found, everything, layered, loops, memory_of, physical

KINDS = {Leaf: RowKind.PAGE, Malformed: RowKind.MALFORMED, type(None): RowKind.UNBACKED}
SPACES = [
    pytest.param(levels, seed, share, id=f"{levels}-level-{seed}-loops-{share}")
    for levels, seeds in ((4, 4), (5, 2))
    for seed in range(seeds)
    for share in (0.0, 0.1, 0.4)
    if levels == 4 or share < 0.4
]


def cpu(levels: int) -> Cpu:
    return Cpu.long_mode(levels, 0)


def dumped(memory: BufferMemory, levels: int, **options: object) -> Dump:
    state = cpu(levels)
    return dump(memory, state.format, state.roots, **options)  # type: ignore[arg-type]


class Expected:
    """What a dump must tell, by following every path."""

    def __init__(self, memory: BufferMemory, levels: int) -> None:
        self.format = cpu(levels).format
        every = list(everything(memory, cpu(levels).roots))
        loop = loops(every)
        self.ends = [one for one in every if not isinstance(one.entry, Pointer)]
        self.folds = [one for one in every if one.slot in loop and not loop & set(one.slots[:-1])]
        # By slot and rights above it, the addresses of what is on no way through a self-map.
        self.shown: dict[tuple[object, int], list[Found]] = defaultdict(list)
        for one in self.ends:
            if not loop & set(one.slots):
                self.shown[one.slot, one.above].append(one)
        self.under: dict[tuple[object, int], list[Found]] = defaultdict(list)
        for one in self.folds:
            self.under[one.slot, one.above].append(one)

    def below(self, one: Found) -> int:
        return sum(end.slots[: len(one.slots)] == one.slots for end in self.ends)


@cache
def made(seed: int, levels: int, share: float = 0.0) -> tuple[BufferMemory, Expected]:
    memory = layered(seed, levels, share)
    return memory, Expected(memory, levels)


def entries(found: Iterable[Range]) -> Iterator[tuple[int, Range, int]]:
    """Each entry of each range: its address, the range, and its place there."""
    for one in found:
        for time in range(one.times):
            for place in range(one.pages):
                yield one.first + time * one.stride + place * one.size, one, place


def rest(format: Format, level: int, raw: int) -> int:
    return raw & ~address_mask(format, level)


@pytest.mark.parametrize(("levels", "seed", "share"), SPACES)
def test_exact_ranges_hold_every_entry_with_its_rights_and_its_number_of_addresses(
    levels: int, seed: int, share: float
) -> None:
    memory, expected = made(seed, levels, share)
    result = dumped(memory, levels, exact=True)
    got = {}
    for address, one, place in entries(result.ranges):
        if one.kind in (RowKind.SELF_MAP, RowKind.UNBACKED):
            continue
        frame = one.physical + (0 if one.kind == RowKind.MALFORMED else place * one.size)
        bits = one.bits if one.kind == RowKind.PAGE else one.raw
        assert address not in got
        got[address] = (one.kind, one.level, frame, bits, one.granted, one.paths)
    want = {}
    for addresses in expected.shown.values():
        end, paths = addresses[0], len(addresses)
        if end.raw is not None:
            whole = isinstance(end.entry, Malformed)
            bits = end.raw if whole else rest(expected.format, end.slot.level, end.raw)
            kind, level, frame = KINDS[type(end.entry)], end.slot.level, physical(end)
            want[end.address] = (kind, level, frame, bits, end.granted, paths)
    assert got == want
    assert (result.total, result.cut) == (len(expected.ends), ())


@pytest.mark.parametrize(("levels", "seed", "share"), SPACES)
def test_merged_ranges_count_what_they_merge(levels: int, seed: int, share: float) -> None:
    memory, expected = made(seed, levels, share)
    lowest = {found[0].address: found for found in expected.shown.values()}
    for one in dumped(memory, levels).ranges:
        if one.kind != RowKind.PAGE:
            continue
        for time in range(one.times):
            offset = time * one.stride
            found = [lowest.pop(one.first + offset + n * one.size) for n in range(one.pages)]
            assert {len(each) for each in found} == {one.paths}
            assert {each[0].granted for each in found} == {one.granted}
            assert {rest(expected.format, one.level, each[0].raw or 0) & ~(A | D)
                    for each in found} == {one.bits}  # fmt: skip
            frames = [physical(each[0]) for each in found]
            assert frames[0] == one.physical
            jumps = [b - a != one.size for a, b in pairwise(frames)]
            assert one.pieces == 1 + sum(jumps)
            assert one.repeated == (len(set(frames)) == 1)
            if time == one.times - 1:
                assert one.highest == found[0][-1].address
            if one.times == 1:
                raws = [each[0].raw or 0 for each in found]
                assert one.accessed == sum(raw & A != 0 for raw in raws)
                assert one.dirty == sum(raw & D != 0 for raw in raws)
    assert all(not isinstance(found[0].entry, Leaf) for found in lowest.values())


@pytest.mark.parametrize(("levels", "seed", "share"), SPACES)
def test_self_maps_are_folded_and_counted(levels: int, seed: int, share: float) -> None:
    memory, expected = made(seed, levels, share)
    got = {}
    for one in dumped(memory, levels, exact=True).ranges:
        if one.kind == RowKind.SELF_MAP:
            assert one.pages == 1
            got[one.first] = (one.level, one.physical, one.granted, one.paths, one.below)
    want = {}
    for slots in expected.under.values():
        found = slots[0]
        assert isinstance(found.entry, Pointer)
        target, level = found.entry.table.address, found.slot.level
        want[found.address] = (level, target, found.granted, len(slots), expected.below(found))
    assert got == want


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_without_memory_is_one_range_of_all_its_slots(levels: int, seed: int) -> None:
    memory, expected = made(seed, levels)
    want = {
        found[0].address: (found[0].slot.table.address, len(found))
        for found in expected.shown.values()
        if found[0].raw is None
    }
    ranges = list(dumped(memory, levels, exact=True).ranges)
    unbacked = [one for one in ranges if one.kind == RowKind.UNBACKED]
    assert {one.first: (one.physical, one.paths) for one in unbacked} == want
    assert {one.pages for one in unbacked} == {512}


@pytest.mark.parametrize(("levels", "seed", "share"), SPACES[::3])
@pytest.mark.parametrize("limit", [1, 50, 1 << 20])
def test_unfolded_ranges_list_every_page_at_every_address_up_to_the_limit(
    levels: int, seed: int, share: float, limit: int
) -> None:
    memory, expected = made(seed, levels, share)
    result = dumped(memory, levels, exact=True, each=limit)
    got = [
        (address, one.kind, one.granted, one.physical + place * one.size)
        for address, one, place in entries(result.ranges)
        if one.kind == RowKind.PAGE
    ]
    want = [
        (one.address, RowKind.PAGE, one.granted, physical(one))
        for one in expected.ends[:limit]
        if isinstance(one.entry, Leaf)
    ]
    assert got == want[: len(got)]
    assert bool(result.cut) == (len(expected.ends) > limit)
    if not result.cut:
        assert len(got) == len(want)


@pytest.mark.parametrize("seed", range(6))
def test_a_span_shows_what_has_a_part_in_it_and_counts_addresses_there_alone(seed: int) -> None:
    memory, expected = made(seed, 4)
    first, last = expected.ends[len(expected.ends) // 3], expected.ends[len(expected.ends) // 2]
    span = Span(first.address + 100, last.address + 5)
    want: dict[tuple[object, int], list[int]] = defaultdict(list)
    for end in expected.ends:
        if isinstance(end.entry, Leaf) and span.clip(Span.of(end.address, end.slot.size)):
            want[end.slot, end.above].append(end.address)
    got: dict[int, int] = {}
    for address, one, _ in entries(dumped(memory, 4, exact=True, span=span).ranges):
        if one.kind == RowKind.PAGE:
            got[address] = one.paths
    # A table that is partly in the span is shown apart from its other addresses.
    assert sum(got.values()) == sum(map(len, want.values()))
    assert set(got) <= {address for addresses in want.values() for address in addresses}
    assert {min(addresses) for addresses in want.values()} <= set(got)


def test_a_page_at_65536_addresses_is_one_range() -> None:
    words = [0] * 512 * 4
    words[0] = 0x1007
    words[512:516] = [0x2007] * 4
    words[1024:1536] = [0x3007] * 512
    words[1536 + 4 : 2048 : 16] = [0x5067] * 32
    (one,) = dumped(memory_of(words), 4).ranges
    assert (one.first, one.pages, one.aliases) == (0x4000, 1, 65536)
    assert (one.times, one.stride, one.paths) == (32, 0x10000, 2048)
    assert (one.accessed, one.dirty) == (32, 32)
    assert one.highest == 3 << 30 | 511 << 21 | 31 << 16 | 0x4000


def in_a_table(slots: dict[int, int]) -> list[int]:
    """Words of a space with one table of pages: frame numbers by slot."""
    words = [0] * 512 * 4
    words[0], words[512], words[1024] = 0x1007, 0x2007, 0x3007
    for slot, frame in slots.items():
        words[1536 + slot] = frame << 12 | 7
    return words


@pytest.mark.parametrize(
    ("frames", "folded"), [((5, 6), True), ((5, 5), True), ((5, 8), False)], ids=str
)
@pytest.mark.parametrize("times", [2, 3])
def test_runs_that_are_evenly_apart_are_one_range_if_each_is_of_one_piece(
    frames: tuple[int, int], folded: bool, times: int
) -> None:
    """Or of one frame again and again."""
    numbers = range(1, times + 1)
    slots = {16 * n + k: frame for n in numbers for k, frame in enumerate(frames)}
    found = [
        (one.first, one.pages, one.times) for one in dumped(memory_of(in_a_table(slots)), 4).ranges
    ]
    apart = [(0x1_0000 * n, 2, 1) for n in numbers]
    assert found == ([(0x1_0000, 2, times)] if folded else apart)


@pytest.mark.parametrize("exact", [False, True])
def test_malformed_entries_have_no_frames_that_follow_and_are_apart_where_it_is_exact(
    exact: bool,
) -> None:
    words = in_a_table({6: 5, 7: 6, 8: 7})
    words[1536 + 3 : 1536 + 6] = [1 << 51 | 7] * 3
    found = [(one.kind, one.pages) for one in dumped(memory_of(words), 4, exact=exact).ranges]
    malformed = [(RowKind.MALFORMED, 1)] * 3 if exact else [(RowKind.MALFORMED, 3)]
    assert found == [*malformed, (RowKind.PAGE, 3)]


def test_what_is_no_page_was_not_used_whatever_its_bits_say() -> None:
    odd, page = 1 << 51 | A | D | 3, 0x5000 | A | D | 3
    (lost,) = dumped(memory_of([odd, *[0] * 511]), 4).ranges
    assert (lost.kind, lost.accessed, lost.dirty) == (RowKind.MALFORMED, 0, 0)
    words = [0] * 2048
    words[0], words[512], words[1024], words[1536] = 0x1003, 0x2003, 0x3003, page
    (used,) = dumped(memory_of(words), 4).ranges
    assert (used.kind, used.accessed, used.dirty) == (RowKind.PAGE, 1, 1)


def test_a_range_that_goes_through_two_tables_has_the_view_of_neither() -> None:
    words = in_a_table({510: 5, 511: 6}) + [0] * 512
    words[1025] = 0x4007
    words[2048], words[2048 + 9] = 7 << 12 | 7, 20 << 12 | 7
    ranges = dumped(memory_of(words), 4).ranges
    assert [one.pages for one in ranges] == [3, 1]
    through, within = ranges.view.tolist()
    assert through == -1 and within >= 0


def test_the_rights_of_an_entry_are_its_own_whatever_is_above() -> None:
    words = in_a_table({0: 5, 9: 0x80_0000})
    words[0] = 0x1005
    words[1536 + 5] = 6 << 12 | 1 | 1 << 63
    words[1024 + 1] = 0x100_0003
    format, ranges = cpu(4).format, list(dumped(memory_of(words), 4).ranges)
    found = [(format.rights_of(one.own), format.rights_of(one.granted)) for one in ranges]
    assert not any(one.own & ~format.rights_mask for one in ranges), "they are of rights alone"
    every, above = ("write", "user", "execute"), ("user", "execute")
    assert found == [(every, above), ((), ()), (every, above), (("execute",), ("execute",))]


def test_a_dump_of_so_many_pages_is_cut_where_there_are_more() -> None:
    words = in_a_table({n: 2 * n for n in range(5)})
    for each, cut in ((4, True), (5, False), (6, False)):
        result = dumped(memory_of(words), 4, exact=True, each=each)
        assert sum(one.pages for one in result.ranges) == min(each, 5)
        assert bool(result.cut) is cut


def test_a_table_reached_with_different_rights_is_shown_with_each() -> None:
    words = [0] * 512 * 5
    words[0] = 0x1007
    words[512:514] = [0x2007, 0x2005]
    words[514] = 0x2003 | 1 << 63
    words[1024] = 0x3007
    words[1536] = 0x4000 | 7
    rights = [one.granted for one in dumped(memory_of(words), 4).ranges]
    names = [cpu(4).format.rights_of(granted) for granted in rights]
    assert names == [("write", "user", "execute"), ("user", "execute"), ("write",)]


def test_neighbours_below_tables_with_different_rights_are_apart() -> None:
    words = [0] * 512 * 5
    words[0], words[512] = 0x1007, 0x2007
    words[1024:1026] = [0x3007, 0x4005]
    words[1536:2560] = [n << 12 | 7 for n in range(1024)]
    found = [(one.first, one.pages, one.granted & 2) for one in dumped(memory_of(words), 4).ranges]
    assert found == [(0, 512, 2), (1 << 21, 512, 0)]


@pytest.mark.parametrize(("last", "ranges"), [(5, 2), (9, 2), (4, 1)])
def test_neighbours_with_as_many_addresses_are_apart_as_they_may_lie_apart_elsewhere(
    last: int, ranges: int
) -> None:
    words = [0] * 512 * 6
    words[0], words[512] = 0x1007, 0x2007
    words[1024:1026] = [0x3007, 0x4007]
    words[1536:2560] = [n << 12 | 7 for n in range(1024)]
    # Either both tables again, in a row or not, or the table of both.
    if ranges == 2:
        words[1024 + 4], words[1024 + last] = 0x3007, 0x4007
    else:
        words[513] = 0x2007
    found = list(dumped(memory_of(words), 4).ranges)
    assert [(one.pages, one.paths) for one in found] == [(1024 // ranges, 2)] * ranges


@pytest.mark.parametrize("levels", [4, 5])
def test_a_table_of_self_maps_is_one_range_of_all_its_aliases(levels: int) -> None:
    low, high = dumped(memory_of([3] * 512), levels).ranges
    assert {low.kind, high.kind} == {RowKind.SELF_MAP}
    assert low.pages == high.pages == 256
    assert low.below + high.below == 512**levels


def test_roots_outside_memory_are_a_range_each() -> None:
    state = Cpu.long_mode(4, 0x10_0000)
    low, high = dump(memory_of([0] * 512), state.format, state.roots).ranges
    assert [(one.first, one.last) for one in (low, high)] == [
        (root.span.first, root.span.last) for root in state.roots
    ]
    assert {(one.kind, one.physical) for one in (low, high)} == {(RowKind.UNBACKED, 0x10_0000)}


def test_an_empty_space_has_no_ranges() -> None:
    result = dumped(memory_of([0] * 512), 4)
    assert (len(result.ranges), list(result.ranges), result.total, result.cut) == (0, [], 0, ())


def test_no_roots_have_no_ranges() -> None:
    assert len(dump(memory_of([0] * 512), cpu(4).format, ()).ranges) == 0


def test_tables_beyond_the_limit_are_marked_as_not_read() -> None:
    words = [0] * 512 * 5
    words[0:3] = [0x1007, 0x2007, 0x3007]
    words[512] = words[1024] = words[1536] = 0x4007
    state = cpu(4)
    graph = graphs.read(memory_of(words), state.format, state.roots, limit=1024 * graphs.LEADING)
    assert graph.unread == 3
    rows = list(graphs.rows(graph))
    unread = [
        (level.virtual.tolist(), level.physical.tolist())
        for level in rows
        if len(level.virtual) and set(level.kind.tolist()) == {RowKind.UNREAD}
    ]
    assert unread == [([2 << 39], [0x3000]), ([0, 1 << 39], [0x4000, 0x4000])]
