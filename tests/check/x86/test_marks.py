"""The code in a frame names the frame."""

from __future__ import annotations

import numpy as np

from harness.check.marks import mark
from harness.check.x86 import marks
from harness.paging.memory import BufferMemory

FIRST = 0x300_0000
PAGES = 64
PAGE = 4096


def memory() -> BufferMemory:
    return BufferMemory(np.zeros(PAGES * PAGE, np.uint8), FIRST)


def test_code_is_mov_mark_to_rax_and_ud2() -> None:
    ram = memory()
    at = FIRST + PAGE + marks.CODE
    marks.put_code(ram, np.array([at], np.uint64))
    offset = at - FIRST
    code = ram.octets[offset : offset + 12].tobytes()
    named = int(mark(np.array([at], np.uint64))[0])
    assert code == b"\x48\xb8" + named.to_bytes(8, "little") + b"\x0f\x0b"


def test_short_code_is_mov_half_the_mark_to_eax_and_ud2() -> None:
    ram = memory()
    at = FIRST + PAGE
    marks.put_short_code(ram, np.array([at], np.uint64))
    named = int(mark(np.array([at], np.uint64))[0])
    code = ram.octets[PAGE : PAGE + 8].tobytes()
    assert code == b"\xb8" + named.to_bytes(8, "little")[:4] + b"\x0f\x0b\x00"


def test_a_descriptor_is_data_of_the_user_at_its_base() -> None:
    """SDM volume 3A, 3.4.5: limit, base in three parts, then P, DPL 3, S, type 3; G and B."""
    bases = np.array([0x1122_3344_5566_7788, 0xAA55_AA55], np.uint64)
    words = [word.to_bytes(8, "little").hex() for word in marks.descriptor(bases).tolist()]
    assert words == ["ffff887766f3cf55", "ffff55aa55f3cfaa"]


def test_code_is_as_long_and_ends_as_the_manual_says() -> None:
    """SDM volume 2: REX.W B8 imm64 is 10 bytes and B8 imm32 five; 06 is no instruction in 64-bit
    mode, a fault (#UD, 6); CC is a trap (#BP, 3), after which the pointer is past it."""
    assert marks.Code(end=10, last=0x06, vector=6, length=0) == marks.LONG_CODE
    assert marks.Code(end=5, last=0xCC, vector=3, length=1) == marks.SHORT_CODE
