"""A space of x86 that is changed while a guest runs in it: `harness.check.live`, and what accesses,
flushes and entries are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from harness.check import live
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.hole import find_root_hole
from harness.check.live import ALL, READ, WRITTEN, Asked, Flushed, in_turn, kept_code
from harness.check.marks import WORD, mark, put_marks
from harness.check.quirk import expected_of
from harness.check.space import NotedMemory
from harness.check.x86 import marks
from harness.check.x86.cases import AC, Cases
from harness.check.x86.entries import PathEntries
from harness.check.x86.marks import INVALID_OPCODE, LONG_CODE
from harness.check.x86.quirks import KEPT_CODE, DenialQuirk, fault_quirks
from harness.check.x86.second_reading import Reading, by_tables
from harness.check.x86.verdicts import Seen, expected_text, judged, observed_text
from harness.check.x86.window import Window, check_root, open_window
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import Counts, End
from harness.paging.memory import Mask, Words
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes, outcomes
from harness.paging.x86.cpu import Cpu, Cr4

ACCESSES = (
    *((Kind.READ, *how) for how in ((False, False), (False, True), (True, False))),
    *((Kind.WRITE, *how) for how in ((False, False), (False, True), (True, False))),
    *((Kind.FETCH, *how) for how in ((False, False), (True, False))),
)
"""Kind, from user mode, with EFLAGS.AC: what is tried at a page, in this order."""


@dataclass(frozen=True, kw_only=True)
class Accesses(Asked):
    """Accesses of one `probe`, by x86's rules.

    entries  what each leaves in the entries of its path, were it the only one
    """

    cases: Cases
    rules: Outcomes
    entries: PathEntries


class Live(live.Live):
    """A guest that runs under tables of 4 or 5 levels while they are changed."""

    SOURCE = "SDM 4.10.4"
    FLUSHES: ClassVar = {
        (True, True): "FLUSH_GLOBAL",
        (True, False): "FLUSH_ALL",
        (False, True): "FLUSH_PAGE",
        (False, False): "FLUSH_PAGE",
    }
    """A change of CR4.PGE, a load of CR3, and INVLPG, which drops what is global too."""
    EACH = len(ACCESSES)

    def __init__(self, guest: Guest, memory: NotedMemory, cpu: Cpu) -> None:
        engine, version = executor(guest)
        self._quirks = fault_quirks(engine, version)
        self._keeps_code = expected_of(KEPT_CODE, engine, version)
        super().__init__(guest, memory, cpu)

    def _open(self, cpu: Cpu) -> Window:
        check_root(self._guest.free, cpu)
        hole = find_root_hole(self._memory, cpu.roots[0])
        return open_window(self._memory, cpu, self._guest.image, self._allocator, hole)

    def _state(self, cpu: Cpu, window: Window) -> State:
        control = {name: getattr(cpu, name) for name in ("cr0", "cr4", "efer", "pkru", "pkrs")}
        return replace(window.state, cr3=cpu.cr3, **control)

    def _left_alone(self) -> Mapping[str, Span]:
        return {q.name: q.kept for q in self._quirks if isinstance(q, DenialQuirk)}

    def _accesses(self, cpu: Cpu, pages: Words) -> Accesses:
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: marks.CODE}
        kind, user, ac = (np.repeat(column, len(pages)) for column in zip(*ACCESSES, strict=True))
        address = np.concatenate([pages + np.uint64(offset[one[0]]) for one in ACCESSES])
        cases = Cases(address, kind.astype(np.uint8), user, ac)
        rules = outcomes(cpu, self._memory, address, cases.kind, user, ac)
        paths = bulk.paths(self._memory, cpu.roots[0], address)
        paths.used[:, rules.walks.end == End.NO_ROOT] = False
        lasting = rules.walks.raw & np.uint64(cpu.format.lasting) != 0
        entries = PathEntries.of_paths(cpu.format, paths, rules.walks.level, cases.kind)
        return Accesses(
            cpu=cpu,
            address=address,
            key=address | user * np.uint64(1) | ac * np.uint64(2),
            reads=cases.kind == Kind.READ,
            writes=cases.kind == Kind.WRITE,
            fetches=cases.kind == Kind.FETCH,
            allowed=rules.vector == ALLOWED,
            lasting=lasting & bool(cpu.cr4 & Cr4.PGE),
            walks=rules.walks,
            paths=paths,
            sets=entries.sets,
            aimed=rules.walks.physical,
            value=np.zeros(len(address), np.uint64),
            cases=cases,
            rules=rules,
            entries=entries,
        )

    def _jobs(self, asked: Accesses) -> npt.NDArray[np.void]:
        jobs = self._guest.image.new_jobs(len(asked))
        asked.cases.put(jobs, self._guest.image.enums)
        jobs["size"], jobs["value"] = WORD, asked.value
        levels = len(asked.paths.slot)
        jobs["watched"] = levels + 1
        for level in range(levels):
            used = asked.paths.used[level]
            jobs["where"][used, levels - 1 - level] = asked.paths.slot[level, used]
        jobs["where"][:, levels] = asked.aimed
        return jobs

    def _put_marks(self, asked: Accesses, reads: Words, fetches: Words) -> None:
        put_marks(self._memory, reads)
        marks.put_code(self._memory, fetches)

    def _agree(
        self,
        comparison: Comparison,
        asked: Accesses,
        results: npt.NDArray[np.void],
        earlier: Sequence[Asked | Flushed],
    ) -> Mask:
        cases, rules, allowed = asked.cases, asked.rules, asked.allowed
        untouched = np.uint64(self._guest.image.enums["CR2_UNTOUCHED"])
        word = results["after"][:, len(asked.paths.slot)]
        named = results["data"] == mark(asked.aimed)
        ran = named & (results["rip"] == asked.address + np.uint64(LONG_CODE.end))
        fetched = ran & (results["vector"] == INVALID_OPCODE)
        made = np.select([asked.reads, asked.writes], [named, word == asked.value], fetched)
        entries = asked.entries

        def entries_agree(made: Mask, accessed_anyway: Mask | None) -> Mask:
            after = in_turn(asked, entries.after(made, accessed_anyway))
            return entries.agree(results, made, after, asked.paths.used * ALL)

        seen = Seen(results, untouched, entries, made | ~allowed, ran, entries_agree)
        reading = Reading(by_tables(asked.cpu, cases, asked.paths.raw))
        agree = judged(comparison, reading, rules, seen, self._quirks).agree
        if self._keeps_code and not agree.all():
            ended = asked.address + np.uint64(LONG_CODE.end)
            suspects = ~agree & (results["cr2"] == untouched) & (results["rip"] == ended)
            suspects &= results["vector"] == INVALID_OPCODE
            code = kept_code(asked, results["data"], suspects, earlier, mark)
            code &= entries_agree(allowed & ~code, None)
            if code.any():
                comparison.quirks[KEPT_CODE.name] += int(code.sum())
            agree |= code
        return agree

    def _drops(
        self, flushed: Flushed, source: Accesses, theirs: Counts, now: Accesses, lanes: Counts
    ) -> Mask:
        return drops(flushed, source.address[theirs], source.shift[theirs], source.lasting[theirs])

    def _ended_as(self, asked: Accesses, lane: int, result: np.void) -> bool:
        if not asked.allowed[lane]:
            fault = (asked.rules.vector[lane], asked.rules.error[lane])
            return not result["completed"] and fault == (result["vector"], result["error"])
        named = asked.writes[lane] or result["data"] == mark(asked.aimed[lane : lane + 1])[0]
        return bool(result["completed"] and named)

    def _told(self, asked: Accesses, lane: int, result: np.void) -> Disagreement:
        cases, writes, levels = asked.cases, asked.writes[lane], len(asked.paths.slot)
        found = int(result["after"][levels] if writes else result["data"])
        marked = bool(asked.allowed[lane] and not writes)
        used = asked.paths.used[::-1, lane]
        before = asked.paths.raw[::-1, lane][used].tolist()  # none where no root is for the address
        return Disagreement(
            oracle=PROBE,
            address=int(asked.address[lane]),
            access=Access(Kind(int(cases.kind[lane])), bool(cases.user[lane])),
            flags=AC if cases.ac[lane] else frozenset(),
            expected=expected_text(asked.rules, lane),
            observed=observed_text(result, found, marked, before),
        )


def drops(flushed: Flushed, address: Words, shift: Words, is_global: Mask) -> Mask:
    """Which translations are dropped, of pages of 2**shift bytes: INVLPG drops what is global too,
    and every pointer that leads to an address (SDM volume 3A, 4.10.4.1)."""
    if flushed.addresses is None:
        return ~is_global | flushed.global_pages
    return flushed.names(address, shift)
