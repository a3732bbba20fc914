"""From the registers that a source has, and those given in their place, to the state of a hart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from harness.inspect.snapshot import SourceError
from harness.paging.riscv.cpu import Cpu, Envcfg


def cpu_with(usual: Cpu, registers: Mapping[str, int]) -> Cpu:
    """The state of `usual` but for these registers, by the names of its fields.

    Raises SourceError where translation is off, or no hart can be in that state.
    """
    try:
        return replace(usual, **registers)  # type: ignore[arg-type]
    except ValueError as error:
        raise SourceError(str(error)) from None


def cpu_of(registers: Mapping[str, int]) -> Cpu:
    """The hart whose satp is among these registers; a satp of 32 bits or less is one of RV32, for
    RV64 has its MODE above them.

    What is not given is as usual: SUM and MXR are clear, and RV64 has Svnapot and Svpbmt.

    Raises SourceError where translation is off, or no hart can be in that state.
    """
    satp = registers["satp"]
    wide = bool(satp >> 32) or not satp
    usual = {"xlen": 64, "svnapot": True, "menvcfg": int(Envcfg.PBMTE)} if wide else {"xlen": 32}
    try:
        return Cpu(**{**usual, **registers})  # type: ignore[arg-type]
    except ValueError as error:
        raise SourceError(str(error)) from None


def assumed(cpu: Cpu, given: Mapping[str, int], source: str) -> Iterator[str]:
    """What is assumed of a hart of which a source has no more than satp, a sentence each."""
    if "mstatus" not in given:
        yield f"mstatus.SUM=0 and MXR=0, since {source} does not record them (--mstatus)"
    if "menvcfg" in given:
        return
    if cpu.xlen == 64:
        yield (
            f"entries have Svnapot and Svpbmt, since {source} does not record menvcfg; and the hart"
            " sets neither A nor D (--menvcfg)"
        )
    else:
        yield f"the hart sets neither A nor D, since {source} does not record menvcfg (--menvcfg)"
