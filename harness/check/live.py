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

What accesses are, what they leave in entries and what a flush drops is the architecture's: its
folder has the `Live` that is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.marks import WORD
from harness.check.product import evenly
from harness.check.space import Note, NotedMemory
from harness.check.stores import Cpu, KnownTables, format_of
from harness.machine.errors import Misuse
from harness.machine.guest import StubGuest
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.bulk import Counts, End, Paths, Walks
from harness.paging.entry import Pointer
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.memory import Mask, Words, distinct, within
from harness.paging.space import TableAllocator
from harness.paging.table import Root, Slot

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
written."""


class Window(Protocol):
    """Where the stub runs in a space: by which slots of it, and at which addresses."""

    @property
    def hole(self) -> tuple[Slot, ...]: ...

    @property
    def span(self) -> Span: ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Accesses of one `probe`, and what is expected of them; one lane an access.

    number                  of the `probe`, from 1 on
    first                   the batch's number of its first job
    key                     tells each access from the others, at whatever address
    reads, writes, fetches  what it is
    allowed                 whether it is made
    lasting                 whether its translation outlives a change of the root
    sets                    the bits that it sets in each entry of its path, were it the only one;
                            shape (levels, n)
    aimed                   the physical address of the word that it reaches, 0 where none is
    value                   what is stored by a write

    An architecture adds what its accesses are, and what its rules say of them.
    """

    number: int = 0
    first: int = 0
    cpu: Any
    address: Words
    key: Words
    reads: Mask
    writes: Mask
    fetches: Mask
    allowed: Mask
    lasting: Mask
    walks: Walks
    paths: Paths
    sets: Words
    aimed: Words
    value: Words

    def __len__(self) -> int:
        return len(self.address)

    @property
    def format(self) -> Format:
        """Of the tables."""
        return format_of(self.cpu)

    @cached_property
    def sets_anew(self) -> Mask:
        """Which accesses are made and find a bit clear that they set in an entry."""
        clear = self.sets & ~self.paths.raw & np.where(self.paths.used, ALL, np.uint64(0))
        anew: Mask = self.allowed & clear.any(axis=0)
        return anew

    @cached_property
    def kept(self) -> Mask:
        """Which accesses a machine may answer again by what it has kept of this one."""
        flushing, end = self.format.flushing, self.walks.end
        assert flushing is not None  # there are no spaces of other tables
        kept: Mask = self.allowed.copy()
        if flushing.absent:
            kept |= end == End.ABSENT
        if flushing.denials:
            kept |= end == End.LEAF
        if flushing.faults:
            kept |= end == End.MALFORMED
        return kept

    @cached_property
    def shift(self) -> Words:
        """How many bits of each address are the offset in a page of the level where its walk
        ended."""
        shifts = np.array([level.shift for level in self.format.levels], np.uint64)
        return shifts[self.walks.level]

    @property
    def after(self) -> Words:
        """Each entry after its own access, with no more set than must be; shape (levels, n)."""
        return self.paths.raw | self.allowed * self.sets

    @cached_property
    def after_in_turn(self) -> Words:
        """The same after what the accesses of the lanes before it left, too."""
        return in_turn(self, self.after)

    def reordered(self, order: Counts, value: Words) -> Self:
        """The same accesses in another order, with other values to be stored."""
        return replace(_taken(self, order), value=value)


@dataclass(frozen=True)
class Flushed:
    """What the guest flushes.

    addresses     the translations of each; None for those of all
    global_pages  whether it drops the lasting ones too
    """

    addresses: Words | None
    global_pages: bool

    @property
    def everything(self) -> bool:
        return self.addresses is None and self.global_pages

    def names(self, address: Words, shift: Words) -> Mask:
        """Which translations are of an address that is flushed, of pages of 2**shift bytes."""
        named = np.full(len(address), self.addresses is None)
        for size in np.unique(shift) if self.addresses is not None else ():
            named |= (shift == size) & np.isin(address >> size, self.addresses >> size)
        return named


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


_Event = Asked | Flushed


