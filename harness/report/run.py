"""What came of a validation, all spaces together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.architectures import USUAL
from harness.check.compare import Answer, Disagreement
from harness.check.layouts import described
from harness.check.replay import replays_of
from harness.check.validation import SpaceReport


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
    """The disagreements about a space, saved as cases in the directory if they can be replayed."""
    found, replays = [], replays_of(space.layout.arch)
    for disagreement in space.disagreements:
        try:
            path = None
            if replays is not None:
                path = replays.case_of(space, disagreement).save(directory)
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
        return self.spaces[0].layout.arch if self.spaces else USUAL

    @property
    def heading(self) -> str:
        """What the modes in which spaces are built are called together."""
        modes = described(self.arch).modes.values()
        return "levels" if all(mode.endswith(" levels") for mode in modes) else "mode"

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
