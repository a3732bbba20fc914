"""What two spaces differ in is what their walks differ in, at every address."""

from __future__ import annotations

import random
import tracemalloc
from bisect import bisect_right
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import diff as diff_module
from harness.inspect import graph
from harness.inspect.diff import Change, Difference, diff
from harness.inspect.ranges import dump
from harness.paging.entry import Leaf, Malformed, Pointer
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from tests.inspect.spaces import PCD, PS, RW, US, XD, A, D, Found, G, P, everything, layered

SOFTWARE = 0x7 << 9 | 0x7F << 52


def read(memory: BufferMemory, levels: int = 4) -> graph.Graph:
    state = Cpu.long_mode(levels, 0)
    return graph.read(memory, state.format, state.roots)


def compared(before: BufferMemory, after: BufferMemory, levels: int = 4) -> Difference:
    return diff(read(before, levels), read(after, levels))


def changed(memory: BufferMemory, changes: dict[int, int]) -> BufferMemory:
    octets = memory.octets.copy()
    words = octets.view(np.uint64)
    for place, raw in changes.items():
        words[place] = raw
    return BufferMemory(octets)


def mutated(seed: int, memory: BufferMemory) -> BufferMemory:
    """The memory with some of its entries changed in every way."""
    source = random.Random(seed)
    words = memory.octets.view(np.uint64)
    changes = {}
    for place in source.sample(np.flatnonzero(words).tolist(), 12):
        raw = int(words[place])
        if place < 512 * (len(words) // 512 - 3) and source.random() < 0.5:
            # A pointer that leads to a page, or a page that becomes a table.
            raw = source.choice((raw ^ PS, raw ^ RW, raw ^ US, raw & ~P))
        else:
            bit = source.choice((P, RW, US, A, D, G, PCD, XD, 1 << 10, 1 << 51, 1 << 13, 1 << 59))
            raw ^= bit
        changes[place] = raw
    for _ in range(3):
        changes[source.randrange(len(words) - 1536, len(words))] = source.choice((0, 0x5007))
    return changed(memory, changes)


def facts(end: Found | None, address: int) -> tuple[object, ...]:
    """Kind, memory, rights, attributes, size, use and software bits of an address."""
    if end is None:
        return ("absent",)
    if not isinstance(end.entry, Leaf):
        return ("malformed", end.raw) if isinstance(end.entry, Malformed) else ("unbacked",)
    assert end.raw is not None
    raw, large = end.raw, end.slot.level > 0
    pat = raw >> (12 if large else 7) & 1
    attributes = (raw & (G | PCD | 1 << 3), pat, raw >> 59 & 15)
    own = raw & (RW | US | XD)
    memory = end.entry.address + address - end.address
    use, level = raw & (A | D), end.slot.level
    return ("page", memory, end.granted, attributes, own, level, use, raw & SOFTWARE)


def change_of(some: tuple[object, ...], others: tuple[object, ...]) -> Change:
    if some == others:
        return Change(0)
    if some[0] == "absent":
        return Change.MAPPED
    if others[0] == "absent":
        return Change.UNMAPPED
    if not some[0] == others[0] == "page":
        return Change.KIND
    kinds = [Change.MOVED, Change.RIGHTS, Change.ATTRIBUTES, Change.ATTRIBUTES, Change.SIZE,
             Change.USED, Change.SOFTWARE]  # fmt: skip
    found = Change(0)
    for place, (kind, one, other) in enumerate(zip(kinds, some[1:], others[1:], strict=True)):
        own = place == 3
        if one != other and not (own and found & Change.RIGHTS):
            found |= kind
    return found


class Space:
    """All ends of a space, to be looked up by address."""

    def __init__(self, memory: BufferMemory, levels: int):
        roots = Cpu.long_mode(levels, 0).roots
        self.ends = [e for e in everything(memory, roots) if not isinstance(e.entry, Pointer)]
        self.first = [end.address for end in self.ends]

    def last(self, end: Found) -> int:
        # A table without memory is without all of it.
        slots = 512 if end.raw is None else 1
        return end.address + slots * end.slot.size - 1

    def at(self, address: int) -> Found | None:
        place = bisect_right(self.first, address) - 1
        if place < 0 or address > self.last(self.ends[place]):
            return None
        return self.ends[place]

    def edges(self) -> set[int]:
        return {edge for end in self.ends for edge in (end.address, self.last(end) + 1)}


@pytest.mark.parametrize(("levels", "seed"), [(4, 0), (4, 1), (4, 2), (4, 3), (4, 7), (5, 0)])
def test_every_address_that_differs_is_told_and_no_other(levels: int, seed: int) -> None:
    memory = layered(seed, levels)
    other = mutated(seed, memory)
    spaces = [Space(memory, levels), Space(other, levels)]
    edges = sorted(spaces[0].edges() | spaces[1].edges())
    want: Counter[Change] = Counter()
    parts: dict[int, tuple[int, Change]] = {}
    for first, after in zip(edges, [*edges[1:], edges[-1]], strict=True):
        change = change_of(*(facts(space.at(first), first) for space in spaces))
        if change:
            want[change] += after - first
            parts[first] = (after, change)
    got: Counter[Change] = Counter()
    result = compared(memory, other, levels)
    for one in result:
        size = one.before.pages * one.before.size
        got[one.change] += size * one.before.paths
        # The lowest addresses are told outright.
        address = one.before.first
        while address <= one.before.last:
            for space, side in zip(spaces, (one.before, one.after), strict=True):
                end = space.at(address)
                if end is not None and isinstance(end.entry, Leaf):
                    assert side.granted == end.granted
            end_of_part, change = parts[max(p for p in parts if p <= address)]
            assert change == one.change
            address = end_of_part
        assert (one.before.first, one.before.pages) == (one.after.first, one.after.pages)
    assert got == want
    assert result.cut == ()
    assert len(want) > 3


@pytest.mark.parametrize("levels", [4, 5])
def test_a_space_is_the_same_as_itself(levels: int) -> None:
    memory = layered(2, levels, 0.2)
    result = compared(memory, memory, levels)
    assert (list(result), result.same, result.pages()) == ([], True, {})


def one_page(raw: int, **more: int) -> BufferMemory:
    """A page at 0x3000, by four tables in a row; `l1` and so on are other entries of upper tables,
    in slot 1."""
    words = np.zeros(512 * 6, np.uint64)
    words[0], words[512], words[1024], words[1536 + 3] = 0x1007, 0x2007, 0x3007, raw
    for level, name in enumerate(("l0", "l1", "l2", "l3")):
        if name in more:
            words[512 * (3 - level) + 1] = more[name]
    return BufferMemory(words.view(np.uint8))


BASE = 0x9_0000 | P | RW | US | XD


@pytest.mark.parametrize(
    ("raw", "change"),
    [
        (0, Change.UNMAPPED),
        (BASE + 0x1000, Change.MOVED),
        (BASE ^ RW, Change.RIGHTS),
        (BASE ^ XD, Change.RIGHTS),
        (BASE | A, Change.USED),
        (BASE | A | D, Change.USED),
        (BASE | PCD, Change.ATTRIBUTES),
        (BASE | G, Change.ATTRIBUTES),
        (BASE | 3 << 59, Change.ATTRIBUTES),
        *((BASE | 1 << bit, Change.SOFTWARE) for bit in (*range(9, 12), *range(52, 59))),
        (BASE | 1 << 51, Change.KIND),
        ((BASE ^ US) + 0x1000 | A, Change.MOVED | Change.RIGHTS | Change.USED),
    ],
)
def test_each_kind_of_change_has_its_name(raw: int, change: Change) -> None:
    (one,) = compared(one_page(BASE), one_page(raw))
    assert (one.change, one.before.first, one.before.pages) == (change, 0x3000, 1)
    (back,) = compared(one_page(raw), one_page(BASE))
    assert back.change == (Change.MAPPED if raw == 0 else change)


BAD = BASE | 1 << 51


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (BAD, 0, Change.UNMAPPED),
        (0, BAD, Change.MAPPED),
        (BAD, BAD | 1 << 50, Change.KIND),
        (BAD, BAD ^ RW, Change.KIND),
        (BAD, BAD | 1 << 52, Change.KIND),
        (BAD, BAD + 0x1000, Change.KIND),
        (BAD, BAD | A, Change.KIND),
    ],
)
def test_a_malformed_entry_is_another_wherever_it_differs(
    before: int, after: int, change: Change
) -> None:
    (one,) = compared(one_page(before), one_page(after))
    assert one.change == change


