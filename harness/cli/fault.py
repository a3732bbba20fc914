"""`pagetable fault`: what an access comes to, and faults that were seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.architectures import USUAL, module_of
from harness.cli.ending import sentences
from harness.cli.help import REGISTERS
from harness.cli.output import Html, Json, Svg, say, show, tell, writable, write
from harness.cli.source import Entries, Source, number, with_source

if TYPE_CHECKING:
    from harness.inspect.fault import Explanation
    from harness.inspect.snapshot import Snapshot


class KindName(StrEnum):
    """What accesses do, by the names that `Kind` of each architecture has for them, and by other
    manuals' names."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"
    AMO = "amo"
    PUSH = "push"
    POP = "pop"
    SHADOW_READ = "shadow-read"
    SHADOW_WRITE = "shadow-write"
    LDTR = "ldtr"
    STTR = "sttr"
    LOAD = "load"
    STORE = "store"


MEANT: Mapping[KindName, KindName] = {
    KindName.LOAD: KindName.READ,
    KindName.STORE: KindName.WRITE,
}
"""The kinds by other names."""


@with_source
def fault(
    source: Source,
    address: Annotated[
        str | None,
        typer.Argument(metavar="ADDRESS", help="A virtual address.", show_default=False),
    ] = None,
    access: Annotated[
        KindName | None,
        typer.Option(
            metavar="KIND",
            help="What the access does: read (or load), write (or store), fetch, amo, push, pop,"
            " shadow-read, shadow-write, ldtr, sttr; by default the usual ones.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        bool | None,
        typer.Option(
            "--user/--supervisor", help="Who makes it; by default both.", show_default=False
        ),
    ] = None,
    implicit: Annotated[
        bool, typer.Option("--implicit", help="To a system structure, by the supervisor.")
    ] = False,
    ac: Annotated[
        bool | None,
        typer.Option(
            "--ac/--no-ac", help="EFLAGS.AC.", show_default=False, rich_help_panel=REGISTERS
        ),
    ] = None,
    pkru: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="The rights of protection keys.",
            show_default=False,
            rich_help_panel=REGISTERS,
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="The error code of a page fault that was seen; on RISC-V scause; on s390 that of"
            " the program interruption; on POWER the interrupt's vector.",
            show_default=False,
        ),
    ] = None,
    esr: Annotated[
        str | None,
        typer.Option(metavar="N", help="On arm64: the ESR_EL1 that was seen.", show_default=False),
    ] = None,
    teid: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="On s390, besides --code: the translation-exception identification that was seen.",
            show_default=False,
        ),
    ] = None,
    dsisr: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="On POWER: the DSISR that was seen; ADDRESS is what DAR held.",
            show_default=False,
        ),
    ] = None,
    srr1: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="On POWER: the SRR1 that was seen where a fetch failed; ADDRESS is what SRR0"
            " held.",
            show_default=False,
        ),
    ] = None,
    cr2: Annotated[
        str | None, typer.Option(metavar="N", help="The CR2 that was seen.", show_default=False)
    ] = None,
    rip: Annotated[
        str | None, typer.Option(metavar="N", help="The RIP that was seen.", show_default=False)
    ] = None,
    entries: Entries = None,
    oops: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The text of a fault, or - for standard input: an oops or a bad page map of Linux,"
            " a trap of OpenSBI, QEMU's log of -d int, or info registers."
            " Of x86, RISC-V or arm64.",
            show_default=False,
        ),
    ] = None,
    linux: Annotated[
        bool, typer.Option("--linux", help="Also show what Linux keeps in the entries.")
    ] = False,
    as_json: Json = False,
    html: Html = None,
    svg: Svg = None,
) -> None:
    """Explain why an access to ADDRESS faults, and what would let it pass.

    That is the vector, error code and CR2, or the cause and stval, or ESR and FAR, or the
    interrupt, DSISR and DAR, the rule with its section (Intel SDM, volume 3A; RISC-V privileged
    specification; Power ISA, Book III) or the function of the Arm ARM's pseudocode, and the
    smallest change that helps.

    Without ADDRESS it is the last page fault of the guest or core that is named: CR2, and what is
    still on its stack; of a RISC-V guest scause and stval.

    With --code, --esr, --dsisr or --srr1 it goes backwards: a page fault that was seen, in words,
    and whether the tables of the source, if one is named, would give it; with an access too,
    whether that one would.

    Example: pagetable fault 0xffff800040000000 --access fetch --user --layout page-sizes

    Example: pagetable fault --code 0x1d --cr2 0x1000

    Example: pagetable fault 0x403000 --esr 0x9200004f --layout arm64/rights

    Example: dmesg | pagetable fault --oops -
    """
    with sentences():
        from harness.machine.errors import Misuse

        if oops is not None:
            asked_else = (
                *(address, access, user, ac, pkru, code, esr, teid, dsisr, srr1, cr2, rip, entries),
            )
            if implicit or any(one is not None for one in asked_else):
                raise Misuse("--oops has the fault and its entries: name none of these besides")
            from harness.cli.crash import explain_report

            explain_report(source, oops, as_json)
            return
        accessed = access is not None or user is not None or implicit
        seen = {"code": code, "esr": esr, "dsisr": dsisr, "srr1": srr1}
        named = [name for name, value in seen.items() if value is not None]
        if len(named) > 1:
            *others, last = (f"--{name}" for name in named)
            options, many = (
                f"{', '.join(others)} and {last}",
                ("two", "three", "four")[len(others) - 1],
            )
            raise Misuse(f"{options} are {many} faults that were seen: name one of them")
        code = next((_coded(name, seen[name] or "") for name in named), None)
        asked = _question(address, code, cr2, rip, teid)
        asked = replace(asked, linux=linux, in_full=access is not None, html=html, svg=svg)
        beside = _beside(ac, pkru)
        for path in (html, svg):
            writable(path)
        if (html or svg) and (entries is not None or source == Source()):
            raise Misuse("a picture needs all tables of the walk: name their source")
        if entries is not None:
            if asked.address is None:
                raise Misuse("--entries are those of one address: name it, or of a fault --cr2")
            snapshot = source.of_entries(entries, asked.address, beside).for_accesses()
            if accessed or asked.code is None:
                asked = _with_accesses(asked, snapshot, access, user, implicit)
            _answer(snapshot, asked, as_json)
            return
        if source == Source():
            if asked.code is None and asked.address is None:
                raise Misuse(
                    "no ADDRESS is given; or add --code, the error code that was seen; or name the"
                    " guest or core (--qmp, --core) whose last page fault is meant"
                )
            if accessed and asked.code is not None:
                raise Misuse(
                    "--code alone says which accesses raise it: name the source of the tables, by"
                    " which --access would"
                )
            if linux and asked.code is not None:
                raise Misuse("--linux shows what is in entries: name the source of the tables")
            if asked.code is not None:
                named += ["teid"] if teid else []
                _words(asked, next((_WHOSE[one] for one in named if one in _WHOSE), None), as_json)
                return
        if teid is not None and asked.address is None:
            raise Misuse(
                f"code {code} stores no TEID, so that this is of another: name the ADDRESS"
            )
        with source.opened(asked.address is None, beside, ("entries",), accesses=True) as snapshot:
            of_fault = {"cr2": cr2, "rip": rip, "esr": esr, "teid": teid}
            _refuse_unreported(snapshot, {**of_fault, "dsisr": dsisr, "srr1": srr1})
            if accessed or (asked.address is not None and asked.code is None):
                asked = _with_accesses(asked, snapshot, access, user, implicit)
            if asked.address is None:
                snapshot, asked = _last_fault(snapshot, source.vcpu, asked)
            _answer(snapshot, asked, as_json)


