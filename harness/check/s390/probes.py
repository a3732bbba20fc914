"""Asking the machine: accesses that the guest executes, beside what the reference expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.marks import WORD, mark
from harness.check.reached import Code, Reached, asked_of, left_as, marked, put_paths, words_after
from harness.check.s390.cases import Cases
from harness.check.s390.marks import CODE_BYTES, put_code
from harness.machine.s390.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Paths
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.processor import root_for
from harness.paging.s390.access import Code as InterruptionCode
from harness.paging.s390.access import Kind
from harness.paging.s390.bulk import ALLOWED, REASONS, Outcomes, outcomes
from harness.paging.s390.cpu import Cpu
from harness.paging.walk import walk

ACCESSES: Final = {Kind.READ: "LOAD", Kind.WRITE: "STORE", Kind.FETCH: "FETCH"}
"""The stub's names of the accesses."""

REFERENCED, CHANGED = 0x04, 0x02
"""Bits of a storage key ("Storage Key")."""

FRAME: Final = 4096
"""Bytes that have a storage key of their own."""


@dataclass(frozen=True)
class Expected:
    """What the reference expects of cases, and what they reach."""

    cases: Cases
    outcomes: Outcomes
    reached: Reached

    @property
    def keyed(self) -> Mask:
        """Which reach a frame, whose storage key is looked at."""
        keyed: Mask = self.reached.allowed & ~self.reached.astray
        return keyed


def ask_guest(
    guest: Guest, state: State, cpu: Cpu, memory: BufferMemory, frames: Span, cases: Cases
) -> Comparison:
    """Has the guest make every access and compares all that it saw with the reference.

    frames  where the pages are that may be reached; what leads elsewhere is not asked
    """
    comparison = Comparison(PROBE)
    for first in range(0, len(cases), bulk.LANES):
        batch = cases.take(slice(first, first + bulk.LANES))
        expected = _expect(cpu, memory, frames, batch, comparison)
        results = guest.run(state, _jobs(guest, expected))
        _judge(comparison, guest, cpu, memory, expected, results)
        paths = expected.reached.paths
        memory.scatter(paths.slot[paths.used], cpu.format.entry_bytes, paths.raw[paths.used])
    return comparison


def _expect(
    cpu: Cpu, memory: BufferMemory, frames: Span, cases: Cases, comparison: Comparison
) -> Expected:
    """The reference's expectation of those cases that can be compared; marks what they reach."""
    found = _outcomes(cpu, memory, cases)
    paths = _paths(cpu, memory, cases.address)
    leaf, reached = _reached(paths, cases.address)
    made = (found.code == ALLOWED) & leaf
    if not (asked := asked_of(comparison, made, reached, [frames], ())).all():
        cases, reached = cases.take(asked), reached[asked]
        found = _outcomes(cpu, memory, cases)
        paths = _paths(cpu, memory, cases.address)
    marks = marked(
        memory,
        [frames],
        WORD,
        Code(put_code, mark),
        allowed=found.code == ALLOWED,
        fetch=cases.kind == Kind.FETCH,
        paths=paths,
        data=found.walks.physical,
        by_entries=reached,
    )
    return Expected(cases, found, marks)


def _reached(paths: Paths, addresses: Words) -> tuple[Mask, Words]:
    """Which paths end in a leaf, and the physical address to which it takes their addresses.

    By the raw entries, as the manual has them: page-table entries, and entries with FC at levels 1
    and 2.  What the reference makes of a leaf has no part in it, so one that takes an address
    elsewhere is found out.
    """
    leaf, physical = np.zeros(len(addresses), np.bool_), np.zeros(len(addresses), np.uint64)
    for level, width in enumerate((12, 20, 31)[: len(paths.used)]):
        raw, offset = paths.raw[level], np.uint64((1 << width) - 1)
        ends = raw & np.uint64(0x400 if level else 0) == np.uint64(0x400 if level else 0)
        here = paths.used[level] & ends & ~leaf
        physical = np.where(here, raw & ~offset | addresses & offset, physical)
        leaf |= here
    return leaf, physical


def _outcomes(cpu: Cpu, memory: BufferMemory, cases: Cases) -> Outcomes:
    return outcomes(cpu, memory, cases.address, cases.kind, cases.space)


