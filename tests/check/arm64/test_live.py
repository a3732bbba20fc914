"""arm64 spaces that are changed while a guest runs in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from harness.check.arm64.changes import CHANGES, execute
from harness.check.arm64.live import Live
from harness.check.arm64.quirks import KEPT_CODE
from harness.check.arm64.space import GuestSpace
from harness.check.changes import ALL as ALL_FLUSHED
from harness.check.changes import NOTHING, PAGE, RAM_BYTES, Change
from harness.check.live import NOT_SHOWN
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import AF
from harness.paging.table import Root
from tests.check import live_operations
from tests.check.arm64.samples import UNSAID
from tests.check.live_operations import (
    NARROWING,
    OTHERS,
    keeps_code,
    makes_absent_until_flushed,
    refuses_what_no_one_announced,
    sees,
    shows_what_is_withheld,
    splits_and_collapses,
)
from tests.check.live_sequences import GuestWorld, LiveSequences, Withheld, finds_what_is_withheld
from tests.check.tampered import looked_at, noted, passed_over
from tests.machine.arm64.present import QEMU, why_absent
from tests.paging.spaces import ARM64
from tests.paging.test_space_sequences import RULES

pytestmark = pytest.mark.hw

SHAPES = {"4K-3": ("4K", 3), "4K-4": ("4K", 4), "16K-3": ("16K", 3), "64K-2": ("64K", 2)}


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(ram_bytes=RAM_BYTES, program=QEMU) as guest:
        yield guest


@pytest.fixture(params=SHAPES.values(), ids=list(SHAPES))
def space(request: pytest.FixtureRequest, guest: Guest) -> GuestSpace:
    return GuestSpace(guest, *request.param)


class Furnished(live_operations.Furnished):
    executable = ("user", "user execute", "supervisor execute")
    rewritten = AF

    def rights(self, *names: str) -> int:
        return self.space.format.granting(*names)

    bits = rights


@pytest.mark.parametrize("name", NARROWING | OTHERS)
def test_the_machine_sees_what_the_operation_made_of_the_tables(
    space: GuestSpace, guest: Guest, name: str
) -> None:
    live = Live(guest, space.memory, space.cpu)
    sees(live, space, Furnished(space), (NARROWING | OTHERS)[name])


@pytest.mark.parametrize("name", NARROWING)
def test_a_flush_that_is_withheld_shows(space: GuestSpace, guest: Guest, name: str) -> None:
    live = Live(guest, space.memory, space.cpu)
    shows_what_is_withheld(live, space, Furnished(space), NARROWING[name])


def test_a_large_page_is_split_and_made_again(space: GuestSpace, guest: Guest) -> None:
    splits_and_collapses(Live(guest, space.memory, space.cpu), space, Furnished(space))


def test_an_entry_is_absent_until_the_flush_is_done(space: GuestSpace, guest: Guest) -> None:
    makes_absent_until_flushed(Live(guest, space.memory, space.cpu), space, Furnished(space))


@pytest.mark.parametrize("everything", [False, True])
def test_a_flush_of_an_address_space_leaves_what_is_global(
    space: GuestSpace, guest: Guest, everything: bool
) -> None:
    made = Furnished(space)
    nothing = space.format.fleeting
    assert nothing  # nG, by whose lack pages are global
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    space.unmap(made.small).done()
    live.flush_all(global_pages=everything)
    live.probe(made.small, pages=8)
    found = live.run()
    kept = found.disagreed or any(one.startswith(NOT_SHOWN) for one in found.not_comparable)
    assert bool(kept) is not everything


def test_stores_that_no_one_announced_are_refused(space: GuestSpace, guest: Guest) -> None:
    live = Live(guest, space.memory, space.cpu)
    refuses_what_no_one_announced(live, space, Furnished(space), guest.ram)


def test_what_cannot_be_run_is_a_sentence(space: GuestSpace, guest: Guest) -> None:
    cpu = space.cpu
    low = cpu.low
    assert low is not None
    with pytest.raises(Misuse, match="live is for the lower half alone"):
        Live(guest, space.memory, Cpu.of(low, low, ha=True, features=cpu.features))
    elsewhere = Cpu.of(Half(low.granule, low.address_bits, 0), None, features=cpu.features)
    with pytest.raises(Misuse, match="TTBR0_EL1 0x0 leads to no table where there is memory"):
        Live(guest, space.memory, elsewhere)


def test_code_that_tcg_keeps_of_a_large_page_is_a_known_quirk(
    space: GuestSpace, guest: Guest
) -> None:
    begin = partial(Live, guest, space.memory, space.cpu)
    keeps_code(begin, space, Furnished(space), KEPT_CODE)


# ---- sequences ----


class LowerHalf(GuestWorld):
    def new_roots(self) -> tuple[Root, ...]:
        [first] = self.space.roots
        return (Root(self.allocator.allocate(self.format, first.table.level), first.span),)


class OfArm64(LiveSequences):
    world_of = LowerHalf

    def __init__(self) -> None:
        super().__init__()
        self.keeps = RULES[next(iter(ARM64))]

    def with_root(self, cpu: Cpu, root: Physical) -> Cpu:
        return replace(cpu, ttbr0=int(root))


class Missing(Withheld, OfArm64):
    """On arm64."""


T = TypeVar("T", bound=OfArm64)


def sequences(kind: type[T], guest: Guest) -> type[T]:
    def made() -> tuple[GuestSpace, Live]:
        space = GuestSpace(guest, "4K", 3)
        return space, Live(guest, space.memory, space.cpu)

    return type("Sequences", (kind,), {"made": staticmethod(made)})


def test_the_machine_agrees_after_each_operation_of_a_sequence(guest: Guest) -> None:
    limits = settings(max_examples=10, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(sequences(OfArm64, guest), settings=limits)


def test_sequences_find_a_flush_that_is_withheld(guest: Guest) -> None:
    finds_what_is_withheld(sequences(Missing, guest))


# ---- the table of changes ----


@pytest.mark.parametrize("change", CHANGES, ids=[one.name for one in CHANGES])
def test_the_machine_needs_the_flush_of_a_change(
    guest: Guest, space: GuestSpace, change: Change
) -> None:
    low = space.cpu.low
    assert low is not None
    shape = low.granule, len(space.format.levels)
    levels = list(change.levels(space.format))
    wrong = {level: execute(guest, *shape, change, level) for level in levels}
    assert wrong == {level: [] for level in levels}


@pytest.mark.parametrize(
    ("name", "flush", "sentence"),
    [
        ("a page moved to another frame", NOTHING, "stale though nothing had to be"),
        ("a page mapped", PAGE, "nothing stale was seen while"),
        ("a page unmapped", ALL_FLUSHED, "the library asks to flush the page, not ever"),
    ],
)
def test_a_row_that_is_wrong_is_contradicted(
    guest: Guest, name: str, flush: str, sentence: str
) -> None:
    [row] = [one for one in CHANGES if one.name == name]
    found = execute(guest, "4K", 3, replace(row, flush=flush, unseen=""), 0)
    assert any(one.startswith(sentence) for one in found), found


def test_where_a_fetch_was_made_is_looked_at_be_it_made_or_not(
    guest: Guest, space: GuestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, live = noted(monkeypatch, Live, "_agree"), Live(guest, space.memory, space.cpu)
    page = Virtual(space.roots[0].span.first + space.format.levels[-1].size)
    space.map(page, space.frames(1), 0, space.format.granting("user", "user execute")).done()
    live.probe(Span.of(page, space.format.levels[0].size))
    assert not live.run().disagreed
    for one in batches:
        asked = one.asked[2]
        for made in asked.allowed, ~asked.allowed:
            assert looked_at(one, {"elr": (asked.fetches & made, (0, 17, 63))})["elr"]
        passed_over(one, UNSAID)
    assert batches
