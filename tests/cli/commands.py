"""The command as people run it, and processes as they are seen from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from harness.cli import application
from harness.machine.patience import Clock

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """`pagetable` with these arguments, as a process of its own that does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of `pagetable` with these arguments, run in this process."""
    with contextlib.chdir(cwd):
        words = list(map(str, arguments))
        ended = CliRunner().invoke(application(words[0]), words, prog_name="pagetable")
    return ended.exit_code, ended.stdout, ended.stderr


def guest_of(
    process: subprocess.Popen[str], within: float = 20.0, emulator: str | tuple[str, ...] = "qemu"
) -> int:
    """The process id of an emulator that a worker of the command runs, when there is one: not of
    one that is asked for its help, which no guest is in."""
    clock = Clock(process.pid)
    while clock.now() < within:
        for worker in children(process.pid):
            for child in children(worker):
                words = arguments(child)  # none while it is being started
                if name(child).startswith(emulator) and words[1:] and "help" not in words:
                    return child
        time.sleep(0.005)
    raise AssertionError(f"no {emulator} within {within:g} s")


def children(pid: int) -> list[int]:
    """The processes that this one started and has not reaped."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def name(pid: int) -> str:
    """The name of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def arguments(pid: int) -> list[str]:
    """The words of the command line of a process, none when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends in time; one that awaits its reaper counts as ended."""
    clock = Clock(pid)
    while clock.now() < within:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
