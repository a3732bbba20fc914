"""The code that names the frame in which it is, as marks do."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.check.marks import mark
from harness.paging.memory import BufferMemory, Words

CODE: Final = 16
"""Offset in a page of the code that a fetch executes: `lui a0; addi a0, a0; ecall`."""

CODE_BYTES: Final = 12
"""The size of that code."""

_LUI_A0: Final = 0x0000_0537
_ADDI_A0: Final = {32: 0x0005_0513, 64: 0x0005_051B}
"""addi a0, a0, 0, and addiw where a register has more than 32 bits."""
_ECALL: Final = 0x0000_0073
_LOW: Final = np.uint64(0xFFFF_FFFF)


def code_mark(physical: Words) -> Words:
    """The lower 32 bits of what a0 holds after the code at a physical address."""
    return mark(physical) & _LOW


def put_code(memory: BufferMemory, physical: Words, xlen: int) -> None:
    """Puts code at physical addresses, multiples of 4, that loads the mark of its own address."""
    value = code_mark(physical)
    upper = (value + np.uint64(0x800)) & np.uint64(0xFFFF_F000)
    words = (
        upper | np.uint64(_LUI_A0),
        value << np.uint64(20) | np.uint64(_ADDI_A0[xlen]),  # its lowest 12 bits, of 32
        np.full(len(physical), _ECALL, np.uint64),
    )
    for number, word in enumerate(words):
        memory.scatter(physical + np.uint64(4 * number), 4, word)
