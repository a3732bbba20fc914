"""Processors, tables, addresses and accesses drawn at random, so that all rules come into play."""

from __future__ import annotations

import random

from tests.paging.power_rules import KINDS, Machine

ROOTS, TABLES = 2, 16
ROOT_BYTES, TABLE_BYTES = 65536, 4096
END = ROOTS * ROOT_BYTES + TABLES * TABLE_BYTES

V, L = 1 << 63, 1 << 62
TREE_52 = (21 >> 3) << 61 | (21 & 7) << 5
SLOTS = {13: (0, 1, 7, 4095, 4096, 8191), 9: (0, 1, 2, 31, 255, 256, 511), 5: (0, 1, 15, 16, 31)}
"""The entries that are filled, by the size of a table."""


def descriptor(source: random.Random) -> int | None:
    """What a process table entry says; at times what it may not, or nothing."""
    if source.random() < 0.03:
        return None
    root = source.randrange(ROOTS) * ROOT_BYTES
    if source.random() < 0.1:
        root |= 1 << source.choice((8, 12, 15))
    raw = TREE_52 | root | 13
    if source.random() < 0.04:
        raw ^= 1 << source.choice((0, 1, 4, 5, 6, 7, 61, 62))
    if source.random() < 0.1:
        raw |= 1 << source.choice((63, 60))
    return raw


def machine(source: random.Random) -> Machine:
    amr, iamr = (source.choice((0, source.getrandbits(64))) for _ in range(2))
    user, kernel = descriptor(source), descriptor(source) or 0
    return Machine(user, kernel, amr, iamr, hv=source.random() < 0.7, records=source.random() < 0.6)


def directory(source: random.Random) -> int:
    """An entry that leads on, of which a few have another size, or are beyond memory."""
    at = ROOTS * ROOT_BYTES + source.randrange(TABLES) * TABLE_BYTES
    if source.random() < 0.1:
        at |= 1 << source.choice((8, 9, 10, 11))
    if source.random() < 0.02:
        at = END if source.random() < 0.3 else at | 1 << source.choice((40, 59))
    size = source.choice((9, 9, 9, 9, 5))
    if source.random() < 0.05:
        size = source.randrange(32)
    return V | at | size | source.choice((0, 0, 1 << 60, 1 << 61, 0xE0))


def leaf(source: random.Random) -> int:
    raw = V | L | source.getrandbits(45) << 12 | source.getrandbits(4)
    raw |= source.choice((0, 0, 0, 1, 2, 3)) << 4 | source.getrandbits(2) << 7
    return raw | source.choice((0, 0, 1 << 61, 0xE00, 0xF << 57))


def entry(source: random.Random) -> int:
    raw = directory(source) if source.random() < 0.6 else leaf(source)
    if source.random() < 0.05:
        raw ^= V
    if source.random() < 0.05:
        raw ^= 1 << source.randrange(64)
    return raw


def memory(source: random.Random) -> bytearray:
    """Two roots and tables, which lead to one another.  One table serves any level."""
    made = bytearray(END)

    def fill(first: int, index_bits: int, lower: float) -> None:
        for index in SLOTS[index_bits]:
            raw = directory(source) if source.random() < lower else entry(source)
            made[first + 8 * index : first + 8 * index + 8] = raw.to_bytes(8, "big")

    for root in range(ROOTS):
        fill(root * ROOT_BYTES, 13, 0.8)
    for table in range(TABLES):
        first = ROOTS * ROOT_BYTES + table * TABLE_BYTES
        fill(first, 9, 0)
        fill(first, 5, 0)
    return made


def address(source: random.Random, hv: bool) -> int:
    """An address that uses the entries that are filled; a few are in a quadrant that leads nowhere,
    or have bits that are not translated."""
    made = source.getrandbits(12)
    for shift, index_bits in ((39, 13), (30, 9), (21, 9)):
        made |= source.choice(SLOTS[index_bits]) << shift
    if source.random() < 0.5:
        made |= source.choice(SLOTS[5]) << 16
    else:
        made |= source.choice(SLOTS[9]) << 12
    if source.random() < 0.05:
        made ^= 1 << source.randrange(12, 52)
    made |= source.choice((0, 0, 3) if hv else (0, 0, 0, 3, 3, 1, 2)) << 62
    if source.random() < 0.05:
        made |= 1 << source.randrange(52, 62)
    return made


def access(source: random.Random) -> tuple[str, bool]:
    """Its kind, and whether it is made in problem state."""
    return source.choice(KINDS), source.random() < 0.5
