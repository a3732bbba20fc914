"""What arm64's matrix tries, and what came of it.

While the guest executes a batch, this process makes the next one and judges the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check import matrix
from harness.check.arm64.layouts import features_of
from harness.check.arm64.matrix.chain import Chain, Lanes
from harness.check.arm64.matrix.families import PRESETS, Family, families, lanes
from harness.check.arm64.matrix.judged import Arm64Quirk, Expected, expected
from harness.check.arm64.matrix.setting import MODES as ALL_MODES
from harness.check.arm64.matrix.setting import Control
from harness.check.arm64.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.arm64.quirks import BLOCK_ANYWHERE, judged_of, not_run_on
from harness.check.arm64.replay import MatrixCase
from harness.check.compare import EXAMPLES
from harness.check.matrix import Report, one_ahead
from harness.check.quirk import Version, expected_of
from harness.check.workers import shared_out
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.qemu import TCG
from harness.machine.machine import dotted
from harness.paging.arm64.bulk import REASONS
from harness.paging.arm64.cpu import Features
from harness.paging.memory import Mask

__all__ = ["MODES", "PRESETS", "Plan", "Work", "planned", "run", "tried_on"]

MODES: Final = tuple(ALL_MODES)

USUAL_MODE: Final = "4k"

UNSEEN: Final[Mapping[str, str]] = {
    'What TLBI leaves of translations, by address and by ASID ("TLB maintenance")': "Each access"
    " comes after a TLBI of its address.",
    "Atomic accesses that are not aligned (AArch64.UnalignedAccessFaults)": "Where SCTLR_EL1.A is"
    " 0, it is left to the machine whether they fault.",
    'Groups of contiguous descriptors ("The Contiguous bit")': "Each case has but one descriptor of"
    " a group.",
    "Bits 51:48 of a root's address (AArch64.S1TTBaseAddress)": "Tables are in RAM below them.",
    "LDXR and STXR": "Atomic accesses are SWP.",
    "Two stages of translation": "No guest is entered under a stage 2.",
}

EXAMPLE = "level=1 and access in (read, swap)"
"""Of a condition on cases."""

BATCH = 1 << 15
"""Jobs that the guest executes at once, at most."""

MASKED = "AF of a page whose access is denied, AF and AP[2] of one without memory"


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
    """What a preset tries in some modes, as far as an expression selects it and the processor that
    QEMU has can be so.

    engine   there is but one
    program  a QEMU for arm64; the usual one unless given

    Raises Misuse for an expression that is none or selects nothing, and where there is no QEMU.
    """
    features, version = _found(TCG.installed(program))
    new = not expected_of(BLOCK_ANYWHERE, TCG.name, version)
    chosen = Plan(engine, (), Counter(), Counter(), arch="arm64")
    some = [one for mode in modes for one in families(preset, mode, features, new)]
    return matrix.selected(chosen, some, expression, EXAMPLE, BATCH)


@cache
def _found(program: str) -> tuple[Features, Version]:
    """What a guest's processor has, and the version of its QEMU."""
    with Guest(program=program) as guest:
        return features_of(guest.info), guest.version


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
    quirks = judged_of(guest.engine.name, guest.version)
    for setting, some in groupby(work, lambda part: part.family.setting):
        chain = Chain(guest, setting)
        yield from one_ahead(_started(chain, part, quirks) for part in some)


def _started(chain: Chain, part: Work, quirks: Sequence[Arm64Quirk]) -> Callable[[], Report]:
    """Starts a batch; what waits for it, and reports what came of it."""
    made = lanes(part.family, chain, part.control, part.numbers)

    def by(some: Iterable[Arm64Quirk]) -> Expected:
        return expected(chain.setting, part.control, chain.cpu(part.control), made, some)

    rules, by_engine = by(()), by(quirks)
    jobs = jobs_of(chain, made, by_engine)
    chain.guest.start(chain.state(part.control), jobs)

    def finish() -> Report:
        results = chain.guest.finish()
        told = partial(agreeing, chain, made, jobs, results)
        batch = Batch(part, made, results, rules, by_engine, told(by_engine), by, told)
        return _report(chain, batch, quirks)

    return finish


@dataclass(frozen=True)
class Batch:
    """A batch that was tried.

    agree  the lanes in which the guest saw what is expected of the engine
    by     what is expected of one that has other quirks
    told   the lanes in which the guest saw what is expected
    """

    part: Work
    made: Lanes
    results: npt.NDArray[np.void]
    rules: Expected
    by_engine: Expected
    agree: Mask
    by: Callable[[Iterable[Arm64Quirk]], Expected]
    told: Callable[[Expected], Mask]

    def without(self, quirks: Sequence[Arm64Quirk]) -> Iterator[tuple[Arm64Quirk, Mask, Mask]]:
        """Each quirk, if any makes a difference, with the lanes in which it does and those of them
        in which the guest did as if it were not there."""
        if not self.rules.differs(self.by_engine).any():
            return
        for one in quirks:
            others = self.by(other for other in quirks if other is not one)
            should = self.by_engine.differs(others)
            yield one, should, ~self.agree & self.told(others)


def _report(chain: Chain, batch: Batch, quirks: Sequence[Arm64Quirk]) -> Report:
    """What came of a batch."""
    version, engine = chain.guest.version, chain.guest.engine.name
    rules, by_engine, agree = batch.rules, batch.by_engine, batch.agree.copy()
    report = Report(engine, dotted(version), not_run_on=not_run_on(version))
    report.executor = f"{engine} {dotted(version)}"
    for one, should, gone in batch.without(quirks):
        report.comparison.quirks[one.name] += int((should & batch.agree).sum())
        report.comparison.news[f"{one.name} did not show"] += int(gone.sum())
        agree |= gone
    report.comparison.news = +report.comparison.news
    report.comparison.quirks = +report.comparison.quirks
    wrong = ~agree
    report.comparison.compared = len(agree)
    report.comparison.disagreed = int(wrong.sum())
    mode = chain.setting.mode
    for into, lanes_of in (
        (report.by_rule, np.ones(len(agree), np.bool_)),
        (report.departed, rules.differs(by_engine) & batch.agree),
        (report.disagreed, wrong),
    ):
        for code, count in enumerate(np.bincount(rules.found.reason[lanes_of]).tolist()):
            if count:
                into[mode, REASONS[code]] = count
    if masked := int((by_engine.free != 0).sum()):
        report.masked[MASKED] = masked
    part, made = batch.part, batch.made
    for lane in np.flatnonzero(wrong)[:EXAMPLES].tolist():
        report.failures.append(
            MatrixCase.of(
                part.family.setting,
                part.control,
                made,
                lane,
                values=part.family.case(part.control, int(part.numbers[lane])),
                engine=engine,
                qemu=dotted(version),
                expected=expected_text(made, by_engine, lane),
                observed=observed_text(batch.results[lane], len(made.words)),
            )
        )
    return report
