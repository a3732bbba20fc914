"""A QEMU that someone else started, with any guest, reached through its gdb stub.

Who connects stops the guest; who detaches lets it run on, and so does the guard where this process
is killed. A guest that had not begun, or had ended, stays as it is; and one that stood since a
`stop`, as far as QEMU lets that be seen: before 8.1 it says at once when it stopped the guest,
later not, and then `held` has to say so.

The stub passes on commands for the monitor and reads physical memory, both in ways of QEMU's own
(QEMU, docs/system/gdb.rst): no other emulator's stub has the control registers. Nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import reprlib
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine import guard as guarding
from harness.machine.descriptors import socket_above_standard
from harness.machine.errors import GuestLost, Misuse, ProtocolError
from harness.machine.foreign import DEADLINE, Guard, network, process_of
from harness.machine.monitor import (
    ANSWER_LIMIT,
    LONG_ANSWER_LIMIT,
    parse_tlb,
    translated,
    version_of,
)
from harness.machine.packets import Order, Packets, packet
from harness.machine.patience import Clock

PART: Final = 0x400
"""Bytes of memory that are asked for at once: any stub's packets hold as many in hexadecimal."""

SAYS_NO_STOP: Final = (8, 1, 0)
"""The first QEMU that does not say that it stopped the guest (gdbstub: allow_stop_reply)."""


class StubMonitor:
    """The monitor of a QEMU behind its gdb stub, asked about processor `vcpu`: as `Monitor`, as far
    as commands for people go."""

    def __init__(
        self, path: Path, connection: socket.socket, vcpu: int, deadline: float, patience: float
    ) -> None:
        self.path = path
        self.pid = process_of(connection)
        self.clock = Clock(self.pid)
        self._connection = connection
        self._deadline, self._patience = deadline, patience
        self._vcpu = vcpu
        self._packets = Packets(path, connection, self.clock, deadline)

    def begin(self) -> None:
        """Hears that this is a QEMU, which, and in which state its guest was.

        Raises `Misuse` where it is none.
        """
        status = self.human("info status")
        self.version = self._version()
        if self._packets.ask("Qqemu.PhyMemMode:1") != b"OK":
            raise Misuse(f"the gdb stub at {self.path} cannot read physical memory: {_OTHERS}")
        # What stopped the guest is named, unless it is a `stop`, or the connection.
        self.began = "paused" in status and "(" not in status
        if self.version < SAYS_NO_STOP and not self._packets.stop_seen:
            self.began = False

    def _version(self) -> tuple[int, int, int]:
        said = self.human("info version")
        match = re.match(r"\s*(\d+)\.(\d+)\.(\d+)", said)
        if match is None:
            raise ProtocolError(f"info version says {reprlib.repr(said)}", said)
        names = ("major", "minor", "micro")
        return version_of(dict(zip(names, map(int, match.groups()), strict=True)))

    def human(self, command: str, vcpu: int | None = None, *, long: bool = False) -> str:
        """What the monitor's command for people prints; as `Monitor.human`.

        Raises `Misuse` where the stub has no monitor.
        """
        deadline, limit = self._deadline, ANSWER_LIMIT
        if long:
            deadline, limit = self._patience, LONG_ANSWER_LIMIT
        end = self.clock.now() + deadline
        self._packets.send("qRcmd," + command.encode().hex())
        said = bytearray()
        while (answer := self._packets.answer(end)) != b"OK":
            if not answer:
                raise Misuse(f"the gdb stub at {self.path} has no monitor: {_OTHERS}")
            if not answer.startswith(b"O"):
                raise ProtocolError(
                    f"the gdb stub answered {command} with {reprlib.repr(answer)}", repr(answer)
                )
            said += self._packets.octets(answer[1:], command)
            if len(said) > limit:
                raise ProtocolError(f"the gdb stub answers {command} without end", "")
        return said.decode("utf-8", "replace")

    def state(self) -> str:
        """What `info registers` prints."""
        _, *blocks = re.split(
            r"^CPU#(\d+)\s*$", self.human("info registers -a"), flags=re.MULTILINE
        )
        states = dict(zip(map(int, blocks[::2]), blocks[1::2], strict=True))
        if self._vcpu not in states:
            known = ", ".join(map(str, states)) or "none"
            raise Misuse(f"the guest has no processor {self._vcpu}: it has {known}")
        return states[self._vcpu]

    def described_registers(
        self, wanted: Collection[str], vcpu: int | None = None, order: Order = "little"
    ) -> dict[str, int]:
        """Registers that the stub describes, of those wanted, by the names there; of another
        processor than the one that is asked about if `vcpu` says so; `order` as of
        `Packets.registers`."""
        return self._packets.registers(self._vcpu if vcpu is None else vcpu, wanted, order)

    @contextlib.contextmanager
    def of_processor(self) -> Iterator[None]:
        """Has what the monitor says be about the processor, while the block runs."""
        current = _CURRENT.search(self.human("info cpus"))
        before = int(current[1]) if current else self._vcpu
        if before == self._vcpu:
            yield
            return
        self.human(f"cpu {self._vcpu}")
        try:
            yield
        finally:
            with contextlib.suppress(GuestLost, ProtocolError):
                self.human(f"cpu {before}")

    def translations(self, addresses: Sequence[int]) -> list[int | None]:
        """The physical address at each virtual one, as QEMU's debug walker sees it, which
        `gva2gpa` prints; None: unmapped."""
        return [translated(self.human(f"gva2gpa {address:#x}")) for address in addresses]

    def info_tlb(self) -> npt.NDArray[np.void]:
        """All pages that QEMU finds in the current tables, as an array of `TLB_ROW`."""
        return parse_tlb(self.human("info tlb", long=True))

    def engine_in_use(self) -> str:
        """The name of the engine that executes the guest: `kvm` or `tcg`."""
        return "kvm" if "enabled" in self.human("info kvm") else "tcg"

    def cpu_property(self, name: str) -> object | None:
        """A property of the processors, which are all of one model; None where it is not known."""
        try:
            value: object = json.loads(self.human(f"qom-get {_A_PROCESSOR[self.target]} {name}"))
        except ValueError:
            return None
        return value

    @cached_property
    def target(self) -> str:
        """What QEMU is for, as far as that can be seen: by a register that it shows."""
        state = self.state()
        shown = (name for name, pattern in _SHOWN.items() if re.search(pattern, state, re.M))
        return next(shown, "x86_64")

    def read_physical(self, address: int, size: int) -> bytes:
        """`size` bytes of physical memory; where there is none, QEMU reads zeros."""
        octets = b""
        while len(octets) < size:
            count = min(PART, size - len(octets))
            asked = f"m{address + len(octets):x},{count:x}"
            part = self._packets.octets(self._packets.ask(asked), asked)
            if len(part) != count:
                raise ProtocolError(
                    f"the gdb stub answered {asked} with {len(part)} bytes, not {count}", repr(part)
                )
            octets += part
        return octets

    def leave(self, resume: bool) -> bool:
        """Has the stub read virtual memory again, and the guest run on if `resume`; whether it was
        told so, and does so even if no one waits for it."""
        told = [packet("Qqemu.PhyMemMode:0")] + ([packet("D")] if resume else [])
        end = self.clock.now() + self._deadline
        try:
            # An unfinished packet ends at its checksum, which is wrong.
            self._connection.sendall(b"#00" + b"".join(b"+" + one for one in told))
        except OSError:
            return False
        self._packets.silent = True
        with contextlib.suppress(GuestLost, ProtocolError):
            for _ in () if self._packets.mute else told:
                self._packets.answer(end)
        return True


