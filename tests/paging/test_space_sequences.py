"""Random sequences of operations, beside a dictionary of pages and a machine that forgets
nothing unless it is told to.

What a machine keeps, and what makes it forget, is written here from the manuals: SDM volume 3A,
4.10.4; RISC-V's privileged specification, "Supervisor Memory-Management Fence Instruction" and
"Svnapot"; Arm ARM, DDI 0487, "TLB maintenance", with break-before-make; Power ISA 3.0, Book III,
"Modifying a Translation Table Entry"; s390's Principles of Operation, "Modification of Translation
Tables".
"""

from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.paging import bulk, slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.copy import Page, copy_range
from harness.paging.errors import OutOfTables, SpaceError
from harness.paging.flush import Flush
from harness.paging.reshape import collapse, move, split
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.table import Root
from harness.paging.value import Value
from harness.paging.walk import walk
from tests.paging.spaces import ARM64, FORMATS, POWER, RISCV, S390, World

TABLES = 4
"""Level-0 tables that the sequences use, all in a row."""


class Mapped(NamedTuple):
    """What is known of one small page: its frame, its rights, and the page that it is part of."""

    frame: int
    rights: frozenset[str]
    first: int
    pages: int


Pages = dict[int, Mapped]


class Rules(NamedTuple):
    """What a machine keeps of what it has read.

    absent   that there is no page, or no table, is kept until it is flushed
    denials  rights that were given are not seen before a flush
    leaves   a flush of an address is for leaves: what it kept of tables goes when all is flushed
    group    small pages that one entry can stand for in each of its slots; 1 where none can
    breaks   what it holds of a page must be gone before another page is there in its place
    """

    absent: bool
    denials: bool
    leaves: bool
    group: int
    breaks: bool = False


LEAST = Rules(absent=False, denials=False, leaves=False, group=1)
RULES = {
    "sv32": Rules(absent=True, denials=True, leaves=True, group=1),
    "sv39": Rules(absent=True, denials=True, leaves=True, group=16),
    "sv48": Rules(absent=False, denials=True, leaves=True, group=1),
    "sv57": Rules(absent=True, denials=True, leaves=True, group=16),
    **dict.fromkeys(ARM64, Rules(absent=False, denials=True, leaves=False, group=1, breaks=True)),
    **dict.fromkeys(POWER, Rules(absent=False, denials=False, leaves=True, group=1, breaks=True)),
    **dict.fromkeys(S390, Rules(absent=False, denials=True, leaves=True, group=1, breaks=True)),
}

rights = st.frozensets(st.sampled_from(["read", "write", "user", "execute"]))

edges = st.tuples(st.integers(0, TABLES - 1), st.integers(-3, 2))
"""A table and a page counted from either end of it, so that sequences meet at the edges."""

counts = st.one_of(st.integers(1, 5), st.just(0))


