"""A space with a life: its pages are mapped, changed, unmapped, and it is torn down.

Only a space changes memory, and a request that it refuses changes nothing.  What maps, narrows or
unmaps returns a `Flush`, which must be done before the change is complete; that of `map` is of
nothing where the machine keeps no entries that are absent, as on x86.  Threads may map, populate,
protect and unmap in one space together; `free_empty` and `tear_down` need it to themselves.

`reshape` moves pages and changes their size, `visit` shows what a range holds, `slots` works
on one entry at a time, `copy` forks, `sync` shares root entries among spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from harness.paging.address import Physical, Span, Virtual, aligned
from harness.paging.allocator import TableAllocator
from harness.paging.bits import (
    Kind,
    address_mask,
    carried,
    grouped,
    kinds,
    pointing,
    rights_bits,
    stale,
    ungrouped,
)
from harness.paging.entry import Leaf
from harness.paging.errors import OutOfTables, SpaceError, Taken
from harness.paging.flush import Flush
from harness.paging.format import Shape
from harness.paging.lock import held
from harness.paging.memory import Words, distinct
from harness.paging.table import Slot, Table
from harness.paging.tree import Account, Run, Tree

__all__ = ["Account", "Batch", "OutOfTables", "Space", "SpaceError", "TableAllocator"]


class Batch(NamedTuple):
    """Entries for consecutive slots at one level, from that of address `first` on."""

    first: Virtual
    level: int
    raw: Words


class _Page(NamedTuple):
    """A size of pages: the level of their entries, and bytes."""

    level: int
    size: int


class Space(Tree):
    """An address space: the roots where its walks begin, and the tables below them.

    memory     holds the tables
    roots      where walks begin, for instance `Cpu.roots`; their tables exist already
    allocator  where further tables come from
    """

    def map(
        self,
        first: Virtual,
        frames: Words,
        level: int,
        bits: int,
        table_bits: int | None = None,
        size: int | None = None,
    ) -> Flush:
        """Maps pages of the size of `level`, one after the other from `first` on.

        frames      physical address of each page, uint64, shape (n,)
        bits        what the leaves hold besides the address
        table_bits  what new pointers hold besides the address; all rights unless given
        size        bytes of each page, where it takes several slots (64 KiB at level 0 with
                    Svnapot of RISC-V); as many as a slot spans unless given

        Raises SpaceError for a page size that the format lacks, a misaligned or too wide
        address, a bit that a leaf may not have, a range that no root serves, pages that
        overlap with what is there, and memory exhausted.
        """
        raw = self.leaves(first, frames, level, bits, size)
        return self.place([Batch(first, level, raw)], table_bits)

    def map_range(
        self,
        first: Virtual,
        frame: Physical,
        size: int,
        bits: int,
        table_bits: int | None = None,
    ) -> Flush:
        """Maps `size` bytes from `first` on to those from `frame` on, in the largest pages that
        the alignment of both allows.

        bits  as for `map` at level 0; larger pages have the same attributes in their places

        Raises SpaceError as `map` does.
        """
        batches = []
        for at, start, count, page in self._sizes(first, frame, size, bits):
            steps = np.arange(count, dtype=np.uint64) * np.uint64(page.size)
            given = self.carried(at, bits, 0, page.level)
            raw = self.leaves(at, np.uint64(start) + steps, page.level, given, page.size)
            batches.append(Batch(at, page.level, raw))
        return self.place(batches, table_bits)

    def unmap(self, span: Span) -> Flush:
        """Clears every entry in the span; holes are passed over, tables stay (`free_empty`).

        Of a page in several slots a part may be cleared: the rest becomes pages of one slot each.

        Raises SpaceError where the span cuts a page in one slot, and for a malformed entry.
        """
        runs = self.filled(span, groups_too=False)
        return self._rewrite(runs, lambda raw, level: self.format.levels[level].emptied(raw))

    def protect(self, span: Span, bits: int, mask: int | None = None) -> Flush:
        """Gives the pages in the span other attributes; all else is passed over.

        bits, mask  as for `map` at level 0: the bits under the mask become `bits`.  It is the
                    mask of all bits that give rights unless given

        Raises SpaceError where the span cuts a page, except as for `unmap`, for a malformed entry,
        and for bits that a leaf may not have.
        """
        mask = rights_bits(self.format) if mask is None else mask
        runs = self.filled(span, groups_too=False)
        changes = {
            level: self._change(span.first, level, bits, mask)
            for level in {0, *(run.level for run in runs)}
        }

        def change(raw: Words, level: int) -> Words:
            kept, given = changes[level]
            return np.where(kinds(self.format, level, raw) == Kind.LEAF, raw & kept | given, raw)

        for run in runs:
            if self.format.levels[run.level].contested & ~int(changes[run.level][0]):
                self._check_pages(run, change(run.raw, run.level))
        return self._rewrite(runs, change)

    def rewrite(self, span: Span, change: Callable[[Words, int], Words]) -> Flush:
        """Has `change(entries, level)` turn the entries of the span into others.

        It is given arrays of entries of one level, shape (n,), none of them empty, a pointer or
        malformed, and returns what they become, for which the same holds but that they may be
        empty (`Level.empty`).  It is asked twice: by its first answers to the whole span it may
        still refuse.

        Raises SpaceError where the span cuts a page, except as for `unmap`, for a malformed entry,
        and whatever `change` raises.
        """
        runs = self.filled(span, groups_too=False)
        for run in runs:
            chosen = run.filled
            after = change(run.raw[chosen], run.level)
            self._check_wellformed(run.addresses[chosen], after, run.level)
        return self._rewrite(runs, change)

    def populate(self, span: Span, level: int = 0, table_bits: int | None = None) -> None:
        """Makes all tables down to `level` that the span needs, so that mapping pages of that
        level there takes no memory any more.  What a machine must forget that held that there
        are none is flushed with what is mapped there.

        Raises SpaceError where something else than a table is in the way, and OutOfTables.
        """
        self.lowest(Virtual(span.first), level)
        here = self.format.levels[level]
        room = self.allocator.span.size // self.format.table_bytes(level)
        if span.size // (here.size * here.entries) > room:
            raise OutOfTables(f"{span} needs more level-{level} tables than there is room for")
        places = [(Virtual(piece.first), level) for piece in self.pieces(span, level)]
        self.grow(places, self._pointer_bits(table_bits))

    def slot(self, address: Virtual, level: int, table_bits: int | None = None) -> Slot:
        """The slot of `address` at `level`, the tables above it allocated as needed.

        Raises SpaceError where something else than a table is in the way, where no root
        serves the address, and when memory is exhausted.
        """
        table = self.grow([(address, level)], self._pointer_bits(table_bits))[0]
        return table.slot_for(address)

    def free_empty(self, span: Span) -> Flush:
        """Unlinks the tables on the ways into the span in which nothing is left, roots excepted;
        they are free after the flush."""
        flush = Flush()
        for served in self.served(span):
            self._free_empty([self.root_for(served.first).table], served, flush)
        return flush

    def tear_down(self) -> Flush:
        """Ends the space: its roots lead nowhere, and after the flush all its tables are free."""
        if not self.roots:
            raise SpaceError("the space was torn down before")
        for root in self.roots:
            with self.lock(root.table):
                empty = self.format.levels[root.table.level].empty
                first = root.table.slot(root.indices.start)
                self.put(first, np.full(len(root.indices), empty, np.uint64))
        self.roots = ()
        flush = Flush()
        flush.add_everything()
        flush.then(self.free_all)
        return flush

    def place(self, batches: Sequence[Batch], table_bits: int | None = None) -> Flush:
        """Writes entries where nothing is, all or none; the tables they need are made.

        Raises SpaceError unless every place is free and served, and OutOfTables.
        """
        flush = Flush()
        cut = [part for batch in batches for part in self._cut(batch)]
        if len(cut) == 1:  # nothing is made for it unless its place is free
            [batch] = cut
            table = self.lowest(batch.first, batch.level)
            if table.level > batch.level:
                [table] = self._grow_for(cut, table_bits)
            slot = table.slot_for(batch.first)
            with self.lock(table):
                self._check_free(slot, batch)
                self.put(slot, batch.raw)
            self._forget_absent(slot, batch, flush)
            return flush
        tables = self.clear_ground(cut, table_bits)
        with held(self.lock(table) for table in tables):
            slots = [table.slot_for(part.first) for table, part in zip(tables, cut, strict=True)]
            for slot, batch in zip(slots, cut, strict=True):
                self._check_free(slot, batch)
            for slot, batch in zip(slots, cut, strict=True):
                self.put(slot, batch.raw)
        for slot, batch in zip(slots, cut, strict=True):
            self._forget_absent(slot, batch, flush)
        return flush

    def _forget_absent(self, slot: Slot, batch: Batch, flush: Flush) -> None:
        """Puts on the list that there was nothing where a batch is now, from a slot on."""
        if self.flushing.absent:
            shared = self.is_shared(self.path(batch.first, batch.level))
            before = self.format.levels[batch.level].emptied(batch.raw)
            run = Run(slot, batch.first, before, shared)
            self.forget(run, batch.raw, flush)

    def clear_ground(self, batches: Sequence[Batch], table_bits: int | None = None) -> list[Table]:
        """Makes the tables that batches need, all or none; returns that of each part of them,
        which is cut where a new table begins.

        Raises SpaceError unless every place is free and served, and OutOfTables.
        """
        cut = [part for batch in batches for part in self._cut(batch)]
        for batch in cut:
            table = self.lowest(batch.first, batch.level)
            if table.level == batch.level:
                self._check_free(table.slot_for(batch.first), batch)
        return self._grow_for(cut, table_bits)

    def filled(self, span: Span, groups_too: bool = True) -> list[Run]:
        """The runs of the span from the first to the last entry that is filled in each.

        groups_too  whether a page in several slots must lie in the span as a whole, too

        Raises SpaceError where the span cuts an entry, and for a malformed one.
        """
        smallest = self.format.levels[0].size
        if not (aligned(span.first, smallest) and aligned(span.last + 1, smallest)):
            raise SpaceError(
                f"{span} does not begin and end at a multiple of {smallest:#x}, a page at level 0"
            )
        runs = [run.trimmed() for run in self.runs(span) if run.filled.any()]
        for run in runs:
            self._check_wellformed(run.addresses, run.raw, run.level)
            reach = self.reach(run) if groups_too else run.span
            for end, raw in (reach.first, run.raw[0]), (reach.last, run.raw[-1]):
                if end not in span:
                    raise SpaceError(
                        f"{span} cuts the level-{run.level} entry {int(raw):#x} at"
                        f" {end & -run.slot.size:#x}: split it first"
                    )
        return runs

    def reach(self, run: Run) -> Span:
        """The addresses of all pages of which a slot of the run holds a part."""
        if not self.format.levels[run.level].groups:
            return run.span
        first, last = (self._page_of(run, step) for step in (0, -1))
        return Span(first.first, last.last)

    def _page_of(self, run: Run, step: int) -> Span:
        """The addresses of the page in a slot of the run, as many as the slot's if it has none."""
        entry = self.format.decode(int(run.raw[step]), run.level)
        size = max(run.slot.size, entry.size if isinstance(entry, Leaf) else 0)
        return Span.of(int(run.addresses[step]) & -size, size)

    def ungroup(self, address: Virtual, flush: Flush) -> None:
        """Makes the page in several slots at `address` pages of one slot each, alike in all else;
        to be done under the lock of its table.

        What one slot notes of accesses may be of another's page: each is accessed and dirty if any
        of the slots is (RISC-V, "Svnapot").
        """
        page = self._page_of(self.run(address, address), 0)
        path = self.path(address)
        here = self.format.levels[path[-1].level]
        slot = path[-1].slot_for(page.first)
        raw = self.words(slot, page.size >> here.shift)
        run = Run(slot, Virtual(page.first), raw, self.is_shared(path))
        chosen = grouped(self.format, run.level, raw)
        used = int(np.bitwise_or.reduce(raw[chosen])) & (self.format.accessed | self.format.dirty)
        after = ungrouped(self.format, run.level, raw, run.addresses)
        after[chosen] |= np.uint64(used)
        self.put(slot, after)
        self.forget(run, after, flush)

    def forget(self, run: Run, after: Words, flush: Flush) -> None:
        """Puts on the list what is stale when the entries of a run have become `after`."""
        gone = stale(self.format, run.level, run.raw, after)
        if not gone.any():
            return
        addresses, everything = run.addresses[gone], run.shared
        before = run.raw[gone]
        lasts = self._may_last(run.level, before)
        if self.flushing.leaves_alone:
            everything |= self.is_fresh(self.path(run.first, run.level))
            both = np.concatenate([before, after[gone]])
            everything |= bool(pointing(self.format, run.level, both).any())
        if self.flushing.lasting_tables:
            lasts |= self._lasts(run, after[gone])
        addresses = self._all_of_groups(run.level, addresses, before)
        flush.add(addresses, everything=everything, global_pages=lasts)
        if everything:
            self.settle(flush)

    def forget_table(
        self, slot: Slot, first: Virtual, raw: int, shared: bool, flush: Flush
    ) -> None:
        """Puts on the list that the pointer `raw` in a slot is gone, with nothing of what was
        below it left.

        first  the first address that it spanned
        """
        words = np.array([raw], np.uint64)
        run = Run(slot, first, words, shared)
        everything = shared or self.flushing.leaves_alone
        lasts = self.flushing.lasting_tables and self._lasts(run, words)
        flush.add(np.array([first], np.uint64), everything=everything, global_pages=lasts)
        if everything:
            self.settle(flush)

    def _all_of_groups(self, level: int, addresses: Words, raw: Words) -> Words:
        """The addresses of entries, and of all slots of the pages in several slots among them."""
        here = self.format.levels[level]
        found = [addresses]
        for shape in here.groups:
            size = here.page_size(shape)
            # One that is absent is kept as what it would be if it were there.
            told = shape.when._replace(mask=shape.when.mask & ~here.presence)
            chosen = raw & np.uint64(told.mask) == np.uint64(told.value & told.mask)
            first = distinct(addresses[chosen] & np.uint64(-size & 2**64 - 1))
            slots = np.arange(0, size, here.size, dtype=np.uint64)
            found.append(np.add.outer(first, slots).ravel())
        return np.concatenate(found)

    def _may_last(self, level: int, raw: Words) -> bool:
        """Whether one of these entries, which lead somewhere, is a global page, or a pointer: of
        one that was changed nobody knows what pages it led to."""
        lasting, fleeting = self.format.lasting, self.format.fleeting
        if not lasting | fleeting:
            return False
        if (raw & np.uint64(lasting)).any():
            return True
        if not fleeting and self.format.levels[level].pointer is None:
            return False
        lasts = kinds(self.format, level, raw) == Kind.POINTER
        if fleeting:
            lasts |= raw & np.uint64(fleeting) == 0
        return bool(lasts.any())

    def _lasts(self, run: Run, raw: Words) -> bool:
        """Whether one of these entries of a run, or a pointer to it, makes pages global."""
        path = self.path(run.first, run.level)
        words = [self.read(table.slot_for(run.first)) for table in path[:-1]] + raw.tolist()
        return run.shared or any(word & self.format.lasting for word in words)

    def leaves(
        self, first: int, frames: Words, level: int, bits: int, size: int | None = None
    ) -> Words:
        """The entries that map `frames`, whose addresses begin at `first`: as many for each as the
        page takes slots.  SpaceError if there can be none.

        size  bytes of each page, as many as a slot spans unless given
        """
        leaf = self._page_shape(first, level, size)
        slots = 1 if size is None else size >> self.format.levels[level].shift
        if size is not None and not aligned(first, size):
            raise SpaceError(
                f"{first:#x} is not a multiple of the page size {size:#x} at level {level}"
            )
        if len(frames) == 1:
            return np.array(
                [self._leaf(first, int(frames[0]), level, bits, size)] * slots, np.uint64
            )
        raw = np.full(len(frames), self._leaf(first, 0, level, bits, size), np.uint64)
        try:
            leaf.encode(int(np.bitwise_or.reduce(frames)))  # each bit has its own place, or none
        except ValueError:
            for frame in frames.tolist():
                self._leaf(first, frame, level, bits, size)
        for mask, shift in leaf.address:
            raw |= frames >> np.uint64(shift) & np.uint64(mask)
        return np.repeat(raw, slots) if slots > 1 else raw

    def _page_shape(self, first: int, level: int, size: int | None) -> Shape:
        """How pages of a size at a level look; SpaceError if there are none."""
        levels = self.format.levels
        if 0 <= level < len(levels):
            leaf = levels[level].leaf if size is None else levels[level].page(size)
            if leaf is not None:
                return leaf
        known = ", ".join(map(str, self.format.page_levels()))
        large = "" if size is None else f" of {size:#x} bytes"
        raise SpaceError(
            f"cannot map at {first:#x}: {self.format.name} has pages at levels {known},"
            f" not at {level}{large}"
        )

    def carried(self, address: int, bits: int, source: int, target: int) -> int:
        """`bits.carried`, with the address in the error."""
        try:
            return carried(self.format, bits, source, target)
        except ValueError as error:
            raise SpaceError(f"cannot map at {address:#x}, level {target}: {error}") from None

    def _leaf(self, first: int, frame: int, level: int, bits: int, size: int | None = None) -> int:
        try:
            return self.format.leaf(frame, level, bits, size)
        except ValueError as error:
            raise SpaceError(f"cannot map at {first:#x}, level {level}: {error}") from None

    def _rewrite(self, runs: Sequence[Run], change: Callable[[Words, int], Words]) -> Flush:
        """Changes what the runs held when they were read, and still hold."""
        flush = Flush()
        for run in runs:
            with self.lock(run.slot.table):
                if self.format.levels[run.level].groups:
                    self._ungroup_ends(run, flush)
                now = run._replace(raw=self.words(run.slot, len(run.raw)))
                chosen = run.filled & now.filled
                after = now.raw.copy()
                after[chosen] = change(now.raw[chosen], run.level)
                self.break_before(run.slot, now.raw, after, flush)
                self.put(run.slot, after)
            self.forget(now, after, flush)
        return flush

    def _ungroup_ends(self, run: Run, flush: Flush) -> None:
        """Makes pages of one slot each of those in several slots that the run holds in part."""
        now = run._replace(raw=self.words(run.slot, len(run.raw)))
        for step in (0, -1):
            if not run.span.covers(self._page_of(now, step)):
                self.ungroup(Virtual(int(run.addresses[step])), flush)

    def _change(
        self, address: int, level: int, bits: int, mask: int
    ) -> tuple[np.uint64, np.uint64]:
        """The bits that a change of attributes keeps, and those that it gives, at one level."""
        here = self.carried(address, mask, 0, level)
        given = self.carried(address, bits, 0, level)
        pages = self.format.levels[level].pages
        fixed = here & address_mask(self.format, level) | here >> 8 * self.format.entry_bytes
        for shape in pages:
            fixed |= here & (shape.address_mask | shape.when.mask)
        if fixed or given & ~here:
            raise SpaceError(
                f"cannot change {given:#x} under mask {here:#x} at {address:#x}, level {level}:"
                f" bits {fixed | given & ~here:#x} are not to be given so"
            )
        try:
            for shape in pages:
                self.format.check_free(shape, level, given)
        except ValueError as error:
            raise SpaceError(f"cannot map at {address:#x}, level {level}: {error}") from None
        return ~np.uint64(here), np.uint64(given)

    def _check_pages(self, run: Run, after: Words) -> None:
        """SpaceError unless what was a page is one afterwards."""
        no_page = kinds(self.format, run.level, after) != Kind.LEAF
        if not no_page.any():
            return
        self._check_wellformed(run.addresses, after, run.level)
        no_page &= kinds(self.format, run.level, run.raw) == Kind.LEAF
        if no_page.any():
            step = int(no_page.argmax())
            raise SpaceError(
                f"the level-{run.level} entry {int(run.raw[step]):#x} at"
                f" {int(run.addresses[step]):#x} would be no page any more: {int(after[step]):#x}"
            )

    def _sizes(
        self, first: int, frame: int, size: int, bits: int
    ) -> Iterator[tuple[Virtual, Physical, int, _Page]]:
        """How the largest pages tile a range: address, frame and count of equal pages."""
        format = self.format
        pages = [
            _Page(level, here.page_size(shape))
            for level, here in enumerate(format.levels)
            for shape in sorted(here.pages, key=here.page_size)
        ]
        usable = [page for page in pages if aligned(first - frame, page.size)]
        if not (usable and aligned(first | size, usable[0].size) and size >= 0):
            raise SpaceError(
                f"cannot map {size:#x} bytes at {first:#x} to {frame:#x}: not all are multiples"
                f" of {pages[0].size:#x}, a page at level {pages[0].level}"
            )
        if not size:
            return
        self.root_for(first)
        self.check_served(Span.of(first, size))
        level = usable[0].level
        for end in frame, frame + size - usable[0].size:
            self._leaf(first, end, level, self.carried(first, bits, 0, level))
        done = 0
        while done < size:
            at = first + done
            page = [one for one in usable if aligned(at, one.size) and one.size <= size - done][-1]
            upto = size - done
            for larger in usable:
                if larger.size > page.size:
                    upto = min(upto, -at % larger.size or upto)
                    break
            count = upto // page.size
            yield Virtual(at), Physical(frame + done), count, page
            done += count * page.size

    def _cut(self, batch: Batch) -> Iterator[Batch]:
        """The batch cut where a new table begins; SpaceError for a range that is not served."""
        first, level, raw = batch
        here = self.format.levels[level]
        if not aligned(first, here.size):
            raise SpaceError(
                f"{first:#x} is not a multiple of the page size {here.size:#x} at level {level}"
            )
        if len(raw) <= 1:
            yield from [batch] * len(raw)  # one entry lies in one table
            return
        self.root_for(first)
        for piece in self.pieces(Span.of(first, len(raw) * here.size), level):
            start = piece.first - first >> here.shift
            yield Batch(
                Virtual(piece.first), level, raw[start : start + (piece.size >> here.shift)]
            )

    def _grow_for(self, cut: Sequence[Batch], table_bits: int | None) -> list[Table]:
        places = [(batch.first, batch.level) for batch in cut]
        return self.grow(places, self._pointer_bits(table_bits))

    def _check_free(self, slot: Slot, batch: Batch) -> None:
        """SpaceError unless nothing is where the batch goes, from a slot on."""
        words = self.words(slot, len(batch.raw))
        taken = self.format.levels[batch.level].filled(words)
        if taken.any():
            index = int(taken.argmax())
            address = batch.first + index * self.format.levels[batch.level].size
            raise Taken(
                f"{address:#x} is taken: its level-{batch.level} entry is {int(words[index]):#x}"
            )

    def _check_wellformed(self, addresses: Words, raw: Words, level: int) -> None:
        wrong = kinds(self.format, level, raw) == Kind.MALFORMED
        if wrong.any():
            address, entry = int(addresses[wrong.argmax()]), int(raw[wrong.argmax()])
            parts = self.format.malformed(entry, level)
            reasons = " and ".join(f"{part.mask:#x} ({part.reason})" for part in parts)
            raise SpaceError(
                f"the level-{level} entry {entry:#x} at {address:#x} is malformed: it has {reasons}"
            )

    def _pointer_bits(self, table_bits: int | None) -> Callable[[int], int]:
        if table_bits is None:
            return self.format.open_pointer
        return lambda level: table_bits

    def _free_empty(self, path: list[Table], span: Span, flush: Flush) -> None:
        """Unlinks what is empty below the last table of a path, from the bottom up."""
        table = path[-1]
        here = self.format.levels[table.level]
        if here.pointer is None:
            return
        first = table.slot_for(span.first)
        raw = self.words(first, here.index(span.last) - first.index + 1)
        for step in np.flatnonzero(kinds(self.format, table.level, raw) == Kind.POINTER).tolist():
            below = self.pointed(int(raw[step]), table.level)
            if below is None or not self.owns(below):
                continue
            at = Span.of((span.first & -here.size) + step * here.size, here.size)
            inside = at.clip(span)
            assert inside is not None
            self._free_empty([*path, below], inside, flush)
            if self.is_empty(below):
                shared = self.is_shared([*path, below])
                slot, start = table.slot(first.index + step), Virtual(at.first)
                self.forget_table(slot, start, int(raw[step]), shared, flush)
                self.unlink(slot, below, flush)
