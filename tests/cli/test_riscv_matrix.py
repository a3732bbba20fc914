"""`pagetable matrix --arch riscv`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from harness.report.schema import schema
from tests.cli.commands import run
from tests.machine.riscv.present import QEMU, why_absent

WHERE = ("--mode", "sv39", "--where", "family=place and level=0 and mxr=0", "--jobs", 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--arch", "mips"), "there is no architecture 'mips': choose x86 or riscv"),
        (("--arch", "riscv", "--mode", "4"), "RISC-V has no mode '4': choose one of sv32, sv39"),
        (("--arch", "riscv", "--preset", "huge"), "there is no preset 'huge'"),
        (("--arch", "riscv", "--engine", "bochs"), "bochs runs no RISC-V: choose tcg"),
        (("--arch", "riscv", "--html", "page.html"), "--html shows x86's matrix alone"),
        (("--arch", "riscv", "--qemu", "no-qemu"), "no-qemu is no program: name a QEMU for RISC-V"),
        (("--mode", "sv39"), "there is no mode 'sv39': choose one of 32, pae, 4, 5"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    code, output, errors = run("matrix", *arguments, cwd=tmp_path)
    assert (code, output) == (2, "") and sentence in errors and errors.count("\n") == 1


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
    assert code == 2 and "is a report of riscv: these rules are those of x86" in errors


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
