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
    4 GiB  ┌─────────────────────────────────────────────────┐
           │ HIGH: more of the caller's, where it is asked   │
           │ for; no window shows it to the stub             │
           └─────────────────────────────────────────────────┘

So it is on x86; elsewhere RAM begins at another address, the stub at its beginning, and there is
no HIGH.

The memory is an anonymous file: it has no name, needs no /dev/shm, and is gone with the last
process that holds it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.descriptors import anonymous_file
from harness.machine.errors import Misuse

MIB: Final = 1 << 20

STUB: Final = range(1 * MIB, 2 * MIB)
TABLE_ARENA: Final = range(4 * MIB, 8 * MIB)
JOB_ARENA: Final = range(8 * MIB, 32 * MIB)
ARENA: Final = range(0, 32 * MIB)
"""What belongs to the machine; everything above is the caller's. It lies at 0 unless the stub is
moved, with all of it: then the caller's is what lies below and above."""
ARENA_UNIT: Final = 4 * MIB
"""To a multiple of this it can be moved: the largest page of a window, of which each is all the
stub's or none."""

DEVICES: Final = range(0xA0000, 1 * MIB)
"""Where a PC has devices and ROMs, and guests of different emulators have different memory: it is
nobody's."""

LARGEST_RAM: Final = 3 << 30
"""Bytes: up to here microvm maps RAM in one piece; its devices lie above."""
HIGH: Final = range(4 << 30, 1 << 40)
"""Where RAM goes on above the devices, up to the end of what 40 bits of address reach."""
RAM_UNIT: Final = 2 * MIB
"""RAM is a multiple of this, so that a window can map all of it in large pages."""


def beside(arena: range, size: int) -> tuple[range, ...]:
    """What is the caller's of `size` bytes of memory with an arena in it."""
    below = range(DEVICES.start), range(DEVICES.stop, arena.start)
    above = range(arena.stop, size)
    return tuple(part for part in ((*below, above) if arena.start else (above,)) if part)


def around(arena: range, ram: range) -> tuple[range, ...]:
    """What is the caller's of RAM without devices in it, with an arena in it."""
    return tuple(filter(None, (range(ram.start, arena.start), range(arena.stop, ram.stop))))


def spans(parts: Iterable[range]) -> str:
    """Parts of memory, for people."""
    return " and ".join(f"{part.start:#x}..{part.stop - 1:#x}" for part in parts)


class Ram:
    """The RAM of one guest: `size` bytes from the physical address `base` on, zero at first.

    `fd` is the file that QEMU maps too, `buffer` the bytes as a writable array of uint8. Behind
    `LARGEST_RAM`, `high_bytes` more lie from the start of `HIGH` on: `high` holds them. Only what
    is written to takes memory, but QEMU keeps notes of each page: 100 MB of them for all of `HIGH`.
    Raises `Misuse` for a size that no guest can have.
    """

    def __init__(self, size: int, high_bytes: int = 0, base: int = 0) -> None:
        if not ARENA.stop < size <= LARGEST_RAM or size % RAM_UNIT:
            raise Misuse(
                f"{size} bytes of RAM: the machine needs more than {ARENA.stop}, at most "
                f"{LARGEST_RAM}, and a multiple of {RAM_UNIT}; choose such a size"
            )
        if high_bytes and (
            size != LARGEST_RAM or not 0 < high_bytes <= len(HIGH) or high_bytes % RAM_UNIT
        ):
            raise Misuse(
                f"{high_bytes} bytes of RAM from {HIGH.start:#x} on: it has at most {len(HIGH)}, a "
                f"multiple of {RAM_UNIT}, and {LARGEST_RAM} below, not {size}; choose such sizes"
            )
        self.base, self.size = base, size
        self.total = size + high_bytes
        self.fd = anonymous_file("guest-ram")
        try:
            os.ftruncate(self.fd, self.total)
            self._map = mmap.mmap(self.fd, self.total)
        except BaseException:
            os.close(self.fd)
            raise
        octets: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.buffer, self.high = octets[:size], octets[size:]
        self._closed = False

    def view(self, span: range, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """The whole structures of `dtype` that fit in `span`, in place."""
        count = len(span) // dtype.itemsize
        first = span.start - self.base
        return self.buffer[first : first + count * dtype.itemsize].view(dtype)

    def clear(self, span: range) -> None:
        """Have whole pages hold zeros, and take no memory until they are written to."""
        self._map.madvise(mmap.MADV_REMOVE, span.start - self.base, len(span))

    def close(self) -> None:
        """Give the memory back. Arrays that still look into it keep it until they go, too."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)
            self.buffer = self.high = np.empty(0, dtype=np.uint8)
            del self._map
