"""The rules of long-mode paging, written a second time: with other words, other arithmetic, and
none of the library's code, so that the library can be compared with them.

Sources: Intel SDM volume 3A, 3.3.7.1 (canonical form), 4.5 (entries), 4.6 (rights), 4.7 (error
codes).  Numbers are spelt out here as the manual spells them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import BufferMemory
from harness.paging.walk import Walk, walk
from harness.paging.x86 import bulk as x86_bulk
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Outcome, Unbacked, outcome
from harness.paging.x86.cpu import Cpu, root_for

SIZES = (4 << 10, 2 << 20, 1 << 30)
"""What a leaf at levels 0, 1 and 2 spans, in bytes."""


@dataclass(frozen=True)
class Machine:
    """The CPU state that the rules speak of."""

    levels: int = 4
    maxphyaddr: int = 40
    nxe: bool = True
    page1gb: bool = True
    wp: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False

    def cpu(self, root: int = 0) -> Cpu:
        return Cpu.long_mode(
            self.levels,
            root,
            wp=self.wp,
            nxe=self.nxe,
            smep=self.smep,
            smap=self.smap,
            ac=self.ac,
            maxphyaddr=self.maxphyaddr,
            page1gb=self.page1gb,
        )

    def __str__(self) -> str:
        on = [n for n in ("nxe", "page1gb", "wp", "smep", "smap", "ac") if getattr(self, n)]
        return "-".join([f"{self.levels}level", f"M{self.maxphyaddr}", *on])


READERS = [
    Machine(levels, maxphyaddr, nxe, page1gb)
    for levels, maxphyaddr in product((4, 5), (36, 40, 52))
    for nxe, page1gb in product((True, False), repeat=2)
]
"""Every kind of machine that reads entries in its own way."""

STATES = [
    replace(reader, wp=wp, smep=smep, smap=smap, ac=ac)
    for reader in READERS
    for wp, smep, smap, ac in product((True, False), repeat=4)
]
"""Every CPU state that this suite knows."""


@dataclass(frozen=True)
class Answer:
    """How the walk of an address ends, by the rules.

    end       "leaf", "absent", "malformed", "unbacked" or "not canonical"
    rights    of a leaf: those of "write", "user", "execute" that all its entries give
    """

    end: str
    level: int = 0
    physical: int = 0
    rights: frozenset[str] = frozenset()
    bits: int = 0


def is_canonical(machine: Machine, address: int) -> bool:
    """Whether bits 63:47, or 63:56 with five levels, are all equal."""
    upper = address >> (47 if machine.levels == 4 else 56)
    return upper in (0, 0x1FFFF if machine.levels == 4 else 0xFF)


def reserved_bits(machine: Machine, level: int, raw: int) -> int:
    """The reserved bits that are set in a present entry."""
    reserved = set(range(machine.maxphyaddr, 52))
    if not machine.nxe:
        reserved.add(63)
    if level >= 3 or (level == 2 and not machine.page1gb):
        reserved.add(7)
    elif level == 2 and raw >> 7 & 1:
        reserved.update(range(13, 30))
    elif level == 1 and raw >> 7 & 1:
        reserved.update(range(13, 21))
    return sum(1 << bit for bit in reserved if raw >> bit & 1)


def translate(machine: Machine, words: list[int], address: int) -> Answer:
    """The walk of an address whose root table is at physical 0; `words` are all of memory."""
    if not is_canonical(machine, address):
        return Answer("not canonical")
    table, rights = 0, {"write", "user", "execute"}
    for level in reversed(range(machine.levels)):
        number = table // 8 + address // 4096 // 512**level % 512
        if number >= len(words):
            return Answer("unbacked", level)
        raw = words[number]
        if raw % 2 == 0:
            return Answer("absent", level)
        if offending := reserved_bits(machine, level, raw):
            return Answer("malformed", level, bits=offending)
        rights -= {
            name
            for name, gives in (("write", raw & 2), ("user", raw & 4), ("execute", raw < 1 << 63))
            if not gives
        }
        frame = raw % (1 << machine.maxphyaddr) // 4096 * 4096
        if level == 0 or raw >> 7 & 1:
            page = frame // SIZES[level] * SIZES[level]
            return Answer("leaf", level, page + address % SIZES[level], frozenset(rights))
        table = frame
    raise AssertionError("level 0 cannot point")


def is_allowed(machine: Machine, rights: frozenset[str], access: Access) -> bool:
    """Whether a page with the given rights may be accessed (SDM 4.6.1)."""
    user_page, writable = "user" in rights, "write" in rights
    if access.user:
        return (
            user_page
            and {
                Kind.READ: True,
                Kind.WRITE: writable,
                Kind.FETCH: "execute" in rights,
            }[access.kind]
        )
    if access.kind is Kind.FETCH:
        return "execute" in rights and not (user_page and machine.smep)
    stopped = user_page and machine.smap and not (machine.ac and not access.implicit)
    return not stopped and (access.kind is Kind.READ or writable or not machine.wp)


def judge(machine: Machine, answer: Answer, access: Access) -> tuple[str, int]:
    """What an access comes to, and the error code of a fault."""
    if answer.end in ("unbacked", "not canonical"):
        return {"unbacked": "unknown", "not canonical": "#GP"}[answer.end], 0
    if answer.end == "leaf" and is_allowed(machine, answer.rights, access):
        return "allowed", 0
    fetch = access.kind is Kind.FETCH and (machine.smep or machine.nxe)
    error = {"absent": 0, "malformed": 0b1001, "leaf": 0b0001}[answer.end]
    return "#PF", error + 2 * (access.kind is Kind.WRITE) + 4 * access.user + 16 * fetch


SLOTS = (0, 1, 2, 255, 256, 511)
"""The slots that random tables use: the first, the last and those where the halves meet."""

TABLES = 10


def random_words(seed: int, machine: Machine, slots: tuple[int, ...] = SLOTS) -> list[int]:
    """Memory full of tables that lead to one another in every way, right and wrong."""
    source = random.Random(seed)
    words = [0] * (512 * TABLES)
    for table, slot in product(range(TABLES), slots):
        words[512 * table + slot] = _random_entry(source, machine)
    return words


def _random_entry(source: random.Random, machine: Machine) -> int:
    raw = source.getrandbits(64) & (0x7FF0 << 48 | 0xE78)
    raw |= 7 if source.random() < 0.6 else source.choice((0, 1, 3, 5))
    if source.random() < 0.15:
        raw |= 1 << 63
    if source.random() < 0.2:
        frame = source.getrandbits(machine.maxphyaddr)
        raw |= frame // SIZES[2] * SIZES[2] | source.choice((0x80, 0x1080))
        if source.random() < 0.3:
            raw |= 1 << source.randrange(13, 30)
    else:
        raw |= source.randrange(TABLES + (source.random() < 0.2)) << 12
    if source.random() < 0.05 and machine.maxphyaddr < 52:
        raw |= 1 << source.randrange(machine.maxphyaddr, 52)
    return raw


def random_addresses(seed: int, machine: Machine, count: int) -> list[int]:
    """Addresses that use the slots of random tables, and some that are not canonical."""
    source = random.Random(seed)
    found = []
    for _ in range(count):
        address = source.getrandbits(12)
        for level in range(machine.levels):
            slot = source.choice(SLOTS) if source.random() < 0.97 else source.randrange(512)
            address |= slot << 12 + 9 * level
        top = 12 + 9 * machine.levels
        if address >> top - 1:
            address |= (1 << 64) - (1 << top)
        if source.random() < 0.05:
            address ^= 1 << source.randrange(top - 1, 64)
        found.append(address)
    return found


def random_accesses(seed: int, count: int) -> list[Access]:
    source = random.Random(seed)
    return [Access(Kind(source.randrange(3)), source.random() < 0.5) for _ in range(count)]


def memory_of(words: list[int]) -> BufferMemory:
    return BufferMemory(np.array(words, np.uint64).view(np.uint8))


def disagreements(machine: Machine, seed: int, count: int = 60) -> Iterator[str]:
    """Where the library's walk, outcome, and the arrays of both depart from the rules."""
    words = random_words(seed, machine)
    memory, cpu = memory_of(words), machine.cpu()
    addresses = random_addresses(seed, machine, count)
    accesses = random_accesses(seed, count)
    many = x86_bulk.outcomes(
        cpu,
        memory,
        np.array(addresses, np.uint64),
        np.array([access.kind for access in accesses], np.uint8),
        np.array([access.user for access in accesses]),
        np.full(count, machine.ac),
    )
    for lane, (address, access) in enumerate(zip(addresses, accesses, strict=True)):
        answer = translate(machine, words, address)
        expected = judge(machine, answer, access)
        root = root_for(cpu, Virtual(address))
        got = {
            "walk": answer_of(cpu, walk(memory, root, Virtual(address)) if root else None),
            "array walk": answer_in(cpu, many.walks, lane, answer),
            "outcome": verdict_of(outcome(cpu, memory, Virtual(address), access), answer),
            "array outcome": verdict_in(many, lane),
        }
        for who, said in got.items():
            wanted = answer if who.endswith("walk") else expected
            if said != wanted:
                yield f"{machine} {address:#x} {access}: {who} {said}, the rules {wanted}"


