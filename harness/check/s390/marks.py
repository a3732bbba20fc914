"""The code that names the frame in which it is, as marks do."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.check.marks import mark
from harness.paging.memory import BufferMemory, Words

CODE: Final = 16
"""Offset in a page of the code that a fetch executes: `iihf %r2; iilf %r2; svc 0`."""

CODE_BYTES: Final = 14
"""The size of that code."""

_IIHF_R2: Final = np.uint64(0xC028)
_IILF_R2: Final = np.uint64(0xC029)
_SVC: Final = np.uint64(0x0A00)


def put_code(memory: BufferMemory, physical: Words) -> None:
    """Puts code at physical addresses, multiples of 8, that loads the mark of its own address."""
    value = mark(physical)
    high, low = value >> np.uint64(32), value & np.uint64(0xFFFF_FFFF)
    words = (
        _IIHF_R2 << np.uint64(48) | high << np.uint64(16) | _IILF_R2,
        low << np.uint64(32) | _SVC << np.uint64(16),
    )
    for number, word in enumerate(words):
        memory.scatter(physical + np.uint64(8 * number), 8, word)
