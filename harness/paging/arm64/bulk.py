"""What many accesses come to, as arrays: `arm64.access` a lane.

The rules are not written again: few combinations of an access, rights and a leaf's bits exist, so
the scalar rules are asked about each of them once, and every lane looks its own up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from harness.paging import bulk
from harness.paging.arm64 import access as rules
from harness.paging.arm64.access import Access, Kind, Reason, syndrome
from harness.paging.arm64.cpu import Cpu, is_device, span_of, untagged
from harness.paging.arm64.formats import AF, AP_EL0, AP_READ_ONLY, PXN, UXN
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.format import bits
from harness.paging.memory import Mask, Memory, Words, within

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}

_WRITES = np.array([kind.writes for kind in Kind])
_UNPRIVILEGED = np.array([kind.unprivileged for kind in Kind])

LEVELS = 5
"""Levels that walks may end at, as the library counts them: its 4 is the manual's -1."""


def writes(kind: Bytes) -> Mask:
    """Which accesses write, by their kinds."""
    return _WRITES.take(kind)


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks     the walks that they rest on, of addresses without tags
    far       uint64, what FAR_EL1 holds of those that fault
    syndrome  uint32, what ESR_EL1 holds; 0 where no exception is raised
    reason    uint8, index into REASONS
    changes   uint64, the bits AF and AP[2] of the leaf that the processor changes
    may       uint64, AF where the access faults and the processor may have set it all the same
    """

    walks: Walks
    far: Words
    syndrome: npt.NDArray[np.uint32]
    reason: Bytes
    changes: Words
    may: Words


def outcomes(
    cpu: Cpu,
    memory: Memory,
    pointers: Words,
    kind: Bytes,
    el0: Mask,
    *,
    aligned: Mask | None = None,
    pan: Mask | None = None,
    uao: Mask | None = None,
) -> Outcomes:
    """What accesses come to, through pointers.

    kind      `Kind` values
    el0       which are made at EL0; the others are EL1's
    aligned   which addresses are multiples of the access's size; all unless given
    pan, uao  PSTATE.PAN and PSTATE.UAO of each, as the processor has them unless given
    """
    walks = bulk.walk(memory, cpu.roots, without_tags(cpu, pointers, kind))
    return judge(cpu, walks, kind, el0, pointers=pointers, aligned=aligned, pan=pan, uao=uao)


def without_tags(cpu: Cpu, pointers: Words, kind: Bytes) -> Words:
    """The addresses that accesses through pointers mean: `cpu.untagged` for arrays."""
    found = pointers
    for fetch, high in product((False, True), repeat=2):
        tagged = _TAG | high << 55
        top = untagged(cpu, tagged, fetch) & _TOP
        if top != _TAG:
            chosen = ((kind == Kind.FETCH) == fetch) & (_is_high(pointers) == high)
            found = np.where(chosen, pointers & np.uint64(bits(55, 0)) | np.uint64(top), found)
    return found


_TOP, _TAG = 0xFF << 56, 0x55 << 56
"""The highest byte of a pointer, and a tag that no address has there."""


def judge(
    cpu: Cpu,
    walks: Walks,
    kind: Bytes,
    el0: Mask,
    *,
    pointers: Words | None = None,
    aligned: Mask | None = None,
    pan: Mask | None = None,
    uao: Mask | None = None,
) -> Outcomes:
    """What the accesses come to, given the walks of their addresses.

    pointers  the addresses with the tags that they had, if they had any
    """
    pan, uao = _each(pan, cpu.pan, len(kind)), _each(uao, cpu.uao, len(kind))
    leaf, raw = walks.end == End.LEAF, walks.raw
    reason = np.where(
        leaf,
        _denials(cpu).take(_code(walks.granted, kind, el0, pan, uao)),
        _END_REASON.take(walks.end),
    )
    if aligned is not None:
        device = _devices(cpu).take(raw >> np.uint64(2) & np.uint64(7))
        odd = leaf & device & ~aligned & (kind != Kind.FETCH)
        reason[odd] = _CODE[Reason.ALIGNMENT]
    if not cpu.sets_access_flag:
        reason[leaf & (raw & np.uint64(AF) == 0)] = _CODE[Reason.ACCESS_FLAG]
    level = walks.level
    if (unwalked := _unwalked(cpu, walks, el0 | (_UNPRIVILEGED.take(kind) & ~uao))) is not None:
        reason = np.where(unwalked, unwalked, reason)
        level = np.where(unwalked, np.uint8(3), level)  # reported as the manual's level 0
    if aligned is not None and cpu.aligns:
        refused = ~aligned & (kind != Kind.FETCH)
        reason = np.where(refused, _CODE[Reason.UNALIGNED], reason)
        level = np.where(refused, np.uint8(3), level)  # it has none
    allowed, denied = reason == 0, reason >= _CODE[Reason.ALIGNMENT]  # those of a page, not of AF
    flag = ~raw & np.uint64(AF if cpu.sets_access_flag else 0)
    changes = np.where(allowed, flag, np.uint64(0))
    # What may be written with AP[2] set may be so by DBM.
    written = allowed & writes(kind)
    changes |= np.where(written, raw & np.uint64(AP_READ_ONLY), np.uint64(0))
    far = walks.address
    if pointers is not None:
        far = np.where(kind == Kind.FETCH, walks.address, pointers)
    codes = (reason.astype(np.intp) * LEVELS + level) * (2 * len(Kind)) + kind * 2 + el0
    found = _SYNDROMES.take(codes)
    return Outcomes(walks, far, found, reason, changes, np.where(denied, flag, np.uint64(0)))


def _each(given: Mask | None, otherwise: bool, count: int) -> Mask:
    return np.full(count, otherwise) if given is None else given


def _is_high(addresses: Words) -> Mask:
    found: Mask = addresses & np.uint64(1 << 55) != 0
    return found


def _unwalked(cpu: Cpu, walks: Walks, as_el0: Mask) -> Bytes | None:
    """The codes of the reasons why no descriptor is read, 0 where one is; None if all are."""
    kept = [half is not None and half.e0pd for half in (cpu.low, cpu.high)]
    if not any(kept) and (walks.end != End.NO_ROOT).all():
        return None
    found = np.zeros(len(as_el0), np.uint8)
    high = _is_high(walks.address)
    for half, is_high in ((cpu.low, False), (cpu.high, True)):
        here = high == is_high
        if half is None:
            found[here] = _CODE[Reason.HALF_OFF]
            continue
        inside = within(walks.address, span_of(half, is_high))
        found[here & ~inside] = _CODE[Reason.OUT_OF_RANGE]
        found[inside & (walks.end == End.NO_ROOT)] = _CODE[Reason.ROOT_SIZE]
        if half.e0pd:
            found[inside & as_el0] = _CODE[Reason.EL0_KEPT_OUT]
    return found


# ---- the scalar rules, asked once for all lanes that ask the same ----

_RIGHTS = (AP_EL0, AP_READ_ONLY, PXN, UXN)


def _code(granted: Words, kind: Bytes, el0: Mask, pan: Mask, uao: Mask) -> npt.NDArray[np.uint16]:
    """What `denied` is asked about, in ten bits: AP, PXN and UXN are the rights that there are."""
    code = (granted >> np.uint64(6) | granted >> np.uint64(51)).astype(np.uint16)
    for flags, left in ((kind, 4), (el0, 7), (pan, 8), (uao, 9)):
        code |= flags.astype(np.uint16) << left
    return code


def _denials(cpu: Cpu) -> Bytes:
    return _denials_by(cpu.wxn, cpu.epan)


@lru_cache
def _denials_by(wxn: bool, epan: bool) -> Bytes:
    """Of every such combination, the code of the reason why the access is denied."""
    cpu = Cpu.of(None, None, wxn=wxn, epan=epan)
    found = np.zeros(1 << 10, np.uint8)
    for code in range(1 << 10):
        if (number := code >> 4 & 7) >= len(Kind):
            continue
        granted = sum(right for bit, right in enumerate(_RIGHTS) if code >> bit & 1)
        access = Access(Kind(number), bool(code >> 7 & 1))
        denied = rules.denied(cpu, access, granted, bool(code >> 8 & 1), bool(code >> 9))
        found[code] = _CODE[denied]
    return found


def _devices(cpu: Cpu) -> Mask:
    """Which of the eight memory types are Device memory."""
    return np.array([is_device(cpu.memory_type(index << 2)) for index in range(8)])


_END_REASON = np.zeros(len(End), np.uint8)
"""Code of the reason why an access faults whose walk finds no page, by its end; `_unwalked` says
why there is no root."""
_END_REASON[End.ABSENT] = _CODE[Reason.INVALID]
_END_REASON[End.MALFORMED] = _CODE[Reason.ADDRESS_SIZE]
_END_REASON[End.UNBACKED] = _CODE[Reason.NO_MEMORY]


def _syndrome(reason: Reason | None, level: int, kind: Kind, el0: bool) -> int:
    """0 too for what cannot be: a fault of rights above the levels of pages."""
    manual = 3 - level
    if reason is None or (manual < 0 and reason.status not in rules.BELOW_0):
        return 0
    return syndrome(Access(kind, el0), reason, manual)


_SYNDROMES = np.array(
    [
        _syndrome(reason, level, kind, bool(el0))
        for reason in REASONS
        for level in range(LEVELS)
        for kind in Kind
        for el0 in range(2)
    ],
    np.uint32,
)
"""ESR_EL1 by the code of the reason, the level, the kind and the exception level."""
