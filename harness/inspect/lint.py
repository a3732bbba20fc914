"""What is odd about a space: each rule is a sentence, and finds entries that break it.

A rule looks at the rights that all levels give together, and at every alias.  What self-maps show
counts where tables are data; elsewhere it would say the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import combinations
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from harness.architectures import module_of
from harness.check.keys import instead
from harness.inspect import architecture, decode, garbage, graph
from harness.inspect.architecture import Types, never_withheld
from harness.inspect.decode import Reading
from harness.inspect.garbage import Extents, Garbage, covered, words_of
from harness.inspect.graph import Graph, RowKind, Rows, with_lasting
from harness.inspect.ranges import Range, Ranges, merged, of_rows, together
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.tour import lines
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bulk import granted_by, is_reserved
from harness.paging.entry import Malformed
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.processor import Cpu, root_for
from harness.paging.table import Slot, Table
from harness.paging.walk import walk


class Severity(Enum):
    """How much a finding matters.

    ERROR    the machine faults or is undefined there, or user code can change tables
    WARNING  legal, and seldom meant
    NOTE     legal and common; good to know when something is wrong
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """Something that a space should not have.

    name      for programs, and to leave it out
    sentence  what was found, of several
    section   where the manual of the architecture says so; empty where it does not
    """

    name: str
    severity: Severity
    sentence: str
    section: str = ""


@dataclass(frozen=True)
class Need:
    """Something that is not mapped as the processor needs it.

    rule    that is broken, by its name
    where   the addresses that are meant
    slot    where the walk of the first ends; None where there is none
    count   how many there are: gates, descriptors
    detail  what it is, and why it cannot be reached
    """

    rule: str
    where: Span
    slot: Slot | None
    count: int
    detail: str


@dataclass(frozen=True)
class Finding:
    """Neighbours that break a rule in the same way.

    where     their lowest addresses; None of what is told by physical addresses
    physical  the memory that is meant, where a rule is about memory
    slot      the slot of the first entry; None where there is none
    count     how many entries, at all their addresses
    detail    what else there is to say, for people
    """

    rule: Rule
    where: Span | None
    physical: Span | None
    slot: Slot | None
    count: int
    detail: str


@dataclass(frozen=True)
class Broken:
    """A rule that is broken.

    findings  the first of them, in order of address
    total     how many there are
    count     how many entries all of them are, at all their addresses
    """

    rule: Rule
    findings: tuple[Finding, ...]
    total: int
    count: int


@dataclass(frozen=True)
class LintSpace:
    """What rules may look at.

    tables   where tables are, sorted
    garbage  those whose content cannot be meant
    backed   where each piece of memory begins and ends; None where that is not known
    """

    cpu: Any
    memory: Memory
    graph: Graph
    types: Types
    tables: Words
    garbage: Garbage
    backed: Extents | None

    def has(self, rows: Rows, right: str) -> Mask:
        """Which rows all levels give a right; every page can be executed where there is none to
        take away.  The user has none of a half that is closed to him, whatever the levels give."""
        bit = self.graph.format.rights.get(right, 0)
        if not bit:
            return np.ones(len(rows.virtual), np.bool_)
        given: Mask = rows.granted & np.uint64(bit) != 0
        if right in ("user", "user execute"):
            lower, upper = self.own.closed(self.cpu)
            if lower:
                given &= rows.highest >> np.uint64(63) != 0
            if upper:
                given &= rows.virtual >> np.uint64(63) == 0
        return given

    def executable(self, rows: Rows) -> Mask:
        """Which rows someone may execute."""
        return self.own.executes(self, rows)

    def writable(self, rows: Rows) -> Mask:
        """Which rows someone may write to: all, where nothing withholds that from the
        supervisor."""
        return self.has(rows, "write") | self.writes_all

    def lacks_marks(self, rows: Rows, written: Mask) -> Mask:
        """Which rows, if they are pages, lack the bits that an access needs and the processor does
        not set itself; a write where they are written, else a read."""
        marks = architecture.of(self.cpu).marks
        one, other = (np.uint64(marks(self.cpu, rights)) for rights in ((), ("write",)))
        needed = np.where(written, other, one)
        found: Mask = rows.raw & needed != needed
        return found

    def is_supervisors(self, rows: Rows) -> Mask:
        """Which rows, of those that someone may execute, the supervisor may: where it has no right
        of its own, what the user cannot reach, and all where nothing is kept from him."""
        rights = self.graph.format.rights
        if "supervisor execute" in rights:
            return self.has(rows, "supervisor execute")
        if rights.get("user"):
            found: Mask = ~self.has(rows, "user")
            return found
        return np.ones(len(rows.virtual), np.bool_)

    @property
    def own(self) -> Own:
        """What the architecture adds."""
        return own(self.cpu)

    @property
    def writes_all(self) -> bool:
        """Whether the supervisor writes to all pages that it reaches, whatever entries say."""
        return bool(never_withheld(self.cpu) & self.graph.format.rights["write"])

    def size(self, rows: Rows) -> np.uint64:
        return np.uint64(self.graph.format.levels[rows.level].size)


