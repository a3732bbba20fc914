"""What runs a guest: what is asked of every emulator, and what all of them share.

An `Engine` says what executes a guest and what it can; `Engine.start` starts a `Machine`. A `Guest`
speaks with the stub by a machine's memory and console, and knows nothing else of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from harness.machine.descriptors import said
from harness.machine.errors import Evidence, GuestLost, LaunchFailure, Misuse
from harness.machine.patience import Clock

if TYPE_CHECKING:
    from harness.machine.monitor import Monitor
    from harness.machine.ram import Ram
    from harness.machine.stub import StubImage

SETTLES: Final = 0.1
"""Seconds that it may take from the end of an emulator's streams to its own."""

PATIENCE: Final = 2.0
"""Seconds that each step of ending an emulator may take before the next, harder one."""

TRANSCRIPT_SIZE: Final = 16384
"""How many characters of the end of the console's output are kept as evidence."""


class Machine(Protocol):
    """An emulator that runs the stub in memory that this process shares.

    `version` is its version, `command` what started it, `pid` the process. `console` is this
    process's end of the stub's console, `transcript` takes what comes from there.
    """

    transcript: Transcript
    command: tuple[str, ...]

    @property
    def console(self) -> socket.socket | int: ...

    @property
    def pid(self) -> int: ...

    @property
    def version(self) -> tuple[int, ...]: ...

    def begin(self, deadline: float) -> Monitor | None:
        """Let the guest run, and answer the emulator's monitor, None where it has none: each of its
        answers may take `deadline` seconds."""

    def come_up(self) -> str:
        """The name of the engine that executes the stub, which has said that it is ready."""

    def attend(self, line: str) -> bool:
        """Take a line that is not the stub's own; False where it is none of the machine's."""

    def before_work(self) -> None:
        """The stub is about to be told something."""

    def after_work(self) -> None:
        """The stub has answered, and has nothing to do until it is told the next thing."""

    def trouble(self) -> str | None:
        """Why no answer of the stub can come, as the end of a sentence; None if one can."""

    def registers(self) -> Mapping[str, int]:
        """What can be learned of the processor's registers."""

    def exit_code(self) -> int | None:
        """None while the process runs; negative for the signal that ended it."""

    def launch_failure(self, reason: str) -> LaunchFailure:
        """End the process, and answer the exception that says why it never came up."""

    def guest_lost(self, seen: str, registers: Mapping[str, int] | None = None) -> GuestLost:
        """End the process, and answer the exception that says how its guest was lost."""

    def end(self) -> None:
        """End the process, if it still runs, and reap it."""

    def close(self) -> None:
        """End the process, and give back all that was shared with it."""


class Ability(Enum):
    """What some cases need of an engine and not every engine has, as what it can do."""

    SHADOW_STACKS = "execute shadow-stack accesses (CET)"
    MASKED_POINTERS = "mask metadata in pointers (LAM)"
    SEPARATED_HALVES = "tell apart addresses of the user's and the supervisor's by bit 63 (LASS)"
    REFUSED_LOADS = "refuse what CR0, CR3 and CR4 cannot hold"


