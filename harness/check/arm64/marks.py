"""The code that names the frame in which it is, as marks do."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.check.marks import mark
from harness.paging.memory import BufferMemory, Words

CODE: Final = 16
"""Offset in a page of the code that a fetch executes: `movz x0; movk x0; svc`."""

CODE_BYTES: Final = 12
"""The size of that code."""

_MOVZ_X0: Final = np.uint64(0xD280_0000)
_MOVK_X0: Final = np.uint64(0xF2A0_0000)
_SVC: Final = np.uint64(0xD400_0001)
_HALF: Final = np.uint64(0xFFFF)
_LOW: Final = np.uint64(0xFFFF_FFFF)


def code_mark(physical: Words) -> Words:
    """What x0 holds after the code at a physical address: 32 bits."""
    return mark(physical) & _LOW


def put_code(memory: BufferMemory, physical: Words) -> None:
    """Puts code at physical addresses, multiples of 4, that loads the mark of its own address."""
    value = code_mark(physical)
    words = (
        _MOVZ_X0 | (value & _HALF) << np.uint64(5),
        _MOVK_X0 | (value >> np.uint64(16)) << np.uint64(5),
        np.full(len(physical), _SVC, np.uint64),
    )
    for number, word in enumerate(words):
        memory.scatter(physical + np.uint64(4 * number), 4, word)
