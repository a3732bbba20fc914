"""Cases of several accesses, one after the other, with the translations of those before in place.

Between the accesses of a case no entry is written, nothing is flushed but where the case says so,
and MOV CR3 never comes.  The control state may change.  Each access is judged alone, by the state
it is made under and by the entries as the access before it left them, which has been judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix.chain import Chain, Lanes, Question
from harness.check.x86.matrix.rig import Batch, Rig, Verdicts
from harness.check.x86.matrix.stage import Step
from harness.machine.x86.guest import Guest, State
from harness.paging.memory import Words
from harness.paging.x86.cpu import Cpu


@dataclass(frozen=True)
class Questions:
    """Sequences as the guest is asked about them, whatever the control states.

    steps  of each case, and what each asks
    jobs   what the guest executes, case by case: what lays the path that the first access does not
           take, if there is one, then a job a step.  A step's words are its data, placed anew, and
           the entries, which only the first writes
    """

    steps: tuple[tuple[Step, Question], ...]
    jobs: npt.NDArray[np.void]

    def __len__(self) -> int:
        return len(self.steps[0][1])


def jobs_of(steps: Sequence[Step]) -> int:
    """How many jobs it takes to ask about one case."""
    return len(steps) + len({step.there for step in steps}) - 1


def ask(guest: Guest, chain: Chain, steps: Sequence[Step], lanes: Sequence[Lanes]) -> Questions:
    """The jobs for sequences, given the first, the second, ... access of each."""
    questions = [chains.ask(guest, chain, one, mixed=True) for one in lanes]
    enums, levels, first = guest.image.enums, len(chain.tables), questions[0]
    words, data = levels + first.parts, first.parts
    each = jobs_of(steps)
    made = guest.image.new_jobs(len(first) * each)
    jobs = made.reshape(len(first), each)
    asked = tuple(zip(steps, questions, strict=True))
    for other in [question for step, question in asked if step.there != steps[0].there][:1]:
        laid = jobs[:, 0]
        laid[...] = other.jobs
        laid["access"], laid["flush"] = enums["ACCESS_NONE"], enums["FLUSH_PAGE"]
        laid["patched"], laid["watched"] = levels, 0
    for number, (step, question) in enumerate(asked):
        job = jobs[:, number - len(steps)]
        job[...] = question.jobs
        for name in ("where", "word"):
            job[name][:, :words] = np.roll(question.jobs[name][:, :words], data, axis=1)
        job["patched"] = data if number else words
        job["control"] = enums["CONTROL_THEN" if step.then else "CONTROL_FIRST"]
    made.flags.writeable = False  # under many states, but made and handed over once
    return Questions(asked, made)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences between two control states, as the guest is asked about them."""

    chain: Chain
    questions: Questions
    first: Cpu
    then: Cpu

    @property
    def state(self) -> State:
        """What the guest has to load."""
        return self.chain.state(self.first, self.then)

    def start(self, rig: Rig) -> None:
        """Hands it to the guest.  Two can be under way."""
        rig.guest.start(self.state, self.questions.jobs)

    def finish(self, rig: Rig) -> Iterator[tuple[Batch, Verdicts]]:
        """Judges the oldest batch under way, which is this one: step by step."""
        steps = self.questions.steps
        results = rig.guest.finish().reshape(len(self.questions), -1)
        paths = {step.there: Path(question) for step, question in steps}
        for number, (step, question) in enumerate(steps):
            cpu, path = self.then if step.then else self.first, paths[step.there]
            lanes = replace(question.lanes, words=path.words)
            batch = rig.batch(self.chain, cpu, replace(question, lanes=lanes))
            saw = _entries_first(results[:, number - len(steps)], question)
            yield batch, rig.judge(batch, saw)
            for other in paths.values():
                other.follow(path, saw["after"])


def _entries_first(results: npt.NDArray[np.void], question: Question) -> npt.NDArray[np.void]:
    """Results with their words in the order of `question`."""
    words, ordered = len(question.lanes.words) + question.parts, results.copy()
    ordered["after"][:, :words] = np.roll(results["after"][:, :words], -question.parts, axis=1)
    return ordered


class Path:
    """The entries of a path, as they are now; shape (levels, n)."""

    def __init__(self, question: Question) -> None:
        self.words: Words = question.lanes.words
        self.slots: Words = question.jobs["where"][:, : len(self.words)].T[::-1]

    def follow(self, path: Path, after: Words) -> None:
        """Takes what became of the entries that it shares with a path that was used."""
        left = after[:, : len(self.words)].T[::-1]
        self.words = np.where(self.slots == path.slots, left, self.words)
