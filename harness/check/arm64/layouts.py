"""Layouts for arm64, and how they are built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.check.keys import flag, instead
from harness.check.layouts import (
    Described,
    Layout,
    LayoutError,
    check_levels,
    construct,
    divided,
)
from harness.machine.arm64.processor import RAM_BASE, MachineInfo
from harness.paging.arm64.cpu import Cpu, Features, Half
from harness.paging.arm64.formats import GRANULES, LARGEST_OUTPUT
from harness.paging.memory import WritableMemory

NARROW: Final = 48
"""Bits of an address, unless there are 52."""


@dataclass(frozen=True)
class Control:
    """The control state that a layout is written for."""

    granule: str = "4K"
    high_granule: str | None = None
    wide: bool = False
    ha: bool = True
    hd: bool = True
    hpd: bool = False
    wxn: bool = False

    def address_bits(self, levels: int) -> int:
        """The most that so many levels translate; ValueError for more levels than all addresses
        need."""
        size = GRANULES[self.granule]
        most = LARGEST_OUTPUT if self.wide else NARROW
        enough = -(-(most - size.page) // size.stride)
        if levels > enough:
            raise ValueError(
                f"pages of {self.granule} have at most {enough} levels for {most} bits,"
                f" not {levels}"
            )
        return min(most, size.page + size.stride * levels)

    @property
    def granules(self) -> tuple[str, str]:
        """That of the lower half, and that of the upper one."""
        return self.granule, self.high_granule or self.granule

    def cpu(self, levels: int, root: int, features: Features) -> Cpu:
        """The state of a processor whose first root is at physical `root`, and the second where
        the next such table has room."""
        address_bits = self.address_bits(levels)
        first, second = (_root_bytes(granule, address_bits) for granule in self.granules)
        low, high = (
            Half(granule, address_bits, place, hpd=self.hpd)
            for granule, place in zip(
                self.granules, (root, -(-(root + first) // second) * second), strict=True
            )
        )
        return Cpu.of(
            low,
            high,
            output_bits=min(LARGEST_OUTPUT if self.wide else NARROW, features.output_bits),
            ds=self.wide and set(self.granules) != {"64K"},
            ha=self.ha,
            hd=self.hd,
            wxn=self.wxn,
            features=features,
        )


def _root_bytes(granule: str, address_bits: int) -> int:
    """The size of a root's table, of which its address is a multiple."""
    size = GRANULES[granule]
    levels = -(-(address_bits - size.page) // size.stride)
    return 8 << address_bits - size.page - size.stride * (levels - 1)


def _granule(value: object) -> str:
    if value not in GRANULES:
        raise ValueError(instead(value, GRANULES))
    return str(value)


DESCRIBED: Final = Described(
    folder="arm64",
    ram_base=RAM_BASE,
    modes={levels: f"{levels} levels" for levels in range(2, 6)},
    rights={
        "w": "write",
        "u": "user",
        "x": "user execute",
        "k": "supervisor execute",
    },
    cpu={
        "granule": _granule,
        "high_granule": _granule,
        **dict.fromkeys(("wide", "ha", "hd", "hpd", "wxn"), flag),
    },
    control=Control,
    former={
        **{"ATTR": "AttrIndx", "CONT": "Contiguous", "AP1": "AP[1]", "AP2": "AP[2]"},
        **{"APTable0": "APTable[0]", "APTable1": "APTable[1]"},
    },
    thorough=True,
)


def features_of(info: MachineInfo) -> Features:
    """What the library has to know of a guest's processor."""
    mmfr0, mmfr1, mmfr2 = info.mmfr[:3]
    return Features.of(mmfr0, mmfr1, mmfr2)


def build(layout: Layout, levels: int, info: MachineInfo, memory: WritableMemory) -> Cpu:
    """Builds the tables of a layout in a guest's RAM; answers the state that uses them.

    Raises LayoutError where the layout cannot be built for it; the memory is then as it was.
    """
    return built(layout, levels, memory, features_of(info))


def built(
    layout: Layout, levels: int, memory: WritableMemory, features: Features | None = None
) -> Cpu:
    """The same for a processor with these features; with all of them, by default."""
    check_levels(layout, "arm64", levels)
    control: Control = layout.control
    tables, _ = divided(layout)
    features = features or Features()
    try:
        cpu = control.cpu(levels, tables.first, features)
        for granule in control.granules:
            if control.wide and not cpu.is_wide(granule):
                raise ValueError(f"the processor has no 52 bits with pages of {granule}")
    except ValueError as error:
        raise LayoutError(f"{layout.name}: {error}") from None
    output_bits = min(cpu.output_bits(Half(granule, 0, 0)) for granule in control.granules)
    # What tables withhold is written down, whether or not it counts.
    written = replace(control, hpd=False).cpu(levels, tables.first, features)
    construct(layout, written.roots, output_bits, memory)
    return cpu
