"""What texts of arm64 say of an abort.

Linux: an oops (arch/arm64/mm/fault.c: die_kernel_fault, mem_abort_decode, show_pte).  QEMU: the log
of -d int (target/arm/helper.c: arm_log_exception).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.inspect.arm64 import entries
from harness.inspect.arm64.entries import Tables
from harness.inspect.oops import (
    COMM,
    LONGEST_REPORT,
    SEVERAL,
    Facts,
    Report,
    lines_of,
    number,
    reports_of,
    told_address,
    told_entries,
)
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.arm64.cpu import Cpu, is_high

SIGNS: Final = re.compile(
    r"\[[0-9a-f]{16}\] \*pgd=[0-9a-f]{16}|\bInternal error: [^:]{1,48}: (?:0{8})?(?:82|86|92|96)"
    r"[0-9a-f]{6} \[#|\bunhandled exception: [DI]ABT \(|\bMem abort info:"
    r"|\bESR = 0x[0-9a-f]{8}|pgtable: [0-9]+k pages, [0-9]+-bit VAs"
    r"|\bpstate: [0-9a-f]{8} \(|\.\.\.with (?:ESR 0x[0-9a-f]+/0x|FAR 0x|ELR 0x)[0-9a-f]"
)
"""What stands in a line of a text of arm64, and in none of another's."""

_HEAD: Final = re.compile(
    r"[Uu]nable to handle kernel [a-zA-Z -]{4,48} at virtual"
    r"|\bUnhandled fault(?:: [^(]{1,48} \(0x[0-9a-f]{8,16}\))? at 0x[0-9a-f]{8,16}"
)
_ADDRESS: Final = re.compile(
    r"at virtual\s+address ([0-9a-f]{8,16})\b|\bUnhandled fault\b.{0,80}? at 0x([0-9a-f]{8,16})\b"
)
_ESR: Final = re.compile(
    r"\bESR = 0x([0-9a-f]{8,16})\b|\bInternal error: [^:\n]{1,48}: ([0-9a-f]{8,16}) \[#"
    r"|\bUnhandled fault: [^(\n]{1,48} \(0x([0-9a-f]{8,16})\)"
)
_USERS: Final = re.compile(r"\bunhandled exception: [DI]ABT \([^)\n]*\), ESR (0x[0-9a-f]{8,16})\b")
"""The line of a program that a signal ends (arch/arm64/kernel/traps.c: arm64_show_signal)."""

_PSTATE: Final = re.compile(r"\bpstate: ([0-9a-f]{8,16})\b")
_TABLE: Final = re.compile(
    r"\b(?P<whose>user|swapper) pgtable: (?P<granule>[0-9]+)k pages, (?P<width>[0-9]{2})-bit VAs,"
    r" pgdp ?= ?(?:0x)?(?P<root>[0-9a-f]{8,16})\b"
)


def read(text: str) -> Report:
    """The first report of Linux in a text; where there is none, the last abort of QEMU's log.

    Raises QuestionError for a text that holds none of these.
    """
    if lines := next(reports_of(lines_of(text), _HEAD), None):
        more = sum(1 for line in lines_of(text) if _HEAD.search(line)) - 1
        return _linux(lines, more)
    if (found := _of_qemu(lines_of(text))) is not None:
        return found
    whole = list(lines_of(text))
    if (esr := _USERS.search(text)) and told_address("\n".join(whole)) is None:
        raise QuestionError(
            "the text has the abort of a program without FAR_EL1, the address that faulted:"
            f" `pagetable fault --esr {esr[1]}` shows what its ESR says"
        )
    if lines := next(_headless(whole), None):
        return _linux(lines, 0)
    raise QuestionError(
        "the text holds no abort of arm64 that is known here: an oops of Linux, or QEMU's log of"
        " -d int"
    )


