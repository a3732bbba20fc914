"""The running stub: a guest that executes batches of probes.

    with Guest("tcg", ram_bytes=256 * MIB) as guest:  # of harness.machine.x86, or of another
        ...write tables into guest.ram.buffer...
        jobs = guest.image.new_jobs(1000)
        ...
        results = guest.run(state, jobs)
        with guest.parked(state) as monitor:
            monitor.translations([0x1000])

Jobs and results are arrays in shared memory; the console carries a line each way per batch. The
memory for them has two halves, so that this process writes the next batch while the guest runs one.

What a state, a job and a processor are is the architecture's: its package has a `Guest` of its own.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pexpect
from pexpect.fdpexpect import fdspawn

from harness.machine.errors import (
    GuestLost,
    LaunchFailure,
    MachineError,
    Misuse,
    ProtocolError,
)
from harness.machine.machine import Engine, Machine
from harness.machine.monitor import Monitor
from harness.machine.patience import Clock
from harness.machine.ram import Ram
from harness.machine.stub import StubImage

GLANCE: Final = 0.25
"""Seconds between two looks at the machine while an answer of the stub is awaited."""

LONGEST_LINE: Final = 4096
"""Bytes; the stub's longest line is that of a panic, about 700."""

HALVES: Final = 2


class Tested(Protocol):
    """What a batch runs under."""

    @property
    def word_bytes(self) -> int:
        """The size of an entry, and so of the words that jobs patch and watch."""


S = TypeVar("S", bound=Tested)
I = TypeVar("I")  # noqa: E741


@dataclass(frozen=True)
class _Batch(Generic[S]):
    """Jobs that were written to one half of the job memory."""

    state: S
    nonce: int
    half: int
    count: int


@dataclass(frozen=True)
class _Half:
    """Where one half of the job memory has its jobs and their results."""

    jobs: range
    results: range


