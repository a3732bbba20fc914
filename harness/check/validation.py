"""What came of one space, every oracle asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter
from typing import Protocol

from harness.architectures import module_of
from harness.check.compare import Comparison, Disagreement
from harness.check.layouts import Layout


@dataclass(frozen=True)
class SpaceReport:
    """What came of one layout at one number of levels on one engine.

    skipped      why nothing was compared, None where it was
    comparisons  one for each oracle
    seconds      wall time, the start of the guest included
    not_run_on   what answered in a version that was not yet run, a sentence each
    """

    layout: Layout
    levels: int
    engine: str
    qemu: str
    skipped: str | None
    comparisons: tuple[Comparison, ...]
    seconds: float
    not_run_on: tuple[str, ...] = ()

    @property
    def disagreed(self) -> int:
        """Disagreements over all oracles."""
        return sum(comparison.disagreed for comparison in self.comparisons)

    @property
    def disagreements(self) -> list[Disagreement]:
        """Those that the oracles describe in full."""
        return [one for comparison in self.comparisons for one in comparison.disagreements]

    @property
    def compared(self) -> int:
        """Questions with a verdict over all oracles."""
        return sum(comparison.compared for comparison in self.comparisons)

    def count(self, what: str) -> Counter[str]:
        """One of the counters of a comparison (`quirks`, `not_comparable`, `news`), over all."""
        return reduce(Counter.__add__, map(attrgetter(what), self.comparisons), Counter[str]())


class Validate(Protocol):
    """Builds a layout in a new guest's memory, and asks every oracle about it.

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """

    def __call__(
        self,
        layout: Layout,
        levels: int,
        engine: str,
        *,
        program: str | None = None,
        thorough: bool = False,
    ) -> SpaceReport:
        """What came of it at a number of levels on an engine.

        program   another emulator than the engine's own
        thorough  ask the emulator's monitor about all mappings, and not a sample
        """


def validate_of(arch: str) -> Validate:
    """How layouts of an architecture are validated: `validate` of its module `validate`."""
    found: Validate = module_of(arch, "check", "validate").validate
    return found
