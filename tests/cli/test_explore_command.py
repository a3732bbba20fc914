"""`pagetable explore`, as it is started."""

import os
import sys
from pathlib import Path

import pexpect
import pytest

from tests.cli.commands import ROOT, run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--layout", "smallest"], "explore needs a terminal"),
        (["0x", "--layout", "smallest"], "the address is '0x', no number"),
        ([], "no source is named"),
    ],
)
def test_what_cannot_be_explored_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("explore", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def test_in_a_terminal_it_shows_the_table_and_q_ends_it(tmp_path: Path) -> None:
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "harness.cli", "explore", "0x1000", "--layout", "smallest"],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        dimensions=(40, 140),
        timeout=20,
    )
    terminal.expect("layout smallest at 5 levels")
    terminal.expect("PDE table at")
    terminal.send("q")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
