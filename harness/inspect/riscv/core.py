"""A core of a RISC-V guest: its notes have no satp (QEMU, target/riscv/arch_dump.c)."""

from __future__ import annotations

from collections.abc import Mapping

from harness.inspect.architecture import Seen
from harness.inspect.riscv.processor import assumed, cpu_of
from harness.inspect.riscv.vmcoreinfo import of_linux
from harness.inspect.snapshot import SourceError
from harness.inspect.sources.core import Dump
from harness.inspect.sources.vmcoreinfo import left_in


def seen(dump: Dump, vcpu: int, registers: Mapping[str, int]) -> Seen:
    """A hart of a core, with the registers that are given; without satp, with the tables of the
    Linux whose VMCOREINFO is a note of it or in its memory.

    Raises SourceError where there is no such hart, nothing tells satp, or no hart can be in that
    state.
    """
    harts = max(1, sum(name == b"CORE" for name, _ in dump.notes))
    if not vcpu < harts:
        raise SourceError(f"{dump.path} has no processor {vcpu}: it has 0 to {harts - 1}")
    said: tuple[str, ...] = ()
    if "satp" not in registers:
        content = dump.memory.content
        texts = (dump.vmcoreinfo,) if dump.vmcoreinfo else left_in(content)
        told = of_linux(f"{dump.path}, a core of RISC-V,", texts)
        registers = {**registers, "satp": told}
        said = (f"the tables are those of Linux itself, by its VMCOREINFO (--satp {told:#x})",)
    if dump.virtual:
        said += (
            "the core was written with -p, so that memory which the guest does not map is missing",
        )
    cpu = cpu_of(registers)
    return Seen(cpu, (*said, *assumed(cpu, registers, "a core")))
