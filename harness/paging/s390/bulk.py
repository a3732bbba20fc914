"""What many accesses come to, as arrays: `s390.access` a lane.

The rules are not written again: few combinations of a reason and an access exist, so the scalar
rules are asked about each of them once, and every lane looks its own up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.memory import Mask, Memory, Words
from harness.paging.s390 import access as rules
from harness.paging.s390.access import Kind, Reason
from harness.paging.s390.cpu import Cpu

ALLOWED = 255
"""In place of a code: no interruption."""

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks    the walks that they rest on
    code     uint8, that of the program interruption, ALLOWED where there is none
    teid     uint64, 0 where none is defined
    reason   uint8, index into REASONS
    changes  whether the change bit of the storage key is set
    """

    walks: Walks
    code: Bytes
    teid: Words
    reason: Bytes
    changes: Mask


def outcomes(cpu: Cpu, memory: Memory, addresses: Words, kind: Bytes, space: Bytes) -> Outcomes:
    """What accesses at addresses come to.

    kind   `Kind` values
    space  `AddressSpace` values: the one whose ASCE the CPU's state has
    """
    return judge(cpu, bulk.walk(memory, cpu.roots, addresses), kind, space)


def judge(cpu: Cpu, walks: Walks, kind: Bytes, space: Bytes) -> Outcomes:
    """What the accesses come to, given the walks of their addresses."""
    address = walks.address
    reason = _ends().take(walks.end)
    level = walks.level
    if (no_root := walks.end == End.NO_ROOT).any():
        beyond = no_root & _wider(address, cpu.mode.address_bits)
        reason = np.where(beyond, _CODE[Reason.ASCE_TYPE], reason)
        level = np.where(no_root, np.uint8(cpu.mode.level), level)
    rights = list(cpu.format.rights.items())
    given = np.zeros(len(kind), np.uint8)
    for place, (_, bit) in enumerate(rights):
        given |= (walks.granted & np.uint64(bit) != 0).astype(np.uint8) << place
    denied = _denials(cpu).take(kind.astype(np.uint16) << len(rights) | given)
    reason = np.where(walks.end == End.LEAF, denied, reason)
    if cpu.low_address_protection:
        low = np.zeros(len(kind), np.bool_)
        for part in rules.LOW:
            low |= (address >= np.uint64(part.start)) & (address < np.uint64(part.stop))
        reason = np.where(low & (kind == Kind.WRITE), _CODE[Reason.LOW_ADDRESS], reason)
    codes, marks, told = _reports()
    teid = address & np.uint64(-rules.PAGE & 2**64 - 1) | space.astype(np.uint64)
    teid |= np.where(kind == Kind.WRITE, np.uint64(rules.STORES), np.uint64(rules.FETCHES))
    teid = np.where(told.take(reason), teid | marks.take(reason), np.uint64(0))
    code = codes.take(reason.astype(np.uint16) * len(rules.TRANSLATION) + level)
    changes: Mask = (reason == 0) & (kind == Kind.WRITE)
    return Outcomes(walks, code, teid, reason, changes)


def _wider(addresses: Words, width: int) -> Mask:
    """Which addresses have more bits."""
    if width == 64:
        return np.zeros(len(addresses), np.bool_)
    found: Mask = addresses >> np.uint64(width) != 0
    return found


# ---- the scalar rules, asked once for all lanes that ask the same ----


@cache
def _ends() -> Bytes:
    """Code of the reason why an access faults whose walk finds no page, by its end."""
    found = np.zeros(len(End), np.uint8)
    found[End.ABSENT] = _CODE[Reason.NOT_PRESENT]
    found[End.MALFORMED] = _CODE[Reason.RESERVED]
    found[End.UNBACKED] = _CODE[Reason.NO_MEMORY]
    found[End.NO_ROOT] = found[End.OUTSIDE] = _CODE[Reason.OUTSIDE]
    return found


@cache
def _denials(cpu: Cpu) -> Bytes:
    """The code of the reason why an access is denied, by its kind, then the rights as bits."""
    names = list(cpu.format.rights)
    found = []
    for kind, chosen in product(Kind, range(1 << len(names))):
        given = tuple(name for place, name in enumerate(names) if chosen >> place & 1)
        found.append(_CODE[rules.denied(kind, given, cpu)])
    return np.array(found, np.uint8)


@cache
def _reports() -> tuple[Bytes, Words, Mask]:
    """By the code of the reason: that of the interruption, for each level; the bits that it has in
    the TEID; and whether there is one."""
    levels = range(len(rules.TRANSLATION))
    codes = [
        ALLOWED if reason is None else rules.code_of(reason, level)
        for reason, level in product(REASONS, levels)
    ]
    marks = np.zeros(len(REASONS), np.uint64)
    for reason, mark in rules.MARKS.items():
        marks[_CODE[reason]] = mark
    told = [reason not in (None, *rules.UNIDENTIFIED) for reason in REASONS]
    return np.array(codes, np.uint8), marks, np.array(told, np.bool_)
