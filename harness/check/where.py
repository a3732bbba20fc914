"""Conditions by which cases are selected: `level=3 and access=fetch`, `write and not user`.

    condition   = term { "or" term }
    term        = factor { "and" factor }
    factor      = "not" factor | "(" condition ")" | comparison
    comparison  = AXIS ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) VALUE
                | AXIS "in" "(" VALUE { "," VALUE } ")"
                | AXIS

An axis alone, which must have no values but 0 and 1, holds where it is 1.  A comparison is false
of cases that have no such axis.  Numbers may be written in any base that Python reads.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import repr as short
from types import MappingProxyType
from typing import Final, NoReturn

import numpy as np

from harness.check.product import Value, Values
from harness.paging.memory import Mask

EXAMPLE: Final = "level=3 and access in (read, write)"
"""Of a condition on cases."""

Axes = Mapping[str, frozenset[Value]]
"""The axes that a condition may name, and the values on each."""


@dataclass(frozen=True)
class Condition:
    """A condition that was read, and what it says of cases with the values given."""

    text: str
    holds: Callable[[Values], Mask | np.bool_]


def read(
    text: str, axes: Axes, example: str = EXAMPLE, former: Mapping[str, str] = MappingProxyType({})
) -> Condition:
    """Reads a condition; ValueError, a sentence, where it is none or names what there is not.

    example  of a condition, which the sentence shows
    former   names that axes had before, with those of today, which it shows
    """
    reader = _Reader(text, axes, example, former)
    holds = reader.condition()
    if reader.token:
        reader.fail(f"{short(reader.token)} is one too many")
    return Condition(text, holds)


DEEPEST: Final = 50
"""How deep parentheses and `not` nest: reading and asking recurse."""

LONGEST: Final = 200
"""Characters of a condition that an error shows."""

SHOWN: Final = 16
"""Values of an axis that an error names."""

_Holds = Callable[[Values], Mask | np.bool_]

_ORDER: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATIONS = {"in", "=", "!=", *_ORDER}
_TOKEN = re.compile(r"\s*([\w.+-]+|[<>!]=|[=<>(),]|\S)")
_WORD = re.compile(r"[\w.+-]+")
_KEYWORDS = {"and", "or", "not", "in"}


class _Reader:
    """Recursive descent over the tokens of one condition; `token` is the next, "" at the end."""

    def __init__(self, text: str, axes: Axes, example: str, former: Mapping[str, str]) -> None:
        self.text, self.axes, self.example, self.former = text, axes, example, former
        self._tokens = ["", *reversed(_TOKEN.findall(text))]
        self._depth = 0

    @property
    def token(self) -> str:
        return str(self._tokens[-1])

    def fail(self, problem: str) -> NoReturn:
        text = self.text if len(self.text) <= LONGEST else f"{self.text[:LONGEST]}..."
        raise ValueError(f"{text!r} is not a condition: {problem}; write it like {self.example!r}")

    def condition(self) -> _Holds:
        return self._joined("or", self._term, np.logical_or)

    def _term(self) -> _Holds:
        return self._joined("and", self._factor, np.logical_and)

    def _joined(self, word: str, part: Callable[[], _Holds], join: np.ufunc) -> _Holds:
        parts = [part()]
        while self.token == word:
            self._take()
            parts.append(part())
        if len(parts) == 1:
            return parts[0]

        def holds(values: Values) -> Mask | np.bool_:
            result = parts[0](values)
            for other in parts[1:]:
                if join is np.logical_and and not result.any():
                    break
                result = join(result, other(values))
            return result

        return holds

    def _factor(self) -> _Holds:
        if self.token not in ("not", "("):
            return self._comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            self.fail(f"it nests deeper than {DEEPEST}")
        if self._take() == "not":
            holds = _negated(self._factor())
        else:
            holds = self.condition()
            self._expect(")")
        self._depth -= 1
        return holds

    def _comparison(self) -> _Holds:
        axis = self._word("the name of an axis")
        if axis not in self.axes:
            if (now := self.former.get(axis)) in self.axes:
                self.fail(f"{short(axis)} is now called {now}")
            self.fail(f"there is no axis {short(axis)}, {_instead(axis, self.axes)}")
        operation = self.token
        if operation in _OPERATIONS:
            self._take()
        if operation == "in":
            chosen = self._listed(axis)
        elif operation in ("=", "!="):
            chosen = {self._value(axis)}
            if operation == "!=":
                chosen = set(self.axes[axis]) - chosen
        elif operation in _ORDER:
            chosen = self._ordered(axis, _ORDER[operation])
        elif self.axes[axis] <= {0, 1}:
            chosen = {1}
        else:
            self.fail(f"{short(operation or 'the end')} after {short(axis)} compares nothing")

        def holds(values: Values) -> Mask | np.bool_:
            if axis not in values or not chosen:
                return np.bool_(False)
            found: Mask = np.logical_or.reduce([values[axis] == value for value in chosen])
            return found

        return holds

    def _listed(self, axis: str) -> set[Value]:
        self._expect("(")
        chosen = {self._value(axis)}
        while self.token == ",":
            self._take()
            chosen.add(self._value(axis))
        self._expect(")")
        return chosen

    def _value(self, axis: str) -> Value:
        word = self._word("a value")
        known = self.axes[axis]
        value = word if word in known else _number(word)
        if value not in known:
            self.fail(f"{axis} is never {short(word)}, but {_shown(known)}")
        return value

    def _ordered(self, axis: str, compare: Callable[[int, int], bool]) -> set[Value]:
        word = self._word("a number")
        limit = _number(word)
        if limit is None:
            self.fail(f"{short(word)} is no number")
        if not any(isinstance(value, int) for value in self.axes[axis]):
            self.fail(f"{axis} has no order, but the values {_shown(self.axes[axis])}")
        return {v for v in self.axes[axis] if isinstance(v, int) and compare(v, limit)}

    def _word(self, wanted: str) -> str:
        if not _WORD.fullmatch(self.token) or self.token in _KEYWORDS:
            self.fail(f"{short(self.token or 'the end')} stands where {wanted} should")
        return self._take()

    def _expect(self, token: str) -> None:
        if self.token != token:
            self.fail(f"{short(self.token or 'the end')} stands where {token!r} should")
        self._take()

    def _take(self) -> str:
        token: str = self.token
        if token:
            self._tokens.pop()
        return token


def _negated(inner: _Holds) -> _Holds:
    return lambda values: np.logical_not(inner(values))


def _shown(values: frozenset[Value]) -> str:
    """The values of an axis, as many as a sentence can hold."""
    first = sorted(values, key=lambda value: (isinstance(value, str), value))[:SHOWN]
    return ", ".join(map(str, first)) + (", ..." if len(values) > SHOWN else "")


def _number(word: str) -> int | None:
    try:
        return int(word, 0)
    except ValueError:
        return None


def _instead(axis: str, known: Collection[str]) -> str:
    """Which axes may have been meant by one that there is not; a few where none is alike."""
    if alike := get_close_matches(axis, known):
        return f"did you mean {' or '.join(alike)}?"
    some = [name for name in USUAL if name in known] or sorted(known)[: len(USUAL)]
    return f"but {', '.join(some)} and {len(known) - len(some)} more"


USUAL = ("family", "mode", "level", "access", "by", "kind", "size", "user", "w", "x")
"""Axes that conditions are about more often than about others."""


class AxesOf(Mapping[str, frozenset[Value]]):
    """The axes of several products and their values, for `read`; a condition asks for few."""

    def __init__(self, cases: Iterable[Mapping[str, Collection[Value]]]) -> None:
        self._cases = tuple(cases)
        self._found = dict[str, frozenset[Value]]()

    def __getitem__(self, name: str) -> frozenset[Value]:
        if name not in self._found:
            found = [values[name] for values in self._cases if name in values]
            if not found:
                raise KeyError(name)
            self._found[name] = frozenset().union(*found)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for values in self._cases for name in values))

    def __len__(self) -> int:
        return sum(1 for _ in self)
