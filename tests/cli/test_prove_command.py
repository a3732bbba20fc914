"""`pagetable prove`: the tables of a program, on the machine, without a line of Python."""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.check.x86 import probes
from harness.cli.ending import DISAGREEMENT, MISUSE
from harness.inspect.expect import accesses_of
from harness.inspect.prove import Part, prove
from harness.inspect.prove import room as room_for
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86.prove import processor_for
from harness.machine.machine import Processor
from harness.machine.x86.registry import engine_named
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.x86.bulk import Outcomes
from harness.paging.x86.bulk import outcomes as probes_outcomes
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.cli.commands import run
from tests.cli.programs import BEGIN, MEANT, STACK, TEXT, Program
from tests.cli.test_validate_command import wrong
from tests.inspect.sources.machines import RAM, STUB, running
from tests.inspect.sources.test_core import note, written
from tests.machine.bochs import PROGRAM, needs_bochs

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
ON_TCG = ("--engine", "tcg", "--qemu", QEMU)
EMPTY = bulk.leaves(BufferMemory(np.zeros(4096, np.uint8)), Cpu.long_mode(4, 0).roots)
SHIFTED = 0x7F24_7456_7000
"""The stack where the index of its PDPTE is taken from bit 29 on."""

MET = "All 3 expectations are met. Nothing else is mapped (strict)."


@pytest.fixture
def expect(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "kernel.toml").write_text(MEANT)
    return "--expect", "kernel.toml"


def proved(tmp_path: Path, program: Program, *options: object) -> tuple[int, str, str]:
    source = program.save(tmp_path / "ram.bin")
    return run("prove", *source, *ON_TCG, *options, cwd=tmp_path)


@pytest.mark.hw
def test_tables_that_are_as_meant_agree(tmp_path: Path, expect: tuple[str, ...]) -> None:
    code, out, errors = proved(tmp_path, Program(), *expect)
    assert (code, errors) == (0, "")
    last = out.splitlines()[-1]
    assert last.startswith("All ") and " answers agree about ram.bin@0x2000000" in last
    assert last.endswith(MET)


@pytest.mark.hw
def test_the_tables_of_a_core_are_proved(tmp_path: Path, expect: tuple[str, ...]) -> None:
    memory = Program().memory.octets.tobytes()
    written(tmp_path / "core", [(BEGIN, memory)], note(BEGIN, Cr4.PAE | Cr4.PGE))
    code, out, errors = run("prove", "--core", "core", *ON_TCG, *expect, cwd=tmp_path)
    assert (code, errors) == (0, "")
    last = out.splitlines()[-1]
    assert " about core, processor 0, " in last and last.endswith(MET)
    wrong = Program(stack=SHIFTED).memory.octets.tobytes()
    written(tmp_path / "core", [(BEGIN, wrong)], note(BEGIN, Cr4.PAE | Cr4.PGE))
    code, out, _ = run("prove", "--core", "core", *ON_TCG, *expect, cwd=tmp_path)
    assert code == DISAGREEMENT
    assert f"user read at {STACK:#x}: #PF, error code 0x4 (U), CR2 {STACK:#x}" in out.splitlines()


@pytest.mark.hw
def test_the_tables_of_a_running_guest_are_proved_in_another(
    tmp_path: Path, expect: tuple[str, ...]
) -> None:
    ram = tmp_path / "ram"
    backend = f"memory-backend-file,id=ram,size={RAM},mem-path={ram},share=on"
    shared = ("-object", backend, "-machine", "memory-backend=ram")
    program = Program()
    with running(tmp_path, *STUB, *shared) as machine:
        with ram.open("r+b") as file:
            file.seek(BEGIN)
            file.write(program.memory.octets.tobytes())
        source = ("--qmp", machine.path, "--cr3", hex(BEGIN))
        code, out, errors = run("prove", *source, *ON_TCG, *expect, cwd=tmp_path)
        assert machine.witness.status() == "running"
        with ram.open("rb") as file:  # which is left alone: no access is noted in its tables
            file.seek(BEGIN)
            assert file.read(len(program.memory.octets)) == program.memory.octets.tobytes()
    assert (code, errors) == (0, "")
    assert out.splitlines()[-1].endswith(MET)


