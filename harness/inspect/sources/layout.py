"""A layout as a source: its tables, built in memory of this process."""

from __future__ import annotations

import numpy as np

from harness.check import layouts
from harness.inspect.snapshot import Snapshot
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu


def snapshot(name: str, levels: int | None = None) -> Snapshot:
    """The space of a shipped layout of this name, or of the one in this file.

    levels  at which it is built: the most that it is written for, unless said

    Raises LayoutError where there is no such layout, or it cannot be built.
    """
    layout = layouts.load(layouts.find(name))
    levels = levels or max(layout.levels)
    memory = BufferMemory(np.zeros(layout.ram, np.uint8))
    width = layout.maxphyaddr or Cpu.maxphyaddr
    built = layouts.build(layout, levels, memory, width, page1gb=True)
    title = f"layout {layout.name} at {levels} levels"
    return Snapshot(title, built.cpu, memory, (memory.span,))
