"""A guest fitted with chains of tables, one for each paging mode, that tries lanes and judges
what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from harness.check import chain as chains
from harness.check.chain import Answers, Chain, Question
from harness.check.compare import PROBE, Comparison
from harness.check.quirks import (
    Basis,
    BasisQuirk,
    FaultQuirk,
    fault_quirks,
)
from harness.check.stage import MODES, Control, Model
from harness.check.verdicts import judged, report_strangers
from harness.machine.engines import executor
from harness.machine.guest import Guest, State
from harness.machine.ram import TABLE_ARENA
from harness.paging.address import Span
from harness.paging.memory import BufferMemory, Mask
from harness.paging.space import TableAllocator
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import ALLOWED, Outcomes, judge
from harness.paging.x86.cpu import Cpu


@dataclass(frozen=True)
class Batch:
    """Lanes under one control state, as the guest is asked about them."""

    chain: Chain
    basis: Basis
    question: Question
    answers: Answers

    @property
    def cpu(self) -> Cpu:
        """The control state."""
        return self.basis.cpu

    @property
    def state(self) -> State:
        """What the guest has to load."""
        return self.chain.state(self.cpu)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What the accesses come to."""
        cases, answers = self.basis.cases, self.answers
        implicit = np.zeros(len(cases), np.bool_) if cases.implicit is None else cases.implicit
        user = cases.user & ~implicit
        found = judge(self.cpu, answers.walks, cases.kind, user, cases.ac, implicit)
        refused = answers.refused != 0
        if not refused.any():
            return found
        return replace(
            found,
            vector=np.where(refused, np.uint8(Vector.GP), found.vector),
            error=np.where(refused, np.uint32(0), found.error),
            sets_cr2=found.sets_cr2 & ~refused,
            reason=np.where(refused, answers.refused, found.reason),
        )


@dataclass(frozen=True)
class Verdicts:
    """What came of a batch, one lane an access.

    rules       what the rules say
    results     what the guest saw
    agree       whether that is the same, or departs as a known quirk does
    departed    whether it came to something else than by the rules, as a known quirk has it
    comparison  the quirks that showed, and news of them
    """

    rules: Outcomes
    results: npt.NDArray[np.void]
    agree: Mask
    departed: Mask
    comparison: Comparison


