"""What texts of x86 say of a page fault or of a wrong entry.

Linux: an oops, from 2.6 on, of 64 and of 32 bits (arch/x86/mm/fault.c), a bad page map
(mm/memory.c), a corrupted page table, and a general protection fault (arch/x86/kernel/traps.c).
QEMU: the log of -d int, and `info registers`, which gdb has too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

from harness.inspect.oops import COMM, LONGEST_REPORT, SEVERAL, Facts, Report, lines_of, reports_of
from harness.inspect.snapshot import Given, QuestionError, Snapshot
from harness.inspect.sources.entries import GivenMemory
from harness.inspect.x86 import data, entries
from harness.inspect.x86.registers import facts as of_registers
from harness.machine.monitor import registers_in
from harness.paging.address import Span
from harness.paging.x86.access import Access, Error, Kind, Vector
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr4, Mode, canonical_halves

_AC: Final = 1 << 18
_DOUBLE_FAULT: Final = 8
_LONG_DIGITS: Final = 9
"""A number with so many hexadecimal digits does not fit in 32 bits."""


SIGNS: Final = re.compile(
    r"#PF\b|\b(?:CR[0234]|[RE]IP|EFLAGS|RFLAGS|EFL|RFL)\b ?[:=]|\bv=[0-9a-f]{2} e=[0-9a-f]{4}"
    r"|\bP[GM4U]D [0-9a-f]+ |segfault at [0-9a-f]+ ip|general protection fault"
    r"|^\W*cr[0234] +0x|printing [er]ip"
)
"""What stands in a line of a text of x86, and in none of another's."""


def read(text: str) -> Report:
    """The first report of Linux in a text; where there is none, the last page fault of QEMU's log,
    or the registers that it shows.

    Raises QuestionError for a text that holds none of these.
    """
    reports = [*islice(reports_of(lines_of(text), _HEAD), 1)]
    if reports:
        [lines] = reports
        if any(_OTHER.search(line) for line in lines):
            raise QuestionError(
                "the text is of Linux on another architecture: those of x86, RISC-V and arm64 are"
                " known here"
            )
        more = sum(1 for line in lines_of(text) if _HEAD.search(line)) - 1
        return _linux(lines, more)
    if found := _last_chain(lines_of(text)):
        return _of_qemu(*found)
    if (report := _registers(lines_of(text))) is not None:
        return report
    if any(line.strip() == _TRIPLE for line in lines_of(text)):
        raise QuestionError(
            "the text has a triple fault and none of the exceptions that led to it: give the lines"
            " above it too, which QEMU logs with -d int"
        )
    raise QuestionError(
        "the text holds no page fault that is known here: an oops or a bad page map of Linux on"
        " x86, RISC-V or arm64, QEMU's log of -d int, info registers, or a trap of OpenSBI"
    )


_OTHER: Final = re.compile(r"\[[0-9a-f]+\] \*?pgd=|\bNIP: ")

# ---- Linux ----

_HEAD: Final = re.compile(
    r"(?:BUG: kernel NULL pointer dereference"
    r"|[Uu]nable to handle (?:kernel NULL pointer dereference|kernel paging request|page fault)),?"
    r"(?: for)?(?: at)?(?: virtual)?(?: address)?(?: ?[:=])? {1,16}(?P<b>[0-9a-f]{4,16}\b|\(null\))"
    r"|(?P<corrupt>Corrupted page table at address (?P<c>[0-9a-f]{1,16})\b)"
    r"|(?P<map>BUG: Bad page map in process (?P<process>.{1,32}?) {1,4}(?:pte|entry):"
    r"(?P<d>[0-9a-f]{8,16})\b)"
    r"|(?P<user>segfault at (?P<e>[0-9a-f]{1,16}) ip (?P<ip>[0-9a-f]{8,16}) sp [0-9a-f]+ error"
    r" (?P<error>[0-9a-f]{1,4})\b)"
    r"|(?P<general>general protection fault)"
    r"(?:,[a-z -]{1,40} address 0x(?P<f>[0-9a-f]{1,16})|,[a-z -]{1,40})?"
    r"(?:: (?P<selector>[0-9a-f]{4,8}) \[#"
    r"|(?P<of_process> ip:(?P<at>[0-9a-f]{1,16}) sp:[0-9a-f]+ error:(?P<of>[0-9a-f]{1,8})\b))"
)
"""How reports begin: show_fault_oops and pgtable_bad in arch/x86/mm/fault.c, print_bad_pte (from
6.18 on print_bad_page_map) in mm/memory.c, show_signal_msg; exc_general_protection in
arch/x86/kernel/traps.c."""

