"""The library beside the rules: the same CPU state, memory and accesses given to both."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86 import bulk
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Outcome, Unbacked, outcome
from harness.paging.x86.cpu import Cpu, Mode
from harness.paging.x86.load import load
from tests.paging import rules
from tests.paging.rules import KINDS, Answer, Machine, Translation
from tests.paging.x86 import drawn

SIZES = (4 << 10, 2 << 20, 1 << 30)
"""What a leaf of long mode at levels 0, 1 and 2 spans, in bytes."""

READERS = [
    Machine(levels, maxphyaddr, nxe, page1gb)
    for levels, maxphyaddr in product((4, 5), (36, 40, 52))
    for nxe, page1gb in product((True, False), repeat=2)
]
"""Every kind of machine in long mode that reads entries in its own way."""

STATES = [
    replace(reader, wp=wp, smep=smep, smap=smap, ac=ac)
    for reader in READERS
    for wp, smep, smap, ac in product((True, False), repeat=4)
]
"""The same under what decides about rights."""


def cpu_of(machine: Machine, root: int | None = None) -> Cpu:
    """The machine as the library has it; registers are made up bit by bit (SDM 2.5, 2.2.1)."""
    long = machine.levels >= 4
    cr0 = 1 << 31 | 1 << 0 | machine.wp << 16
    cr4 = 1 << 7 | machine.pse << 4 | (machine.levels > 2) << 5 | (machine.levels == 5) << 12
    cr4 |= machine.pcide << 17 | machine.smep << 20 | machine.smap << 21
    cr4 |= machine.pke << 22 | machine.pks << 24
    cr4 |= machine.lass << 27 | machine.lam_sup << 28
    cr3 = machine.cr3 if root is None else root
    return Cpu(
        cr0,
        cr3 | machine.lam_u57 << 61 | machine.lam_u48 << 62,
        cr4,
        (1 << 8 | 1 << 10) * long | machine.nxe << 11,
        ac=machine.ac,
        maxphyaddr=machine.maxphyaddr,
        page1gb=machine.page1gb,
        pse36=machine.pse36,
        lam=machine.lam,
        amd=machine.amd,
        pkru=machine.pkru,
        pkrs=machine.pkrs,
        pdptes=machine.pdptes,
    )


def memory_of(words: Sequence[int]) -> BufferMemory:
    """Memory that begins with the given words and holds nothing else."""
    return BufferMemory(np.array(words, np.uint64).view(np.uint8))


# ---- at random ----

MODES = {2: Mode.BITS_32, 3: Mode.PAE, 4: Mode.LEVEL_4, 5: Mode.LEVEL_5}
"""The library's modes by the levels of a machine."""


def random_memory(
    seed: int, machine: Machine, slots: tuple[int, ...] | None = None
) -> BufferMemory:
    """Memory full of tables that lead to one another in every way, right and wrong."""
    return drawn.memory(random.Random(seed), MODES[machine.levels], machine.maxphyaddr, slots)


def random_addresses(seed: int, machine: Machine, count: int) -> list[int]:
    """Addresses at every edge, then some that use the entries of random memory, of which in long
    mode a few are not canonical."""
    source = random.Random(seed)
    few = [drawn.address(source, MODES[machine.levels]) for _ in range(count)]
    return (edges_of(machine) + few)[:count]


def edges_of(machine: Machine) -> list[int]:
    """The first and last addresses of all, and those at the ends of both halves, inside and out."""
    if machine.levels < 4:
        return [0, 0xFFFF_FFFF]
    half = 1 << (47 if machine.levels == 4 else 56)
    ends = [0, half - 1, half, -half - 1, -half, -1]
    return [address % (1 << 64) for address in ends]


