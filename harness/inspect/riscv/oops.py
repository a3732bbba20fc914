"""What texts of RISC-V say of a fault.

Linux: an oops (arch/riscv/mm/fault.c, from 6.15 on with the entries of the walk; kernel/process.c
has the registers), an access fault, and a signal that a process does not handle (kernel/traps.c).
OpenSBI: a trap that it does not handle (lib/sbi/sbi_trap.c).  QEMU: the log of -d int, and `info
registers`, which gdb has too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from harness.inspect.oops import (
    COMM,
    LONGEST_REPORT,
    SEVERAL,
    Facts,
    Report,
    lines_of,
    number,
    reports_of,
    told_entries,
)
from harness.inspect.riscv import entries
from harness.inspect.riscv.fault import RAISING
from harness.inspect.riscv.last import SHOWN, by_whom, other_trap
from harness.inspect.riscv.processor import assumed as assumed_of
from harness.inspect.riscv.processor import cpu_of
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.machine.riscv.registers import registers_in
from harness.paging.riscv.access import Access, Cause, Kind
from harness.paging.riscv.cpu import Cpu, Mode, Mstatus, Satp
from harness.paging.riscv.formats import PAGE_BITS

SIGNS: Final = re.compile(
    r"\bs?badaddr: ?[0-9a-f]{8}|\bs?epc ?: [0-9a-f]{8}|\bs?epc ?: \w+\+0x"
    r"|\briscv_(?:cpu_do_interrupt|trap)[: ]|\bsbi_trap_error: |\bsatp +(?:0x)?[0-9a-f]{8}"
    r"|\b[ms]cause +(?:0x)?[0-9a-f]+\b|pgtable: \w+ pagesize, [0-9]+-bit VAs"
    r"|unhandled signal [0-9]+ code 0x"
)
"""What stands in a line of a text of RISC-V, and in none of another's."""

MODES: Final = {32: Mode.SV32, 39: Mode.SV39, 48: Mode.SV48, 57: Mode.SV57}
"""By the width of virtual addresses."""

# ---- Linux ----

_HEAD: Final = re.compile(
    r"[Uu]nable to handle kernel (?:NULL pointer dereference|paging request"
    r"|access to user memory without uaccess routines) at virtual"
    r"|\bOops - (?P<refused>[a-z]+(?: \(or AMO\))? access fault)"
    r"|(?<![^\s\[\]])(?P<comm>[^\s\[\]]+)\[[0-9]+\]: unhandled signal (?P<signal>[0-9]+)"
    r" code 0x[0-9a-f]+ at 0x(?P<at>[0-9a-f]{8,16})\b"
)
"""How reports begin: die_kernel_fault, do_trap_error and do_trap; `comm` is the last word of the
process's name, and what a console printed right before it."""

_ADDRESS: Final = re.compile(r"at virtual\s+address ([0-9a-f]{8,16})\b")
_EPC: Final = re.compile(r"\bs?epc ?: ([0-9a-f]{8,16})\b")
_STATUS: Final = re.compile(r"\bs?status: ([0-9a-f]{8,16})\b")
_BADADDR: Final = re.compile(r"\bs?badaddr: ([0-9a-f]{8,16})\b")
_CAUSE: Final = re.compile(r"\bs?cause:[\s>|]{1,16}([0-9a-f]{8,16})\b")
_TABLE: Final = re.compile(
    r"pgtable: \w+ pagesize, (?P<width>[0-9]{2})-bit VAs, pgdp=0x(?P<root>[0-9a-f]{1,16})\b"
)


def read(text: str) -> Report:
    """The first report of Linux in a text; where there is none, the last trap of OpenSBI or the
    last fault of QEMU's log, or the registers that it shows.

    Raises QuestionError for a text that holds none of these.
    """
    if lines := next(reports_of(lines_of(text), _HEAD), None):
        more = sum(1 for line in lines_of(text) if _HEAD.search(line)) - 1
        return _linux(lines, more)
    for found in (_of_opensbi(lines_of(text)), _of_qemu(lines_of(text)), _registers(text)):
        if found is not None:
            return found
    raise QuestionError(
        "the text holds no fault of RISC-V that is known here: an oops of Linux, a trap of OpenSBI,"
        " QEMU's log of -d int, or info registers"
    )


