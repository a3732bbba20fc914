"""Guest memory that an emulator keeps to itself, copied both ways.

It lies in the emulator's process, in blocks that may be anywhere, and is read and written through
/proc/PID/mem.  Whenever the guest begins to work it is given what this process wrote since the last
copy, and when it has finished this process takes what the guest wrote.  Where both wrote, each
keeps the words that only the other left alone.  That takes some 0.1 s a batch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.ram import Ram

PAGE: Final = 4096
"""Bytes that are copied or not, as the kernel keeps account of them."""

AT_ONCE: Final = 2048
"""Pages that are compared at once."""

PRESENT: Final = np.uint64(3 << 62)
"""In an entry of /proc/PID/pagemap: the page is in memory, or swapped out.  Others hold zeros."""

Numbers = npt.NDArray[np.int64]


class CopiedMemory:
    """The memory of a guest in the process `pid`, and `ram` as this process's copy of it.

    places       where each block begins in that process, -1 for one that is no memory
    block_bytes  of each, a multiple of `PAGE`

    Raises OSError where the process has ended, or its memory is kept from this one.
    """

    def __init__(self, pid: int, ram: Ram, places: Numbers, block_bytes: int) -> None:
        pages = np.arange(ram.size // PAGE)
        block, within = np.divmod(pages * PAGE, block_bytes)
        self._place = np.where(places[block] < 0, -1, places[block] + within)
        self._ours = ram
        self._pid = pid
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._last = Ram(ram.size)  # what both held after the last copy

    def close(self) -> None:
        """Give back what it takes."""
        os.close(self._memory)
        self._last.close()

    def give(self) -> None:
        """Copy to the guest what this process wrote."""
        held = np.union1d(_held(self._ours), _held(self._last))
        ours, last = _pages(self._ours), _pages(self._last)
        for some in _parts(held[self._place[held] >= 0]):
            changed = some[(ours[some] != last[some]).any(axis=1)]
            for run in self._runs(changed):
                self._write(int(self._place[run[0]]), ours[run].tobytes())
            last[changed] = ours[changed]

    def take(self) -> None:
        """Copy to this process what the guest wrote."""
        ours, last = _pages(self._ours), _pages(self._last)
        for some in _parts(self._touched()):
            theirs = np.concatenate([self._read(run) for run in self._runs(some)])
            changed = theirs != last[some]
            pages = changed.any(axis=1)
            some, theirs, changed = some[pages], theirs[pages], changed[pages]
            ours[some] = np.where(changed, theirs, ours[some])
            last[some] = theirs

    def poke(self, address: int, word: int) -> None:
        """Write 4 bytes of the guest's alone."""
        page, within = divmod(address, PAGE)
        self._write(int(self._place[page]) + within, word.to_bytes(4, "little"))

    def _touched(self) -> Numbers:
        """The pages that the guest's memory has in its process."""
        there = np.flatnonzero(self._place >= 0)
        with open(f"/proc/{self._pid}/pagemap", "rb", buffering=0) as file:
            found = [run[in_memory(file.fileno(), self._place[run])] for run in self._runs(there)]
        return np.concatenate(found)

    def _runs(self, pages: Numbers) -> Iterator[Numbers]:
        """Pages in pieces that lie one after the other in the process."""
        cuts = np.flatnonzero(np.diff(self._place[pages]) != PAGE) + 1
        yield from (run for run in np.split(pages, cuts) if len(run))

    def _read(self, run: Numbers) -> npt.NDArray[np.uint64]:
        size = len(run) * PAGE
        content = os.pread(self._memory, size, int(self._place[run[0]]))
        if len(content) != size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return np.frombuffer(content, np.uint64).reshape(len(run), -1)

    def _write(self, place: int, content: bytes) -> None:
        if os.pwrite(self._memory, content, place) != len(content):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def last_words(pid: int) -> Iterator[tuple[Numbers, npt.NDArray[np.uint32]]]:
    """The last words of all pages that a process could write to and shares with none: where each
    such page ends, and the word.  Raises OSError as `CopiedMemory` does."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights == "rw-p":
                first, past = (int(edge, 16) for edge in span.split("-"))
                places = np.arange(first, past, PAGE)
                ends = places[in_memory(pagemap, places)] + PAGE
                words = b"".join(os.pread(memory, 4, int(end) - 4) for end in ends)
                yield ends, np.frombuffer(words, np.uint32)
    finally:
        os.close(pagemap)
        os.close(memory)


def in_memory(pagemap: int, places: Numbers) -> npt.NDArray[np.bool_]:
    """Which pages, one after the other, a process has, by its /proc/PID/pagemap."""
    entries = os.pread(pagemap, 8 * len(places), int(places[0]) // PAGE * 8)
    there: npt.NDArray[np.bool_] = np.frombuffer(entries, np.uint64) & PRESENT != 0
    return there


def _held(ram: Ram) -> Numbers:
    """The pages that take memory: all others hold zeros."""
    found, end = [np.empty(0, np.int64)], 0
    while end < ram.size:
        try:
            first = os.lseek(ram.fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(ram.fd, first, os.SEEK_HOLE)
        found.append(np.arange(first // PAGE, -(-end // PAGE)))
    return np.concatenate(found)


def _pages(ram: Ram) -> npt.NDArray[np.uint64]:
    """The words of each page, in place."""
    return ram.buffer.view(np.uint64).reshape(-1, PAGE // 8)


def _parts(pages: Numbers) -> Iterator[Numbers]:
    yield from (pages[first : first + AT_ONCE] for first in range(0, len(pages), AT_ONCE))
