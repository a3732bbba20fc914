"""Asking the machine: accesses that the guest executes, beside what the reference expects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.quirk import expected_of
from harness.check.reached import Code, Reached, asked_of, left_as, marked, put_paths, words_after
from harness.check.riscv.cases import Cases, Stated
from harness.check.riscv.marks import CODE_BYTES, code_mark, put_code
from harness.check.riscv.matrix.chain import NONE_MISSING, Lanes
from harness.check.riscv.matrix.hart import Hart
from harness.check.riscv.matrix.judged import RiscvQuirk, causes_of_amos, departing
from harness.check.riscv.quirks import MPRV_CODE, judged_of
from harness.check.tables import TableImage
from harness.machine.riscv.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Paths
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.processor import root_for
from harness.paging.riscv.access import Cause, Kind
from harness.paging.riscv.bulk import ALLOWED, REASONS, Outcomes, outcomes
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import A, R, V, W, X
from harness.paging.walk import walk

ENVIRONMENT_CALLS: Final = (9, 8)
"""The causes of ECALL by S-mode and U-mode, with which the code of a frame ends."""

ACCESSES: Final = {Kind.READ: "LOAD", Kind.WRITE: "STORE", Kind.FETCH: "FETCH", Kind.AMO: "AMO"}
"""The stub's names of the accesses."""


@dataclass(frozen=True)
class Expected:
    """What the reference expects of cases, and what they reach.

    loads    uint8, the causes that the accesses would have if all were loads
    backed   whether there is memory where a leaf of the path leads
    """

    cases: Cases
    outcomes: Outcomes
    loads: Bytes
    backed: Mask
    reached: Reached


def ask_guest(
    guest: Guest,
    state: State,
    cpu: Cpu,
    memory: BufferMemory,
    frames: Sequence[Span],
    tables: TableImage,
    cases: Cases,
) -> Comparison:
    """Has the guest make every access and compares all that it saw with the reference.

    frames  where the pages are that may be reached; what leads elsewhere is not asked
    tables  the addresses of the space's tables: no access reaches these
    """
    comparison = Comparison(PROBE)
    quirks = [one for one in judged_of(guest.engine.name, guest.version) if not one.amo]
    for first in range(0, len(cases), bulk.LANES):
        batch = cases.take(slice(first, first + bulk.LANES))
        if expected_of(MPRV_CODE, guest.engine.name, guest.version):
            lanes = _in_code(guest, batch)
            if count := int(lanes.sum()):
                reason = f"by MPRV to the addresses of the stub's code ({MPRV_CODE.name})"
                comparison.not_comparable[reason] += count
                batch = batch.take(~lanes)
        batch = _followed(comparison, guest, cpu, memory, batch, quirks)
        expected = _expect(cpu, memory, frames, tables, batch, comparison)
        jobs = _jobs(guest, cpu, expected)
        results = guest.run(state, jobs)
        _judge(comparison, guest, cpu, memory, expected, results)
        paths = expected.reached.paths
        memory.scatter(paths.slot[paths.used], cpu.format.entry_bytes, paths.raw[paths.used])
    return comparison


def _in_code(guest: Guest, cases: Cases) -> Mask:
    """Data by MPRV at the addresses of the stub's code: untranslated, a store would change it."""
    code = guest.image.text.start, guest.image.user.stop
    return cases.mprv & (cases.address >= code[0]) & (cases.address < code[1])


def _followed(
    comparison: Comparison,
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    cases: Cases,
    quirks: Sequence[RiscvQuirk],
) -> Cases:
    """The cases without those that the rules deny and a quirk judges otherwise, by entries that it
    reads in its own way: nobody has put marks where these lead."""
    found = _outcomes(cpu, memory, cases)
    walks = found.walks
    paths = _paths(cpu, memory, walks.address)
    missing = np.where(walks.end == End.UNBACKED, walks.level, np.uint8(NONE_MISSING))
    how = (cases.kind, cases.user, cases.sum, cases.mxr, cases.mprv)
    lanes = Lanes.along(paths, missing, cases.address, *how)
    kept = np.ones(len(cases), np.bool_)
    for name, where in departing(Hart.of(cpu.mode.value, guest.info), cpu, lanes, quirks).items():
        departs = kept & where & (found.cause != ALLOWED)
        if count := int(departs.sum()):
            comparison.not_comparable[f"the engine reads entries otherwise ({name})"] += count
            kept &= ~departs
    return cases.take(kept)