def answer_of(cpu: Cpu, found: Walk | None) -> Answer:
    """The library's walk in the words of the rules."""
    if found is None:
        return Answer("not canonical")
    if found.unbacked is not None:
        return Answer("unbacked", found.level)
    entry = found.steps[-1].entry
    if isinstance(entry, Absent):
        return Answer("absent", found.level)
    if isinstance(entry, Malformed):
        return Answer("malformed", found.level, bits=entry.bits)
    assert found.physical is not None
    rights = frozenset(cpu.format.rights_of(found.granted))
    return Answer("leaf", found.level, found.physical, rights)


def answer_in(cpu: Cpu, walks: bulk.Walks, lane: int, answer: Answer) -> Answer:
    """One lane of the library's array walk; it does not say which bits are reserved."""
    end = bulk.End(int(walks.end[lane]))
    words = {bulk.End.NO_ROOT: "not canonical"}
    rights = frozenset(cpu.format.rights_of(int(walks.granted[lane])))
    return Answer(
        words.get(end, end.name.lower()),
        int(walks.level[lane]),
        int(walks.physical[lane]),
        rights if end == bulk.End.LEAF else frozenset(),
        answer.bits,
    )


def verdict_of(found: Outcome, answer: Answer) -> tuple[str, int]:
    """The library's outcome in the words of the rules."""
    if isinstance(found, Unbacked):
        return "unknown", 0
    if isinstance(found, Fault):
        return f"#{found.vector.name}", found.error
    assert isinstance(found, Allowed)
    return "allowed" if found.physical == answer.physical else "astray", 0


def verdict_in(many: x86_bulk.Outcomes, lane: int) -> tuple[str, int]:
    """One lane of the library's array outcomes in the words of the rules."""
    if many.unbacked[lane]:
        return "unknown", 0
    vectors = {x86_bulk.ALLOWED: "allowed", 13: "#GP", 14: "#PF"}
    return vectors[int(many.vector[lane])], int(many.error[lane])
