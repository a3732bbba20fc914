"""Texts of crashes are read as they were written, whatever stands around them; and no text, however
it is cut or changed, is more than a sentence or a bounded answer."""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import application
from harness.inspect.oops import Report
from harness.inspect.snapshot import QuestionError
from harness.inspect.x86 import oops
from harness.paging.x86.cpu import Mode
from tests.cli.commands import run
from tests.inspect.sources.test_core import note, written
from tests.inspect.x86 import oopses


def explained(text: str | bytes, *options: object) -> tuple[int, str, str]:
    """What `fault --oops -` makes of a text."""
    asked = ["fault", "--oops", "-", *map(str, options)]
    ended = CliRunner().invoke(application(asked[0]), asked, input=text)
    return ended.exit_code, ended.stdout, ended.stderr


def lines(text: str | bytes, *options: object) -> list[str]:
    code, out, errors = explained(text, *options)
    assert (code, errors) == (0, ""), errors
    return [" ".join(line.split()) for line in out.splitlines()]


GOOD = {"PGD": 0x2A0_1067, "P4D": 0x2A0_1067, "PUD": 0x2A0_5067, "PMD": 0x7FD3_6067}

READ: dict[str, dict[str, Any]] = {
    "INVERTED": {
        "address": 0xFFFF_8880_58A6_7000,
        "code": 0x0B,
        "mode": Mode.LEVEL_4,
        "entries": tuple({**GOOD, "PTE": 0x800F_FFFF_A759_8063}.items()),
        "registers": {
            **{"cr0": 0x8005_0033, "cr3": 0x2A0_0000, "cr4": 0x6E0, "ac": False}
        },
        "rest": {"cr2": 0xFFFF_8880_58A6_7000, "rsp": 0xFFFF_C900_001F_7CD8},
    },
    "FIVE": {
        "address": 0xFF11_0002_1234_5678,
        "code": 0,
        "mode": Mode.LEVEL_5,
        "entries": (("PGD", 0x3C0_1067), ("P4D", 0x3C0_2067), ("PUD", 0)),
    },
    "OLD64": {
        "address": 0x2AAA_AAAB_F800,
        "code": 0x0D,
        "instruction": 0x10_0562,
        "mode": Mode.LEVEL_4,
        "entries": (
            *(("PGD", 0x8A98_3067), ("PUD", 0xC7E5_A067), ("PMD", 0x9158_8067)),
            ("PTE", 0xFFFF_FFFF_8048_A025),
        ),
    },
    "OLD32": {
        "address": 0x14,
        "code": 2,
        "instruction": 0xC01A_2B3C,
        "mode": Mode.BITS_32,
        "entries": (("*pde", 0),),
    },
    "PAE": {
        "address": 0xF7C0_4567,
        "code": 3,
        "instruction": 0xC12A_0B10,
        "mode": Mode.PAE,
        "entries": (
            *(("*pdpt", 0x1A6_E001), ("*pde", 0x37C1_0067)),
            ("*pte", 0x8000_0000_37C0_4061),
        ),
        "registers": {
            **{"cr0": 0x8005_003B, "cr3": 0x1A6_C000, "cr4": 0x4_07F0, "ac": False}
        },
    },
    "FOUR": {"address": 0, "code": 0x10, "entries": (("PGD", 0), ("P4D", 0))},
    "FIVE_ZERO": {
        "address": 0xFFFF_FFFF_81A0_0000,
        "code": 3,
        "entries": (
            *(("PGD", 0x260_E067), ("P4D", 0x260_E067), ("PUD", 0x260_F063)),
            ("PMD", 0x80_0000_01A0_01E1),
        ),
    },
    "UNREAD": {
        "code": 9,
        "entries": (("PGD", 0x2E2E_2E2E_2E20_5D31), ("P4D", 0x2E2E_2E2E_2E20_5D31)),
    },
    "WRAPPED": {
        "address": 0x7A1A_A830_0000,
        "code": 0x0F,
        "instruction": 0x7A1A_A8FA_08AC,
        "entries": (
            *(("PGD", 0x1_0929_A067), ("P4D", 0x1_0929_A067), ("PUD", 0x1_8C20_A067)),
            *(("PMD", 0x1_079B_5067), ("PTE", 0x8000_467C_4A5C_9237)),
        ),
    },
    "BAD_MAP": {
        "address": 0x7F5D_38A0_7000,
        "code": None,
        "entries": (("pmd", 0x2D5F_0067), ("pte", 0x1_0000)),
    },
    "BAD_MAP_NEW": {
        "address": 0x7F1B_5D2C_3000,
        "code": None,
        "entries": (
            *(("pgd", 0x1_1E6C_8067), ("p4d", 0x1_1E6C_8067), ("pud", 0x1_0B3A_2067)),
            *(("pmd", 0x1_0F2F_1067), ("pte", 0x8000_0D00_404D_8067)),
        ),
    },
    "HASHED": {"address": None, "entries": (("pmd", 0x2D5F_0067), ("pte", 0x8000_0001_2345_A867))},
    "SEGFAULT": {
        "address": 0x75B8_0000_0034,
        "code": 4,
        "instruction": 0x75B8_6B22_D5AA,
        "entries": (),
        "rest": {"rip": 0x75B8_6B22_D5AA, "cpl": 3},
    },
    "TRIPLE": {
        "address": 0x10_0083,
        "code": 0,
        "instruction": 0x10_0083,
        "entries": (),
        "registers": {
            **{"cr0": 0x8001_0011, "cr3": 0x10_1000, "cr4": 0x20, "efer": 0x500, "ac": False}
        },
    },
    "REGISTERS": {
        "address": None,
        "code": None,
        "registers": {"cr0": 0x8001_0011, "cr3": 0x1000, "cr4": 0, "efer": 0, "ac": False},
        "rest": {"cr2": 0x10_0026, "rip": 0x10_0026, "cpl": 0},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_every_form_is_read_for_what_it_says(name: str) -> None:
    report = oops.read(oopses.EVERY[name])
    assert {key: getattr(report, key) for key in READ[name]} == READ[name]
    assert report.linux == (name not in ("TRIPLE", "REGISTERS"))


UNPRINTED = oopses.FIVE_ZERO.partition("Oops:")[0]
"""Linux 5.0, cut before it prints the error code as a number."""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("[PROT] [WRITE]", 0x3),
        ("[PROT] [USER] [INSTR]", 0x15),
        ("[PROT] [RSVD]", 0x9),
        ("[PROT] [PK]", 0x21),
        ("[PROT] [NEW]", 0x1),
        ("[normal kernel read fault]", 0x0),
    ],
)
def test_bits_of_the_error_code_are_read_by_their_names(words: str, code: int) -> None:
    assert oops.read(UNPRINTED.replace("[PROT] [WRITE]", words)).code == code


