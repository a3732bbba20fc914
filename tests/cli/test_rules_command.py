"""`pagetable rules`, on reports that were saved."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from harness.cli.matrix import planned
from harness.machine.engines import why_absent
from harness.paging.x86.access import Reason
from harness.report.objects import VERSION, rule_name
from tests.cli.commands import run

REPORT: dict[str, Any] = {
    "version": VERSION,
    "command": "matrix",
    "engine": "tcg",
    "executor": "tcg 7.2.22",
    "disagreements": 0,
    "rules": {"4": {"not-present": 1234}},
    "departed": {},
    "disagreed": {},
    "findings": [],
}


def saved(path: Path, **changed: Any) -> Path:
    path.write_text(json.dumps({**REPORT, **changed}))
    return path


def of_bochs(version: str, count: int, **changed: Any) -> dict[str, Any]:
    executor = f"bochs {version}"
    return {
        "engine": "bochs",
        "executor": executor,
        "rules": {"4": {"not-present": count}},
    } | changed


def rows(out: str, rule: str) -> list[list[str]]:
    """The cells of a rule's lines: its own, and of each line below only what stands there."""
    lines = iter(out.splitlines())
    first = next(line for line in lines if rule in line)
    found = [re.split(r"   +", first.strip())]
    for line in lines:
        cells = re.split(r"   +", line.strip())
        if len(cells) > 2 or not line.strip():
            break
        found.append(cells)
    return found


def test_a_saved_report_is_told_rule_by_rule(tmp_path: Path) -> None:
    saved(tmp_path / "report")
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    assert code == 0
    (row,) = rows(out, "the entry is not present")
    assert row[1:] == ["4.7", "one", "1,234", "tcg 7.2.22"]


def test_each_rule_is_one_line_with_its_section_whatever_stands_beside_it(tmp_path: Path) -> None:
    departs = {rule_name(reason): 10**6 for reason in Reason}
    told = {"rules": {"pae": departs}, "departed": {"pae": dict.fromkeys(departs, 12345)}}
    saved(tmp_path / "report", **told)
    code, out, _ = run("rules", "--mode", "pae", "--from", "report", cwd=tmp_path)
    assert code == 0
    lines = [re.split(r"   +", line.strip()) for line in out.splitlines() if "departs" in line]
    assert [f"{rule} ({section})" for rule, section, *_ in lines] == [one.value for one in Reason]
    shown = ("one", "1,000,000", "tcg 7.2.22 departs 12,345 times")
    assert {tuple(rest) for _, _, *rest in lines} == {shown}


@pytest.mark.parametrize(
    ("departed", "disagreed", "witnesses", "engines"),
    [
        ({}, {}, "one", "tcg 7.2.22"),
        ({"reserved": 1}, {}, "one", "tcg 7.2.22 departs 1 time"),
        ({"reserved": 1234}, {}, "none", "tcg 7.2.22 departs"),
        ({}, {"reserved": 2}, "none", "tcg 7.2.22 disagrees 2 times"),
        (
            {"reserved": 3},
            {"reserved": 4},
            "none",
            "tcg 7.2.22 departs 3 times disagrees 4 times",
        ),
    ],
)
def test_an_engine_that_departs_from_a_rule_is_told_with_how_often(
    tmp_path: Path,
    departed: dict[str, int],
    disagreed: dict[str, int],
    witnesses: str,
    engines: str,
) -> None:
    told = {"rules": {"4": {"reserved": 1234}}, "disagreements": 1}
    told |= {"departed": {"4": departed}, "disagreed": {"4": disagreed}}
    saved(tmp_path / "report", **told)
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    (row,) = rows(out, "the entry has reserved bits set")
    assert row[2:] == [witnesses, "1,234", engines]
    assert code == 1
    assert out.splitlines()[-1].startswith("1 access disagrees. ")


