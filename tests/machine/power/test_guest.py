"""POWER's guest: what its stub executes and reports, by trees written by hand."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.machine.errors import GuestLost, LaunchFailure, Misuse
from harness.machine.power.guest import Guest
from harness.machine.power.processor import State
from harness.machine.ram import MIB
from tests.machine.power.handmade import (
    ADDRESS,
    CODE,
    EXECUTE,
    GUARDED,
    MOVED,
    NO_EXECUTE,
    NOT_PRESENT,
    NOT_RECORDED,
    PRIVILEGED,
    PROTECTION,
    READ,
    STORE,
    TREE,
    UNSUPPORTED,
    WRITE,
    C,
    HandMade,
    R,
    V,
    fault,
)
from tests.machine.power.present import QEMU, why_absent

pytestmark = pytest.mark.hw

CONTENT = 0x1122_3344_5566_7788
KERNEL = 3 << 62 | ADDRESS


@pytest.fixture(scope="module")
def guests() -> Iterator[list[Guest]]:
    """The guest that is up, if one is."""
    up: list[Guest] = []
    yield up
    for guest in up:
        guest.close()


@pytest.fixture
def guest(guests: list[Guest]) -> Guest:
    if reason := why_absent():
        pytest.skip(reason)
    if not guests or not guests[-1].is_well():
        guests.append(Guest(program=QEMU))
    return guests[-1]


@pytest.fixture(scope="module")
def frames() -> Iterator[int]:
    return itertools.count(32 * MIB, 64 << 10)


@pytest.fixture(params=[12, 16], ids=["4K", "64K"])
def made(request: pytest.FixtureRequest, guest: Guest, frames: Iterator[int]) -> HandMade:
    return HandMade(guest, request.param, frames)


@pytest.fixture
def simple(guest: Guest, frames: Iterator[int]) -> HandMade:
    return HandMade(guest, 12, frames)


def page(made: HandMade, bits: int, address: int = ADDRESS) -> tuple[int, int]:
    """A page with CONTENT in it and code after that: its slot and its frame."""
    frame = made.frame()
    if not made.guest.info.sets_marks:
        bits |= R | C
    made.words(frame, ">u8")[0] = CONTENT
    made.words(frame + 0x100, ">u4")[: len(CODE)] = CODE
    return made.map(address, frame, bits), frame


def test_the_processor_says_what_it_is(guest: Guest) -> None:
    assert guest.info.pvr >> 16 == 0x4E, "POWER9"
    assert guest.info.amr >> 62 == 3 and guest.info.iamr >> 62 & 1
    assert guest.free == (range(32 * MIB, 1024 * MIB),)


@pytest.mark.parametrize("address", [ADDRESS, KERNEL], ids=["quadrant 0", "quadrant 3"])
@pytest.mark.parametrize("user", [0, 1], ids=["privileged", "problem"])
def test_what_is_allowed_is_done(made: HandMade, user: int, address: int) -> None:
    slot, frame = page(made, READ | WRITE | EXECUTE, address)
    entry = made[slot]
    result = made.ask("READ", address, user=user, watch=slot)
    assert (result["completed"], result["data"], result["vector"]) == (1, CONTENT, 0)
    assert result["after"][0] == entry | R
    result = made.ask("FETCH", address + 0x100, user=user, watch=slot)
    assert (result["completed"], result["data"], result["vector"]) == (1, MOVED, 0xC00)
    assert result["srr0"] == address + 0x10C
    for size in (1, 4, 8):
        made[slot] = entry
        result = made.ask("WRITE", address + size, user=user, size=size, value=size, watch=slot)
        assert (result["completed"], result["data"]) == (1, 0)
        assert result["after"][0] == entry | R | C
        stored = made.words(frame, "u1")[size : 2 * size].tobytes()
        assert int.from_bytes(stored, "big") == size
        assert made.ask("READ", address + size, user=user, size=size)["data"] == size


@pytest.mark.parametrize("user", [0, 1], ids=["privileged", "problem"])
def test_what_is_denied_says_so_and_leaves_the_entry(made: HandMade, user: int) -> None:
    slot, _ = page(made, 0)
    for access, vector, status in (
        ("READ", 0x300, PROTECTION),
        ("WRITE", 0x300, PROTECTION | STORE),
        ("FETCH", 0x400, NO_EXECUTE),
    ):
        result = made.ask(access, ADDRESS + 0x100, user=user, watch=slot)
        assert fault(result) == (vector, status)
        reported = result["srr0" if access == "FETCH" else "dar"]
        assert (reported, result["after"][0]) == (ADDRESS + 0x100, made[slot])


def test_r_and_c_are_set_or_what_needs_one_fails(simple: HandMade) -> None:
    assert simple.guest.info.sets_marks == (simple.guest.version < (8,))
    slot, _ = page(simple, READ | WRITE | EXECUTE)
    for clear, access, vector, status in (
        (R, "READ", 0x300, NOT_RECORDED),
        (R | C, "WRITE", 0x300, NOT_RECORDED | STORE),
        (C, "WRITE", 0x300, NOT_RECORDED | STORE),
        (R, "FETCH", 0x400, NOT_RECORDED),
        (C, "READ", 0, 0),
    ):
        full = simple[slot] | R | C
        simple[slot] = full & ~clear
        result = simple.ask(access, ADDRESS + 0x100, watch=slot)
        if simple.guest.info.sets_marks or not vector:
            assert result["completed"]
            kept = clear & C if access == "READ" else 0
            assert result["after"][0] == full & ~kept
        else:
            assert fault(result) == (vector, status)
            assert result["after"][0] == full & ~clear


def test_pages_that_are_privileged_are_not_for_problem_state(simple: HandMade) -> None:
    page(simple, PRIVILEGED | READ | WRITE | EXECUTE)
    assert simple.ask("READ")["data"] == CONTENT
    assert fault(simple.ask("READ", user=1)) == (0x300, PROTECTION)
    assert fault(simple.ask("WRITE", user=1)) == (0x300, PROTECTION | STORE)
    assert fault(simple.ask("FETCH", ADDRESS + 0x100, user=1)) == (0x400, NO_EXECUTE)


def test_guarded_storage_is_not_executed(simple: HandMade) -> None:
    page(simple, READ | EXECUTE | GUARDED)
    assert simple.ask("READ")["data"] == CONTENT
    assert fault(simple.ask("FETCH", ADDRESS + 0x100)) == (0x400, NO_EXECUTE)


def test_key_0_denies_others_the_pages_of_the_user(simple: HandMade) -> None:
    page(simple, READ | WRITE | EXECUTE)
    simple.under(amr=1 << 62)
    assert fault(simple.ask("READ")) == (0x300, PROTECTION)
    assert simple.ask("READ", user=1)["data"] == CONTENT
    simple.under(amr=1 << 63)
    assert fault(simple.ask("WRITE")) == (0x300, PROTECTION | STORE)
    simple.under(amr=0, iamr=1 << 62)
    assert fault(simple.ask("FETCH", ADDRESS + 0x100)) == (0x400, NO_EXECUTE)
    assert simple.ask("FETCH", ADDRESS + 0x100, user=1)["data"] == MOVED


def test_an_entry_that_is_not_there_or_has_another_size_says_so(made: HandMade) -> None:
    page(made, READ)
    for slot in made.slots(ADDRESS):
        entry = made[slot]
        made[slot] = entry & ~V
        assert fault(made.ask("READ")) == (0x300, NOT_PRESENT)
        assert fault(made.ask("WRITE", user=1)) == (0x300, NOT_PRESENT | STORE)
        assert fault(made.ask("FETCH")) == (0x400, NOT_PRESENT)
        made[slot] = entry
    for slot in made.slots(ADDRESS)[:3]:
        entry = made[slot]
        made[slot] = entry ^ 3
        assert fault(made.ask("READ")) == (0x300, UNSUPPORTED)
        assert fault(made.ask("FETCH", user=1)) == (0x400, UNSUPPORTED)
        made[slot] = entry
    assert made.ask("READ")["data"] == CONTENT


@pytest.mark.parametrize("depth", [2, 3], ids=["1G", "2M"])
def test_large_pages_are_reached(simple: HandMade, depth: int) -> None:
    frame = simple.frame()
    shift = {2: 30, 3: 21}[depth]
    simple.words(frame, ">u8")[0] = CONTENT
    address = ADDRESS >> shift << shift | frame & (1 << shift) - 1
    simple.map(address, frame >> shift << shift, READ | R, depth)
    assert simple.ask("READ", address)["data"] == CONTENT


def test_bits_of_an_address_that_no_tree_translates_are_a_segment_interrupt(
    simple: HandMade,
) -> None:
    page(simple, READ | EXECUTE)
    for bit in (52, 57, 61):
        result = simple.ask("READ", ADDRESS | 1 << bit)
        assert (fault(result), result["dar"]) == ((0x380, 0), ADDRESS | 1 << bit)
        result = simple.ask("FETCH", ADDRESS | 1 << bit, user=1)
        assert (fault(result), result["srr0"]) == ((0x480, 0), ADDRESS | 1 << bit)


def test_what_leads_to_a_tree_is_read(simple: HandMade) -> None:
    page(simple, READ)
    tree = simple.state.user
    assert tree is not None
    for other in (tree ^ 1, tree ^ 1 << 5, tree ^ 1 << 61, 0):
        simple.under(user=other)
        assert fault(simple.ask("READ")) == (0x300, UNSUPPORTED)
    simple.under(user=None)
    assert fault(simple.ask("READ")) == (0x300, NOT_PRESENT)
    assert fault(simple.ask("FETCH")) == (0x400, NOT_PRESENT)
    simple.under(user=tree)
    assert simple.ask("READ")["data"] == CONTENT


def test_other_code_is_reached_and_ends_in_an_interrupt(simple: HandMade) -> None:
    page(simple, READ | EXECUTE)
    for user in (0, 1):
        result = simple.ask("FETCH", ADDRESS + 0x200, user=user)  # zeros, which are no instruction
        assert (result["completed"], result["vector"]) == (1, 0xE40)
        assert result["srr0"] == ADDRESS + 0x200


def test_words_are_patched_before_and_watched_after(simple: HandMade) -> None:
    slot, frame = page(simple, READ)
    job = simple.job("READ")
    job["patched"], job["watched"] = 1, 2
    job["where"][0, :2], job["word"][0, 0] = (slot, frame), 0
    result = simple.guest.run(simple.state, job)[0]
    assert fault(result) == (0x300, NOT_PRESENT)
    assert result["after"][:2].tolist() == [0, CONTENT]
    assert simple[slot] == 0


@pytest.mark.parametrize("flush", ["FLUSH_PAGE", "FLUSH_PROCESS", "FLUSH_ALL"])
def test_a_flush_drops_what_was_kept_and_none_does_not(simple: HandMade, flush: str) -> None:
    slot, _ = page(simple, READ)
    enums = simple.guest.image.enums
    jobs = np.concatenate([simple.job("READ") for _ in range(3)])
    jobs["flush"] = enums["FLUSH_ALL"], enums["FLUSH_NONE"], enums[flush]
    jobs["patched"][1] = 1
    jobs["where"][1, 0], jobs["word"][1, 0] = slot, 0
    results = simple.guest.run(simple.state, jobs)
    assert results["data"][:2].tolist() == [CONTENT, CONTENT], "the page is kept"
    assert fault(results[2]) == (0x300, NOT_PRESENT)


def test_a_guest_that_runs_on_is_parked_and_taken_back(simple: HandMade) -> None:
    page(simple, READ)
    with simple.guest.parked(simple.state) as monitor:
        assert monitor.status() == "paused"
    assert simple.ask("READ")["data"] == CONTENT


def test_thousands_of_accesses_a_second_are_made(simple: HandMade) -> None:
    page(simple, READ | WRITE)
    jobs = np.repeat(simple.job("READ"), 40_000)
    jobs["user"] = np.arange(len(jobs)) & 1
    before = time.monotonic()
    results = simple.guest.run(simple.state, jobs)
    assert results["completed"].all()
    assert len(jobs) / (time.monotonic() - before) > 8_000


MISUSES = {
    "no such access": {"access": 9},
    "no such flush": {"flush": 9},
    "this access has": {"size": 2},
    "two stages": {"address": 1 << 62},
}


@pytest.mark.parametrize("reason", MISUSES)
def test_what_the_stub_cannot_do_is_refused(simple: HandMade, reason: str) -> None:
    job = simple.job("READ")
    for name, value in MISUSES[reason].items():
        job[name] = value
    with pytest.raises(Misuse, match=reason):
        simple.guest.run(simple.state, job)


def test_a_state_that_cannot_be_is_refused(simple: HandMade) -> None:
    for state, reason in (
        (State(TREE, window=5), "no page's address"),
        (State(1 << 64), "user has 64 bits"),
        (State(TREE, amr=-1), "amr has 64 bits"),
    ):
        with pytest.raises(Misuse, match=reason):
            simple.guest.run(state, simple.job("READ"))
    with pytest.raises(Misuse, match="there is none"):
        simple.guest.run(State(TREE), simple.job("READ", user=1))
    with pytest.raises(Misuse, match="code is a multiple of 4"):
        simple.guest.run(State(TREE), simple.job("FETCH", ADDRESS + 2))


def test_a_job_that_ends_the_guest_is_the_guest_s_end(simple: HandMade) -> None:
    job = simple.job("NONE")
    job["patched"], job["where"][0, 0], job["word"][0, 0] = (
        1,
        simple.guest.image.text.start + 0x2000,
        0,
    )
    job = np.concatenate([job, simple.job("READ")])
    simple.guest.deadline = 1
    with pytest.raises(GuestLost):
        simple.guest.run(simple.state, job)
    assert not simple.guest.is_well()


def test_what_qemu_says_in_every_run_is_no_evidence() -> None:
    """Its warning that the machine has no BMC."""
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as guest:
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestLost, match="ended by SIGKILL") as caught:
            guest.run(State(None), guest.image.new_jobs(1))
        assert caught.value.evidence.stderr == ""


def test_a_qemu_for_another_architecture_is_named(tmp_path: Path) -> None:
    other = shutil.which("qemu-system-x86_64")
    if other is None:
        pytest.skip("there is no qemu-system-x86_64 in PATH")
    if reason := why_absent():
        pytest.skip(reason)
    with pytest.raises(LaunchFailure, match="is no QEMU for POWER that has powernv9"):
        Guest(program=other)
