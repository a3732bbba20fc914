"""Saved cases of arm64 as sources of tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.check.arm64.matrix.setting import Control
from tests.check.arm64.test_saved_cases import of_layout, of_matrix
from tests.cli.commands import run

CASE = of_matrix(access="write", address=0x200_4500_0000)
"""Two descriptors of 64K, a page of level 0 that EL1 writes, and with WXN=1 nobody executes."""


@pytest.mark.parametrize("high", [False, True])
def test_the_path_of_a_case_is_walked(high: bool, tmp_path: Path) -> None:
    address = CASE.address | (0xFFFF_FC00_0000_0000 if high else 0)
    case = replace(CASE, control=Control(wxn=True, high=high), address=address)
    path = case.save(tmp_path)
    code, out, err = run("walk", f"{address:#x}", "--case", path, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "table at 0x44000000" in out and "0x0000000045000443" in out
    assert "nothing is known of the other half" in out
    assert f"TTBR{int(not high)} off" in out
    code, out, _ = run("dump", "--case", path, cwd=tmp_path)
    assert code == 0 and "1 x 64K" in out


def test_an_access_is_judged_in_the_state_of_the_case(tmp_path: Path) -> None:
    path = replace(CASE, pan=True).save(tmp_path)
    where = ("--case", path, "--supervisor", "--access")
    address = f"{CASE.address:#x}"
    _, out, _ = run("fault", address, *where, "read", cwd=tmp_path)
    assert "EL1 uses data of EL0, with PSTATE.PAN=1" in out
    _, out, _ = run("fault", address, *where, "sttr", cwd=tmp_path)
    assert "EL1 STTR at 0x20045000000: allowed" in out


def test_a_case_of_a_layout_has_the_state_of_its_access(tmp_path: Path) -> None:
    path = of_layout().save(tmp_path)
    code, out, err = run("walk", "0x1000", "--case", path, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "PSTATE.PAN=1" in out
    code, _, err = run("walk", "0x1000", "--case", path, "--cr3", "0", cwd=tmp_path)
    assert code == 2 and "is of arm64, where --cr3 means nothing" in err
