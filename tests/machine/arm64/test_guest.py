"""arm64's guest: what its stub executes and reports, by tables written by hand."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.machine.arm64.guest import Guest
from harness.machine.arm64.processor import State
from harness.machine.arm64.qemu import BUILD
from harness.machine.errors import GuestLost, LaunchFailure, Misuse
from harness.machine.ram import MIB
from tests.machine.arm64.handmade import (
    ABORT,
    ACCESS,
    ADDRESS,
    AF,
    CODE,
    DBM,
    DS,
    E0PD0,
    EPAN,
    EPD0,
    EPD1,
    FORMS,
    HA,
    HD,
    MOVED,
    NG,
    PERMISSION,
    PXN,
    READ_ONLY,
    SIZE,
    TABLE,
    TRANSLATION,
    USER,
    UXN,
    WALK_ABORT,
    WINDOW,
    WXN,
    HandMade,
    fault,
)
from tests.machine.arm64.present import QEMU, why_absent

pytestmark = pytest.mark.hw

CONTENT = 0x1122_3344_5566_7788
NOWHERE = 0x2_0000_0000
"""Beyond RAM, where the machine has nothing."""

READS = ("READ", "READ_UNPRIVILEGED")
WRITES = ("WRITE", "WRITE_UNPRIVILEGED")
SWAPS = ("SWAP", "EXCLUSIVE")
CLASSES = ((0x25, 0x21), (0x24, 0x20))
"""The exception classes of a data abort and an instruction abort, from EL1 and from EL0."""


@pytest.fixture(scope="module")
def guests() -> Iterator[dict[str, Guest]]:
    """The guests that are up, by their processors."""
    up: dict[str, Guest] = {}
    yield up
    for guest in up.values():
        guest.close()


def guest_of(cpu: str, up: dict[str, Guest]) -> Guest:
    if reason := why_absent():
        pytest.skip(reason)
    if cpu not in up or not up[cpu].is_well():
        up[cpu] = Guest(cpu=cpu, program=QEMU, ram_bytes=512 * MIB)
    return up[cpu]


@pytest.fixture
def guest(guests: dict[str, Guest]) -> Guest:
    return guest_of("max", guests)


@pytest.fixture(scope="module")
def frames() -> Iterator[int]:
    return itertools.count(BUILD.base + 32 * MIB, 64 << 10)


@pytest.fixture(params=FORMS)
def made(request: pytest.FixtureRequest, guest: Guest, frames: Iterator[int]) -> HandMade:
    return HandMade(guest, FORMS[request.param], frames)


@pytest.fixture
def simple(guest: Guest, frames: Iterator[int]) -> HandMade:
    return HandMade(guest, FORMS["4k"], frames)


def page(made: HandMade, bits: int) -> tuple[int, int]:
    """A page at ADDRESS with CONTENT in it: its slot and its frame."""
    frame = made.frame()
    made.words(frame, "<u8")[0] = CONTENT
    return made.map(ADDRESS, frame, bits), frame


def test_the_processor_says_what_it_is(guests: dict[str, Guest]) -> None:
    info = guest_of("max", guests).info
    assert info.granules == {"4K", "16K", "64K"}
    assert info.wide == {"4K", "16K", "64K"}
    assert (info.physical_bits, info.asid_bits) == (52, 16)
    assert info.accessed and info.dirty and info.small_tables and info.hierarchy_optional
    assert info.uao and info.e0pd and info.atomics
    assert info.pan == (2 if guests["max"].version < (8,) else 3)
    info = guest_of("cortex-a72", guests).info
    assert info.granules == {"4K", "64K"}
    assert not info.wide
    assert (info.physical_bits, info.asid_bits) == (44, 16)
    assert not (info.accessed or info.dirty or info.small_tables or info.hierarchy_optional)
    assert not (info.uao or info.e0pd or info.atomics or info.pan)


@pytest.mark.parametrize("user", [0, 1], ids=["el1", "el0"])
def test_what_is_allowed_is_done(made: HandMade, user: int) -> None:
    slot, frame = page(made, AF | (USER if user else 0) | DBM)
    if user:  # DBM means nothing unless HD is set
        made[slot] &= ~DBM
    for access in READS if user else READS[:1]:
        result = made.ask(access, user=user, watch=slot)
        assert (result["completed"], result["data"]) == (1, CONTENT)
        assert result["far"] == result["elr"] == result["esr"] == 0
        assert result["after"][0] == made[slot]
    for number, access in enumerate(SWAPS):
        made.words(frame, "<u8")[0] = CONTENT
        result = made.ask(access, user=user, value=number)
        assert (result["completed"], result["data"]) == (1, CONTENT)
        assert made.words(frame, "<u8")[0] == number
    for number, access in enumerate(WRITES if user else WRITES[:1], 10):
        result = made.ask(access, user=user, value=number)
        assert (result["completed"], result["data"]) == (1, 0)
        assert made.words(frame, "<u8")[0] == number


@pytest.mark.parametrize("user", [0, 1], ids=["el1", "el0"])
def test_a_fetch_says_what_it_executed(made: HandMade, user: int) -> None:
    slot, frame = page(made, AF | READ_ONLY | (USER | PXN if user else UXN))
    made.words(frame, "<u4")[: len(CODE)] = CODE
    result = made.ask("FETCH", user=user, watch=slot)
    assert (result["completed"], result["data"]) == (1, MOVED)
    assert (result["esr"] >> 26, result["elr"]) == (0x15, ADDRESS + 12)  # SVC
    assert result["after"][0] == made[slot]
    result = made.ask("FETCH", user=not user)
    assert fault(result)[:2] == (CLASSES[not user][1], PERMISSION | 3)
    assert result["elr"] == result["far"] == ADDRESS


def test_code_that_ends_otherwise_was_reached(simple: HandMade) -> None:
    _, frame = page(simple, AF | READ_ONLY)
    simple.words(frame, "<u4")[:4] = [0xD503201F, 0x00000000, 0xD4000002, 0]  # nop; udf; hvc #0
    result = simple.ask("FETCH")
    assert (result["completed"], result["esr"] >> 26, result["elr"]) == (1, 0, ADDRESS + 4)
    result = simple.ask("FETCH", ADDRESS + 8)
    assert (result["completed"], result["esr"]) == (1, 0)


@pytest.mark.parametrize("user", [0, 1], ids=["el1", "el0"])
@pytest.mark.parametrize("access", [*READS, *WRITES, *SWAPS, "FETCH"])
def test_each_fault_has_its_class_its_code_and_its_address(
    made: HandMade, access: str, user: int
) -> None:
    fetch = access == "FETCH"
    slot, frame = page(made, AF | USER | (READ_ONLY if fetch else 0))
    where = made.slot(ADDRESS, 2)
    pointer, leaf = made[where], made[slot]
    faults = [
        (TRANSLATION | 3, slot, leaf & ~1),
        (TRANSLATION | 2, where, 0),
        (ACCESS | 3, slot, leaf & ~AF),
        (WALK_ABORT | 3, where, NOWHERE | TABLE),
        (ABORT, slot, leaf & 0xFFF | NOWHERE),
    ]
    for code, at, entry in faults:
        made[at] = entry
        result = made.ask(access, user=user, watch=at)
        assert fault(result) == (CLASSES[user][fetch], code, access in WRITES), hex(code)
        assert result["far"] == ADDRESS
        assert result["after"][0] == entry
        assert result["elr"] == ADDRESS if fetch else result["elr"] - WINDOW < 0x1000
        made[where], made[slot] = pointer, leaf
    assert made.words(frame, "<u8")[0] == CONTENT


@pytest.mark.parametrize(
    ("access", "user", "bits", "wnr"),
    [
        ("READ", 1, 0, 0),
        ("READ_UNPRIVILEGED", 0, 0, 0),
        ("WRITE", 0, READ_ONLY, 1),
        ("WRITE", 1, USER | READ_ONLY, 1),
        ("WRITE", 1, 0, 1),
        ("WRITE_UNPRIVILEGED", 0, 0, 1),
        ("WRITE_UNPRIVILEGED", 0, USER | READ_ONLY, 1),
        # An atomic that may not even read is a read ("ISS encoding", WnR).
        *((access, 0, READ_ONLY, 1) for access in SWAPS),
        *((access, 1, USER | READ_ONLY, 1) for access in SWAPS),
        *((access, 1, 0, 0) for access in SWAPS),
        ("FETCH", 0, PXN | READ_ONLY, 0),
        ("FETCH", 0, USER, 0),
        ("FETCH", 1, USER | UXN, 0),
    ],
)
def test_what_a_page_withholds_is_a_permission_fault(
    made: HandMade, access: str, user: int, bits: int, wnr: int
) -> None:
    slot, frame = page(made, AF | bits)
    result = made.ask(access, user=user, watch=slot)
    assert fault(result) == (CLASSES[user][access == "FETCH"], PERMISSION | 3, wnr)
    assert (result["far"], result["after"][0]) == (ADDRESS, made[slot])
    assert made.words(frame, "<u8")[0] == CONTENT


def test_pan_and_uao_are_those_of_the_job(simple: HandMade) -> None:
    if not simple.guest.info.pan:
        pytest.skip("this processor has no PAN")
    page(simple, AF | USER)
    for pan, uao in itertools.product((0, 1), (0, 1)):
        done = {access: simple.ask(access, pan=pan, uao=uao)["completed"] for access in READS}
        # With UAO, LDTR is judged as LDR; PAN is not for LDTR.
        assert done == {"READ": not pan, "READ_UNPRIVILEGED": not (pan and uao)}
    page(simple, AF)
    assert not simple.ask("READ_UNPRIVILEGED")["completed"]
    assert simple.ask("READ_UNPRIVILEGED", uao=1)["completed"]
    page(simple, AF | USER | READ_ONLY)
    assert simple.ask("FETCH", pan=1)["completed"], "PAN is not for fetches"


def test_sctlr_and_tcr_are_those_of_the_state(simple: HandMade) -> None:
    page(simple, AF)
    assert simple.ask("FETCH")["completed"]
    simple.under(sctlr=WXN)
    assert fault(simple.ask("FETCH"))[1] == PERMISSION | 3
    page(simple, AF | USER)
    assert simple.ask("READ_UNPRIVILEGED")["completed"]
    simple.under(tcr=E0PD0)
    assert fault(simple.ask("READ_UNPRIVILEGED"))[1] == TRANSLATION


def test_accesses_have_every_width(simple: HandMade) -> None:
    _, frame = page(simple, AF | USER)
    word = simple.words(frame, "<u8")
    for size in (1, 4, 8):
        below = CONTENT % (1 << 8 * size)
        word[0] = CONTENT
        for access in READS:
            assert simple.ask(access, size=size)["data"] == below
        for access in WRITES:
            word[0] = CONTENT
            simple.ask(access, size=size)
            assert word[0] == CONTENT - below
        for access in SWAPS if size > 1 else ():
            word[0] = CONTENT
            assert simple.ask(access, size=size)["data"] == below
            assert word[0] == CONTENT - below


@pytest.mark.parametrize("form", ["4k", "16k", "64k"])
def test_a_block_holds_what_is_within(guest: Guest, frames: Iterator[int], form: str) -> None:
    made = HandMade(guest, FORMS[form], frames)
    size = 1 << made.form.shift(2)
    frame = made.frame()
    made.words(frame, "<u8")[0] = CONTENT
    address, first = ADDRESS // size * size, frame // size * size
    made.map(address, first, AF, level=2)
    assert made.ask("READ", address + frame - first)["data"] == CONTENT


def test_hardware_sets_af_and_clears_ap2(made: HandMade) -> None:
    slot, frame = page(made, READ_ONLY | DBM)
    before = made[slot]
    assert fault(made.ask("READ", watch=slot))[1] == ACCESS | 3
    made.under(tcr=HA)
    assert made.ask("READ", watch=slot)["after"][0] == before | AF
    assert fault(made.ask("WRITE"))[1] == PERMISSION | 3
    made[slot] = before
    made.under(tcr=HD)
    for access in ("WRITE", *SWAPS):
        made[slot] = before
        result = made.ask(access, watch=slot, value=CONTENT)
        assert (result["completed"], result["after"][0]) == (1, before & ~READ_ONLY | AF)
    assert made.words(frame, "<u8")[0] == CONTENT


@pytest.mark.parametrize("granule", ["4K", "16K", "64K"])
def test_the_other_half_has_a_root_and_a_granule_of_its_own(simple: HandMade, granule: str) -> None:
    form = {"4K": FORMS["4k-39"], "16K": FORMS["16k"], "64K": FORMS["64k"]}[granule]
    high = HandMade(simple.guest, form, simple._frames)
    code = {"16K": 1, "4K": 2, "64K": 3}[granule]
    tcr = simple.form.tcr & ~(EPD1 | 63 << 16 | 3 << 30) | form.size << 16 | code << 30
    simple.state = replace(simple.state, tcr=tcr, ttbr1=high.root)
    _, frame = page(high, AF)
    high.words(frame, "<u8")[1] = 0x77
    address = -(1 << 64 - form.size) % (1 << 64) + ADDRESS
    assert simple.ask("READ", address + 8)["data"] == 0x77
    result = simple.ask("READ", address - 0x10000)
    assert (fault(result)[1], result["far"]) == (TRANSLATION | 3, address - 0x10000)
    simple.state = replace(simple.state, window=address - ADDRESS + WINDOW)
    assert simple.ask("READ", address)["data"] == CONTENT
    simple.state = replace(simple.state, tcr=tcr | EPD0)
    assert fault(simple.ask("READ", WINDOW))[1] == TRANSLATION


@pytest.mark.parametrize(
    "flush",
    ["PAGE", "ALL", "PAGE_ASID", "ASID", "LEAF", "LEAF_ASID"],
)
def test_what_a_job_patches_is_seen_after_its_flush(made: HandMade, flush: str) -> None:
    made.state = replace(made.state, ttbr0=made.root | 5 << 48)
    slot, frame = page(made, AF | NG)
    other = made.frame()
    made.words(other, "<u8")[0] = 0x77
    changed = made[slot] - frame + other
    jobs = np.concatenate([made.job("READ") for _ in range(4)])
    enums = made.guest.image.enums
    jobs["flush"] = [enums[f"FLUSH_{one}"] for one in ("ALL", "NONE", flush, "NONE")]
    jobs["access"][3] = enums["ACCESS_NONE"]
    jobs["patched"], jobs["watched"] = (0, 1, 0, 1), 1
    jobs["where"][:, 0] = slot
    jobs["word"][:, 0] = (0, changed, 0, 0)
    results = made.guest.run(made.state, jobs)
    assert list(results["data"]) == [CONTENT, CONTENT, 0x77, 0], "TCG keeps what is not flushed"
    assert list(results["after"][:, 0]) == [changed - other + frame, changed, changed, 0]
    assert list(results["completed"]) == [1, 1, 1, 1]


def test_what_was_absent_needs_no_flush(made: HandMade) -> None:
    slot, _ = page(made, AF)
    jobs = np.concatenate([made.job("READ"), made.job("READ", flush=0)])
    jobs["patched"], jobs["where"][:, 0], jobs["word"][1, 0] = 1, slot, made[slot]
    assert list(made.guest.run(made.state, jobs)["data"]) == [0, CONTENT]


@pytest.mark.parametrize("user", [0, 1], ids=["el1", "el0"])
def test_at_answers_without_an_access(made: HandMade, user: int) -> None:
    slot, frame = page(made, AF | USER)
    made.state = replace(made.state, window=None)
    address_field = 0xF_FFFF_FFFF_F000
    for access in ("TRANSLATE_READ", "TRANSLATE_WRITE"):
        result = made.ask(access, ADDRESS + 8, user=user)
        assert (result["completed"], result["esr"]) == (1, 0)
        assert result["data"] & 1 == 0
        assert result["data"] & address_field == frame
    made[slot] |= READ_ONLY
    assert made.ask("TRANSLATE_READ", user=user)["data"] & 1 == 0
    par = int(made.ask("TRANSLATE_WRITE", user=user)["data"])
    assert (par & 1, par >> 1 & 0x3F) == (1, PERMISSION | 3)
    made[slot] ^= USER
    assert int(made.ask("TRANSLATE_READ", user=user)["data"]) & 1 == user
    made[slot] = 0
    par = int(made.ask("TRANSLATE_READ", user=user)["data"])
    assert (par & 1, par >> 1 & 0x3F) == (1, TRANSLATION | 3)


def test_at_knows_pan(simple: HandMade) -> None:
    page(simple, AF | USER)
    for access in ("TRANSLATE_READ", "TRANSLATE_WRITE"):
        assert simple.ask(access)["data"] & 1 == 0
        assert int(simple.ask(access, pan=1)["data"]) & 0x7F == (PERMISSION | 3) << 1 | 1
        assert simple.ask(access)["data"] & 1 == 0


def test_at_that_meets_no_memory_ends_in_an_exception(made: HandMade) -> None:
    page(made, AF)
    where = made.slot(ADDRESS, 2)
    pointer, made[where] = made[where], NOWHERE | TABLE
    for pan in (0, 1):
        result = made.ask("TRANSLATE_READ", pan=pan)
        # WnR is 1 for address translation instructions ("ISS encoding").
        assert fault(result) == (0x25, WALK_ABORT | 3, 1)
        assert result["far"] == ADDRESS
    made[where] = pointer
    assert made.ask("READ")["data"] == CONTENT


def test_more_jobs_than_a_batch_holds_are_answered_in_their_order(simple: HandMade) -> None:
    _, frame = page(simple, AF)
    simple.words(frame, "<u4")[:1024] = np.arange(1024, dtype="<u4")
    jobs = simple.guest.image.new_jobs(simple.guest.capacity + 5)
    jobs[:] = simple.job("READ", size=4, flush=0)
    place = np.arange(len(jobs)) % 1024
    jobs["address"] = ADDRESS + 4 * place
    assert (simple.guest.run(simple.state, jobs)["data"] == place).all()


def test_a_parked_guest_translates_and_goes_on(made: HandMade) -> None:
    _, frame = page(made, AF)
    for _ in range(3):
        with made.guest.parked(made.state) as monitor:
            assert "EL1h" in monitor.state()
            there = [ADDRESS, ADDRESS + 0x1_0000]
            assert monitor.translations(there) == [frame, None]
        assert made.ask("READ")["data"] == CONTENT
    made.state = replace(made.state, window=None)
    with made.guest.parked(made.state) as monitor:
        assert "EL2h" in monitor.state()


def used(guest: Guest) -> int:
    """The processor time that a guest's process has taken, in ticks."""
    fields = Path(f"/proc/{guest.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_guest_that_waits_needs_no_processor(simple: HandMade) -> None:
    before = used(simple.guest)
    time.sleep(0.5)
    assert used(simple.guest) - before <= os.sysconf("SC_CLK_TCK") // 20
    with simple.guest.parked(simple.state) as monitor:
        monitor.cont()
        before = used(simple.guest)
        time.sleep(0.5)
        assert used(simple.guest) - before <= os.sysconf("SC_CLK_TCK") // 20
        monitor.stop()


def test_states_that_the_processor_cannot_take_are_refused(
    simple: HandMade, guests: dict[str, Guest]
) -> None:
    state = simple.state
    tcr = state.tcr
    for wrong, words in (
        (replace(state, sctlr=state.sctlr & ~1), "nothing is translated"),
        (replace(state, sctlr=state.sctlr | 1 << 25), "little-endian"),
        (replace(state, sctlr=state.sctlr | 1 << 40), "does not keep, 0x10000000000"),
        (replace(state, tcr=tcr | 1 << 35), "reserved bits, 0x800000000"),
        (replace(state, tcr=tcr | 7 << 32), "IPS is 7"),
        (replace(state, tcr=tcr | 3 << 14), "TG0 is a reserved code"),
        (replace(state, tcr=tcr & ~(EPD1 | 3 << 30)), "TG1 is a reserved code"),
        (replace(state, tcr=tcr - 1), "T0SZ is 15, and with 4K it is from 16 to 48"),
        (replace(state, tcr=tcr + 33), "T0SZ is 49"),
        (replace(state, tcr=tcr + 32 | 1 << 14), "T0SZ is 48, and with 64K it is from 12 to 47"),
        (replace(state, tcr=tcr - 5 | DS), "T0SZ is 11, and with 4K it is from 12 to 48"),
        (replace(state, ttbr0=state.ttbr0 + 64), "TTBR0_EL1 is no multiple of 4096 bytes"),
        (replace(state, tcr=tcr + 32 | 2 << 14, ttbr0=state.ttbr0 + 16), "multiple of 32 bytes"),
        (replace(state, ttbr0=0x900_0000), "at 0x9000000, where devices are"),
        (replace(state, ttbr0=NOWHERE), "the window is in the half whose root is outside RAM"),
        (replace(state, tcr=tcr | EPD0), "the window is in the half that"),
        (replace(state, window=WINDOW + 8), "no page's address"),
    ):
        with pytest.raises(Misuse, match=words):
            simple.guest.run(wrong, simple.job("READ"))
    if simple.guest.info.pan < 3:
        wrong = replace(state, sctlr=state.sctlr | EPAN)
        with pytest.raises(Misuse, match="does not"):
            simple.guest.run(wrong, simple.job("READ"))
    a72 = guest_of("cortex-a72", guests)
    for wrong, words in (
        (replace(state, tcr=tcr | 2 << 14), "TG0 is 16K, and the processor has 4K, 64K"),
        (replace(state, tcr=tcr + 24), "T0SZ is 40, and with 4K it is from 16 to 39"),
        (replace(state, tcr=tcr | DS), "DS is set, and"),
        (replace(state, tcr=tcr | HA), "HA is set, and"),
        (replace(state, tcr=tcr | HD), "HD is set, and"),
        (replace(state, tcr=tcr | 1 << 42), "HPD0 or HPD1 is set, and"),
        (replace(state, tcr=tcr | E0PD0), "E0PD0 or E0PD1 is set, and"),
    ):
        with pytest.raises(Misuse, match=words):
            a72.run(wrong, simple.job("READ"))


@pytest.mark.parametrize(
    ("access", "fields", "words"),
    [
        ("NONE", {"access": 99}, "no such access"),
        ("READ", {"flush": 99}, "no such flush"),
        ("READ", {"size": 2}, "this access has"),
        ("SWAP", {"size": 1}, "this access has"),
        ("FETCH", {"address": ADDRESS + 2}, "multiple of 4"),
        ("TRANSLATE_READ", {"user": 1, "pan": 1}, "no PAN for EL0"),
        ("READ", {"patched": 7}, "no room"),
        ("READ", {"watched": 1}, "outside RAM"),
        ("READ", {"watched": 1, "where": BUILD.base + 4}, "multiple of 8"),
    ],
)
def test_jobs_that_the_stub_cannot_do_are_refused(
    simple: HandMade, access: str, fields: dict[str, int], words: str
) -> None:
    job = simple.job(access)
    for name, value in fields.items():
        job[name] = value
    with pytest.raises(Misuse, match=words):
        simple.guest.run(simple.state, job)


def test_jobs_that_the_processor_or_the_state_has_no_means_for_are_refused(
    simple: HandMade, guests: dict[str, Guest]
) -> None:
    a72 = guest_of("cortex-a72", guests)
    for access, fields, words in (
        ("READ", {"pan": 1}, "no PAN"),
        ("READ", {"uao": 1}, "no UAO"),
        ("SWAP", {}, "no SWP"),
        ("TRANSLATE_READ", {"pan": 1}, "no AT S1E1RP"),
    ):
        with pytest.raises(Misuse, match=words):
            a72.run(simple.state, simple.job(access, **fields))
    simple.state = replace(simple.state, window=None)
    for access in ("READ", "FETCH"):
        with pytest.raises(Misuse, match="the state has none"):
            simple.ask(access)


def test_a_processor_without_extensions_is_asked_too(
    guests: dict[str, Guest], frames: Iterator[int]
) -> None:
    for form in ("4k", "4k-39", "64k"):
        made = HandMade(guest_of("cortex-a72", guests), FORMS[form], frames)
        made.state = replace(made.state, tcr=made.state.tcr - (1 << 32))  # IPS, of 44 bits
        slot, _ = page(made, AF | USER)
        for access in (*READS, "EXCLUSIVE"):
            assert made.ask(access)["data"] == CONTENT
            assert made.ask(access, user=1)["completed"] == 1
        assert made.ask("TRANSLATE_WRITE")["data"] & 1 == 0
        made[slot] |= 1 << 44
        assert fault(made.ask("READ"))[1] == SIZE | 3


def test_an_exception_that_no_probe_provoked_ends_the_guest(
    simple: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = simple.guest._describe

    def with_jobs_nowhere(batch: object) -> None:
        describe(batch)  # type: ignore[arg-type]
        image = simple.guest.image
        simple.guest._structure(image.batch, image.batch_dtype)["jobs"] = NOWHERE

    monkeypatch.setattr(simple.guest, "_describe", with_jobs_nowhere)
    with pytest.raises(GuestLost, match="panic esr_el2=") as lost:
        simple.guest.run(simple.state, simple.job("READ"))
    registers = lost.value.evidence.registers
    assert registers["esr_el2"] >> 26 == 0x25
    assert registers["far_el2"] >> 12 == NOWHERE >> 12
    assert not simple.guest.is_well()


@pytest.mark.parametrize(
    ("program", "cpu"),
    [
        ("qemu-system-x86_64", None),
        ("qemu-system-riscv64", None),
        ("qemu-system-arm", None),
        (QEMU, "cortex-a15"),
        (QEMU, "nonsense"),
    ],
)
def test_a_qemu_or_a_processor_of_another_architecture_is_named(
    program: str, cpu: str | None
) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} in PATH")
    with pytest.raises(LaunchFailure, match="is no QEMU for arm64 that has the processor"):
        Guest(program=program, cpu=cpu)


def test_a_state_says_where_its_roots_are() -> None:
    state = State(0x4200_0000 | 5 << 48 | 1, 0x4300_0000 | 3 << 2, 6 << 32 | 1 << 14 | 2 << 30)
    low, high = state.halves
    assert (low.granule, low.root) == ("64K", 0x4200_0000)
    assert (high.granule, high.root) == ("4K", 0x4300_000C)
    state = replace(state, tcr=state.tcr | DS)
    assert state.halves[1].root == 0x4300_0000 | 3 << 48
