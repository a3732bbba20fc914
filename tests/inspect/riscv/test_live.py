"""From what QEMU tells of a hart to the fields of its state."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.inspect.riscv.live import hart
from harness.inspect.snapshot import SourceError
from harness.machine.errors import ProtocolError
from harness.paging.riscv.cpu import Cpu, Envcfg

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
