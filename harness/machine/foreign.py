"""A QEMU that someone else started, with any guest, reached through its QMP socket.

It is left as it was found: a guest that is stopped to be looked at runs on in every case, even when
this process is killed, and one that was stopped before stays so. One that no longer stands as it
was left is someone else's: after a migration a second copy would run, and lose data. Only a `stop`
of another client, of a guest that stands already, leaves no trace in QEMU, and is undone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

from qemu.qmp import ExecuteError

from harness.machine import guard
from harness.machine.descriptors import anonymous_file, socket_above_standard
from harness.machine.errors import (
    Evidence,
    GuestLost,
    LaunchFailure,
    MachineError,
    Misuse,
    ProtocolError,
)
from harness.machine.monitor import Monitor
from harness.machine.packets import Order, Packets
from harness.machine.patience import Clock

DEADLINE: Final = 2.0
"""Seconds in which a monitor greets, and answers the short questions."""

SETTLES: Final = 1.0
"""Seconds that a guard may take to let the guest run on before it is left to itself."""

X86: Final = ("x86_64", "i386")
"""What query-cpus-fast calls processors of x86."""

LAST_PORT: Final = 65535

GREETING: Final = b'{"QMP"'
"""What every QMP server says first."""


class Foreign:
    """The other end of a QMP socket at `path`, or of one at `HOST:PORT` that is no file.

    Raises `Misuse` where there is no QMP server that talks to us.
    """

    def __init__(self, path: Path, deadline: float = DEADLINE) -> None:
        self.path = path
        self.scratch_path = ""
        with contextlib.ExitStack() as stack:
            self.monitor = stack.enter_context(_connected(path, deadline))
            self.scratch = anonymous_file("monitor-scratch")
            stack.callback(os.close, self.scratch)
            self._pid = process_of(self.monitor)
            self._resources = stack.pop_all()

    @property
    def pid(self) -> int:
        """The process that listens there, as the kernel says; 0 where it cannot be seen, as over
        TCP."""
        return self._pid

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


def process_of(connection: socket.socket) -> int:
    """The process at the other end, as the kernel says; 0 where it cannot be seen."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(credentials)
    return int(pid)


def _connected(path: Path, deadline: float) -> socket.socket:
    """A socket on which a QMP server has said its first words, which are still to be read."""
    try:
        connection = _opened(path, deadline)
    except (BlockingIOError, TimeoutError):
        raise _silent(path, deadline) from None
    except (OSError, UnicodeError) as error:
        raise Misuse(_unconnected(path, error)) from None
    try:
        said = _first_words(connection, deadline)
    except (BlockingIOError, TimeoutError):
        connection.close()
        raise _silent(path, deadline) from None
    except OSError as error:
        connection.close()
        raise Misuse(_unconnected(path, error)) from None
    except BaseException:
        connection.close()
        raise
    if said != GREETING:
        connection.close()
        raise Misuse(f"{path} is not a QMP socket: it begins with {said!r}")
    connection.setblocking(False)
    return connection


def _opened(path: Path, deadline: float) -> socket.socket:
    """A connection to what listens there."""
    # The guard gets it by its number, and the first three have a meaning of their own.
    if host := network(path):
        return socket_above_standard(socket.create_connection(host, deadline))
    connection = socket_above_standard(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        connection.settimeout(deadline)
        connection.connect(os.fspath(path))
    except BaseException:
        connection.close()
        raise
    return connection


def network(path: Path) -> tuple[str, int] | None:
    """Host and port, where that is what is meant: no folder is named, and no file is there."""
    match = _HOST_PORT.fullmatch(str(path))
    if not match or path.exists():
        return None
    if not 0 < (port := int(match[3])) <= LAST_PORT:
        raise Misuse(f"{path} names port {port}: ports are 1 to {LAST_PORT}")
    return match[1] or match[2], port


_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^/:\[\]]+)):([0-9]{1,5})")


def _silent(path: Path, deadline: float) -> Misuse:
    return Misuse(
        f"{path} says nothing for {deadline:g} s: QMP serves one client at a time, so another may"
        " be connected; else it is not a QMP socket"
    )


