"""A hart whose flushes are watched, by what the plugin notes of it."""

from __future__ import annotations

import pytest

from harness.check.riscv import quirks
from harness.check.riscv.flushes import RUNS, state

SUM, MXR = 1 << 18, 1 << 19


@pytest.mark.parametrize(("xlen", "satp"), [(32, 1 << 31 | 0x8_1234), (64, 9 << 60 | 0x8_1234)])
def test_entries_are_read_with_the_extensions_that_the_bits_of_a_hart_allow(
    xlen: int, satp: int
) -> None:
    for status, allows in ((0, (False, False)), (SUM, (True, False)), (MXR, (False, True))):
        cpu = state({"xlen": xlen, "satp": satp, "mstatus": status})
        assert (cpu.xlen, cpu.satp, cpu.base) == (xlen, satp, 0x8123_4000)
        assert (cpu.sum, cpu.mxr) == allows
        assert cpu.svnapot == cpu.pbmte == (xlen == 64)


def test_flushes_were_watched_in_versions_in_which_all_else_was_run() -> None:
    assert set(RUNS) <= set(quirks.RUNS) and len(RUNS) == len(set(RUNS))
