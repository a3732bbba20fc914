"""A foreign guest's own tables, and what its QEMU makes of them beside the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.debugger import oracles_of
from harness.check.tables import add_walks
from harness.inspect import architecture
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.sources import qmp
from harness.inspect.sources.qmp import Connection
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.machine.machine import dotted

PATIENCE = 30.0
"""Seconds for all that is read, and for `info tlb`, which of many mappings is long."""


@dataclass(frozen=True)
class Checked:
    """What came of a check.

    qemu, engine  the version that answered, and what executes the guest
    not_run_on    what answered in a version that was not yet run, a sentence each
    comparisons   one for each oracle
    answers       what every engine of this host says of each of the first disagreements; nothing
                  where none was asked
    """

    snapshot: Snapshot
    qemu: str
    engine: str
    not_run_on: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    answers: tuple[tuple[Answer, ...], ...] = ()

    @property
    def disagreements(self) -> list[Disagreement]:
        """Those that the oracles describe in full."""
        return [one for comparison in self.comparisons for one in comparison.disagreements]

    @property
    def told(self) -> list[tuple[Disagreement, tuple[Answer, ...]]]:
        """Each of these with its answers."""
        found = self.disagreements
        unasked = ((),) * (len(found) - len(self.answers))
        return list(zip(found, (*self.answers, *unasked), strict=True))


def check(
    path: Path, vcpu: int, thorough: bool, *, stub: bool = False, held: bool = False
) -> Checked:
    """Asks the QEMU at a socket about the tables of a processor, while the guest stands still.

    stub  whether the socket is that of its gdb stub, and not QMP
    held  whether the guest of a gdb stub stood before, and is to be left so

    Raises Misuse where no QEMU talks to us, SourceError where the processor translates nothing,
    QuestionError where nobody is asked about its architecture, and MachineError where QEMU does not
    answer.
    """
    with _of_stub(path, vcpu, held) if stub else _by_qmp(path, vcpu) as connection:
        snapshot, monitor = connection.snapshot({}), connection.monitor
        oracles = oracles_of(snapshot.cpu.architecture)
        if oracles is None:
            called = architecture.of(snapshot.cpu).called
            raise QuestionError(f"{snapshot.title} is of {called}, of which no monitor is asked")
        seen = connection.through_monitor() if connection.shared else None
        asked = oracles.of_foreign(monitor, snapshot.cpu, snapshot.memory, seen, thorough)
        comparisons = tuple(asked)
        for comparison in comparisons:
            add_walks(comparison, snapshot.memory, snapshot.cpu)
        version, engine = monitor.version, monitor.engine_in_use()
        new = oracles.new_versions(engine, version)
        return Checked(snapshot, dotted(version), engine, new, comparisons)


Asked = Connection[ForeignMonitor] | Connection[StubMonitor]
"""A QEMU that is asked, while its guest stands still."""


@contextmanager
def _by_qmp(path: Path, vcpu: int) -> Iterator[Asked]:
    with (
        qmp.connected(path, vcpu, patience=PATIENCE, holds=True) as connection,
        connection.monitor.paused(),
    ):
        yield connection


@contextmanager
def _of_stub(path: Path, vcpu: int, held: bool) -> Iterator[Asked]:
    with (
        qmp.debugged(path, vcpu, patience=PATIENCE, held=held) as connection,
        connection.monitor.of_processor(),
    ):
        yield connection
