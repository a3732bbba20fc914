"""Seconds in which a process could work: the clock of deadlines on a machine that is busy.

Where more threads want to run than there are processors, each waits for one most of the time, and
a deadline on the wall's clock would end what makes progress. The kernel counts these waits for each
thread (/proc/PID/task/TID/schedstat, second number, nanoseconds), and this clock stands still
meanwhile. It goes on where a process hangs or sleeps, since that is no wait for a processor.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Final

FRESH: Final = 0.05
"""Seconds for which the counts that were read last will do: reading them takes some 0.1 ms."""


class Clock:
    """A clock that stands still while the process `pid`, or the thread that reads the clock, waits
    for a processor. Of a process that cannot be seen it counts every second (pid 0: of none)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seconds = 0.0
        self._read = time.monotonic()
        self._waits = waits(pid)

    def now(self) -> float:
        """Seconds since the clock was made."""
        now = time.monotonic()
        elapsed = now - self._read
        if elapsed < FRESH:
            return self._seconds + elapsed
        before, self._waits, self._read = self._waits, waits(self._pid), now
        longest = max((wait - before.get(name, 0) for name, wait in self._waits.items()), default=0)
        self._seconds += max(0.0, elapsed - longest / 1e9)
        return self._seconds


def waits(pid: int) -> Mapping[str, int]:
    """How long each thread of a process, and this thread, has waited for a processor so far, in
    nanoseconds; those that can be seen."""
    found = {}
    for thread in (f"/proc/self/task/{threading.get_native_id()}", *_threads(pid)):
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            open(f"{thread}/schedstat") as file,
        ):
            found[thread] = int(file.read().split()[1])
    return found


def _threads(pid: int) -> list[str]:
    tasks = f"/proc/{pid}/task"
    try:
        return [f"{tasks}/{name}" for name in os.listdir(tasks)] if pid else []
    except OSError:
        return []
