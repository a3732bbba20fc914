"""RISC-V's guest: what its stub executes and reports, by tables written by hand."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.check.quirk import expected_of
from harness.check.riscv.quirks import PBMTE_WITHOUT_SVPBMT
from harness.machine.errors import GuestLost, LaunchFailure, Misuse
from harness.machine.ram import MIB
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import MENVCFG, RAM_BASE, State
from harness.machine.riscv.qemu import BUILDS
from harness.machine.stub import Relocations, StubImage
from tests.machine.riscv.handmade import (
    ADDRESS,
    CAUSES,
    CODE,
    LEVELS,
    MOVED,
    PAGE,
    WINDOW,
    A,
    D,
    G,
    HandMade,
    R,
    U,
    V,
    W,
    X,
)
from tests.machine.riscv.present import program, why_absent

pytestmark = pytest.mark.hw

CONTENT = 0x1122_3344_5566_7788


@pytest.fixture(scope="module")
def guests() -> Iterator[dict[int, Guest]]:
    """The guests that are up, by their bits."""
    up: dict[int, Guest] = {}
    yield up
    for guest in up.values():
        guest.close()


def guest_of(xlen: int, up: dict[int, Guest]) -> Guest:
    if reason := why_absent(xlen):
        pytest.skip(reason)
    if xlen not in up or not up[xlen].is_well():
        up[xlen] = Guest(xlen, program=program(xlen))
    return up[xlen]


@pytest.fixture(params=[64, 32])
def guest(request: pytest.FixtureRequest, guests: dict[int, Guest]) -> Guest:
    return guest_of(request.param, guests)


@pytest.fixture(scope="module")
def frames() -> Iterator[int]:
    return itertools.count(BUILDS[64].base + 32 * MIB, PAGE)


@pytest.fixture(params=LEVELS)
def made(
    request: pytest.FixtureRequest, guests: dict[int, Guest], frames: Iterator[int]
) -> HandMade:
    guest = guest_of(32 if request.param == "sv32" else 64, guests)
    return HandMade(guest, request.param, frames)


def cut(value: int, width: int) -> int:
    return value % (1 << 8 * width)


def page(made: HandMade, rights: int) -> tuple[int, int]:
    """A page at ADDRESS with CONTENT in it: its slot and its frame."""
    frame = made.frame()
    made.words(frame, "<u8")[0] = CONTENT
    return made.map(ADDRESS, frame, rights), frame


def test_the_processor_says_what_it_is(guest: Guest) -> None:
    info = guest.info
    assert info.modes == ({"sv39", "sv48", "sv57"} if info.xlen == 64 else {"sv32"})
    assert info.isa.startswith(f"rv{info.xlen}im")
    assert info.asid_bits == (16 if info.xlen == 64 else 9)
    assert guest.ram.buffer[32 * MIB :].any() == np.False_, "the device tree is left in RAM"


@pytest.mark.parametrize("mprv", [0, 1], ids=["window", "mprv"])
@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
def test_what_is_allowed_is_done_and_noted_in_the_leaf(
    made: HandMade, user: int, mprv: int
) -> None:
    slot, frame = page(made, R | W | X | A | (U if user else 0))
    after = made[slot]
    for access in ("LOAD", "LR"):
        result = made.ask(access, user=user, mprv=mprv, watch=slot)
        assert result["completed"] == 1
        assert result["cause"] == made.guest.image.enums["CAUSE_NONE"]
        assert result["data"] == cut(CONTENT, made.width)
        assert result["after"][0] == after
        assert result["tval"] == result["epc"] == 0
    result = made.ask("AMO", user=user, mprv=mprv, watch=slot, value=0x55)
    assert result["data"] == cut(CONTENT, made.width)
    assert result["after"][0] == after | D
    assert made.words(frame, f"<u{made.width}")[0] == 0x55
    result = made.ask("STORE", user=user, mprv=mprv, watch=slot, value=0x66)
    assert (result["completed"], result["data"]) == (1, 0)
    assert made.words(frame, f"<u{made.width}")[0] == 0x66


@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
def test_a_fetch_says_what_it_executed(made: HandMade, user: int) -> None:
    slot, frame = page(made, X | A | (U if user else 0))
    made.words(frame, "<u4")[: len(CODE)] = CODE
    result = made.ask("FETCH", user=user, watch=slot)
    assert (result["completed"], result["data"]) == (1, MOVED)
    assert (result["cause"], result["epc"]) == (8 if user else 9, ADDRESS + 8)
    assert made.ask("FETCH", user=not user)["cause"] == CAUSES["FETCH"]


@pytest.mark.parametrize("access", CAUSES)
def test_a_fault_has_the_cause_of_its_access_and_leaves_the_entry(
    made: HandMade, access: str
) -> None:
    denies = {"FETCH": R | W, "LOAD": X, "LR": X, "STORE": R | X, "AMO": R | X}[access]
    slot, frame = page(made, denies | A | D)
    for entry in (made[slot], 0):
        made[slot] = entry
        result = made.ask(access, watch=slot)
        assert (result["completed"], result["data"]) == (0, 0)
        cause = CAUSES[access]
        if access == "AMO" and not entry & R and made.guest.version < (8,):
            # QEMU 7.2, against "AMOs never raise load page-fault exceptions" (section "Sv32").
            cause = CAUSES["LOAD"]
        assert (result["cause"], result["tval"]) == (cause, ADDRESS)
        assert result["after"][0] == entry
    assert made.words(frame, "<u8")[0] == CONTENT
    pc = {"FETCH": ADDRESS}.get(access)
    assert pc == result["epc"] if pc else result["epc"] - WINDOW < PAGE


def test_sum_and_mxr_widen_what_the_supervisor_reads(made: HandMade) -> None:
    page(made, X | U | A | D)
    assert [made.ask("LOAD", sum=s, mxr=m)["completed"] for s in (0, 1) for m in (0, 1)] == [
        0,
        0,
        0,
        1,
    ]
    assert made.ask("LOAD", user=1)["completed"] == 0
    assert made.ask("LOAD", user=1, mxr=1)["completed"] == 1
    assert made.ask("FETCH", sum=1)["cause"] == CAUSES["FETCH"]


def test_accesses_have_every_width(made: HandMade) -> None:
    _, frame = page(made, R | W | A | D)
    for size in (1, 4, 8)[: 2 if made.width == 4 else 3]:
        assert made.ask("LOAD", size=size)["data"] == cut(CONTENT, size)
        made.words(frame, "<u8")[0] = CONTENT
        made.ask("STORE", size=size, value=0)
        assert made.words(frame, "<u8")[0] == CONTENT >> 8 * size << 8 * size
        made.words(frame, "<u8")[0] = CONTENT
        if size > 1:
            assert made.ask("AMO", size=size, value=0)["data"] == cut(CONTENT, size)
            made.words(frame, "<u8")[0] = CONTENT


def test_a_superpage_and_a_global_one(made: HandMade) -> None:
    size = PAGE << made.bits
    first = made.guest.ram.base + 8 * MIB  # a multiple of both sizes
    made.map(0x1000_0000 // size * size, first, R | G | A, level=1)
    made.words(first + 0x5000, "<u8")[0] = CONTENT
    assert made.ask("LOAD", 0x1000_0000 // size * size + 0x5000)["data"] == cut(CONTENT, made.width)


@pytest.mark.parametrize("flush", ["FLUSH_PAGE", "FLUSH_ALL", "FLUSH_PAGE_ASID", "FLUSH_ASID"])
def test_what_a_job_patches_is_seen_after_its_flush(made: HandMade, flush: str) -> None:
    slot, frame = page(made, R | A | D)
    other = made.frame()
    made.words(other, "<u8")[0] = 0x77
    jobs = np.concatenate([made.job("LOAD"), made.job("LOAD"), made.job("NONE")])
    jobs["flush"] = made.guest.image.enums[flush]
    jobs["patched"], jobs["watched"] = (0, 1, 1), 1
    jobs["where"][:, 0] = slot
    jobs["word"][:, 0] = (0, other >> 2 | V | R | A | D, frame >> 2)
    results = made.guest.run(made.state, jobs)
    assert list(results["data"]) == [cut(CONTENT, made.width), 0x77, 0]
    entries = [frame >> 2 | V | R | A | D, jobs["word"][1, 0], frame >> 2]
    assert list(results["after"][:, 0]) == entries
    assert list(results["completed"]) == [1, 1, 1]


def test_by_mprv_qemu_7_2_translates_no_page_that_machine_mode_executes(made: HandMade) -> None:
    """The departure tcg-riscv-mprv-code, and that the same load by the supervisor has none."""
    code = made.guest.image.user.start
    made.map(code, made.frame(), R | A | D)
    assert made.ask("LOAD", code)["data"] == 0
    untranslated = int.from_bytes(made.content(code, made.width), "little")
    by_mprv = made.ask("LOAD", code, mprv=1)["data"]
    assert by_mprv == (untranslated if made.guest.version < (10,) else 0)


def test_qemu_7_2_has_pbmte_without_svpbmt() -> None:
    """The departure tcg-riscv-pbmte-without-svpbmt."""
    if reason := why_absent(64):
        pytest.skip(reason)
    for svpbmt in (True, False):
        cpu = f"rv64,svpbmt={'on' if svpbmt else 'off'}"
        with Guest(64, cpu=cpu, program=program(64)) as one:
            assert one.info.has("svpbmt") is svpbmt
            known = expected_of(PBMTE_WITHOUT_SVPBMT, one.engine.name, one.version)
            assert bool(one.info.menvcfg & MENVCFG["PBMTE"]) is (svpbmt or known)


def test_more_jobs_than_a_batch_holds_are_answered_in_their_order(made: HandMade) -> None:
    _, frame = page(made, R | A | D)
    made.words(frame, "<u4")[:] = np.arange(PAGE // 4, dtype="<u4")
    jobs = made.guest.image.new_jobs(made.guest.capacity + 5)
    jobs[:] = made.job("LOAD", size=4, flush=0, mprv=1)
    place = np.arange(len(jobs)) % (PAGE // 4)
    jobs["address"] = ADDRESS + 4 * place
    assert (made.guest.run(made.state, jobs)["data"] == place).all()


def test_a_parked_guest_has_the_tested_satp_and_goes_on(made: HandMade) -> None:
    page(made, R | A | D)
    with made.guest.parked(made.state) as monitor:
        state = monitor.state()
    assert re.search(rf"satp +{made.state.satp:0{2 * made.width}x}\b", state)
    assert made.ask("LOAD")["completed"] == 1


def test_a_guest_that_waits_needs_no_processor(guest: Guest) -> None:
    def used() -> int:
        fields = Path(f"/proc/{guest.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(0.5)
    assert used() - before <= os.sysconf("SC_CLK_TCK") // 20


def test_states_that_the_processor_cannot_take_are_refused(made: HandMade) -> None:
    info, state = made.guest.info, made.state
    at = 60 if info.xlen == 64 else 31
    for wrong, words in (
        (replace(state, satp=state.satp & (1 << at) - 1), "satp has MODE 0"),
        (replace(state, satp=state.satp + (1 << 20)), "outside RAM"),
        (replace(state, menvcfg=1 << 8), "menvcfg has bits"),
        (replace(state, window=WINDOW + 8), "no page's address"),
        (replace(state, xlen=96 - info.xlen), "the state is of"),
    ):
        with pytest.raises(Misuse, match=words):
            made.guest.run(wrong, made.job("LOAD"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"access": 99}, "no such access"),
        ({"flush": 99}, "no such flush"),
        ({"size": 2}, "this access has"),
        ({"access": 4, "size": 1}, "this access has"),
        ({"access": 3, "mprv": 1}, "MPRV is not for fetches"),
        ({"access": 3, "address": ADDRESS + 1}, "odd address"),
        ({"patched": 7}, "no room"),
        ({"watched": 1}, "outside RAM"),
    ],
)
def test_jobs_that_the_stub_cannot_do_are_refused(
    made: HandMade, fields: dict[str, int], words: str
) -> None:
    job = made.job("LOAD")
    for name, value in fields.items():
        job[name] = value
    with pytest.raises(Misuse, match=words):
        made.guest.run(made.state, job)


def test_an_exception_that_no_probe_provoked_ends_the_guest(
    made: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = made.guest._describe

    def with_jobs_nowhere(batch: object) -> None:
        describe(batch)  # type: ignore[arg-type]
        image = made.guest.image
        made.guest._structure(image.batch, image.batch_dtype)["jobs"] = 4 * MIB  # nothing is there

    monkeypatch.setattr(made.guest, "_describe", with_jobs_nowhere)
    with pytest.raises(GuestLost, match="panic mcause=") as lost:
        made.guest.run(made.state, made.job("LOAD"))
    assert lost.value.evidence.registers["mcause"] == 5
    assert not made.guest.is_well()


def test_a_qemu_of_another_architecture_is_named() -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    for other in {"qemu-system-x86_64", program(32)} - {None}:
        if shutil.which(other):
            with pytest.raises(LaunchFailure, match="no QEMU for RISC-V of 64 bits"):
                Guest(64, program=other)


def test_a_state_is_made_of_a_mode_and_a_root() -> None:
    assert State.of("sv39", 0x8200_0000, asid=5).satp == 8 << 60 | 5 << 44 | 0x82000
    assert State.of("sv32", 0x8200_0000, asid=5).satp == 1 << 31 | 5 << 22 | 0x82000
    assert State.of("sv57", 0x8200_0000).root == 0x8200_0000


# ---- a stub that gives way ----


@pytest.mark.parametrize("xlen", [64, 32])
@pytest.mark.parametrize("megabytes", [4, 64, 992])
def test_a_stub_that_is_moved_begins_by_a_jump_that_is_then_gone(xlen: int, megabytes: int) -> None:
    """The last is the end of a GiB, below which QEMU puts the device tree."""
    if reason := why_absent(xlen):
        pytest.skip(reason)
    base = RAM_BASE + megabytes * MIB
    image = StubImage.load(BUILDS[xlen]).moved(base)
    size = max(64, megabytes + 32) * MIB
    with Guest(xlen, ram_bytes=size, image=image, program=program(xlen)) as guest:
        assert guest.info.xlen == xlen and guest.image.arena == range(base, base + 32 * MIB)
        below = range(RAM_BASE, base)
        above = range(base + 32 * MIB, RAM_BASE + size)
        assert guest.free == ((below, above) if above else (below,))
        for part in guest.free:
            assert not guest.ram.view(part, np.dtype([("word", "<u8")]))["word"].any()
        satp = State.of("sv32" if xlen == 32 else "sv39", RAM_BASE)
        jobs = guest.image.new_jobs(1)
        jobs["access"], jobs["mprv"], jobs["address"] = guest.image.enums["ACCESS_LOAD"], 1, 0
        jobs["size"] = xlen // 8
        (result,) = guest.run(satp, jobs)
        assert (result["completed"], result["cause"]) == (0, CAUSES["LOAD"])


def test_a_stub_without_its_relocations_is_not_moved() -> None:
    image = StubImage.load(BUILDS[64])
    with pytest.raises(Misuse, match="no arena begins at"):
        image.moved(RAM_BASE + MIB)
    with pytest.raises(Misuse, match="cannot be moved: it has a relocation of type"):
        build = replace(BUILDS[64], moves=Relocations(absolute=(), relative=()))
        replace(image, build=build).moved(RAM_BASE + 4 * MIB)
