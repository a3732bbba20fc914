"""A foreign guest that a command holds is let run on if, and only if, it stands as it was left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from harness.machine.foreign import ForeignMonitor, conversation
from harness.machine.patience import Clock
from tests.cli.commands import ROOT, running
from tests.inspect.sources import machines
from tests.inspect.sources.machines import STUB, Machine, Witness

pytestmark = pytest.mark.hw

HOLDER = """
import sys
from pathlib import Path
from harness.machine.foreign import conversation
path, deadline = Path(sys.argv[1]), float(sys.argv[2])
with conversation(path, 0, deadline, holds=True) as monitor, monitor.paused():
    print("held", flush=True)
    for word in sys.stdin:
        print(monitor.status() if word == "look\\n" else word, flush=True)
"""
"""Holds a guest until its input ends, and asks for its state when told to look."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machines.running(tmp_path_factory.mktemp("machine"), *STUB) as machine:
        yield machine


@pytest.fixture
def witness(machine: Machine) -> Iterator[Witness]:
    """The monitor of someone else, whose guest runs before and after."""
    assert machine.witness.status() == "running"
    machine.witness.events.clear()
    yield machine.witness
    machine.witness.ask("cont")


@contextlib.contextmanager
def holder(machine: Machine, deadline: float = 10) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the guest."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(machine.path), str(deadline)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def looks(process: subprocess.Popen[str]) -> None:
    """Has the holder read all that QEMU has sent so far."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("look\n")
    process.stdin.flush()
    process.stdout.readline()


def ends(process: subprocess.Popen[str]) -> str:
    """Ends the holder in order; what it says."""
    assert process.stdin is not None
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    return errors


def migrated(witness: Witness) -> None:
    witness.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
    witness.ask("migrate", uri="exec:cat >/dev/null")
    while witness.ask("query-migrate").get("status") != "completed":
        time.sleep(0.01)


def reset(witness: Witness) -> None:
    witness.ask("system_reset")
    assert witness.becomes("prelaunch")


def let_run(witness: Witness) -> None:
    witness.ask("cont")


def let_run_and_stopped(witness: Witness) -> None:
    witness.ask("cont")
    witness.ask("stop")


MOVES = [
    (migrated, "postmigrate"),
    (reset, "prelaunch"),
    (let_run, "running"),
    (let_run_and_stopped, "paused"),
]
"""What others do with a guest that is held, and the state in which it is then theirs."""

each_move = pytest.mark.parametrize(
    ("moved", "state"), MOVES, ids=[move.__name__ for move, _ in MOVES]
)


@each_move
def test_a_guest_that_another_has_moved_is_left_and_a_sentence_says_so(
    machine: Machine, witness: Witness, moved: Callable[[Witness], None], state: str
) -> None:
    with holder(machine) as process:
        moved(witness)
        assert witness.status() == state
        witness.events.clear()
        errors = ends(process)
    assert witness.status() == state
    assert witness.events == []
    assert str(machine.path) in errors
    assert errors.count("\n") == 1
    assert ("another client let the guest" if state == "running" else f"it is {state}") in errors


@each_move
@pytest.mark.parametrize("looked", [False, True], ids=["unseen", "seen"])
def test_a_killed_command_does_not_let_it_run_either(
    machine: Machine,
    witness: Witness,
    moved: Callable[[Witness], None],
    state: str,
    looked: bool,
) -> None:
    with holder(machine) as process:
        moved(witness)
        if looked:
            looks(process)
        witness.events.clear()
        process.kill()
    free(machine)
    assert witness.status() == state
    assert witness.events == []


def free(machine: Machine) -> None:
    """Waits until no one holds the monitor any more: a guard ends after it has acted."""
    with conversation(machine.path, 0, 60):
        pass


def test_a_guest_that_is_stopped_just_before_is_not_let_run(
    machine: Machine, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = ForeignMonitor.running

    def stopped_after(self: ForeignMonitor) -> bool:
        found = runs(self)
        witness.ask("stop")
        return found

    monkeypatch.setattr(ForeignMonitor, "running", stopped_after)
    with conversation(machine.path, 0, 10, holds=True) as monitor, monitor.paused():
        pass
    assert witness.status() == "paused"
    assert "RESUME" not in witness.events


def test_a_client_that_waits_for_the_monitor_does_not_keep_the_guest_from_running(
    machine: Machine, witness: Witness
) -> None:
    with holder(machine) as process, socket.socket(socket.AF_UNIX) as queued:
        queued.connect(str(machine.path))
        process.kill()
        process.wait()
        assert witness.becomes("running")


@pytest.mark.parametrize("ending", ["asks", "interrupted", "ends", "killed"])
def test_a_command_whose_qemu_goes_mute_ends_soon_and_the_guest_runs_once_it_answers(
    machine: Machine, witness: Witness, ending: str
) -> None:
    with holder(machine, deadline=1) as process:
        assert process.stdin is not None
        os.kill(machine.process.pid, signal.SIGSTOP)
        clock = Clock(process.pid)
        try:
            if ending == "asks":
                process.stdin.write("look\n")
                process.stdin.flush()
            elif ending != "ends":
                process.send_signal(signal.SIGINT if ending == "interrupted" else signal.SIGKILL)
            _, errors = process.communicate(timeout=50)
            assert clock.now() < 6  # 1 for the answer that does not come, 1 for the guard
        finally:
            os.kill(machine.process.pid, signal.SIGCONT)
        assert witness.becomes("running")
        free(machine)
    if ending != "killed":
        assert "did not answer query-status within 1 s" in errors
        assert f"the guest at {machine.path} may be paused" in errors
        assert errors.count("lets it run on, should QEMU answer within 60 s") == 1


def test_a_command_that_is_killed_in_the_middle_of_a_question_lets_the_guest_run(
    machine: Machine, witness: Witness
) -> None:
    """The guard reads on after the half of an answer that was read before it."""
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04):
        with running("check", "--qmp", machine.path, cwd=ROOT) as process:
            assert witness.becomes("paused")
            time.sleep(delay)
            process.kill()
        assert witness.becomes("running")
        free(machine)


def test_ctrl_c_is_one_line_however_often_it_comes(machine: Machine, witness: Witness) -> None:
    for delay in (0.0, 0.005, 0.01, 0.02, 0.04, 0.06):
        with running("check", "--qmp", machine.path, cwd=ROOT) as process:
            assert witness.becomes("paused")
            time.sleep(delay)
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
                time.sleep(0.002)
            _, errors = process.communicate(timeout=60)
        assert errors in ("pagetable: interrupted.\n", "")
        assert process.returncode in (130, -signal.SIGINT, 0)
        assert witness.becomes("running")
        free(machine)