def _random_pdptes(source: random.Random, machine: Machine) -> bytes:
    """Four, of which one in twenty has a bit set that is reserved, if it is present."""
    found = bytearray()
    for _ in range(4):
        raw = source.randrange(drawn.TABLES) << 12 | source.getrandbits(3) << 9
        raw |= source.choice([0, 1, 1]) | source.getrandbits(2) << 3
        if source.random() < 0.05:
            raw |= 1 << source.choice([1, 2, 5, 6, 7, 8, *range(machine.maxphyaddr, 64)])
        found += raw.to_bytes(8, "little")
    return bytes(found)


def random_machine(source: random.Random, levels: int) -> Machine:
    """A machine in a mode, every other bit of its state at random."""
    flags = ("nxe", "page1gb", "wp", "smep", "smap", "ac", "pse", "pse36", "pke", "pks", "pcide")
    found = Machine(levels, source.choice((32, 33, 36, 39, 40, 41, 46, 51, 52)))
    found = replace(found, **{name: source.random() < 0.5 for name in flags})  # type: ignore[arg-type]
    keys = {name: source.getrandbits(32) for name in ("pkru", "pkrs")}
    found = replace(found, amd=source.random() < 0.3, **keys)  # type: ignore[arg-type]
    found = replace(found, lass=source.random() < 0.3)
    if levels >= 4 and source.random() < 0.2:
        lam = {name: source.random() < 0.5 for name in ("lam_u48", "lam_u57", "lam_sup")}
        found = replace(found, lam=True, **lam)  # type: ignore[arg-type]
    return found


def random_accesses(seed: int, count: int) -> list[Access]:
    """Reads, writes and fetches of the user and the supervisor."""
    source = random.Random(seed)
    return [Access(Kind(source.randrange(3)), source.random() < 0.5) for _ in range(count)]


# ---- beside each other ----


def asked(
    machine: Machine, memory: bytes | bytearray, address: int, access: Access
) -> Answer | None:
    """What the rules say of an access."""
    kind = KINDS[int(access.kind)]
    return rules.access(machine, memory, address, kind, access.user, access.implicit)


def said(found: Outcome) -> Answer | None:
    """The library's outcome in the words of the rules."""
    if isinstance(found, Unbacked):
        return None
    if isinstance(found, Fault):
        return Answer(int(found.vector), found.error, found.cr2)
    assert isinstance(found, Allowed)
    accessed = tuple(int(slot.address) for slot in found.accessed)
    dirty = None if found.dirty is None else int(found.dirty.address)
    return Answer(None, 0, None, int(found.physical), accessed, dirty)


def walk_of(cpu: Cpu, memory: BufferMemory, address: Virtual) -> Translation:
    """The library's walk in the words of the rules."""
    root = root_for(cpu, address)
    if root is None:
        return Translation("not canonical" if cpu.long else "no PDPTE", None)
    found = walk(memory, root, address)
    used = tuple((int(step.slot.address), step.raw) for step in found.steps)
    if found.unbacked is not None:
        return Translation("no memory", found.level, used)
    entry = found.steps[-1].entry
    if isinstance(entry, Absent):
        return Translation("not present", found.level, used)
    if isinstance(entry, Malformed):
        return Translation("reserved", found.level, used, offending=entry.bits)
    assert found.physical is not None
    return Translation("page", found.level, used, int(found.physical))


ENDS = {
    "page": End.LEAF,
    "not present": End.ABSENT,
    "reserved": End.MALFORMED,
    "no memory": End.UNBACKED,
    "not canonical": End.NO_ROOT,
    "kept apart": End.NO_ROOT,
    "no PDPTE": End.NO_ROOT,
}
"""What the library's arrays call the ends of walks."""


Lane = tuple[int, int, bool, bool, int, int, int]
"""Vector, error code, whether CR2 is set, whether memory is missing; end, level and physical
address of the walk."""


def lanes_of(many: bulk.Outcomes) -> list[Lane]:
    """What the library's arrays hold of each access; A and D they do not."""
    columns = (many.vector, many.error, many.sets_cr2, many.unbacked)
    walks = (many.walks.end, many.walks.level, many.walks.physical)
    return list(zip(*(column.tolist() for column in (*columns, *walks)), strict=True))