def _paths(cpu: Cpu, memory: BufferMemory, addresses: Words) -> Paths:
    """The entries on the way to addresses; none for those that no root serves."""
    [root] = cpu.roots
    found = bulk.paths(memory, root, addresses)
    found.used[:, ~within(addresses, root.span)] = False
    return found


def _jobs(guest: Guest, expected: Expected) -> npt.NDArray[np.void]:
    """The jobs that put the path of each case back as it was built, try it, and look at it."""
    cases, enums = expected.cases, guest.image.enums
    jobs = guest.image.new_jobs(len(cases))
    jobs["address"], jobs["user"], jobs["flush"] = cases.address, cases.user, enums["FLUSH_ALL"]
    for kind, name in ACCESSES.items():
        jobs["access"][cases.kind == kind] = enums[f"ACCESS_{name}"]
    put_paths(jobs, expected.reached)
    jobs["value"] = expected.reached.stored
    jobs["keyed"] = keyed = expected.keyed
    jobs["frame"][keyed] = expected.reached.data[keyed] & ~np.uint64(FRAME - 1)
    return jobs


def _judge(
    comparison: Comparison,
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
) -> None:
    agree = _as_expected(guest, expected, results)
    comparison.compared += len(agree)
    wrong = np.flatnonzero(~agree)
    shown = wrong[: EXAMPLES - len(comparison.disagreements)]
    comparison.disagree(
        len(wrong), _described(guest, cpu, memory, expected, results, shown.tolist())
    )


def _as_expected(guest: Guest, expected: Expected, results: npt.NDArray[np.void]) -> Mask:
    """Which results are the reference's in all that they say."""
    cases, found, reached = expected.cases, expected.outcomes, expected.reached
    allowed = reached.allowed
    no_code = np.uint16(guest.image.enums["CODE_NONE"])
    writes = cases.kind == Kind.WRITE
    agree: Mask = (results["completed"] == allowed) & ~reached.astray
    agree &= results["code"] == np.where(allowed, no_code, found.code)
    agree &= results["data"] == np.where(allowed & ~writes, reached.content, np.uint64(0))
    agree &= (found.teid == 0) | (results["teid"] == found.teid)
    end = cases.address + np.uint64(CODE_BYTES)
    agree &= ~(allowed & reached.fetch) | (results["address"] == end)
    marks = np.where(found.changes, REFERENCED | CHANGED, REFERENCED)
    agree &= ~expected.keyed | (results["key"] == marks)
    none = np.zeros(len(cases), np.uint64)
    return agree & left_as(reached, results, lambda level: (reached.paths.raw[level], none), writes)


def _described(
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
    lanes: list[int],
) -> Iterator[Disagreement]:
    for lane in lanes:
        address = int(expected.cases.address[lane])
        root = root_for(cpu, address)
        yield Disagreement(
            PROBE,
            address,
            expected.cases.stated(lane),
            _rules_say(expected, lane),
            _machine_says(guest, expected, results[lane], lane),
            None if root is None else walk(memory, root, Virtual(address)),
        )


def _rules_say(expected: Expected, lane: int) -> str:
    found = expected.outcomes
    if found.code[lane] != ALLOWED:
        reason = REASONS[int(found.reason[lane])]
        assert reason is not None
        teid = f", TEID {int(found.teid[lane]):#x}" if found.teid[lane] else ""
        return f"{named(int(found.code[lane]))}{teid}: {reason.value}"
    change = ", sets the change bit" if found.changes[lane] else ""
    return f"reaches {int(expected.reached.data[lane]):#x}{change}"


def _machine_says(guest: Guest, expected: Expected, result: np.void, lane: int) -> str:
    code = int(result["code"])
    said = (
        "no interruption"
        if code == guest.image.enums["CODE_NONE"]
        else f"{named(code)}, TEID {int(result['teid']):#x}"
    )
    done = "made" if result["completed"] else "not made"
    after = words_after(result, expected.reached.paths, lane)
    key = f", storage key {int(result['key']):#x}" if expected.keyed[lane] else ""
    return f"{done}: {said}, data {int(result['data']):#x}{key}, entries then {after}"


def named(code: int) -> str:
    """A program interruption by its code, and what the manual calls it."""
    names = {one.value: one.called for one in InterruptionCode}
    return f"code {code:#x} ({names[code]})" if code in names else f"code {code:#x}"
