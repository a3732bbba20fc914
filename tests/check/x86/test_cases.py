"""Every mapping is tried at its edges and beyond them, in every way, and the window never."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.check.product import evenly
from harness.check.x86.cases import Cases, of_places, of_space, reads
from harness.check.x86.marks import CODE
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86 import formats
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import Cpu, Mode

PAGE = 0x40_0000
LARGE = 0x4000_0000
NOWHERE = Span(0x7000_0000_0000, 0x7000_0000_0FFF)


def cases_of(levels: int, outside: Span = NOWHERE, **state: bool) -> Cases:
    """A 4K page, a 2M page, and an entry with a reserved bit 2M above the 2M page."""
    memory = BufferMemory(np.zeros(8 << 20, np.uint8))
    allocator = TableAllocator(memory, memory.span)
    root = allocator.allocate(formats.long_mode(levels, 40, True, True), levels - 1)
    cpu = Cpu.long_mode(levels, root.address, **state)
    space = Space(memory, cpu.roots, allocator)
    space.map(Virtual(PAGE), np.array([0x5000], np.uint64), 0, formats.RW)
    space.map(Virtual(LARGE), np.array([0x20_0000], np.uint64), 1, formats.RW)
    space.write(space.slot(Virtual(LARGE + 0x40_0000), 1), formats.P | 1 << 50)
    return of_space(cpu, memory, bulk.leaves(memory, cpu.roots), [outside])


def tried(cases: Cases, kind: Kind, user: bool, ac: bool = False) -> set[int]:
    lanes = (cases.kind == kind) & (cases.user == user) & (cases.ac == ac)
    return set(cases.address[lanes].tolist())


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("kind", [Kind.READ, Kind.WRITE])
def test_data_is_tried_at_the_edges_and_beyond(levels: int, kind: Kind, user: bool) -> None:
    addresses = tried(cases_of(levels), kind, user)
    for first, size in ((PAGE, 0x1000), (LARGE, 0x20_0000), (LARGE + 0x40_0000, 0x20_0000)):
        assert {first, first + size - 8, first - 8, first + size} <= addresses


@pytest.mark.parametrize("user", [False, True])
def test_code_is_fetched_from_the_first_and_the_last_page_and_beyond(user: bool) -> None:
    addresses = tried(cases_of(4), Kind.FETCH, user)
    assert {PAGE + CODE, LARGE + CODE, LARGE + 0x20_0000 - 0x1000 + CODE} <= addresses
    assert {PAGE - 8, PAGE + 0x1000, LARGE - 8, LARGE + 0x20_0000} <= addresses


@pytest.mark.parametrize(("levels", "half"), [(4, 1 << 47), (5, 1 << 56)])
def test_both_sides_of_every_canonical_edge_are_tried(levels: int, half: int) -> None:
    edges = {0, half - 8, half, (1 << 64) - half - 8, (1 << 64) - half, (1 << 64) - 8}
    for kind in (Kind.READ, Kind.WRITE, Kind.FETCH):
        assert edges <= tried(cases_of(levels), kind, user=False)


def test_ac_is_tried_where_smap_makes_it_matter() -> None:
    assert not cases_of(4).ac.any()
    assert {PAGE, LARGE} <= tried(cases_of(4, smap=True), Kind.READ, user=False, ac=True)


def test_nothing_outside_is_tried_not_even_by_its_last_byte() -> None:
    outside = Span(PAGE + 0x1000 - 4, PAGE + 0x1FFF)
    addresses = cases_of(4, outside).address
    assert PAGE + 0x1000 - 8 not in addresses and PAGE + 0x1000 not in addresses
    assert PAGE in addresses


@pytest.mark.parametrize("first", [PAGE, PAGE + 7])
def test_a_word_of_which_one_byte_lies_outside_is_not_tried(first: int) -> None:
    assert PAGE not in cases_of(4, Span(first, first)).address
    assert PAGE in cases_of(4, Span(PAGE + 8, PAGE + 8)).address
    assert PAGE in cases_of(4, Span(PAGE - 1, PAGE - 1)).address


def legacy_cases(mode: Mode) -> Cases:
    """The last page below 4 GiB, outside long mode."""
    memory = BufferMemory(np.zeros(1 << 20, np.uint8))
    allocator = TableAllocator(memory, memory.span)
    format = Cpu.in_mode(mode, 0).format
    root = allocator.allocate(format, 1)
    cpu = Cpu.in_mode(mode, root.address)
    if mode is Mode.PAE:
        cpu = replace(cpu, pdptes=(0, 0, 0, root.address | formats.P))
    space = Space(memory, cpu.roots, allocator)
    space.map(Virtual((1 << 32) - 0x1000), np.array([0x5000], np.uint64), 0, formats.RW)
    return of_space(cpu, memory, bulk.leaves(memory, cpu.roots), [NOWHERE])


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_a_last_page_below_4_gib_has_nothing_beyond_it(mode: Mode) -> None:
    assert legacy_cases(mode).address.max() == (1 << 32) - 8


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_outside_long_mode_stray_addresses_are_all_over_the_32_bits(mode: Mode) -> None:
    stray = tried(legacy_cases(mode), Kind.READ, user=False)
    assert len(stray) > 100
    assert {at >> 28 for at in stray} == set(range(16))


def test_stray_addresses_are_words_all_over_the_64_bits() -> None:
    known = {0, PAGE, LARGE, 1 << 47, (1 << 64) - (1 << 47)}
    addresses = tried(cases_of(4), Kind.READ, user=False)
    stray = {at for at in addresses if all(abs(at - one) > 1 << 24 for one in known)}
    assert len(stray) > 100
    assert {at >> 60 for at in stray} == set(range(16))
    assert not any(at % 8 for at in addresses)


def test_fetches_come_first() -> None:
    fetch = cases_of(4).kind == Kind.FETCH
    assert fetch[: fetch.sum()].all()


def test_no_access_is_tried_twice() -> None:
    cases = cases_of(5, smap=True)
    rows = np.stack([cases.address, cases.kind, cases.user, cases.ac], axis=1)
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize(
    ("n", "count", "numbers"),
    [
        (5, 5, [0, 1, 2, 3, 4]),
        (3, 5, [0, 1, 2]),
        (100, 2, [0, 99]),
        (101, 3, [0, 50, 100]),
        (7, 1, [0]),
        (7, 0, []),
        (7, -1, []),
        (0, 3, []),
    ],
)
def test_a_sample_is_spread_from_the_first_to_the_last(
    n: int, count: int, numbers: list[int]
) -> None:
    assert evenly(n, count).tolist() == numbers


def test_jobs_are_told_every_access_as_it_is() -> None:
    names = {f"ACCESS_{kind.name}": 10 + kind for kind in Kind} | {"ACCESS_DESCRIPTOR": 99}
    n = len(Kind)
    jobs = np.zeros(
        n, [("address", "u8"), ("user", "?"), ("ac", "?"), ("access", "u4"), ("other", "u4")]
    )
    user, ac = np.arange(n) % 2 == 0, np.arange(n) % 3 == 0
    implicit = np.arange(n) == 1
    addresses = np.arange(n, dtype=np.uint64) * np.uint64(8)
    cases = Cases(addresses, np.array(list(Kind), np.uint8), user, ac, implicit)
    cases.put(jobs, names)
    assert jobs["address"].tolist() == addresses.tolist()
    assert jobs["user"].tolist() == user.tolist() and jobs["ac"].tolist() == ac.tolist()
    assert jobs["access"].tolist() == [99 if n == 1 else 10 + kind for n, kind in enumerate(Kind)]
    Cases(addresses, cases.kind, user, ac).put(jobs, names)
    assert jobs["access"].tolist() == [10 + kind for kind in Kind]
    assert not jobs["other"].any()


def test_chosen_lanes_keep_what_is_theirs() -> None:
    cases = cases_of(4, smap=True)
    implicit = np.arange(len(cases)) % 5 == 0
    whole = Cases(cases.address, cases.kind, cases.user, cases.ac, implicit)
    some = whole.take(slice(3, 9))
    assert some.implicit is not None and some.implicit.tolist() == implicit[3:9].tolist()
    assert some.address.tolist() == cases.address[3:9].tolist()
    assert some.kind.tolist() == cases.kind[3:9].tolist()
    assert some.user.tolist() == cases.user[3:9].tolist()
    assert some.ac.tolist() == cases.ac[3:9].tolist()
    assert cases.take(slice(3, 9)).implicit is None


def test_reads_are_the_supervisor_s() -> None:
    cases = reads(np.array([8, 1 << 63], np.uint64))
    assert cases.address.tolist() == [8, 1 << 63] and cases.implicit is None
    assert (cases.kind == Kind.READ).all() and not cases.user.any() and not cases.ac.any()


def test_places_are_tried_by_their_words_and_the_code_of_their_pages() -> None:
    """Where a page is; elsewhere code is fetched from the place itself."""
    memory = BufferMemory(np.zeros(8 << 20, np.uint8))
    allocator = TableAllocator(memory, memory.span)
    root = allocator.allocate(formats.long_mode(4, 40, True, True), 3)
    cpu = Cpu.long_mode(4, root.address)
    space = Space(memory, cpu.roots, allocator)
    space.map(Virtual(PAGE), np.array([0x5000], np.uint64), 0, formats.RW)
    places = np.array([PAGE + 0x123, PAGE + 0x124, PAGE + 0xFFF, LARGE + 0xABC], np.uint64)
    cases = of_places(cpu, memory, places, [NOWHERE])
    for user in False, True:
        for kind in Kind.READ, Kind.WRITE:
            assert tried(cases, kind, user) == {PAGE + 0x120, PAGE + 0xFF8, LARGE + 0xAB8}
        assert tried(cases, Kind.FETCH, user) == {PAGE + CODE, LARGE + 0xAB8}
    assert len(cases) == 2 * (3 + 3 + 2)