# ---- rules about entries ----


def pages_of(rows: Rows) -> Mask:
    """Pages, those that self-maps show left out."""
    found: Mask = (rows.kind == RowKind.PAGE) & ~rows.window
    return found


def _malformed(space: LintSpace, rows: Rows) -> Mask:
    """Entries with reserved bits set."""
    here = space.graph.format.levels[rows.level]
    found: Mask = (rows.kind == RowKind.MALFORMED) & ~rows.window & ~is_reserved(here, rows.raw)
    return found


def reserved(space: LintSpace, rows: Rows) -> Mask:
    """Entries that are reserved as a whole, though absent to the processor."""
    here = space.graph.format.levels[rows.level]
    found: Mask = (rows.kind == RowKind.MALFORMED) & ~rows.window & is_reserved(here, rows.raw)
    return found


def _unbacked(space: LintSpace, rows: Rows) -> Mask:
    found: Mask = (rows.kind == RowKind.UNBACKED) & ~rows.window
    return found


def _write_and_execute(space: LintSpace, rows: Rows) -> Mask:
    return pages_of(rows) & space.writable(rows) & space.executable(rows)


def _user_in_kernel_half(space: LintSpace, rows: Rows) -> Mask:
    high = rows.highest >> np.uint64(63) != 0
    halves = any(root.span.first >> 63 for root in space.cpu.roots)
    given = pages_of(rows) & space.has(rows, "user") & high
    found: Mask = given & (halves and not space.own.closed(space.cpu)[1])
    return found


def _address_zero(space: LintSpace, rows: Rows) -> Mask:
    found: Mask = pages_of(rows) & (rows.virtual == 0)
    return found


def _global_user(space: LintSpace, rows: Rows) -> Mask:
    format = space.graph.format
    mask = format.fleeting or format.levels[rows.level].bits.get("G", 0)
    raw = with_lasting(format, rows.raw, rows.lasting)
    marked = (raw & np.uint64(mask) != 0) != bool(format.fleeting)
    marked &= space.own.globals(space.cpu)
    found: Mask = pages_of(rows) & space.has(rows, "user") & marked
    return found


def _withheld(space: LintSpace, rows: Rows) -> Mask:
    format = space.graph.format
    own = granted_by(format, rows.level, np.uint64(format.rights_mask), rows.raw)
    found: Mask = pages_of(rows) & (own & ~rows.granted != 0)
    return found


def _marks_missing(space: LintSpace, rows: Rows) -> Mask:
    """Pages without the bits that some access needs, which the processor does not set itself."""
    found: Mask = pages_of(rows) & space.lacks_marks(rows, space.has(rows, "write"))
    return found


def _empty_table(space: LintSpace, rows: Rows) -> Mask:
    """Pointers to tables that are as new: software keeps what it swapped out, or forbids for a
    time, in entries that are not present, so that a table of those is in use."""
    found: Mask = (rows.kind == RowKind.POINTER) & (rows.below == 0) & ~rows.window
    if found.any():
        tables, number = np.unique(rows.physical[found], return_inverse=True)
        found[found] = _new(space, rows.level - 1, tables)[number]
    return found


def _new(space: LintSpace, level: int, tables: Words) -> Mask:
    """Which tables hold nothing, not even what is software's."""
    format = space.graph.format
    read = words_of(space.memory, format, space.graph.floor(level), tables)
    filled = format.levels[level].filled
    found: Mask = np.concatenate([~filled(words).any(axis=1) for _, words in read])
    return found


def _leads_to(rows: Rows, tables: Words) -> Mask:
    """Pointers to some tables."""
    found: Mask = (rows.kind == RowKind.POINTER) & ~rows.window & np.isin(rows.physical, tables)
    return found


def _garbage_table(space: LintSpace, rows: Rows) -> Mask:
    return _leads_to(rows, space.garbage.tables)


def _addresses_in_table(space: LintSpace, rows: Rows) -> Mask:
    return _leads_to(rows, space.garbage.addresses)


def _table_at_zero(space: LintSpace, rows: Rows) -> Mask:
    return _leads_to(rows, np.zeros(1, np.uint64))


def _outside(space: LintSpace, rows: Rows) -> Mask:
    """Pages that memory does not cover wholly."""
    pages = pages_of(rows)
    if space.backed is None:
        return np.zeros(len(pages), np.bool_)
    return pages & ~covered(space.backed, rows.physical, space.size(rows))


