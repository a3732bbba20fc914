"""Whose flushes can be watched in a guest: those of an architecture with a module `flushes` here,
which judges what the plugin saw, and one in `harness.report`, which tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

from harness.architectures import NAMES, USUAL, has, module_of
from harness.machine.errors import Misuse
from harness.machine.plugin import Watched
from harness.machine.registry import engines_of


class FailOn(Enum):
    """Which uses of what is cached and no longer so make a run fail: LATE, which no flush to come
    excuses, or STALE, all of them."""

    LATE = "late"
    STALE = "stale"


class Flushes(Protocol):
    """What came of a run.

    failed     how QEMU failed, as a sentence; None where it did not
    unwatched  why nothing was watched, as a sentence; None where something was
    """

    @property
    def failed(self) -> str | None: ...
    @property
    def unwatched(self) -> str | None: ...
    def failing(self, on: FailOn) -> int:
        """Uses that make the run fail."""


def architecture_of(command: Sequence[str]) -> str:
    """The architecture of the guest that a command of QEMU's starts, by the program's name.

    Raises Misuse for one whose flushes cannot be watched.
    """
    program = _family(Path(command[0]).name) if command else ""
    known = [arch for arch in NAMES if has(arch, "machine", "engines")]
    programs = {arch: {_family(one.program) for one in engines_of(arch).values()} for arch in known}
    arch = next((arch for arch in known if program in programs[arch]), USUAL)
    if not has(arch, "check", "flushes"):
        watched = " and ".join(one for one in NAMES if has(one, "check", "flushes"))
        raise Misuse(
            f"{Path(command[0]).name} runs a guest of {arch}, whose flushes are not watched: the"
            f" plugin follows the tables of {watched} alone"
        )
    return arch


def _family(program: str) -> str:
    """A program's name without the width of its guests' registers."""
    return re.sub(r"[0-9]+$", "", program)


def flushes(arch: str, watched: Watched) -> Flushes:
    """What came of a run."""
    found: Flushes = module_of(arch, "check", "flushes").flushes(watched)
    return found
