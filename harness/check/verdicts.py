"""The verdict on what a guest saw: it follows the rules, or departs from them as is known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.check import marks
from harness.check.cases import Cases
from harness.check.compare import Comparison
from harness.check.quirks import (
    FAULT_QUIRKS,
    AccessedQuirk,
    CodeEndQuirk,
    DenialQuirk,
    ErrorQuirk,
    FaultQuirk,
    Quirk,
)
from harness.machine.engines import executor
from harness.machine.guest import Guest
from harness.machine.qemu import dotted
from harness.paging.memory import Mask
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import ALLOWED, REASONS, Outcomes
from harness.paging.x86.cpu import Cpu

EntriesAgree = Callable[[Mask, Mask | None], Mask]
"""Whether the entries of each path are as they must be, given which accesses are made, and in
which lanes the entry that ends the walk is accessed all the same."""


@dataclass(frozen=True)
class Seen:
    """What a guest saw, and where it is what the rules ask for; one lane an access.

    results    as the guest wrote them
    untouched  what CR2 holds if no exception wrote it
    reached    in what was read, written or executed
    ran        whether the code that was fetched ran to its last instruction
    entries    in the entries of the path
    """

    results: npt.NDArray[np.void]
    untouched: np.uint64
    reached: Mask
    ran: Mask
    entries: EntriesAgree


def judged(
    comparison: Comparison,
    cpu: Cpu,
    cases: Cases,
    rules: Outcomes,
    seen: Seen,
    quirks: tuple[FaultQuirk, ...],
) -> tuple[Mask, Mask]:
    """The lanes in which the rules were followed, or departed from as a quirk says; and those in
    which they were followed in everything.

    Counts the quirks that show, and as news those that should and do not.
    """
    allowed, results, entries_agree = rules.vector == ALLOWED, seen.results, seen.entries
    rest: Mask = seen.reached & ((results["completed"] != 0) == allowed)
    rest &= allowed | (results["vector"] == rules.vector)
    rest &= results["cr2"] == np.where(rules.sets_cr2, cases.address, seen.untouched)
    error, entries = results["error"] == rules.error, entries_agree(allowed, None)
    by_rule: Mask = rest & error & entries
    for quirk in quirks:
        if isinstance(quirk, ErrorQuirk):
            lanes, codes = quirk.departing(rules)
            departs = results["error"] == codes
            error |= _shown(comparison, quirk, rest & lanes, error, departs)
        elif isinstance(quirk, AccessedQuirk):
            lanes = quirk.departing(cpu, rules)
            if lanes.any():
                departs = entries_agree(allowed, lanes)
                entries |= _shown(comparison, quirk, rest & lanes, entries, departs)
    agree: Mask = rest & error & entries
    page_fault = results["vector"] == Vector.PF
    for quirk in quirks:
        if isinstance(quirk, DenialQuirk):
            lanes, codes = quirk.departing(cases)
            departs = page_fault & (results["completed"] == 0)
            departs &= (results["cr2"] == cases.address) & (results["error"] == codes).any(axis=0)
            departs &= entries_agree(np.zeros_like(allowed), None)
            agree |= _shown(comparison, quirk, lanes, agree, departs)
        elif isinstance(quirk, CodeEndQuirk):
            lanes, codes = quirk.departing(cpu, cases, rules)
            departs = page_fault & (results["error"] == codes) & seen.ran & entries
            departs &= results["cr2"] == results["rip"]
            agree |= _shown(comparison, quirk, lanes, agree, departs)
    return agree, by_rule


def _shown(comparison: Comparison, quirk: Quirk, lanes: Mask, by_rule: Mask, departs: Mask) -> Mask:
    """The lanes that depart as a quirk says; those that should and follow the rule are news."""
    shown = lanes & departs & ~by_rule
    absent = lanes & by_rule & ~departs
    if shown.any():
        comparison.quirks[quirk.name] += int(shown.sum())
    if absent.any():
        comparison.news[f"{quirk.name} did not show"] += int(absent.sum())
    return shown


def report_strangers(
    comparison: Comparison,
    guest: Guest,
    expected: Collection[FaultQuirk],
    wrong: Mask,
    agreeing: Callable[[FaultQuirk], Mask],
) -> None:
    """News of quirks that explain what is wrong, but are not expected of this engine and version.

    agreeing  the lanes that agree with a quirk
    """
    name, version = executor(guest)
    for quirk in FAULT_QUIRKS:
        if quirk not in expected:
            shown = int((agreeing(quirk) & wrong).sum())
            if shown:
                news = f"{quirk.name} shows on {name} {dotted(version)}, which it does not name"
                comparison.news[news] += shown


def expected_text(rules: Outcomes, lane: int) -> str:
    """What the rules say of one access, for people."""
    reason = REASONS[int(rules.reason[lane])]
    if reason is None:
        return f"reaches {int(rules.walks.physical[lane]):#x}"
    fault = fault_text(int(rules.vector[lane]), int(rules.error[lane]))
    return f"{fault} at level {int(rules.walks.level[lane])}: {reason.value}"


def observed_text(result: np.void, found: int, marked: bool, before: Iterable[int]) -> str:
    """What a guest saw of one access, for people.

    found   the word that was read, written or executed, should it have been
    marked  whether that word should be a mark
    before  the words that are watched, from the first on: those of the path
    """
    if result["completed"]:
        saw = f"done, and the word is {found:#x}"
        if marked:
            saw += f", the mark of {marks.marked(found):#x}"
    else:
        fault = fault_text(int(result["vector"]), int(result["error"]))
        saw = f"{fault}, CR2 {int(result['cr2']):#x}"
    entries = ", ".join(
        f"{old:#x} -> {int(new):#x}" for old, new in zip(before, result["after"], strict=False)
    )
    return f"{saw}; entries from the root down: {entries}"


def fault_text(vector: int, error: int) -> str:
    """An exception with its error code, as the manuals write it."""
    names = {12: "#SS", 13: "#GP", 14: "#PF"}
    return f"{names.get(vector, f'vector {vector}')}({error:#x})"
