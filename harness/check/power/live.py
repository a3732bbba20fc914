"""A space of POWER that is changed while a guest runs in it: `harness.check.live`, and what
accesses, flushes and entries are here.

What may become another entry only by way of an absent one does so in the guest: it stores what is
absent, flushes, and stores what comes then.  A tlbie names the size of a page, which a `Flush` does
not say: the guest makes one for each size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from harness.check import live
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.hole import find_root_hole
from harness.check.live import READ, WRITTEN, Asked, Flushed, from_root, in_turn, kept_code, watch
from harness.check.marks import WORD, mark, marked, put_marks
from harness.check.power.cases import Cases
from harness.check.power.marks import CODE, CODE_BYTES, code_mark, put_code
from harness.check.power.probes import (
    ACCESSES,
    SAID,
    SYSTEM_CALL,
    of_cases,
    paths_of,
    rules_say,
)
from harness.check.power.quirks import KEPT_CODE
from harness.check.power.validate import state_of
from harness.check.power.window import entries
from harness.check.quirk import expected_of
from harness.check.space import NotedMemory
from harness.check.window import Window, open_window
from harness.machine.errors import Misuse
from harness.machine.power.guest import Guest, State
from harness.machine.ram import spans
from harness.paging.bulk import Counts
from harness.paging.memory import Mask, Words
from harness.paging.power.access import Access, Kind
from harness.paging.power.bulk import Outcomes
from harness.paging.power.cpu import Cpu

WAYS: Final = tuple(Access(kind, user) for kind in Kind for user in (False, True))
"""What is tried at a page, in this order."""


@dataclass(frozen=True, kw_only=True)
class Accesses(Asked):
    """Accesses of one `probe`, by POWER's rules."""

    cases: Cases
    rules: Outcomes


