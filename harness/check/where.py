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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


def read(text: str, axes: Axes, example: str = EXAMPLE) -> Condition:
    """Reads a condition; ValueError, a sentence, where it is none or names what there is not.

    example  of a condition, which the sentence shows
    """
    reader = _Reader(text, axes, example)
    holds = reader.condition()
    if reader.token:
        reader.fail(f"{reader.token!r} is one too many")
    return Condition(text, holds)


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

    def __init__(self, text: str, axes: Axes, example: str) -> None:
        self.text, self.axes, self.example = text, axes, example
        self._tokens = [*_TOKEN.findall(text), ""]

    @property
    def token(self) -> str:
        return str(self._tokens[0])

    def fail(self, problem: str) -> NoReturn:
        raise ValueError(
            f"{self.text!r} is no condition: {problem}; write it like {self.example!r}"
        )

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
        if self.token == "not":
            self._take()
            inner = self._factor()
            return lambda values: np.logical_not(inner(values))
        if self.token == "(":
            self._take()
            inner = self.condition()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> _Holds:
        axis = self._word("the name of an axis")
        if axis not in self.axes:
            self.fail(f"there is no axis {axis!r}, but {', '.join(sorted(self.axes))}")
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
            self.fail(f"{operation or 'the end'!r} after {axis!r} compares nothing")

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
            self.fail(f"{axis} is never {word!r}, but {_shown(known)}")
        return value

    def _ordered(self, axis: str, compare: Callable[[int, int], bool]) -> set[Value]:
        word = self._word("a number")
        limit = _number(word)
        if limit is None:
            self.fail(f"{word!r} is no number")
        if not any(isinstance(value, int) for value in self.axes[axis]):
            self.fail(f"{axis} has no order, but the values {_shown(self.axes[axis])}")
        return {v for v in self.axes[axis] if isinstance(v, int) and compare(v, limit)}

    def _word(self, wanted: str) -> str:
        if not _WORD.fullmatch(self.token) or self.token in _KEYWORDS:
            self.fail(f"{self.token or 'the end'!r} stands where {wanted} should")
        return self._take()

    def _expect(self, token: str) -> None:
        if self.token != token:
            self.fail(f"{self.token or 'the end'!r} stands where {token!r} should")
        self._take()

    def _take(self) -> str:
        token: str = self.token
        if token:
            del self._tokens[0]
        return token


def _shown(values: frozenset[Value]) -> str:
    """The values of an axis, as many as a sentence can hold."""
    first = sorted(values, key=lambda value: (isinstance(value, str), value))[:SHOWN]
    return ", ".join(map(str, first)) + (", ..." if len(values) > SHOWN else "")


def _number(word: str) -> int | None:
    try:
        return int(word, 0)
    except ValueError:
        return None


def axes_of(cases: Iterable[Values]) -> Axes:
    """The axes of several products and their values, for `read`."""
    axes: dict[str, set[Value]] = {}
    for values in cases:
        for name, there in values.items():
            axes.setdefault(name, set()).update(there.ravel().tolist())
    return {name: frozenset(known) for name, known in axes.items()}
