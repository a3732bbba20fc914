"""The locks of tables, and the one order in which they are taken.

A table at the lowest `SPLIT_LEVELS` levels has a lock of its own; one more, that of the
space, stands for all tables above.  A lock guards the entries of its table: who changes one
holds it, and looks again at what was read without it.  Reading needs no lock.

The order: the space's lock before those of its tables, an upper level before a lower one,
within a level the lower physical address first.  It is the same across spaces, so `held` may
be given locks of two.  Memory is never allocated under a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import TracebackType

from harness.paging.table import Table

SPLIT_LEVELS = 2
"""How many levels, from 0 up, have a lock for each table."""


class TableLock:
    """The lock of one table, or of all tables of a space above the split levels.

    rank  its place in the order; locks are taken with their ranks ascending
    """

    __slots__ = ("_lock", "rank")

    def __init__(self, table: Table) -> None:
        self.rank = (-table.level, table.address)
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


@contextmanager
def held(locks: Iterable[TableLock]) -> Iterator[None]:
    """All the locks, each once, taken in the order."""
    taken: list[TableLock] = []
    try:
        for lock in sorted(set(locks), key=lambda lock: lock.rank):
            lock.__enter__()
            taken.append(lock)
        yield
    finally:
        for lock in reversed(taken):
            lock.__exit__(None, None, None)
