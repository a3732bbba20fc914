"""Files that hold the physical memory of an s390 machine, and the registers that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.inspect.s390.processor import assumed, cpu_of
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources.ram import Held


def snapshot(held: Held, registers: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
    """The memory in files, and a processor with these registers.

    Raises SourceError where there is no ASCE among them, or it designates no table.
    """
    if "asce" not in registers:
        raise SourceError(f"{held.title} does not record where its tables are: add --asce")
    cpu = cpu_of(registers)
    said = (*assumed(registers, "a file of memory"), *doubts)
    return Snapshot(held.title, cpu, held.memory, held.backed, said, partial=True)
