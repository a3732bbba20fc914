"""A saved case of RISC-V shows the tables that it is about, and the state in which it was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.source import Source
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.riscv.access import Access, Allowed, Fault, Kind, Reason, outcome
from harness.paging.riscv.cpu import Envcfg, Mstatus
from tests.check.riscv.test_saved_cases import ASKED, of_layout, of_matrix
from tests.cli.commands import run


def opened(path: Path) -> Snapshot:
    with Source.named(f"case:{path}").opened() as snapshot:
        return snapshot


READ = Access(Kind.READ, True)


def test_a_case_of_the_matrix_has_the_path_that_it_carries(tmp_path: Path) -> None:
    snapshot = opened(of_matrix(mxr=True).save(tmp_path))
    assert (snapshot.cpu.menvcfg, snapshot.cpu.mstatus) == (Envcfg.PBMTE, Mstatus.MXR)
    found = translate(snapshot, Virtual(0x2A_8400_0000))
    assert [stage.reading.raw for stage in found.stages] == [0x20100801, 0x20100401, 0x21000CDF]
    assert [stage.slot.address for stage in found.stages[1:] if stage.slot] == [
        0x8040_2000 + 0x2A_8400_0000 // (1 << 21) % 512 * 8,
        0x8040_1000,
    ]
    assert found.physical == 0x8400_3000
    answer = outcome(snapshot.cpu, snapshot.memory, Virtual(0x2A_8400_0000), READ)
    assert isinstance(answer, Allowed) and answer.physical == 0x8400_3000
    assert translate(snapshot, Virtual(0x1000)).end is End.ABSENT


def test_a_table_that_is_missing_is_missing(tmp_path: Path) -> None:
    for level in range(3):
        snapshot = opened(of_matrix(missing=level).save(tmp_path))
        answer = outcome(snapshot.cpu, snapshot.memory, Virtual(0x2A_8400_0000), READ)
        assert isinstance(answer, Fault)
        assert (answer.reason, answer.level) == (Reason.NO_MEMORY, level)


def test_a_masked_pointer_is_that_of_the_mode_that_uses_it(tmp_path: Path) -> None:
    case = of_matrix(address=0x7F << 57 | 0x2A_8400_0000)
    masked = of_matrix(address=case.address, control=type(case.control)(pbmte=True, pmm_u=2))
    for one, reason in ((case, Reason.NOT_CANONICAL), (masked, None)):
        snapshot = opened(one.save(tmp_path))
        answer = outcome(snapshot.cpu, snapshot.memory, Virtual(case.address), READ)
        assert (answer.reason if isinstance(answer, Fault) else None) is reason


@pytest.mark.parametrize("access", [ASKED, None])
def test_a_case_of_a_layout_has_its_space_and_the_bits_of_its_access(
    tmp_path: Path, access: object
) -> None:
    oracle = "table bytes" if access is None else "probe"
    snapshot = opened(of_layout(access=access, oracle=oracle).save(tmp_path))
    assert snapshot.cpu.mode.value == "sv39"
    assert snapshot.cpu.mstatus == (0 if access is None else Mstatus.MXR)
    out = run("dump", "--layout", "riscv/smallest", "--levels", 3, cwd=tmp_path)[1]
    shown = run("dump", "--case", next(tmp_path.glob("*.json")), cwd=tmp_path)[1]
    assert shown.splitlines()[-2:] == out.splitlines()[-2:]