def _cached_outside(space: LintSpace, rows: Rows) -> Mask:
    return _outside(space, rows) & ~_uncached(space, rows)


def _device(space: LintSpace, rows: Rows) -> Mask:
    return _outside(space, rows) & _uncached(space, rows)


def _uncached(space: LintSpace, rows: Rows) -> Mask:
    kinds = architecture.of(space.cpu).memory_types
    cached = np.array([name not in kinds.UNCACHED for name in space.types])
    found: Mask = ~cached[kinds.index(space.graph.format.levels[rows.level], rows.raw)]
    return found


def shows_table(space: LintSpace, rows: Rows, among: Mask) -> Mask:
    """Which rows, of some, are pages that hold a table.  What a self-map shows without the marks
    that an access needs is none: software that sets the marks of pages sets none of pointers."""
    found = np.zeros(len(rows.virtual), np.bool_)
    among = among & ~(rows.window & space.lacks_marks(rows, found))
    chosen = np.flatnonzero(among & (rows.kind == RowKind.PAGE))
    first = rows.physical[chosen]
    number = np.searchsorted(space.tables, first)
    there = number < len(space.tables)
    last = first[there] + (space.size(rows) - np.uint64(1))
    found[chosen[there]] = space.tables[number[there]] <= last
    return found


def _table_to_user_writing(space: LintSpace, rows: Rows) -> Mask:
    return shows_table(space, rows, space.has(rows, "user") & space.has(rows, "write"))


def _table_to_user_reading(space: LintSpace, rows: Rows) -> Mask:
    return shows_table(space, rows, space.has(rows, "user") & ~space.has(rows, "write"))


def _table_to_supervisor(space: LintSpace, rows: Rows) -> Mask:
    by_user = space.has(rows, "user") if "user" in space.graph.format.rights else False
    return shows_table(space, rows, ~(by_user | rows.window))


def self_map(space: LintSpace, rows: Rows) -> Mask:
    """Pointers to tables in use at their own level or above."""
    found: Mask = (rows.kind == RowKind.SELF_MAP) & ~rows.window
    return found


def _self_map_executable(space: LintSpace, rows: Rows) -> Mask:
    """Self-maps that withhold neither: by them alone the tables at whose level they are can be
    written and executed.  The pages that they show are theirs, and no findings of their own.

    Where pointers grant by bits of their own, what an access comes to is for the pages to say.
    """
    found = self_map(space, rows) & space.writable(rows) & space.executable(rows)
    here = space.graph.format.levels[rows.level].pointer
    if here is not None and here.grants is not None:
        for row in np.flatnonzero(found):
            found[row] = _shows_code(space, Span.of(int(rows.virtual[row]), int(space.size(rows))))
    return found


def _shows_code(space: LintSpace, span: Span) -> bool:
    """Whether self-maps show pages in a span that an access can write and another execute."""
    for rows in graph.rows(space.graph, span):
        good = rows.window & (rows.kind == RowKind.PAGE)
        good &= space.writable(rows) & space.executable(rows)
        if (good & ~space.lacks_marks(rows, good)).any():
            return True
    return False


Breaks = Callable[[LintSpace, Rows], Mask]


class Detail(NamedTuple):
    """What else there is to say of neighbours that break a rule.

    said  that, by the slot of the first
    span  the bytes of the stretches of addresses, at a level, that are each looked at for
          themselves: what lies in two is two findings; None where all neighbours are one
    """

    said: Callable[[LintSpace, Range, Slot], str]
    span: Callable[[LintSpace, int], int] | None = None


ERROR, WARNING, NOTE = Severity

GARBAGE_TABLE = Rule(
    "garbage-table",
    ERROR,
    "tables of what cannot be entries: data, or memory that was freed and used again",
)
ADDRESSES_IN_TABLE = Rule(
    "addresses-in-table",
    WARNING,
    "tables in which addresses of the upper half stand where entries should",
)

USER_IN_KERNEL_HALF: Final = Rule(
    "user-in-kernel-half", WARNING, "pages of the upper half that user code can reach"
)
ADDRESS_ZERO: Final = Rule(
    "address-zero", WARNING, "pages at address 0: null pointers do not fault"
)

TABLE_MAPPED: Final = Rule(
    "table-mapped", NOTE, "supervisor pages that hold tables in use, by no self-map"
)

WRITE_EXECUTE: Final = Rule("write-execute", WARNING, "pages that can be written and executed")

