"""A QEMU that its user's own command line starts, with the plugin that watches the guest's flushes.

The plugin (`guest/plugin`) writes what it sees into memory that this process shares, as numbers
whose names stand there too: they can be read while the guest runs, and when QEMU was killed.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from harness.architectures import USUAL
from harness.machine.descriptors import anonymous_file
from harness.machine.errors import LaunchFailure, MachineError, Misuse
from harness.machine.machine import PATIENCE, bound_to, end
from harness.machine.patience import Clock

DEADLINE: Final = 20_000_000
"""Blocks of instructions that a processor may execute between a change and its flush."""

_MAGIC: Final = b"flushes1"
_SENTENCE, _NAMES = 512, 4096
_HEAD: Final = len(_MAGIC) + _SENTENCE + _NAMES
_WORD: Final = 8
WATCHING: Final = 1
"""In the total `state`, once the plugin has checked itself."""

_REFUSED: Final = 2  # enum state in guest/plugin/report.h
_GLANCE: Final = 0.05
"""Seconds between two looks at whether QEMU has ended."""

_SHORT_GLANCE: Final = 0.01
"""The same where it was asked to end."""

_HARDWARE: Final = ("kvm", "hvf", "whpx", "nvmm", "xen")


def built_plugin(arch: str) -> Path:
    """The plugin for guests of an architecture."""
    return Path(__file__).with_name(f"flushes-{arch}.so")


@dataclass(frozen=True)
class Report:
    """What the plugin has told: its refusal or "", totals by name, and causes by name."""

    sentence: str
    totals: Mapping[str, int]
    causes: tuple[Mapping[str, int], ...]


class Ending(Enum):
    """What ended a run."""

    ITSELF = "by itself"
    LIMIT = "by the time limit"
    INTERRUPT = "by Ctrl-C or SIGTERM"


@dataclass(frozen=True)
class Watched:
    """A run: what the plugin told of it, what ended it, QEMU's exit code and seconds."""

    report: Report
    ending: Ending
    exit_code: int
    seconds: float


