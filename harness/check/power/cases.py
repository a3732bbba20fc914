"""Which accesses are tried in a space of POWER."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np

from harness.check.edges import strays, tried
from harness.check.power.marks import CODE
from harness.paging.address import Span
from harness.paging.bulk import Bytes, End, Leaves
from harness.paging.memory import Mask, Memory, Words, within
from harness.paging.power import bulk
from harness.paging.power.access import Access, Kind
from harness.paging.power.cpu import Cpu

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

    def left_out(places: Words) -> Mask:
        of_two_stages = within(places, Span(1 << 62, (3 << 62) - 1))
        leads: Mask = bulk.walk(cpu, memory, places).end == End.LEAF
        return of_two_stages | leads

    data, code = tried(
        cpu.roots, leaves, left_out, code=CODE, strays=strays(np.random.default_rng(0))
    )
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
