"""What many accesses come to, as arrays: `x86.access` a lane, and equal to it by test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.memory import Mask, Memory, Words
from harness.paging.x86.access import Error, Kind, Reason, Vector
from harness.paging.x86.cpu import Cpu

ALLOWED = 255
"""In place of a vector: no exception."""

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks     the walks that they rest on
    vector    uint8, ALLOWED where no exception is raised
    error     uint32, the error code
    sets_cr2  whether the exception writes the address to CR2
    reason    uint8, index into REASONS
    unbacked  whether an entry would come from memory that is not there, so that the rules
              do not say what happens; the other fields mean nothing then
    """

    walks: Walks
    vector: Bytes
    error: npt.NDArray[np.uint32]
    sets_cr2: Mask
    reason: Bytes
    unbacked: Mask


def outcomes(
    cpu: Cpu, memory: Memory, addresses: Words, kind: Bytes, user: Mask, ac: Mask
) -> Outcomes:
    """What explicit accesses come to: `kind` holds `Kind` values, `ac` EFLAGS.AC of each."""
    return judge(cpu, bulk.walk(memory, cpu.roots, addresses), kind, user, ac)


def judge(cpu: Cpu, walks: Walks, kind: Bytes, user: Mask, ac: Mask) -> Outcomes:
    """What the accesses come to, given the walks of their addresses."""
    rights = cpu.format.rights
    page_user = (walks.granted & np.uint64(rights["user"])) != 0
    writable = (walks.granted & np.uint64(rights["write"])) != 0
    executable = (walks.granted & np.uint64(rights["execute"])) != 0
    fetch, write = kind == Kind.FETCH, kind == Kind.WRITE
    on_user_page = ~user & page_user

    reason = np.zeros(len(kind), np.uint8)
    # The first rule that denies is the reason, so the last written comes first in the order.
    reason[write & ~writable & (user | cpu.wp)] = _CODE[Reason.WRITE_DENIED]
    reason[fetch & ~executable] = _CODE[Reason.EXECUTE_DENIED]
    if cpu.smap:
        reason[on_user_page & ~fetch & ~ac] = _CODE[Reason.SMAP]
    if cpu.smep:
        reason[on_user_page & fetch] = _CODE[Reason.SMEP]
    reason[user & ~page_user] = _CODE[Reason.USER_DENIED]
    reason[walks.end == End.MALFORMED] = _CODE[Reason.RESERVED]
    reason[walks.end == End.ABSENT] = _CODE[Reason.NOT_PRESENT]
    reason[walks.end == End.NO_ROOT] = _CODE[Reason.NOT_CANONICAL]

    canonical = walks.end != End.NO_ROOT
    page_fault = (reason != 0) & canonical
    error = np.zeros(len(kind), np.uint32)
    error[walks.end != End.ABSENT] |= int(Error.P)
    error[walks.end == End.MALFORMED] |= int(Error.RSVD)
    error[write] |= int(Error.W)
    error[user] |= int(Error.U)
    if cpu.smep or cpu.nxe:
        error[fetch] |= int(Error.I)
    error[~page_fault] = 0

    vector = np.full(len(kind), ALLOWED, np.uint8)
    vector[page_fault] = Vector.PF
    vector[~canonical] = Vector.GP
    return Outcomes(walks, vector, error, page_fault, reason, walks.end == End.UNBACKED)
