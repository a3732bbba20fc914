"""How commands end where what they print cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT

WALK = ("walk", "0x1000", "--layout", "smallest")
MISUSE = ("walk", "0x1000", "--layout", "none")
HELP = ("dump", "--help")


def ended(*arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str | None]:
    """Exit code and errors of the command, with its output going there."""
    command = [sys.executable, "-m", "harness.cli", *arguments]
    found = subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, check=False, timeout=60
    )
    return found.returncode, found.stderr


def test_a_reader_that_has_seen_enough_ends_the_command_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended(*WALK, stdout=writing) == (141, "")
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
