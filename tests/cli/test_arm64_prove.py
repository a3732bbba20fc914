"""`pagetable prove` on arm64: two halves, two granules, files of memory, cores, expectations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.check import validation
from harness.check.arm64 import probes
from harness.cli.ending import DISAGREEMENT, MISUSE
from harness.inspect.prove import prove
from harness.inspect.snapshot import Snapshot
from harness.machine.arm64.processor import RAM_BASE
from harness.paging.address import Physical
from harness.paging.arm64.access import Reason
from harness.paging.arm64.bulk import REASONS, Outcomes
from harness.paging.arm64.bulk import outcomes as true_outcomes
from harness.paging.arm64.cpu import Cpu
from harness.paging.memory import BufferMemory
from harness.paging.space import SpaceError
from tests.cli.commands import run
from tests.cli.test_riscv_prove import core
from tests.inspect.arm64.test_files import in_file
from tests.machine.arm64.present import QEMU, why_absent

ON_QEMU = ("--qemu", QEMU)
BASE = RAM_BASE + (2 << 20)
"""Where Linux has itself, and the harness has its own memory unless that gives way."""

UPPER = 2**64 - 2**36
TABLE, AF, NG, PXN, UXN = 3, 1 << 10, 1 << 11, 1 << 53, 1 << 54
EL0, READ_ONLY, NO_CODE = 1 << 6, 1 << 7, PXN | UXN
TCR = 5 << 32 | 1 << 30 | 28 << 16 | 25
"""The lower half of 39 bits with pages of 4K, the upper half of 36 with pages of 16K."""


@pytest.fixture(autouse=True)
def _present() -> None:
    if reason := why_absent():
        pytest.skip(reason)


def page(to: int, rights: int) -> int:
    return to | 3 | AF | rights


WORDS = {
    BASE: BASE + 0x1000 | TABLE,
    BASE + 0x1010: BASE + 0x2000 | TABLE,
    BASE + 0x2000: page(0x4800_0000, EL0 | READ_ONLY | NG | PXN),
    BASE + 0x2008: page(0x4800_1000, EL0 | NG | NO_CODE),
    BASE + 0x2010: page(BASE + 0x2000, NO_CODE),  # the table itself
    BASE + 0x2018: page(0x900_0000, NO_CODE | 1 << 2),  # a device's
    BASE + 0x4000: BASE + 0x8000 | TABLE,
    BASE + 0x8000: page(0x4801_0000, READ_ONLY | UXN),
    BASE + 0x8008: page(0x4801_4000, NO_CODE),
}
"""Pages from 0x400000 and from 0xfffffff000000000 on."""

REGISTERS = {"ttbr0": BASE, "ttbr1": BASE + 0x4000, "tcr": TCR, "mair": 0x04FF, "sctlr": 1}
MEANT = f"""
strict = true
[[expect]]
virtual = 0x40_0000
rights = "ur-x-"
physical = 0x4800_0000
[[expect]]
virtual = 0x40_1000
user = "rw"
[[expect]]
virtual = 0x40_2000
count = 2
rights = "-rw--"
[[expect]]
virtual = {UPPER:#x}
size = "16K"
rights = "-r--k"
physical = 0x4801_0000
[[expect]]
virtual = {UPPER + 0x4000:#x}
size = "16K"
rights = "-rw--"
[[expect]]
virtual = 0x40_4000
absent = true
"""


def memory_of(words: dict[int, int]) -> BufferMemory:
    memory = BufferMemory(np.zeros(1 << 16, np.uint8), BASE)
    for at, raw in words.items():
        memory.store(Physical(at), 8, raw)
    return memory


def options_of(**registers: int) -> tuple[str, ...]:
    given = {**REGISTERS, **registers}
    return tuple(word for name, value in given.items() for word in (f"--{name}", hex(value)))


def saved(tmp_path: Path, words: dict[int, int], meant: str = MEANT) -> tuple[str, ...]:
    (tmp_path / "ram").write_bytes(memory_of(words).octets.tobytes())
    (tmp_path / "kernel.toml").write_text(meant)
    return "--ram", f"ram@{BASE:#x}", *options_of(), "--expect", "kernel.toml", *ON_QEMU


@pytest.mark.hw
@pytest.mark.parametrize(
    ("name", "levels"), [("smallest", 3), ("rights-64k", 3), ("two-granules", 4), ("lpa2", 5)]
)
def test_a_layout_is_proved_and_a_file_of_its_memory(
    tmp_path: Path, name: str, levels: int
) -> None:
    layout = ("--layout", f"arm64/{name}", "--levels", levels)
    for source in (layout, in_file(tmp_path, name, levels)):
        code, out, errors = run("prove", *source, "--json", *ON_QEMU, cwd=tmp_path)
        found = json.loads(out)
        assert (code, errors, found["disagreements"], found["left_out"]) == (0, "", 0, [])
        oracles = ["probe", "AT in the guest", "gva2gpa"]
        assert [one["oracle"] for one in found["oracles"]][:3] == oracles
        assert found["compared"] > 1000 and found["command"] == "prove"


@pytest.mark.hw
def test_both_halves_are_proved_where_the_machine_has_its_own_memory(tmp_path: Path) -> None:
    options = saved(tmp_path, WORDS)
    code, out, errors = run("prove", *options, "--junit", "r.xml", cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    assert "All 6 expectations are met. Nothing else is mapped (strict)." in out
    assert "the page holds a table" in out and "the page has no memory behind it" in out
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("9", "0")


@pytest.mark.hw
def test_what_is_not_as_expected_is_said_and_counted(tmp_path: Path) -> None:
    words = {
        **WORDS,
        BASE + 0x2000: page(0x4800_0000, EL0 | NG | PXN),
        BASE + 0x8008: page(0x4801_4000, UXN),
        BASE + 0x8010: page(0, NO_CODE),
    }
    options = saved(tmp_path, words)
    code, out, _ = run("prove", *options, cwd=tmp_path)
    assert code == DISAGREEMENT
    print(out)
    found = json.loads(run("prove", *options, "--json", cwd=tmp_path)[1])
    assert [one["address"] for one in found["unmet"]] == [
        "0x400000",
        hex(UPPER + 0x4000),
        hex(UPPER + 0x8000),
    ]
    assert found["unmet"][0]["change"] == hex(WORDS[BASE + 0x2000])


@pytest.mark.hw
def test_a_core_is_proved(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(core(memory_of(WORDS), machine=183))
    code, out, errors = run("prove", "--core", "core", *options_of(), *ON_QEMU, cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    assert "answers agree about core" in out


@pytest.mark.hw
def test_what_cannot_be_where_it_is_is_left_out_and_said(tmp_path: Path) -> None:
    far = 0x80_0000_0000
    words = {**WORDS, BASE + 0x1018: far | TABLE, BASE + 0x4008: 0x900_0000 | TABLE}
    memory = memory_of(words)
    files = {"ram": (BASE, memory.octets), "far": (far, np.zeros(4096, np.uint8))}
    files["device"] = (0x900_0000, np.zeros(0x4000, np.uint8))
    options = list[object]()
    for name, (first, octets) in files.items():
        (tmp_path / name).write_bytes(octets.tobytes())
        options += ["--ram", f"{name}@{first:#x}"]
    code, out, errors = run("prove", *options, *options_of(), *ON_QEMU, cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    where = "(tables can be in 0x40000000..0xffffffff), and all below it"
    assert f"the level-3 table at {far:#x}, where the guest has no memory {where}" in out
    assert f"the level-3 table at 0x9000000, where virt has no RAM {where}" in out


@pytest.mark.hw
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            options_of(ttbr1=0x9000_0000),
            "the root table is at 0x90000000, where the source has no memory: TTBR1_EL1 is wrong",
        ),
        ((*options_of(), "--engine", "bochs"), "there is no engine 'bochs' for arm64"),
        ((*options_of(), "--bochs", "bochs"), "--bochs has no use: QEMU alone runs arm64"),
        ((*options_of(), "--qemu", "no-such"), "no-such"),
    ],
)
def test_what_cannot_be_proved_is_a_sentence(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "ram").write_bytes(memory_of(WORDS).octets.tobytes())
    code, out, errors = run("prove", "--ram", f"ram@{BASE:#x}", *options, cwd=tmp_path)
    assert (code, out) == (MISUSE, "") and said in errors and errors.count("\n") == 1


@pytest.mark.hw
def test_roots_that_map_nothing_are_no_proof(tmp_path: Path) -> None:
    code, _, errors = run("prove", *saved(tmp_path, {}, "strict = true"), cwd=tmp_path)
    assert code == MISUSE
    said = "nothing was proved: TTBR0_EL1 or TTBR1_EL1 may be wrong, or the memory."
    assert said in errors


def cpu_of(**registers: int) -> Cpu:
    ttbr0, ttbr1, tcr, mair, sctlr = {**REGISTERS, **registers}.values()
    return Cpu(ttbr0, ttbr1, tcr, mair, sctlr)


def snapshot_of(words: dict[int, int], **registers: int) -> Snapshot:
    memory = memory_of(words)
    return Snapshot("made", cpu_of(**registers), memory, (memory.span,))


@pytest.mark.hw
def test_a_half_that_is_closed_to_el0_has_no_window(tmp_path: Path) -> None:
    """The upper half has a hole at the lowest level, the lower one none below its root."""
    words = {at: raw for at, raw in WORDS.items() if at >= BASE + 0x4000}
    for tcr, compared in ((TCR | 1 << 56, True), (TCR | 1 << 55 | 1 << 56, False)):
        snapshot = snapshot_of(words, tcr=tcr)
        if compared:
            assert not prove(snapshot, "tcg", QEMU).checked.comparisons[0].disagreed
        else:
            with pytest.raises(SpaceError, match="free"):
                prove(snapshot, "tcg", QEMU)


@pytest.mark.hw
@pytest.mark.parametrize("upper", [False, True])
def test_a_reference_that_is_wrong_disagrees(monkeypatch: pytest.MonkeyPatch, upper: bool) -> None:
    """Planted, in either half: it has writes that are denied raise an access flag fault."""
    snapshot = snapshot_of(WORDS)
    right = prove(snapshot, "tcg", QEMU).checked
    assert right.comparisons[0].compared and not right.comparisons[0].disagreed

    def planted(*asked: Any, **state: Any) -> Outcomes:
        found = true_outcomes(*asked, **state)
        denied = found.reason == REASONS.index(Reason.WRITE_DENIED)
        found.syndrome[denied & (asked[2] >> np.uint64(63) == upper)] ^= 4
        return found

    monkeypatch.setattr(probes, "outcomes", planted)
    wrong = prove(snapshot, "tcg", QEMU).checked.comparisons[0]
    assert wrong.disagreed
    assert all(one.address >> 63 == upper for one in wrong.disagreements)


@pytest.mark.hw
def test_accesses_beyond_the_most_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST", 64)
    probed, *_ = prove(snapshot_of(WORDS), "tcg", QEMU).checked.comparisons
    left_out = [one for one in probed.not_comparable if one.startswith("not asked: of a space")]
    assert left_out and probed.compared <= 64 and not probed.disagreed


@pytest.mark.hw
@pytest.mark.parametrize("bit", [8, 9])
def test_what_an_engine_is_known_to_read_in_its_own_way_is_no_disagreement(
    tmp_path: Path, bit: int
) -> None:
    """With TCR_EL1.DS=1 bits 9:8 are bits 51:50 of an address, here of 48 bits."""
    words = {
        BASE: BASE + 0x1000 | TABLE,
        BASE + 0x1010: BASE + 0x2000 | TABLE,
        BASE + 0x1018: BASE + 0x3000 | TABLE | 1 << bit,
        BASE + 0x2000: page(0x4800_0000, EL0 | NG | NO_CODE | 1 << bit),
        BASE + 0x2008: page(0x4800_1000, EL0 | NG | NO_CODE),
        BASE + 0x3000: page(0x4800_2000, EL0 | NG | NO_CODE),
    }
    (tmp_path / "ram").write_bytes(memory_of(words).octets.tobytes())
    wide = options_of(tcr=1 << 59 | 5 << 32 | 1 << 23 | 25, ttbr1=0)
    source = ("--ram", f"ram@{BASE:#x}", *wide)
    allowed = ("--allow", "malformed", "--allow", "unbacked")
    code, out, errors = run("prove", *source, *ON_QEMU, *allowed, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"]) == (0, "", 0)
    assert "tcg-arm-ds-ips" in " ".join(found["not_comparable"])
