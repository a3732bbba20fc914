"""The matrix: millions of accesses, enumerated, each executed by a guest and compared in full.

`families` declares the cases.  Those of a family differ in entries, address and access, and
each is tried under every control state of the family: the jobs for the guest are made once,
and the reference judges them anew under each state.  While the guest executes a batch, this
process makes the next one and judges the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from harness.check import matrix, where
from harness.check.compare import EXAMPLES
from harness.check.matrix import Report, one_ahead
from harness.check.product import Rule
from harness.check.quirk import Quirk, Version
from harness.check.where import Condition
from harness.check.workers import shared_out
from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix import sequence
from harness.check.x86.matrix.case import AskedAccess, MatrixCase
from harness.check.x86.matrix.chain import Chain, Question
from harness.check.x86.matrix.families import (
    PRESETS,
    Family,
    code_places,
    families,
    lanes,
    not_survived,
)
from harness.check.x86.matrix.rig import Batch, Rig, Verdicts, guest_of
from harness.check.x86.matrix.sequence import SequenceBatch, jobs_of
from harness.check.x86.matrix.stage import MODES, Change, Control, Model
from harness.check.x86.matrix.warm import sequences
from harness.check.x86.quirks import known_of, not_run_on
from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.stub import StubImage
from harness.machine.x86.engines import called, present
from harness.machine.x86.guest import MachineInfo
from harness.machine.x86.registry import engine_named
from harness.machine.x86.stub import BUILD
from harness.paging.bulk import Counts, End
from harness.paging.format import Format
from harness.paging.memory import Mask
from harness.paging.x86.bulk import REASONS
from harness.paging.x86.cpu import Mode

__all__ = ["MODES", "PRESETS", "Plan", "Work", "plan", "planned", "run", "tried_on"]

USUAL_MODE: Final = "4"

UNSEEN: Final[Mapping[str, str]] = {
    "What MOV CR3 keeps of other PCIDs, and by bit 63 (SDM volume 3A, 4.10.4.1)": (
        "TCG and kvm_pvm show no PCIDs in CPUID; Bochs has CR4.PCIDE and INVPCID, but its"
        " translations carry no PCID: every MOV CR3 drops them (MOV_CR3Rq in cpu/crregs.cc)."
    ),
    "Metadata in pointers (LAM)": "No engine has it.",
}

BATCH = 1 << 15
"""Jobs that the guest executes at once, at most."""

WIDTHS = (36, 39, 46, 52)
"""MAXPHYADDR of the processors that are tried besides the usual one, which has 40."""

NO_MEMORY = "data of a page without memory"
UPPER_ACCESSED = "A above the entry at which a fault was found"


@dataclass(frozen=True)
class Work:
    """Cases of one family that are tried under the same control states, a batch of them; its
    length is that of all accesses."""

    family: Family
    controls: tuple[Control | Change, ...]
    numbers: Counts

    def __len__(self) -> int:
        return len(self.numbers) * len(self.controls) * len(self.family.steps)


Plan = matrix.Plan[Work]


# ---- what is to be tried ----


def planned(
    preset: str, modes: Iterable[str], engine: str, program: str, expression: str | None
) -> Plan:
    """What a preset tries on an engine as this host has it, by this emulator; raises as `plan`."""
    here = present(engine, program)
    return plan(preset, modes, engine, here.info, expression, here.long_mode_only, here.executor)


def plan(
    preset: str,
    modes: Iterable[str],
    engine: str,
    info: MachineInfo,
    expression: str | None = None,
    long_only: str | None = None,
    executor: tuple[str, Version | None] | None = None,
) -> Plan:
    """What a preset tries in some modes, as far as an expression selects it and the engine, whose
    processor is `info`, can.

    long_only  why the engine can do nothing outside long mode; None if it can
    executor   who executes for the engine, and its version; None leaves out what the engine does
               not survive in any version

    Raises Misuse for an expression that is none or selects nothing, and where the engine can do
    nothing of it.
    """
    skipped, some = Counter[str](), list[Family]()
    known = known_of(*(executor or (engine, None)))
    for mode in modes:
        usual, others = _models(engine, info, mode, executor)
        lacking = usual[0].lacks(info) or (None if usual[0].long else long_only)
        if lacking is None:
            some += families(preset, usual, others, known)
            some += sequences(preset, usual, known)
        else:
            skipped[f"mode {mode}: {lacking}"] += 0
    if not some:
        raise Misuse(f"{engine} can try nothing of it: {'; '.join(skipped)}")
    condition = None
    if expression is not None:
        try:
            condition = where.read(expression, where.AxesOf(family.axes for family in some))
        except ValueError as error:
            raise Misuse(str(error)) from None
    chosen = Plan(engine, (), skipped, Counter(), arch="x86")
    _, version = executor or (engine, None)
    work = tuple(
        part for family in some for part in _select(family, condition, info, known, chosen, version)
    )
    if not work:
        reasons = "; ".join([*skipped, *+chosen.left_out])
        raise Misuse(f"no case satisfies {expression!r}" + (f" here: {reasons}" if reasons else ""))
    most = engine_named(engine).matrix_accesses
    if most is not None:
        work = _sample(work, most, skipped, engine)
    return replace(chosen, work=work, left_out=+chosen.left_out)


def _models(
    engine: str,
    info: MachineInfo,
    mode: str,
    executor: tuple[str, Version | None] | None,
) -> tuple[list[Model], list[Model]]:
    """The processors that an engine can be: those that all is tried on, and those that differ in
    what is reserved."""
    usual, played = Model(mode), engine_named(engine).processor
    if played(usual.processor) is None:
        return [usual.on(info)], []
    others = [replace(usual, maxphyaddr=width) for width in WIDTHS]
    if usual.long:
        others += [replace(usual, page1gb=False), replace(usual, amd=True)]
    if Mode(mode) is Mode.BITS_32:
        others.append(replace(usual, pse36=False))
    _, version = executor or (engine, None)
    since = engine_named(engine).since
    others = [
        one
        for one in others
        if played(one.processor) is not None
        and (version is None or since(one.processor) <= version)
    ]
    small = replace(usual, pse=False)
    if Mode(mode) is Mode.BITS_32:
        return [usual, small], others
    return [usual], [*others, small]


def _select(
    family: Family,
    condition: Condition | None,
    info: MachineInfo,
    known: Collection[Quirk],
    into: Plan,
    version: Version | None,
) -> Iterator[Work]:
    """The cases of a family that are legal and satisfy a condition, in batches of equal size.

    Counts in `into` what is not tried.
    """
    product, steps = family.product, len(family.steps)
    chosen = dict[bytes, tuple[Mask, list[Control | Change]]]()
    ruled_out: list[tuple[Rule, Mask]] | None = None
    for control in family.controls:
        holds = np.bool_(True) if condition is None else condition.holds(family.grid(control))
        if not holds.any():
            continue
        mask = np.ones(product.shape, np.bool_) & holds
        if (nobody := family.unasked) is not None:
            into.left_out[nobody] += int(mask.sum()) * steps
            continue
        lacking = family.lacks(into.engine, info, version) or control.lacks(info)
        if lacking is not None:
            into.skipped[lacking] += int(mask.sum()) * steps
            continue
        if (lost := not_survived(family.model, control, known)) is not None:
            into.left_out[lost] += int(mask.sum()) * steps
            continue
        if ruled_out is None:
            ruled_out = [(rule, rule.leaves_out(product.grid)) for rule in product.rules]
        for rule, out in ruled_out:
            into.left_out[rule.reason] += int((mask & out).sum()) * steps
            mask &= ~out
        chosen.setdefault(mask.tobytes(), (mask, []))[1].append(control)
    for mask, controls in chosen.values():
        numbers = np.flatnonzero(mask)
        parts = -(-len(numbers) // (BATCH // jobs_of(family.steps)))
        for part in np.array_split(numbers, parts) if parts else ():
            yield Work(family, tuple(controls), part)


def _sample(
    work: Sequence[Work], accesses: int, skipped: Counter[str], engine: str
) -> tuple[Work, ...]:
    """About as many cases as `accesses`, drawn evenly from everywhere."""
    total = sum(map(len, work))
    if total <= accesses:
        return tuple(work)
    random = np.random.default_rng(total)
    few = []
    for part in work:
        count = -(-len(part.numbers) * accesses // total)
        numbers = np.sort(random.choice(part.numbers, count, replace=False))
        few.append(Work(part.family, part.controls, numbers))
    skipped[f"{engine} executes a sample"] += total - sum(map(len, few))
    return tuple(few)


# ---- trying it ----


def run(
    plan: Plan, *, jobs: int = 1, program: str | None = None, deadline: float = 60.0
) -> Generator[Report, None, None]:
    """Tries all cases, on `jobs` guests side by side: a report of each batch as it is judged.

    Raises Misuse and MachineError for guests that cannot be had or are lost, SpaceError where
    they lack room.  Guests that still run when the iterator is closed are ended.
    """
    work = sorted(plan.work, key=lambda part: (*_guest(plan.engine, part), part.family.model))
    trying = partial(_tried, engine=plan.engine, program=program, deadline=deadline)
    return shared_out(work, jobs, trying)


def _tried(
    work: Iterable[Work], engine: str, program: str | None, deadline: float
) -> Generator[Report, None, None]:
    """Tries cases on one guest after the other, one for each processor."""
    image = StubImage.load(BUILD)
    for _, some in groupby(work, partial(_guest, engine)):
        same = list(some)
        model = same[0].family.model
        with guest_of(engine, model.guest, program, image=image, deadline=deadline) as guest:
            yield from tried_on(Rig(guest), same)


def _guest(engine: str, part: Work) -> tuple[str, int]:
    """What differs between guests: the processor, as the engine names it, and the memory."""
    processor, ram_bytes = part.family.model.guest
    return engine_named(engine).processor(processor) or "", ram_bytes


def tried_on(rig: Rig, work: Iterable[Work]) -> Iterator[Report]:
    """Tries cases on one guest, one batch ahead of the verdicts: a report of each batch."""
    return one_ahead(_started(rig, work))


def _started(rig: Rig, work: Iterable[Work]) -> Iterator[Callable[[], Report]]:
    """Starts each batch; what waits for it, and reports what came of it."""
    for part in work:
        family = part.family
        chain = rig.chain(family.model)
        chain.put_code(*code_places(family))
        if len(family.steps) == 1:
            yield from _single(rig, chain, part)
        else:
            yield from _in_sequence(rig, chain, part)


def _single(rig: Rig, chain: Chain, part: Work) -> Iterator[Callable[[], Report]]:
    """One access a case."""
    model = part.family.model
    question = chains.ask(rig.guest, chain, lanes(part.family, chain, part.numbers))
    same_format: dict[Format, Batch] = {}
    for control in part.controls:
        cpu = model.cpu(control.first, chain.cpu)
        batch = rig.batch(chain, cpu, question, same_format.get(cpu.format))
        same_format[cpu.format] = batch
        rig.start(batch)

        def finish(control: Control | Change = control, batch: Batch = batch) -> Report:
            return _report(rig, part, control, batch, rig.finish(batch))

        yield finish


def _in_sequence(rig: Rig, chain: Chain, part: Work) -> Iterator[Callable[[], Report]]:
    """Several accesses a case."""
    family, steps = part.family, part.family.steps
    asked = [
        lanes(family, chain, part.numbers, step, again=number > 0)
        for number, step in enumerate(steps)
    ]
    questions = sequence.ask(rig.guest, chain, steps, asked)
    for control in part.controls:
        first, then = (family.model.cpu(one, chain.cpu) for one in (control.first, control.then))
        batch = SequenceBatch(chain, questions, first, then)
        batch.start(rig)

        def finish(control: Control | Change = control, batch: SequenceBatch = batch) -> Report:
            report, before = Report(rig.engine), list[tuple[Question, Control]]()
            for (step, question), (one, verdicts) in zip(
                questions.steps, batch.finish(rig), strict=True
            ):
                before.append((question, control.then if step.then else control.first))
                report.add(_report(rig, part, control, one, verdicts, before))
            return report

        yield finish


def _report(
    rig: Rig,
    part: Work,
    control: Control | Change,
    batch: Batch,
    verdicts: Verdicts,
    asked: Sequence[tuple[Question, Control]] = (),
) -> Report:
    """What came of a batch.

    asked  in a sequence, what was asked up to here as it was declared, each with its control state
    """
    report = Report(rig.engine, dotted(rig.guest.version), verdicts.comparison)
    report.executor = called(rig.engine, rig.version)
    report.not_run_on = not_run_on(rig.engine, rig.version, rig.guest.version)
    rules, mode = verdicts.rules, part.family.model.mode
    wrong = np.flatnonzero(~verdicts.agree)
    report.comparison.compared = len(verdicts.agree)
    report.comparison.disagreed = len(wrong)
    for into, reasons in (
        (report.by_rule, rules.reason),
        (report.departed, rules.reason[verdicts.departed]),
        (report.disagreed, rules.reason[wrong]),
    ):
        for code, count in enumerate(np.bincount(reasons).tolist()):
            if count:
                into[mode, REASONS[code]] = count
    top = len(batch.chain.tables) - 1
    walked = (rules.walks.end != End.NO_ROOT) & (batch.answers.refused == 0)
    upper = (rules.reason != 0) & walked & (rules.walks.level < top)
    no_memory = ~batch.question.lanes.backed & (rules.reason == 0)
    for name, mask in ((UPPER_ACCESSED, upper), (NO_MEMORY, no_memory)):
        if mask.any():
            report.masked[name] = int(mask.sum())
    for lane in wrong[:EXAMPLES].tolist():
        values = part.family.case(control, int(part.numbers[lane]))
        values += f" step={len(asked)}" if asked else ""
        steps = tuple(AskedAccess.of(*one, lane) for one in asked) or (
            AskedAccess.of(batch.question, control.first, lane),
        )
        model = part.family.model
        report.failures.append(
            MatrixCase.of_batch(rig, model, steps, batch, verdicts, lane, values)
        )
    return report
