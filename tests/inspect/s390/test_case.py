"""A saved case of s390 shows the tables that it is about, and the state in which it was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.source import Source
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.s390.access import Access, Fault, Kind, Reason, outcome
from tests.check.s390.test_saved_cases import of_layout, of_matrix
from tests.cli.commands import run


def opened(path: Path) -> Snapshot:
    with Source.named(f"case:{path}").opened() as snapshot:
        return snapshot


def test_a_case_of_the_matrix_has_the_path_that_it_carries(tmp_path: Path) -> None:
    case = of_matrix(address=0x520_1000)
    snapshot = opened(case.save(tmp_path))
    assert (snapshot.cpu.designation.private, snapshot.cpu.designation.quarters) == (True, 2)
    found = translate(snapshot, Virtual(case.address))
    assert [stage.reading.raw for stage in found.stages] == [0x200_0000, 0x280_0200]
    assert found.physical == 0x280_0000
    answer = outcome(snapshot.cpu, snapshot.memory, Virtual(case.address), Access(Kind.WRITE))
    assert isinstance(answer, Fault) and answer.reason is Reason.WRITE_DENIED
    assert translate(snapshot, Virtual(case.address + (1 << 20))).end is End.UNBACKED
    assert translate(snapshot, Virtual(0x4520_1000)).reason is Reason.OUTSIDE


@pytest.mark.parametrize(
    ("segment", "base"), [(0x200_0000, 0x4000), (0x4800, 0x8000), (0x8000, 0x4000)]
)
def test_the_root_of_a_case_is_where_no_entry_leads(
    tmp_path: Path, segment: int, base: int
) -> None:
    case = of_matrix(address=0x520_1000, words=(0x280_0200, segment))
    snapshot = opened(case.save(tmp_path))
    assert snapshot.cpu.base == base
    found = translate(snapshot, Virtual(case.address))
    assert [stage.reading.raw for stage in found.stages] == [segment, 0x280_0200]
    assert any(f"the root's table is at {base:#x}" in one for one in snapshot.assumed)


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_a_case_of_a_layout_has_its_tables(tmp_path: Path, levels: int) -> None:
    path = of_layout(levels=levels).save(tmp_path)
    code, out, errors = run("walk", "0x400000", "--case", path, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "0x400000: 0x3000000, in a 4K page" in out
