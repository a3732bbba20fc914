"""Disagreements as files, and their questions asked again.

What is asked is the architecture's: so are the forms of its cases, as far as they are not those
that are here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from harness.architectures import NAMES, USUAL, has, module_of
from harness.check import written
from harness.check.compare import PROBE, Access, Answer, Comparison, Disagreement, answer_of
from harness.check.layouts import described, either
from harness.check.typed import Number, decode, made
from harness.check.validation import SpaceReport
from harness.machine.errors import MachineError, Misuse
from harness.machine.guest import StubGuest
from harness.machine.machine import Engine, dotted

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


class Runs(Protocol):
    """An engine that a host can run: its emulator, and who executes there in which version."""

    @property
    def program(self) -> str: ...
    @property
    def called(self) -> str: ...


R = TypeVar("R", bound=Runs)


@dataclass(frozen=True)
class Host(Generic[R]):
    """The engines by name, as a host has them: those that can run, and why each other cannot."""

    present: Mapping[str, R]
    absent: Mapping[str, str]


def of_absent(host: Host[Any], count: int) -> Iterator[tuple[int, Answer]]:
    """What the engines that cannot run on a host say of each of so many questions."""
    for name, reason in host.absent.items():
        for number in range(count):
            yield number, Answer(name, name, None, f"it cannot run here: {reason}")


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

    def this_host(self, programs: Mapping[str, str]) -> Host[Any]:
        """What of the engines this host can run; `programs` are the emulators by their makers."""

    def ask_every(self, cases: Sequence[Any], host: Any) -> Iterator[tuple[int, Answer]]:
        """What each engine says of each case, with the case's number, as the answers come."""


def replays_of(arch: str) -> Replays | None:
    """How the questions of an architecture are asked again; None where they cannot be."""
    found: Any = module_of(arch, "check", "witnesses") if has(arch, "check", "witnesses") else None
    return found  # type: ignore[no-any-return]


KIND, MATRIX = "layout", "matrix"
"""What a case file says of itself: a question about a layout, or a case of the matrix."""


@dataclass(frozen=True)
class LayoutCase:
    """One question about a layout, and the answers that it got; fields as in `SpaceReport` and
    `Disagreement`.

    arch          the architecture
    layout, text  the name of the layout, and what its file says
    access        a dataclass, whose fields are the keys of the file
    """

    arch: str
    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: int
    access: Any
    expected: str
    observed: str

    @classmethod
    def of(cls, space: SpaceReport, found: Disagreement) -> LayoutCase:
        """A disagreement about a space."""
        return cls(
            space.layout.arch,
            space.layout.name,
            space.layout.text,
            space.levels,
            space.engine,
            space.qemu,
            found.oracle,
            found.address,
            found.access,
            found.expected,
            found.observed,
        )

    @property
    def question(self) -> str:
        """What was asked, for people."""
        return f"{self.oracle}: {f'{self.access} at ' if self.access else ''}{self.address:#x}"

    @property
    def mode(self) -> str:
        """The mode of translation."""
        return described(self.arch).modes[self.levels]

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.layout}, {self.mode}, {self.engine}, {self.question}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        access = None
        if self.access is not None:
            access = {**asdict(self.access), "kind": self.access.kind.name.lower()}
        content = {**vars(self), "address": f"{self.address:#x}", "access": access}
        title = f"{self.layout} {self.mode} {self.engine} {self.question}"
        return write(directory, title, {"case": KIND, **content})


class ReadAccess(Protocol):
    """An access in a file."""

    def read(self) -> Access:
        """The access; ValueError where there is none such."""


A = TypeVar("A", bound=ReadAccess)
K = TypeVar("K", bound=Enum)


def kind_named(kinds: Iterable[K], name: str) -> K:
    """The kind of access that a file calls so, in small letters; ValueError where there is none."""
    found = {kind.name.lower(): kind for kind in kinds}
    if name not in found:
        raise ValueError(f"access.kind is {name!r}; it is one of {', '.join(found)}")
    return found[name]


class SavedLayoutCase(
    msgspec.Struct, Generic[A], frozen=True, forbid_unknown_fields=True, tag_field="case", tag=KIND
):
    """A case in a file, as `LayoutCase.save` writes it."""

    arch: str
    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: Number
    access: A | None
    expected: str
    observed: str
    version: int = VERSION

    def read(self, oracles: Mapping[str, bool]) -> LayoutCase:
        """The case; ValueError where there is none such.

        oracles  whom the architecture has to ask, and whether about an access
        """
        if self.levels not in described(self.arch).modes:
            raise ValueError(f"levels is {self.levels}, and no mode has so many")
        if self.oracle not in oracles:
            raise ValueError(f"oracle is {self.oracle!r}: it is {either(oracles)}")
        if (self.access is not None) != oracles[self.oracle]:
            asked = either(name for name, about in oracles.items() if about)
            raise ValueError(f"an access goes with the oracle {asked}, and with no other")
        access = None if self.access is None else self.access.read()
        values = {field.name: getattr(self, field.name) for field in fields(LayoutCase)}
        return LayoutCase(**{**values, "access": access})


