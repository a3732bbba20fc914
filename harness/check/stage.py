"""What a batch runs under: a processor in one of its paging modes, and its control state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from harness.machine.guest import MachineInfo
from harness.paging.x86.cpu import Cpu

MODES: Final = ("4", "5")
"""Names of paging modes: those of long mode by their levels."""


@dataclass(frozen=True, order=True)
class Model:
    """A processor in one of its paging modes; amd: it reads entries as AMD's do."""

    maxphyaddr: int
    page1gb: bool
    mode: str
    amd: bool = False

    @property
    def levels(self) -> int:
        """Levels of tables."""
        return int(self.mode)

    @property
    def processor(self) -> str:
        """QEMU's -cpu for it on TCG, which can be any."""
        return f"max,phys-bits={self.maxphyaddr}{'' if self.page1gb else ',-pdpe1gb'}"

    def cpu(self, control: Control, root: int = 0) -> Cpu:
        """Its state under `control`, with its root table at physical `root`."""
        cpu = Cpu.long_mode(
            self.levels,
            root,
            wp=control.wp,
            nxe=control.nxe,
            smep=control.smep,
            smap=control.smap,
            maxphyaddr=self.maxphyaddr,
            page1gb=self.page1gb,
        )
        return replace(cpu, amd=self.amd)

    def lacks(self, info: MachineInfo) -> str | None:
        """Why a guest's processor cannot be this one, as a reason; None if it can."""
        if self.mode == "5" and not info.has("la57"):
            return "the engine's processor has no five-level paging (LA57)"
        return None


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals."""

    wp: bool = True
    nxe: bool = True
    smep: bool = True
    smap: bool = True

    def values(self) -> dict[str, int]:
        """What it has on its axes."""
        return {field.name.upper(): int(getattr(self, field.name)) for field in fields(self)}

    def lacks(self, info: MachineInfo) -> Iterator[str]:
        """The features that it needs and a guest's processor has not: without them it cannot be
        loaded, and loading it all the same costs the guest."""
        for wanted, feature in ((self.nxe, "nx"), (self.smep, "smep"), (self.smap, "smap")):
            if wanted and not info.has(feature):
                yield feature.upper()
