"""POWER spaces that are changed while a guest runs in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from harness.check.changes import ALL as ALL_FLUSHED
from harness.check.changes import NOTHING, PAGE, RAM_BYTES, Change
from harness.check.compare import PROBE
from harness.check.live import NOT_SHOWN
from harness.check.power.changes import CHANGES, execute
from harness.check.power.live import Live
from harness.check.power.quirks import KEPT_CODE
from harness.check.power.space import GuestSpace, MarkedSpace
from harness.machine.errors import Misuse
from harness.machine.power.guest import Guest
from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.flush import Flush
from harness.paging.power.cpu import Cpu, root_descriptor
from harness.paging.reshape import collapse, move, split
from harness.paging.table import Root
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


class Furnished:
    """Small pages, a large page where there is one, and holes between them."""

    def __init__(self, space: GuestSpace) -> None:
        self.space, levels = space, space.format.levels
        self.page, self.large = levels[0].size, levels[1].size
        self.at = 8 * self.large
        space.map(Virtual(self.at), space.frames(6), 0, self.rights("write", "user")).done()
        beside = Virtual(self.at + 6 * self.page)
        executable = self.rights("user", "read", "execute")
        space.map(beside, space.frames(2), 0, executable).done()
        space.map(self.big_at, space.frames(1, 1), 1, self.rights("write", "user")).done()

    def rights(self, *names: str) -> int:
        """The bits of a page, referenced and changed: not every processor sets these."""
        return self.authority(*names) | self.space.format.accessed | self.space.format.dirty

    def authority(self, *names: str) -> int:
        read = {"read"} if "write" in names else set()
        return self.space.format.granting(*{*names, *read})

    @property
    def small(self) -> Span:
        return Span.of(self.at, 8 * self.page)

    @property
    def big_at(self) -> Virtual:
        return Virtual(self.at + 2 * self.large)

    @property
    def big(self) -> Span:
        return Span.of(self.big_at, self.large)

    @property
    def pages_of_the_large(self) -> range:
        return range(self.big_at, self.big_at + self.large, self.page)

    @property
    def free_at(self) -> Virtual:
        return Virtual(self.at + 5 * self.large)

    def probe(self, live: Live) -> None:
        live.probe(self.small, self.big, Span.of(self.free_at, 8 * self.page), pages=9)


Operation = Callable[[GuestSpace, Furnished], Flush]


def moved_in_place(space: GuestSpace, made: Furnished) -> Flush:
    """Another frame for a page that is there: by break-before-make."""
    slot = space.slot(Virtual(made.at), 0)
    raw = space.format.leaf(int(space.frames(1)[0]), 0, made.rights("write", "user"))
    value = replace(slots.value(space, slot), raw=raw)
    return slots.put(space, slot, value, Virtual(made.at))


NARROWING: dict[str, Operation] = {
    "unmap small pages": lambda s, made: s.unmap(made.small),
    "unmap a large page": lambda s, made: s.unmap(made.big),
    "protect small pages": lambda s, made: s.protect(made.small, made.authority("user", "read")),
    "protect a large page": lambda s, made: s.protect(made.big, made.authority("write")),
    "rewrite": lambda s, made: s.rewrite(made.small, lambda raw, level: raw & ~np.uint64(2)),
    "move small pages": lambda s, made: move(s, made.small, made.free_at),
    "clear a slot": lambda s, made: slots.clear(s, s.slot(Virtual(made.at), 0), Virtual(made.at)),
    "clear a pointer": lambda s, made: slots.clear(
        s, s.slot(Virtual(made.at), 1), Virtual(made.at)
    ),
    "another frame": moved_in_place,
}
"""Operations after which the machine may hold something stale, and QEMU does."""

OTHERS: dict[str, Operation] = {
    "map small pages": lambda s, made: s.map(
        made.free_at, s.frames(5), 0, made.rights("write", "user")
    ),
    "split": lambda s, made: split(s, made.big_at),
    "free empty tables": lambda s, made: s.unmap(made.small).absorb(s.free_empty(made.small)),
}


@pytest.mark.parametrize("name", NARROWING | OTHERS)
def test_the_machine_sees_what_the_operation_made_of_the_tables(
    space: GuestSpace, guest: Guest, name: str
) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    live.flush((NARROWING | OTHERS)[name](space, made))
    made.probe(live)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]
    assert found.compared > 200
    assert not any(reason.startswith(NOT_SHOWN) for reason in found.not_comparable)


@pytest.mark.parametrize("name", NARROWING)
def test_a_flush_that_is_withheld_shows(space: GuestSpace, guest: Guest, name: str) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    NARROWING[name](space, made).done()
    made.probe(live)
    found = live.run()
    assert found.disagreed
    first = found.disagreements[0]
    assert first.oracle == PROBE and "at call 2 of live.probe" in first.expected
    assert first.hint.startswith("a flush may be missing: ") and "at call 1 of" in first.hint


def test_a_large_page_is_split_and_made_again(space: GuestSpace, guest: Guest) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    live.flush(split(space, made.big_at))
    made.probe(live)
    live.flush(collapse(space, made.big_at, 1))
    made.probe(live)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]


def test_an_entry_is_absent_until_the_flush_is_done(space: GuestSpace, guest: Guest) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(Span.of(made.at, made.page), pages=1)
    flush = moved_in_place(space, made)
    slot = space.slot(Virtual(made.at), 0)
    assert space.memory.load(slot.address, 8) == 0 != space.read(slot)
    live.probe(Span.of(made.at + 3 * made.page, made.page), pages=1)
    live.flush(flush)
    assert space.memory.load(slot.address, 8) == space.read(slot)
    live.probe(Span.of(made.at, made.page), pages=1)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]


def test_stores_that_no_one_announced_are_refused(space: GuestSpace, guest: Guest) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    slot = space.slot(Virtual(made.at), 0)
    at = slot.address - guest.ram.base
    guest.ram.buffer[at : at + 8] = 0
    with pytest.raises(Misuse, match="no one has announced that store"):
        made.probe(live)


def test_what_cannot_be_run_is_a_sentence(space: GuestSpace, guest: Guest) -> None:
    cpu = space.cpu
    with pytest.raises(Misuse, match="live is for the tree of the process alone"):
        Live(guest, space.memory, replace(cpu, quadrant3=cpu.quadrant0 or 0))
    with pytest.raises(Misuse, match="begins at no table where there is memory for tables"):
        Live(guest, space.memory, Cpu.of(0, page_bits=cpu.page_bits))


def test_code_that_tcg_keeps_of_a_large_page_is_a_known_quirk(
    space: GuestSpace, guest: Guest
) -> None:
    made = Furnished(space)
    executable = made.rights("user", "read", "execute")
    space.protect(made.big, made.authority("user", "read", "execute")).done()
    for addresses, shows in (([made.big_at], True), (made.pages_of_the_large, False)):
        if not space.read(space.slot(made.big_at, 1)):
            space.map(made.big_at, space.frames(1, 1), 1, executable).done()
        live = Live(guest, space.memory, space.cpu)
        live.probe(made.big, pages=9)
        space.unmap(made.big).done()
        live.flush(addresses)
        live.probe(made.big, pages=9)
        found = live.run()
        assert found.disagreed == 0, found.disagreements[0]
        assert bool(found.quirks[KEPT_CODE.name]) is shows


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