def _expect(
    cpu: Cpu,
    memory: BufferMemory,
    frames: Sequence[Span],
    tables: TableImage,
    cases: Cases,
    comparison: Comparison,
) -> Expected:
    """The reference's expectation of those cases that can be compared; marks what they reach."""
    found = _outcomes(cpu, memory, cases)
    paths = _paths(cpu, memory, found.walks.address)
    leaf, reached = _reached(cpu, paths, found.walks.address)
    made = (found.cause == ALLOWED) & leaf
    if not (asked := asked_of(comparison, made, reached, frames, [tables])).all():
        cases, leaf, reached = cases.take(asked), leaf[asked], reached[asked]
        found = _outcomes(cpu, memory, cases)
        paths = _paths(cpu, memory, found.walks.address)
    loads = _outcomes(cpu, memory, cases, Kind.READ).cause
    backed = leaf & within(reached, memory.span)
    marks = marked(
        memory,
        frames,
        cpu.xlen // 8,
        Code(partial(put_code, xlen=cpu.xlen), code_mark),
        allowed=found.cause == ALLOWED,
        fetch=cases.kind == Kind.FETCH,
        paths=paths,
        data=found.walks.physical,
        by_entries=reached,
    )
    return Expected(cases, found, loads, backed, marks)


def _reached(cpu: Cpu, paths: Paths, addresses: Words) -> tuple[Mask, Words]:
    """Which paths end in a leaf, and the physical address to which it takes their addresses.

    By the raw entries, as the manual describes them ("Sv39", step 5; "Svnapot"): what the reference
    makes of a leaf has no part in it, so one that takes an address elsewhere is found out.
    """
    table_bits = 10 if cpu.xlen == 32 else 9
    leaf, physical = np.zeros(len(addresses), np.bool_), np.zeros(len(addresses), np.uint64)
    for level in range(len(paths.used)):
        raw = paths.raw[level]
        here = paths.used[level] & ((raw & np.uint64(V)) != 0) & ((raw & np.uint64(R | W | X)) != 0)
        napot = raw >> np.uint64(63) != 0  # of 32 bits no entry has N
        offset_bits = np.where(napot, 16, 12 + table_bits * level).astype(np.uint64)
        offset = (np.uint64(1) << offset_bits) - np.uint64(1)
        # PPN: bits 53:10 (Sv32: 31:10).
        begins = (raw << np.uint64(10) >> np.uint64(20) << np.uint64(12)) & ~offset
        said = begins | addresses & offset
        physical, leaf = np.where(leaf, physical, said), leaf | here
    return leaf, physical


def _outcomes(cpu: Cpu, memory: BufferMemory, cases: Cases, kind: Kind | None = None) -> Outcomes:
    """What the cases come to, or what they would as accesses of another kind."""
    kinds = cases.kind if kind is None else np.full(len(cases), kind, np.uint8)
    return outcomes(cpu, memory, cases.address, kinds, cases.user, cases.sum, cases.mxr)


def _paths(cpu: Cpu, memory: BufferMemory, addresses: Words) -> Paths:
    """The entries on the way to addresses; none for those that no root serves."""
    found = bulk.paths(memory, cpu.roots[0], addresses)  # all roots begin at one table
    found.used[:, ~within(addresses, *(root.span for root in cpu.roots))] = False
    return found


def _jobs(guest: Guest, cpu: Cpu, expected: Expected) -> npt.NDArray[np.void]:
    """The jobs that put the path of each case back as it was built, try it, and look at it."""
    cases, enums = expected.cases, guest.image.enums
    jobs = guest.image.new_jobs(len(cases))
    jobs["address"] = cases.address
    jobs["size"], jobs["flush"] = cpu.xlen // 8, enums["FLUSH_PAGE"]
    for kind, name in ACCESSES.items():
        jobs["access"][cases.kind == kind] = enums[f"ACCESS_{name}"]
    for name in ("user", "sum", "mxr", "mprv"):
        jobs[name] = getattr(cases, name)
    put_paths(jobs, expected.reached)
    jobs["value"] = expected.reached.stored
    return jobs


def _judge(
    comparison: Comparison,
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
) -> None:
    known = [one for one in judged_of(guest.engine.name, guest.version) if one.amo]
    agree = _as_expected(guest, cpu, expected, results, expected.outcomes.cause)
    by_engine = _causes(expected, known)
    departed = ~agree & _as_expected(guest, cpu, expected, results, by_engine)
    comparison.compared += len(agree)
    for one in known:
        should = by_engine != _causes(expected, [other for other in known if other is not one])
        if shown := int((departed & should).sum()):
            comparison.quirks[one.name] += shown
        elif should.any():
            comparison.news[f"{one.name} did not show"] += int(should.sum())
    agree |= departed
    wrong = np.flatnonzero(~agree)
    comparison.disagree(
        len(wrong),
        _described(guest, cpu, memory, expected, results, wrong[: EXAMPLES - _told(comparison)]),
    )


