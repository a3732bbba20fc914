"""Bytes of a file, or of what a file holds in another form, read when they are asked for and once
each."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import partial
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
    """`size` bytes that are `path`'s, or are made of it, which `fill` reads into an array from a
    place on.

    octets  the bytes, those that were not asked for zero
    data    from where on, at a place or behind it, there may be other bytes than zeros

    Raises SourceError where there is none, or are more than can be held.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        fill: Callable[[npt.NDArray[np.uint8], int], None],
        data: Callable[[int], int] = lambda place: place,
    ) -> None:
        self.path = path
        self.data = data
        if not size:
            raise SourceError(f"{path} is empty: it holds no memory")
        try:
            self.octets: npt.NDArray[np.uint8] = np.frombuffer(_zeros(size), np.uint8)
            self._held = np.zeros((size - 1 >> _SHIFT) + 1, np.bool_)
        except (OSError, OverflowError, MemoryError):
            raise _unread(path, "File too large") from None
        self._fill = fill

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """The content of a file; raises SourceError where it cannot be read, or has no end."""
        try:
            file = OpenFile(path)
            if path.is_dir():
                raise IsADirectoryError(0, "Is a directory")
            if not (path.is_file() or path.is_block_device()):
                raise OSError(0, "it is no file that has an end")
            size = os.lseek(file.number, 0, os.SEEK_END)
        except OSError as error:
            raise _unread(path, error.strerror) from None
        return cls(path, size, partial(_fill, path, file, size), file.data)

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

    def glance(self, first: int, size: int) -> bytearray:
        """As `part`, of what is looked at here and there and once: it is not kept."""
        octets = bytearray(max(0, min(size, len(self) - first)))
        if octets:
            self._fill(np.frombuffer(octets, np.uint8), first)
        return octets

    def exactly(self, first: int, size: int, what: str) -> bytes:
        """As `glance`, of what the file has to have; raises SourceError where it ends before that.

        what  it is that reaches beyond the end, in the plural
        """
        octets = self.glance(first, size)
        if len(octets) < size:
            raise self.cut(first + size, what)
        return bytes(octets)

    def cut(self, past: int, what: str) -> SourceError:
        """That the file ends before something that reaches to a place."""
        return SourceError(
            f"{self.path} is cut short: it has {len(self):,} bytes, and its {what} reach to"
            f" {past:,}"
        )

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
            self._fill(self.octets[first : int(run[-1]) + 1 << _SHIFT], first)
        self._held[new] = True


def _fill(path: Path, file: OpenFile, size: int, octets: npt.NDArray[np.uint8], first: int) -> None:
    """Reads into these bytes what a file of `size` bytes has from `first` on."""
    try:
        done = file.fill(octets, first)
    except OSError as error:
        raise _unread(path, error.strerror) from None
    if done < len(octets):
        raise SourceError(
            f"{path} was cut short while it was read: it had {size:,} bytes, and now ends at"
            f" {first + done:,}"
        )


def _unread(path: Path, why: str | None) -> SourceError:
    return SourceError(f"{path} cannot be read: {why}")


def _zeros(size: int) -> mmap.mmap:
    """Memory that is there once it is written to, however large; raises OSError where it cannot
    be, and OverflowError."""
    file = os.memfd_create("content")
    try:
        os.ftruncate(file, size)
        return mmap.mmap(file, size)
    finally:
        os.close(file)