def _headless(lines: Sequence[str]) -> Iterator[list[str]]:
    """The lines from the first on that tells of an abort, of a report whose first line is cut off
    or is another."""
    for index, line in enumerate(lines):
        if any(sign.search(line) for sign in (_ESR, _TABLE)) or told_address(line) is not None:
            yield list(lines[index : index + LONGEST_REPORT])
            return


def _linux(lines: list[str], more: int) -> Report:
    text = "\n".join(lines)
    notes = []
    if more > 0:
        notes.append(SEVERAL.format(more))
    what = "An oops of Linux on arm64"
    if comm := COMM.search(text):
        what += f", of {comm['comm'] or comm['old']}"
    pstate, address = number(_PSTATE, text), number(_ADDRESS, text)
    return Report(
        what,
        told_address(text) if address is None else address,
        number(_ESR, text),
        mode=_tables(text),
        entries=told_entries(text),
        registers={} if pstate is None else {"pstate": pstate},
        linux=True,
        notes=tuple(notes),
    )


def _tables(text: str) -> Tables | None:
    """The tables whose entries are printed, as far as they are told."""
    found = _TABLE.search(text)
    if found is None:
        return None
    high = found["whose"] == "swapper"
    return Tables(f"{found['granule']}K", int(found["width"]), high, int(found["root"], 16))


_EXCEPTION: Final = re.compile(r"\bTaking exception (?P<number>[0-9]+) \[(?P<name>[^\]]{1,40})\]")
_WITH: Final = re.compile(r"\.\.\.with (ESR|FAR|ELR) (?:0x[0-9a-f]+/)?0x([0-9a-f]{1,16})\b")
_LEVEL: Final = re.compile(r"\.\.\.from EL[0-3] to EL(?P<to>[0-3])")
_ABORTS: Final = (0x20, 0x21, 0x24, 0x25)


def _of_qemu(lines: Iterable[str]) -> Report | None:
    """The last abort that was taken to EL1 in a log."""
    last, count, now = None, 0, dict[str, int]()
    for line in lines:
        if _EXCEPTION.search(line):
            now = {}
        if found := _LEVEL.search(line):
            now["to"] = int(found["to"])
        if found := _WITH.search(line):
            now[found[1]] = int(found[2], 16)
            if found[1] == "ELR" or not now.keys() >= {"ESR", "FAR"}:
                continue
            if now["ESR"] >> 26 & 0x3F in _ABORTS and now.get("to", 1) == 1:
                last, count = now, count + 1
    if last is None:
        return None
    several = f"The last of {count:,} aborts in a log of QEMU"
    what = several if count > 1 else "An abort in QEMU's log"
    return Report(what, last["FAR"], last["ESR"], last.get("ELR"))


def alone(report: Report, title: str, given: Mapping[str, int]) -> Snapshot | None:
    """The entries that a report prints."""
    if report.address is None or not report.entries:
        return None
    high = is_high(report.address)
    tables = report.mode or Tables("4K", 48, high, None)
    registers = {**report.registers, **given}
    made = entries.snapshot(title, report.entries, report.address, registers, tables)
    said = () if report.mode else (_USUAL,)
    return replace(made, notes=(*report.notes, *made.notes), assumed=(*said, *made.assumed))


def bare(report: Report, _: Mapping[str, int]) -> tuple[Cpu, Sequence[str]]:
    """A processor with the report's tables, or else with pages of 4K and addresses of 48 bits."""
    cpu = entries.cpu_of(report.mode or Tables("4K", 48, False, None))
    return cpu, [] if report.mode else [_USUAL]


def usual(report: Report) -> Mapping[str, int]:
    """The root that is printed, and TCR_EL1 with that half alone."""
    return {} if report.mode is None else entries.registers_of(report.mode)


_USUAL: Final = "pages are of 4K, and addresses of 48 bits"


def facts(_: Report) -> Facts:
    """Nothing: no registers are read."""
    return Facts((), ("The text has no ESR, by which an abort is told.",), None)
