"""Files that hold the physical memory of a RISC-V machine, and the registers that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.inspect.riscv.processor import assumed, cpu_of
from harness.inspect.riscv.vmcoreinfo import of_linux
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.ram import Held


def snapshot(held: Held, registers: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
    """The memory in files, and a hart with these registers; without satp, with the tables of the
    Linux whose VMCOREINFO is there.

    Raises SourceError where nothing tells satp, and where no hart can be in that state.
    """
    said: tuple[str, ...] = ()
    if "satp" not in registers:
        told = of_linux(held.title, held.texts())
        registers = {**registers, "satp": told}
        said = (f"the tables are those of Linux itself, by its VMCOREINFO (--satp {told:#x})",)
    cpu = cpu_of(registers)
    said += (*assumed(cpu, registers, "a file of memory"), *doubts)
    return Snapshot(held.title, cpu, held.memory, held.backed, said, partial=True)
