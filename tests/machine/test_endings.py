"""How a machine ends when things go wrong: one sentence, the evidence, and nothing left behind."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from harness.machine import qemu as qemu_module
from harness.machine.descriptors import MOST_SAID
from harness.machine.errors import GuestLost, LaunchFailure, Misuse, ProtocolError
from harness.machine.machine import bound_to
from harness.machine.patience import Clock
from harness.machine.qemu import control_monitor
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.x86 import registry
from harness.machine.x86.engines import _brought_up, why_absent, why_not_started
from harness.machine.x86.guest import Guest
from harness.machine.x86.qemu import TCG
from tests.cli.commands import gone
from tests.machine.broken import ENDLESS_LINE, HANG, TRIPLE_FAULT, says, stub_that
from tests.machine.handmade import MODES, PAGE, HandMade

SMALL = ARENA.stop + 4 * RAM_UNIT
ROOT = Path(__file__).parents[2]


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    """The processes that this one has started and not reaped."""
    return {
        child
        for thread in Path("/proc/self/task").iterdir()
        for child in (thread / "children").read_text().split()
    }


@pytest.fixture(scope="module", autouse=True)
def nothing_is_awaited() -> None:
    """What earlier tests dropped is gone."""
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process, no descriptor, no file in /dev/shm outlives any of these tests."""
    shm = Path("/dev/shm")
    before = descriptors(), children(), set(shm.iterdir()) if shm.exists() else set()
    yield
    if (descriptors(), children()) != before[:2]:
        gc.collect()  # an exception that a test caught holds frames, and so arrays of guest memory
    assert (descriptors(), children()) == before[:2]
    assert (set(shm.iterdir()) if shm.exists() else set()) <= before[2]


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Guest("tcg", ram_bytes=SMALL, deadline=5) as guest:
        yield guest


@pytest.fixture
def made(guest: Guest) -> HandMade:
    return HandMade(guest, MODES["4"], itertools.count(ARENA.stop, PAGE))


def endless(made: HandMade) -> npt.NDArray[np.void]:
    """A job that is never done: the code at its address jumps to itself."""
    made.map(made.root, made.mode.address, made.frame(b"\xeb\xfe"))
    return made.job("fetch", made.mode.address)


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


OLD_QEMU = """
import json, re, socket, sys
argument = next(one for one in sys.argv if "id=monitor" in one)
monitor = socket.socket(fileno=int(re.search("fd=([0-9]+)", argument)[1]))
version = {"qemu": {"major": 4, "minor": 2, "micro": 1}, "package": ""}
monitor.send(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\\n")
monitor.recv(4096)
monitor.send(b'{"return": {}}\\n')
monitor.recv(4096)
"""


HELP = "#!/bin/sh\necho asked >> {log}\nprintf 'List of user creatable objects:\\n{types}'\n"


class TestMonitorArguments:
    """-mon or the object, by what QEMU says that it has."""

    @pytest.mark.parametrize(
        ("types", "arguments"),
        [
            (
                "  memory-backend-file\\n  monitor-qmp\\n",
                ("-object", "monitor-qmp,id=qmp,chardev=m"),
            ),
            ("  memory-backend-file\\n  monitor-qmp-x\\n", ("-mon", "chardev=m,mode=control")),
            ("", ("-mon", "chardev=m,mode=control")),
        ],
        ids=["object", "another object", "nothing"],
    )
    def test_they_are_what_qemu_says_it_has_and_it_is_asked_once(
        self, tmp_path: Path, types: str, arguments: tuple[str, str]
    ) -> None:
        log = tmp_path / "log"
        qemu = program(tmp_path / "qemu", HELP.format(log=log, types=types))
        assert [control_monitor(qemu, "m") for _ in range(2)] == [arguments] * 2
        assert log.read_text() == "asked\n"

    def test_a_qemu_that_does_not_answer_is_ended_in_time_and_asked_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(qemu_module, "PATIENCE", 0.3)
        log = tmp_path / "log"
        qemu = program(tmp_path / "qemu", f"#!/bin/sh\necho asked >> {log}\nexec sleep 60\n")
        clock = Clock(0)
        for _ in range(2):
            assert control_monitor(qemu, "m") == ("-mon", "chardev=m,mode=control")
        assert clock.now() < 5
        assert log.read_text() == "asked\nasked\n"

    def test_an_answer_without_end_is_cut(self, tmp_path: Path) -> None:
        qemu = program(tmp_path / "qemu", "#!/bin/sh\nexec yes monitor-qmp-x\n")
        assert control_monitor(qemu, "m") == ("-mon", "chardev=m,mode=control")


