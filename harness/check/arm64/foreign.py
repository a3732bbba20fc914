"""Where addresses lead as the QEMU of someone's own guest has it, beside the reference.

`gva2gpa` is a load of the processor's state, as `debugger` has it: a page with AF=0 is no fault,
and what the processor may not read is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from harness.check.arm64.debugger import compared
from harness.check.arm64.probes import left_out
from harness.check.arm64.quirks import not_run_on
from harness.check.compare import Comparison
from harness.check.debugger import MOST_ROWS, compare_walkers, edges
from harness.check.translations import GVA2GPA, SAMPLE
from harness.machine.arm64.registers import EL, PAN, registers_of
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.paging import bulk
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes, outcomes
from harness.paging.arm64.cpu import Cpu, Tcr
from harness.paging.bulk import End
from harness.paging.memory import Memory

Monitor = ForeignMonitor | StubMonitor

ASKED_ONCE: Final = 10, 0
"""The last series that was run which asks as the processor alone (7.2.22, 10.0.13)."""


def of_foreign(
    monitor: Monitor,
    cpu: Cpu,
    memory: Memory,
    seen: Memory | None,
    thorough: bool,
) -> Iterator[Comparison]:
    """The answers of every oracle about a processor of a guest that stands still; as
    `debugger.Oracles` has it."""
    state = registers_of(monitor)["cpsr"]
    for part in cpu.parts:
        if seen is not None:
            yield compare_walkers(part, memory, seen)
        yield _foreign_translations(monitor, part, memory, state, thorough)


def new_versions(engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
    """What answers in a version that was not yet run, a sentence each."""
    del engine
    return not_run_on(version)


def _foreign_translations(
    monitor: Monitor, cpu: Cpu, memory: Memory, state: int, thorough: bool
) -> Comparison:
    """`gva2gpa` at the edges of pages, beside them, and at addresses with no translation, by a load
    of the processor's own state."""
    leaves = bulk.leaves(memory, cpu.roots, limit=MOST_ROWS)
    addresses = edges(cpu, leaves, None if thorough else SAMPLE)
    counted = Comparison(GVA2GPA)
    loads = np.full(len(addresses), Kind.READ, np.uint8)
    flagging = _without_flag_faults(cpu)

    def reading(el0: bool, pan: bool) -> Outcomes:
        by, kept = (np.full(len(addresses), one) for one in (el0, pan))
        return outcomes(flagging, memory, addresses, loads, by, pan=kept)

    found = reading(not state & EL, bool(state & PAN))
    leads = found.reason == 0
    if monitor.version[:2] > ASKED_ONCE:
        # A half that E0PDx closes stays closed.
        shut = found.reason == REASONS.index(Reason.EL0_KEPT_OUT)
        found = reading(False, False)
        leads |= (found.reason == 0) & ~shut
    departs = left_out(monitor.engine_in_use(), monitor.version, cpu, found, counted)
    unbacked = (found.walks.end == End.UNBACKED) & ~departs
    reason = "a descriptor of the path has no memory behind it"
    counted.not_comparable[reason] += int(unbacked.sum())
    return compared(monitor, addresses, found, leads, departs | unbacked, counted)


def _without_flag_faults(cpu: Cpu) -> Cpu:
    """The same state on a processor that sets AF, so that AF=0 is no fault; dirty state says
    nothing of loads."""
    features = replace(cpu.features, hafdbs=1)
    return replace(cpu, tcr=cpu.tcr | Tcr.HA, features=features)
