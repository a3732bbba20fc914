"""Layouts for x86, and how they are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.check.keys import RIGHTS, flag, number
from harness.check.layouts import (
    Described,
    Layout,
    LayoutError,
    check_levels,
    construct,
    divided,
)
from harness.paging.address import Span
from harness.paging.memory import WritableMemory
from harness.paging.space import Space
from harness.paging.x86.cpu import Cpu


@dataclass(frozen=True)
class Control:
    """The control state that a layout is written for.

    maxphyaddr  the width of physical addresses that it needs, None where any will do
    """

    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    lass: bool = False
    maxphyaddr: int | None = None

    def __post_init__(self) -> None:
        self.cpu(4, 0, self.maxphyaddr or Cpu.maxphyaddr, True).format  # noqa: B018

    def cpu(self, levels: int, root: int, maxphyaddr: int, page1gb: bool) -> Cpu:
        """The CPU state, its root table at physical `root`."""
        return Cpu.long_mode(
            levels,
            root,
            wp=self.wp,
            nxe=self.nxe,
            smep=self.smep,
            smap=self.smap,
            lass=self.lass,
            maxphyaddr=maxphyaddr,
            page1gb=page1gb,
        )


DESCRIBED: Final = Described(
    folder=".",
    ram_base=0,
    modes={4: "4 levels", 5: "5 levels"},
    rights=RIGHTS,
    cpu={**dict.fromkeys(("wp", "nxe", "smep", "smap", "lass"), flag), "maxphyaddr": number},
    control=Control,
    thorough=True,
)


@dataclass(frozen=True)
class Built:
    """A layout whose tables stand in memory.

    cpu     the state in which its addresses translate as described
    tables  the memory that is set aside for its tables
    frames  the rest of RAM, where its pages are
    """

    layout: Layout
    cpu: Cpu
    space: Space
    tables: Span
    frames: Span


def build(
    layout: Layout, levels: int, memory: WritableMemory, maxphyaddr: int, page1gb: bool
) -> Built:
    """Builds the tables of a layout in memory that has at least its RAM.

    `maxphyaddr` and `page1gb` are what the processor has.  Raises LayoutError where the
    layout cannot be built for it; the memory is then as it was.
    """
    check_levels(layout, "x86", levels)
    control: Control = layout.control
    if control.maxphyaddr not in (None, maxphyaddr):
        raise LayoutError(f"{layout.name} is for MAXPHYADDR {control.maxphyaddr}, not {maxphyaddr}")
    tables, frames = divided(layout)
    cpu = control.cpu(levels, tables.first, maxphyaddr, page1gb)
    (space,) = construct(layout, cpu.roots, maxphyaddr, memory)
    return Built(layout, cpu, space, tables, frames)
