"""What RISC-V's matrix tries, and what came of it.

While the guest executes a batch, this process makes the next one and judges the one before.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check import matrix
from harness.check.compare import EXAMPLES
from harness.check.matrix import Report, one_ahead
from harness.check.riscv.matrix.chain import Chain, Lanes
from harness.check.riscv.matrix.families import PRESETS, Family, families, lanes, reserved_alone
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import Expected, RiscvQuirk, expected
from harness.check.riscv.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.riscv.quirks import judged_of, not_run_on
from harness.check.riscv.replay import MatrixCase
from harness.check.workers import shared_out
from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import MachineInfo
from harness.machine.riscv.qemu import program_for
from harness.paging.memory import Mask
from harness.paging.riscv.bulk import REASONS
from harness.paging.riscv.cpu import Mode

__all__ = ["MODES", "PRESETS", "Plan", "Work", "planned", "run", "tried_on"]

USUAL_MODE: Final = "sv39"

UNSEEN: Final[Mapping[str, str]] = {
    'What SFENCE.VMA leaves of translations, by address and by ASID ("Supervisor Memory-Management'
    ' Fence Instruction")': "Each access comes after an SFENCE.VMA of everything.",
    "Two stages of translation (hypervisor extension)": "No guest is entered in VS-mode.",
    'Physical memory protection ("Physical Memory Protection")': "The stub permits everything to"
    " S-mode and U-mode.",
}

EXAMPLE = "level=1 and access in (read, amo)"
"""Of a condition on cases."""

BATCH = 1 << 15
"""Jobs that the guest executes at once, at most."""

MASKED = "A of a page that an AMO may only read, A and D of one without memory"

FEWER = tuple(
    f"rv64,svnapot={svnapot},svpbmt={svpbmt}"
    for svnapot, svpbmt in (("off", "off"), ("on", "off"), ("off", "on"))
)
"""Processors that lack extensions, as QEMU is asked for them: what these reserve is tried there."""


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
    """What a preset tries in some modes, as far as an expression selects it and the harts that QEMU
    has can be so.

    engine   there is but one
    program  a QEMU for 64 bits, beside which lies that for 32; the usual ones unless given

    Raises Misuse for an expression that is none or selects nothing, and where there is no QEMU.
    """
    chosen, some = Plan(engine, (), Counter(), Counter(), arch="riscv"), list[Family]()
    for mode in modes:
        xlen = Mode(mode).xlen
        name = program_for(xlen, program)
        if shutil.which(name) is None:
            chosen.skipped[f"mode {mode}: there is no {name} in PATH"] += 0
            continue
        usual = _hart(mode, "", name)
        some += families(preset, usual)
        if mode == "sv39" or (preset == "full" and xlen == 64):
            for processor in FEWER:
                some += reserved_alone(preset, _hart(mode, processor, name))
    if not some:
        raise Misuse("; ".join(chosen.skipped) + ": name one with --qemu")
    return matrix.selected(chosen, some, expression, EXAMPLE, BATCH)


@cache
def _info(processor: str, xlen: int, program: str) -> MachineInfo:
    """What a guest with a processor is."""
    with Guest(xlen, cpu=processor or None, program=program) as guest:
        return guest.info


def _hart(mode: str, processor: str, program: str) -> Hart:
    return Hart.of(mode, _info(processor, Mode(mode).xlen, program), processor)


# ---- trying it ----


def run(plan: Plan, *, jobs: int = 1, program: str | None = None) -> Generator[Report, None, None]:
    """Tries all cases, on `jobs` guests side by side: a report of each batch as it is judged.

    program  as in `planned`

    Raises MachineError for guests that cannot be had or are lost.  Guests that still run when the
    iterator is closed are ended.
    """
    return shared_out(plan.work, jobs, partial(_tried, program=program))


def _tried(work: Sequence[Work], program: str | None) -> Generator[Report, None, None]:
    """Tries cases on one guest after the other, one for each processor."""

    def processor(part: Work) -> tuple[int, str]:
        return part.family.hart.xlen, part.family.hart.processor

    for (xlen, name), some in groupby(sorted(work, key=processor), processor):
        with Guest(xlen, cpu=name or None, program=program_for(xlen, program)) as guest:
            yield from tried_on(guest, some)


def tried_on(guest: Guest, work: Iterable[Work]) -> Iterator[Report]:
    """Tries cases on a guest, one batch ahead of the verdicts: a report of each batch.

    What does not come to what quirks say is tried again: without those that show nowhere, with each
    of these alone beside the others, and at last by the rules alone.
    """
    known = judged_of(guest.engine.name, guest.version)
    for hart, some in groupby(work, lambda part: part.family.hart):
        chain = Chain(guest, hart.format)
        left, shown, coming = list(some), Counter[str](), [known]
        while left and coming:
            likely = coming.pop(0)
            silent = tuple(one for one in known if one not in likely)
            again = list[Work]() if coming or likely is known else None
            started = (_started(chain, part, likely, silent, shown, again) for part in left)
            yield from one_ahead(started)
            if likely is known:
                absent = [one for one in known if shown.get(one.name) == 0]
                likely = tuple(one for one in known if one not in absent)
                coming = [likely, *((*likely, one) for one in absent), ()]
            left = again or []


def _started(
    chain: Chain,
    part: Work,
    quirks: Sequence[RiscvQuirk],
    silent: Sequence[RiscvQuirk],
    shown: Counter[str],
    again: list[Work] | None,
) -> Callable[[], Report]:
    """Starts a batch; what waits for it, and reports what came of it.

    silent  the quirks of the engine that are left out of what is expected
    shown   takes how often each quirk showed that should
    again   takes what does not come to what quirks say of it; None where no more is to be tried
    """
    cpu = part.family.hart.cpu(part.control, chain.root)
    made = lanes(part.family, chain, part.numbers)
    asked = partial(expected, part.family.hart, cpu, made, known={})
    rules = asked()
    by_engine = asked(quirks) if quirks else rules
    jobs = jobs_of(chain, made, by_engine)
    chain.guest.start(chain.state(cpu), jobs)

    def finish() -> Report:
        agree = agreeing(chain, made, jobs, results := chain.guest.finish(), by_engine)
        unlike = rules.differs(by_engine) & ~agree & (again is not None)
        if again is not None and not agree.all():
            for one in (*quirks, *silent):
                unlike |= rules.differs(asked([one])) & ~agree
            if unlike.any():
                again.append(replace(part, numbers=part.numbers[unlike]))
        batch = Batch(part, made, results, asked, rules, by_engine, agree, ~unlike)
        report = _report(chain, batch)
        shown.update(counts := _shown(batch, quirks))
        report.comparison.quirks = +counts
        report.comparison.news = _news(batch, quirks, silent)
        return report

    return finish


@dataclass(frozen=True)
class Batch:
    """A batch that was tried.

    expected  what is expected of an engine that has some quirks
    agree     the lanes in which the guest saw what is expected of the engine
    told      those that are reported, and not tried again
    """

    part: Work
    made: Lanes
    results: npt.NDArray[np.void]
    expected: Callable[[Iterable[RiscvQuirk]], Expected]
    rules: Expected
    by_engine: Expected
    agree: Mask
    told: Mask


def _shown(batch: Batch, quirks: Sequence[RiscvQuirk]) -> Counter[str]:
    """How often quirks showed that should: without one of them something else would be expected."""
    shown = Counter[str]()
    for one in quirks if batch.rules.differs(batch.by_engine).any() else ():
        others = batch.expected(other for other in quirks if other is not one)
        if (should := batch.by_engine.differs(others)).any():
            shown[one.name] = int((should & batch.agree).sum())
    return shown


def _news(batch: Batch, quirks: Sequence[RiscvQuirk], silent: Sequence[RiscvQuirk]) -> Counter[str]:
    """How often quirks did not show: where with one of them something else would be expected."""
    news = Counter[str]()
    for one in silent:
        absent = batch.by_engine.differs(batch.expected([*quirks, one])) & batch.agree
        news[f"{one.name} did not show"] = int(absent.sum())
    return +news


def _report(chain: Chain, batch: Batch) -> Report:
    """What came of a batch, but for quirks and news."""
    version = chain.guest.version
    part, made, rules, by_engine = batch.part, batch.made, batch.rules, batch.by_engine
    mode, wrong = part.family.hart.mode, batch.told & ~batch.agree
    engine = chain.guest.engine.name
    report = Report(engine, dotted(version), not_run_on=not_run_on(version))
    report.executor = f"{engine} {dotted(version)}"
    report.comparison.compared = int(batch.told.sum())
    report.comparison.disagreed = int(wrong.sum())
    for into, chosen in (
        (report.by_rule, batch.told),
        (report.departed, rules.differs(by_engine) & batch.agree),
        (report.disagreed, wrong),
    ):
        for code, count in enumerate(np.bincount(rules.reason[chosen]).tolist()):
            if count:
                into[mode, REASONS[code]] = count
    if masked := int((batch.told & (by_engine.free != 0)).sum()):
        report.masked[MASKED] = masked
    for lane in np.flatnonzero(wrong)[:EXAMPLES].tolist():
        report.failures.append(
            MatrixCase.of(
                part.family.hart,
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