_OTHERS: Final = (
    "QEMU's does (-gdb tcp::1234 or -s). Of another emulator, write the memory to a file and give"
    " that with --ram, and the registers that lead to its tables with options"
)

_CURRENT: Final = re.compile(r"^\* CPU #(\d+)", re.MULTILINE)

_SHOWN: Final = {
    "riscv64": r"^ satp\b",
    "s390x": r"^PSW=mask ",
    "aarch64": r"^( PC=[0-9a-f]{16} +X|R)00=",
    "ppc64": r"^NIP [0-9a-f]{16} ",
}

_A_PROCESSOR: Final = {
    "x86_64": "/machine/unattached/device[0]",
    "riscv64": "/machine/soc0/harts[0]",
    "aarch64": "/machine/unattached/device[0]",
    "s390x": "/machine/unattached/device[0]",
}


@contextlib.contextmanager
def conversation(
    path: Path,
    vcpu: int,
    deadline: float = DEADLINE,
    patience: float = DEADLINE,
    *,
    held: bool = False,
) -> Iterator[StubMonitor]:
    """The QEMU at a gdb stub, whose guest stands as long as the block runs; `held` says that it
    stood before, and is to be left so.

    Raises `Misuse` where there is no QEMU's stub or no such processor, `MachineError` where the
    conversation breaks off.
    """
    with contextlib.ExitStack() as stack:
        connection, guard = _connected(path, deadline, held, stack.callback)
        stub = StubMonitor(path, connection, vcpu, deadline, patience)
        resume = not held
        try:
            stub.begin()
            resume = stub.began and not held
            yield stub
        finally:
            told = stub.leave(resume)
            if guard is not None and (told or not resume):
                guard.released()


def _connected(
    path: Path, deadline: float, held: bool, ending: Callable[..., object]
) -> tuple[socket.socket, Guard | None]:
    """A connection to what listens there, and the guard, which was there before it: to connect is
    to stop the guest.  What is open is closed at the `ending`, the guard last."""
    refused: OSError | UnicodeError | None = None
    try:
        places = list(_places(path))
    except (OSError, UnicodeError) as error:
        raise Misuse(_unconnected(path, error)) from None
    for family, address in places:
        connection = socket_above_standard(socket.socket(family, socket.SOCK_STREAM))
        guard = None if held else Guard(path, connection, guarding.GDB)
        if guard is not None:
            ending(guard.close)
        ending(connection.close)
        try:
            if guard is not None:
                guard.await_ready()
                guard.held()
            connection.settimeout(deadline)
            connection.connect(address)
            return connection, guard
        except (OSError, UnicodeError) as error:
            refused = error
            if guard is not None:
                guard.released()
    assert refused is not None
    raise Misuse(_unconnected(path, refused)) from None


def _places(path: Path) -> Iterator[tuple[int, str | tuple[object, ...]]]:
    """Family and address of what is meant, of each host of that name."""
    if found := network(path):
        for family, _, _, _, address in socket.getaddrinfo(*found, type=socket.SOCK_STREAM):
            yield family, address
    else:
        yield socket.AF_UNIX, os.fspath(path)


def _unconnected(path: Path, error: OSError | UnicodeError) -> str:
    """Why there is no connection to a path."""
    way = f"tcp:{path}" if network(path) else f"unix:{path},server=on,wait=off"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return f"no gdb stub listens at {path}: QEMU's does with -gdb {way}"
    if isinstance(error, TimeoutError):
        return f"{path} does not take a connection: it is not a gdb stub"
    return f"{path} cannot be connected to: {getattr(error, 'strerror', None) or error}"