class _Shared:
    """The memory that the plugin writes to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, causes: bool = True) -> Report | None:
        """What is there; None where no plugin has begun to write."""
        size = os.fstat(self._fd).st_size
        if size < _HEAD:
            return None
        with mmap.mmap(self._fd, size, prot=mmap.PROT_READ) as memory:
            head = memory[:_HEAD]
            if not head.startswith(_MAGIC):
                return None
            sentence, names = head[len(_MAGIC) :][:_SENTENCE], head[len(_MAGIC) + _SENTENCE :]
            of_totals, of_cause = (part.split() for part in _text(names).split(";"))
            end = _HEAD + _WORD * len(of_totals)
            totals = dict(zip(of_totals, _words(memory[_HEAD:end]), strict=True))
            count = totals["causes"] if causes else 0
            width = _WORD * len(of_cause)
            rows = [memory[end + i * width : end + (i + 1) * width] for i in range(count)]
        found = tuple(dict(zip(of_cause, _words(row), strict=True)) for row in rows)
        return Report(_text(sentence), totals, found)


def _text(octets: bytes) -> str:
    return octets.split(b"\0", 1)[0].decode("ascii", "replace")


def _words(octets: bytes) -> list[int]:
    return list(struct.unpack(f"={len(octets) // _WORD}Q", octets))


def watched(
    command: Sequence[str],
    *,
    limit: float | None = None,
    deadline: int = DEADLINE,
    arch: str = USUAL,
    plugin: Path | None = None,
    plant: int = 0,
    stdout: IO[bytes] | int | None = None,
    progress: Callable[[float, Mapping[str, int]], None] = lambda seconds, totals: None,
) -> Watched:
    """Runs a command of QEMU's with the plugin until it ends, `limit` seconds are over, or Ctrl-C.

    `arch` is the guest's architecture; `plugin` stands for its own.

    QEMU has this process's terminal, the files that this process hands on, and its standard output
    unless `stdout` is another file.  With the run ends every process that the command has started,
    also behind a script that does not exec.  If this process is killed, the one that it has started
    is killed, too, but none behind that.

    Raises `Misuse` for a command that cannot be watched, `LaunchFailure` where QEMU never loaded
    the plugin (after Ctrl-C, `KeyboardInterrupt`), and `MachineError` where the plugin refuses to
    watch.
    """
    plugin = plugin or built_plugin(arch)
    if limit is not None and not 0 < limit < math.inf:
        raise Misuse(f"a limit of {limit:g} seconds is none: take a number above 0")
    program = _checked(command, plugin)
    fd = anonymous_file("flushes")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        stack.enter_context(_terminal_as_it_was())
        planted = f",plant={plant}" if plant else ""
        arguments = f"{str(plugin).replace(',', ',,')},report={fd},deadline={deadline}{planted}"
        full = (*bound_to(os.getpid()), program, *command[1:], "-plugin", arguments)
        began = time.monotonic()
        os.set_inheritable(fd, True)
        # A command line may name files that were opened for it, as -netdev tap,fd=3 does.
        process = subprocess.Popen(full, stdout=stdout, close_fds=False)
        shared = _Shared(fd)
        try:
            ending = _wait(process, shared, began, limit, progress)
        finally:
            end(process)
            _end_others(fd)
        seconds = time.monotonic() - began
        report = shared.read()
    if report is None and ending is Ending.INTERRUPT:
        raise KeyboardInterrupt
    if report is None:
        code = process.returncode
        how = f"ended with exit code {code}"
        if ending is Ending.LIMIT:
            how = "was ended by the time limit"
        raise LaunchFailure(
            f"QEMU {how} and has not loaded the plugin: see what it said above (a QEMU without"
            " plugins, or of another version, loads none)",
            exit_code=process.returncode,
            command=full,
            stderr="",
        )
    if report.sentence:
        raise MachineError(f"the flushes of this QEMU cannot be watched: {report.sentence}.")
    return Watched(report, ending, process.returncode, seconds)


def _checked(command: Sequence[str], plugin: Path) -> str:
    """The path of the program; Misuse where the command cannot be watched."""
    if not command:
        raise Misuse("name the command that starts QEMU: pagetable flushes -- qemu-system-x86_64 …")
    if not plugin.exists():
        raise Misuse(f"{plugin} is not built: run make guest")
    if {"-daemonize", "--daemonize"} & {*command}:
        raise Misuse("with -daemonize QEMU leaves the process that started it: drop that option")
    for option, value in pairwise((*command[1:], "")):
        if option.startswith("-") and _accelerator(option.lstrip("-"), value) in _HARDWARE:
            said = option if option.endswith("enable-kvm") else f"{option} {value}"
            raise Misuse(
                f"{said} has the host's processor execute the guest, which no plugin"
                " sees: drop it, or ask for -accel tcg"
            )
    program = shutil.which(command[0])
    if program is None:
        raise Misuse(f"{command[0]} is not a program, and not in PATH")
    return program


def _accelerator(option: str, value: str) -> str:
    """The accelerator that an option asks for first, or ""."""
    if option == "enable-kvm":
        return "kvm"
    if option == "accel":
        return value.split(",")[0].removeprefix("accel=")
    if option in ("machine", "M"):
        asked = [part for part in value.split(",") if part.startswith("accel=")]
        return asked[-1].removeprefix("accel=").split(":")[0] if asked else ""
    return ""


def _wait(
    process: subprocess.Popen[bytes],
    shared: _Shared,
    began: float,
    limit: float | None,
    progress: Callable[[float, Mapping[str, int]], None],
) -> Ending:
    starting = Clock(process.pid)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GLANCE)
                return Ending.ITSELF
            seconds = time.monotonic() - began
            report = shared.read(causes=False)
            if report is None:  # QEMU starts, which takes its time on a loaded host
                if limit is not None and starting.now() > limit:
                    return Ending.LIMIT
                continue
            if report.totals["state"] == _REFUSED:
                return Ending.ITSELF
            progress(seconds, report.totals)
            if limit is not None and seconds > limit:
                return Ending.LIMIT
    except KeyboardInterrupt:
        return Ending.INTERRUPT


def _end_others(fd: int) -> None:
    """Ends every other process that has the report open: QEMU itself, where a script has started
    it and waited for it, and what that has started besides.  Softly, and by force where it has not
    ended within `PATIENCE`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        asked = set[int]()
        until = time.monotonic() + PATIENCE
        while (left := _others(fd)) and time.monotonic() < until:
            for pid in left - asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            asked |= left
            time.sleep(_SHORT_GLANCE)
        if not left:
            return


def _others(fd: int) -> set[int]:
    """The processes beside this one that have a file open; those that can be seen."""
    mine = os.fstat(fd)
    found = set[int]()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):
            if pid != os.getpid() and os.path.samestat(mine, os.stat(f"/proc/{pid}/fd/{fd}")):
                found.add(pid)
    return found


@contextlib.contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """Gives a terminal back as it was, which a QEMU that was killed leaves raw."""
    if not sys.stdin or not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        usual = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTTOU, usual)