def test_the_privilege_of_the_code_is_that_of_its_selector() -> None:
    for selector, privilege in ("0010", 0), ("0033", 3), ("0061", 1):
        found = oops.read(f"{oopses.FIVE_ZERO}RIP: {selector}:0xffffffff81000040\n")
        assert (found.instruction, found.rest["cpl"]) == (0xFFFF_FFFF_8100_0040, privilege)


def test_alignment_checks_are_on_where_bit_18_of_eflags_is_set() -> None:
    for flags, on in ("00040246", True), ("00020246", False), ("00080246", False):
        assert oops.read(f"{oopses.FIVE_ZERO}EFLAGS: {flags}\n").registers["ac"] is on


def test_a_report_says_what_it_is_and_whose() -> None:
    whose = "CPU: 0 PID: 412 Comm: a program Not tainted 5.0.0 #1\n"
    assert oops.read(oopses.FIVE_ZERO).what == "An oops of Linux"
    assert oops.read(oopses.FIVE_ZERO + whose).what == "An oops of Linux, of a program"
    corrupt = "bash: Corrupted page table at address 7f0000000000\n"
    assert oops.read(corrupt).what == "A corrupted page table that Linux reports"
    assert oops.read(corrupt + whose).what.endswith(" that Linux reports, of a program")


@pytest.mark.parametrize(("entry", "mode"), [("08000025", Mode.BITS_32), ("100000025", Mode.PAE)])
def test_a_bad_map_of_a_32_bit_process_is_of_pae_where_an_entry_is_wider(
    entry: str, mode: Mode
) -> None:
    text = (
        f"BUG: Bad page map in process cat  pte:{entry} pmd:01a2b067\n"
        "addr:b7700000 vm_flags:00000075 anon_vma:00000000 mapping:00000000 index:0\n"
    )
    assert oops.read(text).mode is mode


def exception(vector: int, code: int, pc: int) -> str:
    """An exception as QEMU logs it."""
    where = f"IP=0008:{pc:016x} pc={pc:016x} SP=0010:0000000000007b60"
    return f"     1: v={vector:02x} e={code:04x} i=0 cpl=0 {where} CR2={pc:016x}\n"


def test_exceptions_belong_together_where_one_came_of_delivering_the_other() -> None:
    absent, fault = exception(11, 0x10, 0x1000), exception(14, 0x2, 0x2000)
    delivered = "check_exception old: 0xb new 0xe\n"
    alone = "check_exception old: 0xffffffff new 0xe\n"
    (note,) = oops.read(absent + delivered + fault).notes
    assert note == (
        "Each came of delivering the one before: #NP with error code 0x10 at 0x1000, then #PF with"
        " error code 0x2 at 0x2000."
    )
    for between in alone, "":
        assert oops.read(absent + between + fault).notes == ()
        assert oops.read(delivered + fault + between + fault).notes == ()
    after = oops.read(fault + alone.replace("0xe", "0xd") + exception(13, 0, 0x3000))
    assert (after.address, after.notes) == (0x2000, ())
    (note,) = oops.read(fault + exception(8, 0, 0x2000)).notes
    assert note.endswith("then #DF with error code 0x0 at 0x2000.")


