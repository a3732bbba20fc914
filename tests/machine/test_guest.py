"""What the stub executes and reports, with tables that the tests write word by word.

The expected vectors, error codes and bits are the manual's (SDM 3A, 4.6, 4.7, 4.8), written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.machine.errors import Misuse
from harness.machine.guest import Guest, State
from harness.machine.qemu import OLDEST_QEMU
from tests.machine.handmade import (
    ACCESSED,
    CR0_WP,
    CR4_LA57,
    CR4_SMAP,
    CR4_SMEP,
    DIRTY,
    EFER,
    NX,
    PAGE,
    PRESENT,
    USER,
    WINDOW,
    WRITE,
    HandMade,
)

pytestmark = pytest.mark.hw

DATA = 0x8877_6655_4433_2211
MOVED = 0x0123_4567_89AB_CDEF
CODE = b"\x48\xb8" + MOVED.to_bytes(8, "little") + b"\x0f\x0b"  # mov $MOVED, %rax; ud2
LAST_BYTE = b"\x06"  # push %es, which 64-bit mode does not have
ADDRESS = {4: 0x0000_7F12_3456_7000, 5: 0x007F_1234_5678_9000}
INVALID_OPCODE, PROTECTION, PAGE_FAULT, NO_EXCEPTION = 6, 13, 14, 0xFF
UNTOUCHED = 0x5A5A_5A5A_5A5A_5A5A
CR4_PKE = 1 << 22
EFER_NXE = 0x800


def job(guest: Guest, access: str, address: int, **fields: int) -> npt.NDArray[np.void]:
    """One job: a read, write, fetch or none; 8 bytes, as supervisor, with INVLPG."""
    jobs = guest.image.new_jobs(1)
    jobs["access"] = guest.image.enums[f"ACCESS_{access.upper()}"]
    jobs["flush"] = guest.image.enums["FLUSH_PAGE"]
    jobs["address"] = address
    jobs["size"] = 8
    for name, value in fields.items():
        jobs[name] = value
    return jobs


def outcome(guest: Guest, state: State, jobs: npt.NDArray[np.void]) -> Any:
    return guest.run(state, jobs)[0]


@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
class TestAllowed:
    def test_a_read_finds_the_data_of_the_frame(
        self, guest: Guest, made: HandMade, user: int
    ) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")) | USER * user)
        result = outcome(guest, made.state, job(guest, "read", address, user=user))
        assert (result["vector"], result["completed"], result["data"]) == (NO_EXCEPTION, 1, DATA)
        assert (result["cr2"], result["error"], result["rip"]) == (UNTOUCHED, 0, 0)

    def test_a_byte_is_read_alone(self, guest: Guest, made: HandMade, user: int) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")) | USER * user)
        result = outcome(guest, made.state, job(guest, "read", address + 3, size=1, user=user))
        assert (result["vector"], result["data"]) == (NO_EXCEPTION, 0x44)

    def test_a_write_reaches_the_frame(self, guest: Guest, made: HandMade, user: int) -> None:
        address, frame = ADDRESS[made.levels], made.frame()
        made.map(made.root, address, frame | WRITE | USER * user)
        jobs = job(guest, "write", address + 8, value=DATA, user=user)
        assert outcome(guest, made.state, jobs)["vector"] == NO_EXCEPTION
        assert (made[frame], made[frame + 8], made[frame + 16]) == (0, DATA, 0)

    def test_a_byte_is_written_alone(self, guest: Guest, made: HandMade, user: int) -> None:
        address, frame = ADDRESS[made.levels], made.frame()
        made.map(made.root, address, frame | WRITE | USER * user)
        jobs = job(guest, "write", address + 1, value=DATA, size=1, user=user)
        assert outcome(guest, made.state, jobs)["vector"] == NO_EXCEPTION
        assert made[frame] == 0x1100

    def test_a_fetch_ends_in_the_exception_of_its_code(
        self, guest: Guest, made: HandMade, user: int
    ) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(CODE) | USER * user)
        result = outcome(guest, made.state, job(guest, "fetch", address, user=user))
        assert (result["vector"], result["completed"]) == (INVALID_OPCODE, 1)
        assert (result["data"], result["rip"]) == (MOVED, address + 10)

    def test_the_last_byte_of_a_page_is_fetched(
        self, guest: Guest, made: HandMade, user: int
    ) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(LAST_BYTE.rjust(PAGE)) | USER * user)
        result = outcome(guest, made.state, job(guest, "fetch", address + PAGE - 1, user=user))
        assert (result["vector"], result["completed"]) == (INVALID_OPCODE, 1)
        assert result["rip"] == address + PAGE - 1

    def test_accessed_and_dirty_are_among_the_words_watched(
        self, guest: Guest, made: HandMade, user: int
    ) -> None:
        address, frame = ADDRESS[made.levels], made.frame()
        leaf = made.map(made.root, address, frame | WRITE | USER * user)
        top = made.slot(made.root, address, made.levels - 1)
        jobs = np.concatenate(
            [job(guest, name, address, value=DATA, user=user) for name in ("read", "write")]
        )
        jobs["where"][:, :3] = leaf, top, frame
        jobs["watched"] = 3
        read, write = guest.run(made.state, jobs)["after"]
        assert read[0] & (ACCESSED | DIRTY) == ACCESSED
        assert read[1] & ACCESSED
        assert read[2] == 0
        assert write[0] & (ACCESSED | DIRTY) == ACCESSED | DIRTY
        assert write[2] == DATA


READ_ONLY, SUPERVISOR = PRESENT | USER, PRESENT | WRITE
FAULTS = {
    "supervisor reads what is absent": ("read", 0, 0, 0x00),
    "supervisor writes what is absent": ("write", 0, 0, 0x02),
    "supervisor fetches what is absent": ("fetch", 0, 0, 0x10),
    "user reads what is absent": ("read", 1, 0, 0x04),
    "user writes what is absent": ("write", 1, 0, 0x06),
    "user fetches what is absent": ("fetch", 1, 0, 0x14),
    "supervisor writes what is read-only": ("write", 0, READ_ONLY, 0x03),
    "user writes what is read-only": ("write", 1, READ_ONLY, 0x07),
    "user reads what is the supervisor's": ("read", 1, SUPERVISOR, 0x05),
    "user writes what is the supervisor's": ("write", 1, SUPERVISOR, 0x07),
    "user fetches what is the supervisor's": ("fetch", 1, SUPERVISOR, 0x15),
    "supervisor fetches what is no code": ("fetch", 0, SUPERVISOR | NX, 0x11),
    "user fetches what is no code": ("fetch", 1, READ_ONLY | NX, 0x15),
}


@pytest.mark.parametrize(("access", "user", "word", "error"), FAULTS.values(), ids=FAULTS.keys())
def test_a_denied_access_reports_error_code_and_address(
    guest: Guest, made: HandMade, access: str, user: int, word: int, error: int
) -> None:
    address, frame = ADDRESS[made.levels], made.frame(CODE)
    made[made.slot(made.root, address, 0)] = frame | word if word else 0
    result = outcome(guest, made.state, job(guest, access, address + 0x123, value=1, user=user))
    assert (result["vector"], result["error"]) == (PAGE_FAULT, error)
    assert (result["cr2"], result["data"], result["completed"]) == (address + 0x123, 0, 0)
    assert made[frame].to_bytes(8, "little") == CODE[:8]


@pytest.mark.parametrize("access", ["read", "write", "fetch"])
@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
def test_a_non_canonical_address_is_a_protection_fault_and_leaves_cr2(
    guest: Guest, made: HandMade, access: str, user: int
) -> None:
    address = 1 << (9 * made.levels + 12 - 1)
    result = outcome(guest, made.state, job(guest, access, address, user=user))
    assert (result["vector"], result["error"], result["completed"]) == (PROTECTION, 0, 0)
    assert result["cr2"] == UNTOUCHED


def test_the_supervisor_writes_what_is_read_only_without_wp(guest: Guest, made: HandMade) -> None:
    address, frame = ADDRESS[made.levels], made.frame()
    made.map(made.root, address, frame)
    state = replace(made.state, cr0=made.state.cr0 & ~CR0_WP)
    assert outcome(guest, state, job(guest, "write", address, value=1))["vector"] == NO_EXCEPTION
    assert made[frame] == 1


def test_smep_denies_the_supervisor_the_code_of_the_user(guest: Guest, made: HandMade) -> None:
    address = ADDRESS[made.levels]
    made.map(made.root, address, made.frame(CODE) | USER)
    state = replace(made.state, cr4=made.state.cr4 | CR4_SMEP)
    result = outcome(guest, state, job(guest, "fetch", address))
    assert (result["vector"], result["error"]) == (PAGE_FAULT, 0x11)
    assert outcome(guest, made.state, job(guest, "fetch", address))["vector"] == INVALID_OPCODE


def test_smap_denies_the_supervisor_the_data_of_the_user_unless_ac(
    guest: Guest, made: HandMade
) -> None:
    address = ADDRESS[made.levels]
    made.map(made.root, address, made.frame() | USER | WRITE)
    state = replace(made.state, cr4=made.state.cr4 | CR4_SMAP)
    jobs = np.concatenate(
        [
            job(guest, "read", address, ac=0),
            job(guest, "read", address, ac=1),
            job(guest, "write", address, ac=0),
            job(guest, "write", address, ac=1),
            job(guest, "read", address, ac=0, user=1),
            job(guest, "read", address, ac=1, user=1),
        ]
    )
    results = guest.run(state, jobs)
    done = [NO_EXCEPTION, 0]
    assert [[r["vector"], r["error"]] for r in results] == [
        [PAGE_FAULT, 0x01],
        done,
        [PAGE_FAULT, 0x03],
        done,
        done,
        done,
    ]


def test_without_nxe_a_fetch_is_not_marked_in_the_error_code(
    guest: Guest, levels: int, frames: Iterator[int]
) -> None:
    made = HandMade(guest, levels, frames, nx=0)
    state = replace(made.state, efer=EFER & ~EFER_NXE)
    result = outcome(guest, state, job(guest, "fetch", ADDRESS[levels]))
    assert (result["vector"], result["error"]) == (PAGE_FAULT, 0)


def test_pkru_denies_the_user_the_pages_of_a_key(guest: Guest, made: HandMade) -> None:
    if not guest.info.has("pku"):
        pytest.skip(f"{guest.engine.name} shows the guest no protection keys")
    address, key = ADDRESS[made.levels], 5
    made.map(made.root, address, made.frame() | USER | WRITE | key << 59)
    state = replace(made.state, cr4=made.state.cr4 | CR4_PKE, pkru=0b01 << 2 * key)
    result = outcome(guest, state, job(guest, "read", address, user=1))
    assert (result["vector"], result["error"]) == (PAGE_FAULT, 0x25)
    other = replace(state, pkru=0b01 << 2 * (key + 1))
    assert outcome(guest, other, job(guest, "read", address, user=1))["vector"] == NO_EXCEPTION


@pytest.mark.parametrize("flush", ["page", "all", "global"])
def test_a_patched_entry_is_seen_after_its_flush(guest: Guest, made: HandMade, flush: str) -> None:
    address, frame = ADDRESS[made.levels], made.frame(DATA.to_bytes(8, "little"))
    other = made.frame(MOVED.to_bytes(8, "little"))
    leaf = made.map(made.root, address, frame)
    jobs = np.concatenate([job(guest, "read", address) for _ in range(4)])
    jobs["flush"] = guest.image.enums[f"FLUSH_{flush.upper()}"]
    jobs["where"][:, 0] = leaf
    jobs["word"][:, 0] = [frame | PRESENT, other | PRESENT, 0, frame | PRESENT]
    jobs["patched"] = 1
    results = guest.run(made.state, jobs)
    assert results["data"].tolist() == [DATA, MOVED, 0, DATA]
    assert results["vector"].tolist() == [NO_EXCEPTION, NO_EXCEPTION, PAGE_FAULT, NO_EXCEPTION]


def test_no_access_patches_and_watches_alone(guest: Guest, made: HandMade) -> None:
    frame = made.frame()
    jobs = job(guest, "none", ADDRESS[made.levels], patched=2, watched=3)
    jobs["where"][0, :3] = frame, frame + 8, frame + 16
    jobs["word"][0, :3] = DATA, MOVED, 1
    result = outcome(guest, made.state, jobs)
    assert (result["vector"], result["completed"]) == (NO_EXCEPTION, 1)
    assert result["after"][:3].tolist() == [DATA, MOVED, 0]
    assert made[frame + 16] == 0


WINDOWS = {
    "zero": (0, 4),
    "in the lower half": (0x0000_4000_0000_0000, 4),
    "in the upper half": (WINDOW, 4),
    "beyond 48 bits": (0x00F0_0000_0000_0000, 5),
    "beyond 48 bits in the upper half": (0xFF10_0000_0000_0000, 5),
}


@pytest.mark.parametrize(("window", "needed"), WINDOWS.values(), ids=WINDOWS.keys())
def test_the_window_may_lie_anywhere(
    guest: Guest, levels: int, frames: Iterator[int], window: int, needed: int
) -> None:
    if levels < needed:
        return  # the address does not exist
    made = HandMade(guest, levels, frames, window=window)
    address = ADDRESS[levels]
    made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")) | USER)
    for user in (0, 1):
        assert outcome(guest, made.state, job(guest, "read", address, user=user))["data"] == DATA


def test_one_guest_changes_between_four_and_five_levels(
    guest: Guest, frames: Iterator[int]
) -> None:
    if not guest.info.has("la57"):
        pytest.skip(f"{guest.engine.name} shows the guest no LA57, so it has no five levels")
    for levels in (4, 5, 4, 5, 5, 4):
        made = HandMade(guest, levels, frames)
        made.map(made.root, ADDRESS[levels], made.frame(DATA.to_bytes(8, "little")))
        assert outcome(guest, made.state, job(guest, "read", ADDRESS[levels]))["data"] == DATA
        wide = outcome(guest, made.state, job(guest, "read", 1 << 55))
        assert wide["vector"] == {4: PROTECTION, 5: PAGE_FAULT}[levels]


class TestBatches:
    def test_results_of_many_batches_come_in_the_order_of_the_jobs(
        self, guest: Guest, made: HandMade, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, frame = ADDRESS[made.levels], made.frame()
        made.map(made.root, address, frame | WRITE)
        if guest.engine.name == "kvm":  # whose local kind is slow
            monkeypatch.setattr(guest, "capacity", 1000)
        count = 2 * guest.capacity + 3
        jobs = np.repeat(job(guest, "write", address, flush=0, watched=1), count)
        jobs["value"] = np.arange(count)
        jobs["where"][:, 0] = frame
        results = guest.run(made.state, jobs)
        assert np.array_equal(results["after"][:, 0], np.arange(count))

    def test_two_batches_are_under_way_and_no_more(self, guest: Guest, made: HandMade) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")))
        guest.start(made.state, job(guest, "read", address))
        guest.start(made.state, job(guest, "read", address + PAGE))
        with pytest.raises(Misuse, match="two batches are under way"):
            guest.start(made.state, job(guest, "read", address))
        with pytest.raises(Misuse, match="a batch is under way"):
            guest.run(made.state, job(guest, "read", address))
        assert guest.finish()["vector"].tolist() == [NO_EXCEPTION]
        assert guest.finish()["vector"].tolist() == [PAGE_FAULT]
        with pytest.raises(Misuse, match="no batch is under way"):
            guest.finish()

    def test_jobs_that_cannot_change_are_the_same_every_time(
        self, guest: Guest, made: HandMade
    ) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")))
        fixed, other = job(guest, "read", address), job(guest, "read", address + PAGE)
        fixed.flags.writeable = other.flags.writeable = False
        vectors = []
        for jobs in (fixed, fixed, fixed, other, fixed, other, other, other):
            guest.start(made.state, jobs)
            vectors += guest.finish()["vector"].tolist()
        right, fault = NO_EXCEPTION, PAGE_FAULT
        assert vectors == [right, right, right, fault, right, fault, fault, fault]

    def test_jobs_that_were_changed_are_handed_over_anew(
        self, guest: Guest, made: HandMade
    ) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")))
        jobs = job(guest, "read", address)
        vectors = []
        for offset in (0, 0, PAGE, PAGE, 0):
            jobs["address"] = address + offset
            guest.start(made.state, jobs)
            vectors += guest.finish()["vector"].tolist()
        assert vectors == [NO_EXCEPTION, NO_EXCEPTION, PAGE_FAULT, PAGE_FAULT, NO_EXCEPTION]

    def test_no_jobs_have_no_results(self, guest: Guest, made: HandMade) -> None:
        assert len(guest.run(made.state, guest.image.new_jobs(0))) == 0

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("patched", 7, "patched has no room"),
            ("watched", 7, "watched has no room"),
            ("where", 1 << 40, "outside RAM"),
            ("where", 4, "no multiple of 8"),
        ],
    )
    def test_a_job_outside_its_bounds_is_refused_by_its_index(
        self, guest: Guest, made: HandMade, field: str, value: int, reason: str
    ) -> None:
        jobs = guest.image.new_jobs(3)
        jobs[field][1] = value
        with pytest.raises(Misuse, match=f"^job 1, .*{reason}"):
            guest.run(made.state, jobs)

    def test_jobs_of_another_type_are_refused(self, guest: Guest, made: HandMade) -> None:
        with pytest.raises(Misuse, match=r"new_jobs\(\)"):
            guest.run(made.state, np.zeros(3, dtype=[("address", "<u8")]))


class TestParked:
    def test_the_monitor_sees_the_tested_state(self, guest: Guest, made: HandMade) -> None:
        with guest.parked(made.state) as monitor:
            registers = monitor.registers()
            assert monitor.status() == "paused"
        assert registers["CR3"] == made.state.cr3
        assert registers["CR4"] == made.state.cr4
        assert registers["CR0"] == made.state.cr0
        assert registers["EFER"] & EFER == EFER
        assert registers["RIP"] - WINDOW in guest.image.text

    def test_the_monitor_translates_and_reads(self, guest: Guest, made: HandMade) -> None:
        address, frame = ADDRESS[made.levels], made.frame(DATA.to_bytes(8, "little"))
        high = (1 << 64) - PAGE - 0x7000_0000
        made.map(made.root, address, frame | WRITE)
        made.map(made.root, high, frame | USER | NX)
        with guest.parked(made.state) as monitor:
            assert monitor.gva2gpa(address + 5) == frame + 5
            assert monitor.gva2gpa(high + 7) == frame + 7
            assert monitor.gva2gpa(address + PAGE) is None
            assert monitor.read_virtual(address, 8) == DATA.to_bytes(8, "little")
            assert monitor.read_virtual(high, 8) == DATA.to_bytes(8, "little")
            assert monitor.read_virtual(address + PAGE, 8) is None
            assert monitor.read_physical(frame, 8) == DATA.to_bytes(8, "little")
            rows = monitor.info_tlb()
        seen = {
            int(row["virtual"]): (
                int(row["physical"]),
                bool(row["W"]),
                bool(row["U"]),
                bool(row["X"]),
            )
            for row in rows
            if not WINDOW <= row["virtual"] < WINDOW + guest.ram.size
        }
        assert seen == {address: (frame, True, False, False), high: (frame, False, True, True)}

    def test_the_guest_runs_on_after_parking(self, guest: Guest, made: HandMade) -> None:
        address = ADDRESS[made.levels]
        made.map(made.root, address, made.frame(DATA.to_bytes(8, "little")))
        with pytest.raises(ZeroDivisionError), guest.parked(made.state):
            _ = 1 / 0
        assert outcome(guest, made.state, job(guest, "read", address))["data"] == DATA


class TestConsole:
    """The protocol, as a person would type it."""

    @staticmethod
    def ask(guest: Guest, line: str) -> str:
        guest._command(line)
        return guest._read_line()

    def test_help_lists_the_commands(self, guest: Guest) -> None:
        answer = self.ask(guest, "help")
        assert all(command in answer for command in ("run NONCE", "park NONCE", "leave", "help"))

    @pytest.mark.parametrize(
        "line", ["", "RUN", "run", "runs 0", "helpp", "x" * 500, "park", "\x00\x01"]
    )
    def test_anything_else_is_answered_with_a_sentence(self, guest: Guest, line: str) -> None:
        assert self.ask(guest, line) == "error unknown command: try help"

    def test_nothing_is_left_that_was_not_parked(self, guest: Guest) -> None:
        assert self.ask(guest, "leave").startswith("error nothing to leave")

    @pytest.mark.parametrize("command", ["run", "park"])
    @pytest.mark.parametrize("change", ["digit", "short", "long", "no hex"])
    def test_a_batch_is_run_by_its_own_nonce_alone(
        self, guest: Guest, made: HandMade, command: str, change: str
    ) -> None:
        guest.run(made.state, job(guest, "none", 0))
        batch = guest._structure(guest.image.batch, guest.image.batch_dtype)
        nonce = f"{int(batch['nonce']):016x}"
        wrong = {
            "digit": f"{int(nonce, 16) ^ 1:016x}",
            "short": nonce[:-1],
            "long": nonce + "0",
            "no hex": "z" + nonce[1:],
        }[change]
        answer = self.ask(guest, f"{command} {wrong}")
        assert answer == f"error this is not the nonce of the batch in memory, which is {nonce}"
        assert self.ask(guest, f"run {nonce}") == f"done {nonce} 1"


def test_the_guest_tells_what_it_runs_on(guest: Guest) -> None:
    assert guest.version >= OLDEST_QEMU
    assert guest.info.vendor in {"GenuineIntel", "AuthenticAMD"}
    assert 36 <= guest.info.physical_bits <= 52
    assert guest.info.has("pae")
    assert guest.info.has("nx")
    assert guest.monitor.engine_in_use() == guest.engine.name


def test_between_batches_the_stub_runs_on_tables_of_its_own(guest: Guest, made: HandMade) -> None:
    guest.run(made.state, job(guest, "none", 0))
    guest.monitor.stop()
    registers = guest.monitor.registers()
    guest.monitor.cont()
    assert registers["CR3"] in guest.image.data
    assert registers["CR4"] & CR4_LA57 == 0
    assert registers["RIP"] in guest.image.text
