"""A space of s390 that is changed while a guest runs in it: `harness.check.live`, and what
accesses, flushes and entries are here.

An address is flushed by IPTE of its page-table entry, everything by PTLB.  IPTE reaches what was
made of that entry, and none of the entries above it ("Modification of Translation Tables"): where
one of these has changed, what was kept by it counts as kept until all is flushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from harness.check import live
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.live import READ, WRITTEN, Asked, Flushed, from_root, watch
from harness.check.marks import mark, marked, put_marks
from harness.check.s390.cases import SPACE_OF, SPACES
from harness.check.s390.marks import CODE, CODE_BYTES, put_code
from harness.check.s390.probes import ACCESSES as JOBS
from harness.check.s390.probes import named
from harness.check.s390.validate import state_of
from harness.machine.errors import Misuse
from harness.machine.ram import spans
from harness.machine.s390.guest import State
from harness.paging import bulk
from harness.paging.bulk import Bytes, Counts
from harness.paging.memory import Mask, Words, within
from harness.paging.s390.access import Access, Kind
from harness.paging.s390.bulk import ALLOWED, REASONS, Outcomes, outcomes
from harness.paging.s390.cpu import Cpu

ACCESSES: Final = tuple((kind, user) for kind in Kind for user in (False, True))
"""Kind, and whether in problem state: what is tried at a page, in this order."""


@dataclass(frozen=True, kw_only=True)
class Accesses(Asked):
    """Accesses of one `probe`, by s390's rules."""

    kind: Bytes
    user: Mask
    rules: Outcomes


class Live(live.Live):
    """A guest of s390 that runs under the tables of a space while they are changed."""

    SOURCE = "Modification of Translation Tables"
    FLUSHES: ClassVar = {
        (everything, lasting): "FLUSH_ALL" if everything else "FLUSH_PAGE"
        for everything in (False, True)
        for lasting in (False, True)
    }
    """Nothing outlives a change of the ASCE but by its number, and there is one."""
    EACH = len(ACCESSES)

    def _open(self, cpu: Cpu) -> None:
        """The stub runs in no tested space."""
        if not any(part.start <= cpu.base < part.stop for part in self._guest.free):
            raise Misuse(
                f"ASCE {cpu.asce:#x} has the root's table at {cpu.base:#x}, where there is no"
                f" memory for tables: it is {spans(self._guest.free)}"
            )

    def _state(self, cpu: Cpu, window: None) -> State:
        return state_of(cpu)

    def _naming_entries(self, jobs: npt.NDArray[np.void], flushed: Flushed) -> npt.NDArray[np.void]:
        """IPTE names the entry.  Where an address has none, no page was made of one."""
        if flushed.addresses is None:
            return jobs
        [root] = self.cpu.roots
        paths = bulk.paths(self._memory, root, flushed.addresses)
        there = paths.used[0] & within(flushed.addresses, root.span)
        jobs["where"][:, 0] = np.where(there, paths.slot[0], np.uint64(0))
        jobs["watched"] = there
        jobs["flush"][~there] = self._guest.image.enums["FLUSH_NONE"]
        return jobs

    def _accesses(self, cpu: Cpu, pages: Words) -> Accesses:
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: CODE}
        kind, user = (np.repeat(one, len(pages)) for one in zip(*ACCESSES, strict=True))
        kind = kind.astype(np.uint8)
        address = np.concatenate([pages + np.uint64(offset[one]) for one, _ in ACCESSES])
        rules = outcomes(cpu, self._memory, address, kind, SPACE_OF.take(kind))
        [root] = cpu.roots
        paths = bulk.paths(self._memory, root, address)
        paths.used[:, ~within(address, root.span)] = False
        return Accesses(
            cpu=cpu,
            address=address,
            key=address | user,
            reads=kind == Kind.READ,
            writes=kind == Kind.WRITE,
            fetches=kind == Kind.FETCH,
            allowed=rules.code == ALLOWED,
            lasting=np.zeros(len(address), np.bool_),
            walks=rules.walks,
            paths=paths,
            sets=np.zeros_like(paths.raw),
            aimed=rules.walks.physical,
            value=np.zeros(len(address), np.uint64),
            kind=kind,
            user=user,
            rules=rules,
        )

    def _jobs(self, asked: Accesses) -> npt.NDArray[np.void]:
        enums = self._guest.image.enums
        jobs = self._guest.image.new_jobs(len(asked))
        jobs["address"], jobs["value"], jobs["user"] = asked.address, asked.value, asked.user
        for kind, name in JOBS.items():
            jobs["access"][asked.kind == kind] = enums[f"ACCESS_{name}"]
        watch(jobs, asked, asked.cpu.base)
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
        none = np.uint16(self._guest.image.enums["CODE_NONE"])
        agree: Mask = results["completed"] == allowed
        agree &= results["code"] == np.where(allowed, none, rules.code)
        agree &= (rules.teid == 0) | (results["teid"] == rules.teid)
        agree &= ~allowed | asked.writes | (results["data"] == mark(asked.aimed))
        agree &= ~(allowed & asked.writes) | (results["after"][:, levels] == asked.value)
        end = asked.address + np.uint64(CODE_BYTES)
        agree &= ~(allowed & asked.fetches) | (results["address"] == end)
        for level in range(levels):
            seen = results["after"][:, levels - 1 - level]
            agree &= (seen == asked.paths.raw[level]) | ~asked.paths.used[level]
        return agree

    def _drops(
        self, flushed: Flushed, source: Accesses, theirs: Counts, now: Accesses, lanes: Counts
    ) -> Mask:
        if flushed.addresses is None:
            return np.ones(len(theirs), np.bool_)
        above = np.arange(len(now.paths.used))[:, np.newaxis] > source.walks.level[theirs]
        changed = source.paths.raw[:, theirs] != now.paths.raw[:, lanes]
        same_way: Mask = ~(above & changed).any(axis=0)
        return flushed.names(source.address[theirs], source.shift[theirs]) & same_way

    def _ended_as(self, asked: Accesses, lane: int, result: np.void) -> bool:
        if not asked.allowed[lane]:
            return not result["completed"] and result["code"] == asked.rules.code[lane]
        found = mark(asked.aimed[lane : lane + 1])[0]
        return bool(result["completed"] and (asked.writes[lane] or result["data"] == found))

    def _told(self, asked: Accesses, lane: int, result: np.void) -> Disagreement:
        kind, levels = Kind(int(asked.kind[lane])), len(asked.paths.slot)
        reason = REASONS[int(asked.rules.reason[lane])]
        rules = (
            f"reaches {int(asked.aimed[lane]):#x}"
            if reason is None
            else f"{named(int(asked.rules.code[lane]))}: {reason.value}"
        )
        if result["completed"]:
            found = int(result["after"][levels] if asked.writes[lane] else result["data"])
            saw = f"done, and the word is {found:#x}"
            if not asked.writes[lane]:
                saw += f", the mark of {marked(found):#x}"
        else:
            saw = f"{named(int(result['code']))}, TEID {int(result['teid']):#x}"
        return Disagreement(
            oracle=PROBE,
            address=int(asked.address[lane]),
            access=Access(kind, bool(asked.user[lane]), SPACES[kind]),
            expected=rules,
            observed=f"{saw}; entries from the root down: {from_root(asked, lane, result)}",
        )
