"""`pagetable validate --arch arm64`, and `matrix` and `rules`: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from harness.check.arm64 import probes
from harness.paging.arm64.bulk import outcomes
from harness.report.schema import schema
from tests.cli.commands import run
from tests.machine.arm64.present import QEMU, why_absent

COMMAND = ("validate", "--arch=arm64", f"--qemu={QEMU}")

pytestmark = pytest.mark.hw


@pytest.fixture(autouse=True)
def _machine() -> None:
    if reason := why_absent():
        pytest.skip(reason)


def test_all_oracles_agree(tmp_path: Path) -> None:
    code, output, errors = run(*COMMAND, "rights", "--levels=3", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "AT in the guest" in output
    assert "agree on tcg, QEMU" in output


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_disagreement_is_shown_with_its_walk_in_every_form(
    form: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pan(*asked: Any, pan: Any, uao: Any) -> Any:
        return outcomes(*asked, pan=np.zeros_like(pan), uao=uao)

    monkeypatch.setattr(probes, "outcomes", without_pan)
    page, report = tmp_path / "page.html", tmp_path / "report"
    out = (f"--html={page}", f"--report={report}")
    code, output, _ = run(*COMMAND, "rights", "--levels=4", *out, *form, cwd=tmp_path)
    assert code == 1
    told = json.loads((report / "report.json").read_text())
    jsonschema.validate(told, schema("validate"))
    assert (told["arch"], told["layouts"][0]["levels"]) == ("arm64", 4)
    assert told["disagreements"] > 100
    [first, *_] = told["layouts"][0]["findings"]
    assert "PAN=1" in first["access"]
    if not form:
        assert "4K page at" in output
    assert "PAN=1" in page.read_text()


MATRIX = ("matrix", "--arch=arm64", f"--qemu={QEMU}", "--mode=4k", "--jobs=1")


@pytest.mark.hw
def test_the_matrix_is_printed_saved_and_of_the_form_that_is_documented(tmp_path: Path) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    chosen = (*MATRIX, "--where=family=leaf and level=1 and access=fetch")
    code, output, _ = run(*chosen, "--report=kept", cwd=tmp_path)
    assert code == 0 and "EL1 executes what EL0 may write" in output
    assert "accesses agree on tcg, QEMU" in output.splitlines()[-1]
    found = json.loads((tmp_path / "kept/report.json").read_text())
    jsonschema.validate(found, schema("matrix"))
    assert (found["arch"], list(found["rules"])) == ("arm64", ["4k"])
    assert found["accesses"] == sum(found["rules"]["4k"].values()) > 1000
    code, output, _ = run("rules", "--arch=arm64", "--from=kept", cwd=tmp_path)
    assert code == 0 and "What TLBI leaves of translations" in output
    (row,) = (line for line in output.splitlines() if "EL1 executes what EL0" in line)
    assert str(found["rules"]["4k"]["el0-writable"]) in row.replace(",", "")


@pytest.mark.hw
def test_what_disagrees_in_the_matrix_is_shown_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    monkeypatch.setattr("harness.check.arm64.matrix.verdicts.SVC", 0)
    chosen = (*MATRIX, "--where=family=place and level=0 and access=fetch")
    code, output, _ = run(*chosen, f"--html={tmp_path / 'page.html'}", cwd=tmp_path)
    assert "replay    pagetable replay build/cases/" in output
    assert code == 1 and "Disagreements" in output and "family=place mode=4k" in output
    assert "ESR 0x56000000" in output and "reaches 0x" in output
    assert "family=place" in (tmp_path / "page.html").read_text()
