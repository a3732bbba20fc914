"""The registers of arm64's processors, of which QEMU's monitor shows none that translation needs.

Its gdb stub describes those that the processor has (QEMU, target/arm/gdbstub.c:
arm_gen_dynamic_sysreg_xml), and calls them as the manual does, but for those that AArch32 has under
the same name: 7.2 and 10.0 have SCTLR for SCTLR_EL1.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Protocol

NAMES: Final = (
    *("TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "TCR2_EL1", "MAIR_EL1", "SCTLR_EL1"),
    *("ESR_EL1", "FAR_EL1", "ELR_EL1", "SPSR_EL1"),
    *("TTBR0_EL2", "TTBR1_EL2", "TCR_EL2", "TCR2_EL2", "MAIR_EL2", "SCTLR_EL2"),
    *("ESR_EL2", "FAR_EL2", "ELR_EL2", "SPSR_EL2", "HCR_EL2"),
    *("ID_AA64MMFR0_EL1", "ID_AA64MMFR1_EL1", "ID_AA64MMFR2_EL1"),
    *("ID_AA64ISAR1_EL1", "ID_AA64ISAR2_EL1"),
    *("pc", "cpsr"),
)
"""Those that say how a processor translates, of which kind it is, where it is, and what its last
exception was; cpsr is PSTATE as an exception saves it."""

EL, PAN = 3 << 2, 1 << 22
"""Fields of cpsr: the exception level, and PSTATE.PAN."""

_ALSO: Final = {"SCTLR": "SCTLR_EL1", "ID_AA64ISAR2_EL1_RESERVED": "ID_AA64ISAR2_EL1"}


class Described(Protocol):
    """A monitor that reads the registers which its gdb stub describes."""

    def described_registers(
        self, wanted: Collection[str], /, vcpu: int | None = None
    ) -> dict[str, int]: ...


def registers_of(monitor: Described, vcpu: int | None = None) -> dict[str, int]:
    """Those of `NAMES` that a processor has, by the manual's names, of a guest that stands; of
    another than the monitor is asked about if `vcpu` says so."""
    found = monitor.described_registers((*NAMES, *_ALSO), vcpu=vcpu)
    return {_ALSO.get(name, name): value for name, value in found.items()}


def program_counter(state: str) -> int | None:
    """The address of the instruction that comes next, as `info registers` prints it; None where it
    prints none, as of a processor in AArch32."""
    match = re.search(r"^ PC=([0-9a-f]{16})", state, re.MULTILINE)
    return int(match[1], 16) if match else None
