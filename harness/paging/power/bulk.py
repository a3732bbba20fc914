"""What many accesses come to, as arrays: `power.access` a lane.

The rules are not written again: few combinations of an access and a leaf's bits exist, so the
scalar rules are asked about each of them once, and every lane looks its own up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import numpy.typing as npt

from harness.paging import bulk
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.format import bits
from harness.paging.memory import Mask, Memory, Words
from harness.paging.power import access as rules
from harness.paging.power.access import Access, Kind, Reason
from harness.paging.power.cpu import OTHER_SIZE, UNTRANSLATED, Cpu
from harness.paging.power.formats import CHANGE, NEXT_SIZE, REFERENCE
from harness.paging.table import Root

ALLOWED = 0
"""In place of an interrupt: none is taken."""

REASONS = (None, *Reason)
"""What a reason code stands for; 0 is no fault."""

_CODE = {reason: np.uint8(code) for code, reason in enumerate(REASONS)}


@dataclass(frozen=True)
class Outcomes:
    """Many outcomes, one a lane.

    walks      the walks that they rest on; where the end is UNBACKED nothing is said of the access
    interrupt  uint16, a vector; ALLOWED where none is taken
    status     uint32, what DSISR holds, or SRR1 where a fetch fails
    reason     uint8, index into REASONS
    sets       uint64, the bits R and C that the processor sets in the leaf, which has them clear
    """

    walks: Walks
    interrupt: npt.NDArray[np.uint16]
    status: npt.NDArray[np.uint32]
    reason: Bytes
    sets: Words


def outcomes(
    cpu: Cpu,
    memory: Memory,
    addresses: Words,
    kind: Bytes,
    user: Mask,
    amr: Words | None = None,
    iamr: Words | None = None,
) -> Outcomes:
    """What accesses come to.

    kind       `Kind` values
    user       which are made in problem state
    amr, iamr  the registers at each, as the processor has them unless given

    Raises ValueError for an address that is translated in two stages.
    """
    return judge(cpu, walk(cpu, memory, addresses), kind, user, amr, iamr)


def walk(cpu: Cpu, memory: Memory, addresses: Words) -> Walks:
    """The walks of addresses, each in the format that its path has: `cpu.walk_of` for arrays."""
    return _in_both(cpu, lambda roots, chosen: bulk.walk(memory, roots, addresses[chosen]))


def walk_words(cpu: Cpu, words: Words, addresses: Words) -> Walks:
    """The same with the entries given instead of read, as `bulk.walk_words` takes them."""
    return _in_both(
        cpu, lambda roots, chosen: bulk.walk_words(roots, words[:, chosen], addresses[chosen])
    )


def _in_both(cpu: Cpu, walked: Callable[[Iterable[Root], slice | Mask], Walks]) -> Walks:
    """Walks in the format of the processor's smallest pages, and those again that find a page table
    of the other size."""
    found = walked(cpu.roots, slice(None))
    other = (found.end == End.MALFORMED) & (found.level == 1) & _is_of_other_size(cpu, found.raw)
    if other.any():
        again = walked(cpu.roots_in(cpu.other_format), other)
        for one in fields(Walks):
            if one.name != "address":
                getattr(found, one.name)[other] = getattr(again, one.name)
    return found


def _is_of_other_size(cpu: Cpu, raw: Words) -> Mask:
    pointer = cpu.format.levels[1].pointer
    assert pointer is not None
    wanted = pointer.clean.value & NEXT_SIZE ^ OTHER_SIZE
    other: Mask = raw & np.uint64(NEXT_SIZE) == np.uint64(wanted)
    return other


def judge(
    cpu: Cpu,
    walks: Walks,
    kind: Bytes,
    user: Mask,
    amr: Words | None = None,
    iamr: Words | None = None,
) -> Outcomes:
    """What the accesses come to, given the walks of their addresses, as `walk` makes them."""
    code = (walks.raw & np.uint64(_DECIDING)).astype(np.uint16)
    code |= kind.astype(np.uint16) << 9
    code |= user.astype(np.uint16) << 11
    code |= _keyed(cpu, kind, amr, iamr).astype(np.uint16) << 12
    reasons, marks = _answers(cpu.sets_marks)
    leaf = walks.end == End.LEAF
    reason = np.where(leaf, reasons.take(code), _END_REASON.take(walks.end))
    rootless = walks.end == End.NO_ROOT
    if rootless.any():
        reason[rootless] = _without_root(cpu, walks.address[rootless])
    place = reason.astype(np.uint16) * np.uint16(len(Kind)) + kind
    sets = np.where(leaf, marks.take(code), np.uint64(0))
    return Outcomes(walks, _INTERRUPT.take(place), _STATUS.take(place), reason, sets)


def _keyed(cpu: Cpu, kind: Bytes, amr: Words | None, iamr: Words | None) -> Mask:
    """Which accesses key 0 would deny."""
    denies = np.zeros(len(kind), np.bool_)
    for one in Kind:
        given, own = (iamr, cpu.iamr) if one is Kind.FETCH else (amr, cpu.amr)
        bit = np.uint64(rules.KEY_0[one])
        held = np.uint64(own) if given is None else given
        denies |= (kind == one) & (held & bit != 0)
    return denies


def _without_root(cpu: Cpu, addresses: Words) -> Bytes:
    """The reason of each address without a root: `access.unwalked` for arrays."""
    quadrant = addresses >> np.uint64(62)
    staged = (quadrant == 1) | (quadrant == 2)
    if cpu.hv and staged.any():
        rules.unwalked(cpu, int(addresses[staged][0]))  # raises
    found = np.full(len(addresses), _CODE[Reason.SEGMENT], np.uint8)
    fits = addresses & np.uint64(UNTRANSLATED) == 0
    for number, descriptor in ((0, cpu.quadrant0), (3, cpu.quadrant3)):
        # Where there may be such a tree, none of the addresses that fit is without a root.
        reason = Reason.NO_PROCESS if descriptor is None else Reason.BAD_TREE
        found[fits & (quadrant == number)] = _CODE[reason]
    return found


# ---- the scalar rules, asked once for all lanes that ask the same ----


_DECIDING = bits(8, 0)
"""The bits of a leaf that decide: R, C, ATT and the encoded access authority."""


@cache
def _answers(sets_marks: bool) -> tuple[Bytes, Words]:
    """Of every combination of an access with ATT and EAA, R and C of a leaf: the code of the reason
    why it faults, and the bits that the processor sets in the leaf."""
    reasons, marks = np.zeros(1 << 13, np.uint8), np.zeros(1 << 13, np.uint64)
    for code in range(1 << 13):
        number = code >> 9 & 3
        if number >= len(Kind):
            continue
        leaf, access = code & _DECIDING, Access(Kind(number), bool(code >> 11 & 1))
        keyed = rules.KEY_0[access.kind] * (code >> 12)
        fault = rules.denied(access, leaf, keyed, keyed)
        fault = fault or rules.unmarked(access, leaf, sets_marks)
        reasons[code] = _CODE[fault]
        if fault is None:
            marks[code] = (REFERENCE | (CHANGE if access.kind.writes else 0)) & ~leaf
    return reasons, marks


_END_REASON = np.zeros(len(End), np.uint8)
"""Code of the reason why an access faults whose walk finds no page, by its end."""
_END_REASON[End.ABSENT] = _CODE[Reason.NOT_PRESENT]
_END_REASON[End.MALFORMED] = _CODE[Reason.UNSUPPORTED]

_INTERRUPT = np.array(
    [
        ALLOWED if reason is None else rules.interrupt_of(kind, reason)
        for reason in REASONS
        for kind in Kind
    ],
    np.uint16,
)
_STATUS = np.array(
    [0 if reason is None else rules.status_of(kind, reason) for reason in REASONS for kind in Kind],
    np.uint32,
)
"""The interrupt, and DSISR or SRR1, by the code of the reason, then the kind."""
