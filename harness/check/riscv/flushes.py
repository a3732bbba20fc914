"""What is RISC-V's own where the flushes of a guest are watched (privileged specification 1.13,
"Supervisor Memory-Management Fence Instruction")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.paging.riscv.cpu import Cpu, Envcfg

RUNS: Final = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""Versions of QEMU in which the cases of guest/plugin gave what the manual says."""

FLUSHES: Final = ("fence_all", "fence_space", "fence_page", "satp")
"""The counts of flushes, and of writes of satp, by their names in the plugin's report."""

ROOT: Final = "satp"
"""The register that has the root, likewise."""

UNFOLLOWED: Final = (
    "The guest ran a guest of its own, by the hypervisor extension, whose two stages are not"
    " followed."
)
"""Why the flushes of some guest are not followed."""


def state(raw: Mapping[str, int]) -> Cpu:
    """Of the hart, by what the plugin noted: it does not learn which extensions there are, so
    entries are read as with Svnapot and Svpbmt."""
    wide = raw["xlen"] == 64
    return Cpu(
        raw["satp"],
        raw["mstatus"],
        menvcfg=Envcfg.PBMTE if wide else 0,
        xlen=raw["xlen"],
        svnapot=wide,
    )
