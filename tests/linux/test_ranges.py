"""A Linux guest's whole space as ranges: what QEMU prints of it row by row, and what Linux says."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest

from harness.check.x86.debugger import TLB_BITS
from harness.inspect import graph
from harness.inspect.diff import Change, diff
from harness.inspect.find import addresses
from harness.inspect.graph import RowKind
from harness.inspect.ranges import Dump, Range, dump
from harness.inspect.select import condition
from harness.inspect.x86.memory_type import types
from harness.machine.foreign import conversation
from harness.machine.monitor import parse_tlb
from harness.paging.address import Physical, Span
from harness.paging.memory import Words
from images.linux.machine import PC, Booted
from tests.linux.spaces import USER_ROOT, LinuxSpace
from tests.linux.variants import on_x86

pytestmark = pytest.mark.hw

ESPFIX = Span(0xFFFF_FF00_0000_0000, 0xFFFF_FF7F_FFFF_FFFF)
"""Documentation/arch/x86/x86_64/mm.rst, at both level counts."""


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def dumped(space: LinuxSpace, **options: object) -> Dump:
    found = dump(space.memory, space.format, space.state.roots, **options)  # type: ignore[arg-type]
    assert found.cut == ()
    return found


def rows(ranges: list[Range]) -> tuple[Words, Words, Words]:
    """Address, frame and entry of each page of exact ranges, in order; every alias in a table."""
    names = ("first", "physical", "bits", "size", "stride", "pages", "times")
    # One column for each page of each time.
    whole = np.array([*map(attrgetter(*names), ranges)], np.uint64).T
    counts = (whole[-2] * whole[-1]).astype(np.int64)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    number = (np.arange(len(before)) - before).astype(np.uint64)
    first, physical, bits, size, stride, pages, _ = np.repeat(whole, counts, axis=1)
    place = number % pages * size
    found = np.stack([first + number // pages * stride + place, physical + place, bits])
    address, frame, entry = found[:, np.argsort(found[0])]
    return address, frame, entry


def printed(linux: Booted, space: LinuxSpace) -> tuple[Words, Words, Words]:
    """The rows of `info tlb`, in order, the flags as the bits that they show."""
    with conversation(linux.qmp, 0, 60) as monitor:
        found = parse_tlb(monitor.human("info tlb", space.process.cpu))
    found = found[np.argsort(found["virtual"])]
    bits = np.zeros(len(found), np.uint64)
    for flag, bit in TLB_BITS.items():
        bits[found[flag]] |= np.uint64(bit)
    return found["virtual"], found["physical"], bits


SHOWN = np.uint64(sum(TLB_BITS.values()))


@on_x86
def test_every_row_of_info_tlb_is_in_the_ranges_and_no_other(
    linux: Booted, space: LinuxSpace
) -> None:
    virtual, physical, bits = printed(linux, space)
    every = dumped(space, exact=True, each=1 << 20)
    address, frame, entry = rows(list(every.ranges))
    assert (every.total, len(address)) == (len(virtual), len(virtual))
    assert (address == virtual).all()
    assert (frame == physical).all()
    assert (entry & SHOWN == bits).all()

    folded = list(dumped(space, exact=True).ranges)
    address, frame, entry = rows([one for one in folded if one.first not in ESPFIX])
    others = (virtual < ESPFIX.first) | (virtual > ESPFIX.last)
    assert (address == virtual[others]).all()
    assert (frame == physical[others]).all()
    assert (entry & SHOWN == bits[others]).all()


@on_x86
def test_the_espfix_page_is_one_range_of_65536_addresses(space: LinuxSpace) -> None:
    for exact in (False, True):
        found = list(dumped(space, exact=exact).ranges)
        (one,) = [each for each in found if each.first in ESPFIX]
        assert (one.kind, one.pages, one.aliases, one.paths) == (RowKind.PAGE, 1, 65536, 2048)
        assert one.highest in ESPFIX
        assert {each.paths for each in found if each is not one} == {1}


def test_merged_ranges_are_few_and_count_every_page(space: LinuxSpace) -> None:
    result = dumped(space)
    assert (
        sum(one.pages * one.aliases for one in result.ranges) == result.total == space.leaves.total
    )
    # On x86 one page is mapped 65,536 times.
    assert result.total > (65536 if space.guest.board is PC else 512)
    assert len(result.ranges) < 400


def test_every_frame_of_pagemap_is_in_the_ranges_of_its_map(space: LinuxSpace) -> None:
    for told in space.maps:
        pages: dict[int, int] = {}
        for one in dumped(space, exact=True, span=told.span).ranges:
            for time in range(one.times):
                for place in range(0, one.pages * one.size, 4096):
                    pages[one.first + time * one.stride + place] = one.physical + place
        reachable = told.present & (told.rights != "---")
        known = set(told.addresses[told.present | told.absent].tolist())
        inside = {address: frame for address, frame in pages.items() if address in known}
        want = zip(told.addresses[reachable].tolist(), told.frames[reachable].tolist(), strict=True)
        assert inside == dict(want), told


@on_x86
def test_under_isolation_the_kernels_root_withholds_what_user_pages_give(
    linux: Booted, space: LinuxSpace
) -> None:
    kernel = space.under(space.cpu.cr3 & ~USER_ROOT)
    chosen = condition(space.cpu, types(None), "own-x and not x")
    withheld = list(dumped(kernel, chosen=chosen).ranges)
    code = [m for m in space.maps if "x" in m.rights and m.present.any()]
    assert code
    if not linux.variant.isolated:
        assert withheld == []
        return
    execute = space.cpu.format.rights["execute"]
    assert all(one.own & execute and not one.granted & execute for one in withheld)
    spans = [Span(one.first, one.last) for one in withheld]
    for told in code:
        for address in told.addresses[told.present].tolist():
            assert any(address in span for span in spans), told
    # Its own root gives the user what the pages do.
    assert list(dumped(space, chosen=chosen).ranges) == []


def read(space: LinuxSpace) -> graph.Graph:
    return graph.read(space.memory, space.format, space.state.roots)


def test_shared_memory_is_found_at_each_of_its_addresses(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    shared, alias = parent.map("shared"), parent.map("alias")
    for place, frame in enumerate(shared.frames.tolist()):
        found = addresses(read(parent), Physical(frame + 5), 64)
        assert found.total == len(found.shown)
        there = {one.virtual - 5 for one in found.shown if one.virtual < 1 << 63}
        assert there == {int(shared.addresses[place]), int(alias.addresses[place])}


def test_what_the_child_wrote_has_moved(spaces: dict[str, LinuxSpace]) -> None:
    parent, child = spaces["parent"], spaces["child"]
    forked = parent.map("forked")
    found = [one for one in diff(read(parent), read(child)) if one.before.first in forked.span]
    moved = {
        one.before.first + place * one.before.size
        for one in found
        if one.change & Change.MOVED
        for place in range(one.before.pages)
    }
    ours, theirs = (s.walks(forked.addresses).physical for s in (parent, child))
    assert moved == set(forked.addresses[ours != theirs].tolist()) != set()
    assert diff(read(parent), read(parent)).same
