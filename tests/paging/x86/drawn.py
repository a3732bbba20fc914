"""CPU states, tables, addresses and accesses drawn at random, so that all rules come into play."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Cr0, Cr3, Cr4, Efer, Mode

TABLES = 16

WIDTH = {Mode.BITS_32: 4, Mode.PAE: 8, Mode.LEVEL_4: 8, Mode.LEVEL_5: 8}


def some(source: random.Random, *bits: int) -> int:
    """Some of the bits."""
    return sum(bit for bit in bits if source.random() < 0.5)


def cpu(source: random.Random, mode: Mode) -> Cpu:
    """A CPU in any state of its mode."""
    made = Cpu.in_mode(
        mode,
        0x1000,
        cr0=some(source, Cr0.WP),
        cr4=some(source, Cr4.PSE, Cr4.SMEP, Cr4.SMAP, Cr4.PKE, Cr4.PKS, Cr4.LAM_SUP)
        | (Cr4.LASS if source.random() < 0.3 else 0),
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


def entry(source: random.Random, mode: Mode, maxphyaddr: int = 40) -> int:
    """An entry that often leads on or maps a large page, and at times is wrong in any way."""
    width = 8 * WIDTH[mode]
    raw = source.choice([7, 7, 7, 7, 7, 5, 3, 1, 0])
    raw |= source.getrandbits(12) & 0xE78
    raw |= 0x100 if source.random() < 0.1 else 0
    if source.random() < 0.15:
        page = 22 if mode is Mode.BITS_32 else source.choice([21, 30])
        address = source.getrandbits(min(width, maxphyaddr))
        raw |= address >> page << page | source.choice([0x80, 0x1080])
        raw |= source.choice([0, 0, 1 << source.randrange(13, page)])
    else:
        raw |= source.randrange(TABLES + (source.random() < 0.1)) << 12
    if source.random() < 0.05:
        raw |= 1 << source.randrange(width)
    if mode is not Mode.BITS_32:
        raw |= (source.random() < 0.1) << 63
    if mode in (Mode.LEVEL_4, Mode.LEVEL_5):
        raw |= source.getrandbits(11) << 52
    return raw


def memory(
    source: random.Random, mode: Mode, maxphyaddr: int = 40, slots: tuple[int, ...] | None = None
) -> BufferMemory:
    """Tables whose first, last and middle entries are filled, or those of the given slots."""
    entries = 0x1000 // WIDTH[mode]
    words = np.zeros((TABLES, entries), f"<u{WIDTH[mode]}")
    for table in words:
        for slot in slots or _slots(entries):
            table[slot] = entry(source, mode, maxphyaddr)
    return BufferMemory(words.view(np.uint8).reshape(-1))


def _slots(entries: int) -> tuple[int, ...]:
    return 0, 1, 2, entries // 2 - 1, entries // 2, entries - 2, entries - 1


def address(source: random.Random, mode: Mode) -> int:
    """An address that uses the entries that are filled, in long mode at times no canonical one."""
    shifts, entries, top = {
        Mode.BITS_32: ((12, 22), 1024, 32),
        Mode.PAE: ((12, 21), 512, 32),
        Mode.LEVEL_4: ((12, 21, 30, 39), 512, 48),
        Mode.LEVEL_5: ((12, 21, 30, 39, 48), 512, 57),
    }[mode]
    made = source.choice([0, 0xFFF, source.getrandbits(12)])
    for shift in shifts:
        made |= source.choice(_slots(entries)) << shift
    if source.random() < 0.05:
        made ^= 1 << source.randrange(12, top)
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
