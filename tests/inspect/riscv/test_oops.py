"""Texts of crashes on RISC-V are read as they were written, and explained by their entries, by
tables or by both; and no text, however it is cut or changed, is more than a sentence or an
answer."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.inspect.oops import LONGEST_REPORT, Report, architecture_of
from harness.inspect.riscv import oops
from harness.inspect.snapshot import QuestionError
from harness.paging.riscv.access import Access, Kind
from harness.paging.riscv.cpu import Mode
from tests.inspect.arm64 import oopses as of_arm64
from tests.inspect.riscv import oopses
from tests.inspect.x86 import oopses as of_x86
from tests.inspect.x86.test_oops import explained, lines, mutated

READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
ZEROS = dict.fromkeys(("pgd", "p4d", "pud"), 0)

SAID: dict[str, dict[str, Any]] = {
    "NULL": {
        "what": "An oops of Linux on RISC-V, of swapper/0",
        "address": 0x368,
        "code": 15,
        "instruction": 0xFFFF_FFFF_803F_B8A4,
        "mode": Mode.SV39,
        "entries": tuple(ZEROS.items()),
        "registers": {"mstatus": 0, "satp": 8 << 60 | 0x814F1},
        "accesses": (Access(WRITE, False),),
    },
    "FIVE": {
        "address": 0xFFFF_FFFF_A38D_BF58,
        "code": 13,
        "mode": Mode.SV57,
        "entries": (
            *(("pgd", 0x1_1FFF_D801), ("p4d", 0x1_1FFF_D401)),
            *(("pud", 0x1_1FFF_D001), ("pmd", 0)),
        ),
        "registers": {"mstatus": 0, "satp": 10 << 60 | 0x1109CC},
    },
    "OLD": {"address": 0xFFFF_FFFF_8120_1220, "code": 15, "mode": None, "entries": ()},
    "OLDEST": {
        "address": 0xDEAD_BEEF,
        "code": 13,
        "instruction": 0xFFFF_FFE0_0020_0012,
        "accesses": (Access(READ, False),),
    },
    "REFUSED": {
        "what": "A load access fault that Linux on RISC-V reports, of swapper",
        "address": 0xFF20_0000_0000_5000,
        "code": 5,
    },
    "SIGNAL": {
        "what": "Signal 11, which a process does not handle: Linux on RISC-V, of init",
        "address": 8,
        "code": 13,
        "accesses": (Access(READ, True),),
    },
    "SIGNAL_32": {"address": 2, "code": 15, "instruction": 0x12C90},
    "MAILED": {"address": 0x6C_6B6A_6968, "code": 12, "accesses": (Access(FETCH, True),)},
    "OPENSBI": {
        "what": "A trap that OpenSBI does not handle",
        "address": 0x4004_8060,
        "code": 5,
        "instruction": 0x8020_4CAC,
        "accesses": (Access(READ, False),),
        "notes": ("It came from S-mode, by mstatus.MPP=1.",),
    },
    "QEMU": {
        "what": "The last of 2 faults in a log of QEMU",
        "address": 0x5000_1234,
        "code": 15,
        "instruction": 0x8000_0098,
        "accesses": (Access(WRITE, True), Access(WRITE, False)),
    },
    "QEMU_32": {"address": 0x5000_1234, "code": 15, "instruction": 0x8000_0098},
    "REGISTERS": {
        "what": "Registers as QEMU shows them",
        "address": 0x5000_1234,
        "code": 13,
        "instruction": 0x8000_00A0,
        "registers": {"satp": 8 << 60 | 0x80001, "mstatus": 1 << 18},
        "accesses": (Access(READ, False),),
    },
    "GDB": {"what": "Registers as gdb shows them", "address": 0x5000_1234, "code": 13},
    "FIRMWARE_FIRST": {"address": 0x368, "code": 15, "mode": Mode.SV39},
}


@pytest.mark.parametrize("name", SAID)
def test_every_form_is_read_for_what_it_says(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    assert {key: getattr(report, key) for key in SAID[name]} == SAID[name]
    assert report.linux == (name not in ("OPENSBI", "QEMU", "QEMU_32", "REGISTERS", "GDB"))


@pytest.mark.parametrize(
    ("arch", "texts"), [("riscv", oopses.EVERY), ("x86", of_x86.EVERY), ("arm64", of_arm64.EVERY)]
)
def test_the_text_tells_its_architecture(arch: str, texts: dict[str, str]) -> None:
    assert {name: architecture_of(text) for name, text in texts.items()} == dict.fromkeys(
        texts, arch
    )
    assert architecture_of("nothing of the kind") == "x86"


@pytest.mark.parametrize(("length", "arch"), [(4096, "riscv"), (4097, "x86")])
def test_a_line_tells_nothing_behind_its_first_4096_characters(length: int, arch: str) -> None:
    assert architecture_of("badaddr: 00000368".rjust(length)) == arch


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NULL", "likely the address: a null pointer, with a member's offset of 0x368"),
        ("NULL", "because the PTE at 0x814f1000, level 2, holds 0x0000000000000000"),
        ("FIVE", "because the PTE at 0x47fff48e0, level 1, holds 0x0000000000000000"),
        ("FIVE", "These entries give this fault."),
        ("USERS", "because the PTE at 0x82802a50, level 0, holds 0x0000000020c000d7"),
        ("USERS", "or mstatus.SUM: 0 -> 1 (0x0 -> 0x40000)"),
        ("OLD", "store/AMO page fault (cause 15), stval 0xffffffff81201220"),
        ("OLD", "Note: It came from S-mode, by mstatus.SPP=1."),
        ("REFUSED", "load access fault (cause 5), stval 0xff20000000005000"),
        ("QEMU", "Note: The log does not say who made the access."),
    ],
)  # fmt: skip
def test_a_report_is_explained_without_any_source(name: str, said: str) -> None:
    found = lines(oopses.EVERY[name])
    assert said in found, found


def ram(directory: Path, pte: int) -> tuple[object, ...]:
    """The tables of USERS in a file of memory, from 0x80000000 on, with a PTE of its own."""
    octets = bytearray(64 << 20)
    # The root is at 0x81f00000, and the entries lead to 0x82801000 and 0x82802000.
    for place, index, raw in (
        (0x81F0_0000, 0x3F_9C14_A120 >> 30, 0x20A0_0401),
        (0x8280_1000, 0x3F_9C14_A120 >> 21 & 511, 0x20A0_0801),
        (0x8280_2000, 0x3F_9C14_A120 >> 12 & 511, pte),
    ):
        at = place - 0x8000_0000 + index * 8
        octets[at : at + 8] = raw.to_bytes(8, "little")
    (directory / "ram").write_bytes(octets)
    return "--ram", f"{directory / 'ram'}@0x80000000"


def test_with_a_source_it_is_said_whether_the_tables_agree(tmp_path: Path) -> None:
    agreed = lines(oopses.USERS, *ram(tmp_path, 0x20C0_00D7))
    assert any("has the same entries" in line or "the same" in line for line in agreed), agreed
    other = lines(oopses.USERS, *ram(tmp_path, 0x20C0_00C7))
    assert any("0x0000000020c000c7" in line for line in other), other
    answer = json.loads(explained(oopses.USERS, *ram(tmp_path, 0x20C0_00C7), "--json")[1])
    assert (answer["given"], answer["seen"]["cause"]) == (True, 13)
    assert answer["agreement"] is not None


def test_registers_are_explained_by_the_tables_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 20))
    source = ("--ram", f"{tmp_path / 'ram'}@0x80000000")
    found = lines(oopses.REGISTERS, *source)
    assert found[0] == (
        f"{tmp_path / 'ram'}@0x80000000, satp 0x8000000000080001 (Sv39, root at 0x80001000)"
    )
    assert "supervisor read at 0x50001234: load page fault (cause 13), stval 0x50001234" in found
    code, out, errors = explained(oopses.REGISTERS, "--layout", "smallest")
    assert (code, out) == (2, "") and "the text is of RISC-V, and layout smallest" in errors
    code, out, errors = explained(oopses.REGISTERS, "--cr3", "0x1000")
    assert (code, out) == (2, "") and "is of RISC-V, where --cr3 means nothing" in errors


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (oopses.REFUSED.replace("0000005\n", "0000002\n"), "no fault of translation: cause 0x2"),
        (oopses.OPENSBI.replace("00820", "01820"), "the trap is of M-mode itself"),
        (
            "status: 00000020 badaddr: 00000002 cause: 0000000f\n",
            "no fault of RISC-V that is",
        ),
        (
            of_x86.POWER,
            "the text is of Linux on another architecture: those of x86, RISC-V and arm64 are",
        ),
    ],
)
def test_a_text_that_cannot_be_explained_is_a_sentence(text: str, sentence: str) -> None:
    code, out, errors = explained(text)
    assert (code, out) == (2, "") and sentence in errors and errors.count("\n") == 1


def test_registers_that_tell_no_fault_say_what_follows() -> None:
    found = lines(oopses.REGISTERS.replace("000d\n", "0008\n"))
    assert "Addresses are translated by Sv39, with the root's table at 0x80001000." in found
    assert "Of the last traps scause is 8 and mcause is 0." in found


@pytest.mark.parametrize("name", oopses.EVERY)
def test_the_object_says_the_same(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    code, out, errors = explained(oopses.EVERY[name], "--json")
    assert (code, errors) == (0, "")
    answer = json.loads(out)
    assert answer["report"] == report.what
    assert answer["seen"]["cause"] == report.code
    assert answer["given"] == (True if report.entries else None)


@pytest.mark.parametrize("name", oopses.EVERY)
def test_a_text_that_is_changed_or_cut_is_a_sentence_or_an_answer(name: str) -> None:
    source = random.Random(name)
    for number in range(60):
        text = mutated(source, oopses.EVERY[name])
        try:
            report = oops.read(text)
        except QuestionError as error:
            assert "\n" not in str(error)
            continue
        assert isinstance(report, Report)
        if number % 6 == 0:
            code, out, errors = explained(text)
            assert "report it" not in errors, (text, errors)
            assert (code == 0 and out and not errors) or (
                code == 2 and not out and errors.count("\n") == 1
            ), (text, errors)


@pytest.mark.parametrize(
    "text",
    [
        oopses.NULL * 1000,
        oopses.QEMU * 1000,
        "A" * (2 << 20),
        ("a" * 4000 + "\n") * 500,
        "Unable to handle kernel paging request at virtual" + " " * 4000 + "\n" * 25_000,
        "[0000000000000368] pgd=0 " * (1 << 15),
    ],
    ids=range(6),
)
def test_a_long_text_takes_little_time(text: str) -> None:
    began = time.process_time()
    architecture_of(text)
    with contextlib.suppress(QuestionError):
        oops.read(text)
    assert time.process_time() - began < 5


def test_the_address_is_what_the_report_begins_with_or_else_that_of_the_trap() -> None:
    assert "badaddr: 0000000000000368" in oopses.NULL
    other = oopses.NULL.replace("badaddr: 0000000000000368", "badaddr: 0000000000000777")
    assert oops.read(other).address == 0x368
    head = "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000368"
    assert head in other
    assert oops.read(other.replace(head, head.replace("address 0", "addr 0"))).address == 0x777


def test_further_reports_are_counted() -> None:
    assert not any("The text has" in note for note in oops.read(oopses.NULL).notes)
    for more in (1, 2):
        found = oops.read(oopses.NULL + more * oopses.OLD)
        assert found.address == 0x368
        assert found.notes[0].startswith(f"The text has {more} more: the first is explained")


def test_entries_without_an_address_or_an_address_without_entries_are_no_walk() -> None:
    report = oops.read(oopses.NULL)
    assert oops.alone(report, "it", {}) is not None
    for less in (replace(report, address=None), replace(report, entries=())):
        assert oops.alone(less, "it", {}) is None


BY_S, BY_U = "It came from S-mode, by mstatus.SPP=1.", "It came from U-mode, by mstatus.SPP=0."
UNTOLD = "The log does not say who made the access."
LINUX = "An oops of Linux on RISC-V, of"
SIGNAL = "Signal 11, which a process does not handle: Linux on RISC-V, of"

TOLD = {
    "NULL": (f"{LINUX} swapper/0", (BY_S,)),
    "FIVE": (f"{LINUX} test_progs", (BY_S,)),
    "USERS": (f"{LINUX} cat", (BY_S,)),
    "OLD": (f"{LINUX} swapper/0", (BY_S,)),
    "OLDEST": ("An oops of Linux on RISC-V", (BY_S,)),
    "REFUSED": ("A load access fault that Linux on RISC-V reports, of swapper", (BY_S,)),
    "SIGNAL": (f"{SIGNAL} init", (BY_U,)),
    # And what a console printed right before it.
    "SIGNAL_32": (f"{SIGNAL} gettimeofday_bad1init", (BY_U,)),
    "MAILED": (f"{SIGNAL} systemd", (BY_U,)),
    "QEMU": ("The last of 2 faults in a log of QEMU", (UNTOLD,)),
    "QEMU_32": ("A fault in QEMU's log", (UNTOLD,)),
    "REGISTERS": ("Registers as QEMU shows them", (BY_S,)),
    "GDB": ("Registers as gdb shows them", (BY_S,)),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_a_text_is_and_by_whom_the_access_was_is_told(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    assert (report.what, report.notes) == TOLD[name]
    if BY_S in report.notes or BY_U in report.notes:
        assert {one.user for one in report.accesses} == {BY_U in report.notes}
    else:
        assert {one.user for one in report.accesses} == {False, True}


@pytest.mark.parametrize("name", TOLD)
def test_the_accesses_that_are_shown_are_of_those_by_whom_it_was(name: str) -> None:
    """With the entries and without."""
    notes = oops.read(oopses.EVERY[name]).notes
    users = {"user": BY_S not in notes, "supervisor": BY_U not in notes}
    found = lines(oopses.EVERY[name])
    [line] = [one for one in found if one.startswith("access ")]
    assert {user: f"{user} " in line for user in users} == users


def test_an_instruction_access_fault_has_another_article() -> None:
    text = oopses.REFUSED.replace("load access", "instruction access").replace("05\n", "01\n")
    assert oops.read(text).what.startswith("An instruction access fault that Linux on RISC-V")
    amo = oopses.REFUSED.replace("load access", "store (or AMO) access").replace("05\n", "07\n")
    report = oops.read(amo)
    assert report.what.startswith("A store (or AMO) access fault that Linux on RISC-V reports")
    assert report.accesses == (Access(WRITE, False),)


def test_without_a_status_either_may_have_made_the_access() -> None:
    bare = oopses.OLD.replace("status: 0000000000000120 ", "")
    report = oops.read(bare)
    assert report.accesses == (Access(WRITE, True), Access(WRITE, False))
    assert (report.registers, report.notes) == ({}, ())
    signal = re.sub(r"status: [0-9a-f]+ ", "", oopses.SIGNAL)
    assert oops.read(signal).accesses == (Access(READ, True),)
    without = oopses.OLD.replace(" cause: 000000000000000f", "")
    report = oops.read(without)
    assert (report.code, report.accesses, report.notes) == (None, (), ())


def test_of_the_state_of_a_hart_what_decides_accesses_is_kept() -> None:
    bits = oopses.OLD.replace("status: 0000000000000120", "status: 00000000000c6120")
    assert oops.read(bits).registers == {"mstatus": 0xC_0000}
    more = oopses.REGISTERS + " menvcfg  4000000000000000\n senvcfg  0000000200000000\n"
    assert oops.read(more).registers == {
        "satp": 8 << 60 | 0x80001,
        "mstatus": 1 << 18,
        "menvcfg": 1 << 62,
        "senvcfg": 2 << 32,
    }


@pytest.mark.parametrize(
    ("line", "mode", "satp"),
    [
        ("4K pagesize, 39-bit VAs, pgdp=0x00000000814f1000", Mode.SV39, 8 << 60 | 0x814F1),
        ("4K pagesize, 48-bit VAs, pgdp=0x00000000814f1000", Mode.SV48, 9 << 60 | 0x814F1),
        ("4K pagesize, 32-bit VAs, pgdp=0x814f1000", Mode.SV32, 1 << 31 | 0x814F1),
        ("4K pagesize, 39-bit VAs, pgdp=0x00000000814f1008", Mode.SV39, None),
        ("4K pagesize, 39-bit VAs, pgdp=0x0100000000000000", Mode.SV39, None),
        ("4K pagesize, 41-bit VAs, pgdp=0x00000000814f1000", None, None),
    ],
)
def test_the_tables_are_those_that_linux_names(
    line: str, mode: Mode | None, satp: int | None
) -> None:
    text = oopses.NULL.replace("4K pagesize, 39-bit VAs, pgdp=0x00000000814f1000", line)
    report = oops.read(text)
    assert (report.mode, report.registers.get("satp")) == (mode, satp)


def test_registers_behind_the_last_fault_of_a_log_are_the_hart_s() -> None:
    before = oopses.REGISTERS.replace("80001\n", "80077\n")
    report = oops.read(before + oopses.QEMU + oopses.REGISTERS)
    assert report.what == TOLD["QEMU"][0]
    assert report.registers == {"satp": 8 << 60 | 0x80001, "mstatus": 1 << 18}
    assert oops.read(before + oopses.QEMU).registers == {}
    far = oopses.QEMU + LONGEST_REPORT * "nothing\n" + oopses.REGISTERS
    assert oops.read(far).registers == {}


def test_of_several_traps_of_firmware_the_last_is_told_and_of_nested_ones_the_innermost() -> None:
    report = oops.read(oopses.OPENSBI + oopses.OPENSBI.replace("40048060", "40048068"))
    assert report.address == 0x4004_8068
    nested = oopses.OPENSBI.replace("0000000000000009", "000000000000000d")
    assert (oops.read(nested).code, oops.read(nested).instruction) == (5, 0x8020_4CAC)
    without = oopses.OPENSBI.replace("mtval=", "value=")
    with pytest.raises(QuestionError, match=r"no fault of RISC-V"):
        oops.read(without)


def test_the_trap_of_supervisor_mode_is_told_before_that_of_the_machine() -> None:
    both = oopses.REGISTERS.replace("mcause   0000000000000000", "mcause   0000000000000007")
    assert oops.read(both).code == 13
    machine = both.replace("scause   000000000000000d", "scause   0000000000000009")
    machine = machine.replace("mtval    0000000000000000", "mtval    0000000000004321")
    machine = machine.replace("a000401a0", "a000409a0")
    report = oops.read(machine)
    assert (report.code, report.address, report.instruction) == (7, 0x4321, 0x98)
    assert report.notes == ("It came from S-mode, by mstatus.MPP=1.",)


def test_registers_without_a_trap_are_facts() -> None:
    quiet = oopses.REGISTERS.replace("scause   000000000000000d", "scause   0000000000000009")
    found = oops.facts(oops.read(quiet))
    assert found.told == (
        "Addresses are translated by Sv39, with the root's table at 0x80001000.",
        "Of the last traps scause is 9 and mcause is 0.",
    )
    assert found.missing[0].startswith("The last trap is no fault of translation")
    off = quiet.replace("satp     8000000000080001", "satp     0000000000000000")
    assert oops.facts(oops.read(off)).told[0] == (
        "No address is translated, or satp is not in the text."
    )
    odd = quiet.replace("satp     8000000000080001", "satp     3000000000080001")
    assert oops.facts(oops.read(odd)).told[0].startswith("No hart translates so: satp 0x3000")
    narrow = Report("x", registers={"satp": 1 << 31 | 5}, rest={"scause": 1 << 31 | 5})
    assert oops.facts(narrow).told == (
        "Addresses are translated by Sv32, with the root's table at 0x5000.",
        "Of the last traps scause is that of interrupt 5.",
    )
    wide = Report("x", registers={"satp": 8 << 60 | 5}, rest={"scause": 1 << 63 | 5})
    assert oops.facts(wide).told[1] == "Of the last traps scause is that of interrupt 5."
    of_none = Report("x", rest={"mcause": 1 << 63 | 7})
    assert oops.facts(of_none).told[1] == "Of the last traps mcause is that of interrupt 7."


def test_a_hart_of_which_a_text_says_little_is_one_of_sv39() -> None:
    for report, given, mode, said in (
        (Report("x"), {}, Mode.SV39, "the mode is Sv39"),
        (Report("x", mode=Mode.SV57), {}, Mode.SV57, None),
        (Report("x"), {"satp": 9 << 60 | 5}, Mode.SV48, None),
        (Report("x", registers={"satp": 10 << 60 | 5}), {}, Mode.SV57, None),
        (Report("x", registers={"satp": 8 << 60}), {"satp": 9 << 60 | 5}, Mode.SV48, None),
    ):
        cpu, assumed = oops.bare(report, given)
        assert cpu.mode is mode
        assert (assumed[0] if assumed and "mode is" in assumed[0] else None) == said
        assert any("since the text does not record them" in one for one in assumed)
        assert cpu.base == (0x5000 if "satp" in {**report.registers, **given} else 0)
