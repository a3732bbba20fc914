"""Layouts for POWER, and how they are built: the tree of the process in quadrant 0, that of process
0 in quadrant 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.check.keys import RIGHTS, instead
from harness.check.layouts import (
    Described,
    Layout,
    LayoutError,
    check_levels,
    construct,
    divided,
)
from harness.machine.power.processor import MachineInfo
from harness.paging.memory import WritableMemory
from harness.paging.power.cpu import Cpu

PAGES: Final = {"4K": 12, "64K": 16}
"""log2 of the smallest page."""

PHYSICAL_BITS: Final = 56
"""The width of what an entry can lead to."""


@dataclass(frozen=True)
class Control:
    """What a layout is written for: the size of its smallest pages, as in `PAGES`."""

    pages: str = "4K"


def _pages(value: object) -> str:
    if value not in PAGES:
        raise ValueError(instead(value, PAGES))
    return str(value)


DESCRIBED: Final = Described(
    folder="power",
    ram_base=0,
    modes={4: "radix"},
    rights={"r": "read", **RIGHTS},
    cpu={"pages": _pages},
    control=Control,
    former={"PRIV": "EAA0", "READ": "EAA1", "RW": "EAA2", "X": "EAA3"},
)


def build(layout: Layout, levels: int, info: MachineInfo, memory: WritableMemory) -> Cpu:
    """Builds the tables of a layout in a guest's RAM; answers the state that uses them.

    Raises LayoutError where the layout cannot be built for it; the memory is then as it was.
    """
    return built(layout, levels, memory, sets_marks=info.sets_marks)


def built(layout: Layout, levels: int, memory: WritableMemory, sets_marks: bool) -> Cpu:
    """The same for a processor that sets R and C itself, or not."""
    check_levels(layout, "power", levels)
    control: Control = layout.control
    tables, _ = divided(layout)
    page_bits = PAGES[control.pages]
    trial = Cpu.of(0, page_bits=page_bits)
    root_bytes = trial.format.table_bytes(levels - 1)
    first = -(-tables.first // root_bytes) * root_bytes
    try:
        cpu = Cpu.of(first, first + root_bytes, page_bits=page_bits, sets_marks=sets_marks)
    except ValueError as error:
        raise LayoutError(f"{layout.name}: {error}") from None
    construct(layout, cpu.roots, PHYSICAL_BITS, memory)
    return cpu
