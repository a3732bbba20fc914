"""What the tests of every architecture's matrix ask of reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from harness.check.matrix import Report

W = TypeVar("W")

SLICES = 8


def total(reports: Iterable[Report]) -> Report:
    """What came of all of them."""
    whole = Report()
    for one in reports:
        whole.add(one)
    return whole


def until_found_out(tried: Callable[[Sequence[W]], Iterable[Report]], work: Sequence[W]) -> Report:
    """What came of a matrix that is expected to disagree, up to the slice in which it does: of
    every eighth batch, and of all where nothing disagrees."""
    whole = Report()
    for first in range(SLICES):
        whole.add(total(tried(work[first::SLICES])))
        if whole.comparison.disagreed:
            break
    return whole
