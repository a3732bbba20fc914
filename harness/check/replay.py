"""Disagreements as files, and their questions asked again.

What is asked is the architecture's: so are the forms of its cases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from harness.architectures import NAMES, USUAL, module_of
from harness.check import written
from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.layouts import described
from harness.check.typed import decode
from harness.check.validation import SpaceReport

VERSION: Final = 1
"""Of the form of case files, of every kind. A file without one was written before there were any,
and is read as of the first."""


class CaseError(ValueError):
    """A file that holds no case: a sentence that says where and why."""


class Case(Protocol):
    """A question, and the answers that it got.

    engine, qemu  who was asked, and the version of the emulator
    title         what was asked of whom, for people
    expected      what the reference said, for people
    observed      what the engine said, for people
    """

    @property
    def engine(self) -> str: ...

    @property
    def qemu(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def expected(self) -> str: ...

    @property
    def observed(self) -> str: ...

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""


class Replays(Protocol):
    """How the questions of an architecture are asked again: its module `witnesses`."""

    def case_of(self, space: SpaceReport, found: Disagreement) -> Case:
        """The case of a disagreement about a space."""

    def saved(self, path: Path) -> Case:
        """The case in a file, of whatever kind; CaseError where there is none."""

    def on(self, case: Case, engine: str) -> Case:
        """The same question, asked of another engine."""

    def replayed(self, case: Case, program: str) -> Comparison:
        """What comes of a case on its engine now, by this emulator.

        Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the
        question cannot be compared here, MachineError for a guest that is lost.
        """

    def this_host(self, programs: Mapping[str, str]) -> Any:
        """What of the engines this host can run; `programs` are the emulators by their makers."""

    def ask_every(self, cases: Sequence[Any], host: Any) -> Iterator[tuple[int, Answer]]:
        """What each engine says of each case, with the case's number, as the answers come."""


def replays_of(arch: str) -> Replays | None:
    """How the questions of an architecture are asked again; None where they cannot be."""
    found: Any = module_of(arch, "check", "witnesses") if described(arch).replays else None
    return found  # type: ignore[no-any-return]


LONGEST_NAME: Final = 240
"""Characters of a file's name, of which the first are left out where it has more."""


def write(directory: Path, title: str, content: Mapping[str, Any]) -> Path:
    """Writes a case of any kind to the file that its title names; OSError where that fails."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", title)
    if len(name) > LONGEST_NAME:
        name = name[-LONGEST_NAME:].partition("-")[2] or name[-LONGEST_NAME:]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    written.write(path, json.dumps({"version": VERSION, **content}, indent=2) + "\n")
    return path


class _Versioned(msgspec.Struct, frozen=True):
    """A file of any version, of which no more is known than that, and of which architecture."""

    version: int = VERSION
    arch: str = USUAL


def check_version(text: bytes) -> None:
    """ValueError where a file is of a version that is not read here."""
    version = decode(text, _Versioned).version
    if version != VERSION:
        written_by = "a later pagetable wrote it, and " if version > VERSION else ""
        raise ValueError(f"its version is {version}: {written_by}this one reads version {VERSION}")


def arch_in(path: Path) -> str:
    """The architecture of the case in a file, the usual one where it names none; CaseError where
    there is no such file, or none whose cases can be asked again."""
    text = content(path)
    try:
        arch: str = decode(text, _Versioned).arch
    except ValueError as error:
        raise CaseError(f"{path} holds no case: {error}") from None
    if arch not in NAMES or replays_of(arch) is None:
        raise CaseError(f"{path} holds no case: arch is {arch!r}, of which none can be asked again")
    return arch


def saved(path: Path) -> Case:
    """The case in a file, of whatever architecture and kind; CaseError where there is none."""
    replays = replays_of(arch_in(path))
    assert replays is not None
    return replays.saved(path)


def content(path: Path) -> bytes:
    """The text of a file that may hold a case; CaseError where it cannot be read."""
    try:
        return written.read(path)
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from None
