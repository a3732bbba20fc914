"""`pagetable matrix --arch riscv`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from harness.architectures import NAMES
from harness.cli.matrix import modes_of
from harness.paging.riscv.access import Reason
from harness.report.objects import rule_name
from harness.report.schema import schema
from tests.cli.commands import run
from tests.machine.arm64 import present as arm64
from tests.machine.riscv.present import QEMU, why_absent

WHERE = ("--mode", "sv39", "--where", "family=place and level=0 and mxr=0", "--jobs", 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--arch", "mips"), "there is no architecture 'mips': choose x86 or riscv"),
        (("--arch", "riscv", "--mode", "4"), "riscv has no mode '4': choose one of sv32, sv39"),
        (("--arch", "riscv", "--preset", "huge"), "there is no preset 'huge'"),
        (("--arch", "riscv", "--engine", "bochs"), "there is no engine 'bochs' for riscv: choose"),
        (("--arch", "riscv", "--bochs", "bochs"), "--bochs has no use: QEMU alone runs riscv"),
        (
            ("--arch", "riscv", "--qemu", "no-qemu"),
            "or name another with --qemu or the environment's QEMU_RISCV",
        ),
        (
            ("--mode", "sv39"),
            "x86 has no mode 'sv39': choose one of 32, pae, 4, 5, or all; --arch riscv has sv39",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    code, output, errors = run("matrix", *arguments, cwd=tmp_path)
    assert (code, output) == (2, "") and sentence in errors and errors.count("\n") == 1


def test_a_mode_is_named_as_the_manual_writes_it_too(tmp_path: Path) -> None:
    assert modes_of("Sv39", "riscv") == ("sv39",) and modes_of("PAE", "x86") == ("pae",)
    written = [run("decode", "0xcf", "--mode", mode, cwd=tmp_path) for mode in ("Sv39", "sv39")]
    assert written[0] == written[1] and written[0][0] == 0


@pytest.mark.hw
def test_a_run_is_printed_saved_and_of_the_form_that_is_documented(tmp_path: Path) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    chosen = ("--arch", "riscv", *WHERE, "--qemu", QEMU)
    code, output, _ = run("matrix", *chosen, "--report", "kept", cwd=tmp_path)
    assert code == 0 and "a page with U=0 (step 6)" in output
    assert "accesses agree on tcg, QEMU" in output.splitlines()[-1]
    code, output, _ = run("matrix", *chosen, "--json", cwd=tmp_path)
    found, kept = json.loads(output), json.loads((tmp_path / "kept/report.json").read_text())
    assert (code, found["arch"], list(found["rules"])) == (0, "riscv", ["sv39"])
    assert found["accesses"] == sum(found["rules"]["sv39"].values()) > 0
    Draft202012Validator(schema("matrix")).validate(found)
    assert {**found, "seconds": 0} == {**kept, "seconds": 0}
    code, _, errors = run("rules", "--from", "kept/report.json", cwd=tmp_path)
    assert code == 2 and "has no report of x86, but of riscv: say --arch riscv" in errors


@pytest.mark.hw
def test_a_run_as_a_page_has_its_outcomes_and_its_quirks(tmp_path: Path) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    where = ("--mode", "sv39", "--where", "family=nowhere and level=0 and by=user and access=amo")
    chosen = ("--arch", "riscv", *where, "--qemu", QEMU, "--html", "page.html", "--json")
    code, output, _ = run("matrix", *chosen, cwd=tmp_path)
    page, found = (tmp_path / "page.html").read_text(), json.loads(output)
    assert code == 0
    assert "an access of U-mode to a page with U=0 (step 6)" in page
    assert found["quirks"] and all(name in page for name in found["quirks"])


@pytest.mark.hw
def test_rules_are_those_of_the_architecture_with_who_executed_them(tmp_path: Path) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    chosen = ("--arch", "riscv", *WHERE, "--qemu", QEMU)
    run("matrix", *chosen, "--report", "kept", cwd=tmp_path)
    there = ("rules", "--arch", "riscv", "--from", "kept")
    code, output, _ = run(*there, cwd=tmp_path)
    assert code == 0
    (row,) = (line for line in output.splitlines() if "a page with U=0" in line)
    assert all(f" {said} " in row for said in ("step 6", "one", "504"))
    assert "What SFENCE.VMA leaves" in output
    code, output, _ = run(*there, "--json", cwd=tmp_path)
    found = json.loads(output)
    Draft202012Validator(schema("rules")).validate(found)
    assert (code, found["arch"], found["mode"]) == (0, "riscv", "sv39")
    assert [one["rule"] for one in found["rules"]] == [rule_name(one) for one in Reason]
    (denied,) = (one for one in found["rules"] if one["rule"] == "user-denied")
    assert denied["witnesses"] == 1 and denied["executions"][0]["accesses"] == 504
    (unmet,) = (one for one in found["rules"] if one["rule"] == "no-memory")
    assert (unmet["witnesses"], unmet["executions"]) == (0, [])
    code, _, errors = run("rules", "--from", "kept", cwd=tmp_path)
    assert (code, errors) == (
        2,
        "pagetable: kept has no report of x86, but of riscv: say --arch riscv\n",
    )


@pytest.mark.hw
def test_a_rule_that_an_engine_does_not_follow_has_no_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference takes U=0 for no reason: where the guest faults, the table shows who."""
    if reason := why_absent(64):
        pytest.skip(reason)
    monkeypatch.setattr("harness.check.riscv.matrix.verdicts._USER_CALL", 11)
    where = ("--where", "family=place and level=0 and mxr=0 and access=fetch", "--jobs", 1)
    chosen = ("--arch", "riscv", "--mode", "sv39", *where, "--qemu", QEMU)
    code, _, _ = run("matrix", *chosen, "--report", "kept", cwd=tmp_path)
    assert code == 1
    code, output, _ = run("rules", "--arch", "riscv", "--from", "kept", cwd=tmp_path)
    assert code == 1 and "accesses disagree" in output and "Where engines differ" in output


