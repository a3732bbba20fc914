"""A space with a life: its pages are mapped, changed, unmapped, and it is torn down.

Only a space changes memory, and a request that it refuses changes nothing.  What narrows or
unmaps returns a `Flush`, which must be done before the change is complete.  Threads may map,
populate, protect and unmap in one space together; `free_empty` and `tear_down` need it to
themselves.

`reshape` moves pages and changes their size, `visit` shows what a range holds, `slots` works
on one entry at a time, `copy` forks, `sync` shares root entries among spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from harness.paging.address import Physical, Span, Virtual, aligned
from harness.paging.allocator import TableAllocator
from harness.paging.bits import Kind, address_mask, carried, kinds, stale, structure_mask
from harness.paging.errors import OutOfTables, SpaceError, Taken
from harness.paging.flush import Flush
from harness.paging.lock import held
from harness.paging.memory import Words
from harness.paging.table import Slot, Table
from harness.paging.tree import Account, Run, Tree

__all__ = ["Account", "Batch", "OutOfTables", "Space", "SpaceError", "TableAllocator"]


class Batch(NamedTuple):
    """Entries for consecutive slots at one level, from that of address `first` on."""

    first: Virtual
    level: int
    raw: Words


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
    ) -> None:
        """Maps pages of the size of `level`, one after the other from `first` on.

        frames      physical address of each page, uint64, shape (n,)
        bits        what the leaves hold besides the address
        table_bits  what new pointers hold besides the address; all rights unless given

        Raises SpaceError for a page size that the format lacks, a misaligned or too wide
        address, a bit that a leaf may not have, a range that no root serves, pages that
        overlap with what is there, and memory exhausted.
        """
        raw = self.leaves(first, frames, level, bits)
        self.place([Batch(first, level, raw)], table_bits)

    def map_range(
        self,
        first: Virtual,
        frame: Physical,
        size: int,
        bits: int,
        table_bits: int | None = None,
    ) -> None:
        """Maps `size` bytes from `first` on to those from `frame` on, in the largest pages that
        the alignment of both allows.

        bits  as for `map` at level 0; larger pages have the same attributes in their places

        Raises SpaceError as `map` does.
        """
        batches = []
        for at, start, level, count in self._sizes(first, frame, size):
            steps = np.arange(count, dtype=np.uint64) * np.uint64(self.format.levels[level].size)
            raw = self.leaves(at, np.uint64(start) + steps, level, self.carried(at, bits, 0, level))
            batches.append(Batch(at, level, raw))
        self.place(batches, table_bits)

    def unmap(self, span: Span) -> Flush:
        """Clears every entry in the span; holes are passed over, tables stay (`free_empty`).

        Raises SpaceError where the span cuts a page, and for a malformed entry.
        """
        return self._rewrite(self.filled(span), lambda raw, level: np.zeros_like(raw))

    def protect(self, span: Span, bits: int, mask: int | None = None) -> Flush:
        """Gives the pages in the span other attributes; all else is passed over.

        bits, mask  as for `map` at level 0: the bits under the mask become `bits`.  It is the
                    mask of all rights unless given

        Raises SpaceError where the span cuts a page, for a malformed entry, and for a bit that
        a leaf may not have.
        """
        mask = self.format.rights_mask if mask is None else mask
        runs = self.filled(span)
        changes = {
            level: self._change(span.first, level, bits, mask)
            for level in {0, *(run.level for run in runs)}
        }

        def change(raw: Words, level: int) -> Words:
            kept, given = changes[level]
            return np.where(kinds(self.format, level, raw) == Kind.LEAF, raw & kept | given, raw)

        return self._rewrite(runs, change)

    def rewrite(self, span: Span, change: Callable[[Words, int], Words]) -> Flush:
        """Has `change(entries, level)` turn the entries of the span into others.

        It is given arrays of entries of one level, shape (n,), none of them zero, a pointer or
        malformed, and returns what they become, for which the same holds but that they may be
        zero.  It is asked twice: by its first answers to the whole span it may still refuse.

        Raises SpaceError where the span cuts a page, for a malformed entry, and whatever
        `change` raises.
        """
        runs = self.filled(span)
        for run in runs:
            chosen = run.raw != 0
            after = change(run.raw[chosen], run.level)
            self._check_wellformed(run.addresses[chosen], after, run.level)
        return self._rewrite(runs, change)

    def populate(self, span: Span, level: int = 0, table_bits: int | None = None) -> None:
        """Makes all tables down to `level` that the span needs, so that mapping pages of that
        level there takes no memory any more.

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
            slots = [slot for _, slot in root.slots()]
            with self.lock(root.table):
                self.put(slots[0], np.zeros(len(slots), np.uint64))
        self.roots = ()
        flush = Flush()
        flush.add_everything()
        flush.then(self.free_all)
        return flush

    def place(self, batches: Sequence[Batch], table_bits: int | None = None) -> None:
        """Writes entries where nothing is, all or none; the tables they need are made.

        Raises SpaceError unless every place is free and served, and OutOfTables.
        """
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
            return
        tables = self.clear_ground(cut, table_bits)
        with held(self.lock(table) for table in tables):
            slots = [table.slot_for(part.first) for table, part in zip(tables, cut, strict=True)]
            for slot, batch in zip(slots, cut, strict=True):
                self._check_free(slot, batch)
            for slot, batch in zip(slots, cut, strict=True):
                self.put(slot, batch.raw)

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

    def filled(self, span: Span) -> list[Run]:
        """The runs of the span from the first to the last entry that is not zero in each.

        Raises SpaceError where the span cuts an entry, and for a malformed one.
        """
        smallest = self.format.levels[0].size
        if not (aligned(span.first, smallest) and aligned(span.last + 1, smallest)):
            raise SpaceError(
                f"{span} does not begin and end at a multiple of {smallest:#x}, a page at level 0"
            )
        runs = [run.trimmed() for run in self.runs(span) if run.raw.any()]
        for run in runs:
            self._check_wellformed(run.addresses, run.raw, run.level)
            for end, raw in (run.span.first, run.raw[0]), (run.span.last, run.raw[-1]):
                if end not in span:
                    raise SpaceError(
                        f"{span} cuts the level-{run.level} entry {int(raw):#x} at"
                        f" {end & -run.slot.size:#x}: split it first"
                    )
        return runs

    def forget(self, run: Run, after: Words, flush: Flush) -> None:
        """Puts on the list what is stale when the entries of a run have become `after`."""
        gone = stale(self.format, run.level, run.raw, after)
        if gone.any():
            flush.add(
                run.addresses[gone],
                everything=run.shared,
                global_pages=self._may_last(run.level, run.raw[gone]),
            )

    def _may_last(self, level: int, raw: Words) -> bool:
        """Whether one of these entries is a global page, or a pointer: nobody knows what pages one
        that was changed led to."""
        lasting = self.format.lasting
        if not lasting:
            return False
        if (raw & np.uint64(lasting)).any():
            return True
        points = self.format.levels[level].pointer is not None
        return points and bool((kinds(self.format, level, raw) == Kind.POINTER).any())

    def leaves(self, first: int, frames: Words, level: int, bits: int) -> Words:
        """The entries that map `frames`, whose addresses begin at `first`; SpaceError if there
        can be none."""
        leaf = self.format.levels[level].leaf if 0 <= level < len(self.format.levels) else None
        if leaf is None:
            known = ", ".join(map(str, self.format.page_levels()))
            raise SpaceError(
                f"cannot map at {first:#x}: {self.format.name} has pages at levels {known},"
                f" not at {level}"
            )
        if len(frames) == 1:
            return np.array([self._leaf(first, int(frames[0]), level, bits)], np.uint64)
        raw = np.full(len(frames), self._leaf(first, 0, level, bits), np.uint64)
        try:
            leaf.encode(int(np.bitwise_or.reduce(frames)))  # each bit has its own place, or none
        except ValueError:
            for frame in frames.tolist():
                self._leaf(first, frame, level, bits)
        for mask, shift in leaf.address:
            raw |= frames >> np.uint64(shift) & np.uint64(mask)
        return raw

    def carried(self, address: int, bits: int, source: int, target: int) -> int:
        """`bits.carried`, with the address in the error."""
        try:
            return carried(self.format, bits, source, target)
        except ValueError as error:
            raise SpaceError(f"cannot map at {address:#x}, level {target}: {error}") from None

    def _leaf(self, first: int, frame: int, level: int, bits: int) -> int:
        try:
            return self.format.leaf(frame, level, bits)
        except ValueError as error:
            raise SpaceError(f"cannot map at {first:#x}, level {level}: {error}") from None

    def _rewrite(self, runs: Sequence[Run], change: Callable[[Words, int], Words]) -> Flush:
        """Changes what the runs held when they were read, and still hold."""
        flush = Flush()
        for run in runs:
            with self.lock(run.slot.table):
                now = run._replace(raw=self.words(run.slot, len(run.raw)))
                chosen = (run.raw != 0) & (now.raw != 0)
                after = now.raw.copy()
                after[chosen] = change(now.raw[chosen], run.level)
                self.put(run.slot, after)
            self.forget(now, after, flush)
        return flush

    def _change(
        self, address: int, level: int, bits: int, mask: int
    ) -> tuple[np.uint64, np.uint64]:
        """The bits that a change of attributes keeps, and those that it gives, at one level."""
        here = self.carried(address, mask, 0, level)
        given = self.carried(address, bits, 0, level)
        fixed = here & (address_mask(self.format, level) | structure_mask(self.format, level))
        fixed |= here >> 8 * self.format.entry_bytes
        if fixed or given & ~here:
            raise SpaceError(
                f"cannot change {given:#x} under mask {here:#x} at {address:#x}, level {level}:"
                f" bits {fixed | given & ~here:#x} are not to be given so"
            )
        self.leaves(address, np.zeros(1, np.uint64), level, given)
        return ~np.uint64(here), np.uint64(given)

    def _sizes(
        self, first: int, frame: int, size: int
    ) -> Iterator[tuple[Virtual, Physical, int, int]]:
        """How the largest pages tile a range: address, frame, level and count of equal ones."""
        levels = self.format.levels
        usable = [n for n in self.format.page_levels() if aligned(first - frame, levels[n].size)]
        if not (usable and aligned(first | size, levels[usable[0]].size) and size >= 0):
            smallest = levels[self.format.page_levels()[0]].size
            raise SpaceError(
                f"cannot map {size:#x} bytes at {first:#x} to {frame:#x}: not all are multiples"
                f" of {smallest:#x}, a page at level {self.format.page_levels()[0]}"
            )
        if not size:
            return
        self.root_for(first)
        self.check_served(Span.of(first, size))
        for end in frame, frame + size - levels[usable[0]].size:
            self._leaf(first, end, usable[0], 0)
        done = 0
        while done < size:
            at = first + done
            level = max(
                n for n in usable if aligned(at, levels[n].size) and levels[n].size <= size - done
            )
            upto = size - done
            for larger in usable:
                if larger > level:
                    upto = min(upto, -at % levels[larger].size or upto)
                    break
            count = upto // levels[level].size
            yield Virtual(at), Physical(frame + done), level, count
            done += count * levels[level].size

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
        if words.any():
            index = int((words != 0).argmax())
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
        bits = self.all_rights if table_bits is None else table_bits
        return lambda level: bits

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
            if not self.words(below.slot(0), self.format.levels[below.level].entries).any():
                shared = self.is_shared([*path, below])
                self.unlink(table.slot(first.index + step), below, flush)
                flush.add(np.array([at.first], np.uint64), everything=shared)
