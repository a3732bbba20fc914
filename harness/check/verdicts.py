"""The verdict on what a guest saw: it follows the rules, or departs from them as is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.check.cases import Cases
from harness.check.compare import Comparison
from harness.check.quirks import AccessedQuirk, DenialQuirk, ErrorQuirk, FaultQuirk, Quirk
from harness.paging.memory import Mask
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import ALLOWED, Outcomes
from harness.paging.x86.cpu import Cpu

EntriesAgree = Callable[[Mask, Mask | None], Mask]
"""Whether the entries of each path are as they must be, given which accesses are made, and in
which lanes the entry that ends the walk is accessed all the same."""


@dataclass(frozen=True)
class Seen:
    """What a guest saw, and where it is what the rules ask for; one lane an access.

    results  as the guest wrote them
    error    in the error code
    entries  in the entries of the path
    rest     in all else
    """

    results: npt.NDArray[np.void]
    error: Mask
    entries: Mask
    rest: Mask


def agreeing(
    comparison: Comparison,
    cpu: Cpu,
    cases: Cases,
    rules: Outcomes,
    seen: Seen,
    entries_agree: EntriesAgree,
    quirks: tuple[FaultQuirk, ...],
) -> Mask:
    """The lanes in which the rules were followed, or departed from as a quirk says.

    Counts the quirks that show, and as news those that should and do not.
    """
    allowed, results = rules.vector == ALLOWED, seen.results
    error, entries = seen.error.copy(), seen.entries.copy()
    for quirk in quirks:
        if isinstance(quirk, ErrorQuirk):
            lanes, codes = quirk.departing(rules)
            departs = results["error"] == codes
            error |= _shown(comparison, quirk, seen.rest & lanes, error, departs)
        elif isinstance(quirk, AccessedQuirk):
            lanes = quirk.departing(cpu, rules)
            if lanes.any():
                departs = entries_agree(allowed, lanes)
                entries |= _shown(comparison, quirk, seen.rest & lanes, entries, departs)
    agree = seen.rest & error & entries
    for quirk in quirks:
        if isinstance(quirk, DenialQuirk):
            lanes, codes = quirk.departing(cases)
            departs = (results["completed"] == 0) & (results["vector"] == Vector.PF)
            departs &= (results["cr2"] == cases.address) & (results["error"] == codes).any(axis=0)
            departs &= entries_agree(np.zeros_like(allowed), None)
            agree |= _shown(comparison, quirk, lanes, agree, departs)
    return agree


def _shown(comparison: Comparison, quirk: Quirk, lanes: Mask, by_rule: Mask, departs: Mask) -> Mask:
    """The lanes that depart as a quirk says; those that should and follow the rule are news."""
    shown = lanes & departs & ~by_rule
    absent = lanes & by_rule & ~departs
    if shown.any():
        comparison.quirks[quirk.name] += int(shown.sum())
    if absent.any():
        comparison.news[f"{quirk.name} did not show"] += int(absent.sum())
    return shown
