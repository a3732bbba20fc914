"""Arrays say of every lane what the scalar rules say, on random memory under random CPU state."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.paging.memory import BufferMemory
from harness.paging.x86 import bulk
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Cr0, Cr3, Cr4, Efer, Mode
from tests.paging.x86.made import come_to

TABLES, LANES = 16, 250

WIDTH = {Mode.BITS_32: 4, Mode.PAE: 8, Mode.LEVEL_4: 8, Mode.LEVEL_5: 8}

# What comes of accesses in the mode, all of which random memory must show.
ANYWHERE = {"reaches", "NOT_PRESENT", "USER_DENIED", "WRITE_DENIED", "SMEP", "SMAP"}
ANYWHERE |= {"SHADOW_STACK", "RESERVED", "unknown"}
LONG = ANYWHERE | {"EXECUTE_DENIED", "PKU", "PKS", "NOT_CANONICAL"}
SHOWN = {
    Mode.BITS_32: ANYWHERE,
    Mode.PAE: ANYWHERE | {"EXECUTE_DENIED", "NO_PDPTE"},
    Mode.LEVEL_4: LONG,
    Mode.LEVEL_5: LONG,
}


def some(source: random.Random, *bits: int) -> int:
    """Some of the bits."""
    return sum(bit for bit in bits if source.random() < 0.5)


def cpu(source: random.Random, mode: Mode) -> Cpu:
    """A CPU in any state of its mode."""
    made = Cpu.in_mode(
        mode,
        0x1000,
        cr0=some(source, Cr0.WP),
        cr4=some(source, Cr4.PSE, Cr4.SMEP, Cr4.SMAP, Cr4.PKE, Cr4.PKS, Cr4.LAM_SUP),
        efer=some(source, Efer.NXE),
    )
    long = mode in (Mode.LEVEL_4, Mode.LEVEL_5)
    return replace(
        made,
        cr3=made.cr3 | (some(source, Cr3.LAM_U48, Cr3.LAM_U57) if long else 0),
        ac=source.random() < 0.5,
        maxphyaddr=source.choice([36, 39, 40, 46, 52]),
        page1gb=source.random() < 0.5,
        pse36=source.random() < 0.5,
        lam=source.random() < 0.3,
        amd=source.random() < 0.3,
        pkru=source.getrandbits(32) & source.getrandbits(32),
        pkrs=source.getrandbits(32) & source.getrandbits(32),
        pdptes=tuple(source.choice([0, 0x1001, 0x2001, 0x3019]) for _ in range(4)),
    )


def entry(source: random.Random, mode: Mode) -> int:
    """An entry that often leads on, and is wrong in any way at times."""
    width = WIDTH[mode]
    raw = source.choice([7, 7, 7, 7, 7, 5, 3, 1, 0])
    raw |= source.getrandbits(8 * width) & 0xE78
    raw |= 0x80 if source.random() < 0.2 else 0
    raw |= source.randrange(TABLES + (source.random() < 0.1)) << 12
    if source.random() < 0.1:
        raw |= 1 << source.randrange(8 * width)
    if mode is not Mode.BITS_32:
        raw |= source.choice([0, 0, 0, 1]) << 63
    if mode in (Mode.LEVEL_4, Mode.LEVEL_5):
        raw |= source.getrandbits(4) << 59
    return raw


def memory(source: random.Random, mode: Mode) -> BufferMemory:
    """Tables whose first and last entries are filled."""
    words = np.zeros((TABLES, 0x1000 // WIDTH[mode]), f"<u{WIDTH[mode]}")
    for table in words:
        for slot in (0, 1, 2, -2, -1):
            table[slot] = entry(source, mode)
    return BufferMemory(words.view(np.uint8).reshape(-1))


def address(source: random.Random, mode: Mode) -> int:
    """An address that uses the entries that are filled, in long mode at times no canonical one."""
    shifts, entries, top = {
        Mode.BITS_32: ((12, 22), 1024, 32),
        Mode.PAE: ((12, 21), 512, 32),
        Mode.LEVEL_4: ((12, 21, 30, 39), 512, 48),
        Mode.LEVEL_5: ((12, 21, 30, 39, 48), 512, 57),
    }[mode]
    made = source.getrandbits(12)
    for shift in shifts:
        made |= source.choice([0, 1, 2, entries - 2, entries - 1]) << shift
    if mode is Mode.PAE:
        made |= source.randrange(4) << 30
    if made >> top - 1 and top > 32:
        made |= (1 << 64) - (1 << top)
    if top > 32 and source.random() < 0.1:
        made ^= 1 << source.randrange(47, 64)
    return made


def access(source: random.Random) -> Access:
    kind, user = source.choice(list(Kind)), source.random() < 0.5
    return Access(kind, user, not user and kind is not Kind.FETCH and source.random() < 0.3)


@pytest.mark.parametrize("mode", Mode)
def test_arrays_and_single_accesses_come_to_the_same(mode: Mode) -> None:
    shown: set[str] = set()
    for seed in range(40):
        source = random.Random(seed)
        machine, where = cpu(source, mode), memory(source, mode)
        addresses = [address(source, mode) for _ in range(LANES)]
        accesses = [access(source) for _ in range(LANES)]
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
