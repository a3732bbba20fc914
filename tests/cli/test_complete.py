"""What TAB offers, asked as the shells ask, and once with a shell."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pexpect
import pytest

from harness.check.layouts import shipped
from harness.cli import main
from harness.inspect.arm64 import lint as of_arm64
from harness.inspect.lint import rules
from harness.inspect.power import lint as of_power
from harness.inspect.riscv import lint as of_riscv
from harness.inspect.s390 import lint as of_s390
from harness.inspect.x86 import lint as of_x86
from tests.cli.commands import ROOT

LAYOUTS = [path.stem for path in shipped()]


def asked(cwd: Path, **said: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command where a shell asks it."""
    out, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, said),
        mock.patch.object(sys, "argv", ["pagetable"]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), out.getvalue(), errors.getvalue()


def offered(cwd: Path, *words: str) -> list[str]:
    """What bash is told for these words, the last of which is being written."""
    code, out, errors = asked(
        cwd,
        _PAGETABLE_COMPLETE="complete_bash",
        COMP_WORDS="\n".join(("pagetable", *words)),
        COMP_CWORD=str(len(words)),
    )
    assert (code, errors) == (0, "")
    return out.split("\n")[:-1]


SV = ("sv32", "sv39", "sv48", "sv57")
SPACES = ("segment", "region-third", "region-second", "region-first")
RADIX = ("radix-4k", "radix-64k")
GRANULES = ("4k", "16k", "64k", "4k-52", "16k-52", "64k-52")
MODES = [*("32", "pae", "4", "5"), *SV, *GRANULES, *SPACES, *RADIX]
LINTS = (of_x86, of_riscv, of_arm64, of_s390, of_power)
LINT_RULES = list(dict.fromkeys(one.name for of in LINTS for one in rules(of)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["validate", ""], LAYOUTS),
        (["validate", "smallest", "linux"], ["linux-4", "linux-5"]),
        (["dump", "--layout", "self"], ["self-map"]),
        (["walk", "0x1000", "--layout", "=", "self"], ["self-map"]),
        (["lint", "--ignore", ""], LINT_RULES),
        (["validate", "--levels", ""], ["4", "5"]),
        (["decode", "0x67", "--mode", ""], MODES),
        (["matrix", "--mode", ""], ["32", "pae", "4", "5", "all"]),
        (["matrix", "--arch", "riscv", "--mode", ""], ["sv32", "sv39", "sv48", "sv57", "all"]),
        (["matrix", "--arch", "x86", "--mode", ""], ["32", "pae", "4", "5", "all"]),
        (["validate", "--arch", "riscv", "--mode", "sv3"], ["sv32", "sv39"]),
        (["matrix", "--preset", ""], ["quick", "full"]),
        (["fault", "--access", "w"], ["write"]),
        (["rules", "--engine", "k"], ["kvm"]),
        (["diff", ""], ["layout:", "case:", "qmp:", "gdb:", "core:", "ram:"]),
        (["diff", "lay"], [f"layout:{name}" for name in LAYOUTS]),
        (["diff", "layout:self"], ["layout:self-map"]),
        (["diff", "layout", ":", "self"], ["self-map"]),
        (["diff", "layout", ":"], LAYOUTS),
        (["diff", "layout", ":", "linux-4", "layout", ":", "linux-5@"], ["linux-5@4", "linux-5@5"]),
        (["diff", "nonsense", ":", "x"], []),
        (["walk", "--qmp", "x"], []),
    ],
    ids=" ".join,
)
def test_names_that_are_known_are_offered(
    tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    assert offered(tmp_path, *words) == expected


def test_files_are_offered_where_they_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "seldom.toml").touch()
    (tmp_path / "self.txt").touch()
    assert offered(tmp_path, "validate", "sel") == ["self-map", "seldom.toml"]
    assert offered(tmp_path, "diff", "ram", ":", "sel") == ["seldom.toml", "self.txt"]
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "guest.sock").touch()
    assert offered(tmp_path, "diff", "qmp", ":", "wi") == ["within/guest.sock"]
    assert offered(tmp_path, "diff", "qmp:wi") == ["qmp:within/guest.sock"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"COMP_WORDS": "pagetable", "COMP_CWORD": "x"},
        {"COMP_WORDS": "pagetable\nnonsense\n'--", "COMP_CWORD": "7"},
    ],
)
def test_a_question_that_no_shell_asks_is_answered_with_nothing(
    tmp_path: Path, said: dict[str, str]
) -> None:
    _, out, errors = asked(tmp_path, _PAGETABLE_COMPLETE="complete_bash", **said)
    assert (out, errors) == ("", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(tmp_path: Path, shell: str) -> None:
    code, out, errors = asked(
        tmp_path,
        _PAGETABLE_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="pagetable validate linux",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert (code, errors) == (0, "")
    assert re.findall(r"linux-\d", out) == ["linux-4", "linux-5"]


def test_tab_completes_in_bash(tmp_path: Path) -> None:
    command = tmp_path / "pagetable"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    command.chmod(0o755)
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile"],
        cwd=str(tmp_path),
        env={
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            "PS1": "ready> ",
        },
        dimensions=(40, 200),
        timeout=120,
        encoding="utf-8",
    )
    try:
        for line in ("pagetable --install-completion", "source .bashrc"):
            shell.expect_exact("ready> ")
            shell.sendline(line)
        shell.expect_exact("ready> ")
        shell.send("pagetable diff layout:self\t")
        shell.expect_exact("layout:self-map ")
        shell.send("--js\t")
        shell.expect_exact("--json ")
    finally:
        shell.close(force=True)