def test_rights_above_a_malformed_entry_come_to_nothing() -> None:
    for slot in (0, 512, 1024):
        raw = int(one_page(BAD).octets.view(np.uint64)[slot])
        assert compared(one_page(BAD), changed(one_page(BAD), {slot: raw ^ RW})).same


def test_differences_are_in_no_table_of_one_of_the_spaces() -> None:
    result = compared(one_page(BASE), one_page(BASE | A))
    assert result.before.view.tolist() == result.after.view.tolist() == [-1]


def test_where_nothing_is_there_are_no_rights() -> None:
    for before, after in ((BASE, 0), (0, BASE)):
        (one,) = compared(one_page(before), one_page(after))
        sides = [one.before, one.after] if after else [one.after, one.before]
        assert sides[0].granted == 0
        assert sides[1].granted == RW | US


def test_rights_above_change_those_of_all_pages_below() -> None:
    before, after = one_page(BASE), changed(one_page(BASE), {0: 0x1005})
    (one,) = compared(before, after)
    assert one.change == Change.RIGHTS
    names = Cpu.long_mode(4, 0).format.rights_of
    assert (names(one.before.granted), names(one.after.granted)) == (("write", "user"), ("user",))


def test_a_right_of_its_own_that_comes_to_nothing_is_an_attribute() -> None:
    above = {0: 0x1005}
    before, after = changed(one_page(BASE), above), changed(one_page(BASE ^ RW), above)
    (one,) = compared(before, after)
    assert one.change == Change.ATTRIBUTES


