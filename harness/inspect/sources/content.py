"""The bytes of a file, read when they are asked for and once each."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.inspect.snapshot import SourceError
from harness.machine.openfile import OpenFile
from harness.paging.memory import Words

_SHIFT: Final = 12
"""log2 of the bytes that are read together: what a file system reads at least."""


class Content:
    """The content of the file at `path`.

    octets  as many bytes as the file has, those that were not asked for zero

    Raises SourceError where it cannot be read or is empty.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._file = OpenFile(path)
            if path.is_dir():
                raise IsADirectoryError(0, "Is a directory")
            if not (path.is_file() or path.is_block_device()):
                raise OSError(0, "it is no file that has an end")
            size = os.lseek(self._file.number, 0, os.SEEK_END)
            if not size:
                raise SourceError(f"{path} is empty: it holds no memory")
            self.octets: npt.NDArray[np.uint8] = np.frombuffer(_zeros(size), np.uint8)
            self._held = np.zeros((size - 1 >> _SHIFT) + 1, np.bool_)
        except OSError as error:
            raise self._unread(error.strerror) from None
        except (OverflowError, MemoryError):
            raise self._unread("File too large") from None

    def __len__(self) -> int:
        return len(self.octets)

    def part(self, first: int, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes from `first` on, or as many as there are.

        Raises SourceError where they can no longer be read.
        """
        part = self.octets[first : first + size]
        if len(part):
            self._read(np.arange(first >> _SHIFT, (first + len(part) - 1 >> _SHIFT) + 1))
        return part

    def ask(self, places: Words) -> None:
        """Has the bytes at these places read; raises as `part`."""
        units = (places >> np.uint64(_SHIFT)).view(np.int64)
        self._read(units)

    def _read(self, units: npt.NDArray[np.int64]) -> None:
        held = self._held[units]
        if held.all():
            return
        new = np.unique(units[~held])
        starts = np.flatnonzero(np.diff(new, prepend=-2) != 1)
        for run in np.split(new, starts[1:]):
            first = int(run[0]) << _SHIFT
            self._fill(first, self.octets[first : int(run[-1]) + 1 << _SHIFT])
        self._held[new] = True

    def _fill(self, first: int, octets: npt.NDArray[np.uint8]) -> None:
        """Reads into these bytes what the file has from `first` on."""
        try:
            done = self._file.fill(octets, first)
        except OSError as error:
            raise self._unread(error.strerror) from None
        if done < len(octets):
            raise SourceError(
                f"{self._path} was cut short while it was read: it had {len(self):,} bytes, and"
                f" now ends at {first + done:,}"
            )

    def _unread(self, why: str | None) -> SourceError:
        return SourceError(f"{self._path} cannot be read: {why}")


def _zeros(size: int) -> mmap.mmap:
    """Memory that is there once it is written to, however large; raises OSError where it cannot
    be, and OverflowError."""
    file = os.memfd_create("content")
    try:
        os.ftruncate(file, size)
        return mmap.mmap(file, size)
    finally:
        os.close(file)
