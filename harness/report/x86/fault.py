"""What accesses come to on x86, what would let them pass, and page faults that were seen: as lines
of text and as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.fault import Explanation
from harness.inspect.remedy import EntryChange, Setting
from harness.inspect.x86.fault import SeenFault
from harness.inspect.x86.likely import destination
from harness.paging.entry import Leaf
from harness.paging.x86 import formats
from harness.paging.x86.access import (
    Access,
    Allowed,
    Error,
    Fault,
    Outcome,
    Reason,
    Unbacked,
)
from harness.paging.x86.cpu import Cpu, Cr4, canonical_halves
from harness.report.decode import bits_object, bits_text
from harness.report.fault import deeds_of, served
from harness.report.text import aligned
from harness.report.translation import labelled


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    if isinstance(outcome, Fault):
        code = f"error code {outcome.error:#x}"
        spelled = error_text(outcome.error)
        cr2 = "CR2 stays" if outcome.cr2 is None else f"CR2 {outcome.cr2:#x}"
        return f"#{outcome.vector.name}, {code}{f' ({spelled})' if spelled else ''}, {cr2}"
    return f"unknown, for {outcome.slot} lies outside memory"


def error_text(code: int) -> str:
    """The names of the bits set in an error code."""
    return " ".join(str(flag.name) for flag in Error if code & flag)


def seen_lines(seen: SeenFault, cr2: int | None) -> Iterator[str]:
    """What an error code says, bit by bit."""
    where = "" if cr2 is None else f", CR2 {cr2:#x}"
    names = error_text(seen.code) or ("see below" if seen.code else "no bit set")
    yield f"#PF, error code {seen.code:#x} ({names}){where}"
    rows = [(bits_text(bit), bit.name, str(bit.value), bit.meaning) for bit in seen.bits]
    yield from (f"  {line}" for line in aligned([("bit", "name", "value", "meaning"), *rows]))
    said = list(dict.fromkeys(_without_implicit(access) for access in seen.accesses))
    yield from labelled("access", [" or ".join(said)])
    yield from labelled("never", seen.impossible)
    if seen.quirk is not None:
        yield from labelled(
            "quirk",
            (
                f"{seen.quirk.name}, of {seen.quirk.engine.upper()} in QEMU",
                seen.quirk.departs,
                seen.quirk.evidence,
            ),
        )
    yield from labelled("note", seen.hints)


def seen_object(seen: SeenFault, cr2: int | None, rip: int | None) -> dict[str, Any]:
    """A fault that was seen as what JSON can hold."""
    return {
        "error": hex(seen.code),
        "cr2": None if cr2 is None else hex(cr2),
        "rip": None if rip is None else hex(rip),
        "parts": [bits_object(bit) for bit in seen.bits],
        "raised_by": [str(access) for access in seen.accesses],
        "impossible": list(seen.impossible),
        "quirk": seen.quirk and seen.quirk.name,
        "hints": list(seen.hints),
    }


def _is_not_canonical(outcome: Outcome) -> bool:
    return isinstance(outcome, Fault) and outcome.reason is Reason.NOT_CANONICAL


def hopeless(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if isinstance(one.outcome, Unbacked):
        yield "none of the tables: CR3 must lead to a root's table in memory"
        return
    if not _is_not_canonical(one.outcome):
        yield "none that leaves tables and pages where they are"
        return
    if one.pointer:
        yield "none of the tables: the address is wrong, and what holds it must be mended"
        return
    top = formats.address_bits(cpu.levels) - 1
    address = one.translation.address
    low = address & formats.bits(top, 0)
    meant = low | formats.bits(63, top) if address >> top & 1 else low
    yield f"none of the tables: the address itself must be another, {meant:#x} by its lower bits"
    if any(address in half for half in canonical_halves(5)):
        yield "it is canonical with five levels (CR4.LA57=1, set before paging is switched on)"


_SET: Final = {
    "W": "sets W: opens {} to writes",
    "U": "sets U: opens {} to the user",
    "D": "sets D: makes {} a shadow stack",
}
_CLEARED: Final = {
    "W": "clears W: closes {} to ordinary writes",
    "U": "clears U: keeps {} for the supervisor, closed to the user",
    "XD": "clears XD: opens {} to fetches",
}
"""What changing a bit does to the addresses that the entry serves."""


def deeds(cpu: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    changed, level = entry.old ^ entry.new, entry.slot.level
    made = entry.slot.table.format.decode(entry.new, level)
    what = served(entry, isinstance(made, Leaf))
    if not isinstance(made, Leaf):
        what += ", as far as lower entries allow,"
    said: list[str] = []
    for slot in entry.slots:
        for part in decode.read(cpu, entry.old, slot.level).parts:
            if not part.mask & changed or part.role is Role.IGNORED:
                continue
            if part.role is Role.KEY:
                said.append(f"gives {{}} key {formats.key_of(entry.new)}")
            elif part.mask == formats.PS:
                said.append(f"clears PS: the entry leads to {destination(made)}")
            elif part.wrong and changed & formats.ADDRESS:
                wrong = changed & ~formats.PS
                said.append(f"clears reserved {wrong:#x}: the entry leads to {destination(made)}")
            elif part.wrong:
                said.append(f"clears reserved {part.mask & changed:#x}: makes {{}} reachable")
            elif deed := (_SET if entry.new & part.mask else _CLEARED).get(part.name):
                given = part.name == "U" and entry.new & part.mask
                said.append(f"{deed}{_taken(cpu)}" if given else deed)
    return deeds_of(said, what)


def _taken(cpu: Cpu) -> str:
    """What giving a page to the user takes from the supervisor (SDM volume 3A, 4.6.1)."""
    lost = {"fetches (SMEP)": Cr4.SMEP, "data accesses with EFLAGS.AC=0 (SMAP)": Cr4.SMAP}
    named = " and ".join(what for what, bit in lost.items() if cpu.cr4 & bit)
    return f", and closes it to the supervisor's {named}" if named else ""


_OPENS: Final = {
    "CR0.WP": "lets the supervisor write to every read-only page",
    "CR4.SMEP": "lets the supervisor execute every user page that may be executed",
    "CR4.SMAP": "lets the supervisor access every user page",
    "CR4.LASS": "opens each half of the addresses to what the other's code may do by the tables",
    "EFLAGS.AC": "lets explicit supervisor accesses reach every user page, until it is cleared",
    "EFER.NXE": "gives XD its meaning in every entry",
    "CR4.PSE": "gives PS its meaning in every PDE: 4M pages",
}
"""What changing a control bit does besides."""


def opens(setting: Setting) -> str:
    """What a change of a register does besides."""
    if setting.name in _OPENS:
        return _OPENS[setting.name]
    pages = "user" if setting.register == "pkru" else "supervisor"
    return f"opens every {pages} page of the key"


def before_and_after(setting: Setting) -> str:
    """The bits in a register, and the register."""
    changed = setting.old ^ setting.new
    bit = f"{int(bool(setting.old & changed))} -> {int(bool(setting.new & changed))}"
    return bit if setting.register == "ac" else f"{bit} ({setting.old:#x} -> {setting.new:#x})"


def _without_implicit(access: Access) -> str:
    return str(access).removeprefix("implicit ")


def fault_object(fault: Fault | None) -> dict[str, Any]:
    """What a fault leaves behind as what JSON can hold; null where there is none."""
    return {
        "vector": fault and fault.vector.name,
        "error": fault and hex(fault.error),
        "error_bits": fault and error_text(fault.error).split(),
        "cr2": None if fault is None or fault.cr2 is None else hex(fault.cr2),
    }


NO_FAULT: Final = {Unbacked: "unknown"}
"""What an access comes to that neither passes nor faults."""


def comes_to(outcome: Outcome) -> str:
    """The exception that several accesses raise, or what one comes to."""
    return f"#{outcome.vector.name}" if isinstance(outcome, Fault) else outcome_text(outcome)


def is_hopeless(outcome: Outcome) -> bool:
    """Whether it is the address itself that must be another."""
    return _is_not_canonical(outcome)


REGISTER: Final = "in memory at CR3, which is loaded again"
"""Where an entry is that a register holds."""
