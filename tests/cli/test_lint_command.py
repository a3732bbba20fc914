"""`pagetable lint`, as people and programs run it."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import run

CLEAN = """
title = "Nothing odd"
levels = [4]
ram = "64M"

[[map]]
virtual = 0x7000_0000_1000
size = "4K"
count = 4
rights = "wu"
"""


def test_errors_and_warnings_are_told_by_the_exit_code(tmp_path: Path) -> None:
    code, out, errors = run("lint", "--layout", "malformed", "--limit", 3, cwd=tmp_path)
    assert (code, errors) == (1, "")
    lines = out.splitlines()
    assert lines[2].startswith("error: reserved-bits, 20 times: entries with reserved bits set")
    assert "slot 1 of the level-0 table at" in lines[3]
    assert lines[3].endswith("0x8000000000000 beyond MAXPHYADDR 40")
    assert lines[6] == "  ... and 15 more (--limit)"
    assert lines[-1] == "3 rules broken: 1 error, 1 warning, 1 note."


def test_a_clean_space_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "clean.toml").write_text(CLEAN)
    code, out, _ = run("lint", "--layout", "clean.toml", cwd=tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "Nothing is odd about this space.")


def test_notes_alone_end_with_0(tmp_path: Path) -> None:
    arguments = ("--layout", "self-map", "--ignore", "write-execute")
    code, out, _ = run("lint", *arguments, cwd=tmp_path)
    assert (code, out.splitlines()[-1]) == (0, "1 rule broken: 1 note.")


def test_json_holds_what_the_text_says(tmp_path: Path) -> None:
    code, out, _ = run("lint", "--layout", "malformed", "--json", "--limit", 3, cwd=tmp_path)
    found = json.loads(out)
    assert (code, found["version"], found["command"]) == (1, 2, "lint")
    first = found["broken"][0]
    assert (first["rule"], first["severity"], first["section"]) == ("reserved-bits", "error", "4.7")
    assert (first["total"], first["count"], len(first["findings"])) == (18, 20, 3)
    assert first["findings"][0]["where"] == {"first": "0x401000", "last": "0x401fff"}
    assert first["findings"][0]["slot"]["index"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ignore", "all"], "there is no rule 'all': choose one of reserved-bits"),
        (["--limit", "0"], "shows nothing"),
    ],
)
def test_misuse_is_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    code, out, errors = run("lint", "--layout", "smallest", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def test_where_the_root_is_in_doubt_nothing_is_called_right(tmp_path: Path) -> None:
    """A root's table of nothing: no rule is broken, and it may be none."""
    (tmp_path / "ram").write_bytes(bytes(0x4000))
    code, out, errors = run("lint", "--ram", "ram", "--cr3", "0x1000", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "Nothing is odd" not in out and "No rule is broken, but these may be no tables" in out
    assert "CR3 0x1000 belongs to this memory, though no entry" in out
