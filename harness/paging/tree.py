"""The tables of a space: which are its own, how they are reached, made, linked and given back.

Only tables that came from the space's allocator are its own.  It follows pointers to others,
such as tables that several spaces share, when it is asked what is there, and refuses to
change them.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import NamedTuple

import numpy as np

from harness.paging.address import Physical, Span, Virtual
from harness.paging.allocator import TableAllocator
from harness.paging.bits import Kind, breaks, kinds, pointer_attributes
from harness.paging.entry import Pointer
from harness.paging.errors import SpaceError, Taken
from harness.paging.flush import Flush
from harness.paging.lock import SPLIT_LEVELS, TableLock
from harness.paging.memory import Mask, Words, WritableMemory
from harness.paging.table import Root, Slot, Table

COUNTED_LEVELS = 3
"""How many levels, from 0 up, Linux counts as a process's page tables."""


@dataclass(frozen=True)
class Account:
    """The tables of a space.

    tables   how many, by level from 0 up
    bytes    what all of them take
    counted  what those of the lowest `COUNTED_LEVELS` levels take
    """

    tables: tuple[int, ...]
    bytes: int
    counted: int


class Run(NamedTuple):
    """Consecutive slots of one table, none of which was a pointer when they were read.

    slot    the first of them
    first   the first address that it spans
    raw     the entries as they were read
    shared  whether the table can be reached at other addresses too
    """

    slot: Slot
    first: Virtual
    raw: Words
    shared: bool

    @property
    def level(self) -> int:
        return self.slot.level

    @property
    def span(self) -> Span:
        """The addresses of all of them."""
        return Span.of(self.first, len(self.raw) * self.slot.size)

    @property
    def addresses(self) -> Words:
        """The first address that each of them spans."""
        steps = np.arange(len(self.raw), dtype=np.uint64)
        return np.uint64(self.first) + steps * np.uint64(self.slot.size)

    @property
    def filled(self) -> Mask:
        """Which of the entries are not as in a new table."""
        return self.slot.table.format.levels[self.level].filled(self.raw)

    def trimmed(self) -> Run:
        """The run from its first to its last entry that is filled; there must be one."""
        filled = np.flatnonzero(self.filled)
        start, stop = int(filled[0]), int(filled[-1]) + 1
        slot = self.slot.table.slot(self.slot.index + start)
        first = Virtual(self.first + start * slot.size)
        return Run(slot, first, self.raw[start:stop], self.shared)


@dataclass(eq=False)
class _Node:
    """What a space knows of a table: the pointers that lead to it, and its lock.

    own    whether it is given back in the end; a root may belong to somebody else
    lasts  whether what is below it may be lasting, since a pointer on a way to it is or was
    """

    table: Table
    own: bool
    links: int = 0
    lasts: bool = False
    lock: TableLock = field(init=False)

    def __post_init__(self) -> None:
        self.lock = TableLock(self.table)


@dataclass(frozen=True, eq=False)
class _Broken:
    """Slots of one table that stay absent until the machine has forgotten what was in them.

    slot    the first of a row
    raw     what the space has in the row, and the machine finds there in the end
    chosen  which slots of the row it is about
    """

    slot: Slot
    raw: Words
    chosen: Mask

    def meets(self, slot: Slot, count: int) -> tuple[slice, slice] | None:
        """Where this row and one of `count` slots from `slot` on are the same: in either."""
        apart = (slot.address - self.slot.address) // slot.table.format.entry_bytes
        first, last = max(apart, 0), min(apart + count, len(self.raw))
        return (slice(first, last), slice(first - apart, last - apart)) if first < last else None


