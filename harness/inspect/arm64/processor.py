"""From the system registers that a source has, and those given in their place, to the state of a
processor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from harness.inspect.arm64.vmcoreinfo import of_linux
from harness.inspect.snapshot import SourceError
from harness.paging.arm64.cpu import OUTPUT_BITS, Cpu, Features, Sctlr

LINUX_MAIR: Final = 0x4_0044_FFFF
"""MAIR_EL1 as Linux sets it up without memory tagging (arch/arm64/mm/proc.S, MAIR_EL1_SET)."""

PSTATE_PAN: Final = 1 << 22
PSTATE_UAO: Final = 1 << 23
"""Where SPSR_EL1, and pstate of an oops, have PSTATE.PAN and PSTATE.UAO."""

EPD: Final = {"ttbr0": 1 << 7, "ttbr1": 1 << 23}
"""The bit of TCR_EL1 that turns the half of a root off."""

_LEAST_TCR: Final = 1 << 7 | 1 << 23


_TOLD: Final = {
    "mmfr0": ("output_bits", "granules", "lpa2"),
    "mmfr1": ("hafdbs", "hpds", "pan"),
    "mmfr2": ("lva", "ttst", "uao", "e0pd"),
}
"""What each ID register says of `Features`."""


@dataclass(frozen=True)
class SystemRegisters:
    """The registers that decide how EL1&0 translates, as 64-bit values; None of one that a source
    does not record.

    ttbr0, ttbr1, tcr, mair, sctlr  TTBR0_EL1 and so on
    pstate                          PSTATE as SPSR_EL1 has it, and as Linux prints it: PAN, UAO
    mmfr0, mmfr1, mmfr2             ID_AA64MMFR0_EL1 and so on: what the processor has
    """

    ttbr0: int | None = None
    ttbr1: int | None = None
    tcr: int | None = None
    mair: int | None = None
    sctlr: int | None = None
    pstate: int | None = None
    mmfr0: int | None = None
    mmfr1: int | None = None
    mmfr2: int | None = None

    def with_given(self, registers: Mapping[str, int]) -> SystemRegisters:
        """The same with these in place of its own, by the names of the fields."""
        known: dict[str, Any] = {name: registers[name] for name in NAMES if name in registers}
        return replace(self, **known)

    def cpu(self, features: Features | None = None) -> Cpu:
        """The state of the processor.  What is None is assumed, as `assumed` says.

        features  what the processor has as far as its ID registers are None; all, by default

        Raises SourceError without TCR_EL1 or any root, where translation is off, and where no
        processor can be in that state, or this one cannot.
        """
        if self.tcr is None:
            raise SourceError("nothing says how addresses are translated: add --tcr")
        tcr = self.tcr
        for name in ("ttbr0", "ttbr1"):
            if getattr(self, name) is None:
                tcr |= EPD[name]
        if tcr & _LEAST_TCR == _LEAST_TCR:
            off = [name for name in ("ttbr0", "ttbr1") if self.tcr & EPD[name]]
            if len(off) == 2:
                raise SourceError(f"paging is off: TCR_EL1 {self.tcr:#x} has EPD0=1 and EPD1=1")
            if off:
                (missing,) = EPD.keys() - {*off}
                number = off[0][-1]
                raise SourceError(
                    f"TCR_EL1 {self.tcr:#x} has EPD{number}=1, so that the half of"
                    f" {NAMED[off[0]]} is not translated: add --{missing},"
                    " where the other half's tables are"
                )
            raise SourceError("nothing says where the tables are: add --ttbr0 or --ttbr1, or both")
        sctlr = int(Sctlr.M) if self.sctlr is None else self.sctlr
        if sctlr & Sctlr.EE:
            raise SourceError(
                f"SCTLR_EL1 {sctlr:#x} has EE=1: big-endian tables are not looked at here"
            )
        pstate = self.pstate or 0
        try:
            return Cpu(
                self.ttbr0 or 0,
                self.ttbr1 or 0,
                tcr,
                LINUX_MAIR if self.mair is None else self.mair,
                sctlr,
                bool(pstate & PSTATE_PAN),
                bool(pstate & PSTATE_UAO),
                self._features(features or Features()),
            )
        except ValueError as error:
            own = f"TCR_EL1 {self.tcr:#x}"  # without the bits that were set for want of a root
            raise SourceError(str(error).replace(f"TCR_EL1 {tcr:#x}", own)) from None

    def _features(self, usual: Features) -> Features:
        """What the processor has: the usual, unless its ID registers say otherwise."""
        mmfr0, mmfr1, mmfr2 = (getattr(self, name) or 0 for name in _TOLD)
        of = Features.of(mmfr0, mmfr1, mmfr2)
        told = [name for name in _TOLD if getattr(self, name) is not None]
        return replace(usual, **{one: getattr(of, one) for name in told for one in _TOLD[name]})

    @property
    def unsure(self) -> frozenset[str]:
        """The roots that a source does not record, by the fields, of halves that are on."""
        return frozenset(
            name for name in EPD if getattr(self, name) is None and not (self.tcr or 0) & EPD[name]
        )

    def assumed(self, source: str) -> Iterator[str]:
        """What is assumed of what a source does not record, a sentence each."""
        for name, half in (("ttbr0", "lower"), ("ttbr1", "upper")):
            if name in self.unsure:
                yield (
                    f"nothing of the {half} half, since {source} does not record {NAMED[name]}"
                    f" (--{name})"
                )
        if self.mair is None:
            yield f"MAIR_EL1={LINUX_MAIR:#x}, as Linux has it (--mair)"
        if self.sctlr is None:
            yield "SCTLR_EL1.A=0, WXN=0 and EPAN=0 (--sctlr)"
        if self.pstate is None:
            yield "PSTATE.PAN=0 and UAO=0 (--pstate)"
        if missing := [name for name in ("mmfr0", "mmfr1", "mmfr2") if getattr(self, name) is None]:
            options = ", ".join(f"--{name}" for name in missing)
            yield (
                f"the processor has whatever TCR_EL1 turns on, and {OUTPUT_BITS[-1]} bits of"
                f" physical addresses ({options})"
            )


def of_kernel(
    title: str, texts: Iterable[bytes], given: Mapping[str, int]
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """The registers that are given; where they name neither TCR_EL1 nor a root, with those of the
    Linux that left its VMCOREINFO among these texts, and a sentence that says so."""
    if {"tcr", "ttbr0", "ttbr1"} & given.keys():
        return given, ()
    found = of_linux(title, texts)
    options = " ".join(f"--{name} {value:#x}" for name, value in found.items())
    said = f"the tables are those of Linux itself, by its VMCOREINFO ({options})"
    return {**found, **given}, (said,)


def cpu_with(usual: Cpu, registers: Mapping[str, int]) -> Cpu:
    """The state of `usual` but for these registers, by the names of `SystemRegisters`.

    Raises SourceError where translation is off, or no processor can be in that state.
    """
    pstate = PSTATE_PAN * usual.pan | PSTATE_UAO * usual.uao
    system = SystemRegisters(usual.ttbr0, usual.ttbr1, usual.tcr, usual.mair, usual.sctlr, pstate)
    return system.with_given(registers).cpu(usual.features)


NAMES: Final = tuple(field.name for field in fields(SystemRegisters))

NAMED: Final = {
    "ttbr0": "TTBR0_EL1",
    "ttbr1": "TTBR1_EL1",
    "tcr": "TCR_EL1",
    "mair": "MAIR_EL1",
    "sctlr": "SCTLR_EL1",
    "pstate": "PSTATE",
    "mmfr0": "ID_AA64MMFR0_EL1",
    "mmfr1": "ID_AA64MMFR1_EL1",
    "mmfr2": "ID_AA64MMFR2_EL1",
}
"""What the manual calls them."""
