"""A fork: the mappings of one space are copied to another, with copy on write.

The seam to a kernel is `Dialect`: what a fork makes of entries, software's own among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from harness.paging.address import Span, Virtual, aligned
from harness.paging.bits import Kind, kinds, withheld
from harness.paging.errors import SpaceError
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.lock import held
from harness.paging.memory import Words
from harness.paging.space import Space
from harness.paging.table import Slot
from harness.paging.tree import Run


class Fork(NamedTuple):
    """What the entries of a table become in a fork; one lane an entry, shape (n,) each.

    parent, child  the entries of both sides afterwards, uint64; a child's that is empty is not
                   written
    counted        uint8, what each entry counts as: a member of the dialect's `Counted`
    """

    parent: Words
    child: Words
    counted: npt.NDArray[np.uint8]


class ForkRefused(ValueError):  # noqa: N818 - it names what happened, as in the message
    """An entry that a fork cannot copy: `index` says which of those given, the text why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class Dialect(Protocol):
    """What entries of one format mean to a kernel, as far as a fork asks."""

    @property
    def format(self) -> Format:
        """The format whose entries it knows."""

    @property
    def counted(self) -> type[IntEnum]:
        """What copied entries are counted as."""

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """What becomes of the entries, shape (n,), of a table at `level`.

        None of them is empty or a pointer.  ForkRefused for one that cannot be copied.

        private  pages are copied on write, so that neither side may write them for now; else
                 both sides go on sharing them
        """


class Page(IntEnum):
    """What the hardware's own dialect counts."""

    PAGE = 0


@dataclass(frozen=True)
class Hardware:
    """The dialect of who writes nothing but what the format describes.

    shadow_stacks  whether the machine takes a page that is dirty and may not be written for a
                   shadow stack (x86 with CR4.CET: SDM volume 3A, 4.6.1).  A private page, were it
                   left dirty, could then be written as one, by both sides: so it loses D, and a
                   shadow stack becomes a page that no one writes until it is copied.  No bit of
                   the format is left to note that it was dirty: who needs that reads it before,
                   or has a bit of software's own for it, as Linux has
    """

    format: Format
    shadow_stacks: bool = False

    @property
    def counted(self) -> type[IntEnum]:
        return Page

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """Private pages lose the right to be written on both sides; the child has not accessed
        any, and has not written the shared ones."""
        format = self.format
        other = kinds(format, level, raw) != Kind.LEAF
        if other.any():
            raise ForkRefused(int(other.argmax()), "it is no page, and no other is known here")
        write = format.rights.get("write", 0)
        parent = withheld(format, level, raw, write) if private else raw
        if private and self.shadow_stacks:
            parent = parent & ~np.uint64(format.dirty)
        fresh = format.accessed if private else format.accessed | format.dirty
        return Fork(parent, parent & ~np.uint64(fresh), np.full(len(raw), Page.PAGE, np.uint8))


@dataclass(frozen=True)
class Copied:
    """What a copy came to.

    counts  how many of the smallest pages were copied, by what the dialect counts them as; an
            entry of a large page counts for all that it spans.  What none counts as is left out
    flush   what narrowed in the parent.  What a machine must forget of the target is not in it: if
            the target has run before and the machine keeps absent entries (RISC-V), all
            translations of its address space are to be dropped, global ones too
    """

    counts: Mapping[IntEnum, int]
    flush: Flush


def copy_range(
    source: Space,
    target: Space,
    span: Span,
    dialect: Dialect | None = None,
    private: bool = True,
) -> Copied:
    """Copies all that a space has in a span to another, as a fork does: in one go.

    See `Copy`, which does it step by step, for what is copied and what is raised.
    """
    copy = Copy(source, target, span, dialect, private)
    while copy.step():
        pass
    return copy.finish()


class _Done(NamedTuple):
    """A run that was copied: the parent's entries before and after, and the child's."""

    run: Run
    parent: Words
    slot: Slot
    child: Words