class TestLaunch:
    def test_without_qemu_the_sentence_says_so(self) -> None:
        with pytest.raises(Misuse, match="not in PATH as no-such-qemu"):
            Guest("tcg", ram_bytes=SMALL, program="no-such-qemu")

    def test_a_qemu_that_fails_is_quoted(self, tmp_path: Path) -> None:
        qemu = program(
            tmp_path / "qemu", "#!/bin/sh\necho one >&2\necho 'no machine' >&2\nexit 3\n"
        )
        with pytest.raises(LaunchFailure, match=r"exit code 3.*no machine") as caught:
            Guest("tcg", ram_bytes=SMALL, program=qemu)
        assert caught.value.exit_code == 3
        assert caught.value.stderr == "one\nno machine\n"
        assert qemu in caught.value.command

    def test_a_qemu_whose_errors_never_end_is_cut(self, tmp_path: Path) -> None:
        text = "#!/bin/sh\necho first >&2\nexec yes without end >&2\n"
        with pytest.raises(LaunchFailure, match=r"ended before its.*QEMU said") as caught:
            Guest("tcg", ram_bytes=SMALL, program=program(tmp_path / "qemu", text), deadline=0.5)
        assert caught.value.stderr.startswith("first\nwithout end\n")
        assert len(caught.value.stderr) <= MOST_SAID
        assert len(str(caught.value)) < 1000

    def test_a_line_of_errors_that_never_ends_is_cut(self, tmp_path: Path) -> None:
        text = "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x >&2\nexit 1\n"
        with pytest.raises(LaunchFailure, match=r"exit code 1.*QEMU said: xxx") as caught:
            Guest("tcg", ram_bytes=SMALL, program=program(tmp_path / "qemu", text))
        assert len(str(caught.value)) < 1000

    def test_a_signal_without_a_name_is_shown_by_its_number(self, tmp_path: Path) -> None:
        qemu = program(tmp_path / "qemu", "#!/bin/sh\nkill -40 $$\nsleep 60\n")
        with pytest.raises(LaunchFailure, match=r"\(ended by signal 40\)"):
            Guest("tcg", ram_bytes=SMALL, program=qemu)

    def test_a_qemu_that_says_nothing_is_ended_at_the_deadline(self, tmp_path: Path) -> None:
        qemu = program(tmp_path / "qemu", "#!/bin/sh\nexec sleep 60\n")
        clock = Clock(0)
        with pytest.raises(LaunchFailure, match=r"its monitor said nothing for 0\.3 s"):
            Guest("tcg", ram_bytes=SMALL, program=qemu, deadline=0.3)
        assert clock.now() < 5

    def test_a_qemu_that_ignores_the_request_to_end_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(qemu_module, "PATIENCE", 0.2)
        qemu = program(
            tmp_path / "qemu",
            f"#!{sys.executable}\nimport signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n",
        )
        with pytest.raises(LaunchFailure):
            Guest("tcg", ram_bytes=SMALL, program=qemu, deadline=0.5)

    @pytest.mark.hw
    def test_a_qemu_that_a_script_waits_for_ends_with_the_guest(self, tmp_path: Path) -> None:
        start = f'sh -c \'echo $$ > {tmp_path}/pid && exec {TCG.program} "$@"\' sh "$@"'
        script = program(tmp_path / "qemu", f"#!/bin/sh\n{start}\nexit $?\n")
        with Guest("tcg", ram_bytes=SMALL, program=script, deadline=5) as guest:
            pid = int((tmp_path / "pid").read_text())
            assert pid != guest.pid and not gone(pid)
        clock = Clock(0)
        while not gone(pid):
            assert clock.now() < 10

    def test_a_qemu_that_is_too_old_is_refused_by_its_version(self, tmp_path: Path) -> None:
        qemu = program(tmp_path / "qemu", f"#!{sys.executable}\n{OLD_QEMU}")
        with pytest.raises(Misuse, match=r"QEMU 4\.2\.1 is too old: install 7\.2\.0 or newer"):
            Guest("tcg", ram_bytes=SMALL, program=qemu, deadline=5)

    @pytest.mark.hw
    def test_another_engine_than_the_one_asked_for_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "ENGINES", {"kvm": replace(TCG, name="kvm")})
        with pytest.raises(ProtocolError, match="QEMU runs tcg, asked for kvm"):
            Guest("kvm", ram_bytes=SMALL)

    @pytest.mark.hw
    def test_a_processor_that_qemu_does_not_know_is_a_launch_failure(self) -> None:
        with pytest.raises(LaunchFailure, match="no-such-cpu") as caught:
            Guest("tcg", ram_bytes=SMALL, cpu="no-such-cpu")
        assert caught.value.exit_code == 1


