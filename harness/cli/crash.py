"""What `pagetable fault --oops` does: the report of a crash, explained by its own entries, by the
tables of a source, or by both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from harness.cli.output import say, show, tell, text_of
from harness.cli.source import KINDS, Source

if TYPE_CHECKING:
    from harness.inspect.fault import Explanation, Reproduction
    from harness.inspect.snapshot import Snapshot
    from harness.inspect.translation import Differing, Translation
    from harness.inspect.x86.fault import SeenFault
    from harness.inspect.x86.oops import Report


def explain_report(source: Source, name: str, as_json: bool) -> None:
    """Explains the report in a file, or in standard input."""
    from harness.inspect import architecture
    from harness.inspect.x86 import oops

    report = oops.read(text_of(name))
    where = "standard input" if name == "-" else name
    architecture.refuse_others(architecture.named("x86"), source.given(), f"the text in {where}")
    if report.entries and report.address is None:
        _decoded(source, report, f"{report.what}, in {where}", as_json)
        return
    alone = _alone(source, report, f"{report.what}, in {where}")
    with _tables(source, report) as tables:
        if report.general and tables is not None:
            alone = None
        if alone is None and tables is None:
            _without_tables(report, as_json)
            return
        if tables is not None and alone is None:
            note = f"{report.what}, in {where}"
            tables = replace(tables, notes=(note, *report.notes, *tables.notes))
        answer = _Answer(report, alone, tables, source.vcpu)
        answer.print_object() if as_json else answer.print_lines()


def _alone(source: Source, report: Report, title: str) -> Snapshot | None:
    """The entries that the report prints."""
    from harness.inspect.x86 import entries
    from harness.inspect.x86.fault import fitting, read_code
    from harness.paging.address import Virtual
    from harness.paging.x86.cpu import WIDTHS

    if report.address is None or not (report.entries or report.general):
        return None
    if report.general:
        return _unmapped(report, title)
    given = source.given()
    registers = {**report.registers, **given}
    # Without the code of a fault nothing says that an address is wide of the mark.
    width = entries.USUAL_WIDTH if report.code is not None else WIDTHS[-1]
    made = entries.snapshot(title, report.entries, report.address, registers, report.mode, width)
    made = replace(made, notes=(*report.notes, *made.notes), registers=report.rest)
    if report.linux:  # which sets XD where NXE is set alone
        made = replace(made, unsure=made.unsure - {"efer"})
    if report.code is None:
        return made
    return fitting(made, read_code(report.code, made.cpu), Virtual(report.address))


def _unmapped(report: Report, title: str) -> Snapshot:
    """A space of which nothing is known, for an address that no table decides about."""
    from harness.inspect.snapshot import Given, Snapshot
    from harness.inspect.sources.entries import GivenMemory
    from harness.paging.x86.cpu import Cpu, Mode

    cpu = Cpu.in_mode(report.mode or Mode.LEVEL_4, report.registers.get("cr3", 0))
    given = Given(frozenset(), frozenset() if "cr3" in report.registers else frozenset([cpu.base]))
    return Snapshot(
        title, cpu, GivenMemory({}), None, (), report.notes, registers=report.rest, given=given
    )


def _decoded(source: Source, report: Report, title: str, as_json: bool) -> None:
    """The entries of a report that has no address, each by itself."""
    from harness.inspect import decode
    from harness.inspect.names import level_named
    from harness.inspect.x86 import linux
    from harness.inspect.x86.likely import likely
    from harness.paging.x86.cpu import Cpu, Mode
    from harness.report import decode as reports
    from harness.report.text import assumed_lines

    cpu = Cpu.in_mode(report.mode or Mode.LEVEL_4, 0)
    given = source.given()
    if "maxphyaddr" in given:
        cpu = replace(cpu, maxphyaddr=given["maxphyaddr"])
    assumed = [] if report.mode else ["paging has 4 levels"]
    assumed += [] if "maxphyaddr" in given else [f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr)"]
    read = [decode.read(cpu, raw, level_named(cpu, name)) for name, raw in report.entries]
    found = [
        (one, kept, likely(cpu, one, kept))
        for one in read
        for kept in [linux.read(cpu, one) if cpu.long else None]
    ]
    if as_json:
        objects = [reports.as_object(*one) for one in found]
        _print_object(None, report, notes=list(report.notes), assumed=assumed, readings=objects)
        return
    lines = reports.decoded_lines([[one] for one in found], (), "SDM volume 3A")
    for line in (
        *(title, *(f"Note: {note}" for note in report.notes), ""),
        *lines,
        *assumed_lines(assumed),
    ):
        show(line)


@contextmanager
def _tables(source: Source, report: Report) -> Iterator[Snapshot | None]:
    """The tables of the source that is named, as the registers of the report have them; None where
    none is."""
    from harness.inspect import architecture
    from harness.inspect.last import raised
    from harness.inspect.x86.fault import fitting, read_code
    from harness.machine.errors import Misuse
    from harness.paging.address import Virtual
    from harness.paging.x86.cpu import Cpu

    named = [kind for kind in KINDS if getattr(source, kind) is not None]
    if not named:
        yield None
        return
    own = {
        name: hex(report.registers[name])
        for name in ("cr0", "cr3", "cr4", "efer")
        if name in report.registers and getattr(source, name) is None
    }
    assumed = []
    if source.ram is not None and report.mode is not None and not (source.efer or "efer" in own):
        own["efer"] = hex(Cpu.in_mode(report.mode, 0).efer)
        assumed.append(f"EFER={own['efer']} (--efer)")
    with replace(source, **own).opened() as snapshot:  # type: ignore[arg-type]
        if snapshot.cpu.architecture != "x86":
            called = architecture.of(snapshot.cpu).called
            raise Misuse(f"the text is of x86, and {snapshot.title} is of {called}")
        rest = {name: report.registers[name] for name in ("ac", "pkru") if name in report.registers}
        cpu = replace(snapshot.cpu, **rest)
        assumed = [*snapshot.assumed, *assumed]
        snapshot = replace(snapshot, cpu=cpu, registers=report.rest, assumed=tuple(assumed))
        if report.code is not None and report.address is not None:
            seen = read_code(report.code, cpu, report.address, report.rip)
            snapshot = fitting(snapshot, seen, Virtual(report.address))
        if report.code is None and report.address is None:
            snapshot = replace(
                snapshot, notes=(*snapshot.notes, raised(snapshot, source.vcpu).said)
            )
        yield snapshot


def _without_tables(report: Report, as_json: bool) -> None:
    """What the report says where there are no entries at all."""
    from harness.inspect.x86.fault import read_code
    from harness.report.x86 import fault as of_x86

    if report.general:
        _bare(report, report.notes, as_json)
        return
    if report.code is None:
        _bare_registers(report, as_json)
        return
    seen = read_code(report.code, None, report.address, report.rip)
    note = f"There are no entries in the text: {_SOURCES}, whose tables are then read."
    if as_json:
        _print_object(
            None,
            report,
            notes=[*report.notes, note],
            seen=of_x86.seen_object(seen, report.address, report.rip),
        )
        return
    for line in (report.what, "", *of_x86.seen_lines(seen, report.address), ""):
        show(line)
    for line in (*report.notes, note):
        show(f"Note: {line}")


_SOURCES: Final = "add --qmp SOCKET, --core FILE or --ram FILE"


def _bare_registers(report: Report, as_json: bool) -> None:
    """What follows from registers alone, and what is missing."""
    from harness.inspect.x86.registers import facts

    cr2 = report.rest.get("cr2")
    told = [*facts(report.registers, report.rest)]
    where = "" if cr2 is None else f" --cr2 {cr2:#x}"
    missing = (
        "No register has the error code: the handler's stack has it, or the log of QEMU's -d int,"
        f" and pagetable fault --code N{where} says what it means. RIP may be the handler's own."
    )
    tables = f"There are no entries in the text: {_SOURCES}, whose tables are then read."
    notes = [*(report.notes or [missing]), tables]
    _bare(report, notes, as_json, told, cr2)


def _bare(
    report: Report,
    notes: Sequence[str],
    as_json: bool,
    told: Sequence[str] = (),
    cr2: int | None = None,
) -> None:
    """What a report says by itself, without an error code."""
    if as_json:
        virtual = None if cr2 is None else hex(cr2)
        _print_object(None, report, notes=[*told, *notes], virtual=virtual)
        return
    for line in (
        report.what,
        "",
        *told,
        *([""] if told else []),
        *(f"Note: {one}" for one in notes),
    ):
        show(line)


class _Answer:
    """What there is to say of a report by its entries, or by tables."""

    def __init__(
        self, report: Report, alone: Snapshot | None, tables: Snapshot | None, vcpu: int
    ) -> None:
        from harness.inspect.fault import explain_all
        from harness.inspect.last import raised
        from harness.inspect.translation import agreement, translate
        from harness.inspect.x86.fault import compare, read_code
        from harness.paging.address import Virtual
        from harness.paging.x86.access import Access, Kind

        snapshot = alone or tables
        assert snapshot is not None
        self.report, self.snapshot, self.tables = report, snapshot, tables
        linux = report.linux and snapshot.cpu.long
        self.seen: SeenFault | None = None
        self.found: Reproduction | None = None
        self.outcomes: list[Explanation] = []
        self.walk: Translation | None = None
        self.in_full = True
        address = report.address
        if report.code is not None and address is not None:
            self.seen = read_code(report.code, snapshot.cpu, address, report.rip)
            self.found = compare(snapshot, self.seen, Virtual(address), linux)
            self.outcomes = [*(self.found.giving or self.found.instead)]
        elif report.general and address is not None:
            kinds = (Access(kind, report.rest.get("cpl") == 3) for kind in (Kind.READ, Kind.WRITE))
            self.outcomes = explain_all(snapshot, Virtual(address), kinds, linux)
            self.in_full = False
        elif address is not None:
            self.walk = translate(snapshot, Virtual(address), linux)
        else:
            last = raised(snapshot, vcpu)
            address = last.address
            self.outcomes = explain_all(snapshot, Virtual(address), last.accesses, linux)
        self.address = address
        self.differing: tuple[Differing, ...] | None = None
        if alone is not None and tables is not None:
            self.other = translate(tables, Virtual(address))
            self.differing = agreement(translate(alone, Virtual(address)), self.other)

    def print_lines(self) -> None:
        """The answer as text."""
        from harness.report import fault as reports
        from harness.report.translation import agreement_lines, translation_lines
        from harness.report.x86 import fault as of_x86

        cpu, lines = self.snapshot.cpu, list[str]()
        if self.seen is not None and self.found is not None:
            lines += [*of_x86.seen_lines(self.seen, self.address), ""]
            lines += reports.comparison_lines(cpu, self.found)
        elif self.walk is not None:
            lines += translation_lines(cpu, self.walk)
        if not self.in_full:
            lines += reports.accesses_lines(cpu, self.outcomes)
        for number, one in enumerate(self.outcomes if self.in_full and not self.found else []):
            lines += [*([""] if number else []), *reports.explanation_lines(cpu, one)]
        if self.differing is not None and self.tables is not None:
            lines += ["", *agreement_lines(self.tables.title, self.differing, self.other)]
        tell(self.snapshot, lines)

    def print_object(self) -> None:
        """The answer as an object."""
        from harness.report import fault as reports
        from harness.report.objects import looked_at
        from harness.report.translation import agreement_object, as_object
        from harness.report.x86 import fault as of_x86

        cpu, found, report = self.snapshot.cpu, self.found, self.report
        _print_object(
            self.snapshot,
            report,
            **looked_at(self.snapshot),
            virtual=hex(self.address),
            seen=self.seen and of_x86.seen_object(self.seen, report.address, report.rip),
            given=None if found is None else bool(found.giving),
            explanations=list(found.explanations) if found else [],
            outcomes=[reports.as_object(cpu, one) for one in self.outcomes],
            walk=self.walk and as_object(cpu, self.walk),
            agreement=None
            if self.differing is None or self.tables is None
            else agreement_object(self.tables.title, self.differing),
        )


def _print_object(snapshot: Snapshot | None, report: Report, **content: Any) -> None:
    from harness.report.objects import fault_object

    say(json.dumps(fault_object(report=report.what, **content)))
