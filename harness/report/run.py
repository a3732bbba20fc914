"""What came of a validation, all spaces together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.check.compare import Disagreement
from harness.check.quirk import Quirk
from harness.check.validation import SpaceReport
from harness.check.x86 import quirks
from harness.check.x86.replay import Case
from harness.check.x86.witnesses import Answer


@dataclass(frozen=True)
class Finding:
    """A disagreement about a space that is described in full.

    case     the file from which it can be replayed, None where it could not be written
    unsaved  why it could not
    answers  what every engine of this host says; nothing where none was asked
    """

    space: SpaceReport
    disagreement: Disagreement
    case: Path | None
    unsaved: OSError | None = None
    answers: tuple[Answer, ...] = ()


def find(space: SpaceReport, directory: Path) -> list[Finding]:
    """The disagreements about a space, those about x86 saved as cases in the directory."""
    found = []
    for disagreement in space.disagreements:
        if space.layout.arch != "x86":  # whose cases alone can be replayed
            found.append(Finding(space, disagreement, None))
            continue
        try:
            path = Case.of(space, disagreement).save(directory)
            found.append(Finding(space, disagreement, path))
        except OSError as error:
            found.append(Finding(space, disagreement, None, error))
    return found


@dataclass(frozen=True)
class Run:
    """Reports of spaces, in the order in which they were asked for.

    findings  the disagreements about them
    seconds   wall time
    failure   why there are no more of them, None where all are here
    """

    engine: str
    spaces: tuple[SpaceReport, ...]
    findings: tuple[Finding, ...]
    seconds: float
    failure: str | None = None

    @property
    def arch(self) -> str:
        """The architecture that was compared."""
        return self.spaces[0].layout.arch if self.spaces else "x86"

    @property
    def known(self) -> Mapping[str, Quirk]:
        """The departures that its engines are known for, by name."""
        if self.arch == "riscv":
            from harness.check.riscv import quirks as riscv

            return riscv.KNOWN
        return quirks.KNOWN

    @property
    def qemu(self) -> str:
        """QEMU's version, empty where none was started."""
        return next((space.qemu for space in self.spaces if space.qemu), "")

    @property
    def not_run_on(self) -> tuple[str, ...]:
        """What answered in a version that was not yet run, a sentence each."""
        return tuple(dict.fromkeys(line for space in self.spaces for line in space.not_run_on))

    @property
    def compared(self) -> int:
        """Questions with a verdict."""
        return sum(space.compared for space in self.spaces)

    @property
    def disagreed(self) -> int:
        """How many of them disagree."""
        return sum(space.disagreed for space in self.spaces)

    def count(self, what: str) -> Counter[str]:
        """One of the counters of a comparison (`quirks`, `not_comparable`, `news`), over all."""
        return sum((space.count(what) for space in self.spaces), Counter[str]())