_CODE: Final = re.compile(
    r"#PF: error_code\(0x(?P<a>[0-9a-f]{1,8})\)"
    r"|(?:Oops|Bad pagetable): (?P<b>[0-9a-f]{4,8}) \[#?[0-9]+\]"
)
_WORDS: Final = re.compile(r"#PF error: ((?:\[[A-Z]+\] ?)+|\[normal kernel read fault\])")
"""The error code as 5.0 has it."""

_ENTRY: Final = re.compile(
    r"\b(?P<a>PGD|P4D|PUD|PMD|PTE) (?P<raw>[0-9a-f]{1,16})\b"
    r"|\*(?P<b>pdpt|pde|pte) ?= ?(?P<raw32>[0-9a-f]{8,16})\b"
)
_MAP_ENTRY: Final = re.compile(r"\b(?P<name>pgd|p4d|pud|pmd|pte|entry):(?P<raw>[0-9a-f]{8,16})\b")
_MAP_ADDRESS: Final = re.compile(r"\baddr:(?P<address>[0-9a-f]{8,16}|\S+) vm_flags")
_UNREAD: Final = re.compile(r"\b(?:PGD|P4D|PUD|PMD) [0-9a-f]+ (?:.* )?BAD\b|\bBAD\W*$")
_REGISTER: Final = re.compile(r"\b(CR[0234]|EFLAGS|RFLAGS|PKRU): ?(?:0x)?([0-9a-f]{4,16})\b")
_IP: Final = re.compile(
    r"\b[RE]IP: {1,8}(?P<cs>[0-9a-f]{4}):(?:\[<|0x)?(?P<ip>[0-9a-f]{8,16})\b"
    r"|\bEIP: +(?P<eip>[0-9a-f]{8})\b|printing [er]ip: *(?P<printed>[0-9a-f]{8})\b"
)
_SP: Final = re.compile(r"\bRSP: [0-9a-f]{4}:([0-9a-f]{16})\b")


def _linux(lines: list[str], more: int) -> Report:
    head = _HEAD.search(lines[0])
    assert head is not None
    notes = []
    if more > 0:
        notes.append(SEVERAL.format(more))
    if head["map"]:
        return _bad_map(lines, head, notes)
    if head["general"]:
        return _general(lines, head, notes)
    address = next(head[name] for name in "bce" if head[name])
    registers, rest = _linux_registers(lines)
    code = _code(lines)
    what = "An oops of Linux"
    if head["corrupt"]:
        what = "A corrupted page table that Linux reports"
    elif head["user"]:
        what = "A fault of a process that Linux reports"
        code, rest["rip"] = int(head["error"], 16), int(head["ip"], 16)
        rest["cpl"] = 3
    if comm := next((one for line in lines if (one := COMM.search(line))), None):
        what += f", of {comm['comm'] or comm['old']}"
    entries = _entries(lines)
    if any(_UNREAD.search(line) for line in lines):
        notes.append(
            "BAD: the entry that follows the last one is in a table that Linux could not read."
        )
    long = not any(name.startswith("*") for name, _ in entries)
    mode = _mode(long, entries, registers, len(address))
    return Report(
        what,
        address=0 if address == "(null)" else int(address, 16),
        code=code,
        instruction=rest.get("rip"),
        mode=mode,
        entries=entries,
        registers=registers,
        rest=rest,
        linux=True,
        notes=tuple(notes),
    )


