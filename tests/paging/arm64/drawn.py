"""Processors, tables, pointers and accesses drawn at random, so that all rules come into play."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.paging.arm64_rules import KINDS, Machine, Params, field, params, start_level

TABLES, APART = 16, 1 << 16
"""Tables of any granule, and how far they are apart."""

RAM = (0, 0x4000_0000)
"""Where memory begins; for descriptors of 52 bits, at times at `FAR`."""
FAR = 0xA_0000_4000_0000

GRANULES = {"4K": 12, "16K": 14, "64K": 16}
TG0 = {"4K": 0, "64K": 1, "16K": 2}
TG1 = {"16K": 1, "4K": 2, "64K": 3}

KINDS_OF_TABLES = ("4K", "16K", "64K", "4K wide", "16K wide", "64K wide")
"""Granules, with descriptors of 48 bits and of 52."""


def machine(source: random.Random, tables: str) -> Machine:
    """A processor whose lower half has such tables, all else of its state at random, that must be
    possible."""
    granule, wide = tables.split()[0], tables.endswith("wide")
    far = wide and source.random() < 0.3
    other = granule if far else source.choice(list(GRANULES))
    pamax = 52 if wide else source.choice([40, 44, 48])
    lpa2 = wide and (granule != "64K" or source.random() < 0.5)
    ds = lpa2 and granule != "64K"
    ips = 6 if far else source.choice([2, 3, 4, 5, 5, 6])
    lva = source.random() < 0.8
    tcr = ips << 32 | ds << 59 | TG0[granule] << 14 | TG1[other] << 30
    tcr |= _tsz(source, granule, ds, lva) | _tsz(source, other, ds, lva) << 16
    for bit, chance in ((7, 0.03), (23, 0.03), (37, 0.4), (38, 0.4), (39, 0.5), (40, 0.7)):
        tcr |= (source.random() < chance) << bit
    for bit, chance in ((41, 0.3), (42, 0.3), (51, 0.5), (52, 0.5), (55, 0.15), (56, 0.15)):
        tcr |= (source.random() < chance) << bit
    made = Machine(
        ttbr0=0,
        ttbr1=0,
        tcr=tcr,
        mair=int.from_bytes(source.choices([0x00, 0x04, 0x0C, 0x44, 0xFF, 0xF0], k=8), "little"),
        sctlr=1
        | (source.random() < 0.2) << 1
        | (source.random() < 0.4) << 19
        | (source.random() < 0.5) << 57,
        pamax=pamax,
        lpa2=lpa2,
        lva=lva,
        hafdbs=source.choice([0, 1, 2, 2, 2, 2]),
        hpds=source.random() < 0.8,
        pan_level=3 if source.random() < 0.8 else 1,
        e0pd=source.random() < 0.8,
        pauth=source.random() < 0.8,
        pan=source.random() < 0.5,
        uao=source.random() < 0.3,
        ram=FAR if far else source.choice(RAM),
    )
    ttbr0, ttbr1 = (_ttbr(source, made, va) for va in (0, 1 << 55))
    big_endian = (source.random() < 0.1) << 25
    return replace(made, ttbr0=ttbr0, ttbr1=ttbr1, sctlr=made.sctlr | big_endian)


def _tsz(source: random.Random, granule: str, ds: bool, lva: bool) -> int:
    """A TxSZ within bounds, at the ends of them more often than not."""
    least = 12 if (lva if granule == "64K" else ds) else 16
    most = 47 if granule == "64K" else 48
    return source.choice([least, most, source.randint(least, most), source.randint(least, 39)])


def _ttbr(source: random.Random, machine: Machine, va: int) -> int:
    """A register with a root that is aligned as it must be, one in fifty where no memory is, and
    one in twenty beyond what IPS says, where that can be said."""
    p = params(machine, va)
    size = 8 * root_entries(p)
    wide = p.ds or (p.granulebits == 16 and p.ps == 6 and machine.pamax >= 52)
    alignment = max(size, 64) if wide else size
    place = source.randrange(TABLES) * APART + source.randrange(APART // alignment) * alignment
    root = machine.ram + place + (source.random() < 0.02) * TABLES * APART
    if source.random() < 0.05:
        root |= 1 << (source.randrange(48, 52) if wide else source.randrange(40, 48))
    asid = source.getrandbits(16)
    return asid << 48 | root & (1 << 48) - 1 | (root >> 48) << 2 | source.getrandbits(1)


def root_entries(p: Params) -> int:
    """Entries of a half's root table."""
    return 1 << 64 - p.txsz - p.granulebits - (p.granulebits - 3) * (3 - start_level(p))


