"""Which accesses are tried in a space of RISC-V."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.check.edges import strays, tried
from harness.check.riscv.marks import CODE
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import Bytes, Counts, End, Leaves
from harness.paging.memory import Mask, Memory, Words, distinct, within
from harness.paging.riscv.access import Access, Kind
from harness.paging.riscv.cpu import Cpu

STATES: Final = tuple((s, m) for s in (False, True) for m in (False, True))
"""SUM and MXR."""


@dataclass(frozen=True)
class Stated:
    """An access with the state of the hart that makes it; `mprv` as in `Cases`."""

    kind: Kind
    user: bool
    sum: bool
    mxr: bool
    mprv: bool = False

    def __str__(self) -> str:
        state = f"SUM={int(self.sum)} MXR={int(self.mxr)}"
        return f"{Access(self.kind, self.user)} with {state}{', by MPRV' if self.mprv else ''}"


@dataclass(frozen=True)
class Cases:
    """Accesses, one a lane; arrays of shape (n,).  Data is one aligned word as wide as registers.

    kind      uint8, a `Kind`
    user      as U-mode, else as S-mode
    sum, mxr  the bits of mstatus
    mprv      made by M-mode with MPRV, and MPP as `user` says
    """

    address: Words
    kind: Bytes
    user: Mask
    sum: Mask
    mxr: Mask
    mprv: Mask

    @classmethod
    def of(cls, address: int, access: Stated) -> Cases:
        """One access, the only lane."""
        return cls(
            np.array([address], np.uint64),
            np.array([access.kind], np.uint8),
            np.array([access.user]),
            np.array([access.sum]),
            np.array([access.mxr]),
            np.array([access.mprv]),
        )

    @classmethod
    def together(cls, parts: Sequence[Cases]) -> Cases:
        """The lanes of all of them, one after the other."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __add__(self, other: Cases) -> Cases:
        """These lanes, and behind them the others."""
        return Cases.together((self, other))

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | Counts) -> Cases:
        """The chosen lanes."""
        return Cases(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def of_space(cpu: Cpu, memory: Memory, leaves: Leaves, outside: Span) -> Cases:
    """Every access to all that a space holds, at its edges and just beyond them.

    Each row of `leaves` is read, written, fetched, and changed by an AMO, as U-mode and as S-mode,
    with and without SUM and MXR, at the first and the last word (fetched: at the code of its first
    and last page); and so are the words before and after it where nothing is mapped, the edges of
    what the roots serve, and a few stray addresses.  Every other address of data is reached by
    MPRV.  Nothing in the span `outside` is tried.
    """
    data, code = tried(
        cpu.roots,
        leaves,
        lambda places: bulk.walk(memory, cpu.roots, places).end == End.LEAF,
        code=CODE,
        strays=strays(np.random.default_rng(0)),
        width=cpu.xlen // 8,
        bits=cpu.xlen,
    )
    return _every_access(data[~within(data, outside)], code[~within(code, outside)])


def of_places(cpu: Cpu, places: Words, outside: Span) -> Cases:
    """The same accesses to the words that addresses lie in, fetched: to the code of their pages."""
    page = np.uint64(cpu.format.levels[0].size - 1)
    data = distinct(places & ~np.uint64(cpu.xlen // 8 - 1))
    code = distinct((places & ~page) + np.uint64(CODE))
    return _every_access(data[~within(data, outside)], code[~within(code, outside)])


def _every_access(data: Words, code: Words) -> Cases:
    """All kinds of accesses: by S-mode and U-mode, with SUM and MXR each way."""
    parts = list[Cases]()
    by_mprv = np.arange(len(data)) % 2 == 1
    for sum, mxr in STATES:
        for user in (False, True):
            parts.append(_each(code, Kind.FETCH, user, sum, mxr, np.zeros(len(code), np.bool_)))
            for kind in (Kind.READ, Kind.WRITE, Kind.AMO):
                parts.append(_each(data, kind, user, sum, mxr, by_mprv))
    return Cases.together(parts)


def _each(address: Words, kind: Kind, user: bool, sum: bool, mxr: bool, mprv: Mask) -> Cases:
    n = len(address)
    kinds = np.full(n, kind, np.uint8)
    return Cases(address, kinds, np.full(n, user), np.full(n, sum), np.full(n, mxr), mprv)
