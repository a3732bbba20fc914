"""What many accesses come to, as arrays: `x86.access` a lane.

The rules are not written again: few combinations of an access and a page's rights exist, so
the scalar rules are asked about each of them, and every lane looks its own up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.memory import Mask, Memory, Words
from harness.paging.x86 import access as rules
from harness.paging.x86.access import Access, Error, Kind, Reason, Vector
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, lam_widths
from harness.paging.x86.formats import KEY_SHIFT, KEYS, bits

ALLOWED = 255
"""In place of a vector: no exception."""

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}
_VECTOR = np.full(len(REASONS), Vector.PF, np.uint8)
_VECTOR[_CODE[None]] = ALLOWED
_OF_ADDRESSES = np.array(
    [
        _CODE[reason]
        for reason in (
            Reason.NOT_CANONICAL,
            Reason.LASS_USER,
            Reason.LASS_FETCH,
            Reason.LASS_DATA,
        )
    ]
)
"""Codes of what is wrong with an address whatever the tables say."""
_VECTOR[_OF_ADDRESSES] = Vector.GP

_WRITES = np.array([kind.writes for kind in Kind])
_STACK = np.array([kind.stack for kind in Kind])
_SHADOW = np.array([kind.shadow for kind in Kind])


def writes(kind: Bytes) -> Mask:
    """Which accesses write, by their kinds."""
    return _WRITES.take(kind)


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks     the walks that they rest on; none where LASS keeps an access from the address
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
    cpu: Cpu,
    memory: Memory,
    addresses: Words,
    kind: Bytes,
    user: Mask,
    ac: Mask,
    implicit: Mask | None = None,
) -> Outcomes:
    """What accesses come to: `kind` holds `Kind` values, `ac` EFLAGS.AC of each; none is
    implicit unless `implicit` says which.

    Raises ValueError for an address that is wider than the CPU's mode has them.
    """
    if not cpu.long and len(addresses) and int(addresses.max()) > LEGACY_SPAN.last:
        raise ValueError(f"outside long mode addresses are in {LEGACY_SPAN}")
    walks = bulk.walk(memory, cpu.roots, linear_addresses(cpu, addresses, kind))
    return judge(cpu, walks, kind, user, ac, implicit)


def linear_addresses(cpu: Cpu, pointers: Words, kind: Bytes) -> Words:
    """The addresses that accesses through `pointers` use: `cpu.linear` for arrays."""
    found = pointers
    for supervisor, width in enumerate(lam_widths(cpu)):
        if width is not None:
            metadata = np.uint64(bits(62, width))
            sign = pointers & np.uint64(bits(width - 1)) != 0
            masked = np.where(sign, pointers | metadata, pointers & ~metadata)
            chosen = (pointers >> np.uint64(63) == supervisor) & (kind != Kind.FETCH)
            found = np.where(chosen, masked, found)
    return found


def judge(
    cpu: Cpu, walks: Walks, kind: Bytes, user: Mask, ac: Mask, implicit: Mask | None = None
) -> Outcomes:
    """What the accesses come to, given the walks of their addresses."""
    access, page = _access_codes(kind, user, ac, implicit), _page_codes(cpu, walks, kind)
    leaf = walks.end == End.LEAF
    reason = _denials(cpu, access * _PAGES + page)
    error = _described(cpu, access) | _END_ERROR.take(walks.end)
    if cpu.user_keys or cpu.supervisor_keys:
        key = (walks.raw >> np.uint64(KEY_SHIFT)).astype(np.uint16) & np.uint16(KEYS - 1)
        locked = _key_denials(cpu, (access * 2 + _user_page(cpu, page)) * KEYS + key)
        error[leaf & (locked != 0)] |= np.uint32(Error.PK)
        reason = np.where(reason == 0, locked, reason)
    reason = np.where(leaf, reason, _end_reasons(cpu).take(walks.end))
    if cpu.lass:
        half = (walks.address >> np.uint64(63)).astype(np.uint16)
        apart = _separations(cpu, access << np.uint16(1) | half)
        kept = (apart != 0) & (walks.end != End.NO_ROOT)
        reason, walks = np.where(kept, apart, reason), _unwalked(walks, kept)

    vector = _VECTOR.take(reason)
    vector[(vector == Vector.GP) & _STACK.take(kind)] = Vector.SS
    page_fault = vector == Vector.PF
    error[~page_fault] = 0
    return Outcomes(walks, vector, error, page_fault, reason, walks.end == End.UNBACKED)


def _unwalked(walks: Walks, lanes: Mask) -> Walks:
    """The same, but none in `lanes`."""
    words = walks.raw, walks.physical, walks.granted, walks.above
    return Walks(
        walks.address,
        np.where(lanes, np.uint8(End.NO_ROOT), walks.end),
        np.where(lanes, np.uint8(0), walks.level),
        *(np.where(lanes, np.uint64(0), word) for word in words),
    )


# ---- every access and every page, as numbers ----

_PAGES = 1 << 4


def _access_codes(
    kind: Bytes, user: Mask, ac: Mask, implicit: Mask | None
) -> npt.NDArray[np.uint16]:
    """Each access as six bits: its kind, then user, EFLAGS.AC and implicit."""
    code = kind | user.view(np.uint8) << 3 | ac.view(np.uint8) << 4
    if implicit is not None:
        code |= implicit.view(np.uint8) << 5
    return code.astype(np.uint16)


@cache
def _access(code: int) -> tuple[Access, bool]:
    """The access that a number stands for, and its EFLAGS.AC."""
    access = Access(Kind(code & 7), bool(code >> 3 & 1), implicit=bool(code >> 5 & 1))
    return access, bool(code >> 4 & 1)


def _page_codes(cpu: Cpu, walks: Walks, kind: Bytes) -> npt.NDArray[np.uint16]:
    """Each page as four bits: the rights of the format in their order, and a shadow stack."""
    code = np.zeros(len(kind), np.uint16)
    for place, right in enumerate(cpu.format.rights.values()):
        code |= ((walks.granted & np.uint64(right)) != 0).astype(np.uint16) << place
    if _SHADOW.take(kind).any():
        code |= _shadow_stacks(cpu, walks).astype(np.uint16) << 3
    return code


def _page(cpu: Cpu, code: int) -> tuple[int, bool]:
    """The page that a number stands for: the rights granted, and whether it is a shadow stack."""
    rights = enumerate(cpu.format.rights.values())
    return sum(right for place, right in rights if code >> place & 1), bool(code >> 3)


def _user_page(cpu: Cpu, page: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return page >> np.uint16(list(cpu.format.rights).index("user")) & np.uint16(1)


def _shadow_stacks(cpu: Cpu, walks: Walks) -> Mask:
    """`access.shadow_stack` for arrays."""
    write, dirty = np.uint64(cpu.format.rights["write"]), np.uint64(cpu.format.dirty)
    shadow: Mask = (walks.above & write != 0) & (walks.raw & (write | dirty) == dirty)
    return shadow


# ---- the scalar rules, asked once for all lanes that ask the same ----


def _denials(cpu: Cpu, codes: npt.NDArray[np.uint16]) -> Bytes:
    """Code of the reason why rights deny accesses to pages, by both their numbers."""
    cpus = [replace(cpu, ac=ac) for ac in (False, True)]

    def denial(code: int) -> np.uint8:
        (access, ac), page = _access(code // _PAGES), _page(cpu, code % _PAGES)
        return _CODE[rules.denied(cpus[ac], access, *page)]

    return _answers(codes, denial).astype(np.uint8)


def _separations(cpu: Cpu, codes: npt.NDArray[np.uint16]) -> Bytes:
    """The same of LASS, by the access and bit 63 of the address."""
    cpus = [replace(cpu, ac=ac) for ac in (False, True)]

    def separation(code: int) -> np.uint8:
        access, ac = _access(code >> 1)
        return _CODE[rules.separated(cpus[ac], code & 1, access)]

    return _answers(codes, separation).astype(np.uint8)


def _key_denials(cpu: Cpu, codes: npt.NDArray[np.uint16]) -> Bytes:
    """The same of keys, by the access, whether the page is a user's, and the key."""

    def denial(code: int) -> np.uint8:
        access, _ = _access(code // KEYS // 2)
        granted = code // KEYS % 2 * cpu.format.rights["user"]
        return _CODE[rules.key_denies(cpu, access, granted, code % KEYS)]

    return _answers(codes, denial).astype(np.uint8)


def _described(cpu: Cpu, codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint32]:
    """The bits of the error code that describe accesses, by their numbers."""
    return _answers(codes, lambda code: rules.described(cpu, _access(code)[0]))


def _answers(
    codes: npt.NDArray[np.uint16], answer: Callable[[int], int | np.uint8]
) -> npt.NDArray[np.uint32]:
    """The answer to each of `codes`."""
    asked = np.bincount(codes)
    for code in np.flatnonzero(asked).tolist():
        asked[code] = answer(code)
    return asked.astype(np.uint32).take(codes)


_END_ERROR = np.zeros(len(End), np.uint32)
"""The bits of the error code that tell how a walk ended."""
_END_ERROR[End.LEAF] = Error.P
_END_ERROR[End.MALFORMED] = Error.P | Error.RSVD


def _end_reasons(cpu: Cpu) -> Bytes:
    """Code of the reason why an access faults whose walk finds no page, by its end."""
    found = np.zeros(len(End), np.uint8)
    found[End.ABSENT] = _CODE[Reason.NOT_PRESENT]
    found[End.MALFORMED] = _CODE[Reason.RESERVED]
    found[End.NO_ROOT] = _CODE[Reason.NOT_CANONICAL if cpu.long else Reason.NO_PDPTE]
    return found
