"""Asking the machine: accesses that the guest executes, beside what the reference expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.arm64.cases import Cases
from harness.check.arm64.marks import CODE_BYTES, code_mark, put_code
from harness.check.arm64.quirks import BLOCK_ANYWHERE, DBM_FETCH, SIZE_64K, SIZE_DS
from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.marks import WORD
from harness.check.quirk import Quirk, Version, expected_of
from harness.check.reached import Code, Reached, asked_of, left_as, marked, put_paths, words_after
from harness.check.tables import TableImage
from harness.machine.arm64.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes, outcomes, writes
from harness.paging.arm64.cpu import Cpu, Half, Tcr
from harness.paging.arm64.formats import AF, GRANULES
from harness.paging.bulk import Paths
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.walk import walk

ACCESSES: Final = {
    Kind.READ: "READ",
    Kind.WRITE: "WRITE",
    Kind.FETCH: "FETCH",
    Kind.AMO: "SWAP",
    Kind.LDTR: "READ_UNPRIVILEGED",
    Kind.STTR: "WRITE_UNPRIVILEGED",
}
"""The stub's names of the accesses."""

SVC: Final = 0x5600_0000
"""ESR_EL1 of the SVC, of A64 and with the immediate 0, with which the code of a frame ends."""

SAID: Final = np.uint64(0xFE00_007F)
"""What of ESR_EL1 the reference says: EC, IL, and of the ISS WnR and the fault status code."""


CODE: Final = Code(put_code, code_mark)


@dataclass(frozen=True)
class Expected:
    """What the reference expects of cases, and what they reach."""

    cases: Cases
    outcomes: Outcomes
    reached: Reached


def ask_guest(
    guest: Guest,
    state: State,
    cpu: Cpu,
    memory: BufferMemory,
    frames: Sequence[Span],
    tables: Sequence[TableImage],
    cases: Cases,
) -> Comparison:
    """Has the guest make every access and compares all that it saw with the reference.

    frames  where the pages are that may be reached; what leads elsewhere is not asked
    tables  those of the space, which are not overwritten
    """
    comparison = Comparison(PROBE)
    for first in range(0, len(cases), bulk.LANES):
        batch = cases.take(slice(first, first + bulk.LANES))
        expected = _expect(guest, cpu, memory, frames, tables, batch, comparison)
        departing = _fetches_by_ap2(guest, cpu, memory, frames, expected)
        results = guest.run(state, _jobs(guest, expected))
        _judge(comparison, cpu, memory, expected, departing, results)
        paths = expected.reached.paths
        memory.scatter(paths.slot[paths.used], WORD, paths.raw[paths.used])
    return comparison


def left_out(
    engine: str, version: Version, cpu: Cpu, found: Outcomes, comparison: Comparison
) -> Mask:
    """Which lanes a quirk of an engine makes into something else than the reference has there, or
    ends QEMU in; counted."""
    lanes = np.zeros(len(found.reason), np.bool_)
    raw, reason = found.walks.raw, found.reason
    block = (reason == REASONS.index(Reason.INVALID)) & (raw & np.uint64(3) == 1)
    block &= found.walks.level > 0  # of pages, it has none either
    size, size_ds = np.zeros((2, len(lanes)), np.bool_)
    for half, here in halves(cpu, found.walks.address):
        if cpu.is_wide(half.granule):
            if half.granule == "64K":
                size |= here & (raw & np.uint64(0xF000) != 0)
            else:
                size_ds |= here & (raw & np.uint64(0x300) != 0)
    beyond = reason == REASONS.index(Reason.ADDRESS_SIZE)
    for quirk, departs in (
        (BLOCK_ANYWHERE, block),
        (SIZE_64K, size & beyond),
        (SIZE_DS, size_ds & beyond),
    ):
        if departs.any() and expected_of(quirk, engine, version):
            otherwise = f"descriptors that QEMU reads otherwise ({quirk.name})"
            comparison.not_comparable[otherwise] += int(departs.sum())
            lanes |= departs
    return lanes


def _expect(
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    frames: Sequence[Span],
    tables: Sequence[TableImage],
    cases: Cases,
    comparison: Comparison,
) -> Expected:
    """The reference's expectation of those cases that can be compared."""
    found = of_cases(cpu, memory, cases)
    departs = left_out(guest.engine.name, guest.version, cpu, found, comparison)
    if departs.any():
        cases = cases.take(~departs)
        found = of_cases(cpu, memory, cases)
    paths = paths_of(cpu, memory, found.walks.address)
    leaf, reached = reached_by(cpu, paths, found.walks.address)
    made = (found.reason == 0) & leaf
    if not (asked := asked_of(comparison, made, reached, frames, tables)).all():
        cases = cases.take(asked)
        found = of_cases(cpu, memory, cases)
        paths = paths_of(cpu, memory, found.walks.address)
    return _marked(cpu, memory, frames, cases, found, paths)