def _unconnected(path: Path, error: OSError | UnicodeError) -> str:
    """Why there is no connection to a path."""
    if network(path):
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens at {path}: QEMU does with -qmp tcp:{path},server=on,wait=off"
        return f"{path} cannot be connected to: {getattr(error, 'strerror', None) or error}"
    assert isinstance(error, OSError)
    if isinstance(error, FileNotFoundError):
        return f"there is no socket {path}: QEMU makes it with -qmp unix:{path},server=on,wait=off"
    if isinstance(error, ConnectionRefusedError):
        if path.is_socket():
            return f"nothing listens at {path}: the QEMU that made this socket has ended"
        return f"{path} is not a socket"
    if error.errno == errno.EPROTOTYPE:
        return f"{path} is not a QMP socket: nothing can be connected to it"
    return f"{path} cannot be connected to: {error.strerror or error}"


def _first_words(connection: socket.socket, deadline: float) -> bytes:
    """As many of the first bytes as the greeting has, or fewer where they differ before."""
    clock = Clock(process_of(connection))
    said = b""
    while len(said) < len(GREETING) and GREETING.startswith(said):
        while not select.select([connection], [], [], max(0, deadline - clock.now()))[0]:
            if clock.now() >= deadline:
                raise TimeoutError
        before, said = said, connection.recv(len(GREETING), socket.MSG_PEEK)
        if not said:
            break
        if said == before:
            time.sleep(0.01)  # what is peeked at stays, so that there is nothing to wait for
    return said


@contextlib.contextmanager
def conversation(
    path: Path,
    vcpu: int,
    deadline: float = DEADLINE,
    patience: float = DEADLINE,
    *,
    holds: bool = False,
    targets: Collection[str] | None = X86,
) -> Iterator[ForeignMonitor]:
    """The monitor at `path`, asked about processor number `vcpu`; it may take so many seconds for
    an answer, and for one that may be long. `holds` says whether the guest is to be paused, and
    `targets` what its processors may be, if not anything.

    Raises `Misuse` where there is no QMP server or no such processor, `MachineError` where the
    conversation breaks off or QEMU refuses a command.
    """
    with contextlib.ExitStack() as stack:
        foreign = Foreign(path, deadline)
        stack.callback(foreign.close)
        guard = Guard(path, foreign.monitor) if holds else None
        if guard is not None:
            stack.callback(guard.close)  # it may have to use the connection, after us
        try:
            monitor = ForeignMonitor(foreign, deadline, vcpu, patience, guard, targets)
        except (KeyError, TypeError, ExecuteError):
            raise Misuse(
                f"{path} is not a QMP socket of a QEMU with a guest: it names no processors"
            ) from None
        stack.callback(monitor.close)
        try:
            yield monitor
        except ExecuteError as refusal:
            raise ProtocolError(f"the QEMU at {path} refuses: {refusal}", str(refusal)) from None


