"""What of POWER's tables and registers may be changed to let an access pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from harness.inspect.remedy import Remedy
from harness.inspect.trial import Move, Moves, Register
from harness.inspect.trial import remedies as tried
from harness.paging.address import Virtual
from harness.paging.entry import Malformed
from harness.paging.memory import Memory
from harness.paging.power import access as rules
from harness.paging.power.access import (
    GUARDED,
    KEY_0,
    Access,
    Allowed,
    Kind,
    Reason,
    Unbacked,
    unwalked,
)
from harness.paging.power.cpu import Cpu, walk_of
from harness.paging.power.formats import CHANGE, EXECUTE, PRIVILEGED, READ, REFERENCE, WRITE
from harness.paging.table import Root, Table
from harness.paging.walk import Step, Walk


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not, the likeliest to be meant first."""
    return tried(_MOVES, cpu, memory, address, access)


class _Lack(Enum):
    """Why no rule says what an access comes to."""

    NO_MEMORY = "an entry is where no memory is"


@dataclass(frozen=True)
class _Lost:
    """A machine check, with its reason, as the others have one."""

    reason: _Lack = _Lack.NO_MEMORY


def _outcome(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Any:
    found = rules.outcome(cpu, memory, address, access)
    return _Lost() if isinstance(found, Unbacked) else found


def _walk(cpu: Cpu, memory: Memory, address: Virtual, _: Access) -> Walk | None:
    root = unwalked(cpu, address)
    return walk_of(cpu, memory, root, address) if isinstance(root, Root) else None


def _entries(_: Cpu, found: Walk, reason: Reason, __: Access) -> Iterator[Move]:
    last = found.steps[-1]
    yield from (Move(last, set_, clear) for set_, clear in _moves(last, reason))


def _moves(last: Step, reason: Reason) -> Iterator[tuple[int, int]]:
    """The bits to set and to clear in the last entry of a walk, one way after another."""
    match reason:
        case Reason.UNSUPPORTED:
            yield _wellformed(last)
        case Reason.PRIVILEGED:
            yield 0, PRIVILEGED
        case Reason.KEY:
            yield PRIVILEGED, 0
        case Reason.GUARDED:
            yield 0, GUARDED
        case Reason.READ_DENIED:
            yield READ, 0
        case Reason.WRITE_DENIED:
            yield WRITE, 0
        case Reason.EXECUTE_DENIED:
            yield EXECUTE, 0
        case Reason.NOT_REFERENCED:
            yield REFERENCE, 0
        case Reason.NOT_CHANGED:
            yield CHANGE, 0


def _wellformed(step: Step) -> tuple[int, int]:
    """The same of what makes an entry malformed."""
    slot, raw, entry = step
    assert isinstance(entry, Malformed)
    clean = slot.table.format.levels[slot.level].shape(raw).clean.value
    return clean & ~raw & entry.bits, raw & ~clean & entry.bits


def _states(cpu: Cpu, _: Walk | None, reason: Reason, access: Access) -> Iterator[Cpu]:
    if reason is Reason.KEY:
        if access.kind is Kind.FETCH:
            yield replace(cpu, iamr=cpu.iamr & ~KEY_0[access.kind])
        else:
            yield replace(cpu, amr=cpu.amr & ~KEY_0[access.kind])


def _page(cpu: Cpu, _: Table, access: Access) -> int:
    """The bits of a new page of normal memory."""
    right = {Kind.READ: READ, Kind.WRITE: WRITE, Kind.FETCH: EXECUTE}[access.kind]
    marks = 0 if cpu.sets_marks else REFERENCE | (CHANGE if access.kind.writes else 0)
    return right | marks | (0 if access.user else PRIVILEGED)


_MOVES: Final[Moves] = Moves(
    outcome=_outcome,
    allowed=Allowed,
    walk=_walk,
    absent=Reason.NOT_PRESENT,
    unbacked=_Lack.NO_MEMORY,
    entries=_entries,
    states=_states,
    registers={
        "amr": Register(
            "AMR", {"key 0, loads": KEY_0[Kind.READ], "key 0, stores": KEY_0[Kind.WRITE]},
            KEY_0[Kind.READ] | KEY_0[Kind.WRITE],
        ),
        "iamr": Register("IAMR", {"key 0": KEY_0[Kind.FETCH]}, KEY_0[Kind.FETCH]),
    },
    page=_page,
    pointer=lambda _: 0,
    address=lambda shape: shape.address_mask,
)  # fmt: skip