def test_a_table_that_has_moved_is_no_difference() -> None:
    words = one_page(BASE).octets.view(np.uint64).copy()
    words[512 * 5 : 512 * 6] = words[512 * 3 : 512 * 4]
    words[1024] = 0x5007
    assert compared(one_page(BASE), BufferMemory(words.view(np.uint8))).same


def test_a_large_page_split_differs_in_size_alone() -> None:
    large = 0x4000_0000 | P | RW | US | XD | PS | G | 1 << 12
    words = one_page(BASE, l1=large).octets.view(np.uint64).copy()
    split = words.copy()
    split[1025] = 0x4007
    small = large & ~(PS | 1 << 12) | 1 << 7
    split[2048:2560] = [small + (n << 12) for n in range(512)]
    before, after = BufferMemory(words.view(np.uint8)), BufferMemory(split.view(np.uint8))
    (one,) = compared(before, after)
    assert one.change == Change.SIZE
    assert (one.before.first, one.before.pages, one.then, one.now) == (1 << 21, 512, 1 << 21, 4096)
    assert one.before.pieces == one.after.pieces == 1
    split[2048 + 9] ^= 1 << 7
    split[2048 + 10] += 0x1000
    found = [(c.change, c.before.first, c.before.pages) for c in compared(before, after)]
    first = 1 << 21
    assert found == [
        (Change.SIZE, first, 9),
        (Change.SIZE | Change.ATTRIBUTES, first + 0x9000, 1),
        (Change.SIZE | Change.MOVED, first + 0xA000, 1),
        (Change.SIZE, first + 0xB000, 501),
    ]


@pytest.mark.parametrize("frame", [0, 0x4000_0000])
@pytest.mark.parametrize("pat", [0, 1])
def test_pages_of_every_size_that_are_split_differ_in_size_alone(pat: int, frame: int) -> None:
    """PAT is bit 12 of a large page and bit 7 of a small one, where a large one has PS."""
    flags = frame | P | RW | US | XD | G
    large, small = flags | PS | pat << 12, flags | pat << 7
    words = np.zeros(512 * 8, np.uint64)
    words[:1025:512], words[513], words[1025:1027] = (
        [0x1007, 0x2007, 0],
        large,
        [large, large | PCD],
    )
    split = words.copy()
    split[513], split[1025:1027] = 0x5007, [0x4007, 0x7007]
    split[2560:3072] = [0x6007, *(large + (n << 21) for n in range(1, 512))]
    for table, more in ((4, 0), (6, 0), (7, PCD)):
        split[512 * table : 512 * (table + 1)] = [small + (n << 12) | more for n in range(512)]
    one, two = 1 << 30, 1 << 21
    expected = [
        (two, 512, two, 4096),
        (2 * two, 512, two, 4096),
        (one, 512, one, 4096),
        (one + two, 511, one, two),
    ]
    before, after = BufferMemory(words.view(np.uint8)), BufferMemory(split.view(np.uint8))
    found = list(compared(before, after))
    assert {change.change for change in found} == {Change.SIZE}
    assert [(c.before.first, c.before.pages, c.then, c.now) for c in found] == expected
    back = list(compared(after, before))
    assert {change.change for change in back} == {Change.SIZE}
    assert [(c.after.first, c.after.pages, c.now, c.then) for c in back] == expected


