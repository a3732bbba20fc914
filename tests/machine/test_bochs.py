"""One Bochs process: how it is started, how it rests, and how it ends."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from harness.machine.copied import CopiedMemory
from harness.machine.errors import GuestLost, LaunchFailure, Misuse, ProtocolError
from harness.machine.machine import Processor
from harness.machine.patience import Clock
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.x86 import bochs
from harness.machine.x86.bochs import BOCHS, Bochs, version_of
from harness.machine.x86.guest import Guest
from tests.cli.commands import gone
from tests.machine.bochs import PROGRAM, absent, needs_bochs
from tests.machine.broken import HANG, TRIPLE_FAULT, stub_that
from tests.machine.handmade import (
    CR0_WP,
    CR4_CET,
    DIRTY,
    MODES,
    MOVED,
    PAGE,
    USER,
    WRITE,
    HandMade,
)
from tests.machine.test_idle import cpu_seconds

SMALL = ARENA.stop + 4 * RAM_UNIT
ROOT = Path(__file__).parents[2]
PAGE_FAULT, NO_EXCEPTION = 14, 0xFF


@pytest.fixture
def guest() -> Iterator[Guest]:
    needs_bochs()
    with Guest("bochs", ram_bytes=SMALL, program=PROGRAM, deadline=5) as guest:
        yield guest


@pytest.fixture
def made(guest: Guest) -> HandMade:
    return HandMade(guest, MODES["4"], itertools.count(ARENA.stop, PAGE))


@pytest.fixture(scope="module", autouse=True)
def nothing_is_awaited() -> None:
    """What earlier tests dropped is gone, and Bochs was asked whether it runs."""
    absent()
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no process outlives any of these tests."""

    def held() -> tuple[set[str], list[str]]:
        threads = Path("/proc/self/task").iterdir()
        children = [one for thread in threads for one in (thread / "children").read_text().split()]
        return set(os.listdir("/proc/self/fd")), children

    before = held()
    yield
    if held() != before:
        gc.collect()  # an exception that a test caught holds frames, and so arrays of guest memory
    assert held() == before


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def waits(pid: int) -> int:
    """How often the first thread of a process has had nothing to do."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def stops(pid: int) -> bool:
    """Whether a process, each thread of it, is stopped, or is when it comes to the next signal."""
    clock = Clock(pid)
    while clock.now() < 2:
        threads = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/stat")]
        if all(one.rpartition(")")[2].split()[0] == "T" for one in threads):
            return True
        time.sleep(0.01)
    return False


class TestVersion:
    @pytest.mark.parametrize(
        ("said", "version"),
        [("Bochs x86 Emulator 2.7", (2, 7)), ("  Bochs x86 Emulator 3.0.1", (3, 0, 1))],
    )
    def test_it_is_what_bochs_says(self, tmp_path: Path, said: str, version: object) -> None:
        assert version_of(program(tmp_path / "bochs", f"echo '{said}' >&2")) == version

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("echo 'Bochs x86 Emulator 2.6.11'", r"Bochs 2\.6\.11 is too old: install 2\.7 or"),
            ("echo hello", "says no version of Bochs: it says hello; name another one"),
            ("true", "says no version of Bochs: it says nothing"),
        ],
    )
    def test_without_one_that_was_run_it_is_refused(
        self, tmp_path: Path, text: str, sentence: str
    ) -> None:
        with pytest.raises(Misuse, match=sentence):
            Guest("bochs", ram_bytes=SMALL, program=program(tmp_path / "bochs", text))

    def test_an_old_one_that_cannot_be_a_processor_says_which_can(self, tmp_path: Path) -> None:
        old = program(tmp_path / "bochs", "echo 'Bochs x86 Emulator 2.7'")
        for wanted in (Processor(lass=True), Processor(page1gb=False)):
            assert BOCHS.since(wanted) == (3, 0)
            cpu = BOCHS.processor(wanted)
            assert cpu is not None
            with pytest.raises(Misuse, match=rf"^Bochs 2\.7 cannot be the processor {cpu}: 3\.0"):
                Guest("bochs", ram_bytes=SMALL, cpu=cpu, program=old)

    def test_a_bochs_that_says_nothing_is_ended_in_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bochs, "PATIENCE", 0.3)
        silent = program(tmp_path / "bochs", "exec sleep 60")
        with pytest.raises(Misuse, match=r"did not say its version in 0\.3 s"):
            Guest("bochs", ram_bytes=SMALL, program=silent)


class TestLaunch:
    def test_without_bochs_the_sentence_says_so(self) -> None:
        with pytest.raises(Misuse, match="Bochs is not installed, or not in PATH as no-such-bochs"):
            Guest("bochs", ram_bytes=SMALL, program="no-such-bochs")

    def test_more_memory_than_bochs_can_have_is_refused(self) -> None:
        with pytest.raises(Misuse, match="a guest of Bochs has at most 2147483648"):
            Guest("bochs", ram_bytes=BOCHS.largest_ram + RAM_UNIT, program=PROGRAM)

    def test_a_bochs_that_ends_at_once_is_quoted(self, tmp_path: Path) -> None:
        ending = program(
            tmp_path / "bochs", "echo Bochs x86 Emulator 3.0; echo it is broken >&2; exit 3"
        )
        with pytest.raises(LaunchFailure, match=r"exit code 3.*Bochs said: it is broken"):
            Guest("bochs", ram_bytes=SMALL, program=ending, deadline=5)

    def test_a_bochs_that_never_starts_the_stub_is_ended_at_the_deadline(
        self, tmp_path: Path
    ) -> None:
        text = '[ "$1" != --help ] || exec echo Bochs x86 Emulator 3.0\nexec sleep 60'
        hanging = program(tmp_path / "bochs", text)
        with pytest.raises(GuestLost, match=r"no answer within 0\.5 s"):
            Guest("bochs", ram_bytes=SMALL, program=hanging, deadline=0.5)

    @pytest.mark.hw
    def test_memory_in_another_order_is_refused(
        self, guest: Guest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Bochs, "_memory_is_shared", lambda self: False)
        with pytest.raises(ProtocolError, match="keeps the guest's memory where the harness does"):
            Guest("bochs", ram_bytes=SMALL, program=PROGRAM, deadline=5)

    @pytest.mark.hw
    def test_a_model_that_bochs_does_not_know_is_a_launch_failure(self, guest: Guest) -> None:
        with pytest.raises(LaunchFailure, match="Bochs did not start") as caught:
            Guest("bochs", ram_bytes=SMALL, cpu="model=no-such", program=PROGRAM, deadline=5)
        assert "cpu directive malformed" in caught.value.stderr


def test_a_processor_is_one_of_its_models_or_none() -> None:
    assert BOCHS.processor(Processor()) == "model=corei7_icelake_u"
    assert BOCHS.processor(Processor(amd=True)) == "model=ryzen"
    assert BOCHS.processor(Processor(page1gb=False)) == (
        "model=corei7_icelake_u, exclude_features=1g_pages"
    )
    assert BOCHS.processor(Processor(maxphyaddr=46)) is None
    assert BOCHS.processor(Processor(pse36=False)) is None
    assert BOCHS.processor(Processor(amd=True, la57=True)) is None
    assert BOCHS.processor(Processor(shadow_stacks=True)) == "model=tigerlake"
    assert BOCHS.processor(Processor(amd=True, shadow_stacks=True)) is None
    assert BOCHS.processor(Processor(lass=True, la57=True)) == (
        "model=arrow_lake, exclude_features=cet"
    )
    for other in ({"amd": True}, {"shadow_stacks": True}, {"page1gb": False}):
        assert BOCHS.processor(replace(Processor(lass=True), **other)) is None


@pytest.mark.hw
class TestRest:
    def test_it_costs_no_cpu_between_batches(self, guest: Guest, made: HandMade) -> None:
        made.ask(made.job("none", 0))
        assert stops(guest.pid)
        before = cpu_seconds(guest.pid)
        time.sleep(0.3)
        assert cpu_seconds(guest.pid) == before
        assert made.ask(made.job("none", 0))["completed"] == 1

    def test_no_character_of_a_line_is_waited_for(self, guest: Guest, made: HandMade) -> None:
        """At each HLT Bochs waits for a key, 1 ms where none can come: 21 times a line."""
        made.ask(made.job("none", 0))
        before = waits(guest.pid)
        made.ask(made.job("none", 0))
        assert waits(guest.pid) - before < 10

    def test_memory_is_clear_when_the_stub_is_ready(self, guest: Guest) -> None:
        assert not guest.ram.buffer[ARENA.stop :].any()

    @pytest.mark.parametrize("shared", [True, False])
    @pytest.mark.parametrize("units", [1, 2, 3, 26])
    def test_memory_of_every_size_is_the_guest_s(
        self, units: int, shared: bool, request: pytest.FixtureRequest
    ) -> None:
        """Each unit is read, more than once, and then holds what was written to it."""
        if not shared:
            request.getfixturevalue("apart")
        size = ARENA.stop + units * RAM_UNIT
        with Guest("bochs", ram_bytes=size, program=PROGRAM, deadline=5) as other:
            made = HandMade(other, MODES["4"], itertools.count(ARENA.stop, PAGE))
            address, offsets = made.mode.address, range(0, RAM_UNIT, RAM_UNIT // 2)
            frames = [
                ARENA.stop + RAM_UNIT * unit + offset + RAM_UNIT // 4
                for unit in range(units)
                for offset in offsets
            ]
            for number, frame in enumerate(frames * 2):
                made.map(made.root, address, frame | WRITE)
                held = frame ^ number
                other.ram.buffer[frame : frame + 8].view("<u8")[0] = held
                assert made.ask(made.job("read", address))["data"] == held
                assert made.ask(made.job("write", address, value=held + 1))["completed"] == 1
                assert other.ram.buffer[frame : frame + 8].view("<u8")[0] == held + 1

    def test_it_opens_no_port_and_leaves_no_file(self, guest: Guest) -> None:
        links = [os.readlink(one) for one in Path(f"/proc/{guest.pid}/fd").iterdir()]
        assert not [one for one in links if one.startswith("socket:")]
        written = [one for one in links if not one.startswith(("/memfd:", "/dev/", "pipe:"))]
        assert all("lock" not in one and "bochs" not in one for one in written), written


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Bochs keep the guest's memory to itself."""
    needs_bochs()
    monkeypatch.setattr(bochs, "SHIM", Path("/dev/null"))


