"""No command writes where it reads, or twice to one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from harness.check import layouts
from harness.cli import GROUPS, application
from harness.cli.help import OUTPUT
from tests.cli.commands import run

RAM = ("--ram", "keep@0x80000000", "--satp", "0x80080000")
WALK = ("walk", "0x1000", "--layout", "smallest")


@pytest.mark.parametrize(
    ("line", "both"),
    [
        (("dump", *RAM, "--html", "keep"), "--ram and --html"),
        (("dump", *RAM, "--html", "linked"), "--ram and --html"),
        (("dump", *RAM, "--html", "hard"), "--ram and --html"),
        (("dump", "--ram", "linked", "--cr3", 0, "--html", "keep"), "--ram and --html"),
        (("walk", "0x1000", *RAM, "--svg", "../here/keep"), "--ram and --svg"),
        (("fault", "0x1000", *RAM, "--svg", "keep"), "--ram and --svg"),
        (("fault", "--oops", "keep", *RAM[2:], "--html", "keep"), "--oops and --html"),
        (("walk", "0x1000", "--core", "keep", "--html", "keep"), "--core and --html"),
        (("walk", "0x1000", "--case", "keep", "--html", "keep"), "--case and --html"),
        (("walk", "0x1000", "--layout", "keep", "--html", "keep"), "--layout and --html"),
        (("prove", *RAM, "--expect", "keep", "--junit", "keep"), "--expect and --junit"),
        (("validate", "keep", "--html", "keep"), "an argument and --html"),
        (("validate", "report/report.json", "--report", "report"), "an argument and --report"),
        (("validate", "--report", "report", "--html", "report/junit.xml"), "--report and --html"),
        (("matrix", "--report", "report", "--html", "report/report.json"), "--report and --html"),
        ((*WALK, "--html", "new", "--svg", "./new"), "--html and --svg"),
        ((*WALK, "--html", "dangling", "--svg", "nowhere"), "--html and --svg"),
        (
            ("flushes", "--symbols", "report/flushes.txt", "--report", "report", "--", "true"),
            "--symbols and --report",
        ),
        (
            ("flushes", "--report", "report", "--", "true", "file=report/flushes.txt,format=raw"),
            "an argument and --report",
        ),
    ],
    ids=lambda part: " ".join(map(str, part)) if isinstance(part, tuple) else "",
)
def test_a_file_that_is_read_or_written_is_not_written_over(
    tmp_path: Path, line: tuple[object, ...], both: str
) -> None:
    here = tmp_path / "here"
    (here / "report").mkdir(parents=True)
    read = ("keep", "report/report.json", "report/flushes.txt")
    for name in read:
        (here / name).write_text(name)
    (here / "linked").symlink_to("keep")
    (here / "hard").hardlink_to(here / "keep")
    (here / "dangling").symlink_to("nowhere")
    before = sorted(here.rglob("*"))
    code, out, errors = run(*line, cwd=here)
    assert (code, out) == (2, "")
    one, _, other = both.partition(" and ")
    assert {f"{one} and {other} name the same", f"{other} and {one} name the same"} & {
        errors.removeprefix("pagetable: ").partition(" file, ")[0]
    }
    assert errors.count("\n") == 1
    assert sorted(here.rglob("*")) == before
    assert all((here / name).read_text() == name for name in read)


def test_a_shipped_layout_is_read_by_its_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_text(text := layouts.find("smallest").read_text())
    monkeypatch.setattr(layouts, "shipped", lambda arch="x86": [copy])
    for line in (("walk", "0x1000", "--layout", "mine"), ("validate", "mine")):
        code, out, errors = run(*line, "--html", "mine.toml", cwd=tmp_path)
        assert (code, out) == (2, "")
        assert "and --html name the same file" in errors
        assert copy.read_text() == text


def test_files_apart_and_devices_are_written(tmp_path: Path) -> None:
    (tmp_path / "0x1000").write_text("an address is no file")
    for html, svg in (("a", "b"), ("/dev/null", "/dev/null"), ("0x1000", "b")):
        code, out, _ = run(*WALK, "--html", html, "--svg", svg, cwd=tmp_path)
        assert (code, out != "") == (0, True)


@pytest.mark.parametrize("name", [name for names in GROUPS.values() for name in names])
def test_every_option_that_names_what_is_written_is_known_as_one(name: str) -> None:
    command = typer.main.get_command(application()).commands[name]  # type: ignore[attr-defined]
    for one in command.params:
        said = getattr(one, "help", "") or ""
        writes = said.startswith(("Also write", "Also draw", "Write "))
        assert writes == (one.rich_help_panel == OUTPUT and one.metavar in ("FILE", "DIR")), one
