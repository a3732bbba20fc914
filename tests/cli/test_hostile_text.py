"""What files, guests and monitors say reaches no terminal, page or report as a command to it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.commands import run
from tests.report.test_visible import obeyed

HOSTILE = "\x1b[2J\x07\u202e\x9b31m"
LAYOUT = f"""
title = {json.dumps("T" + HOSTILE)}
levels = [4]
ram = "64M"
[[map]]
virtual = 0x400000
size = "4K"
"""


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout whose name and title are hostile."""
    path = tmp_path / f"L{HOSTILE}\udcff\n.toml"
    path.write_text(LAYOUT)
    return path


@pytest.fixture
def case(layout: Path, tmp_path: Path) -> Path:
    """A case every text of which is."""
    path = tmp_path / f"C{HOSTILE}.json"
    content = {
        **dict.fromkeys(("layout", "engine", "qemu", "expected", "observed"), f"tcg{HOSTILE}\n"),
        **{"case": "layout", "text": LAYOUT, "levels": 4, "oracle": "probe", "ac": False},
        **{"address": "0x400000", "access": {"kind": "read", "user": False}},
    }
    path.write_text(json.dumps(content))
    return path


def shown(out: str, errors: str) -> None:
    """Holds that nothing in it is obeyed."""
    assert obeyed(out) <= {"\n"}
    assert obeyed(errors) <= {"\n"}
    assert errors.count("\n") <= 1


@pytest.mark.parametrize("end", [(), ("--json",), ("--levels", "7")], ids=["text", "json", "error"])
@pytest.mark.parametrize(
    "command",
    [
        *(("walk", "0x400000"), ("fault", "0x500000"), ("dump",), ("find", "--tables"), ("lint",)),
        ("dump", "--expand"),
    ],
    ids=" ".join,
)
def test_names_and_titles_of_layouts(
    tmp_path: Path, layout: Path, command: tuple[str, ...], end: tuple[str, ...]
) -> None:
    code, out, errors = run(*command, "--layout", layout, *end, cwd=tmp_path)
    assert (code == 2) == ("--levels" in end)
    shown(out, errors)


def test_the_texts_of_cases(tmp_path: Path, case: Path) -> None:
    for command in (("dump", "--case"), ("walk", "0x400000", "--case"), ("replay",)):
        _, out, errors = run(*command, case, cwd=tmp_path)
        shown(out, errors)
        assert "tcg\\x1b" in out + errors


def test_two_sources_side_by_side(tmp_path: Path, layout: Path, case: Path) -> None:
    _, out, errors = run("diff", f"layout:{layout}", f"case:{case}", cwd=tmp_path)
    shown(out, errors)
    assert "\\x1b" in out


@pytest.mark.parametrize(
    "command",
    [
        ("walk", "0x400000", "--html", "page"),
        ("walk", "0x400000", "--svg", "page"),
        ("dump", "--html", "page"),
    ],
    ids=" ".join,
)
def test_pages_and_pictures(tmp_path: Path, layout: Path, command: tuple[str, ...]) -> None:
    code, *_ = run(*command, "--layout", layout, cwd=tmp_path)
    assert code == 0
    page = (tmp_path / "page").read_text(encoding="utf-8")
    assert obeyed(page) == {"\n"}
    assert "\\x1b" in page


@pytest.mark.hw
def test_reports_of_a_run(tmp_path: Path, layout: Path) -> None:
    files = ("--report", "reports", "--html", "page")
    code, out, errors = run("validate", layout, "--engine", "tcg", *files, cwd=tmp_path)
    assert code == 0
    shown(out, errors)
    assert obeyed((tmp_path / "page").read_text()) == {"\n"}
    junit = ElementTree.parse(tmp_path / "reports" / "junit.xml")
    assert "\\x1b" in str([case.get("name") for case in junit.iter("testcase")])
    json.loads((tmp_path / "reports" / "report.json").read_text())


def test_what_a_file_that_is_none_is_called(tmp_path: Path) -> None:
    name = f"none{HOSTILE}\udcff"
    for source in ("--layout", "--core", "--ram", "--qmp", "--case"):
        code, out, errors = run("dump", source, name, "--cr3", "0", cwd=tmp_path)
        assert code == 2
        shown(out, errors)
