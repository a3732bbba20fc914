"""Which accesses are tried in a space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.marks import WORD
from harness.check.x86.marks import CODE
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import Bytes, End, Leaves
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu
from harness.paging.x86.formats import LEGACY_ADDRESS_BITS

STRAY = 128
"""Addresses tried that nothing in the space suggests."""

AC: Final = frozenset(["AC"])
"""The flags of a disagreement about an access with EFLAGS.AC set."""

KINDS = (Kind.READ, Kind.WRITE, Kind.FETCH)
"""The accesses that are tried everywhere."""


@dataclass(frozen=True)
class Cases:
    """Accesses, one a lane; arrays of shape (n,).  Reads and writes are of one aligned word.

    kind      uint8, a `Kind`
    user      from user mode
    ac        with EFLAGS.AC set
    implicit  of a system structure; None where no access is
    """

    address: Words
    kind: Bytes
    user: Mask
    ac: Mask
    implicit: Mask | None = None

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | np.ndarray) -> Cases:
        """The chosen lanes."""
        implicit = None if self.implicit is None else self.implicit[chosen]
        return Cases(
            self.address[chosen], self.kind[chosen], self.user[chosen], self.ac[chosen], implicit
        )

    def put(self, jobs: npt.NDArray[np.void], enums: Mapping[str, int]) -> None:
        """Has the jobs, one a lane, make the accesses; `enums` are the stub's."""
        jobs["address"], jobs["user"], jobs["ac"] = self.address, self.user, self.ac
        for kind in Kind:
            chosen = self.kind == kind
            if chosen.any():
                jobs["access"][chosen] = enums[f"ACCESS_{kind.name}"]
        if self.implicit is not None:
            jobs["access"][self.implicit] = enums["ACCESS_DESCRIPTOR"]


def reads(address: Words) -> Cases:
    """A read of each address by the supervisor."""
    return _each(address, Kind.READ, False, False)


def of_space(cpu: Cpu, memory: Memory, leaves: Leaves, outside: Collection[Span]) -> Cases:
    """Every access to all that a space holds, at its edges and just beyond them.

    Each row of `leaves` is read, written and fetched by supervisor and user, at the first and
    the last word (fetched: at the code of its first and last page), and so are the words
    before and after it where nothing is mapped, the edges of what the roots serve, and a few
    stray addresses.  With SMAP, the supervisor also tries data with AC set.  Nothing in the
    spans `outside` is tried.  Fetches come first: TCG looks through its whole TLB when a page is
    first executed, and the more pages were used before, the larger that is.
    """
    format = cpu.format
    sizes = np.array([level.size for level in format.levels], np.uint64)[leaves.level]
    past = leaves.virtual + sizes
    last_page = past - np.uint64(format.levels[0].size)
    held = leaves.end != End.UNBACKED
    data = np.concatenate([leaves.virtual[held], past[held] - np.uint64(WORD)])
    code = distinct(np.concatenate([leaves.virtual[held], last_page[held]])) + np.uint64(CODE)
    around = _unmapped(cpu, memory, np.concatenate([leaves.virtual - np.uint64(WORD), past]))
    edges = [edge for root in cpu.roots for edge in _edges(root.span)]
    stray = np.random.default_rng(0).integers(0, 1 << 64, STRAY, dtype=np.uint64)
    stray = stray if cpu.long else stray >> np.uint64(LEGACY_ADDRESS_BITS)
    elsewhere = np.concatenate([around, np.array(edges, np.uint64), stray & ~np.uint64(WORD - 1)])
    elsewhere = _unmapped(cpu, memory, elsewhere)

    data = distinct(np.concatenate([data, elsewhere]))
    code = distinct(np.concatenate([code, elsewhere]))
    return _every_access(cpu, data, code, outside)


def of_places(cpu: Cpu, memory: Memory, places: Words, outside: Collection[Span]) -> Cases:
    """Every access at some addresses, as `of_space` has them: of the word that is there, and of
    the code of a page."""
    data = distinct(places & ~np.uint64(WORD - 1))
    elsewhere = _unmapped(cpu, memory, data)
    page = np.uint64(cpu.format.levels[0].size - 1)
    code = (np.setdiff1d(data, elsewhere) & ~page) + np.uint64(CODE)
    return _every_access(cpu, data, distinct(np.concatenate([code, elsewhere])), outside)


def _every_access(cpu: Cpu, data: Words, code: Words, outside: Collection[Span]) -> Cases:
    """Reads and writes of words and fetches of code, by supervisor and user, outside some spans."""
    parts = [_each(code, Kind.FETCH, user, False) for user in (False, True)]
    parts += [
        _each(data, kind, user, ac)
        for kind in (Kind.READ, Kind.WRITE)
        for user, ac in ((False, False), (True, False), *(((False, True),) if cpu.smap else ()))
    ]
    cases = together(parts)
    last_tried = cases.address + np.uint64(WORD - 1)
    within = np.zeros(len(cases), np.bool_)
    for span in outside:
        within |= (last_tried >= np.uint64(span.first)) & (cases.address <= np.uint64(span.last))
    beyond = cases.address > np.uint64((1 << 64 if cpu.long else LEGACY_SPAN.size) - WORD)
    return cases.take(~within & ~beyond)


def together(parts: Sequence[Cases]) -> Cases:
    """The accesses of several, one after the other; none of them is implicit."""
    return Cases(
        np.concatenate([part.address for part in parts]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.ac for part in parts]),
    )


def _each(address: Words, kind: Kind, user: bool, ac: bool) -> Cases:
    n = len(address)
    return Cases(address, np.full(n, kind, np.uint8), np.full(n, user), np.full(n, ac))


def _unmapped(cpu: Cpu, memory: Memory, addresses: Words) -> Words:
    """Those of the addresses at which no page is mapped."""
    absent: Mask = bulk.walk(memory, cpu.roots, addresses).end != End.LEAF
    return addresses[absent]


def _edges(span: Span) -> tuple[int, ...]:
    """The first and the last word of a span, and the words before and after it."""
    words = (span.first, span.last + 1 - WORD, span.first - WORD, span.last + 1)
    return tuple(address % (1 << 64) for address in words)