ENTRY_RULES: Final[tuple[tuple[Rule, Breaks], ...]] = (
    (
        Rule("reserved-bits", ERROR, "entries with reserved bits set: any access faults"),
        _malformed,
    ),
    (
        Rule("table-without-memory", ERROR, "slots of tables that lie outside memory"),
        _unbacked,
    ),
    (GARBAGE_TABLE, _garbage_table),
    (
        Rule("table-user-writable", ERROR, "pages that let user code write to tables in use"),
        _table_to_user_writing,
    ),
    (
        Rule("table-user-readable", WARNING, "pages that let user code read tables in use"),
        _table_to_user_reading,
    ),
    (
        WRITE_EXECUTE,
        _write_and_execute,
    ),
    (
        Rule(
            "self-map-executable",
            WARNING,
            "self-maps through which tables can be written and executed",
        ),
        _self_map_executable,
    ),
    (
        USER_IN_KERNEL_HALF,
        _user_in_kernel_half,
    ),
    (
        ADDRESS_ZERO,
        _address_zero,
    ),
    (
        Rule(
            "global-user",
            WARNING,
            "user pages that are global: their translations stay in the TLB when the root changes",
        ),
        _global_user,
    ),
    (
        Rule("empty-table", WARNING, "slots that lead to tables of nothing but zeros"),
        _empty_table,
    ),
    (ADDRESSES_IN_TABLE, _addresses_in_table),
    (
        Rule("table-at-zero", WARNING, "slots that lead to a table at physical address 0"),
        _table_at_zero,
    ),
    (
        Rule("self-map", NOTE, "slots that lead back up, so that tables are read as pages"),
        self_map,
    ),
    (TABLE_MAPPED, _table_to_supervisor),
    (
        Rule(
            "withheld-above",
            NOTE,
            "pages whose entries give rights that tables above withhold",
        ),
        _withheld,
    ),
    (
        Rule(
            "marks-missing",
            NOTE,
            "pages whose next use, or write, faults, since the processor does not mark them used,"
            " or written, itself",
        ),
        _marks_missing,
    ),
    (
        # Firmware has the MTRRs make them uncached; no source records these.
        Rule(
            "cached-outside-ram",
            NOTE,
            "pages outside memory that are cached, unless the MTRRs, which are not known, say"
            " otherwise",
        ),
        _cached_outside,
    ),
    (
        Rule("device", NOTE, "uncached pages that lie outside memory: devices"),
        _device,
    ),
)
"""Rules about single entries."""


# ---- rules about memory that is mapped more than once ----

MIXED_TYPES = Rule(
    "mixed-types", ERROR, "pieces of memory that are mapped with several memory types"
)
WRITABLE_CODE = Rule(
    "writable-code", WARNING, "pieces of memory that one address can execute and another write"
)


class Own(Protocol):
    """What the module `lint` of each architecture adds.

    SECTIONS  where its manual speaks of a rule, by the rule's name
    CHANGED   rules that its manual has otherwise, by their names
    LEFT_OUT  the rules that make no sense there
    RULES     rules of its own about entries, each with the name of the one before which it stands
    DETAILS   what else there is to say of findings, by the names of rules
    NEEDS     rules about what its processors need
    KEEPS     why the supervisor writes to a page that entries say it does not
    executes  which rows someone may execute
    globals   whether the bit that makes pages global, or not, means something
    closed    whether the user reaches nothing of the lower half, and of the upper one, whatever
              entries give
    needs     what a processor needs and is not mapped so
    lower     what an entry is in a table of a lower level, where it makes sense there alone
    """

    @property
    def SECTIONS(self) -> Mapping[str, str]: ...  # noqa: N802
    @property
    def CHANGED(self) -> Mapping[str, Rule]: ...  # noqa: N802
    @property
    def LEFT_OUT(self) -> frozenset[str]: ...  # noqa: N802
    @property
    def RULES(self) -> tuple[tuple[str, Rule, Breaks], ...]: ...  # noqa: N802
    @property
    def DETAILS(self) -> Mapping[str, Detail]: ...  # noqa: N802
    @property
    def NEEDS(self) -> tuple[Rule, ...]: ...  # noqa: N802
    @property
    def KEEPS(self) -> str: ...  # noqa: N802
    def executes(self, space: LintSpace, rows: Rows, /) -> Mask: ...
    def globals(self, cpu: Any, /) -> bool: ...
    def closed(self, cpu: Any, /) -> tuple[bool, bool]: ...
    def needs(self, snapshot: Snapshot, /) -> Iterable[Need]: ...
    def lower(self, cpu: Any, reading: Reading, /) -> str: ...


def own(cpu: Cpu) -> Own:
    """What the architecture of a CPU state adds."""
    found: Own = module_of(cpu.architecture, "inspect", "lint")
    return found


