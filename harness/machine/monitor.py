"""QEMU's monitor: what the machine holds, as QEMU sees it.

Every call has a deadline and notices the end of the process. A monitor that does not answer has
lost the guest: `GuestLost` is raised, and QEMU was ended. An answer that can not be read is a
`ProtocolError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Awaitable, Mapping
from typing import Final, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from qemu.qmp import ExecuteError, Message, QMPClient, QMPError

from harness.machine.errors import MachineError, Misuse, ProtocolError
from harness.machine.qemu import version_of

T = TypeVar("T")

ANSWER_LIMIT: Final = 1 << 28
"""Bytes of one answer: `info tlb` has some 50 a page, and what talks to us may be no QEMU."""

TLB_FLAGS: Final = "XGPDACTUW"
"""The flags of a row of `info tlb`, as QEMU prints them: no-execute, global, large page, dirty,
accessed, cache disable, write-through, user, writable (QEMU, target/i386/monitor.c: print_pte)."""

TLB_ROW: Final = np.dtype(
    [("virtual", "<u8"), ("physical", "<u8"), *((flag, "?") for flag in TLB_FLAGS)]
)
"""One row of `info tlb`: one page, 4K or large, with the flags of its leaf alone."""

_HEX_DIGITS: Final = 16
_TLB_PATTERN: Final = b"%b: %b %b\r\n" % (b"0" * _HEX_DIGITS, b"0" * _HEX_DIGITS, b"-" * 9)


class Peer(Protocol):
    """The QEMU at the other end: one that this process started, or a foreign one.

    `monitor` is the socket, `scratch` a file that QEMU writes memory reads to, `scratch_path` its
    name there.
    """

    monitor: socket.socket
    scratch: int
    scratch_path: str

    def launch_failure(self, reason: str) -> MachineError:
        """The exception that says why the conversation never began."""

    def guest_lost(self, seen: str) -> MachineError:
        """The exception that says how it ended."""


class Monitor:
    """The monitor of one QEMU, connected. `version` is QEMU's; `deadline` is in seconds a call, and
    `patience` where the answer may be long (as `deadline` unless given), `vcpu` the number of the
    processor whose registers and tables are asked about.

    Raises `LaunchFailure` if QEMU ends before it answers, `Misuse` if it is too old; for a foreign
    QEMU these are what `Peer` says.
    """

    def __init__(
        self, qemu: Peer, deadline: float, vcpu: int = 0, patience: float | None = None
    ) -> None:
        self._qemu = qemu
        self._deadline = deadline
        self._patience = deadline if patience is None else patience
        self._vcpu = vcpu
        self._loop = asyncio.new_event_loop()
        self._client = _Client(readbuflen=ANSWER_LIMIT)
        # An end of the connection is reported by an exception here; it need not be logged, too.
        self._client.logger = _silent_logger()
        try:
            self.version = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> tuple[int, int, int]:
        try:
            self._wait(self._client.connect(self._qemu.monitor), self._deadline)
        except TimeoutError:
            reason = f"its monitor said nothing for {self._deadline:g} s"
            raise self._qemu.launch_failure(reason) from None
        except (QMPError, OSError, EOFError) as error:
            reason = "it ended before its monitor answered"
            raise self._qemu.launch_failure(reason) from error
        greeting = self._client.greeting
        assert greeting is not None  # connect() has negotiated
        return version_of(cast("Mapping[str, int]", greeting.QMP.version["qemu"]))

    def close(self) -> None:
        """End the conversation; QEMU itself is not touched."""
        if self._loop.is_closed():
            return
        try:
            with contextlib.suppress(TimeoutError):
                self._wait(self._disconnected(), self._deadline)
        finally:
            self._loop.close()

    async def _disconnected(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError):  # how it ended is past interest
            await self._client.disconnect()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _wait(self, work: Awaitable[T], deadline: float) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(deadline):
                return await work

        task = self._loop.create_task(bounded())
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            task.cancel()  # by Ctrl-C it was left behind unfinished
            raise

    def execute(self, command: str, **arguments: object) -> object:
        """What the QMP command returns.

        Raises `GuestLost` without an answer in time, `ExecuteError` if QEMU refuses, `Misuse` if
        the guest was ended before.
        """
        return self.ask(command, arguments, self._deadline)

    def ask(self, command: str, arguments: Mapping[str, object], deadline: float) -> object:
        """The same, with a deadline of its own in seconds."""
        if self._loop.is_closed():
            raise Misuse(f"the monitor can not be asked for {command}: its guest was ended")
        try:
            return self._wait(self._client.execute(command, dict(arguments)), deadline)
        except ExecuteError:
            raise
        except TimeoutError:
            seen = f"QEMU's monitor did not answer {command} within {deadline:g} s"
            raise self._qemu.guest_lost(seen) from None
        except (QMPError, OSError, EOFError) as error:
            raise self._qemu.guest_lost(f"QEMU ended while asked for {command}") from error

    def human(self, command: str, vcpu: int | None = None, *, long: bool = False) -> str:
        """What the command for people prints; its lines end in CR LF.

        vcpu  another processor than the one that the conversation is about
        long  whether that may take as long as what is long
        """
        asked = {"command-line": command, **_of_processor(self._vcpu if vcpu is None else vcpu)}
        deadline = self._patience if long else self._deadline
        answer = self.ask("human-monitor-command", asked, deadline)
        if not isinstance(answer, str):
            raise ProtocolError(f"the monitor answered {command} with no text", repr(answer))
        return answer

    def send_file(self, fd: int) -> None:
        """Pass an open file to QEMU, for the next command that takes one."""

        async def send() -> None:
            self._client.send_fd_scm(fd)

        self._wait(send(), self._deadline)

    def engine_in_use(self) -> str:
        """The name of the engine that executes the guest: `kvm` or `tcg`."""
        state = cast("Mapping[str, bool]", self.execute("query-kvm"))
        return "kvm" if state["enabled"] else "tcg"

    def status(self) -> str:
        """QEMU's run state: `running`, `paused`, `shutdown` (after a reset), ..."""
        return cast("Mapping[str, str]", self.execute("query-status"))["status"]

    def stop(self) -> None:
        """Stop the guest's processor: questions are answered faster, and about one moment."""
        self.execute("stop")

    def cont(self) -> None:
        """Let the guest run on."""
        self.execute("cont")

    def registers(self, vcpu: int | None = None) -> dict[str, int]:
        """The registers that `info registers` prints as one number, by QEMU's names; of another
        processor as in `human`.

        Among them CR0, CR2, CR3, CR4, EFER, and RIP, RFL, RAX to R15, or in a 32-bit mode EIP, EFL,
        EAX to EDI.
        """
        text = self.human("info registers", vcpu)
        return {name: int(digits, 16) for name, digits in _REGISTER.findall(text)}

    def gva2gpa(self, address: int) -> int | None:
        """The physical address at a virtual one, as QEMU's debug walker sees it; None: unmapped."""
        answer = self.human(f"gva2gpa {address:#x}").strip()
        if answer == "Unmapped":
            return None
        if not answer.startswith("gpa: "):
            raise ProtocolError(f"the monitor answered gva2gpa with {answer!r}", answer)
        return int(answer.removeprefix("gpa: "), 16)

    def info_tlb(self) -> npt.NDArray[np.void]:
        """All pages that QEMU finds in the current tables, as an array of `TLB_ROW`."""
        return parse_tlb(self.human("info tlb", long=True))

    def read_physical(self, address: int, size: int) -> bytes:
        """`size` bytes of physical memory; where there is none, QEMU reads zeros."""
        self.execute("pmemsave", val=address, size=size, filename=self._qemu.scratch_path)
        return os.pread(self._qemu.scratch, size, 0)

    def read_virtual(self, address: int, size: int) -> bytes | None:
        """`size` bytes of virtual memory, or None if QEMU finds a byte of them not mapped."""
        signed = address - (1 << 64) if address >> 63 else address  # QMP's integers are signed
        try:
            self.execute(
                "memsave",
                val=signed,
                size=size,
                filename=self._qemu.scratch_path,
                **_of_processor(self._vcpu),
            )
        except ExecuteError as refusal:
            if "Invalid addr" in str(refusal):
                return None
            raise ProtocolError(f"the monitor refused memsave: {refusal}", str(refusal)) from None
        return os.pread(self._qemu.scratch, size, 0)


