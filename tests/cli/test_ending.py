"""How commands end where what they print cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT
from tests.cli.test_rules_command import REPORT

WALK = ("walk", "0x1000", "--layout", "smallest")
MISUSE = ("walk", "0x1000", "--layout", "none")
HELP = ("dump", "--help")


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"], autouse=True)
def buffering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written late fails late."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def ended(*arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str | None]:
    """Exit code and errors of the command, with its output going there."""
    command = [sys.executable, "-m", "harness.cli", *arguments]
    found = subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, check=False, timeout=60
    )
    return found.returncode, found.stderr


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


@pytest.mark.parametrize("arguments", [WALK, HELP], ids=["walk", "help"])
def test_a_full_disk_is_a_sentence(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        code, errors = ended(*arguments, stdout=full.fileno())
    assert (code, errors) == (
        3,
        "pagetable: nothing more can be written: No space left on device\n",
    )


def test_misuse_is_told_by_the_exit_code_where_nothing_can_be_said() -> None:
    with Path("/dev/full").open("w") as full:
        assert ended(*MISUSE, stdout=subprocess.DEVNULL, stderr=full.fileno())[0] == 2
