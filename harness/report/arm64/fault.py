"""What accesses come to on arm64, and what would let them pass: in words and as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.inspect import decode
from harness.inspect.arm64.fault import SeenFault, status_text
from harness.inspect.fault import Explanation
from harness.inspect.remedy import EntryChange, Setting
from harness.paging.arm64.access import Allowed, Fault, Outcome, Reason
from harness.paging.arm64.cpu import Cpu, is_high
from harness.paging.arm64.formats import TYPE
from harness.paging.entry import Leaf
from harness.report.fault import deeds_of, served
from harness.report.translation import labelled

REGISTER: Final = ""
"""Where an entry is that a register holds: there is none."""


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    return f"{comes_to(outcome)}, FAR {outcome.far:#x}"


def comes_to(outcome: Outcome) -> str:
    """The exception that several accesses raise, or what one comes to."""
    if isinstance(outcome, Allowed):
        return outcome_text(outcome)
    return f"{status_text(outcome.syndrome)} (ESR {outcome.syndrome:#x})"


def seen_lines(seen: SeenFault, far: int | None) -> Iterator[str]:
    """What an exception says."""
    where = "" if far is None else f", FAR {far:#x}"
    yield f"{status_text(seen.syndrome)} (ESR {seen.syndrome:#x}){where}"
    yield from labelled("says", seen.said)
    yield from labelled("access", [" or ".join(map(str, seen.accesses))] if seen.accesses else [])


def seen_object(seen: SeenFault, far: int | None, _: int | None) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "esr": hex(seen.syndrome),
        "exception": status_text(seen.syndrome),
        "far": None if far is None else hex(far),
        "said": list(seen.said),
        "raised_by": [str(access) for access in seen.accesses],
    }


def fault_object(fault: Fault | None) -> dict[str, Any]:
    """What a fault leaves behind as what JSON can hold; null where there is none."""
    return {"esr": fault and hex(fault.syndrome), "far": fault and hex(fault.far)}


NO_FAULT: Final[dict[type, str]] = {}
"""What an access comes to that neither passes nor faults: there is none."""


def is_hopeless(outcome: Outcome) -> bool:
    """Whether it is the address itself that must be another."""
    return isinstance(outcome, Fault) and outcome.reason is Reason.OUT_OF_RANGE


def hopeless(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if is_hopeless(one.outcome):
        address = one.translation.address
        high = is_high(address)
        half = cpu.high if high else cpu.low
        assert half is not None
        low = address & (1 << half.address_bits) - 1
        meant = low | ((1 << 64) - (1 << half.address_bits) if high else 0)
        yield (
            f"none of the tables: the address itself must be another, {meant:#x} by bit 55 and its"
            " lower bits"
        )
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.NO_MEMORY:
        yield "none of the tables: TTBR0_EL1 or TTBR1_EL1 must lead to a root's table in memory"
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.ROOT_SIZE:
        yield "none of the tables: the root must be within the output size, or IPS be larger"
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.UNALIGNED:
        yield "none of the tables: with SCTLR_EL1.A=0 the access faults there all the same"
    else:
        yield "none that leaves tables and pages where they are"


_SET: Final = {
    "AP[1]": "sets AP[1]: opens {} to EL0; EL1 executes nothing there that EL0 can write",
    "AP[2]": "sets AP[2]: closes {} to writes",
    "AF": "sets AF: marks {} used",
    "PXN": "sets PXN: EL1 executes nothing of {}",
    "UXN": "sets UXN: EL0 executes nothing of {}",
    "DBM": "sets DBM: lets the processor open {} to writes",
}
_CLEARED: Final = {
    "AP[1]": "clears AP[1]: closes {} to EL0",
    "AP[2]": "clears AP[2]: opens {} to writes",
    "DBM": "clears DBM: closes {} to writes",
    "PXN": "clears PXN: EL1 executes {}",
    "UXN": "clears UXN: EL0 executes {}",
    "PXNTable": "clears PXNTable: EL1 executes of {} what entries below say",
    "UXNTable": "clears UXNTable: EL0 executes of {} what entries below say",
    "APTable[0]": "clears APTable[0]: EL0 reaches of {} what entries below say",
    "APTable[1]": "clears APTable[1]: opens {} to writes as entries below say",
    "AttrIndx": "chooses Normal memory in place of Device for {}",
}
"""What changing a bit does to the addresses that the entry serves."""


def deeds(cpu: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    level, changed = entry.slot.level, entry.old ^ entry.new
    format = entry.slot.table.format
    names = format.levels[level].shape(entry.old).bits
    said = ["sets bit 1: makes {} valid"] if changed & TYPE else []
    said += [
        (_SET if entry.new & mask & changed else _CLEARED)[name]
        for name, mask in names.items()
        if mask & changed
    ]
    wrong = [
        part
        for part in decode.read(_reading(cpu, entry), entry.old, level).parts
        if part.wrong and part.mask & changed
    ]
    said += [f"changes {part.mask & changed:#x}: {part.reason}" for part in wrong]
    return deeds_of(said, served(entry, isinstance(format.decode(entry.new, level), Leaf)))


def _reading(cpu: Cpu, entry: EntryChange) -> Cpu:
    """The state that reads the entry: that of its half."""
    format = entry.slot.table.format
    return next(one for one in cpu.parts if one.format is format)


_OPENS: Final = {
    "SCTLR_EL1.A": "lets data of any page of Normal memory be anywhere",
    "SCTLR_EL1.WXN": "lets every page be executed that can be written",
    "SCTLR_EL1.EPAN": "lets EL1 use data of all pages that EL0 can only execute",
    "PSTATE.PAN": "lets EL1 read and write every page of EL0",
    "TCR_EL1.HA": "has the processor set AF of every page",
}
"""What changing a bit of a register does besides."""


def opens(setting: Setting) -> str:
    """What a change of a register does besides."""
    register, _, names = setting.name.partition(".")
    return "; ".join(_OPENS[f"{register}.{name}"] for name in names.split())


def before_and_after(setting: Setting) -> str:
    """The bit in a register, and the register."""
    bits = "0 -> 1" if setting.new > setting.old else "1 -> 0"
    return bits if setting.register == "pan" else f"{bits} ({setting.old:#x} -> {setting.new:#x})"
