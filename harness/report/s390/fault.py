"""What accesses come to on s390, and what would let them pass: in words and as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.fault import Explanation
from harness.inspect.remedy import EntryChange, Setting
from harness.inspect.s390.fault import SeenFault
from harness.paging.entry import Leaf
from harness.paging.s390.access import Allowed, Code, Fault, Outcome, Reason
from harness.paging.s390.cpu import Cpu
from harness.report.fault import deeds_of, served
from harness.report.translation import labelled

REGISTER: Final = ""
"""Where an entry is that a register holds: there is none."""


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    teid = "" if outcome.teid is None else f", TEID {outcome.teid:#x}"
    return f"{comes_to(outcome)}{teid}"


def comes_to(outcome: Outcome) -> str:
    """The program interruption that several accesses end in, or what one comes to."""
    return outcome_text(outcome) if isinstance(outcome, Allowed) else _code_text(outcome.code)


def _code_text(code: Code) -> str:
    return f"{code.called} (code {code.value:#04x})"


def seen_lines(seen: SeenFault, address: int | None) -> Iterator[str]:
    """What a program interruption says."""
    stale = seen.teid is not None and not seen.stores_teid
    teid = "" if stale or seen.teid is None else f", TEID {seen.teid:#x}"
    where = "" if address is None else f", address {address:#x}"
    yield f"{_code_text(seen.code)}{teid}{where}"
    if stale:
        yield from labelled("TEID", [f"{seen.teid:#x} is of an earlier one: this stores none"])
    accesses = " or ".join(map(str, seen.accesses)) or "none: no access leaves this TEID"
    yield from labelled("access", [accesses])


def seen_object(seen: SeenFault, address: int | None, _: int | None) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "code": hex(seen.code),
        "interruption": seen.code.called,
        "teid": None if seen.teid is None else hex(seen.teid),
        "address": None if address is None else hex(address),
        "raised_by": [str(access) for access in seen.accesses],
    }


def fault_object(fault: Fault | None) -> dict[str, Any]:
    """What a fault leaves behind as what JSON can hold; null where there is none."""
    teid = None if fault is None or fault.teid is None else hex(fault.teid)
    return {"code": fault and hex(fault.code), "teid": teid}


NO_FAULT: Final[dict[type, str]] = {}
"""What an access comes to that neither passes nor faults: there is none."""


def is_hopeless(outcome: Outcome) -> bool:
    """Whether it is the address itself that must be another."""
    return isinstance(outcome, Fault) and outcome.reason is Reason.ASCE_TYPE


def hopeless(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if is_hopeless(one.outcome):
        yield (
            f"none of these tables: a {cpu.mode.value} table serves addresses of"
            f" {cpu.mode.address_bits} bits, and this one needs a table above it (DT of the ASCE)"
        )
    elif one.translation.unknown:
        yield "none is known without that entry"
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.NO_MEMORY:
        yield "none of the tables: the ASCE must lead to a root's table in memory"
    else:
        yield "none that leaves tables and pages where they are"


_SET: Final = {
    "I": "sets I: makes {} invalid",
    "P": "sets P: closes {} to stores",
    "IEP": "sets IEP: closes {} to fetches of instructions",
}
_CLEARED: Final = {
    "I": "clears I: makes {} valid",
    "P": "clears P: opens {} to stores",
    "IEP": "clears IEP: opens {} to fetches of instructions",
    "CS": "clears CS: a private space has nothing common",
    "CR": "clears CR: a private space has nothing common",
}
"""What changing a bit does to the addresses that the entry serves."""


def deeds(cpu: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    level, changed = entry.slot.level, entry.old ^ entry.new
    made = entry.slot.table.format.decode(entry.new, level)
    said = []
    for part in decode.read(cpu, entry.new, level).parts:
        if not part.mask & changed or part.role is Role.IGNORED:
            continue
        if part.name in ("TF", "TL"):
            said.append(f"sets {part.name} to {part.value}: more of the table below is there")
        elif part.name in ("TT", "0"):
            said.append(f"sets {part.name} to {part.value}, as it must be")
        else:
            said.append((_SET if entry.new & part.mask else _CLEARED).get(part.name, part.meaning))
    return deeds_of(said, served(entry, isinstance(made, Leaf)))


_OPENS: Final = {
    "CR0.IEP": "lets every page be executed",
    "CR0.low-address-protection": "opens the first 512 bytes of the first two pages to stores",
    "ASCE.TL": "has more of the root's table be there",
}
"""What changing bits of a register does besides."""


def opens(setting: Setting) -> str:
    """What a change of a register does besides."""
    return _OPENS[setting.name]


def before_and_after(setting: Setting) -> str:
    """The register."""
    return f"{setting.old:#x} -> {setting.new:#x}"
