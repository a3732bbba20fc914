"""POWER spaces that are changed while a guest runs in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from harness.check.changes import ALL as ALL_FLUSHED
from harness.check.changes import NOTHING, PAGE, RAM_BYTES, Change
from harness.check.power.changes import CHANGES, execute
from harness.check.power.live import Live
from harness.check.power.quirks import KEPT_CODE
from harness.check.power.space import GuestSpace, MarkedSpace
from harness.machine.errors import Misuse
from harness.machine.power.guest import Guest
from harness.paging.address import Physical
from harness.paging.power.cpu import Cpu, root_descriptor
from harness.paging.table import Root
from tests.check import live_operations
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
from tests.machine.power.present import QEMU, why_absent
from tests.paging.spaces import POWER
from tests.paging.test_space_sequences import RULES

pytestmark = pytest.mark.hw

SHAPES = {"4K": 12, "64K": 16}


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(ram_bytes=RAM_BYTES, program=QEMU) as guest:
        yield guest


@pytest.fixture(params=SHAPES.values(), ids=list(SHAPES))
def space(request: pytest.FixtureRequest, guest: Guest) -> GuestSpace:
    return GuestSpace(guest, request.param)


class Furnished(live_operations.Furnished):
    executable = ("user", "read", "execute")
    rewritten = 2

    def rights(self, *names: str) -> int:
        """To read too: nobody writes, or belongs to the user, without."""
        return self.space.format.granting(*{*names, "read"})

    def bits(self, *names: str) -> int:
        """Referenced and changed: not every processor sets these."""
        return self.rights(*names) | self.space.format.accessed | self.space.format.dirty


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


def test_stores_that_no_one_announced_are_refused(space: GuestSpace, guest: Guest) -> None:
    live = Live(guest, space.memory, space.cpu)
    refuses_what_no_one_announced(live, space, Furnished(space), guest.ram)


def test_what_cannot_be_run_is_a_sentence(space: GuestSpace, guest: Guest) -> None:
    cpu = space.cpu
    with pytest.raises(Misuse, match="live is for the tree of the process alone"):
        Live(guest, space.memory, replace(cpu, quadrant3=cpu.quadrant0 or 0))
    with pytest.raises(Misuse, match="begins at no table where there is memory for tables"):
        Live(guest, space.memory, Cpu.of(0, page_bits=cpu.page_bits))


def test_code_that_tcg_keeps_of_a_large_page_is_a_known_quirk(
    space: GuestSpace, guest: Guest
) -> None:
    begin = partial(Live, guest, space.memory, space.cpu)
    keeps_code(begin, space, Furnished(space), KEPT_CODE)


# ---- sequences ----


class InQuadrant0(GuestWorld):
    def new_roots(self) -> tuple[Root, ...]:
        [first] = self.space.roots
        return (Root(self.allocator.allocate(self.format, first.table.level), first.span),)


class OfPower(LiveSequences):
    world_of = InQuadrant0

    def __init__(self) -> None:
        super().__init__()
        self.keeps = RULES[next(iter(POWER))]

    def with_root(self, cpu: Cpu, root: Physical) -> Cpu:
        return replace(cpu, quadrant0=root_descriptor(root))


class Missing(Withheld, OfPower):
    """On POWER."""


T = TypeVar("T", bound=OfPower)


def sequences(kind: type[T], guest: Guest) -> type[T]:
    def made() -> tuple[GuestSpace, Live]:
        space = MarkedSpace(guest, 12)
        return space, Live(guest, space.memory, space.cpu)

    return type("Sequences", (kind,), {"made": staticmethod(made)})


def test_the_machine_agrees_after_each_operation_of_a_sequence(guest: Guest) -> None:
    limits = settings(max_examples=10, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(sequences(OfPower, guest), settings=limits)


def test_sequences_find_a_flush_that_is_withheld(guest: Guest) -> None:
    finds_what_is_withheld(sequences(Missing, guest))


# ---- the table of changes ----


@pytest.mark.parametrize("change", CHANGES, ids=[one.name for one in CHANGES])
def test_the_machine_needs_the_flush_of_a_change(
    guest: Guest, space: GuestSpace, change: Change
) -> None:
    levels = list(change.levels(space.format))
    wrong = {level: execute(guest, space.cpu.page_bits, change, level) for level in levels}
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
    found = execute(guest, 12, replace(row, flush=flush, unseen=""), 0)
    assert any(one.startswith(sentence) for one in found), found
