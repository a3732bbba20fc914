"""What is x86's own where the flushes of a guest are watched (Intel SDM, volume 3A, 4.10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.paging.x86.cpu import Cpu

WIDEST: Final = 52
"""Bits of a physical address, since the plugin does not learn the processor's own width."""

RUNS: Final = ((7, 2, 22), (8, 2, 2), (10, 0, 13), (11, 1, 3))
"""Versions of QEMU in which the cases of guest/plugin gave what the manual says."""

FLUSHES: Final = ("invlpg", "mov_cr3", "control")
"""The counts of flushes, by their names in the plugin's report."""

ROOT: Final = "cr3"
"""The register that has the root, likewise."""

UNFOLLOWED: Final = "The guest set CR4.PCIDE, whose flushes are not followed."
"""Why those of some guest are not followed."""


def state(raw: Mapping[str, int]) -> Cpu:
    """Of the processor, by what the plugin noted."""
    return Cpu(raw["cr0"], raw["cr3"], raw["cr4"], raw["efer"], maxphyaddr=WIDEST, pdptes_checked=0)
