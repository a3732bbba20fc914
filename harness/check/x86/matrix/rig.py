"""A guest fitted with chains of tables, one for each paging mode, that tries lanes and judges
what comes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from harness.check.compare import PROBE, Comparison
from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix.chain import Answers, Chain, Question
from harness.check.x86.matrix.stage import MODES, SMALL_RAM, Control, Model
from harness.check.x86.quirks import (
    Basis,
    BasisQuirk,
    FaultQuirk,
    departing,
    fault_quirks,
    lapses,
)
from harness.check.x86.second_reading import Asked, Reading
from harness.check.x86.verdicts import Judged, judged, report_strangers
from harness.machine.machine import Processor
from harness.machine.ram import TABLE_ARENA
from harness.machine.stub import StubImage
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest, State
from harness.machine.x86.registry import engine_named
from harness.paging.address import Span
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory, Mask
from harness.paging.space import TableAllocator
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import ALLOWED, Outcomes, judge
from harness.paging.x86.cpu import Cpu

DEADLINE = 30.0
"""Seconds that a guest has for each answer."""


@dataclass(frozen=True)
class Batch:
    """Lanes under one control state, as the guest is asked about them.

    reading  the second one, by the rules as the engine is known to follow them
    """

    chain: Chain
    basis: Basis
    question: Question
    answers: Answers
    reading: Reading

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
    held        whether the rules are what a second reading says, where a known quirk applies
    comparison  the quirks that showed, and news of them
    """

    rules: Outcomes
    results: npt.NDArray[np.void]
    agree: Mask
    departed: Mask
    held: Mask
    comparison: Comparison


