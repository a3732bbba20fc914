"""Asking the machine: accesses that the guest executes, beside what the reference expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.marks import WORD
from harness.check.power.cases import Cases
from harness.check.power.marks import CODE_BYTES, code_mark, put_code
from harness.check.power.quirks import ROOT_LEAF, departing
from harness.check.reached import Code, Reached, asked_of, left_as, marked, put_paths, words_after
from harness.machine.power.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bulk import End, Paths
from harness.paging.format import Format
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.power.access import Interrupt, Kind
from harness.paging.power.bulk import REASONS, Outcomes, outcomes
from harness.paging.power.cpu import Cpu, walk_of
from harness.paging.processor import root_for

ACCESSES: Final = {Kind.READ: "READ", Kind.WRITE: "WRITE", Kind.FETCH: "FETCH"}
"""The stub's names of the accesses."""

SYSTEM_CALL: Final = 0xC00
"""The vector at which the code of a frame ends."""

SAID: Final = np.uint64(0x780F_0000)
"""What of SRR1 says why a fetch failed: bits 33 to 36 and 42 to 47, less those of the MSR."""


@dataclass(frozen=True)
class Expected:
    """What the reference expects of cases, and what they reach."""

    cases: Cases
    outcomes: Outcomes
    reached: Reached


def ask_guest(
    guest: Guest, state: State, cpu: Cpu, memory: BufferMemory, frames: Sequence[Span], cases: Cases
) -> Comparison:
    """Has the guest make every access and compares all that it saw with the reference.

    frames  where the pages are that may be reached; what leads elsewhere is not asked
    """
    comparison = Comparison(PROBE)
    engine = departing(cpu, guest.engine.name, guest.version)
    for first in range(0, len(cases), bulk.LANES):
        batch = cases.take(slice(first, first + bulk.LANES))
        expected = _expect(cpu, memory, frames, batch, comparison)
        by_engine = None if engine is None else _of_engine(engine, memory, frames, expected)
        results = guest.run(state, _jobs(guest, expected))
        _judge(comparison, cpu, memory, expected, by_engine, results)
        paths = expected.reached.paths
        memory.scatter(paths.slot[paths.used], WORD, paths.raw[paths.used])
    return comparison


def _expect(
    cpu: Cpu, memory: BufferMemory, frames: Sequence[Span], cases: Cases, comparison: Comparison
) -> Expected:
    """The reference's expectation of those cases that can be compared."""
    found = of_cases(cpu, memory, cases)
    paths = paths_of(cpu, memory, cases.address)
    leaf, reached = reached_by(paths, cases.address)
    if count := int((unbacked := found.walks.end == End.UNBACKED).sum()):
        reason = "an entry is where no memory is, which is a machine check"
        comparison.not_comparable[reason] += count
    made = ((found.reason == 0) | (paths.used[-1] & leaf)) & leaf & ~unbacked
    asked = asked_of(comparison, made, reached, frames, ()) & ~unbacked
    if not asked.all():
        cases = cases.take(asked)
        found = of_cases(cpu, memory, cases)
        paths = paths_of(cpu, memory, cases.address)
    return _marked(memory, frames, cases, found, paths)


def _of_engine(
    engine: Cpu, memory: BufferMemory, frames: Sequence[Span], expected: Expected
) -> Expected:
    """The expectation of an engine with its quirks."""
    found = of_cases(engine, memory, expected.cases)
    return _marked(memory, frames, expected.cases, found, expected.reached.paths)


def _marked(
    memory: BufferMemory, frames: Sequence[Span], cases: Cases, found: Outcomes, paths: Paths
) -> Expected:
    """The expectation of outcomes, and marks in what they reach."""
    _, by_entries = reached_by(paths, cases.address)
    reached = marked(
        memory,
        frames,
        WORD,
        Code(put_code, code_mark),
        allowed=found.reason == 0,
        fetch=cases.kind == Kind.FETCH,
        paths=paths,
        data=found.walks.physical,
        by_entries=by_entries,
    )
    return Expected(cases, found, reached)


def reached_by(paths: Paths, addresses: Words) -> tuple[Mask, Words]:
    """Which paths end in a leaf, and the physical address to which it takes their addresses.

    By the raw entries, as the manual describes them ("Page Table Entry", "Page Directory Entry"):
    what the reference makes of a leaf has no part in it, so one that takes an address elsewhere is
    found out.
    """
    leaf, physical = np.zeros(len(addresses), np.bool_), np.zeros(len(addresses), np.uint64)
    valid, is_leaf = np.uint64(1 << 63), np.uint64(1 << 62)
    large = paths.used[0] & (paths.raw[1] & np.uint64(31) == np.uint64(5))
    for level, shift in enumerate((12, 21, 30, 39)):
        raw = paths.raw[level]
        here = paths.used[level] & (raw & valid != 0) & (raw & is_leaf != 0)
        bits = np.where(large & (level == 0), 16, shift).astype(np.uint64)
        offset = (np.uint64(1) << bits) - np.uint64(1)
        number = raw & np.uint64((1 << 57) - (1 << 12))
        physical = np.where(here & ~leaf, number & ~offset | addresses & offset, physical)
        leaf = leaf | here
    return leaf, physical


def of_cases(cpu: Cpu, memory: BufferMemory, cases: Cases) -> Outcomes:
    """What the cases come to."""
    return outcomes(cpu, memory, cases.address, cases.kind, cases.user)


