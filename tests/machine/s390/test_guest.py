"""s390's guest: what its stub executes and reports, by tables written by hand.

The words are the manual's (Principles of Operation, chapter 3, "Dynamic Address Translation").
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from harness.machine.errors import GuestLost, LaunchFailure, Misuse
from harness.machine.ram import MIB
from harness.machine.s390.guest import Guest, State
from harness.machine.s390.processor import CR0
from tests.machine.s390.present import QEMU, why_absent

pytestmark = pytest.mark.hw

SEGMENTS, PAGES, FRAME = 32 * MIB, 32 * MIB + 0x4000, 32 * MIB + 0x10000
OTHER = FRAME + 0x1000
STATE = State(SEGMENTS | 3)
"""A segment table with a page table for its first 1M: FRAME at 0x1000, at 0x2000 with P, at 0x4000
with IEP."""
CONTENT = 0x1122_3344_5566_7788
CODE = bytes.fromhex("c028deadbeef c029cafef00d 0a00")
"""iihf %r2, 0xdeadbeef; iilf %r2, 0xcafef00d; svc 0."""
FETCH, STORE, SECONDARY, HOME = 0x800, 0x400, 2, 3


@pytest.fixture(scope="module")
def running() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as guest:
        yield guest


@pytest.fixture
def guest(running: Guest) -> Guest:
    words = running.ram.buffer.view(">u8")
    words[SEGMENTS // 8 :][:2048] = 0x20
    words[PAGES // 8 :][:256] = 0x400
    words[SEGMENTS // 8] = PAGES
    words[PAGES // 8 + 1], words[PAGES // 8 + 2] = FRAME, FRAME | 0x200
    words[PAGES // 8 + 4] = FRAME | 0x100
    words[FRAME // 8], words[OTHER // 8] = CONTENT, ~CONTENT % (1 << 64)
    running.ram.buffer[FRAME + 16 :][: len(CODE)] = np.frombuffer(CODE, np.uint8)
    return running


def ask(guest: Guest, access: str, address: int, state: State = STATE, /, **fields: Any) -> Any:
    """The result of one access, everything flushed before it."""
    enums, jobs = guest.image.enums, guest.image.new_jobs(1)
    jobs["access"], jobs["address"] = enums[f"ACCESS_{access}"], address
    jobs["flush"] = enums["FLUSH_ALL"]
    for name, value in fields.items():
        jobs[name] = value
    return guest.run(state, jobs)[0]


def made(guest: Guest, result: Any) -> bool:
    return bool(result["completed"]) and result["code"] == guest.image.enums["CODE_NONE"]


@pytest.mark.parametrize("user", [0, 1])
def test_accesses_are_made_in_problem_and_in_supervisor_state(guest: Guest, user: int) -> None:
    found = ask(guest, "LOAD", 0x1000, user=user)
    assert made(guest, found) and found["data"] == CONTENT
    assert made(guest, ask(guest, "STORE", 0x1000, value=5, user=user))
    assert guest.ram.buffer[FRAME:][:8].tobytes() == (5).to_bytes(8, "big")
    found = ask(guest, "FETCH", 0x1010, user=user)
    assert made(guest, found) and found["data"] == 0xDEAD_BEEF_CAFE_F00D
    assert found["address"] == 0x1010 + len(CODE)


@pytest.mark.parametrize(
    ("access", "address", "cr0", "code", "teid"),
    [
        ("LOAD", 0x3008, 0, 0x11, 0x3000 | FETCH | SECONDARY),
        ("STORE", 0x3008, 0, 0x11, 0x3000 | STORE | SECONDARY),
        ("FETCH", 0x3008, 0, 0x11, 0x3000 | FETCH | HOME),
        ("LOAD", 0x10_0FF8, 0, 0x10, 0x10_0000 | FETCH | SECONDARY),
        ("LOAD", 1 << 31, 0, 0x38, 1 << 31 | FETCH | SECONDARY),
        ("STORE", 0x2FF8, 0, 0x04, 0x2004 | STORE | SECONDARY),
        ("FETCH", 0x4010, CR0["IEP"], 0x04, 0x4084 | FETCH | HOME),
        ("STORE", 0x1000, CR0["LOW_ADDRESS_PROTECTION"], 0x04, 0x1080 | STORE | SECONDARY),
    ],
)
def test_an_interruption_is_reported_with_its_teid(
    guest: Guest, access: str, address: int, cr0: int, code: int, teid: int
) -> None:
    found = ask(guest, access, address, State(STATE.asce, cr0))
    assert (found["completed"], found["code"], found["teid"]) == (0, code, teid)
    assert found["data"] == 0


def test_what_stores_no_teid_is_seen(guest: Guest) -> None:
    guest.ram.buffer.view(">u8")[SEGMENTS // 8] = 1 << 40
    found = ask(guest, "LOAD", 0x1000)
    assert (found["code"], found["teid"]) == (0x05, guest.image.enums["NO_TEID"])


def test_the_storage_key_tells_references_and_changes(guest: Guest) -> None:
    keyed = {"keyed": 1, "frame": FRAME}
    assert ask(guest, "LOAD", 0x1000, **keyed)["key"] == 4
    assert ask(guest, "STORE", 0x1000, **keyed)["key"] == 6
    assert ask(guest, "FETCH", 0x1010, **keyed)["key"] == 4
    assert ask(guest, "LOAD", 0x1000, keyed=1, frame=OTHER)["key"] == 0


def test_words_are_patched_and_watched(guest: Guest) -> None:
    jobs = guest.image.new_jobs(1)
    jobs["access"] = guest.image.enums["ACCESS_LOAD"]
    jobs["address"] = 0x1000
    jobs["flush"] = guest.image.enums["FLUSH_ALL"]
    jobs["patched"], jobs["watched"] = 1, 2
    jobs["where"][0, :2], jobs["word"][0, 0] = (PAGES + 8, OTHER), OTHER
    [found] = guest.run(STATE, jobs)
    assert found["data"] == ~CONTENT % (1 << 64)
    assert found["after"][:2].tolist() == [OTHER, ~CONTENT % (1 << 64)]


@pytest.mark.parametrize(
    ("flush", "stale"), [("FLUSH_NONE", True), ("FLUSH_PAGE", False), ("FLUSH_ALL", False)]
)
def test_what_is_not_flushed_stays(guest: Guest, flush: str, stale: bool) -> None:
    """QEMU keeps what it has translated; the page's entry is changed between two loads."""
    enums, jobs = guest.image.enums, guest.image.new_jobs(2)
    jobs["access"], jobs["address"] = enums["ACCESS_LOAD"], 0x1000
    jobs["flush"] = [enums["FLUSH_ALL"], enums[flush]]
    jobs["patched"], jobs["watched"] = 1, 1
    jobs["where"][:, 0], jobs["word"][:, 0] = PAGES + 8, [FRAME, OTHER]
    first, second = guest.run(STATE, jobs)
    assert first["data"] == CONTENT
    assert second["data"] == (CONTENT if stale else ~CONTENT % (1 << 64))
    assert second["after"][0] == OTHER, "IPTE leaves the entry as it was patched"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State(SEGMENTS | 0x20), "designates real space"),
        (State(1 << 64), "wider than 64 bits"),
        (State(64 * MIB), "outside RAM"),
        (State(64 * MIB - 0x3000 | 3), "outside RAM"),
        (State(SEGMENTS, 1 << 9), "bits that are the stub's"),
    ],
)
def test_a_state_that_the_stub_cannot_take_is_refused(
    guest: Guest, state: State, said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        ask(guest, "LOAD", 0, state)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"access": 4}, "no such access"),
        ({"flush": 3}, "no such flush"),
        ({"flush": 1}, "IPTE is for an entry of where"),
        ({"flush": 1, "entry": 6, "patched": 6}, "IPTE has no such entry"),
        ({"access": 3, "address": 1}, "no odd address"),
        ({"keyed": 1, "frame": 1 << 40}, "the frame is outside RAM"),
        ({"patched": 1, "where": 4}, "multiple of 8"),
        ({"patched": 1, "where": 1 << 40}, "outside RAM"),
    ],
)
def test_a_job_that_the_stub_cannot_do_is_refused(
    guest: Guest, fields: dict[str, int], said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        ask(guest, "LOAD", 0x1000, **fields)


def test_thousands_of_accesses_a_second(guest: Guest) -> None:
    jobs = guest.image.new_jobs(4000)
    jobs["access"] = guest.image.enums["ACCESS_LOAD"]
    jobs["address"] = np.where(np.arange(4000) % 2, 0x1000, 0x3000)
    jobs["flush"] = guest.image.enums["FLUSH_ALL"]
    started = time.process_time(), time.monotonic()
    guest.run(STATE, jobs)
    assert time.monotonic() - started[1] < 10, "it is 100,000 a second on an idle machine"


def test_a_parked_guest_answers_the_monitor(guest: Guest) -> None:
    with guest.parked(STATE) as monitor:
        assert monitor.read_physical(FRAME, 8) == CONTENT.to_bytes(8, "big")
    assert made(guest, ask(guest, "LOAD", 0x1000))


def test_the_processor_says_what_it_has(guest: Guest) -> None:
    assert guest.info.has("iep")
    assert not guest.info.has("edat1") and not guest.info.has("edat2")


def test_code_that_never_ends_is_the_end_of_the_guest() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU, deadline=2.0) as guest:
        words = guest.ram.buffer.view(">u8")
        words[SEGMENTS // 8], words[PAGES // 8] = PAGES, FRAME
        words[FRAME // 8] = 0xA7F4_0000 << 32  # j .
        with pytest.raises(GuestLost, match="no answer within 2 s"):
            ask(guest, "FETCH", 0, State(SEGMENTS))
        assert not guest.is_well()


def test_another_qemu_and_another_processor_are_named() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with pytest.raises(LaunchFailure, match="is no QEMU for s390x that has the processor abacus"):
        Guest(program=QEMU, cpu="abacus")
    with pytest.raises(LaunchFailure, match="is no QEMU for s390x"):
        Guest(program="qemu-system-x86_64")