def _linux(lines: list[str], more: int) -> Report:
    head, text = _HEAD.search(lines[0]), "\n".join(lines)
    assert head is not None
    notes = []
    if more > 0:
        notes.append(SEVERAL.format(more))
    badaddr, status, cause = (number(one, text) for one in (_BADADDR, _STATUS, _CAUSE))
    said = int(head["at"], 16) if head["at"] else number(_ADDRESS, text)
    address = badaddr if said is None else said
    what = "An oops of Linux on RISC-V"
    if head["refused"]:
        what = f"An {head['refused']}" if head["refused"][0] in "aeiou" else f"A {head['refused']}"
        what += " that Linux on RISC-V reports"
    if head["signal"]:
        what = f"Signal {head['signal']}, which a process does not handle: Linux on RISC-V"
        what += f", of {head['comm'][-31:]}"
    elif comm := COMM.search(text):
        what += f", of {comm['comm'] or comm['old']}"
    code, accesses = None, tuple[Access, ...]()
    if cause is not None:
        code, accesses = _raised(cause, (True,) if head["signal"] else (True, False))
        if status is not None:
            by, users = by_whom(status, "s", ())
            notes.append(f"It came {by}.")
            code, accesses = _raised(cause, users)
    registers = {} if status is None else {"mstatus": status & (Mstatus.SUM | Mstatus.MXR)}
    mode, satp = _tables(text)
    return Report(
        what,
        address,
        code,
        number(_EPC, text),
        mode,
        told_entries(text),
        registers if satp is None else {**registers, "satp": satp},
        accesses=accesses,
        linux=True,
        notes=tuple(notes),
    )


def _raised(cause: int, users: Sequence[bool]) -> tuple[int, tuple[Access, ...]]:
    """The code of a fault, and the accesses that may have raised it; an AMO is judged as a write
    is, and need not be told besides."""
    if cause not in set(Cause):
        raise QuestionError(f"what the text reports is no fault of translation: cause {cause:#x}")
    kinds = [kind for kind in RAISING[Cause(cause)] if kind is not Kind.AMO]
    return cause, tuple(Access(kind, user) for kind in kinds for user in users)


def _tables(text: str) -> tuple[Mode | None, int | None]:
    """The mode, and satp of the tables whose entries are printed, as far as they are told."""
    found = _TABLE.search(text)
    if found is None:
        return None, None
    mode, root = MODES.get(int(found["width"])), int(found["root"], 16)
    if mode is None or root % (1 << PAGE_BITS):
        return mode, None
    try:
        return mode, Satp(mode, root >> PAGE_BITS).raw
    except ValueError:
        return mode, None


# ---- OpenSBI ----

_TRAP: Final = re.compile(r"\bsbi_trap_error: hart[0-9]+: (?P<rest>.*)")
_FIELD: Final = re.compile(r"\b(mcause|mtval|mepc|mstatus)=0x([0-9a-f]{1,16})\b")


def _of_opensbi(lines: Iterable[str]) -> Report | None:
    """The last trap that OpenSBI gave up on; of several that were nested it prints the innermost
    first."""
    shown: dict[str, int] = {}
    for line in lines:
        if not (found := _TRAP.search(line)):
            continue
        if "(error " in found["rest"]:
            shown = {}
        for name, digits in _FIELD.findall(found["rest"]):
            shown.setdefault(name, int(digits, 16))
    if not shown.keys() >= {"mcause", "mtval"}:
        return None
    return _of_trap("A trap that OpenSBI does not handle", "m", shown)


def _of_trap(what: str, mode: str, shown: Mapping[str, int]) -> Report:
    """The fault that the registers of a trap tell."""
    cause, tval = shown[f"{mode}cause"], shown[f"{mode}tval"]
    users: tuple[bool, ...] = (True, False)
    notes = []
    if cause in set(Cause) and "mstatus" in shown:
        said, users = by_whom(shown["mstatus"], mode, RAISING[Cause(cause)])
        if not users:
            raise QuestionError(
                f"the trap is of M-mode itself, whose accesses are not translated: mcause {cause},"
                f" mtval {tval:#x}"
            )
        notes.append(f"It came {said}.")
    code, accesses = _raised(cause, users)
    return Report(
        what,
        tval,
        code,
        shown.get(f"{mode}epc"),
        registers=_paging(shown),
        accesses=accesses,
        notes=tuple(notes),
    )


def _paging(shown: Mapping[str, int]) -> dict[str, int]:
    """The registers that decide how a hart translates."""
    found = {name: shown[name] for name in ("satp", "menvcfg", "senvcfg") if shown.get(name)}
    if "mstatus" in shown:
        found["mstatus"] = shown["mstatus"] & (Mstatus.SUM | Mstatus.MXR)
    return found


# ---- QEMU ----

