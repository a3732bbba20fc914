"""A QEMU that someone else started, with any guest, reached through its QMP socket.

It is left as it was found: a guest that is stopped to be looked at runs on in every case, even when
this process is killed, and one that was stopped before stays so.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from qemu.qmp import ExecuteError

from harness.machine import guard
from harness.machine.errors import (
    Evidence,
    GuestLost,
    LaunchFailure,
    MachineError,
    Misuse,
    ProtocolError,
)
from harness.machine.monitor import Monitor

DEADLINE: Final = 2.0
"""Seconds in which a monitor greets, and answers the short questions."""

GREETING: Final = b'{"QMP"'
"""What every QMP server says first."""


class Foreign:
    """The other end of a QMP socket at `path`.

    `pid` is the process that listens there, as the kernel tells; 0 where it can not be seen.

    Raises `Misuse` where there is no QMP server that talks to us.
    """

    def __init__(self, path: Path, deadline: float = DEADLINE) -> None:
        self.path = path
        self.scratch_path = ""
        with contextlib.ExitStack() as stack:
            self.monitor = stack.enter_context(_connected(path, deadline))
            self.scratch = os.memfd_create("monitor-scratch")
            stack.callback(os.close, self.scratch)
            credentials = self.monitor.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            self.pid, _, _ = _CREDENTIALS.unpack(credentials)
            self._resources = stack.pop_all()

    def launch_failure(self, reason: str) -> LaunchFailure:
        """The exception that says why no conversation began; QEMU is not touched."""
        return LaunchFailure(
            f"the QEMU at {self.path} did not answer: {reason}.",
            exit_code=None,
            command=(),
            stderr="",
        )

    def guest_lost(self, seen: str) -> GuestLost:
        """The exception that says how the conversation ended; QEMU is not touched."""
        return GuestLost(f"the guest at {self.path} is lost: {seen}.", Evidence())

    def close(self) -> None:
        """Give back what is ours."""
        self._resources.close()


_CREDENTIALS: Final = struct.Struct("3i")


def _connected(path: Path, deadline: float) -> socket.socket:
    """A socket on which a QMP server has said its first words, which are still to be read."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(deadline)
        connection.connect(os.fspath(path))
        said = _first_words(connection, deadline)
    except (BlockingIOError, TimeoutError):
        connection.close()
        raise Misuse(
            f"{path} says nothing for {deadline:g} s: QMP serves one client at a time, so another"
            " may be connected; else it is no QMP socket"
        ) from None
    except OSError as error:
        connection.close()
        raise Misuse(_unconnected(path, error)) from None
    except BaseException:
        connection.close()
        raise
    if said != GREETING:
        connection.close()
        raise Misuse(f"{path} is no QMP socket: it begins with {said!r}")
    connection.setblocking(False)
    return connection


def _unconnected(path: Path, error: OSError) -> str:
    """Why there is no connection to a path."""
    if isinstance(error, FileNotFoundError):
        return f"there is no socket {path}: QEMU makes it with -qmp unix:{path},server=on,wait=off"
    if isinstance(error, ConnectionRefusedError):
        if path.is_socket():
            return f"nothing listens at {path}: the QEMU that made this socket has ended"
        return f"{path} is no socket"
    if error.errno == errno.EPROTOTYPE:
        return f"{path} is no QMP socket: nothing can be connected to it"
    return f"{path} can not be connected to: {error.strerror or error}"


def _first_words(connection: socket.socket, deadline: float) -> bytes:
    """As many of the first bytes as the greeting has, or fewer where they differ before."""
    end = time.monotonic() + deadline
    said = b""
    while len(said) < len(GREETING) and GREETING.startswith(said):
        left = end - time.monotonic()
        if left <= 0 or not select.select([connection], [], [], left)[0]:
            raise TimeoutError
        before, said = said, connection.recv(len(GREETING), socket.MSG_PEEK)
        if not said:
            break
        if said == before:
            time.sleep(0.01)  # what is peeked at stays, so that there is nothing to wait for
    return said