def test_a_smaller_page_whose_entry_is_that_of_the_larger_differs_in_size() -> None:
    """The first of those in which a page of 1G is split: the entry's 64 bits are the same."""
    words = np.zeros(512 * 4, np.uint64)
    large = P | RW | PS  # at address 0
    words[0], words[512] = 0x1007, large
    split = words.copy()
    split[512] = 0x3003
    split[1536:2048] = [large + (n << 21) for n in range(512)]
    before, after = BufferMemory(words.view(np.uint8)), BufferMemory(split.view(np.uint8))
    (found,) = compared(before, after)
    assert (found.change, found.then, found.now) == (Change.SIZE, 1 << 30, 1 << 21)
    assert (found.before.first, found.before.pages) == (0, 512)
    (found,) = compared(after, before)
    assert (found.change, found.then, found.now) == (Change.SIZE, 1 << 21, 1 << 30)


def test_all_that_a_table_held_is_gone_with_it() -> None:
    before = one_page(BASE, l1=0x4000_0000 | P | PS)
    for slot in (0, 512, 1024):
        found = compared(before, changed(before, {slot: 0}))
        gone = [(one.change, one.before.first, one.before.size) for one in found]
        small, large = (Change.UNMAPPED, 0x3000, 4096), (Change.UNMAPPED, 1 << 21, 1 << 21)
        assert gone == ([small] if slot == 1024 else [small, large])
        back = compared(changed(before, {slot: 0}), before)
        assert {one.change for one in back} == {Change.MAPPED} and len(back) == len(found)


def test_a_table_that_was_not_read_is_compared_as_such() -> None:
    words = np.zeros(512 * 5, np.uint64)
    words[0:3] = 0x1007, 0x2007, 0x3007
    words[512] = words[1024] = words[1536] = 0x4007
    memory = BufferMemory(words.view(np.uint8))
    state = Cpu.long_mode(4, 0)
    cut = graph.read(memory, state.format, state.roots, limit=1024 * graph.LEADING)
    empty = read(BufferMemory(np.zeros(0x1000, np.uint8)))
    sides = [one.before for one in diff(cut, empty)]
    assert {one.kind for one in sides} == {graph.RowKind.UNREAD}
    found = [(one.first, one.physical, one.below) for one in sides]
    assert found == [(0, 0x4000, 1), (1 << 39, 0x4000, 1), (2 << 39, 0x3000, 1)]
    assert diff(cut, empty).cut == cut.cut != ()


def test_a_change_in_a_shared_table_is_told_once_with_its_addresses() -> None:
    words = one_page(BASE).octets.view(np.uint64).copy()
    words[1024:1536] = 0x3007
    words[512:516] = 0x2007
    before = BufferMemory(words.copy().view(np.uint8))
    words[1536 + 3] |= A
    (one,) = compared(before, BufferMemory(words.view(np.uint8)))
    assert (one.change, one.before.first, one.before.paths) == (Change.USED, 0x3000, 2048)
    assert one.before.highest == 3 << 30 | 511 << 21 | 0x3000


def test_entries_are_counted_at_all_their_addresses_in_each_way_that_they_differ() -> None:
    words = one_page(BASE).octets.view(np.uint64).copy()
    words[512:516] = 0x2007
    words[1536 + 8 : 1536 + 12] = [BASE + n * 0x1000 for n in range(4)]
    before = BufferMemory(words.copy().view(np.uint8))
    words[1536 + 3] |= A
    words[1536 + 8 : 1536 + 12] = [(BASE ^ RW) + 0x10_0000 + n * 0x1000 for n in range(4)]
    words[1536 + 20] = BASE
    counted = compared(before, BufferMemory(words.view(np.uint8))).pages()
    # The table is at four addresses; one page was used, four were moved and are read-only.
    assert counted == {
        Change.MAPPED: 4,
        Change.MOVED: 16,
        Change.RIGHTS: 16,
        Change.USED: 4,
    }


