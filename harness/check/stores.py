"""What the tables of spaces hold, so that stores show which no operation has noted.

Code that is no part of the library stores into tables as it likes.  All tables are kept as they
were; what they hold otherwise now was stored since.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def parts_of(format: Format, tables: bulk.Tables) -> bulk.Tables:
    """Tables cut to the size of those at level 0, where others are larger."""
    size = format.table_bytes(0)
    parts = [
        (
            np.add.outer(tables.address[here], np.arange(0, whole, size, dtype=np.uint64)).ravel(),
            level,
            np.repeat(tables.paths[here], len(range(0, whole, size))),
        )
        for level in range(len(format.levels))
        for here, whole in [(tables.level == level, format.table_bytes(level))]
    ]
    return bulk.Tables(
        np.concatenate([address for address, _, _ in parts]),
        np.concatenate([np.full(len(address), level, np.uint8) for address, level, _ in parts]),
        np.concatenate([paths for _, _, paths in parts]),
    )


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
        self._slots = self._words = np.empty((0, 0), np.uint64)  # shape (tables, entries)
        self._in_use = none = np.empty(0, np.uint64)
        self._parts = bulk.Tables(none, none.astype(np.uint8), none.astype(np.int64))
        self._frames = dict[int, Words]()
        self._loaded: tuple[Root, ...] = ()

    def learn(self, cpu: Cpu) -> None:
        """The tables of the loaded space are known from now on, as they are."""
        self._find(cpu)
        self._take_new(cpu)

    def hold_frames(self, cpu: Cpu, addresses: Words) -> None:
        """Keeps what frames hold that are no tables yet, and may be later."""
        size = np.uint64(format_of(cpu).table_bytes(0))
        frames = distinct(addresses & ~(size - np.uint64(1)))
        self._frames.update(zip(frames.tolist(), self._read(cpu, _slots(cpu, frames)), strict=True))

    def in_use(self, cpu: Cpu, addresses: Words) -> Mask:
        """Which addresses lie in tables of the loaded space."""
        size = np.uint64(format_of(cpu).table_bytes(0))
        return self._are_in_use(addresses & ~(size - np.uint64(1)))

    def changed(self, cpu: Cpu, *, whole: bool) -> Stores:
        """What was stored since the last time.

        cpu    the state in which the loaded space is used
        whole  of tables that are new all words, not those alone that differ from what was there
        """
        parts = self._differing(cpu)
        if cpu.roots != self._loaded or any(self._leads_elsewhere(cpu, part) for part in parts):
            self._find(cpu)
            for address, slots, words in self._take_new(cpu):
                before = self._frames.get(address, words)
                new = np.flatnonzero((words != before) | whole)
                parts.append(Stores(slots[new], before[new], np.zeros(len(new), np.bool_)))
        return Stores(
            np.concatenate([np.empty(0, np.uint64), *(part.addresses for part in parts)]),
            np.concatenate([np.empty(0, np.uint64), *(part.before for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.in_use for part in parts)]),
        )

    def _differing(self, cpu: Cpu) -> list[Stores]:
        """What known tables hold otherwise now, table by table."""
        before, self._words = self._words, self._read(cpu, self._slots)
        different = self._words != before
        rows = np.flatnonzero(different.any(axis=1))
        in_use = self._are_in_use(self._slots[rows, :1].ravel())
        found = []
        for row, used in zip(rows.tolist(), in_use.tolist(), strict=True):
            where = np.flatnonzero(different[row])
            slots = self._slots[row, where]
            found.append(Stores(slots, before[row, where], np.full(len(where), used)))
        return found

    def _take_new(self, cpu: Cpu) -> Iterator[tuple[int, Words, Words]]:
        """Knows the tables of the loaded space that were not known: the address of each, its slots
        and what they hold."""
        new = self._in_use[~np.isin(self._in_use, self._slots[:, :1])]
        if not len(new):
            return iter(())
        slots = _slots(cpu, new)
        words = self._read(cpu, slots)
        first = not len(self._slots)
        self._slots = slots if first else np.concatenate([self._slots, slots])
        self._words = words if first else np.concatenate([self._words, words])
        return zip(new.tolist(), slots, words, strict=True)

    def _are_in_use(self, tables: Words) -> Mask:
        """Which tables are those of the loaded space, by their addresses."""
        if not len(self._in_use):
            return np.zeros(len(tables), np.bool_)
        found = self._in_use.searchsorted(tables)
        same: Mask = self._in_use.take(found, mode="clip") == tables
        return same

    def _leads_elsewhere(self, cpu: Cpu, stores: Stores) -> bool:
        """Whether other tables may be in use after stores to one."""
        format = format_of(cpu)
        table = int(stores.addresses[0]) & -format.table_bytes(0)
        now, _ = self._memory.gather(stores.addresses, format.entry_bytes)
        levels = self._parts.level[self._parts.address == np.uint64(table)]
        return any(
            (_tables_below(format, level, now) != _tables_below(format, level, stores.before)).any()
            for level in levels[levels > 0].tolist()
        )

    def _find(self, cpu: Cpu) -> None:
        """Finds the tables of the loaded space that lie outside the arena, but not those outside
        memory."""
        tables = bulk.leaves(self._memory, cpu.roots, limit=0).tables
        self._parts = parts_of(format_of(cpu), tables)
        found = distinct(self._parts.address)
        _, backed = self._memory.gather(found, format_of(cpu).entry_bytes)
        ours = found >= self._arena
        self._in_use = found[ours if backed is None else ours & backed]
        self._loaded = cpu.roots

    def _read(self, cpu: Cpu, slots: Words) -> Words:
        """What slots of tables hold, in the shape of these; (tables, entries)."""
        words, _ = self._memory.gather(slots.ravel(), format_of(cpu).entry_bytes)
        return words.reshape(slots.shape)


def _tables_below(format: Format, level: int, raw: Words) -> Words:
    """Where entries lead that are pointers, and ones where they are none."""
    shape = format.levels[level].pointer
    if shape is None:
        return np.full_like(raw, ~np.uint64(0))
    points = bulk.kinds(format, level, raw) == bulk.POINTER
    return np.where(points, bulk.address_of(shape, raw), ~np.uint64(0))


def _slots(cpu: Cpu, tables: Words) -> Words:
    """The addresses of the slots of tables, shape (tables, entries)."""
    format = format_of(cpu)
    offsets = np.arange(0, format.table_bytes(0), format.entry_bytes, dtype=np.uint64)
    return tables[:, np.newaxis] + offsets