def halves(cpu: Cpu, addresses: Words) -> Iterator[tuple[Half, Mask]]:
    """Each half that is on, and which of the addresses are its."""
    upper = addresses >> np.uint64(55) & np.uint64(1)
    for number, half in enumerate((cpu.low, cpu.high)):
        if half is not None:
            yield half, upper == np.uint64(number)


def _marked(
    cpu: Cpu,
    memory: BufferMemory,
    frames: Sequence[Span],
    cases: Cases,
    found: Outcomes,
    paths: Paths,
) -> Expected:
    """The expectation of outcomes, and marks in what they reach."""
    _, by_entries = reached_by(cpu, paths, found.walks.address)
    reached = marked(
        memory,
        frames,
        WORD,
        CODE,
        allowed=found.reason == 0,
        fetch=cases.kind == Kind.FETCH,
        paths=paths,
        data=found.walks.physical,
        by_entries=by_entries,
    )
    return Expected(cases, found, reached)


def reached_by(cpu: Cpu, paths: Paths, addresses: Words) -> tuple[Mask, Words]:
    """Which paths end in a page or a block, and the physical address to which it takes their
    addresses.

    By the raw descriptors, as the manual describes them ("Translation table descriptor formats"):
    what the reference makes of a leaf has no part in it, so one that takes an address elsewhere is
    found out.
    """
    leaf, physical = np.zeros(len(addresses), np.bool_), np.zeros(len(addresses), np.uint64)
    levels = range(len(paths.used))
    for (half, inside), level in product(halves(cpu, addresses), levels):
        page, raw = GRANULES[half.granule].page, paths.raw[level]
        here = inside & paths.used[level] & (raw & np.uint64(3) == (1 if level else 3))
        if not here.any():  # it may be a level that only the other half has
            continue
        offset = np.uint64((1 << page + level * (page - 3)) - 1)
        said = raw & np.uint64((1 << 48) - 1)
        if cpu.tcr & Tcr.DS and half.granule != "64K":
            said = raw & np.uint64((1 << 50) - 1) | (
                raw >> np.uint64(8) & np.uint64(3)
            ) << np.uint64(50)
        elif half.granule == "64K":
            said = said | (raw >> np.uint64(12) & np.uint64(15)) << np.uint64(48)
        physical = np.where(here, said & ~offset | addresses & offset, physical)
        leaf = leaf | here
    return leaf, physical


def of_cases(cpu: Cpu, memory: BufferMemory, cases: Cases) -> Outcomes:
    """What the cases come to."""
    return outcomes(cpu, memory, cases.address, cases.kind, cases.el0, pan=cases.pan, uao=cases.uao)


def paths_of(cpu: Cpu, memory: BufferMemory, addresses: Words) -> Paths:
    """The descriptors on the way to addresses; none for those that no root serves."""
    shape = (max(root.table.level for root in cpu.roots) + 1, len(addresses))
    slot, raw, used = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64), np.zeros(shape, "?")
    for root in cpu.roots:
        found, here = bulk.paths(memory, root, addresses), within(addresses, root.span)
        for whole, part in ((slot, found.slot), (raw, found.raw), (used, found.used)):
            whole[: len(part), here] = part[:, here]
    return Paths(slot, raw, used)


def _jobs(guest: Guest, expected: Expected) -> npt.NDArray[np.void]:
    """The jobs that put the path of each case back as it was built, try it, and look at it."""
    cases, enums = expected.cases, guest.image.enums
    jobs = guest.image.new_jobs(len(cases))
    jobs["address"] = cases.address
    jobs["size"], jobs["flush"] = WORD, enums["FLUSH_PAGE"]
    for kind, name in ACCESSES.items():
        jobs["access"][cases.kind == kind] = enums[f"ACCESS_{name}"]
    jobs["user"], jobs["pan"], jobs["uao"] = cases.el0, cases.pan, cases.uao
    put_paths(jobs, expected.reached)
    jobs["value"] = expected.reached.stored
    return jobs


