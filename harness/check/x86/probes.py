"""Asking the machine: accesses that the guest executes, beside what the reference expects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.marks import WORD, mark, put_marks
from harness.check.x86 import marks
from harness.check.x86.cases import AC, Cases
from harness.check.x86.entries import ALL, PathEntries
from harness.check.x86.marks import INVALID_OPCODE, code_of
from harness.check.x86.quirks import Basis, BasisQuirk, FaultQuirk, departing, lapses
from harness.check.x86.second_reading import Reading, Stop, at
from harness.check.x86.verdicts import (
    Judged,
    Seen,
    expected_text,
    judged,
    observed_text,
    report_strangers,
    showing,
)
from harness.check.x86.window import Window
from harness.machine.ram import DEVICES
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.bulk import End, Paths
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes, outcomes
from harness.paging.x86.cpu import Cpu

BATCH = bulk.LANES
"""Cases that are worked on together, so that the arrays in between stay in the cache."""


@dataclass(frozen=True)
class Expected:
    """What the reference expects of cases, and what is needed to see whether it comes true.

    reading  the second one of the cases
    allowed  whether the access is made
    data     the physical address of the word that it reaches
    content  what lies there before; code in its place for fetches
    in_table whether that word is an entry of a table
    astray   whether the access is made where the machine is not asked about
    window   which entries of the paths the stub itself uses, and may set A in; (levels, n)
    """

    reading: Reading
    outcomes: Outcomes
    paths: Paths
    allowed: Mask
    data: Words
    content: Words
    in_table: Mask
    astray: Mask
    window: Mask

    @property
    def cases(self) -> Cases:
        """What the processor is asked to do."""
        return self.reading.asked.cases

    def take(self, chosen: Mask) -> Expected:
        """The chosen lanes."""
        walks, paths, o = self.outcomes.walks, self.paths, self.outcomes
        return Expected(
            self.reading.take(chosen),
            Outcomes(
                bulk.Walks(*(getattr(walks, name)[chosen] for name in walks.__dataclass_fields__)),
                o.vector[chosen],
                o.error[chosen],
                o.sets_cr2[chosen],
                o.reason[chosen],
                o.unbacked[chosen],
            ),
            Paths(paths.slot[:, chosen], paths.raw[:, chosen], paths.used[:, chosen]),
            self.allowed[chosen],
            self.data[chosen],
            self.content[chosen],
            self.in_table[chosen],
            self.astray[chosen],
            self.window[:, chosen],
        )


def ask_guest(
    guest: Guest,
    window: Window,
    cpu: Cpu,
    memory: BufferMemory,
    tables: Words,
    cases: Cases,
    quirks: tuple[FaultQuirk, ...],
) -> Comparison:
    """Has the guest make every access and compares all that it saw with the reference.

    tables  the addresses of the space's tables
    """
    comparison = Comparison(PROBE)
    used = None
    for first in range(0, len(cases), BATCH):
        if used is not None:
            _put_back(memory, cpu, used)
        batch = cases.take(slice(first, first + BATCH))
        expected, reasons = expect(cpu, memory, tables, batch, window, quirks)
        comparison.not_comparable.update(reasons)
        jobs = make_jobs(guest, cpu, expected)
        results = guest.run(window.state, jobs)
        judge(comparison, cpu, guest, expected, jobs, results, quirks)
        used = expected.paths
    return comparison


def _put_back(memory: BufferMemory, cpu: Cpu, used: Paths) -> None:
    """Writes the entries of paths as they were: none is accessed or dirty by another's case."""
    memory.scatter(used.slot[used.used], cpu.format.entry_bytes, used.raw[used.used])


