"""Processes side by side, without guests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from select import select
from time import sleep
from typing import Any

import pytest

from harness.check.layouts import Layout, LayoutError, load, shipped
from harness.check.workers import Task, answers, evidence, shared_out, validate_all
from harness.machine.errors import (
    Evidence,
    GuestLost,
    LaunchFailure,
    MachineError,
    Misuse,
    ProtocolError,
)
from harness.paging.space import SpaceError

INTERRUPTED_IN_A_FORK = """
import os, signal
from harness.check.workers import Task, answers, evidence, shared_out

os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
try:
    print(list(answers([Task("one", lambda: iter([1]))], 1)))
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_is_not_lost_while_a_process_is_started() -> None:
    command = [sys.executable, "-c", INTERRUPTED_IN_A_FORK]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("interrupted True\n", "")


def one(error: Exception) -> Iterator[int]:
    yield 1
    raise error


LOST = Evidence(("one", "two"), "out of memory", -6, {"rip": 0x10, "cr2": 0x20})


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (
            LaunchFailure("ended", exit_code=1, command=["qemu", "-x"], stderr="no -x"),
            ["error: ended", "exit code: 1", "stderr: no -x", "command: qemu -x"],
        ),
        (
            GuestLost("gone", LOST),
            [
                *("error: gone", "exit code: -6", "stderr: out of memory"),
                *("registers: rip=0x10 cr2=0x20", "console: one\ntwo"),
            ],
        ),
        (ProtocolError("odd", "what"), ["error: odd", "answer: what"]),
        (MachineError("no more"), ["error: no more"]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_failure_of_the_machine_has_its_task_s_name_and_all_that_is_known(
    error: MachineError, known: list[str]
) -> None:
    found = answers([Task("guest 7", lambda: one(error))], 1)
    assert next(found) == 1
    with pytest.raises(MachineError) as raised:
        next(found)
    assert str(raised.value) == f"guest 7: {error}"
    (note,) = raised.value.__notes__
    assert note == evidence(error)
    for part in known:
        assert part in note


@pytest.mark.parametrize("kind", [LayoutError, SpaceError, Misuse])
def test_what_the_caller_did_wrong_stays_what_it_is(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^guest 7: no room$"):
        list(answers([Task("guest 7", lambda: one(kind("no room")))], 1))


def test_a_process_that_ends_unasked_is_said_to_and_the_others_are_ended() -> None:
    def ends() -> Iterator[int]:
        yield os.getpid()
        os._exit(7)

    def waits() -> Iterator[int]:
        yield os.getpid()
        sleep(600)

    found, pids = answers([Task("waits", waits), Task("ends", ends)], 2), list[int]()
    with pytest.raises(MachineError, match=r"^the process for ends ended \(7\) unasked\.$"):
        pids.extend(found)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_as_many_run_at_a_time_as_are_wanted() -> None:
    """The third begins when one of the first two is done."""
    first, second, third = (os.pipe() for _ in range(3))

    def begin(mine: tuple[int, int], *waits_for: tuple[int, int]) -> Iterator[int]:
        for reader, _ in waits_for:
            os.read(reader, 1)
        os.write(mine[1], b"x")
        yield mine[0]

    tasks = [
        Task("one", lambda: begin(first, second)),
        Task("two", lambda: begin(second)),
        Task("three", lambda: begin(third)),
    ]
    assert {*answers(tasks, 2)} == {first[0], second[0], third[0]}
    for pipe in (first, second, third):
        for end in pipe:
            os.close(end)


@pytest.mark.parametrize("jobs", [1, 2, 3, 7])
def test_all_work_is_done_once_by_as_many_processes_as_are_wanted(jobs: int) -> None:
    def tried(parts: Sequence[int]) -> Generator[tuple[int, int], None, None]:
        for part in parts:
            yield part, os.getpid()

    found = list(shared_out(range(6), jobs, tried))
    assert sorted(part for part, _ in found) == list(range(6))
    processes = {pid for _, pid in found}
    assert len(processes) == min(jobs, 6)
    assert (os.getpid() in processes) == (jobs == 1)
    if jobs == 7:  # of which one has nothing to do
        return
    with pytest.raises(Misuse, match=rf"^guest {jobs} of {jobs}: no$" if jobs > 1 else "^no$"):
        list(shared_out(range(6), jobs, lambda parts: fails_at(jobs - 1, parts)))


def fails_at(part: int, parts: Sequence[int]) -> Generator[int, None, None]:
    if part in parts:
        raise Misuse("no")
    yield from parts


ENDED_WITHOUT_A_WORD = """
import time
from harness.check.workers import Task, answers

def slow():
    import os
    yield os.getpid()
    time.sleep(600)

for pid in answers([Task("one", slow)], 1):
    print(pid, flush=True)
"""


def test_a_process_ends_with_the_one_that_started_it_however_that_ends() -> None:
    """Seen by the end of the pipe that both write to."""
    command = [sys.executable, "-c", ENDED_WITHOUT_A_WORD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            assert select([parent.stdout], [], [], 30)[0]
            assert parent.stdout.read() == ""
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_layouts_are_validated_side_by_side_each_at_its_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layouts = {arch: load(shipped(arch)[0]) for arch in ("x86", "riscv")}
    spaces = [(layouts["x86"], 4), (layouts["riscv"], 3), (layouts["x86"], 5)]

    def validate_of(arch: str) -> Any:
        def validate(layout: Layout, levels: int, engine: str, **named: Any) -> Any:
            if engine == "none":
                raise Misuse("there is no such engine")
            return arch, layout.name, levels, engine, named

        return validate

    monkeypatch.setattr("harness.check.workers.validate_of", validate_of)
    found: Any = validate_all(spaces, "tcg", program="/opt/qemu", thorough=True)
    named = {"program": "/opt/qemu", "thorough": True}
    expected = [(one.arch, one.name, levels, "tcg", named) for one, levels in spaces]
    assert sorted(found, key=str) == sorted(expected, key=str)
    said = f"{spaces[0][0].name} at 4 levels: there is no such engine"
    with pytest.raises(Misuse, match=f"^{said}$"):
        list(validate_all(spaces[:1], "none"))
