"""A layout as a source: its tables, built in memory of this process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.check import layouts
from harness.check.layouts import Layout, described
from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot
from harness.paging.memory import BY_ORDER


def snapshot(name: str, levels: int | None, registers: Mapping[str, int]) -> Snapshot:
    """The space of a shipped layout of this name, or of the one in this file.

    name       of one for another architecture than x86, with that before it: riscv/smallest
    levels     at which it is built: None is the most that it is written for
    registers  in place of the layout's own

    Raises LayoutError where there is no such layout, or it cannot be built.
    """
    layout = layouts.load(layouts.find(name))
    levels = max(layout.levels) if levels is None else levels
    layouts.check_levels(layout, layout.arch, levels)
    title = f"layout {layout.name} at {layout.mode(levels)}"
    return built(layout, levels, title, registers)


def built(layout: Layout, levels: int, title: str, registers: Mapping[str, int]) -> Snapshot:
    """The space of a layout, under this title; raises LayoutError where it cannot be built."""
    asked = architecture.named(layout.arch)
    architecture.refuse_others(asked, registers, title)
    octets = np.zeros(layout.ram, np.uint8)
    memory = BY_ORDER[asked.byte_order](octets, described(layout.arch).ram_base)
    cpu = asked.build(layout, levels, memory, registers)
    left_open = tuple(asked.left_open(cpu, registers))
    return Snapshot(title, cpu, memory, (memory.span,), left_open=left_open)
