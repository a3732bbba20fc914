"""What POWER's matrix tries, and what came of it.

While the guest executes a batch, this process makes the next one and judges the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from harness.check import matrix
from harness.check.compare import EXAMPLES
from harness.check.matrix import Report, one_ahead
from harness.check.power.matrix.chain import MODES as PAGE_BITS
from harness.check.power.matrix.chain import Chain, Control
from harness.check.power.matrix.families import PRESETS, Family, families, lanes
from harness.check.power.matrix.judged import expected
from harness.check.power.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.power.quirks import ROOT_LEAF, departing, not_run_on
from harness.check.power.replay import MatrixCase
from harness.check.workers import shared_out
from harness.machine.machine import dotted
from harness.machine.power.guest import Guest
from harness.machine.power.qemu import TCG
from harness.paging.address import Span
from harness.paging.power.bulk import REASONS

__all__ = ["MODES", "PRESETS", "Plan", "Work", "planned", "run", "tried_on"]

MODES: Final = tuple(PAGE_BITS)
USUAL_MODE: Final = "4k"

UNSEEN: Final[Mapping[str, str]] = {
    "What tlbie leaves of translations": "Each access comes after a tlbie of everything.",
    "Two stages of translation (partition-scoped)": "The guest is the hypervisor.",
    "An entry, or a page, where no memory is (Machine Check)": "What QEMU makes of that differs"
    " from version to version.",
}

EXAMPLE = "level=1 and access in (read, fetch)"
"""Of a condition on cases."""

BATCH = 1 << 15
"""Jobs that the guest executes at once, at most."""

MASKED = "what comes of an access that leads to no memory"

Work = matrix.Work[Family, Control]
Plan = matrix.Plan[Work]


def planned(
    preset: str,
    modes: Iterable[str],
    engine: str,
    program: str | None = None,
    expression: str | None = None,
) -> Plan:
    """What a preset tries in some modes, as far as an expression selects it.

    engine   there is but one
    program  a QEMU for POWER; the usual one unless given

    Raises Misuse for an expression that is none or selects nothing, and where there is no QEMU.
    """
    TCG.installed(program)
    chosen = Plan(engine, (), Counter(), Counter(), arch="power")
    some = [family for mode in modes for family in families(preset, mode)]
    return matrix.selected(chosen, some, expression, EXAMPLE, BATCH)


def run(plan: Plan, *, jobs: int = 1, program: str | None = None) -> Generator[Report, None, None]:
    """Tries all cases, on `jobs` guests side by side: a report of each batch as it is judged.

    program  a QEMU for POWER; the usual one unless given

    Raises Misuse and MachineError for guests that cannot be had or are lost.  Guests that still run
    when the iterator is closed are ended.
    """
    return shared_out(plan.work, jobs, partial(_tried, program=program))


def _tried(work: Sequence[Work], program: str | None) -> Generator[Report, None, None]:
    with Guest(program=program) as guest:
        yield from tried_on(guest, work)


def tried_on(guest: Guest, work: Iterable[Work]) -> Iterator[Report]:
    """Tries cases on a guest, one batch ahead of the verdicts: a report of each batch."""

    def tree(part: Work) -> tuple[str, int]:
        return part.family.mode, part.family.quadrant

    for (mode, quadrant), some in groupby(sorted(work, key=tree), tree):
        chain = Chain(guest, mode, quadrant)
        yield from one_ahead(_started(chain, part) for part in some)


def _started(chain: Chain, part: Work) -> Callable[[], Report]:
    """Starts a batch; what waits for it, and reports what came of it."""
    guest = chain.guest
    ram = Span.of(guest.ram.base, guest.ram.size)
    cpu, made = chain.cpu(part.control), lanes(part.family, chain, part.numbers)
    engine = departing(cpu, guest.engine.name, guest.version)
    rules = expected(cpu, made, ram)
    by_engine = rules if engine is None else expected(engine, made, ram)
    jobs = jobs_of(chain, made, by_engine)
    guest.start(chain.state(cpu), jobs)

    def finish() -> Report:
        results = guest.finish()
        departs = rules.differs(by_engine)
        departed = departs & agreeing(made, jobs, results, by_engine)
        by_rules = agreeing(made, jobs, results, rules)
        agree = by_rules | departed
        name, version = guest.engine.name, guest.version
        report = Report(name, dotted(version), not_run_on=not_run_on(version))
        report.executor = f"{name} {dotted(version)}"
        report.comparison.compared = len(made)
        report.comparison.disagreed = int((~agree).sum())
        shown = {ROOT_LEAF.name: int(departed.sum())}
        report.comparison.quirks = +Counter(shown)
        silent = {f"{ROOT_LEAF.name} did not show": int((departs & by_rules).sum())}
        report.comparison.news = +Counter(silent)
        if masked := int((rules.allowed & ~rules.backed).sum()):
            report.masked[MASKED] = masked
        for into, chosen in (
            (report.by_rule, np.ones(len(made), np.bool_)),
            (report.departed, departed),
            (report.disagreed, ~agree),
        ):
            for code, count in enumerate(np.bincount(rules.found.reason[chosen]).tolist()):
                if count:
                    into[part.family.mode, REASONS[code]] = count
        for lane in np.flatnonzero(~agree)[:EXAMPLES].tolist():
            report.failures.append(
                MatrixCase.of(
                    chain,
                    part.control,
                    made,
                    lane,
                    values=part.family.case(part.control, int(part.numbers[lane])),
                    engine=name,
                    qemu=dotted(version),
                    expected=expected_text(made, by_engine, lane),
                    observed=observed_text(results[lane], len(made.words)),
                )
            )
        return report

    return finish
