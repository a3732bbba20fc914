"""Trees of POWER written by hand, and what they map, read by the manual alone: nothing here asks
the library what an entry says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from harness.paging.memory import BigEndianMemory

V, L, R, C, PRIV, READ, RW, X = 1 << 63, 1 << 62, 1 << 8, 1 << 7, 8, 4, 2, 1
GIVING = R | C | READ | RW | X
ROOT = 0x1_0000
RAM = 4 << 20
TREE = 0x4000_0000_0000_00AD
"""A process table entry but for the root's address: 52 bits, a root of 13."""

SHIFT, BITS = (12, 21, 30, 39), (9, 9, 9, 13)
LARGE, LARGE_BITS = 16, 5
"""Of 64K pages, and the page tables that have them."""


@dataclass
class Built:
    """Memory with a tree from ROOT on, and what it maps.

    pages      by their first address: size, physical address and the entry
    malformed  the first address of each such entry, and its bits
    """

    octets: np.ndarray = field(default_factory=lambda: np.zeros(RAM, np.uint8))
    pages: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    malformed: dict[int, int] = field(default_factory=dict)
    free: int = ROOT + 0x1_0000

    @property
    def memory(self) -> BigEndianMemory:
        return BigEndianMemory(self.octets)

    def put(self, address: int, word: int) -> None:
        self.octets[address : address + 8] = np.frombuffer(word.to_bytes(8, "big"), np.uint8)

    def table(self) -> int:
        """Where a new table is: 4 KiB, of which a small one uses 256 bytes."""
        self.free += 0x1000
        return self.free - 0x1000


def mixed(seed: int, sizes: tuple[int, ...] = (9, 5)) -> Built:
    """A tree whose page tables have so many bits, drawn one by one, and with large pages, malformed
    entries and absent ones beside them."""
    drawn, built = random.Random(seed), Built()
    for top in drawn.sample(range(1 << 13), 2):
        second = built.table()
        built.put(ROOT + 8 * top, V | second | 9)
        for middle in drawn.sample(range(512), 3):
            first = top << 39 | middle << 30
            kind = drawn.choice(("page", "table", "table", "malformed"))
            if kind == "page":
                _page(built, drawn, second + 8 * middle, first, 30)
            elif kind == "malformed":
                _malformed(built, second + 8 * middle, first, 7)
            else:
                third = built.table()
                built.put(second + 8 * middle, V | third | 9)
                _directory(built, drawn, third, first, sizes)
    return built


def _directory(
    built: Built, drawn: random.Random, table: int, base: int, sizes: tuple[int, ...]
) -> None:
    for index in drawn.sample(range(512), 8):
        slot, first = table + 8 * index, base | index << 21
        kind = drawn.choice(("page", "table", "table", "table", "malformed", "absent"))
        if kind == "page":
            _page(built, drawn, slot, first, 21)
        elif kind == "malformed":
            _malformed(built, slot, first, drawn.choice((0, 4, 8, 13)))
        elif kind == "absent":
            built.put(slot, 5)  # V=0, whatever else it says
        else:
            bits = drawn.choice(sizes)
            # A small table can be anywhere at a multiple of 256 bytes.
            lowest = built.table() + (drawn.randrange(16) << 8 if bits == 5 else 0)
            built.put(slot, V | lowest | bits)
            shift = 12 if bits == 9 else 16
            for entry in drawn.sample(range(1 << bits), 6):
                where, address = lowest + 8 * entry, first | entry << shift
                if drawn.random() < 0.2:
                    built.put(where, V | X)  # L=0
                    built.malformed[address] = L
                else:
                    _page(built, drawn, where, address, shift)


def _page(built: Built, drawn: random.Random, slot: int, first: int, shift: int) -> None:
    physical = drawn.randrange(1 << 56 - shift) << shift
    word = V | L | R | C | drawn.randrange(16) | physical
    built.put(slot, word)
    built.pages[first] = (1 << shift, physical, word)


def _malformed(built: Built, slot: int, first: int, size: int) -> None:
    built.put(slot, V | 0x20_0000 | size)
    built.malformed[first] = 9 ^ size
