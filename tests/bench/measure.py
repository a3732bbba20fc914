"""How figures are taken: several samples, and beside each the time of something well known."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

SAMPLES = 5


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    samples  in `unit`
    beside   what was run in turn with it, for a ratio that holds on another machine
    ratio    median of the figure's time to the other's, sample by sample
    """

    name: str
    unit: str
    samples: tuple[float, ...]
    beside: str
    ratio: float

    @property
    def value(self) -> float:
        """The median sample."""
        return median(self.samples)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(
    name: str,
    count: int,
    work: Callable[[], object],
    beside: str,
    other: Callable[[], object],
    prepare: Callable[[], object] = lambda: None,
) -> Figure:
    """How many of `count` things `work` does a second, with `other` run in turn.

    prepare  is called before each of `work`, and not timed
    """

    def prepared() -> float:
        prepare()
        return seconds(work)

    prepared(), other()
    pairs = [(prepared(), seconds(other)) for _ in range(SAMPLES)]
    samples = tuple(count / ours for ours, _ in pairs)
    return Figure(name, "1/s", samples, beside, median(ours / theirs for ours, theirs in pairs))