@pytest.mark.parametrize("code", [0x2, 0x15, 0x8007])
def test_the_code_of_an_exception_is_in_sixteens(code: int) -> None:
    assert oops.read(exception(14, code, 0x2000)).code == code


def test_addresses_are_as_wide_as_can_be_where_no_code_says_that_one_is_too_wide() -> None:
    """As of a bad page map, which no access raised."""
    widths = set()
    for text in oopses.EVERY.values():
        try:
            report = oops.read(text)
        except QuestionError:  # of another architecture
            continue
        if report.entries and (made := oops.alone(report, "", {})) is not None:
            assert made.cpu.maxphyaddr == (52 if report.code is None else 40)
            widths.add(made.cpu.maxphyaddr)
    assert widths == {40, 52}


def test_without_entries_no_more_of_the_processor_is_known_than_its_mode() -> None:
    for text, paging in ((exception(14, 2, 0x2000), ["paging has 4 levels"]), (oopses.REMOVED, [])):
        report = oops.read(text)
        cpu, said = oops.bare(report, {})
        assert said == [*paging, f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr)"]
        cpu, said = oops.bare(report, {"maxphyaddr": 46})
        assert (cpu.maxphyaddr, said) == (46, paging)


def test_a_triple_fault_of_which_no_exception_is_logged_is_no_report() -> None:
    for text in "Triple fault\n", "check_exception old: 0x8 new 0xe\nTriple fault\n":
        with pytest.raises(QuestionError, match="none of the exceptions that led to it"):
            oops.read(text)
    assert oops.read("Triple fault\n" + exception(14, 0x2, 0x2000)).notes == ()


def dressed(text: str, how: str) -> str:
    """The text as another tool hands it on."""
    made = [
        {
            "serial": f"{line}\r",
            "journal": f"Nov 28 20:31:07 host kernel: {line}",
            "iso": f"2026-11-28T20:31:07.123456+00:00 host kernel[0]: [  1.5][  T412] {line}",
            "levels": f"<1>[    1.234567] {line}",
            "quoted": f"> > {line}",
            "coloured": f"\x1b[32m[    1.234567] \x1b[0m\x1b[31m{line}\x1b[0m",
            "pasted": f"    | {line}   ",
        }[how]
        for line in text.splitlines()
    ]
    return "\n".join(["something before", *made, "and after"])


@pytest.mark.parametrize(
    "how", ["serial", "journal", "iso", "levels", "quoted", "coloured", "pasted"]
)
def test_what_stands_around_the_lines_changes_nothing(how: str) -> None:
    for name in READ:
        text = oopses.EVERY[name]
        assert oops.read(dressed(text, how)) == oops.read(text), (name, how)


def test_of_several_reports_the_first_is_read_and_the_others_are_counted() -> None:
    both = oopses.INVERTED + oopses.NARROW
    first, alone = oops.read(both), oops.read(oopses.INVERTED)
    assert (first.address, first.entries) == (alone.address, alone.entries)
    assert first.notes == ("The text has 1 more: the first is explained, since others often come of"
                           " it.",)  # fmt: skip


def test_of_a_log_of_qemu_the_last_page_fault_counts_and_what_came_of_it_does_not() -> None:
    """The double fault is no page fault, and an interrupt that came before has no part in it."""
    report = oops.read(oopses.TRIPLE)
    assert report.what == "The page fault in a log of QEMU"
    assert report.notes == (
        "Each came of delivering the one before: #PF with error code 0x0 at 0x100083, then #DF with"
        " error code 0x0 at 0x100083, then a triple fault.",
    )
    before = oopses.TRIPLE.partition("check_exception old: 0xe")[0]
    before += "".join(before.replace("100083", f"10009{number}") for number in range(3))
    assert oops.read(before).what == "The last of 4 page faults in a log of QEMU"
    assert oops.read(before).address == 0x10_0092


def test_a_triple_fault_of_which_the_first_exception_is_cut_off_says_so() -> None:
    """CR2 is then of delivering it: the page fault, whose gate is at 14 * 8, was not delivered."""
    found = " ".join(lines(oopses.TAIL))
    assert "A double fault in a log of QEMU" in found
    assert "CR2 0x70 is where the gate of vector 14 is, in the IDT at 0x0: the page fault" in found
    assert "at 0x10004f, then a triple fault: the exception that led to it is above" in found
    assert oops.read(oopses.TAIL).rest["rip"] == 0x10_004F
    short = oopses.TAIL.splitlines()[0]
    assert oops.read(short).notes == (
        "The text begins with #DF with error code 0x0 at 0x10004f: the exception that led to it is"
        " above, with its error code and CR2.",
    )