def test_self_maps_are_compared_as_such() -> None:
    loop = {300: P | RW | XD}
    before = changed(one_page(BASE), loop)
    assert compared(before, changed(before, {1536 + 4: 0})).same
    (one,) = compared(before, changed(before, {300: P | XD}))
    assert (one.change, one.before.kind) == (Change.RIGHTS, graph.RowKind.SELF_MAP)
    (gone,) = compared(before, one_page(BASE))
    assert (gone.change, gone.before.kind) == (Change.UNMAPPED, graph.RowKind.SELF_MAP)
    assert compared(before, changed(before, {300: P | RW | XD | 1 << 52})).same
    to_root, to_itself = ({512 + 5: table | P | RW} for table in (0, 0x1000))
    (moved,) = compared(changed(one_page(BASE), to_root), changed(one_page(BASE), to_itself))
    assert (moved.change, moved.before.physical, moved.after.physical) == (Change.MOVED, 0, 0x1000)


def test_a_table_that_loses_its_memory_is_told() -> None:
    after = changed(one_page(BASE), {1024: 0x100_0007})
    found = [
        (one.change, one.before.first, one.before.pages) for one in compared(one_page(BASE), after)
    ]
    assert found == [
        (Change.MAPPED, 0, 3), (Change.KIND, 0x3000, 1), (Change.MAPPED, 0x4000, 508)
    ]  # fmt: skip


@pytest.mark.parametrize(("levels", "seed"), [(4, 1), (4, 2), (5, 3)])
def test_what_is_no_page_is_told_as_a_dump_tells_it(levels: int, seed: int) -> None:
    memory = layered(seed, levels, 0.2)
    cpu, page = Cpu.long_mode(levels, 0), graph.RowKind.PAGE
    want = [one for one in dump(memory, cpu.format, cpu.roots).ranges if one.kind != page]
    nothing = BufferMemory(np.zeros(len(memory.octets), np.uint8))
    got = [one.after for one in compared(nothing, memory, levels) if one.after.kind != page]
    assert got == want
    assert {one.kind.name for one in got} >= {"SELF_MAP", "UNBACKED", "MALFORMED"}


def test_a_part_of_what_is_no_page_is_told_as_the_whole_is() -> None:
    # Each stands where the other space has a table, with a page that is somewhere in its middle.
    lost, loop, wrong = 0x100_0007, P | RW, 0x3007 | 1 << 51
    before = {1: lost, 2: loop, 512 + 1: wrong, 512 + 2: 0x1000 | loop}
    after = {1: 0x1007, 2: 0x1007, 512 + 1: 0x2007, 512 + 2: 0x2007}
    found = [
        one
        for one in compared(one_page(BASE), changed(one_page(BASE), before))
        if one.change == Change.MAPPED
    ]
    whole = {(one.after.kind, one.after.physical): one.after for one in found}
    parts = list(compared(changed(one_page(BASE), before), changed(one_page(BASE), after)))
    seen = set()
    for one in parts:
        side = one.before
        same = whole[side.kind, side.physical]
        facts = [(r.physical, r.pieces, r.below, r.raw, r.bits) for r in (side, same)]
        assert facts[0] == facts[1]
        assert one.then == same.size
        seen.add((side.kind, one.change))
    assert {kind for kind, change in seen if change == Change.KIND} == {
        graph.RowKind.UNBACKED,
        graph.RowKind.SELF_MAP,
        graph.RowKind.MALFORMED,
    }
    assert whole[graph.RowKind.UNBACKED, 0x100_0000].pieces == 1


