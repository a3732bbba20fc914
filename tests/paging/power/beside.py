"""The library beside the rules: the same processor, memory and accesses given to both."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import BigEndianMemory
from harness.paging.power import access as scalar
from harness.paging.power import bulk
from harness.paging.power.access import Access, Allowed, Fault, Kind, Outcome, Reason, Unbacked
from harness.paging.power.cpu import Cpu
from tests.paging import power_rules
from tests.paging.power import drawn
from tests.paging.power_rules import KINDS, Answer, Machine

WHY = {
    "segment": {Reason.SEGMENT},
    "no process": {Reason.NO_PROCESS},
    "bad tree": {Reason.BAD_TREE},
    "not valid": {Reason.NOT_PRESENT},
    "bad size": {Reason.UNSUPPORTED},
    "bad page": {Reason.UNSUPPORTED},
    "denied": {
        Reason.GUARDED,
        Reason.PRIVILEGED,
        Reason.KEY,
        Reason.READ_DENIED,
        Reason.WRITE_DENIED,
        Reason.EXECUTE_DENIED,
    },
    "not recorded": {Reason.NOT_REFERENCED, Reason.NOT_CHANGED},
}
"""The reasons that the library may give, by those of the rules."""

LEVELS = 4


def cpu_of(machine: Machine, page_bits: int) -> Cpu:
    """The machine as the library has it."""
    return Cpu(
        quadrant0=machine.user,
        quadrant3=machine.kernel,
        amr=machine.amr,
        iamr=machine.iamr,
        hv=machine.hv,
        page_bits=page_bits,
        sets_marks=machine.records,
    )


def agrees(found: Outcome, by_rules: Answer, address: int, memory: BigEndianMemory) -> bool:
    """Whether the library's outcome is what the rules say."""
    if isinstance(found, Unbacked):
        return by_rules.missing and found.slot.level == LEVELS - 1 - by_rules.read
    if isinstance(found, Fault):
        level = LEVELS - by_rules.read if by_rules.read else None
        return (
            by_rules.vector == found.interrupt
            and by_rules.status == found.status
            and found.address == address
            and found.level == level
            and found.reason in WHY[by_rules.why]
        )
    assert isinstance(found, Allowed)
    if by_rules.vector is not None or by_rules.missing or by_rules.physical != found.physical:
        return False
    marks = dict.fromkeys(found.accessed, 1 << 8)
    if found.dirty is not None:
        marks[found.dirty] |= 1 << 7
    changed = set()
    for slot, bits in marks.items():
        raw = memory.load(slot.address, 8)
        assert raw is not None
        changed |= {(int(slot.address), raw | bits)} - {(int(slot.address), raw)}
    return changed == ({by_rules.updated} if by_rules.updated else set())


def lane_agrees(many: bulk.Outcomes, lane: int, by_rules: Answer) -> bool:
    """Whether a lane of the library's arrays holds what the rules say."""
    walks = many.walks
    if by_rules.missing:
        return bool(walks.end[lane] == End.UNBACKED)
    if by_rules.read and walks.level[lane] != LEVELS - by_rules.read:
        return False
    if by_rules.vector is not None:
        return bool(
            many.interrupt[lane] == by_rules.vector
            and many.status[lane] == by_rules.status
            and bulk.REASONS[many.reason[lane]] in WHY[by_rules.why]
            and not many.sets[lane]
        )
    raw = int(walks.raw[lane])
    after = by_rules.updated[1] if by_rules.updated else raw
    fits = many.interrupt[lane] == bulk.ALLOWED and many.reason[lane] == 0
    fits = fits and walks.end[lane] == End.LEAF
    return bool(fits and walks.physical[lane] == by_rules.physical) and (
        many.sets[lane] == raw ^ after
    )


def disagreements(machine: Machine, seed: int, count: int, one_by_one: int) -> Iterator[str]:
    """Where the library's outcomes, as arrays and one by one, depart from the rules: `count`
    accesses in random memory, the first `one_by_one` of them asked about singly too."""
    source = random.Random(seed)
    octets, cpu = drawn.memory(source), cpu_of(machine, source.choice((12, 16)))
    memory = BigEndianMemory(octets)
    addresses = [drawn.address(source, machine.hv) for _ in range(count)]
    accesses = [drawn.access(source) for _ in range(count)]
    many = bulk.outcomes(
        cpu,
        memory,
        np.array(addresses, np.uint64),
        np.array([KINDS.index(kind) for kind, _ in accesses], np.uint8),
        np.array([user for _, user in accesses]),
    )
    for lane, (address, (kind, user)) in enumerate(zip(addresses, accesses, strict=True)):
        wanted = power_rules.access(machine, octets, address, kind, user)
        what = f"{machine} {address:#x} {kind} {'problem' if user else 'privileged'}"
        if not lane_agrees(many, lane, wanted):
            yield f"{what}: the arrays differ from {wanted}"
        if lane < one_by_one:
            asked = Access(Kind(KINDS.index(kind)), user)
            found = scalar.outcome(cpu, memory, Virtual(address), asked)
            if not agrees(found, wanted, address, memory):
                yield f"{what}: the library {found}, the rules {wanted}"
