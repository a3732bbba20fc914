"""`pagetable check`, as people run it on a guest of someone else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.check import debugger
from harness.machine.foreign import ForeignMonitor
from tests.cli.commands import run
from tests.inspect.sources.machines import RAM, STUB, Machine, running

pytestmark = pytest.mark.hw


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running(tmp_path_factory.mktemp("machine"), *STUB) as machine:
        yield machine


def test_a_guest_s_own_tables_agree_with_its_machine(machine: Machine, tmp_path: Path) -> None:
    code, out, errors = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    told = json.loads(out)
    assert (code, errors) == (0, "")
    assert (told["version"], told["command"], told["engine"]) == (1, "check", "tcg")
    assert {one["oracle"]: one["compared"] for one in told["oracles"]}["info tlb"] == 2048
    assert told["compared"] > 2048 + 256
    assert (told["disagreements"], told["findings"]) == (0, [])
    assert machine.witness.status() == "running"


def test_ram_that_qemu_shares_is_compared_with_what_the_monitor_reads(tmp_path: Path) -> None:
    backend = f"memory-backend-memfd,id=ram,size={RAM},share=on"
    shared = ("-object", backend, "-machine", "memory-backend=ram")
    with running(tmp_path, *STUB, *shared) as machine:
        code, out, errors = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    assert (code, errors) == (0, "")
    compared = {one["oracle"]: one["compared"] for one in json.loads(out)["oracles"]}
    assert compared[debugger.MONITOR_MEMORY] == compared[debugger.INFO_TLB] == 2048


def test_a_translation_that_disagrees_is_shown_with_its_walk(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gva2gpa = ForeignMonitor.gva2gpa

    def wrong(self: ForeignMonitor, address: int) -> int | None:
        right = gva2gpa(self, address)
        return right if right is None or address > 0x20_0000 else right + 1

    monkeypatch.setattr(ForeignMonitor, "gva2gpa", wrong)
    code, out, _ = run("check", "--qmp", machine.path, cwd=tmp_path)
    assert code == 1
    assert "gva2gpa: 0x0\n  expected  0x0\n  observed  0x1\n  walk      level  entry" in out
    assert "answers disagree about QEMU at " in out
    assert machine.witness.status() == "running"


def test_rows_that_are_missing_on_either_side_disagree(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info_tlb = ForeignMonitor.info_tlb
    monkeypatch.setattr(ForeignMonitor, "info_tlb", lambda self: info_tlb(self)[1:])
    code, out, _ = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    assert code == 1
    assert [one["address"] for one in json.loads(out)["findings"]] == ["0x0"]


def test_what_would_be_endless_is_not_asked_and_counted(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugger, "MOST_ROWS", 1000)
    code, out, _ = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    assert code == 0
    assert json.loads(out)["not_comparable"] == {
        "not asked: info tlb would print more than 1,000 rows": 2048
    }


def test_a_processor_that_does_not_page_is_a_sentence(machine: Machine, tmp_path: Path) -> None:
    code, out, errors = run("check", "--qmp", machine.path, "--vcpu", 1, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert errors.startswith("pagetable: paging is off")


def test_paging_that_is_not_compared_is_a_sentence(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registers = ForeignMonitor.registers
    monkeypatch.setattr(
        ForeignMonitor, "registers", lambda self: registers(self) | {"CR4": 0, "EFER": 0}
    )
    code, out, errors = run("check", "--qmp", machine.path, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "the processor is in x86 32-bit paging" in errors
    assert machine.witness.status() == "running"
