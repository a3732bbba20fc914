"""How much a layout asks for, worked out from its description before anything is built.

A file of a hundred bytes can ask for more tables than there is memory, and for more entries than
anyone waits for.  All numbers are lower bounds: what is refused for want of room cannot be built.
What passes is built in a quarter of a minute at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.check.keys import in_units
from harness.paging.format import Format
from harness.paging.memory import Words

MOST_ENTRIES: Final = 1 << 24
"""Entries of one layout: 64G in pages of 4K.  They take 0.4 us and 32 bytes each to build."""

MOST_APART: Final = 1 << 16
"""Entries that are put one by one: they take 30 us each, and where each
needs a table of its own 200 us."""


@dataclass(frozen=True)
class Run:
    """Entries of one part of a layout: `count` of them at `level`, `step` bytes of addresses from
    each to the next, put into their tables, which are of `format`, `together` or one by one."""

    where: str
    format: Format
    virtual: int
    level: int
    count: int
    step: int
    together: bool

    @property
    def tables(self) -> int:
        """How many tables lead there, the root among them."""
        return sum(self._spanned(size) for size in _table_spans(self.format)[self.level :])

    def meets(self, other: Run) -> bool:
        """Whether some address has an entry of both; the addresses of neither wrap."""
        mine, theirs = self._starts(), other._starts()
        size, their_size = (run.format.levels[run.level].size for run in (self, other))
        after = np.searchsorted(theirs, mine, side="right")
        # Where there is none, the distance wraps to a large number.
        within = mine - theirs[np.maximum(after, 1) - 1] < np.uint64(their_size)
        before = theirs[np.minimum(after, len(theirs) - 1)] - mine < np.uint64(size)
        return bool((within | before).any())

    def _starts(self) -> Words:
        steps = np.arange(self.count, dtype=np.uint64) * np.uint64(self.step)
        return np.uint64(self.virtual) + steps

    def _spanned(self, size: int) -> int:
        """How many tables of one level, each for `size` bytes of addresses, have an entry."""
        first, last = self.virtual, self.virtual + (self.count - 1) * self.step
        return min(self.count, last // size - first // size + 1)


def _table_spans(format: Format) -> list[int]:
    """The bytes of addresses that a table spans, by level."""
    return [level.size << level.index_bits for level in format.levels]


def refuse(where: str, runs: Iterable[Run], tables: int) -> None:
    """Raises ValueError where tables of so many bytes cannot hold these, or it takes too long;
    `where` is the file, for people."""
    known = list(runs)
    entries = sum(run.count for run in known)
    room = max((tables // run.format.entry_bytes for run in known), default=0)
    if entries > room:
        raise ValueError(
            f"{where}: {entries:,} entries are asked for, and `tables` ({in_units(tables)}) has"
            f" room for {room:,}"
        )
    for run in known:
        room = tables // run.format.table_bytes(0)
        if (needed := run.tables) > room:
            raise ValueError(
                f"{run.where}: {needed:,} tables are needed, and `tables` ({in_units(tables)}) has"
                f" room for {room:,}"
            )
    if entries > MOST_ENTRIES:
        raise ValueError(
            f"{where}: {entries:,} entries are asked for, which take {entries * 4e-7:,.0f} s and"
            f" {entries * 32 >> 20:,} MiB to build: at most {MOST_ENTRIES:,} are"
        )
    apart = sum(run.count for run in known if not run.together)
    if apart > MOST_APART:
        raise ValueError(
            f"{where}: {apart:,} entries are asked for that are put one by one (a step, a share, an"
            f" entry), which takes {apart * 3e-5:,.0f} s or more: at most {MOST_APART:,} are"
        )
