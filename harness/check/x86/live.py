"""A space that is changed while a guest runs in it.

    live = Live(guest, space.memory, space.cpu)
    live.probe(span)                # every access there, as the tables are now
    live.flush(space.unmap(span))   # the guest clears the entries, and flushes what it is told
    live.probe(span)
    comparison = live.run()         # now the guest does all of it, in one go

Code that is no part of this package, in C or Rust say, stores into the same tables:

    with live.changes():
        kernel.unmap(address)       # which calls back live.flush([address]) where it flushes
    live.probe(span)

Its stores are those that the tables show.  Where it cannot call back, `live.flush(addresses)` may
follow.  A table that holds something else than it did, which no one has announced, is refused.

Operations work on the tables in the guest's memory as ever.  Where they store is noted, all is
taken back, and the guest stores it again, what came before each flush or access before that; it
executes the flushes that it is told and no others.  So a translation that the machine may keep is
kept, and a flush that is missing shows.

A machine may drop what it keeps at any time, though, and TCG does: how many translations its TLB
holds depends on how long ago it was emptied.  So where the rules let a stale translation serve an
access, the guest does all of it again, from the tables as they were and after all was flushed,
until something stale is seen.  Where nothing is, the accesses count as not comparable: NOT_SHOWN.

The guest also notes what it accesses.  The tables have that at once, from the reference, so that
operations find the accessed and dirty bits that they would find on the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.hole import find_root_hole
from harness.check.marks import WORD, mark, put_marks
from harness.check.quirk import expected_of
from harness.check.x86 import marks
from harness.check.x86.cases import Cases, evenly
from harness.check.x86.entries import ALL, PathEntries
from harness.check.x86.marks import INVALID_OPCODE, LONG_CODE
from harness.check.x86.quirks import KEPT_CODE, DenialQuirk, fault_quirks
from harness.check.x86.second_reading import Reading, by_tables
from harness.check.x86.space import Note, NotedMemory
from harness.check.x86.stores import KnownTables
from harness.check.x86.verdicts import Seen, expected_text, judged, observed_text
from harness.check.x86.window import Window, check_root, open_window
from harness.machine.engines import executor
from harness.machine.errors import Misuse
from harness.machine.ram import ARENA, TABLE_ARENA
from harness.machine.x86.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.bulk import Counts, End, Paths
from harness.paging.flush import Flush
from harness.paging.memory import Mask, Words, within
from harness.paging.space import TableAllocator
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes, outcomes
from harness.paging.x86.cpu import Cpu, Cr4

TABLES = "tables"
"""The oracle: the entries as the guest left them in the end."""

NOT_SHOWN = "a flush may be missing, and nothing stale was seen"
"""Why accesses are not comparable that an older translation may serve by the rules; in how many
runs is said after it."""

BESIDE = "a page beside what is probed leads to a table, or where there is no memory for frames"
"""Why accesses are not made there: they would store in what is no frame of the test's."""

RUNS = 16
"""How often the guest does all of it at most, for something stale to be seen."""

READ, WRITTEN = 0, WORD
"""Offsets in a page of the word that is read, which names its frame, and of that which is
written; code lies at `marks.CODE`."""

ACCESSES = (
    *((Kind.READ, *how) for how in ((False, False), (False, True), (True, False))),
    *((Kind.WRITE, *how) for how in ((False, False), (False, True), (True, False))),
    *((Kind.FETCH, *how) for how in ((False, False), (True, False))),
)
"""Kind, from user mode, with EFLAGS.AC: what is tried at a page, in this order."""


@dataclass(frozen=True)
class _Asked:
    """Accesses of one `probe`, and what is expected of them; one lane an access.

    number   of the `probe`, from 1 on
    first    the batch's number of its first job
    aimed    the physical address of the word that is reached, 0 where none is
    value    what is stored by a write
    """

    number: int
    first: int
    cpu: Cpu
    cases: Cases
    rules: Outcomes
    paths: Paths
    aimed: Words
    value: Words

    @property
    def allowed(self) -> Mask:
        """Which accesses are made."""
        made: Mask = self.rules.vector == ALLOWED
        return made

    @cached_property
    def entries(self) -> PathEntries:
        """What each access leaves in the entries of its path, were it the only one."""
        format, ended = self.cpu.format, self.rules.walks.level
        return PathEntries.of_paths(format, self.paths, ended, self.cases.kind)

    @cached_property
    def keys(self) -> Words:
        """A number for each access that tells it from the others: addresses are of whole words."""
        return self.cases.address | self.cases.user * np.uint64(1) | self.cases.ac * np.uint64(2)

    @cached_property
    def sets_anew(self) -> Mask:
        """Which accesses are made and find a bit clear that they set in an entry."""
        clear = self.entries.sets & ~self.paths.raw & np.where(self.paths.used, ALL, np.uint64(0))
        anew: Mask = self.allowed & clear.any(axis=0)
        return anew

    def dropped_by(self, flush: _Flushed, lanes: Counts) -> Mask:
        """Whether a flush drops the translation that an access, which was made, has used."""
        walks, format = self.rules.walks, self.cpu.format
        shifts = np.array([level.shift for level in format.levels], np.uint64)
        is_global = walks.raw[lanes] & np.uint64(format.lasting) != 0
        is_global &= bool(self.cpu.cr4 & Cr4.PGE)
        return flush.drops(self.cases.address[lanes], shifts[walks.level[lanes]], is_global)

    def reordered(self, order: Counts, value: Words) -> _Asked:
        """The same accesses in another order, with other values to be stored."""
        rules, paths = _taken(self.rules, order), _taken(self.paths, order)
        cases, aimed = self.cases.take(order), self.aimed[order]
        return replace(self, cases=cases, rules=rules, paths=paths, aimed=aimed, value=value)


