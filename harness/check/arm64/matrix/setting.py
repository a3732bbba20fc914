"""What arm64's cases run under: the format of the half that is tested, and the control state.

The other half has the stub's window, by tables for 39 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Final, NamedTuple

from harness.paging.arm64.cpu import NORMAL, Cpu, Features, Half
from harness.paging.arm64.formats import GRANULES
from harness.paging.format import Format


class Mode(NamedTuple):
    """A granule, whether TCR_EL1.DS is set, and the most bits of an address and of its output."""

    granule: str
    ds: bool
    bits: int


MODES: Final = {
    "4k": Mode("4K", False, 48),
    "4k-52": Mode("4K", True, 52),
    "16k": Mode("16K", False, 48),
    "16k-52": Mode("16K", True, 52),
    "64k": Mode("64K", False, 52),
}
"""The modes by name."""

WINDOW_BITS: Final = 39
"""Bits of the addresses in the half of the window."""


@dataclass(frozen=True)
class Setting:
    """A half whose addresses have so many bits, on a processor with these features."""

    mode: str
    address_bits: int
    features: Features

    @property
    def granule(self) -> str:
        return MODES[self.mode].granule

    @property
    def levels(self) -> int:
        """Levels of tables."""
        size = GRANULES[self.granule]
        return -(-(self.address_bits - size.page) // size.stride)

    def shift(self, level: int) -> int:
        """log2 of the bytes that a descriptor at a level spans."""
        size = GRANULES[self.granule]
        return size.page + size.stride * level

    @property
    def root_bytes(self) -> int:
        """The size of the root table."""
        return 8 << self.address_bits - self.shift(self.levels - 1)

    @property
    def wide(self) -> bool:
        """Whether descriptors hold addresses of 52 bits."""
        return MODES[self.mode].bits == 52

    def values(self) -> dict[str, str | int]:
        """What it has on its axes."""
        return {"mode": self.mode, "bits": self.address_bits}

    def cpu(self, control: Control, root: int, window_root: int) -> Cpu:
        """The state of a processor under `control`, with tables at these physical addresses."""
        return _cpu(self, control, root, window_root)

    def format(self, control: Control, cpu: Cpu) -> Format:
        """The format of the tested half."""
        half = Half(self.granule, self.address_bits, 0, hpd=control.hpd)
        return cpu.format_of(half)


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals.

    high    whether the half is that of TTBR1_EL1
    aligns  whether all data must be aligned (SCTLR_EL1.A)
    device  whether the pages tried are Device memory
    ips     the bits of physical addresses that TCR_EL1.IPS says
    beyond  a bit that the root's address has in addition; 0 for none
    beside  the granule of the other half
    """

    high: bool = False
    ha: bool = False
    hd: bool = False
    hpd: bool = False
    wxn: bool = False
    epan: bool = False
    tbi: bool = False
    tbid: bool = False
    e0pd: bool = False
    epd: bool = False
    aligns: bool = False
    device: bool = False
    ips: int = 48
    beyond: int = 0
    beside: str = "4K"

    def values(self) -> dict[str, int | str]:
        """What it has on its axes."""
        found = ((name, getattr(self, name)) for name in _NAMES)
        return {name.upper(): int(one) if isinstance(one, bool) else one for name, one in found}

    def lacks(self, features: Features) -> str | None:
        """Why a processor cannot be in it, as a reason; None if it can."""
        if self.epan and features.pan < 3:
            return "the engine's processor has no SCTLR_EL1.EPAN (FEAT_PAN3)"
        if self.beside not in features.granules:
            return f"the engine's processor has no pages of {self.beside}"
        return None


_NAMES: Final = tuple(one.name for one in fields(Control))


WINDOW_TYPE: Final = 1
"""AttrIndx of the page of the window, which is never Device memory: what fetches from there do is
left to the machine."""

_NORMAL: Final = NORMAL | NORMAL << 8
_DEVICE: Final = NORMAL << 8
"""MAIR_EL1, whose lowest byte is for the pages tried: Device-nGnRnE is 0."""


@cache
def _cpu(setting: Setting, control: Control, root: int, window_root: int) -> Cpu:
    root |= 1 << control.beyond if control.beyond else 0
    tested = Half(
        setting.granule,
        setting.address_bits,
        root,
        hpd=control.hpd,
        tbi=control.tbi,
        tbid=control.tbid,
        e0pd=control.e0pd,
    )
    halves = (tested, Half(control.beside, WINDOW_BITS, window_root))
    low, high = reversed(halves) if control.high else halves
    cpu = Cpu.of(
        low,
        high,
        output_bits=control.ips,
        ds=MODES[setting.mode].ds,
        ha=control.ha,
        hd=control.hd,
        wxn=control.wxn,
        epan=control.epan,
        aligns=control.aligns,
        mair=_DEVICE if control.device else _NORMAL,
        features=setting.features,
    )
    off = (1 << 23 if control.high else 1 << 7) if control.epd else 0
    return replace(cpu, tcr=cpu.tcr | off)
