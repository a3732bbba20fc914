"""QEMU's monitor: what the machine holds, as QEMU sees it.

Every call has a deadline and notices the end of the process. A monitor that does not answer has
lost the guest: `GuestLost` is raised, QEMU was ended, and no question is waited for any more. An
answer that cannot be read is a `ProtocolError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import reprlib
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
from qemu.qmp import ExecuteError, Message, QMPClient, QMPError, Runstate
from qemu.qmp.qmp_client import BadReplyError

from harness.machine.errors import MachineError, Misuse, ProtocolError
from harness.machine.interrupts import postponed
from harness.machine.machine import dotted
from harness.machine.patience import Clock

T = TypeVar("T")

OLDEST_QEMU: Final = (7, 2, 0)
"""The oldest version whose behaviour was measured; older ones are refused."""

ANSWER_LIMIT: Final = 1 << 24
LONG_ANSWER_LIMIT: Final = 1 << 28
"""Bytes of one answer: what talks to us may be no QEMU. Of the long ones, `info tlb` has some 50 a
page."""

RUN_STATE_EVENTS: Final = frozenset({"STOP", "RESUME", "RESET", "SHUTDOWN"})
"""Events by which the guest's processors stop, run, or begin anew."""

PART: Final = 1 << 16
"""Bytes that are read of the socket at once: between two parts a deadline is noticed."""

