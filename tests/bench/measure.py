"""How figures are taken: several samples, and beside each the time of something well known."""

from __future__ import annotations

import os
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


def cpu_seconds(pid: int, work: Callable[[], object]) -> float:
    """Seconds in which the threads of another process had a processor during one call."""
    before = _used(pid)
    work()
    return _used(pid) - before


def _used(pid: int) -> float:
    """Of the threads that it has now."""
    tasks = f"/proc/{pid}/task"
    used = 0
    for thread in os.listdir(tasks):
        with open(f"{tasks}/{thread}/schedstat") as file:
            used += int(file.read().split()[0])
    return used / 1e9


Stopwatch = Callable[[Callable[[], object]], float]
"""Calls something, and answers how long it took."""


def rate(
    name: str,
    count: int,
    work: Callable[[], object],
    beside: str,
    other: Callable[[], object],
    prepare: Callable[[], object] = lambda: None,
    stopwatches: tuple[Stopwatch, Stopwatch] = (seconds, seconds),
) -> Figure:
    """How many of `count` things `work` does a second, with `other` run in turn.

    prepare      is called before each of `work`, and not timed
    stopwatches  of `work` and of `other`
    """
    ours, others = stopwatches

    def prepared() -> float:
        prepare()
        return ours(work)

    prepared(), other()
    pairs = [(prepared(), others(other)) for _ in range(SAMPLES)]
    samples = tuple(count / took for took, _ in pairs)
    return Figure(name, "1/s", samples, beside, median(took / theirs for took, theirs in pairs))


def in_turn(
    name: str, work: Callable[[], float], beside: str, other: Callable[[], float]
) -> Figure:
    """Milliseconds of each of two that answer their seconds, in turn."""
    work(), other()
    pairs = [(work(), other()) for _ in range(3 * SAMPLES)]
    ratio = median(took / theirs for took, theirs in pairs)
    return Figure(name, "ms", tuple(1000 * took for took, _ in pairs), beside, ratio)