@pytest.mark.hw
@pytest.mark.usefixtures("apart")
class TestMemoryOfItsOwn:
    """What is not shared is copied both ways."""

    def test_it_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with Guest("bochs", ram_bytes=SMALL, program=PROGRAM, deadline=5):
            assert [one.message.partition(":")[0] for one in caplog.records] == [
                "Bochs keeps the guest's memory to itself"
            ]

    def test_each_side_has_the_words_that_only_the_other_wrote(self, made: HandMade) -> None:
        frame, address = made.frame(), made.mode.address
        made.map(made.root, address, frame | WRITE)
        octets = made.guest.ram.buffer[frame : frame + PAGE]
        jobs = made.guest.image.new_jobs(2)
        jobs[0] = made.job("write", address, value=MOVED)
        jobs[1] = made.job("read", address + 8)
        octets[8] = 1
        made.guest.start(made.state, jobs[:1])
        octets[16] = 2  # while the guest writes into the same page
        made.guest.start(made.state, jobs[1:])
        made.guest.finish()
        assert made.guest.finish()["data"] == 1
        assert octets.view("<u8")[:4].tolist() == [MOVED, 1, 2, 0]
        assert made.ask(made.job("read", address + 16))["data"] == 2

    def test_memory_that_is_cleared_is_clear_in_the_guest(self, made: HandMade) -> None:
        frame = made.frame()
        made.map(made.root, made.mode.address, frame | WRITE)
        made.ask(made.job("write", made.mode.address, value=MOVED))
        made.guest.ram.clear(range(frame, frame + PAGE))
        assert made.ask(made.job("read", made.mode.address))["data"] == 0

    def test_memory_that_is_not_found_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bochs, "last_words", lambda pid: iter(()))
        with pytest.raises(ProtocolError, match="keeps the guest's memory where the harness does"):
            Guest("bochs", ram_bytes=SMALL, program=PROGRAM, deadline=5)

    def test_memory_that_may_not_be_read_is_a_sentence(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(pid: int) -> NoReturn:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(bochs, "last_words", refused)
        with pytest.raises(ProtocolError, match=r"than the versions that were run \(Permission"):
            Guest("bochs", ram_bytes=SMALL, program=PROGRAM, deadline=5)

    @pytest.mark.parametrize("copy", ["give", "take"])
    def test_what_is_not_copied_is_found(
        self, made: HandMade, monkeypatch: pytest.MonkeyPatch, copy: str
    ) -> None:
        monkeypatch.setattr(CopiedMemory, copy, lambda self: None)
        with pytest.raises(ProtocolError, match=r"not the nonce|the memory does not"):
            made.ask(made.job("none", 0))

    def test_a_bochs_that_is_killed_is_a_lost_guest(self, made: HandMade) -> None:
        os.kill(made.guest.pid, signal.SIGKILL)
        with pytest.raises(GuestLost, match=r"Bochs ended \(ended by SIGKILL\)"):
            made.ask(made.job("none", 0))


@pytest.mark.hw
class TestEndings:
    def test_a_triple_fault_is_quoted_as_bochs_panics(self, guest: Guest, tmp_path: Path) -> None:
        with pytest.raises(LaunchFailure, match=r"Bochs said: .*>>PANIC<<.*3rd .* exception"):
            Guest(
                "bochs",
                ram_bytes=SMALL,
                program=PROGRAM,
                image=stub_that(TRIPLE_FAULT, tmp_path),
                deadline=10,
            )

    def test_a_stub_that_hangs_is_ended_at_the_deadline(self, guest: Guest, tmp_path: Path) -> None:
        image = stub_that(HANG, tmp_path)
        with pytest.raises(GuestLost, match=r"no answer within 0\.5 s"):
            Guest("bochs", ram_bytes=SMALL, program=PROGRAM, image=image, deadline=0.5)

    def test_a_bochs_that_is_killed_is_a_lost_guest(self, guest: Guest, made: HandMade) -> None:
        assert guest.is_well()
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestLost, match=r"Bochs ended \(ended by SIGKILL\)"):
            made.ask(made.job("none", 0))
        assert not guest.is_well()

    def test_a_batch_that_does_not_end_is_lost_at_the_deadline(
        self, guest: Guest, made: HandMade
    ) -> None:
        made.map(made.root, made.mode.address, made.frame(b"\xeb\xfe"))
        guest.deadline = 0.5
        with pytest.raises(GuestLost, match=r"no answer within 0\.5 s"):
            made.ask(made.job("fetch", made.mode.address))
        assert gone(guest.pid)

    def test_a_resting_bochs_does_not_survive_the_kill_of_its_parent(self, guest: Guest) -> None:
        text = (
            "import time\nfrom harness.machine.x86.guest import Guest\n"
            f"guest = Guest('bochs', ram_bytes={SMALL}, program={PROGRAM!r})\n"
            "print(guest.pid, flush=True)\ntime.sleep(60)\n"
        )
        command = [sys.executable, "-c", text]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert stops(pid)
            process.kill()
        assert gone(pid)