def test_parts_of_large_pages_have_the_bits_of_the_level_where_they_were_found() -> None:
    """Reserved below a 2M page are bits 20:13, below a 1G page 29:13 (SDM tables 4-16, 4-18)."""
    two = P | RW | PS | 1 << 13 | 1 << 21
    one = P | RW | PS | 1 << 14 | 1 << 22 | 1 << 30
    good = 0x4000_0000 | P | RW | US | XD | PS | G | 1 << 12
    before = changed(one_page(BASE), {512 + 1: one, 1024 + 1: two, 1024 + 2: good})
    after = changed(one_page(BASE), {512 + 1: 0x2007, 1024 + 1: 0x3007, 1024 + 2: 0x3007})
    found = {
        (change.before.kind, change.before.first): (change.before.bits, change.before.paths)
        for change in compared(before, after)
        if change.after.kind == graph.RowKind.PAGE
    }
    malformed = graph.RowKind.MALFORMED
    assert found == {
        (malformed, 1 << 21 | 0x3000): (1 << 13, 1),
        (malformed, 1 << 30 | 0x3000): (1 << 14 | 1 << 22, 3),  # by all slots of the table
        (graph.RowKind.PAGE, 2 << 21 | 0x3000): (P | RW | US | XD | G | 1 << 7, 1),
    }


def test_tables_without_memory_that_are_neighbours_are_a_piece_each() -> None:
    after = changed(one_page(BASE), {1024 + 1: 0x100_0007, 1024 + 2: 0x200_0007})
    (one,) = compared(one_page(BASE), after)
    assert (one.after.pages, one.after.physical, one.after.pieces) == (1024, 0x100_0000, 2)


def test_spaces_of_other_levels_have_no_addresses_in_common() -> None:
    memory = one_page(BASE)
    with pytest.raises(ValueError, match="compare two spaces of one mode"):
        diff(read(memory, 4), read(memory, 5))


