"""What accesses come to on RISC-V, and what would let them pass: in words and as objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.fault import Explanation
from harness.inspect.remedy import EntryChange, Setting
from harness.inspect.riscv.fault import SeenFault
from harness.paging.entry import Leaf
from harness.paging.riscv.access import Allowed, Cause, Fault, Outcome, Reason
from harness.paging.riscv.cpu import Cpu
from harness.report.fault import deeds_of, served
from harness.report.translation import labelled

REGISTER: Final = ""
"""Where an entry is that a register holds: there is none."""


def outcome_text(outcome: Outcome) -> str:
    """What an access comes to, on one line."""
    if isinstance(outcome, Allowed):
        return f"allowed, reaches {outcome.physical:#x}"
    return f"{comes_to(outcome)}, stval {outcome.tval:#x}"


def comes_to(outcome: Outcome) -> str:
    """The exception that several accesses raise, or what one comes to."""
    return outcome_text(outcome) if isinstance(outcome, Allowed) else _cause_text(outcome.cause)


def _cause_text(cause: Cause) -> str:
    return f"{cause.called} (cause {cause.value})"


def seen_lines(seen: SeenFault, stval: int | None) -> Iterator[str]:
    """What an exception says."""
    where = "" if stval is None else f", stval {stval:#x}"
    yield f"{_cause_text(seen.cause)}{where}"
    yield from labelled("access", [" or ".join(map(str, seen.accesses))])


def seen_object(seen: SeenFault, stval: int | None, _: int | None) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "cause": seen.cause.value,
        "exception": seen.cause.called,
        "tval": None if stval is None else hex(stval),
        "raised_by": [str(access) for access in seen.accesses],
    }


def fault_object(fault: Fault | None) -> dict[str, Any]:
    """What a fault leaves behind as what JSON can hold; null where there is none."""
    return {"cause": fault and fault.cause.value, "tval": fault and hex(fault.tval)}


NO_FAULT: Final[dict[type, str]] = {}
"""What an access comes to that neither passes nor faults: there is none."""


def is_hopeless(outcome: Outcome) -> bool:
    """Whether it is the address itself that must be another."""
    return isinstance(outcome, Fault) and outcome.reason is Reason.NOT_CANONICAL


def hopeless(cpu: Cpu, one: Explanation) -> Iterator[str]:
    """Why no change helps."""
    if is_hopeless(one.outcome):
        width = cpu.mode.address_bits
        low = one.translation.address & (1 << width) - 1
        meant = low | (1 << 64) - (1 << width) if low >> width - 1 else low
        yield (
            f"none of the tables: the address itself must be another, {meant:#x} by its lower bits"
        )
    elif isinstance(one.outcome, Fault) and one.outcome.reason is Reason.NO_MEMORY:
        yield "none of the tables: satp must lead to a root's table in memory"
    else:
        yield "none that leaves tables and pages where they are"


_SET: Final = {
    "R": "sets R: opens {} to reads",
    "W": "sets W: opens {} to writes",
    "X": "sets X: opens {} to fetches",
    "U": "sets U: opens {} to the user, closes it to S-mode: to fetches, and to data where SUM=0",
    "A": "sets A: marks {} used",
    "D": "sets D: marks {} written",
}
_CLEARED: Final = {
    "W": "clears W: closes {} to writes",
    "U": "clears U: keeps {} for S-mode, closed to the user",
    "PBMT": "clears a bit of PBMT: makes {} reachable",
    "N": "clears N: makes {} as large as its slot",
}
_NOT_IN_POINTERS: Final = "clears R, W and X: a pointer, whose table decides {}"
_IN_POINTERS: Final = "clears what is reserved in pointers: U, A and D"
"""What changing a bit does to the addresses that the entry serves."""


def deeds(cpu: Cpu, entry: EntryChange) -> str:
    """What a change does, and to which addresses."""
    level, changed = entry.slot.level, entry.old ^ entry.new
    made = entry.slot.table.format.decode(entry.new, level)
    is_page, cleared = isinstance(made, Leaf), _CLEARED
    if not is_page:
        cleared = {**_CLEARED, **dict.fromkeys("UAD", _IN_POINTERS)}
        cleared |= dict.fromkeys("RWX", _NOT_IN_POINTERS)
    said = []
    for part in decode.read(cpu, entry.old, level).parts:
        if not part.mask & changed or part.role is Role.IGNORED:
            continue
        named = {
            name: mask & changed
            for name, mask in cpu.format.levels[level].bits.items()
            if mask & part.mask & changed
        }
        if part.wrong and part.must_be is not None:
            said.append(f"changes reserved {part.mask & changed:#x}: {part.reason}")
        else:
            said += [(_SET if entry.new & bit else cleared)[name] for name, bit in named.items()]
    return deeds_of(said, served(entry, is_page))


_OPENS: Final = {
    "mstatus.SUM": "lets S-mode read and write every page of the user",
    "mstatus.MXR": "lets every page that can be executed be read",
    "menvcfg.ADUE": "has the hart set A and D of every page (Svadu)",
}
"""What changing a bit of a register does besides."""


def opens(setting: Setting) -> str:
    """What a change of a register does besides."""
    register, _, names = setting.name.partition(".")
    return "; ".join(_OPENS[f"{register}.{name}"] for name in names.split())


def before_and_after(setting: Setting) -> str:
    """The bits in a register, and the register."""
    each = " and ".join("0 -> 1" for _ in setting.name.split())
    return f"{each} ({setting.old:#x} -> {setting.new:#x})"
