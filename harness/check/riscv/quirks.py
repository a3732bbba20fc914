"""Departures of QEMU's TCG that show where layouts are compared, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.quirks import Quirk

AMO_LOAD: Final = Quirk(
    name="tcg-riscv-amo-load",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="AMOs never raise load page-fault exceptions"
    ' (privileged specification, "Sv32", Addressing and Memory Protection)',
    departs="an AMO to a page that cannot be read raises a load's page fault",
    evidence="accesses of the guest; QEMU 10.0.13 and 11.1.3 follow the rule",
)

MPRV_CODE: Final = Quirk(
    name="tcg-riscv-mprv-code",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="with MPRV=1 loads and stores are translated as those of the mode in MPP"
    ' (privileged specification, "Memory Privilege in mstatus Register")',
    departs="data at a virtual address that M-mode has just executed from is not translated: what"
    " M-mode fetches and what it loads by MPRV share a TLB",
    evidence="accesses of the guest, the same ones by S-mode and U-mode follow the rule;"
    " target/riscv/cpu_helper.c of 7.2: riscv_cpu_mmu_index() answers the privilege alone",
)

KNOWN: Final[Mapping[str, Quirk]] = {one.name: one for one in (AMO_LOAD, MPRV_CODE)}
"""The same by name."""