@dataclass(frozen=True, kw_only=True)
class MatrixCase:
    """One case of a matrix, and the answers that it got; an architecture adds what its accesses and
    its processors are.

    control  the control state, a dataclass
    values   of the case, axis by axis, for people
    words    the entries of its path, from level 0 up
    address  the pointer by which the access is made
    access   by name
    """

    ARCH: ClassVar[str]

    mode: str
    control: Any
    values: str
    words: tuple[int, ...]
    address: int
    access: str
    engine: str
    qemu: str
    expected: str
    observed: str

    @property
    def disagreement(self) -> Disagreement:
        """The same as people are shown it."""
        return Disagreement(PROBE, self.address, None, self.expected, self.observed)

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.mode}, {self.engine}, {self.values}, at {self.address:#x}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        content = {
            **vars(self),
            "control": asdict(self.control),
            "words": [f"{word:#x}" for word in self.words],
            "address": f"{self.address:#x}",
        }
        title = f"matrix {self.mode} {self.engine} {self.values} {self.address:#x}"
        return write(directory, title, {"arch": self.ARCH, "case": MATRIX, **content})

    def check(self) -> None:
        """Raises ValueError for what no processor can be asked."""
        raise NotImplementedError

    def came_to(
        self, agrees: bool, quirks: Sequence[str], expected: str, observed: str
    ) -> Comparison:
        """What comes of it now.

        agrees    whether it is what is expected of the engine, with the quirks that show
        """
        comparison = Comparison(PROBE, compared=1)
        if agrees:
            comparison.quirks.update(quirks)
        else:
            now = replace(self, expected=expected, observed=observed)
            comparison.disagree(1, [now.disagreement])
        return comparison


M = TypeVar("M", bound=MatrixCase)


class SavedMatrixCase(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="case",
    tag=MATRIX,
):
    """What every case of a matrix has in a file, as `MatrixCase.save` writes it."""

    arch: str
    mode: str
    control: dict[str, Any]
    values: str
    words: tuple[Number, ...]
    address: Number
    access: str
    engine: str
    qemu: str
    expected: str
    observed: str
    version: int = VERSION

    def read_as(self, kind: type[M], control: type) -> M:
        """The case; ValueError for what no processor can be asked.

        kind, control  what the architecture's cases and control states are
        """
        values = {one.name: getattr(self, one.name) for one in fields(kind)}
        case = kind(**{**values, "control": made(control, self.control, "control")})
        case.check()
        return case


def saved_as(
    path: Path,
    form: Any,
    oracles: Mapping[str, bool],
    checked: Callable[[LayoutCase], LayoutCase],
) -> Any:
    """The case in a file, of whichever kind; CaseError where it cannot be read or holds none.

    form     what the architecture's cases are in a file: those of layouts, or else of the matrix
    oracles  as in `SavedLayoutCase.read`
    checked  answers a case of a layout; ValueError for what no processor can be asked
    """
    text = content(path)
    try:
        check_version(text)
        found = decode(text, form)
        if isinstance(found, SavedLayoutCase):
            return checked(found.read(oracles))
        return found.read()
    except ValueError as error:
        raise CaseError(f"{path} holds no case: {error}") from None


C = TypeVar("C", bound=Case)


@dataclass(frozen=True)
class Present:
    """An emulator as a host has it; as `Runs`."""

    program: str
    called: str


@dataclass(frozen=True)
class OneEngine(Generic[C]):
    """How the questions of an architecture that one engine alone runs are asked again.

    arch    the architecture, for people
    engine  the engine
    guest   starts a guest by an emulator
    replay  what comes of a case on its engine now, by an emulator
    """

    arch: str
    engine: Engine
    guest: Callable[[str], StubGuest[Any, Any]]
    replay: Callable[[C, str], Comparison]

    def on(self, case: Any, engine: str) -> Any:
        """The same question, asked of another engine; raises Misuse where there is none of that
        name."""
        if engine != self.engine.name:
            raise Misuse(f"{engine} runs no {self.arch}: choose {self.engine.name}")
        return replace(case, engine=engine)

    def replayed(self, case: C, program: str) -> Comparison:
        """What comes of a case, of whichever kind, on its engine now; Misuse too where it cannot be
        compared."""
        comparison = self.replay(case, program)
        if not comparison.compared:
            reason = next(iter(comparison.not_comparable), "the layout has nothing there")
            raise Misuse(f"the case cannot be replayed: {reason}")
        return comparison

    def this_host(self, programs: Mapping[str, str]) -> Host[Present]:
        """What this host can run; `programs` are the emulators by their makers."""
        program, name = programs[self.engine.maker], self.engine.name
        try:
            with self.guest(program) as guest:
                return Host({name: Present(program, f"{name} {dotted(guest.version)}")}, {})
        except (MachineError, Misuse) as error:
            return Host({}, {name: str(error)})

    def ask_every(self, cases: Sequence[C], host: Host[Present]) -> Iterator[tuple[int, Answer]]:
        """What the engine says of each case, with the case's number, as the answers come."""
        for name, here in host.present.items():
            for number, case in enumerate(cases):
                try:
                    found = self.replayed(case, here.program)
                    yield number, answer_of(name, here.called, found)
                except (Misuse, MachineError) as error:
                    yield number, Answer(name, here.called, None, str(error))
        yield from of_absent(host, len(cases))


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
