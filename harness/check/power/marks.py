"""The code that names the frame in which it is, as marks do."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.check.marks import mark
from harness.paging.memory import BufferMemory, Words

CODE: Final = 16
"""Offset in a page of the code that a fetch executes: `lis r3; ori r3, r3; sc`."""

CODE_BYTES: Final = 12
"""The size of that code."""

_LIS_R3: Final = np.uint64(0x3C60_0000)
_ORI_R3: Final = np.uint64(0x6063_0000)
_SC: Final = np.uint64(0x4400_0002)
_HALF: Final = np.uint64(0xFFFF)
_LOW: Final = np.uint64(0x7FFF_FFFF)


def code_mark(physical: Words) -> Words:
    """What r3 holds after the code at a physical address: 31 bits, since lis extends the sign."""
    return mark(physical) & _LOW


def put_code(memory: BufferMemory, physical: Words) -> None:
    """Puts code at physical addresses, multiples of 4, that loads the mark of its own address."""
    value = code_mark(physical)
    words = (
        _LIS_R3 | value >> np.uint64(16),
        _ORI_R3 | value & _HALF,
        np.full(len(physical), _SC, np.uint64),
    )
    for number, word in enumerate(words):
        memory.scatter(physical + np.uint64(4 * number), 4, word)
