"""What of arm64's tables and registers may be changed to let an access pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from harness.inspect.remedy import Remedy
from harness.inspect.trial import Move, Moves, Register, giving
from harness.inspect.trial import remedies as tried
from harness.paging.address import Virtual
from harness.paging.arm64.access import Access, Allowed, Kind, Reason, outcome, unwalked
from harness.paging.arm64.cpu import Cpu, Sctlr, Tcr, is_device, untagged
from harness.paging.arm64.formats import AF, AP_EL0, AP_READ_ONLY, ATTR, DBM, SH, TYPE, UXN, VALID
from harness.paging.entry import Malformed
from harness.paging.memory import Memory
from harness.paging.table import Root, Table
from harness.paging.walk import Step, Walk, walk


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not, the likeliest to be meant first."""
    return tried(_MOVES, cpu, memory, address, access)


def _walk(cpu: Cpu, memory: Memory, pointer: Virtual, access: Access) -> Walk | None:
    address = Virtual(untagged(cpu, pointer, access.kind is Kind.FETCH))
    root = unwalked(cpu, address, access.is_as_el0(cpu.uao))
    return walk(memory, root, address) if isinstance(root, Root) else None


def _entries(cpu: Cpu, found: Walk, reason: Reason, access: Access) -> Iterator[Move]:
    last, as_el0 = found.steps[-1], access.is_as_el0(cpu.uao)
    match reason:
        case Reason.INVALID if last.raw & VALID and not last.slot.level:
            yield Move(last, TYPE, 0)  # a block where only pages can be, but for its type a page
        case Reason.ADDRESS_SIZE:
            assert isinstance(last.entry, Malformed)
            yield Move(last, 0, last.raw & last.entry.bits)
        case Reason.ACCESS_FLAG:
            yield Move(last, AF, 0)
        case Reason.READ_DENIED:
            yield from giving(found, "user")
        case Reason.WRITE_DENIED:
            yield from giving(found, "write")
        case Reason.EXECUTE_DENIED:
            yield from giving(found, "user execute" if as_el0 else "supervisor execute")
        case Reason.EL0_WRITABLE:
            yield _read_only(cpu, last)
            yield Move(last, 0, AP_EL0)
        case Reason.WXN:
            yield _read_only(cpu, last)
        case Reason.PAN if last.raw & AP_EL0:
            yield Move(last, 0, AP_EL0)
        case Reason.PAN:  # by EPAN, for what EL0 can execute
            yield Move(last, UXN, 0)


def _read_only(cpu: Cpu, last: Step) -> Move:
    """The page without the right to write."""
    return Move(last, AP_READ_ONLY, DBM if cpu.keeps_dirty_state else 0)


def _states(cpu: Cpu, found: Walk | None, reason: Reason, access: Access) -> Iterator[Cpu]:
    match reason:
        case Reason.PAN:
            yield replace(cpu, pan=False)
            if cpu.epan:
                yield replace(cpu, sctlr=cpu.sctlr & ~Sctlr.EPAN)
        case Reason.WXN:
            yield replace(cpu, sctlr=cpu.sctlr & ~Sctlr.WXN)
        case Reason.UNALIGNED:
            yield replace(cpu, sctlr=cpu.sctlr & ~Sctlr.A)
        case Reason.ACCESS_FLAG if cpu.features.hafdbs:
            yield replace(cpu, tcr=cpu.tcr | Tcr.HA)


def _page(cpu: Cpu, table: Table, access: Access) -> int:
    """The bits of a new page of Normal memory."""
    as_el0 = access.is_as_el0(cpu.uao)
    if access.kind is Kind.FETCH:
        names = ["user execute" if as_el0 else "supervisor execute"]
    else:
        names = [*(["user"] if as_el0 else []), *(["write"] if access.kind.writes else [])]
    bits = table.format.granting(*names) | AF
    if "SH" in table.format.levels[0].bits:
        bits |= SH
    normal = (index for index in range(8) if not is_device(cpu.memory_type(index << 2)))
    return bits | next(normal, 0) * (ATTR & -ATTR)


_REGISTERS: Final = {
    "pan": Register("PSTATE", {"PAN": 1}),
    "sctlr": Register(
        "SCTLR_EL1",
        {"A": int(Sctlr.A), "WXN": int(Sctlr.WXN), "EPAN": int(Sctlr.EPAN)},
        int(Sctlr.WXN | Sctlr.EPAN),
    ),
    "tcr": Register("TCR_EL1", {"HA": int(Tcr.HA)}),
}

_MOVES: Final[Moves] = Moves(
    outcome=outcome,
    allowed=Allowed,
    walk=_walk,
    absent=Reason.INVALID,
    unbacked=Reason.NO_MEMORY,
    entries=_entries,
    states=_states,
    registers=_REGISTERS,
    page=_page,
    pointer=lambda table: table.format.open_pointer(table.level),
    address=lambda shape: shape.address_mask | shape.reserved_mask,
)