def _told(comparison: Comparison) -> int:
    return len(comparison.disagreements)


def _causes(expected: Expected, quirks: Iterable[RiscvQuirk]) -> Bytes:
    """The causes on an engine that has these quirks."""
    kind, cause = expected.cases.kind, expected.outcomes.cause
    return causes_of_amos(quirks, kind, cause, expected.loads, expected.backed)


def _as_expected(
    guest: Guest,
    cpu: Cpu,
    expected: Expected,
    results: npt.NDArray[np.void],
    cause: Bytes,
) -> Mask:
    """Which results are the reference's in all that they say, with these causes of faults."""
    cases, reached = expected.cases, expected.reached
    allowed, fetch = reached.allowed, reached.fetch
    width = np.uint64((1 << cpu.xlen) - 1)
    ended = np.where(fetch, np.where(cases.user, *ENVIRONMENT_CALLS[::-1]), 0)
    ended = np.where(allowed & ~fetch, guest.image.enums["CAUSE_NONE"], ended)
    found = results["data"] & np.where(fetch, np.uint64(0xFFFF_FFFF), width)
    data = np.where(allowed & (cases.kind != Kind.WRITE), reached.content, np.uint64(0))
    tval = np.where(allowed, np.uint64(0), expected.outcomes.walks.address)
    agree: Mask = (results["completed"] == allowed) & ~reached.astray
    agree &= results["cause"] == np.where(allowed, ended, cause)
    agree &= found == data
    agree &= results["tval"] == tval
    where = cases.address + np.where(allowed, np.uint64(CODE_BYTES - 4), np.uint64(0))
    agree &= ~fetch | (results["epc"] == where)
    return agree & _entries_as_expected(expected, results, width)


def _entries_as_expected(
    expected: Expected, results: npt.NDArray[np.void], width: np.uint64
) -> Mask:
    """Whether the entries of the path, and the word, are afterwards what they should be.

    A of a leaf may be set by the load of an AMO whose store is then denied: it "may be set
    speculatively" ("Addressing and Memory Protection" of Sv32).
    """
    cases, reached, found = expected.cases, expected.reached, expected.outcomes
    loaded = (cases.kind == Kind.AMO) & (expected.loads == ALLOWED)
    free = np.where(loaded & ~reached.allowed, A, 0).astype(np.uint64)

    def changed(level: int) -> tuple[Words, Words]:
        leaf = found.walks.level == level
        should = reached.paths.raw[level] | np.where(leaf, found.sets, np.uint64(0))
        return should, np.where(leaf, free, np.uint64(0))

    writes = (cases.kind == Kind.WRITE) | (cases.kind == Kind.AMO)
    return left_as(reached, results, changed, writes, width)


def _described(
    guest: Guest,
    cpu: Cpu,
    memory: BufferMemory,
    expected: Expected,
    results: npt.NDArray[np.void],
    lanes: npt.NDArray[np.int64],
) -> Iterator[Disagreement]:
    for lane in lanes:
        cases, address = expected.cases, int(expected.cases.address[lane])
        state = (bool(one[lane]) for one in (cases.user, cases.sum, cases.mxr, cases.mprv))
        root = root_for(cpu, address)
        yield Disagreement(
            PROBE,
            address,
            Stated(Kind(int(cases.kind[lane])), *state),
            _rules_say(expected, int(lane)),
            _machine_says(guest, expected, results[lane], int(lane)),
            None if root is None else walk(memory, root, Virtual(address)),
        )


def _rules_say(expected: Expected, lane: int) -> str:
    found = expected.outcomes
    if found.cause[lane] != ALLOWED:
        reason = REASONS[int(found.reason[lane])]
        assert reason is not None
        return f"cause {_named(int(found.cause[lane]))}: {reason.value}"
    sets = int(found.sets[lane])
    marks = f", sets {sets:#x} in the leaf" if sets else ""
    return f"reaches {int(expected.reached.data[lane]):#x}{marks}"


def _machine_says(guest: Guest, expected: Expected, result: np.void, lane: int) -> str:
    cause = int(result["cause"])
    said = (
        "no exception"
        if cause == guest.image.enums["CAUSE_NONE"]
        else f"cause {_named(cause)}, tval {int(result['tval']):#x}"
    )
    done = "made" if result["completed"] else "not made"
    after = words_after(result, expected.reached.paths, lane)
    return f"{done}: {said}, data {int(result['data']):#x}, entries then {after}"


def _named(cause: int) -> str:
    names = {one.value: one.called for one in Cause}
    return f"{cause} ({names[cause]})" if cause in names else str(cause)
