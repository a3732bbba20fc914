"""CR3 bit by bit: what the manual's tables 4-3, 4-7, 4-12 and 4-13 have, written here once more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.inspect.decode import Role
from harness.inspect.snapshot import QuestionError
from harness.inspect.x86.cr3 import read
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode

ROOT = 0x10_6000

LOW = {"11:5": "ignored", "4": "PCD", "3": "PWT", "2:0": "ignored"}
LEGACY = {"63:32": "ignored"}
LONG = {
    "63": "reserved",
    "62": "LAM_U48",
    "61": "LAM_U57",
    "60:40": "reserved",
    "39:12": "address",
}
PCID = {**LONG, "63": "KEEP_TLB", "11:0": "PCID"}
ENCRYPTED = {**LONG, "60:40": None, "60:48": "reserved", "47": "C", "46:40": "reserved", **LOW}
SHARED = {**LONG, "39:12": None, "39": "shared", "38:12": "address", **LOW}


def cpu(mode: Mode, cr3: int = 0, cr4: int = 0) -> Cpu:
    made = Cpu.in_mode(mode, cr3)
    return replace(made, cr4=made.cr4 | cr4)


@pytest.mark.parametrize(
    ("state", "layout"),
    [
        (cpu(Mode.BITS_32), {**LEGACY, "31:12": "address", **LOW}),
        (
            cpu(Mode.PAE),
            {**LEGACY, "31:5": "address", "4": "PCD", "3": "PWT", "2:0": "ignored"},
        ),
        (cpu(Mode.LEVEL_4), {**LONG, **LOW}),
        (cpu(Mode.LEVEL_5), {**LONG, **LOW}),
        (cpu(Mode.LEVEL_5, cr4=Cr4.PCIDE), PCID),
        (replace(cpu(Mode.LEVEL_4), c_bit=47), ENCRYPTED),
        (replace(cpu(Mode.LEVEL_4), shared_bit=39), SHARED),
    ],
    ids=["32-bit", "PAE", "4-level", "5-level", "PCIDE", "C-bit", "shared bit"],
)
def test_every_bit_is_what_the_manual_has(state: Cpu, layout: dict[str, str | None]) -> None:
    found = {
        str(part.high) if part.high == part.low else f"{part.high}:{part.low}": part.name
        for part in read(state).parts
    }
    assert found == {bits: name for bits, name in layout.items() if name}
    masks = [part.mask for part in read(state).parts]
    assert sum(masks) == (1 << 64) - 1 and masks == sorted(masks, reverse=True)


@pytest.mark.parametrize(
    ("state", "leads_to", "reserved"),
    [
        (cpu(Mode.BITS_32, ROOT | 0xFFF | 1 << 32), ROOT, 0),
        (cpu(Mode.PAE, ROOT | 0x38), ROOT | 0x20, 0),
        (cpu(Mode.LEVEL_4, ROOT | 8), ROOT, 0),
        (cpu(Mode.LEVEL_4, ROOT | 1 << 40 | 1 << 63), ROOT, 1 << 40 | 1 << 63),
        (cpu(Mode.LEVEL_4, ROOT | 0x123 | 1 << 63, Cr4.PCIDE), ROOT, 0),
        (cpu(Mode.LEVEL_4, ROOT | 1 << 61), ROOT, 1 << 61),
        (replace(cpu(Mode.LEVEL_4, ROOT | 1 << 61), lam=True), ROOT, 0),
        (replace(cpu(Mode.LEVEL_4, ROOT | 1 << 51), c_bit=51), ROOT, 0),
        (replace(cpu(Mode.LEVEL_4, ROOT | 1 << 36), c_bit=36), ROOT, 0),
    ],
)
def test_where_it_leads_and_what_cannot_be_loaded(state: Cpu, leads_to: int, reserved: int) -> None:
    found = read(state)
    assert (found.leads_to, found.reserved) == (leads_to, reserved)
    wrong = {part.role for part in found.parts if part.mask & reserved}
    assert wrong <= {Role.RESERVED}
    addressed = [part.value for part in found.parts if part.role is Role.ADDRESS]
    assert sum(addressed) == leads_to


@pytest.mark.parametrize("mode", Mode)
def test_pwt_and_pcd_choose_how_the_root_is_cached_but_where_pdptes_are_loaded(mode: Mode) -> None:
    """SDM 4.9: outside PAE paging alone."""
    cached = mode is not Mode.PAE
    parts = {part.name: part for part in read(cpu(mode, 0x18)).parts}
    for name in "PWT", "PCD":
        assert parts[name].role is (Role.TYPE if cached else Role.IGNORED)
        assert ("root table" in parts[name].meaning) is cached


def test_a_number_of_more_bits_is_refused() -> None:
    with pytest.raises(QuestionError, match="CR3 has 64 bits"):
        read(cpu(Mode.LEVEL_4, 1 << 64))


def test_each_lam_bit_says_how_wide_pointers_are_then() -> None:
    def said(bits: int) -> dict[str, str]:
        state = replace(cpu(Mode.LEVEL_5, bits), lam=True)
        return {part.name: part.meaning for part in read(state).parts}

    for name, width in ("LAM_U48", 48), ("LAM_U57", 57):
        assert said(Cr3[name])[name].startswith(f"user pointers have {width} bits of address")
    both = said(Cr3.LAM_U48 | Cr3.LAM_U57)  # where U57 is set, U48 is ignored (SDM, LAM)
    assert both["LAM_U57"] == said(Cr3.LAM_U57)["LAM_U57"]
    assert both["LAM_U48"] == "it says nothing beside LAM_U57"