@pytest.mark.hw
class TestStubThatNeverComesUp:
    @pytest.mark.parametrize("engine", ["tcg", "bochs"])
    def test_a_host_without_room_for_more_open_files_is_named(self, engine: str) -> None:
        if reason := why_not_started(engine):
            pytest.skip(reason)
        _brought_up.cache_clear()  # it may have come up for another test
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) + 2, limits[1]))
        try:
            reason = why_absent(engine)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        maker = registry.ENGINES[engine].maker
        assert reason is not None
        assert reason.startswith(f"{maker} did not start: Too many open files")

    def test_a_host_without_terminals_cannot_start_bochs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if reason := why_not_started("bochs"):
            pytest.skip(reason)

        def none_left() -> None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

        monkeypatch.setattr(os, "openpty", none_left)
        with pytest.raises(LaunchFailure, match=r"Bochs did not start: No such file.*/dev/pts"):
            Guest("bochs", ram_bytes=SMALL)

    def test_a_triple_fault_is_seen_as_a_reset(self, tmp_path: Path) -> None:
        with pytest.raises(GuestLost, match="it reset, as after a triple fault") as caught:
            Guest("tcg", ram_bytes=SMALL, image=stub_that(TRIPLE_FAULT, tmp_path), deadline=5)
        assert "RIP" in caught.value.evidence.registers or "EIP" in caught.value.evidence.registers

    def test_a_hang_ends_at_the_deadline(self, tmp_path: Path) -> None:
        with pytest.raises(GuestLost, match=r"no answer within 0\.5 s") as caught:
            Guest("tcg", ram_bytes=SMALL, image=stub_that(HANG, tmp_path), deadline=0.5)
        assert caught.value.evidence.registers["CR0"] & 1

    def test_garbage_without_end_is_a_protocol_error(self, tmp_path: Path) -> None:
        image = stub_that(ENDLESS_LINE, tmp_path)
        with pytest.raises(ProtocolError, match="a line without end"):
            Guest("tcg", ram_bytes=SMALL, image=image, deadline=5)

    def test_another_line_than_the_greeting_is_quoted(self, tmp_path: Path) -> None:
        image = stub_that(says(b"\xff\x00hm\n"), tmp_path)
        with pytest.raises(ProtocolError, match=r"instead of 'ready 4'") as caught:
            Guest("tcg", ram_bytes=SMALL, image=image, deadline=5)
        assert caught.value.answer.endswith("hm")

    def test_another_version_of_the_protocol_is_refused(self, tmp_path: Path) -> None:
        image = stub_that(says(b"ready 5\n"), tmp_path)
        with pytest.raises(ProtocolError, match="'ready 5' instead of 'ready 4'"):
            Guest("tcg", ram_bytes=SMALL, image=image, deadline=5)

    def test_half_a_line_is_no_answer(self, tmp_path: Path) -> None:
        image = stub_that(says(b"ready 4"), tmp_path)
        with pytest.raises(GuestLost, match="no answer") as caught:
            Guest("tcg", ram_bytes=SMALL, image=image, deadline=0.5)
        assert caught.value.evidence.console == ("ready 4",)


