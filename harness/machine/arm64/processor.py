"""The guest's processor: what it is, and the state that a batch asks it to take.

Registers and fields are those of the Arm ARM (DDI 0487), chapter D24.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.machine.errors import Misuse

GRANULES: Final = {"4K": 12, "16K": 14, "64K": 16}
"""log2 of the bytes of a page."""

TG0: Final = {"4K": 0, "64K": 1, "16K": 2}
TG1: Final = {"16K": 1, "4K": 2, "64K": 3}
"""The granule in TCR_EL1.TG0 and TG1, whose codes differ."""

ADDRESS_BITS: Final = (32, 36, 40, 42, 44, 48, 52, 56)
"""Of physical addresses, by TCR_EL1.IPS and ID_AA64MMFR0_EL1.PARange."""

RAM_BASE: Final = 0x4000_0000
"""Where QEMU's machine `virt` has RAM."""

SMALLEST_PAGE: Final = 4096

MMU: Final = 1
BIG_ENDIAN: Final = 1 << 24 | 1 << 25
SCTLR: Final = 0x30D0_1985
"""SCTLR_EL1 unless a state has another: M, C, I, SPAN, and the bits that are 1 in ARMv8.0."""

_DS: Final = 1 << 59
_RESERVED: Final = 1 << 6 | 1 << 35 | 3 << 60 | 3 << 62
"""Bits of TCR_EL1 that mean nothing, or what no guest has here."""


@dataclass(frozen=True)
class Half:
    """What TCR_EL1 and a TTBR say of one half of the addresses.

    name     0 or 1, as in TTBR0_EL1
    granule  one of `GRANULES`; None for a code that is reserved
    size     TxSZ: addresses have 64 - size bits
    used     whether EPDx lets its tables be read
    root     the physical address of the first table
    """

    name: str
    granule: str | None
    size: int
    used: bool
    root: int

    @property
    def root_bytes(self) -> int:
        """The size of the first table, of which the root is a multiple: of 64 bytes too where the
        TTBR has other bits of the address below (AArch64.S1TTBaseAddress)."""
        assert self.granule is not None
        page = GRANULES[self.granule]
        index_bits = (64 - self.size - page - 1) % (page - 3) + 1
        return 8 << index_bits


@dataclass(frozen=True)
class State:
    """What a batch runs under: plain numbers of registers of EL1.

    ttbr0, ttbr1, tcr, mair, sctlr  TTBR0_EL1 and so on
    window  the virtual address of a page that leads to the stub's `user` section, and that EL0 and
            EL1 may execute; None where no job makes an access (TRANSLATE_* is none)
    """

    ttbr0: int
    ttbr1: int
    tcr: int
    mair: int = 0xFF
    sctlr: int = SCTLR
    window: int | None = None

    @property
    def word_bytes(self) -> int:
        """The size of an entry."""
        return 8

    @property
    def halves(self) -> tuple[Half, Half]:
        """The halves of the addresses, that of TTBR0_EL1 first."""
        return self._half(0, self.ttbr0, TG0), self._half(1, self.ttbr1, TG1)

    def _half(self, number: int, ttbr: int, codes: Mapping[str, int]) -> Half:
        fields = self.tcr >> 16 * number
        granule = next((one for one, code in codes.items() if code == fields >> 14 & 3), None)
        root = ttbr & 0xFFFF_FFFF_FFFE
        if self.tcr >> 32 & 7 == 6 and (granule == "64K" or self.tcr & _DS):
            root = root & ~63 | (ttbr >> 2 & 15) << 48
        return Half(str(number), granule, fields & 63, not fields >> 7 & 1, root)


@dataclass(frozen=True)
class MachineInfo:
    """The guest's processor, by its own registers.

    mmfr   ID_AA64MMFR0_EL1 to ID_AA64MMFR4_EL1
    isar0  ID_AA64ISAR0_EL1
    sctlr  the bits of SCTLR_EL1 that it keeps
    """

    mmfr: tuple[int, ...]
    isar0: int
    sctlr: int

    def _field(self, register: int, low: int) -> int:
        return self.mmfr[register] >> low & 15

    @property
    def granules(self) -> frozenset[str]:
        """Those of `GRANULES` that stage 1 can have (TGran4, TGran16, TGran64)."""
        has = {
            "4K": self._field(0, 28) != 15,
            "16K": self._field(0, 20) != 0,
            "64K": self._field(0, 24) != 15,
        }
        return frozenset(granule for granule, there in has.items() if there)

    @property
    def wide(self) -> frozenset[str]:
        """The granules that can have addresses of 52 bits: with 4K and 16K by TCR_EL1.DS
        (FEAT_LPA2), with 64K always (FEAT_LVA)."""
        has = {
            "4K": self._field(0, 28) == 1,
            "16K": self._field(0, 20) == 2,
            "64K": self._field(2, 16) >= 1,
        }
        return frozenset(granule for granule, there in has.items() if there)

    @property
    def physical_bits(self) -> int:
        """The bits of physical addresses (PARange)."""
        return ADDRESS_BITS[min(self._field(0, 0), 7)]

    @property
    def asid_bits(self) -> int:
        """The bits of an ASID."""
        return 16 if self._field(0, 4) == 2 else 8

    @property
    def small_tables(self) -> bool:
        """Whether TxSZ goes up to 48, 47 with 64K, and not only to 39 (FEAT_TTST)."""
        return self._field(2, 28) != 0

    @property
    def accessed(self) -> bool:
        """Whether hardware can set AF (HAFDBS)."""
        return self._field(1, 0) >= 1

    @property
    def dirty(self) -> bool:
        """Whether hardware can keep the dirty state (HAFDBS)."""
        return self._field(1, 0) >= 2

    @property
    def hierarchy_optional(self) -> bool:
        """Whether tables can be kept from withholding rights: HPD0 and HPD1 (FEAT_HPDS)."""
        return self._field(1, 12) >= 1

    @property
    def pan(self) -> int:
        """0 without PSTATE.PAN; 2 with AT S1E1RP, 3 with SCTLR_EL1.EPAN."""
        return self._field(1, 20)

    @property
    def uao(self) -> bool:
        """Whether there is PSTATE.UAO."""
        return self._field(2, 4) >= 1

    @property
    def e0pd(self) -> bool:
        """Whether EL0 can be kept out of a half: E0PD0 and E0PD1."""
        return self._field(2, 60) >= 1

    @property
    def atomics(self) -> bool:
        """Whether there is SWP (FEAT_LSE)."""
        return self.isar0 >> 20 & 15 >= 2