@pytest.mark.hw
def test_what_disagrees_is_shown_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    monkeypatch.setattr("harness.check.riscv.matrix.verdicts.STORED", 0)
    monkeypatch.setattr("harness.check.riscv.matrix.verdicts._USER_CALL", 11)
    chosen = (*WHERE, "--qemu", QEMU)
    code, output, _ = run("matrix", "--arch", "riscv", *chosen, cwd=tmp_path)
    assert code == 1 and "Disagreements" in output and "disagree on tcg" in output
    assert "family=place mode=sv39" in output and "  observed  " in output


@pytest.mark.hw
def test_of_all_architectures_each_is_asked_and_the_worst_code_is_the_command_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    if reason := arm64.why_absent():
        pytest.skip(reason)
    monkeypatch.setenv("QEMU_RISCV", QEMU)
    monkeypatch.setenv("QEMU_ARM64", arm64.QEMU)
    asked = ("validate", "smallest", "--arch", "all", "--engine", "tcg")
    code, output, _ = run(*asked, "--json", "--report", "kept", cwd=tmp_path)
    found = [json.loads(line) for line in output.splitlines()]
    assert (code, [one["arch"] for one in found]) == (0, list(NAMES))
    assert all(one["compared"] > 0 for one in found)
    for one in found:
        assert json.loads((tmp_path / "kept" / one["arch"] / "report.json").read_text()) == one
    monkeypatch.setenv("QEMU_RISCV", "/nope")
    code, output, errors = run(*asked, cwd=tmp_path)
    assert code == 2 and errors.startswith("pagetable: QEMU is not installed, or not in PATH as ")
    assert "answers agree on tcg" in output and output.index("x86:") < output.index("riscv:")
