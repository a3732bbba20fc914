"""Harts of which a source, or a question, tells little: what is assumed of them, and said to be."""

from __future__ import annotations

import pytest

from harness.inspect import architecture
from harness.inspect.riscv import mode as modes
from harness.inspect.riscv.processor import assumed, cpu_of, cpu_with
from harness.inspect.riscv.satp import read
from harness.inspect.snapshot import QuestionError, SourceError
from harness.paging.address import Virtual
from harness.paging.riscv.access import Access, Kind
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode

SV32, SV48 = 1 << 31 | 0x80123, 9 << 60 | 7 << 44 | 0x80123
"""Values of satp, the latter of address space 7."""

STATUS = "mstatus.SUM=0 and MXR=0, since a file does not record them (--mstatus)"
ENTRIES = (
    "entries have Svnapot and Svpbmt, since a file does not record menvcfg; and the hart sets"
    " neither A nor D (--menvcfg)"
)

MARKS = "the hart sets neither A nor D, since a file does not record menvcfg (--menvcfg)"


def test_satp_tells_the_width_of_a_hart_and_the_rest_is_as_usual() -> None:
    wide, narrow = cpu_of({"satp": SV48}), cpu_of({"satp": SV32})
    assert wide == Cpu(SV48, menvcfg=Envcfg.PBMTE, xlen=64, svnapot=True)
    assert narrow == Cpu(SV32, xlen=32)
    given = cpu_of({"satp": SV48, "mstatus": 1 << 18, "menvcfg": 0, "svnapot": False})
    assert given == Cpu(SV48, mstatus=1 << 18)
    for satp in (0, 5, 5 << 60):
        with pytest.raises(SourceError, match=r"paging is off|reserved MODE"):
            cpu_of({"satp": satp})
    assert cpu_with(narrow, {"mstatus": 1 << 19}) == Cpu(SV32, 1 << 19, xlen=32)
    with pytest.raises(SourceError, match="paging is off"):
        cpu_with(wide, {"satp": 0})


@pytest.mark.parametrize(
    ("satp", "given", "said"),
    [
        (SV48, (), [STATUS, ENTRIES]),
        (SV48, ("mstatus",), [ENTRIES]),
        (SV48, ("menvcfg",), [STATUS]),
        (SV48, ("mstatus", "menvcfg"), []),
        (SV32, (), [STATUS, MARKS]),
        (SV32, ("mstatus",), [MARKS]),
        (SV32, ("menvcfg",), [STATUS]),
        (SV32, ("mstatus", "menvcfg"), []),
    ],
)
def test_what_is_not_given_is_said_to_be_assumed(
    satp: int, given: tuple[str, ...], said: list[str]
) -> None:
    cpu = cpu_of({"satp": satp})
    assert list(assumed(cpu, dict.fromkeys(given, 0), "a file")) == said


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_alone_is_a_hart_with_all_that_its_entries_can_have(mode: Mode) -> None:
    wide = mode is not Mode.SV32
    cpu = modes.in_mode(mode.value, {})
    assert cpu.mode is mode
    assert (cpu.svnapot, cpu.pbmte, cpu.sets_marks) == (wide, wide, False)
    has = "has Svnapot and Svpbmt, and " if wide else ""
    said = f"the hart {has}sets neither A nor D (menvcfg.ADUE=0)"
    assert list(modes.assumed(cpu, {}, ())) == [said]


@pytest.mark.parametrize(
    ("raw", "mode"),
    [
        (8 << 60 | 1, "sv39"),
        (SV48, "sv48"),
        (10 << 60, "sv57"),
        (SV32, "sv32"),
        (0, None),
        (0x80123, None),
        (5 << 60, None),
        (1 << 64, None),
    ],
)
def test_a_value_of_satp_tells_its_mode(raw: int, mode: str | None) -> None:
    assert modes.told(raw) == mode


@pytest.mark.parametrize(
    ("satp", "parts"),
    [
        (SV48, [(63, 60, "MODE", 9), (59, 44, "ASID", 7), (43, 0, "PPN", 0x80123)]),
        (SV32 | 5 << 22, [(31, 31, "MODE", 1), (30, 22, "ASID", 5), (21, 0, "PPN", 0x80123)]),
    ],
)
def test_satp_is_read_by_the_fields_of_its_width(
    satp: int, parts: list[tuple[int, int, str, int]]
) -> None:
    cpu = cpu_of({"satp": satp})
    found = read(cpu, satp)
    assert [(one.high, one.low, one.name, one.value) for one in found.parts] == parts
    named = {one.name: one.meaning for one in found.parts}
    assert named["MODE"] == cpu.mode.value.capitalize()
    assert named["ASID"] == f"address space {parts[1][-1]:#x} of the TLB"
    assert named["PPN"] == "the root table is at 0x80123000"
    assert {one.section for one in found.parts} == {"satp register"}
    assert (found.name, found.raw) == ("satp", satp)
    with pytest.raises(QuestionError, match="paging is off"):
        read(cpu, 0)
    with pytest.raises(QuestionError, match="is wider than"):
        read(cpu, 1 << cpu.xlen)


RISCV = architecture.named("riscv")


@pytest.mark.parametrize("at", [0x1000, 1 << 20, 1 << 31])
def test_no_shadow_is_known_on_a_hart_of_32_bits(at: int) -> None:
    assert RISCV.pointer(cpu_of({"satp": SV32}), Virtual(at)) is None
    wide = cpu_of({"satp": SV48})
    assert RISCV.pointer(wide, Virtual(at)) is None
    shadow = Virtual((0xDFFF_FFFF << 32) + 0x20)
    assert RISCV.pointer(wide, shadow) == "the shadow that KASAN keeps of 0x100: a null pointer"
    error = Virtual((1 << 32) - 14)
    said = RISCV.pointer(cpu_of({"satp": SV32}), error)
    assert said == "an error code in place of a pointer, -14"


def test_pointers_are_masked_by_whose_they_are_and_code_is_not() -> None:
    cpu = Cpu(SV48, menvcfg=Envcfg.PBMTE | 2 << 32, senvcfg=3 << 32)
    for access, pmm in (
        (Access(Kind.READ, False), 2),
        (Access(Kind.AMO, True), 3),
        (Access(Kind.FETCH, False), 0),
        (Access(Kind.FETCH, True), 0),
    ):
        found = RISCV.using(cpu, access)
        assert found.menvcfg == Envcfg.PBMTE | pmm << 32


@pytest.mark.parametrize(
    ("satp", "address", "canonical"),
    [
        (SV32, 0xFFFF_FFFF, True),
        (SV48, (1 << 47) - 1, True),
        (SV48, 1 << 47, False),
        (SV48, (1 << 64) - (1 << 47), True),
        (SV48, (1 << 64) - (1 << 47) - 1, False),
    ],
)
def test_an_address_is_canonical_by_its_mode(satp: int, address: int, canonical: bool) -> None:
    cpu = cpu_of({"satp": satp})
    assert RISCV.canonical(cpu, address)[0] is canonical
    RISCV.check_address(cpu, Virtual(address))
    with pytest.raises(QuestionError, match=f"on a hart of {cpu.xlen} bits"):
        RISCV.check_address(cpu, Virtual(1 << cpu.xlen))
    RISCV.check_address(cpu, Virtual((1 << cpu.xlen) - 1))
