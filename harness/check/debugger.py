"""What the QEMU of a guest that it runs for others makes of the guest's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from harness.architectures import has, module_of
from harness.check.compare import Comparison
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.paging.memory import Memory

Monitor = ForeignMonitor | StubMonitor


class Oracles(Protocol):
    """A module `debugger` of an architecture."""

    def of_foreign(
        self,
        monitor: Monitor,
        cpu: Any,
        memory: Memory,
        seen: Memory | None,
        thorough: bool,
    ) -> Iterator[Comparison]:
        """The answers of every oracle about the space of a processor that stands still.

        memory    the guest's
        seen      the same through the monitor; None where `memory` is so as well
        thorough  whether all mappings are asked about, and not a sample
        """

    def new_versions(self, engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
        """What answers in a version that was not yet run, a sentence each."""


def oracles_of(arch: str) -> Oracles | None:
    """Those of an architecture; None where there are none."""
    found: Any = module_of(arch, "check", "debugger") if has(arch, "check", "debugger") else None
    return found  # type: ignore[no-any-return]