@contextlib.contextmanager
def conversation(
    path: Path, vcpu: int, deadline: float = DEADLINE, patience: float = DEADLINE
) -> Iterator[ForeignMonitor]:
    """The monitor at `path`, asked about processor number `vcpu`; it may take so many seconds for
    an answer, and for one that may be long.

    Raises `Misuse` where there is no QMP server or no such processor, `MachineError` where the
    conversation breaks off or QEMU refuses a command.
    """
    foreign = Foreign(path, deadline)
    try:
        try:
            monitor = ForeignMonitor(foreign, deadline, vcpu, patience)
        except (KeyError, TypeError, ExecuteError):
            raise Misuse(
                f"{path} is no QMP socket of a QEMU with a guest: it does not tell its processors"
            ) from None
        try:
            yield monitor
        except ExecuteError as refusal:
            raise ProtocolError(f"the QEMU at {path} refuses: {refusal}", str(refusal)) from None
        finally:
            monitor.close()
    finally:
        foreign.close()


class ForeignMonitor(Monitor):
    """The monitor of a foreign QEMU.  `pid` is its process, `cpu_path` the processor's QOM path."""

    def __init__(self, foreign: Foreign, deadline: float, vcpu: int, patience: float) -> None:
        super().__init__(foreign, deadline, vcpu, patience)
        self.foreign = foreign
        self.pid = foreign.pid
        try:
            self.cpu_path = self._find_cpu(vcpu)
        except BaseException:
            self.close()
            raise

    def _find_cpu(self, vcpu: int) -> str:
        cpus = cast("list[Mapping[str, object]]", self.execute("query-cpus-fast"))
        for cpu in cpus:
            if cpu["cpu-index"] == vcpu:
                if cpu["target"] not in ("x86_64", "i386"):
                    raise Misuse(f"the guest at {self.foreign.path} is a {cpu['target']}, no x86")
                return str(cpu["qom-path"])
        known = ", ".join(str(cpu["cpu-index"]) for cpu in cpus) or "none"
        raise Misuse(f"the guest has no processor {vcpu}: it has {known}")

    def cpu_property(self, name: str) -> object | None:
        """A property of the processor, None where this QEMU does not know it."""
        try:
            return self.execute("qom-get", path=self.cpu_path, property=name)
        except ExecuteError:
            return None

    @contextlib.contextmanager
    def with_scratch(self) -> Iterator[bool]:
        """Whether QEMU can write memory reads to a file of ours, as long as the block runs.

        The file has no name.  It can not where the socket passes no files on, as over a network.
        """
        try:
            self.send_file(self.foreign.scratch)
            added = cast("Mapping[str, int]", self.execute("add-fd"))
        except ExecuteError:
            yield False
            return
        try:
            self.foreign.scratch_path = f"/proc/self/fd/{added['fd']}"
            yield self._writes_scratch()
        finally:
            with contextlib.suppress(MachineError, ExecuteError):
                self.execute("remove-fd", **{"fdset-id": added["fdset-id"]})

    def _writes_scratch(self) -> bool:
        try:
            return len(self.read_physical(0, 1)) == 1
        except ExecuteError:
            return False

    @contextlib.contextmanager
    def paused(self, guard: Guard) -> Iterator[None]:
        """The guest stopped as long as the block runs, if it runs now."""
        if not self.running():
            yield
            return
        guard.stopping()
        try:
            self.stop()
            yield
        finally:
            self.cont()
            guard.running()

    def running(self) -> bool:
        """Whether the guest's processors run."""
        return self.status() == "running"


class Guard:
    """A process that lets the guest at `path` run on when this one, which stopped it, can not.

    Close it after the conversation with the guest: a monitor has one client at a time.
    """

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends this session must not end the guard
            bufsize=0,
        )

    def stopping(self) -> None:
        """Say that the guest is about to be stopped; raises `Misuse` if no one is there to hear."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if self._process.stdout.read(1) == guard.READY:
                self._process.stdin.write(guard.STOPPING)
                return
        except BrokenPipeError:
            pass
        raise Misuse("the guest is not stopped: the process that guards it did not start")

    def running(self) -> None:
        """Say that it runs again."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(guard.RUNNING)

    def close(self) -> None:
        """End it, after it has done what it has to do."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
