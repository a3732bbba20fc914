"""A matrix: accesses, enumerated, each executed by a guest and compared in full.

Which cases there are, and how one is executed and judged, is the architecture's; what is planned,
and what came of it, is the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from harness.architectures import NAMES, USUAL, has, module_of
from harness.check import where
from harness.check.compare import EXAMPLES, Comparison, Disagreement
from harness.check.product import Product, Value, Values, alone
from harness.check.where import Condition
from harness.machine.errors import Misuse
from harness.paging.bulk import Counts

W = TypeVar("W", bound=Sized)

ByRule = Counter[tuple[str, Enum | None]]
"""Accesses by mode and by the reason of the outcome, None where they are allowed."""


class State(Protocol):
    """A control state under which cases are tried."""

    def values(self) -> Mapping[str, Value]:
        """What it has on its axes."""


class Declared(ABC):
    """Cases that vary the same things, under several control states.

    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    fixed     what all cases have in common, by axis
    """

    product: Product
    controls: Sequence[Any]

    @property
    @abstractmethod
    def fixed(self) -> Mapping[str, Value]: ...

    def grid(self, control: State) -> Values:
        """The values of every axis under a control state, to select by."""
        return _Grid(self, control)

    @property
    def axes(self) -> Mapping[str, Collection[Value]]:
        """The values on every axis under all control states."""
        return _Axes(self)


class _Axes(Mapping[str, Collection[Value]]):
    """The values on every axis under all control states, worked out as they are asked for."""

    def __init__(self, family: Declared) -> None:
        self._family = family
        self._product = {axis.name: axis.values for axis in family.product.axes}

    def __getitem__(self, name: str) -> Collection[Value]:
        if name in self._family.fixed:
            return (self._family.fixed[name],)
        if name in self._product:
            return self._product[name]
        return {control.values()[name] for control in self._family.controls}

    def __iter__(self) -> Iterator[str]:
        return iter({**self._family.fixed, **self._product, **self._family.controls[0].values()})

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Grid(Mapping[str, npt.NDArray[Any]]):
    """What cases have on every axis under a control state, worked out as it is asked for: of most
    families a condition asks for their name and no more."""

    def __init__(self, family: Declared, control: State) -> None:
        self._family, self._control = family, control

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name in self._family.fixed:
            return alone(self._family.fixed[name])
        if name in self._family.product.grid:
            return self._family.product.grid[name]
        return alone(self._control.values()[name])

    def __iter__(self) -> Iterator[str]:
        names = [axis.name for axis in self._family.product.axes]
        return iter({**self._family.fixed, **self._control.values(), **dict.fromkeys(names)})

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Plain(Declared):
    """Cases of one access each, tried under one control state after the other."""

    @abstractmethod
    def lacks(self, control: Any) -> str | None:
        """Why the processor of these cases cannot be in a control state, as a reason; None if it
        can."""

    def case(self, control: State, number: int) -> str:
        """A case for people, value by value."""
        common = {**self.fixed, **control.values()}
        shown = " ".join(f"{name}={value}" for name, value in common.items())
        return f"{shown} {self.product.case(number)}"


F = TypeVar("F", bound=Plain)
C = TypeVar("C")


@dataclass(frozen=True)
class Work(Generic[F, C]):
    """Cases of one family that are tried under one control state, a batch of them."""

    family: F
    control: C
    numbers: Counts

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Plan(Generic[W]):
    """What is to be tried on an engine.

    work      in parts, each as long as it has accesses
    skipped   why not more, by the reason, with the number of accesses or 0 where that is unknown
    left_out  the accesses that a rule leaves out of a product, by the rule's reason
    """

    engine: str
    work: tuple[W, ...]
    skipped: Counter[str]
    left_out: Counter[str]
    arch: str = field(default=USUAL, kw_only=True)

    def __len__(self) -> int:
        return sum(map(len, self.work))


def selected(
    plan: Plan[Work[F, C]],
    families: Sequence[F],
    expression: str | None,
    example: str,
    batch: int,
) -> Plan[Work[F, C]]:
    """The plan with those cases of families that are legal and satisfy an expression, in batches of
    at most so many; what is not tried is counted.

    example  of an expression, for people

    Raises Misuse for an expression that is none or selects nothing.
    """
    try:
        axes = where.AxesOf(family.axes for family in families)
        condition = None if expression is None else where.read(expression, axes, example)
    except ValueError as error:
        raise Misuse(str(error)) from None
    work = tuple(part for family in families for part in _legal(family, condition, plan, batch))
    if not work:
        reasons = "; ".join([*plan.skipped, *+plan.left_out])
        raise Misuse(f"no case satisfies {expression!r}" + (f" here: {reasons}" if reasons else ""))
    return replace(plan, work=work, left_out=+plan.left_out)


def _legal(
    family: F, condition: Condition | None, into: Plan[Work[F, C]], batch: int
) -> Iterator[Work[F, C]]:
    ruled_out = [(rule, rule.leaves_out(family.product.grid)) for rule in family.product.rules]
    for control in family.controls:
        holds = np.bool_(True) if condition is None else condition.holds(family.grid(control))
        mask = np.ones(family.product.shape, np.bool_) & holds
        if (lacking := family.lacks(control)) is not None:
            into.skipped[lacking] += int(mask.sum())
            continue
        for rule, out in ruled_out:
            into.left_out[rule.reason] += int((mask & out).sum())
            mask &= ~out
        numbers = np.flatnonzero(mask)
        parts = -(-len(numbers) // batch)
        for part in np.array_split(numbers, parts) if parts else ():
            yield Work(family, control, part)


class Failure(Protocol):
    """An access that disagrees.

    mode    in which it was made
    values  of the case, axis by axis
    words   the entries of its path, from level 0 up
    """

    @property
    def mode(self) -> str: ...

    @property
    def values(self) -> str: ...

    @property
    def words(self) -> tuple[int, ...]: ...

    @property
    def disagreement(self) -> Disagreement:
        """The same as people are shown it."""

    def save(self, directory: Path) -> Path:
        """Writes it to a file from which it can be replayed; OSError where that fails."""


@dataclass
class Report:
    """What came of trying cases.

    engine      its name
    qemu        the version of the emulator
    comparison  the verdicts, but no disagreement in full
    failures    the first disagreements in full
    masked      what was left out of comparisons by name, with the number of accesses
    by_rule     all accesses
    departed    those of them that came to something else, as a known quirk has it
    disagreed   those that came to something else without one
    not_run_on  who executed them in a version that was not yet run, a sentence each
    executor    who executed them, as `tcg 7.2.22`; for KVM the kernel's module and its version
    """

    engine: str = ""
    qemu: str = ""
    comparison: Comparison = field(default_factory=lambda: Comparison("matrix"))
    failures: list[Failure] = field(default_factory=list)
    masked: Counter[str] = field(default_factory=Counter)
    by_rule: ByRule = field(default_factory=Counter)
    departed: ByRule = field(default_factory=Counter)
    disagreed: ByRule = field(default_factory=Counter)
    not_run_on: tuple[str, ...] = ()
    executor: str = ""

    def add(self, part: Report) -> None:
        """Takes the report of other cases in."""
        self.qemu = part.qemu or self.qemu
        self.executor = part.executor or self.executor
        self.not_run_on = part.not_run_on or self.not_run_on
        self.comparison.compared += part.comparison.compared
        self.comparison.disagreed += part.comparison.disagreed
        self.comparison.quirks += part.comparison.quirks
        self.comparison.news += part.comparison.news
        self.failures += part.failures[: EXAMPLES - len(self.failures)]
        self.masked += part.masked
        self.by_rule += part.by_rule
        self.departed += part.departed
        self.disagreed += part.disagreed


def one_ahead(started: Iterable[Callable[[], Report]]) -> Iterator[Report]:
    """The reports of batches, each after the next one is started."""
    waiting = None
    for finish in started:
        if waiting is not None:
            yield waiting()
        waiting = finish
    if waiting is not None:
        yield waiting()


class Matrix(Protocol):
    """What there is of an architecture: its module `matrix.run`."""

    PRESETS: tuple[str, ...]
    MODES: tuple[str, ...]
    USUAL_MODE: str
    """The one of which the rules are asked where none is named."""
    UNSEEN: Mapping[str, str]
    """What none of the accesses shows, whichever engine makes them, and why."""

    def planned(
        self, preset: str, modes: Iterable[str], engine: str, program: str, expression: str | None
    ) -> Plan[Any]:
        """What a preset tries in some modes, as far as an expression selects it and the engine, by
        this emulator, can.

        Raises Misuse for an expression that is none or selects nothing, and where the engine can do
        nothing of it.
        """

    def run(
        self, plan: Plan[Any], *, jobs: int = 1, program: str | None = None
    ) -> Generator[Report, None, None]:
        """Tries all cases, on `jobs` guests side by side: a report of each batch as it is judged.

        Raises Misuse and MachineError for guests that cannot be had or are lost.  Guests that still
        run when the iterator is closed are ended.
        """


def with_matrix() -> tuple[str, ...]:
    """The architectures that have a matrix."""
    return tuple(arch for arch in NAMES if has(arch, "check", "matrix.run"))


def matrix_of(arch: str) -> Matrix:
    """The matrix of an architecture; raises Misuse where it has none."""
    if arch not in with_matrix():
        raise Misuse(f"{arch} has no matrix: `pagetable validate --arch {arch}` asks about layouts")
    found: Any = module_of(arch, "check", "matrix.run")
    return found  # type: ignore[no-any-return]


def reasons_of(arch: str) -> type[Enum]:
    """The rules of an architecture by which accesses fault: `Reason` of the library's `access`."""
    found: type[Enum] = module_of(arch, "paging", "access").Reason
    return found
