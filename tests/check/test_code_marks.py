"""The code that a fetch executes leaves the mark of its own address in a register, as the manuals
encode its instructions."""

from __future__ import annotations

import numpy as np
import pytest

from harness.check.arm64 import marks as arm64
from harness.check.marks import mark
from harness.check.power import marks as power
from harness.check.riscv import marks as riscv
from harness.check.s390 import marks as s390
from harness.paging.memory import BigEndianMemory, BufferMemory, Words

FIRST, STEP, COUNT = 0x8030_0010, 16, 64
PLACES: Words = np.arange(FIRST, FIRST + STEP * COUNT, STEP, dtype=np.uint64)
MARKS = mark(PLACES).tolist()
LOW = (1 << 32) - 1


def words_in(memory: BufferMemory) -> list[tuple[int, ...]]:
    """The first four words of 32 bits at each place."""
    at: Words = np.add.outer(PLACES, np.arange(0, 16, 4, dtype=np.uint64)).ravel()
    return [tuple(row) for row in memory.gather(at, 4)[0].reshape(-1, 4).tolist()]


def empty(kind: type[BufferMemory] = BufferMemory) -> BufferMemory:
    return kind(np.zeros(STEP * COUNT, np.uint8), FIRST)


@pytest.mark.parametrize(("xlen", "adds"), [(32, 0x13), (64, 0x1B)])
def test_riscv_executes_lui_and_addi_or_addiw(xlen: int, adds: int) -> None:
    """Of rd and rs1, x10 is a0; the immediate of addi has a sign; addiw keeps 32 bits."""
    memory = empty()
    riscv.put_code(memory, PLACES, xlen)
    halves = set[bool]()
    for (lui, add, ecall, rest), named in zip(words_in(memory), MARKS, strict=True):
        assert (lui & 0x7F, lui >> 7 & 31) == (0x37, 10)
        assert (add & 0x7F, add >> 7 & 31, add >> 12 & 7, add >> 15 & 31) == (adds, 10, 0, 10)
        immediate = (add >> 20) - (add >> 31 << 12)
        assert ((lui >> 12 << 12) + immediate) & LOW == named & LOW
        assert (ecall, rest) == (0x73, 0)
        halves.add(immediate < 0)
    assert halves == {True, False}
    assert riscv.code_mark(PLACES).tolist() == [one & LOW for one in MARKS]
    assert (riscv.CODE % 4, riscv.CODE_BYTES) == (0, 12)


def test_arm64_executes_movz_and_movk() -> None:
    """Of 64 bits, with 16 each, and none shifted but the second by 16; x0; SVC of any number."""
    memory = empty()
    arm64.put_code(memory, PLACES)
    for (movz, movk, svc, rest), named in zip(words_in(memory), MARKS, strict=True):
        assert (movz >> 23, movz >> 21 & 3, movz & 31) == (0b110100101, 0, 0)
        assert (movk >> 23, movk >> 21 & 3, movk & 31) == (0b111100101, 1, 0)
        assert (movk >> 5 & 0xFFFF) << 16 | movz >> 5 & 0xFFFF == named & LOW
        assert (svc & 0xFFE0_001F, rest) == (0xD400_0001, 0)
    assert arm64.code_mark(PLACES).tolist() == [one & LOW for one in MARKS]
    assert (arm64.CODE % 4, arm64.CODE_BYTES) == (0, 12)


def test_power_executes_addis_and_ori() -> None:
    """`lis` is addis of 0, whose result has a sign, so that marks have 31 bits; r3; sc, level 0."""
    memory = empty()
    power.put_code(memory, PLACES)
    for (lis, ori, sc, rest), named in zip(words_in(memory), MARKS, strict=True):
        assert (lis >> 26, lis >> 21 & 31, lis >> 16 & 31) == (15, 3, 0)
        assert (ori >> 26, ori >> 21 & 31, ori >> 16 & 31) == (24, 3, 3)
        assert (lis & 0xFFFF) << 16 | ori & 0xFFFF == named & LOW >> 1
        assert (sc, rest) == (17 << 26 | 2, 0)
    assert power.code_mark(PLACES).tolist() == [one & LOW >> 1 for one in MARKS]
    assert (power.CODE % 4, power.CODE_BYTES) == (0, 12)


def test_s390_executes_iihf_and_iilf() -> None:
    """Insert immediate, high and low: C0, the register, 8 or 9, and 32 bits; SVC is 0A."""
    memory = empty(BigEndianMemory)
    s390.put_code(memory, PLACES)
    for number, named in enumerate(MARKS):
        code = memory.octets[number * STEP : (number + 1) * STEP].tobytes()
        high, low = (named >> 32).to_bytes(4), (named & LOW).to_bytes(4)
        assert code == b"\xc0\x28" + high + b"\xc0\x29" + low + b"\x0a\x00" + bytes(2)
    assert (s390.CODE % 8, s390.CODE_BYTES) == (0, 14)
