"""Saved cases of arm64 as sources of tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check.arm64.matrix.families import families, lanes
from harness.check.arm64.matrix.setting import Control
from harness.check.arm64.replay import MatrixCase
from harness.inspect.arm64.case import snapshot
from harness.inspect.snapshot import SourceError
from harness.machine.ram import MIB
from harness.paging.address import Physical, Virtual
from harness.paging.arm64.access import Access, Allowed, Kind, outcome
from tests.check.arm64.test_families import ALL, RAM, by_the_rules, chain_of
from tests.check.arm64.test_saved_cases import of_layout, of_matrix
from tests.cli.commands import run
from tests.paging.arm64_rules import KINDS, Machine

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


@pytest.mark.parametrize("mode", ["4k", "16k-52", "64k"])
def test_an_access_to_the_tables_of_a_case_comes_to_what_the_rules_say_of_it(mode: str) -> None:
    """But for tables that are beyond the memory of the guest, of which a case has the words."""
    source, seen = np.random.default_rng(8), set[str]()
    said = {"values": "", "engine": "tcg", "qemu": "7.2.22", "expected": "", "observed": ""}
    for one in families("quick", mode, ALL):
        if one.name == "short" and one.setting.address_bits % 9:
            continue
        chain = chain_of(one.setting)
        for place in source.choice(len(one.controls), 2):
            control = one.controls[int(place)]
            made = lanes(
                one, chain, control, source.integers(int(np.prod(one.product.shape)), size=3)
            )
            cpu = chain.cpu(control)
            for lane in range(len(made)):
                case = MatrixCase.of(one.setting, control, made, lane, **said)
                kind, el0 = Kind(int(made.kind[lane])), bool(made.el0[lane])
                machine = Machine(
                    *(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr),
                    pan=case.pan,
                    uao=case.uao,
                    ram=RAM + 4 * MIB,
                )
                aligned = bool(made.aligned[lane])
                asked = (case.address, KINDS[kind], el0, aligned)
                wanted: Any = by_the_rules(machine, chain, list(case.words), *asked)
                if wanted.why == "external":
                    continue
                if control.epd:  # of the other half nothing is known
                    with pytest.raises(SourceError, match="paging is off"):
                        snapshot(case, {})
                    continue
                found = snapshot(case, {})
                assert (found.cpu.pan, found.cpu.uao) == (case.pan, case.uao)
                assert (found.cpu.high is None) != control.high
                there = outcome(
                    found.cpu, found.memory, Virtual(case.address), Access(kind, el0, aligned)
                )
                if isinstance(there, Allowed):
                    assert (wanted.esr, wanted.physical) == (None, there.physical), case
                else:
                    assert (wanted.esr, wanted.far) == (there.syndrome, there.far), case
                seen.add(wanted.why)
                where = next(text for text in found.assumed if text.startswith("the root's table"))
                root = (found.cpu.ttbr1 if control.high else found.cpu.ttbr0) & (1 << 48) - 1
                assert f" {root:#x}, which" in where and root not in case.words
    assert seen >= {"", "translation", "address size", "permission"}


def test_registers_that_are_given_come_before_those_of_the_case() -> None:
    assert snapshot(CASE, {}).cpu.mair != 0x1234
    found = snapshot(replace(CASE, pan=True), {"mair": 0x1234, "pstate": 1 << 23})
    assert (found.cpu.mair, found.cpu.pan, found.cpu.uao) == (0x1234, False, True)
    layout = snapshot(of_layout(), {})
    assert (layout.cpu.pan, layout.cpu.uao) == (True, True)
    other = snapshot(of_layout(), {"pstate": 0})
    assert (other.cpu.pan, other.cpu.uao) == (False, False)
    assert not snapshot(of_layout(oracle="gva2gpa", access=None), {}).cpu.pan


def test_tables_of_a_case_hold_nothing_else() -> None:
    """Of 64K, both of them: the descriptors of the path, and zeros; no memory is elsewhere."""
    found = snapshot(CASE, {})
    root = found.cpu.ttbr0
    held = {
        int(at): found.memory.load(Physical(at), 8)
        for table in (root, 0x4400_0000)
        for at in range(table, table + 65536, 8)
        if found.memory.load(Physical(at), 8)
    }
    size = 8 << 42 - 29  # of a root of 42 bits, which is as large as any
    assert size == 65536 and set(held.values()) == set(CASE.words) and len(held) == 2
    for inside in (root, root + size - 8, 0x4400_0008, 0x4400_FFF8):
        assert found.memory.load(Physical(inside), 8) is not None
    for beyond in (root - 8, root + size, 0x4400_0000 - 8, 0x4401_0000):
        assert found.memory.load(Physical(beyond), 8) is None