def _judge(
    comparison: Comparison,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    departing: tuple[Mask, Expected] | None,
    results: npt.NDArray[np.void],
) -> None:
    agree = _as_expected(expected, results)
    comparison.compared += len(agree)
    if departing is not None:
        lanes, by_quirk = departing
        departed = lanes & _as_expected(by_quirk, results)
        agree = count_quirk(comparison, DBM_FETCH, lanes, departed, agree)
    wrong = np.flatnonzero(~agree)
    told = len(comparison.disagreements)
    comparison.disagree(
        len(wrong), _described(cpu, memory, expected, results, wrong[: EXAMPLES - told])
    )


def count_quirk(
    comparison: Comparison, quirk: Quirk, lanes: Mask, departed: Mask, agree: Mask
) -> Mask:
    """Which lanes agree, those with it that depart as a quirk does; it is counted, and news where
    it shows in none of the lanes in which it should."""
    if shown := int((departed & ~agree).sum()):
        comparison.quirks[quirk.name] += shown
    elif lanes.any() and not departed.any():
        comparison.news[f"{quirk.name} did not show"] += int(lanes.sum())
    return agree | departed


def _fetches_by_ap2(
    guest: Guest, cpu: Cpu, memory: BufferMemory, frames: Sequence[Span], expected: Expected
) -> tuple[Mask, Expected] | None:
    """The fetches to which DBM makes a difference, and what they come to without it; None where
    that is not to be expected of the engine."""
    if not cpu.keeps_dirty_state or not expected_of(DBM_FETCH, guest.engine.name, guest.version):
        return None
    without = of_cases(without_dirty_state(cpu), memory, expected.cases)
    lanes = expected.reached.fetch & (without.reason != expected.outcomes.reason)
    return lanes, _marked(cpu, memory, frames, expected.cases, without, expected.reached.paths)


def without_dirty_state(cpu: Cpu) -> Cpu:
    """The same state with TCR_EL1.HD=0."""
    return replace(cpu, tcr=cpu.tcr & ~Tcr.HD)


def _as_expected(expected: Expected, results: npt.NDArray[np.void]) -> Mask:
    """Which results are the reference's in all that they say."""
    cases, found, reached = expected.cases, expected.outcomes, expected.reached
    allowed, fetch = reached.allowed, reached.fetch
    ended = np.where(fetch, np.uint64(SVC), np.uint64(0))
    syndrome = np.where(allowed, ended, found.syndrome)
    only_stores = writes(cases.kind) & (cases.kind != Kind.AMO)
    data = np.where(allowed & ~only_stores, reached.content, np.uint64(0))
    where = found.walks.address + np.where(allowed, np.uint64(CODE_BYTES), np.uint64(0))
    agree: Mask = (results["completed"] == allowed) & ~reached.astray
    agree &= results["esr"] & SAID == syndrome
    agree &= results["data"] == data
    agree &= allowed | (results["far"] == found.far)
    agree &= ~fetch | (results["elr"] == where)

    def changed(level: int) -> tuple[Words, Words]:
        leaf = found.walks.level == level
        should = reached.paths.raw[level] ^ np.where(leaf, found.changes, np.uint64(0))
        return should, np.where(leaf, found.may, np.uint64(0))

    return agree & left_as(reached, results, changed, writes(cases.kind))


def _described(
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
    lanes: npt.NDArray[np.int64],
) -> Iterator[Disagreement]:
    for lane in lanes:
        cases, address = expected.cases, int(expected.outcomes.walks.address[lane])
        root = next((root for root in cpu.roots if address in root.span), None)
        yield Disagreement(
            PROBE,
            int(cases.address[lane]),
            cases.stated(lane),
            rules_say(expected.outcomes, int(lane)),
            _machine_says(expected, results[lane], int(lane)),
            None if root is None else walk(memory, root, Virtual(address)),
        )


def rules_say(found: Outcomes, lane: int) -> str:
    """What the reference says, for people."""
    reason = REASONS[int(found.reason[lane])]
    if reason is not None:
        return f"ESR {int(found.syndrome[lane]):#x}: {reason.value}"
    changes = int(found.changes[lane])
    said = [f"reaches {int(found.walks.physical[lane]):#x}"]
    said += ["sets AF"] if changes & AF else []
    said += ["clears AP[2]"] if changes & ~AF else []
    return ", ".join(said)


def _machine_says(expected: Expected, result: np.void, lane: int) -> str:
    done = "made" if result["completed"] else "not made"
    esr = int(result["esr"])
    said = f"ESR {esr:#x}, FAR {int(result['far']):#x}" if esr else "no exception"
    after = words_after(result, expected.reached.paths, lane)
    return f"{done}, {said}, data {int(result['data']):#x}, entries then {after or 'none'}"
