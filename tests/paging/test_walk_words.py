"""Walks through given entries are those through the same entries in memory."""

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu

LANES, TABLE = 3000, 4096


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("nxe", [False, True])
def test_given_entries_are_walked_as_those_in_memory(levels: int, nxe: bool) -> None:
    random = np.random.default_rng(levels)
    cpu = Cpu.long_mode(levels, (levels - 1) * TABLE, nxe=nxe)
    format = cpu.format
    addresses = random.integers(0, 1 << 64, LANES, np.uint64)
    half = 1 << 9 * levels + 11
    inside = random.integers(0, half, LANES, np.uint64)
    upper = np.where(random.integers(0, 2, LANES) == 1, np.uint64((1 << 64) - half), np.uint64(0))
    addresses = np.where(random.integers(0, 8, LANES) == 0, addresses, inside | upper)

    bits = np.uint64(1 << 63 | 1 << 51 | 0x1FF)
    words = random.integers(0, 1 << 64, (levels, LANES), np.uint64) & bits
    plain = random.integers(0, 4, words.shape) > 0
    words = np.where(plain, words & np.uint64(0x17F) | np.uint64(1), words)
    for level in range(1, levels):
        words[level] |= np.uint64((level - 1) * TABLE)

    given = bulk.walk_words(cpu.roots, words, addresses)
    for lane in range(LANES):
        memory = BufferMemory(np.zeros(levels * TABLE, np.uint8))
        for level, here in enumerate(format.levels):
            slot = level * TABLE + here.index(int(addresses[lane])) * format.entry_bytes
            memory.store(Physical(slot), format.entry_bytes, int(words[level, lane]))
        read = bulk.walk(memory, cpu.roots, addresses[lane : lane + 1])
        for name in ("end", "level", "raw", "physical"):
            assert getattr(given, name)[lane] == getattr(read, name)[0], (lane, name)
        if read.end[0] != bulk.End.NO_ROOT:
            assert (given.granted[lane] ^ read.granted[0]) & np.uint64(format.rights_mask) == 0