@dataclass(frozen=True, order=True)
class Processor:
    """What a guest's processor is to be, where an engine can choose; `la57` that it must have five
    levels, `shadow_stacks` that it must have those, `lass` that it must tell the user's addresses
    from the supervisor's."""

    maxphyaddr: int = 40
    page1gb: bool = True
    pse36: bool = True
    amd: bool = False
    la57: bool = False
    shadow_stacks: bool = False
    lass: bool = False


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What executes guests, and what it can: whatever differs between engines is asked of this.

    name              by which people choose it
    maker             the emulator, for people
    program           that emulator, unless another is named
    package           Debian's, in which it is
    environment       the variable that names another
    start             starts it: program, engine, memory, stub, and the processor or None
    processor         the processor that is meant, as `start` takes it; None where it cannot be that
    since             the first version of the emulator that can be a processor; () for every one
    largest_ram       bytes of memory from address 0 on, at most
    high              whether memory can go on above 4 GiB
    any_width         whether MAXPHYADDR can be chosen
    can               what it can of what not every engine can
    device            what must be opened to use it, None for nothing
    by_kernel         whether a module of the host's kernel executes the guest
    keeps_stale       whether a translation stays in use until it is flushed
    by_default        whether it is run where no engine is asked for
    matrix_accesses   how many accesses of the matrix it is given; None for all
    """

    name: str
    maker: str
    program: str
    package: str
    environment: str
    start: Callable[[str, Engine, Ram, StubImage, str | None], Machine]
    processor: Callable[[Processor], str | None]
    since: Callable[[Processor], tuple[int, ...]] = lambda processor: ()
    largest_ram: int
    high: bool
    any_width: bool
    can: frozenset[Ability] = frozenset()
    device: Path | None = None
    by_kernel: bool = False
    keeps_stale: bool = True
    by_default: bool = True
    matrix_accesses: int | None = None

    def installed(self, program: str | None = None) -> str:
        """The path of the emulator, or of this one in its place; raises `Misuse` if it cannot be
        found."""
        program = program or self.program
        path = shutil.which(program)
        if path is None:
            raise Misuse(
                f"{self.maker} is not installed, or not in PATH as {program}: install it (Debian's"
                f" package is {self.package}), or name another with --{self.maker.lower()} or the"
                f" environment's {self.environment}"
            )
        return path


class Transcript:
    """The end of what the guest printed, as a file to write to."""

    def __init__(self) -> None:
        self._end = ""

    def write(self, text: str) -> None:
        self._end = (self._end + text)[-TRANSCRIPT_SIZE:]

    def flush(self) -> None:
        """Nothing is held back."""

    def last_lines(self, count: int = 10) -> tuple[str, ...]:
        """The last lines, without their ends."""
        return tuple(self._end.splitlines()[-count:])


class Emulator:
    """The process of a machine, from its start to its certain end.

    The class of a machine sets `command`, and `_process` and `_stderr`, the process and the file
    that takes what it says; `_resources` gives back what it shares with it.
    """

    maker: str
    command: tuple[str, ...]
    _process: subprocess.Popen[bytes]
    _stderr: int
    _resources: contextlib.ExitStack

    def __init__(self) -> None:
        self.transcript = Transcript()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while the process runs; negative for the signal that ended it."""
        return self._process.poll()

    def stderr(self) -> str:
        """What the process has said so far: the first `MOST_SAID` bytes of that."""
        return said(self._stderr)

    def launch_failure(self, reason: str) -> LaunchFailure:
        """End the process, and answer the exception that says why it never came up."""
        exit_code = self._settled_exit_code()
        stderr = self.stderr()
        self.end()
        ending = "" if exit_code is None else f" ({_ending(exit_code)})"
        return LaunchFailure(
            f"{self.maker} did not start: {reason}{ending}.",
            exit_code=exit_code,
            command=self.command,
            stderr=stderr,
            maker=self.maker,
        )

    def guest_lost(self, seen: str, registers: Mapping[str, int] | None = None) -> GuestLost:
        """End the process, and answer the exception that says how its guest was lost."""
        exit_code = self._settled_exit_code()
        stderr = self.stderr()
        self.end()
        ending = "" if exit_code is None else f" ({_ending(exit_code)})"
        evidence = Evidence(self.transcript.last_lines(), stderr, exit_code, registers or {})
        return GuestLost(f"the guest is lost: {seen}{ending}.", evidence, maker=self.maker)

    def _settled_exit_code(self) -> int | None:
        """The exit code of a process whose streams ended a moment ago; None if it runs on."""
        clock = Clock(self.pid)
        while self._process.poll() is None and clock.now() < SETTLES:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SETTLES)
        return self._process.poll()

    def end(self) -> None:
        """End the process, if it still runs, and reap it; then what it leaves of its group, as a
        script does that starts the emulator and waits for it."""
        if self._process.poll() is None:
            end(self._process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """End the process, and give back all that was shared with it."""
        self.end()
        self._resources.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it still runs, and reap it: softly, so that it removes what it made, and
    by force where it has not ended within `PATIENCE`."""
    for step in (process.terminate, process.kill):
        if process.poll() is not None:
            break
        step()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    process.wait()


def bound_to(parent: int) -> tuple[str, ...]:
    """What to put before a command, so that the kernel kills it when its parent ends.

    `parent` is this process. If it ended before the kernel was asked, the command is not started.
    """
    ask = (installed("setpriv"), "--pdeathsig", "KILL", "--")
    return *ask, installed("sh"), "-c", 'test $PPID = $0 && exec "$@"', str(parent)


PACKAGES: Final = {
    "setpriv": "util-linux",
    "sh": "dash",
}
"""Debian's, of the programs with which emulators are started."""


def installed(program: str) -> str:
    """The path of a program with which emulators are started; raises `Misuse` if it cannot be
    found."""
    path = shutil.which(program)
    if path is None:
        raise Misuse(f"{program} is not in PATH: install {PACKAGES[program]}")
    return path


def dotted(version: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        names = {one.value: one.name for one in signal.Signals}  # most of real time have none
        return f"ended by {names.get(-exit_code, f'signal {-exit_code}')}"
    return f"exit code {exit_code}"
