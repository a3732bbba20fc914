"""Which accesses are tried in a space of s390."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np

from harness.check.marks import WORD
from harness.check.s390.marks import CODE
from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Leaves
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.s390.access import Access, Kind
from harness.paging.s390.cpu import AddressSpace, Cpu

STRAY: Final = 64
"""Addresses tried that nothing in the space suggests."""

SPACES: Final = {
    Kind.READ: AddressSpace.SECONDARY,
    Kind.WRITE: AddressSpace.SECONDARY,
    Kind.FETCH: AddressSpace.HOME,
}
"""In which space the stub makes an access; both have the tested ASCE."""

SPACE_OF: Final = np.array([SPACES[kind] for kind in Kind], np.uint8)
"""The same by the value of the kind."""


@dataclass(frozen=True)
class Cases:
    """Accesses, one a lane; arrays of shape (n,).  Data is one aligned word of 8 bytes.

    kind  uint8, a `Kind`
    user  in problem state, else in supervisor state
    """

    address: Words
    kind: Bytes
    user: Mask

    def __len__(self) -> int:
        return len(self.address)

    @property
    def space(self) -> Bytes:
        """The space that each is made in."""
        return SPACE_OF.take(self.kind)

    def take(self, chosen: Mask | slice) -> Cases:
        """The chosen lanes."""
        return Cases(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def stated(self, lane: int) -> Access:
        """The access of one lane."""
        kind = Kind(int(self.kind[lane]))
        return Access(kind, bool(self.user[lane]), SPACES[kind])


def of_space(cpu: Cpu, memory: Memory, leaves: Leaves) -> Cases:
    """Every access to all that a space holds, at its edges and just beyond them.

    Each row of `leaves` is read, written and fetched, in problem and in supervisor state, at the
    first and the last word (fetched: at the code of its first and last page); and so are the words
    before and after it where nothing is mapped, the edges of what the root serves, and a few stray
    addresses.
    """
    levels = cpu.format.levels
    sizes = np.array([level.size for level in levels], np.uint64)[leaves.level]
    past = leaves.virtual + sizes
    held = leaves.end != End.UNBACKED
    last_page = past - np.uint64(levels[0].size)
    data = np.concatenate([leaves.virtual[held], past[held] - np.uint64(WORD)])
    code = np.concatenate([leaves.virtual[held], last_page[held]]) + np.uint64(CODE)
    source = np.random.default_rng(0)
    stray = source.integers(0, 1 << 64, STRAY, dtype=np.uint64)
    stray >>= source.integers(0, 64 - levels[0].shift, STRAY, dtype=np.uint64)
    spans = [root.span for root in cpu.roots]
    ends = [word for span in spans for word in (span.first, span.last + 1 - WORD)]
    beyond = [word for span in spans for word in (span.first - WORD, span.last + 1)]
    width = cpu.mode.address_bits
    edges = [edge % (1 << 64) for edge in (*ends, *beyond, (1 << width) - WORD, 1 << width)]
    around = np.concatenate([leaves.virtual - np.uint64(WORD), past, stray])
    elsewhere = np.concatenate([around, np.array(edges, np.uint64)]) & np.uint64(2**64 - WORD)
    elsewhere = elsewhere[bulk.walk(memory, cpu.roots, elsewhere).end != End.LEAF]
    data = distinct(np.concatenate([data, elsewhere]))
    code = distinct(np.concatenate([code, elsewhere]))
    parts = [
        each(code if kind is Kind.FETCH else data, Access(kind, user))
        for kind, user in product(Kind, (False, True))
    ]
    return Cases(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Cases))
    )


def each(address: Words, access: Access) -> Cases:
    """The same access at every address."""
    n = len(address)
    return Cases(address, np.full(n, access.kind, np.uint8), np.full(n, access.user))