_WHOSE: Final = {"esr": "arm64", "teid": "s390", "dsisr": "power", "srr1": "power"}
"""The architectures of the options by which a fault is told that was seen."""


def _coded(option: str, value: str) -> str:
    """A fault that was seen, as what knows the faults of its architecture reads it."""
    return f"{option} {value}" if _WHOSE.get(option) == "power" else value


@dataclass(frozen=True)
class Question:
    """What is asked: an address and the accesses to it, or a page fault that was seen.

    address   the address, or CR2; None for that of the last page fault
    code      the code that was seen, as it was written; None where accesses are asked about
    rip       where the instruction is, or what else was reported with the code: the TEID
    accesses  those that are asked about; none stands for those that may have raised the last fault
    in_full   whether each of them is explained, and not shown in a table
    html      the files that are written besides, and `svg`
    """

    address: int | None
    code: str | None = None
    rip: int | None = None
    accesses: tuple[Any, ...] = ()
    in_full: bool = False
    linux: bool = False
    html: Path | None = None
    svg: Path | None = None


def _question(
    address: str | None, code: str | None, cr2: str | None, rip: str | None, teid: str | None
) -> Question:
    """What is asked about; Misuse where the options do not go together."""
    from harness.machine.errors import Misuse

    if code is None:
        if cr2 is not None or rip is not None:
            raise Misuse("--cr2 and --rip belong to a fault that was seen: add its --code")
        if teid is not None:
            raise Misuse("a TEID belongs to a program interruption: add its --code")
        return Question(None if address is None else number("the address", address))
    if address is not None and cr2 is not None:
        raise Misuse("an address and --cr2 are given: of a fault that was seen they are the same")
    if teid is not None:
        if cr2 is not None or rip is not None:
            raise Misuse("--cr2 and --rip are of x86, and --teid is of s390: name one of them")
        reported = number("TEID", teid)
        page = module_of(_WHOSE["teid"], "inspect", "fault").page_of(code, reported)
        return Question(page if address is None else number("the address", address), code, reported)
    where = address if cr2 is None else cr2
    return Question(
        None if where is None else number("CR2", where),
        code,
        None if rip is None else number("RIP", rip),
    )