@pytest.fixture
def stacked() -> Iterator[HandMade]:
    """A guest with shadow stacks, in a state that has them on."""
    needs_bochs()
    cpu = BOCHS.processor(Processor(shadow_stacks=True))
    with Guest("bochs", ram_bytes=SMALL, cpu=cpu, program=PROGRAM, deadline=5) as guest:
        made = HandMade(guest, MODES["4"], itertools.count(ARENA.stop, PAGE))
        made.state = replace(made.state, cr0=made.state.cr0 | CR0_WP, cr4=made.state.cr4 | CR4_CET)
        yield made


@pytest.mark.hw
class TestShadowStacks:
    """A page with R/W=0 and D=1 is one (SDM 3A, 4.6.1); what would cost the stub is refused."""

    @pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
    def test_it_is_read_and_written_by_its_own_instructions_alone(
        self, stacked: HandMade, user: int
    ) -> None:
        address, of_user = stacked.mode.address, USER * user
        stacked.map(stacked.root, address, stacked.frame() | of_user | DIRTY)
        assert stacked.ask(stacked.job("shadow_read", address, user=user))["completed"] == 1
        write = stacked.job("shadow_write", address, user=user, value=MOVED)
        assert stacked.ask(write)["completed"] == 1
        assert stacked.ask(stacked.job("read", address, user=user))["data"] == MOVED
        denied = stacked.ask(stacked.job("write", address, user=user))
        assert (denied["vector"], denied["error"]) == (PAGE_FAULT, 0b011 | 4 * user)

    @pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
    @pytest.mark.parametrize("bits", [WRITE | DIRTY, 0], ids=["writable", "clean"])
    def test_no_other_page_is_one(self, stacked: HandMade, user: int, bits: int) -> None:
        address, of_user = stacked.mode.address, USER * user
        stacked.map(stacked.root, address, stacked.frame() | of_user | bits)
        for access, writes in (("shadow_read", 0), ("shadow_write", 2)):
            denied = stacked.ask(stacked.job(access, address, user=user))
            error = 0x41 | writes | 4 * user
            assert (denied["vector"], denied["error"]) == (PAGE_FAULT, error)

    @pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
    def test_return_reads_one_and_no_other_page(self, stacked: HandMade, user: int) -> None:
        address, of_user = stacked.mode.address, USER * user
        page = stacked.frame(MOVED.to_bytes(8, "little")) | of_user
        stacked.map(stacked.root, address, page | DIRTY)
        result = stacked.ask(stacked.job("return", address, user=user))
        assert (result["vector"], result["completed"]) == (NO_EXCEPTION, 1)
        stacked.map(stacked.root, address, page)
        denied = stacked.ask(stacked.job("return", address, user=user))
        assert (denied["vector"], denied["error"]) == (PAGE_FAULT, 0x41 | 4 * user)

    def test_a_return_to_the_address_that_was_called_from_is_no_mismatch(
        self, stacked: HandMade
    ) -> None:
        """What RET finds on the stack is zero, and so is this shadow stack: it goes there, where
        nothing is mapped."""
        stacked.map(stacked.root, stacked.mode.address, stacked.frame() | DIRTY)
        result = stacked.ask(stacked.job("return", stacked.mode.address))
        assert (result["vector"], result["cr2"], result["completed"]) == (PAGE_FAULT, 0, 0)

    def test_call_writes_its_return_address_to_one_and_to_no_other_page(
        self, stacked: HandMade
    ) -> None:
        address = stacked.mode.address
        frame = stacked.frame()
        stacked.map(stacked.root, address, frame | DIRTY)
        result = stacked.ask(stacked.job("call", address))
        assert result["completed"] == 1
        text, window = stacked.guest.image.text, stacked.state.window
        assert int(result["data"]) - window in text
        assert stacked[frame] == result["data"]
        stacked.map(stacked.root, address, frame | DIRTY | WRITE)
        denied = stacked.ask(stacked.job("call", address))
        assert (denied["vector"], denied["error"]) == (PAGE_FAULT, 0x43)

    def test_the_supervisor_writes_a_user_s_by_wruss(self, stacked: HandMade) -> None:
        address = stacked.mode.address
        stacked.map(stacked.root, address, stacked.frame() | USER | DIRTY)
        write = stacked.job("user_shadow_write", address, value=MOVED)
        assert stacked.ask(write)["completed"] == 1
        assert stacked.ask(stacked.job("read", address, user=1))["data"] == MOVED
        denied = stacked.ask(stacked.job("shadow_write", address))
        assert (denied["vector"], denied["error"]) == (PAGE_FAULT, 0x43)

    @pytest.mark.parametrize(
        ("access", "fields", "cleared", "sentence"),
        [
            ("shadow_read", {}, CR4_CET, r"a shadow-stack access needs CR4\.CET"),
            ("user_shadow_write", {"user": 1}, 0, "only the supervisor executes WRUSS"),
            ("call", {"user": 1}, 0, "only the supervisor executes CALL"),
            ("shadow_write", {"address": 0x4004}, 0, "is at a multiple of 8"),
            ("shadow_read", {"address": 1 << 47}, 0, "is at a canonical address"),
        ],
    )
    def test_what_would_cost_the_stub_is_refused(
        self, stacked: HandMade, access: str, fields: dict[str, int], cleared: int, sentence: str
    ) -> None:
        job = stacked.job(access, **{"address": stacked.mode.address, **fields})
        with pytest.raises(Misuse, match=sentence):
            stacked.ask(job, cr4=stacked.state.cr4 & ~cleared)

    def test_they_need_the_right_to_write_to_be_heeded(self, stacked: HandMade) -> None:
        with pytest.raises(Misuse, match="CR4 has CET, but CR0 no WP"):
            stacked.ask(stacked.job("none", 0), cr0=stacked.state.cr0 & ~CR0_WP)

    def test_jobs_that_were_checked_with_them_are_checked_again_without(
        self, stacked: HandMade
    ) -> None:
        stacked.map(stacked.root, stacked.mode.address, stacked.frame() | DIRTY)
        job = stacked.job("shadow_read", stacked.mode.address)
        job.flags.writeable = False
        for _ in range(2):
            stacked.guest.start(stacked.state, job)
            stacked.guest.finish()
        without = replace(stacked.state, cr4=stacked.state.cr4 & ~CR4_CET)
        with pytest.raises(Misuse, match=r"needs CR4\.CET"):
            stacked.guest.start(without, job)