def test_a_line_of_a_log_alone_is_a_page_fault() -> None:
    report = oops.read(oopses.SHORT)
    assert (report.address, report.code) == (0xFFFF_8000_0000_1000, 3)
    assert (report.rest["rip"], report.rest["cpl"]) == (0xFFFF_FFFF_8000_1234, 0)
    assert "access supervisor write" in lines(oopses.SHORT)


@pytest.mark.parametrize(
    ("registers", "said"),
    [
        ("", "Paging is 4-level, with tables from 0x1000 on, and WP=1, NXE=1, SMEP=0, SMAP=0."),
        ("EFER=0000000000000500", "tables from 0x1000 on, and WP=1, NXE=0, SMEP=0, SMAP=0."),
        ("CR4=00300020", "tables from 0x1000 on, and WP=1, NXE=1, SMEP=1, SMAP=1."),
        ("CR0=80000011", "tables from 0x1000 on, and WP=0, NXE=1, SMEP=0, SMAP=0."),
        ("CR0=00000011", "These registers raise no page fault: paging is off: CR0 is 0x11."),
        ("CR4=00001020", "Paging is 5-level, with tables from 0x1000 on, and WP=1, NXE=1, SMEP=0"),
        ("CR2=00000000", "CR2 is 0: no page fault was raised since the reset, or one at address 0"),
        ("CR2=8000000000000000", "CR2 0x8000000000000000 is not canonical, so that it is of no"),
        ("CR2=0000000000008003", "CR2 0x8003 is where RIP is: what could not be reached is the"),
        ("CR2=0000000000008000", "CR2 0x8000 is where RIP is: what could not be reached is the"),
        ("CR2=000000000000800e", "CR2 0x800e is where RIP is: what could not be reached is the"),
        ("CR2=000000000000800f", "CR2 0x800f is the address of the last page fault."),
        ("CR2=0000000000007fff", "CR2 0x7fff is the address of the last page fault."),
        ("CR2=00000000fee000e4", "CR2 0xfee000e4 is where the gate of vector 14 is, in the IDT"),
        ("CR2=00000000fee000d4", "CR2 0xfee000d4 is where the gate of vector 13 is, in the IDT"),
        ("CR2=00000000fee000e4", "in the IDT at 0xfee00004: the page fault could not be delivered"),
        ("CR2=00000000fee000d4", "in the IDT at 0xfee00004: the exception could not be delivered"),
        ("CR2=ffff800000001000", "CR2 0xffff800000001000 is the address of the last page fault."),
        ("CR2=ffff800000001000", "pagetable fault --code N --cr2 0xffff800000001000 says"),
        ("CR2=ffff800000001000", "RIP is 0x8000 at CPL 3."),
    ],
)
def test_registers_alone_say_what_follows_and_what_is_missing(registers: str, said: str) -> None:
    text = (
        "RIP=0000000000008000 RFL=00000046 CPL=3\nIDT=     00000000fee00004 00000fff\n"
        "CR0=80010011 CR2=0000000000001000 CR3=0000000000001000 CR4=00000020\n"
        "EFER=0000000000000d00\n"
    )
    found = lines(text + registers)
    assert any(said in line for line in found), found
    assert any("No register has the error code" in line for line in found)
    assert any("add --qmp SOCKET, --core FILE or --ram FILE" in line for line in found)


def test_registers_of_gdb_are_read_too_and_some_may_be_missing() -> None:
    report = oops.read(oopses.GDB)
    assert report.registers == {
        **{"cr0": 0x8001_0011, "cr3": 0x1000, "cr4": 0x20, "efer": 0x500, "ac": True}
    }
    assert report.rest == {"cr2": 0xB_8000, "rip": 0xFFF0, "cpl": 3}
    found = lines("CR2=00000000deadb000 CR3=0000000000001000")
    assert "The paging mode is not known, for the text lacks CR0, CR4, EFER." in found


def test_a_log_without_a_page_fault_says_so() -> None:
    text = exception(13, 0x18, 0x2000) + oopses.REGISTERS
    assert oops.read(text).notes == (
        "No exception in the text is a page fault: the last is #GP with error code 0x18 at 0x2000.",
    )


def test_what_led_to_a_triple_fault_may_be_no_page_fault() -> None:
    text = oopses.TRIPLE.replace("v=0e e=0000", "v=0d e=0010").replace("new 0xe", "new 0xd")
    with pytest.raises(QuestionError, match="no page fault: #GP with error code 0x10 at 0x100083"):
        oops.read(text)


