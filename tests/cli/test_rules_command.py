"""`pagetable rules`, on reports that were saved."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.report.objects import VERSION
from tests.cli.commands import run

REPORT = {"version": VERSION, "command": "matrix", "engine": "tcg", "disagreements": 0}
REPORT |= {"rules": {"4": {"not-present": 1234}}, "departed": {}}


def test_a_saved_report_is_told_rule_by_rule(tmp_path: Path) -> None:
    (tmp_path / "report").write_text(json.dumps(REPORT))
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "the entry is not present" in line]
    assert line.split()[-3:] == ["4.7", "1,234", "tcg"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": VERSION + 1}, "not what this version's `pagetable matrix --json` prints"),
        ({"command": "validate"}, "not what this version's"),
        ({"rules": 7}, "not what this version's"),
    ],
    ids=str,
)
def test_what_is_no_report_of_this_version_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "report").write_text(json.dumps({**REPORT, **change}))
    code, out, errors = run("rules", "--from", "report", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