@dataclass
class Batch:
    """What the guest does under one root, from the load of the root on.

    events  what it is asked, and between that what it flushes
    """

    cpu: Any
    window: Any
    jobs: list[npt.NDArray[np.void]] = field(default_factory=list)
    events: list[_Event] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Jobs so far."""
        return sum(map(len, self.jobs))


class Live(ABC):
    """A guest that runs under the tables of a space while they are changed.

    memory  the guest's RAM, in which the spaces were made; what is stored there from now on is
            noted
    cpu     the state that the guest has first

    A guest has one at a time.  What the spaces map are frames above the tables, whose content is
    overwritten.  The stub has one root slot of each space to itself, in the middle of the lower
    half or the next that is empty; SpaceError where none is.  Misuse for a root that cannot be
    loaded or leads elsewhere.
    """

    SOURCE: ClassVar[str]
    """The manual's section on what is to be flushed, for people."""

    FLUSHES: ClassVar[Mapping[tuple[bool, bool], str]]
    """The stub's names of flushes, by whether all addresses are, and what is lasting too."""

    EACH: ClassVar[int]
    """How many accesses are tried at a page."""

    def __init__(self, guest: StubGuest[Any, Any], memory: NotedMemory, cpu: Cpu) -> None:
        self._guest, self._memory = guest, memory
        # KVM follows every store, so that once is enough, and none of what this process takes back.
        self._runs = RUNS if guest.engine.keeps_stale else 1
        arena = guest.image.table_arena
        self._allocator = TableAllocator(memory, Span(arena.start, arena.stop - 1))
        self._random = np.random.default_rng()
        self._probes = 0
        self._known = KnownTables(memory, guest.image.arena.stop)
        self._announced, self._refused = False, ""
        self._not_asked: Counter[str] = Counter()
        self._reset(Batch(cpu, self._open(cpu)))
        self._tell_of_tables(cpu)

    # What the architecture says.

    @abstractmethod
    def _open(self, cpu: Any) -> Window | None:
        """The window, in a root slot of a space that is empty; None where the stub needs none."""

    @abstractmethod
    def _state(self, cpu: Any, window: Any) -> Any:
        """What the guest loads to translate as `cpu` does."""

    @abstractmethod
    def _accesses(self, cpu: Any, pages: Words) -> Asked:
        """All accesses at some pages, one access after the other, and how they end by the rules."""

    @abstractmethod
    def _jobs(self, asked: Any) -> npt.NDArray[np.void]:
        """The jobs that make accesses and watch their entries from the root down, and after them
        the word that is reached."""

    @abstractmethod
    def _put_marks(self, asked: Any, reads: Words, fetches: Words) -> None:
        """Puts what is to be found into the words that are read and the code that is executed."""

    @abstractmethod
    def _agree(
        self,
        comparison: Comparison,
        asked: Any,
        results: npt.NDArray[np.void],
        earlier: Sequence[_Event],
    ) -> Mask:
        """Which accesses ended as they must."""

    @abstractmethod
    def _drops(
        self, flushed: Flushed, source: Any, theirs: Counts, now: Any, lanes: Counts
    ) -> Mask:
        """Whether a flush drops what a machine has kept of lanes of an earlier probe, which would
        serve lanes of one that is made now."""

    @abstractmethod
    def _ended_as(self, asked: Any, lane: int, result: np.void) -> bool:
        """Whether an access that ended so is as was expected of a lane, as far as it alone
        tells."""

    @abstractmethod
    def _told(self, asked: Any, lane: int, result: np.void) -> Disagreement:
        """An access that ended otherwise than it must."""

    def _naming_entries(self, jobs: npt.NDArray[np.void], flushed: Flushed) -> npt.NDArray[np.void]:
        """Jobs that flush, with what else the machine has to be told of the addresses."""
        return jobs

    def _left_alone(self) -> Mapping[str, Span]:
        """Addresses of which the engine is not asked, by the reason."""
        return {}

    def _left_out(self, asked: Any) -> Mapping[str, Mask]:
        """Accesses of which the engine is not asked, by the reason."""
        return {}

    @property
    def cpu(self) -> Any:
        """The state that was loaded last."""
        return self._batches[-1].cpu

    @property
    def window(self) -> Span | None:
        """The addresses of that space where the stub runs; None where it needs none."""
        window: Window | None = self._batches[-1].window
        return None if window is None else window.span

    @property
    def own_tables(self) -> frozenset[int]:
        """Where the tables are by which the stub runs in that space."""
        found: set[int] = set()
        for slot in _hole_of(self._batches[-1].window):
            raw = self._memory.load(slot.address, slot.table.format.entry_bytes)
            entry = None if raw is None else slot.table.format.decode(raw, slot.level)
            if isinstance(entry, Pointer):
                below = Root(entry.table, Span.of(0, slot.size))
                tables = bulk.leaves(self._memory, (below,), limit=0).tables
                found.update(tables.address.tolist())
        return frozenset(found)

    def _tell_of_tables(self, cpu: Cpu) -> None:
        """Has the guest store what its tables hold already.

        KVM follows what a guest stores in its tables.  Where it shadows them it does not see what
        this process stores, and may go on using what an earlier space had in their place.
        """
        if not self._guest.engine.keeps_stale:
            width = format_of(cpu).entry_bytes
            tables = bulk.leaves(self._memory, cpu.roots, limit=0).tables.address
            slots = np.arange(0, format_of(cpu).table_bytes(0), width, dtype=np.uint64)
            where = (distinct(tables)[:, np.newaxis] + slots).ravel()
            self._memory.scatter(where, width, self._memory.gather(where, width)[0])

    def _reset(self, batch: Batch) -> None:
        self._batches = [batch]
        self._windows = {_root(batch.cpu): batch.window}
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
        window, root = self._windows.get(_root(cpu)), _root(cpu)
        width = format_of(cpu).entry_bytes
        gone = any(not self._memory.load(slot.address, width) for slot in _hole_of(window)[:1])
        if root not in self._windows or gone:
            window = self._windows[_root(cpu)] = self._open(cpu)
            self._tell_of_tables(cpu)
        self._take_stores()
        self._batches.append(Batch(cpu, window))
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

    def flush(self, flush: Flush | int | Iterable[int]) -> None:
        """Has the guest flush what is asked for, or some addresses, each by itself and lasting or
        not, and nothing else; then it is done."""
        if not isinstance(flush, Flush):
            several = flush if isinstance(flush, Iterable) else (flush,)
            addresses = np.array([int(address) for address in several], np.uint64)
            self._flush(Flushed(addresses, global_pages=True))
            return
        self._flush(Flushed(None if flush.everything else flush.addresses, flush.global_pages))
        flush.done()

    def flush_all(self, *, global_pages: bool = False) -> None:
        """Has the guest flush all addresses; or global pages too."""
        self._flush(Flushed(None, global_pages))

    def _flush(self, flushed: Flushed) -> None:
        addresses = np.zeros(1, np.uint64) if flushed.addresses is None else flushed.addresses
        jobs = self._guest.image.new_jobs(len(addresses))
        name = self.FLUSHES[flushed.addresses is None, flushed.global_pages]
        jobs["address"], jobs["flush"] = addresses, self._guest.image.enums[name]
        self._take_stores()
        self._batches[-1].jobs.append(self._naming_entries(jobs, flushed))
        self._batches[-1].events.append(flushed)

    def probe(self, *where: Span | int, pages: int = 64) -> None:
        """Has the guest try every access at the pages of each span, or at the page of an address,
        and at both pages beside it.

        pages  how many small pages of a span are tried at most: those at its ends, and some in
               between at equal distances

        Raises Misuse where a page of a span leads to a table, or where there is no memory for
        frames: accesses store there.  A page beside it that does so is left out, and counted:
        BESIDE.
        """
        spans = [one if isinstance(one, Span) else Span.of(int(one), 1) for one in where]
        self._take_stores()
        self._probes += 1
        batch = self._batches[-1]
        size = format_of(batch.cpu).levels[0].size
        tried = distinct(np.concatenate([_pages(span, size, pages) for span in spans]))
        found = self._asked_of(self._cases(batch, tried, spans))
        self._mark(found)
        self._take_stores()
        asked = replace(
            found,
            number=self._probes,
            first=batch.count,
            value=self._words(len(found)),
        )
        batch.events.append(asked)
        batch.jobs.append(self._jobs(asked))
        paths = asked.paths
        slot, which = np.unique(paths.slot[paths.used], return_inverse=True)
        last = np.zeros(len(slot), np.uint64)
        np.bitwise_or.at(last, which, asked.after[paths.used])
        self._memory.scatter(slot, format_of(batch.cpu).entry_bytes, last)
        self._take_stores(by_guest=False)

    def _cases(self, batch: Batch, pages: Words, spans: Sequence[Span]) -> Asked:
        """All accesses at all pages that are left to the space."""
        left = dict(self._left_alone())
        if batch.window is not None:
            left["the stub runs there"] = batch.window.span
        for name, span in left.items():
            own = within(pages, span)
            if own.any():
                self._not_asked[name] += int(own.sum()) * self.EACH
            pages = pages[~own]
        asked = self._accesses(batch.cpu, pages)
        lost = _without_frames(asked, self._guest.image.arena.stop, self._memory.span)
        size = format_of(batch.cpu).levels[0].size
        page_of = asked.address // size * size
        named = _meet(page_of, size, spans)
        if (lost & named).any():
            lane = int((lost & named).argmax())
            raise Misuse(
                f"{int(asked.address[lane]):#x} leads to {int(asked.walks.physical[lane]):#x},"
                " where there is no memory for frames: it is"
                f" {Span(self._guest.image.arena.stop, self._memory.span.last)}. Probe only"
                " addresses that lead there"
            )
        made = asked.allowed
        lost[made] |= self._known.in_use(batch.cpu, asked.walks.physical[made])
        beside = np.isin(pages, page_of[lost & ~named])
        if not beside.any():
            return asked
        self._not_asked[BESIDE] += int(beside.sum()) * self.EACH
        return self._accesses(batch.cpu, pages[~beside])

    def _asked_of(self, asked: Asked) -> Asked:
        """Those accesses of which the engine is asked."""
        out = np.zeros(len(asked), np.bool_)
        for name, lanes in self._left_out(asked).items():
            self._not_asked[name] += int((lanes & ~out).sum())
            out |= lanes
        return _taken(asked, np.flatnonzero(~out)) if out.any() else asked

    def _mark(self, asked: Asked) -> None:
        """Puts what reads and fetches shall find into the frames.

        That is no store of a space; but where a table was before, it is seen as one, and so the
        guest stores it.
        """
        reads, fetches = (
            np.flatnonzero(asked.allowed & kind) for kind in (asked.reads, asked.fetches)
        )
        if (table := self._known.in_use(asked.cpu, asked.aimed[reads])).any():
            lane = int(reads[table.argmax()])
            raise Misuse(
                f"{int(asked.address[lane]):#x} leads to {int(asked.aimed[lane]):#x}, in a table,"
                " where accesses would store: probe other pages"
            )
        self._memory.notes, notes = None, self._memory.notes
        self._put_marks(asked, asked.aimed[reads], asked.aimed[fetches])
        self._memory.notes = notes
        both = np.concatenate([asked.aimed[reads], asked.aimed[fetches]])
        self._known.hold_frames(asked.cpu, both)

    def _words(self, count: int) -> Words:
        """What writes store: words that are found nowhere else."""
        return np.frombuffer(self._random.bytes(count * WORD), np.uint64)

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
            where = distinct(np.concatenate([note.addresses for note in notes]))
            values, _ = self._memory.gather(where, format_of(self._batches[-1].cpu).entry_bytes)
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
        for slot in _hole_of(self._batches[-1].window):
            if slot.address in addresses:
                return (
                    f"entry {slot.index} of the root's table, at {slot.address:#x}, is the stub's,"
                    " which runs by it, and was overwritten: leave entries alone that the code"
                    " under test has not made"
                )
        asked = any(isinstance(event, Asked) for one in self._batches for event in one.events)
        if self._announced or not asked:
            return ""
        first, was = int(addresses[0]), int(before[0])
        now = self._memory.load(Physical(first), format_of(self._batches[-1].cpu).entry_bytes)
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
        width = format_of(self._batches[0].cpu).entry_bytes
        touched = distinct(np.concatenate([note.addresses for note in self._stored] or [_NONE]))
        wanted, _ = self._memory.gather(touched, width)
        for note in reversed(self._stored):
            self._memory.scatter(note.addresses, width, note.before)
        before, _ = self._memory.gather(touched, width)
        kept = [self._kept_of_each(batch.events) for batch in self._batches]
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
        self, batch: Batch, kept: Sequence[Sequence[_Kept]], comparison: Comparison
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
            assert isinstance(event, Asked)
            # Other values: what an earlier run has stored is none of this one's.
            value = self._words(len(order))
            events[number] = event.reordered(order, value)
            own = slice(event.first, event.first + len(order))
            jobs[own] = jobs[own][order]
            jobs["value"][own] = value
        results = self._guest.run(self._state(batch.cpu, batch.window), jobs)
        unseen = [_NONE]
        for number, event in enumerate(events):
            if not isinstance(event, Asked):
                continue
            own_kept = self._kept(events, number) if kept[number] else ()
            seen = results[event.first :][: len(event)]
            agree = self._judge(comparison, event, seen, events[:number], own_kept)
            unseen.append(event.address[agree & _lanes_of(own_kept, len(agree))])
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
                    assert isinstance(asked, Asked)
                    places = first_or_last.setdefault(event, np.zeros(len(asked)))
                    places[lanes] = place
        return {
            number: np.argsort(places, kind="stable") for number, places in first_or_last.items()
        }

    def _judge(
        self,
        comparison: Comparison,
        asked: Asked,
        results: npt.NDArray[np.void],
        earlier: Sequence[_Event],
        kept: Sequence[_Kept],
    ) -> Mask:
        """Which accesses ended as they must."""
        agree = self._agree(comparison, asked, results, earlier)
        comparison.compared += len(asked)
        wrong = np.flatnonzero(~agree)
        room = max(0, EXAMPLES - len(comparison.disagreements))
        comparison.disagree(
            len(wrong),
            sorted(self._described(asked, results, wrong, earlier, kept), key=_unexplained)[:room],
        )
        return agree

    # What may be stale.

    def _kept_of_each(self, events: Sequence[_Event]) -> list[list[_Kept]]:
        """For each event of a batch what a machine may have kept of those before it."""
        return [self._kept(events, number) for number in range(len(events))]

    def _kept(self, events: Sequence[_Event], number: int) -> list[_Kept]:
        """What a machine may have kept of the probes before an event, the last of them first.

        Those are accesses that are made again, with another outcome by now: they are made or not
        made, reach another word, or have to set a bit of an entry that was set before.  No flush
        that drops what was kept of them has come in between.
        """
        asked, found = events[number], []
        if not isinstance(asked, Asked):
            return []
        flushes: list[Flushed] = []
        for source in range(number - 1, -1, -1):
            event = events[source]
            if isinstance(event, Flushed):
                if event.everything:
                    break
                flushes.append(event)
                continue
            _, theirs, lanes = np.intersect1d(event.key, asked.key, True, return_indices=True)
            made = asked.allowed[lanes]
            other = (made != event.allowed[theirs]) | asked.sets_anew[lanes]
            other |= made & (asked.aimed[lanes] != event.aimed[theirs])
            other &= event.kept[theirs]
            theirs, lanes = theirs[other], lanes[other]
            for flush in flushes:
                there = ~self._drops(flush, event, theirs, asked, lanes)
                theirs, lanes = theirs[there], lanes[there]
            if len(lanes):
                found.append(_Kept(source, theirs, lanes))
        return found

    def _stale(
        self,
        result: np.void,
        lane: int,
        earlier: Sequence[_Event],
        kept: Sequence[_Kept],
    ) -> Asked | None:
        """The last probe of which something may have been kept that explains an access's end."""
        for one in kept:
            event = earlier[one.source]
            assert isinstance(event, Asked)
            for other in one.theirs[one.lanes == lane].tolist():
                if self._ended_as(event, other, result):
                    return event
        return None

    def _described(
        self,
        asked: Asked,
        results: npt.NDArray[np.void],
        wrong: Counts,
        earlier: Sequence[_Event],
        kept: Sequence[_Kept],
    ) -> Iterator[Disagreement]:
        """Accesses that ended otherwise than they must, in order of address; those as one for which
        the same flush may be missing, of a page or of pages in a row."""
        order = np.argsort(asked.address[wrong], kind="stable")
        size = asked.format.levels[0].size
        group: list[int] = []
        cause: tuple[int, str] | None = None
        for lane in wrong[order][:LOOKED_AT].tolist():
            stale = self._stale(results[lane], lane, earlier, kept)
            own = None if stale is None else (stale.number, _change(asked, stale, lane))
            page = int(asked.address[lane]) // size
            follows = group and page - int(asked.address[group[-1]]) // size <= 1
            if own is None or own != cause or not follows:
                if group:
                    yield self._describe(asked, results, group, cause)
                group, cause = [], own
            group.append(lane)
        if group:
            yield self._describe(asked, results, group, cause)

    def _describe(
        self,
        asked: Asked,
        results: npt.NDArray[np.void],
        lanes: Sequence[int],
        cause: tuple[int, str] | None,
    ) -> Disagreement:
        """One of the accesses, which have one cause: the call of `probe` whose answer it is, and
        what became of the pages since."""
        lane = lanes[0]
        told = self._told(asked, lane, results[lane])
        hint = ""
        if cause is not None:
            call, became = cause
            size = asked.format.levels[0].size
            first, last = (int(asked.address[one]) // size * size for one in (lane, lanes[-1]))
            where = f"{first:#x}" if first == last else f"{Span(first, last + size - 1)}"
            many = len(lanes) > 1
            hint = (
                f"a flush may be missing: {where} {became} and was not flushed, and {len(lanes)}"
                f" access{'es' if many else ''} still end{'' if many else 's'} as at call {call} of"
                f" live.probe ({self.SOURCE})"
            )
        expected = f"{told.expected}; at call {asked.number} of live.probe"
        expected += _departing(asked, lane, results[lane])
        return replace(told, expected=expected, hint=hint, count=len(lanes))

    # The entries in the end.

    def _written(self) -> Words:
        """The words that accesses store; where a table was before, they are noted too."""
        events = [event for batch in self._batches for event in batch.events]
        asked = [event for event in events if isinstance(event, Asked)]
        parts = [event.aimed[event.allowed & event.writes] for event in asked]
        return np.concatenate([_NONE, *parts])

    def _compare_entries(self, comparison: Comparison, touched: Words, wanted: Words) -> None:
        """Compares what was stored or noted: A that is set without need is the machine's choice."""
        format = format_of(self._batches[0].cpu)
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
                    expected=f"{int(wanted[lane]):#x}",
                    observed=f"{int(found[lane]):#x}",
                )
                for lane in wrong[:EXAMPLES].tolist()
            ],
        )