def check_state(state: State, info: MachineInfo, ram: range) -> None:
    """Raise `Misuse` for a state that this processor, with this RAM, cannot take."""
    for reason in _refusals(state, info, ram):
        raise Misuse(f"{reason}: {state}")


def _refusals(state: State, info: MachineInfo, ram: range) -> Iterator[str]:
    if extra := state.sctlr & ~info.sctlr:
        yield f"SCTLR_EL1 has bits that the processor does not keep, {extra:#x}"
    if not state.sctlr & MMU:
        yield "SCTLR_EL1.M is clear, and nothing is translated"
    if state.sctlr & BIG_ENDIAN:
        yield "SCTLR_EL1 has EE or E0E, and the stub is little-endian"
    if state.sctlr >> 57 & 1 and info.pan < 3:
        yield "SCTLR_EL1.EPAN is set, and the processor does not have it"
    if extra := state.tcr & _RESERVED or state.tcr >> 64:
        yield f"TCR_EL1 has reserved bits, {extra:#x}"
    if state.tcr >> 32 & 7 == 7:
        yield "TCR_EL1.IPS is 7, which is reserved"
    for bits, name, there in (
        (1 << 36, "AS", info.asid_bits == 16),
        (1 << 39, "HA", info.accessed),
        (1 << 40, "HD", info.dirty),
        (3 << 41, "HPD0 or HPD1", info.hierarchy_optional),
        (3 << 55, "E0PD0 or E0PD1", info.e0pd),
        (_DS, "DS", bool(info.wide & {"4K", "16K"})),
    ):
        if state.tcr & bits and not there:
            yield f"TCR_EL1.{name} is set, and the processor does not have it"
    for half in state.halves:
        if half.used:
            yield from _refusals_of(half, state, info, ram)
    if state.window is not None:
        yield from _refusals_of_window(state.window, state.halves, ram)


def _refusals_of_window(window: int, halves: tuple[Half, Half], ram: range) -> Iterator[str]:
    half = halves[window >> 55 & 1]
    if window % SMALLEST_PAGE or window >> 64:
        yield f"the window is at {window:#x}, which is no page's address"
    elif not half.used:
        yield "the window is in the half that TCR_EL1 has no tables for"
    elif half.root >= ram.stop:
        yield "the window is in the half whose root is outside RAM"


def _refusals_of(half: Half, state: State, info: MachineInfo, ram: range) -> Iterator[str]:
    if half.granule is None:
        yield f"TCR_EL1.TG{half.name} is a reserved code"
        return
    if half.granule not in info.granules:
        has = ", ".join(granule for granule in GRANULES if granule in info.granules)
        yield f"TCR_EL1.TG{half.name} is {half.granule}, and the processor has {has}"
        return
    sizes = sizes_of(half.granule, info, bool(state.tcr & _DS))
    if half.size not in sizes:
        yield (
            f"TCR_EL1.T{half.name}SZ is {half.size}, and with {half.granule} it is from"
            f" {sizes[0]} to {sizes[-1]}"
        )
        return
    if half.root % half.root_bytes:
        yield f"the root of TTBR{half.name}_EL1 is no multiple of {half.root_bytes} bytes"
    if half.root < ram.start:
        yield f"the root of TTBR{half.name}_EL1 is at {half.root:#x}, where devices are"


def sizes_of(granule: str, info: MachineInfo, wide: bool) -> range:
    """What TxSZ can be with a granule; `wide` is TCR_EL1.DS."""
    least = 12 if granule in info.wide and (wide or granule == "64K") else 16
    most = 39
    if info.small_tables:
        most = 47 if granule == "64K" else 48
    return range(least, most + 1)
