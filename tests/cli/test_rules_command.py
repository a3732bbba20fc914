"""`pagetable rules`, on reports that were saved."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.paging.x86.access import Reason
from harness.report.objects import VERSION, rule_name
from tests.cli.commands import run

REPORT = {"version": VERSION, "command": "matrix", "engine": "tcg", "disagreements": 0}
REPORT |= {"rules": {"4": {"not-present": 1234}}, "departed": {}}


def test_a_saved_report_is_told_rule_by_rule(tmp_path: Path) -> None:
    (tmp_path / "report").write_text(json.dumps(REPORT))
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "the entry is not present" in line]
    assert line.split()[-3:] == ["4.7", "1,234", "tcg"]


def test_each_rule_is_one_line_with_its_section_whatever_stands_beside_it(tmp_path: Path) -> None:
    departs = {rule_name(reason): 10**6 for reason in Reason}
    told = {"rules": {"pae": departs}, "departed": {"pae": dict.fromkeys(departs, 12345)}}
    (tmp_path / "report").write_text(json.dumps({**REPORT, **told}))
    code, out, _ = run("rules", "--mode", "pae", "--from", "report", cwd=tmp_path)
    assert code == 0
    rows = [re.split(r"   +", line.strip()) for line in out.splitlines() if "departs" in line]
    assert [f"{rule} ({section})" for rule, section, *_ in rows] == [one.value for one in Reason]
    assert {tuple(rest) for _, _, *rest in rows} == {("1,000,000", "tcg departs 12,345 times")}


@pytest.mark.parametrize(
    ("departed", "engines"),
    [({}, "tcg"), ({"reserved": 1}, "tcg departs 1 time"), ({"reserved": 1234}, "tcg departs")],
)
def test_an_engine_that_departs_from_a_rule_is_told_with_how_often(
    tmp_path: Path, departed: dict[str, int], engines: str
) -> None:
    told = {"rules": {"4": {"reserved": 1234}}, "departed": {"4": departed}, "disagreements": 1}
    (tmp_path / "report").write_text(json.dumps({**REPORT, **told}))
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    (line,) = [line for line in out.splitlines() if "the entry has reserved bits set" in line]
    assert line.rstrip().endswith(f" 1,234   {engines}")
    assert (code, out.splitlines()[-1]) == (1, "1 access disagrees.")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": VERSION + 1}, "not what this version's `pagetable matrix --json` prints"),
        ({"command": "validate"}, "not what this version's"),
        ({"rules": 7}, "not what this version's"),
        ({"rules": []}, "rules: expected object, got array"),
        ({"rules": {"4": []}}, "expected object, got array"),
        ({"rules": {"4": {"reserved": "many"}}}, "expected int, got text"),
        ({"rules": {"4": {"reserved": -1}}}, "expected int >= 0"),
        ({"departed": {"4": {"reserved": 1.5}}}, "expected int, got float"),
        ({"disagreements": True}, "disagreements: expected int, got bool"),
        ({"engine": ["tcg"]}, "engine: expected text, got array"),
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


@pytest.mark.hw
def test_an_access_whose_error_code_alone_departs_counts_as_departing(tmp_path: Path) -> None:
    some = ("--engine", "tcg", "--mode", "pae", "--where", "level=0 and access=read and by=user")
    code, out, _ = run("matrix", *some, "--json", cwd=tmp_path)
    assert code == 0
    found = json.loads(out)
    showed = found["quirks"]["tcg-reserved-bit-fault-lacks-p"]
    assert found["departed"]["pae"]["reserved"] == showed == found["rules"]["pae"]["reserved"]
