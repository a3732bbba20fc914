"""What of RISC-V's tables and registers may be changed to let an access pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from harness.inspect.remedy import Remedy
from harness.inspect.trial import Move, Moves, Register, each
from harness.inspect.trial import remedies as tried
from harness.paging.address import Virtual
from harness.paging.entry import Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.riscv.access import Access, Allowed, Kind, Reason, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mstatus, transformed
from harness.paging.riscv.formats import A, D, N, R, U, W, X
from harness.paging.table import Table
from harness.paging.walk import Step, Walk, walk


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not, the likeliest to be meant first."""
    found = tried(_MOVES, cpu, memory, address, access)
    return tuple(one for one in found if _keeps_pages(memory, one))


def _keeps_pages(memory: Memory, one: Remedy) -> bool:
    """Whether no page becomes a pointer, unless that is all: where a page's entry leads is no table
    to be mended, or to be made."""
    alone = len(one.entries) == 1 and one.missing is None
    changes = [(entry.old, entry.new) for entry in one.entries if not alone]
    if one.missing is not None and one.missing.slot is not None:
        slot = one.missing.slot
        held = memory.load(slot.address, slot.table.format.entry_bytes)
        changes.append((held or 0, one.missing.old))
    return not any(old & _RIGHTS and not new & _RIGHTS for old, new in changes)


_RIGHTS: Final = R | W | X


def _walk(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Walk | None:
    if access.kind is not Kind.FETCH:
        address = Virtual(transformed(cpu, address, access.user))
    root = root_for(cpu, address)
    return None if root is None else walk(memory, root, address)


_SETTINGS: Final = {
    Reason.SUM: (("mstatus", int(Mstatus.SUM)),),
    Reason.READ_DENIED: (("mstatus", int(Mstatus.MXR)),),
    Reason.NOT_ACCESSED: (("menvcfg", int(Envcfg.ADUE)),),
    Reason.NOT_DIRTY: (("menvcfg", int(Envcfg.ADUE)),),
}
"""The bits of registers by which a rule does not deny an access."""


def _states(cpu: Cpu, _: Walk | None, reason: Reason, __: Access) -> Iterator[Cpu]:
    for register, bit in _SETTINGS.get(reason, ()):
        changed: dict[str, Any] = {register: getattr(cpu, register) | bit}
        yield replace(cpu, **changed)


def _entries(_: Cpu, found: Walk, reason: Reason, access: Access) -> Iterator[Move]:
    last = found.steps[-1]
    yield from (Move(last, set_, clear) for set_, clear in _moves(last, reason, access))


def _moves(step: Step, reason: Reason, access: Access) -> Iterator[tuple[int, int]]:
    """The bits to set and to clear in the last entry of a walk, one way after another."""
    needed = X if access.kind is Kind.FETCH else R | W if access.kind.writes else R
    match reason:
        case Reason.RESERVED:
            yield from _wellformed(step, needed)
        case Reason.USER_DENIED:
            yield U, 0
        case Reason.SUM | Reason.SUPERVISOR_FETCH:
            yield 0, U
        case Reason.READ_DENIED | Reason.WRITE_DENIED | Reason.EXECUTE_DENIED:
            yield needed, 0
        case Reason.NOT_ACCESSED:
            yield A, 0
        case Reason.NOT_DIRTY:
            yield D, 0


def _wellformed(step: Step, needed: int) -> Iterator[tuple[int, int]]:
    """The same of what makes an entry malformed."""
    slot, raw, entry = step
    assert isinstance(entry, Malformed)
    level = slot.table.format.levels[slot.level]
    shape = level.shape(raw)
    for part in shape.reserved:
        if (raw ^ part.value) & part.mask:
            yield part.value & ~raw, part.mask & ~part.value & raw
            if level.pointer is not None and not shape.points:  # it was meant as one
                yield 0, (_RIGHTS | U | A | D) & raw
            if part.value:  # only a NAPOT page's size must equal a value
                yield 0, N
            return
    for odd in shape.forbidden:
        if odd.pattern.matches(raw):
            if not odd.pattern.value:
                yield needed, 0
            elif odd.pattern.mask & W:
                yield R, 0
                yield 0, W
            else:  # PBMT=3, of which either bit is one too many
                yield from ((0, bit) for bit in each(odd.pattern.mask))
            return


def _page(cpu: Cpu, _: Table, access: Access) -> int:
    bits = X if access.kind is Kind.FETCH else R | W if access.kind.writes else R
    marks = A | (D if access.kind.writes else 0)
    return bits | (U if access.user else 0) | (0 if cpu.sets_marks else marks)


_MOVES: Final[Moves] = Moves(
    outcome=outcome,
    allowed=Allowed,
    walk=_walk,
    absent=Reason.NOT_PRESENT,
    unbacked=Reason.NO_MEMORY,
    entries=_entries,
    states=_states,
    registers={
        "mstatus": Register(
            "mstatus",
            {"SUM": int(Mstatus.SUM), "MXR": int(Mstatus.MXR)},
            int(Mstatus.SUM),
        ),
        "menvcfg": Register("menvcfg", {"ADUE": int(Envcfg.ADUE)}),
    },
    page=_page,
    pointer=lambda _: 0,
    address=lambda shape: shape.address_mask,
)