TOGETHER: Final = 32
"""Questions that are sent before the first answer is read: this side's time for each is halved."""

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

    `monitor` is the socket, `pid` its process, or 0 where that is not known, `scratch` a file that
    QEMU writes memory reads to, `scratch_path` its name there.
    """

    monitor: socket.socket
    scratch: int
    scratch_path: str

    @property
    def pid(self) -> int: ...

    def launch_failure(self, reason: str) -> MachineError:
        """The exception that says why the conversation never began."""

    def guest_lost(self, seen: str) -> MachineError:
        """The exception that says how it ended."""


class Monitor:
    """The monitor of one QEMU, connected. `version` is QEMU's; `deadline` is in seconds a call, and
    `patience` where the answer may be long (as `deadline` unless given), `vcpu` the number of the
    processor whose registers and tables are asked about. Seconds in which QEMU waits for a
    processor do not count: those of `clock` do.

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
        self.clock = Clock(qemu.pid)
        self._loop = asyncio.new_event_loop()
        # The library leaves what a connection ended with in futures that nobody asks, and asyncio
        # would print the way there when they are collected.
        self._loop.set_exception_handler(lambda *_: None)
        self._lost: MachineError | None = None
        self._client = _Client(readbuflen=PART)
        # An end of the connection is reported by an exception here; it need not be logged, too.
        self._client.logger = _silent_logger()
        try:
            self.version = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> tuple[int, int, int]:
        try:
            self._wait(partial(self._client.connect, self._qemu.monitor), self._deadline)
        except TimeoutError:
            reason = f"its monitor said nothing for {self._deadline:g} s"
            raise self._qemu.launch_failure(reason) from None
        except (QMPError, OSError, EOFError) as error:
            reason = self._client.broken or "it ended before its monitor answered"
            raise self._qemu.launch_failure(reason) from error
        greeting = self._client.greeting
        assert greeting is not None  # connect() has negotiated
        return version_of(cast("Mapping[str, int]", greeting.QMP.version["qemu"]))

    @property
    def seen(self) -> Mapping[str, int]:
        """How many of each of `RUN_STATE_EVENTS` QEMU has sent before its last answer."""
        return self._client.seen

    def close(self) -> None:
        """End the conversation; QEMU itself is not touched."""
        if self._loop.is_closed():
            return
        try:
            with contextlib.suppress(TimeoutError):
                self._wait(self._disconnected, self._deadline)
        finally:
            self._loop.close()

    async def _disconnected(self) -> None:
        try:
            with contextlib.suppress(Exception):  # how it ended is past interest
                await self._client.disconnect()
        finally:  # also where that takes too long
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    def _wait(self, work: Callable[[], Coroutine[Any, Any, T]], deadline: float) -> T:
        """What comes of the work; raises TimeoutError where it takes longer.

        Ctrl-C ends it and is then raised.  Raised in the middle of it, it would leave a coroutine
        that nothing waits for, or a loop that cannot be run again, and a guest that is held has to
        be let run.
        """
        end = self.clock.now() + deadline
        task: asyncio.Task[T] | None = None
        timer: asyncio.TimerHandle

        def watch() -> None:
            nonlocal timer
            assert task is not None
            if (left := end - self.clock.now()) > 0:
                timer = self._loop.call_later(left, watch)
            else:
                task.cancel()

        def leave() -> None:
            if task is not None:
                self._loop.call_soon_threadsafe(task.cancel)

        with postponed(leave):
            task = self._loop.create_task(work())
            timer = self._loop.call_later(deadline, watch)
            try:
                return self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise TimeoutError from None
            finally:
                timer.cancel()

    def execute(self, command: str, **arguments: object) -> object:
        """What the QMP command returns.

        Raises `GuestLost` without an answer in time, `ExecuteError` if QEMU refuses, `Misuse` if
        the guest was ended before.
        """
        return self.ask(command, arguments, self._deadline)

    def ask(
        self,
        command: str,
        arguments: Mapping[str, object],
        deadline: float,
        limit: int = ANSWER_LIMIT,
    ) -> object:
        """The same, with a deadline of its own in seconds, and the most bytes of an answer."""
        self._client.limit = limit
        work = partial(self._client.execute, command, dict(arguments))
        return self._answered(command, work, deadline)

    def execute_both(self, first: str, second: str) -> tuple[object, object]:
        """What two commands return that are sent together, so that QEMU executes the second right
        after the first; raises as `execute` does."""

        async def both() -> tuple[object, object]:
            one, two = (self._client.execute(command) for command in (first, second))
            return await asyncio.gather(one, two)

        return self._answered(f"{first} and {second}", both, self._deadline)

    def _answered(
        self, asked: str, work: Callable[[], Coroutine[Any, Any, T]], deadline: float
    ) -> T:
        if self._loop.is_closed():
            raise Misuse(f"the monitor cannot be asked for {asked}: its guest was ended")
        if self._lost is not None:  # what ends a conversation asks too, and would wait again
            raise self._lost
        try:
            return self._wait(work, deadline)
        except ExecuteError:
            raise
        except TimeoutError:
            seen = f"QEMU's monitor did not answer {asked} within {deadline:g} s"
            self._lost = self._qemu.guest_lost(seen)
            raise self._lost from None
        except (QMPError, OSError, EOFError) as error:
            raise self._qemu.guest_lost(self._why_unanswered(asked, error)) from error

    def _why_unanswered(self, asked: str, error: Exception) -> str:
        if self._client.broken:
            return f"{self._client.broken}, asked for {asked}"
        if isinstance(error, BadReplyError):
            return f"its monitor answered {asked} with neither a result nor an error"
        return f"QEMU ended while asked for {asked}"

    def human(self, command: str, vcpu: int | None = None, *, long: bool = False) -> str:
        """What the command for people prints; its lines end in CR LF.

        vcpu  another processor than the one that the conversation is about
        long  whether that may take as long as what is long
        """
        asked = {"command-line": command, **_of_processor(self._vcpu if vcpu is None else vcpu)}
        bounds = (self._patience, LONG_ANSWER_LIMIT) if long else (self._deadline, ANSWER_LIMIT)
        return _text(command, self.ask("human-monitor-command", asked, *bounds))

    def field(self, command: str, name: str, kind: type[T], **arguments: object) -> T:
        """What an answer says under a name; raises as `execute` does, and `ProtocolError` where it
        says nothing of this kind there."""
        answer = self.execute(command, **arguments)
        value = answer.get(name) if isinstance(answer, dict) else None
        if type(value) is not kind:
            raise ProtocolError(
                f"the monitor answered {command} without {name}", reprlib.repr(answer)
            )
        return value

    def send_file(self, fd: int) -> None:
        """Pass an open file to QEMU, for the next command that takes one."""

        async def send() -> None:
            self._client.send_fd_scm(fd)

        self._wait(send, self._deadline)

    def engine_in_use(self) -> str:
        """The name of the engine that executes the guest: `kvm` or `tcg`."""
        return "kvm" if self.field("query-kvm", "enabled", bool) else "tcg"

    def status(self) -> str:
        """QEMU's run state: `running`, `paused`, `shutdown` (after a reset), ..."""
        return self.field("query-status", "status", str)

    def stop(self) -> None:
        """Stop the guest's processor: questions are answered faster, and about one moment."""
        self.execute("stop")

    def cont(self) -> None:
        """Let the guest run on."""
        self.execute("cont")

    def registers(self, vcpu: int | None = None) -> dict[str, int]:
        """The registers of `registers_in`; of another processor as in `human`."""
        return registers_in(self.state(vcpu))

    def state(self, vcpu: int | None = None) -> str:
        """What `info registers` prints; of another processor as in `human`."""
        return self.human("info registers", vcpu)

    def translations(self, addresses: Sequence[int]) -> list[int | None]:
        """The physical address at each virtual one, as QEMU's debug walker sees it, which
        `gva2gpa` prints; None: unmapped."""
        found = list[int | None]()
        for first in range(0, len(addresses), TOGETHER):
            some = [f"gva2gpa {address:#x}" for address in addresses[first : first + TOGETHER]]
            answers = self._answered("gva2gpa", partial(self._printed, some), self._deadline)
            found += [translated(_text("gva2gpa", answer)) for answer in answers]
        return found

    async def _printed(self, commands: Sequence[str]) -> list[object]:
        """What the commands for people print that are sent together."""
        self._client.limit = ANSWER_LIMIT
        asked = ({"command-line": one, **_of_processor(self._vcpu)} for one in commands)
        return await asyncio.gather(
            *(self._client.execute("human-monitor-command", one) for one in asked)
        )

    def info_tlb(self) -> npt.NDArray[np.void]:
        """All pages that QEMU finds in the current tables, as an array of `TLB_ROW`."""
        return parse_tlb(self.human("info tlb", long=True))

    def read_physical(self, address: int, size: int) -> bytes:
        """`size` bytes of physical memory; where there is none, QEMU reads zeros."""
        self.execute("pmemsave", val=address, size=size, filename=self._qemu.scratch_path)
        return self._saved(size)

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
        return self._saved(size)

    def _saved(self, size: int) -> bytes:
        """What QEMU has written to the scratch file."""
        octets = os.pread(self._qemu.scratch, size, 0)
        if len(octets) != size:
            raise ProtocolError(f"QEMU wrote {len(octets)} bytes of memory, asked for {size}", "")
        return octets


