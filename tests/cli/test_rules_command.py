"""`pagetable rules`, on reports that were saved."""

import json
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from harness.check.compare import PROBE
from harness.check.x86.replay import Case
from harness.cli.matrix import planned
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.x86.engines import called, executor, why_absent
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import ENGINES
from harness.paging.x86.access import Access, Kind, Reason
from harness.report.objects import VERSION, rule_name
from tests.cli.commands import run

PROGRAMS = {
    "QEMU": os.environ.get("QEMU", "qemu-system-x86_64"),
    "Bochs": os.environ.get("BOCHS", "bochs"),
}

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


@pytest.mark.parametrize("version", [1, VERSION])
def test_a_saved_report_is_told_rule_by_rule(version: int, tmp_path: Path) -> None:
    saved(tmp_path / "report", version=version)
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    assert code == 0
    (row,) = rows(out, "the entry is not present")
    assert row[1:] == ["4.7", "one", "1,234", "tcg 7.2.22"]


def test_reports_of_other_modes_are_no_agreement(tmp_path: Path) -> None:
    saved(tmp_path / "report")
    code, out, errors = run("rules", "--mode", "pae", "--from", "report", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert errors.splitlines() == [
        "pagetable: no access of mode pae is in what was read: choose another by --mode"
    ]


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
    wrong = sum(disagreed.values())
    told = {"rules": {"4": {"reserved": 1234}}, "disagreements": wrong}
    told |= {"departed": {"4": departed}, "disagreed": {"4": disagreed}}
    saved(tmp_path / "report", **told)
    code, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    (row,) = rows(out, "the entry has reserved bits set")
    assert row[2:] == [witnesses, "1,234", engines]
    said = f"{wrong} accesses disagree. " if wrong else "All accesses agree. "
    assert (code, out.splitlines()[-1].startswith(said)) == (int(wrong > 0), True)


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
    assert first[2:] == ["2", "40", "bochs 2.7"]
    assert more == [["50", "bochs 3.0 departs 5 times"], ["1,234", "tcg 7.2.22"]]
    rules = len(Reason)
    assert out.splitlines()[-1] == f"All accesses agree. {rules - 1} rules have no witness."


def aged(path: Path, seconds: int) -> Path:
    """The file as one that was written so long ago."""
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))
    return path


@pytest.mark.parametrize("count", [1, 1234, 5000])
@pytest.mark.parametrize("older", ["a.json", "z.json"])
def test_of_one_executor_the_newest_report_counts_in_each_mode(
    tmp_path: Path, older: str, count: int
) -> None:
    old = {"rules": {"4": {"not-present": 1234}, "pae": {"not-present": 7}}, "disagreements": 3}
    wrong = {"not-present": 1}
    aged(saved(tmp_path / older, **old, disagreed={"4": wrong, "pae": {"not-present": 2}}), 60)
    saved(tmp_path / "n.json", rules={"4": {"not-present": count}, "pae": {}})
    for given in (["."], [older, "n.json"], ["n.json", older]):
        words = [word for name in given for word in ("--from", name)]
        code, out, _ = run("rules", *words, "--json", cwd=tmp_path)
        counts = {one["rule"]: one for one in json.loads(out)["rules"]}
        (execution,) = counts["not-present"]["executions"]
        assert (code, execution["accesses"], execution["disagreed"]) == (0, count, 0)
    code, out, _ = run("rules", "--mode", "all", "--from", ".", cwd=tmp_path)
    assert rows(out, "the entry is not present")[0][3] == f"{count + 7:,}"
    assert rows(out, "the address is not canonical")[0][2:] == ["none", "none"]
    assert (code, out.splitlines()[-1].startswith("2 accesses disagree. ")) == (1, True)


def test_the_verdict_is_that_of_the_modes_that_are_shown(tmp_path: Path) -> None:
    both = {"4": {"not-present": 5}, "pae": {"not-present": 6}}
    case = differing() | {"mode": "pae"}
    wrong = {"disagreements": 2, "disagreed": {"pae": {"not-present": 2}}, "findings": [case]}
    aged(saved(tmp_path / "twice.json", rules=both, **wrong), 60)
    saved(tmp_path / "once.json", rules=both, **wrong)
    for mode, disagreed in (("4", 0), ("pae", 2), ("all", 2)):
        code, out, _ = run("rules", "--mode", mode, "--from", ".", cwd=tmp_path)
        said = "2 accesses disagree. " if disagreed else "All accesses agree. "
        assert code == (1 if disagreed else 0)
        assert out.splitlines()[-1].startswith(said)
        assert out.count("family=rights") == (1 if disagreed else 0)


