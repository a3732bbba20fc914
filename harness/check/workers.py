"""Several guests side by side, each asked by a process of its own.

Much of the time is this side's, so that threads would not help.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Generic, TypeVar

from harness.check.layouts import Layout, LayoutError
from harness.check.validation import SpaceReport, validate_of
from harness.machine.errors import GuestLost, LaunchFailure, MachineError, Misuse, ProtocolError
from harness.machine.interrupts import postponed
from harness.paging.space import SpaceError

Answer = TypeVar("Answer")
Part = TypeVar("Part")

SIDE_BY_SIDE = 2
"""Guests at a time."""

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


def validate_all(
    spaces: Sequence[tuple[Layout, int]],
    engine: str,
    *,
    program: str | None = None,
    thorough: bool = False,
) -> Generator[SpaceReport, None, None]:
    """Validates layouts, each at a number of levels; the reports come as they are ready.

    Raises what `validate` raises, and ends the other guests; the notes of a MachineError are
    its evidence.  Guests that still run when the iterator is closed are ended.
    """

    def one(layout: Layout, levels: int) -> Iterator[SpaceReport]:
        validate = validate_of(layout.arch)
        yield validate(layout, levels, engine, program=program, thorough=thorough)

    tasks = [
        Task(f"{layout.name} at {layout.mode(levels)}", partial(one, layout, levels))
        for layout, levels in spaces
    ]
    return answers(tasks, SIDE_BY_SIDE)


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """What one process does: `work` yields answers; `name` tells people whose error it is."""

    name: str
    work: Callable[[], Iterator[Answer]]


def answers(tasks: Sequence[Task[Answer]], at_once: int) -> Generator[Answer, None, None]:
    """The answers of all tasks as they come, `at_once` of which run at a time.

    Raises what a task raises, its name before the sentence, and ends the others; the notes of a
    MachineError are its evidence.  Tasks that still run when the iterator is closed are ended.
    """
    waiting = deque(tasks)
    running: dict[Connection, _Worker[Answer]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                worker = _Worker(waiting.popleft())
                running[worker.receiver] = worker
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                message = running[ready].receive()
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, _Done):
                    running.pop(ready).end()
                else:
                    yield message
    finally:
        for worker in running.values():
            worker.end()


def shared_out(
    work: Sequence[Part],
    jobs: int,
    tried: Callable[[Sequence[Part]], Generator[Answer, None, None]],
) -> Generator[Answer, None, None]:
    """What comes of trying parts of work on `jobs` guests side by side, as it comes; raises as
    `answers` does.

    tried  tries some of them on guests of its own
    """
    if jobs == 1:
        return tried(work)
    shares = [
        Task(f"guest {share + 1} of {jobs}", partial(tried, work[share::jobs]))
        for share in range(jobs)
    ]
    return answers(shares, jobs)


class _Done:
    """In place of an answer: there are no more."""


class _Worker(Generic[Answer]):
    """A process that does a task, and sends the answers to `receiver`."""

    def __init__(self, task: Task[Answer]) -> None:
        self._name = task.name
        self.receiver, sender = multiprocessing.Pipe(duplex=False)
        self._process: ForkProcess = multiprocessing.get_context("fork").Process(
            target=_work, args=(os.getpid(), sender, task), daemon=True
        )
        with postponed():  # what is raised in the middle of a fork, Python drops
            self._process.start()
        # Held by the worker alone, so that its end is seen as the end of the pipe.
        sender.close()

    def receive(self) -> Answer | Exception | _Done:
        """What the worker sent; a MachineError where it ended without."""
        try:
            message: Answer | Exception | _Done = self.receiver.recv()
            return message
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            return MachineError(f"the process for {self._name} ended ({code}) unasked.")

    def end(self) -> None:
        """Ends the process, if it still runs, and with it its guest."""
        self._process.terminate()
        self._process.join()
        self.receiver.close()


def _work(parent: int, sender: Connection, task: Task[Answer]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    _end_with(parent)
    try:
        for answer in task.work():
            sender.send(answer)
        sender.send(_Done())
    except (LayoutError, SpaceError, Misuse) as error:
        sender.send(type(error)(f"{task.name}: {error}"))
    except MachineError as error:
        failure = MachineError(f"{task.name}: {error}")
        failure.add_note(evidence(error))
        sender.send(failure)


def _end_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, however that comes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def evidence(error: MachineError) -> str:
    """All that is known about a failure, as text."""
    parts = {"error": str(error)}
    if isinstance(error, LaunchFailure):
        parts |= {"exit code": str(error.exit_code), "stderr": error.stderr}
        parts |= {"command": " ".join(error.command)}
    elif isinstance(error, GuestLost):
        seen = error.evidence
        registers = " ".join(f"{name}={value:#x}" for name, value in seen.registers.items())
        parts |= {"exit code": str(seen.exit_code), "stderr": seen.stderr}
        parts |= {"registers": registers, "console": "\n".join(seen.console)}
    elif isinstance(error, ProtocolError):
        parts |= {"answer": error.answer}
    return "\n".join(f"{name}: {text}" for name, text in parts.items())