def translated(answer: str) -> int | None:
    """What `gva2gpa` prints; None for what is not mapped."""
    answer = answer.strip()
    if answer == "Unmapped":
        return None
    match = _PHYSICAL.fullmatch(answer)
    if match is None:
        raise ProtocolError(f"the monitor answered gva2gpa with {answer[:60]!r}", answer)
    return int(match[1], 16)


def parse_tlb(text: str) -> npt.NDArray[np.void]:
    """The rows of `info tlb` as an array of `TLB_ROW`; raises `ProtocolError` if it is no table."""
    characters = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8)
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


def _text(command: str, answer: object) -> str:
    """What a command for people has printed; raises `ProtocolError` for what is no text."""
    if not isinstance(answer, str):
        raise ProtocolError(f"the monitor answered {command} with no text", reprlib.repr(answer))
    return answer


def _of_processor(vcpu: int) -> dict[str, int]:
    """The argument that says which processor is asked about.  Of the first, QEMU need not be told,
    and it takes 3 us for each byte of a command."""
    return {"cpu-index": vcpu} if vcpu else {}


class _Client(QMPClient):
    """It reads no more than `limit` bytes of a message, and says in `broken` what was no message.

    `seen` counts the run state's events that it has read, by name, and `on_event` is called for
    each. It writes no messages out for the log, which takes a third of its time for a short one.
    """

    def __init__(self, readbuflen: int) -> None:
        super().__init__(readbuflen=readbuflen)
        self.limit = ANSWER_LIMIT
        self.broken = ""
        self.seen: Counter[str] = Counter()
        self.on_event: Callable[[str], object] = lambda _: None
        self._begun = bytearray()

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg

    async def _establish_session(self) -> None:
        """Begins the session. The library takes one that ended at once, with the reading of what
        came behind the answer, for a fault of its own."""
        await super()._establish_session()
        if self.runstate is not Runstate.RUNNING:
            raise EOFError

    async def _do_recv(self) -> Message:
        """The next message that is no event. The library would keep events for who may ask for
        them, and take one that comes while a session begins for the answer."""
        while "event" in (message := self._message(await self._line())):
            name = message["event"]
            if name in RUN_STATE_EVENTS:
                self.seen[str(name)] += 1
                self.on_event(str(name))
        return message

    def _message(self, line: bytes) -> Message:
        try:
            content = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise self._no_message(line) from error
        if not isinstance(content, dict) or not isinstance(content.get("id", ""), str):
            raise self._no_message(line)
        return Message(content, eager=False)

    def _no_message(self, line: bytes) -> QMPError:
        self.broken = f"its monitor sent {reprlib.repr(line)}, which is no message of QMP"
        return QMPError(self.broken)

    async def _line(self) -> bytes:
        """The next line, with its end; EOFError where there is none."""
        assert self._reader is not None
        searched = 0
        while (end := self._begun.find(b"\n", searched)) < 0:
            searched = len(self._begun)
            if searched > self.limit:
                self.broken = f"its monitor sent an answer of more than {self.limit:,} bytes"
                raise QMPError(self.broken)
            part = await self._reader.read(PART)
            if not part:
                raise EOFError
            self._begun += part
        line = bytes(self._begun[: end + 1])
        del self._begun[: end + 1]
        return line


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
_PHYSICAL: Final = re.compile(r"gpa: (0x[0-9a-f]{1,16}|0)")  # "%#x" of zero is 0
_REGISTER: Final = re.compile(
    r"\b([A-Z][A-Z0-9]*) *=((?:(?<=[GI]DT=) *)?[0-9a-f]{8,16}|(?<=CPL=)[0-3])\b(?! [0-9a-f]{16})"
)


