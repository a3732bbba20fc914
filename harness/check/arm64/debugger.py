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

import numpy as np

from harness.check.arm64.cases import Cases, Stated, each
from harness.check.arm64.probes import left_out, of_cases
from harness.check.compare import Comparison
from harness.check.product import evenly
from harness.check.translations import GVA2GPA, SAMPLE, compare_translations
from harness.machine.arm64.guest import Guest
from harness.machine.gdbstub import StubMonitor
from harness.machine.monitor import Monitor
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes
from harness.paging.arm64.cpu import Cpu
from harness.paging.memory import BufferMemory, Mask, Words, distinct

LOAD = Stated(Kind.READ, el0=False)
"""What it asks about."""

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
    return compared(monitor, addresses, found, leads, departs, counted)


def compared(
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


def asked_of(cases: Cases, thorough: bool) -> Words:
    """The addresses of loads among cases: all of them, or a sample."""
    loads = distinct(cases.address[cases.kind == Kind.READ])
    return loads if thorough else loads[evenly(len(loads), SAMPLE)]