def of_entries(added: Own) -> list[tuple[Rule, Breaks]]:
    """The rules about entries, of an architecture too."""
    found = []
    for rule, breaks in ENTRY_RULES:
        found += [(one, by) for before, one, by in added.RULES if before == rule.name]
        if rule.name not in added.LEFT_OUT:
            found.append((_cited(added, rule), breaks))
    return found


def rules(added: Own) -> tuple[Rule, ...]:
    """Every rule."""
    pieces = (_cited(added, MIXED_TYPES), _cited(added, WRITABLE_CODE))
    return (*(rule for rule, _ in of_entries(added)), *pieces, *added.NEEDS)


def _cited(added: Own, rule: Rule) -> Rule:
    changed = added.CHANGED.get(rule.name, rule)
    return replace(changed, section=added.SECTIONS.get(rule.name, ""))


class _Mapped(NamedTuple):
    """Pages that have something in common, a row each: what memory they are, their lowest address,
    and at how many they are."""

    first: Words
    last: Words
    virtual: Words
    paths: Words

    @classmethod
    def of(cls, space: LintSpace, pages: Rows) -> _Mapped:
        last = pages.physical + (space.size(pages) - np.uint64(1))
        return cls(pages.physical, last, pages.virtual, pages.paths)

    @classmethod
    def together(cls, parts: list[_Mapped]) -> _Mapped:
        if not parts:
            return cls(*(np.zeros(0, np.uint64) for _ in cls._fields))
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def addresses(self, physical: int) -> int:
        """At how many addresses a place in memory is."""
        there = (self.first <= np.uint64(physical)) & (np.uint64(physical) <= self.last)
        return int(self.paths[there].sum())


class _Pieces(NamedTuple):
    """Pieces of memory in order, none of which overlaps another: where each begins and ends, and
    the address of its begin, from which on all of it is mapped."""

    first: Words
    last: Words
    virtual: Words


def _covered(mapped: _Mapped) -> _Pieces:
    """The memory that some page covers, each piece of it mapped at one run of addresses, the
    longest that there is."""
    if not len(mapped.first):
        return _Pieces(*mapped[:3])
    # Pages that follow each other, in memory as in addresses, are one run.
    delta = mapped.virtual - mapped.first
    order = np.lexsort((mapped.first, delta))
    first, last, delta = mapped.first[order], mapped.last[order], delta[order]
    start = np.flatnonzero(_begins((delta[1:] == delta[:-1]) & (first[1:] == last[:-1] + _ONE)))
    stop = np.append(start[1:], len(first)) - 1
    first, last, delta = first[start], last[stop], delta[start]
    # Of runs that overlap, a later one serves from where all before it end.
    order = np.lexsort((~last, first))
    first, last, delta = first[order], last[order], delta[order]
    reached = np.maximum.accumulate(last)
    new = _begins(last[1:] <= reached[:-1])
    first[1:] = np.maximum(first[1:], np.where(first[1:] > reached[:-1], 0, reached[:-1] + _ONE))
    return _Pieces(first[new], last[new], (first + delta)[new])


_ONE: Final = np.uint64(1)


def _begins(follows: Mask) -> Mask:
    """Which rows begin something, given for each but the first whether it does not."""
    begins: Mask = np.concatenate([[True], ~follows])
    return begins


class _Parts(NamedTuple):
    """Pages, in parts: those that concern the supervisor, and those that concern the user."""

    of_supervisor: list[_Mapped]
    of_user: list[_Mapped]


class _Common(NamedTuple):
    """Memory that is in two sets of pieces, with the addresses of its begin in both."""

    first: Words
    last: Words
    one: Words
    other: Words


def _common(some: _Pieces, others: _Pieces) -> _Common:
    """The memory that is in both, each piece at one run of addresses in each."""
    begin = np.searchsorted(others.last, some.first)
    counts = np.searchsorted(others.first, some.last, side="right") - begin
    one = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    other = np.arange(len(one)) + np.repeat(begin - before, counts)
    first = np.maximum(some.first[one], others.first[other])
    last = np.minimum(some.last[one], others.last[other])
    virtual = (
        pieces.virtual[n] + (first - pieces.first[n])
        for pieces, n in ((some, one), (others, other))
    )
    return _Common(first, last, *virtual)


KEPT: Final = 1 << 16
"""Findings of a rule that are kept; the others are counted, and some of them as several that would
be one."""


