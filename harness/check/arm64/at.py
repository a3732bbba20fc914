"""AT, by which the guest says what an access would meet and makes none, beside the reference.

The same walk as an access makes, asked in another way: AT S1E0R, S1E0W, S1E1R, S1E1W, and with PAN
S1E1RP and S1E1WP.  Whether AT sets AF and clears AP[2] where hardware may is left to the machine
(QEMU sets AF), so the descriptors are put back and not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.arm64.cases import Cases
from harness.check.arm64.probes import (
    count_quirk,
    left_out,
    of_cases,
    paths_of,
    rules_say,
    without_dirty_state,
)
from harness.check.arm64.quirks import AT_DBM
from harness.check.compare import EXAMPLES, Comparison, Disagreement
from harness.check.marks import WORD
from harness.check.quirk import expected_of
from harness.machine.arm64.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes
from harness.paging.arm64.cpu import Cpu
from harness.paging.format import bits
from harness.paging.memory import BufferMemory, Mask
from harness.paging.walk import walk

AT: Final = "AT in the guest"
"""The oracle."""

ADDRESS: Final = np.uint64(bits(51, 12))
"""PA in PAR_EL1."""

KINDS: Final = (Kind.READ, Kind.WRITE)
"""The accesses that it is asked about."""

DATA_ABORT: Final = 0x25
"""The exception class of what the stub's own AT raises."""


def ask_at(guest: Guest, state: State, cpu: Cpu, memory: BufferMemory, cases: Cases) -> Comparison:
    """Has the guest translate the address of every read and write, and compares PAR_EL1, or the
    exception of a walk that meets no memory."""
    comparison = Comparison(AT)
    cases = cases.take(np.isin(cases.kind, KINDS))
    for first in range(0, len(cases), bulk.LANES):
        _ask(comparison, guest, state, cpu, memory, cases.take(slice(first, first + bulk.LANES)))
    return comparison


def _ask(
    comparison: Comparison,
    guest: Guest,
    state: State,
    cpu: Cpu,
    memory: BufferMemory,
    cases: Cases,
) -> None:
    found = of_cases(cpu, memory, cases)
    departs = left_out(guest.engine.name, guest.version, cpu, found, comparison)
    if departs.any():
        cases = cases.take(~departs)
        found = of_cases(cpu, memory, cases)
    paths = paths_of(cpu, memory, found.walks.address)
    enums, jobs = guest.image.enums, guest.image.new_jobs(len(cases))
    write = cases.kind == Kind.WRITE
    jobs["address"], jobs["user"], jobs["pan"] = cases.address, cases.el0, cases.pan
    jobs["flush"] = enums["FLUSH_PAGE"]
    jobs["access"] = np.where(write, enums["TRANSLATE_WRITE"], enums["TRANSLATE_READ"])
    results = guest.run(state, jobs)
    memory.scatter(paths.slot[paths.used], WORD, paths.raw[paths.used])
    agree = _as_expected(found, results)
    comparison.compared += len(agree)
    if cpu.keeps_dirty_state and expected_of(AT_DBM, guest.engine.name, guest.version):
        without = of_cases(without_dirty_state(cpu), memory, cases)
        lanes = without.reason != found.reason
        departed = lanes & _as_expected(without, results)
        agree = count_quirk(comparison, AT_DBM, lanes, departed, agree)
    wrong = np.flatnonzero(~agree)
    told = len(comparison.disagreements)
    comparison.disagree(
        len(wrong), _described(cpu, memory, cases, found, results, wrong[: EXAMPLES - told])
    )


def _described(
    cpu: Cpu,
    memory: BufferMemory,
    cases: Cases,
    found: Outcomes,
    results: npt.NDArray[np.void],
    lanes: npt.NDArray[np.int64],
) -> Iterator[Disagreement]:
    for lane in lanes:
        address, result = int(found.walks.address[lane]), results[lane]
        root = next((root for root in cpu.roots if address in root.span), None)
        yield Disagreement(
            AT,
            int(cases.address[lane]),
            cases.stated(lane),
            rules_say(found, int(lane)),
            f"PAR {int(result['data']):#x}, ESR {int(result['esr']):#x}",
            None if root is None else walk(memory, root, Virtual(address)),
        )


def _as_expected(found: Outcomes, results: npt.NDArray[np.void]) -> Mask:
    status = found.syndrome.astype(np.uint64) & np.uint64(0x3F)
    raised = found.reason == REASONS.index(Reason.NO_MEMORY)
    faults, par, esr = found.reason != 0, results["data"], results["esr"]
    by_fault = (par & np.uint64(1) == 1) & (par >> np.uint64(1) & np.uint64(0x3F) == status)
    page = found.walks.physical & ADDRESS
    by_address = (par & np.uint64(1) == 0) & (par & ADDRESS == page)
    by_exception = (esr >> np.uint64(26) == DATA_ABORT) & (esr & np.uint64(0x3F) == status)
    answered = np.where(faults, by_fault, by_address) & (esr == 0)
    agree: Mask = np.where(raised, by_exception, answered)
    return agree
