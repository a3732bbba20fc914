"""What the plugin saw of a guest's flushes, in the library's words.

A use is *stale* where a processor may have gone by what it had cached of the tables, and by the
tables as they stand the access faults or leads elsewhere.  It is *late* where no flush to come
excuses it: the thread that changed the entry is back in user mode, or has run on for longer than
the deadline.

What that is on an architecture is in its module `flushes`, `Rules`; in harness.report, that of the
same name has the words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

from harness.architectures import NAMES, USUAL, has, module_of
from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.plugin import WATCHING, Ending, Watched
from harness.machine.registry import engines_of
from harness.paging.address import Physical, Virtual
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import Cpu, root_for
from harness.paging.walk import Walk, walk

UNKNOWN: Final = (1 << 64) - 1
"""In place of an author, where no store was seen."""

FAULT, RESTORED, UNTOLD = "fault", "restoring", "unknown"
"""What ends what is cached on every architecture: an access that walks again, an entry that holds
again what it held, and what is not known."""


class Rules(Protocol):
    """What the module `flushes` of an architecture says.

    RUNS        versions of QEMU in which the cases of guest/plugin gave what the manual says
    FLUSHES     the counts of flushes, by their names in the plugin's report
    ROOT        the register that has the root, likewise
    UNFOLLOWED  why the flushes of some guest are not followed
    state       of the processor, by what the plugin noted
    """

    RUNS: tuple[tuple[int, ...], ...]
    FLUSHES: tuple[str, ...]
    ROOT: str
    UNFOLLOWED: str

    def state(self, raw: Mapping[str, int], /) -> Cpu: ...


class FailOn(Enum):
    """Which uses of what is cached and no longer so make a run fail: LATE, which no flush to come
    excuses, or STALE, all of them."""

    LATE = "late"
    STALE = "stale"


class Lost(Enum):
    """What the change took away, ROOT where it was the root that changed, in the order of `enum
    lost` in guest/plugin/report.h."""

    PRESENT = "present"
    FRAME = "frame"
    READ = "read"
    WRITE = "write"
    USER = "user"
    EXECUTE = "execute"
    ROOT = "root"
    OTHER = "other"


class Cached(Enum):
    """What was cached: a translation, an entry above it, or a PDPTE register."""

    TRANSLATION = "translation"
    STRUCTURE = "structure"
    REGISTER = "register"


KINDS: Final = ("read", "write", "fetch")
"""Of accesses, in the order of `enum access`."""


@dataclass(frozen=True)
class Change:
    """What an entry held before and after; `author` is the processor and `pc` the instruction that
    stored it, None where no store was seen.  Of a root that was written, `address` is None."""

    address: Physical | None
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
    flushed    how many of these each flush ended, by name; the others ended by none that was seen
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
    flushed: Mapping[str, int]

    @property
    def unflushed(self) -> int:
        """Entries that no flush was seen to end."""
        return max(0, self.entries - sum(self.flushed.values()))


@dataclass(frozen=True)
class Flushes:
    """A run in which the flushes of a guest were watched: causes, the worst first."""

    arch: str
    watched: Watched
    causes: tuple[Cause, ...]

    @property
    def rules(self) -> Rules:
        """The architecture's."""
        return rules_of(self.arch)

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
        runs = self.rules.RUNS
        if self.qemu in runs:
            return ()
        return (
            f"QEMU {dotted(self.qemu)}: the plugin checked itself, but was not yet run on this"
            f" version; runs of: {', '.join(map(dotted, runs))}",
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
            return self.rules.UNFOLLOWED
        if self.totals["state"] != WATCHING:
            return (
                "The plugin could not check itself, since the guest executed nothing with paging on"
                " by which it could (on x86, above 1 MiB): what it saw is not relied upon."
            )
        return None


def architecture_of(command: Sequence[str]) -> str:
    """The architecture of the guest that a command of QEMU's starts, by the program's name.

    Raises Misuse for one whose flushes cannot be watched.
    """
    program = _family(Path(command[0]).name) if command else ""
    known = [arch for arch in NAMES if has(arch, "machine", "engines")]
    programs = {arch: {_family(one.program) for one in engines_of(arch).values()} for arch in known}
    arch = next((arch for arch in known if program in programs[arch]), None)
    if arch is None:  # one that its user named, as qemu-10-riscv64
        machines = {arch: {one.rpartition("-")[2] for one in programs[arch]} for arch in known}
        arch = next((a for a in known if any(one in program for one in machines[a])), USUAL)
    if not has(arch, "check", "flushes"):
        watched = " and ".join(one for one in NAMES if has(one, "check", "flushes"))
        raise Misuse(
            f"{Path(command[0]).name} runs a guest of {arch}, whose flushes are not watched: the"
            f" plugin follows the tables of {watched} alone"
        )
    return arch


def _family(program: str) -> str:
    """A program's name without the width of its guests' registers."""
    return re.sub(r"[0-9]+$", "", program)


def rules_of(arch: str) -> Rules:
    """What an architecture says."""
    found: Rules = module_of(arch, "check", "flushes")
    return found


def flushes(arch: str, watched: Watched) -> Flushes:
    """What came of a run."""
    rules = rules_of(arch)
    causes = [_cause(rules, one) for one in watched.report.causes]
    causes.sort(key=lambda one: (-one.late, -one.uses, one.address))
    return Flushes(arch, watched, tuple(causes))


class _Steps:
    """Memory that holds the entries of one walk."""

    def __init__(self, words: Mapping[int, int]) -> None:
        self._words = words

    def load(self, address: Physical, size: int) -> int | None:
        return self._words.get(address)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        raise NotImplementedError("one walk is walked, step by step")


_: type[Memory] = _Steps


def _cause(rules: Rules, raw: Mapping[str, int]) -> Cause:
    cpu = rules.state(raw)
    address = Virtual(raw["address"])
    author, pc = raw["author"], raw["author_pc"]
    change = Change(
        None if raw["entry"] == UNKNOWN else Physical(raw["entry"]),
        raw["level"],
        list(Lost)[raw["lost"]],
        raw["before"],
        raw["after"],
        None if author == UNKNOWN else author,
        None if pc == UNKNOWN else pc,
    )
    before = cpu
    if change.lost is Lost.ROOT:
        before = rules.state({**raw, rules.ROOT: change.before})
    return Cause(
        change,
        list(Cached)[raw["cached"]],
        cpu,
        _walk(before, address, raw, "old"),
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
        {name[3:]: count for name, count in raw.items() if name.startswith("by_")},
    )


def _walk(cpu: Cpu, address: Virtual, raw: Mapping[str, int], which: str) -> Walk | None:
    """The walk of an address through the entries that the plugin noted; None where it does not
    begin where the root leads."""
    count = raw[f"{which}_steps"]
    words = {raw[f"{which}_at{i}"]: raw[f"{which}_raw{i}"] for i in range(count)}
    root = root_for(cpu, address)
    found = None if root is None else walk(_Steps(words), root, address)
    return found if found is not None and len(found.steps) == count else None
