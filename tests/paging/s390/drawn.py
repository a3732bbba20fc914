"""CPUs, tables, addresses and accesses drawn at random, so that all rules come into play."""

from __future__ import annotations

import random

from tests.paging.s390_rules import KINDS, Machine

TABLES = 10
SIZE = 0x4000
"""Tables, two of each level, each as large as the largest; page tables take an eighth of one."""

FIRST = 0x1000
"""Where they begin: tables are aligned to pages, and no more."""

LEVELS = {"segment": 1, "region-third": 2, "region-second": 3, "region-first": 4}
SHIFTS = (12, 20, 31, 42, 53)
TYPE, INVALID, COMMON = 0x0C, 0x20, 0x10


def machine(source: random.Random, mode: str) -> Machine:
    """A CPU whose walks begin at a mode's table, all else at random.  Of fifty, the root of one is
    where no storage is."""
    asce = (
        table_of(source, LEVELS[mode])
        | (LEVELS[mode] - 1) << 2
        | source.choice([3, 3, source.randrange(4)])
    )
    asce |= source.choice([0, 0, 0x100]) | source.choice([0, 0x40, 0x80, 0x200])
    edat1 = source.random() < 0.7
    return Machine(
        asce=asce,
        space=source.choice([0, 2, 3]),
        cr0=source.getrandbits(64) | source.choice([0, 1 << 23]),
        edat1=edat1,
        edat2=edat1 and source.random() < 0.6,
        iep=source.random() < 0.7,
    )


def table_of(source: random.Random, level: int) -> int:
    """Where a table of a level is; at times one of another, or none."""
    if source.random() < 0.06:
        return FIRST + TABLES * SIZE
    level = level if source.random() < 0.95 else source.randrange(5)
    return FIRST + (2 * level + source.randrange(2)) * SIZE


def entry(source: random.Random, level: int) -> int:
    """An entry that often leads on, and at times is wrong in any way."""
    raw = source.choice([0, 0, 0x200]) | source.choice([0, 0, 0x100])
    if level == 0:
        raw |= source.getrandbits(52) << 12
        raw |= source.choice([0] * 7 + [0x400, 0x800]) | source.getrandbits(8)
    else:
        raw |= (level - 1) << 2 | source.choice([0] * 9 + [INVALID]) | source.choice([0, 0, COMMON])
        leaf = level <= 2 and source.random() < 0.3
        raw |= 0x400 if leaf else 0
        to = table_of(source, level - 1)
        if leaf and source.random() < 0.9:
            raw |= source.getrandbits(64 - SHIFTS[level]) << SHIFTS[level]
        elif level == 1:
            raw |= to + source.randrange(8) * 0x800
        else:
            raw |= to | source.choice([0, 0, source.randrange(4)]) << 6
        if level > 1:
            raw |= source.choice([3, 3, 3, source.randrange(4)])
        if source.random() < 0.05:
            raw ^= source.choice([4, 8])
    if source.random() < 0.05:
        raw ^= 1 << source.randrange(64)
    return raw & (1 << 64) - 1


SLOTS = (0, 1, 2, 511, 512, 1023, 1024, 1535, 1536, 2046, 2047)
PAGES = (0, 1, 2, 127, 254, 255)
"""The entries of a table that are filled."""


def storage(source: random.Random) -> bytearray:
    """Tables of every level, in which all other entries are zero."""
    made = bytearray(FIRST + TABLES * SIZE)
    for table in range(TABLES):
        level = table // 2
        pages = [first + index for first in range(0, SIZE // 8, 256) for index in PAGES]
        for index in SLOTS if level else pages:
            raw = entry(source, level)
            at = FIRST + table * SIZE + 8 * index
            made[at : at + 8] = raw.to_bytes(8, "big")
    return made


def address(source: random.Random, machine: Machine) -> int:
    """An address that uses the entries that are filled; a few are wider than the root serves, and a
    few are low."""
    if source.random() < 0.05:
        return source.choice([0, 1, 511, 512, 4095, 4096, 4607, 4608, (1 << 64) - 1])
    made = source.choice([0, 0xFFF, source.getrandbits(12)])
    made |= source.choice(PAGES) << 12
    top = (machine.asce >> 2 & 3) + 1
    for level in range(1, top + 1):
        made |= source.choice(SLOTS) << SHIFTS[level]
    if source.random() < 0.05:
        made ^= 1 << source.randrange(64)
    return made


def kind(source: random.Random) -> str:
    return source.choice(KINDS)
