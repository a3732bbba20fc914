"""What many accesses come to, as arrays: `riscv.access` a lane.

The rules are not written again: few combinations of an access and a leaf's bits exist, so the
scalar rules are asked about each of them once, and every lane looks its own up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.memory import Mask, Memory, Words
from harness.paging.riscv import access as rules
from harness.paging.riscv.access import Access, Kind, Reason, access_fault, page_fault
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import A, D

ALLOWED = 255
"""In place of a cause: no exception."""

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}

_WRITES = np.array([kind.writes for kind in Kind])


def writes(kind: Bytes) -> Mask:
    """Which accesses write, by their kinds."""
    return _WRITES.take(kind)


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks   the walks that they rest on; their addresses are what tval holds of those that fault
    cause   uint8, ALLOWED where no exception is raised
    reason  uint8, index into REASONS
    sets    uint64, the bits A and D that the hart sets in the leaf, which has them clear
    """

    walks: Walks
    cause: Bytes
    reason: Bytes
    sets: Words


def outcomes(
    cpu: Cpu,
    memory: Memory,
    addresses: Words,
    kind: Bytes,
    user: Mask,
    sum: Mask | None = None,
    mxr: Mask | None = None,
) -> Outcomes:
    """What accesses come to, through pointers `addresses`.

    kind      `Kind` values
    user      which are made as U-mode; the others are S-mode's
    sum, mxr  SUM and MXR of each, as the hart has them unless given

    Raises ValueError for an address that is wider than the hart's registers.
    """
    if cpu.xlen == 32 and len(addresses) and int(addresses.max()) >> 32:
        raise ValueError(f"there is no address {int(addresses.max()):#x} on a hart of 32 bits")
    walks = bulk.walk(memory, cpu.roots, transformed(cpu, addresses, kind, user, mxr))
    return judge(cpu, walks, kind, user, sum, mxr)


def transformed(
    cpu: Cpu, pointers: Words, kind: Bytes, user: Mask, mxr: Mask | None = None
) -> Words:
    """The addresses that accesses through `pointers` use: `cpu.transformed` for arrays."""
    found = pointers
    data = (kind != Kind.FETCH) & ~_each(mxr, cpu.mxr, len(pointers))
    for made_by, chosen in ((False, ~user), (True, user)):
        if masked := cpu.pmlen(made_by):
            left = np.uint64(masked)
            signed = (pointers << left).view(np.int64) >> np.int64(masked)
            found = np.where(data & chosen, signed.view(np.uint64), found)
    return found


def judge(
    cpu: Cpu,
    walks: Walks,
    kind: Bytes,
    user: Mask,
    sum: Mask | None = None,
    mxr: Mask | None = None,
) -> Outcomes:
    """What the accesses come to, given the walks of their addresses."""
    code = ((walks.raw >> np.uint64(1)) & np.uint64(0x7F)).astype(np.uint16)
    code |= kind.astype(np.uint16) << 7
    code |= user.astype(np.uint16) << 9
    code |= _each(sum, cpu.sum, len(kind)).astype(np.uint16) << 10
    code |= _each(mxr, cpu.mxr, len(kind)).astype(np.uint16) << 11
    reasons, marks = _answers(cpu.sets_marks)
    leaf = walks.end == End.LEAF
    reason = np.where(leaf, reasons.take(code), _END_REASON.take(walks.end))
    cause = _CAUSE.take(reason * np.uint8(len(Kind)) + kind)
    sets = np.where(leaf, marks.take(code), np.uint64(0))
    return Outcomes(walks, cause, reason, sets)


def _each(given: Mask | None, otherwise: bool, count: int) -> Mask:
    return np.full(count, otherwise) if given is None else given


# ---- the scalar rules, asked once for all lanes that ask the same ----


@cache
def _answers(sets_marks: bool) -> tuple[Bytes, Words]:
    """Of every combination of an access with bits 7:1 of a leaf: the code of the reason why it
    faults, and the bits that the hart sets in the leaf."""
    reasons, marks = np.zeros(1 << 12, np.uint8), np.zeros(1 << 12, np.uint64)
    for code in range(1 << 12):
        leaf, access = (code & 0x7F) << 1, Access(Kind(code >> 7 & 3), bool(code >> 9 & 1))
        fault = rules.denied(access, leaf, bool(code >> 10 & 1), bool(code >> 11 & 1))
        fault = fault or rules.unmarked(access, leaf, sets_marks)
        reasons[code] = _CODE[fault]
        if fault is None:
            marks[code] = (A | (D if access.kind.writes else 0)) & ~leaf
    return reasons, marks


_END_REASON = np.zeros(len(End), np.uint8)
"""Code of the reason why an access faults whose walk finds no page, by its end."""
_END_REASON[End.ABSENT] = _CODE[Reason.NOT_PRESENT]
_END_REASON[End.MALFORMED] = _CODE[Reason.RESERVED]
_END_REASON[End.UNBACKED] = _CODE[Reason.NO_MEMORY]
_END_REASON[End.NO_ROOT] = _CODE[Reason.NOT_CANONICAL]


def _cause(reason: Reason | None, kind: Kind) -> int:
    if reason is None:
        return ALLOWED
    return access_fault(kind) if reason is Reason.NO_MEMORY else page_fault(kind)


_CAUSE: Bytes = np.array([_cause(reason, kind) for reason in REASONS for kind in Kind], np.uint8)
"""The cause that each kind of access reports, by the code of the reason, then the kind."""