class ForeignMonitor(Monitor):
    """The monitor of a foreign QEMU.  `pid` is its process, `cpu_path` the processor's QOM path,
    and `target` what it is."""

    def __init__(
        self,
        foreign: Foreign,
        deadline: float,
        vcpu: int,
        patience: float,
        guard: Guard | None,
        targets: Collection[str] | None,
    ) -> None:
        super().__init__(foreign, deadline, vcpu, patience)
        self.foreign = foreign
        self.pid = foreign.pid
        self._guard = guard
        if guard is not None:
            self._client.on_event = self._noted
        try:
            self.cpu_path, self.target = self._find_cpu(vcpu)
            if targets is not None and self.target not in targets:
                wanted = "x86" if targets is X86 else " or ".join(targets)
                raise Misuse(f"the guest at {foreign.path} is a {self.target}, no {wanted}")
        except BaseException:
            self.close()
            raise

    def _noted(self, event: str) -> None:
        if self._guard is not None and event in _MOVES:
            self._guard.released()

    def _find_cpu(self, vcpu: int) -> tuple[str, str]:
        cpus = cast("list[Mapping[str, object]]", self.execute("query-cpus-fast"))
        for cpu in cpus:
            if cpu["cpu-index"] == vcpu:
                return str(cpu["qom-path"]), str(cpu["target"])
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
        if self.foreign.monitor.family != socket.AF_UNIX:
            yield False
            return
        try:
            self.send_file(self.foreign.scratch)
            added = self.execute("add-fd")
        except ExecuteError:
            yield False
            return
        match added:
            case {"fd": int(number), "fdset-id": int(identity)}:
                self.foreign.scratch_path = f"/proc/self/fd/{number}"
            case _:
                raise ProtocolError("the monitor answered add-fd without a number", repr(added))
        try:
            yield self._writes_scratch()
        finally:
            with contextlib.suppress(MachineError, ExecuteError):
                self.execute("remove-fd", **{"fdset-id": identity})

    def _writes_scratch(self) -> bool:
        try:
            return len(self.read_physical(0, 1)) == 1
        except ExecuteError:
            return False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The guest stopped as long as the block runs, if it runs now; for conversations that hold.

        Where it does not stand as it was left after that, it is left so, and a warning is logged.
        """
        guard = self._guard
        assert guard is not None, "this conversation does not hold the guest"
        guard.await_ready()
        if not self.running():
            yield
            return
        guard.held()
        # Asked again in the same breath: a guest that another client stops in between is theirs.
        before, _ = self.execute_both("query-status", "stop")
        if not isinstance(before, dict) or before.get("status") != "running":
            guard.released()
            yield
            return
        guard.held()  # also where it was stopped and let run in between
        moves = self._moves()
        try:
            yield
        finally:
            self._let_go(moves)
            guard.released()

    def _moves(self) -> int:
        """How often someone has let the guest run or reset it."""
        return sum(self.seen[name] for name in _MOVES)

    def _let_go(self, moves: int) -> None:
        """Let the guest run on, unless someone has moved it since."""
        status = self.status()
        if status == "paused" and self._moves() == moves:
            self.cont()
        elif status == "running":
            _log.warning(
                "another client let the guest at %s run while it was held: what was read may be of"
                " more than one moment",
                self.foreign.path,
            )
        else:
            _log.warning(
                "the guest at %s is left as another client, or a migration, has put it while it was"
                " held: it is %s",
                self.foreign.path,
                status,
            )

    def described_registers(
        self, wanted: Collection[str], vcpu: int | None = None, order: Order = "little"
    ) -> Registers:
        """Registers of which `info registers` shows none, as QEMU's gdb stub describes them, of
        those wanted; of a guest that stands, and of another processor than the one that the
        conversation is about if `vcpu` says so; `order` as of `Packets.registers`.

        The stub is opened for it, on a socket of ours, and closed.  Raises `Misuse` where there is
        one already, which would be closed by that, and where the socket passes no files on;
        `ProtocolError` where QEMU opens none.
        """
        with self._stub() as packets:
            return packets.registers(self._vcpu if vcpu is None else vcpu, wanted, order)

    @contextlib.contextmanager
    def _stub(self) -> Iterator[Packets]:
        """QEMU's gdb stub, on a guest that stands: to open it would stop one that runs."""
        self._refuse_stub()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.send_file(theirs.fileno())
                self.execute("getfd", fdname=_OURS)
            self._guarded(guard.STUB)
            try:
                # Its name is that of the stub which -gdb opens: QEMU refuses a second of it.
                at = {"type": "fd", "data": {"str": _OURS}}
                socket_of = {"type": "socket", "data": {"addr": at, "server": False}}
                self.execute("chardev-add", id=_STUB, backend=socket_of)
                if _OPENED not in (said := self.human(f"gdbserver chardev:{_STUB}")):
                    self.execute("chardev-remove", id=_STUB)
                    raise ProtocolError(f"QEMU opens no gdb stub: it says {said.strip()!r}", said)
                yield Packets(self.foreign.path, ours, self.clock, self._deadline)
            finally:
                with contextlib.suppress(MachineError, ExecuteError):
                    self.human("gdbserver none")
                self._guarded(guard.NO_STUB)

    def _refuse_stub(self) -> None:
        """Raises `Misuse` where no gdb stub can be opened; one of ours that was left is closed."""
        if self.running():
            raise Misuse(
                f"the QEMU at {self.foreign.path} shows these registers of a guest that stands, and"
                f" this one runs: hold it (without --live), or give them by options"
            )
        if self.foreign.monitor.family != socket.AF_UNIX:
            raise Misuse(
                f"{self.foreign.path} passes no files on, as a socket of QEMU's on this machine"
                f" does: without a gdb stub QEMU does not show these registers. {_STUB_INSTEAD}"
            )
        chardevs = cast("list[Mapping[str, object]]", self.execute("query-chardev"))
        places = {str(one["label"]): str(one["filename"]) for one in chardevs}
        place = places.get(_STUB, self._stub_of_command_line())
        if place == f"disconnected:fd:{_OURS}":
            self.human("gdbserver none")
        elif place is not None:
            raise Misuse(
                f"the QEMU at {self.foreign.path} has a gdb stub already ({place}), which is left"
                f" alone, and a second there cannot be. {_STUB_INSTEAD}"
            )

    def _stub_of_command_line(self) -> str | None:
        """A gdb stub on a device that has a name of its own."""
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return None
        after = (word for option, word in pairwise(words) if option in ("-gdb", "--gdb"))
        return next((word for word in after if word.startswith("chardev:")), None)

    def _guarded(self, word: bytes) -> None:
        if self._guard is not None:
            self._guard.told(word)

    def running(self) -> bool:
        """Whether the guest's processors run."""
        return self.status() == "running"