def _general(lines: list[str], head: re.Match[str], notes: list[str]) -> Report:
    """A general protection fault: its address where Linux found it, else what registers hold."""
    registers, rest = _linux_registers(lines)
    selector = int(head["selector"] or head["of"], 16)
    what = "A general protection fault of Linux"
    if head["of_process"]:
        what = "A general protection fault of a process that Linux reports"
        rest |= {"rip": int(head["at"], 16), "cpl": 3}
    if comm := next((one for line in lines if (one := COMM.search(line))), None):
        what += f", of {comm['comm'] or comm['old']}"
    address = int(head["f"], 16) if head["f"] else None
    mode = Mode.LEVEL_5 if registers.get("cr4", 0) & Cr4.LA57 else Mode.LEVEL_4
    if selector:
        notes.append(
            f"The error code is {selector:#x}, that of a descriptor: no address raised it."
        )
    if shadowed := next((one for line in lines if (one := _KASAN.search(line))), None):
        notes.append(
            f"KASAN found it when it looked up the shadow of {shadowed[2]}: {shadowed[1]}."
        )
    halves = canonical_halves(5 if mode is Mode.LEVEL_5 else 4)
    if address is not None and any(address in half for half in halves):
        notes.append(f"{address:#x} is canonical: that alone raises no general protection fault.")
    if address is None:
        held = ", ".join(_not_canonical(lines, halves))
        notes.append(
            "The text has no address, for a general protection fault writes no CR2"
            + (f"; registers that hold an address that is not canonical: {held}." if held else ".")
        )
    return Report(
        what,
        address=address,
        instruction=rest.get("rip"),
        mode=mode,
        registers=registers,
        rest=rest,
        accesses=tuple(Access(kind, rest.get("cpl") == 3) for kind in (Kind.READ, Kind.WRITE)),
        linux=True,
        general=True,
        notes=tuple(notes),
    )


_KASAN: Final = re.compile(r"KASAN: ([a-z -]{4,40}) in range (\[0x[0-9a-f]+-0x[0-9a-f]+\])")
_GENERAL: Final = re.compile(r"\b(R(?:[A-D]X|[SD]I|[BS]P|0?[89]|1[0-5])): ?([0-9a-f]{16})\b")


def _not_canonical(lines: list[str], halves: Sequence[Span]) -> Iterator[str]:
    """The general registers of a report that hold no canonical address, and what that may be."""
    shown: dict[str, int] = {}
    for name, digits in chain.from_iterable(map(_GENERAL.findall, lines)):
        shown.setdefault(name, int(digits, 16))
    for name, value in shown.items():
        if not any(value in half for half in halves):
            meant = data.pointer(value)
            yield f"{name} {value:#x}" + (f" (probably {meant})" if meant else "")


def _code(lines: list[str]) -> int | None:
    for line in lines:
        if found := _CODE.search(line):
            return int(found["a"] or found["b"], 16)
        if words := _WORDS.search(line):
            names = {
                "PROT": "P",
                "WRITE": "W",
                "USER": "U",
                "RSVD": "RSVD",
                "INSTR": "I",
                "PK": "PK",
            }
            given = re.findall(r"\[([A-Z]+)\]", words[1])
            return sum(int(Error[names[word]]) for word in given if word in names)
    return None


def _entries(lines: list[str]) -> tuple[tuple[str, int], ...]:
    """The entries that the report prints first; those of later reports repeat their names."""
    found: dict[str, int] = {}
    for match in chain.from_iterable(map(_ENTRY.finditer, lines)):
        name = match["a"] or f"*{match['b']}"
        found.setdefault(name, int(match["raw"] or match["raw32"], 16))
    return tuple(found.items())