class Rig:
    """The chains in a guest's memory."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.engine, self.version = executor(guest)
        self.quirks = fault_quirks(self.engine, self.version)
        self._chains: dict[str, Chain] = {}

    def chain(self, model: Model) -> Chain:
        """The chain for a mode.  The same mode has the same addresses in every guest."""
        if model.mode not in self._chains:
            share = len(TABLE_ARENA) // len(MODES)
            first = TABLE_ARENA.start + MODES.index(model.mode) * share
            allocator = TableAllocator(BufferMemory(self.guest.ram.buffer), Span.of(first, share))
            # Without PSE, so that the window is there under both its values.
            cpu = replace(model, pse=False).cpu(Control())
            self._chains[model.mode] = chains.build(
                self.guest, cpu, model.window, model.frames, allocator
            )
        return self._chains[model.mode]

    def batch(self, chain: Chain, cpu: Cpu, question: Question, answers: Answers | None) -> Batch:
        """Lanes under the control state of `cpu`; `answers` are those for the same format."""
        basis = Basis(cpu, question.lanes.cases)
        return Batch(chain, basis, question, answers or chains.foresee(chain, cpu, question))

    def start(self, batch: Batch) -> None:
        """Hands a batch to the guest.  Two can be under way."""
        self.guest.start(batch.state, batch.question.jobs)

    def finish(self, batch: Batch) -> Verdicts:
        """Judges the oldest batch under way, which is `batch`."""
        rules = batch.outcomes
        results = self.guest.finish()[: len(batch.question)]
        comparison = Comparison(PROBE)
        agree, by_rule = self._agreeing(comparison, batch, rules, results, self.quirks)
        agree |= self._departing(comparison, batch, results, agree)
        if not agree.all():
            self._report_strangers(comparison, batch, results, ~agree)
        return Verdicts(rules, results, agree, agree & ~by_rule, comparison)

    def _agreeing(
        self,
        comparison: Comparison,
        batch: Batch,
        rules: Outcomes,
        results: npt.NDArray[np.void],
        quirks: tuple[FaultQuirk, ...],
    ) -> tuple[Mask, Mask]:
        """The lanes that agree, those that depart as a quirk says with them, and those that follow
        the rules in everything."""
        allowed = rules.vector == ALLOWED
        asked, answers = batch.question, batch.answers
        seen = chains.seen(self.guest, batch.chain, asked, answers, allowed, results)
        return judged(comparison, batch.cpu, batch.basis.cases, rules, seen, quirks)

    def _departing(
        self, comparison: Comparison, batch: Batch, results: npt.NDArray[np.void], agree: Mask
    ) -> Mask:
        """The lanes that do not agree, but would if judged as the engine is known to judge."""
        departed = np.zeros_like(agree)
        quirks = [quirk for quirk in self.quirks if isinstance(quirk, BasisQuirk)]
        touched = {quirk: _touched(batch, quirk) for quirk in quirks}
        quirks = [quirk for quirk in quirks if touched[quirk].any()]
        if not quirks:
            return departed
        lanes = np.logical_or.reduce([touched[quirk] for quirk in quirks])
        agreed, seen = agree[lanes], results[lanes]
        question = batch.question.take(lanes)
        rules = batch if lanes.all() else _judged_as(batch, question, ())
        departing = _judged_as(batch, question, quirks)
        outcomes = departing.outcomes
        as_if, _ = self._agreeing(Comparison(PROBE), departing, outcomes, seen, self.quirks)
        for quirk in quirks:
            others = [other for other in quirks if other is not quirk]
            without = _judged_as(batch, question, others) if others else rules
            takes_part = _differs(without, departing)
            shown = int((takes_part & as_if & ~agreed).sum())
            absent = int((takes_part & agreed & ~as_if & _differs(rules, departing)).sum())
            if shown:
                comparison.quirks[quirk.name] += shown
            if absent:
                comparison.news[f"{quirk.name} did not show"] += absent
        departed[lanes] = as_if & ~agreed
        return departed

    def _report_strangers(
        self,
        comparison: Comparison,
        batch: Batch,
        results: npt.NDArray[np.void],
        wrong: Mask,
    ) -> None:
        def agreeing(quirk: FaultQuirk) -> Mask:
            judged_by, quirks = batch, (*self.quirks, quirk)
            if isinstance(quirk, BasisQuirk):
                judged_by, quirks = _judged_as(batch, batch.question, (quirk,)), self.quirks
            nothing = Comparison(PROBE)
            return self._agreeing(nothing, judged_by, judged_by.outcomes, results, quirks)[0]

        report_strangers(comparison, self.guest, self.quirks, wrong, agreeing)


def _touched(batch: Batch, quirk: BasisQuirk) -> Mask:
    """The lanes that a quirk may have judged otherwise."""
    cases, lanes = batch.basis.cases, batch.question.lanes
    other = quirk.as_if(batch.basis)
    touched = np.zeros(len(lanes), np.bool_)
    if other.cpu != batch.cpu or (other.pdpte_reserved is not None and len(lanes.pdpte)):
        return ~touched
    if other.cases is not cases:
        touched |= other.cases.kind != cases.kind
        if cases.implicit is not None and other.cases.implicit is not None:
            touched |= other.cases.implicit != cases.implicit
    return touched


def _judged_as(batch: Batch, question: Question, quirks: Sequence[BasisQuirk]) -> Batch:
    """Some lanes of a batch as an engine with some quirks judges them."""
    basis = Basis(batch.cpu, question.lanes.cases)
    basis = reduce(lambda now, quirk: quirk.as_if(now), quirks, basis)
    answers = chains.foresee(batch.chain, basis.cpu, question, basis.pdpte_reserved)
    return Batch(batch.chain, basis, question, answers)


def _differs(one: Batch, other: Batch) -> Mask:
    """The lanes that come to something else."""
    a, b = one.outcomes, other.outcomes
    differs: Mask = (a.vector != b.vector) | (a.error != b.error) | (a.reason != b.reason)
    differs |= (one.answers.marked != other.answers.marked).any(axis=0)
    return differs
