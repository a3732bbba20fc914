"""One QEMU process, from its start to its certain end.

QEMU gets nothing but what the guest needs, and everything by inheritance: RAM, the monitor's and
the console's socket, a scratch file for memory reads. So there are no paths, no ports, and nothing
to clean up but the process; and the kernel ends that when this process ends, however it does.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from harness.machine.descriptors import (
    anonymous_file,
    said,
    socket_above_standard,
    what_is_said,
)
from harness.machine.errors import Evidence, GuestLost, LaunchFailure, Misuse
from harness.machine.patience import Clock
from harness.machine.ram import MIB, Ram

OLDEST_QEMU: Final = (7, 2, 0)
"""The oldest version whose behaviour was measured; older ones are refused."""

SETTLES: Final = 0.1
"""Seconds that it may take from the end of QEMU's streams to its own."""

PATIENCE: Final = 2.0
"""Seconds that each step of ending QEMU may take before the next, harder one."""

TRANSCRIPT_SIZE: Final = 16384
"""How many characters of the end of the console's output are kept as evidence."""


@dataclass(frozen=True)
class Engine:
    """What executes the guest: its name, QEMU's -accel and -cpu for it."""

    name: str
    accelerator: str
    cpu: str


ENGINES: Final[Mapping[str, Engine]] = {
    engine.name: engine
    for engine in (
        # TCG reads entries as Intel's processors do, and by itself shows AMD's vendor on x86-64.
        Engine("tcg", "tcg", "max,vendor=GenuineIntel"),
        # With arch-capabilities QEMU 7.2 aborts on an MSR that nested and software KVM lack.
        Engine("kvm", "kvm", "max,-arch-capabilities"),
    )
}


