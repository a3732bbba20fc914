"""A space of RISC-V that is changed while a guest runs in it: `harness.check.live`, and what
accesses, flushes and entries are here.

A flush of an address reaches its leaf, and none of the pointers to it ("Supervisor
Memory-Management Fence Instruction"): where a pointer has changed, what was kept by it counts as
kept until all is flushed.  Entries that are absent, or deny an access, may be kept as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from harness.check import live
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.hole import find_root_hole
from harness.check.live import READ, WRITTEN, Asked, Flushed, from_root, watch
from harness.check.marks import mark, marked, put_marks
from harness.check.riscv.cases import Stated
from harness.check.riscv.marks import CODE, CODE_BYTES, code_mark, put_code
from harness.check.riscv.matrix.chain import NONE_MISSING, Lanes
from harness.check.riscv.matrix.hart import Hart
from harness.check.riscv.matrix.judged import departing
from harness.check.riscv.probes import ACCESSES as JOBS
from harness.check.riscv.probes import ENVIRONMENT_CALLS
from harness.check.riscv.quirks import judged_of
from harness.check.riscv.window import entries
from harness.check.space import NotedMemory
from harness.check.window import Window, open_window
from harness.machine.errors import Misuse
from harness.machine.ram import spans
from harness.machine.riscv.guest import Guest, State
from harness.paging import bulk
from harness.paging.bulk import Bytes, Counts, End
from harness.paging.memory import Mask, Words
from harness.paging.riscv.access import Kind
from harness.paging.riscv.bulk import ALLOWED, REASONS, Outcomes, outcomes
from harness.paging.riscv.cpu import Cpu

_BY: Final = ((False, False, False), (False, True, False), (True, False, False))

ACCESSES: Final = (
    *((kind, *how) for kind in (Kind.READ, Kind.WRITE) for how in _BY),
    (Kind.READ, False, True, True),
    (Kind.READ, True, False, True),
    (Kind.FETCH, False, False, False),
    (Kind.FETCH, True, False, False),
)
"""Kind, as U-mode, with SUM, with MXR: what is tried at a page, in this order."""


@dataclass(frozen=True, kw_only=True)
class Accesses(Asked):
    """Accesses of one `probe`, by RISC-V's rules."""

    kind: Bytes
    user: Mask
    sum: Mask
    mxr: Mask
    rules: Outcomes