def test_engines_stand_side_by_side_and_are_counted_once_whatever_their_versions(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    saved(folder / "a.json")
    saved(folder / "b.json", **of_bochs("2.7", 40))
    saved(folder / "c.json", **of_bochs("3.0", 50, departed={"4": {"not-present": 5}}))
    code, out, _ = run("rules", "--from", "results", cwd=tmp_path)
    assert code == 0
    first, *more = rows(out, "the entry is not present")
    assert first[2:] == ["2", "1,234", "tcg 7.2.22"]
    assert more == [["40", "bochs 2.7"], ["50", "bochs 3.0 departs 5 times"]]
    rules = len(Reason)
    assert out.splitlines()[-1] == f"All accesses agree. {rules - 1} rules have no witness."


def test_of_one_executor_the_report_with_the_most_accesses_counts(tmp_path: Path) -> None:
    saved(tmp_path / "few")
    saved(tmp_path / "many", rules={"4": {"not-present": 5000}, "pae": {"not-present": 7}})
    for order in (("few", "many"), ("many", "few")):
        given = [word for name in order for word in ("--from", name)]
        _, out, _ = run("rules", *given, "--json", cwd=tmp_path)
        counts = {one["rule"]: one for one in json.loads(out)["rules"]}
        (execution,) = counts["not-present"]["executions"]
        assert execution["accesses"] == 5000
    _, out, _ = run("rules", "--mode", "all", "--from", "few", "--from", "many", cwd=tmp_path)
    assert rows(out, "the entry is not present")[0][3] == "5,007"
    assert rows(out, "the address is not canonical")[0][2:] == ["none", "none"]


def differing() -> dict[str, Any]:
    """A case on which Bochs alone is not as the rules have it."""
    answers = [
        {"engine": "tcg", "executor": "tcg 7.2.22", "agrees": True, "said": "as expected"},
        {"engine": "bochs", "executor": "bochs 3.0", "agrees": False, "said": "#PF(0x5)"},
    ]
    case = {"mode": "4", "values": "family=rights P=0", "expected": "#PF(0x4)"}
    return {**case, "observed": "#PF(0x5)", "case": "case.json", "answers": answers}


def test_a_case_on_which_engines_differ_is_printed_with_all_of_them(tmp_path: Path) -> None:
    case = differing()
    wrong = {"disagreements": 1, "disagreed": {"4": {"not-present": 1}}, "findings": [case]}
    saved(tmp_path / "a", **of_bochs("3.0", 5, **wrong))
    code, out, _ = run("rules", "--from", "a", cwd=tmp_path)
    assert code == 1
    assert (
        """
mode 4: family=rights P=0
  expected  #PF(0x4)
  observed  #PF(0x5)
  on tcg 7.2.22  as expected
  on bochs 3.0   #PF(0x5)
  replay    pagetable replay --engine all case.json
"""
        in out
    )
    code, out, _ = run("rules", "--from", "a", "--json", cwd=tmp_path)
    assert json.loads(out)["differing"] == [case]
    assert "family=rights" not in run("rules", "--mode", "5", "--from", "a", cwd=tmp_path)[1]


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    code, out, errors = run("rules", "--from", ".", cwd=tmp_path)
    assert (code, out, errors) == (
        2,
        "",
        "pagetable: . holds no report: there is no file *.json in it\n",
    )


def test_a_run_is_kept_or_not_made(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    code, _, errors = run("rules", "--from", "a", "--results", "r", cwd=tmp_path)
    assert (code, "choose one of them" in errors) == (2, True)
    assert not (tmp_path / "r").exists()


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
        ({"findings": [{"mode": "4"}]}, "missing"),
        ({"engine": ["tcg"]}, "engine: expected text, got array"),
    ],
    ids=str,
)
def test_what_is_no_report_of_this_version_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    saved(tmp_path / "report", **change)
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


@pytest.mark.hw
def test_results_of_earlier_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = "family=rights and access=read and by=user"
    monkeypatch.setattr(
        import_module("harness.cli.rules"),
        "planned",
        lambda preset, mode, engine, program, _: planned(preset, mode, engine, program, few),
    )
    engines = [engine for engine in ("tcg", "bochs") if why_absent(engine) is None]
    for engine in engines:
        code, out, errors = run(
            "rules", "--mode", "32", "--engine", engine, "--results", "r", cwd=tmp_path
        )
        assert (code, errors) == (0, "")
    row, *below = rows(out, "a user access to a supervisor page")
    executors = [line[-1].split()[0] for line in (row, *below)]
    assert executors == sorted(engines)
    assert len(list((tmp_path / "r").glob("*-32.json"))) == len(engines)