class Guard:
    """A process that lets a guest run on when this one, which stopped it, can not.

    It uses the same connection to QEMU's monitor, once this one is closed here: close it after the
    conversation.
    """

    def __init__(self, path: Path, connection: socket.socket, kind: str = guard.QMP) -> None:
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, kind, str(connection.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(connection.fileno(),),
            start_new_session=True,  # what ends this session must not end the guard
            bufsize=0,
        )

    def await_ready(self) -> None:
        """Waits until it is there; raises `Misuse` if it is not."""
        assert self._process.stdout is not None
        if self._process.stdout.read(1) != guard.READY:
            raise Misuse("the guest is not stopped: the process that guards it did not start")

    def held(self) -> None:
        """Say that the guest is about to be stopped, or is; raises `Misuse` if no one hears it."""
        if not self.told(guard.HELD):
            raise Misuse("the guest is not stopped: the process that guards it has ended")

    def released(self) -> None:
        """Say that it runs again, or that it is another's to let it."""
        self.told(guard.RELEASED)

    def told(self, word: bytes) -> bool:
        """Say one of its words; whether it hears it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word)
        except BrokenPipeError:
            return False
        return True

    def close(self) -> None:
        """End it, after it has done what it has to do; it is left to do that where QEMU is mute."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        with self._process.stdout as stdout:
            # Its end is seen here at once; wait() looks for it at growing intervals.
            end = select.poll()
            end.register(stdout)
            ended = end.poll(SETTLES * 1000)
        try:
            self._process.wait(SETTLES if ended else 0)
        except subprocess.TimeoutExpired:
            _log.warning(
                "the guest at %s may be paused, since its QEMU does not answer: process %d lets it"
                " run on, should QEMU answer within %g s",
                self._path,
                self._process.pid,
                guard.PATIENCE,
            )
            # Who stays longer than it must not have it as a process that was never waited for.
            threading.Thread(target=self._process.wait, daemon=True).start()


Registers = dict[str, int]
"""Values by the names of registers."""

_STUB: Final = "gdb"
"""What QEMU calls the device of the gdb stub that its command line opens."""

_OURS: Final = "pagetable"
"""What the socket is called that a stub of ours has."""

_OPENED: Final = "Waiting for gdb connection"

_STUB_INSTEAD: Final = (
    "Name a stub with --gdb, where no debugger is connected, or give the registers by options"
)

_MOVES: Final = ("RESUME", "RESET")
"""Events of a guest that no longer stands as it was left."""

_log: Final = logging.getLogger(__name__)