def lane_by(rules: Answer | None, walked: Translation, got: Lane) -> Lane:
    """The same by the rules; what means nothing is as the library has it."""
    walk = (ENDS[walked.end], walked.level or 0, walked.physical)
    if rules is None:
        return (*got[:3], True, *walk)
    vector = bulk.ALLOWED if rules.vector is None else rules.vector
    return (vector, rules.error, rules.cr2 is not None, False, *walk)


def disagreements(
    machine: Machine, seed: int, count: int = 60, scalar: int | None = None
) -> Iterator[str]:
    """Where the library's outcomes, one by one and as arrays, depart from the rules: `count`
    accesses in random memory, `scalar` of them one by one, all unless it says otherwise."""
    source, memory = random.Random(seed), bytearray(random_memory(seed, machine).octets)
    cr3 = source.randrange(drawn.TABLES) << 12 | source.getrandbits(12)
    if machine.levels == 3:
        memory[cr3 & -32 : (cr3 & -32) + 32] = _random_pdptes(source, machine)
    if machine.levels > 3 and source.random() < 0.1:
        beyond = set(range(machine.maxphyaddr, 64)) - ({61, 62} if machine.lam else set())
        cr3 |= 1 << source.choice(sorted(beyond))
    if machine.levels != 3 and source.random() < 0.1:
        top = 32 if machine.levels == 2 else machine.maxphyaddr
        cr3 |= 1 << source.choice((top - 1, source.randrange(20, top)))
    where = BufferMemory(memory)
    loaded, cpu = rules.load_cr3(machine, memory, cr3), _loaded(machine, where, cr3)
    if loaded is None or cpu is None:
        if (loaded is None) != (cpu is None):
            yield f"{machine}: MOV CR3 of {cr3:#x} gives {cpu}, by the rules {loaded}"
        return
    addresses = [_with_metadata(source, machine, a) for a in random_addresses(seed, machine, count)]
    accesses = [drawn.access(source) for _ in range(count)]
    lanes = lanes_of(_outcomes(cpu, where, addresses, accesses))
    for lane, (address, access) in enumerate(zip(addresses, accesses, strict=True)):
        kind = KINDS[int(access.kind)]
        linear = rules.without_metadata(loaded, address, kind)
        wanted = rules.access(loaded, memory, address, kind, access.user, access.implicit)
        walked = rules.walk(loaded, memory, linear)
        apart = rules.is_kept_apart(loaded, linear, kind, access.user, access.implicit)
        ended = Translation("kept apart", None) if apart else walked
        found: list[tuple[object, object]] = [(lanes[lane], lane_by(wanted, ended, lanes[lane]))]
        if scalar is None or lane < scalar:
            found += [
                (said(outcome(cpu, where, Virtual(address), access)), wanted),
                (walk_of(cpu, where, Virtual(linear)), walked),
            ]
        for got, by_rules in found:
            if got != by_rules:
                yield f"{loaded} {address:#x} {access}: the library {got}, the rules {by_rules}"


def _with_metadata(source: random.Random, machine: Machine, address: int) -> int:
    """The address as a pointer that may carry metadata, where the machine masks it."""
    return address ^ source.getrandbits(15) << 48 if machine.lam else address


def _loaded(machine: Machine, memory: BufferMemory, cr3: int) -> Cpu | None:
    """The CPU with the registers that loading CR3 gives it, None for #GP(0)."""
    now = cpu_of(machine, 0)
    found = load(now, replace(now, cr3=now.cr3 | cr3), memory)
    return found if isinstance(found, Cpu) else None


def _outcomes(
    cpu: Cpu, memory: BufferMemory, addresses: list[int], accesses: list[Access]
) -> bulk.Outcomes:
    return bulk.outcomes(
        cpu,
        memory,
        np.array(addresses, np.uint64),
        np.array([access.kind for access in accesses], np.uint8),
        np.array([access.user for access in accesses]),
        np.full(len(accesses), cpu.ac),
        np.array([access.implicit for access in accesses]),
    )
