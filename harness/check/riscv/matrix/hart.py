"""What RISC-V's cases run under: a hart in a mode of translation, and its control state."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

from harness.machine.riscv.processor import MachineInfo
from harness.paging.format import Format
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Satp
from harness.paging.riscv.formats import PAGE_BITS

MODES: Final = tuple(mode.value for mode in Mode)
"""Names of the modes of translation."""


@dataclass(frozen=True)
class Hart:
    """A hart as it is found, in one of its modes.

    processor  as QEMU is asked for it; empty for the one that has most
    adue   whether menvcfg.ADUE can be set
    pbmte  whether there is Svpbmt, so that menvcfg.PBMTE means something
    masks  whether pointers can be masked: PMM of menvcfg and of senvcfg
    svade  whether A and D fault where ADUE is clear; else the hart always sets them
    """

    mode: str
    processor: str = ""
    svnapot: bool = True
    svrsw60t59b: bool = False
    adue: bool = True
    pbmte: bool = True
    masks: bool = True
    svade: bool = True

    @classmethod
    def of(cls, mode: str, info: MachineInfo, processor: str = "") -> Hart:
        """The hart of a guest."""
        wide = info.xlen == 64
        return cls(
            mode,
            processor,
            svnapot=wide and info.has("svnapot"),
            svrsw60t59b=wide and info.has("svrsw60t59b"),
            adue=bool(info.menvcfg & Envcfg.ADUE),
            pbmte=wide and info.has("svpbmt") and bool(info.menvcfg & Envcfg.PBMTE),
            masks=wide and bool(info.menvcfg & info.senvcfg & Envcfg.PMM),
            svade=bool(info.menvcfg & Envcfg.ADUE) or info.has("svade"),
        )

    @cached_property
    def xlen(self) -> int:
        """The width of its registers."""
        return Mode(self.mode).xlen

    @property
    def format(self) -> Format:
        """Of its entries, where no control bit is set."""
        return self.cpu(Control(), 0).format

    @property
    def levels(self) -> int:
        """Levels of tables."""
        return len(self.format.levels)

    def values(self) -> dict[str, str | int]:
        """What it has on its axes."""
        return {"mode": self.mode, "svnapot": int(self.svnapot), "svpbmt": int(self.pbmte)}

    def cpu(self, control: Control, root: int) -> Cpu:
        """Its state under `control`, with the table at physical `root`."""
        menvcfg = (Envcfg.ADUE if control.adue else 0) | (Envcfg.PBMTE if control.pbmte else 0)
        return Cpu(
            satp=Satp(Mode(self.mode), root >> PAGE_BITS).raw,
            menvcfg=menvcfg | control.pmm_s << 32,
            senvcfg=control.pmm_u << 32,
            xlen=self.xlen,
            svnapot=self.svnapot,
            svrsw60t59b=self.svrsw60t59b,
            svade=self.svade,
        )


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals.

    pmm_s, pmm_u  PMM of menvcfg, for S-mode, and of senvcfg, for U-mode
    """

    adue: bool = False
    pbmte: bool = False
    pmm_s: int = 0
    pmm_u: int = 0

    def values(self) -> dict[str, int]:
        """What it has on its axes."""
        return {axis: int(getattr(self, name)) for name, axis in _AXES}

    def lacks(self, hart: Hart) -> str | None:
        """Why a hart cannot be in it, as a reason; None if it can."""
        if self.adue and not hart.adue:
            return "the engine's processor has no menvcfg.ADUE (Svadu)"
        if self.pbmte and not hart.pbmte:
            return "the engine's processor has no menvcfg.PBMTE (Svpbmt)"
        if (self.pmm_s or self.pmm_u) and not hart.masks:
            return "the engine's processor masks no pointers (Smnpm, Ssnpm)"
        return None


_AXES = tuple((one.name, one.name.upper()) for one in fields(Control))
"""The fields of a control state, and what their axes are called."""
