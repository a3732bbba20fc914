"""The library beside the rules: the same CPU, storage and accesses given to both."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from harness.paging.address import Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.s390 import access as scalar
from harness.paging.s390 import bulk
from harness.paging.s390.access import Access, Allowed, Kind, Outcome, Reason
from harness.paging.s390.cpu import AddressSpace, Cpu
from tests.paging import s390_rules
from tests.paging.s390 import drawn
from tests.paging.s390_rules import KINDS, Answer, Machine


def cpu_of(machine: Machine) -> Cpu:
    """The CPU as the library has it."""
    return Cpu(machine.asce, machine.cr0, machine.edat1, machine.edat2, machine.iep)


REASONS = {
    0x05: Reason.NO_MEMORY,
    0x12: Reason.RESERVED,
    0x38: Reason.ASCE_TYPE,
}
PROTECTED = {0x80: Reason.LOW_ADDRESS, 0x04: Reason.WRITE_DENIED, 0x84: Reason.EXECUTE_DENIED}
"""The library's reasons by the code of the interruption, of protection by what the TEID says."""


def reason_of(by_rules: Answer) -> Reason | None:
    """The reason that the library should give for what the rules say."""
    if by_rules.code is None:
        return None
    if by_rules.code == 0x04:
        return PROTECTED[(by_rules.teid or 0) & 0x84]
    lack = Reason.OUTSIDE if by_rules.lacking else Reason.NOT_PRESENT
    return REASONS.get(by_rules.code, lack)


def agrees(found: Outcome, by_rules: Answer, kind: str) -> bool:
    """Whether the library's outcome is what the rules say."""
    if isinstance(found, Allowed):
        stores = kind == "store operand"
        return (by_rules.code, by_rules.absolute) == (None, found.physical) and (
            found.changes == stores
        )
    wanted = (by_rules.code, by_rules.teid, by_rules.level, reason_of(by_rules))
    return (found.code, found.teid, found.level, found.reason) == wanted


def lane_agrees(many: bulk.Outcomes, lane: int, by_rules: Answer, kind: str) -> bool:
    """Whether a lane of the library's arrays holds what the rules say."""
    code, walks = int(many.code[lane]), many.walks
    if bulk.REASONS[many.reason[lane]] is not reason_of(by_rules):
        return False
    if by_rules.code is None:
        fits = code == bulk.ALLOWED and many.teid[lane] == 0
        changes = bool(many.changes[lane]) == (kind == "store operand")
        return fits and changes and walks.physical[lane] == by_rules.absolute
    fits = (code, int(many.teid[lane])) == (by_rules.code, by_rules.teid or 0)
    return fits and not many.changes[lane]


def disagreements(machine: Machine, seed: int, count: int, one_by_one: int) -> Iterator[str]:
    """Where the library's outcomes, as arrays and one by one, depart from the rules: `count`
    accesses in random storage, the first `one_by_one` of them asked about singly too."""
    source = random.Random(seed)
    octets, cpu = bytes(drawn.storage(source)), cpu_of(machine)
    memory, space = BigEndianMemory(octets), AddressSpace(machine.space)
    addresses = [drawn.address(source, machine) for _ in range(count)]
    kinds = [drawn.kind(source) for _ in range(count)]
    many = bulk.outcomes(
        cpu,
        memory,
        np.array(addresses, np.uint64),
        np.array([KINDS.index(kind) for kind in kinds], np.uint8),
        np.full(count, machine.space, np.uint8),
    )
    for lane, (address, kind) in enumerate(zip(addresses, kinds, strict=True)):
        wanted = s390_rules.access(machine, octets, address, kind)
        what = f"{machine} {address:#x} {kind}"
        if not lane_agrees(many, lane, wanted, kind):
            yield f"{what}: the arrays differ from {wanted}"
        if lane < one_by_one:
            asked = Access(Kind(KINDS.index(kind)), bool(lane & 1), space)
            found = scalar.outcome(cpu, memory, Virtual(address), asked)
            if not agrees(found, wanted, kind):
                yield f"{what}: the library {found}, the rules {wanted}"