@pytest.mark.parametrize("waiting", [0, 1, 1 << 18])
def test_more_tables_than_can_be_compared_are_said(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.inspect.diff.LANES_COMPARED", 512 * 3)
    monkeypatch.setattr("harness.inspect.diff.PAIRS", waiting)
    result = compared(one_page(BASE), one_page(BASE | A))
    said = "There are more than 1,536 slots: others were not compared."
    assert (result.cut, result.same) == ((said,), False)


def test_more_differences_than_are_kept_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.inspect.diff.DIFFERENCES", 3)
    pages = {512 * 3 + 2 * n: BASE | n << 13 for n in range(8)}
    result = compared(one_page(BASE), changed(one_page(BASE), pages))
    said = "There are more than 3 differences: others are left out."
    assert (result.cut, result.same, len(result) > 3) == ((said,), False, True)
    three = {512 * 3 + 2 * n: BASE | n << 13 for n in range(1, 4)}
    result = compared(one_page(BASE), changed(one_page(BASE), three))
    assert (result.cut, len(result)) == ((), 3)


def test_after_more_differences_than_are_kept_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three tables, of which each is compared by itself, the first has more."""
    words = np.zeros(512 * 6, np.uint64)
    words[0], words[512], words[1024:1027] = 0x1007, 0x2007, [0x3007, 0x4007, 0x5007]
    memory = BufferMemory(words.view(np.uint8))
    pages = {512 * table + 2 * n: BASE | n << 13 for table in (3, 4, 5) for n in range(4)}
    monkeypatch.setattr("harness.inspect.diff.DIFFERENCES", 3)
    monkeypatch.setattr("harness.inspect.diff.LANES", 512)
    result = compared(memory, changed(memory, pages))
    assert result.cut == ("There are more than 3 differences: others are left out.",)
    assert [one.before.first for one in result] == [n << 13 for n in range(4)]


def test_of_more_tables_than_can_be_compared_the_first_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root counts twice, once for each half."""
    words = np.zeros(512 * 5, np.uint64)
    words[0], words[512], words[1024:1026] = 0x1007, 0x2007, [0x3007, 0x4007]
    memory = BufferMemory(words.view(np.uint8))
    monkeypatch.setattr("harness.inspect.diff.LANES_COMPARED", 512 * 5)
    result = compared(memory, changed(memory, {512 * 3: BASE, 512 * 4: BASE}))
    assert result.cut == ("There are more than 2,560 slots: others were not compared.",)
    assert [one.before.first for one in result] == [0]


def test_each_space_is_read_by_its_own_processor() -> None:
    """Bit 45 is reserved before, and of the address after."""
    memory = one_page(BASE | 1 << 45)
    narrow, wide = (Cpu.long_mode(4, 0, maxphyaddr=width) for width in (40, 52))
    before, after = (graph.read(memory, cpu.format, cpu.roots) for cpu in (narrow, wide))
    result = diff(before, after)
    assert (result.before.format, result.after.format) == (narrow.format, wide.format)
    (one,) = result
    kinds = graph.RowKind.MALFORMED, graph.RowKind.PAGE
    assert (one.change, one.before.kind, one.after.kind) == (Change.KIND, *kinds)
    assert (one.before.bits, one.after.physical) == (1 << 45, 1 << 45 | 0x9_0000)


@pytest.mark.parametrize("waiting", [0, 3, 20])
def test_equal_pairs_that_are_joined_at_times_are_compared_once(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = layered(1, 5)
    others = mutated(1, memory)
    want = compared(memory, others, 5).pages()
    monkeypatch.setattr("harness.inspect.diff.PAIRS", waiting)
    monkeypatch.setattr("harness.inspect.diff.LANES", 512)
    result = compared(memory, others, 5)
    assert (result.pages(), result.cut) == (want, ())


def test_what_comes_after_many_equal_pairs_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first level-2 table leads 512 times to one table, the second once to another."""
    words = np.zeros(512 * 6, np.uint64)
    words[0:2] = 0x1007, 0x2007
    words[512:1024] = 0x3007
    words[1024] = 0x4007
    words[2048] = 0x5007
    words[2560] = BASE
    memory = BufferMemory(words.view(np.uint8))
    monkeypatch.setattr("harness.inspect.diff.PAIRS", 0)
    monkeypatch.setattr("harness.inspect.diff.LANES", 512)
    monkeypatch.setattr("harness.inspect.diff.LANES_COMPARED", 512 * 20)
    result = compared(memory, changed(memory, {2560: BASE | A}))
    assert result.cut == ()
    assert [(one.change, one.before.first) for one in result] == [(Change.USED, 1 << 39)]


@pytest.mark.parametrize("width", [1, 3, 20, 40, 63, 64])
def test_rows_have_the_same_number_where_they_are_equal_and_only_there(width: int) -> None:
    source = random.Random(width)
    words = [source.getrandbits(width) for _ in range(3)]
    columns = [np.array(source.choices(words, k=500), np.uint64) for _ in range(4)]
    columns[2] = np.full(500, words[0], np.uint64)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    numbers = diff_module._numbers(columns).tolist()
    assert len(set(rows)) == len(set(numbers)) == len(set(zip(rows, numbers, strict=True)))


def test_rows_that_differ_in_their_highest_bit_have_different_numbers() -> None:
    """The first column takes 63 bits, so that a number for both takes more than 64."""
    every, some = (1 << 63) - 1, 5
    first = np.array([every, some, some | 1 << 62, some, some], np.uint64)
    second = np.array([0, 1, 1, 2, 3], np.uint64)
    for columns in ([first, second], [second, first]):
        numbers = diff_module._numbers(columns).tolist()
        assert len(set(numbers)) == 5
    whole = np.array([(1 << 64) - 1, 5, 5], np.uint64)
    one, other, again = diff_module._numbers([whole]).tolist()
    assert one != other == again


def test_two_spaces_of_many_tables_that_meet_in_every_way_are_compared_in_little_memory() -> None:
    source = np.random.default_rng(1)
    tables = 1 << 11
    words = [source.integers(0, tables, (tables, 512)).astype(np.uint64) for _ in range(2)]
    some, others = (
        BufferMemory(((w << np.uint64(12)) | np.uint64(P | RW)).reshape(-1).view(np.uint8))
        for w in words
    )
    spaces = read(some), read(others)
    tracemalloc.start()
    result = diff(*spaces)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.cut
    assert peak < 1 << 30


def test_no_roots_and_a_space_differ_in_all_of_it() -> None:
    memory = one_page(BASE)
    none = graph.read(memory, Cpu.long_mode(4, 0).format, ())
    (one,) = diff(none, read(memory))
    assert (one.change, one.before.first) == (Change.MAPPED, 0x3000)
    (back,) = diff(read(memory), none)
    assert back.change == Change.UNMAPPED
    assert diff(none, replace(none)).same
