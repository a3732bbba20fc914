"""The questions of RISC-V's cases, asked again: of QEMU's TCG, which alone runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.riscv.replay import Case, MatrixCase, replay, saved
from harness.check.validation import SpaceReport
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import dotted
from harness.machine.riscv.engines import ENGINES
from harness.machine.riscv.guest import Guest

__all__ = ["Host", "ask_every", "case_of", "on", "replayed", "saved", "this_host"]


@dataclass(frozen=True)
class Host:
    """QEMU as this host has it.

    program  a QEMU for 64 bits, beside which lies that for 32
    called   what executes there, and in which version
    absent   why it cannot run here, None if it can
    """

    program: str
    called: str
    absent: str | None = None


def this_host(programs: Mapping[str, str]) -> Host:
    """What this host can run; `programs` are the emulators by their makers."""
    [engine] = ENGINES.values()
    program = programs[engine.maker]
    try:
        with Guest(program=program) as guest:
            return Host(program, f"{engine.name} {dotted(guest.version)}")
    except (MachineError, Misuse) as error:
        return Host(program, engine.name, str(error))


def ask_every(cases: Sequence[Case | MatrixCase], host: Host) -> Iterator[tuple[int, Answer]]:
    """What TCG says of each case, with the case's number, as the answers come."""
    for number, case in enumerate(cases):
        if host.absent is not None:
            reason = f"it cannot run here: {host.absent}"
            yield number, Answer(case.engine, host.called, None, reason)
            continue
        try:
            yield number, _answer(case, host, replay(case, host.program))
        except (Misuse, MachineError) as error:
            yield number, Answer(case.engine, host.called, None, str(error))


def _answer(case: Case | MatrixCase, host: Host, found: Comparison) -> Answer:
    if found.disagreements:
        return Answer(case.engine, host.called, False, found.disagreements[-1].observed)
    if found.quirks:
        departs = f"departs, as {', '.join(found.quirks)} has it"
        return Answer(case.engine, host.called, True, departs)
    return Answer(case.engine, host.called, True, "as expected")


def case_of(space: SpaceReport, found: Disagreement) -> Case:
    """The case of a disagreement about a space."""
    return Case.of(space, found)


def on(case: Case | MatrixCase, engine: str) -> Case | MatrixCase:
    """The same question, asked of another engine; raises Misuse where there is none of that
    name."""
    if engine not in ENGINES:
        raise Misuse(f"{engine} runs no RISC-V: choose {', '.join(ENGINES)}")
    return replace(case, engine=engine)


def replayed(case: Case | MatrixCase, program: str) -> Comparison:
    """What comes of a case, of whichever kind, on its engine now."""
    return replay(case, program)
