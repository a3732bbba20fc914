"""Bytes that lie in pieces: of files, of a file that holds them in another order, or compressed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from harness.paging.memory import Words


class Pieces:
    """Bytes in pieces, a later one of which hides what an earlier one has at the same place.

    start, size  of each, in bytes
    read         some bytes of a piece: its number, the first of them and how many
    ahead        from where on a piece may have other bytes than zeros: its number, and a place in
                 it at which or behind which that is
    """

    def __init__(
        self,
        start: Words,
        size: Words,
        read: Callable[[int, int, int], npt.NDArray[np.uint8]],
        ahead: Callable[[int, int], int] = lambda _, place: place,
    ) -> None:
        self._order = np.argsort(start, kind="stable")
        self._start = start[self._order]
        self._past = self._start + size[self._order]
        self._reach = np.maximum.accumulate(self._past)
        self._read = read
        self._ahead = ahead

    @property
    def size(self) -> int:
        """Bytes up to the end of the last; beyond what `len` can say, where a piece lies there."""
        return int(self._reach[-1]) if len(self._reach) else 0

    def data(self, place: int) -> int:
        """From where on, at a place or behind it, there may be other bytes than zeros, where no
        piece hides another."""
        at = int(np.searchsorted(self._start, np.uint64(place), side="right")) - 1
        if at < 0 or place >= self._past[at]:
            return place
        start = int(self._start[at])
        return min(start + self._ahead(int(self._order[at]), place - start), int(self._past[at]))

    def fill(self, octets: npt.NDArray[np.uint8], first: int) -> None:
        """Reads into these bytes what the pieces have from `first` on."""
        past = first + len(octets)
        low = np.searchsorted(self._reach, np.uint64(first), side="right")
        high = np.searchsorted(self._start, np.uint64(past), side="left")
        places = low + np.flatnonzero(self._past[low:high] > np.uint64(first))
        for place in sorted(places.tolist(), key=self._order.__getitem__):
            start, end = int(self._start[place]), int(self._past[place])
            begin, stop = max(first, start), min(past, end)
            number = int(self._order[place])
            octets[begin - first : stop - first] = self._read(number, begin - start, stop - begin)
