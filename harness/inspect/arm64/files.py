"""Files that hold the physical memory of an arm64 machine, and the registers that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.inspect.arm64.processor import SystemRegisters, of_kernel
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.ram import Held


def snapshot(held: Held, registers: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
    """The memory in files, and a processor with these registers; without TCR_EL1 and a root, with
    the tables of the Linux whose VMCOREINFO is there.

    Raises SourceError where nothing tells TCR_EL1 and a root, and where no processor can be in that
    state.
    """
    given, said = of_kernel(held.title, held.texts(), registers)
    system = SystemRegisters().with_given(given)
    cpu = system.cpu()
    said += (*system.assumed("a file of memory"), *doubts)
    return Snapshot(
        held.title, cpu, held.memory, held.backed, said, partial=True, unsure=system.unsure
    )