class Sequences(RuleBasedStateMachine):
    """Addresses are counted in small pages from `base` on; `count` 0 means one whole table."""

    name = ""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.new_world()
        self.space = self.world.space
        self.per_table = self.world.table_span // self.world.page
        self.base = self.served().last + 1 - TABLES * self.world.table_span
        self.keeps = RULES.get(self.name, LEAST)
        self.large = bool(self.world.format.levels[1].pages)
        self.pages: Pages = {}
        self.tables: set[int] = set()
        self.cached: Pages = {}
        self.absent: set[int] = set()
        self.pointers: set[int] = set()
        self.no_pointers: set[int] = set()
        self.grown = False
        self.next_frame = 0

    def new_world(self) -> World:
        return World({**FORMATS, **RISCV, **ARM64, **POWER, **S390}[self.name])

    def served(self) -> Span:
        """The addresses at whose end the sequences take place."""
        return self.space.roots[-1].span

    def roots(self, space: Space) -> tuple[Root, ...]:
        """Those that give just the rights that pages were mapped with."""
        return space.roots

    # What a range is, and what is expected of it.

    def range_of(self, edge: tuple[int, int], count: int) -> range:
        table, offset = edge
        if self.keeps.group > 1 and offset > 0:
            offset += self.keeps.group - 2  # about the end of the first group
        first = table * self.per_table + (offset % self.per_table if count else 0)
        return range(first, min(first + (count or self.per_table), TABLES * self.per_table))

    def address(self, page: int) -> Virtual:
        return Virtual(self.base + page * self.world.page)

    def span(self, pages: range) -> Span:
        return Span.of(self.address(pages[0]), len(pages) * self.world.page)

    def tables_of(self, pages: range) -> set[int]:
        return {page // self.per_table for page in pages}

    def given(self, rights: frozenset[str]) -> frozenset[str]:
        """The rights that a page can have: RISC-V has no page without R and X, nor W without R,
        which POWER has not either; arm64 has rights to execute of EL0 and of EL1, and what EL1
        reads is always given; s390 knows no users, and every page can be read."""
        if self.name in S390:
            return rights & {"write", "execute"} & set(self.world.format.rights)
        if "user execute" in self.world.format.rights:
            execute = {"user execute", "supervisor execute"} if "execute" in rights else set()
            return frozenset(rights & {"write", "user"} | execute)
        if "read" not in self.world.format.rights:
            return rights - {"read"}
        if self.world.format in POWER.values():
            return rights | {"read"} if "write" in rights else rights
        return rights if "execute" in rights and "write" not in rights else rights | {"read"}

    def bits(self, rights: frozenset[str]) -> int:
        return self.world.format.granting(*rights)

    def is_cut(self, one: Mapped, pages: range) -> bool:
        return one.first < pages[0] or one.first + one.pages > pages[-1] + 1

    def cuts(self, pages: range) -> bool:
        """Whether a page lies in the range with a part of it only."""
        return any(self.is_cut(one, pages) for one in map(self.pages.get, pages) if one)

    def cuts_large(self, pages: range) -> bool:
        """The same of pages that one slot holds."""
        held = (one for one in map(self.pages.get, pages) if one)
        return any(one.pages > self.keeps.group and self.is_cut(one, pages) for one in held)

    def cut_groups(self, pages: range) -> set[int]:
        """The small pages of all groups that lie in the range with a part of them only."""
        found: set[int] = set()
        for one in [one for one in map(self.pages.get, pages) if one]:
            if 1 < one.pages <= self.keeps.group and self.is_cut(one, pages):
                found |= set(range(one.first, one.first + one.pages))
        return found

    def ungroup(self, cut: set[int]) -> None:
        for page in cut:
            self.pages[page] = self.pages[page]._replace(first=page, pages=1)

    def leaves(self, pages: range) -> set[int]:
        """The small pages by which to flush the pages in the range: the first of one in a slot,
        every one of a group, each of which the machine may keep."""
        found: set[int] = set()
        for one in [one for one in map(self.pages.get, pages) if one]:
            grouped = 1 < one.pages <= self.keeps.group
            found |= set(range(one.first, one.first + one.pages)) if grouped else {one.first}
        return found

    def narrows(self, page: int, rights: frozenset[str]) -> bool:
        """Whether somebody loses something when the page has these rights.

        Read-only and dirty, as a fork leaves a page that was written, it is a shadow stack, which
        the right to write takes away (SDM volume 3A, 4.6.1).
        """
        if self.keeps.denials:
            return rights != self.pages[page].rights
        format = self.world.format
        exclusive = set(format.rights_of(format.exclusive))
        lost, given = self.pages[page].rights - rights, rights - self.pages[page].rights
        if given & set(format.rights_of(format.shadow)):
            address = self.address(page)
            leaf = walk(self.space.memory, self.space.root_for(address), address).steps[-1]
            lost |= {"shadow stack"} if leaf.raw & format.dirty else set()
        return bool(lost or given & exclusive)

    def frames(self, count: int, granule: int) -> int:
        """A new row of frames, by number, that begins at a multiple of `granule`."""
        first = -(-self.next_frame // granule) * granule
        self.next_frame = first + count
        return first

    def attempt(self, may: bool, action: Callable[[], Flush | None]) -> Flush | None:
        """What an action returns that may succeed or must be refused; None if it was refused.

        One that runs out of tables counts as refused: the invariants see that nothing changed.
        """
        before = sum(self.space.account().tables)
        try:
            flush = action() or Flush()
            self.grown |= sum(self.space.account().tables) > before
        except OutOfTables:
            assert self.world.allocator.remaining == 0
            return None
        except SpaceError:
            assert not may
            return None
        assert may
        return flush

    def forget(self, flush: Flush, expected: set[int], unlinks: bool = False) -> None:
        """The machine drops what it is told to, which must be just what was expected.

        unlinks  whether tables are gone, or have come in the place of a page
        """
        assert flush.addresses.tolist() == sorted(self.address(page) for page in expected)
        self.drop(flush, unlinks)

    def forget_new(self, flush: Flush, mapped: set[int]) -> None:
        """The same after nothing but new pages came."""
        self.forget(flush, mapped if self.keeps.absent else set())

    def drop(self, flush: Flush, unlinks: bool = False) -> None:
        if self.keeps.breaks:
            self.nothing_conflicts()
        if flush.everything:
            assert self.keeps.leaves and (unlinks or (self.keeps.absent and self.grown))
            self.cached, self.absent, self.pointers, self.no_pointers = {}, set(), set(), set()
            self.grown = False
        for address in flush.addresses.tolist():
            page = (address - self.base) // self.world.page
            table = page // self.per_table
            self.absent.discard(page)
            if self.pages.get(page, self.pages.get(table * self.per_table)) and (
                table not in self.tables
            ):
                self.no_pointers.discard(table)
            if not self.keeps.leaves:
                self.pointers.discard(table)
            hit = self.cached.get(page)
            if hit and 1 < hit.pages <= self.keeps.group:
                self.cached.pop(page)
            elif hit and (hit.pages == 1 or not (self.keeps.leaves and table in self.tables)):
                for page in range(hit.first, hit.first + hit.pages):
                    self.cached.pop(page, None)
        self.tell(flush)

    def nothing_conflicts(self) -> None:
        """No page that the machine finds before the flush is another than the one that it holds."""
        held = sorted(self.cached)
        addresses = np.array([self.address(page) for page in held], np.uint64)
        walks = bulk.walk(self.world.memory, self.roots(self.space), addresses)
        leaves = np.flatnonzero(walks.end == bulk.End.LEAF)
        frames = walks.physical[leaves] // np.uint64(self.world.page)
        for lane, level, frame in zip(
            leaves.tolist(), walks.level[leaves].tolist(), frames.tolist(), strict=True
        ):
            page = held[lane]
            one = self.cached[page]
            size = self.per_table if level else 1
            assert one.pages == size, f"page {page} is held in another size"
            assert one.frame == frame, f"page {page} is held with another frame"

    def tell(self, flush: Flush) -> None:
        """Has it flushed."""
        flush.done()

    def forked(self, other: Space) -> None:
        """Looks at another space before it ends."""

    # The operations.

    @rule(allowed=st.sampled_from([None, None, None, 0, 1]))
    def allow(self, allowed: int | None) -> None:
        self.world.allocator.remaining = allowed

    @rule(edge=edges, count=counts, rights=rights)
    def map_small(self, edge: tuple[int, int], count: int, rights: frozenset[str]) -> None:
        rights = self.given(rights)
        pages = self.range_of(edge, count)
        first = self.frames(len(pages), 1)
        frames = (np.arange(len(pages), dtype=np.uint64) + np.uint64(first)) * np.uint64(
            self.world.page
        )
        bits = self.bits(rights)
        may = not any(page in self.pages for page in pages)
        done = self.attempt(may, lambda: self.space.map(self.address(pages[0]), frames, 0, bits))
        if done is not None:
            self.tables |= self.tables_of(pages)
            for step, page in enumerate(pages):
                self.pages[page] = Mapped(first + step, rights, page, 1)
            self.forget_new(done, set(pages))

    @precondition(lambda self: self.keeps.group > 1)
    @rule(edge=edges, count=st.integers(1, 2), rights=rights)
    def map_groups(self, edge: tuple[int, int], count: int, rights: frozenset[str]) -> None:
        rights, group = self.given(rights), self.keeps.group
        start = self.range_of(edge, 1)[0] // group * group
        pages = range(start, min(start + count * group, TABLES * self.per_table))
        first = self.frames(len(pages), group)
        frames = np.arange(first, first + len(pages), group, dtype=np.uint64) * np.uint64(
            self.world.page
        )
        size, bits = group * self.world.page, self.bits(rights)
        may = not any(page in self.pages for page in pages)
        action = lambda: self.space.map(self.address(start), frames, 0, bits, size=size)  # noqa: E731
        done = self.attempt(may, action)
        if done is not None:
            self.tables |= self.tables_of(pages)
            for step, page in enumerate(pages):
                self.pages[page] = Mapped(first + step, rights, page // group * group, group)
            self.forget_new(done, set(pages))

    @rule(table=st.integers(0, TABLES - 1), rights=rights)
    def map_large(self, table: int, rights: frozenset[str]) -> None:
        rights = self.given(rights)
        pages = range(table * self.per_table, (table + 1) * self.per_table)
        first = self.frames(self.per_table, self.per_table)
        frames = np.array([first * self.world.page], np.uint64)
        bits = self.bits(rights)
        may = self.large and table not in self.tables and pages[0] not in self.pages
        done = self.attempt(may, lambda: self.space.map(self.address(pages[0]), frames, 1, bits))
        if done is not None:
            for step, page in enumerate(pages):
                self.pages[page] = Mapped(first + step, rights, pages[0], self.per_table)
            self.forget_new(done, {pages[0]})

    @rule(edge=edges, tables=st.integers(1, 2), rights=rights)
    def map_range(self, edge: tuple[int, int], tables: int, rights: frozenset[str]) -> None:
        rights = self.given(rights)
        start = self.range_of(edge, 1)[0]
        pages = range(start, min(start + tables * self.per_table, TABLES * self.per_table))
        first = self.frames(len(pages) + self.per_table, self.per_table) + start % self.per_table
        whole = {
            table
            for table in self.tables_of(pages)
            if self.large
            and table * self.per_table >= pages[0]
            and (table + 1) * self.per_table <= pages[-1] + 1
        }
        may = not any(page in self.pages for page in pages) and not whole & self.tables
        action = lambda: self.space.map_range(  # noqa: E731
            self.address(start),
            Physical(first * self.world.page),
            len(pages) * self.world.page,
            self.bits(rights),
        )
        done = self.attempt(may, action)
        if done is not None:
            self.tables |= self.tables_of(pages) - whole
            for step, page in enumerate(pages):
                size = self.per_table if page // self.per_table in whole else self.keeps.group
                leaf = Mapped(first + step, rights, page // size * size, size)
                if self.is_cut(leaf, pages):
                    leaf = leaf._replace(first=page, pages=1)
                self.pages[page] = leaf
            self.forget_new(done, self.leaves(pages))

    @rule(edge=edges, count=counts)
    def unmap(self, edge: tuple[int, int], count: int) -> None:
        pages = self.range_of(edge, count)
        gone, cut = self.leaves(pages), self.cut_groups(pages)
        flush = self.attempt(not self.cuts_large(pages), lambda: self.space.unmap(self.span(pages)))
        if flush is not None:
            self.ungroup(cut)
            for page in pages:
                self.pages.pop(page, None)
            self.forget(flush, gone)

    @rule(edge=edges, count=counts, rights=rights)
    def protect(self, edge: tuple[int, int], count: int, rights: frozenset[str]) -> None:
        rights = self.given(rights)
        pages = self.range_of(edge, count)
        bits = self.bits(rights)
        cut = self.cut_groups(pages)
        less = {page for page in self.leaves(pages) if page in cut or self.narrows(page, rights)}
        action = lambda: self.space.protect(self.span(pages), bits)  # noqa: E731
        flush = self.attempt(not self.cuts_large(pages), action)
        if flush is not None:
            self.ungroup(cut)
            for page in pages:
                if page in self.pages:
                    self.pages[page] = self.pages[page]._replace(rights=rights)
            self.forget(flush, less)

    @rule(edge=edges, count=counts, to=edges)
    def move(self, edge: tuple[int, int], count: int, to: tuple[int, int]) -> None:
        pages = self.range_of(edge, count)
        start = self.range_of(to, count)[0]
        target = range(start, start + len(pages))
        distance = start - pages[0]
        moved = {page + distance: self.pages[page] for page in pages if page in self.pages}
        large = any(one.pages == self.per_table for one in moved.values())
        grouped = any(one.pages == self.keeps.group > 1 for one in moved.values())
        fits = target[-1] < TABLES * self.per_table and not set(target) & set(pages)
        may = (
            fits
            and not self.cuts(pages)
            and not (large and distance % self.per_table)
            and not (grouped and distance % self.keeps.group)
            and not any(page in self.pages for page in target)
            and not (large and self._large_tables(pages, distance) & self.tables)
        )
        gone = self.leaves(pages)
        action = lambda: move(self.space, self.span(pages), self.address(start))  # noqa: E731
        flush = self.attempt(may, action)
        if flush is not None:
            for page in pages:
                self.pages.pop(page, None)
            for page, one in moved.items():
                self.pages[page] = one._replace(first=one.first + distance)
                if one.pages < self.per_table:
                    self.tables.add(page // self.per_table)
            self.forget(flush, gone | (self.leaves(target) if self.keeps.absent else set()))

    def _large_tables(self, pages: range, distance: int) -> set[int]:
        """The tables in whose place large pages of the range would come."""
        large = {p for p in pages if p in self.pages and self.pages[p].pages == self.per_table}
        return {(page + distance) // self.per_table for page in large}

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(self.pages)))
        one = self.pages[page]
        flush = self.attempt(one.pages > 1, lambda: split(self.space, self.address(page)))
        if flush is not None:
            gone, linked = self.leaves(range(page, page + 1)), one.pages == self.per_table
            self.tables.add(page // self.per_table)
            size = self.keeps.group if one.pages > self.keeps.group else 1
            for part in range(one.first, one.first + one.pages):
                self.pages[part] = self.pages[part]._replace(first=part // size * size, pages=size)
            self.forget(flush, gone, unlinks=linked)

    @rule(table=st.integers(0, TABLES - 1))
    def collapse(self, table: int) -> None:
        pages = range(table * self.per_table, (table + 1) * self.per_table)
        held = [self.pages[page] for page in pages if page in self.pages]
        may = (
            self.large
            and table in self.tables
            and len(held) == self.per_table
            and held[0].frame % self.per_table == 0
            and all(one.frame == held[0].frame + step for step, one in enumerate(held))
            and len({one.rights for one in held}) == 1
        )
        flush = self.attempt(may, lambda: collapse(self.space, self.address(pages[0]), 1))
        if flush is not None:
            self.tables.remove(table)
            for page in pages:
                whole = self.pages[page]._replace(first=pages[0], pages=self.per_table)
                self.pages[page] = whole
            self.forget(flush, set(pages), unlinks=True)

    @rule(edge=edges, count=counts)
    def populate(self, edge: tuple[int, int], count: int) -> None:
        pages = self.range_of(edge, count)
        held = (one for one in map(self.pages.get, pages) if one)
        may = not any(one.pages == self.per_table for one in held)
        done = self.attempt(may, lambda: self.space.populate(self.span(pages)))
        if done is not None:
            self.tables |= self.tables_of(pages)

    @rule(edge=edges, count=counts)
    def free_empty(self, edge: tuple[int, int], count: int) -> None:
        pages = self.range_of(edge, count)
        used = {page // self.per_table for page in self.pages}
        gone = (self.tables_of(pages) & self.tables) - used
        flush = self.space.free_empty(self.span(pages))
        listed = set(flush.addresses.tolist())
        assert {self.address(table * self.per_table) for table in gone} <= listed
        self.tables -= gone
        self.drop(flush, unlinks=True)

    @rule(edge=edges, count=counts, private=st.booleans())
    def fork(self, edge: tuple[int, int], count: int, private: bool) -> None:
        pages = self.range_of(edge, count)
        self.world.allocator.remaining = None
        child = self.world.new_space()
        counted: list[int] = []

        def copy() -> Flush:
            copied = copy_range(self.space, child, self.span(pages), private=private)
            counted.append(copied.counts.get(Page.PAGE, 0))
            return copied.flush

        less = {page for page in self.leaves(pages) if "write" in self.pages[page].rights}
        less = less if private else set()
        flush = self.attempt(not self.cuts(pages), copy)
        if flush is not None:
            inside = [page for page in pages if page in self.pages]
            for page in inside if private else ():
                one = self.pages[page]
                self.pages[page] = one._replace(rights=one.rights - {"write"})
            assert counted == [len(inside)]
            self.compare(child, {page: self.pages[page] for page in inside})
            self.forget(flush, less)
            self.forked(child)
        else:
            self.compare(child, {})
        with child.tear_down():
            pass
        assert not any(child.account().tables)

    @precondition(lambda self: self.pages)
    @rule(data=st.data(), rights=st.one_of(st.none(), rights))
    def one_slot(self, data: st.DataObject, rights: frozenset[str] | None) -> None:
        """Gives one small page other rights, or clears it."""
        rights = None if rights is None else self.given(rights)
        page = data.draw(st.sampled_from(sorted(self.pages)))
        if self.pages[page].pages > 1:
            return
        format, address = self.world.format, self.address(page)
        slot = self.space.slot(address, 0)
        if rights is None:
            gone = {page}
            flush = slots.clear(self.space, slot, address)
            del self.pages[page]
        else:
            gone = {page} if self.narrows(page, rights) else set()
            noted = self.space.read(slot) & (format.accessed | format.dirty)
            frame = self.pages[page].frame * self.world.page
            raw = format.leaf(frame, 0, self.bits(rights) | noted)
            flush = slots.put(self.space, slot, Value(format, 0, raw), address)
            self.pages[page] = self.pages[page]._replace(rights=rights)
        self.forget(flush, gone)

    @rule()
    def sync(self) -> None:
        self.world.allocator.remaining = None
        other = self.world.new_space()
        with sync_roots(self.space, [other], Span(self.base, self.served().last)) as flush:
            linked = bool(self.tables or self.pages) or sum(self.space.account().tables) > 1
            assert flush.everything == (self.keeps.absent and linked)
        self.compare(other, self.pages)
        self.forked(other)
        with other.tear_down():
            pass
        assert not any(other.account().tables)

    # What holds after each of them.

    def compare(self, space: Space, expected: Pages) -> None:
        """The definition of a walk, for arrays, finds just the expected pages."""
        count = TABLES * self.per_table
        addresses = np.uint64(self.base) + np.arange(count, dtype=np.uint64) * np.uint64(
            self.world.page
        )
        walks = bulk.walk(self.world.memory, self.roots(space), addresses)
        leaves = np.flatnonzero(walks.end == bulk.End.LEAF)
        granted = walks.granted[leaves].tolist()
        rights = {one: frozenset(self.world.format.rights_of(one)) for one in set(granted)}
        sizes = np.where(walks.level[leaves], self.per_table, self.slots_of(walks.raw[leaves]))
        frames = walks.physical[leaves] // np.uint64(self.world.page)
        found = zip(frames.tolist(), map(rights.get, granted), sizes.tolist(), strict=True)
        shown = map(itemgetter(0, 1, 3), expected.values())
        assert dict(zip(leaves.tolist(), found, strict=True)) == dict(
            zip(expected, shown, strict=True)
        )

    def slots_of(self, raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """How many slots each small page takes: those of a group have bit 63, N, set."""
        return np.where(raw >> np.uint64(63), self.keeps.group, 1)

    @invariant()
    def the_walks_are_those_of_the_dictionary(self) -> None:
        self.compare(self.space, self.pages)

    @invariant()
    def the_machine_holds_nothing_stale(self) -> None:
        get = self.pages.get
        for page in [page for page, one in self.cached.items() if get(page) is not one]:
            one, now = self.cached[page], get(page)
            assert now, f"page {page} is still cached"
            assert (now.frame, now.first, now.pages) == (one.frame, one.first, one.pages)
            assert one.rights <= now.rights, f"page {page} has rights that were taken away"
            if self.keeps.denials:
                assert one.rights == now.rights, f"page {page} is denied rights that it has"
        assert self.absent.isdisjoint(self.pages), "a page is held to be absent"
        used = {page // self.per_table for page in self.pages}
        assert not self.no_pointers & used, "a table is held to be absent"
        assert self.pointers <= self.tables, "a table that is gone is still held"
        self.cached = dict(self.pages)
        self.pointers = set(self.tables)
        if self.keeps.absent:
            firsts = [table * self.per_table for table in self.tables]
            read = set().union(*(range(first, first + self.per_table) for first in firsts))
            self.absent = read - self.pages.keys()
            large = {page // self.per_table for page in self.pages} - self.tables
            self.no_pointers = set(range(TABLES)) - self.tables - large

    @invariant()
    def the_account_is_of_the_tables_that_there_are(self) -> None:
        assert self.space.account().tables[0] == len(self.tables)

    def teardown(self) -> None:
        with self.space.tear_down():
            pass
        assert not any(self.space.account().tables)


@pytest.mark.parametrize("name", [*FORMATS, *RISCV, *ARM64, *POWER, *S390])
def test_every_sequence_leaves_the_space_as_the_dictionary_says(name: str) -> None:
    machine = type("Sequences", (Sequences,), {"name": name})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=16, stateful_step_count=30, deadline=None)
    )