@dataclass
class _Kept:
    """What breaks a rule, as it is found."""

    rule: Rule
    roots: list[Finding] = field(default_factory=list)
    parts: list[Ranges] = field(default_factory=list)
    total: int = 0
    count: int = 0

    def add_roots(self, cpu: Cpu, memory: Memory, tables: Words) -> None:
        """Adds the root tables that are among some."""
        for table in dict.fromkeys(root.table for root in cpu.roots):
            if int(table.address) in tables:
                own = [root for root in cpu.roots if root.table == table]
                where = Span(own[0].span.first, own[-1].span.last)
                held = Span.of(table.address, table.size)
                slots = range(own[0].indices.start, own[-1].indices.stop)
                detail = f"the root{_off_by_a_table(cpu, memory, table, slots)}"
                self.roots.append(Finding(self.rule, where, held, None, 1, detail))
                self.total, self.count = self.total + 1, self.count + 1

    def add(self, rows: Ranges) -> None:
        found = merged(rows)
        self.count += int((found.pages.astype(np.uint64) * found.paths).sum())
        self.total += len(found)
        if self.total - len(found) < KEPT:
            self.parts.append(found)

    def broken(self, space: LintSpace, limit: int) -> Broken:
        every = together(space.graph.format, self.parts)
        ranges = merged(every)
        findings = tuple(self._finding(space, one) for one in ranges.take(slice(limit)))
        findings = (*self.roots, *findings)[:limit]
        total = self.total - (len(every) - len(ranges))
        return Broken(self.rule, findings, total, self.count)

    def _finding(self, space: LintSpace, one: Range) -> Finding:
        slot = _slot(space, one)
        where, count = Span(one.first, one.last), one.pages * one.paths
        return Finding(
            self.rule, where, _memory(one), slot, count, _detail(space, self.rule, one, slot)
        )


OUTSIDE = ("cached-outside-ram", "device")
"""The rules about pages outside memory."""


def lint(
    snapshot: Snapshot,
    types: Types,
    ignored: Iterable[str] = (),
    limit: int = 10,
) -> tuple[list[Broken], tuple[str, ...]]:
    """The rules that a space breaks, the worst first, each with its first `limit` findings; and
    what was left out, a sentence each.

    Raises QuestionError for a rule to be ignored that there is not.
    """
    ignored = set(ignored)
    cpu = snapshot.cpu
    added = own(cpu)
    known = [rule.name for rule in rules(added)]
    if unknown := sorted(ignored - set(known)):
        raise QuestionError(f"there is no rule {unknown[0]!r}: {instead(unknown[0], known)}")
    about = [(rule, breaks) for rule, breaks in of_entries(added) if rule.name not in ignored]
    spaces = _spaces(snapshot, types, ignored)
    typed, code, data = [list[_Mapped]() for _ in types], _Parts([], []), _Parts([], [])
    every_kept, there, cut = list[tuple[LintSpace, list[_Kept]]](), False, list[str]()
    for space in spaces:
        kept, left_out = [_Kept(rule) for rule, _ in about], 0
        every_kept.append((space, kept))
        odd = space.garbage
        for one in kept:
            for rule, wrong in ((GARBAGE_TABLE, odd.tables), (ADDRESSES_IN_TABLE, odd.addresses)):
                if one.rule.name == rule.name:
                    one.add_roots(space.cpu, space.memory, wrong)
        for rows in graph.rows(space.graph, pointers=True):
            left_out += rows.left_out
            there = there or bool((pages_of(rows) & ~_outside(space, rows)).any())
            for one, (_, breaks) in zip(kept, about, strict=True):
                mask = breaks(space, rows)
                if mask.any():
                    found = _apart(space, one.rule, _at(one.rule, rows.take(mask)))
                    one.add(of_rows(space.graph.format, found))
            _sort_pages(space, rows.take(pages_of(rows)), typed, code, data)
        cut += graph.rows_cut(space.graph, left_out)
    # A source without a single page of the space holds tables alone: it shows no devices.
    broken = [
        _as_one(
            [
                one.broken(space, limit)
                for space, kept in every_kept
                for one in kept
                if one.rule is rule and one.count
            ],
            limit,
        )
        for rule, _ in about
        if any(one.rule is rule and one.count for _, kept in every_kept for one in kept)
        and (there or rule.name not in OUTSIDE)
    ]
    every = _Mapped.together([part for parts in typed for part in parts])
    if MIXED_TYPES.name not in ignored:
        broken += _mixed_types(types, _cited(added, MIXED_TYPES), typed, every, limit)
    if WRITABLE_CODE.name not in ignored:
        broken += _writable_code(code, data, every, limit)
    broken += _needs(snapshot, ignored, limit)
    severities = list(Severity)
    broken.sort(key=lambda one: severities.index(one.rule.severity))
    return broken, tuple(cut)


