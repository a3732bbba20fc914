"""How commands end where what they print cannot be written, where they fail or are broken off."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

from harness.cli.ending import sentences
from tests.cli.commands import ROOT, run
from tests.cli.test_rules_command import REPORT

WALK = ("walk", "0x1000", "--layout", "smallest")
MISUSE = ("walk", "0x1000", "--layout", "none")
HELP = ("dump", "--help")


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written late fails late."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


both_ways = pytest.mark.usefixtures("buffering")
"""For tests of a process of its own: what is written in this one goes into memory."""


def ended(*arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str | None]:
    """Exit code and errors of the command, with its output going there."""
    command = [sys.executable, "-m", "harness", *arguments]
    found = subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, check=False, timeout=60
    )
    return found.returncode, found.stderr


@both_ways
@pytest.mark.parametrize("table", [False, True], ids=["text", "table"])
def test_a_reader_that_has_seen_enough_ends_the_command_in_silence(
    tmp_path: Path, table: bool
) -> None:
    report = tmp_path / "report"
    report.write_text(json.dumps(REPORT))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        arguments = ("rules", "--from", str(report)) if table else WALK
        assert ended(*arguments, stdout=writing) == (141, "")
    finally:
        os.close(writing)


@both_ways
@pytest.mark.parametrize("arguments", [WALK, HELP], ids=["walk", "help"])
def test_a_full_disk_is_a_sentence(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        code, errors = ended(*arguments, stdout=full.fileno())
    assert (code, errors) == (
        3,
        "pagetable: nothing more can be written: No space left on device\n",
    )


@both_ways
def test_misuse_is_told_by_the_exit_code_where_nothing_can_be_said() -> None:
    with Path("/dev/full").open("w") as full:
        assert ended(*MISUSE, stdout=subprocess.DEVNULL, stderr=full.fileno())[0] == 2


def closed(*arguments: object, streams: str) -> subprocess.CompletedProcess[str]:
    """The command with streams closed, as a shell closes them."""
    command = shlex.join([sys.executable, "-m", "harness", *map(str, arguments)])
    return subprocess.run(
        ["sh", "-c", f"exec {command} {streams}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


UNWRITTEN = "pagetable: nothing more can be written: the output is closed\n"


@cache
def whole(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with its streams open."""
    return closed(*arguments, streams="")


EACH = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")


@both_ways
@pytest.mark.parametrize(
    ("arguments", "code", "streams"),
    [
        *((WALK, 0, streams) for streams in EACH),
        *((MISUSE, 2, streams) for streams in EACH),
        (HELP, 0, EACH[-1]),
        (("matrix", "--where", "nonsense"), 2, EACH[-1]),
    ],
)
def test_a_closed_stream_changes_nothing_but_that_a_result_cannot_be_written(
    arguments: tuple[str, ...], code: int, streams: str
) -> None:
    found, usual = closed(*arguments, streams=streams), whole(*arguments)
    unwritten = ">&-" in streams.replace("2>&-", "") and code == 0
    assert (usual.returncode, found.returncode) == (code, 3 if unwritten else code)
    assert found.stdout == ("" if unwritten else usual.stdout)
    assert found.stderr == ("" if "2>&-" in streams else UNWRITTEN if unwritten else usual.stderr)


@pytest.mark.hw
@pytest.mark.parametrize("streams", ["<&-", "<&- >&-", "<&- 2>&-"])
def test_a_guest_runs_where_its_files_would_get_the_numbers_of_streams(streams: str) -> None:
    found = closed("validate", "smallest", "--engine", "tcg", streams=streams)
    ends = (3, UNWRITTEN) if " >&-" in streams else (0, "")
    assert (found.returncode, found.stderr) == ends


DELAYED = """
import os, signal, sys, threading, time
delay = float(sys.argv.pop(1))
def send():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGINT)
from harness.__main__ import main
sys.argv[0] = "pagetable"
signal.signal(signal.SIGINT, signal.default_int_handler)
real = signal.signal
def first(*given):
    signal.signal = real
    try:
        return real(*given)
    finally:
        threading.Thread(target=send, daemon=True).start()
signal.signal = first
main()
"""
"""The command, which gets a Ctrl-C so many seconds after its first act."""