def test_reports_from_before_every_engine_was_asked_are_read(tmp_path: Path) -> None:
    case = {**differing(), "values": "family=rights mode=4 P=0"}
    del case["mode"], case["answers"]
    told = {**REPORT, "qemu": "7.2.22", "disagreements": 2, "findings": [case]}
    del told["executor"], told["disagreed"]
    (tmp_path / "old").write_text(json.dumps(told))
    code, out, errors = run("rules", "--from", "old", cwd=tmp_path)
    assert (code, errors) == (1, "")
    assert rows(out, "the entry is not present")[0][2:] == ["none", "1,234", "tcg 7.2.22"]
    assert "mode 4: family=rights mode=4 P=0\n" in out
    assert out.splitlines()[-1].startswith("2 accesses disagree. ")
    _, out, _ = run("rules", "--from", "old", "--json", cwd=tmp_path)
    assert json.loads(out)["differing"] == [{**case, "mode": "4", "answers": []}]
    kvm = tmp_path / "kvm"
    kvm.write_text(json.dumps({**told, "engine": "kvm"}))
    _, out, _ = run("rules", "--from", "kvm", cwd=tmp_path)
    assert rows(out, "the entry is not present")[0][4] == "kvm"


def test_what_kvm_runs_on_is_counted_by_the_maker_of_the_processor(tmp_path: Path) -> None:
    for number, module in enumerate(("kvm_amd", "kvm_intel", "kvm_intel")):
        named = {"engine": "kvm", "executor": f"{module} 6.{number}"}
        saved(tmp_path / f"{number}.json", **named)
    _, out, _ = run("rules", "--from", ".", cwd=tmp_path)
    assert rows(out, "the entry is not present")[0][2] == "2"


@pytest.mark.parametrize(
    "command", [("rules", "--results"), ("matrix", "--report"), ("validate", "--report")], ids=str
)
def test_a_report_is_not_kept_in_a_file(tmp_path: Path, command: tuple[str, str]) -> None:
    (tmp_path / "f").touch()
    for name, why in (("f", "it is not a folder"), ("f/below", "Not a directory")):
        code, out, errors = run(*command, name, cwd=tmp_path)
        sentence = f"pagetable: {name} cannot hold a report: {why}\n"
        assert (code, out, errors) == (2, "", sentence)


@pytest.mark.parametrize(
    "command", [("rules", "--results"), ("matrix", "--report"), ("validate", "--report")], ids=str
)
def test_a_folder_of_reports_is_made_where_there_is_one_for_it(
    tmp_path: Path, command: tuple[str, str]
) -> None:
    code, out, errors = run(*command, "none/below", cwd=tmp_path)
    sentence = "pagetable: none/below cannot hold a report: there is no folder none\n"
    assert (code, out, errors) == (2, "", sentence)
    assert not [*tmp_path.iterdir()]


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
    both = {"4": {"not-present": 5}, "5": {"not-present": 5}}
    saved(tmp_path / "a", **of_bochs("3.0", 5, rules=both, **wrong))
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
    code, out, _ = run("rules", "--mode", "5", "--from", "a", cwd=tmp_path)
    assert code == 0
    assert "family=rights" not in out


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    code, out, errors = run("rules", "--from", ".", cwd=tmp_path)
    assert (code, out, errors) == (
        2,
        "",
        "pagetable: . holds no report: no file *.json in it can be one\n",
    )