def engine_named(name: str) -> Engine:
    """The engine of that name; raises `Misuse` if there is none."""
    if name not in ENGINES:
        raise Misuse(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


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


class Qemu:
    """A QEMU that runs `kernel`, an ELF file with a PVH note, in `ram`, once the monitor says so.

    `monitor` and `console` are this process's ends of the sockets, `scratch` is a file that QEMU
    writes memory reads to, `scratch_path` its name there. `cpu` None is the engine's own choice.
    The process must be started from a thread that outlives it: the kernel ends it with the thread.

    Raises `Misuse` if `program` or a tool it needs is not installed.
    """

    def __init__(
        self, program: str, engine: Engine, ram: Ram, kernel: Path, *, cpu: str | None = None
    ) -> None:
        self.engine = engine
        path = installed(program)  # of what is missing, QEMU is named first
        self.transcript = Transcript()
        with contextlib.ExitStack() as stack:
            self.monitor, monitor = _socket_pair(stack)
            self.console, console = _socket_pair(stack)
            self.scratch = anonymous_file("monitor-scratch")
            stack.callback(os.close, self.scratch)
            self._stderr = what_is_said("qemu-stderr")
            stack.callback(os.close, self._stderr)
            self.scratch_path = f"/proc/self/fd/{self.scratch}"
            self.command = (
                *bound_to(os.getpid()),
                path,
                *_machine(engine, cpu or engine.cpu, ram, kernel),
                *("-chardev", f"socket,id=monitor,fd={monitor.fileno()}"),
                *control_monitor(program, "monitor"),
                *("-chardev", f"socket,id=console,fd={console.fileno()}"),
                *("-serial", "chardev:console"),
            )
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=(ram.fd, monitor.fileno(), console.fileno(), self.scratch),
                process_group=0,  # a Ctrl-C is for this process, which then ends QEMU in order
            )
            # Only QEMU holds these from now on, so that its end is seen as the end of the stream.
            monitor.close()
            console.close()
            self._resources = stack.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while QEMU runs; negative for the signal that ended it."""
        return self._process.poll()

    def stderr(self) -> str:
        """What QEMU has printed so far: the first `MOST_SAID` bytes of that."""
        return said(self._stderr)

    def launch_failure(self, reason: str) -> LaunchFailure:
        """End QEMU, and answer the exception that says why it never came up."""
        exit_code = self._settled_exit_code()
        stderr = self.stderr()
        self.end()
        ending = "" if exit_code is None else f" ({_ending(exit_code)})"
        return LaunchFailure(
            f"QEMU did not start: {reason}{ending}.",
            exit_code=exit_code,
            command=self.command,
            stderr=stderr,
        )

    def guest_lost(self, seen: str, registers: Mapping[str, int] | None = None) -> GuestLost:
        """End QEMU, and answer the exception that says how its guest was lost."""
        exit_code = self._settled_exit_code()
        stderr = self.stderr()
        self.end()
        ending = "" if exit_code is None else f" ({_ending(exit_code)})"
        evidence = Evidence(self.transcript.last_lines(), stderr, exit_code, registers or {})
        return GuestLost(f"the guest is lost: {seen}{ending}.", evidence)

    def _settled_exit_code(self) -> int | None:
        """The exit code of a process whose streams ended a moment ago; None if it runs on."""
        clock = Clock(self.pid)
        while self._process.poll() is None and clock.now() < SETTLES:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SETTLES)
        return self._process.poll()

    def end(self) -> None:
        """End the process, if it still runs, and reap it."""
        for step in (self._process.terminate, self._process.kill):
            if self._process.poll() is not None:
                break
            step()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._process.wait()

    def close(self) -> None:
        """End the process, and give back all that was shared with it."""
        self.end()
        self._resources.close()


def bound_to(parent: int) -> tuple[str, ...]:
    """What to put before a command, so that the kernel kills it when its parent ends.

    `parent` is this process. If it ended before the kernel was asked, the command is not started.
    """
    ask = (installed("setpriv"), "--pdeathsig", "KILL", "--")
    return *ask, installed("sh"), "-c", 'test $PPID = $0 && exec "$@"', str(parent)


def control_monitor(program: str, chardev: str) -> tuple[str, str]:
    """The arguments that have a QEMU speak QMP on a character device: -mon, which 11.1 warns of,
    and where QEMU says that it has it the object that takes its place."""
    with contextlib.suppress(TimeoutError):
        if "monitor-qmp" in _object_types(installed(program)):
            return "-object", f"monitor-qmp,id=qmp,chardev={chardev}"
    return "-mon", f"chardev={chardev},mode=control"


@cache
def _object_types(program: str) -> frozenset[str]:
    """What a QEMU says that its -object can be, asked once; none for what is no QEMU.

    Raises `TimeoutError` where it says nothing in time: that is asked again.
    """
    command = (*bound_to(os.getpid()), program, "-object", "help")
    answer = b""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        clock = Clock(process.pid)
        try:
            while part := _read_until(process.stdout.fileno(), clock):
                answer += part
                if len(answer) > TRANSCRIPT_SIZE:
                    return frozenset()  # it may never end
        finally:
            process.kill()
    return frozenset(answer.decode("utf-8", "replace").split())


def _read_until(fd: int, clock: Clock) -> bytes:
    """The next bytes of a stream, none at its end; `TimeoutError` where they come too late."""
    while not select.select([fd], [], [], max(0.0, PATIENCE - clock.now()))[0]:
        if clock.now() >= PATIENCE:
            raise TimeoutError
    return os.read(fd, TRANSCRIPT_SIZE)


PACKAGES: Final = {"setpriv": "util-linux", "sh": "dash"}
"""Where the programs are from that QEMU is started with."""


def installed(program: str) -> str:
    """The path of a QEMU, or of what it is started with; raises `Misuse` if it can not be found."""
    path = shutil.which(program)
    if path is not None:
        return path
    if program in PACKAGES:
        raise Misuse(f"{program} is not in PATH: install {PACKAGES[program]}")
    raise Misuse(
        f"QEMU is not installed, or not in PATH as {program}: install it (Debian's package is"
        " qemu-system-x86), or name another with --qemu or the environment's QEMU"
    )


def version_of(greeting: Mapping[str, int]) -> tuple[int, int, int]:
    """The version in QMP's greeting; raises `Misuse` if it is older than `OLDEST_QEMU`."""
    version = (greeting["major"], greeting["minor"], greeting["micro"])
    if version < OLDEST_QEMU:
        raise Misuse(
            f"QEMU {dotted(version)} is too old: install {dotted(OLDEST_QEMU)} or newer, "
            "or name another one"
        )
    return version


def _machine(engine: Engine, cpu: str, ram: Ram, kernel: Path) -> Iterator[str]:
    """The arguments that make the machine: a processor, RAM, one serial port and its interrupt."""
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none")
    # Not before the monitor is connected: an event in the midst of that is taken for an answer.
    yield "-S"
    # A reset, and so a triple fault, stops the guest with its registers in place.
    yield from ("-action", "reboot=shutdown,shutdown=pause,panic=pause")
    yield from (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )
    yield from (
        "-machine",
        "microvm,memory-backend=ram,pic=on,pit=off,rtc=off,acpi=off,auto-kernel-cmdline=off",
    )
    yield from ("-accel", engine.accelerator, "-cpu", cpu, "-smp", "1")
    yield from ("-m", f"{ram.total // MIB}M")
    yield from (
        "-object",
        f"memory-backend-file,id=ram,size={ram.total},mem-path=/proc/self/fd/{ram.fd},share=on",
    )
    yield from ("-kernel", _escaped(kernel))


def _escaped(path: Path) -> str:
    """A path that QEMU does not take for an option: commas are doubled in its option syntax."""
    return re.sub(",", ",,", str(path.absolute()))


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = map(socket_above_standard, socket.socketpair())
    return stack.enter_context(ours), stack.enter_context(theirs)


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        names = {one.value: one.name for one in signal.Signals}  # most of real time have none
        return f"ended by {names.get(-exit_code, f'signal {-exit_code}')}"
    return f"exit code {exit_code}"


def dotted(version: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))
