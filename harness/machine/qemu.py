"""One QEMU process, from its start to its certain end.

QEMU gets nothing but what the guest needs, and everything by inheritance: RAM, the stub, the
monitor's and the console's socket, a scratch file for memory reads. So there are no paths, no
ports, and nothing to clean up but the process; and the kernel ends that when this process ends,
however it does.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import ClassVar, Final

from harness.machine.descriptors import anonymous_file, socket_above_standard, what_is_said
from harness.machine.errors import LaunchFailure
from harness.machine.machine import Emulator, Engine, bound_to
from harness.machine.monitor import Monitor
from harness.machine.patience import Clock
from harness.machine.ram import MIB, Ram

PATIENCE: Final = 2.0
"""Seconds that QEMU may take to say what its objects can be."""

LONGEST_ANSWER: Final = 16384
"""Bytes of that which are read."""


class Qemu(Emulator):
    """A QEMU that runs `kernel`, the bytes of a file that the option `given_as` takes, in `ram`,
    once the monitor says so.

    `machine` are the arguments that make it the machine and the processor that is meant; its RAM
    is the memory backend `ram`.

    `monitor` and `console` are this process's ends of the sockets, `scratch` is a file that QEMU
    writes memory reads to, `scratch_path` its name there.
    The process must be started from a thread that outlives it: the kernel ends it with the thread.

    Raises `Misuse` if `program` or a tool it needs is not installed.
    """

    OTHERS: ClassVar[Sequence[str]] = ()
    """What a QEMU says that is for another architecture, or has no such processor."""
    _meant = ""
    """Said of one of those: which QEMU was meant."""
    _target: str | None = None
    """What the monitor must call the architecture, where other QEMUs run the same stub."""

    def __init__(
        self,
        program: str,
        engine: Engine,
        ram: Ram,
        kernel: bytes,
        machine: Sequence[str],
        given_as: str = "-kernel",
    ) -> None:
        super().__init__()
        self.maker = engine.maker
        path = engine.installed(program)  # of what is missing, QEMU is named first
        with contextlib.ExitStack() as stack:
            self.monitor, monitor = _socket_pair(stack)
            self.console, console = _socket_pair(stack)
            self.scratch = anonymous_file("monitor-scratch")
            stack.callback(os.close, self.scratch)
            stub = anonymous_file("stub")
            stack.callback(os.close, stub)
            os.pwrite(stub, kernel, 0)
            self._stderr = what_is_said("qemu-stderr")
            stack.callback(os.close, self._stderr)
            self.scratch_path = f"/proc/self/fd/{self.scratch}"
            self.command = (
                *bound_to(os.getpid()),
                path,
                *_bare(ram),
                *(given_as, f"/proc/self/fd/{stub}"),
                *machine,
                *("-chardev", f"socket,id=monitor,fd={monitor.fileno()}"),
                *control_monitor(path, "monitor"),
                *("-chardev", f"socket,id=console,fd={console.fileno()}"),
                *("-serial", "chardev:console"),
            )
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=(ram.fd, monitor.fileno(), console.fileno(), self.scratch, stub),
                process_group=0,  # a Ctrl-C is for this process, which then ends QEMU in order
            )
            # Only QEMU holds these from now on, so that its end is seen as the end of the stream.
            monitor.close()
            console.close()
            self._resources = stack.pop_all()

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's, by its monitor."""
        return self._monitor.version

    def begin(self, deadline: float) -> Monitor:
        """Connect to the monitor, and let the guest run."""
        self._monitor = Monitor(self, deadline)
        self._resources.callback(self._monitor.close)
        self._look()
        self._monitor.cont()
        return self._monitor

    def _look(self) -> None:
        """See that it is the QEMU that was meant, before the guest runs."""
        if self._target and self._monitor.field("query-target", "arch", str) != self._target:
            raise self.launch_failure(self._meant)

    def launch_failure(self, reason: str) -> LaunchFailure:
        """The same, with the reason that QEMU's words stand for."""
        if any(words in self.stderr() for words in self.OTHERS):
            reason = self._meant
        return super().launch_failure(reason)

    def come_up(self) -> str:
        """The accelerator that QEMU says it uses."""
        return self._monitor.engine_in_use()

    def attend(self, line: str) -> bool:
        """QEMU says nothing on the console."""
        del line
        return False

    def before_work(self) -> None:
        """The guest wakes by itself."""

    def after_work(self) -> None:
        """The guest sleeps until it is interrupted."""

    def trouble(self) -> str | None:
        """Why no answer can come, by QEMU's run state."""
        status = self._monitor.status()
        if status == "shutdown":
            return "it reset, as after a triple fault"
        return None if status == "running" else f"QEMU is in the state {status}"

    def registers(self) -> Mapping[str, int]:
        """Those that the monitor shows."""
        return self._monitor.registers()


def control_monitor(program: str, chardev: str) -> tuple[str, str]:
    """The arguments that have a QEMU speak QMP on a character device: -mon, which 11.1 warns of,
    and where QEMU says that it has it the object that takes its place."""
    with contextlib.suppress(TimeoutError):
        if "monitor-qmp" in known_to(program, "-object"):
            return "-object", f"monitor-qmp,id=qmp,chardev={chardev}"
    return "-mon", f"chardev={chardev},mode=control"


@cache
def known_to(program: str, option: str) -> frozenset[str]:
    """The words with which a QEMU says what an option of its can be, such as -object, asked once;
    none for what is no QEMU.

    Raises `TimeoutError` where it says nothing in time: that is asked again.
    """
    command = (*bound_to(os.getpid()), program, option, "help")
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
                if len(answer) > LONGEST_ANSWER:
                    return frozenset()  # it may never end
        finally:
            process.kill()
    return frozenset(answer.decode("utf-8", "replace").split())


def _read_until(fd: int, clock: Clock) -> bytes:
    """The next bytes of a stream, none at its end; `TimeoutError` where they come too late."""
    while not select.select([fd], [], [], max(0.0, PATIENCE - clock.now()))[0]:
        if clock.now() >= PATIENCE:
            raise TimeoutError
    return os.read(fd, LONGEST_ANSWER)


def _bare(ram: Ram) -> Iterator[str]:
    """The arguments that any machine is started with: RAM, and no devices."""
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none")
    # Not before the monitor is connected: an event in the middle of that is taken for an answer.
    yield "-S"
    # A reset, and so a triple fault, stops the guest with its registers in place.
    yield from ("-action", "reboot=shutdown,shutdown=pause,panic=pause")
    yield from (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )
    yield from ("-smp", "1")
    yield from ("-m", f"{ram.total // MIB}M")
    yield from (
        "-object",
        f"memory-backend-file,id=ram,size={ram.total},mem-path=/proc/self/fd/{ram.fd},share=on",
    )


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = map(socket_above_standard, socket.socketpair())
    return stack.enter_context(ours), stack.enter_context(theirs)