def _spaces(snapshot: Snapshot, types: Types, ignored: set[str]) -> list[LintSpace]:
    """The parts of a snapshot, one for each format, each of which knows the tables of all."""
    kinds, backed = architecture.of(snapshot.cpu).memory_types, _backed(snapshot)
    found = list[tuple[Any, Graph, Garbage]]()
    for part in architecture.parts(snapshot):
        cpu, memory = part.cpu, part.memory
        read = graph.read(memory, cpu.format, cpu.roots, graph.FEWER)
        odd = garbage.find(memory, read, backed, kinds.DEVICE)
        if GARBAGE_TABLE.name in ignored:
            odd = odd._replace(tables=np.zeros(0, np.uint64))
        found.append((cpu, read, odd))
    tables = [floor.layer.table for _, read, _ in found for floor in read.floors]
    held = distinct(np.concatenate([np.zeros(0, np.uint64), *tables]))
    spaces = []
    for cpu, read, odd in found:
        roots = [root for root in cpu.roots if int(root.table.address) not in odd.tables]
        if len(roots) < len(cpu.roots):
            read = graph.read(snapshot.memory, cpu.format, roots, graph.FEWER)
        read = graph.without(read, odd.tables)
        spaces.append(LintSpace(cpu, snapshot.memory, read, types, held, odd, backed))
    return spaces


def _as_one(broken: Sequence[Broken], limit: int) -> Broken:
    """What breaks a rule in several parts of a space."""
    findings = tuple(finding for one in broken for finding in one.findings)[:limit]
    total, count = (sum(getattr(one, name) for one in broken) for name in ("total", "count"))
    return Broken(broken[0].rule, findings, total, count)


def _at(rule: Rule, rows: Rows) -> Rows:
    """Rows at those of their addresses that a rule is about, where it is about some alone: of the
    upper half it is all of them, or at least the highest."""
    one = np.ones(len(rows.virtual), np.uint64)
    if rule.name == ADDRESS_ZERO.name:
        return replace(rows, highest=rows.virtual, paths=one)
    if rule.name != USER_IN_KERNEL_HALF.name:
        return rows
    low = rows.virtual >> np.uint64(63) == 0
    first = np.where(low, rows.highest, rows.virtual)
    found = replace(rows, virtual=first, paths=np.where(low, one, rows.paths))
    return found.take(np.argsort(first, kind="stable"))


