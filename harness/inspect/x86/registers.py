"""What registers alone say of a page fault: how the processor pages, and what CR2 can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from harness.inspect.x86.frame import INSTRUCTION_BYTES
from harness.inspect.x86.last import vector_at
from harness.paging.address import Virtual
from harness.paging.processor import root_for
from harness.paging.x86.access import Vector
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode

_MODES: Final = {
    Mode.BITS_32: "32-bit",
    Mode.PAE: "PAE",
    Mode.LEVEL_4: "4-level",
    Mode.LEVEL_5: "5-level",
}
_PAGING: Final = ("cr0", "cr3", "cr4", "efer")


def facts(paging: Mapping[str, int], rest: Mapping[str, int]) -> Iterator[str]:
    """What registers say, a sentence each: those of `Cpu`, and others as `Snapshot` has them."""
    cpu = None
    if missing := [name.upper() for name in _PAGING if name not in paging]:
        yield f"The paging mode is not known, for the text lacks {', '.join(missing)}."
    else:
        try:
            cpu = Cpu(paging["cr0"], paging["cr3"], paging["cr4"], paging["efer"])
            yield _mode(cpu)
        except ValueError as error:
            yield f"These registers raise no page fault: {error}."
    if "cr2" in rest:
        yield _address(rest["cr2"], cpu, rest)
    if "rip" in rest:
        level = f" at CPL {rest['cpl']}" if "cpl" in rest else ""
        yield f"RIP is {rest['rip']:#x}{level}."


def _mode(cpu: Cpu) -> str:
    """How the processor pages."""
    bits = {
        "WP": cpu.cr0 & Cr0.WP,
        "NXE": cpu.efer & Efer.NXE,
        "SMEP": cpu.cr4 & Cr4.SMEP,
        "SMAP": cpu.cr4 & Cr4.SMAP,
    }
    switched = ", ".join(f"{name}={int(bool(value))}" for name, value in bits.items())
    return f"Paging is {_MODES[cpu.mode]}, with tables from {cpu.base:#x} on, and {switched}."


def _address(cr2: int, cpu: Cpu | None, rest: Mapping[str, int]) -> str:
    """What CR2 can be."""
    if not cr2:
        return "CR2 is 0: no page fault was raised since the reset, or one at address 0."
    if cpu is not None and cpu.long and root_for(cpu, Virtual(cr2)) is None:
        return f"CR2 {cr2:#x} is not canonical, so that it is of no page fault."
    if cpu is not None and (vector := vector_at(cr2, rest.get("idt"), cpu.long)) is not None:
        what = "the page fault" if vector == Vector.PF else "the exception"
        return (
            f"CR2 {cr2:#x} is where the gate of vector {vector} is, in the IDT at {rest['idt']:#x}:"
            f" {what} could not be delivered, for the IDT is not mapped, and the CR2 of a fault"
            " before it is lost."
        )
    if "rip" in rest and 0 <= cr2 - rest["rip"] < INSTRUCTION_BYTES:
        return f"CR2 {cr2:#x} is where RIP is: what could not be reached is the code itself."
    return f"CR2 {cr2:#x} is the address of the last page fault."