_EXCEPTION: Final = re.compile(
    r"\briscv_(?:cpu_do_interrupt|trap):? hart: ?[0-9]+, async: ?(?P<interrupt>[01]),"
    r" cause: ?(?P<cause>[0-9a-f]{1,16}), epc: ?0x(?P<epc>[0-9a-f]{1,16}),"
    r" tval: ?0x(?P<tval>[0-9a-f]{1,16})"
)
"""riscv_cpu_do_interrupt and the trace riscv_trap (QEMU, target/riscv)."""


def _of_qemu(lines: Iterable[str]) -> Report | None:
    """The last fault of translation in a log."""
    last, count, after = None, 0, list[str]()
    for line in lines:
        found = _EXCEPTION.search(line)
        if found and found["interrupt"] == "0" and int(found["cause"], 16) in set(Cause):
            last, count, after = found, count + 1, []
        elif last and not found and len(after) < LONGEST_REPORT:
            after.append(line)
    if last is None:
        return None
    code, accesses = _raised(int(last["cause"], 16), (True, False))
    shown = registers_in("\n".join(after))
    # QEMU 11 prints epc of RV32 with its sign extended.
    epc = int(last["epc"], 16) & (1 << 4 * len(last["tval"])) - 1
    return Report(
        f"The last of {count:,} faults in a log of QEMU" if count > 1 else "A fault in QEMU's log",
        int(last["tval"], 16),
        code,
        epc,
        registers=_paging(shown),
        accesses=accesses,
        notes=("The log does not say who made the access.",),
    )


_OF_GDB: Final = re.compile(
    r"^\W*(?P<name>satp|mstatus|sstatus|menvcfg|senvcfg|[ms](?:cause|tval|epc))"
    r" +0x(?P<value>[0-9a-f]{1,16})\b"
)


def _registers(text: str) -> Report | None:
    """The registers that QEMU or gdb shows, the last of each; None where no trap's are among
    them."""
    kept = [line for line in lines_of(text) if "=" not in line]
    who, shown = "QEMU", registers_in("\n".join(kept))
    if not {"scause", "mcause", "satp"} & shown.keys():
        who, shown = "gdb", {}
        for match in filter(None, map(_OF_GDB.search, kept)):
            shown[match["name"]] = int(match["value"], 16)
        shown.setdefault("mstatus", shown.get("sstatus", 0))
    for mode in "sm":
        trap = {f"{mode}{name}" for name in ("cause", "tval", "epc")}
        if shown.keys() >= trap and shown[f"{mode}cause"] in set(Cause):
            return _of_trap(f"Registers as {who} shows them", mode, shown)
    if not {"scause", "mcause", "satp"} & shown.keys():
        return None
    rest: dict[str, int] = {name: shown[name] for name in SHOWN if name in shown}
    return Report(f"Registers as {who} shows them", registers=_paging(shown), rest=rest)


# ---- what it comes to ----


def alone(report: Report, title: str, given: Mapping[str, int]) -> Snapshot | None:
    """The entries that a report prints, with the registers given."""
    if report.address is None or not report.entries:
        return None
    registers = {**report.registers, **given}
    made = entries.snapshot(title, report.entries, report.address, registers, report.mode)
    return replace(made, notes=(*report.notes, *made.notes))


def bare(report: Report, given: Mapping[str, int]) -> tuple[Cpu, Sequence[str]]:
    """A hart in the report's mode, or else in Sv39."""
    mode, told = report.mode or Mode.SV39, {**report.registers, **given}
    registers = {"satp": Satp(mode, 0).raw, **told}
    cpu = cpu_of(registers)
    said = [] if report.mode or "satp" in told else [f"the mode is {mode.value.capitalize()}"]
    return cpu, [*said, *assumed_of(cpu, registers, "the text")]


def usual(_: Report) -> Mapping[str, int]:
    """Nothing: what is not printed is assumed of files of memory, too."""
    return {}


def facts(report: Report) -> Facts:
    """What registers say that tell no fault, and what is missing."""
    told = list(islice(_facts(report), 8))
    missing = (
        "The last trap is no fault of translation, and what was raised before it is lost: the log"
        " of QEMU's -d int has it, or the kernel's own report."
    )
    return Facts(tuple(told), (missing,), None)


def _facts(report: Report) -> Iterator[str]:
    satp = report.registers.get("satp")
    if satp is None:
        yield "No address is translated, or satp is not in the text."
    else:
        try:
            cpu = cpu_of(report.registers)
            where = f"the root's table at {cpu.base:#x}"
            yield f"Addresses are translated by {cpu.format.name}, with {where}."
        except SourceError as error:
            yield f"No hart translates so: {error}."
    if report.rest:
        xlen = 32 if satp and not satp >> 32 else 64
        yield f"Of the last traps {' and '.join(other_trap(xlen, report.rest))}."
