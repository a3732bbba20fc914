"""With CR0.WP=0 the supervisor writes to pages that entries make read-only: every command that
shows rights shows those that there really are, says so, and keeps what entries give apart."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.cli.commands import run

LAYOUT = """
title = "Code, a user's page to read, and data"
levels = [4]
ram = "64M"
[[map]]
virtual = 0x40_0000_0000
size = "4K"
rights = "x"
[[map]]
virtual = 0x40_0000_1000
size = "4K"
rights = "u"
[[map]]
virtual = 0x40_0000_2000
size = "4K"
rights = "w"
"""
CODE, USER, DATA = (hex(0x40_0000_0000 + 0x1000 * page) for page in range(3))


@pytest.fixture(params=["0x80000001", "0x80010001"], ids=["WP=0", "WP=1"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bool, tuple[object, ...]]:
    """Whether WP is off, and the options of the source."""
    (tmp_path / "pages.toml").write_text(LAYOUT)
    return request.param == "0x80000001", (
        *("--layout", tmp_path / "pages.toml", "--cr0", request.param),
    )


Asked = tuple[bool, tuple[object, ...]]


def test_a_dump_shows_what_the_supervisor_can_do(asked: Asked, tmp_path: Path) -> None:
    off, source = asked
    out = run("dump", *source, cwd=tmp_path)[1]
    rights = [line.split()[5] for line in out.splitlines() if line.startswith("0x")]
    assert rights == (["-rWx", "urW-", "-rw-"] if off else ["-r-x", "ur--", "-rw-"])
    assert ("Note: CR0.WP=0" in out) == off
    ranges = json.loads(run("dump", *source, "--json", cwd=tmp_path)[1])["ranges"]
    assert ["write" in one["rights"] for one in ranges] == [False, False, True]
    assert ["write" in one["effective_rights"] for one in ranges] == [off, off, True]
    rows = list(csv.DictReader(io.StringIO(run("dump", *source, "--csv", cwd=tmp_path)[1])))
    assert [" write" in one["effective_rights"] for one in rows] == [off, off, True]


@pytest.mark.parametrize(
    ("condition", "by_entries", "without_wp"),
    [
        ("w", [DATA], [CODE, USER, DATA]),
        ("w and x", [], [CODE]),
        ("user and write", [], [USER]),
        ("not w", [CODE, USER], []),
        ("granted-w", [DATA], [DATA]),
        ("user and granted-write", [], []),
        ("own-w", [DATA], [DATA]),
    ],
)
def test_a_condition_asks_for_what_there_really_is(
    asked: Asked, tmp_path: Path, condition: str, by_entries: list[str], without_wp: list[str]
) -> None:
    off, source = asked
    out = run("dump", *source, "--where", condition, "--json", "--exact", cwd=tmp_path)[1]
    found = [one["first"] for one in json.loads(out)["ranges"]]
    assert found == (without_wp if off else by_entries)


def test_a_walk_says_what_the_supervisor_keeps(asked: Asked, tmp_path: Path) -> None:
    off, source = asked
    out = run("walk", CODE, *source, cwd=tmp_path)[1]
    assert ("the supervisor can write all the same: CR0.WP=0" in out) == off
    assert "all the same" not in run("walk", DATA, *source, cwd=tmp_path)[1]
    (walk,) = json.loads(run("walk", CODE, *source, "--json", cwd=tmp_path)[1])["walks"]
    assert ("write" in walk["rights"], "write" in walk["effective_rights"]) == (False, off)


def test_find_shows_it_too(asked: Asked, tmp_path: Path) -> None:
    off, source = asked
    (walk,) = json.loads(run("walk", CODE, *source, "--json", cwd=tmp_path)[1])["walks"]
    out = run("find", walk["physical"], *source, cwd=tmp_path)[1]
    assert ("-rWx" in out, "-r-x" in out) == (off, not off)
    place = json.loads(run("find", walk["physical"], *source, "--json", cwd=tmp_path)[1])
    (address,) = place["places"][0]["addresses"]
    assert ("write" in address["rights"], "write" in address["effective_rights"]) == (False, off)


def test_lint_finds_what_can_be_written_and_executed(asked: Asked, tmp_path: Path) -> None:
    """Firmware and memory testers run so; nothing was odd about it."""
    off, source = asked
    code, out, _ = run("lint", *source, cwd=tmp_path)
    assert (code, "write-execute, 1 time" in out) == (int(off), off)
    assert ("written to by the supervisor alone: CR0.WP=0" in out) == off