def _last_fault(snapshot: Snapshot, vcpu: int, asked: Question) -> tuple[Snapshot, Question]:
    """What is asked, of the last page fault of a processor; and the snapshot with a note of where
    that is from."""
    from harness.inspect.last import raised

    found = raised(snapshot, vcpu)
    if asked.code is None and not asked.accesses:
        code = None if found.code is None else hex(found.code)
        asked = replace(asked, code=code, accesses=found.accesses)
    rip = found.instruction if asked.rip is None else asked.rip
    asked = replace(asked, address=found.address, rip=rip, in_full=True)
    return replace(snapshot, notes=(*snapshot.notes, found.said)), asked


def _answer(snapshot: Snapshot, asked: Question, as_json: bool) -> None:
    """What accesses to the address come to, or whether the tables give the fault."""
    from harness.inspect.fault import explain_all
    from harness.paging.address import Virtual

    assert asked.address is not None
    if asked.code is not None:
        _backward(snapshot, asked, as_json)
        return
    address = Virtual(asked.address)
    found = explain_all(snapshot, address, asked.accesses, asked.linux)
    _draw(snapshot, found, asked)
    _forward(snapshot, found, asked.in_full, as_json)


def _beside(ac: bool | None, pkru: str | None) -> dict[str, int]:
    """What is given of the CPU state for accesses alone."""
    given: dict[str, int] = {} if ac is None else {"ac": ac}
    return given if pkru is None else {**given, "pkru": number("PKRU", pkru)}


def _refuse_unreported(snapshot: Snapshot, options: Mapping[str, str | None]) -> None:
    """Raises SourceError for an option that says of a fault what the architecture does not
    report."""
    from harness.inspect import architecture
    from harness.inspect.fault import seen_of

    named = {name: value for name, value in options.items() if value is not None}
    others = named and {
        name: value for name, value in named.items() if name not in seen_of(snapshot.cpu).REPORTED
    }
    architecture.refuse_others(architecture.of(snapshot.cpu), others, snapshot.title)


def _with_accesses(
    asked: Question,
    snapshot: Snapshot,
    kind: KindName | None,
    user: bool | None,
    implicit: bool,
) -> Question:
    """What is asked, of the accesses that the options name; QuestionError where there is no such
    access."""
    from harness.inspect import architecture

    name = None if kind is None else MEANT.get(kind, kind).name
    found = architecture.of(snapshot.cpu).accesses(name, user, implicit)
    return replace(asked, accesses=tuple(found))


