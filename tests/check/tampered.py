"""Results of guests with one bit wrong: each bit that can be seen must be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

    asked    what was asked beside the results and what is wanted
    judge    judges other results of the same accesses
    """

    asked: Sequence[Any]
    results: Results
    wanted: Any
    agree: Mask
    judge: Callable[[Results], Mask]


def noted(patch: pytest.MonkeyPatch, module: ModuleType) -> list[Verdicts]:
    """The batches that a module has judged by its `agreeing` while that is patched."""
    found: list[Verdicts] = []
    original = vars(module)["agreeing"]

    def note(*asked: Any) -> Mask:
        *rest, results, wanted = asked
        agree: Mask = original(*asked)
        judge = partial(_judged, original, rest, wanted)
        found.append(Verdicts(rest, results.copy(), wanted, agree.copy(), judge))
        return agree

    patch.setattr(module, "agreeing", note)
    return found


def _judged(original: Any, rest: Sequence[Any], wanted: Any, results: Results) -> Mask:
    agree: Mask = original(*rest, results, wanted)
    return agree


def looked_at(one: Verdicts, seen: Seen) -> dict[str, int]:
    """In how many lanes each field was looked at, after it was held that a wrong bit in any of them
    shows."""
    for name, (lanes, bits) in seen.items():
        field, _, word = name.partition(" ")
        for bit in bits:
            wrong = one.results.copy()
            column = wrong[field][:, int(word)] if word else wrong[field]
            column ^= column.dtype.type(1 << bit)
            overlooked = one.judge(wrong) & one.agree & lanes
            assert not overlooked.any(), f"bit {bit} of {name} in {int(overlooked.sum())} lanes"
    return {name: int((one.agree & lanes).sum()) for name, (lanes, _) in seen.items()}


def entries(levels: int, lanes: Mask) -> Seen:
    """The entries of paths, in all lanes, by bits that no access may set."""
    return {f"after {level}": (np.ones_like(lanes), (0, 12, 63)) for level in range(levels)}