def root_offset(machine: Machine, p: Params) -> int:
    """Where a half's root table is, from the beginning of memory, if it is there."""
    root = field(p.ttbr, 47, 6) << 6 if p.ds else field(p.ttbr, 47, 1) << 1
    if p.granulebits == 16 and p.ps == 6 and machine.pamax >= 52:
        root = field(p.ttbr, 47, 6) << 6
    return (root - machine.ram) % (TABLES * APART)


def entry(source: random.Random, machine: Machine, p: Params) -> int:
    """A descriptor that often leads on, and at times is wrong in any way."""
    raw = source.choices([3, 1, 0, 2], [75, 15, 3, 2])[0]
    raw |= _placed(machine, p, machine.ram + source.randrange(TABLES + 1) * APART)
    raw |= (source.random() < 0.75) << 10 | source.getrandbits(3) << 2 | source.getrandbits(1) << 11
    raw |= source.choice([0, 1, 1, 2, 3]) << 6 | (source.random() < 0.3) << 51
    for bit in (53, 54):
        raw |= (source.random() < 0.4) << bit
    for bit in (5, 16, 50, 52, 55, 56, 57, 58, 59, 60, 61, 62, 63):
        raw |= (source.random() < 0.08) << bit
    if source.random() < 0.08:
        raw |= 1 << source.choice([8, 9, 12, 13, 14, 15, 46, 47, 48, 49, 40, 42])
    if source.random() < 0.04:
        raw ^= 1 << source.randrange(64)
    return raw


def _placed(machine: Machine, p: Params, address: int) -> int:
    """The bits of a descriptor that hold an address."""
    raw = address & (1 << 48) - 1
    if p.granulebits == 16 and machine.pamax >= 52:
        return raw | (address >> 48) << 12
    return raw | (address >> 48 & 3) << 48 | (address >> 50) << 8 if p.ds else raw


def memory(source: random.Random, machine: Machine) -> bytearray:
    """Tables, of which some entries are filled.  One table serves any level, and both halves."""
    made = bytearray(TABLES * APART)
    halves = [params(machine, va) for va in (0, 1 << 55)]
    order = "big" if machine.sctlr >> 25 & 1 else "little"

    def fill(at: int, p: Params) -> None:
        made[at : at + 8] = entry(source, machine, p).to_bytes(8, order)  # type: ignore[arg-type]

    for p in halves:
        for table in range(TABLES):
            for index in slots(1 << p.granulebits - 3):
                fill(table * APART + 8 * index, p)
    for p in halves:
        for index in slots(root_entries(p)):
            fill(root_offset(machine, p) + 8 * index, p)
    return made


def slots(entries: int) -> tuple[int, ...]:
    """The entries of a table that are filled."""
    return tuple({0, 1 % entries, max(entries // 2 - 1, 0), entries // 2, entries - 1})


def pointer(source: random.Random, machine: Machine) -> int:
    """A pointer that uses the entries that are filled; a few are at the ends of the halves, in the
    hole between them, or have a tag."""
    high = source.random() < 0.5
    p = params(machine, high << 55)
    width, stride = 64 - p.txsz, p.granulebits - 3
    made = source.choice([0, 0xFFF, source.getrandbits(12)])
    for number in range(4 - start_level(p)):
        entries = root_entries(p) if number == 3 - start_level(p) else 1 << stride
        made |= source.choice(slots(entries)) << p.granulebits + stride * number
    if source.random() < 0.05:
        made ^= 1 << source.randrange(p.granulebits, width)
    if high:
        made |= (1 << 64) - (1 << width)
    if source.random() < 0.05:
        made ^= 1 << source.randrange(width, 64)
    if source.random() < 0.2:
        made ^= source.getrandbits(8) << 56
    return made


def access(source: random.Random) -> tuple[str, bool, bool]:
    """Its kind, whether it is made at EL0, and whether it is aligned."""
    return source.choice(KINDS), source.random() < 0.5, source.random() < 0.9
