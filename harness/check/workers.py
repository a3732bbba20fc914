"""Several guests side by side, each asked by a process of its own.

Most of the time of a validation is this side's, so that threads would not help.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from harness.check.layouts import Layout, LayoutError
from harness.check.validate import SpaceReport, validate
from harness.machine.errors import GuestLost, LaunchFailure, MachineError, Misuse, ProtocolError
from harness.paging.space import SpaceError

SIDE_BY_SIDE = 2
"""Guests at a time."""

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


def validate_all(
    spaces: Sequence[tuple[Layout, int]], engine: str, *, qemu: str, thorough: bool = False
) -> Generator[SpaceReport, None, None]:
    """Validates layouts, each at a number of levels; the reports come as they are ready.

    Raises what `validate` raises, and ends the other guests; the notes of a MachineError are
    its evidence.  Guests that still run when the iterator is closed are ended.
    """
    waiting = deque(spaces)
    running: dict[Connection, _Worker] = {}
    try:
        while waiting or running:
            while waiting and len(running) < SIDE_BY_SIDE:
                worker = _Worker(*waiting.popleft(), engine, qemu, thorough)
                running[worker.answers] = worker
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                answer = running[ready].answer()
                del running[ready]
                if isinstance(answer, Exception):
                    raise answer
                yield answer
    finally:
        for worker in running.values():
            worker.end()


class _Worker:
    """A process that validates one space, and sends what came of it to `answers`."""

    def __init__(self, layout: Layout, levels: int, *how: str | bool) -> None:
        self.name = f"{layout.name} at {levels} levels"
        self.answers, sender = multiprocessing.Pipe(duplex=False)
        arguments = (os.getpid(), sender, layout, levels, *how)
        self._process: ForkProcess = multiprocessing.get_context("fork").Process(
            target=_work, args=arguments, daemon=True
        )
        self._process.start()
        # Held by the worker alone, so that its end is seen as the end of the pipe.
        sender.close()

    def answer(self) -> SpaceReport | Exception:
        """What the worker sent; a MachineError where it ended without."""
        try:
            answer: SpaceReport | Exception = self.answers.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            answer = MachineError(f"the process that validated {self.name} ended ({code}) unasked.")
        self.end()
        return answer

    def end(self) -> None:
        """Ends the process, if it still runs, and with it its guest."""
        self._process.terminate()
        self._process.join()
        self.answers.close()


def _work(
    parent: int,
    sender: Connection,
    layout: Layout,
    levels: int,
    engine: str,
    qemu: str,
    thorough: bool,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    _end_with(parent)
    try:
        sender.send(validate(layout, levels, engine, qemu=qemu, thorough=thorough))
    except (LayoutError, SpaceError, Misuse) as error:
        sender.send(type(error)(f"{layout.name} at {levels} levels: {error}"))
    except MachineError as error:
        failure = MachineError(f"{layout.name} at {levels} levels: {error}")
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