def _forward(
    snapshot: Snapshot, found: Sequence[Explanation], in_full: bool, as_json: bool
) -> None:
    """What accesses to one address come to, in full or in a table."""
    from harness.report import fault as reports

    if as_json:
        outcomes = [reports.as_object(snapshot.cpu, each) for each in found]
        asked = hex(found[0].translation.asked)
        _print_object(snapshot, virtual=asked, outcomes=outcomes)
        return
    if not in_full:
        tell(snapshot, reports.accesses_lines(snapshot.cpu, found))
        return
    lines: list[str] = []
    for each in found:
        lines += [*([""] if lines else []), *reports.explanation_lines(snapshot.cpu, each)]
    tell(snapshot, lines)


def _words(asked: Question, arch: str | None, as_json: bool) -> None:
    """What a fault says by itself: of an architecture, or where nothing says of which it is, of the
    usual one; and then what the same code is on others."""
    from harness.inspect import architecture
    from harness.inspect.fault import faults_of, told_everywhere
    from harness.inspect.snapshot import QuestionError
    from harness.report import fault as reports

    code, address, instruction = asked.code, asked.address, asked.rip
    assert code is not None
    notes = list[str]()
    if arch is not None:
        seen = faults_of(arch).told(code, address, instruction, ())
    else:
        arch = USUAL
        found = told_everywhere(code, address, instruction)
        seen = found.pop(arch)
        others = [
            f"of {architecture.named(name).called} it is: {reports.seen_text(name, one)}"
            for name, one in found.items()
            if not isinstance(one, QuestionError)
        ]
        if isinstance(seen, QuestionError):
            raise QuestionError("; ".join((str(seen), *others)))
        called = architecture.named(arch).called
        notes = [f"No tables are named, so that this is of {called}; {one}." for one in others]
    if as_json:
        told = reports.seen_object(arch, seen, address, instruction)
        _print_object(None, seen=told, notes=notes)
        return
    for line in reports.seen_lines(arch, seen, address):
        show(line)
    for note in notes:
        show(f"\nNote: {note}")


def _draw(snapshot: Snapshot, found: Sequence[Explanation], asked: Question) -> None:
    """Writes the page of these accesses, and the picture of one, where they are wanted."""
    from harness.machine.errors import Misuse

    if asked.svg is not None:
        from harness.report.html.fault import fault_picture

        if len(found) != 1:
            raise Misuse(
                f"--svg draws one access, and there are {len(found)}: add --access, and --user or"
                " --supervisor"
            )
        if found[0].translation.walk is None:
            where = f"{found[0].translation.asked:#x}"
            raise Misuse(f"there is no walk of {where} to draw: {found[0].translation.why}")
        write(asked.svg, fault_picture(snapshot, found[0]))
    if asked.html is not None:
        from harness.report.html.fault import fault_page

        write(asked.html, fault_page(snapshot, found))


def _backward(snapshot: Snapshot, asked: Question, as_json: bool) -> None:
    """What a fault says, and what the tables give."""
    from harness.inspect.fault import seen_of
    from harness.paging.address import Virtual
    from harness.report import fault as reports

    code, address, rip = asked.code, asked.address, asked.rip
    assert code is not None and address is not None
    snapshot, seen, found = seen_of(snapshot.cpu).reproduced(
        snapshot, code, Virtual(address), rip, asked.linux, asked.accesses
    )
    cpu = snapshot.cpu
    _draw(snapshot, found.giving or found.instead, asked)
    if as_json:
        _print_object(
            snapshot,
            virtual=hex(address),
            seen=reports.seen_object(cpu.architecture, seen, address, rip),
            given=None if found.unknown else bool(found.giving),
            explanations=list(found.explanations),
            outcomes=[reports.as_object(cpu, one) for one in found.giving or found.instead],
        )
        return
    lines = reports.comparison_lines(cpu, found)
    tell(snapshot, [*reports.seen_lines(cpu.architecture, seen, address), "", *lines])


def _print_object(snapshot: Snapshot | None, **content: Any) -> None:
    """Prints one object."""
    from harness.report.objects import fault_object, looked_at

    say(json.dumps(fault_object(**(looked_at(snapshot) if snapshot else {}), **content)))