@pytest.mark.parametrize(
    ("vector", "name"),
    [(3, "vector 0x3"), (6, "#UD"), (10, "#TS"), (11, "#NP"), (12, "#SS"), (13, "#GP")],
)
def test_exceptions_have_the_names_of_the_manual(vector: int, name: str) -> None:
    """SDM volume 3A, table 6-1."""
    text = oopses.TRIPLE.replace("v=0e", f"v={vector:02x}").replace("new 0xe", f"new {vector:#x}")
    with pytest.raises(QuestionError, match=f"no page fault: {name} with error code 0x0 at "):
        oops.read(text)


def test_a_line_of_qemu_s_log_may_be_shortened() -> None:
    raised = next(line for line in oopses.TRIPLE.splitlines() if "v=0e" in line)
    assert oops.read(raised.partition(": ")[2]) == oops.read(raised)
    for text in "v=0e e=0003 CR2=401000", '"v=0e e=0003 ... CR2=0000000000401000"':
        found = oops.read(text)
        assert (found.address, found.code, found.instruction) == (0x401000, 3, None)
        assert "cpl" not in found.rest


def test_of_a_report_400_lines_are_looked_at() -> None:
    head, *rest = oopses.OLD32.splitlines()
    between = ["Modules linked in: vfat"] * 398
    oops_line = next(line for line in rest if "Oops: 0002" in line)
    assert oops.read("\n".join([head, *between, oops_line])).code == 2
    assert oops.read("\n".join([head, *between, "", "more", oops_line])).code is None
    raised = next(line for line in oopses.TRIPLE.splitlines() if "v=0e" in line)
    shown = "EFER=0000000000000500"
    assert oops.read("\n".join([raised, *between, shown])).registers == {"efer": 0x500}
    assert oops.read("\n".join([raised, *between, "more", shown])).registers == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("INVERTED", "likely the PTE: the 4K page at 0x58a67000, by the entry 0x8000000058a67063"),
        ("NARROW", "Note: Assumed: MAXPHYADDR=39, the widest with which these entries give"),
        ("OLD64", "likely the PTE: the number 0x8048a025 of 32 bits, sign-extended: the 4K page"),
        ("PAE", "change PTE at 0x37c10020: 0x8000000037c04061 -> 0x8000000037c04063"),
        ("FIVE", "because the PDPTE at 0x3c02040, level 2, holds 0x0000000000000000"),
        ("OLD32", "because the PDE, level 1, holds 0x00000000"),
        ("FIVE_ZERO", "because the PDE at 0x260f068, level 1, holds 0x0080000001a001e1"),
        ("UNREAD", "Note: BAD: the entry that follows the last one is in a table that Linux could"),
        ("WRAPPED", "because the PTE at 0x1079b5800, level 0, holds 0x8000467c4a5c9237"),
        ("BAD_MAP", "likely the PTE: an empty entry, with bit 16 set by mistake"),
        ("BAD_MAP_NEW", "0x7f1b5d2c3000: 0xd00404d8000, in a 4K page"),
        ("SEGFAULT", "Note: There are no entries in the text: add --qmp SOCKET, --core FILE or"),
        ("TRIPLE", "note CR2 is where RIP is: a fetch that the error code does not tell, or a"),
    ],
)
def test_a_report_is_explained_without_any_source(name: str, said: str) -> None:
    found = lines(oopses.EVERY[name])
    assert any(line.startswith(said) for line in found), found
    if READ.get(name, {}).get("code") is not None and READ[name]["entries"]:
        assert "These entries give this fault." in found


def test_entries_without_an_address_are_explained_one_by_one() -> None:
    found = lines(oopses.HASHED)
    assert found[0] == "A bad page map that Linux reports, of a, in standard input"
    assert "Note: The text has no address (addr:), so the slot of a table is not known." in found
    assert any(line.startswith("0x000000002d5f0067 1 PDE table at 0x2d5f0000") for line in found)
    stray = lines("BUG: Bad page map in process foo  pte:00010000 pmd:123456067")
    assert "PTE 0x0000000000010000 an empty entry, with bit 16 set by mistake" in stray


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the text holds no page fault that is known here"),
        ("hello\nworld\n", "the text holds no page fault that is known here"),
        (oopses.POWER, "of Linux on another architecture: those of x86, RISC-V and arm64 are"),
        (oopses.PAE.replace("000407f0", "00000010"), "x86 32-bit has no level '*pdpt'"),
    ],
)
def test_a_text_that_cannot_be_explained_is_a_sentence(text: str, sentence: str) -> None:
    code, out, errors = explained(text)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert sentence in errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--code", "1"], "--oops has the fault"),
        (["0x1000"], "--oops has the fault"),
        (["--access", "read"], "--oops has the fault"),
        (["--entries", "PTE=0"], "--oops has the fault"),
        (["--layout", "smallest", "--ram", "x"], "2 sources are named"),
    ],
)
def test_what_does_not_go_with_a_text_is_a_sentence(options: list[str], sentence: str) -> None:
    code, out, errors = explained(oopses.INVERTED, *options)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert sentence in errors


