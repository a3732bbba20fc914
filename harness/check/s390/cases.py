"""Which accesses are tried in a space of s390."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Final

import numpy as np

from harness.check.edges import STRAYS, strays, tried
from harness.check.marks import WORD
from harness.check.s390.marks import CODE
from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Leaves
from harness.paging.memory import Mask, Memory, Words
from harness.paging.s390.access import Access, Kind
from harness.paging.s390.cpu import AddressSpace, Cpu

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
    source, width = np.random.default_rng(0), cpu.mode.address_bits
    wide = strays(source)
    shifts = source.integers(0, 64 - cpu.format.levels[0].shift, STRAYS, dtype=np.uint64)
    data, code = tried(
        cpu.roots,
        leaves,
        lambda places: bulk.walk(memory, cpu.roots, places).end == End.LEAF,
        code=CODE,
        strays=wide >> shifts,
        edges=((1 << width) - WORD, 1 << width),
    )
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