def paths_of(cpu: Cpu, memory: BufferMemory, addresses: Words) -> Paths:
    """The entries on the way to addresses, in the format that each path has; none for those that no
    root serves."""

    def read(format: Format) -> Paths:
        each = []
        for root in cpu.roots_in(format):
            found = bulk.paths(memory, root, addresses)
            found.used[:, ~within(addresses, root.span)] = False
            each.append(found)
        return reduce(_either, each)

    if not cpu.roots:
        none = np.zeros((cpu.levels, len(addresses)), np.uint64)
        return Paths(none, none, none != 0)
    return _either(read(cpu.format), read(cpu.other_format))


def _either(one: Paths, other: Paths) -> Paths:
    return Paths(
        np.where(one.used, one.slot, other.slot),
        np.where(one.used, one.raw, other.raw),
        one.used | other.used,
    )


def _jobs(guest: Guest, expected: Expected) -> npt.NDArray[np.void]:
    """The jobs that put the path of each case back as it was built, try it, and look at it."""
    cases, enums = expected.cases, guest.image.enums
    jobs = guest.image.new_jobs(len(cases))
    jobs["address"], jobs["size"] = cases.address, WORD
    jobs["flush"] = enums["FLUSH_ALL"]
    for kind, name in ACCESSES.items():
        jobs["access"][cases.kind == kind] = enums[f"ACCESS_{name}"]
    jobs["user"] = cases.user
    put_paths(jobs, expected.reached)
    jobs["value"] = expected.reached.stored
    return jobs


def _judge(
    comparison: Comparison,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    by_engine: Expected | None,
    results: npt.NDArray[np.void],
) -> None:
    agree = _as_expected(expected, results)
    comparison.compared += len(agree)
    if by_engine is not None:
        lanes = expected.outcomes.reason != by_engine.outcomes.reason
        departed = lanes & _as_expected(by_engine, results)
        if shown := int((departed & ~agree).sum()):
            comparison.quirks[ROOT_LEAF.name] += shown
        elif lanes.any():
            comparison.news[f"{ROOT_LEAF.name} did not show"] += int(lanes.sum())
        agree |= departed
    wrong = np.flatnonzero(~agree)
    told = len(comparison.disagreements)
    comparison.disagree(
        len(wrong), _described(cpu, memory, expected, results, wrong[: EXAMPLES - told])
    )


def _as_expected(expected: Expected, results: npt.NDArray[np.void]) -> Mask:
    """Which results are the reference's in all that they say."""
    cases, found, reached = expected.cases, expected.outcomes, expected.reached
    allowed, fetch, writes = reached.allowed, reached.fetch, cases.kind == Kind.WRITE
    ended = np.where(fetch, SYSTEM_CALL, 0)
    data = np.where(allowed & ~writes, reached.content, np.uint64(0))
    status = found.status.astype(np.uint64)
    agree: Mask = (results["completed"] == allowed) & ~reached.astray
    agree &= results["vector"] == np.where(allowed, ended, found.interrupt)
    agree &= results["data"] == data
    agree &= fetch | (results["dsisr"] == status)
    agree &= fetch | (results["dar"] == np.where(allowed, np.uint64(0), cases.address))
    agree &= ~fetch | (results["srr1"] & SAID == status)
    where = cases.address + np.where(allowed, np.uint64(CODE_BYTES), np.uint64(0))
    agree &= ~fetch | (results["srr0"] == where)

    def changed(level: int) -> tuple[Words, Words]:
        leaf = found.walks.level == level
        none = np.zeros(len(cases), np.uint64)
        return reached.paths.raw[level] | np.where(leaf, found.sets, none), none

    return agree & left_as(reached, results, changed, writes)


def _described(
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
    lanes: npt.NDArray[np.int64],
) -> Iterator[Disagreement]:
    for lane in map(int, lanes):
        cases, address = expected.cases, int(expected.cases.address[lane])
        root = root_for(cpu, address)
        yield Disagreement(
            PROBE,
            address,
            cases.access(lane),
            rules_say(expected.outcomes, lane),
            _machine_says(expected, results[lane], lane),
            None if root is None else walk_of(cpu, memory, root, Virtual(address)),
        )


def rules_say(found: Outcomes, lane: int) -> str:
    """What the reference says, for people."""
    reason = REASONS[int(found.reason[lane])]
    if reason is not None:
        said = f"{Interrupt(int(found.interrupt[lane])).called}, {int(found.status[lane]):#x}"
        return f"{said}: {reason.value}"
    sets = int(found.sets[lane])
    marks = f", sets {sets:#x} in the leaf" if sets else ""
    return f"reaches {int(found.walks.physical[lane]):#x}{marks}"


def _machine_says(expected: Expected, result: np.void, lane: int) -> str:
    done = "made" if result["completed"] else "not made"
    vector = int(result["vector"])
    registers = ", ".join(
        f"{name.upper()} {int(result[name]):#x}" for name in ("srr0", "srr1", "dar", "dsisr")
    )
    said = f"interrupt {vector:#x}, {registers}" if vector else "no interrupt"
    after = words_after(result, expected.reached.paths, lane)
    return f"{done}, {said}, data {int(result['data']):#x}, entries then {after or 'none'}"