def test_a_processor_with_fewer_address_bits_is_found_where_cr3_is_not_in_the_text_too() -> None:
    """The tables that are made up lie where every processor has memory."""
    short = "".join(line for line in oopses.NARROW.splitlines(True) if "CR3" not in line)
    found = lines(short)
    assert any(line.startswith("Note: Assumed: MAXPHYADDR=39, the widest") for line in found)
    assert "These entries give this fault." in found


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    for name, why in (("none", "No such file"), (".", "Is a directory")):
        code, out, errors = run("fault", "--oops", name, cwd=tmp_path)
        assert (code, out) == (2, "") and f"{name} cannot be read: {why}" in errors


def test_registers_on_the_command_line_go_before_those_of_the_text() -> None:
    narrow = lines(oopses.NARROW, "--maxphyaddr", 40)
    assert "These entries do not give this fault. It may be that" in narrow
    assert any(line.startswith("An oops of Linux") for line in narrow)
    assert any("CR3 0x5000" in line for line in lines(oopses.NARROW, "--cr3", "0x5000"))


def memory(path: Path, **words: int) -> Path:
    """A file of memory with the tables of INVERTED at lower addresses."""
    octets = bytearray(0x6000)
    at = {"PGD": 0x1888, "PUD": 0x2008, "PMD": 0x3628, "PTE": 0x4338}
    held = {"PGD": 0x2067, "PUD": 0x3067, "PMD": 0x4067, "PTE": 0x800F_FFFF_A759_8063, **words}
    for name, word in held.items():
        octets[at[name] : at[name] + 8] = word.to_bytes(8, "little")
    path.write_bytes(octets)
    return path


@pytest.mark.parametrize(
    ("words", "cr3", "shown"),
    [
        ({}, 0x1000, ["holds the same entries."]),
        ({"PTE": 0x5063}, 0x1000, ["holds other entries now:", "0 PTE 0x800fffffa7598063 0x0000000"
                                   "000005063 address reserved XD"]),
        ({"PMD": 0}, 0x1000, ["holds other entries now:", "0 PTE 0x800fffffa7598063 not reached"]),
        ({}, 0x80_0000, ["has no memory at 0x800000, where the root's table would be: is it"]),
    ],
)  # fmt: skip
def test_with_a_source_it_is_said_whether_the_tables_agree(
    tmp_path: Path, words: dict[str, int], cr3: int, shown: list[str]
) -> None:
    text = oopses.INVERTED.replace("2a00000", f"{cr3:07x}")
    for old, new in (("2a01067", "0002067"), ("2a05067", "0003067"), ("7fd36067", "00004067")):
        text = text.replace(old, new)
    ram = memory(tmp_path / "ram", **words)
    found = lines(text, "--ram", ram)
    for one in shown:
        assert any(one in line for line in found), (one, found)
    assert "These entries give this fault." in found
    answer = json.loads(explained(text, "--ram", ram, "--json")[1])
    assert answer["agreement"]["same"] == (shown == ["holds the same entries."])


@pytest.mark.parametrize("name", ["INVERTED", "PAE"])
def test_efer_which_linux_does_not_print_is_assumed_and_named(tmp_path: Path, name: str) -> None:
    text, ram = oopses.EVERY[name], memory(tmp_path / "ram")
    efer = "EFER=0xd00" if name == "INVERTED" else "EFER=0x800"
    for source in ((), ("--ram", ram, "--cr3", "0x1000")):
        assert efer in " ".join(lines(text, *source)), source
        assert efer not in " ".join(lines(text, *source, "--efer", efer[5:])), source


SMAP = 1 << 21
PKE = 1 << 22


