"""Harts, tables, addresses and accesses drawn at random, so that all rules come into play."""

from __future__ import annotations

import random

from tests.paging.riscv_rules import KINDS, Machine, levels

TABLES = 16
RAM = 0x8000_0000
"""Where memory begins, as on the machines that there are; at times it begins at 0."""

LEVELS = {"sv32": 2, "sv39": 3, "sv48": 4, "sv57": 5}

V, R, W, X, U, G, A, D = (1 << number for number in range(8))


def machine(source: random.Random, mode: str) -> Machine:
    """A hart in a mode, all else of its state at random, that must be possible.  Of fifty, the
    root of one is where no memory is."""
    wide, ram = mode != "sv32", source.choice([0, RAM])
    ppn = (ram >> 12) + (TABLES if source.random() < 0.02 else source.randrange(TABLES))
    if wide:
        satp = (5 + LEVELS[mode]) << 60 | source.getrandbits(16) << 44 | ppn
    else:
        satp = 1 << 31 | source.getrandbits(9) << 22 | ppn
    mpp = source.choice([0, 1, 3])
    mstatus = source.getrandbits(64) & ~(3 << 11) | mpp << 11
    pmm = [source.choice([0, 0, 2, 3]) if wide else 0 for _ in range(2)]
    return Machine(
        xlen=64 if wide else 32,
        satp=satp,
        mstatus=mstatus,
        menvcfg=source.getrandbits(64) & ~(3 << 32) | pmm[0] << 32,
        senvcfg=source.getrandbits(64) & ~(3 << 32) | pmm[1] << 32,
        svnapot=wide and source.random() < 0.6,
        svrsw60t59b=wide and source.random() < 0.3,
        svade=source.random() < 0.7,
        ram=ram,
    )


def entry(source: random.Random, machine: Machine, level: int) -> int:
    """An entry that often leads on, and at times is wrong in any way."""
    if level and source.random() < 0.75:
        raw = V | source.choice([0, 0, G]) | source.getrandbits(2) << 8
        raw |= (machine.ram >> 12) + source.randrange(TABLES + (source.random() < 0.05)) << 10
        if source.random() < 0.08:
            raw |= source.choice([U, A, D])
    else:
        raw = _leaf(source, machine, level)
    if source.random() < 0.06:
        raw ^= 1 << source.randrange(machine.xlen)
    return raw


def _leaf(source: random.Random, machine: Machine, level: int) -> int:
    """A leaf with all rights at random, of which a few are not there or write only, whose address
    is aligned as it must be but for one in ten."""
    raw = V if source.random() < 0.95 else 0
    raw |= source.choice([R, R | W, R | X, X, R | W | X, R | W | X, W, W | X, 0])
    raw |= source.choice([0, U]) | source.choice([0, G]) | source.getrandbits(2) << 8
    raw |= source.choice([A, A | D, A | D, D, 0])
    index_bits, page_number = (10, 22) if machine.xlen == 32 else (9, 44)
    number = source.getrandbits(page_number) >> index_bits * level << index_bits * level
    if level and source.random() < 0.1:
        number |= 1 << source.randrange(index_bits * level)
    if machine.xlen == 64:
        if source.random() < 0.2:
            raw |= 1 << 63
            number = number & ~15 | source.choice([8, 8, 8, 8, source.randrange(16)])
        if source.random() < 0.2:
            raw |= source.randrange(1, 4) << 61
        if source.random() < 0.1:
            raw |= source.choice([1 << 59, 1 << 60])
    return raw | number << 10


def memory(source: random.Random, machine: Machine) -> bytearray:
    """Tables, of which the first, the last and the middle entries are filled.  One table
    serves any level."""
    size = machine.xlen // 8
    entries, made = 4096 // size, bytearray(TABLES * 4096)
    for table in range(TABLES):
        for index in slots(entries):
            raw = entry(source, machine, source.randrange(levels(machine)))
            at = table * 4096 + index * size
            made[at : at + size] = raw.to_bytes(size, "little")
    return made


def slots(entries: int) -> tuple[int, ...]:
    """The entries of a table that are filled."""
    return 0, 1, 2, 9, entries // 2 - 1, entries // 2, entries - 2, entries - 1


def address(source: random.Random, machine: Machine) -> int:
    """A pointer that uses the entries that are filled; on RV64 a few are at the ends of the halves,
    not canonical, or have a tag where tags are masked."""
    index_bits = 10 if machine.xlen == 32 else 9
    width = 12 + index_bits * levels(machine)
    made = source.choice([0, 0xFFF, source.getrandbits(12)])
    for level in range(levels(machine)):
        made |= source.choice(slots(1 << index_bits)) << 12 + index_bits * level
    if source.random() < 0.05:
        made ^= 1 << source.randrange(12, width)
    if machine.xlen == 32:
        return made
    if source.random() < 0.05:
        half = 1 << width - 1
        return source.choice([0, half - 1, half, -half - 1, -half, -1]) & (1 << 64) - 1
    if made >> width - 1:
        made |= (1 << 64) - (1 << width)
    if source.random() < 0.1:
        made ^= 1 << source.randrange(width - 1, 64)
    if source.random() < 0.2:
        made ^= source.getrandbits(16) << 48 & ~((1 << width) - 1)
    return made


def access(source: random.Random) -> tuple[str, bool]:
    """Its kind, and whether it is made as U-mode."""
    return source.choice(KINDS), source.random() < 0.5
