"""What a terminal shows of lines for people."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

from harness.report.screen import folded
from harness.report.terminal import progress
from tests.cli.commands import ROOT, run
from tests.cli.test_replay_command import case
from tests.cli.test_rules_command import REPORT
from tests.inspect.sources.machines import STUB, running

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"(?:\x1b\[[0-9;?]*[A-Za-ln-z])+")
"""What moves the cursor or clears a line."""

COMMANDS = [
    ("decode", "0x8000000005000181"),
    ("decode", "0x1fffffffffdb9604", "--level", "0", "--linux"),
    ("walk", "0x555555554234", "0xffff800000000000", "--layout", "linux-4"),
    ("walk", "0x555555554234", "--layout", "linux-5", "--linux"),
    ("fault", "0xffffffff85000000", "--layout", "linux-4"),
    ("fault", "0xffffffff85000000", "--access", "read", "--user", "--layout", "linux-4"),
    ("fault", "--code", "0x1d", "--cr2", "0x1000"),
    ("fault", "--code", "4", "--cr2", "0xffffffff85000000", "--layout", "linux-4"),
    ("dump", "--layout", "linux-5"),
    ("dump", "--layout", "malformed"),
    ("dump", "--layout", "self-map", "--expand", "--limit", "50"),
    ("find", "0x3001000", "--layout", "aliases"),
    ("find", "--tables", "--layout", "linux-4"),
    ("find", "--aliases", "--layout", "aliases"),
    ("lint", "--layout", "malformed"),
    ("diff", "layout:linux-4", "layout:aliases@4"),
]


def on_terminal(folder: Path, *command: str, **environment: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "harness", *command],
        dimensions=(40, 80),
        cwd=str(folder),
        env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        encoding="utf-8",
        timeout=120,
    )
    try:
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close()
    return str(terminal.before)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_terminal_of_eighty_columns_wraps_no_line_and_loses_no_word(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    shown = ESCAPE.sub("", on_terminal(tmp_path, *command))
    assert "\x1b" not in shown
    lines = shown.replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    _, piped, _ = run(*command, cwd=tmp_path)
    if command[0] == "dump":  # which leaves out there what goes without saying
        piped = re.sub(r"(0x[0-9a-f]+)\.\.0x[0-9a-f]+|, contiguous", r"\1", piped)
    assert shown.split() == piped.split()


MACHINE = [
    ("validate", "smallest", "linux-4", "--engine", "tcg"),
    ("matrix", "--mode", "4", "--engine", "tcg", "--where", "family=entry and level=0 and RW=0"),
    ("prove", "--layout", "smallest", "--levels", "4", "--engine", "tcg"),
    ("rules", "--from", "REPORT"),
    ("replay", "CASE"),
]


@pytest.mark.hw
@pytest.mark.parametrize("command", MACHINE, ids=lambda command: command[0])
def test_nor_does_what_runs_on_the_machine_with_its_progress(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "REPORT").write_text(json.dumps(REPORT))
    saved = {"CASE": str(case().save(tmp_path / "cases"))}
    shown = ESCAPE.sub("", on_terminal(tmp_path, *(saved.get(word, word) for word in command)))
    lines = [part for line in shown.splitlines() for part in CONTROL.sub("\r", line).split("\r")]
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.hw
def test_nor_does_the_check_of_a_guest(tmp_path: Path) -> None:
    with running(tmp_path, *STUB) as machine:
        shown = ESCAPE.sub("", on_terminal(tmp_path, "check", "--qmp", machine.path.name))
    lines = shown.replace("\r", "").splitlines()
    assert "answers agree about QEMU at" in " ".join(lines)
    assert max(map(len, lines)) <= 80, max(lines, key=len)


def test_rights_and_verdicts_are_coloured_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    command = ("dump", "--layout", "aliases", "--levels", "4")
    shown = on_terminal(tmp_path, *command)
    for letters, colour in (("urwx", 31), ("-rw-", 32), ("ur-x", 33)):
        assert f"\x1b[{colour}m{letters}\x1b[0m" in shown
    assert "\x1b[31merror:\x1b[0m" in on_terminal(tmp_path, "lint", "--layout", "malformed")
    assert "\x1b" not in run(*command, cwd=tmp_path)[1]
    assert "\x1b" not in on_terminal(tmp_path, *command, NO_COLOR="1")
    assert "\x1b" not in on_terminal(tmp_path, *command, TERM="dumb")
    assert "\x1b" not in on_terminal(tmp_path, *command, "--json")


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("short", ["short"]),
        ("aa bb  cc  dddddddd", ["aa bb  cc", "    dddddddd"]),  # between columns
        ("aa bb cc dd ee ff gg", ["aa bb cc dd ee", "    ff gg"]),  # between words
        ("    aa bb cc dd ee", ["    aa bb cc dd", "        ee"]),  # under what it belongs to
        ("0x1234567890abcdef12", ["0x1234567890abcdef12"]),  # nowhere
        ("0x1234567890abcdef12 aa bb", ["0x1234567890abcdef12", "    aa bb"]),  # behind it
        ("  aa 0x1234567890abcdef12 bb", ["  aa", "      0x1234567890abcdef12", "      bb"]),
        ("", [""]),
    ],
)
def test_a_line_that_is_too_wide_goes_on_indented(line: str, pieces: list[str]) -> None:
    assert list(folded(line, 16)) == pieces


def test_progress_has_separators_a_rate_and_the_time_left() -> None:
    assert progress(0, 87_081_520, "accesses", None) == "0 of 87,081,520, accesses"
    said = progress(1_305_152, 87_081_520, "accesses", 65_000.4)
    assert said == "1,305,152 of 87,081,520, accesses; 65,000 a second, 22 min 00 s left"
    assert progress(3, 10, "dense, 4 levels", 0.5).endswith("; 0.5 a second, 14 s left")
    assert progress(10, 10, "dense, 4 levels", 0.5) == "10 of 10, dense, 4 levels"
