"""Texts of crashes on arm64 are read as they were written, and explained by entries, by tables
or by both."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.inspect.arm64 import oops
from harness.inspect.arm64.entries import Tables
from harness.inspect.oops import LONGEST_REPORT, Report, architecture_of
from harness.inspect.snapshot import QuestionError
from tests.cli.commands import run
from tests.inspect.arm64 import oopses
from tests.inspect.x86.test_oops import explained, lines, mutated

SAID: dict[str, dict[str, Any]] = {
    "NULL": {
        "what": "An oops of Linux on arm64, of systemd",
        "address": 0x10,
        "code": 0x9600_0004,
        "mode": Tables("4K", 48, False, 0x1_00AB_5000),
        "entries": (("pgd", 0), ("p4d", 0)),
        "registers": {"pstate": 0x40_0005},
    },
    "KERNELS": {
        "address": 0xFFFF_8000_8001_2000,
        "code": 0x9600_004F,
        "mode": Tables("4K", 48, True, 0x41A3_E000),
    },
    "FETCH": {
        "address": 0,
        "code": 0x8600_0005,
        "mode": Tables("64K", 48, False, 0x1_0105_0000),
        "registers": {},
    },
    "QEMU": {
        "what": "An abort in QEMU's log",
        "address": 0xFFFF_0000_0000_0000,
        "code": 0x9600_0045,
        "instruction": 0xFFFF_0000_8000_01C4,
    },
    "OLD": {
        "address": 0xFFFF_8000_0A00_0000,
        "code": 0x9600_0046,
        "mode": None,
        "entries": (("pgd", 0x7FFF_6003), ("pud", 0x7FFF_5003), ("pmd", 0)),
    },
    "CONFLICT": {
        "address": 0xFFFF_8000_80A0_0000,
        "code": 0x9600_0030,
        "mode": ("4K", 48, True, 0x428B_1000),
    },
}


@pytest.mark.parametrize("name", SAID)
def test_every_form_is_read_for_what_it_says(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    assert {key: getattr(report, key) for key in SAID[name]} == SAID[name]
    assert report.linux == (name != "QEMU")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NULL", "because the L0 at 0x100ab5000, level 0, holds 0x0000000000000000"),
        ("NULL", "likely the address: a null pointer, with a member's offset of 0x10"),
        ("NULL", "These entries give this fault."),
        ("KERNELS", "because the L3 at 0x421fd090, level 3, holds 0x0060000040012783"),
        ("KERNELS", "These entries give this fault."),
        ("FETCH", "because the L1 at 0x101050000, level 1, holds 0x0000000000000000"),
        ("QEMU", "data abort, translation fault at L1 (ESR 0x96000045), FAR 0xffff000000000000"),
    ],
)
def test_a_report_is_explained_without_any_source(name: str, said: str) -> None:
    found = lines(oopses.EVERY[name])
    assert said in found, found


def test_the_first_of_several_reports_is_read_and_the_others_are_counted() -> None:
    assert oops.read(oopses.KERNELS).notes == ()
    [said] = oops.read(oopses.KERNELS + oopses.NULL + oopses.FETCH).notes
    assert "2" in said
    assert oops.read(oopses.KERNELS + oopses.NULL).address == SAID["KERNELS"]["address"]


def test_a_report_begins_where_anything_of_it_is_first_told() -> None:
    """Behind any number of lines of others: at its entries, its tables or its ESR."""
    lines = oopses.KERNELS.splitlines(keepends=True)
    entries = next(number for number, line in enumerate(lines) if "pgd=" in line)
    for first in (entries - 1, entries, entries + 1):
        left, others = "".join(lines[first:]), "usb 1-1: new device\n" * LONGEST_REPORT
        report = oops.read(others + left)
        assert report.code == 0x9600_004F
        assert (report.mode is None) == (first > entries - 1)
        assert bool(report.entries) == (first <= entries) and report == oops.read(left)


def test_the_last_of_the_aborts_that_qemu_logs_is_taken_and_they_are_counted() -> None:
    again = oopses.QEMU.replace("0x96000045", "0x96000046")
    for text, what, code in (
        (oopses.QEMU, "An abort in QEMU's log", 0x9600_0045),
        (oopses.QEMU + again, "The last of 2 aborts in a log of QEMU", 0x9600_0046),
        (oopses.QEMU + again + oopses.QEMU, "The last of 3 aborts in a log of QEMU", 0x9600_0045),
    ):
        report = oops.read(text)
        assert (report.what, report.code) == (what, code)


@pytest.mark.parametrize("name", [name for name in SAID if "at virtual" in oopses.EVERY[name]])
def test_the_address_is_that_of_the_first_line_where_no_walk_is_printed(name: str) -> None:
    lines = oopses.EVERY[name].splitlines(keepends=True)
    left = "".join(line for line in lines if "pgd=" not in line)
    assert left != oopses.EVERY[name] and oops.read(left).entries == ()
    assert oops.read(left).address == oops.read(oopses.EVERY[name]).address is not None


@pytest.mark.parametrize("exception", range(0x1E, 0x28))
def test_aborts_of_qemu_s_log_are_those_of_four_classes(exception: int) -> None:
    text = oopses.QEMU.replace("0x96000045", hex(exception << 26 | 1 << 25 | 0x45))
    if exception in (0x20, 0x21, 0x24, 0x25):
        assert oops.read(text).code == exception << 26 | 1 << 25 | 0x45
    else:
        with pytest.raises(QuestionError):
            oops.read(text)


def test_a_report_without_an_address_or_entries_has_no_tables() -> None:
    report = oops.read(oopses.NULL)
    usual = "pages are of 4K, and addresses of 48 bits"
    for text, printed in ((oopses.NULL, True), (oopses.OLD, False)):
        made = oops.alone(oops.read(text), "made", {})
        assert made is not None and (made.assumed[0] == usual) is not printed
    assert oops.alone(replace(report, address=None), "made", {}) is None
    assert oops.alone(replace(report, entries=()), "made", {}) is None
    found = oops.facts(report)
    assert found.missing == ("The text has no ESR, by which an abort is told.",)
    assert (found.told, found.address) == ((), None)


def test_a_processor_of_a_report_has_its_tables_or_the_usual() -> None:
    cpu, said = oops.bare(oops.read(oopses.FETCH), {})
    assert cpu.low is not None and (cpu.low.granule, cpu.low.address_bits) == ("64K", 48)
    assert (cpu.ttbr0, cpu.high, said) == (0x1_0105_0000, None, [])
    cpu, said = oops.bare(oops.read(oopses.QEMU), {})
    assert cpu.low is not None and (cpu.low.granule, cpu.low.address_bits) == ("4K", 48)
    assert said == ["pages are of 4K, and addresses of 48 bits"]


@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("name", ["NULL", "KERNELS", "CONFLICT"])
def test_a_report_whose_first_lines_are_cut_off_says_the_same(name: str, cut: int) -> None:
    whole = oopses.EVERY[name]
    left = "".join(whole.splitlines(keepends=True)[cut:])
    assert architecture_of(left) == "arm64"
    assert oops.read(left) == oops.read(whole)


def test_an_abort_of_a_program_is_explained_by_its_esr() -> None:
    text = (
        "prog[231]: unhandled exception: DABT (lower EL), ESR 0x0000000092000046, level 2"
        " translation fault in prog[400000+1000]\n"
        "pstate: 80001000 (Nzcv daif -PAN -UAO -TCO -DIT +SSBS BTYPE=--)\n"
    )
    assert architecture_of(text) == "arm64"
    code, out, errors = explained(text)
    assert (code, out) == (2, "")
    assert "`pagetable fault --esr 0x0000000092000046` shows what its ESR says" in errors


def test_an_oops_of_32_bits_is_another_machine_s() -> None:
    text = "[00000000] *pgd=00000000\nInternal error: Oops: 80000005 [#1] PREEMPT SMP ARM\n"
    assert architecture_of(text) != "arm64"


def test_with_a_source_it_is_said_whether_the_tables_agree(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 16))
    found = lines(oopses.NULL, "--ram", f"{tmp_path / 'ram'}@0x100ab5000")
    assert f"{tmp_path / 'ram'}@0x100ab5000 holds the same entries." in found
    (tmp_path / "ram").write_bytes(b"\3" + bytes(0xFFFF))
    found = lines(oopses.NULL, "--ram", f"{tmp_path / 'ram'}@0x100ab5000")
    assert not any("holds the same entries" in line for line in found)
    assert (
        f"{tmp_path / 'ram'} has no memory at 0x100ab5000, where the root's table would be: is it"
        " of this crash?"
    ) in lines(oopses.NULL, "--ram", f"{tmp_path / 'ram'}@0x0")
    code, _, errors = explained(oopses.NULL, "--layout", "smallest")
    assert code == 2 and "the text is of arm64, and layout smallest" in errors


def test_entries_are_taken_with_the_registers_of_their_half(tmp_path: Path) -> None:
    asked = ("walk", "0xffff800080012000", "--tcr", "0x580100010")
    way = ("--entries", "pgd=421ff003 pud=421fe003 pmd=421fd003 pte=60000040012783")
    code, out, errors = run(*asked, *way, cwd=tmp_path)
    assert (code, errors) == (0, "") and "0xffff800080012000: 0x40012000, in a 4K page" in out


@pytest.mark.parametrize("name", oopses.EVERY)
def test_the_object_says_the_same(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    code, out, errors = explained(oopses.EVERY[name], "--json")
    assert (code, errors) == (0, "")
    answer = json.loads(out)
    assert (answer["report"], answer["seen"]["esr"]) == (report.what, hex(report.code or 0))
    assert answer["given"] == (name != "CONFLICT" if report.entries else None)


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
        if number % 3 == 0:
            code, out, errors = explained(text)
            assert "report it" not in errors, (text, errors)
            assert (code == 0 and out and not errors) or (
                code == 2 and not out and errors.count("\n") == 1
            ), (text, errors)