@dataclass(frozen=True)
class _Flushed:
    """What the guest flushes.

    addresses     INVLPG of each; None for a load of CR3, which keeps what is global
    global_pages  or, by a change of CR4.PGE, drops that too
    """

    addresses: Words | None
    global_pages: bool = False

    @property
    def everything(self) -> bool:
        return self.addresses is None and self.global_pages

    def drops(self, address: Words, shift: Words, is_global: Mask) -> Mask:
        """Which translations are dropped, of pages of 2**shift bytes (SDM volume 3A, 4.10.4.1)."""
        if self.addresses is None:
            return ~is_global | self.global_pages
        dropped = np.zeros(len(address), np.bool_)
        for size in np.unique(shift):
            dropped |= (shift == size) & np.isin(address >> size, self.addresses >> size)
        return dropped


@dataclass(frozen=True)
class _Kept:
    """Translations that a machine may have kept, and that would show.

    source  the number of the event, a probe, for which it had them
    theirs  the lanes of that probe that used them
    lanes   those of this probe that they may serve, one each
    """

    source: int
    theirs: Counts
    lanes: Counts


_Event = _Asked | _Flushed


@dataclass
class _Batch:
    """What the guest does under one root, from the load of CR3 on.

    events  what it is asked, and between that what it flushes
    """

    cpu: Cpu
    window: Window
    jobs: list[npt.NDArray[np.void]] = field(default_factory=list)
    events: list[_Event] = field(default_factory=list)

    @property
    def state(self) -> State:
        """What the guest loads."""
        cpu = self.cpu
        control = {name: getattr(cpu, name) for name in ("cr0", "cr4", "efer", "pkru", "pkrs")}
        return replace(self.window.state, **control)

    @property
    def count(self) -> int:
        """Jobs so far."""
        return sum(map(len, self.jobs))


