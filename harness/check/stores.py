"""What the tables of spaces hold, so that stores show which no operation has noted.

Code that is no part of the library stores into tables as it likes.  All tables are kept as they
were; what they hold otherwise now was stored since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from harness.paging import bulk
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.table import Root


class Cpu(Protocol):
    """What translates by the tables of a space."""

    @property
    def roots(self) -> tuple[Root, ...]: ...


def format_of(cpu: Cpu) -> Format:
    """The format of a space's tables, which all of its roots have."""
    return cpu.roots[0].table.format


@dataclass(frozen=True)
class Stores:
    """Words of tables that changed, one lane each.

    before   what was there
    in_use   whether the table was one of the loaded space then; else it was one earlier, or is new
    """

    addresses: Words
    before: Words
    in_use: Mask


class KnownTables:
    """All tables that the loaded space has, or spaces had while they were loaded since `forget`,
    and what they hold.

    What hangs under a root is looked at while that root is loaded, and not after: its table may
    have been given back, and be another's.  Tables of the machine's own are none: they lie in its
    arena, which ends at `arena`.
    """

    def __init__(self, memory: Memory, arena: int) -> None:
        self._memory, self._arena = memory, np.uint64(arena)
        self.forget()

    def forget(self) -> None:
        """There were none so far."""
        self._tables = dict[int, Words]()
        self._in_use = set[int]()
        self._frames = dict[int, Words]()
        self._loaded: tuple[Root, ...] = ()

    def learn(self, cpu: Cpu) -> None:
        """The tables of the loaded space are known from now on, as they are."""
        self._loaded, self._in_use = cpu.roots, set(self._tables_of(cpu))
        for address in self._in_use - self._tables.keys():
            self._tables[address] = self._read(cpu, address)

    def hold_frames(self, cpu: Cpu, addresses: Words) -> None:
        """Keeps what frames hold that are no tables yet, and may be later."""
        size = np.uint64(format_of(cpu).table_bytes(0))
        for frame in distinct(addresses & ~(size - np.uint64(1))).tolist():
            self._frames[frame] = self._read(cpu, frame)

    def in_use(self, cpu: Cpu, addresses: Words) -> Mask:
        """Which addresses lie in tables of the loaded space."""
        size = np.uint64(format_of(cpu).table_bytes(0))
        found: Mask = np.isin(addresses & ~(size - np.uint64(1)), _array(self._in_use))
        return found

    def changed(self, cpu: Cpu, *, whole: bool) -> Stores:
        """What was stored since the last time.

        cpu    the state in which the loaded space is used
        whole  of tables that are new all words, not those alone that differ from what was there
        """
        parts = list(self._differing(cpu))
        if parts or cpu.roots != self._loaded:  # else no table has come or gone
            now = set(self._tables_of(cpu))
            for address in sorted(now - self._tables.keys()):
                words = self._tables[address] = self._read(cpu, address)
                before = self._frames.get(address, words)
                new = np.flatnonzero((words != before) | whole)
                slots = _slots(cpu, address)[new]
                parts.append(Stores(slots, before[new], np.zeros(len(new), np.bool_)))
            self._loaded, self._in_use = cpu.roots, now
        return Stores(
            np.concatenate([np.empty(0, np.uint64), *(part.addresses for part in parts)]),
            np.concatenate([np.empty(0, np.uint64), *(part.before for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.in_use for part in parts)]),
        )

    def _differing(self, cpu: Cpu) -> Iterator[Stores]:
        for address, before in self._tables.items():
            words = self._read(cpu, address)
            different = np.flatnonzero(words != before)
            if len(different):
                self._tables[address] = words
                slots = _slots(cpu, address)[different]
                in_use = np.full(len(different), address in self._in_use)
                yield Stores(slots, before[different], in_use)

    def _tables_of(self, cpu: Cpu) -> list[int]:
        """The tables of a space outside the arena, but not those that lie outside memory."""
        found = distinct(bulk.leaves(self._memory, cpu.roots, limit=0).tables.address)
        _, backed = self._memory.gather(found, format_of(cpu).entry_bytes)
        ours = found >= self._arena
        chosen: list[int] = found[ours if backed is None else ours & backed].tolist()
        return chosen

    def _read(self, cpu: Cpu, address: int) -> Words:
        return self._memory.gather(_slots(cpu, address), format_of(cpu).entry_bytes)[0].copy()


def _array(addresses: Iterable[int]) -> Words:
    return np.array(sorted(addresses), np.uint64)


def _slots(cpu: Cpu, address: int) -> Words:
    offsets = np.arange(
        0, format_of(cpu).table_bytes(0), format_of(cpu).entry_bytes, dtype=np.uint64
    )
    return np.uint64(address) + offsets
