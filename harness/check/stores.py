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
        self._tables = dict[int, Words]()
        self._in_use, self._levels = set[int](), dict[int, list[int]]()
        self._frames = dict[int, Words]()
        self._loaded: tuple[Root, ...] = ()

    def learn(self, cpu: Cpu) -> None:
        """The tables of the loaded space are known from now on, as they are."""
        self._find(cpu)
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
        if cpu.roots != self._loaded or any(self._leads_elsewhere(cpu, part) for part in parts):
            self._find(cpu)
            for address in sorted(self._in_use - self._tables.keys()):
                words = self._tables[address] = self._read(cpu, address)
                before = self._frames.get(address, words)
                new = np.flatnonzero((words != before) | whole)
                slots = _slots(cpu, address)[new]
                parts.append(Stores(slots, before[new], np.zeros(len(new), np.bool_)))
        return Stores(
            np.concatenate([np.empty(0, np.uint64), *(part.addresses for part in parts)]),
            np.concatenate([np.empty(0, np.uint64), *(part.before for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.in_use for part in parts)]),
        )

    def _differing(self, cpu: Cpu) -> Iterator[Stores]:
        """What known tables hold otherwise now, table by table."""
        if not self._tables:
            return
        slots = np.stack([_slots(cpu, address) for address in self._tables])
        words, _ = self._memory.gather(slots.ravel(), format_of(cpu).entry_bytes)
        rows, before = words.reshape(slots.shape), np.stack(list(self._tables.values()))
        known = list(self._tables)
        for row in np.flatnonzero((rows != before).any(axis=1)).tolist():
            address, different = known[row], np.flatnonzero(rows[row] != before[row])
            self._tables[address] = rows[row].copy()
            in_use = np.full(len(different), address in self._in_use)
            yield Stores(slots[row, different], before[row, different], in_use)

    def _leads_elsewhere(self, cpu: Cpu, stores: Stores) -> bool:
        """Whether other tables may be in use after stores to one."""
        format = format_of(cpu)
        table = int(stores.addresses[0]) & -format.table_bytes(0)
        now, _ = self._memory.gather(stores.addresses, format.entry_bytes)
        return any(
            (_tables_below(format, level, now) != _tables_below(format, level, stores.before)).any()
            for level in self._levels.get(table, ())
        )

    def _find(self, cpu: Cpu) -> None:
        """Finds the tables of the loaded space that lie outside the arena, but not those outside
        memory; and the levels above 0 at which each of them is."""
        parts = parts_of(format_of(cpu), bulk.leaves(self._memory, cpu.roots, limit=0).tables)
        found = distinct(parts.address)
        _, backed = self._memory.gather(found, format_of(cpu).entry_bytes)
        ours = found >= self._arena
        self._in_use = set(found[ours if backed is None else ours & backed].tolist())
        self._levels = dict[int, list[int]]()
        for address, level in zip(parts.address.tolist(), parts.level.tolist(), strict=True):
            if level and address in self._in_use:
                self._levels.setdefault(address, []).append(level)
        self._loaded = cpu.roots

    def _read(self, cpu: Cpu, address: int) -> Words:
        return self._memory.gather(_slots(cpu, address), format_of(cpu).entry_bytes)[0].copy()


def _tables_below(format: Format, level: int, raw: Words) -> Words:
    """Where entries lead that are pointers, and ones where they are none."""
    shape = format.levels[level].pointer
    if shape is None:
        return np.full_like(raw, ~np.uint64(0))
    points = bulk.kinds(format, level, raw) == bulk.POINTER
    return np.where(points, bulk.address_of(shape, raw), ~np.uint64(0))


def _array(addresses: Iterable[int]) -> Words:
    return np.array(sorted(addresses), np.uint64)


def _slots(cpu: Cpu, address: int) -> Words:
    offsets = np.arange(
        0, format_of(cpu).table_bytes(0), format_of(cpu).entry_bytes, dtype=np.uint64
    )
    return np.uint64(address) + offsets