@pytest.mark.hw
def test_what_is_not_as_meant_is_explained(tmp_path: Path, expect: tuple[str, ...]) -> None:
    code, out, _ = proved(tmp_path, Program(stack=SHIFTED), *expect, "--junit", "out.xml")
    assert code == DISAGREEMENT
    for line in (
        f"user read at {STACK:#x}: #PF, error code 0x4 (U), CR2 {STACK:#x}",
        f"  expected  allowed, by {STACK:#x}..0x7f123456efff urw-, physical 0x5100000"
        " (kernel.toml, expect 2)",
        f"  instead   {SHIFTED:#x} leads to 0x5100000: its PDPTE index, at level 2, is 145 where"
        " this address has 72",
        "  expected  nothing mapped: no expectation names these 32K",
    ):
        assert line in out.splitlines()
    assert out.splitlines()[-1].endswith(
        "2 of 3 expectations are met. Something else is mapped (strict)."
    )
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("6", "2")
    failed = [
        case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == [f"kernel.toml, expect 2: {STACK:#x}..0x7f123456efff", "nothing else"]
    heads = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert heads["engine"] == "tcg"


@pytest.mark.hw
def test_five_levels_and_a_processor_of_another_width(tmp_path: Path) -> None:
    code, out, _ = proved(tmp_path, Program(5), "--maxphyaddr", "46", "--json")
    found = json.loads(out)
    assert (code, found["cpu"]["mode"], found["disagreements"]) == (0, "5", 0)
    assert found["cpu"]["maxphyaddr"] == 46
    assert found["notes"] == [] and found["expected"] is None


@pytest.mark.hw
def test_protection_keys_are_those_of_the_source(tmp_path: Path) -> None:
    program = Program()
    raw = program.space.read(program.space.slot(TEXT, 0))  # type: ignore[arg-type]
    program.write(TEXT, 0, raw | 3 << 59)
    code, out, _ = proved(tmp_path, program, "--cr4", "0x4000a0", "--json")
    assert (code, json.loads(out)["disagreements"]) == (0, 0)


@pytest.mark.hw
def test_a_machine_that_differs_is_a_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "outcomes", wrong)
    code, out, _ = proved(tmp_path, Program(), "--junit", "out.xml")
    assert code == DISAGREEMENT
    assert "Disagreements" in out
    first, *others = out.partition("What every engine says\n\n")[2].split("\n\n")
    asked, *said = first.splitlines()
    assert len(others) == 4
    assert asked.startswith("probe: user ")
    assert re.match(r"  on tcg [0-9.]+ +#PF\(", said[0])
    assert [re.match("  on (tcg|kvm|bochs)", line) is not None for line in said] == [True] * 3
    case = ElementTree.parse(tmp_path / "out.xml").getroot().find("testcase[@name='machine']")
    assert case is not None and case.find("failure") is not None


@pytest.mark.hw
@pytest.mark.parametrize("begin", [0x1000, 0x80_0000, 0x100_0000, 0x7FF_0000])
def test_tables_are_proved_wherever_they_are(
    tmp_path: Path, expect: tuple[str, ...], begin: int
) -> None:
    """Those of a program with memory from 0 on, of firmware, of Linux, and beside its pages."""
    code, out, errors = proved(tmp_path, Program(begin=begin), *expect, "--json")
    found = json.loads(out)
    assert (code, errors, found["disagreements"], found["unmet"]) == (0, "", 0, [])
    assert (found["left_out"], found["not_comparable"]) == ([], {})
    assert found["compared"] > 1000
    program = Program(begin=begin, stack=SHIFTED)
    assert proved(tmp_path, program, *expect)[0] == DISAGREEMENT


