"""`pagetable prove` on RISC-V: layouts, files of memory, cores, expectations, reports, refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.check import validation
from harness.check.riscv import probes
from harness.check.riscv.quirks import judged_of
from harness.cli.ending import DISAGREEMENT, MISUSE
from harness.inspect.prove import prove
from harness.inspect.riscv.prove import own
from harness.inspect.snapshot import Snapshot
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import MENVCFG, MachineInfo
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.bulk import Outcomes
from harness.paging.riscv.bulk import outcomes as true_outcomes
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode
from tests.cli.commands import run
from tests.cli.test_riscv_tables import in_file
from tests.machine.riscv.present import QEMU, why_absent

ON_QEMU = ("--qemu", QEMU)
V, R, W, X, U, A, D = (1 << bit for bit in range(7 + 1) if bit != 5)
BASE = 0x8020_0000
"""Where Linux has itself, and the harness has its own memory unless that gives way."""


@pytest.fixture(autouse=True)
def _present() -> None:
    for xlen in (64, 32):
        if reason := why_absent(xlen):
            pytest.skip(reason)


def memory_of(words: dict[int, int], size: int = 1 << 16, first: int = BASE) -> BufferMemory:
    """Memory from an address on with some entries of 8 bytes."""
    memory = BufferMemory(np.zeros(size, np.uint8), first)
    for at, raw in words.items():
        memory.store(Physical(at), 8, raw)
    return memory


def page(to: int, rights: int) -> int:
    return to >> 2 | V | A | D | rights


WORDS = {
    BASE: BASE + 0x1000 >> 2 | V,
    BASE + 0x1010: BASE + 0x2000 >> 2 | V,
    BASE + 0x2000: page(0x8800_0000, R | X | U),
    BASE + 0x2008: page(0x8800_1000, R | W | U),
    BASE + 0x2010: page(BASE + 0x2000, R | W),  # the table itself
    BASE + 0x2018: page(0x1000_0000, R | W),  # a device's
}
"""Pages from 0x400000 on, in Sv39."""

SATP = ("--satp", hex(8 << 60 | BASE >> 12))
MEANT = """
strict = true
[[expect]]
virtual = 0x40_0000
rights = "ur-x"
physical = 0x8800_0000
[[expect]]
virtual = 0x40_1000
user = "rw"
type = "PMA"
[[expect]]
virtual = 0x40_2000
count = 2
rights = "-rw-"
[[expect]]
virtual = 0x40_4000
absent = true
"""


def saved(tmp_path: Path, words: dict[int, int], meant: str = MEANT) -> tuple[str, ...]:
    (tmp_path / "ram").write_bytes(memory_of(words).octets.tobytes())
    (tmp_path / "kernel.toml").write_text(meant)
    return "--ram", f"ram@{BASE:#x}", *SATP, "--expect", "kernel.toml", *ON_QEMU


@pytest.mark.hw
@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_a_layout_is_proved_and_a_file_of_its_memory(tmp_path: Path, levels: int) -> None:
    layout = ("--layout", "riscv/page-sizes", "--levels", levels)
    for source in (layout, in_file(tmp_path, "page-sizes", levels)):
        code, out, errors = run("prove", *source, "--json", *ON_QEMU, cwd=tmp_path)
        found = json.loads(out)
        assert (code, errors, found["disagreements"], found["left_out"]) == (0, "", 0, [])
        assert [one["oracle"] for one in found["oracles"]] == ["probe", "table bytes"]
        assert found["compared"] > 1500 and found["command"] == "prove"


@pytest.mark.hw
def test_tables_where_the_machine_has_its_own_memory_are_proved_there(tmp_path: Path) -> None:
    options = saved(tmp_path, WORDS)
    code, out, errors = run("prove", *options, "--junit", "r.xml", cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    assert out.rstrip().endswith("All 4 expectations are met. Nothing else is mapped (strict).")
    assert "the page holds a table" in out and "the page has no memory behind it" in out
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("7", "0")


@pytest.mark.hw
def test_what_is_not_as_expected_is_said_and_counted(tmp_path: Path) -> None:
    words = {**WORDS, BASE + 0x2000: page(0x8800_0000, R | W | X | U), BASE + 0x2028: page(0, R)}
    options = saved(tmp_path, words)
    code, out, _ = run("prove", *options, cwd=tmp_path)
    assert code == DISAGREEMENT
    for line in (
        "user write at 0x400000: allowed, reaches 0x88000000",
        "  expected  denied, by 0x400000..0x400fff ur-x, physical 0x88000000"
        " (kernel.toml, expect 1)",
        "  change    PTE at 0x80202000: 0x00000000220000df -> 0x00000000220000db",
        "              closes this 4K page to writes",
        "  expected  nothing mapped: no expectation names these 4K",
        "              0x405000..0x405fff  4K  -r--  0x0",
    ):
        assert line in out.splitlines(), line
    found = json.loads(run("prove", *options, "--json", cwd=tmp_path)[1])
    assert [one["address"] for one in found["unmet"]] == ["0x400000", "0x405000"]
    assert found["unmet"][0]["change"] == hex(page(0x8800_0000, R | X | U))


def core(memory: BufferMemory, machine: int = 243) -> bytes:
    """A core of a RISC-V guest with this memory, as QEMU writes one without registers; of another
    processor by its number in ELF."""
    size, note = memory.octets.size, struct.pack("<III8s", 5, 336, 1, b"CORE\0\0\0\0") + bytes(336)
    heads = 64 + 2 * 56
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    notes = struct.pack("<IIQQQQQQ", 4, 0, heads, 0, 0, len(note), len(note), 0)
    loads = struct.pack("<IIQQQQQQ", 1, 0, heads + len(note), 0, memory.span.first, size, size, 0)
    return head + notes + loads + note + memory.octets.tobytes()


@pytest.mark.hw
def test_a_core_is_proved(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(core(memory_of(WORDS)))
    code, out, errors = run("prove", "--core", "core", *SATP, *ON_QEMU, cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    assert "answers agree about core" in out


@pytest.mark.hw
def test_what_cannot_be_where_it_is_is_left_out_and_said(tmp_path: Path) -> None:
    far = 0x80_0000_0000
    words = {**WORDS, BASE + 0x1018: far >> 2 | V, BASE + 0x1020: 0x1000_0000 >> 2 | V}
    memory = memory_of(words)
    files = {"ram": (BASE, memory.octets), "far": (far, np.zeros(4096, np.uint8))}
    files["device"] = (0x1000_0000, np.zeros(4096, np.uint8))
    options = list[object]()
    for name, (first, octets) in files.items():
        (tmp_path / name).write_bytes(octets.tobytes())
        options += ["--ram", f"{name}@{first:#x}"]
    code, out, errors = run("prove", *options, *SATP, *ON_QEMU, cwd=tmp_path)
    assert (code, errors) == (0, ""), out
    where = "(tables can be in 0x80000000..0x13fffffff), and all below it"
    assert f"the level-0 table at {far:#x}, where the guest has no memory {where}" in out
    assert f"the level-0 table at 0x10000000, where virt has no RAM {where}" in out


@pytest.mark.hw
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--satp", "0x8000000000000100"), "the root table is at 0x100000, where the source has"),
        (("--satp", "0"), "paging is off: satp is 0x0, MODE Bare"),
        ((*SATP, "--engine", "bochs"), "there is no engine 'bochs' for riscv: choose one of tcg"),
        ((*SATP, "--bochs", "bochs"), "--bochs has no use: QEMU alone runs riscv"),
        ((*SATP, "--qemu", "no-such"), "no-such"),
    ],
)
def test_what_cannot_be_proved_is_a_sentence(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "ram").write_bytes(memory_of(WORDS).octets.tobytes())
    code, out, errors = run("prove", "--ram", f"ram@{BASE:#x}", *options, cwd=tmp_path)
    assert (code, out) == (MISUSE, "") and said in errors and errors.count("\n") == 1


@pytest.mark.hw
def test_a_root_that_maps_nothing_is_no_proof(tmp_path: Path) -> None:
    code, _, errors = run("prove", *saved(tmp_path, {}, "strict = true"), cwd=tmp_path)
    assert code == MISUSE
    assert "nothing is mapped, so nothing was proved: satp may be wrong, or the memory." in errors


def snapshot_of(words: dict[int, int]) -> Snapshot:
    memory = memory_of(words)
    cpu = Cpu.in_mode(Mode.SV39, BASE, adue=True)
    return Snapshot("made", cpu, memory, (memory.span,))


@pytest.mark.hw
def test_a_reference_that_is_wrong_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: it has reads of the user that are denied raise an access fault."""
    snapshot = snapshot_of(WORDS)
    right = prove(snapshot, "tcg", QEMU).checked
    assert right.comparisons[0].disagreed == 0

    def planted(*asked: Any) -> Outcomes:
        found = true_outcomes(*asked)
        found.cause[(asked[3] == 0) & asked[4] & (found.cause == 13)] = 5
        return found

    monkeypatch.setattr(probes, "outcomes", planted)
    wrong = prove(snapshot, "tcg", QEMU).checked.comparisons[0]
    assert wrong.disagreed and "user read" in str(wrong.disagreements[0].access)


