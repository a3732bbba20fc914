"""Arrays say of every lane what the scalar rules say, on random memory under random CPU state."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.paging.memory import BufferMemory
from harness.paging.x86 import bulk
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.paging.x86 import drawn
from tests.paging.x86.made import come_to

LANES = 250

# What comes of accesses in the mode, all of which random memory must show.
ANYWHERE = {"reaches", "NOT_PRESENT", "USER_DENIED", "WRITE_DENIED", "SMEP", "SMAP"}
ANYWHERE |= {"SHADOW_STACK", "RESERVED", "unknown"}
LONG = ANYWHERE | {"EXECUTE_DENIED", "PKU", "PKS", "NOT_CANONICAL"}
LONG |= {"LASS_USER", "LASS_FETCH", "LASS_DATA"}
SHOWN = {
    Mode.BITS_32: ANYWHERE,
    Mode.PAE: ANYWHERE | {"EXECUTE_DENIED", "NO_PDPTE"},
    Mode.LEVEL_4: LONG,
    Mode.LEVEL_5: LONG,
}


@pytest.mark.parametrize("mode", Mode)
def test_arrays_and_single_accesses_come_to_the_same(mode: Mode) -> None:
    shown: set[str] = set()
    for seed in range(40):
        source = random.Random(seed)
        machine, where = drawn.cpu(source, mode), drawn.memory(source, mode)
        addresses = [drawn.address(source, mode) for _ in range(LANES)]
        accesses = [drawn.access(source) for _ in range(LANES)]
        for text in come_to(machine, where, addresses, accesses):
            shown.add(text.split()[0] if text[0] != "#" else text.split()[1])
    assert shown == SHOWN[mode]


def test_ac_is_that_of_each_lane() -> None:
    machine = replace(Cpu.in_mode(Mode.BITS_32, 0x1000, cr4=Cr4.SMAP | Cr4.PSE), ac=True)
    where = BufferMemory(bytearray(0x2000))
    where.octets[0x1000] = 0x87
    many = bulk.outcomes(
        machine,
        where,
        np.zeros(2, np.uint64),
        np.zeros(2, np.uint8),
        np.array([False, False]),
        np.array([False, True]),
    )
    assert many.error.tolist() == [1, 0]


@pytest.mark.parametrize(("user", "kind"), [(True, Kind.READ), (False, Kind.FETCH)])
def test_an_array_holds_no_implicit_access_of_a_user_and_no_implicit_fetch(
    user: bool, kind: Kind
) -> None:
    with pytest.raises(ValueError, match="an implicit access is a supervisor's, and to data"):
        bulk.outcomes(
            Cpu.in_mode(Mode.LEVEL_4, 0),
            BufferMemory(bytearray(0x1000)),
            np.zeros(1, np.uint64),
            np.array([kind], np.uint8),
            np.array([user]),
            np.array([False]),
            np.array([True]),
        )


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_an_array_holds_no_address_beyond_32_bits_outside_long_mode(mode: Mode) -> None:
    no = np.array([False])
    for beyond, fine in ((0xFFFF_FFFF, True), (0x1_0000_0000, False)):
        given = (np.array([beyond], np.uint64), np.zeros(1, np.uint8), no, no)
        where = BufferMemory(bytearray(0x1000))
        if fine:
            assert bulk.outcomes(Cpu.in_mode(mode, 0), where, *given).sets_cr2.all()
        else:
            with pytest.raises(ValueError, match=r"outside long mode addresses are in 0x0\.\."):
                bulk.outcomes(Cpu.in_mode(mode, 0), where, *given)


def test_no_accesses_come_to_nothing() -> None:
    none = np.zeros(0, np.bool_)
    for mode in Mode:
        many = bulk.outcomes(
            Cpu.in_mode(mode, 0),
            BufferMemory(bytearray(0x1000)),
            *(np.zeros(0, np.uint64), np.zeros(0, np.uint8), none, none, none),
        )
        assert len(many.vector) == len(many.error) == 0


def test_the_kinds_that_write_are_told() -> None:
    kinds = np.array(list(Kind), np.uint8)
    writing = [Kind(kind) for kind in kinds[bulk.writes(kinds)]]
    assert writing == [Kind.WRITE, Kind.PUSH, Kind.SHADOW_WRITE]