def _linux_registers(lines: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The registers that a report prints, the first of each: those of paging, and others."""
    shown: dict[str, int] = {}
    for name, digits in chain.from_iterable(map(_REGISTER.findall, lines)):
        shown.setdefault(name, int(digits, 16))
    registers = {
        name: shown[name.upper()] for name in ("cr0", "cr3", "cr4") if name.upper() in shown
    }
    if (flags := shown.get("EFLAGS", shown.get("RFLAGS"))) is not None:
        registers["ac"] = flags & _AC != 0
    if "PKRU" in shown:
        registers["pkru"] = shown["PKRU"]
    rest = {"cr2": shown["CR2"]} if "CR2" in shown else {}
    for line in lines:
        if found := _IP.search(line):
            rest["rip"] = int(found["ip"] or found["eip"] or found["printed"], 16)
            if found["cs"]:
                rest["cpl"] = int(found["cs"], 16) & 3
            break
    if stack := next((one for line in lines if (one := _SP.search(line))), None):
        rest["rsp"] = int(stack[1], 16)
    return registers, rest


def _mode(
    long: bool, entries: tuple[tuple[str, int], ...], registers: Mapping[str, int], digits: int
) -> Mode | None:
    """The mode of a report of Linux: that of CR4 where it is printed; None of long mode where it is
    not, since the entries tell the levels."""
    cr4, names = registers.get("cr4"), dict(entries)
    if long and (entries or digits >= _LONG_DIGITS):
        return None if cr4 is None else Mode.LEVEL_5 if cr4 & Cr4.LA57 else Mode.LEVEL_4
    if cr4 is not None:
        return Mode.PAE if cr4 & Cr4.PAE else Mode.BITS_32
    wide = "*pdpt" in names or any(raw >> 32 for raw in names.values())
    return Mode.PAE if wide else Mode.BITS_32


def _bad_map(lines: list[str], head: re.Match[str], notes: list[str]) -> Report:
    """A bad page map: the entries are printed with it, and the address in a line of its own."""
    found: dict[str, int] = {}
    for match in chain.from_iterable(map(_MAP_ENTRY.finditer, lines)):
        found.setdefault(match["name"], int(match["raw"], 16))
    if (raw := found.pop("entry", None)) is not None and raw not in found.values():
        found["pte"] = raw  # that of a large page is printed under its name, too
    place = next((one for line in lines if (one := _MAP_ADDRESS.search(line))), None)
    digits = place["address"] if place and re.fullmatch("[0-9a-f]+", place["address"]) else ""
    if not digits:
        notes.append("The text has no address (addr:), so the slot of a table is not known.")
    wide = any(raw >> 32 for raw in found.values())
    mode = None
    if digits and len(digits) < _LONG_DIGITS:
        mode = Mode.PAE if wide else Mode.BITS_32
    order = ("pgd", "p4d", "pud", "pmd", "pte")
    return Report(
        f"A bad page map that Linux reports, of {head['process']}",
        int(digits, 16) if digits else None,
        mode=mode,
        entries=tuple((name, found[name]) for name in order if name in found),
        linux=True,
        notes=tuple(notes),
    )


# ---- QEMU ----

_EXCEPTION: Final = re.compile(
    r"\bv=(?P<vector>[0-9a-f]{2}) e=(?P<code>[0-9a-f]{4,8})\b"
    r"(?: i=[01])?(?: cpl=(?P<cpl>[0-3]))?(?: IP=[0-9a-f]{4}:[0-9a-f]+)?"
    r"(?: pc=(?P<pc>[0-9a-f]{8,16}))?"
)
_CR2: Final = re.compile(r"\bCR2=(?:0x)?([0-9a-f]{1,16})\b")
_CHECK: Final = re.compile(r"check_exception old: 0x([0-9a-f]+) new 0x([0-9a-f]+)")
"""do_interrupt_all and check_exception in QEMU's target/i386."""

_NONE: Final = 0xFFFF_FFFF
"""What `check_exception` has for no exception that was being delivered."""

_TRIPLE: Final = "Triple fault"
_LONGEST_CHAIN: Final = 8


@dataclass
class _Raised:
    """An exception in the log, and the lines that follow it."""

    match: re.Match[str]
    lines: list[str]

    @property
    def vector(self) -> int:
        return int(self.match["vector"], 16)

    @property
    def where(self) -> dict[str, int]:
        """What is told of the instruction: people leave out what they take for unimportant."""
        told = {"rip": self.match["pc"], "cpl": self.match["cpl"]}
        return {name: int(value, 16) for name, value in told.items() if value is not None}


def _last_chain(lines: Iterable[str]) -> tuple[list[_Raised], bool, int] | None:
    """The last exceptions of which each came of delivering the one before, with a page fault among
    them, or a double fault before which the text begins; whether they ended in a triple fault; and
    how many page faults there are."""
    current: list[_Raised] = []
    last: tuple[list[_Raised], bool] | None = None
    count, nested = 0, False
    for line in lines:
        if match := _EXCEPTION.search(line):
            one = _Raised(match, [line])
            nested = nested or one.vector == _DOUBLE_FAULT
            current = [*current[-_LONGEST_CHAIN:], one] if nested else [one]
            count += one.vector == Vector.PF
            if current[0].vector == _DOUBLE_FAULT or any(
                each.vector == Vector.PF for each in current
            ):
                last = current, False
            nested = False
        elif check := _CHECK.search(line):
            nested = int(check[1], 16) != _NONE
        elif _TRIPLE in line and current:
            last = current, True
        elif current and len(current[-1].lines) < LONGEST_REPORT:
            current[-1].lines.append(line)
    return None if last is None else (*last, count)


def _of_qemu(raised: list[_Raised], triple: bool, count: int) -> Report:
    told = ", then ".join(_told(one) for one in raised)
    fault = next((one for one in raised if one.vector == Vector.PF), None)
    if fault is None and raised[0].vector == _DOUBLE_FAULT:
        return _of_double_fault(raised[0], triple)
    if fault is None:
        raise QuestionError(f"what led to the triple fault is no page fault: {told}")
    notes = []
    if len(raised) > 1 or triple:
        notes.append(
            f"Each came of delivering the one before: {told}{', then a triple fault' * triple}."
        )
    registers, rest = _shown(registers_in("\n".join(fault.lines)))
    cr2 = next((one for line in fault.lines if (one := _CR2.search(line))), None)
    which = f"The last of {count:,} page faults" if count > 1 else "The page fault"
    return Report(
        f"{which} in a log of QEMU",
        None if cr2 is None else int(cr2[1], 16),
        int(fault.match["code"], 16),
        fault.where.get("rip"),
        registers=registers,
        rest={**rest, **fault.where},
        notes=tuple(notes),
    )


def _of_double_fault(one: _Raised, triple: bool) -> Report:
    """A double fault whose cause was cut off."""
    registers, rest = _shown(registers_in("\n".join(one.lines)))
    then = ", then a triple fault" * triple
    return Report(
        "A double fault in a log of QEMU",
        registers=registers,
        rest={**rest, **one.where},
        notes=(
            f"The text begins with {_told(one)}{then}: the exception that led to it is above, with"
            " its error code and CR2.",
        ),
    )


def _registers(lines: Iterable[str]) -> Report | None:
    """The registers that QEMU or gdb shows, without a fault; None where CR2 and CR3 are missing."""
    kept = [line for line in lines if "=" in line or _OF_GDB.search(line)]
    who, shown = "QEMU", registers_in("\n".join(kept))
    if not {"CR2", "CR3"} & shown.keys():
        who, found = "gdb", {}
        for match in filter(None, map(_OF_GDB.search, kept)):
            found[_GDB_NAMES.get(match["name"], match["name"].upper())] = int(match["value"], 16)
        shown = found
    if not {"CR2", "CR3"} & shown.keys():
        return None
    registers, rest = _shown(shown)
    if "CS" in shown:
        rest["cpl"] = shown["CS"] & 3
    notes = [
        f"No exception in the text is a page fault: the last is {_told(_Raised(match, []))}."
        for match in map(_EXCEPTION.search, kept)
        if match
    ]
    return Report(
        f"Registers as {who} shows them", registers=registers, rest=rest, notes=tuple(notes[-1:])
    )


_OF_GDB: Final = re.compile(
    r"^\W*(?P<name>cr[0234]|efer|[re]ip|[re]sp|eflags|cs) +0x(?P<value>[0-9a-f]{1,16})\b"
)
_GDB_NAMES: Final = {"eflags": "EFL"}


def _told(one: _Raised) -> str:
    name = _NAMES.get(one.vector, f"vector {one.vector:#x}")
    at = f" at {one.where['rip']:#x}" if "rip" in one.where else ""
    return f"{name} with error code {int(one.match['code'], 16):#x}{at}"


_NAMES: Final = {6: "#UD", 8: "#DF", 10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF"}


def _shown(shown: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """The registers that decide how a processor pages, from those that QEMU shows; and others."""
    registers = {name: shown[name.upper()] for name in _PAGING if name.upper() in shown}
    if (flags := shown.get("RFL", shown.get("EFL"))) is not None:
        registers["ac"] = flags & _AC != 0
    names = {"CR2": "cr2", "RIP": "rip", "EIP": "rip", "RSP": "rsp", "ESP": "rsp", "CPL": "cpl"}
    names["IDT"] = "idt"
    rest = {name: shown[theirs] for theirs, name in names.items() if theirs in shown}
    return registers, rest


_PAGING: Final = ("cr0", "cr3", "cr4", "efer")


# ---- what it comes to ----


def alone(report: Report, title: str, given: Mapping[str, int]) -> Snapshot | None:
    """The entries that a report prints, with the registers given; of a general protection fault a
    space of which nothing is known."""
    if report.address is None or not (report.entries or report.general):
        return None
    if report.general:
        return _unmapped(report, title)
    registers = {**report.registers, **given}
    # Without the code of a fault nothing says that an address is wide of the mark.
    width = entries.USUAL_WIDTH if report.code is not None else WIDTHS[-1]
    made = entries.snapshot(title, report.entries, report.address, registers, report.mode, width)
    made = replace(made, notes=(*report.notes, *made.notes), registers=report.rest)
    if report.linux:  # which sets XD where NXE is set alone
        made = replace(made, unsure=made.unsure - {"efer"})
    return made


def _unmapped(report: Report, title: str) -> Snapshot:
    """A space of which nothing is known, for an address that no table decides about."""
    cpu = Cpu.in_mode(report.mode or Mode.LEVEL_4, report.registers.get("cr3", 0))
    given = Given(frozenset(), frozenset() if "cr3" in report.registers else frozenset([cpu.base]))
    return Snapshot(
        title, cpu, GivenMemory({}), None, (), report.notes, registers=report.rest, given=given
    )


def bare(report: Report, given: Mapping[str, int]) -> tuple[Cpu, Sequence[str]]:
    """A CPU of which no more is known than the mode, and what is assumed of it."""
    cpu = Cpu.in_mode(report.mode or Mode.LEVEL_4, 0)
    assumed = [] if report.mode else ["paging has 4 levels"]
    if "maxphyaddr" in given:
        return replace(cpu, maxphyaddr=given["maxphyaddr"]), assumed
    return cpu, [*assumed, f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr)"]


def usual(report: Report) -> Mapping[str, int]:
    """EFER of the mode, which Linux does not print."""
    return {} if report.mode is None else {"efer": Cpu.in_mode(report.mode, 0).efer}


def facts(report: Report) -> Facts:
    """What registers alone say, and what is missing."""
    cr2 = report.rest.get("cr2")
    where = "" if cr2 is None else f" --cr2 {cr2:#x}"
    missing = (
        "No register has the error code: the handler's stack has it, or the log of QEMU's -d int,"
        f" and pagetable fault --code N{where} says what it means. RIP may be the handler's own."
    )
    return Facts(tuple(of_registers(report.registers, report.rest)), (missing,), cr2)
