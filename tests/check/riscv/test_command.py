"""`pagetable validate --arch riscv`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from harness.check.riscv import probes
from harness.paging.riscv.bulk import outcomes
from harness.report.schema import schema
from tests.cli.commands import run
from tests.machine.riscv.present import QEMU, why_absent

COMMAND = ("validate", "--arch=riscv", f"--qemu={QEMU}", "rights", "--mode=sv39")

pytestmark = pytest.mark.hw


@pytest.fixture(autouse=True)
def _machine() -> None:
    if reason := why_absent(64):
        pytest.skip(reason)


def test_the_mode_has_its_own_name_on_the_screen_and_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, output, errors = run(*COMMAND, f"--html={page}", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert " rights   sv39 " in output
    assert "agree on tcg, QEMU" in output
    assert ">sv39<" in page.read_text()


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_disagreement_is_shown_with_its_walk_in_every_form(
    form: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        probes, "outcomes", lambda c, m, a, k, u, s, x: outcomes(c, m, a, k, u, s, np.zeros_like(x))
    )
    page, report = tmp_path / "page.html", tmp_path / "report"
    code, output, _ = run(*COMMAND, f"--html={page}", f"--report={report}", *form, cwd=tmp_path)
    assert code == 1
    told = json.loads((report / "report.json").read_text())
    jsonschema.validate(told, schema("validate"))
    assert (told["arch"], told["layouts"][0]["levels"]) == ("riscv", 3)
    assert told["disagreements"] == 40
    [first, *_] = told["layouts"][0]["findings"]
    assert "MXR=1" in first["access"]
    if not form:
        assert "rights, sv39, tcg" in output
        assert "4K page at" in output
        assert first["access"] in output and "read read" not in output
    assert "sv39" in page.read_text()
