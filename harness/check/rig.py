"""A guest fitted with chains of tables, one for each paging mode, that tries lanes and judges
what comes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.check import chain as chains
from harness.check.cases import Cases
from harness.check.chain import Answers, Chain, Lanes, Question
from harness.check.compare import Comparison
from harness.check.quirks import FAULT_QUIRKS, FaultQuirk, TranslationQuirk, fault_quirks
from harness.check.stage import MODES, Control, Model
from harness.check.verdicts import agreeing
from harness.machine.engines import executor
from harness.machine.guest import Guest, State
from harness.machine.ram import TABLE_ARENA
from harness.paging.address import Span
from harness.paging.memory import BufferMemory, Mask
from harness.paging.space import TableAllocator
from harness.paging.x86.bulk import Outcomes, judge
from harness.paging.x86.cpu import Cpu

WINDOW_SLOT = 170
"""The slot of the top table that is the window's: no case may use it."""


@dataclass(frozen=True)
class Batch:
    """Lanes under one control state, as the guest is asked about them."""

    chain: Chain
    cpu: Cpu
    question: Question
    answers: Answers

    @property
    def state(self) -> State:
        """What the guest has to load."""
        return self.chain.state(self.cpu)


@dataclass(frozen=True)
class Verdicts:
    """What came of a batch, one lane an access.

    rules       what the rules say
    results     what the guest saw
    agree       whether that is the same, or departs as a known quirk does
    comparison  the quirks that showed, and news of them
    """

    rules: Outcomes
    results: npt.NDArray[np.void]
    agree: Mask
    comparison: Comparison


class Rig:
    """The chains in a guest's memory."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.engine, version = executor(guest)
        self.quirks = fault_quirks(self.engine, version)
        self._chains: dict[str, Chain] = {}

    def chain(self, model: Model) -> Chain:
        """The chain for a mode.  The same mode has the same addresses in every guest."""
        if model.mode not in self._chains:
            share = len(TABLE_ARENA) // len(MODES)
            first = TABLE_ARENA.start + MODES.index(model.mode) * share
            allocator = TableAllocator(BufferMemory(self.guest.ram.buffer), Span.of(first, share))
            cpu = model.cpu(Control())
            self._chains[model.mode] = chains.build(self.guest, cpu, WINDOW_SLOT, allocator)
        return self._chains[model.mode]

    def batch(self, chain: Chain, cpu: Cpu, question: Question, answers: Answers | None) -> Batch:
        """Lanes under the control state of `cpu`; `answers` are those for the same format."""
        return Batch(chain, cpu, question, answers or chains.foresee(chain, cpu, question))

    def start(self, batch: Batch) -> None:
        """Hands a batch to the guest.  Two can be under way."""
        self.guest.start(batch.state, batch.question.jobs)

    def finish(self, batch: Batch) -> Verdicts:
        """Judges the oldest batch under way, which is `batch`."""
        rules = _outcomes(batch.cpu, batch)
        results = self.guest.finish()
        comparison = Comparison("probe")
        agree = self._agreeing(comparison, batch, rules, results, self.quirks)
        for quirk in self.quirks:
            if isinstance(quirk, TranslationQuirk) and quirk.as_if(batch.cpu) != batch.cpu:
                agree = self._translated(comparison, quirk, batch, rules, results, agree)
        if not agree.all():
            self._report_strangers(comparison, batch, rules, results, ~agree)
        return Verdicts(rules, results, agree, comparison)

    def _agreeing(
        self,
        comparison: Comparison,
        batch: Batch,
        rules: Outcomes,
        results: npt.NDArray[np.void],
        quirks: tuple[FaultQuirk, ...],
    ) -> Mask:
        question, answers = batch.question, batch.answers
        accessed = np.uint64(batch.cpu.format.accessed)

        def entries_agree(made: Mask, accessed_anyway: Mask | None) -> Mask:
            bits = None
            if accessed_anyway is not None:
                bits = np.where(accessed_anyway, accessed, np.uint64(0))
            return chains.entries_agree(question, answers, results, made, bits)

        seen = chains.compare(self.guest, question, answers, rules, results)
        cases = _cases(question.lanes)
        return agreeing(comparison, batch.cpu, cases, rules, seen, entries_agree, quirks)

    def _translated(
        self,
        comparison: Comparison,
        quirk: TranslationQuirk,
        batch: Batch,
        rules: Outcomes,
        results: npt.NDArray[np.void],
        agree: Mask,
    ) -> Mask:
        """Those that agree, or would if the processor were the one that the quirk makes of it."""
        other = self.batch(batch.chain, quirk.as_if(batch.cpu), batch.question, None)
        departing = _outcomes(other.cpu, other)
        as_if = self._agreeing(Comparison("probe"), other, departing, results, self.quirks)
        differs = (departing.vector != rules.vector) | (departing.error != rules.error)
        shown, absent = as_if & ~agree, differs & agree & ~as_if
        if shown.any():
            comparison.quirks[quirk.name] += int(shown.sum())
        if absent.any():
            comparison.news[f"{quirk.name} did not show"] += int(absent.sum())
        either: Mask = agree | shown
        return either

    def _report_strangers(
        self,
        comparison: Comparison,
        batch: Batch,
        rules: Outcomes,
        results: npt.NDArray[np.void],
        wrong: Mask,
    ) -> None:
        """News of quirks that explain what is wrong, but do not name this engine or version."""
        for quirk in FAULT_QUIRKS:
            if quirk not in self.quirks and not isinstance(quirk, TranslationQuirk):
                agree = self._agreeing(Comparison("probe"), batch, rules, results, (quirk,))
                shown = int((agree & wrong).sum())
                if shown:
                    news = f"{quirk.name} shows on {self.engine}, in a version it does not name"
                    comparison.news[news] += shown


def _outcomes(cpu: Cpu, batch: Batch) -> Outcomes:
    lanes = batch.question.lanes
    return judge(cpu, batch.answers.walks, lanes.kind, lanes.user, lanes.ac)


def _cases(lanes: Lanes) -> Cases:
    return Cases(lanes.address, lanes.kind, lanes.user, lanes.ac)
