"""The library beside the rules: the same processor, memory and accesses given to both."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from harness.paging.address import Virtual
from harness.paging.arm64 import access as scalar
from harness.paging.arm64 import bulk
from harness.paging.arm64.access import Access, Allowed, Kind, Outcome, Reason
from harness.paging.arm64.cpu import Cpu, Features
from harness.paging.memory import BigEndianMemory, BufferMemory
from tests.paging import arm64_rules
from tests.paging.arm64 import drawn
from tests.paging.arm64_rules import KINDS, Answer, Machine

WHY = {
    ("translation", False): {Reason.HALF_OFF, Reason.OUT_OF_RANGE, Reason.EL0_KEPT_OUT},
    ("address size", False): {Reason.ROOT_SIZE},
    ("alignment", False): {Reason.UNALIGNED},
    ("translation", True): {Reason.INVALID},
    ("address size", True): {Reason.ADDRESS_SIZE},
    ("external", True): {Reason.NO_MEMORY},
    ("access flag", True): {Reason.ACCESS_FLAG},
    ("alignment", True): {Reason.ALIGNMENT},
    ("permission", True): {
        *(Reason.READ_DENIED, Reason.WRITE_DENIED, Reason.PAN, Reason.EXECUTE_DENIED),
        *(Reason.EL0_WRITABLE, Reason.WXN),
    },
}
"""The library's reasons for what the rules find wrong, before a walk has begun and after."""


def cpu_of(machine: Machine) -> Cpu:
    """The processor as the library has it."""
    return Cpu(
        ttbr0=machine.ttbr0,
        ttbr1=machine.ttbr1,
        tcr=machine.tcr,
        mair=machine.mair,
        sctlr=machine.sctlr,
        pan=machine.pan,
        uao=machine.uao,
        features=Features(
            output_bits=machine.pamax,
            lpa2=frozenset({"4K", "16K"} if machine.lpa2 else ()),
            lva=machine.lva,
            hafdbs=machine.hafdbs,
            hpds=machine.hpds,
            pan=machine.pan_level,
            e0pd=machine.e0pd,
            tbid=machine.pauth,
        ),
    )


def memory_of(machine: Machine, octets: bytearray) -> BufferMemory:
    """Memory as the library has it."""
    make = BigEndianMemory if machine.sctlr >> 25 & 1 else BufferMemory
    return make(octets, machine.ram)


def agrees(found: Outcome, by_rules: Answer, memory: BufferMemory) -> bool:
    """Whether the library's outcome is what the rules say."""
    if not isinstance(found, Allowed):
        return (
            by_rules.esr == found.syndrome
            and by_rules.far == found.far
            and by_rules.level == (None if found.level is None else 3 - found.level)
            and by_rules.may_set_af == found.may_access
            and found.reason in WHY[by_rules.why, by_rules.level is not None]
        )
    if by_rules.esr is not None or by_rules.physical != found.physical:
        return False
    after = {}
    for slot in found.accessed:
        raw = memory.load(slot.address, 8)
        assert raw is not None
        after[slot] = raw | 1 << 10
    if found.dirty is not None:
        after[found.dirty] &= ~(1 << 7)
    changed = set()
    for slot, raw in after.items():
        changed |= {(int(slot.address), raw)} - {(int(slot.address), memory.load(slot.address, 8))}
    return changed == ({by_rules.updated} if by_rules.updated else set())


def lane_agrees(many: bulk.Outcomes, lane: int, by_rules: Answer) -> bool:
    """Whether a lane of the library's arrays holds what the rules say."""
    walks, syndrome = many.walks, int(many.syndrome[lane])
    reason = bulk.REASONS[many.reason[lane]]
    if by_rules.level is not None and by_rules.level != 3 - int(walks.level[lane]):
        return False
    if by_rules.esr is not None:
        fits = syndrome == by_rules.esr and many.far[lane] == by_rules.far
        fits &= reason in WHY[by_rules.why, by_rules.level is not None]
        return fits and many.changes[lane] == 0 and many.may[lane] == by_rules.may_set_af << 10
    raw = int(walks.raw[lane])
    after = by_rules.updated[1] if by_rules.updated else raw
    fits = syndrome == 0 and reason is None and many.may[lane] == 0
    return fits and walks.physical[lane] == by_rules.physical and many.changes[lane] == raw ^ after


def disagreements(machine: Machine, seed: int, count: int, one_by_one: int) -> Iterator[str]:
    """Where the library's outcomes, as arrays and one by one, depart from the rules: `count`
    accesses in random memory, the first `one_by_one` of them asked about singly too."""
    source = random.Random(seed)
    octets, cpu = drawn.memory(source, machine), cpu_of(machine)
    memory = memory_of(machine, octets)
    pointers = [drawn.pointer(source, machine) for _ in range(count)]
    accesses = [drawn.access(source) for _ in range(count)]
    many = bulk.outcomes(
        cpu,
        memory,
        np.array(pointers, np.uint64),
        np.array([KINDS.index(kind) for kind, _, _ in accesses], np.uint8),
        np.array([el0 for _, el0, _ in accesses]),
        aligned=np.array([aligned for _, _, aligned in accesses]),
    )
    for lane, (pointer, (kind, el0, aligned)) in enumerate(zip(pointers, accesses, strict=True)):
        wanted = arm64_rules.access(machine, octets, pointer, kind, el0, aligned)
        what = (machine, hex(pointer), kind, "EL0" if el0 else "EL1")
        if not lane_agrees(many, lane, wanted):
            yield f"{what}: the arrays differ from {wanted}"
        if lane < one_by_one:
            asked = Access(Kind(KINDS.index(kind)), el0, aligned)
            found = scalar.outcome(cpu, memory, Virtual(pointer), asked)
            if not agrees(found, wanted, memory):
                yield f"{what}: the library {found}, the rules {wanted}"
