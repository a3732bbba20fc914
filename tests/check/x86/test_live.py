"""Every operation on a space, done by a guest that runs in it: what it then sees is what the
reference says, with the flushes that the operation returned and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.compare import EXAMPLES, PROBE
from harness.check.live import BESIDE, NOT_SHOWN, RUNS
from harness.check.x86.live import Live
from harness.check.x86.quirks import KEPT_CODE
from harness.check.x86.space import GuestSpace
from harness.machine.errors import Misuse
from harness.machine.ram import ARENA
from harness.machine.x86.guest import Guest, State
from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.copy import copy_range
from harness.paging.flush import Flush
from harness.paging.isolation import IsolatedSpace
from harness.paging.linux.entries import Counted, Linux, Swap
from harness.paging.linux.folded import Folded
from harness.paging.memory import Words
from harness.paging.reshape import collapse, move, split
from harness.paging.sync import sync_roots
from harness.paging.value import Value
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Outcome, outcome
from harness.paging.x86.cpu import Cr4, canonical_halves
from harness.pytest_plugin import SKIPPED
from tests.check.x86.plants import A, D, in_marks

if TYPE_CHECKING:
    from harness.pytest_plugin import Prove

pytestmark = pytest.mark.hw

PAGE, LARGE = 1 << 12, 2 << 20


@pytest.fixture(params=["end of the user half", "end of the kernel half"])
def at(request: pytest.FixtureRequest, space: GuestSpace, guest: Guest) -> int:
    """Where `furnish` begins."""
    user, kernel = canonical_halves(space.cpu.levels)
    if not guest.engine.keeps_stale and "user" in request.param:
        pytest.skip(f"{SKIPPED}{guest.engine.name}, a hundred times slower, has one half of these")
    half = user if "user" in request.param else kernel
    return half.last + 1 - 8 * LARGE


def furnish(space: GuestSpace, at: int) -> None:
    """Small pages, a large page, a table full of pages in a row, and holes between them."""
    all_rights = space.format.granting("write", "user", "execute")
    space.map(Virtual(at), space.frames(6), 0, all_rights)
    space.map(Virtual(at + 6 * PAGE), space.frames(2), 0, space.format.granting("write"))
    space.map(Virtual(at + 2 * LARGE), space.frames(1, 1), 1, all_rights)
    row = np.uint64(space.frames(1, 1)[0]) + np.arange(512, dtype=np.uint64) * np.uint64(PAGE)
    space.map(Virtual(at + 4 * LARGE), row, 0, all_rights)


SMALL = Span.of(0, 8 * PAGE)
BIG = Span.of(2 * LARGE, LARGE)
ROW = Span.of(4 * LARGE, LARGE)
FREE = Span.of(6 * LARGE, 2 * LARGE)
ALL = (SMALL, BIG, ROW, FREE)
"""What `furnish` has where, counted from where it begins."""


def there(span: Span, at: int) -> Span:
    return Span.of(at + span.first, span.size)


def narrower(raw: Words, level: int) -> Words:
    return raw & ~np.uint64(2)


def put_smaller_rights(space: GuestSpace, at: int) -> Flush:
    slot = space.slot(Virtual(at), 0)
    value = Value(space.format, 0, space.read(slot) & ~6)
    return slots.put(space, slot, value, Virtual(at))


def clear_a_pointer(space: GuestSpace, at: int) -> Flush:
    return slots.clear(space, space.slot(Virtual(at), 1), Virtual(at))


def walk_alloc(space: GuestSpace, at: int) -> Flush:
    slot = slots.root(space, Virtual(at + FREE.first))
    while slot.level:
        slot = slots.walk_alloc(space, slot, Virtual(at + FREE.first))
    frame = int(space.frames(1)[0])
    raw = space.format.leaf(frame, 0, space.format.granting("write"))
    return slots.put(space, slot, Value(space.format, 0, raw), Virtual(at + FREE.first))


def fill_by_old_names(space: GuestSpace, at: int) -> None:
    k, address = Folded(space.format), Virtual(at + FREE.first)
    p4d = k.p4d_alloc(space, k.pgd_offset(space, address), address)
    assert p4d is not None
    pud = k.pud_alloc(space, p4d, address)
    assert pud is not None
    pmd = k.pmd_alloc(space, pud, address)
    assert pmd is not None
    pte = k.pte_alloc_map(space, pmd, address)
    assert pte is not None
    raw = space.format.leaf(int(space.frames(1)[0]), 0, space.format.granting("user"))
    k.set_pte_at(space, address, pte, Value(space.format, 0, raw))


def nothing_to_flush(operation: Callable[[GuestSpace, int], object]) -> Operation:
    def done(space: GuestSpace, at: int) -> Flush:
        operation(space, at)
        return Flush()

    return done


Operation = Callable[[GuestSpace, int], Flush]

NARROWING: dict[str, Operation] = {
    "unmap small pages": lambda s, at: s.unmap(there(SMALL, at)),
    "unmap a large page": lambda s, at: s.unmap(there(BIG, at)),
    "unmap all": lambda s, at: s.unmap(Span.of(at, 8 * LARGE)),
    "protect small pages": lambda s, at: s.protect(there(SMALL, at), s.format.granting("user")),
    "protect a large page": lambda s, at: s.protect(there(BIG, at), s.format.granting("write")),
    "rewrite": lambda s, at: s.rewrite(there(SMALL, at), narrower),
    "move small pages": lambda s, at: move(s, there(SMALL, at), Virtual(at + FREE.first + PAGE)),
    "move a large page": lambda s, at: move(s, there(BIG, at), Virtual(at + FREE.first)),
    "give pages to users": lambda s, at: s.protect(
        Span.of(at + 6 * PAGE, 2 * PAGE), s.format.granting("write", "user")
    ),
    "put a slot": put_smaller_rights,
    "clear a slot": lambda s, at: slots.clear(s, s.slot(Virtual(at), 0), Virtual(at)),
    "clear a pointer": clear_a_pointer,
}
"""Operations after which the machine may hold something stale, and TCG does."""

OTHERS: dict[str, Operation] = {
    "map small pages": nothing_to_flush(
        lambda s, at: s.map(Virtual(at + FREE.first), s.frames(5), 0, s.format.granting("write"))
    ),
    "map a large page": nothing_to_flush(
        lambda s, at: s.map(Virtual(at + FREE.first), s.frames(1, 1), 1, s.format.granting("user"))
    ),
    "map a range": nothing_to_flush(
        lambda s, at: s.map_range(
            Virtual(at + 7 * LARGE - 2 * PAGE),
            Physical(int(s.frames(2, 1)[1]) - 2 * PAGE),
            LARGE + 2 * PAGE,
            s.format.granting("write"),
        )
    ),
    "widen": lambda s, at: s.protect(
        Span.of(at + 6 * PAGE, 2 * PAGE), s.format.granting("write", "execute")
    ),
    "split": lambda s, at: split(s, Virtual(at + BIG.first)),
    "collapse": lambda s, at: collapse(s, Virtual(at + ROW.first), 1),
    "populate": nothing_to_flush(lambda s, at: s.populate(there(FREE, at))),
    "free empty tables": lambda s, at: s.unmap(there(SMALL, at)).absorb(
        s.free_empty(there(SMALL, at))
    ),
    "walk and allocate": walk_alloc,
    "fill by Linux's names": nothing_to_flush(fill_by_old_names),
}


@pytest.fixture
def pages(guest: Guest) -> int:
    """How many pages are probed in a part: KVM is a hundred times slower where it is emulated."""
    return 40 if guest.engine.name == "tcg" else 4


@pytest.fixture
def keeping(guest: Guest) -> None:
    """Only for the engine that keeps every translation until it is told to drop it."""
    if guest.engine.name != "tcg":
        pytest.skip(f"{SKIPPED}{guest.engine.name} need not keep what is not flushed")


def probe_all(live: Live, at: int, pages: int) -> None:
    live.probe(*(there(part, at) for part in ALL), pages=pages)


@pytest.mark.parametrize("name", NARROWING | OTHERS)
def test_the_machine_sees_what_the_operation_made_of_the_tables(
    space: GuestSpace, live: Live, prove: Prove, at: int, pages: int, name: str
) -> None:
    furnish(space, at)
    probe_all(live, at, pages)
    live.probe(there(SMALL, at))  # the parts compete for the same places in the TLB
    live.flush((NARROWING | OTHERS)[name](space, at))
    probe_all(live, at, pages)
    [comparison] = prove(live)
    assert comparison.compared > 4 * 2 * pages


def test_of_an_address_that_is_not_canonical_no_entries_are_told(
    space: GuestSpace, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of the page above the lower half, beside one that is probed."""
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    monkeypatch.setattr(
        Live, "_agree", lambda live, comparison, asked, *_: np.zeros(len(asked), np.bool_)
    )
    user, _ = canonical_halves(space.cpu.levels)
    last = user.last + 1 - PAGE
    space.map(Virtual(last), space.frames(1), 0, space.format.granting()).done()
    live.probe(Span.of(last, PAGE))
    told = {
        (one.address > user.last, one.observed.count("->"), one.observed.endswith(" down: none"))
        for one in live.run().disagreements
    }
    assert told == {(False, space.cpu.levels, False), (True, 0, True)}


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("name", NARROWING)
def test_a_flush_that_is_withheld_shows(
    space: GuestSpace, live: Live, at: int, pages: int, name: str
) -> None:
    furnish(space, at)
    probe_all(live, at, pages)
    live.probe(there(SMALL, at))
    NARROWING[name](space, at).done()
    probe_all(live, at, pages)
    found = live.run()
    assert found.disagreed
    assert all("done, and" in one.observed for one in found.disagreements)
    assert all("flush may be missing" in one.hint for one in found.disagreements)
    if len(found.disagreements) < EXAMPLES:
        assert sum(one.count for one in found.disagreements) == found.disagreed


