"""RISC-V spaces that are changed while a guest runs in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from harness.check.changes import ALL, NOTHING, PAGE, RAM_BYTES, Change
from harness.check.live import NOT_SHOWN
from harness.check.riscv.cases import Stated
from harness.check.riscv.changes import CHANGES, execute
from harness.check.riscv.live import Live
from harness.check.riscv.space import GuestSpace
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Leaf
from harness.paging.flush import Flush
from harness.paging.reshape import collapse, move, split
from harness.paging.riscv import bulk as rules
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import Cpu, Satp
from harness.paging.riscv.formats import PAGE_BITS, A, D, sv
from tests.check.live_operations import sees, shows_what_is_withheld
from tests.check.live_sequences import LiveSequences, Withheld, finds_what_is_withheld
from tests.check.tampered import looked_at, noted
from tests.machine.riscv.present import program, why_absent
from tests.paging.test_space_sequences import Rules

pytestmark = pytest.mark.hw

MODES = ("sv32", "sv39", "sv48", "sv57")


def guest_of(xlen: int) -> Iterator[Guest]:
    if reason := why_absent(xlen):
        pytest.skip(reason)
    with Guest(xlen, ram_bytes=RAM_BYTES, program=program(xlen)) as guest:
        yield guest


@pytest.fixture(scope="module")
def wide() -> Iterator[Guest]:
    """A guest of 64 bits."""
    yield from guest_of(64)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Guest]:
    """A guest of 32 bits."""
    yield from guest_of(32)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def guest(request: pytest.FixtureRequest, mode: str) -> Guest:
    found: Guest = request.getfixturevalue("narrow" if mode == "sv32" else "wide")
    return found


@pytest.fixture
def space(guest: Guest, mode: str) -> GuestSpace:
    return GuestSpace(guest, mode)


@pytest.fixture
def live(guest: Guest, space: GuestSpace) -> Live:
    return Live(guest, space.memory, space.cpu)


class Furnished:
    """Small pages, a large page, and holes between them, where the sizes of a mode have them."""

    def __init__(self, space: GuestSpace) -> None:
        self.space, levels = space, space.format.levels
        self.page, self.large = levels[0].size, levels[1].size
        self.at = space.roots[-1].span.last + 1 - 8 * self.large
        everything = space.format.granting("read", "write", "user", "execute")
        space.map(Virtual(self.at), space.frames(6), 0, everything).done()
        space.map(
            Virtual(self.pages(6, 2).first), space.frames(2), 0, self.rights("read", "write")
        ).done()
        space.map(self.big_at, space.frames(1, 1), 1, everything).done()

    def rights(self, *names: str) -> int:
        return self.space.format.granting(*names)

    def pages(self, first: int, count: int) -> Span:
        return Span.of(self.at + first * self.page, count * self.page)

    @property
    def small(self) -> Span:
        return self.pages(0, 8)

    @property
    def big(self) -> Span:
        return Span.of(self.at + 2 * self.large, self.large)

    @property
    def free(self) -> Span:
        return Span.of(self.at + 5 * self.large, self.large)

    @property
    def big_at(self) -> Virtual:
        return Virtual(self.big.first)

    @property
    def free_at(self) -> Virtual:
        return Virtual(self.free.first)

    def probe(self, live: Live) -> None:
        live.probe(self.small, self.big, self.free, pages=10)


Operation = Callable[[GuestSpace, Furnished], Flush]


def of_the_first(change: Callable[[int], int]) -> Operation:
    def done(space: GuestSpace, made: Furnished) -> Flush:
        slot = space.slot(Virtual(made.at), 0)
        value = replace(slots.value(space, slot), raw=change(space.read(slot)))
        return slots.put(space, slot, value, Virtual(made.at))

    return done


NARROWING: dict[str, Operation] = {
    "unmap small pages": lambda s, made: s.unmap(made.small),
    "unmap a large page": lambda s, made: s.unmap(made.big),
    "protect small pages": lambda s, made: s.protect(made.small, made.rights("read", "user")),
    "protect a large page": lambda s, made: s.protect(made.big, made.rights("execute")),
    "rewrite": lambda s, made: s.rewrite(made.small, lambda raw, level: raw & ~np.uint64(D)),
    "move small pages": lambda s, made: move(s, made.small, made.free_at),
    "clear a slot": lambda s, made: slots.clear(s, s.slot(Virtual(made.at), 0), Virtual(made.at)),
    "clear a pointer": lambda s, made: slots.clear(
        s, s.slot(Virtual(made.at), 1), Virtual(made.at)
    ),
    "forbid a page": of_the_first(lambda raw: raw & ~0xE | 0x4),
}
"""Operations after which the machine may hold something stale, and QEMU does."""

OTHERS: dict[str, Operation] = {
    "map small pages": lambda s, made: s.map(
        made.free_at, s.frames(5), 0, made.rights("read", "write", "user")
    ),
    "widen": lambda s, made: s.protect(made.pages(6, 2), made.rights("read", "write", "execute")),
    "split": lambda s, made: split(s, made.big_at),
    "split and collapse": lambda s, made: split(s, made.big_at).absorb(collapse(s, made.big_at, 1)),
    "free empty tables": lambda s, made: s.unmap(made.small).absorb(s.free_empty(made.small)),
}


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


def test_what_was_absent_and_is_mapped_without_a_fence_is_not_known(
    space: GuestSpace, guest: Guest
) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    space.map(made.free_at, space.frames(1), 0, made.rights("read", "write")).done()
    made.probe(live)
    found = live.run()
    assert found.disagreed == 0
    [reason] = [one for one in found.not_comparable if one.startswith(NOT_SHOWN)]
    assert "in 16 runs" in reason and f"{made.free_at:#x}" in reason


def test_after_a_fence_of_an_address_what_its_pointers_said_may_be_kept(
    space: GuestSpace, guest: Guest
) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    slots.clear(space, space.slot(Virtual(made.at), 1), Virtual(made.at)).done()
    live.flush(range(made.at, made.at + 8 * made.page, made.page))
    live.probe(made.small, pages=8)
    found = live.run()
    assert found.disagreed == 0
    assert any(one.startswith(NOT_SHOWN) for one in found.not_comparable)


@pytest.mark.parametrize("bit", [A, D])
def test_a_bit_that_the_reference_forgets_is_found(
    space: GuestSpace, guest: Guest, monkeypatch: pytest.MonkeyPatch, bit: int
) -> None:
    if not space.cpu.sets_marks:
        pytest.skip("this QEMU's processor sets neither A nor D: it has no menvcfg.ADUE")
    made = Furnished(space)
    true = rules.outcomes

    def wrong(*args: object, **named: object) -> rules.Outcomes:
        found = true(*args, **named)  # type: ignore[arg-type]
        return replace(found, sets=found.sets & ~np.uint64(bit))

    monkeypatch.setattr("harness.check.riscv.live.outcomes", wrong)
    live = Live(guest, space.memory, space.cpu)
    slots_of = made.pages(0, 2)
    space.rewrite(slots_of, lambda raw, level: raw & ~np.uint64(A | D)).done()
    live.flush_all()
    live.probe(slots_of)
    assert live.run().disagreed


def test_stores_that_no_one_announced_are_refused(space: GuestSpace, guest: Guest) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    slot, width = space.slot(Virtual(made.at), 0), space.format.entry_bytes
    at = slot.address - guest.ram.base
    guest.ram.buffer[at : at + width] = 0
    with pytest.raises(Misuse, match="no one has announced that store"):
        made.probe(live)


def test_foreign_stores_and_a_missing_flush_show(space: GuestSpace, guest: Guest) -> None:
    made = Furnished(space)
    live = Live(guest, space.memory, space.cpu)
    made.probe(live)
    slot, width = space.slot(Virtual(made.at), 0), space.format.entry_bytes
    was = space.format.decode(space.read(slot), 0)
    assert isinstance(was, Leaf)
    at = slot.address - guest.ram.base
    with live.changes():
        guest.ram.buffer[at : at + width] = 0
    made.probe(live)
    found = live.run()
    assert f"a flush may be missing: {made.at:#x} was unmapped" in found.disagreements[0].hint
    for one in found.disagreements:
        assert isinstance(one.access, Stated)
        cause = {Kind.READ: 13, Kind.WRITE: 15, Kind.FETCH: 12}[one.access.kind]
        said = f"cause {cause}: the entry has V=0 (step 3); at call 2 of live.probe"
        assert one.expected == said
        assert one.observed.startswith("done, and the word is 0x")
        # A word of 64 bits that was read names the frame in which it was found.
        named = f", the mark of {was.address:#x}; entries from" in one.observed
        assert named == (width == 8 and one.access.kind is Kind.READ)
        pointer = space.read(space.slot(Virtual(made.at), 1))
        assert one.observed.endswith(f" {pointer:#x} -> {pointer:#x}, 0x0 -> 0x0")


def test_the_root_must_be_in_memory(space: GuestSpace, guest: Guest) -> None:
    cpu = replace(space.cpu, satp=Satp(space.cpu.mode, 1).raw)
    with pytest.raises(Misuse, match="has the root table at 0x1000, where there is no memory"):
        Live(guest, space.memory, cpu)


# ---- the table of changes ----


@pytest.mark.parametrize("mode", ["sv32", "sv57"])  # which have the levels of the others
@pytest.mark.parametrize("change", CHANGES, ids=[one.name for one in CHANGES])
def test_the_machine_needs_the_flush_of_a_change(guest: Guest, mode: str, change: Change) -> None:
    levels = list(change.levels(GuestSpace(guest, mode).format))
    wrong = {level: execute(guest, mode, change, level) for level in levels}
    assert wrong == {level: [] for level in levels}


@pytest.mark.parametrize("mode", ["sv32", "sv57"])
@pytest.mark.parametrize(
    ("name", "flush", "sentence"),
    [
        ("a page moved to another frame", NOTHING, "stale though nothing had to be"),
        ("write given to a page", PAGE, "nothing stale was seen while"),
        ("a page unmapped", ALL, "the library asks to flush the page, not ever"),
    ],
)
def test_a_row_that_is_wrong_is_contradicted(
    guest: Guest, mode: str, name: str, flush: str, sentence: str
) -> None:
    [row] = [one for one in CHANGES if one.name == name]
    found = execute(guest, mode, replace(row, flush=flush, unseen=""), 0)
    assert any(one.startswith(sentence) for one in found), found


def test_every_level_has_its_rows() -> None:
    format = sv(57)
    for level, here in enumerate(format.levels):
        rows = [one for one in CHANGES if level in one.levels(format)]
        found = {row.before.kind for row in rows} - {"absent"}
        roomy = {"page"} if here.size < RAM_BYTES else set()
        assert found == roomy | ({"table"} if here.pointer else set())


# ---- sequences ----


class OfRiscv(LiveSequences):
    def __init__(self) -> None:
        super().__init__()
        group = 16 if self.own.cpu.svnapot else 1
        self.keeps = Rules(absent=True, denials=True, leaves=True, group=group)

    def with_root(self, cpu: Cpu, root: Physical) -> Cpu:
        return replace(cpu, satp=Satp(cpu.mode, root >> PAGE_BITS).raw)


class Missing(Withheld, OfRiscv):
    """On RISC-V."""


T = TypeVar("T", bound=OfRiscv)


def sequences(kind: type[T], guest: Guest, mode: str) -> type[T]:
    def made() -> tuple[GuestSpace, Live]:
        space = GuestSpace(guest, mode)
        return space, Live(guest, space.memory, space.cpu)

    return type("Sequences", (kind,), {"made": staticmethod(made)})


@pytest.mark.parametrize("mode", ["sv32", "sv57"])
def test_the_machine_agrees_after_each_operation_of_a_sequence(guest: Guest, mode: str) -> None:
    limits = settings(max_examples=10, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(sequences(OfRiscv, guest, mode), settings=limits)


@pytest.mark.parametrize("mode", ["sv39"])  # every flush is withheld in all of them above
def test_sequences_find_a_flush_that_is_withheld(guest: Guest, mode: str) -> None:
    finds_what_is_withheld(sequences(Missing, guest, mode))


def test_where_a_fetch_was_made_is_looked_at_be_it_made_or_not(
    live: Live, space: GuestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = noted(monkeypatch, Live, "_agree")
    page = Virtual(space.roots[0].span.first + space.format.levels[-1].size)
    space.map(page, space.frames(1), 0, space.format.granting("read", "execute", "user")).done()
    live.probe(Span.of(page, space.format.levels[0].size))
    assert not live.run().disagreed
    for one in batches:
        asked = one.asked[2]
        for made in asked.allowed, ~asked.allowed:
            assert looked_at(one, {"epc": (asked.fetches & made, (0, 17, 63))})["epc"]
    assert batches
