"""The state of an s390 processor, in words and as what JSON can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.paging.s390.cpu import PARTS, Cpu, Cr0


def root(_: int) -> str:
    """What leads to the root."""
    return "ASCE"


def notes(cpu: Cpu) -> Iterator[str]:
    """What there is to know of a state before anything that is said of its tables, a sentence
    each."""
    if cpu.low_address_protection:
        yield (
            "Low-address protection is on, so that stores at 0 to 0x1ff and 0x1000 to 0x11ff fault,"
            " whatever entries say."
        )
    if (quarters := cpu.designation.quarters) < PARTS:
        there = "1 is" if quarters == 1 else f"{quarters} are"
        yield f"Of the 4 quarters of the root's table {there} there (TL of the ASCE)."


def root_text(cpu: Cpu) -> str:
    """The ASCE, the table at which it begins, and where that is."""
    private = ", private" if cpu.designation.private else ""
    return f"ASCE {cpu.asce:#x} ({cpu.mode.value} table at {cpu.base:#x}{private})"


def rows(cpu: Cpu) -> Iterator[tuple[str, str]]:
    """The registers of a state, and what they hold."""
    yield "ASCE", root_text(cpu).removeprefix("ASCE ")
    yield "CR0", f"{cpu.cr0:#x}"


def as_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return {
        "architecture": cpu.architecture,
        "mode": cpu.mode.value,
        "asce": hex(cpu.asce),
        "cr0": hex(cpu.cr0),
        "root": hex(cpu.base),
        "quarters": cpu.designation.quarters,
        "private": cpu.designation.private,
        "edat1": cpu.edat1 and bool(cpu.cr0 & Cr0.EDAT),
        "edat2": cpu.edat2 and bool(cpu.cr0 & Cr0.EDAT),
        "iep": cpu.iep and bool(cpu.cr0 & Cr0.IEP),
    }


def rootless(_: Mapping[str, Any]) -> dict[str, Any]:
    """What of that is another where it is not known where the root is."""
    return {"asce": None, "root": None}
