"""Which accesses are tried in a space of arm64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np

from harness.check.arm64.marks import CODE
from harness.check.edges import strays, tried
from harness.check.marks import WORD
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.arm64.access import Access, Kind
from harness.paging.arm64.cpu import Cpu
from harness.paging.arm64.formats import GRANULES
from harness.paging.bulk import Bytes, Counts, End, Leaves
from harness.paging.memory import Mask, Memory, Words, within

SMALLEST: Final = 1 << min(granule.page for granule in GRANULES.values())
"""Bytes of the smallest page."""


@dataclass(frozen=True)
class Stated:
    """An access with the state in which it is made: at EL0 or EL1, with PSTATE.PAN and
    PSTATE.UAO."""

    kind: Kind
    el0: bool
    pan: bool = False
    uao: bool = False

    @property
    def user(self) -> bool:
        """Whether it is made at EL0."""
        return self.el0

    def __str__(self) -> str:
        return f"{Access(self.kind, self.el0)} with PAN={int(self.pan)} UAO={int(self.uao)}"


WAYS: Final = (
    *(Stated(kind, True) for kind in (Kind.READ, Kind.WRITE, Kind.FETCH, Kind.AMO)),
    *(
        Stated(kind, False, pan)
        for kind in (Kind.READ, Kind.WRITE, Kind.FETCH, Kind.AMO)
        for pan in (False, True)
    ),
    *(
        Stated(kind, False, pan, uao)
        for kind, pan, uao in product((Kind.LDTR, Kind.STTR), (False, True), (False, True))
    ),
)
"""UAO plays a part in LDTR and STTR alone, and at EL0 neither it nor PAN does."""


@dataclass(frozen=True)
class Cases:
    """Accesses, one a lane; arrays of shape (n,).  Data is one aligned word of 8 bytes.

    kind      uint8, a `Kind`
    el0       at EL0, else at EL1
    pan, uao  the bits of PSTATE
    """

    address: Words
    kind: Bytes
    el0: Mask
    pan: Mask
    uao: Mask

    def __len__(self) -> int:
        return len(self.address)

    def __add__(self, other: Cases) -> Cases:
        return _joined((self, other))

    def take(self, chosen: Mask | Counts | slice) -> Cases:
        """The chosen lanes."""
        return Cases(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def stated(self, lane: int) -> Stated:
        """The access of one lane."""
        flags = (bool(one[lane]) for one in (self.el0, self.pan, self.uao))
        return Stated(Kind(int(self.kind[lane])), *flags)


def of_space(cpu: Cpu, memory: Memory, leaves: Leaves, outside: Span) -> Cases:
    """Every access to all that a space holds, at its edges and just beyond them.

    Each row of `leaves` is accessed in each of `WAYS` at the first and the last word (fetched: at
    the code of its first and last page); and so are the words before and after it where nothing is
    mapped, the edges of what the roots serve, and a few stray addresses.  Nothing in the span
    `outside` is tried.
    """
    data, code = tried(
        cpu.roots,
        leaves,
        lambda places: bulk.walk(memory, cpu.roots, places).end == End.LEAF,
        code=CODE,
        strays=strays(np.random.default_rng(0)),
    )
    return _in_every_way(data, code, outside)


def of_places(places: Words, outside: Span) -> Cases:
    """The same accesses to the words that addresses lie in, fetched: to the code of their pages."""
    data = np.unique(places & ~np.uint64(WORD - 1))
    code = np.unique(places & ~np.uint64(SMALLEST - 1) | np.uint64(CODE))
    return _in_every_way(data, code, outside)


def alone(address: int, access: Stated) -> Cases:
    """An access at an address, as the only lane."""
    return each(np.array([address], np.uint64), access)


def _in_every_way(data: Words, code: Words, outside: Span) -> Cases:
    data, code = (places[~within(places, outside)] for places in (data, code))
    return _joined(each(code if way.kind is Kind.FETCH else data, way) for way in WAYS)


def _joined(parts: Iterable[Cases]) -> Cases:
    every = tuple(parts)
    return Cases(
        *(np.concatenate([getattr(part, field.name) for part in every]) for field in fields(Cases))
    )


def each(address: Words, way: Stated) -> Cases:
    """The same access at every address."""
    n = len(address)
    kind = np.full(n, way.kind, np.uint8)
    return Cases(address, kind, np.full(n, way.el0), np.full(n, way.pan), np.full(n, way.uao))
