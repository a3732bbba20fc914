"""Which accesses are tried in a space of POWER."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np

from harness.check.marks import WORD
from harness.check.power.marks import CODE
from harness.paging.address import Span
from harness.paging.bulk import Bytes, End, Leaves
from harness.paging.memory import Mask, Memory, Words, distinct, within
from harness.paging.power import bulk
from harness.paging.power.access import Access, Kind
from harness.paging.power.cpu import Cpu

STRAY: Final = 64
"""Addresses tried that nothing in the space suggests."""

WAYS: Final = tuple(Access(kind, user) for kind, user in product(Kind, (False, True)))


@dataclass(frozen=True)
class Cases:
    """Accesses, one a lane; arrays of shape (n,).  Data is one aligned word of 8 bytes.

    kind  uint8, a `Kind`
    user  in problem state
    """

    address: Words
    kind: Bytes
    user: Mask

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice) -> Cases:
        """The chosen lanes."""
        return Cases(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def access(self, lane: int) -> Access:
        """The access of one lane."""
        return Access(Kind(int(self.kind[lane])), bool(self.user[lane]))


def of_space(cpu: Cpu, memory: Memory, leaves: Leaves, outside: Span) -> Cases:
    """Every access to all that a space holds, at its edges and just beyond them.

    Each row of `leaves` is accessed in each of `WAYS` at the first and the last word (fetched: at
    the code of its first and last page); and so are the words before and after it where nothing is
    mapped, the edges of what the roots serve, and a few stray addresses.  Nothing in the span
    `outside` is tried, and nothing in quadrants 1 and 2, which are translated in two stages.
    """
    levels = cpu.format.levels
    sizes = np.array([level.size for level in levels], np.uint64)[leaves.level]
    past = leaves.virtual + sizes
    held = leaves.end != End.UNBACKED
    last_page = past - np.uint64(levels[0].size)
    data = np.concatenate([leaves.virtual[held], past[held] - np.uint64(WORD)])
    code = np.concatenate([leaves.virtual[held], last_page[held]]) + np.uint64(CODE)
    stray = np.random.default_rng(0).integers(0, 1 << 64, STRAY, dtype=np.uint64)
    around = np.concatenate([leaves.virtual - np.uint64(WORD), past, stray])
    spans = [root.span for root in cpu.roots]
    ends = [word for span in spans for word in (span.first, span.last + 1 - WORD)]
    beyond = [word for span in spans for word in (span.first - WORD, span.last + 1)]
    edges = np.array([edge % (1 << 64) for edge in ends + beyond], np.uint64)
    elsewhere = np.concatenate([around, edges]) & np.uint64((1 << 64) - WORD)
    quadrant = elsewhere >> np.uint64(62)
    elsewhere = elsewhere[(quadrant == 0) | (quadrant == 3)]
    elsewhere = elsewhere[bulk.walk(cpu, memory, elsewhere).end != End.LEAF]
    data = distinct(np.concatenate([data, elsewhere]))
    code = distinct(np.concatenate([code, elsewhere]))
    return _in_every_way(data[~within(data, outside)], code[~within(code, outside)])


def alone(address: int, access: Access) -> Cases:
    """An access at an address, as the only lane."""
    return _each(np.array([address], np.uint64), access)


def _in_every_way(data: Words, code: Words) -> Cases:
    parts = [_each(code if way.kind is Kind.FETCH else data, way) for way in WAYS]
    return Cases(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Cases))
    )


def _each(address: Words, way: Access) -> Cases:
    n = len(address)
    return Cases(address, np.full(n, way.kind, np.uint8), np.full(n, way.user))