class Live(live.Live):
    """A guest of RISC-V that runs under the tables of a space while they are changed."""

    SOURCE = "Supervisor Memory-Management Fence Instruction"
    FLUSHES: ClassVar = {
        (True, True): "FLUSH_ALL",
        (True, False): "FLUSH_ASID",
        (False, True): "FLUSH_PAGE",
        (False, False): "FLUSH_PAGE_ASID",
    }
    """SFENCE.VMA: those of one address space leave what is global."""
    EACH = len(ACCESSES)

    def __init__(self, guest: Guest, memory: NotedMemory, cpu: Cpu) -> None:
        self._guest: Guest
        self._quirks = judged_of(guest.engine.name, guest.version)
        self._hart = Hart.of(cpu.mode.value, guest.info)
        super().__init__(guest, memory, cpu)

    def _open(self, cpu: Cpu) -> Window:
        check_root(self._guest, cpu)
        hole = find_root_hole(self._memory, cpu.roots[0])
        image = self._guest.image
        return open_window(self._memory, cpu.roots, image, self._allocator, entries, hole)

    def _state(self, cpu: Cpu, window: Window) -> State:
        return State(cpu.satp, window.span.first, cpu.menvcfg, cpu.senvcfg, cpu.xlen)

    def _accesses(self, cpu: Cpu, pages: Words) -> Accesses:
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: CODE}
        columns = (np.repeat(column, len(pages)) for column in zip(*ACCESSES, strict=True))
        kind, user, sum_, mxr = columns
        kind = kind.astype(np.uint8)
        address = np.concatenate([pages + np.uint64(offset[one[0]]) for one in ACCESSES])
        address &= np.uint64((1 << cpu.xlen) - 1)
        rules = outcomes(cpu, self._memory, address, kind, user, sum_, mxr)
        paths = bulk.paths(self._memory, cpu.roots[0], address)
        paths.used[:, rules.walks.end == End.NO_ROOT] = False
        levels = np.arange(len(paths.used), dtype=np.uint8)[:, np.newaxis]
        how = user * np.uint64(1) | sum_ * np.uint64(2) | mxr * np.uint64(4)
        lasting = paths.used & (paths.raw & np.uint64(cpu.format.lasting) != 0)
        return Accesses(
            cpu=cpu,
            address=address,
            key=address | how,
            reads=kind == Kind.READ,
            writes=kind == Kind.WRITE,
            fetches=kind == Kind.FETCH,
            allowed=rules.cause == ALLOWED,
            lasting=lasting.any(axis=0),
            walks=rules.walks,
            paths=paths,
            sets=np.where(levels == rules.walks.level, rules.sets, np.uint64(0)),
            aimed=rules.walks.physical,
            value=np.zeros(len(address), np.uint64),
            kind=kind,
            user=user,
            sum=sum_,
            mxr=mxr,
            rules=rules,
        )

    def _left_out(self, asked: Accesses) -> Mapping[str, Mask]:
        n = len(asked)
        lanes = Lanes.along(
            asked.paths,
            np.full(n, NONE_MISSING, np.uint8),
            asked.address,
            asked.kind,
            asked.user,
            asked.sum,
            asked.mxr,
            mprv=np.zeros(n, np.bool_),
        )
        return departing(self._hart, asked.cpu, lanes, self._quirks)

    def _jobs(self, asked: Accesses) -> npt.NDArray[np.void]:
        enums = self._guest.image.enums
        jobs = self._guest.image.new_jobs(len(asked))
        jobs["address"], jobs["value"] = asked.address, asked.value
        for kind, name in JOBS.items():
            jobs["access"][asked.kind == kind] = enums[f"ACCESS_{name}"]
        for name in ("user", "sum", "mxr"):
            jobs[name] = getattr(asked, name)
        jobs["size"] = asked.cpu.xlen // 8
        watch(jobs, asked, asked.cpu.base)
        return jobs

    def _put_marks(self, asked: Accesses, reads: Words, fetches: Words) -> None:
        put_marks(self._memory, reads)
        put_code(self._memory, fetches, asked.cpu.xlen)

    def _agree(
        self,
        comparison: Comparison,
        asked: Accesses,
        results: npt.NDArray[np.void],
        earlier: Sequence[Asked | Flushed],
    ) -> Mask:
        allowed, levels, width = asked.allowed, len(asked.paths.slot), _width(asked)
        call = np.where(asked.user, *ENVIRONMENT_CALLS[::-1])
        ended = np.where(asked.fetches, call, self._guest.image.enums["CAUSE_NONE"])
        cause = np.where(allowed, ended, asked.rules.cause)
        agree: Mask = (results["completed"] == allowed) & (results["cause"] == cause)
        agree &= results["tval"] == np.where(allowed, np.uint64(0), asked.walks.address)
        agree &= ~allowed | asked.writes | (_data(asked, results["data"]) == _found(asked))
        agree &= ~(allowed & asked.writes) | (
            results["after"][:, levels] & width == asked.value & width
        )
        code_end = asked.address + np.uint64(CODE_BYTES - 4)
        where = np.where(allowed, code_end, asked.address)
        agree &= ~asked.fetches | (results["epc"] == where)
        after = asked.after_in_turn
        for level in range(levels):
            seen = results["after"][:, levels - 1 - level]
            agree &= (seen == after[level]) | ~asked.paths.used[level]
        return agree

    def _drops(
        self, flushed: Flushed, source: Accesses, theirs: Counts, now: Accesses, lanes: Counts
    ) -> Mask:
        dropped = ~source.lasting[theirs] | flushed.global_pages
        if flushed.addresses is None:
            return dropped
        above = np.arange(len(now.paths.used))[:, np.newaxis] > source.walks.level[theirs]
        changed = source.paths.raw[:, theirs] != now.paths.raw[:, lanes]
        same_way: Mask = ~(above & changed).any(axis=0)
        return dropped & flushed.names(source.address[theirs], source.shift[theirs]) & same_way

    def _ended_as(self, asked: Accesses, lane: int, result: np.void) -> bool:
        if not asked.allowed[lane]:
            return not result["completed"] and result["cause"] == asked.rules.cause[lane]
        found = _data(asked, np.full(len(asked), result["data"]))
        named = asked.writes[lane] or found[lane] == _found(asked)[lane]
        return bool(result["completed"] and named)

    def _told(self, asked: Accesses, lane: int, result: np.void) -> Disagreement:
        state = (bool(one[lane]) for one in (asked.user, asked.sum, asked.mxr))
        reason = REASONS[int(asked.rules.reason[lane])]
        rules = (
            f"reaches {int(asked.aimed[lane]):#x}"
            if reason is None
            else f"cause {int(asked.rules.cause[lane])}: {reason.value}"
        )
        levels = len(asked.paths.slot)
        if result["completed"]:
            found = int(result["after"][levels] if asked.writes[lane] else result["data"])
            saw = f"done, and the word is {found:#x}"
            if asked.reads[lane] and asked.cpu.xlen == 64:
                saw += f", the mark of {marked(found):#x}"
        else:
            saw = f"cause {int(result['cause'])}, tval {int(result['tval']):#x}"
        return Disagreement(
            oracle=PROBE,
            address=int(asked.address[lane]),
            access=Stated(Kind(int(asked.kind[lane])), *state),
            expected=rules,
            observed=f"{saw}; entries from the root down: {from_root(asked, lane, result)}",
        )


def check_root(guest: Guest, cpu: Cpu) -> None:
    """Raises Misuse where walks do not begin in a table of the guest's memory that is the
    caller's."""
    if not any(part.start <= cpu.base < part.stop for part in guest.free):
        raise Misuse(
            f"satp {cpu.satp:#x} has the root table at {cpu.base:#x}, where there is no memory for"
            f" tables: it is {spans(guest.free)}"
        )


def _width(asked: Asked) -> np.uint64:
    """All bits of a register."""
    return np.uint64((1 << asked.cpu.xlen) - 1)


def _data(asked: Asked, data: Words) -> Words:
    """What counts of what accesses found: of code it is what a register of 32 bits holds."""
    return data & np.where(asked.fetches, np.uint64(0xFFFF_FFFF), _width(asked))


def _found(asked: Asked) -> Words:
    """What a read or a fetch finds where it reaches."""
    return np.where(asked.fetches, code_mark(asked.aimed), mark(asked.aimed) & _width(asked))
