"""Walks through given entries are those through the same entries in memory."""

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory, Words
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode

LANES, TABLE = 2000, 4096


def some_addresses(random: np.random.Generator, cpu: Cpu) -> Words:
    """Addresses inside the roots' spans and outside, the first and the last of each among them."""
    edges = [edge for root in cpu.roots for edge in (root.span.first, root.span.last)]
    beside = [edge + step for edge in edges for step in (-1, 0, 1) if 0 <= edge + step < 1 << 64]
    sizes = np.array([root.span.size for root in cpu.roots], np.uint64)
    firsts = np.array([root.span.first for root in cpu.roots], np.uint64)
    chosen = random.integers(0, len(firsts), LANES)
    inside = firsts[chosen] + random.integers(0, sizes[chosen], LANES, np.uint64)
    anywhere = random.integers(0, 1 << 64, LANES, np.uint64)
    addresses = np.where(random.integers(0, 8, LANES) == 0, anywhere, inside)
    addresses[: len(beside)] = beside
    return addresses


def some_words(random: np.random.Generator, cpu: Cpu) -> Words:
    """Entries of all kinds: pages anywhere, pointers to the table of the next level."""
    width = 8 * cpu.format.entry_bytes
    shape = (cpu.levels, LANES)
    bits = np.uint64((1 << 63 | 1 << 51 | 0x1FF) & (1 << width) - 1)
    words = random.integers(0, 1 << 64, shape, np.uint64) & bits
    plain = random.integers(0, 4, shape) > 0
    words = np.where(plain, words & np.uint64(0x17F) | np.uint64(1), words)
    for level, here in enumerate(cpu.format.levels):
        if level in cpu.format.page_levels():
            words[level] |= np.uint64(0x80) * (random.integers(0, 8, LANES) == 0)
        page = words[level] & np.uint64(0x80 if level else 0) != 0
        frame = random.integers(0, 1 << min(width, 40), LANES, np.uint64)
        frame &= np.uint64(-here.size % (1 << width))
        below = frame if level == 0 else np.uint64((level - 1) * TABLE)
        words[level] |= np.where(page, frame, below)
    return words


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.LEVEL_4, Mode.LEVEL_5])
@pytest.mark.parametrize("nxe", [False, True])
def test_given_entries_are_walked_as_those_in_memory(mode: Mode, nxe: bool) -> None:
    random = np.random.default_rng(list(Mode).index(mode))
    efer = Efer.NXE if nxe else Efer(0)
    levels = Cpu.in_mode(mode, 0).levels
    cpu = Cpu.in_mode(mode, (levels - 1) * TABLE, cr4=Cr4.PSE, efer=efer)
    format = cpu.format
    addresses, words = some_addresses(random, cpu), some_words(random, cpu)
    given = bulk.walk_words(cpu.roots, words, addresses)
    ends = set()
    for lane in range(LANES):
        memory = BufferMemory(np.zeros(levels * TABLE, np.uint8))
        for level, here in enumerate(format.levels):
            slot = level * TABLE + here.index(int(addresses[lane])) * format.entry_bytes
            memory.store(Physical(slot), format.entry_bytes, int(words[level, lane]))
        read = bulk.walk(memory, cpu.roots, addresses[lane : lane + 1])
        for name in ("end", "level", "raw", "physical"):
            assert getattr(given, name)[lane] == getattr(read, name)[0], (lane, name)
        if read.end[0] != bulk.End.NO_ROOT:
            for name in ("granted", "above"):
                differ = getattr(given, name)[lane] ^ getattr(read, name)[0]
                assert differ & np.uint64(format.rights_mask) == 0, (lane, name)
        ends.add((int(read.end[0]), int(read.level[0])))
    pages = {level for end, level in ends if end == bulk.End.LEAF}
    assert pages == set(format.page_levels())