class StubGuest(ABC, Generic[S, I]):
    """A guest with the stub at its prompt, owning its emulator, memory, monitor and console.

    `new_ram` makes the memory, `cpu` is another processor than the engine's own, as its emulator
    names them, `program` another emulator than the engine's own, `deadline` the seconds that any
    answer may take, without those in which the emulator waits for a processor.

    `image` is the stub, `ram` the memory, `info` the processor, `version` the emulator's,
    `capacity` the jobs of one batch.

    Raises `Misuse`, `LaunchFailure`, or, if the stub does not come up, `GuestLost` or
    `ProtocolError`. After these, as after any `MachineError` of a method, the guest is ended.
    """

    def __init__(
        self,
        engine: Engine,
        new_ram: Callable[[], Ram],
        image: StubImage,
        *,
        cpu: str | None,
        program: str | None,
        deadline: float,
    ) -> None:
        self.engine, self.image, self.deadline = engine, image, deadline
        self._flying: deque[_Batch[S]] = deque()
        self._next_half = 0
        self._held: list[_Held | None] = [None] * HALVES
        self._ready = self._ended = False
        self._resources = contextlib.ExitStack()
        with self._ended_by_errors():
            try:
                self.ram = new_ram()
                self._launch(cpu, program)
            except OSError as error:
                raise self._unstarted(error) from error
            self._divide_job_memory()
            self._greet()
        self.version = self._machine.version
        self.info = self._info_in(
            self._structure(self.image.machine_info, self.image.machine_info_dtype)
        )

    # ---- what is the architecture's ----

    @property
    @abstractmethod
    def free(self) -> tuple[range, ...]:
        """The physical addresses of the memory that is the caller's."""

    @abstractmethod
    def _info_in(self, record: np.void) -> I:
        """The processor, by the stub's `machine_info`."""

    @abstractmethod
    def _values(self, state: S) -> dict[str, Any]:
        """What the `batch` structure says of a state."""

    @abstractmethod
    def _check_state(self, state: S) -> None:
        """Raise `Misuse` for a state that the processor cannot take."""

    @abstractmethod
    def _check_accesses(self, jobs: npt.NDArray[np.void], state: S) -> None:
        """Raise `Misuse` for what the stub cannot do under a state."""

    def _checked_for(self, state: S) -> object:
        """What of a state decides which jobs are refused."""
        return state.word_bytes

    # ---- the machine ----

    def _launch(self, cpu: str | None, program: str | None) -> None:
        """Start the machine; `_resources` undoes each step, in the opposite order."""
        self._resources.callback(self.ram.close)
        engine = self.engine
        self._machine: Machine = engine.start(
            program or engine.program, engine, self.ram, self.image, cpu
        )
        self._resources.callback(self._machine.close)
        self._clock = Clock(self._machine.pid)
        self._console = fdspawn(
            self._machine.console, encoding="ascii", codec_errors="backslashreplace", use_poll=True
        )
        self._console.delaybeforesend = None
        self._console.logfile_read = self._machine.transcript
        self._monitor = self._machine.begin(self.deadline)

    def _unstarted(self, error: OSError) -> LaunchFailure:
        """That this host lacks what an emulator is started with, open files or processes."""
        maker = self.engine.maker
        message = f"{maker} did not start: {error.strerror or error}"
        return LaunchFailure(message, exit_code=None, command=(), stderr="", maker=maker)

    @property
    def monitor(self) -> Monitor:
        """The emulator's monitor; raises `Misuse` where it has none."""
        if self._monitor is None:
            raise Misuse(f"{self.engine.maker} has no monitor: ask the guest itself")
        return self._monitor

    @property
    def has_monitor(self) -> bool:
        """Whether the emulator has a monitor."""
        return self._monitor is not None

    @property
    def pid(self) -> int:
        """The process id of the emulator."""
        return self._machine.pid

    @property
    def command(self) -> tuple[str, ...]:
        """The command line that started the emulator."""
        return self._machine.command

    def is_well(self) -> bool:
        """Whether the guest can be asked something: it was not ended, and its emulator runs."""
        with contextlib.suppress(MachineError):
            return not self._ended and self._machine.trouble() is None
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the guest and give back all it held; a second call does nothing."""
        self._ended = True
        self._resources.close()

    # ---- batches ----

    def run(self, state: S, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Execute `jobs`, any number of them, and answer their results, in their order.

        `jobs` is an array of `image.job_dtype`, the answer one of `image.result_dtype`. Raises
        `Misuse` for jobs that reach outside RAM and for a state or an access that the processor
        cannot take, `GuestLost` if the guest does not survive them.
        """
        self._check_idle()
        self._check_state(state)
        self._check_jobs(jobs, state)
        results = np.empty(len(jobs), dtype=self.image.result_dtype)
        collected = 0
        for first in range(0, len(jobs), self.capacity):
            if len(self._flying) == HALVES:
                collected += self._collect(results[collected:])
            self._start(state, jobs[first : first + self.capacity])
        while self._flying:
            collected += self._collect(results[collected:])
        return results

    def start(self, state: S, jobs: npt.NDArray[np.void]) -> None:
        """Hand over one batch, at most `capacity` jobs, and return while the guest executes it.

        Two batches can be under way: the second is executed once the first was finished. An array
        that cannot be written to is checked, and copied to the guest, only when it is new there,
        so that the same jobs under one state after the other cost little.
        """
        self._check_alive()
        if len(self._flying) == HALVES:
            raise Misuse("two batches are under way already: finish() one first")
        if len(jobs) > self.capacity:
            raise Misuse(f"{len(jobs)} jobs: one batch holds {self.capacity}, so use run()")
        self._check_state(state)
        if not any(self._unchanged(held, jobs, state) for held in self._held):
            self._check_jobs(jobs, state)
        self._start(state, jobs)

    def _start(self, state: S, jobs: npt.NDArray[np.void]) -> None:
        batch = _Batch(state, secrets.randbits(64), self._next_half, len(jobs))
        self._next_half = (self._next_half + 1) % HALVES
        if not self._unchanged(self._held[batch.half], jobs, state):
            held = self._array(self._halves[batch.half].jobs, self.image.job_dtype)
            held[: len(jobs)] = jobs
            self._held[batch.half] = _Held(jobs, self._checked_for(state))
        self._flying.append(batch)
        if len(self._flying) == 1:
            self._send(batch)

    def finish(self) -> npt.NDArray[np.void]:
        """The results of the oldest batch under way; waits for them."""
        self._check_alive()
        if not self._flying:
            raise Misuse("no batch is under way: start() one first")
        results = np.empty(self._flying[0].count, dtype=self.image.result_dtype)
        self._collect(results)
        return results

    def _collect(self, results: npt.NDArray[np.void]) -> int:
        """Put the results of the oldest batch first into `results`; answers how many they are."""
        batch = self._flying[0]
        self._expect(f"done {batch.nonce:016x} {batch.count}")
        self._machine.after_work()
        shared = self._structure(self.image.batch, self.image.batch_dtype)
        if (shared["done_nonce"], shared["done"]) != (batch.nonce, batch.count):
            raise self._broken("it says that the batch is done, but the memory does not", "done")
        self._flying.popleft()
        if self._flying:
            self._send(self._flying[0])
        found = self._array(self._halves[batch.half].results, self.image.result_dtype)
        results[: batch.count] = found[: batch.count]
        return batch.count

    def _send(self, batch: _Batch[S]) -> None:
        self._describe(batch)
        self._command(f"run {batch.nonce:016x}")

    def _describe(self, batch: _Batch[S]) -> None:
        """Fill in the `batch` structure that the stub reads."""
        values = {
            **self._values(batch.state),
            "nonce": batch.nonce,
            "jobs": self._halves[batch.half].jobs.start,
            "results": self._halves[batch.half].results.start,
            "count": batch.count,
            "done": 0,
            "done_nonce": ~batch.nonce & 0xFFFF_FFFF_FFFF_FFFF,
        }
        shared = self._structure(self.image.batch, self.image.batch_dtype)
        for name, value in values.items():
            shared[name] = value

    def _structure(self, address: int, dtype: np.dtype[np.void]) -> np.void:
        """One of the stub's variables, in place."""
        return cast(np.void, self._array(range(address, address + dtype.itemsize), dtype)[0])

    def _array(self, span: range, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """The whole structures in a part of memory, in place and in the guest's byte order."""
        return self.ram.view(span, self.image.in_memory(dtype))

    # ---- parking ----

    @contextlib.contextmanager
    def parked(self, state: S) -> Iterator[Monitor]:
        """The guest with the tested state loaded and its processor stopped, for the monitor."""
        self._check_idle()
        monitor = self.monitor
        self._check_state(state)
        batch = _Batch(state, secrets.randbits(64), 0, 0)
        self._describe(batch)
        self._command(f"park {batch.nonce:016x}")
        self._expect(f"parked {batch.nonce:016x}")
        monitor.stop()
        try:
            yield monitor
        finally:
            if not self._ended and self._machine.exit_code() is None:
                monitor.cont()
                self._command("leave")
                self._expect(f"left {batch.nonce:016x}")

    # ---- start ----

    def _divide_job_memory(self) -> None:
        """Give each half of the job memory as many jobs as it has room for, with their results."""
        job, result = self.image.job_dtype.itemsize, self.image.result_dtype.itemsize
        arena = self.image.job_arena
        size = len(arena) // HALVES
        self.capacity = size // (job + result)
        self._halves = []
        for first in arena[::size]:
            middle = first + self.capacity * job
            self._halves.append(_Half(range(first, middle), range(middle, first + size)))

    def _greet(self) -> None:
        """Wait for the stub, and see that it and the engine are those that were asked for."""
        self._expect(f"ready {self.image.enums['PROTOCOL_VERSION']}")
        in_use = self._machine.come_up()
        if in_use != self.engine.name:
            maker, asked = self.engine.maker, self.engine.name
            raise ProtocolError(f"{maker} runs {in_use}, asked for {asked}", in_use)
        self._machine.after_work()
        self._ready = True

    # ---- console ----

    def _command(self, line: str) -> None:
        self._machine.before_work()
        try:
            self._console.send(line + "\n")
        except OSError:
            raise self._machine_ended() from None

    def _expect(self, line: str) -> None:
        """Wait for this line; any other, and none within the deadline, is the guest's end."""
        with self._ended_by_errors():
            answer = self._read_line()
            while self._machine.attend(answer):
                answer = self._read_line()
            if answer == line:
                return
            if answer.startswith("panic "):
                registers = {name: int(value, 16) for name, value in _PANIC.findall(answer)}
                raise self._lost(f"unexpected exception, {answer}", registers)
            raise self._broken(f"it printed {answer[:80]!r} instead of {line!r}", answer)

    def _read_line(self) -> str:
        end = self._clock.now() + self.deadline
        while (left := end - self._clock.now()) > 0:
            try:
                self._console.expect_exact("\n", timeout=min(GLANCE, left))
                return self._console.before or ""
            except pexpect.TIMEOUT:
                self._check_running()
            except (pexpect.EOF, OSError):
                raise self._machine_ended() from None
        raise self._lost(f"no answer within {self.deadline:g} s", self._machine.registers())

    def _check_running(self) -> None:
        """See that an answer can still come."""
        begun = self._console.before or ""
        if len(begun) > LONGEST_LINE:
            raise self._broken("it prints a line without end", begun)
        if (trouble := self._machine.trouble()) is not None:
            if self._machine.exit_code() is not None:
                raise self._machine_ended()
            raise self._lost(trouble, self._machine.registers())

    # ---- endings ----

    def _lost(self, seen: str, registers: Mapping[str, int] | None = None) -> GuestLost:
        return self._machine.guest_lost(seen, registers)

    def _machine_ended(self) -> MachineError:
        if self._ready:
            return self._lost(f"{self.engine.maker} ended")
        return self._machine.launch_failure("it ended before the stub was ready")

    def _broken(self, what: str, answer: str) -> ProtocolError:
        return ProtocolError(f"the stub breaks the protocol: {what}", answer)

    @contextlib.contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """End the guest when the block fails or is interrupted: it is in no known state then."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    # ---- arguments ----

    def _check_alive(self) -> None:
        if self._ended:
            raise Misuse("this guest was ended: start another")

    def _check_idle(self) -> None:
        self._check_alive()
        if self._flying:
            raise Misuse("a batch is under way: finish() it first")

    def _check_jobs(self, jobs: npt.NDArray[np.void], state: S) -> None:
        """Refuse what would make the stub touch memory that no job may name, or do what it can
        not do in this mode."""
        if jobs.dtype != self.image.job_dtype or jobs.ndim != 1:
            raise Misuse("jobs are a one-dimensional array of job_dtype: take one from new_jobs()")
        for name in ("patched", "watched"):
            refuse(jobs, jobs[name] > self.image.enums["WORDS"], f"{name} has no room in where[]")
        where = jobs["where"]
        outside = where - np.uint64(self.ram.base) >= self.ram.size
        if outside.any():
            used = np.maximum(jobs["patched"], jobs["watched"])
            outside &= (np.arange(where.shape[1]) < used[:, None]) | (where != 0)
        refuse(jobs, outside, "where[] has an address outside RAM")
        misaligned = where & np.uint64(state.word_bytes - 1) != 0
        reason = f"where[] has an address that is not a multiple of {state.word_bytes}"
        refuse(jobs, misaligned, reason)
        self._check_accesses(jobs, state)

    def _unchanged(self, held: _Held | None, jobs: npt.NDArray[np.void], state: S) -> bool:
        """Whether `jobs` are what one half of the job memory holds already."""
        if held is None or held.jobs is not jobs or jobs.flags.writeable:
            return False
        return held.checked_for == self._checked_for(state)


@dataclass(frozen=True)
class _Held:
    """Jobs that one half of the job memory holds, and what they were checked for."""

    jobs: npt.NDArray[np.void]
    checked_for: object


def refuse(jobs: npt.NDArray[np.void], wrong: npt.NDArray[np.bool_], reason: str) -> None:
    """Raise `Misuse` naming the first job with a True in its row of `wrong`, if there is one."""
    if wrong.any():
        index = int(np.argmax(wrong)) * len(jobs) // wrong.size
        raise Misuse(f"job {index}, {jobs[index]}: {reason}")


_PANIC: Final = re.compile(r"(\w+)=([0-9a-f]+)")