@both_ways
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_ctrl_c_is_one_line_whenever_it_comes(delay: float) -> None:
    found = subprocess.run(
        [sys.executable, "-c", DELAYED, str(delay), *WALK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode in (130, 0, -signal.SIGINT)
    assert found.stderr == ("pagetable: interrupted.\n" if found.returncode == 130 else "")


class Interrupted:
    """What gets a Ctrl-C as a class is made that has it."""

    def __set_name__(self, *_: object) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("failed", [False, True], ids=["raised", "handled"])
def test_ctrl_c_that_python_raises_as_another_error_is_one_line(
    failed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, sentences():
        try:
            type("Tree", (), {"lock": Interrupted()})
        except RuntimeError:
            if failed:
                raise KeyError("lock") from None
            raise
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "pagetable: interrupted.\n"


DROPPED = """
import signal, sys, time, typer, weakref
from harness.cli.ending import sentences
class Thing:
    pass
def freed(_):
    signal.raise_signal(signal.SIGINT)
    for _ in range(1000):
        pass
thing = Thing()
kept = weakref.ref(thing, freed)
real = signal.setitimer
def slow(*given):
    signal.setitimer = real
    real(*given)
    signal.raise_signal(signal.SIGINT)
    for _ in range(3):
        time.sleep(0.004)
if len(sys.argv) > 1:
    signal.setitimer = slow
try:
    with sentences():
        del thing
        for _ in range(400):
            time.sleep(0.005)
        print("lost")
except typer.Exit as ended:
    print(ended.exit_code)
"""
"""Ctrl-C in the callback of a weak reference, where Python drops what is raised; with an argument,
others come while that is noted."""


@pytest.mark.parametrize("more", [[], ["more"]], ids=len)
def test_ctrl_c_within_a_finalizer_is_not_lost(more: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-c", DROPPED, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (found.stdout, found.stderr) == ("130\n", "pagetable: interrupted.\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "pagetable: there is not enough memory for this\n"),
        (RecursionError("too deep"), "this is a fault of pagetable, please report it: Recursion"),
        (
            KeyError("a\nb"),
            r"this is a fault of pagetable, please report it: KeyError: 'a\nb', in",
        ),
        (AssertionError(), "this is a fault of pagetable, please report it: AssertionError, in"),
        (
            OSError(5, "Input/output error"),
            "pagetable: the system refuses what this needs: Input/output error\n",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_one_foresaw_is_one_sentence_and_no_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("harness.inspect.sources.layout.snapshot", fails)
    code, out, errors = run(*WALK, cwd=tmp_path)
    assert (code, out) == (3, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_the_way_to_a_fault_is_shown_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("here")

    monkeypatch.setattr("harness.inspect.sources.layout.snapshot", fails)
    monkeypatch.setenv("PAGETABLE_TRACE", "1")
    code, _, errors = run(*WALK, cwd=tmp_path)
    assert code == 3
    assert "Traceback" in errors
    assert "in fails" in errors


LONG = "a" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("dump", "--layout", LONG),
        ("dump", "--layout", f"{LONG}.toml"),
        ("diff", "layout:smallest", f"layout:{LONG}.toml"),
        ("dump", "--case", LONG),
        ("replay", LONG),
        ("dump", "--core", LONG),
        ("dump", "--ram", LONG, "--cr3", "0"),
        ("dump", "--qmp", LONG),
        ("check", "--qmp", LONG),
        ("rules", "--from", LONG),
        ("validate", LONG),
        ("validate", "smallest", "--report", LONG),
        ("validate", "smallest", "--html", LONG),
        (*WALK, "--html", LONG),
        (*WALK, "--svg", LONG),
        ("matrix", "--html", LONG),
        ("matrix", "--report", LONG, "--where", "family=rights and level=0 and mode=4"),
        ("matrix", "--qemu", LONG),
    ],
    ids=lambda arguments: " ".join(word[:12] for word in arguments),
)
def test_a_name_that_is_too_long_is_misuse(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, errors = run(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("pagetable: ")
    assert "Errno" not in errors
