"""The state of a RISC-V hart, in words and as what JSON can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.paging.riscv.cpu import Cpu


def root(_: int) -> str:
    """The register that leads to the root."""
    return "satp"


def notes(cpu: Cpu) -> Iterator[str]:
    """What there is to know of a state before anything that is said of its tables, a sentence
    each."""
    if cpu.mxr:
        yield "mstatus.MXR=1, so that pages with X=1 can be read, whatever R is (Sv39, step 8)."
    if cpu.sum:
        yield "mstatus.SUM=1, so that S-mode reads and writes pages with U=1 (Sv39, step 6)."


def root_text(cpu: Cpu) -> str:
    """satp, its mode, and where it leads."""
    asid = f", ASID {cpu.asid:#x}" if cpu.asid else ""
    return f"satp {cpu.satp:#x} ({cpu.format.name}, root at {cpu.base:#x}{asid})"


def rows(cpu: Cpu) -> Iterator[tuple[str, str]]:
    """The registers of a state, and what they hold."""
    yield "satp", root_text(cpu).removeprefix("satp ")
    yield "mstatus", f"{cpu.mstatus:#x}"
    yield "menvcfg", f"{cpu.menvcfg:#x}"


def as_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return {
        "architecture": cpu.architecture,
        "mode": cpu.mode.value,
        "satp": hex(cpu.satp),
        "mstatus": hex(cpu.mstatus),
        "menvcfg": hex(cpu.menvcfg),
        "senvcfg": hex(cpu.senvcfg),
        "root": hex(cpu.base),
        "xlen": cpu.xlen,
        "svnapot": cpu.svnapot,
        "svrsw60t59b": cpu.svrsw60t59b,
        "svade": cpu.svade,
    }


def rootless(_: Mapping[str, Any]) -> dict[str, Any]:
    """What of that is another where it is not known where the root is."""
    return {"satp": None, "root": None}
