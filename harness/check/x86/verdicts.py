"""The verdict on what a guest saw: it follows the rules, or departs from them as is known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.check import marks
from harness.check.compare import Comparison
from harness.check.quirk import Quirk
from harness.check.x86.entries import PathEntries
from harness.check.x86.quirks import (
    FAULT_QUIRKS,
    AccessedQuirk,
    BasisQuirk,
    CodeEndQuirk,
    Cr2Quirk,
    DenialQuirk,
    ErrorQuirk,
    FaultQuirk,
)
from harness.check.x86.second_reading import Reading
from harness.machine.machine import dotted
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest
from harness.paging.bulk import End
from harness.paging.memory import Mask, Words
from harness.paging.x86.access import Vector
from harness.paging.x86.bulk import ALLOWED, REASONS, Outcomes

EntriesAgree = Callable[[Mask, Mask | None], Mask]
"""Whether the entries of each path are as they must be, given which accesses are made, and in
which lanes the entry that ends the walk is accessed all the same."""


UNHELD = (
    "but the entries say otherwise by a second reading, and the machine, which has a quirk there,"
    " cannot decide between the two"
)
"""Of rules that are doubted, for people."""


@dataclass(frozen=True)
class Seen:
    """What a guest saw, and where it is what the rules ask for; one lane an access.

    results    as the guest wrote them
    untouched  what CR2 holds if no exception wrote it
    path       what the accesses leave in the entries of their paths
    reached    in what was read, written or executed
    ran        whether the code that was fetched ran to its last instruction
    entries    in the entries of the path
    """

    results: npt.NDArray[np.void]
    untouched: np.uint64
    path: PathEntries
    reached: Mask
    ran: Mask
    entries: EntriesAgree


@dataclass(frozen=True)
class Judged:
    """Verdicts, one lane an access.

    agree    whether the rules were followed, or departed from as a quirk says
    by_rule  whether they were followed in everything
    held     whether the rules are what the second reading says, where a quirk applies
    """

    agree: Mask
    by_rule: Mask
    held: Mask


def judged(
    comparison: Comparison,
    reading: Reading,
    rules: Outcomes,
    seen: Seen,
    quirks: tuple[FaultQuirk, ...],
    apart: Mask | None = None,
) -> Judged:
    """What the guest saw beside the rules.

    reading  the second one of what was asked; it says where quirks apply, and in these lanes the
             rules must be what it says
    apart    lanes that are judged elsewhere: what this says of them means nothing

    Counts the quirks that show, and as news those that should and do not.
    """
    asked, results = reading.asked, seen.results
    named = [(quirk, _named(quirk, reading, apart)) for quirk in quirks]
    named = [(quirk, lanes) for quirk, lanes in named if lanes.any()]
    allowed = rules.vector == ALLOWED
    rest: Mask = seen.reached & ((results["completed"] != 0) == allowed)
    rest &= allowed | (results["vector"] == rules.vector)
    cr2: Mask = results["cr2"] == np.where(rules.sets_cr2, asked.cases.address, seen.untouched)
    error, entries = results["error"] == rules.error, seen.entries(allowed, None)
    by_rule: Mask = rest & cr2 & error & entries
    for quirk, lanes in named:
        if isinstance(quirk, ErrorQuirk):
            departs = results["error"] == quirk.error(rules.error)
            error |= showing(comparison, quirk, rest & lanes, error, departs)
        elif isinstance(quirk, AccessedQuirk):
            departs = seen.entries(allowed, lanes)
            entries |= showing(comparison, quirk, rest & lanes, entries, departs)
        elif isinstance(quirk, Cr2Quirk):
            departs = results["cr2"] == asked.cases.address
            cr2 |= showing(comparison, quirk, rest & lanes, cr2, departs)
    agree: Mask = rest & cr2 & error & entries
    for quirk, lanes in named:
        if isinstance(quirk, DenialQuirk | CodeEndQuirk):
            departs = _ends_as(quirk, reading, seen, allowed)
            agree |= showing(comparison, quirk, lanes, agree, departs)
    if not named:
        return Judged(agree, by_rule, np.ones_like(agree))
    unwitnessed: Mask = np.logical_or.reduce([lanes for _, lanes in named])
    held = ~unwitnessed | reading.says(rules, unwitnessed) & _keeps_last(seen.path, named)
    return Judged(agree & held, by_rule, held)


def _named(quirk: FaultQuirk, reading: Reading, apart: Mask | None) -> Mask:
    """The lanes in which a quirk applies to what the rules say."""
    if isinstance(quirk, BasisQuirk):
        return np.zeros(len(reading.asked.cases), np.bool_)
    lanes = quirk.lanes(reading)
    return lanes if apart is None else lanes & ~apart


def _ends_as(
    quirk: DenialQuirk | CodeEndQuirk, reading: Reading, seen: Seen, allowed: Mask
) -> Mask:
    """The lanes that end by the page fault that a quirk says."""
    results, asked = seen.results, reading.asked
    departs: Mask = results["vector"] == Vector.PF
    if isinstance(quirk, CodeEndQuirk):
        departs &= (results["error"] == quirk.error(asked.cpu)) & seen.ran
        departs &= results["cr2"] == results["rip"]
        return departs & seen.entries(allowed, None)
    departs &= (results["error"] == quirk.errors(asked.cases)).any(axis=0)
    departs &= (results["completed"] == 0) & (results["data"] == 0)
    departs &= results["cr2"] == asked.cases.address
    return departs & seen.entries(np.zeros_like(allowed), None)


def _keeps_last(path: PathEntries, named: list[tuple[FaultQuirk, Mask]]) -> Mask:
    """Whether by the rules the entry stays as it was that an engine marks as accessed."""
    ours = [lanes for quirk, lanes in named if isinstance(quirk, AccessedQuirk)]
    if not ours:
        return np.ones(path.before.shape[1], np.bool_)
    marked: Words = (path.after(np.zeros(path.before.shape[1], np.bool_)) ^ path.before) & path.last
    kept: Mask = ~np.logical_or.reduce(ours) | ~marked.any(axis=0)
    return kept


def showing(
    comparison: Comparison, quirk: Quirk, lanes: Mask, by_rule: Mask, departs: Mask
) -> Mask:
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


def expected_text(rules: Outcomes, lane: int, held: bool = True) -> str:
    """What the rules say of one access, for people; `held` as in `Judged`."""
    if not held:
        return f"{expected_text(rules, lane)}; {UNHELD}"
    reason = REASONS[int(rules.reason[lane])]
    if reason is None:
        return f"reaches {int(rules.walks.physical[lane]):#x}"
    fault = fault_text(int(rules.vector[lane]), int(rules.error[lane]))
    walked = rules.vector[lane] == Vector.PF and rules.walks.end[lane] != End.NO_ROOT
    where = f" at level {int(rules.walks.level[lane])}" if walked else ""
    return f"{fault}{where}: {reason.value}"


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
    return f"{saw}; entries from the root down: {entries or 'none'}"


def fault_text(vector: int, error: int) -> str:
    """An exception with its error code, as the manuals write it."""
    names = {12: "#SS", 13: "#GP", 14: "#PF"}
    return f"{names.get(vector, f'vector {vector}')}({error:#x})"