class Tree:
    """The roots of a space and the tables under them.

    memory     holds the tables
    roots      where walks begin; their tables exist already
    allocator  where further tables come from

    What the roots lead to already becomes the space's own, as far as it is the allocator's.
    Threads may grow one tree and change its entries together, under the locks.  Who takes
    tables away must be alone, as in Linux, where that is what the mmap lock is for.
    """

    def __init__(
        self, memory: WritableMemory, roots: tuple[Root, ...], allocator: TableAllocator
    ) -> None:
        format = roots[0].table.format
        if format.flushing is None:
            raise SpaceError(
                f"what a machine must forget of {format.name} tables is not known here: they can be"
                " read, but not changed"
            )
        self.memory = memory
        self.roots = roots
        self.allocator = allocator
        self.format = format
        self.flushing = format.flushing
        self._zero_leads = any(not here.is_absent(0) for here in format.levels)
        self._top_lock = TableLock(roots[0].table)
        self._nodes: dict[int, _Node] = {}
        self._fresh: set[_Node] = set()
        self._broken: tuple[_Broken, ...] = ()
        self._breaking = Lock()
        self._adopt()

    def root_for(self, address: int) -> Root:
        """Where the walk of an address begins; SpaceError if it has no place in this space."""
        for root in self.roots:
            if address in root.span:
                return root
        if not self.roots:
            raise SpaceError(f"{address:#x} has no place in a space that was torn down")
        spans = " and ".join(f"{root.span} at level {root.table.level}" for root in self.roots)
        raise SpaceError(f"{address:#x} is not an address of this space, whose roots serve {spans}")

    def served(self, span: Span) -> Iterator[Span]:
        """The span, cut where another root takes over; SpaceError where none does."""
        first = span.first
        while True:
            root = self.root_for(first)
            if span.last <= root.span.last:
                yield Span(first, span.last)
                return
            yield Span(first, root.span.last)
            first = root.span.last + 1
            if not any(first in other.span for other in self.roots):
                raise SpaceError(
                    f"{span} leaves {root.span}, the addresses that its level-{root.table.level}"
                    " root serves"
                )

    def check_served(self, span: Span) -> None:
        """SpaceError unless every address of the span has a root."""
        for _ in self.served(span):
            pass

    def pieces(self, span: Span, level: int) -> Iterator[Span]:
        """The span, cut where another table at `level` or another root takes over."""
        here = self.format.levels[level]
        for served in self.served(span):
            yield from served.pieces(here.size * here.entries)

    def path(self, address: int, level: int = 0) -> list[Table]:
        """The tables on the way to an address, from the root down, at most to `level`.

        SpaceError where a pointer leads to a table that is not this space's.
        """
        table = self.root_for(address).table
        tables = [table]
        format, load, nodes = self.format, self.memory.load, self._nodes
        width = format.entry_bytes
        while table.level > level:
            # Without a Slot: this is what a call that maps one page spends its time on.
            index = format.levels[table.level].index(address)
            raw = load(Physical(table.address + index * width), width)
            if self._broken:
                raw = self.read(table.slot(index))
            if raw is None or not (raw or self._zero_leads):
                break
            entry = format.decode(raw, table.level)
            if not isinstance(entry, Pointer):
                break
            self.check_whole(raw, table.level)
            table = entry.table
            node = nodes.get(table.address)
            if node is None or node.table.level != table.level:
                raise SpaceError(
                    f"{address:#x} lies in {table}, which is not this space's: it was reached"
                    f" by the level-{table.level + 1} entry {raw:#x}"
                )
            tables.append(table)
        return tables

    def run(self, address: Virtual, last: int) -> Run:
        """The slots from that of `address` on, in the lowest table on its way, as far as they
        hold no pointer and span no address beyond `last`."""
        raw = np.empty(0, np.uint64)
        while not len(raw):
            tables = self.path(address)
            table = tables[-1]
            here = self.format.levels[table.level]
            first, index = address & -here.size, here.index(address)
            count = min((last - first >> here.shift) + 1, here.entries - index)
            raw = self.words(table.slot(index), count)
            if here.pointer is not None:
                points = kinds(self.format, table.level, raw) == Kind.POINTER
                if points.any():
                    raw = raw[: points.argmax()]
        return Run(table.slot(index), Virtual(first), raw, self.is_shared(tables))

    def runs(self, span: Span) -> Iterator[Run]:
        """All slots for a span, run after run; what is done to one run is seen by the next."""
        for served in self.served(span):
            first = served.first
            while first <= served.last:
                run = self.run(Virtual(first), served.last)
                yield run
                first = run.span.last + 1

    def grow(
        self, places: Sequence[tuple[Virtual, int]], bits: Callable[[int], int]
    ) -> list[Table]:
        """The table at `level` for each (address, level); all that are missing are made, or none.

        bits  what a pointer made in a table of the level given holds besides the address

        Raises SpaceError where something else than a table is in the way, and OutOfTables.
        """
        tables = [self.lowest(address, level) for address, level in places]
        if all(table.level == level for table, (_, level) in zip(tables, places, strict=True)):
            return tables
        reserve = self._reserve(self._missing(places, tables), bits)
        try:
            return [self._link(address, level, reserve) for address, level in places]
        finally:
            self._return(reserve)

    def read(self, slot: Slot) -> int:
        """The raw entry in a slot; SpaceError where there is no memory."""
        raw = self.memory.load(slot.address, self.format.entry_bytes)
        if raw is None:
            raise SpaceError(f"{slot} has no memory behind it")
        if self._broken:
            return int(self._meant(slot, np.array([raw], np.uint64))[0])
        return raw

    def write(self, slot: Slot, raw: int) -> None:
        """Writes one raw entry, whatever it says.

        What must be flushed for it is left to the caller, as is a table that it unlinks.
        """
        self._count_link(self.read(slot), slot.level, -1)
        self.put(slot, np.array([raw], np.uint64))
        self._count_link(raw, slot.level, 1)
        self._note_lasting(slot.table, raw)

    def words(self, slot: Slot, count: int) -> Words:
        """The raw entries of `count` slots from one on; SpaceError where there is no memory."""
        width = self.format.entry_bytes
        if count == 1:
            return np.array([self.read(slot)], np.uint64)
        raw, backed = self.memory.gather(_addresses(slot, count), width)
        if backed is not None and not backed.all():
            raise SpaceError(f"{slot.table} has no memory behind it")
        return self._meant(slot, raw) if self._broken else raw

    def put(self, slot: Slot, raw: Words) -> None:
        """Writes the entries of consecutive slots of one table, none of them a pointer before
        or after that `write` or the tree itself did not count.

        Slots that must be absent for now hold them when they may (`break_before`).
        """
        for broken in self._broken:
            if met := broken.meets(slot, len(raw)):
                theirs, ours = met
                np.copyto(broken.raw[theirs], raw[ours], where=broken.chosen[theirs])
        self._store(slot, self._without_broken(slot, raw) if self._broken else raw)

    def break_before(self, slot: Slot, before: Words, after: Words, flush: Flush) -> None:
        """Where entries may not become others at once (arm64's break-before-make), they are absent
        from now on until the flush is done; only then is there what is put there meanwhile.  The
        space reads it back at once.  To be done under the lock of the table, before `put`.

        before, after  the entries of consecutive slots as they are, and as they are to be
        """
        chosen = breaks(self.format, slot.level, before, after)
        if not chosen.any():
            return
        broken = _Broken(slot, before.copy(), chosen)
        with self._breaking:
            self._broken = (*self._broken, broken)
        self._store(slot, self._without_broken(slot, before))
        flush.then(lambda: self._make(broken))

    def _make(self, broken: _Broken) -> None:
        """Writes what comes to slots that the machine has forgotten."""
        with self.lock(broken.slot.table):
            if broken not in self._broken:
                return  # the table is gone
            self._mended(lambda one: one is broken)
            slots = _addresses(broken.slot, len(broken.raw))[broken.chosen]
            raw = self._without_broken(broken.slot, broken.raw)[broken.chosen]
            self.memory.scatter(slots, self.format.entry_bytes, raw)

    def _mended(self, chosen: Callable[[_Broken], bool]) -> None:
        """Forgets slots that were to stay absent."""
        with self._breaking:
            self._broken = tuple(one for one in self._broken if not chosen(one))

    def _meant(self, slot: Slot, raw: Words) -> Words:
        """Entries of consecutive slots as the space has them, given those that the machine sees."""
        found = raw.copy()
        for broken in self._broken:
            if met := broken.meets(slot, len(raw)):
                theirs, ours = met
                np.copyto(found[ours], broken.raw[theirs], where=broken.chosen[theirs])
        return found

    def _without_broken(self, slot: Slot, raw: Words) -> Words:
        """Entries of consecutive slots as the machine may see them now."""
        found = raw.copy()
        for broken in self._broken:
            if met := broken.meets(slot, len(raw)):
                theirs, ours = met
                found[ours][broken.chosen[theirs]] = self.format.levels[slot.level].empty
        return found

    def _store(self, slot: Slot, raw: Words) -> None:
        width = self.format.entry_bytes
        if len(raw) == 1:
            self.memory.store(slot.address, width, int(raw[0]))
        else:
            self.memory.scatter(_addresses(slot, len(raw)), width, raw)

    def pointer_bits(self, slot: Slot) -> int:
        """What the pointer in a slot holds besides the address and the accessed bit."""
        return pointer_attributes(self.format, slot.level, self.read(slot)) & ~self.format.accessed

    def lock(self, table: Table) -> TableLock:
        """The lock that guards the entries of a table; see `harness.paging.lock`."""
        node = self._nodes.get(table.address)
        return node.lock if node and table.level < SPLIT_LEVELS else self._top_lock

    def is_shared(self, path: Sequence[Table]) -> bool:
        """Whether the last table of a path from a root can be reached in other ways too."""
        if self._nodes[path[0].address].links:
            return True
        return any(self._nodes[table.address].links > 1 for table in path[1:])

    def owns(self, table: Table) -> bool:
        """Whether the table is this space's, at that level."""
        node = self._nodes.get(table.address)
        return node is not None and node.own and node.table.level == table.level

    def account(self) -> Account:
        """The tables that the space holds now, those that wait for a flush included."""
        own = [node.table for node in list(self._nodes.values()) if node.own]
        levels = Counter(table.level for table in own)
        return Account(
            tuple(levels[level] for level in range(len(self.format.levels))),
            sum(table.size for table in own),
            sum(table.size for table in own if table.level < COUNTED_LEVELS),
        )

    def new_table(self, level: int, bits: int) -> tuple[Table, int]:
        """A new table, and the pointer that will lead to it; SpaceError if none can."""
        table = self.allocator.allocate(self.format, level)
        try:
            return table, self.format.pointer(table.address, level + 1, bits)
        except ValueError as error:
            self.allocator.free(table)
            raise SpaceError(f"{table} cannot be put in place: {error}") from None

    def link(self, slot: Slot, table: Table, pointer: int) -> None:
        """Makes a new table the space's own, by a pointer in a slot whose lock is held.

        Where nothing was before and nothing is in the table, nothing is to be flushed: if the
        machine may still hold that there is no table, that is due with what comes into it.
        """
        node = _Node(table, own=True, links=1)
        kept = self.flushing.absent and self.flushing.leaves_alone
        if kept and self.format.levels[slot.level].is_absent(self.read(slot)):
            self._fresh.add(node)
        self._nodes[table.address] = node
        self._note_lasting(slot.table, pointer)
        self.put(slot, np.array([pointer], np.uint64))

    def is_fresh(self, path: Sequence[Table]) -> bool:
        """Whether the machine may still hold that a table of a path is not there."""
        return any(self._nodes[table.address] in self._fresh for table in path)

    def settle(self, flush: Flush) -> None:
        """Has the tables that there are now known to the machine once the flush, which is of
        everything, is done: without global ones, those that no lasting pointer leads to."""
        if self._fresh:
            known = {node for node in self._fresh if flush.global_pages or not node.lasts}
            flush.then(partial(self._fresh.difference_update, known))

    def is_empty(self, table: Table) -> bool:
        """Whether nothing is in a table."""
        here = self.format.levels[table.level]
        return not here.filled(self.words(table.slot(0), here.entries)).any()

    def unlink(self, slot: Slot, table: Table, flush: Flush) -> None:
        """Clears the pointer in a slot.  The table is freed after the flush if it was the last."""
        gone = np.array([self.format.levels[slot.level].empty], np.uint64)
        with self.lock(slot.table):
            self.break_before(slot, np.array([self.read(slot)], np.uint64), gone, flush)
            self.put(slot, gone)
        self.drop(table, flush)

    def drop(self, table: Table, flush: Flush) -> None:
        """Counts one pointer less to a table, which is freed after the flush if it was the last."""
        self._nodes[table.address].links -= 1
        flush.then(lambda: self._free(table))

    def free_all(self) -> None:
        """Gives back every table."""
        for node in list(self._nodes.values()):
            if node.own:
                self.allocator.free(node.table)
        self._nodes.clear()
        self._mended(lambda _: True)

    def _free(self, table: Table) -> None:
        """Gives a table back, unless pointers are left or it was linked again or given back."""
        node = self._nodes.get(table.address)
        if node is not None and not node.links:
            del self._nodes[table.address]
            self._fresh.discard(node)
            self._mended(lambda one: one.slot.table == table)
            self.allocator.free(table)

    def _adopt(self) -> None:
        """Takes over the tables that the roots lead to, and counts the pointers to each."""
        found = {root.table.address: root.table for root in self.roots}
        todo = list(found.values())
        for table in todo:
            self._nodes[table.address] = _Node(table, own=self.allocator.gave(table))
        while todo:
            table = todo.pop()
            if not table.level:
                continue
            for pointer in self._pointers(table):
                below = self.pointed(pointer, table.level)
                assert below is not None
                if below.address in self._nodes:
                    self._nodes[below.address].links += 1
                elif self.allocator.gave(below):
                    self._nodes[below.address] = _Node(below, own=True, links=1)
                    todo.append(below)
                self._note_lasting(table, pointer)

    def _pointers(self, table: Table) -> list[int]:
        """The pointers in a table; of a root only those for the addresses that it serves."""
        level = self.format.levels[table.level]
        raw = self.words(table.slot(0), level.entries)
        serving = [root for root in self.roots if root.table == table]
        if serving:
            ours = np.zeros(len(raw), np.bool_)
            for root in serving:
                ours[root.indices.start : root.indices.stop] = True
            raw = np.where(ours, raw, np.uint64(level.empty))
        found: list[int] = raw[kinds(self.format, table.level, raw) == Kind.POINTER].tolist()
        return found

    def _count_link(self, raw: int, level: int, change: int) -> None:
        """Counts a pointer that comes or goes, if it leads to a table that the space knows."""
        table = self.pointed(raw, level)
        if table is not None and table.address in self._nodes:
            self._nodes[table.address].links += change

    def _note_lasting(self, table: Table, raw: int) -> None:
        """Notes of the tables below an entry of a table whether a lasting pointer leads there."""
        if not self.flushing.lasting_tables:
            return
        below, node = self.pointed(raw, table.level), self._nodes.get(table.address)
        found = self._nodes.get(below.address) if below else None
        if found is None or found.lasts:
            return
        if node is None or node.lasts or raw & self.format.lasting:
            found.lasts = True
            for pointer in self._pointers(found.table) if found.table.level else ():
                self._note_lasting(found.table, pointer)

    def pointed(self, raw: int, level: int) -> Table | None:
        """The table that an entry leads to, if it is a pointer."""
        leads = level and (raw or self._zero_leads)
        entry = self.format.decode(raw, level) if leads else None
        if not isinstance(entry, Pointer):
            return None
        self.check_whole(raw, level)
        return entry.table

    def check_whole(self, raw: int, level: int) -> None:
        """SpaceError for a pointer that says that only a part of its table is there."""
        if not self.format.bounded:
            return
        entries = self.format.levels[level - 1].entries
        if len(there := self.format.slots_below(raw, level)) < entries:
            raise SpaceError(
                f"the level-{level} entry {raw:#x} leads to {len(there)} of the {entries} slots of"
                " a table: a space has whole tables"
            )

    def lowest(self, address: Virtual, level: int) -> Table:
        """The lowest table on the way to `level`; SpaceError if what comes next is no table, and
        for a level that the address has no tables at."""
        tables = self.path(address, level)
        table = tables[-1]
        if not 0 <= level <= tables[0].level:
            raise SpaceError(
                f"{address:#x} has tables at levels 0 to {tables[0].level}, not at {level}"
            )
        if table.level > level:
            raw = self.read(table.slot_for(address))
            if raw != self.format.levels[table.level].empty:
                entry = self.format.decode(raw, table.level)
                if isinstance(entry, Pointer):  # linked since
                    return self.lowest(address, level)
                kind = type(entry).__name__.lower()
                raise Taken(
                    f"{address:#x} is taken: its level-{table.level} entry is {raw:#x}, {kind}"
                )
        return table

    def _missing(
        self, places: Sequence[tuple[Virtual, int]], tables: Sequence[Table]
    ) -> Counter[int]:
        """How many tables are missing, by level, given the lowest that each place has."""
        missing = {
            (level, address >> self.format.levels[level + 1].shift)
            for (address, lowest), table in zip(places, tables, strict=True)
            for level in range(lowest, table.level)
        }
        return Counter(level for level, _ in missing)

    def _reserve(self, missing: Counter[int], bits: Callable[[int], int]) -> _Reserve:
        """New tables by level, each with the pointer that will lead to it; all or none."""
        reserve: _Reserve = defaultdict(deque)
        try:
            for level in sorted(missing, reverse=True):
                for _ in range(missing[level]):
                    reserve[level].append(self.new_table(level, bits(level + 1)))
        except SpaceError:
            self._return(reserve)
            raise
        return reserve

    def _return(self, reserve: _Reserve) -> None:
        for tables in reserve.values():
            for table, _ in tables:
                self.allocator.free(table)

    def _link(self, address: Virtual, level: int, reserve: _Reserve) -> Table:
        """The table for an address at a level, those that are missing taken from the reserve.

        Where another thread was faster its table is used, and ours stays in the reserve.
        """
        table = self.lowest(address, level)
        while table.level > level:
            slot = table.slot_for(address)
            with self.lock(table):
                if self.read(slot) == self.format.levels[slot.level].empty:
                    new, pointer = reserve[table.level - 1].popleft()
                    self.link(slot, new, pointer)
            table = self.lowest(address, level)
        return table


_Reserve = defaultdict[int, deque[tuple[Table, int]]]


def _addresses(slot: Slot, count: int) -> Words:
    """Physical addresses of `count` slots of one table, from `slot` on."""
    width = slot.table.format.entry_bytes
    return np.arange(slot.address, slot.address + count * width, width, dtype=np.uint64)