def _hole_of(window: Window | None) -> tuple[Slot, ...]:
    """The slots by which the stub runs in a space."""
    return () if window is None else window.hole


_NONE = np.empty(0, np.uint64)

ALL = ~np.uint64(0)
"""Every bit of an entry."""


def _root(cpu: Cpu) -> int:
    """Where the root's table is."""
    return cpu.roots[0].table.address


def _pages(span: Span, size: int, limit: int) -> Words:
    """The first addresses of the pages that are tried for a span; they may wrap beside it."""
    first, last = span.first // size, span.last // size
    count = last - first + 1
    inside = evenly(count, limit).tolist()
    pages = [first - 1, *(first + step for step in inside), last + 1]
    return np.array([page * size % (1 << 64) for page in pages], np.uint64)


def _meet(pages: Words, size: int, spans: Sequence[Span]) -> Mask:
    """Which pages of `size` bytes have a byte in one of the spans, by their first addresses."""
    return within(pages, *(Span(one.first // size * size, one.last) for one in spans))


def _without_frames(asked: Asked, first: int, ram: Span) -> Mask:
    """Which accesses reach no frame of the guest's from `first` on, or lead to where no table is in
    memory."""
    lost = ~within(asked.walks.physical, Span(first, ram.last)) & asked.allowed
    found: Mask = lost | (asked.walks.end == End.UNBACKED)
    return found


def watch(jobs: npt.NDArray[np.void], asked: Asked, spare: int) -> None:
    """Has the guest tell after each access what the entries of its path are, from the root down,
    and then the word that it reaches; where there is none of these, what is at `spare`."""
    levels, spared = len(asked.paths.slot), np.uint64(spare)
    jobs["watched"] = levels + 1
    for level in range(levels):
        where = np.where(asked.paths.used[level], asked.paths.slot[level], spared)
        jobs["where"][:, levels - 1 - level] = where
    aimed = asked.aimed & ~np.uint64(WORD - 1)
    jobs["where"][:, levels] = np.where(asked.allowed, aimed, spared)


def from_root(asked: Asked, lane: int, result: np.void) -> str:
    """The entries of a path before and after an access that told them, from the root down; "none"
    where none is read, as of an address that no root serves."""
    before, used = reversed(asked.paths.raw[:, lane]), reversed(asked.paths.used[:, lane])
    told = (
        f"{int(old):#x} -> {int(new):#x}"
        for old, new, is_read in zip(before, result["after"], used, strict=False)
        if is_read
    )
    return ", ".join(told) or "none"


def _departing(asked: Asked, lane: int, result: np.void) -> str:
    """The entries of a path as an access should leave them, from the root down, where the machine
    has left them otherwise: A that is set without need is its choice."""
    used = asked.paths.used[::-1, lane]
    before = asked.paths.raw[::-1, lane][used]
    after = asked.after_in_turn[::-1, lane][used]
    seen = result["after"][: len(used)][used]
    if not ((seen ^ after) & ~(np.uint64(asked.format.accessed) & ~after)).any():
        return ""
    pairs = zip(before.tolist(), after.tolist(), strict=True)
    told = ", ".join(f"{old:#x} -> {new:#x}" for old, new in pairs)
    return f"; entries from the root down: {told}"


def in_turn(asked: Asked, after: Words) -> Words:
    """Each entry after the access of its lane, which finds what those of the lanes before it left.

    after  each as its own access leaves it; shape (levels, n)
    """
    format, used = asked.format, asked.paths.used
    lanes = np.broadcast_to(np.arange(used.shape[1]), used.shape)[used]
    slots, which = np.unique(asked.paths.slot[used], return_inverse=True)
    together, entries = after.copy(), after[used]
    for bit in (np.uint64(format.accessed), np.uint64(format.dirty)):
        since, has = np.full(len(slots), used.shape[1]), entries & bit != 0
        np.minimum.at(since, which[has], lanes[has])
        together[used] |= (since[which] <= lanes) * bit
    return together


def kept_code(
    asked: Asked,
    data: Words,
    suspects: Mask,
    earlier: Sequence[_Event],
    named: Callable[[Words], Words],
) -> Mask:
    """The suspects that executed what an earlier fetch found at the same address in a large page,
    of which another address has been flushed since: TCG drops the data of such a page, and the
    jumps to code in that part of it alone.

    data      what each access found
    suspects  accesses that ended as code does that has run
    named     what the code at physical addresses is found as
    """
    kept = np.zeros_like(suspects)
    small = np.uint64(asked.format.levels[0].size)
    for lane in np.flatnonzero(suspects & asked.fetches).tolist():
        flushed: set[int] = set()
        own = int(asked.address[lane] // small)
        for event in reversed(earlier):
            if isinstance(event, Flushed):
                if event.addresses is None:
                    break
                flushed |= set((event.addresses // small).tolist())
                continue
            if own in flushed:
                break
            same = (event.address == asked.address[lane]) & event.fetches
            same &= named(event.aimed) == data[lane]
            for other in np.flatnonzero(same & event.allowed).tolist():
                pages = asked.format.levels[event.walks.level[other]].size // int(small)
                kept[lane] |= any(own // pages == page // pages for page in flushed)
    return kept


def _lanes_of(kept: Sequence[_Kept], count: int) -> Mask:
    """The lanes of a probe that something which was kept may serve."""
    lanes = np.zeros(count, np.bool_)
    for one in kept:
        lanes[one.lanes] = True
    return lanes


_Arrays = TypeVar("_Arrays")


def _taken(arrays: _Arrays, order: Counts) -> _Arrays:
    """The lanes of arrays, the last of whose axes is that of lanes, in another order."""
    taken: dict[str, Any] = {}
    for one in fields(arrays):  # type: ignore[arg-type]
        value = getattr(arrays, one.name)
        if isinstance(value, np.ndarray):
            taken[one.name] = value[..., order]
        elif is_dataclass(value) and one.name != "cpu":
            taken[one.name] = _taken(value, order)
    return replace(arrays, **taken)  # type: ignore[type-var]


LOOKED_AT = 1 << 12
"""Accesses that ended otherwise than they must, of which the causes are looked for."""


def _unexplained(one: Disagreement) -> bool:
    """Whether nothing says what it comes from, as where a bit is missing that an access before it
    should have set."""
    return not one.hint


def _change(asked: Asked, stale: Asked, lane: int) -> str:
    """What became of a page since an earlier probe, a phrase."""
    if asked.walks.end[lane] == End.ABSENT:
        return "was unmapped"
    if not asked.allowed[lane]:
        return "lost rights"
    here = stale.key == asked.key[lane]
    if not stale.allowed[here].all():
        return "was mapped or got rights"
    return (
        "was led elsewhere" if (here & (stale.aimed != asked.aimed[lane])).any() else "was changed"
    )
