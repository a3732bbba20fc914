"""The running stub: batches, parking, the console, and the change from mode to mode."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.monitor import OLDEST_QEMU
from harness.machine.x86.bochs import OLDEST_BOCHS
from harness.machine.x86.engines import why_long_mode_only
from harness.machine.x86.guest import Guest
from tests.machine.conftest import RAM_BYTES
from tests.machine.handmade import (
    CR4_LA57,
    EFER_LMA,
    LARGE,
    MODES,
    MOVED,
    PAGE,
    PRESENT,
    USER,
    WINDOW,
    WRITE,
    HandMade,
    Mode,
)

pytestmark = pytest.mark.hw

DATA = 0x8877_6655_4433_2211
CONTENT = DATA.to_bytes(8, "little")
PROTECTION, PAGE_FAULT, NO_EXCEPTION = 13, 14, 0xFF


@pytest.mark.parametrize("flush", ["page", "all", "global"])
def test_a_patched_entry_is_seen_after_its_flush(made: HandMade, flush: str) -> None:
    address, frame = made.mode.address, made.frame(CONTENT)
    other = made.frame(MOVED.to_bytes(8, "little"))
    leaf = made.map(made.root, address, frame)
    jobs = np.concatenate([made.job("read", address) for _ in range(4)])
    jobs["flush"] = made.guest.image.enums[f"FLUSH_{flush.upper()}"]
    jobs["where"][:, 0] = leaf
    jobs["word"][:, 0] = [frame | PRESENT, other | PRESENT, 0, frame | PRESENT]
    jobs["patched"] = 1
    results = made.guest.run(made.state, jobs)
    data, moved = made.mode.cut(DATA), made.mode.cut(MOVED)
    assert results["data"].tolist() == [data, moved, 0, data]
    assert results["vector"].tolist() == [NO_EXCEPTION, NO_EXCEPTION, PAGE_FAULT, NO_EXCEPTION]


@pytest.mark.parametrize("mode", ["pae"], indirect=True)
@pytest.mark.parametrize("flush", ["all", "global"])
def test_the_four_entries_at_the_top_of_pae_are_loaded_by_a_flush(
    made: HandMade, flush: str
) -> None:
    """They are registers, that MOV to CR3 loads, and a change of CR4.PGE (SDM 3A, 4.4.1)."""
    address = made.mode.address
    made.map(made.root, address, made.frame(CONTENT))
    slot = made.slot(made.root, address, 2)
    jobs = np.concatenate([made.job("read", address, patched=1) for _ in range(3)])
    jobs["flush"] = made.guest.image.enums[f"FLUSH_{flush.upper()}"]
    jobs["where"][:, 0], jobs["word"][:, 0] = slot, [made[slot], 0, made[slot]]
    results = made.guest.run(made.state, jobs)
    assert results["vector"].tolist() == [NO_EXCEPTION, PAGE_FAULT, NO_EXCEPTION]
    assert results["cr2"][1] == address


@pytest.mark.parametrize(
    ("mode", "large"), [("32", True), ("pae", True), ("32-small", False)], indirect=["mode"]
)
def test_pse_decides_what_32_bit_paging_takes_for_a_large_page(made: HandMade, large: bool) -> None:
    """Without it, an entry at level 1 leads to a table, whatever its bit 7 (SDM 3A, table 4-5)."""
    address = made.mode.address & -1 << made.mode.shifts[1]
    made.map(made.root, address, LARGE, level=1)  # the first large page, at physical 0
    at = made.guest.image.batch  # there is the nonce of the batch
    result = made.ask(made.job("read", address + at))
    if large:
        assert (result["vector"], result["data"]) == (NO_EXCEPTION, made[at] % (1 << 32))
    else:
        assert (result["vector"], result["completed"]) == (PAGE_FAULT, 0)


def test_no_access_patches_and_watches_alone(made: HandMade) -> None:
    frame, word = made.frame(), made.mode.entry_bytes
    jobs = made.job("none", made.mode.address, patched=2, watched=4)
    jobs["where"][0, :4] = frame, frame + 2 * word, frame + word, frame + 3 * word
    jobs["word"][0, :2] = DATA, MOVED
    result = made.ask(jobs)
    assert (result["vector"], result["completed"]) == (NO_EXCEPTION, 1)
    first, third = (value % (1 << 8 * word) for value in (DATA, MOVED))
    assert result["after"].tolist()[:4] == [first, third, 0, 0]
    assert made.content(frame, 4 * word) == b"".join(
        value.to_bytes(word, "little") for value in (first, 0, third, 0)
    )


WINDOWS = {
    "zero": (0, ["32", "32-small", "pae", "4", "5"]),
    "at the end of 32 bits": ((1 << 32) - RAM_BYTES, ["32", "32-small", "pae", "4", "5"]),
    "in the lower half": (0x0000_4000_0000_0000, ["4", "5"]),
    "in the upper half": (WINDOW, ["4", "5"]),
    "beyond 48 bits": (0x00F0_0000_0000_0000, ["5"]),
    "beyond 48 bits in the upper half": (0xFF10_0000_0000_0000, ["5"]),
}


@pytest.mark.parametrize(
    ("window", "mode"),
    [
        pytest.param(window, mode, id=f"{name}-{mode}")
        for name, (window, modes) in WINDOWS.items()
        for mode in modes
    ],
    indirect=["mode"],
)
def test_the_window_may_lie_anywhere(
    guest: Guest, mode: Mode, frames: Iterator[int], window: int
) -> None:
    made = HandMade(guest, mode, frames, window=window)
    made.map(made.root, mode.address, made.frame(CONTENT) | USER)
    for user in (0, 1):
        result = made.ask(made.job("read", mode.address, user=user))
        assert result["data"] == mode.cut(DATA)


def test_one_guest_changes_between_all_modes(guest: Guest, frames: Iterator[int]) -> None:
    possible = [mode for mode in MODES.values() if mode.long or not why_long_mode_only(guest)]
    if not guest.info.has("la57"):
        possible.remove(MODES["5"])
    for before in possible:
        for mode in (before, *possible):
            made = HandMade(guest, mode, frames)
            made.map(made.root, mode.address, made.frame(CONTENT) | USER)
            for user in (0, 1):
                result = made.ask(made.job("read", mode.address, user=user))
                assert result["data"] == mode.cut(DATA)
            if mode.long:
                wide = made.ask(made.job("read", 1 << 55))
                assert wide["vector"] == {4: PROTECTION, 5: PAGE_FAULT}[mode.levels]


class TestBatches:
    def test_results_of_many_batches_come_in_the_order_of_the_jobs(
        self, guest: Guest, made: HandMade, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, frame = made.mode.address, made.frame()
        made.map(made.root, address, frame | WRITE)
        if guest.engine.name == "kvm":  # whose local kind is slow
            monkeypatch.setattr(guest, "capacity", 1000)
        count = 2 * guest.capacity + 3
        jobs = np.repeat(made.job("write", address, flush=0, watched=1), count)
        jobs["value"] = np.arange(count)
        jobs["where"][:, 0] = frame
        results = guest.run(made.state, jobs)
        assert np.array_equal(results["after"][:, 0], np.arange(count))

    def test_two_batches_are_under_way_and_no_more(self, guest: Guest, made: HandMade) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT))
        guest.start(made.state, made.job("read", address))
        guest.start(made.state, made.job("read", address + PAGE))
        with pytest.raises(Misuse, match="two batches are under way"):
            guest.start(made.state, made.job("read", address))
        with pytest.raises(Misuse, match="a batch is under way"):
            guest.run(made.state, made.job("read", address))
        assert guest.finish()["vector"].tolist() == [NO_EXCEPTION]
        assert guest.finish()["vector"].tolist() == [PAGE_FAULT]
        with pytest.raises(Misuse, match="no batch is under way"):
            guest.finish()

    def test_jobs_that_cannot_change_are_the_same_every_time(
        self, guest: Guest, made: HandMade
    ) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT))
        fixed, other = made.job("read", address), made.job("read", address + PAGE)
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
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT))
        jobs = made.job("read", address)
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
            ("where", 2, "not a multiple of"),
            ("access", 11, "no such access"),
            ("flush", 11, "no such flush"),
            ("control", 3, "no such control state"),
        ],
    )
    def test_a_job_outside_its_bounds_is_refused_by_its_index(
        self, guest: Guest, made: HandMade, field: str, value: int, reason: str
    ) -> None:
        jobs = np.concatenate([made.job("read", 0)] * 3)
        jobs[field][1] = value
        with pytest.raises(Misuse, match=f"^job 1, .*{reason}"):
            guest.run(made.state, jobs)

    def test_a_change_of_a_control_register_that_costs_the_guest_is_refused(
        self, guest: Guest, made: HandMade
    ) -> None:
        job = made.job("read", made.mode.address, value=1 << 12)
        job["flush"] = guest.image.enums["FLUSH_CR3"]
        with pytest.raises(Misuse, match=r"of CR3 no bits but .* can be changed here"):
            guest.run(made.state, job)

    @pytest.mark.parametrize("flush", ["address", "context", "rest", "all"])
    def test_invpcid_is_refused_where_the_processor_lacks_it(
        self, guest: Guest, made: HandMade, flush: str
    ) -> None:
        job = made.job("none", made.mode.address)
        job["flush"] = guest.image.enums[f"FLUSH_INVPCID_{flush.upper()}"]
        if guest.info.has("invpcid"):
            assert made.ask(job)["completed"] == 1
        else:
            with pytest.raises(Misuse, match="the guest's processor has no INVPCID"):
                guest.run(made.state, job)

    def test_invpcid_of_no_address_is_refused(self, guest: Guest, made: HandMade) -> None:
        if not (guest.info.has("invpcid") and made.mode.long):
            pytest.skip("there is no INVPCID here, or every address is one")
        job = made.job("none", 1 << 62)
        job["flush"] = guest.image.enums["FLUSH_INVPCID_ADDRESS"]
        with pytest.raises(Misuse, match="INVPCID of an address that is not canonical"):
            guest.run(made.state, job)

    @pytest.mark.parametrize("access", ["read", "write"])
    def test_an_access_has_a_width_that_the_mode_can_do(self, made: HandMade, access: str) -> None:
        for size in range(17):
            job = made.job(access, made.mode.address, size=size)
            if size in (1, 4, made.mode.width):
                assert made.ask(job)["vector"] == PAGE_FAULT
            else:
                with pytest.raises(Misuse, match="reads and writes"):
                    made.ask(job)

    @pytest.mark.parametrize("mode", ["32", "32-small", "pae"], indirect=True)
    def test_an_address_of_more_than_32_bits_is_refused_where_there_is_none(
        self, made: HandMade
    ) -> None:
        with pytest.raises(Misuse, match="no address above 4 GiB"):
            made.ask(made.job("read", 1 << 32))

    def test_words_are_as_wide_as_the_entries(self, made: HandMade) -> None:
        """Only there may a word lie at an odd multiple of four."""
        frame = made.frame()
        job = made.job("none", 0, patched=1, watched=1)
        job["where"][0, 0], job["word"][0, 0] = frame + 4, DATA
        if made.mode.entry_bytes == 4:
            assert made.ask(job)["after"][0] == DATA % (1 << 32)
            assert made.content(frame, 12) == bytes(4) + CONTENT[:4] + bytes(4)
        else:
            with pytest.raises(Misuse, match="not a multiple of 8"):
                made.ask(job)

    @pytest.mark.parametrize("mode", ["32"], indirect=True)
    def test_jobs_that_cannot_change_are_looked_at_again_in_another_mode(
        self, guest: Guest, made: HandMade, frames: Iterator[int]
    ) -> None:
        other = HandMade(guest, MODES["pae"], frames)
        job = made.job("none", 0, watched=1)
        job["where"][0, 0] = made.frame() + 4
        job.flags.writeable = False
        guest.start(made.state, job)
        with pytest.raises(Misuse, match="not a multiple of 8"):
            guest.start(other.state, job)
        guest.finish()

    def test_jobs_of_another_type_are_refused(self, guest: Guest, made: HandMade) -> None:
        with pytest.raises(Misuse, match=r"new_jobs\(\)"):
            guest.run(made.state, np.zeros(3, dtype=[("address", "<u8")]))


@pytest.fixture
def monitored(guest: Guest) -> None:
    """Leaves out engines whose emulator has no monitor."""
    if not guest.has_monitor:
        pytest.skip(f"{guest.engine.maker} has no monitor")


@pytest.mark.usefixtures("monitored")
class TestParked:
    def test_the_monitor_sees_the_tested_state(self, guest: Guest, made: HandMade) -> None:
        with guest.parked(made.state) as monitor:
            registers = monitor.registers()
            assert monitor.status() == "paused"
        assert registers["CR3"] == made.state.cr3
        assert registers["CR4"] == made.state.cr4
        assert registers["CR0"] == made.state.cr0
        assert registers["EFER"] & ~EFER_LMA == made.state.efer
        if made.mode.long:
            assert registers["RIP"] - WINDOW in guest.image.text
        else:  # in a segment that begins at the window
            assert registers["EIP"] in guest.image.text

    def test_the_monitor_translates_and_reads(self, guest: Guest, made: HandMade) -> None:
        address, frame, window = made.mode.address, made.frame(CONTENT), made.state.window
        high = (1 << 64 if made.mode.long else 1 << 32) - PAGE - 0x100_0000
        made.map(made.root, address, frame | WRITE)
        made.map(made.root, high, frame | USER | made.mode.nx)
        with guest.parked(made.state) as monitor:
            asked = [address + 5, high + 7, address + PAGE]
            assert monitor.translations(asked) == [frame + 5, frame + 7, None]
            assert monitor.read_virtual(address, 8) == CONTENT
            assert monitor.read_virtual(high, 8) == CONTENT
            assert monitor.read_virtual(address + PAGE, 8) is None
            assert monitor.read_physical(frame, 8) == CONTENT
            rows = monitor.info_tlb()
        stray = made.mode.nx if made.mode.name == "pae" else 0  # QEMU prints XD in the address
        seen = {
            int(row["virtual"]): (
                int(row["physical"]) & ~stray,
                bool(row["W"]),
                bool(row["U"]),
                bool(row["X"]),
            )
            for row in rows
            if not window <= row["virtual"] < window + guest.ram.size
        }
        no_code = made.mode.nx != 0
        assert seen == {address: (frame, True, False, False), high: (frame, False, True, no_code)}

    def test_the_guest_runs_on_after_parking(self, guest: Guest, made: HandMade) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT))
        with pytest.raises(ZeroDivisionError), guest.parked(made.state):
            _ = 1 / 0
        assert made.ask(made.job("read", address))["data"] == made.mode.cut(DATA)


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

    @pytest.mark.parametrize("mode", ["4"], indirect=True)
    @pytest.mark.parametrize("command", ["run", "park"])
    @pytest.mark.parametrize("change", ["digit", "short", "long", "no hex"])
    def test_a_batch_is_run_by_its_own_nonce_alone(
        self, guest: Guest, made: HandMade, command: str, change: str
    ) -> None:
        guest.run(made.state, made.job("none", 0))
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


def test_a_guest_of_a_test_that_names_no_emulator_runs_on_the_chosen_one(guest: Guest) -> None:
    maker, version = guest.engine.maker, dotted(guest.version)
    chosen = os.environ.get(maker.upper(), guest.engine.program)
    asked = subprocess.run([chosen, "--version"], capture_output=True, text=True, check=False)
    said = {"QEMU": f"version {version} ", "Bochs": f"Bochs x86 Emulator {version}\n"}[maker]
    assert said in asked.stdout + asked.stderr


def test_the_guest_tells_what_it_runs_on(guest: Guest) -> None:
    assert guest.version >= {"QEMU": OLDEST_QEMU, "Bochs": OLDEST_BOCHS}[guest.engine.maker]
    assert guest.info.vendor in {"GenuineIntel", "AuthenticAMD"}
    assert 36 <= guest.info.physical_bits <= 52
    assert guest.info.has("pae")
    assert guest.info.has("nx")
    if guest.has_monitor:
        assert guest.monitor.engine_in_use() == guest.engine.name
    else:
        with pytest.raises(Misuse, match=f"{guest.engine.maker} has no monitor"):
            guest.monitor.stop()


@pytest.mark.usefixtures("monitored")
def test_between_batches_the_stub_runs_on_tables_of_its_own(guest: Guest, made: HandMade) -> None:
    made.ask(made.job("none", 0))
    guest.monitor.stop()
    registers = guest.monitor.registers()
    guest.monitor.cont()
    assert registers["CR3"] in guest.image.data
    assert registers["CR4"] & CR4_LA57 == 0
    assert registers["RIP"] in guest.image.text
