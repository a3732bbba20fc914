"""Guest memory that this process shares, and how it is divided.

    0      ┌─────────────────────────────────────────────────┐
           │ ARENA: the machine's own                        │
    1 MiB  │   the stub, inside STUB                         │
    4 MiB  │   TABLE_ARENA: the caller's entry and window    │
           │   tables                                        │
    8 MiB  │   JOB_ARENA: jobs and results, in two halves    │
    32 MiB ├─────────────────────────────────────────────────┤
           │ the tested tables and frames                    │
    size   └─────────────────────────────────────────────────┘

The memory is an anonymous file: it has no name, needs no /dev/shm, and is gone with the last
process that holds it.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.errors import Misuse

MIB: Final = 1 << 20

STUB: Final = range(1 * MIB, 2 * MIB)
TABLE_ARENA: Final = range(4 * MIB, 8 * MIB)
JOB_ARENA: Final = range(8 * MIB, 32 * MIB)
ARENA: Final = range(0, 32 * MIB)
"""What belongs to the machine; everything above is the caller's."""

LARGEST_RAM: Final = 3 << 30
"""Bytes: up to here microvm maps RAM in one piece; its devices lie above."""
RAM_UNIT: Final = 2 * MIB
"""RAM is a multiple of this, so that a window can map all of it in large pages."""


class Ram:
    """The RAM of one guest: `size` bytes from physical address 0, zero at first.

    `fd` is the file that QEMU maps too, `buffer` the bytes as a writable array of uint8. Raises
    `Misuse` for a size that no guest can have.
    """

    def __init__(self, size: int) -> None:
        if not ARENA.stop < size <= LARGEST_RAM or size % RAM_UNIT:
            raise Misuse(
                f"{size} bytes of RAM: the machine needs more than {ARENA.stop}, at most "
                f"{LARGEST_RAM}, and a multiple of {RAM_UNIT}; choose such a size"
            )
        self.size = size
        self.fd = os.memfd_create("guest-ram")
        try:
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self.buffer: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self._closed = False

    def view(self, span: range, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """The whole structures of `dtype` that fit in `span`, in place."""
        count = len(span) // dtype.itemsize
        return self.buffer[span.start : span.start + count * dtype.itemsize].view(dtype)

    def close(self) -> None:
        """Give the memory back. Arrays that still look into it keep it until they go, too."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)
            self.buffer = np.empty(0, dtype=np.uint8)
            del self._map
