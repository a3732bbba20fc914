"""From what QEMU tells of a hart to the fields of its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.held import HeldMemory
from harness.inspect.riscv.live import hart, seen
from harness.inspect.snapshot import SourceError
from harness.machine.errors import ProtocolError
from harness.paging import bulk
from harness.paging.memory import Mask, Words
from harness.paging.riscv.cpu import Cpu, Envcfg
from harness.paging.riscv.formats import V

SHOWN = {"V": 0, "satp": 9 << 60 | 0x82FB0, "mstatus": 0xA_0000_40A2}

OF_7_2: Mapping[str, object] = {"svnapot": True, "svpbmt": True}
OF_10_0: Mapping[str, object] = {**OF_7_2, "svade": False, "svadu": True}


def cpu(
    shown: Mapping[str, int], model: Mapping[str, object], target: str = "riscv64"
) -> tuple[Cpu, tuple[str, ...]]:
    fields, assumed = hart(shown, model.get, {}, target)
    return Cpu(**fields), assumed  # type: ignore[arg-type]


def test_a_hart_of_7_2_sets_a_and_d_always() -> None:
    found, assumed = cpu(SHOWN, OF_7_2)
    assert (found.satp, found.mstatus) == (SHOWN["satp"], SHOWN["mstatus"])
    assert (found.svnapot, found.pbmte, found.sets_marks) == (True, True, True)
    assert assumed == ("menvcfg=0x4000000000000000, since QEMU does not show it (--menvcfg)",)


@pytest.mark.parametrize(
    ("svade", "svadu", "sets"),
    [(False, True, True), (True, True, False), (True, False, False), (False, False, True)],
)
def test_svade_and_svadu_are_as_qemu_resets_them(svade: bool, svadu: bool, sets: bool) -> None:
    found, _ = cpu(SHOWN, {**OF_10_0, "svade": svade, "svadu": svadu})
    assert found.sets_marks == sets


def test_registers_that_are_shown_are_not_assumed() -> None:
    shown = {**SHOWN, "menvcfg": 0, "senvcfg": 2 << 32}
    found, assumed = cpu(shown, OF_10_0)
    assert (found.pbmte, found.sets_marks, found.pmlen(user=True)) == (False, False, 7)
    assert assumed == ()


def test_what_is_given_is_not_assumed() -> None:
    assert hart(SHOWN, OF_7_2.get, {"menvcfg": 0}, "riscv64")[1] == ()


def test_a_hart_without_extensions_has_none() -> None:
    found, assumed = cpu(SHOWN, {"svnapot": False, "svpbmt": False})
    assert (found.svnapot, found.pbmte, found.svrsw60t59b) == (False, False, False)
    assert assumed == ("menvcfg=0x0, since QEMU does not show it (--menvcfg)",)
    assert cpu(SHOWN, {**OF_10_0, "svrsw60t59b": True})[0].svrsw60t59b
    assert cpu(SHOWN, OF_10_0)[0].menvcfg == Envcfg.PBMTE | Envcfg.ADUE


def test_a_hart_of_32_bits_is_known_by_its_satp() -> None:
    found, assumed = cpu({**SHOWN, "satp": 0x8008_2FB0}, {})
    assert (found.xlen, found.base, assumed) == (32, 0x82FB_0000, ())


@pytest.mark.parametrize(
    ("registers", "svade", "sets", "said"),
    [
        ({}, False, True, ("menvcfg=0x2000000000000000, since QEMU does not show it (--menvcfg)",)),
        ({}, True, False, ("menvcfg=0x0, since QEMU does not show it (--menvcfg)",)),
        # As QEMU 11.1 shows them after a reset, and with ADUE cleared since.
        ({"menvcfg": 0, "menvcfgh": 0x2000_0000}, False, True, ()),
        ({"menvcfg": 0, "menvcfgh": 0}, False, False, ()),
    ],
)
def test_a_hart_of_32_bits_has_adue_in_the_upper_half_of_menvcfg(
    registers: dict[str, int], svade: bool, sets: bool, said: tuple[str, ...]
) -> None:
    shown = {**SHOWN, "satp": 0x8008_2FB0, **registers}
    found, assumed = cpu(shown, {"svade": svade, "svadu": True}, "riscv32")
    assert (found.xlen, found.sets_marks, assumed) == (32, sets, said)


def test_a_hart_of_32_bits_that_translates_nothing_is_one_too() -> None:
    given = {"satp": 0x8008_2FB0}
    fields, _ = hart({**SHOWN, "satp": 0}, OF_7_2.get, given, "riscv32")
    found = Cpu(**{**fields, **given})  # type: ignore[arg-type]
    assert (found.xlen, found.base) == (32, 0x82FB_0000)
    with pytest.raises(ValueError, match="paging is off"):
        cpu({**SHOWN, "satp": 0}, {}, "riscv32")


def test_a_hart_that_runs_a_guest_is_refused() -> None:
    with pytest.raises(SourceError, match="a guest of its own"):
        cpu({**SHOWN, "V": 1}, OF_7_2)


def test_what_shows_no_satp_is_no_hart() -> None:
    with pytest.raises(ProtocolError, match="does not show satp and mstatus"):
        cpu({"CR3": 0}, OF_7_2)


TABLE = 0x8000_1000


class Answering:
    """A monitor of a machine whose only hart has these registers."""

    target = "riscv64"

    def __init__(self, **registers: int) -> None:
        self.registers = registers

    def state(self) -> str:
        return "\n".join(f" {name:8} {value:016x}" for name, value in self.registers.items())

    def cpu_property(self, name: str) -> object | None:
        return OF_10_0.get(name)


def holding() -> HeldMemory:
    """A root that leads to one table, in 16K from 0x80000000 on."""
    words = np.zeros(2048, np.uint64)
    words[512] = (TABLE + 0x1000) >> 2 | V

    def read(addresses: Words) -> tuple[npt.NDArray[np.uint8], Mask]:
        at = (addresses - np.uint64(0x8000_0000)) // np.uint64(0x1000)
        there = at < 4
        return words.view(np.uint8).reshape(4, 0x1000)[np.where(there, at, 0)], there

    return HeldMemory(0x1000, read)


def test_a_hart_has_its_registers_but_for_those_that_are_given() -> None:
    own = {"satp": 8 << 60 | TABLE >> 12, "mstatus": 1 << 18, "scause": 13, "stval": 0x1234}
    monitor, memory = cast(Any, Answering(**own, mepc=0x777)), holding()
    found = seen(monitor, {"menvcfg": 0}, memory)
    assert (found.cpu.satp, found.cpu.mstatus, found.cpu.menvcfg) == (own["satp"], 1 << 18, 0)
    assert found.registers == {"scause": 13, "stval": 0x1234, "mepc": 0x777}
    assert found.assumed == ()
    assert bulk.leaves(memory, found.cpu.roots).total == 0
    assert seen(monitor, {"mstatus": 0}, memory).cpu.mstatus == 0
    assert seen(monitor, {}, memory).assumed == (
        "menvcfg=0x6000000000000000, since QEMU does not show it (--menvcfg)",
    )
    with pytest.raises(SourceError, match="paging is off"):
        seen(monitor, {"satp": 0}, memory)
