"""What accesses come to on POWER, and what would let them pass: in words and as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.inspect.fault import Explanation
from harness.inspect.power.fault import SeenFault
from harness.inspect.remedy import EntryChange, Setting
from harness.paging.entry import Leaf
from harness.paging.power.access import (
    GUARDED,
    Allowed,
    Fault,
    Interrupt,
    Outcome,
    Reason,
    Unbacked,
)
from harness.paging.power.cpu import ADDRESS_BITS, QUADRANT, Cpu
from harness.paging.power.formats import (
    CHANGE,
    EXECUTE,
    LEAF,
    NEXT_SIZE,
    PRIVILEGED,
    READ,
    REFERENCE,
    WRITE,
)
from harness.report.fault import deeds_of, served
from harness.report.translation import labelled

REGISTER: Final = ""
"""Where an entry is that a register holds: there is none."""

_OF_FETCHES: Final = (Interrupt.INSTRUCTION_STORAGE, Interrupt.INSTRUCTION_SEGMENT)
_SEGMENT: Final = (Interrupt.DATA_SEGMENT, Interrupt.INSTRUCTION_SEGMENT)


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed | Unbacked):
        return comes_to(outcome)
    where = "SRR0" if outcome.interrupt in _OF_FETCHES else "DAR"
    return f"{comes_to(outcome)}, {where} {outcome.address:#x}"


def comes_to(outcome: Outcome) -> str:
    """The interrupt that several accesses raise, or what one comes to."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    if isinstance(outcome, Unbacked):
        return f"a machine check, for no memory is at {outcome.slot.address:#x}"
    said = _interrupt_text(outcome.interrupt)
    if outcome.interrupt in _SEGMENT:
        return said
    register = "SRR1" if outcome.interrupt in _OF_FETCHES else "DSISR"
    return f"{said}, {register} {outcome.status:#010x}"


def _interrupt_text(interrupt: Interrupt) -> str:
    return f"{interrupt.called} ({interrupt.value:#x})"


def seen_lines(seen: SeenFault, address: int | None) -> Iterator[str]:
    """What an interrupt says."""
    status = "" if seen.held is None else f", {seen.register} {seen.held:#010x}"
    where = "" if address is None else f", {seen.address} {address:#x}"
    yield f"{_interrupt_text(seen.interrupt)}{status}{where}"
    yield from labelled("says", seen.said)
    yield from labelled("access", [" or ".join(map(str, seen.accesses))])


def seen_object(seen: SeenFault, address: int | None, _: int | None) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "vector": hex(seen.interrupt),
        "exception": seen.interrupt.called,
        "status": None if seen.status is None else hex(seen.status),
        "address": None if address is None else hex(address),
        "said": list(seen.said),
        "raised_by": [str(access) for access in seen.accesses],
    }


def fault_object(fault: Fault | None) -> dict[str, Any]:
    """What a fault leaves behind as what JSON can hold; null where there is none."""
    return {
        "vector": fault and hex(fault.interrupt),
        "status": fault and hex(fault.status),
        "address": fault and hex(fault.address),
    }


NO_FAULT: Final = {Unbacked: "machine check"}
"""What an access comes to that neither passes nor faults."""


def is_hopeless(outcome: Outcome) -> bool:
    """Whether it is the address itself that must be another."""
    return isinstance(outcome, Fault) and outcome.reason is Reason.SEGMENT


def hopeless(_: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if is_hopeless(one.outcome):
        address = one.translation.address
        meant = address & (QUADRANT | (1 << ADDRESS_BITS) - 1)
        if (address & QUADRANT) >> 62 in (1, 2):
            yield "none of the tables: in a partition only quadrants 0 and 3 have trees"
        else:
            yield (
                f"none of the tables: the address itself must be another, {meant:#x} by its"
                " quadrant and lower bits"
            )
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.NO_PROCESS:
        yield "none of the tables: the process table must have an entry for the process"
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.BAD_TREE:
        yield (
            f"none of the tables: the process table entry must describe a tree of {ADDRESS_BITS}"
            " bits, with a root of 13 (RTS, RPDS)"
        )
    elif isinstance(one.outcome, Unbacked):
        yield "none of the tables: the process table entry must lead to a root in memory"
    else:
        yield "none that leaves tables and pages where they are"


_SET: Final = {
    LEAF: "sets L, as all valid entries of the lowest level have it",
    REFERENCE: "sets R: marks {} used",
    CHANGE: "sets C: marks {} written",
    PRIVILEGED: "sets EAA0: closes {} to problem state, and key 0 no longer denies it",
    READ: "sets EAA1: opens {} to reads",
    WRITE: "sets EAA2: opens {} to writes, and reads",
    EXECUTE: "sets EAA3: opens {} to fetches",
}
_CLEARED: Final = {
    LEAF: "clears L: has {} led to a table, as no page can be so large",
    PRIVILEGED: "clears EAA0: opens {} to problem state; privileged accesses come under key 0",
    GUARDED: "clears a bit of ATT: makes {} normal memory",
}
"""What changing a bit does to the addresses that the entry serves."""


def deeds(_: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    level, changed = entry.slot.level, entry.old ^ entry.new
    is_page = isinstance(entry.slot.table.format.decode(entry.new, level), Leaf)
    if not is_page and changed & NEXT_SIZE:
        return f"makes NLS {entry.new & NEXT_SIZE}, of {1 << (entry.new & NEXT_SIZE)} entries"
    said = [
        words
        for words in (
            (_SET if entry.new & bit else _CLEARED).get(bit)
            for bit in (*_SET, *(one for one in _CLEARED if one not in _SET))
            if changed & bit
        )
        if words is not None
    ]
    return deeds_of(said, served(entry, is_page))


def opens(setting: Setting) -> str:
    """What a change of a register does besides."""
    what = "fetch from" if setting.register == "iamr" else "use data of"
    return f"lets privileged code {what} every page of problem state"


def before_and_after(setting: Setting) -> str:
    """The bit in a register, and the register."""
    return f"1 -> 0 ({setting.old:#x} -> {setting.new:#x})"
