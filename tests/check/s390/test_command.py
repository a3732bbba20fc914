"""`pagetable validate --arch s390`, and `matrix` and `rules`: what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from harness.check.s390 import probes
from harness.paging.s390.bulk import outcomes
from harness.report.schema import schema
from tests.cli.commands import run
from tests.machine.s390.present import QEMU, why_absent

pytestmark = pytest.mark.hw

COMMAND = ("validate", "--arch=s390", f"--qemu={QEMU}")
MATRIX = ("matrix", "--arch=s390", f"--qemu={QEMU}", "--mode=segment", "--jobs=1")


@pytest.fixture(autouse=True)
def _machine() -> None:
    if reason := why_absent():
        pytest.skip(reason)


def test_all_oracles_agree_in_a_mode_by_the_manuals_name(tmp_path: Path) -> None:
    code, output, errors = run(*COMMAND, "rights", "--mode=region-third", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "region-third" in output and "table bytes" in output
    assert "agree on tcg, QEMU" in output


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_disagreement_is_shown_with_its_walk_in_every_form(
    form: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(cpu: Any, memory: Any, address: Any, kind: Any, space: Any) -> Any:
        return outcomes(cpu, memory, address, np.zeros_like(kind), space)

    monkeypatch.setattr(probes, "outcomes", reads)
    page, report = tmp_path / "page.html", tmp_path / "report"
    out = (f"--html={page}", f"--report={report}")
    code, output, _ = run(*COMMAND, "rights", "--levels=4", *out, *form, cwd=tmp_path)
    assert code == 1
    told = json.loads((report / "report.json").read_text())
    jsonschema.validate(told, schema("validate"))
    assert (told["arch"], told["layouts"][0]["levels"]) == ("s390", 4)
    [first, *_] = told["layouts"][0]["findings"]
    assert "write in the secondary space" in first["access"]
    if not form:
        assert "not present" in output
    assert "write in the secondary space" in page.read_text()


def test_the_matrix_is_printed_saved_and_of_the_form_that_is_documented(tmp_path: Path) -> None:
    chosen = (*MATRIX, "--where=family=rights and access=fetch")
    code, output, _ = run(*chosen, "--report=kept", cwd=tmp_path)
    assert code == 0 and "Instruction-Execution Protection" in output
    assert "accesses agree on tcg, QEMU" in output.splitlines()[-1]
    found = json.loads((tmp_path / "kept/report.json").read_text())
    jsonschema.validate(found, schema("matrix"))
    assert (found["arch"], list(found["rules"])) == ("s390", ["segment"])
    assert found["accesses"] == sum(found["rules"]["segment"].values()) == 4 * 2 * 8
    code, output, _ = run("rules", "--arch=s390", "--mode=segment", "--from=kept", cwd=tmp_path)
    assert code == 0 and "What PTLB, IPTE and IDTE leave of translations" in output
