"""The commands that run a guest, on Bochs: what they print, and how they end where it is amiss."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.commands import children, gone, guest_of, name, run, running
from tests.cli.programs import MEANT, Program
from tests.machine.bochs import PROGRAM, needs_bochs

ON_BOCHS = ("--engine", "bochs", "--bochs", PROGRAM)
NAMES = ("bochs", "ld-linux")
"""Of its process: the second where a loader of its own starts it."""

FEW = ("--mode", "32", "--where", "family=rights and access=write and level1.RW=0", "--jobs", 1)

pytestmark = pytest.mark.hw


@pytest.fixture
def bochs() -> str:
    """The path of a Bochs that can run."""
    needs_bochs()
    return shutil.which(PROGRAM) or PROGRAM


def program(path: Path, text: str, version: str = "3.0") -> str:
    """A Bochs that says a version, and does something else when it is to run."""
    says = f'[ "$1" != --help ] || exec echo "Bochs x86 Emulator {version}"'
    path.write_text(f"#!/bin/sh\n{says}\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> object:
    """No process and no file beside what was asked for outlives a test."""
    before = set(children(os.getpid()))
    yield
    assert set(children(os.getpid())) - before == set()


def test_validate_compares_a_layout(bochs: str, tmp_path: Path) -> None:
    code, out, errors = run("validate", "smallest", *ON_BOCHS, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"]) == (0, "", 0)
    assert found["engine"] == "bochs"
    assert found["compared"] > 100


def test_matrix_tries_accesses_and_names_the_version(bochs: str, tmp_path: Path) -> None:
    code, out, errors = run("matrix", *FEW, *ON_BOCHS, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"]) == (0, "", 0)
    assert found["executor"] == f"bochs {found['qemu']}"
    assert found["rules"]["32"]["write-denied"] > 40


def test_prove_compares_a_program_s_tables(bochs: str, tmp_path: Path) -> None:
    (tmp_path / "meant.toml").write_text(MEANT)
    source = Program().save(tmp_path / "program.bin")
    code, out, errors = run("prove", *source, "--expect", "meant.toml", *ON_BOCHS, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "bochs" in out and "All 3 expectations are met. Nothing" in out


ENDINGS = {
    "too old": ("2.6.9", "true", "Bochs 2.6.9 is too old: install 2.7 or newer"),
    "ends at once": ("3.0", "echo it is broken >&2; exit 3", "(exit code 3). Bochs said: it is br"),
    "says nothing": ("3.0", "exit 1", "it ended before the stub was ready (exit code 1)."),
    "lacks its display": (
        "3.0",
        "echo \">>PANIC<< display library 'term' not available\" >&2; exit 1",
        "it lacks the display library term, which is in Debian's bochs-term",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_bochs_that_is_not_fit_is_a_sentence_and_code_2(tmp_path: Path, ending: str) -> None:
    version, text, sentence = ENDINGS[ending]
    unfit = program(tmp_path / "bochs", text, version)
    asked = ("validate", "smallest", "--engine", "bochs", "--bochs", unfit)
    code, out, errors = run(*asked, cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("pagetable: bochs cannot run here: ")
    assert sentence in errors


@pytest.mark.parametrize("command", ["validate", "matrix", "rules", "prove"])
def test_without_bochs_every_command_says_how_to_get_it(tmp_path: Path, command: str) -> None:
    source = Program().save(tmp_path / "program.bin") if command == "prove" else ()
    missing = ("--engine", "bochs", "--bochs", "no-such-bochs")
    code, out, errors = run(command, *source, *missing, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert errors.startswith("pagetable: Bochs is not installed, or not in PATH as no-such-bochs: ")


def test_a_version_that_was_never_run_is_said_to_be_so(bochs: str, tmp_path: Path) -> None:
    newer = program(tmp_path / "bochs", f'exec {bochs} "$@"', "9.1")
    if run("validate", "smallest", "--engine", "bochs", "--bochs", newer, cwd=tmp_path)[0] != 0:
        pytest.skip("the Bochs that is here is not started as the newest is")
    asked = ("matrix", *FEW, "--engine", "bochs", "--bochs", newer)
    code, out, errors = run(*asked, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "Not yet run" in out and "9.1" in out


def test_a_bochs_that_is_killed_in_mid_run_is_code_3_and_nothing_is_left(
    bochs: str, tmp_path: Path
) -> None:
    many = ("matrix", "--mode", "pae", "--jobs", 2, *ON_BOCHS)
    with running(*many, cwd=tmp_path) as process:
        guest = guest_of(process, emulator=NAMES)
        others = [one for worker in children(process.pid) for one in children(worker)]
        os.kill(guest, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 3
    last = errors.strip().splitlines()[-1]
    assert last.startswith("pagetable: ") and "SIGKILL" in last
    assert all(gone(one) for one in others if name(one).startswith(NAMES))
