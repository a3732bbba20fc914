"""Files that hold the physical memory of a POWER machine, and the registers that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.inspect.power.processor import assumed, cpu_of, unsure
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.ram import Held


def snapshot(held: Held, registers: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
    """The memory in files, and a processor with these registers.

    Raises SourceError where nothing tells where its trees are, or these lead nowhere.
    """
    cpu = cpu_of(held.title, held.memory, registers)
    said = (*assumed(registers, "a file of memory"), *doubts)
    return Snapshot(
        held.title, cpu, held.memory, held.backed, said, partial=True, unsure=unsure(registers)
    )
