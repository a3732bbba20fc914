"""A space of arm64 that is changed while a guest runs in it: `harness.check.live`, and what
accesses, flushes and entries are here.

What may become another entry only by way of an absent one does so in the guest: it stores what is
absent, flushes, and stores what comes then (break-before-make).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from harness.check import live
from harness.check.arm64.cases import Cases, Stated
from harness.check.arm64.marks import CODE, CODE_BYTES, code_mark, put_code
from harness.check.arm64.probes import (
    ACCESSES as JOBS,
)
from harness.check.arm64.probes import (
    SAID,
    SVC,
    left_out,
    of_cases,
    paths_of,
    rules_say,
)
from harness.check.arm64.quirks import KEPT_CODE
from harness.check.arm64.validate import state_of
from harness.check.arm64.window import entries
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.hole import find_root_hole
from harness.check.live import READ, WRITTEN, Asked, Flushed, from_root, in_turn, kept_code, watch
from harness.check.marks import WORD, mark, marked, put_marks
from harness.check.quirk import expected_of
from harness.check.space import NotedMemory
from harness.check.window import Window, open_window
from harness.machine.arm64.guest import Guest, State
from harness.machine.errors import Misuse
from harness.machine.ram import spans
from harness.paging.arm64.access import Kind
from harness.paging.arm64.bulk import Outcomes
from harness.paging.arm64.cpu import Cpu
from harness.paging.arm64.formats import NG
from harness.paging.bulk import Counts
from harness.paging.memory import Mask, Words

WAYS: Final = (
    *(Stated(kind, el0, pan) for kind in (Kind.READ, Kind.WRITE) for el0, pan in (
        (False, False), (False, True), (True, False),
    )),
    Stated(Kind.FETCH, False),
    Stated(Kind.FETCH, True),
)  # fmt: skip
"""What is tried at a page, in this order."""


@dataclass(frozen=True, kw_only=True)
class Accesses(Asked):
    """Accesses of one `probe`, by arm64's rules."""

    cases: Cases
    rules: Outcomes


