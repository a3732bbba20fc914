"""The question of one case, asked of every engine that can run here: whose answers differ.

Where engines that share no code give the answer of the rules and one does not, it is that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from harness.check import matrix_case, replay
from harness.check.compare import Comparison
from harness.check.matrix_case import MatrixCase
from harness.check.replay import Case
from harness.machine.engines import called, executor, why_absent
from harness.machine.errors import MachineError, Misuse
from harness.machine.guest import Guest, MachineInfo
from harness.machine.machine import Processor
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.registry import ENGINES


@dataclass(frozen=True)
class Answer:
    """What one engine says of a case.

    engine    its name
    executor  who executed it, and in which version, as `bochs 3.0`; the engine where none did
    agrees    whether that is what the rules say, or what a known quirk of it is; None where it
              could not be asked
    said      the answer, or why there is none, for people
    """

    engine: str
    executor: str
    agrees: bool | None
    said: str


@dataclass(frozen=True)
class Able:
    """An engine that can run here: who executes for it, the emulator to run, and the processor that
    a guest has there where none is chosen."""

    executor: str
    program: str
    info: MachineInfo


@dataclass(frozen=True)
class Engines:
    """The engines by name, as this host has them: those that can run, and why each other cannot."""

    able: Mapping[str, Able]
    unable: Mapping[str, str]


def engines(programs: Mapping[str, str]) -> Engines:
    """What this host can run of the registry; `programs` are the emulators by their makers."""
    able, unable = {}, {}
    for name, engine in ENGINES.items():
        program = programs[engine.maker]
        reason = why_absent(name, program=program)
        if reason is None:
            able[name] = _able(name, program)
        else:
            unable[name] = reason
    return Engines(able, unable)


def _able(name: str, program: str) -> Able:
    with Guest(name, ram_bytes=ARENA.stop + RAM_UNIT, program=program) as guest:
        return Able(called(*executor(guest)), program, guest.info)


def answers(case: Case | MatrixCase, here: Engines) -> Iterator[Answer]:
    """What each engine says of a case, those that cannot run last."""
    for name, one in here.able.items():
        try:
            yield _answer(name, one.executor, asked(_on(name, one.info, case), one.program))
        except (Misuse, MachineError) as error:
            yield Answer(name, one.executor, None, str(error))
    for name, reason in here.unable.items():
        yield Answer(name, name, None, f"it cannot run here: {reason}")


def _on(engine: str, info: MachineInfo, case: Case | MatrixCase) -> Case | MatrixCase:
    """The case on another engine. One that has a single processor reads the entries as that."""
    if isinstance(case, MatrixCase):
        only = ENGINES[engine].processor(Processor()) is None
        return replace(case, engine=engine, model=case.model.on(info) if only else case.model)
    return replace(case, engine=engine)


def asked(case: Case | MatrixCase, program: str) -> Comparison:
    """What comes of a case, of whichever kind, on its engine now."""
    if isinstance(case, MatrixCase):
        return matrix_case.replay(case, program=program)
    return replay.replay(case, program=program)


def _answer(name: str, who: str, found: Comparison) -> Answer:
    if found.disagreements:
        return Answer(name, who, False, found.disagreements[-1].observed)
    if found.quirks:
        return Answer(name, who, True, f"departs, as {', '.join(found.quirks)} has it")
    return Answer(name, who, True, "as expected")
