"""Results of guests with one bit wrong: each bit that can be seen must be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from harness.paging.memory import Mask

Results = npt.NDArray[np.void]

Seen = Mapping[str, tuple[Mask, Iterable[int]]]
"""What of results must be looked at: the lanes in which it says something, and some of its bits, by
the name of the field; of one with several words, with the number of a word after a space."""


class Verdicts(NamedTuple):
    """One batch as it was judged.

    asked  what was asked, the results among it
    agree  what came of it
    judge  judges other results of the same accesses
    """

    asked: tuple[Any, ...]
    results: Results
    agree: Mask
    judge: Callable[[Results], Mask]


def noted(patch: pytest.MonkeyPatch, owner: ModuleType | type, name: str) -> list[Verdicts]:
    """The batches that a function of a module, or of a class, judges while that is patched."""
    found: list[Verdicts] = []
    original = vars(owner)[name]

    def note(*asked: Any) -> Mask:
        [place] = (n for n, one in enumerate(asked) if "completed" in _names(one))
        results, agree = asked[place].copy(), original(*asked)
        judge = partial(_judged, original, asked, place)
        found.append(Verdicts(asked, results, agree.copy(), judge))
        made: Mask = agree
        return made

    patch.setattr(owner, name, note)
    return found


def _names(one: Any) -> tuple[str, ...]:
    """The fields of an array."""
    return getattr(getattr(one, "dtype", None), "names", None) or ()


def _judged(original: Any, asked: tuple[Any, ...], place: int, results: Results) -> Mask:
    agree: Mask = original(*asked[:place], results, *asked[place + 1 :])
    return agree


def flipped(results: Results, name: str, bit: int) -> Results:
    """Results with one bit wrong in every lane; the name is as in `Seen`."""
    wrong, (field, _, word) = results.copy(), name.partition(" ")
    column = wrong[field][:, int(word)] if word else wrong[field]
    column ^= column.dtype.type(1 << bit)
    return wrong


def looked_at(one: Verdicts, seen: Seen) -> dict[str, int]:
    """In how many lanes each field was looked at, after it was held that a wrong bit in any of them
    shows."""
    for name, (lanes, bits) in seen.items():
        for bit in bits:
            overlooked = one.judge(flipped(one.results, name, bit)) & one.agree & lanes
            assert not overlooked.any(), f"bit {bit} of {name} in {int(overlooked.sum())} lanes"
    return {name: int((one.agree & lanes).sum()) for name, (lanes, _) in seen.items()}


def passed_over(one: Verdicts, bits: Mapping[str, Iterable[int]]) -> None:
    """Holds that bits of which the rules say nothing, by the name of the field, change nothing."""
    for name, numbers in bits.items():
        for bit in numbers:
            other = one.results.copy()
            other[name] ^= other[name].dtype.type(1 << bit)
            assert (one.judge(other) == one.agree).all(), f"bit {bit} of {name}"


def entries(levels: int, lanes: Mask) -> Seen:
    """The entries of paths, in all lanes, by bits that no access may set."""
    return {f"after {level}": (np.ones_like(lanes), (0, 12, 63)) for level in range(levels)}


def root_entry(expected: Any) -> Seen:
    """The first entry of paths that have any, in all lanes, by bits that no access may set."""
    return {"after 0": (expected.reached.paths.used.any(axis=0), (0, 12, 63))}
