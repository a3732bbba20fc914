"""A layout as a source: its tables, built in memory of this process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.check import layouts
from harness.check.layouts import Layout
from harness.check.x86.layouts import build
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86.processor import cpu_with
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu


def snapshot(name: str, levels: int | None, registers: Mapping[str, int]) -> Snapshot:
    """The space of a shipped layout of this name, or of the one in this file.

    levels     at which it is built: None is the most that it is written for
    registers  in place of the layout's own

    Raises LayoutError where there is no such layout, or it cannot be built.
    """
    layout = layouts.load(layouts.find(name))
    levels = max(layout.levels) if levels is None else levels
    return built(layout, levels, f"layout {layout.name} at {levels} levels", registers)


def built(layout: Layout, levels: int, title: str, registers: Mapping[str, int]) -> Snapshot:
    """The space of a layout, under this title; raises LayoutError where it cannot be built."""
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    width = layout.control.maxphyaddr or Cpu.maxphyaddr
    cpu = build(layout, levels, memory, width, page1gb=True).cpu
    return Snapshot(title, cpu_with(cpu, registers, memory), memory, (memory.span,))