@pytest.mark.hw
def test_accesses_beyond_the_most_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST", 64)
    (probed, _) = prove(snapshot_of(WORDS), "tcg", QEMU).checked.comparisons
    left_out = [one for one in probed.not_comparable if one.startswith("not asked: of a space")]
    assert left_out and probed.compared <= 64 and not probed.disagreed


INFO = MachineInfo(
    xlen=64,
    modes=frozenset(("sv39", "sv48")),
    asid_bits=16,
    menvcfg=MENVCFG["PBMTE"],
    senvcfg=0,
    isa="rv64imac_svpbmt_svnapot",
)


class FakeGuest:
    info = INFO

    class engine:  # noqa: N801
        maker = "QEMU"


def test_how_the_guest_s_hart_differs_is_noted() -> None:
    guest: Any = FakeGuest()
    cpu = Cpu.in_mode(Mode.SV39, BASE, asid=5, pbmte=True, svnapot=True)
    taken, notes = own(cpu, guest)
    assert (taken.satp, taken.menvcfg, taken.sets_marks) == (cpu.satp, Envcfg.PBMTE, True)
    assert [note.split(", unlike")[0] for note in notes] == ["The guest's hart sets A and D"]
    masked = Cpu.in_mode(Mode.SV39, BASE, adue=True)
    _, notes = own(masked, guest)
    assert [note.split(", unlike")[0] for note in notes] == ["The guest's hart has Svnapot"]
    pointers = Cpu(satp=cpu.satp, menvcfg=Envcfg.ADUE | 2 << 32, svnapot=True)
    assert own(pointers, guest)[1] == ["Pointer masking is off in the guest."]