def forgetting(guest: Guest, monkeypatch: pytest.MonkeyPatch, runs: int) -> list[int]:
    """Has the guest flush everything before each access in the first runs; counts the runs."""
    original, done = guest.run, [0]

    def run(state: State, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        done[0] += 1
        if done[0] <= runs:
            jobs = jobs.copy()
            jobs["flush"] = guest.image.enums["FLUSH_GLOBAL"]
        return original(state, jobs)

    monkeypatch.setattr(guest, "run", run)
    return done


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("forgetful", [1, 5, RUNS - 1])
def test_what_the_machine_dropped_by_itself_is_tried_again(
    space: GuestSpace,
    guest: Guest,
    live: Live,
    at: int,
    forgetful: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish(space, at)
    live.probe(there(SMALL, at))
    space.protect(there(SMALL, at), space.format.granting("user")).done()
    live.probe(there(SMALL, at))
    runs = forgetting(guest, monkeypatch, forgetful)
    assert live.run().disagreed
    assert runs == [forgetful + 1]


def test_a_machine_that_keeps_nothing_is_no_proof_that_nothing_is_missing(
    space: GuestSpace,
    guest: Guest,
    live: Live,
    prove: Prove,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    furnish(space, at)
    live.probe(there(SMALL, at))
    space.unmap(Span.of(at, PAGE)).done()
    live.probe(there(SMALL, at))
    runs = forgetting(guest, monkeypatch, 10 * RUNS)
    with pytest.warns(UserWarning, match=f"{NOT_SHOWN} in .*: {at:#x} is the first address"):
        [found] = prove(live)
    assert runs == [RUNS if guest.engine.keeps_stale else 1]
    [(reason, count)] = found.not_comparable.items()
    # Read, written and executed by users; read and written with AC set; and what SMAP lets be.
    assert reason.startswith(NOT_SHOWN)
    assert count == 3 + 2 + (0 if guest.info.has("smap") else 2) + (not guest.info.has("smep"))
    live.probe(there(SMALL, at))  # the guest goes on from there
    prove(live)


def test_where_every_flush_is_done_once_is_enough(
    space: GuestSpace, guest: Guest, live: Live, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(space, at)
    for part in (SMALL, BIG, ROW):
        live.probe(there(part, at), pages=4)
        live.flush(space.unmap(there(part, at)))
        live.probe(there(part, at), pages=4)
    runs = forgetting(guest, monkeypatch, 0)
    found = live.run()
    assert not found.disagreed and not found.not_comparable
    assert runs == [1]


@pytest.mark.parametrize("wide", [True, False])
def test_a_load_of_cr3_leaves_global_pages_whatever_the_machine_does(
    space: GuestSpace, live: Live, at: int, wide: bool
) -> None:
    """TCG drops them as well, and KVM follows every store: neither shows it."""
    write = space.format.granting("write")
    space.map(Virtual(at), space.frames(2), 0, write | space.format.lasting)
    live.probe(Span.of(at, 2 * PAGE))
    flush = space.unmap(Span.of(at, 2 * PAGE))
    assert flush.global_pages
    flush.done()
    told = Flush()
    told.add(np.array([at], np.uint64), everything=True, global_pages=wide)
    live.flush(told)
    live.probe(Span.of(at, 2 * PAGE))
    found = live.run()
    assert not found.disagreed
    assert any(reason.startswith(NOT_SHOWN) for reason in found.not_comparable) is not wide


@pytest.mark.usefixtures("keeping")
def test_code_that_tcg_keeps_of_a_large_page_is_a_known_quirk(
    space: GuestSpace, live: Live, at: int, pages: int
) -> None:
    furnish(space, at)
    live.probe(there(BIG, at), pages=pages)
    live.flush(space.unmap(there(BIG, at)))
    live.probe(there(BIG, at), pages=pages)
    found = live.run()
    assert not found.disagreed
    assert set(found.quirks) == {KEPT_CODE.name}
    # The page that was flushed and its predecessor are dropped, as are two of the same place.
    assert found.quirks[KEPT_CODE.name] > pages // 2


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("wrong", ["elsewhere", "again", "without a large page"])
def test_nothing_else_is_taken_for_code_that_is_kept(
    space: GuestSpace, live: Live, at: int, wrong: str
) -> None:
    furnish(space, at)
    part = SMALL if wrong == "without a large page" else BIG
    live.probe(there(part, at))
    flush, told = space.unmap(there(part, at)), Flush()
    flush.done()
    if wrong == "elsewhere":  # all of the large page is stale then
        told.add(np.array([at + ROW.first], np.uint64))
    elif wrong == "again":  # neither does a flush of everything keep it, so it is not executed
        told.add_everything()
    live.flush(told)
    live.probe(there(part, at))
    found = live.run()
    assert not found.quirks
    assert bool(found.disagreed) is (wrong != "again")


def test_an_entry_that_the_guest_does_not_leave_as_it_must_be_is_found(
    space: GuestSpace, live: Live, at: int, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(space, at)
    slot = space.slot(Virtual(at), 0)
    live.probe(there(SMALL, at))
    wanted = space.read(slot)
    run = guest.run

    def ran(state: State, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results = run(state, jobs)
        space.memory.store(slot.address, 8, 0)
        return results

    monkeypatch.setattr(guest, "run", ran)
    [found] = live.run().disagreements
    assert (found.oracle, found.address, found.expected) == ("tables", slot.address, hex(wanted))


@pytest.mark.parametrize("bit", [A, D])
def test_a_bit_that_the_reference_forgets_is_found(
    space: GuestSpace, live: Live, at: int, monkeypatch: pytest.MonkeyPatch, bit: int
) -> None:
    in_marks(lambda sets: sets & ~np.uint64(bit))(monkeypatch)
    furnish(space, at)
    live.probe(there(SMALL, at))
    live.probe(there(SMALL, at))
    found = live.run().disagreements
    assert PROBE in {one.oracle for one in found}
    assert not any(one.hint for one in found)  # nothing was changed


def test_what_cannot_be_asked_is_a_sentence(
    space: GuestSpace, guest: Guest, live: Live, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.map(Virtual(at), np.array([guest.ram.size], np.uint64), 0, space.format.granting())
    for probed in Span.of(at, PAGE), Span.of(at + 8, 8):
        with pytest.raises(Misuse, match=f"^{at:#x} leads to {guest.ram.size:#x}, where.*Probe on"):
            live.probe(probed)
    furnish(space, at + LARGE)
    live.probe(there(SMALL, at + LARGE))
    monkeypatch.setattr(guest, "capacity", 10)
    with pytest.raises(Misuse, match="jobs under one root: a batch holds 10; probe fewer pages"):
        live.run()


def test_a_page_beside_what_is_probed_is_left_out_where_it_leads_to_no_frame(
    space: GuestSpace, live: Live, prove: Prove, at: int
) -> None:
    """A direct map from 32 MiB on was refused for a page that was never named."""
    all_rights = space.format.granting("write", "user", "execute")
    machines = np.arange(ARENA.stop - 2 * PAGE, ARENA.stop, PAGE, dtype=np.uint64)
    space.map(Virtual(at), np.concatenate([machines, space.frames(2)]), 0, all_rights)
    theirs = space.memory.octets[ARENA.stop - 2 * PAGE : ARENA.stop]
    before = theirs.copy()
    live.probe(Span.of(at + 2 * PAGE, 2 * PAGE))
    table = np.array([space.cpu.cr3], np.uint64)
    space.map(Virtual(at + LARGE), np.concatenate([table, space.frames(1)]), 0, all_rights)
    live.probe(Span.of(at + LARGE + PAGE, PAGE))
    [found] = prove(live)
    assert (theirs == before).all()
    assert found.not_comparable == {BESIDE: 2 * 8}
    with pytest.raises(Misuse, match=f"^{at + PAGE:#x} leads to"):
        live.probe(Span.of(at + PAGE, 2 * PAGE))


def test_the_window_is_not_probed_and_that_is_said(
    space: GuestSpace, live: Live, prove: Prove
) -> None:
    lower = canonical_halves(space.cpu.levels)[0]
    live.probe(Span.of((lower.last + 1) // 2, PAGE))
    [found] = prove(live)
    assert found.not_comparable == {"the stub runs there": 2 * 8}


@pytest.mark.usefixtures("keeping")
def test_each_address_of_a_flush_is_needed(space: GuestSpace, live: Live, at: int) -> None:
    furnish(space, at)
    for page in range(6):
        span = there(SMALL, at)
        live.probe(span)
        flush = space.protect(span, space.format.granting("user"))
        addresses = flush.addresses
        flush.done()
        told = Flush()
        told.add(np.delete(addresses, page))
        live.flush(told)
        live.probe(span)
        found = live.run()
        assert {one.address // PAGE * PAGE for one in found.disagreements} == {addresses[page]}
        live.flush(space.protect(span, space.format.granting("write", "user", "execute")))


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("told", [True, False])
def test_a_collapse_leaves_nothing_of_the_small_pages(
    space: GuestSpace, live: Live, at: int, told: bool
) -> None:
    furnish(space, at)
    live.probe(there(ROW, at))
    flush = collapse(space, Virtual(at + ROW.first), 1)
    live.flush(flush) if told else flush.done()
    live.flush(space.unmap(there(ROW, at)))
    live.probe(there(ROW, at))
    assert bool(live.run().disagreed) is not told


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("told", [True, False])
def test_a_table_that_is_shared_is_flushed_wherever_it_can_be_reached(
    space: GuestSpace, live: Live, at: int, told: bool
) -> None:
    furnish(space, at)
    alias = Virtual(at + FREE.first)
    space.write(space.slot(alias, 1), space.read(space.slot(Virtual(at), 1)))
    for first in (at, alias):
        live.probe(Span.of(first, SMALL.size))
    flush = space.unmap(there(SMALL, at))
    if not told:
        flush.everything = False
    live.flush(flush)
    live.probe(there(SMALL, at))
    assert not live.run().disagreed
    live.probe(Span.of(alias, SMALL.size))
    assert not live.run().disagreed


@pytest.mark.parametrize("private", [True, False])
def test_after_a_fork_both_roots_read_the_parent_s_data_and_private_pages_are_not_written(
    space: GuestSpace,
    guest: Guest,
    live: Live,
    prove: Prove,
    at: int,
    pages: int,
    private: bool,
) -> None:
    child = GuestSpace(guest, space.cpu.levels, beside=space)
    furnish(space, at)
    probe_all(live, at, pages)
    live.flush(copy_range(space, child, Span.of(at, 8 * LARGE), private=private).flush)
    probe_all(live, at, pages)
    live.load(child.cpu)
    probe_all(live, at, pages)
    for offset in (0, BIG.first, ROW.first):
        mine, its = (outcome_of_write(one, at + offset) for one in (space, child))
        assert {type(mine), type(its)} == {Fault if private else Allowed}
    live.load(space.cpu)
    live.flush(child.tear_down())
    probe_all(live, at, pages)
    prove(live)


def outcome_of_write(space: GuestSpace, address: int) -> Outcome:
    return outcome(space.cpu, space.memory, Virtual(address), Access(Kind.WRITE, user=True))


def test_what_linux_alone_understands_is_absent_to_the_machine_on_both_sides_of_a_fork(
    space: GuestSpace, guest: Guest, live: Live, prove: Prove, at: int, pages: int
) -> None:
    linux, child = Linux(space.format), GuestSpace(guest, space.cpu.levels, beside=space)
    write = space.format.granting("write", "user")
    bits = write | space.format.accessed | space.format.dirty
    space.map(Virtual(at), space.frames(6), 0, bits)
    live.probe(there(SMALL, at), pages=pages)
    none, saved, away = (space.slot(Virtual(at + page * PAGE), 0) for page in range(3))
    changes = {
        none: linux.protect(space.read(none), 0, None),
        saved: linux.protect(space.read(saved), 0, space.format.granting("user")),
        away: linux.encode(Swap(3, 0x1234), 0),
    }
    for page, (slot, raw) in enumerate(changes.items()):
        value = Value(space.format, 0, raw)
        live.flush(slots.put(space, slot, value, Virtual(at + page * PAGE)))
    live.probe(there(SMALL, at), pages=pages)
    copied = copy_range(space, child, there(SMALL, at), linux)
    assert copied.counts == {Counted.PAGE: 5, Counted.SWAP: 1}
    live.flush(copied.flush)
    for one in (space, child):
        live.load(one.cpu)
        live.probe(there(SMALL, at), pages=pages)
        assert isinstance(outcome_of_write(one, at), Fault)
    prove(live)


@pytest.mark.usefixtures("keeping")
def test_a_fork_that_is_not_flushed_lets_the_parent_write(
    space: GuestSpace, guest: Guest, live: Live, at: int
) -> None:
    child = GuestSpace(guest, space.cpu.levels, beside=space)
    furnish(space, at)
    live.probe(there(SMALL, at))
    copy_range(space, child, there(SMALL, at)).flush.done()
    live.probe(there(SMALL, at))
    found = live.run().disagreements
    assert {one.access.kind for one in found if one.access} == {Kind.WRITE}


def test_after_a_sync_every_space_sees_the_kernel(
    space: GuestSpace, guest: Guest, live: Live, prove: Prove, pages: int
) -> None:
    others = [GuestSpace(guest, space.cpu.levels, beside=space) for _ in range(2)]
    kernel = canonical_halves(space.cpu.levels)[1]
    top = space.format.levels[space.cpu.levels - 1].size
    write = space.format.granting("write")
    firsts = [kernel.last + 1 - count * top for count in (1, 3)]
    for first in firsts:
        space.map(Virtual(first), space.frames(3), 0, write)
    sync_roots(space, others, kernel)
    later = firsts[0] + 3 * PAGE
    space.map(Virtual(later), space.frames(1), 0, write)
    for one in (space, *others):
        live.load(one.cpu)
        for first in firsts:
            live.probe(Span.of(first, 4 * PAGE), pages=pages)
        assert isinstance(outcome(one.cpu, one.memory, Virtual(later), SUPERVISOR_READ), Allowed)
    live.flush(space.unmap(Span.of(later, PAGE)))
    for one in (space, *others):
        live.load(one.cpu)
        live.probe(Span.of(later, PAGE), pages=pages)
    prove(live)


SUPERVISOR_READ = Access(Kind.READ, user=False)


def test_under_isolation_each_root_reaches_its_own_only(
    space: GuestSpace, guest: Guest, prove: Prove, pages: int
) -> None:
    levels, format = space.cpu.levels, space.format
    user_half, kernel_half = canonical_halves(levels)
    user_table = space.allocator.allocate(format, levels - 1)
    apart = IsolatedSpace(space.memory, space.roots, space.allocator, space.roots[0], user_table)
    # Without SMEP and SMAP, nothing but the tables keeps the kernel out of user pages.
    kernel = replace(space.cpu, cr4=space.cpu.cr4 & ~(Cr4.SMEP | Cr4.SMAP))
    user = replace(kernel, cr3=user_table.address)
    live = Live(guest, space.memory, kernel)

    top = format.levels[levels - 1].size
    code, secret = user_half.last + 1 - 4 * PAGE, kernel_half.last + 1 - 4 * PAGE
    entry = kernel_half.last + 1 - top
    spans = [Span.of(first, 4 * PAGE) for first in (code, secret, entry)]
    apart.map(Virtual(code), space.frames(4), 0, format.granting("write", "user", "execute"))
    apart.map(Virtual(secret), space.frames(4), 0, format.granting("write"))
    shared = space.frames(4)
    apart.entry.map(Virtual(entry), shared, 0, format.granting("execute"))
    apart.map(Virtual(entry), shared, 0, format.granting("execute"))
    fetch, read = Access(Kind.FETCH, user=False), SUPERVISOR_READ
    for cpu, executes, reads in ((kernel, False, True), (user, True, False)):
        live.load(cpu)
        for span in spans:
            live.probe(span, pages=pages)
        code_there = outcome(cpu, space.memory, Virtual(code), fetch)
        secret_there = outcome(cpu, space.memory, Virtual(secret), read)
        assert isinstance(code_there, Allowed) is executes
        assert isinstance(secret_there, Allowed) is reads
        assert isinstance(outcome(cpu, space.memory, Virtual(entry), fetch), Allowed)
    live.flush(apart.unmap(Span.of(code, 2 * PAGE)))
    live.probe(spans[0], pages=pages)
    live.load(kernel)
    live.probe(spans[0], pages=pages)
    prove(live)


@pytest.mark.usefixtures("keeping")
def test_a_second_flush_that_is_missing_is_counted_where_the_first_ends_the_runs(
    space: GuestSpace, live: Live, at: int
) -> None:
    """Of a load of CR3 that leaves a global page, TCG shows nothing."""
    write = space.format.granting("write")
    space.map(Virtual(at), space.frames(1), 0, write | space.format.lasting)
    space.map(Virtual(at + 4 * LARGE), space.frames(1), 0, write)
    both = [Span.of(at, PAGE), Span.of(at + 4 * LARGE, PAGE)]
    for page in both:
        live.probe(page)
    for page in both:
        space.unmap(page).done()
    told = Flush()
    told.add(np.array([at], np.uint64), everything=True, global_pages=False)
    for page in reversed(both):
        live.probe(page)
    live.flush(told)
    live.probe(both[0])
    found = live.run()
    assert {one.address // LARGE for one in found.disagreements} >= {at // LARGE + 4}
    [reason] = [one for one in found.not_comparable if one.startswith(NOT_SHOWN)]
    assert ", the last of which ended at a disagreement: " in reason
