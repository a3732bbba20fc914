"""`pagetable check`, as people run it on a guest of someone else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.check.debugger import MONITOR_MEMORY
from harness.check.x86 import debugger
from harness.inspect.held import hold_tables
from harness.machine import gdbstub
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from tests.cli.commands import run
from tests.inspect.sources.kernel import PSE, ROOT, arguments
from tests.inspect.sources.machines import RAM, STUB, Machine, running

pytestmark = pytest.mark.hw


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("machine")
    gdb = ("-gdb", f"unix:{directory / 'gdb'},server=on,wait=off")
    with running(directory, *STUB, *gdb) as machine:
        yield machine


def stub_of(machine: Machine) -> Path:
    return machine.path.with_name("gdb")


def test_a_guest_s_own_tables_agree_with_its_machine(machine: Machine, tmp_path: Path) -> None:
    code, out, errors = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    told = json.loads(out)
    assert (code, errors) == (0, "")
    assert (told["version"], told["command"], told["engine"]) == (2, "check", "tcg")
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
    assert compared[MONITOR_MEMORY] == compared[debugger.INFO_TLB] == 2048


def test_a_gdb_stub_is_asked_what_the_monitor_is(machine: Machine, tmp_path: Path) -> None:
    found = []
    for source in (("--qmp", machine.path), ("--gdb", stub_of(machine))):
        code, out, errors = run("check", *source, "--json", cwd=tmp_path)
        assert (code, errors) == (0, "")
        assert machine.witness.becomes("running")
        found.append(json.loads(out)["oracles"])
    assert found[0] == found[1]


def test_a_gdb_stub_that_translates_otherwise_disagrees(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = StubMonitor.translations

    def wrong(self: StubMonitor, asked: Sequence[int]) -> list[int | None]:
        return [right if at else 0x1000 for at, right in zip(asked, true(self, asked), strict=True)]

    monkeypatch.setattr(StubMonitor, "translations", wrong)
    code, out, _ = run("check", "--gdb", stub_of(machine), "--json", cwd=tmp_path)
    assert (code, [one["address"] for one in json.loads(out)["findings"]]) == (1, ["0x0"])
    assert machine.witness.becomes("running")


def test_a_stub_s_monitor_is_about_the_processor_that_it_was_about(
    machine: Machine, tmp_path: Path
) -> None:
    """Not the one that was asked about meanwhile."""

    def current() -> str:
        with gdbstub.conversation(stub_of(machine), 0) as stub:
            return stub.human("info cpus").partition("* CPU #")[2][:1]

    assert current() == "0"
    with gdbstub.conversation(stub_of(machine), 1) as stub, stub.of_processor():
        assert "* CPU #1" in stub.human("info cpus")
    assert current() == "0"
    code, _, errors = run("check", "--gdb", stub_of(machine), "--vcpu", 1, cwd=tmp_path)
    assert code == 2 and errors.startswith("pagetable: paging is off")
    assert current() == "0"
    assert machine.witness.becomes("running")


def test_one_guest_is_checked(tmp_path: Path) -> None:
    for source in ((), ("--qmp", "a", "--gdb", "b")):
        code, out, errors = run("check", *source, cwd=tmp_path)
        assert (code, out) == (2, "")
        assert errors == "pagetable: name one running QEMU: --qmp SOCKET or --gdb SOCKET\n"


def test_a_translation_that_disagrees_is_shown_with_its_walk(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = ForeignMonitor.translations

    def wrong(self: ForeignMonitor, asked: Sequence[int]) -> list[int | None]:
        return [
            right if right is None or at > 0x20_0000 else right + 1
            for at, right in zip(asked, true(self, asked), strict=True)
        ]

    monkeypatch.setattr(ForeignMonitor, "translations", wrong)
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


LEGACY = {
    ROOT: 0x83,
    ROOT + 4: 0x2001_E083,  # at 0xf20000000: PSE-36
    ROOT + 8: 0x20_3027,
    ROOT + 12: 0x60_0083,  # bit 21 is reserved
    ROOT + 0xFFC: 0x20_3005,
    0x20_3000: 0x5027,
    0x20_3FFC: 0x7063,
}
"""Tables of 32-bit paging, which map four large pages, one of which no access reaches, and two
small ones twice."""


@contextlib.contextmanager
def legacy(directory: Path, cr4: int, words: dict[int, int]) -> Iterator[Machine]:
    with running(directory, *arguments(directory, cr4, ROOT | 0x18, words)) as machine:
        machine.witness.waits_for("CR3=00200018")
        yield machine


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with legacy(tmp_path_factory.mktemp("large"), PSE, LEGACY) as machine:
        yield machine


def test_tables_of_32_bit_paging_agree_with_their_machine(large: Machine, tmp_path: Path) -> None:
    code, out, errors = run("check", "--qmp", large.path, "--thorough", "--json", cwd=tmp_path)
    told = json.loads(out)
    assert (code, errors, told["disagreements"]) == (0, "", 0)
    compared = {one["oracle"]: one["compared"] for one in told["oracles"]}
    assert compared["info tlb"] == 3 + 2 * 2
    assert compared["gva2gpa"] > 3 + 2 * 2
    assert told["quirks"]["info-tlb-prints-bits-of-entries"] == 2
    assert large.witness.status() == "running"


def test_what_info_tlb_prints_of_4m_pages_is_no_address_of_theirs(
    large: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugger, "expected_of", lambda *_: False)
    code, out, _ = run("check", "--qmp", large.path, "--json", cwd=tmp_path)
    assert code == 1
    wrong = {one["address"] for one in json.loads(out)["findings"]}
    assert wrong == {"0x400000", "0xc00000"}


def test_an_address_outside_long_mode_that_disagrees_is_shown(
    large: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = ForeignMonitor.translations

    def wrong(self: ForeignMonitor, asked: Sequence[int]) -> list[int | None]:
        return [
            right if right is None or at != 0xFFFF_FFFF else right ^ 1 << 32
            for at, right in zip(asked, true(self, asked), strict=True)
        ]

    monkeypatch.setattr(ForeignMonitor, "translations", wrong)
    code, out, _ = run("check", "--qmp", large.path, "--json", cwd=tmp_path)
    assert code == 1
    assert [one["address"] for one in json.loads(out)["findings"]] == ["0xffffffff"]


def test_large_pages_that_cr4_does_not_allow_lead_to_tables(tmp_path: Path) -> None:
    code_page = {ROOT: 0x20_4083, 0x20_4000 + 4 * 0x100: 0x10_0003}
    with legacy(tmp_path, 0, {**LEGACY, **code_page}) as machine:
        code, out, _ = run("check", "--qmp", machine.path, "--json", cwd=tmp_path)
    compared = {one["oracle"]: one["compared"] for one in json.loads(out)["oracles"]}
    assert code == 0
    assert compared["info tlb"] == 1 + 2 * 2


def test_a_guest_that_another_client_has_let_run_meanwhile_is_a_sentence_beside_the_result(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_and_let_run(*given: Any) -> None:
        hold_tables(*given)
        machine.witness.ask("cont")

    monkeypatch.setattr("harness.inspect.x86.live.hold_tables", held_and_let_run)
    for command in (("check",), ("dump",)):
        code, out, errors = run(*command, "--qmp", machine.path, "--json", cwd=tmp_path)
        assert code == 0
        assert json.loads(out)["command"] == command[0]
        assert errors == (
            f"pagetable: another client let the guest at {machine.path} run while it was held: what"
            " was read may be of more than one moment.\n"
        )
        assert machine.witness.status() == "running"
