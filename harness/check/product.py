"""Products: cases declared by axes instead of listed.

The cases of a product have numbers, and the digits of a number in mixed radix are the places
of its values on the axes: a million cases are one array of numbers, and cost what arrays cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.paging.bulk import Counts
from harness.paging.memory import Mask

Value = int | str
Values = Mapping[str, npt.NDArray[Any]]
"""What cases have on each axis, by the axis's name: arrays that broadcast to one shape."""


@lru_cache(maxsize=1 << 12, typed=True)
def alone(value: Value) -> npt.NDArray[Any]:
    """What all cases have in common, as an array that broadcasts to any shape."""
    array = np.array(value)
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class Axis:
    """One thing that varies, and the values it takes; `style` formats them for people."""

    name: str
    values: tuple[Value, ...]
    style: str = ""

    @cached_property
    def array(self) -> npt.NDArray[Any]:
        """The values, shape (len(values),)."""
        unsigned = all(isinstance(value, int) and value >= 0 for value in self.values)
        return np.array(self.values, np.uint64 if unsigned else None)

    def shown(self, place: int) -> str:
        """The value at a place, as `Product.case` prints it."""
        return format(self.values[place], self.style)


class Rule(NamedTuple):
    """Cases that are left out, and why: `leaves_out` is true of them."""

    reason: str
    leaves_out: Callable[[Values], Mask]


@dataclass(frozen=True)
class Product:
    """Every combination of the axes' values that no rule leaves out.

    The last axis varies fastest from one number to the next.
    """

    axes: tuple[Axis, ...]
    rules: tuple[Rule, ...] = ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(axis.values) for axis in self.axes)

    @cached_property
    def grid(self) -> Values:
        """The values of each axis, shaped so that together they broadcast to `shape`."""
        grid = np.ix_(*(axis.array for axis in self.axes))
        return {axis.name: values for axis, values in zip(self.axes, grid, strict=True)}

    def legal(self) -> Mask:
        """Whether each case is one, shape `shape`."""
        grid = self.grid
        legal = np.ones(self.shape, np.bool_)
        for rule in self.rules:
            legal &= ~rule.leaves_out(grid)
        return legal

    def places(self, numbers: Counts) -> dict[str, Counts]:
        """The digits of case numbers: the place of each on each axis."""
        places, rest = dict[str, Counts](), numbers
        for axis in reversed(self.axes):
            quotient = rest // len(axis.values)
            places[axis.name] = rest - quotient * len(axis.values)
            rest = quotient
        return places

    def case(self, number: int) -> str:
        """A case for people, value by value."""
        if not 0 <= number < prod(self.shape):
            raise ValueError(f"there is no case {number} among {prod(self.shape)}")
        places = self.places(np.array([number]))
        return " ".join(
            f"{axis.name}={axis.shown(int(places[axis.name][0]))}" for axis in self.axes
        )


def evenly(n: int, count: int) -> npt.NDArray[np.int64]:
    """The numbers of `count` of n things, from the first to the last; of all if there are fewer."""
    if count >= n:
        return np.arange(n)
    return np.linspace(0, n - 1, max(count, 0)).astype(np.int64)