def parse_tlb(text: str) -> npt.NDArray[np.void]:
    """The rows of `info tlb` as an array of `TLB_ROW`; raises `ProtocolError` if it is no table."""
    characters = np.frombuffer(text.encode(), dtype=np.uint8)
    width = len(_TLB_PATTERN)
    if characters.size % width:
        raise _no_table(text)
    lines = characters.reshape(-1, width)
    pattern = np.frombuffer(_TLB_PATTERN, dtype=np.uint8)
    separators = np.flatnonzero((pattern != ord("0")) & (pattern != ord("-")))
    if (lines[:, separators] != pattern[separators]).any():
        raise _no_table(text)
    rows = np.empty(len(lines), dtype=TLB_ROW)
    second = _TLB_PATTERN.index(b" ") + 1
    rows["virtual"] = _numbers(lines[:, :_HEX_DIGITS])
    rows["physical"] = _numbers(lines[:, second : second + _HEX_DIGITS])
    for column, flag in enumerate(TLB_FLAGS, start=_TLB_PATTERN.index(b"-")):
        rows[flag] = lines[:, column] != ord("-")
    return rows


def _numbers(digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The values of rows of sixteen hexadecimal digits."""
    nibbles = _DIGIT_VALUE[digits]
    octets = np.ascontiguousarray(nibbles[:, 0::2] << 4 | nibbles[:, 1::2])
    return octets.view(">u8")[:, 0].astype(np.uint64)


def _no_table(text: str) -> ProtocolError:
    return ProtocolError(f"the monitor answered info tlb with {text[:60]!r}, which is no row", text)


def _of_processor(vcpu: int) -> dict[str, int]:
    """The argument that says which processor is asked about.  Of the first, QEMU need not be told,
    and it takes 3 us for each byte of a command."""
    return {"cpu-index": vcpu} if vcpu else {}


class _Client(QMPClient):
    """It writes no messages out for the log, which takes a third of its time for a short one."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


def _silent_logger() -> logging.Logger:
    logger = logging.Logger("qemu.qmp")
    logger.disabled = True
    return logger


def _digit_values() -> npt.NDArray[np.uint8]:
    values = np.zeros(256, dtype=np.uint8)
    for value, digit in enumerate(b"0123456789abcdef"):
        values[digit] = value
    return values


_DIGIT_VALUE: Final = _digit_values()
_REGISTER: Final = re.compile(r"\b([A-Z][A-Z0-9]*) *=([0-9a-f]{8,16})\b(?! [0-9a-f]{16})")
