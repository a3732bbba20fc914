"""From registers that a source has to the state of a processor, and what is assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.inspect.arm64.processor import NAMES, SystemRegisters, cpu_with
from harness.inspect.snapshot import SourceError
from harness.paging.arm64.cpu import Cpu, Features, Half

TCR = 5 << 32 | 2 << 30 | 16 << 16 | 16
"""4K, 48 bits in both halves."""

WHOLE = SystemRegisters(0x1000, 0x2000, TCR, 0xFF, 1, 0, 0x5, 0x3, 0x10)


@pytest.mark.parametrize("bit", range(64))
def test_of_pstate_two_bits_count(bit: int) -> None:
    """PSTATE.PAN and UAO are bits 22 and 23 of SPSR_EL1."""
    cpu = replace(WHOLE, pstate=1 << bit, mmfr1=1 << 20).cpu()
    assert (cpu.pan, cpu.uao) == (bit == 22, bit == 23)


def test_each_register_is_the_processor_s() -> None:
    cpu = WHOLE.cpu()
    assert (cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr) == (0x1000, 0x2000, TCR, 0xFF, 1)
    for name, half, other in (("ttbr0", "low", "high"), ("ttbr1", "high", "low")):
        lacks: dict[str, Any] = {name: None}
        cpu = replace(WHOLE, **lacks).cpu()
        assert getattr(cpu, name) == 0 and getattr(cpu, half) is None
        assert getattr(cpu, other) == getattr(WHOLE.cpu(), other)
    bare = SystemRegisters(0x1000, 0x2000, TCR).cpu()
    assert (bare.mair, bare.sctlr, bare.pan, bare.uao) == (0x4_0044_FFFF, 1, False, False)


TOLD = {
    "mmfr0": (
        0x1022,
        {"output_bits": 40, "granules": frozenset({"4K", "64K"}), "lpa2": frozenset()},
    ),
    "mmfr1": (0x20_1001, {"hafdbs": 1, "hpds": True, "pan": 2}),
    "mmfr2": (0x1000_0000, {"lva": False, "ttst": True, "uao": False, "e0pd": False}),
}
"""A value of each ID register, and what it says of the processor."""


@pytest.mark.parametrize("name", TOLD)
def test_an_id_register_says_its_own_and_no_more(name: str) -> None:
    usual = Features(pan=1, lva=True, hpds=False, tbid=False, output_bits=48)
    registers = SystemRegisters(0x1000, 0x2000, TCR)
    assert registers.cpu(usual).features == usual
    assert registers.cpu().features == Features()
    value, said = TOLD[name]
    given: dict[str, Any] = {name: value}
    assert replace(registers, **given).cpu(usual).features == replace(usual, **said)  # type: ignore[arg-type]


SENTENCES = {
    "ttbr0": "nothing of the lower half, since a file does not record TTBR0_EL1 (--ttbr0)",
    "ttbr1": "nothing of the upper half, since a file does not record TTBR1_EL1 (--ttbr1)",
    "mair": "MAIR_EL1=0x40044ffff, as Linux has it (--mair)",
    "sctlr": "SCTLR_EL1.A=0, WXN=0 and EPAN=0 (--sctlr)",
    "pstate": "PSTATE.PAN=0 and UAO=0 (--pstate)",
    **{
        f"mmfr{number}": "the processor has whatever TCR_EL1 turns on, and 52 bits of physical"
        f" addresses (--mmfr{number})"
        for number in range(3)
    },
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_is_not_given_is_assumed_and_nothing_else(name: str) -> None:
    assert not list(WHOLE.assumed("a file"))
    lacks: dict[str, Any] = {name: None}
    assert list(replace(WHOLE, **lacks).assumed("a file")) == [SENTENCES[name]]


def test_a_half_that_is_turned_off_is_not_missed() -> None:
    for name, off in (("ttbr0", 1 << 7), ("ttbr1", 1 << 23)):
        lacks: dict[str, Any] = {name: None, "tcr": TCR | off}
        assert not list(replace(WHOLE, **lacks).assumed("a file"))
        del lacks["tcr"]
        other = {1 << 7: 1 << 23, 1 << 23: 1 << 7}[off]
        with pytest.raises(SourceError, match=f"add --{name}, where the other half"):
            replace(WHOLE, **lacks, tcr=TCR | other).cpu()


def test_a_state_is_changed_in_what_is_given_alone() -> None:
    cpu = Cpu.of(
        Half("4K", 39, 0x1000), Half("16K", 47, 0x4000), wxn=True, pan=True, uao=True, mair=0xF0
    )
    cpu = replace(cpu, features=Features(tbid=False, hafdbs=1))
    assert cpu_with(cpu, {}) == cpu
    assert cpu_with(cpu, {"ttbr0": 0x3000}) == replace(cpu, ttbr0=0x3000)
    assert cpu_with(cpu, {"pstate": 1 << 23}) == replace(cpu, pan=False)
    assert cpu_with(cpu, {"mair": 0}) == replace(cpu, mair=0)
    assert NAMES[:5] == ("ttbr0", "ttbr1", "tcr", "mair", "sctlr")
