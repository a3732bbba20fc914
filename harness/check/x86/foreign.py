"""What the QEMU of someone's own x86 guest is asked about its tables."""

from __future__ import annotations

from collections.abc import Iterator

from harness.check.compare import Comparison
from harness.check.debugger import Monitor
from harness.check.x86.debugger import Debugger
from harness.check.x86.quirks import not_run_on
from harness.paging.memory import Memory
from harness.paging.x86.cpu import Cpu


def of_foreign(
    monitor: Monitor, cpu: Cpu, memory: Memory, seen: Memory | None, thorough: bool
) -> Iterator[Comparison]:
    """The answers of every oracle about a processor of a guest that stands still; as
    `debugger.Oracles` has it."""
    debugger = Debugger(monitor, cpu, memory, None, seen=memory if seen is None else seen)
    if seen is not None:
        yield debugger.compare_walkers()
    yield debugger.compare_tlb()
    yield debugger.compare_translations(thorough)


def new_versions(engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
    """What answers in a version that was not yet run, a sentence each."""
    return not_run_on(engine, version, version)
