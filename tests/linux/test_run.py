"""The Linux guest as people start it: what it shows, and that it ends in every case."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.machine.errors import MachineError, Misuse
from harness.machine.foreign import conversation
from harness.machine.patience import Clock

pytestmark = [pytest.mark.hw, pytest.mark.usefixtures("linux_image")]

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
INTERRUPTED = 130


@contextlib.contextmanager
def running(socket: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m images.linux`, once its QEMU answers at the socket."""
    command = (sys.executable, "-m", "images.linux", "--qmp", str(socket), *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            clock = Clock(process.pid)
            while not answers(socket) and process.poll() is None:
                assert clock.now() < PATIENCE, "no monitor"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def answers(socket: Path) -> bool:
    try:
        with conversation(socket, 0, PATIENCE):
            return True
    except (Misuse, MachineError):
        return False


def gone(socket: Path) -> bool:
    clock = Clock(0)
    while answers(socket):
        if clock.now() > PATIENCE:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_kill_ends_it_and_leaves_no_socket(
    tmp_path: Path, ending: signal.Signals
) -> None:
    socket = tmp_path / "a,socket"
    with running(socket, "--levels", "4", "--pti", "off") as process:
        process.send_signal(ending)
        assert process.wait(PATIENCE) == INTERRUPTED
        assert not socket.exists()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with running(socket) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert gone(socket)


def test_its_end_is_told(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with running(socket) as process:
        with conversation(socket, 0, PATIENCE) as monitor:
            monitor.execute("quit")
        assert process.wait(PATIENCE) == 3
        assert process.stderr is not None
        assert process.stderr.read().startswith("QEMU ended.")


def test_a_socket_in_use_is_not_taken_away(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    with running(socket), running(socket) as second:
        assert second.wait(PATIENCE) == 2
        assert second.stderr is not None
        assert second.stderr.read().strip().endswith("end it, or name another socket")
        assert answers(socket)


def test_a_qemu_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    with running(tmp_path / "socket", "--qemu", "no-such-qemu") as process:
        assert process.wait(PATIENCE) == 2
        assert process.stderr is not None
        assert "not in PATH as no-such-qemu" in process.stderr.read()


def test_a_socket_in_no_directory_is_a_sentence(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "images.linux", "--qmp", str(tmp_path / "none" / "socket"))
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 2
    assert (
        ended.stderr == f"images.linux: there is no directory {tmp_path / 'none'} for the socket\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--levels", "3"), "--levels is 4 or 5 on x86: 3 are for --arch riscv"),
        (("--arch", "arm64", "--levels", "3"), "--levels is 4 or 5 on arm64: 3 are for --arch"),
        (("--arch", "riscv", "--pti", "on"), "--pti is for x86: that for riscv does not isolate"),
    ],
)
def test_a_linux_that_there_is_not_is_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    with running(tmp_path / "socket", *arguments) as process:
        assert process.wait(PATIENCE) == 2
        assert process.stderr is not None
        assert process.stderr.read().startswith(f"images.linux: {said}")
