"""`pagetable explore`, as it is started."""

from __future__ import annotations

import os
import signal
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


def explored(cwd: Path, **environment: str) -> pexpect.spawn[bytes]:
    """The explorer in a terminal of its own."""
    return pexpect.spawn(
        sys.executable,
        ["-m", "harness", "explore", "0x1000", "--layout", "smallest"],
        cwd=str(cwd),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
        dimensions=(40, 140),
        timeout=120,
    )


@pytest.mark.parametrize(
    ("key", "code", "told"), [("q", 0, b""), ("\x03", 130, b"pagetable: interrupted.\r\n")]
)
def test_in_a_terminal_it_shows_the_table_until_q_or_ctrl_c(
    tmp_path: Path, key: str, code: int, told: bytes
) -> None:
    terminal = explored(tmp_path, NO_COLOR="1")
    terminal.expect("layout smallest at 5 levels")
    terminal.expect("PDE table at")
    terminal.send(key)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == code
    assert terminal.before is not None and terminal.before.endswith(told)


def test_sigterm_gives_the_terminal_back(tmp_path: Path) -> None:
    terminal = explored(tmp_path, NO_COLOR="1")
    terminal.expect("PDE table at")
    terminal.kill(signal.SIGTERM)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (terminal.exitstatus, terminal.signalstatus) == (143, None)
    assert terminal.before is not None and b"\x1b[?1049l" in terminal.before


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_terminal_that_only_writes_lines_is_refused(tmp_path: Path, kind: str) -> None:
    terminal = explored(tmp_path, TERM=kind)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 2
    assert (
        terminal.before
        == (
            "pagetable: explore needs a terminal that places what it shows, and TERM is"
            f" {kind!r}: walk and dump print the same\r\n"
        ).encode()
    )