class Live:
    """A guest that runs under the tables of a space while they are changed.

    memory  the guest's RAM, in which the spaces were made; what is stored there from now on is
            noted
    cpu     the state that the guest has first; 4 or 5 levels

    A guest has one at a time.  What the spaces map are frames above the tables, whose content is
    overwritten.  The stub has one root slot of each space to itself, in the middle of the lower
    half or the next that is empty; SpaceError where none is.  Misuse for a CR3 that cannot be
    loaded or leads elsewhere.
    """

    def __init__(self, guest: Guest, memory: NotedMemory, cpu: Cpu) -> None:
        self._guest, self._memory = guest, memory
        engine, version = executor(guest)
        self._quirks = fault_quirks(engine, version)
        # KVM follows every store, so that once is enough, and none of what this process takes back.
        self._runs = RUNS if guest.engine.keeps_stale else 1
        self._keeps_code = expected_of(KEPT_CODE, engine, version)
        arena = Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1)
        self._allocator = TableAllocator(memory, arena)
        self._random = np.random.default_rng()
        self._probes = 0
        self._known, self._announced, self._refused = KnownTables(memory), False, ""
        self._not_asked: Counter[str] = Counter()
        self._reset(_Batch(cpu, self._open(cpu)))
        self._tell_of_tables(cpu)

    @property
    def cpu(self) -> Cpu:
        """The state that was loaded last."""
        return self._batches[-1].cpu

    @property
    def window(self) -> Span:
        """The addresses of that space where the stub runs."""
        return self._batches[-1].window.span

    def _open(self, cpu: Cpu) -> Window:
        check_root(self._guest.free, cpu)
        hole = find_root_hole(self._memory, cpu.roots[0])
        return open_window(self._memory, cpu, self._guest.image, self._allocator, hole)

    def _tell_of_tables(self, cpu: Cpu) -> None:
        """Has the guest store what its tables hold already.

        KVM follows what a guest stores in its tables.  Where it shadows them it does not see what
        this process stores, and may go on using what an earlier space had in their place.
        """
        if not self._guest.engine.keeps_stale:
            width = cpu.format.entry_bytes
            tables = bulk.leaves(self._memory, cpu.roots, limit=0).tables.address
            slots = np.arange(0, cpu.format.table_bytes(0), width, dtype=np.uint64)
            where = (np.unique(tables)[:, np.newaxis] + slots).ravel()
            self._memory.scatter(where, width, self._memory.gather(where, width)[0])

    def _reset(self, batch: _Batch) -> None:
        self._batches = [batch]
        self._windows = {batch.cpu.cr3: batch.window}
        self._stored: list[Note] = []
        self._not_asked.clear()
        self._memory.notes = []
        self._known.forget()
        self._known.learn(batch.cpu)

    # What the guest is to do.

    def load(self, cpu: Cpu) -> None:
        """Has the guest load another state, for instance with the root of another space.

        All that was cached goes with it: the guest changes between its own tables and those.
        """
        self._take_stores()
        window = self._windows.get(cpu.cr3)
        if window is None or not self._memory.load(window.hole[0].address, cpu.format.entry_bytes):
            window = self._windows[cpu.cr3] = self._open(cpu)
            self._tell_of_tables(cpu)
        self._take_stores()
        self._batches.append(_Batch(cpu, window))
        self._take_stores()

    @contextmanager
    def changes(self) -> Iterator[None]:
        """Code that stores into the tables as it likes: what they hold otherwise afterwards, the
        guest stores in its turn.

        What is flushed, probed or loaded in the block comes after what was stored before it.
        Raises Misuse where the entry by which the stub runs is overwritten.
        """
        self._take_stores()
        self._announced = True
        try:
            yield
        finally:  # what was stored before an error is announced too
            try:
                self._take_stores()
            finally:
                self._announced = False

    def flush(self, flush: Flush | Iterable[int]) -> None:
        """Has the guest flush what is asked for, or some addresses, each with an INVLPG, and
        nothing else; then it is done."""
        if not isinstance(flush, Flush):
            self._flush_pages(np.array([int(address) for address in flush], np.uint64))
            return
        if flush.everything:
            self.flush_all(global_pages=flush.global_pages)
        else:
            self._flush_pages(flush.addresses)
        flush.done()

    def _flush_pages(self, addresses: Words) -> None:
        jobs = self._guest.image.new_jobs(len(addresses))
        jobs["address"], jobs["flush"] = addresses, self._guest.image.enums["FLUSH_PAGE"]
        self._flush(jobs, _Flushed(addresses))

    def flush_all(self, *, global_pages: bool = False) -> None:
        """Has the guest load CR3 again; or flush global pages too, by a change of CR4.PGE."""
        jobs = self._guest.image.new_jobs(1)
        jobs["flush"] = self._guest.image.enums["FLUSH_GLOBAL" if global_pages else "FLUSH_ALL"]
        self._flush(jobs, _Flushed(None, global_pages))

    def _flush(self, jobs: npt.NDArray[np.void], flushed: _Flushed) -> None:
        self._take_stores()
        self._batches[-1].jobs.append(jobs)
        self._batches[-1].events.append(flushed)

    def probe(self, *spans: Span, pages: int = 64) -> None:
        """Has the guest try every access at the pages of each span and at both pages beside it.

        pages  how many small pages of a span are tried at most: those at its ends, and some in
               between at equal distances

        Raises Misuse where a page of a span leads to a table, or where there is no memory for
        frames: accesses store there.  A page beside it that does so is left out, and counted:
        BESIDE.
        """
        self._take_stores()
        self._probes += 1
        batch = self._batches[-1]
        size = batch.cpu.format.levels[0].size
        tried = np.unique(np.concatenate([_pages(span, size, pages) for span in spans]))
        cases, rules = self._cases(batch, tried, spans)
        self._mark(batch.cpu, cases, rules)
        self._take_stores()
        paths = bulk.paths(self._memory, batch.cpu.roots[0], cases.address)
        paths.used[:, rules.walks.end == End.NO_ROOT] = False
        asked = _Asked(
            self._probes,
            batch.count,
            batch.cpu,
            cases,
            rules,
            paths,
            rules.walks.physical,
            self._random.integers(1 << 63, size=len(cases), dtype=np.uint64),
        )
        batch.events.append(asked)
        batch.jobs.append(self._jobs(asked))
        slot, which = np.unique(paths.slot[paths.used], return_inverse=True)
        last = np.zeros(len(slot), np.uint64)
        np.bitwise_or.at(last, which, asked.entries.after(asked.allowed)[paths.used])
        self._memory.scatter(slot, batch.cpu.format.entry_bytes, last)
        self._take_stores(by_guest=False)

    def _cases(self, batch: _Batch, pages: Words, spans: Sequence[Span]) -> tuple[Cases, Outcomes]:
        """All accesses at all pages that are left to the space, one access after the other, and how
        they end by the rules."""
        kept = {q.name: q.kept for q in self._quirks if isinstance(q, DenialQuirk)}
        for name, span in {"the stub runs there": batch.window.span, **kept}.items():
            own = within(pages, span)
            if own.any():
                self._not_asked[name] += int(own.sum()) * len(ACCESSES)
            pages = pages[~own]
        cases, rules = self._accesses(batch.cpu, pages)
        lost = _without_frames(rules, self._memory.span)
        size = batch.cpu.format.levels[0].size
        page_of = cases.address // size * size
        named = np.isin(page_of, [page for page in pages.tolist() if _meets(page, size, spans)])
        if (lost & named).any():
            lane = int((lost & named).argmax())
            raise Misuse(
                f"{int(cases.address[lane]):#x} leads to {int(rules.walks.physical[lane]):#x},"
                " where there is no memory for frames: it is"
                f" {Span(ARENA.stop, self._memory.span.last)}. Probe only addresses that lead there"
            )
        lost[rules.vector == ALLOWED] |= self._known.in_use(
            batch.cpu, rules.walks.physical[rules.vector == ALLOWED]
        )
        beside = np.isin(pages, page_of[lost & ~named])
        if not beside.any():
            return cases, rules
        self._not_asked[BESIDE] += int(beside.sum()) * len(ACCESSES)
        return self._accesses(batch.cpu, pages[~beside])

    def _accesses(self, cpu: Cpu, pages: Words) -> tuple[Cases, Outcomes]:
        """All accesses at some pages, and how they end by the rules."""
        offset = {Kind.READ: READ, Kind.WRITE: WRITTEN, Kind.FETCH: marks.CODE}
        kind, user, ac = (np.repeat(column, len(pages)) for column in zip(*ACCESSES, strict=True))
        address = np.concatenate([pages + np.uint64(offset[one[0]]) for one in ACCESSES])
        cases = Cases(address, kind.astype(np.uint8), user, ac)
        return cases, outcomes(cpu, self._memory, address, cases.kind, user, ac)

    def _jobs(self, asked: _Asked) -> npt.NDArray[np.void]:
        cases, enums = asked.cases, self._guest.image.enums
        jobs = self._guest.image.new_jobs(len(cases))
        cases.put(jobs, enums)
        jobs["size"], jobs["value"] = WORD, asked.value
        levels = len(asked.paths.slot)
        jobs["watched"] = levels + 1
        for level in range(levels):
            used = asked.paths.used[level]
            jobs["where"][used, levels - 1 - level] = asked.paths.slot[level, used]
        jobs["where"][:, levels] = asked.aimed & ~np.uint64(WORD - 1)
        return jobs

    def _mark(self, cpu: Cpu, cases: Cases, rules: Outcomes) -> None:
        """Puts what reads and fetches shall find into the frames.

        That is no store of a space; but where a table was before, it is seen as one, and so the
        guest stores it.
        """
        made, aimed = rules.vector == ALLOWED, rules.walks.physical
        reads = aimed[made & (cases.kind == Kind.READ)]
        fetches = aimed[made & (cases.kind == Kind.FETCH)]
        if (table := self._known.in_use(cpu, reads)).any():
            lane = int(np.flatnonzero(made & (cases.kind == Kind.READ))[table.argmax()])
            raise Misuse(
                f"{int(cases.address[lane]):#x} leads to {int(aimed[lane]):#x}, in a table, where"
                " accesses would store: probe other pages"
            )
        self._memory.notes, notes = None, self._memory.notes
        put_marks(self._memory, reads)
        marks.put_code(self._memory, fetches)
        self._memory.notes = notes
        self._known.hold_frames(cpu, np.concatenate([reads, fetches]))

    def _take_stores(self, by_guest: bool = True) -> None:
        """Makes jobs of what was stored since, each word once; none of what the guest notes."""
        assert self._memory.notes is not None
        if self._refused:
            raise Misuse(self._refused)
        self._memory.notes[:0] = self._foreign_stores(self._memory.notes)
        notes, self._memory.notes = self._memory.notes, []
        if not notes:
            return
        self._stored += notes
        if by_guest:
            where = np.unique(np.concatenate([note.addresses for note in notes]))
            values, _ = self._memory.gather(where, self._batches[-1].cpu.format.entry_bytes)
            self._batches[-1].jobs.append(self._patches(where, values))

    def _foreign_stores(self, notes: Sequence[Note]) -> list[Note]:
        """What was stored into tables, or holds in new ones, beside what is noted.

        Raises Misuse, and from then on for whatever is asked, where no one has announced it and an
        access was made before that could have used what was there; and for a store that takes the
        stub's own entry away.
        """
        whole = not self._guest.engine.keeps_stale
        found = self._known.changed(self._batches[-1].cpu, whole=whole)
        if not len(found.addresses):
            return []
        noted = np.concatenate([_NONE, *(note.addresses for note in notes)])
        foreign = found.in_use & ~np.isin(found.addresses, noted)
        if foreign.any():
            self._refused = self._why_refused(found.addresses[foreign], found.before[foreign])
        if self._refused:
            raise Misuse(self._refused)
        return [Note(found.addresses, found.before)]

    def _why_refused(self, addresses: Words, before: Words) -> str:
        """Why stores into tables in use cannot be taken; empty where they can."""
        for slot in self._batches[-1].window.hole:
            if slot.address in addresses:
                return (
                    f"entry {slot.index} of the root's table, at {slot.address:#x}, is the stub's,"
                    " which runs by it, and was overwritten: leave entries alone that the code"
                    " under test has not made"
                )
        asked = any(isinstance(event, _Asked) for one in self._batches for event in one.events)
        if self._announced or not asked:
            return ""
        first, was = int(addresses[0]), int(before[0])
        now = self._memory.load(Physical(first), self._batches[-1].cpu.format.entry_bytes)
        return (
            f"the entry at {first:#x} was {was:#x} and is {now:#x}, and no one has announced that"
            " store: put what stores there into a block of `with live.changes():`"
        )

    def _patches(self, where: Words, values: Words) -> npt.NDArray[np.void]:
        room = self._guest.image.enums["WORDS"]
        jobs = self._guest.image.new_jobs(-(-len(where) // room))
        for name, words in (("where", where), ("word", values)):
            padded = np.zeros(len(jobs) * room, np.uint64)
            padded[: len(words)] = words
            jobs[name] = padded.reshape(-1, room)
        jobs["patched"] = np.minimum(room, len(where) - room * np.arange(len(jobs)))
        return jobs

    # What comes of it.

    def run(self) -> Comparison:
        """Has the guest do it all, and compares what it saw and the entries that it leaves.

        It does so again where something stale may be seen and was not.  The guest goes on from
        there: what follows is noted anew.  Raises Misuse where there is more than one batch holds,
        since nothing may come between the flushes.
        """
        self._take_stores()
        for batch in self._batches:
            if batch.count > self._guest.capacity:
                raise Misuse(
                    f"{batch.count:,} jobs under one root: a batch holds {self._guest.capacity:,};"
                    " probe fewer pages, or run() in between"
                )
        self._memory.notes = None
        width = self._batches[0].cpu.format.entry_bytes
        touched = np.unique(np.concatenate([note.addresses for note in self._stored] or [_NONE]))
        wanted, _ = self._memory.gather(touched, width)
        for note in reversed(self._stored):
            self._memory.scatter(note.addresses, width, note.before)
        before, _ = self._memory.gather(touched, width)
        kept = [_kept_of_each(batch.events) for batch in self._batches]
        runs = self._runs if any(one for each in kept for one in each) else 1
        for number in range(1, runs + 1):
            comparison = Comparison(PROBE, not_comparable=self._not_asked.copy())
            unseen = np.concatenate(
                [
                    self._execute(batch, each, comparison)
                    for batch, each in zip(self._batches, kept, strict=True)
                ]
            )
            entries = ~np.isin(touched, self._written())
            self._compare_entries(comparison, touched[entries], wanted[entries])
            if comparison.disagreed or number == runs:
                break
            self._memory.scatter(touched, width, before)
        if len(unseen):
            runs_text = "1 run" if number == 1 else f"{number} runs"
            ended = ", the last of which ended at a disagreement" if comparison.disagreed else ""
            first = f"{int(unseen.min()):#x} is the first address"
            reason = f"{NOT_SHOWN} in {runs_text}{ended}: {first}"
            comparison.not_comparable[reason] = len(unseen)
            comparison.compared -= len(unseen)
        self._reset(self._batches[-1])
        self._batches[-1].jobs, self._batches[-1].events = [], []
        return comparison

    def _execute(
        self, batch: _Batch, kept: Sequence[Sequence[_Kept]], comparison: Comparison
    ) -> Words:
        """Has the guest do a batch; the addresses of accesses that something stale may serve, and
        did not.

        Each of these comes first in its probe, the access that was served before last in its own,
        so that little comes between them for which the machine might drop a translation.
        """
        jobs = np.concatenate([self._guest.image.new_jobs(0), *batch.jobs])
        events = list(batch.events)
        orders = self._orders(batch.events, kept)
        for number, order in orders.items():
            event = batch.events[number]
            assert isinstance(event, _Asked)
            # Other values: what an earlier run has stored is none of this one's.
            value = self._random.integers(1 << 63, size=len(order), dtype=np.uint64)
            events[number] = event.reordered(order, value)
            own = slice(event.first, event.first + len(order))
            jobs[own] = jobs[own][order]
            jobs["value"][own] = value
        results = self._guest.run(batch.state, jobs)
        unseen = [_NONE]
        for number, event in enumerate(events):
            if not isinstance(event, _Asked):
                continue
            own_kept = _kept(events, number) if kept[number] else ()
            seen = results[event.first :][: len(event.cases)]
            agree = self._judge(comparison, event, seen, events[:number], own_kept)
            unseen.append(event.cases.address[agree & _lanes_of(own_kept, len(agree))])
        return np.concatenate(unseen)

    def _orders(
        self, events: Sequence[_Event], kept: Sequence[Sequence[_Kept]]
    ) -> dict[int, Counts]:
        """In which order the accesses of a probe are made, by its number; not of those that have
        and serve nothing stale."""
        first_or_last: dict[int, npt.NDArray[np.float64]] = {}
        for number in self._random.permutation(len(events)).tolist():
            for one in kept[number]:
                draw = self._random.random(len(one.lanes)) + 1
                for event, lanes, place in (
                    (number, one.lanes, -draw),
                    (one.source, one.theirs, draw),
                ):
                    asked = events[event]
                    assert isinstance(asked, _Asked)
                    places = first_or_last.setdefault(event, np.zeros(len(asked.cases)))
                    places[lanes] = place
        return {
            number: np.argsort(places, kind="stable") for number, places in first_or_last.items()
        }

    def _judge(
        self,
        comparison: Comparison,
        asked: _Asked,
        results: npt.NDArray[np.void],
        earlier: Sequence[_Event],
        kept: Sequence[_Kept],
    ) -> Mask:
        """Which accesses ended as they must."""
        cases, rules, allowed = asked.cases, asked.rules, asked.allowed
        untouched = np.uint64(self._guest.image.enums["CR2_UNTOUCHED"])
        word = results["after"][:, len(asked.paths.slot)]
        named = results["data"] == mark(asked.aimed)
        ran = named & (results["rip"] == cases.address + np.uint64(LONG_CODE.end))
        fetched = ran & (results["vector"] == INVALID_OPCODE)
        kinds = [cases.kind == Kind.READ, cases.kind == Kind.WRITE]
        made = np.select(kinds, [named, word == asked.value], fetched)
        entries = asked.entries

        def entries_agree(made: Mask, accessed_anyway: Mask | None) -> Mask:
            after = _in_turn(asked, entries.after(made, accessed_anyway))
            return entries.agree(results, made, after, asked.paths.used * ALL)

        seen = Seen(results, untouched, entries, made | ~allowed, ran, entries_agree)
        reading = Reading(by_tables(asked.cpu, cases, asked.paths.raw))
        agree = judged(comparison, reading, rules, seen, self._quirks).agree
        comparison.compared += len(cases)
        if self._keeps_code and not agree.all():
            code = _kept_code(asked, results, ~agree & (results["cr2"] == untouched), earlier)
            code &= entries_agree(allowed & ~code, None)
            if code.any():
                comparison.quirks[KEPT_CODE.name] += int(code.sum())
            agree |= code
        wrong = np.flatnonzero(~agree)
        room = max(0, EXAMPLES - len(comparison.disagreements))
        comparison.disagree(
            len(wrong),
            list(islice(_described(asked, results, wrong, earlier, kept), room)),
        )
        return agree

    def _written(self) -> Words:
        """The words that accesses store; where a table was before, they are noted too."""
        events = [event for batch in self._batches for event in batch.events]
        asked = [event for event in events if isinstance(event, _Asked)]
        parts = [event.aimed[event.allowed & (event.cases.kind == Kind.WRITE)] for event in asked]
        return np.concatenate([_NONE, *parts])

    def _compare_entries(self, comparison: Comparison, touched: Words, wanted: Words) -> None:
        """Compares what was stored or noted: A that is set without need is the machine's choice."""
        format = self._batches[0].cpu.format
        found, _ = self._memory.gather(touched, format.entry_bytes)
        wrong = np.flatnonzero((found ^ wanted) & ~(np.uint64(format.accessed) & ~wanted))
        comparison.compared += len(touched)
        comparison.disagree(
            len(wrong),
            [
                Disagreement(
                    oracle=TABLES,
                    address=int(touched[lane]),
                    access=None,
                    ac=False,
                    expected=f"{int(wanted[lane]):#x}",
                    observed=f"{int(found[lane]):#x}",
                )
                for lane in wrong[:EXAMPLES].tolist()
            ],
        )


_NONE = np.empty(0, np.uint64)


def _pages(span: Span, size: int, limit: int) -> Words:
    """The first addresses of the pages that are tried for a span; they may wrap beside it."""
    first, last = span.first // size, span.last // size
    count = last - first + 1
    inside = evenly(count, limit).tolist()
    pages = [first - 1, *(first + step for step in inside), last + 1]
    return np.array([page * size % (1 << 64) for page in pages], np.uint64)


def _meets(page: int, size: int, spans: Sequence[Span]) -> bool:
    """Whether any of the `size` bytes of a page is in one of the spans."""
    return any(Span.of(page, size).clip(span) for span in spans)


def _without_frames(rules: Outcomes, ram: Span) -> Mask:
    """Which accesses reach no frame of the guest's above the arena, or lead to where no table is in
    memory."""
    physical = rules.walks.physical
    lost = (physical < np.uint64(ARENA.stop)) | (physical > np.uint64(ram.last))
    found: Mask = rules.unbacked | lost & (rules.vector == ALLOWED)
    return found


def _in_turn(asked: _Asked, after: Words) -> Words:
    """Each entry after the access of its lane, which finds what those of the lanes before it left.

    after  each as its own access leaves it; shape (levels, n)
    """
    format, used = asked.cpu.format, asked.paths.used
    lanes = np.broadcast_to(np.arange(used.shape[1]), used.shape)[used]
    slots, which = np.unique(asked.paths.slot[used], return_inverse=True)
    together, entries = after.copy(), after[used]
    for bit in (np.uint64(format.accessed), np.uint64(format.dirty)):
        since, has = np.full(len(slots), used.shape[1]), entries & bit != 0
        np.minimum.at(since, which[has], lanes[has])
        together[used] |= (since[which] <= lanes) * bit
    return together


def _kept_code(
    asked: _Asked,
    results: npt.NDArray[np.void],
    suspects: Mask,
    earlier: Sequence[_Event],
) -> Mask:
    """The suspects that are explained by KEPT_CODE: they executed what an earlier fetch found at
    the same address in a large page, of which another address has been flushed since."""
    address = asked.cases.address
    suspects = suspects & (asked.cases.kind == Kind.FETCH)
    suspects &= results["vector"] == INVALID_OPCODE
    suspects &= results["rip"] == address + np.uint64(LONG_CODE.end)
    kept = np.zeros_like(suspects)
    for lane in np.flatnonzero(suspects).tolist():
        flushed: set[int] = set()
        small = np.uint64(asked.cpu.format.levels[0].size)
        own = int(address[lane] // small)
        for event in reversed(earlier):
            if isinstance(event, _Flushed):
                if event.addresses is None:
                    break
                flushed |= set((event.addresses // small).tolist())
                continue
            if own in flushed:
                break
            same = (event.cases.address == address[lane]) & (event.cases.kind == Kind.FETCH)
            same &= mark(event.aimed) == results["data"][lane]
            for other in np.flatnonzero(same & event.allowed).tolist():
                pages = asked.cpu.format.levels[event.rules.walks.level[other]].size // int(small)
                kept[lane] |= any(own // pages == page // pages for page in flushed)
    return kept


def _kept_of_each(events: Sequence[_Event]) -> list[list[_Kept]]:
    """For each event of a batch what a machine may have kept of those before it."""
    return [_kept(events, number) for number in range(len(events))]


def _kept(events: Sequence[_Event], number: int) -> list[_Kept]:
    """What a machine may have kept of the probes before an event, the last of them first.

    Those are accesses that were made and are made again, with another outcome by now: they are
    not made, reach another word, or have to set a bit of an entry that was set before.  No flush
    that drops their translation has come in between.
    """
    asked, found = events[number], []
    if not isinstance(asked, _Asked):
        return []
    flushes: list[_Flushed] = []
    for source in range(number - 1, -1, -1):
        event = events[source]
        if isinstance(event, _Flushed):
            if event.everything:
                break
            flushes.append(event)
            continue
        _, theirs, lanes = np.intersect1d(event.keys, asked.keys, True, return_indices=True)
        other = ~asked.allowed[lanes] | (asked.aimed[lanes] != event.aimed[theirs])
        other |= asked.sets_anew[lanes]
        other &= event.allowed[theirs]
        theirs, lanes = theirs[other], lanes[other]
        for flush in flushes:
            there = ~event.dropped_by(flush, theirs)
            theirs, lanes = theirs[there], lanes[there]
        if len(lanes):
            found.append(_Kept(source, theirs, lanes))
    return found


def _lanes_of(kept: Sequence[_Kept], count: int) -> Mask:
    """The lanes of a probe that something which was kept may serve."""
    lanes = np.zeros(count, np.bool_)
    for one in kept:
        lanes[one.lanes] = True
    return lanes


_Arrays = TypeVar("_Arrays", Outcomes, Paths, bulk.Walks)


def _taken(arrays: _Arrays, order: Counts) -> _Arrays:
    """The lanes of arrays, the last of whose axes is that of lanes, in another order."""
    taken: dict[str, Any] = {}
    for one in fields(arrays):
        value = getattr(arrays, one.name)
        of_lanes = isinstance(value, np.ndarray)
        taken[one.name] = value[..., order] if of_lanes else _taken(value, order)
    return replace(arrays, **taken)


def _stale(
    asked: _Asked,
    result: np.void,
    lane: int,
    earlier: Sequence[_Event],
    kept: Sequence[_Kept],
) -> _Asked | None:
    """The last probe of which a translation may have been kept that explains an access's end."""
    for one in kept:
        event = earlier[one.source]
        assert isinstance(event, _Asked)
        for other in one.theirs[one.lanes == lane].tolist():
            if _ended_as(event, other, result):
                return event
    return None


def _ended_as(asked: _Asked, lane: int, result: np.void) -> bool:
    """Whether an access that ended so is as was expected of a lane, as far as it alone tells."""
    if not asked.allowed[lane]:
        fault = (asked.rules.vector[lane], asked.rules.error[lane])
        return not result["completed"] and fault == (result["vector"], result["error"])
    named = asked.cases.kind[lane] == Kind.WRITE or (
        result["data"] == mark(asked.aimed[lane : lane + 1])[0]
    )
    return bool(result["completed"] and named)


LOOKED_AT = 1 << 12
"""Accesses that ended otherwise than they must, of which the causes are looked for."""


def _described(
    asked: _Asked,
    results: npt.NDArray[np.void],
    wrong: Counts,
    earlier: Sequence[_Event],
    kept: Sequence[_Kept],
) -> Iterator[Disagreement]:
    """Accesses that ended otherwise than they must, in order of address; those as one for which the
    same flush may be missing, of a page or of pages in a row."""
    order = np.argsort(asked.cases.address[wrong], kind="stable")
    size = asked.cpu.format.levels[0].size
    group: list[int] = []
    cause: tuple[int, str] | None = None
    for lane in wrong[order][:LOOKED_AT].tolist():
        stale = _stale(asked, results[lane], lane, earlier, kept)
        own = None if stale is None else (stale.number, _change(asked, stale, lane))
        page = int(asked.cases.address[lane]) // size
        follows = group and page - int(asked.cases.address[group[-1]]) // size <= 1
        if own is None or own != cause or not follows:
            if group:
                yield _describe(asked, results, group, cause)
            group, cause = [], own
        group.append(lane)
    if group:
        yield _describe(asked, results, group, cause)


def _change(asked: _Asked, stale: _Asked, lane: int) -> str:
    """What became of a page since an earlier probe, a phrase."""
    if asked.rules.walks.end[lane] == End.ABSENT:
        return "was unmapped"
    if not asked.allowed[lane]:
        return "lost rights"
    here = (stale.keys == asked.keys[lane]) & (stale.aimed != asked.aimed[lane])
    return "was led elsewhere" if here.any() else "was changed"


def _describe(
    asked: _Asked,
    results: npt.NDArray[np.void],
    lanes: Sequence[int],
    cause: tuple[int, str] | None,
) -> Disagreement:
    """One of the accesses, which have one cause: the call of `probe` whose answer it is, and what
    became of the pages since."""
    lane = lanes[0]
    cases, result = asked.cases, results[lane]
    kind, levels = Kind(int(cases.kind[lane])), len(asked.paths.slot)
    found = int(result["after"][levels] if kind is Kind.WRITE else result["data"])
    steps = range(levels - 1, int(asked.rules.walks.level[lane]) - 1, -1)
    marked = bool(asked.allowed[lane]) and kind is not Kind.WRITE
    before = [int(asked.paths.raw[level, lane]) for level in steps]
    hint = ""
    if cause is not None:
        call, became = cause
        size = asked.cpu.format.levels[0].size
        first, last = (int(cases.address[one]) // size * size for one in (lane, lanes[-1]))
        where = f"{first:#x}" if first == last else f"{Span(first, last + size - 1)}"
        many = len(lanes) > 1
        hint = (
            f"a flush may be missing: {where} {became} and not flushed, and {len(lanes)}"
            f" access{'es' if many else ''} still end{'' if many else 's'} as at call {call} of"
            " live.probe (SDM 4.10.4)"
        )
    return Disagreement(
        oracle=PROBE,
        address=int(cases.address[lane]),
        access=Access(kind, bool(cases.user[lane])),
        ac=bool(cases.ac[lane]),
        expected=f"{expected_text(asked.rules, lane)}; at call {asked.number} of live.probe",
        observed=observed_text(result, found, marked, before),
        hint=hint,
        count=len(lanes),
    )