def expect(
    cpu: Cpu,
    memory: BufferMemory,
    tables: Words,
    cases: Cases,
    window: Window,
    quirks: tuple[FaultQuirk, ...] = (),
) -> tuple[Expected, dict[str, int]]:
    """The reference's expectation of the cases that can be compared, and why the others cannot;
    `quirks` are those of the engine.

    Marks the frames that the cases reach.
    """
    foreseen = outcomes(cpu, memory, cases.address, cases.kind, cases.user, cases.ac)
    paths = _paths(cpu, memory, cases.address)
    paths.used[:, foreseen.walks.end == End.NO_ROOT] = False
    allowed = (foreseen.vector == ALLOWED) & ~foreseen.unbacked
    data = foreseen.walks.physical & ~np.uint64(WORD - 1)
    fetch = cases.kind == Kind.FETCH

    reading = Reading(at(cpu, memory, cases))
    reasons, in_table = _not_asked(reading, memory, tables, window)
    outside = reading.walked.stop == Stop.OUTSIDE
    astray_there = replace(reading, lapses=lapses(quirks)).allowed & outside
    reasons["the engine takes the address for another, where there is a page"] = astray_there
    asked = ~np.logical_or.reduce(list(reasons.values()))
    reached = allowed & asked & ~_inside(window.arena, data) & ~_no_memory(memory, data)
    ours = reached & ~in_table
    put_marks(memory, data[ours & ~fetch])
    put_code = marks.put_code if cpu.long else marks.put_short_code
    put_code(memory, data[ours & fetch])
    content = np.zeros(len(cases), np.uint64)
    content[reached] = memory.gather(data[reached], WORD)[0]
    content[ours & fetch] = mark(data[ours & fetch]) & _ones(_width(cpu))
    firsts = np.array([span.first for span in window.spans], np.uint64)
    way_in = _paths(cpu, memory, firsts).slot
    used_there = _inside(window.arena, paths.slot) | np.isin(paths.slot, way_in)
    astray = (allowed | foreseen.unbacked) & ~reached
    whole = Expected(reading, foreseen, paths, allowed, data, content, in_table, astray, used_there)
    counted = {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
    return whole if asked.all() else whole.take(asked), counted


def _paths(cpu: Cpu, memory: BufferMemory, addresses: Words) -> Paths:
    """The entries on the way to addresses; none for those that no root serves."""
    paths = bulk.paths(memory, cpu.roots[0], addresses)
    for root in cpu.roots[1:]:
        lanes = within(addresses, root.span)
        own = bulk.paths(memory, root, addresses[lanes])
        for ours, theirs in ((paths.slot, own.slot), (paths.raw, own.raw), (paths.used, own.used)):
            ours[:, lanes] = theirs
    return paths


def _width(cpu: Cpu) -> int:
    """Bytes of the reads and writes that are tried."""
    return WORD if cpu.long else WORD // 2


def _ones(width: int) -> np.uint64:
    """All bits of so many bytes."""
    return np.uint64((1 << 8 * width) - 1)


def _not_asked(
    reading: Reading, memory: BufferMemory, tables: Words, window: Window
) -> tuple[dict[str, Mask], Mask]:
    """Which cases the guest is not given, by the reason; and which reach an entry of a table.

    By the entries and the guest's memory: the reference has no part in it, so one that takes an
    address elsewhere is found out.
    """
    made, fetch = reading.allowed, reading.asked.cases.kind == Kind.FETCH
    data = reading.physical & ~np.uint64(WORD - 1)
    own = made & _inside(window.arena, data)
    nowhere = made & ~own & _no_memory(memory, data)
    in_table = made & np.isin(data & ~np.uint64(0xFFF), tables)
    reasons = {
        "an entry of the path has no memory behind it": reading.walked.stop == Stop.UNBACKED,
        "the page has no memory behind it": nowhere,
        "the page holds the harness's own memory": own,
        "a table is not code": in_table & fetch & ~own & ~nowhere,
    }
    return reasons, in_table


def _inside(part: range, addresses: Words) -> Mask:
    inside: Mask = (addresses >= np.uint64(part.start)) & (addresses < np.uint64(part.stop))
    return inside


def _no_memory(memory: BufferMemory, addresses: Words) -> Mask:
    """Which addresses no guest has RAM at."""
    return (addresses > np.uint64(memory.span.last)) | _inside(DEVICES, addresses)


def make_jobs(guest: Guest, cpu: Cpu, expected: Expected) -> npt.NDArray[np.void]:
    """The jobs that put the path of each case back as it was built, try it, and look at it.

    The words of a job are the entries of the path from the root down, and after them the
    word that the access reaches.
    """
    cases, enums = expected.cases, guest.image.enums
    jobs = guest.image.new_jobs(len(cases))
    cases.put(jobs, enums)
    jobs["size"], jobs["flush"] = _width(cpu), enums["FLUSH_PAGE"]

    steps = expected.paths.used.sum(axis=0)
    for column, level in enumerate(reversed(range(len(expected.paths.used)))):
        used = expected.paths.used[level]
        np.copyto(jobs["where"][:, column], expected.paths.slot[level], where=used)
        np.copyto(jobs["word"][:, column], expected.paths.raw[level], where=used)
    jobs["patched"] = jobs["watched"] = steps
    data = expected.allowed & ~expected.astray & (cases.kind != Kind.FETCH)
    jobs["where"][data, steps[data]] = expected.data[data]
    word = _ones(cpu.format.entry_bytes)  # in 32-bit paging, half a mark
    jobs["word"][data, steps[data]] = expected.content[data] & word
    jobs["watched"][data] += 1
    jobs["patched"][data & ~expected.in_table] += 1
    value = np.where(expected.in_table, expected.content, ~expected.content)
    jobs["value"] = value & _ones(_width(cpu))
    return jobs


def judge(
    comparison: Comparison,
    cpu: Cpu,
    guest: Guest,
    expected: Expected,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    quirks: tuple[FaultQuirk, ...],
) -> None:
    """Puts a verdict on every result."""
    entries, care = _entries(cpu, expected)

    def entries_agree(made: Mask, accessed_anyway: Mask | None) -> Mask:
        return entries.agree(results, made, entries.after(made, accessed_anyway), care)

    ran = _ran(cpu, expected, results)
    reached = _data_agrees(cpu, expected, jobs, results, ran)
    untouched = np.uint64(guest.image.enums["CR2_UNTOUCHED"])
    seen = Seen(results, untouched, entries, reached, ran, entries_agree)
    found = _judged(comparison, cpu, guest, expected, seen, quirks)
    agree = found.agree
    comparison.compared += len(agree)
    if not agree.all():

        def agreeing(quirk: FaultQuirk) -> Mask:
            if isinstance(quirk, BasisQuirk):
                return _agreeing_as(quirk, cpu, guest, expected, seen, quirks)
            known = (*quirks, quirk)
            return _judged(Comparison(PROBE), cpu, guest, expected, seen, known).agree

        report_strangers(comparison, guest, quirks, ~agree, agreeing)
    wrong, wanted = np.flatnonzero(~agree), EXAMPLES - len(comparison.disagreements)
    comparison.disagree(
        len(wrong),
        (
            _describe(expected, jobs, results, lane, bool(found.held[lane]))
            for lane in wrong[:wanted].tolist()
        ),
    )


def _judged(
    comparison: Comparison,
    cpu: Cpu,
    guest: Guest,
    expected: Expected,
    seen: Seen,
    known: tuple[FaultQuirk, ...],
) -> Judged:
    """What the guest saw beside the rules, as an engine follows them that has the quirks `known`.

    Nothing was laid where such an engine alone makes the access: it is excused where that ends.
    """
    rules, reading = expected.outcomes, expected.reading
    as_engine = replace(reading, lapses=lapses(known))
    ends = ~as_engine.allowed
    elsewhere = {quirk: lanes & ends for quirk, lanes in departing(as_engine, known).items()}
    if not elsewhere:
        return judged(comparison, reading, rules, seen, known)
    apart = np.logical_or.reduce(list(elsewhere.values()))
    found = judged(comparison, reading, rules, seen, known, apart)
    found.held[apart] = reading.says(rules, apart)[apart]
    found.agree[apart] = (found.by_rule & found.held)[apart]
    for quirk, lanes in elsewhere.items():
        departs = _agreeing_as(quirk, cpu, guest, expected, seen, known)
        found.agree[lanes] |= showing(
            comparison, quirk, lanes & found.held, found.by_rule, departs
        )[lanes]
    return found


def _agreeing_as(
    quirk: BasisQuirk,
    cpu: Cpu,
    guest: Guest,
    expected: Expected,
    seen: Seen,
    quirks: tuple[FaultQuirk, ...],
) -> Mask:
    """The lanes that a quirk has end in another way than the rules, and that end so; wherever they
    reached, since they were asked for what is there by the rules."""
    reading = replace(expected.reading, lapses=quirk.lapse)
    lanes = reading.departs(quirk.lapse)
    if not lanes.any():
        return lanes
    basis = quirk.as_if(Basis(cpu, expected.cases))
    cpu, cases, memory = basis.cpu, basis.cases, BufferMemory(guest.ram.buffer)
    rules = outcomes(cpu, memory, cases.address, cases.kind, cases.user, cases.ac)
    all_lanes = np.ones(len(cases), np.bool_)
    ends = replace(seen, reached=all_lanes, entries=lambda made, accessed_anyway: all_lanes)
    return lanes & judged(Comparison(PROBE), reading, rules, ends, quirks).agree


def _data_agrees(
    cpu: Cpu,
    expected: Expected,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    ran: Mask,
) -> Mask:
    """Whether each access that is made reached its word.  A table's word may have been used."""
    kind = expected.cases.kind
    steps = expected.paths.used.sum(axis=0)
    lanes = np.arange(len(steps))
    after = results["after"][lanes, steps]
    used = np.uint64(cpu.format.accessed | cpu.format.dirty)
    care = np.where(expected.in_table, ~used, ~np.uint64(0))
    wide = _ones(_width(cpu))
    read = ((results["data"] ^ expected.content & wide) & care) == 0
    stored = jobs["value"] | expected.content & ~wide & _ones(cpu.format.entry_bytes)
    written = ((after ^ stored) & care) == 0
    fetched = ran & (results["vector"] == INVALID_OPCODE)
    same: Mask = np.select([kind == Kind.READ, kind == Kind.WRITE], [read, written], fetched)
    return (same | ~expected.allowed) & ~expected.astray


def _ran(cpu: Cpu, expected: Expected, results: npt.NDArray[np.void]) -> Mask:
    """Whether code ran to its last instruction, and is what lies where it was fetched."""
    end = expected.cases.address + np.uint64(code_of(cpu).end)
    ran: Mask = (results["rip"] == end) & (results["data"] == expected.content)
    return ran


def _entries(cpu: Cpu, expected: Expected) -> tuple[PathEntries, Words]:
    """What the accesses leave in their paths, and the bits of these that can be compared.

    Where the stub's own accesses go by an entry too, A may come of these.  A write to an entry of
    its own path stores over what it sets there.
    """
    format, paths, kind = cpu.format, expected.paths, expected.cases.kind
    entries = PathEntries.of_paths(format, paths, expected.outcomes.walks.level, kind)
    entries.free[expected.window] |= np.uint64(format.accessed)
    own = expected.in_table & (kind == Kind.WRITE) & (paths.slot == expected.data)
    return entries, paths.used * ALL & ~(own * np.uint64(format.accessed | format.dirty))


def _describe(
    expected: Expected,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    lane: int,
    held: bool,
) -> Disagreement:
    cases, result = expected.cases, results[lane]
    steps = int(expected.paths.used[:, lane].sum())
    kind = Kind(int(cases.kind[lane]))
    found = int(result["after"][steps] if kind is Kind.WRITE else result["data"])
    before = jobs["word"][lane, :steps].tolist()
    return Disagreement(
        oracle=PROBE,
        address=int(cases.address[lane]),
        access=Access(kind, bool(cases.user[lane])),
        flags=AC if cases.ac[lane] else frozenset(),
        expected=expected_text(expected.outcomes, lane, held),
        observed=observed_text(result, found, bool(expected.allowed[lane]), before),
    )