def guest_of(
    engine: str,
    wanted: tuple[Processor, int],
    program: str | None = None,
    *,
    image: StubImage | None = None,
    deadline: float = DEADLINE,
) -> Guest:
    """A guest for a model, with the memory that is wanted.

    An engine that cannot have it has no room for pages of 1 GiB, and gets no more than the rest
    needs: Bochs 2.7 takes 2.5 s to start with 2 GiB.
    """
    processor, ram_bytes = wanted
    executes = engine_named(engine)
    return Guest(
        engine,
        ram_bytes=ram_bytes if ram_bytes <= executes.largest_ram else SMALL_RAM,
        cpu=executes.processor(processor),
        program=program,
        image=image,
        deadline=deadline,
    )


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
            cpu = replace(model, pse=False).cpu(Control(lass=model.lass))
            frames = model.frames.clip(Span.of(0, self.guest.ram.size))
            assert frames is not None
            self._chains[model.mode] = chains.build(
                self.guest, cpu, model.windows, frames, allocator
            )
        return self._chains[model.mode]

    def batch(self, chain: Chain, cpu: Cpu, question: Question, like: Batch | None = None) -> Batch:
        """Lanes under the control state of `cpu`; `like` is the same question in that format."""
        basis, lanes = Basis(cpu, question.lanes.cases), question.lanes
        if like is not None:
            answers, reading = like.answers, like.reading.under(cpu)
            if question.by_control:
                answers = chains.foresee(chain, cpu, question)
            return Batch(chain, basis, question, answers, reading)
        asked = Asked(cpu, lanes.cases, lanes.words, lanes.pdpte, lanes.register)
        reading = Reading(asked, lapses(self.quirks))
        return Batch(chain, basis, question, chains.foresee(chain, cpu, question), reading)

    def start(self, batch: Batch) -> None:
        """Hands a batch to the guest.  Two can be under way."""
        self.guest.start(batch.state, batch.question.jobs)

    def finish(self, batch: Batch) -> Verdicts:
        """Judges the oldest batch under way, which is `batch`."""
        return self.judge(batch, self.guest.finish()[: len(batch.question)])

    def judge(self, batch: Batch, results: npt.NDArray[np.void]) -> Verdicts:
        """Judges a batch by what the guest saw of each lane."""
        comparison = Comparison(PROBE)
        found = self._judged(comparison, batch, results, self.quirks)
        agree = found.agree
        if not agree.all():
            self._report_strangers(comparison, batch, results, ~agree)
        departed = agree & ~found.by_rule
        return Verdicts(batch.outcomes, results, agree, departed, found.held, comparison)

    def _judged(
        self,
        comparison: Comparison,
        batch: Batch,
        results: npt.NDArray[np.void],
        known: tuple[FaultQuirk, ...],
    ) -> Judged:
        """All lanes beside the rules, as an engine follows them that has the quirks `known`."""
        elsewhere = departing(batch.reading, known)
        apart = np.logical_or.reduce(list(elsewhere.values()))  # False where there are none
        found = self._agreeing(comparison, batch, results, known, apart)
        for lanes, quirks in _together(elsewhere):
            part = self._departed(comparison, batch, results[lanes], lanes, quirks, known)
            found.agree[lanes], found.by_rule[lanes] = part.agree, part.by_rule
            found.held[lanes] = part.held
        return found

    def _agreeing(
        self,
        comparison: Comparison,
        batch: Batch,
        results: npt.NDArray[np.void],
        quirks: tuple[FaultQuirk, ...],
        apart: Mask | None = None,
    ) -> Judged:
        """All lanes beside the rules, but those that are judged apart."""
        allowed = batch.outcomes.vector == ALLOWED
        answers = batch.answers.unwalked(batch.outcomes.walks.end == End.NO_ROOT)
        seen = chains.seen(self.guest, batch.chain, batch.question, answers, allowed, results)
        return judged(comparison, batch.reading, batch.outcomes, seen, quirks, apart)

    def _departed(
        self,
        comparison: Comparison,
        batch: Batch,
        results: npt.NDArray[np.void],
        lanes: Mask,
        quirks: Sequence[BasisQuirk],
        known: tuple[FaultQuirk, ...],
    ) -> Judged:
        """Lanes in which the engine judges by some of the quirks `known`.

        In these lanes the machine is no witness to the rules: they must be what the second reading
        says.
        """
        question = batch.question.take(lanes)
        as_engine = _judged_as(batch, question, batch.reading.take(lanes), quirks)
        as_known = self._agreeing(comparison, as_engine, results, known)
        departs = as_known.agree
        # Without any lapse: where one denies what another allows, the other does not depart.
        by_manual = as_engine.reading.without(lapses(known))
        rules = _judged_as(batch, question, by_manual, ())
        held = by_manual.says(rules.outcomes) & ~(rules.answers.marked != 0).any(axis=0)
        follows = np.zeros_like(departs)
        for quirk in quirks:
            comparison.quirks[quirk.name] += int((departs & held).sum())
            if departs.all():
                continue
            reading = as_engine.reading.without(quirk.lapse)
            others = [other for other in departing(reading, known) if other is not quirk]
            without = _judged_as(batch, question, reading, others)
            absent = self._agreeing(Comparison(PROBE), without, results, known).agree
            absent &= held & ~departs
            if absent.any():
                comparison.news[f"{quirk.name} did not show"] += int(absent.sum())
            follows |= absent
        held &= as_known.held
        return Judged(departs & held | follows, follows, held)

    def _report_strangers(
        self,
        comparison: Comparison,
        batch: Batch,
        results: npt.NDArray[np.void],
        wrong: Mask,
    ) -> None:
        question, reading = batch.question.take(wrong), batch.reading.take(wrong)

        def agreeing(quirk: FaultQuirk) -> Mask:
            known, lanes = (*self.quirks, quirk), wrong.copy()
            as_engine = replace(reading, lapses=lapses(known))
            applies = quirk.lanes(as_engine)
            if not applies.any():
                return np.zeros_like(wrong)
            other = _judged_as(batch, question, as_engine, ())
            agree = self._judged(Comparison(PROBE), other, results[wrong], known).agree
            lanes[wrong] = agree & applies
            return lanes

        report_strangers(comparison, self.guest, self.quirks, wrong, agreeing)


def _together(elsewhere: dict[BasisQuirk, Mask]) -> Iterator[tuple[Mask, list[BasisQuirk]]]:
    """Lanes in which the same quirks apply, with these."""
    if not elsewhere:
        return
    together = np.zeros(len(next(iter(elsewhere.values()))), np.uint64)
    for number, applies in enumerate(elsewhere.values()):
        together |= applies.astype(np.uint64) << np.uint64(number)
    for some in np.unique(together).tolist():
        if some:
            yield together == some, [q for number, q in enumerate(elsewhere) if some >> number & 1]


def _judged_as(
    batch: Batch, question: Question, reading: Reading, quirks: Sequence[BasisQuirk]
) -> Batch:
    """Some lanes of a batch as an engine with some quirks judges them; it reads as `reading`."""
    basis = Basis(batch.cpu, question.lanes.cases)
    basis = reduce(lambda now, quirk: quirk.as_if(now), quirks, basis)
    answers = chains.foresee(
        batch.chain, basis.cpu, question, basis.pdpte_reserved, basis.cases.address
    )
    return Batch(batch.chain, basis, question, answers, reading)