@pytest.mark.parametrize(
    ("cr4", "words"),
    [
        (0x20, []),
        (0x20 | SMAP, ["EFLAGS.AC=0"]),
        (0x20 | PKE, ["every key grants all"]),
        (0x20 | SMAP | PKE, ["EFLAGS.AC=0", "every key grants all"]),
    ],
)
@pytest.mark.parametrize("kind", ["oops", "tables", "entries", "ram", "core", "layout"])
def test_what_accesses_depend_on_and_no_source_tells_is_assumed_and_named(
    kind: str, cr4: int, words: list[str], tmp_path: Path
) -> None:
    """An oops may be cut before EFLAGS; then SMAP is judged as with EFLAGS.AC=0."""
    ram, base = memory(tmp_path / "ram"), ("--cr3", "0x1000", "--cr4", hex(cr4))
    bare = written(tmp_path / "core", [(0, ram.read_bytes())], b"")
    entry = ("0x401000", "--entries", "PTE=5067")
    text = oopses.INVERTED.replace("00000000000006e0", f"{cr4:016x}")
    text = "".join(line for line in text.splitlines(True) if "EFLAGS" not in line)
    asked: dict[str, tuple[object, ...]] = {
        "oops": ("--oops", "-"),
        "tables": ("--oops", "-", "--ram", ram, "--cr3", "0x1000"),
        "entries": (*entry, *base),
        "ram": ("0x401000", "--ram", ram, *base),
        "core": ("0x401000", "--core", bare, *base),
        "layout": ("0x401000", "--layout", "smallest", "--levels", "4", "--cr4", hex(cr4)),
    }

    def assumed(text: str, *more: str) -> str:
        options = ["fault", *map(str, asked[kind]), *more]
        ended = CliRunner().invoke(application("fault"), options, input=text)
        assert (ended.exit_code, ended.stderr) == (0, ""), ended.stderr
        return next((one for one in ended.stdout.splitlines() if one.startswith("Assumed")), "")

    said = assumed(text)
    for word in ("EFLAGS.AC=0", "every key grants all"):
        assert said.count(word) == (word in words), said
    if kind in ("oops", "tables"):
        both = f"{text}EFLAGS: 00050246\nPKRU: 55555554\n"
        given = assumed(both)
    else:
        given = assumed(text, "--ac", "--pkru", "0x4")
    assert "EFLAGS" not in given and "key" not in given
    commands = ("dump", "lint", "find 0x5000", "walk 0x401000")  # which ask of no accesses
    for command in commands if kind in ("ram", "core", "layout") else ():
        name, *address = command.split()
        options = [name, *address, *map(str, asked[kind][1:])]
        told = CliRunner().invoke(application(name), options)
        assert told.stderr == "" and told.stdout
        assert "EFLAGS" not in told.stdout and "every key grants" not in told.stdout


def test_registers_and_logs_are_explained_by_the_tables_of_a_source(tmp_path: Path) -> None:
    ram = memory(tmp_path / "ram")
    found = lines(oopses.REGISTERS, "--ram", ram)
    assert "supervisor fetch at 0x100026: #PF, error code 0x0, CR2 0x100026" in found
    assert "because the PDE at 0x1000, level 1, holds 0x00000000" in found
    found = lines(oopses.TRIPLE, "--ram", ram, "--cr3", "0x1000")
    assert "The tables as they are give this fault." in found
    assert "Note: The page fault in a log of QEMU, in standard input" in found


@pytest.mark.parametrize("name", ["INVERTED", "BAD_MAP", "TRIPLE", "SEGFAULT", "PAE", "REGISTERS"])
def test_the_object_says_the_same(name: str) -> None:
    answer = json.loads(explained(oopses.EVERY[name], "--json")[1])
    report = oops.read(oopses.EVERY[name])
    assert answer["report"] == report.what
    assert (answer["seen"] is None) == (report.code is None)
    if name == "REGISTERS":
        assert answer["virtual"] == "0x100026"
        assert "Paging is 32-bit" in answer["notes"][0]
        return
    if report.code is not None:
        assert answer["seen"]["error"] == hex(report.code)
        assert (answer["given"] is True) == bool(report.entries)
    else:
        assert answer["walk"]["virtual"] == hex(report.address or 0)


def mutated(source: random.Random, text: str) -> str:
    """The text with a few changes, or cut."""
    made = [*text]
    for _ in range(source.randrange(1, 12)):
        place = source.randrange(len(made))
        new = source.choice(
            ["", "f", "0", " ", "\n", "\0", "é", "=", ":", "PTE ", "CR3: ", "\x1b["]
        )
        made[place : place + source.randrange(4)] = new
    cut = source.choice([len(made), source.randrange(len(made))])
    return "".join(made[:cut])


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
        if number % 12 == 0:
            code, out, errors = explained(text)
            assert "report it" not in errors, (text, errors)
            assert (code == 0 and out and not errors) or (
                code == 2 and not out and errors.count("\n") == 1
            ), (text, errors)


@pytest.mark.parametrize(
    "text",
    [
        oopses.TRIPLE * 2000,
        oopses.INVERTED * 2000,
        "BUG: Bad page map in process " + " " * 4000 + "pte:\n" + (" " * 4000 + "\n") * 2000,
        "A" * (2 << 20),
        "A =" * (3 << 18),
        "0" * (2 << 20),
        "\n" * (2 << 20),
        "check_exception old: 0xe new 0xe\n  1: v=0e e=0000 i=0 cpl=0 IP=0008:10 pc=00000010 \n"
        * 20_000,
        "BUG: unable to handle page fault for address: ffff888058a67000\n" + "PGD 0 " * (1 << 18),
        "\x1b[0m" * (1 << 19),
    ],
    ids=range(10),
)
def test_a_long_text_takes_little_time_and_memory(text: str) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        oops.read(text)
    except QuestionError as error:
        assert "no page fault that is known" in str(error)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


