"""Layouts, built for s390."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.check.keys import flag, in_units
from harness.check.layouts import Described, Layout, LayoutError, check_levels, construct, divided
from harness.machine.s390.processor import RAM_BASE, MachineInfo
from harness.paging.memory import WritableMemory
from harness.paging.s390.cpu import PARTS, Cpu, Mode
from harness.paging.s390.formats import dat

PHYSICAL_BITS: Final = 64


@dataclass(frozen=True)
class Control:
    """The control state that a layout is written for.

    private  the ASCE has P
    iep      instruction-execution protection is on
    edat     the enhanced-DAT facilities are on, as far as the processor has them
    low_address_protection  it is on
    quarters  how many quarters of the root's table are there
    """

    private: bool = False
    iep: bool = True
    edat: bool = True
    low_address_protection: bool = False
    quarters: int = PARTS


def _quarters(value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= PARTS:
        raise ValueError(f"where 1 to {PARTS} is asked for")
    return value


DESCRIBED: Final = Described(
    folder="s390",
    ram_base=RAM_BASE,
    modes={mode.level + 1: mode.value for mode in Mode},
    rights={"w": "write", "x": "execute"},
    cpu={
        **dict.fromkeys(("private", "iep", "edat", "low_address_protection"), flag),
        "quarters": _quarters,
    },
    control=Control,
)


def cpu_of(mode: str, info: MachineInfo, root: int, control: Control | None = None) -> Cpu:
    """A CPU of a guest whose walks begin at a mode's table, with what the processor has turned on
    that the control state asks for: all of it unless given."""
    control = control or Control()
    return Cpu.in_mode(
        Mode(mode),
        root,
        quarters=control.quarters,
        private=control.private,
        edat1=control.edat and info.has("edat1"),
        edat2=control.edat and info.has("edat2"),
        iep=control.iep and info.has("iep"),
        low_address_protection=control.low_address_protection,
    )


def build(layout: Layout, levels: int, info: MachineInfo, memory: WritableMemory) -> Cpu:
    """Builds the tables of a layout in a guest's RAM; answers the state that uses them.

    Raises LayoutError where the layout cannot be built for it; the memory is then as it was.
    """
    check_levels(layout, "s390", levels)
    control: Control = layout.control
    tables, _ = divided(layout)
    if control.iep and not info.has("iep"):
        raise LayoutError(f"{layout.name}: the processor has no instruction-execution protection")
    _check_sizes(layout, levels, info)
    # What lies in quarters of the root's table that are not there is written all the same.
    whole = cpu_of(layout.mode(levels), info, tables.first, replace(control, quarters=PARTS))
    construct(layout, whole.roots, PHYSICAL_BITS, memory)
    return cpu_of(layout.mode(levels), info, tables.first, control)


def _check_sizes(layout: Layout, levels: int, info: MachineInfo) -> None:
    """Raises LayoutError for pages of a size that s390 has, and that enhanced DAT would give."""
    sizes = {dat(edat1=True, edat2=True).levels[facility].size: facility for facility in (1, 2)}
    for part in layout.maps:
        facility = sizes.get(part.size)
        if facility is None or (part.levels and levels not in part.levels):
            continue
        why = None
        if not layout.control.edat:
            why = "the layout turns enhanced DAT off (edat)"
        elif not info.has(f"edat{facility}"):
            why = f"the processor has no enhanced-DAT facility {facility}; QEMU's lacks it"
        if why is not None:
            raise LayoutError(f"{part.where}: size is {in_units(part.size)}, and {why}")
