"""The questions of cases, asked of every engine that can run here: whose answers differ.

Where engines that share no code give the answer of the rules and one does not, it is that one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from harness.check.compare import Answer, Comparison, Disagreement, answer_of
from harness.check.replay import Host, of_absent
from harness.check.validation import SpaceReport
from harness.check.x86 import replay
from harness.check.x86.matrix import case as matrix_case
from harness.check.x86.matrix.case import MatrixCase, saved
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.replay import Case
from harness.check.x86.validate import guest_for
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import Processor
from harness.machine.x86.engines import Present, present, why_not_started
from harness.machine.x86.guest import Guest, MachineInfo
from harness.machine.x86.registry import ENGINES

__all__ = [
    "Host",
    "ask_every",
    "case_of",
    "on",
    "replayed",
    "saved",
    "this_host",
]


def this_host(programs: Mapping[str, str]) -> Host[Present]:
    """What this host can run of the registry; `programs` are the emulators by their makers."""
    here, absent = {}, {}
    for name, engine in ENGINES.items():
        program = programs[engine.maker]
        reason = why_not_started(name, program=program)
        if reason is None:
            try:
                here[name] = present(name, program)
            except (MachineError, Misuse) as error:
                reason = str(error)
        if reason is not None:
            absent[name] = reason
    return Host(here, absent)


def ask_every(
    cases: Sequence[Case | MatrixCase], host: Host[Present]
) -> Iterator[tuple[int, Answer]]:
    """What each engine says of each case, with the case's number, as the answers come: one engine
    after the other, those that cannot run last."""
    in_order = sorted(range(len(cases)), key=lambda number: _wanted(cases[number]))
    for name, here in host.present.items():
        with closing(_KeptGuest(name, here)) as kept:
            for number in in_order:
                try:
                    found = kept.replay(_on(name, here.info, cases[number]))
                    yield number, answer_of(name, here.called, found)
                except (Misuse, MachineError) as error:
                    yield number, Answer(name, here.called, None, str(error))
    yield from of_absent(host, len(cases))


def _wanted(case: Case | MatrixCase) -> tuple[Processor, int]:
    """What the guest of a case has to be, so that those that share one are together."""
    return case.model.guest if isinstance(case, MatrixCase) else (Processor(), 0)


class _KeptGuest:
    """The guest of an engine, kept for the next case as long as that asks for the same processor
    and memory, or is about the same layout at as many levels, which is built anew; so is the
    failure of one that does not start."""

    def __init__(self, name: str, here: Present) -> None:
        self._engine = ENGINES[name]
        self._here = here
        self._is: Hashable = None
        self._running: Guest | Rig | MachineError | Misuse | None = None
        self._ends = ExitStack()

    def replay(self, case: Case | MatrixCase) -> Comparison:
        """What comes of a case; raises as `matrix_case.replay` and `replay.replay` do."""
        if isinstance(case, MatrixCase):
            rig = self._kept(self._processor(case), lambda: self._rig(case))
            assert isinstance(rig, Rig)
            return self._asked(lambda: matrix_case.replay_in(rig, case))
        layout, program = replay.layout_of(case), self._here.program
        guest = self._kept(
            (case.layout, case.text, case.levels),
            lambda: self._ends.enter_context(guest_for(layout, case.engine, program)),
        )
        assert isinstance(guest, Guest)
        return self._asked(lambda: replay.replay_in(guest, layout, case))

    def _processor(self, case: MatrixCase) -> Hashable:
        """What the guest of a case has to be."""
        processor, ram_bytes = case.model.guest
        chosen = self._engine.processor(processor)
        if chosen is None:
            # Every guest has the same processor then, and none is started in vain.
            matrix_case.check_replayable(case, self._here.info, self._here.long_mode_only)
        return chosen, ram_bytes

    def _rig(self, case: MatrixCase) -> Rig:
        guest = guest_of(case.engine, case.model.guest, self._here.program)
        return Rig(self._ends.enter_context(guest))

    def _kept(self, wanted: Hashable, start: Callable[[], Guest | Rig]) -> Guest | Rig:
        if self._is != wanted:
            self.close()
            self._is = wanted
            try:
                self._running = start()
            except (MachineError, Misuse) as error:
                self._running = error
        if not isinstance(self._running, Guest | Rig):
            assert self._running is not None
            raise self._running
        return self._running

    def _asked(self, ask: Callable[[], Comparison]) -> Comparison:
        try:
            return ask()
        except MachineError:
            self.close()
            raise

    def close(self) -> None:
        """Ends the guest."""
        self._running, self._is = None, None
        self._ends.close()


def _on(engine: str, info: MachineInfo, case: Case | MatrixCase) -> Case | MatrixCase:
    """The case on another engine. One that has a single processor reads the entries as that."""
    if isinstance(case, MatrixCase):
        only = ENGINES[engine].processor(Processor()) is None
        return replace(case, engine=engine, model=case.model.on(info) if only else case.model)
    return replace(case, engine=engine)


def on(case: Case | MatrixCase, engine: str) -> Case | MatrixCase:
    """The same question, asked of another engine."""
    return replace(case, engine=engine)


def case_of(space: SpaceReport, found: Disagreement) -> Case:
    """The case of a disagreement about a space."""
    return Case.of(space, found)


def replayed(case: Case | MatrixCase, program: str) -> Comparison:
    """What comes of a case, of whichever kind, on its engine now."""
    if isinstance(case, MatrixCase):
        return matrix_case.replay(case, program=program)
    return replay.replay(case, program=program)
