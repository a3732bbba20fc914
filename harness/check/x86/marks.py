"""The code and the descriptors that name the frame in which they are, as marks do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.check.marks import WORD, mark
from harness.paging.memory import BufferMemory, Words
from harness.paging.x86.cpu import Cpu

CODE = 16
"""Offset in a page of the code that a fetch executes: `mov $mark, %rax; ud2`."""

_MOV_RAX, _MOV_EAX = 0xB848, 0xB8
_UD2 = 0x0B0F
_SEGMENT = 0x00CF_F300_0000_FFFF


BREAKPOINT, INVALID_OPCODE = 3, 6
"""The vectors by which fetched code ends."""


@dataclass(frozen=True)
class Code:
    """How what a fetch executes ends, in long mode or outside.

    end             bytes from its start to the instruction that ends it
    last, vector,   where a page ends it is one byte; the vector by which that ends, and how far
    length          the instruction pointer gets
    """

    end: int
    last: int
    vector: int
    length: int


LONG_CODE = Code(10, 0x06, INVALID_OPCODE, 0)  # mov $, %rax; ud2, and push %es
SHORT_CODE = Code(5, 0xCC, BREAKPOINT, 1)  # mov $, %eax; ud2, and int3


def code_of(cpu: Cpu) -> Code:
    """How what a fetch executes ends."""
    return LONG_CODE if cpu.long else SHORT_CODE


def put_code(memory: BufferMemory, physical: Words) -> None:
    """Puts code of long mode at physical addresses that loads the mark of its own address, and
    stops."""
    marks = mark(physical)
    memory.scatter(physical, WORD, marks << np.uint64(16) | np.uint64(_MOV_RAX))
    tail = marks >> np.uint64(48) | np.uint64(_UD2 << 16)
    memory.scatter(physical + np.uint64(WORD), WORD, tail)


def put_short_code(memory: BufferMemory, physical: Words) -> None:
    """The same in code of 32 bits, with the lower half of the mark."""
    low = mark(physical) & np.uint64(0xFFFF_FFFF)
    memory.scatter(physical, WORD, low << np.uint64(8) | np.uint64(_UD2 << 40 | _MOV_EAX))


def descriptor(base: Words) -> Words:
    """The descriptor of a segment at each base, the lower half of which counts: data, writable,
    accessed, of CPL 3, 4 GiB (SDM volume 3A, 3.4.5)."""
    low, high = base & np.uint64(0xFF_FFFF), base >> np.uint64(24) & np.uint64(0xFF)
    return low << np.uint64(16) | high << np.uint64(56) | np.uint64(_SEGMENT)