def _apart(space: LintSpace, rule: Rule, rows: Rows) -> Rows:
    """Rows of which those that are findings of their own cannot be joined."""
    detail = space.own.DETAILS.get(rule.name)
    if detail is None or detail.span is None:
        return rows
    size = np.uint64(detail.span(space, rows.level))
    return replace(rows, group=(rows.virtual // size).astype(np.int64))


def _needs(snapshot: Snapshot, ignored: set[str], limit: int) -> Iterator[Broken]:
    """The rules about what the processor needs that are broken."""
    added = own(snapshot.cpu)
    found = list(added.needs(snapshot))
    for rule in added.NEEDS:
        mine = [one for one in found if one.rule == rule.name and rule.name not in ignored]
        if mine:
            findings = tuple(
                Finding(rule, one.where, None, one.slot, one.count, one.detail)
                for one in mine[:limit]
            )
            yield Broken(rule, findings, len(mine), sum(one.count for one in mine))


def _backed(snapshot: Snapshot) -> Extents | None:
    """Where there is memory: where each piece that touches no other begins and ends; None where the
    source does not record it."""
    if snapshot.backed is None:
        return None
    spans = sorted((span.first, span.last) for span in snapshot.backed)
    first, last = np.array(spans, np.uint64).reshape(len(spans), 2).T
    last = np.maximum.accumulate(last)
    if not len(first):
        return first, last
    start = np.flatnonzero(_begins(first[1:] <= last[:-1] + _ONE))
    stop = np.append(start[1:], len(first)) - 1
    return first[start], last[stop]


def _sort_pages(
    space: LintSpace,
    pages: Rows,
    typed: list[list[_Mapped]],
    code: _Parts,
    data: _Parts,
) -> None:
    """Adds pages to those of their memory type, and to code of the supervisor or of the user alone,
    or to data that someone, or the user, can write."""
    kinds = architecture.of(space.cpu).memory_types
    chosen = kinds.index(space.graph.format.levels[pages.level], pages.raw)
    for number, name in enumerate(space.types):
        if (here := chosen == number).any():
            # Types of one name are one type, whatever chooses them.
            typed[space.types.index(name)].append(_Mapped.of(space, pages.take(here)))
    write, execute = space.writable(pages), space.executable(pages)
    supervisors = space.is_supervisors(pages)
    by_user = space.has(pages, "user") & space.has(pages, "write")
    for kept, rows, concerned in (
        (code.of_supervisor, execute & ~write, supervisors),
        (code.of_user, execute & ~write, ~supervisors),
        (data.of_supervisor, write & ~execute, np.ones_like(write)),
        (data.of_user, write & ~execute, by_user),
    ):
        kept.append(_Mapped.of(space, pages.take(rows & concerned)))


def _mixed_types(
    types: Types, rule: Rule, typed: list[list[_Mapped]], every: _Mapped, limit: int
) -> Iterator[Broken]:
    by_name = {
        types[n]: _covered(_Mapped.together(parts)) for n, parts in enumerate(typed) if parts
    }
    found = [
        ((one, other), _common(by_name[one], by_name[other]))
        for one, other in combinations(sorted(by_name), 2)
    ]
    yield from _pieces(rule, found, every, limit)


def _writable_code(code: _Parts, data: _Parts, every: _Mapped, limit: int) -> Iterator[Broken]:
    """What the supervisor executes and anyone can write, and what the user executes and can write.
    What he executes and the supervisor alone writes is no finding: every kernel loads its programs
    so, and has all memory mapped besides."""
    found = [
        (("executable", "writable"), _common(*(_covered(_Mapped.together(one)) for one in both)))
        for both in zip(code, data, strict=True)
    ]
    yield from _pieces(WRITABLE_CODE, found, every, limit)


def _pieces(
    rule: Rule,
    found: Sequence[tuple[tuple[str, str], _Common]],
    every: _Mapped,
    limit: int,
) -> Iterator[Broken]:
    """Pieces of memory that are mapped in two ways, each with an address of both that holds for
    all of it; what self-maps show does not count."""
    total = sum(len(pieces.first) for _, pieces in found)
    if not total:
        return
    shown = sorted(
        (first, last, f"{names[0]} at {one:#x} and {names[1]} at {other:#x}")
        for names, pieces in found
        for first, last, one, other in zip(*(c[:limit].tolist() for c in pieces), strict=True)
    )
    findings = tuple(
        Finding(rule, None, Span(first, last), None, every.addresses(first), detail)
        for first, last, detail in shown[:limit]
    )
    yield Broken(rule, findings, total, total)


def _memory(one: Range) -> Span | None:
    """The memory of a page, and of several where they follow each other or are one page."""
    if one.kind != RowKind.PAGE or (one.pieces > 1 and not one.repeated):
        return None
    return Span.of(one.physical, one.size if one.repeated else one.pages * one.size)


def _slot(space: LintSpace, one: Range) -> Slot | None:
    """The slot of the first entry."""
    root = root_for(space.cpu, Virtual(one.first))
    if root is None:
        return None
    found = walk(space.memory, root, Virtual(one.first))
    slots = [step.slot for step in found.steps] + [found.unbacked]
    return next((slot for slot in slots if slot is not None and slot.level == one.level), None)


def _off_by_a_table(cpu: Cpu, memory: Memory, table: Table, slots: range) -> str:
    """That the large pages in some slots of a table are those of a lower level; nothing where some
    is not."""
    raws = [line.raw for line in lines(memory, table, slots)]
    readings = [decode.read(cpu, raw, table.level) for raw in raws if raw is not None]
    wrong = [one for one in readings if isinstance(one.entry, Malformed)]
    guesses = [own(cpu).lower(cpu, one) for one in wrong]
    first = next(iter(guesses), "")
    return f"; {first}" if first and all(guesses) else ""


def _detail(space: LintSpace, rule: Rule, one: Range, slot: Slot | None) -> str:
    format = space.graph.format
    if slot is not None and (detail := space.own.DETAILS.get(rule.name)):
        return detail.said(space, one, slot)
    if rule.name == WRITE_EXECUTE.name and not one.granted & format.rights["write"]:
        return f"written to by the supervisor alone: {space.own.KEEPS}"
    if rule.name == TABLE_MAPPED.name:
        writes = space.writes_all or bool(one.granted & format.rights["write"])
        return "can be written" if writes else "read-only"
    if one.kind == RowKind.MALFORMED:
        said = ", ".join(map(str, format.malformed(one.raw, one.level)))
        lower = space.own.lower(space.cpu, decode.read(space.cpu, one.raw, one.level))
        return f"{said}; {lower}" if lower else said
    if one.kind == RowKind.SELF_MAP:
        root = one.physical in {root.table.address for root in space.cpu.roots}
        return f"{'the root' if root else 'the table'} at {one.physical:#x}"
    if one.kind in (RowKind.POINTER, RowKind.UNBACKED):
        off = ""
        if rule.name == GARBAGE_TABLE.name:
            table = Table(format, Physical(one.physical), one.level - 1)
            there = format.slots_below(one.raw, one.level)
            off = _off_by_a_table(space.cpu, space.memory, table, there)
        return f"the table at {one.physical:#x}{off}"
    missing = format.rights_of(one.own & ~one.granted)
    return f"withheld: {', '.join(missing)}" if missing else ""