@pytest.mark.hw
class TestLostWhileRunning:
    def test_a_killed_qemu_is_reported_with_its_signal(self, guest: Guest, made: HandMade) -> None:
        guest.start(made.state, endless(made))
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestLost, match=r"QEMU ended \(ended by SIGKILL\)") as caught:
            guest.finish()
        assert caught.value.evidence.exit_code == -signal.SIGKILL
        assert caught.value.evidence.console == ("ready 4",)

    def test_qemu_warns_of_nothing_that_it_was_given(self, guest: Guest, made: HandMade) -> None:
        guest.start(made.state, endless(made))
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(GuestLost) as caught:
            guest.finish()
        assert caught.value.evidence.stderr == ""

    def test_a_stopped_qemu_is_ended_at_the_deadline(
        self, guest: Guest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(qemu_module, "PATIENCE", 0.2)
        guest.monitor._deadline = 0.3
        os.kill(guest.pid, signal.SIGSTOP)
        with pytest.raises(GuestLost, match=r"did not answer query-status within 0\.3 s"):
            guest.monitor.status()

    def test_entry_tables_that_map_nothing_are_a_triple_fault(
        self, guest: Guest, made: HandMade
    ) -> None:
        state = replace(made.state, entry_cr3=made.frame())
        with pytest.raises(GuestLost, match="it reset, as after a triple fault") as caught:
            guest.run(state, guest.image.new_jobs(1))
        assert caught.value.evidence.registers["CR3"] == state.entry_cr3

    def test_an_exception_of_the_stub_is_a_panic_with_its_registers(
        self, guest: Guest, made: HandMade
    ) -> None:
        last = guest.ram.size - RAM_UNIT
        made[made.slot(made.root, made.state.window + last, 1)] = 0
        jobs = guest.image.new_jobs(1)
        jobs["patched"], jobs["where"][:, 0] = 1, last
        with pytest.raises(GuestLost, match="unexpected exception, panic vector=0000") as caught:
            guest.run(made.state, jobs)
        registers = caught.value.evidence.registers
        assert (registers["vector"], registers["error"]) == (14, 2)
        assert registers["cr2"] == made.state.window + last
        assert registers["cr3"] == made.state.cr3
        assert registers["rip"] - made.state.window in guest.image.text
        assert caught.value.evidence.console[-1].startswith("panic vector=")

    def test_a_batch_that_does_not_end_is_lost_at_the_deadline(
        self, guest: Guest, made: HandMade
    ) -> None:
        guest.deadline = 0.5
        with pytest.raises(GuestLost, match=r"no answer within 0\.5 s") as caught:
            guest.run(made.state, endless(made))
        assert caught.value.evidence.registers["RIP"] == made.mode.address
        [note] = caught.value.__notes__
        assert f"RIP={made.mode.address:#x}" in note.split()

    def test_a_lost_guest_says_that_it_was_ended(self, guest: Guest, made: HandMade) -> None:
        guest.close()
        with pytest.raises(Misuse, match="this guest was ended"):
            guest.run(made.state, guest.image.new_jobs(1))
        with pytest.raises(Misuse, match="its guest was ended"):
            guest.monitor.registers()
        guest.close()


HOLD = f"""
import sys, time
from harness.machine.x86.guest import Guest
with Guest("tcg", ram_bytes={SMALL}) as guest:
    print(guest.pid, flush=True)
    while True:
        guest.monitor.status()
"""


@pytest.mark.hw
class TestInterrupted:
    @staticmethod
    def holder() -> tuple[subprocess.Popen[str], int]:
        """A process that holds a guest, and the process id of its QEMU."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    def test_ctrl_c_ends_the_guest_and_shows_as_itself(self) -> None:
        process, pid = self.holder()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert stderr.strip().endswith("KeyboardInterrupt")
        assert gone(pid)

    def test_ctrl_c_while_a_batch_runs_ends_the_guest(self, guest: Guest, made: HandMade) -> None:
        jobs = endless(made)
        timer = threading.Timer(0.4, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            guest.run(made.state, jobs)
        timer.join()
        assert gone(guest.pid)

    def test_a_command_whose_parent_is_gone_is_not_started(self) -> None:
        started = [*bound_to(os.getpid()), "echo", "started"]
        run = subprocess.run(started, capture_output=True, text=True, check=True)
        assert run.stdout == "started\n"
        by_another = ["sh", "-c", '"$@"; echo $?', "sh", *started]
        run = subprocess.run(by_another, capture_output=True, text=True, check=True)
        assert run.stdout == "1\n"

    def test_no_qemu_survives_the_kill_of_its_parent(self) -> None:
        process, pid = self.holder()
        process.kill()
        process.communicate(timeout=60)
        assert gone(pid)


RUN_ONE = f"""
import itertools, sys
from harness.machine.x86.guest import Guest
from harness.machine.ram import ARENA
from tests.machine.handmade import MODES, PAGE, WRITE, HandMade
mark = int(sys.argv[1])
with Guest("tcg", ram_bytes={SMALL}) as guest:
    made = HandMade(guest, MODES["4"], itertools.count(ARENA.stop, PAGE))
    made.map(made.root, 0x1000, made.frame(bytes([mark] * 8)))
    jobs = guest.image.new_jobs(20000)
    jobs["access"], jobs["size"], jobs["address"] = 1, 8, 0x1000
    print(sorted(set(guest.run(made.state, jobs)["data"].tolist())))
"""


@pytest.mark.hw
class TestHost:
    @pytest.mark.parametrize("shm", ["full", "absent"])
    def test_dev_shm_is_not_needed(self, shm: str, tmp_path: Path) -> None:
        """In a mount namespace of its own, where /dev/shm is so."""
        hide = {
            "full": "mount -t tmpfs -o size=4k none /dev/shm; cat /dev/zero > /dev/shm/x || true; "
            "test $(stat -f -c %f /dev/shm) = 0",
            "absent": f"mount --bind /dev/null {tmp_path}/null; mount --rbind {tmp_path} /dev; "
            "test ! -e /dev/shm",
        }[shm]
        (tmp_path / "null").touch()
        unshare = [str(shutil.which("unshare")), "--mount", "--user", "--map-root-user"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
            pytest.skip("this host allows no mount namespaces, so /dev/shm cannot be hidden")
        run = subprocess.run(
            [
                *unshare,
                "sh",
                "-c",
                f'set -e; {hide}; exec "$@"',
                "sh",
                sys.executable,
                "-c",
                RUN_ONE,
                "7",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.stdout.strip() == f"[{0x0707_0707_0707_0707}]", run.stderr
