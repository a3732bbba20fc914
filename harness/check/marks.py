"""What the harness puts into frames, so that what a guest finds there names the frame.

Every marked word is a bijection of its own physical address.  The code that a fetch executes there
is the architecture's.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np

from harness.paging.memory import BufferMemory, Words

WORD: Final = 8
"""Bytes of a marked word; addresses of marks are multiples of it."""

NONCE: Final = secrets.randbits(64) | WORD - 1
"""Of this process, so that memory left by another run holds no mark of this one.  All marks have
its lowest bits, which are set, so that a read that loses them finds no mark."""

_ODD: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_ODD, -1, 1 << 64)


def mark(physical: Words) -> Words:
    """The word that marks each physical address."""
    return (physical * np.uint64(_ODD)) ^ np.uint64(NONCE)


def marked(word: int) -> int:
    """The physical address that a mark names; any number for a word that is none."""
    return ((word ^ NONCE) * _INVERSE) % (1 << 64)


def put_marks(memory: BufferMemory, physical: Words) -> None:
    """Marks the words at physical addresses."""
    memory.scatter(physical, WORD, mark(physical))