def test_noise_is_no_report() -> None:
    octets = random.Random(1).randbytes(1 << 20)
    code, out, errors = explained(octets)
    assert (code, out) == (2, "") and "no page fault that is known" in errors


@pytest.mark.parametrize(
    ("name", "address", "rip", "said"),
    [
        (
            "REMOVED",
            0xDEAD_0000_0000_0108,
            None,
            "likely the address: a pointer of a list entry that was removed (LIST_POISON1 + 0x8,",
        ),
        (
            "OLD_GENERAL",
            None,
            0xFFFF_FFFF_8116_AA30,
            "Note: The text has no address, for a general protection fault writes no CR2; registers"
            " that hold an address that is not canonical: RAX 0x6b6b6b6b6b6b6b6b (probably the byte"
            " 0x6b",
        ),
        (
            "SHADOW",
            0xDFFF_FC00_0000_0001,
            None,
            "likely the address: the shadow that KASAN keeps of 0x8: a null pointer",
        ),
        ("OF_PROCESS", None, 0x55D0_C0FF_EE00, "Note: The text has no address, for a general"),
    ],
)
def test_a_general_protection_fault_is_read_and_its_address_explained(
    name: str, address: int | None, rip: int | None, said: str
) -> None:
    report = oops.read(oopses.EVERY[name])
    assert (report.general, report.code, report.address, report.instruction) == (
        True,
        None,
        address,
        rip,
    )
    assert report.rest.get("cpl", 0) == (3 if name == "OF_PROCESS" else 0)
    found = lines(oopses.EVERY[name])
    assert any(line.startswith(said) for line in found), found
    if address is not None:
        reads = [line for line in found if line.startswith("supervisor read #GP, error code 0x0")]
        assert len(reads) == 1 and "the address is not canonical" in reads[0]
        told = json.loads(explained(oopses.EVERY[name], "--json")[1])
        assert [one["vector"] for one in told["outcomes"]] == ["GP", "GP"]
        assert all(one["pointer"] for one in told["outcomes"])


def test_with_4_levels_an_address_of_57_bits_is_not_canonical() -> None:
    report = oops.read(oopses.REMOVED.replace("0xdead000000000108", "0x00ff000000000108"))
    assert report.address == 0xFF_0000_0000_0108
    assert not any("is canonical" in note for note in report.notes)


def test_a_general_protection_fault_may_have_another_cause_than_its_address() -> None:
    canonical = oopses.REMOVED.replace("probably for non-canonical", "maybe for").replace(
        "0xdead000000000108", "0xffffc90000000008"
    )
    found = lines(canonical)
    assert any("0xffffc90000000008 is canonical: that alone raises no" in line for line in found)
    selector = oopses.OLD_GENERAL.replace("0000 [#1]", "0018 [#1]")
    assert any(
        "0x18, that of a descriptor: no address raised it" in line for line in lines(selector)
    )
    five = oopses.REMOVED.replace("00000000000006f0", "00000000000016f0").replace(
        "0xdead000000000108", "0x00ff000000000108"
    )
    assert any("is canonical: that alone raises" in line for line in lines(five))
    with_tables = lines(oopses.REMOVED, "--layout", "smallest", "--levels", 4)
    assert any(line.startswith("supervisor read #GP") for line in with_tables)
    assert not any("holds the same entries" in line for line in with_tables)


def test_the_registers_of_a_log_go_before_those_that_a_core_lacks(tmp_path: Path) -> None:
    """A core has no EFER: by the log's, XD is reserved; CR0 and CR4 are those of the fault, too."""
    words = (0x1007, 0x2007, 0x3007, 0x8000_0000_0000_5003)
    tables = b"".join(word.to_bytes(8, "little").ljust(0x1000, b"\0") for word in words)
    core = written(tmp_path / "core", [(0, tables)], note(0, 0x20))
    shown = "CR0=80010001 CR2=0000000000000010 CR3=0000000000000000 CR4=000000a0\nEFER="
    log = exception(14, 0x9, 0x10)
    off = lines(f"{log}{shown}0000000000000500\n", "--core", core)
    assert "The tables as they are give this fault." in off
    assert not any("EFER" in line for line in off if line.startswith("Assumed"))
    on = lines(f"{log}{shown}0000000000000d00\n", "--core", core)
    assert "The tables as they are do not give this fault. It may be that" in on
    told = json.loads(explained(f"{log}{shown}0000000000000500\n", "--core", core, "--json")[1])
    assert (told["cpu"]["efer"], told["cpu"]["cr4"]) == ("0x500", "0xa0")
    without = lines(log, "--core", core)
    assert any(line.startswith("Note: Assumed: EFER.NXE=0, with which these") for line in without)
