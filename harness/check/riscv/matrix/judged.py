"""What accesses of RISC-V's matrix come to: by the rules, and by an engine with its quirks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from harness.check.quirk import Quirk
from harness.check.riscv.matrix.chain import NONE_MISSING, NOWHERE, Lanes
from harness.check.riscv.matrix.hart import Hart
from harness.paging.bulk import Bytes, End, Walks, walk_words
from harness.paging.format import Format, Shape
from harness.paging.memory import Mask, Words
from harness.paging.riscv import bulk
from harness.paging.riscv.access import Kind, Reason, access_fault
from harness.paging.riscv.bulk import ALLOWED, REASONS
from harness.paging.riscv.cpu import Cpu
from harness.paging.table import Root

_WRITE_DENIED = REASONS.index(Reason.WRITE_DENIED)
_ACCESS_FAULTS = np.array([access_fault(kind) for kind in Kind], np.uint8)


@dataclass(frozen=True)
class Expected:
    """What is expected of accesses, one a lane.

    walks   the walks of their addresses
    cause   uint8, ALLOWED where no exception is raised
    reason  uint8, index into `bulk.REASONS`: by the rules of translation
    sets    the bits that are set in the entry at which the walk ends
    free    those that may be set there or not
    backed  whether there is memory where those allowed lead
    """

    walks: Walks
    cause: Bytes
    reason: Bytes
    sets: Words
    free: Words
    backed: Mask

    def differs(self, other: Expected) -> Mask:
        """The lanes in which something else is expected to be seen."""
        differs: Mask = (self.cause != other.cause) | (self.sets != other.sets)
        differs |= (self.walks.physical != other.walks.physical) & (self.cause == ALLOWED)
        differs |= (self.walks.address != other.walks.address) & (self.cause != ALLOWED)  # tval
        differs |= self.free != other.free
        marked = (self.sets | self.free) != 0  # of others it does not show where a walk ended
        differs |= marked & (self.walks.level != other.walks.level)
        return differs


@dataclass(frozen=True, kw_only=True)
class RiscvQuirk(Quirk):
    """A departure of an engine: what it does instead is worked out as the rules are.

    reads     how the engine reads entries of a shape, if otherwise than the CPU's format says
    unmasked  which accesses it exempts from pointer masking, if others than those with MXR
    judges    what comes to what it judges, if otherwise than the rules say
    amo       the causes of AMOs, if others: by those of the rules, those that the accesses would
              have if they were loads, and whether there is memory where they lead
    """

    reads: Callable[[Hart, Shape], Shape] | None = None
    unmasked: Callable[[Lanes], Mask] | None = None
    judges: Callable[[Asked, Expected], Expected] | None = None
    amo: Callable[[Bytes, Bytes, Mask], Bytes] | None = None


@dataclass(frozen=True)
class Asked:
    """Accesses, the hart that is asked and its state; how entries are read, if otherwise than its
    format says, and which accesses are exempt from pointer masking.

    known  takes what comes of these accesses by the rules, by the format that entries are read in,
           and has what was worked out before
    """

    hart: Hart
    cpu: Cpu
    lanes: Lanes
    unmasked: Mask
    reads: tuple[Callable[[Hart, Shape], Shape], ...] = ()
    known: dict[Format, Expected] = field(default_factory=dict)

    def walks(self, *more: Callable[[Hart, Shape], Shape]) -> Walks:
        """The walks of the addresses, by entries that are read in yet more ways."""
        lanes, cpu = self.lanes, self.cpu
        format = _read_as(self.hart, cpu.format, (*self.reads, *more))
        if self.unmasked is lanes.mxr and format in self.known:
            return self.known[format].walks
        roots = [Root(replace(root.table, format=format), root.span) for root in cpu.roots]
        addresses = bulk.transformed(cpu, lanes.address, lanes.kind, lanes.user, self.unmasked)
        return _without_tables(walk_words(roots, lanes.words, addresses), lanes.missing)

    def by_rules(self) -> Expected:
        """What the accesses come to by the rules, entries being read so."""
        lanes, usual = self.lanes, self.unmasked is self.lanes.mxr
        format = _read_as(self.hart, self.cpu.format, self.reads)
        if usual and format in self.known:
            return self.known[format]
        walks = self.walks()
        found = self.judge(walks, lanes.kind)
        beyond = np.uint64(sum(1 << bit for bit in NOWHERE[self.cpu.xlen]))
        backed = walks.physical & beyond == 0
        free = _speculated(self, walks, found)
        made = Expected(walks, found.cause, found.reason, found.sets, free, backed)
        made = _without_memory(lanes, made)
        if usual:
            self.known[format] = made
        return made

    def judge(self, walks: Walks, kind: Bytes) -> bulk.Outcomes:
        """What accesses of these kinds come to, given their walks."""
        lanes = self.lanes
        return bulk.judge(self.cpu, walks, kind, lanes.user, lanes.sum, lanes.mxr)

    def loads(self, walks: Walks) -> bulk.Outcomes:
        """What the accesses come to if all are loads."""
        return self.judge(walks, np.full(len(self.lanes), Kind.READ, np.uint8))


def expected(
    hart: Hart,
    cpu: Cpu,
    lanes: Lanes,
    quirks: Iterable[RiscvQuirk] = (),
    known: dict[Format, Expected] | None = None,
) -> Expected:
    """What accesses come to by the rules; or on an engine that has quirks.

    known  as in `Asked`, for who asks about the same accesses with other quirks
    """
    quirks = tuple(quirks)
    unmasked = next((one.unmasked(lanes) for one in quirks if one.unmasked), lanes.mxr)
    reads = tuple(one.reads for one in quirks if one.reads)
    asked = Asked(hart, cpu, lanes, unmasked, reads, {} if known is None else known)
    rules = made = asked.by_rules()
    for one in quirks:
        if one.judges:
            made = one.judges(asked, made)
    if (lanes.kind == Kind.AMO).any():
        loads = asked.loads(rules.walks).cause
        cause = causes_of_amos(quirks, lanes.kind, made.cause, loads, made.backed)
        made = replace(made, cause=cause)
    return made


def departing(
    hart: Hart, cpu: Cpu, lanes: Lanes, quirks: Iterable[RiscvQuirk]
) -> Mapping[str, Mask]:
    """The lanes in which each quirk by itself shows, or has a walk end elsewhere, by its name; of
    those that do in any.

    Where a walk goes on by a quirk, it reads entries that no walk of the rules reads: whether the
    access comes to the same there is not known of lanes that have the entries of those alone.
    """
    known: dict[Format, Expected] = {}
    rules = expected(hart, cpu, lanes, (), known)
    shown = dict[str, Mask]()
    for one in quirks:
        engine = expected(hart, cpu, lanes, [one], known)
        shown[one.name] = rules.differs(engine) | (rules.walks.level != engine.walks.level)
    return {name: where for name, where in shown.items() if where.any()}


def causes_of_amos(
    quirks: Iterable[RiscvQuirk], kind: Bytes, cause: Bytes, loads: Bytes, backed: Mask
) -> Bytes:
    """The causes of accesses on an engine that has quirks, given those of the rules."""
    for one in quirks:
        if one.amo:
            cause = np.where(kind == Kind.AMO, one.amo(cause, loads, backed), cause)
    return cause


def _speculated(asked: Asked, walks: Walks, found: bulk.Outcomes) -> Words:
    """A of pages that an AMO may read and not write: it may be set by speculation ("Addressing and
    Memory Protection" of Sv32), as by an implementation that loads first."""
    free = np.zeros(len(asked.lanes), np.uint64)
    denied = (asked.lanes.kind == Kind.AMO) & (found.reason == _WRITE_DENIED)
    if denied.any():
        free[denied] = asked.loads(walks).sets[denied]
    return free


def _without_memory(lanes: Lanes, made: Expected) -> Expected:
    """An access to a page that has no memory is an access fault of its kind ("Physical Memory
    Attributes"); whether A and D are set before is left to the machine ("Addressing and Memory
    Protection" of Sv32)."""
    fails = (made.cause == ALLOWED) & ~made.backed
    if not fails.any():
        return made
    cause = np.where(fails, _ACCESS_FAULTS.take(lanes.kind), made.cause)
    free = np.where(fails, made.sets, made.free)
    return replace(made, cause=cause, free=free, sets=np.where(fails, np.uint64(0), made.sets))


@lru_cache
def _read_as(
    hart: Hart, format: Format, changes: tuple[Callable[[Hart, Shape], Shape], ...]
) -> Format:
    """A format as an engine reads it."""

    def changed(shape: Shape) -> Shape:
        for change in changes:
            shape = change(hart, shape)
        return shape

    levels = tuple(level.changed(changed) for level in format.levels)
    return format if levels == format.levels else replace(format, levels=levels)


def _without_tables(walks: Walks, missing: Bytes) -> Walks:
    """The walks where tables are missing: those that come so far end there, without an entry."""
    ends = (walks.level <= missing) & (missing != NONE_MISSING) & (walks.end != End.NO_ROOT)
    if not ends.any():
        return walks
    zero = np.uint64(0)
    return replace(
        walks,
        end=np.where(ends, np.uint8(End.UNBACKED), walks.end),
        level=np.where(ends, missing, walks.level),
        raw=np.where(ends, zero, walks.raw),
        physical=np.where(ends, zero, walks.physical),
    )
