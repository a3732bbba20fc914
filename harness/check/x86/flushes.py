"""What the plugin saw of a guest's flushes, in the library's words.

A use is *stale* where a processor may have gone by what it had cached of the tables, and by the
tables as they stand the access faults or leads elsewhere (Intel SDM, volume 3A, 4.10).  It is
*late* where no flush to come excuses it: the thread that changed the entry is back in user mode,
or has run on for longer than the deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from harness.check.flushes import FailOn
from harness.machine.machine import dotted
from harness.machine.plugin import WATCHING, Ending, Watched
from harness.paging.address import Physical, Virtual
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import root_for
from harness.paging.walk import Walk, walk
from harness.paging.x86.cpu import Cpu

UNKNOWN: Final = (1 << 64) - 1
"""In place of an author, where no store was seen."""

WIDEST: Final = 52
"""Bits of a physical address, since the plugin does not learn the processor's own width."""


RUNS: Final = ((7, 2, 22), (8, 2, 2), (10, 0, 13), (11, 1, 3))
"""Versions of QEMU in which the cases of guest/plugin gave what the manual says."""


class Lost(Enum):
    """What the change took away, in the order of `enum lost` in guest/plugin/report.h."""

    PRESENT = "present"
    FRAME = "frame"
    WRITE = "write"
    USER = "user"
    EXECUTE = "execute"
    OTHER = "other"


class Cached(Enum):
    """What was cached: a translation, an entry above it, or a PDPTE register."""

    TRANSLATION = "translation"
    STRUCTURE = "structure"
    REGISTER = "register"


class Flush(Enum):
    """What ended what was cached, if anything did, in the order of `enum how`."""

    INVLPG = "invlpg"
    MOV_CR3 = "mov_cr3"
    CONTROL = "control"
    FAULT = "fault"
    RESTORED = "restoring"
    UNKNOWN = "unknown"


KINDS: Final = ("read", "write", "fetch")
"""Of accesses, in the order of `enum access`."""


@dataclass(frozen=True)
class Change:
    """What an entry held before and after; `author` is the processor and `pc` the instruction that
    stored it, None where no store was seen."""

    address: Physical
    level: int
    lost: Lost
    before: int
    after: int
    author: int | None
    pc: int | None


@dataclass(frozen=True)
class Cause:
    """Stale uses that are alike, and one of them.

    change     of an entry, after which the use is stale
    cached     what of the entry was cached
    was, now   the walk by what was cached, and by the tables; None where its entries make none
    leads      where the access went by what was cached
    denied     whether the guest took a page fault that what was cached would have spared it
    kind, user the access
    address, pc, processor   where, by which instruction and by whom, in the example
    uses, late how many there were, and how many of them late
    entries    how many cached entries were used so
    flushed    how many of these each flush ended; the others ended by none that was seen
    """

    change: Change
    cached: Cached
    cpu: Cpu
    was: Walk | None
    now: Walk | None
    leads: Physical
    denied: bool
    kind: str
    user: bool
    address: Virtual
    pc: int
    processor: int
    uses: int
    late: int
    entries: int
    flushed: Mapping[Flush, int]

    @property
    def unflushed(self) -> int:
        """Entries that no flush was seen to end."""
        return max(0, self.entries - sum(self.flushed.values()))


@dataclass(frozen=True)
class Flushes:
    """A run in which the flushes of a guest were watched: causes, the worst first."""

    watched: Watched
    causes: tuple[Cause, ...]

    @property
    def totals(self) -> Mapping[str, int]:
        """Counts by name, as in guest/plugin/report.h."""
        return self.watched.report.totals

    @property
    def qemu(self) -> tuple[int, ...]:
        """QEMU's version."""
        return self.totals["major"], self.totals["minor"], self.totals["micro"]

    @property
    def not_run_on(self) -> tuple[str, ...]:
        """Where the plugin was not yet run in this version of QEMU, a sentence that says so."""
        if self.qemu in RUNS:
            return ()
        return (
            f"QEMU {dotted(self.qemu)}: the plugin checked itself, but was not yet run on this"
            f" version; runs of: {', '.join(map(dotted, RUNS))}",
        )

    @property
    def without_author(self) -> int:
        """Uses of changes that no store was seen to make, which are never late."""
        return sum(cause.uses for cause in self.causes if cause.change.pc is None)

    def failing(self, on: FailOn) -> int:
        """Uses that make the run fail."""
        return self.totals["late" if on is FailOn.LATE else "uses"]

    @property
    def failed(self) -> str | None:
        """How QEMU failed, as a sentence; None where it did not."""
        code = self.watched.exit_code
        if self.watched.ending is not Ending.ITSELF:
            return None
        if code < 0:
            return f"QEMU was ended by signal {-code}, before its guest had ended."
        if code and not self.totals["processors"]:
            return f"QEMU ended with exit code {code} before the guest executed anything."
        return None

    @property
    def unwatched(self) -> str | None:
        """Why nothing was watched, as a sentence; None where something was."""
        if not self.totals["processors"]:
            return "QEMU executed nothing under TCG, so no flush was watched."
        if not self.totals["paged"]:
            return "The guest never had paging on, so there was no flush to watch."
        if self.totals["unfollowed"]:
            return "The guest set CR4.PCIDE, whose flushes are not followed."
        if self.totals["state"] != WATCHING:
            return (
                "The plugin could not check itself, since the guest executed nothing above 1 MiB"
                " with paging on: what it saw is not relied upon."
            )
        return None


def flushes(watched: Watched) -> Flushes:
    """What came of a run."""
    causes = [_cause(one) for one in watched.report.causes]
    causes.sort(key=lambda one: (-one.late, -one.uses, one.address))
    return Flushes(watched, tuple(causes))


class _Steps:
    """Memory that holds the entries of one walk."""

    def __init__(self, words: Mapping[int, int]) -> None:
        self._words = words

    def load(self, address: Physical, size: int) -> int | None:
        return self._words.get(address)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        raise NotImplementedError("one walk is walked, step by step")


_: type[Memory] = _Steps


def _cause(raw: Mapping[str, int]) -> Cause:
    cpu = Cpu(raw["cr0"], raw["cr3"], raw["cr4"], raw["efer"], maxphyaddr=WIDEST, pdptes_checked=0)
    address = Virtual(raw["address"])
    author, pc = raw["author"], raw["author_pc"]
    change = Change(
        Physical(raw["entry"]),
        raw["level"],
        list(Lost)[raw["lost"]],
        raw["before"],
        raw["after"],
        None if author == UNKNOWN else author,
        None if pc == UNKNOWN else pc,
    )
    return Cause(
        change,
        list(Cached)[raw["cached"]],
        cpu,
        _walk(cpu, address, raw, "old"),
        _walk(cpu, address, raw, "new"),
        Physical(raw["physical"]),
        bool(raw["denied_kind"]),
        KINDS[raw["access"]],
        bool(raw["user"]),
        address,
        raw["pc"],
        raw["processor"],
        raw["uses"],
        raw["late"],
        raw["entries"],
        {flush: raw[f"by_{flush.value}"] for flush in Flush},
    )


def _walk(cpu: Cpu, address: Virtual, raw: Mapping[str, int], which: str) -> Walk | None:
    """The walk of an address through the entries that the plugin noted; None where it does not
    begin where CR3 leads."""
    count = raw[f"{which}_steps"]
    words = {raw[f"{which}_at{i}"]: raw[f"{which}_raw{i}"] for i in range(count)}
    root = root_for(cpu, address)
    found = None if root is None else walk(_Steps(words), root, address)
    return found if found is not None and len(found.steps) == count else None