class Copy:
    """A copy of a span under way.  Between two steps no lock is held, and who has better things
    to do may do them.

    Entries of any level are copied; tables are made in the target with what the parent's
    pointers say.  The target runs nowhere until the copy is finished.

    dialect  what the entries mean; that of the hardware unless given
    private  whether pages are copied on write
    """

    def __init__(
        self,
        source: Space,
        target: Space,
        span: Span,
        dialect: Dialect | None = None,
        private: bool = True,
    ) -> None:
        if source.format is not target.format:
            raise SpaceError(f"{source.format.name} cannot be copied to {target.format.name}")
        smallest = source.format.levels[0].size
        if not (aligned(span.first, smallest) and aligned(span.last + 1, smallest)):
            raise SpaceError(
                f"{span} does not begin and end at a multiple of {smallest:#x}, a page at level 0"
            )
        source.check_served(span)
        target.check_served(span)
        self.source, self.target, self.span = source, target, span
        self.dialect = dialect or Hardware(source.format)
        self.private = private
        self._start()

    def _start(self) -> None:
        self.next = self.span.first
        self._flush = Flush()
        self._counts: Counter[int] = Counter()
        self._done: list[_Done] = []
        self._made: list[Slot] = []

    def step(self) -> bool:
        """Copies what one table of the parent holds, and tells whether more is to come.

        Raises SpaceError where the span cuts an entry, for one that cannot be copied, where the
        target holds something, and for a table that is not the space's; OutOfTables when there
        is no memory for the target's tables.  All is undone then, in both spaces, and a new
        first step begins again.  A machine that denies by what it kept (RISC-V) may deny writes
        that were withheld in between until the next flush.
        """
        try:
            if self.next <= self.span.last:
                self._copy_run()
        except ValueError:
            self._undo()
            raise
        return self.next <= self.span.last

    def finish(self) -> Copied:
        """What a copy came to of which every step is done."""
        if self.next <= self.span.last:
            raise SpaceError(f"the copy of {self.span} has only come to {self.next:#x}")
        counted = self.dialect.counted
        counts = {counted(kind): pages for kind, pages in sorted(self._counts.items()) if pages}
        return Copied(counts, self._flush)

    def _copy_run(self) -> None:
        root = self.source.root_for(self.next)
        run = self.source.run(Virtual(self.next), min(self.span.last, root.span.last))
        after = run.span.last + 1
        if run.filled.any():
            run = run.trimmed()
            if not self.span.covers(self.source.reach(run)):
                raise SpaceError(
                    f"{self.span} cuts a level-{run.level} entry of {self.source.reach(run)}:"
                    " split it first"
                )
            slot = self._target_slot(run)
            with held([self.source.lock(run.slot.table), self.target.lock(slot.table)]):
                now = run._replace(raw=self.source.words(run.slot, len(run.raw)))
                if (kinds(self.source.format, run.level, now.raw) == Kind.POINTER).any():
                    return  # a page was split since: the next step finds a table there
                self._copy_entries(now, slot)
        self.next = after

    def _target_slot(self, run: Run) -> Slot:
        """The slot of the target for the first of a run; the tables that it needs are made."""
        had = self.target.path(run.first, run.level)[-1].level

        def bits(level: int) -> int:
            table = self.source.path(run.first, level)[-1]
            return self.source.pointer_bits(table.slot_for(run.first))

        [table] = self.target.grow([(run.first, run.level)], bits)
        path = self.target.path(run.first, run.level)
        self._made += [
            table.slot_for(run.first) for table in path if run.level < table.level <= had
        ]
        return table.slot_for(run.first)

    def _copy_entries(self, run: Run, slot: Slot) -> None:
        """Copies a run, both tables being locked."""
        chosen, here = run.filled, self.source.format.levels[run.level]
        try:
            fork = self.dialect.fork(run.raw[chosen], run.level, self.private)
        except ForkRefused as refused:
            index = int(np.flatnonzero(chosen)[refused.index])
            raise SpaceError(
                f"{int(run.addresses[index]):#x} cannot be copied: {refused}; its"
                f" level-{run.level} entry is {int(run.raw[index]):#x}"
            ) from None
        parent, child = run.raw.copy(), here.emptied(run.raw)
        parent[chosen], child[chosen] = fork.parent, fork.child
        there = self.target.words(slot, len(child))
        taken = here.filled(there) & here.filled(child)
        if taken.any():
            index = int(taken.argmax())
            raise SpaceError(
                f"{int(run.addresses[index]):#x} is taken in the target: its level-{run.level}"
                f" entry is {int(there[index]):#x}"
            )
        self.source.put(run.slot, parent)
        self.target.put(slot, np.where(here.filled(child), child, there))
        self.source.forget(run, parent, self._flush)
        self._done.append(_Done(run, parent, slot, child))
        pages = run.slot.size // self.source.format.levels[0].size
        for kind, count in enumerate(np.bincount(fork.counted).tolist()):
            self._counts[kind] += count * pages

    def _undo(self) -> None:
        """Takes back what the copy gave the target, and gives the parent back what it lost.

        What has been changed since by others is left alone, and what the machine noted in the
        parent's entries since, accessed and dirty, stays noted.
        """
        used = np.uint64(self.source.format.accessed | self.source.format.dirty)
        for run, parent, slot, child in self._done:
            with held([self.source.lock(run.slot.table), self.target.lock(slot.table)]):
                now = self.source.words(run.slot, len(parent))
                ours = (now ^ parent) & ~used == 0
                self.source.put(run.slot, np.where(ours, run.raw | now & used, now))
                here, now = (
                    run.slot.table.format.levels[run.level],
                    self.target.words(slot, len(child)),
                )
                ours = here.filled(child) & ((now ^ child) & ~used == 0)
                self.target.put(slot, np.where(ours, np.uint64(here.empty), now))
        for slot in reversed(self._made):
            self._unmake(slot)
        self._flush.drop()
        self._start()

    def _unmake(self, slot: Slot) -> None:
        table = self.target.pointed(self.target.read(slot), slot.level)
        if table is None:
            return
        if self.target.is_empty(table):
            with Flush() as flush:
                self.target.unlink(slot, table, flush)