def registers_in(text: str) -> dict[str, int]:
    """The registers that `info registers`, or a log of QEMU's, prints as one number, by QEMU's
    names; of GDT and IDT the base.

    Among them CR0, CR2, CR3, CR4, EFER, CPL, GDT, IDT, and RIP, RFL, RAX to R15, or in a 32-bit
    mode EIP, EFL, EAX to EDI.
    """
    return {name: int(digits, 16) for name, digits in _REGISTER.findall(text)}


def version_of(greeting: Mapping[str, int]) -> tuple[int, int, int]:
    """The version in QMP's greeting; raises `Misuse` if it is older than `OLDEST_QEMU`."""
    version = (greeting["major"], greeting["minor"], greeting["micro"])
    if version < OLDEST_QEMU:
        raise Misuse(
            f"QEMU {dotted(version)} is too old: install {dotted(OLDEST_QEMU)} or newer, "
            "or name another one"
        )
    return version


def segments_in(text: str) -> dict[str, tuple[int, int, int, int]]:
    """Selector, base, limit and flags of CS, SS and TR, and of GDT and IDT, which have no selector
    and no flags (0), as `info registers` prints them."""
    return {
        name: (int(selector or "0", 16), int(base, 16), int(limit, 16), int(flags or "0", 16))
        for name, selector, base, limit, flags in _SEGMENT.findall(text)
    }


_SEGMENT: Final = re.compile(
    r"^(CS|SS|TR|GDT|IDT) *= *(?:([0-9a-f]{4}) )?([0-9a-f]{8,16}) ([0-9a-f]{8})\b"
    r"(?: ([0-9a-f]{8})\b)?",
    re.MULTILINE,
)
