"""Where addresses lead as QEMU's monitor has it, beside the reference.

`gva2gpa` translates as a load of the processor's current state does: at EL0 without what EL0 cannot
read, at EL1 with PAN without what EL0 can; 11.1 then asks again as EL1 without PAN.  The state of a
guest that is parked is EL1 without PAN.  So it says nothing of these (target/arm of QEMU 7.2.22 and
10.0.13, `arm_cpu_get_phys_page_attrs_debug` and what it calls; 11.1.3 answers alike):

EL0          one translation is tried, in the current regime (`arm_mmu_idx`)
permissions  of loads alone (MMU_DATA_LOAD), of which EL1 without PAN lacks none
AF           with `in_debug` a page with AF=0 is translated, and no descriptor is changed
E0PD         closes a half to EL0 alone (`aa64_va_parameters` asks `regime_is_user`)

There is no list of all translations: `info tlb` and `info mem` are not for this processor
(hmp-commands-info.hx).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.check.arm64.cases import Cases, Stated, each
from harness.check.arm64.probes import left_out, of_cases
from harness.check.arm64.quirks import not_run_on
from harness.check.compare import Comparison
from harness.check.debugger import MOST_ROWS, compare_walkers, edges
from harness.check.product import evenly
from harness.check.translations import GVA2GPA, SAMPLE, compare_translations
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.registers import EL, PAN, registers_of
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.machine.monitor import Monitor
from harness.paging import bulk
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes, outcomes
from harness.paging.arm64.cpu import Cpu
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory, Mask, Memory, Words, distinct

LOAD = Stated(Kind.READ, el0=False)
"""What it asks about."""

ASKED_ONCE = 10, 0, 99
"""The last version that was run which asks as the processor alone (7.2.22, 10.0.13)."""

TRANSLATED = [REASONS.index(reason) for reason in (None, Reason.ACCESS_FLAG)]
"""What a load comes to that it translates."""


def ask_monitor(
    guest: Guest, monitor: Monitor, cpu: Cpu, memory: BufferMemory, addresses: Words
) -> Comparison:
    """Asks a guest that is parked where addresses lead."""
    counted = Comparison(GVA2GPA)
    found = of_cases(cpu, memory, each(addresses, LOAD))
    departs = left_out(guest.engine.name, guest.version, cpu, found, counted)
    leads = np.isin(found.reason, TRANSLATED)
    return _compared(monitor, addresses, found, leads, departs, counted)


def _compared(
    monitor: Monitor | StubMonitor,
    addresses: Words,
    found: Outcomes,
    leads: Mask,
    departs: Mask,
    counted: Comparison,
) -> Comparison:
    """Asks where addresses lead, but for those of which `counted` has why they are not asked about.

    leads  which are translated
    """
    expected = [
        int(physical) if leads else None
        for physical, leads in zip(found.walks.physical[~departs], leads[~departs], strict=True)
    ]
    comparison = compare_translations(monitor, addresses[~departs].tolist(), expected)
    comparison.not_comparable += counted.not_comparable
    return comparison


def of_foreign(
    monitor: ForeignMonitor | StubMonitor,
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
    monitor: Monitor | StubMonitor, cpu: Cpu, memory: Memory, state: int, thorough: bool
) -> Comparison:
    """`gva2gpa` at the edges of pages, beside them, and at addresses with no translation, by a load
    of the processor's own state."""
    leaves = bulk.leaves(memory, cpu.roots, limit=MOST_ROWS)
    addresses = edges(cpu, leaves, None if thorough else SAMPLE)
    counted = Comparison(GVA2GPA)
    loads = np.full(len(addresses), Kind.READ, np.uint8)

    def reading(el0: bool, pan: bool) -> Outcomes:
        by, kept = (np.full(len(addresses), one) for one in (el0, pan))
        return outcomes(cpu, memory, addresses, loads, by, pan=kept)

    found = reading(not state & EL, bool(state & PAN))
    leads = np.isin(found.reason, TRANSLATED)
    if monitor.version > ASKED_ONCE:
        found = reading(False, False)
        leads |= np.isin(found.reason, TRANSLATED)
    departs = left_out(monitor.engine_in_use(), monitor.version, cpu, found, counted)
    unbacked = (found.walks.end == End.UNBACKED) & ~departs
    if unbacked.any():
        reason = "a descriptor of the path has no memory behind it"
        counted.not_comparable[reason] += int(unbacked.sum())
    return _compared(monitor, addresses, found, leads, departs | unbacked, counted)


def asked_of(cases: Cases, thorough: bool) -> Words:
    """The addresses of loads among cases: all of them, or a sample."""
    loads = distinct(cases.address[cases.kind == Kind.READ])
    return loads if thorough else loads[evenly(len(loads), SAMPLE)]
