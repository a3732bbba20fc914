"""The library beside the rules: the same hart, memory and accesses given to both."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv import access as scalar
from harness.paging.riscv import bulk
from harness.paging.riscv.access import Access, Allowed, Kind, Outcome, Reason
from harness.paging.riscv.cpu import Cpu
from tests.paging import riscv_rules
from tests.paging.riscv import drawn
from tests.paging.riscv_rules import KINDS, Answer, Machine

STEPS = {
    0: {Reason.NOT_CANONICAL},
    2: {Reason.NO_MEMORY},
    3: {Reason.NOT_PRESENT, Reason.RESERVED},
    4: {Reason.RESERVED},
    5: {Reason.RESERVED},
    6: {Reason.USER_DENIED, Reason.SUM, Reason.SUPERVISOR_FETCH},
    8: {Reason.READ_DENIED, Reason.WRITE_DENIED, Reason.EXECUTE_DENIED},
    9: {Reason.NOT_ACCESSED, Reason.NOT_DIRTY},
}
"""The library's reasons for what each step of the manual raises."""


def cpu_of(machine: Machine) -> Cpu:
    """The hart as the library has it."""
    return Cpu(
        satp=machine.satp,
        mstatus=machine.mstatus,
        menvcfg=machine.menvcfg,
        senvcfg=machine.senvcfg,
        xlen=machine.xlen,
        svnapot=machine.svnapot,
        svrsw60t59b=machine.svrsw60t59b,
        svade=machine.svade,
    )


def agrees(found: Outcome, by_rules: Answer, memory: BufferMemory) -> bool:
    """Whether the library's outcome is what the rules say."""
    if not isinstance(found, Allowed):
        return (
            by_rules.cause == found.cause
            and by_rules.tval == found.tval
            and by_rules.level == found.level
            and found.reason in STEPS[by_rules.step]
        )
    if by_rules.cause is not None or by_rules.physical != found.physical:
        return False
    bits = dict.fromkeys(found.accessed, 1 << 6)
    if found.dirty is not None:
        bits[found.dirty] |= 1 << 7
    changed = set()
    for slot, marks in bits.items():
        raw = memory.load(slot.address, slot.table.format.entry_bytes)
        assert raw is not None
        changed |= {(int(slot.address), raw | marks)} - {(int(slot.address), raw)}
    return changed == ({by_rules.updated} if by_rules.updated else set())


def lane_agrees(many: bulk.Outcomes, lane: int, by_rules: Answer) -> bool:
    """Whether a lane of the library's arrays holds what the rules say."""
    cause, walks = int(many.cause[lane]), many.walks
    if by_rules.level is not None and by_rules.level != walks.level[lane]:
        return False
    if by_rules.cause is not None:
        reason = bulk.REASONS[many.reason[lane]]
        fits = cause == by_rules.cause and reason in STEPS[by_rules.step]
        return fits and walks.address[lane] == by_rules.tval and not many.sets[lane]
    raw = int(walks.raw[lane])
    after = by_rules.updated[1] if by_rules.updated else raw
    fits = cause == bulk.ALLOWED and many.reason[lane] == 0
    return fits and walks.physical[lane] == by_rules.physical and many.sets[lane] == raw ^ after


def disagreements(machine: Machine, seed: int, count: int, one_by_one: int) -> Iterator[str]:
    """Where the library's outcomes, as arrays and one by one, depart from the rules: `count`
    accesses in random memory, the first `one_by_one` of them asked about singly too."""
    source = random.Random(seed)
    octets, cpu = drawn.memory(source, machine), cpu_of(machine)
    memory = BufferMemory(octets, machine.ram)
    pointers = [drawn.address(source, machine) for _ in range(count)]
    accesses = [drawn.access(source) for _ in range(count)]
    many = bulk.outcomes(
        cpu,
        memory,
        np.array(pointers, np.uint64),
        np.array([KINDS.index(kind) for kind, _ in accesses], np.uint8),
        np.array([user for _, user in accesses]),
    )
    for lane, (pointer, (kind, user)) in enumerate(zip(pointers, accesses, strict=True)):
        wanted = riscv_rules.access(machine, octets, pointer, kind, user)
        what = f"{machine} {pointer:#x} {kind} {'U' if user else 'S'}"
        if not lane_agrees(many, lane, wanted):
            yield f"{what}: the arrays differ from {wanted}"
        if lane < one_by_one:
            asked = Access(Kind(KINDS.index(kind)), user)
            found = scalar.outcome(cpu, memory, Virtual(pointer), asked)
            if not agrees(found, wanted, memory):
                yield f"{what}: the library {found}, the rules {wanted}"