def test_cases_beside_reports_are_left_alone(tmp_path: Path) -> None:
    asked = ("small", "", 4, "tcg", "7.2.22", PROBE, 0x1000, Access(Kind.READ, user=True), False)
    case = Case(*asked, expected="#PF(0x4)", observed="#PF(0x5)").save(tmp_path)
    code, _, errors = run("rules", "--from", ".", cwd=tmp_path)
    assert (code, "holds no report" in errors) == (2, True)
    saved(tmp_path / "report.json")
    code, out, errors = run("rules", "--from", ".", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert rows(out, "the entry is not present")[0][3] == "1,234"
    for broken in ('{"case": "layout"}', "{}", "no JSON"):
        case.write_text(broken)
        code, _, errors = run("rules", "--from", ".", cwd=tmp_path)
        assert (code, "is not what this version's" in errors) == (2, True)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_run_that_was_broken_off_is_not_said_to_agree(tmp_path: Path, wrong: int) -> None:
    told = {"disagreements": wrong, "disagreed": {"4": {"not-present": wrong}}}
    saved(tmp_path / "a.json", **told, failure="the guest is lost.")
    saved(tmp_path / "b.json", **of_bochs("3.0", 50))
    code, out, errors = run("rules", "--from", ".", cwd=tmp_path)
    said = "2 accesses disagree" if wrong else "All accesses agree"
    assert code == 3
    assert out.splitlines()[-1].startswith(f"{said}, but the run was broken off on tcg 7.2.22. ")
    assert errors == "pagetable: the run on tcg 7.2.22 was broken off: the guest is lost.\n"
    _, out, _ = run("rules", "--from", ".", "--json", cwd=tmp_path)
    failures = [{"executor": "tcg 7.2.22", "failure": "the guest is lost."}]
    assert json.loads(out)["failures"] == failures


def test_a_run_that_was_broken_off_at_once_is_not_passed_over(tmp_path: Path) -> None:
    broken = saved(tmp_path / "a.json", rules={}, failure="no guest.", executor="", qemu="")
    code, _, errors = run("rules", "--from", ".", cwd=tmp_path)
    assert (code, errors) == (3, "pagetable: the run on tcg was broken off: no guest.\n")
    saved(broken, rules={}, failure="no guest.")
    saved(tmp_path / "b.json")
    assert run("rules", "--from", ".", cwd=tmp_path)[0] == 0


def test_a_run_is_kept_or_not_made(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    code, _, errors = run("rules", "--from", "a", "--results", "r", cwd=tmp_path)
    assert (code, "choose one of them" in errors) == (2, True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 0}, "not what this version's `pagetable matrix --json` prints"),
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
        (
            {"findings": [dict.fromkeys(("values", "expected", "observed", "case"), "")]},
            "there is no mode in ''",
        ),
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
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_said_of_pcids_is_so(engine: str, tmp_path: Path) -> None:
    program = PROGRAMS[ENGINES[engine].maker]
    reason = why_absent(engine, program=program)
    if reason is not None:
        pytest.skip(f"{engine} cannot run here: {reason}")
    with Guest(engine, ram_bytes=ARENA.stop + RAM_UNIT, program=program) as guest:
        shown, (who, _) = guest.info.has("pcid"), executor(guest)
    saved(tmp_path / "report")
    _, out, _ = run("rules", "--from", "report", cwd=tmp_path)
    said = next(line for line in out.splitlines() if "CR4.PCIDE and INVPCID" in line)
    without, _, having = said.partition(" show no PCIDs in CPUID; ")
    if who.lower() in without.lower():
        assert not shown
    elif who.lower() in having.lower():
        assert shown


@pytest.mark.hw
def test_an_access_whose_error_code_alone_departs_counts_as_departing(tmp_path: Path) -> None:
    some = ("--engine", "tcg", "--mode", "pae", "--where", "level=0 and access=read and by=user")
    code, out, _ = run("matrix", *some, "--json", cwd=tmp_path)
    assert code == 0
    found = json.loads(out)
    showed = found["quirks"]["tcg-reserved-bit-fault-lacks-p"]
    assert found["departed"]["pae"]["reserved"] == showed == found["rules"]["pae"]["reserved"]


@pytest.mark.hw
@pytest.mark.parametrize("engine", ["tcg", "bochs"])
def test_results_of_earlier_runs_are_kept(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = PROGRAMS[ENGINES[engine].maker]
    reason = why_absent(engine, program=program)
    if reason is not None:
        pytest.skip(f"{engine} cannot run here: {reason}")
    few = "family=rights and access=read and by=user"
    monkeypatch.setattr(
        import_module("harness.cli.rules"),
        "planned",
        lambda preset, mode, engine, program, *_: planned(preset, mode, engine, program, few),
    )
    (tmp_path / "r").mkdir()
    rule = {"rules": {"32": {"user-denied": 5}}}
    saved(tmp_path / "r" / "earlier.json", executor="tcg 0.1", **rule)
    with Guest(engine, ram_bytes=ARENA.stop + RAM_UNIT, program=program) as guest:
        here = called(*executor(guest))
    asked = ("--engine", engine, f"--{ENGINES[engine].maker.lower()}", program)
    for _ in range(2):
        code, out, errors = run("rules", "--mode", "32", *asked, "--results", "r", cwd=tmp_path)
        assert (code, errors) == (0, "")
        found = rows(out, "a user access to a supervisor page")
        assert {line[-1] for line in found} == {"tcg 0.1", here}
    assert len(list((tmp_path / "r").glob("*.json"))) == 2