class Live(live.Live):
    """A guest of POWER that runs under the tables of a space while they are changed: that of the
    process, in quadrant 0."""

    SOURCE = "TLB Invalidate Entry (tlbie)"
    FLUSHES: ClassVar = {
        (True, True): "FLUSH_PROCESS",
        (True, False): "FLUSH_PROCESS",
        (False, True): "FLUSH_PAGE",
        (False, False): "FLUSH_PAGE",
    }
    """tlbie with RIC=2 of the process, and with RIC=0 of an address; nothing is global."""
    EACH = len(WAYS)

    def __init__(self, guest: Guest, memory: NotedMemory, cpu: Cpu) -> None:
        if cpu.quadrant3:
            raise Misuse("live is for the tree of the process alone, with none of process 0")
        self._guest: Guest
        self._keeps_code = expected_of(KEPT_CODE, guest.engine.name, guest.version)
        super().__init__(guest, memory, cpu)

    def _open(self, cpu: Cpu) -> Window:
        at = cpu.roots[0].table.address if cpu.roots else -1
        if not any(part.start <= at < part.stop for part in self._guest.free):
            raise Misuse(
                f"the tree of the process ({cpu.quadrant0 or 0:#x}) begins at no table where there"
                f" is memory for tables: it is {spans(self._guest.free)}"
            )
        hole = find_root_hole(self._memory, cpu.roots[0])
        image = self._guest.image
        return open_window(self._memory, cpu.roots, image, self._allocator, entries, hole)

    def _state(self, cpu: Cpu, window: Window) -> State:
        return state_of(cpu, window.span)

    def _accesses(self, cpu: Cpu, pages: Words) -> Accesses:
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: CODE}
        n = len(pages)
        address = np.concatenate([pages + np.uint64(offset[way.kind]) for way in WAYS])
        kind = np.repeat([way.kind for way in WAYS], n).astype(np.uint8)
        cases = Cases(address, kind, np.repeat([way.user for way in WAYS], n))
        rules = of_cases(cpu, self._memory, cases)
        paths = paths_of(cpu, self._memory, address)
        levels = np.arange(len(paths.used), dtype=np.uint8)[:, np.newaxis]
        return Accesses(
            cpu=cpu,
            address=address,
            key=address | cases.user * np.uint64(1),
            reads=kind == Kind.READ,
            writes=kind == Kind.WRITE,
            fetches=kind == Kind.FETCH,
            allowed=rules.reason == 0,
            lasting=np.zeros(len(address), np.bool_),
            walks=rules.walks,
            paths=paths,
            sets=np.where(levels == rules.walks.level, rules.sets, np.uint64(0)),
            aimed=rules.walks.physical,
            value=np.zeros(len(address), np.uint64),
            cases=cases,
            rules=rules,
        )

    def _jobs(self, asked: Accesses) -> npt.NDArray[np.void]:
        enums = self._guest.image.enums
        jobs = self._guest.image.new_jobs(len(asked))
        jobs["address"], jobs["value"], jobs["size"] = asked.address, asked.value, WORD
        for kind, name in ACCESSES.items():
            jobs["access"][asked.cases.kind == kind] = enums[f"ACCESS_{name}"]
        jobs["user"] = asked.cases.user
        watch(jobs, asked, asked.cpu.roots[0].table.address)
        return jobs

    def _put_marks(self, asked: Accesses, reads: Words, fetches: Words) -> None:
        put_marks(self._memory, reads)
        put_code(self._memory, fetches)

    def _agree(
        self,
        comparison: Comparison,
        asked: Accesses,
        results: npt.NDArray[np.void],
        earlier: Sequence[Asked | Flushed],
    ) -> Mask:
        allowed, levels, rules = asked.allowed, len(asked.paths.slot), asked.rules
        fetch, status = asked.fetches, rules.status.astype(np.uint64)
        ended = np.where(fetch, SYSTEM_CALL, 0)
        agree: Mask = (results["completed"] == allowed) & (
            results["vector"] == np.where(allowed, ended, rules.interrupt)
        )
        agree &= np.where(fetch, results["srr1"] & SAID, results["dsisr"]) == status
        agree &= fetch | (results["dar"] == np.where(allowed, np.uint64(0), asked.address))
        agree &= ~allowed | asked.writes | (results["data"] == _found(asked))
        agree &= ~(allowed & asked.writes) | (results["after"][:, levels] == asked.value)
        code_end = asked.address + np.uint64(CODE_BYTES)
        agree &= ~fetch | (results["srr0"] == np.where(allowed, code_end, asked.address))
        agree &= self._entries_agree(asked, results, asked.allowed)
        if self._keeps_code and not agree.all():
            ran = (results["vector"] == SYSTEM_CALL) & (results["srr0"] == code_end)
            code = kept_code(asked, results["data"], ~agree & ran, earlier, code_mark)
            code &= self._entries_agree(asked, results, asked.allowed & ~code)
            if code.any():
                comparison.quirks[KEPT_CODE.name] += int(code.sum())
            agree |= code
        return agree

    @staticmethod
    def _entries_agree(asked: Accesses, results: npt.NDArray[np.void], made: Mask) -> Mask:
        """Whether the entries of paths are as these accesses leave them."""
        levels, agree = len(asked.paths.slot), np.ones(len(asked), np.bool_)
        after = in_turn(asked, asked.paths.raw | made * asked.sets)
        for level in range(levels):
            alike = results["after"][:, levels - 1 - level] == after[level]
            agree &= alike | ~asked.paths.used[level]
        return agree

    def _drops(
        self, flushed: Flushed, source: Accesses, theirs: Counts, now: Accesses, lanes: Counts
    ) -> Mask:
        return flushed.names(source.address[theirs], source.shift[theirs])

    def _ended_as(self, asked: Accesses, lane: int, result: np.void) -> bool:
        if not asked.allowed[lane]:
            fetch = bool(asked.fetches[lane])
            said = int(result["srr1"]) & int(SAID) if fetch else int(result["dsisr"])
            wanted = int(asked.rules.interrupt[lane]), int(asked.rules.status[lane])
            return not result["completed"] and (int(result["vector"]), said) == wanted
        named = asked.writes[lane] or result["data"] == _found(asked)[lane]
        return bool(result["completed"] and named)

    def _told(self, asked: Accesses, lane: int, result: np.void) -> Disagreement:
        levels = len(asked.paths.slot)
        if result["completed"]:
            found = int(result["after"][levels] if asked.writes[lane] else result["data"])
            saw = f"done, and the word is {found:#x}"
            if asked.reads[lane]:
                saw += f", the mark of {marked(found):#x}"
        else:
            names = ("vector", "dsisr", "srr1")
            saw = ", ".join(f"{name} {int(result[name]):#x}" for name in names)
        return Disagreement(
            oracle=PROBE,
            address=int(asked.address[lane]),
            access=asked.cases.access(lane),
            expected=rules_say(asked.rules, lane),
            observed=f"{saw}; entries from the root down: {from_root(asked, lane, result)}",
        )


def _found(asked: Asked) -> Words:
    """What a read or a fetch finds where it reaches."""
    return np.where(asked.fetches, code_mark(asked.aimed), mark(asked.aimed))