class Live(live.Live):
    """A guest of arm64 that runs under the tables of a space while they are changed; of the lower
    half, on a processor that keeps no dirty state (TCR_EL1.HD=0)."""

    SOURCE = "TLB maintenance instructions"
    FLUSHES: ClassVar = {
        (True, True): "FLUSH_ALL",
        (True, False): "FLUSH_ASID",
        (False, True): "FLUSH_PAGE",
        (False, False): "FLUSH_PAGE_ASID",
    }
    """TLBI: that of an address space leaves what is global, that of an address does not."""
    EACH = len(WAYS)

    def __init__(self, guest: Guest, memory: NotedMemory, cpu: Cpu) -> None:
        if cpu.high is not None or cpu.keeps_dirty_state:
            raise Misuse("live is for the lower half alone, with TCR_EL1.EPD1=1 and HD=0")
        self._guest: Guest
        self._keeps_code = expected_of(KEPT_CODE, guest.engine.name, guest.version)
        super().__init__(guest, memory, cpu)

    def _open(self, cpu: Cpu) -> Window:
        check_root(self._guest, cpu)
        hole = find_root_hole(self._memory, cpu.roots[0])
        image = self._guest.image
        return open_window(self._memory, cpu.roots, image, self._allocator, entries, hole)

    def _state(self, cpu: Cpu, window: Window) -> State:
        return state_of(cpu, window.span)

    def _accesses(self, cpu: Cpu, pages: Words) -> Accesses:
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: CODE}
        n = len(pages)
        kind, el0, pan, uao = (
            np.repeat(column, n) for column in zip(*map(astuple, WAYS), strict=True)
        )
        address = np.concatenate([pages + np.uint64(offset[way.kind]) for way in WAYS])
        cases = Cases(address, kind.astype(np.uint8), el0, pan, uao)
        rules = of_cases(cpu, self._memory, cases)
        paths = paths_of(cpu, self._memory, address)
        levels = np.arange(len(paths.used), dtype=np.uint8)[:, np.newaxis]
        return Accesses(
            cpu=cpu,
            address=address,
            key=address | el0 * np.uint64(1) | pan * np.uint64(2),
            reads=cases.kind == Kind.READ,
            writes=cases.kind == Kind.WRITE,
            fetches=cases.kind == Kind.FETCH,
            allowed=rules.reason == 0,
            lasting=rules.walks.raw & np.uint64(NG) == 0,
            walks=rules.walks,
            paths=paths,
            sets=np.where(levels == rules.walks.level, rules.changes, np.uint64(0)),
            aimed=rules.walks.physical,
            value=np.zeros(len(address), np.uint64),
            cases=cases,
            rules=rules,
        )

    def _left_out(self, asked: Accesses) -> Mapping[str, Mask]:
        counted = Comparison(PROBE)
        guest = self._guest
        lanes = left_out(guest.engine.name, guest.version, asked.cpu, asked.rules, counted)
        return {next(iter(counted.not_comparable)): lanes} if lanes.any() else {}

    def _jobs(self, asked: Accesses) -> npt.NDArray[np.void]:
        enums = self._guest.image.enums
        jobs = self._guest.image.new_jobs(len(asked))
        jobs["address"], jobs["value"], jobs["size"] = asked.address, asked.value, WORD
        for kind, name in JOBS.items():
            jobs["access"][asked.cases.kind == kind] = enums[f"ACCESS_{name}"]
        jobs["user"], jobs["pan"], jobs["uao"] = (
            asked.cases.el0,
            asked.cases.pan,
            asked.cases.uao,
        )
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
        ended = np.where(asked.fetches, np.uint64(SVC), np.uint64(0))
        syndrome = np.where(allowed, ended, rules.syndrome)
        agree: Mask = (results["completed"] == allowed) & (results["esr"] & SAID == syndrome)
        agree &= allowed | (results["far"] == rules.far)
        agree &= ~allowed | asked.writes | (results["data"] == _found(asked))
        agree &= ~(allowed & asked.writes) | (results["after"][:, levels] == asked.value)
        code_end = asked.address + np.uint64(CODE_BYTES)
        where = np.where(allowed, code_end, asked.address)
        agree &= ~asked.fetches | (results["elr"] == where)
        agree &= self._entries_agree(asked, results, asked.allowed)
        if self._keeps_code and not agree.all():
            ended = (results["esr"] & SAID == SVC) & (results["elr"] == code_end)
            code = kept_code(asked, results["data"], ~agree & ended, earlier, code_mark)
            code &= self._entries_agree(asked, results, ~code)  # what is denied sets nothing
            if code.any():
                comparison.quirks[KEPT_CODE.name] += int(code.sum())
            agree |= code
        return agree

    @staticmethod
    def _entries_agree(asked: Accesses, results: npt.NDArray[np.void], made: Mask) -> Mask:
        """Whether the descriptors of paths are as these accesses leave them."""
        levels, agree = len(asked.paths.slot), np.ones(len(asked), np.bool_)
        after = in_turn(asked, asked.paths.raw | made * asked.sets)
        for level in range(levels):
            may = np.where(asked.walks.level == level, asked.rules.may, np.uint64(0))
            differs = (results["after"][:, levels - 1 - level] ^ after[level]) & ~may
            agree &= (differs == 0) | ~asked.paths.used[level]
        return agree

    def _drops(
        self, flushed: Flushed, source: Accesses, theirs: Counts, now: Accesses, lanes: Counts
    ) -> Mask:
        if flushed.addresses is None:
            return ~source.lasting[theirs] | flushed.global_pages
        return flushed.names(source.address[theirs], source.shift[theirs])

    def _ended_as(self, asked: Accesses, lane: int, result: np.void) -> bool:
        if not asked.allowed[lane]:
            said = int(result["esr"]) & int(SAID)
            return not result["completed"] and said == asked.rules.syndrome[lane]
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
            saw = f"ESR {int(result['esr']):#x}, FAR {int(result['far']):#x}"
        return Disagreement(
            oracle=PROBE,
            address=int(asked.address[lane]),
            access=asked.cases.stated(lane),
            expected=rules_say(asked.rules, lane),
            observed=f"{saw}; entries from the root down: {from_root(asked, lane, result)}",
        )


def check_root(guest: Guest, cpu: Cpu) -> None:
    """Raises Misuse where walks do not begin in a table of the guest's memory that is the
    caller's."""
    registers = {"TTBR0_EL1": (cpu.low, cpu.ttbr0), "TTBR1_EL1": (cpu.high, cpu.ttbr1)}
    for name, (half, register) in registers.items():
        if half is None or any(part.start <= half.root < part.stop for part in guest.free):
            continue
        raise Misuse(
            f"{name} {register:#x} leads to no table where there is memory for tables: it is"
            f" {spans(guest.free)}"
        )


def _found(asked: Asked) -> Words:
    """What a read or a fetch finds where it reaches."""
    return np.where(asked.fetches, code_mark(asked.aimed), mark(asked.aimed))