@pytest.mark.hw
def test_pages_of_the_first_mib_are_compared_but_those_of_devices(tmp_path: Path) -> None:
    program = Program(begin=0x100_0000)
    program.space.map(Virtual(0), np.arange(0, 1 << 20, 0x1000, dtype=np.uint64), 0, 0x2)
    code, out, _ = proved(tmp_path, program, "--json")
    found = json.loads(out)
    assert (code, found["disagreements"]) == (0, 0)
    pages, tried = (0x100000 - 0xA0000) // 0x1000, 2 * (2 * 2 + 1)
    assert found["not_comparable"] == {"the page has no memory behind it": pages * tried // 2}


def test_the_machine_s_own_memory_is_where_no_table_is() -> None:
    def room(
        pages: list[tuple[int, int]], tables: list[int], most: int = 1 << 30
    ) -> tuple[int, int]:
        count = len(pages)
        leaves = replace(
            EMPTY,
            physical=np.array([page for page, _ in pages], np.uint64),
            level=np.array([level for _, level in pages], np.uint8),
            end=np.full(count, End.LEAF, np.uint8),
            tables=replace(EMPTY.tables, address=np.array(tables, np.uint64)),
        )
        cpu = Cpu.long_mode(4, tables[0])
        return room_for(cpu, [Part(cpu.format, cpu.roots, leaves)], most)

    mib = 1 << 20
    assert room([], [32 * mib]) == (0, 36 * mib)
    assert room([], [0x1000]) == (4 * mib, 36 * mib)
    assert room([(0, 1)], [32 * mib]) == (36 * mib, 68 * mib)
    assert room([(0, 2)], [0x1000], 2 << 30) == (1 << 30, (1 << 30) + 32 * mib)
    every = list(range(0, 1 << 30, 16 * mib))
    assert room([], every) == (4 * mib, 1012 * mib)  # two are lost, of which none is the root


@pytest.mark.hw
def test_what_cannot_be_where_it_is_is_left_out_and_said(tmp_path: Path) -> None:
    program = Program()
    program.write(1 << 30, 1, 0xA1007)
    program.write(2 << 30, 1, 0xFEC0_0007)
    program.write(3 << 30, 0, 0xFEC0_0007)  # a device's page: no table, nothing to leave out
    code, out, _ = proved(tmp_path, program, "--allow", "unbacked", "--json")
    found = json.loads(out)
    assert (code, found["disagreements"], found["impassable"]) == (0, 0, [])
    low, high = sorted(found["left_out"])
    parts = "0x0..0x9ffff and 0x100000..0xbfffffff"
    assert low == (
        f"the level-0 table at 0xa1000, where a PC has no RAM (tables can be in {parts}), and all"
        " below it"
    )
    assert high == (
        "the level-0 table at 0xfec00000, where the guest has no memory (tables can be in"
        f" {parts}), and all below it"
    )


@pytest.mark.hw
def test_nothing_is_proved_where_all_that_is_mapped_is_left_out(tmp_path: Path) -> None:
    devices, root = 0xA0000, np.zeros(512, "<u8")
    root[0] = devices | 7
    tables = np.zeros((3, 512), "<u8")
    tables[:, 0] = devices + 0x1007, devices + 0x2007, 0x280_0007
    root.tofile(tmp_path / "root")
    tables.tofile(tmp_path / "low")
    files = ("--ram", f"root@{BEGIN:#x}", "--ram", f"low@{devices:#x}", "--cr3", hex(BEGIN))
    code, out, errors = run("prove", *files, *ON_TCG, cwd=tmp_path)
    assert f"the level-2 table at {devices:#x}, where a PC has no RAM" in out
    assert (code, errors) == (
        MISUSE,
        "pagetable: nothing was proved: all that the tables map is left out.\n",
    )


@pytest.mark.hw
def test_expectations_of_other_levels_are_neither_met_nor_missed(tmp_path: Path) -> None:
    other = f"[[expect]]\nvirtual = {1 << 52:#x}\nrights = 'ur'\nlevels = [5]\n"
    (tmp_path / "kernel.toml").write_text(MEANT + other)
    wanted = ("--expect", "kernel.toml", "--junit", "out.xml")
    code, out, _ = proved(tmp_path, Program(), *wanted)
    assert code == 0
    assert out.splitlines()[-1].endswith(
        f"{MET} 1 expectation of other numbers of levels is left out."
    )
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    (skipped,) = (case for case in suite.iter("testcase") if case.find("skipped") is not None)
    assert str(skipped.get("name")).startswith("kernel.toml, expect 4: 0x10000000000000..")
    code, out, _ = proved(tmp_path, Program(), *wanted, "--json")
    assert (json.loads(out)["expected"], json.loads(out)["other_levels"]) == (3, 1)


@pytest.mark.hw
def test_the_machine_is_asked_about_what_is_expected_to_be_absent(tmp_path: Path) -> None:
    (tmp_path / "kernel.toml").write_text("[[expect]]\nvirtual = 0x7000_0000\nabsent = true\n")
    without, with_it = (
        json.loads(proved(tmp_path, Program(), *expect, "--json")[1])["compared"]
        for expect in ((), ("--expect", "kernel.toml"))
    )
    assert with_it >= without + 2 * len(accesses_of("x86"))  # at both of its ends


@pytest.mark.hw
def test_expectations_of_which_none_applies_are_misuse(tmp_path: Path) -> None:
    text = "[[expect]]\nvirtual = 0x1000\nrights = 'ur'\nlevels = [5]\n"
    (tmp_path / "kernel.toml").write_text(text)
    code, _, errors = proved(tmp_path, Program(), "--expect", "kernel.toml")
    assert code == MISUSE
    assert "every expectation has levels, and none of them 4" in errors and errors.count("\n") == 1


@pytest.mark.hw
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(
    ("option", "bit"), [("--c-bit", 47), ("--c-bit", 51), ("--shared-bit", 46)]
)
def test_tables_of_encrypted_memory_are_proved_without_the_bit(
    tmp_path: Path, option: str, bit: int, levels: int
) -> None:
    program = Program(levels)
    words = program.memory.octets.view("<u8")
    words[words & 1 != 0] |= np.uint64(1 << bit)
    source = program.save(tmp_path / "ram.bin")
    at = source.index(hex(BEGIN))
    source = (*source[:at], hex(BEGIN | 1 << bit), *source[at + 1 :])
    name = "C" if option == "--c-bit" else "shared"
    (tmp_path / "kernel.toml").write_text(MEANT.replace('["G"]', f'["G", "{name}"]'))
    options = (*source, option, bit, "--maxphyaddr", 52, "--expect", "kernel.toml", "--json")
    code, out, errors = run("prove", *options, *ON_TCG, cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"], found["unmet"]) == (0, "", 0, [])
    assert found["notes"] == [
        f"Memory is not encrypted in the guest: bit {bit} ({name}) is clear in its entries and in"
        " CR3."
    ]


LIKE = {
    "the usual": (Cpu.long_mode(4, BEGIN), True, False),
    "no 1G pages": (Cpu.long_mode(4, BEGIN, page1gb=False), False, False),
    "AMD's": (replace(Cpu.long_mode(4, BEGIN), amd=True), True, True),
}


@pytest.mark.hw
@pytest.mark.parametrize("case", LIKE)
def test_the_guest_has_a_processor_like_the_source_s(case: str) -> None:
    cpu, page1gb, amd = LIKE[case]
    program = Program()
    snapshot = Snapshot("made", cpu, program.memory, (program.memory.span,))
    seen = prove(snapshot, "tcg", QEMU).checked
    assert (seen.snapshot.notes, seen.comparisons[0].disagreed) == ((), 0)
    model = engine_named("tcg").processor(Processor(page1gb=page1gb, amd=amd))
    assert model is not None and ("-pdpe1gb" in model, "AuthenticAMD" in model) == (
        not page1gb,
        amd,
    )


def test_a_processor_that_the_engine_cannot_be_is_noted() -> None:
    engine = engine_named("tcg")
    for wanted in (Processor(page1gb=False), Processor(amd=True), Processor(maxphyaddr=46)):
        cpu = Cpu.long_mode(4, 0, maxphyaddr=wanted.maxphyaddr, page1gb=wanted.page1gb)
        cpu = replace(cpu, amd=wanted.amd)
        usual = replace(engine, processor=lambda asked: None)
        width = replace(engine, processor=lambda asked: None if asked.amd else f"{asked}")
        assert processor_for(engine, cpu) == engine.processor(wanted)
        assert processor_for(usual, cpu) is None
        assert processor_for(width, cpu) == str(replace(wanted, amd=False))


@pytest.mark.hw
def test_entries_that_nothing_passes_fail_unless_they_are_meant(tmp_path: Path) -> None:
    program = Program()
    raw = program.space.read(program.space.slot(TEXT, 0))  # type: ignore[arg-type]
    program.write(TEXT, 0, raw | 1 << 51)
    code, out, _ = proved(tmp_path, program)
    assert code == DISAGREEMENT
    assert "1 entry with reserved bits set: any access there faults, on this machine too; if" in out
    assert "--allow malformed" in out
    code, out, _ = proved(tmp_path, program, "--allow", "malformed")
    assert code == 0


@pytest.mark.hw
def test_a_space_that_maps_nothing_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(1 << 16))
    code, _, errors = run(
        "prove", "--ram", f"zeros@{BEGIN:#x}", "--cr3", hex(BEGIN), *ON_TCG, cwd=tmp_path
    )
    assert code == MISUSE
    assert errors == (
        "pagetable: nothing is mapped, so nothing was proved: CR3 may be wrong, or the memory.\n"
    )


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "no source": ((), "no source is named: choose one of"),
    "a root among the devices of a PC": (
        ("--ram", "low@0xa0000", "--cr3", "0xa1000"),
        "the root table is at 0xa1000, where a PC has no RAM: tables can be proved in 0x0..0x9ffff"
        " and 0x100000..0xbfffffff\n",
    ),
    "a root outside the file": (
        ("--ram", f"low@{BEGIN:#x}", "--cr3", "0x5000000"),
        "pagetable: the root table is at 0x5000000, where the source has no memory: CR3 is wrong,"
        " or a file lies elsewhere (--ram FILE@ADDRESS)\n",
    ),
    "a root beyond the machine": (
        ("--ram", "low@0x100000000", "--cr3", "0x100001000"),
        "the root table is at 0x100001000, where the guest has no memory: tables can be proved in"
        " 0x0..0x9ffff and 0x100000..0xbfffffff\n",
    ),
    "an unknown kind": (("--allow", "broken"), "there is no 'broken' to allow, but malformed and"),
    "an engine that is none": (("--engine", "abacus"), "abacus"),
    "no file": (("--expect", "none.toml"), "none.toml cannot be read: No such file"),
    "no PDPTE": (
        ("--ram", "low", "--cr3", "0x2000", "--cr4", "0x20", "--efer", "0"),
        "pagetable: no PDPTE at 0x2000 is present: nothing is mapped\n",
    ),
    "PDPTEs among the devices": (
        ("--ram", "legacy@0x9f000", "--cr3", "0xa1000", "--cr4", "0x20", "--efer", "0"),
        "the PDPTEs are at 0xa1000, where a PC has no RAM\n",
    ),
    "no hole": (
        ("--ram", "full", "--cr3", "0x1000", "--cr4", "0x10", "--efer", "0"),
        "the tables leave no 36M of addresses free, at which the machine maps its own program and"
        " RAM: leave that many empty, side by side, in the root's table or in one to which a single"
        " entry leads, with every right\n",
    ),
    "a junit file that cannot be": (("--junit", "no/where.xml"), "there is no directory no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_proved_is_a_sentence(tmp_path: Path, case: str) -> None:
    options, sentence = REFUSED[case]
    (tmp_path / "low").write_bytes(bytes(0x1000) + (0x2007).to_bytes(8, "little") + bytes(0x1FF8))
    words = np.zeros(3 << 9, "<u8")
    words[2 << 9] = 0x9F001  # a PDPTE that leads to an empty table
    words.tofile(tmp_path / "legacy")
    (tmp_path / "full").write_bytes(bytes(0x1000) + (0x83).to_bytes(4, "little") * 1024)
    source = () if "--ram" in options or not options else Program().save(tmp_path / "ram.bin")
    code, _, errors = run("prove", *source, *options, cwd=tmp_path)
    assert code == MISUSE
    assert sentence in errors
    assert errors.count("\n") == 1 and "Traceback" not in errors


class Legacy:
    """Tables of 32-bit or of PAE paging, as a program has them whose memory begins at 0: 4M of its
    own at 0 and again in the last GiB, a large page there, and two pages of a user."""

    def __init__(self, mode: Mode) -> None:
        self.mode, self.words = mode, np.zeros(0x8000, np.uint8)
        pae, wide = mode is Mode.PAE, "<u8" if mode is Mode.PAE else "<u4"
        self.size = 0x20_0000 if pae else 0x40_0000
        self.entry = np.dtype(wide).itemsize
        directory, high = 0x2000, 0x6000 if pae else 0x2000
        if pae:
            self.words[0x1000:0x1020].view("<u8")[:] = directory | 1, 0, 0, high | 1
        top = 0x300 if not pae else 0
        tables = self.words.view(wide)

        def put(table: int, index: int, raw: int) -> None:
            tables[table // self.entry + index] = raw

        for index in range(self.size >> 12):
            put(0x3000, index, index << 12 | 0x3)
        put(directory, 0, 0x3007)
        put(directory, 1, 0x4007)
        put(0x4000, 0, 0x50_0007)
        put(0x4000, 1, 0x60_0005 | (1 << 63 if pae else 0))
        put(high, top, 0x3003)
        put(high, top + 1, self.size | 0x183)
        self.directory = directory

    @property
    def options(self) -> tuple[object, ...]:
        """The registers that make it so."""
        cr3, cr4, efer = ("0x1000", "0xa0", "0x800") if self.entry == 8 else ("0x2000", "0x90", 0)
        return "--cr3", cr3, "--cr4", cr4, "--efer", efer

    def meant(self) -> str:
        """What it says, in the words of expectations."""
        execute = "-" if self.mode is Mode.PAE else "x"
        size = "2M" if self.mode is Mode.PAE else "4M"
        rows = (
            (0, size, "-rwx", 0, ""),
            (self.size, "4K", "urwx", 0x50_0000, ""),
            (self.size + 0x1000, "4K", f"ur-{execute}", 0x60_0000, ""),
            (0xC000_0000, size, "-rwx", 0, ""),
            (0xC000_0000 + self.size, size, "-rwx", self.size, f'page = "{size}"\nbits = ["G"]'),
        )
        return "strict = true\n" + "".join(
            f'[[expect]]\nvirtual = {at:#x}\nsize = "{size}"\nrights = "{rights}"\n'
            f"physical = {to:#x}\n{more}\n"
            for at, size, rights, to, more in rows
        )


LEGACY = pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE], ids=lambda mode: mode.value)
ENGINES = [ON_TCG, ("--engine", "bochs", "--bochs", PROGRAM)]


@pytest.mark.hw
@LEGACY
@pytest.mark.parametrize("engine", ENGINES, ids=["tcg", "bochs"])
def test_tables_outside_long_mode_are_proved(
    tmp_path: Path, mode: Mode, engine: tuple[str, ...]
) -> None:
    if "bochs" in engine:
        needs_bochs()
    program = Legacy(mode)
    (tmp_path / "ram").write_bytes(program.words.tobytes())
    (tmp_path / "kernel.toml").write_text(program.meant())
    source = ("--ram", "ram", *program.options, *engine, "--expect", "kernel.toml", "--json")
    code, out, errors = run("prove", *source, cwd=tmp_path)
    found = json.loads(out)
    assert (code, errors, found["disagreements"], found["unmet"]) == (0, "", 0, [])
    assert (found["cpu"]["mode"], found["expected"]) == (mode.value, 5)
    assert found["left_out"] == []
    pages = 2 * (program.size >> 12) + 2
    assert found["oracles"][0]["compared"] > 8 * pages
    program.words.view("<u8" if mode is Mode.PAE else "<u4")[0x4000 // program.entry] ^= 0x2
    (tmp_path / "ram").write_bytes(program.words.tobytes())
    code, out, _ = run("prove", *source[:-1], cwd=tmp_path)
    assert code == DISAGREEMENT
    assert f"user write at {program.size:#x}: #PF, error code 0x7 (P W U)" in out


def moved(*question: Any) -> Outcomes:
    """The reference, but that it takes all pages of users to lie one page higher."""
    told = probes_outcomes(*question)
    walks = told.walks
    users = (question[2] >> np.uint64(30) == 0) & (walks.physical >= np.uint64(0x50_0000))
    physical = walks.physical + users * np.uint64(0x1000)
    return replace(told, walks=replace(walks, physical=physical))


@pytest.mark.hw
@LEGACY
def test_a_machine_that_differs_outside_long_mode_is_a_disagreement(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In where pages lie, by the data alone: each read, write and fetch of those that are moved."""
    program = Legacy(mode)
    (tmp_path / "ram").write_bytes(program.words.tobytes())
    source = ("--ram", "ram", *program.options, *ON_TCG, "--json")
    monkeypatch.setattr(probes, "outcomes", moved)
    code, out, _ = run("prove", *source, cwd=tmp_path)
    found = json.loads(out)
    assert (code, found["oracles"][0]["oracle"]) == (DISAGREEMENT, "probe")
    words = 2 * 2  # the first and the last of two pages, by the supervisor and by the user
    reads, writes = 2 * words, words  # of which one page lets none write
    fetches = 2 if mode is Mode.PAE else 2 * 2  # of one page, or of both
    assert found["oracles"][0]["disagreements"] == reads + writes + fetches


@pytest.mark.hw
def test_pdptes_that_tcg_marked_are_loaded_as_they_were(tmp_path: Path) -> None:
    """And those that no MOV CR3 takes are a sentence."""
    program = Legacy(Mode.PAE)
    memory = BufferMemory(np.zeros(1 << 20, np.uint8))
    memory.octets[: len(program.words)] = program.words
    memory.octets[0x1000] |= 0x20
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x1000, cr4=Cr4.PGE), pdptes_checked=0xFFF0_0000_0000_0000)
    snapshot = Snapshot("made", cpu, memory, (memory.span,))
    seen = prove(snapshot, "tcg", QEMU).checked
    assert seen.comparisons[0].disagreed == 0 and seen.comparisons[0].compared > 1000
    memory.octets[0x1000] |= 0x2
    with pytest.raises(QuestionError, match=r"PDPTE 0 0x2003 cannot be loaded: 0x2 is reserved"):
        prove(snapshot, "tcg", QEMU)


@pytest.mark.hw
def test_pdptes_that_are_entries_of_a_table_too_are_marked_by_a_quirk_of_tcg() -> None:
    """The table of the PDPTEs is one of pages as well: A is set in what no access went by."""
    program = Legacy(Mode.PAE)
    program.words[0x2000:0x3000].view("<u8")[2] = 0x1003
    memory = BufferMemory(np.zeros(1 << 20, np.uint8))
    memory.octets[: len(program.words)] = program.words
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x1000, cr4=Cr4.PGE), pdptes=(0x2001, 0, 0, 0x6001))
    snapshot = Snapshot("made", cpu, memory, (memory.span,))
    probed = prove(snapshot, "tcg", QEMU).checked.comparisons[0]
    assert probed.disagreed == 0 and probed.compared > 1000
    assert probed.quirks["tcg-pdptes-are-entries"] > 0


def test_a_qemu_that_is_not_there_is_misuse(tmp_path: Path) -> None:
    source = Program().save(tmp_path / "ram.bin")
    code, _, errors = run("prove", *source, "--engine", "tcg", "--qemu", "/nope", cwd=tmp_path)
    assert code == MISUSE
    assert "/nope" in errors


def test_mutated_expectations_end_in_a_sentence(tmp_path: Path) -> None:
    source, draw = Program().save(tmp_path / "ram.bin"), random.Random(7)
    for _ in range(12):
        at = draw.randrange(len(MEANT))
        text = MEANT[:at] + draw.choice(('"', "[", "\0", "9", "")) + MEANT[at + 1 :]
        (tmp_path / "x.toml").write_text(text[: draw.randrange(at, len(text))] + "\n[broken")
        code, _, errors = run("prove", *source, "--expect", "x.toml", *ON_TCG, cwd=tmp_path)
        assert code == MISUSE
        assert errors.startswith("pagetable: x.toml") and errors.count("\n") == 1
