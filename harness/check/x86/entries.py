"""What accesses leave in the entries of their paths.

An access that is made sets A in every entry that it used, and a write sets D in the last of them.
One that faults sets nothing, but that A above the entry at which its walk ended is the machine's
choice (SDM volume 3A, 4.8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.paging.bulk import Bytes, Paths
from harness.paging.format import Format
from harness.paging.memory import Mask, Words
from harness.paging.x86.bulk import writes

ALL = ~np.uint64(0)
"""Every bit of an entry."""


@dataclass(frozen=True)
class PathEntries:
    """The entries of paths, one path a lane, and what may become of them; shape (levels, n).

    before  each entry before the access
    sets    the bits that are set if the access is made
    last    A, in the entry at which the walk ends
    free    the bits that may be set though the access is not made
    """

    before: Words
    sets: Words
    last: Words
    free: Words

    @classmethod
    def of(
        cls, format: Format, before: Words, used: Mask, ended: Bytes, kind: Bytes
    ) -> PathEntries:
        """Those of walks that end at the levels `ended`, for accesses of a `Kind`.

        used  which entries the walks read; shape (levels, n)
        """
        accessed, dirty = np.uint64(format.accessed), np.uint64(format.dirty)
        levels = np.arange(len(before), dtype=np.uint8)[:, np.newaxis]
        last = used & (levels == ended)
        sets = used * accessed | (last & writes(kind)) * dirty
        return cls(before, sets, last * accessed, (used & (levels > ended)) * accessed)

    @classmethod
    def of_paths(cls, format: Format, paths: Paths, ended: Bytes, kind: Bytes) -> PathEntries:
        """The same where a path may come by one slot at several levels: it is one entry."""
        entries = cls.of(format, paths.raw, paths.used, ended, kind)
        for high in range(len(paths.slot)):
            for low in range(high):
                same = paths.used[high] & paths.used[low] & (paths.slot[high] == paths.slot[low])
                for bits in (entries.sets, entries.last, entries.free):
                    bits[high, same] = bits[low, same] = bits[high, same] | bits[low, same]
        return entries

    def after(self, made: Mask, accessed_anyway: Mask | None = None) -> Words:
        """Each entry after the access, with no more set than must be.

        made             whether the access is made
        accessed_anyway  whether, though it is not, A is set in the entry at which the walk ends
        """
        after = self.before | made * self.sets
        return after if accessed_anyway is None else after | accessed_anyway * self.last

    def agree(
        self, results: npt.NDArray[np.void], made: Mask, after: Words, care: Words | np.uint64 = ALL
    ) -> Mask:
        """Whether the guest, which watches each path from the root down, saw it left so.

        after  each entry, with no more set than must be
        care   the bits of each entry that are compared
        """
        wrong, denied, levels = np.zeros(len(made), np.uint64), ~made, len(after)
        care = np.broadcast_to(care, after.shape)
        for level, least in enumerate(after):
            found = results["after"][:, levels - 1 - level]
            wrong |= (found ^ least) & (least | ~(denied * self.free[level])) & care[level]
        agree: Mask = wrong == 0
        return agree