def test_tables_that_need_what_the_guest_s_hart_lacks_are_refused() -> None:
    guest: Any = FakeGuest()
    with pytest.raises(Misuse, match="QEMU has a hart without Sv57"):
        own(Cpu.in_mode(Mode.SV57, BASE), guest)
    guest.info = MachineInfo(64, INFO.modes, 16, 0, 0, "rv64imac")
    with pytest.raises(Misuse, match="a hart without Svpbmt, with which these tables are read"):
        own(Cpu.in_mode(Mode.SV39, BASE, pbmte=True), guest)


@pytest.mark.hw
@pytest.mark.parametrize("xlen", [64, 32])
def test_more_memory_than_the_machine_can_have_is_misuse(xlen: int) -> None:
    with pytest.raises(Misuse, match="bytes of RAM"):
        Guest(xlen, ram_bytes=4 << 30)
    assert Span.of(0x8000_0000, 2 << 30).last == 0xFFFF_FFFF


@pytest.mark.hw
def test_what_an_engine_is_known_to_read_in_its_own_way_is_no_disagreement(tmp_path: Path) -> None:
    leaf = page(0x8800_0000, R | W | U)
    reserved = (1 << 60, 1 << 54, 3 << 61, 1 << 63, 1 << 63 | 1 << 13)
    words = {BASE + 0x2000 + 8 * slot: leaf | bits for slot, bits in enumerate(reserved)}
    words[BASE + 0x1018] = BASE + 0x2000 >> 2 | V | 1 << 58  # a table
    words[BASE + 0x1020] = 0x10_0000_0000 >> 2 | V  # one without memory
    words[BASE + 0x2100] = leaf
    options = saved(tmp_path, {**{at: WORDS[at] for at in (BASE, BASE + 0x1010)}, **words}, "")
    allowed = ("--allow", "malformed", "--allow", "unbacked")
    code, out, errors = run("prove", *options[:4], *ON_QEMU, *allowed, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"]) == (0, "", 0)
    with Guest(64, program=QEMU) as guest:
        known = {one.name for one in judged_of("tcg", guest.version)}
    departs = {"tcg-riscv-reserved-60-54", "tcg-riscv-pbmt3"}
    left_out = " ".join(found["not_comparable"])
    assert {name for name in departs if name in left_out} == departs & known
