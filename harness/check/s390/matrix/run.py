"""What s390's matrix tries, and what came of it.

While the guest executes a batch, this process makes the next one and judges the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check import matrix
from harness.check.compare import EXAMPLES
from harness.check.matrix import Report, one_ahead
from harness.check.s390.matrix.chain import MODES, Chain, Control, Lanes
from harness.check.s390.matrix.families import PRESETS, Family, families, lanes
from harness.check.s390.matrix.verdicts import (
    Expected,
    agreeing,
    expected,
    expected_text,
    jobs_of,
    observed_text,
)
from harness.check.s390.quirks import not_run_on
from harness.check.s390.replay import MatrixCase
from harness.check.workers import shared_out
from harness.machine.machine import dotted
from harness.machine.s390.guest import Guest
from harness.machine.s390.processor import MachineInfo
from harness.machine.s390.qemu import TCG
from harness.paging.memory import Mask
from harness.paging.s390.bulk import REASONS

__all__ = ["MODES", "PRESETS", "Plan", "Work", "planned", "run", "tried_on"]

USUAL_MODE: Final = "region-third"

UNSEEN: Final[Mapping[str, str]] = {
    "Frames of 1M and 2G, P of region tables, common regions (enhanced-DAT facilities)": "QEMU has"
    " none of these facilities.",
    "Key-controlled protection": "QEMU does not look at storage keys but to note references and"
    " changes; all accesses have the PSW key 0.",
    "What PTLB, IPTE and IDTE leave of translations": "Each access comes after a PTLB.",
    "Accesses in the primary space and in access-register mode": "The primary space is the stub's.",
    "Second stages (SIE)": "No guest is entered.",
}

EXAMPLE: Final = "level=1 and access in (read, fetch)"
"""Of a condition on cases."""

BATCH: Final = 1 << 15
"""Jobs that the guest executes at once, at most."""

Work = matrix.Work[Family, Control]
Plan = matrix.Plan[Work]


# ---- what is to be tried ----


def planned(
    preset: str,
    modes: Iterable[str],
    engine: str,
    program: str | None = None,
    expression: str | None = None,
) -> Plan:
    """What a preset tries in some modes, as far as an expression selects it.

    engine   there is but one
    program  a QEMU for s390x; the usual one unless given

    Raises Misuse for an expression that is none or selects nothing, and where there is no QEMU.
    """
    info = _info(TCG.installed(program))
    chosen = Plan(engine, (), Counter(), Counter(), arch="s390")
    some = [one for mode in modes for one in families(preset, mode, info)]
    return matrix.selected(chosen, some, expression, EXAMPLE, BATCH)


@cache
def _info(program: str) -> MachineInfo:
    """What a guest's processor has."""
    with Guest(program=program) as guest:
        return guest.info


# ---- trying it ----


def run(plan: Plan, *, jobs: int = 1, program: str | None = None) -> Generator[Report, None, None]:
    """Tries all cases, on `jobs` guests side by side: a report of each batch as it is judged.

    program  as in `planned`

    Raises MachineError for guests that cannot be had or are lost.  Guests that still run when the
    iterator is closed are ended.
    """
    return shared_out(plan.work, jobs, partial(_tried, program=program))


def _tried(work: Sequence[Work], program: str | None) -> Generator[Report, None, None]:
    """Tries cases on a guest of their own."""
    with Guest(program=program) as guest:
        yield from tried_on(guest, work)


def tried_on(guest: Guest, work: Iterable[Work]) -> Iterator[Report]:
    """Tries cases on a guest, one batch ahead of the verdicts: a report of each batch."""
    for mode, some in groupby(work, lambda part: part.family.mode):
        chain = Chain(guest, mode)
        yield from one_ahead(_started(chain, part) for part in some)


def _started(chain: Chain, part: Work) -> Callable[[], Report]:
    """Starts a batch; what waits for it, and reports what came of it."""
    made = lanes(part.family, chain, part.numbers)
    wanted = expected(chain.cpu(part.control), made)
    jobs = jobs_of(chain, made, wanted)
    chain.guest.start(chain.state(part.control), jobs)

    def finish() -> Report:
        results = chain.guest.finish()
        agree = agreeing(chain, made, jobs, results, wanted)
        return _report(chain, part, made, results, wanted, agree)

    return finish


def _report(
    chain: Chain,
    part: Work,
    made: Lanes,
    results: npt.NDArray[np.void],
    wanted: Expected,
    agree: Mask,
) -> Report:
    """What came of a batch."""
    version, engine = chain.guest.version, chain.guest.engine.name
    report = Report(engine, dotted(version), not_run_on=not_run_on(version))
    report.executor = f"{engine} {dotted(version)}"
    report.comparison.compared = len(agree)
    report.comparison.disagreed = int((~agree).sum())
    for into, chosen in (
        (report.by_rule, np.ones(len(agree), np.bool_)),
        (report.disagreed, ~agree),
    ):
        for code, count in enumerate(np.bincount(wanted.found.reason[chosen]).tolist()):
            if count:
                into[chain.mode, REASONS[code]] = count
    for lane in np.flatnonzero(~agree)[:EXAMPLES].tolist():
        report.failures.append(
            MatrixCase.of(
                chain.mode,
                part.control,
                made,
                lane,
                values=part.family.case(part.control, int(part.numbers[lane])),
                engine=engine,
                qemu=dotted(version),
                expected=expected_text(made, wanted, lane),
                observed=observed_text(results[lane], len(made.words)),
            )
        )
    return report
