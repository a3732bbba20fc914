"""Layouts, built for RISC-V."""

from __future__ import annotations

from typing import Final

from harness.check.keys import RIGHTS
from harness.check.layouts import (
    Described,
    Layout,
    LayoutError,
    check_levels,
    construct,
    divided,
)
from harness.machine.riscv.processor import RAM_BASE, MachineInfo
from harness.paging.memory import WritableMemory
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode

DESCRIBED: Final = Described(
    folder="riscv",
    ram_base=RAM_BASE,
    modes={2: "sv32", 3: "sv39", 4: "sv48", 5: "sv57"},
    rights={"r": "read", **RIGHTS},
    cpu={},
    control=lambda: None,
)


def cpu_of(mode: str, info: MachineInfo, root: int) -> Cpu:
    """A hart of a guest in a mode, with all of its extensions turned on that concern entries.

    Raises LayoutError where it does not have the mode.
    """
    if mode not in info.modes:
        raise LayoutError(f"the processor has no {mode}: it has {', '.join(sorted(info.modes))}")
    wide = info.xlen == 64
    menvcfg = info.menvcfg & Envcfg.ADUE
    if wide and info.has("svpbmt"):
        menvcfg |= info.menvcfg & Envcfg.PBMTE
    return Cpu(
        satp=Cpu.in_mode(Mode(mode), root).satp,
        menvcfg=menvcfg,
        xlen=info.xlen,
        svnapot=wide and info.has("svnapot"),
        svrsw60t59b=wide and info.has("svrsw60t59b"),
        svade=bool(info.menvcfg & Envcfg.ADUE) or info.has("svade"),
    )


def build(layout: Layout, levels: int, info: MachineInfo, memory: WritableMemory) -> Cpu:
    """Builds the tables of a layout in a guest's RAM; answers the hart that uses them.

    Raises LayoutError where the layout cannot be built for it; the memory is then as it was.
    """
    check_levels(layout, "riscv", levels)
    tables, _ = divided(layout)
    cpu = cpu_of(layout.mode(levels), info, tables.first)
    construct(layout, cpu.roots, 34 if info.xlen == 32 else 56, memory)
    return cpu
