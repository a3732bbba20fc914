"""What `pagetable fault --oops` does: the report of a crash, explained by its own entries, by the
tables of a source, or by both."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from harness.cli.output import say, show, tell, text_of
from harness.cli.source import KINDS, REGISTERS, Source

if TYPE_CHECKING:
    from harness.inspect.fault import Explanation, Reproduction
    from harness.inspect.oops import Report
    from harness.inspect.snapshot import Snapshot
    from harness.inspect.translation import Differing, Translation


def explain_report(source: Source, name: str, as_json: bool) -> None:
    """Explains the report in a file, or in standard input."""
    from harness.inspect import architecture
    from harness.inspect.oops import architecture_of, texts_of

    text = text_of(name)
    arch = architecture_of(text)
    report = texts_of(arch).read(text)
    where = "standard input" if name == "-" else name
    architecture.refuse_others(architecture.named(arch), source.given(), f"the text in {where}")
    title = f"{report.what}, in {where}"
    if report.entries and report.address is None:
        _decoded(source, arch, report, title, as_json)
        return
    alone = texts_of(arch).alone(report, title, source.given())
    alone = alone and alone.for_accesses()
    with _tables(source, arch, report) as tables:
        if report.general and tables is not None:
            alone = None
        if alone is None and tables is None:
            _without_tables(arch, report, as_json)
            return
        if tables is not None and alone is None:
            tables = replace(tables, notes=(title, *report.notes, *tables.notes))
        answer = _Answer(report, alone, tables, source.vcpu)
        answer.print_object() if as_json else answer.print_lines()


def _decoded(source: Source, arch: str, report: Report, title: str, as_json: bool) -> None:
    """The entries of a report that has no address, each by itself."""
    from harness.inspect import architecture, decode
    from harness.inspect.names import level_named
    from harness.inspect.oops import texts_of
    from harness.report import decode as reports
    from harness.report.text import assumed_lines

    asked = architecture.named(arch)
    cpu, assumed = texts_of(arch).bare(report, source.given())
    read = [decode.read(cpu, raw, level_named(cpu, name)) for name, raw in report.entries]
    keeps = _keeps(cpu)
    found = [
        (one, kept, asked.likely(cpu, one, kept))
        for one in read
        for kept in [asked.linux(cpu, one) if keeps else None]
    ]
    if as_json:
        objects = [reports.as_object(*one) for one in found]
        notes = list(report.notes)
        _print_object(report, notes=notes, assumed=list(assumed), readings=objects)
        return
    lines = reports.decoded_lines([[one] for one in found], (), asked.manual)
    for line in (
        *(title, *(f"Note: {note}" for note in report.notes), ""),
        *lines,
        *assumed_lines(assumed),
    ):
        show(line)


def _keeps(cpu: Any) -> bool:
    """Whether it is known what Linux keeps in the entries of a CPU state."""
    from harness.inspect import architecture, decode
    from harness.inspect.snapshot import QuestionError

    try:
        architecture.of(cpu).linux(cpu, decode.read(cpu, 0, 0))
    except QuestionError:
        return False
    return True


@contextmanager
def _tables(source: Source, arch: str, report: Report) -> Iterator[Snapshot | None]:
    """The tables of the source that is named, as the registers of the report have them; None where
    none is."""
    from harness.inspect import architecture
    from harness.inspect.fault import seen_of
    from harness.inspect.last import raised
    from harness.inspect.oops import texts_of
    from harness.machine.errors import Misuse
    from harness.paging.address import Virtual

    if all(getattr(source, kind) is None for kind in KINDS):
        yield None
        return
    own = {
        name: hex(value)
        for name, value in report.registers.items()
        if name in REGISTERS and getattr(source, name) is None
    }
    rest = {name: one for name, one in report.registers.items() if name not in REGISTERS}
    assumed = []
    for name, value in texts_of(arch).usual(report).items() if source.ram is not None else ():
        if not (getattr(source, name) or name in own):
            own[name] = hex(value)
            assumed.append(f"{name.upper()}={own[name]} (--{name})")
    called = architecture.named(arch).called
    with ExitStack() as stack:
        try:
            named = replace(source, **own)  # type: ignore[arg-type]
            opened = named.opened(beside=rest, accesses=True)
            snapshot = stack.enter_context(opened)
        except architecture.OtherArchitectureError as error:  # of registers that the text has
            raise Misuse(f"the text is of {called}, and {error.whose}") from None
        if snapshot.cpu.architecture != arch:
            theirs = architecture.of(snapshot.cpu).called
            raise Misuse(f"the text is of {called}, and {snapshot.title} is of {theirs}")
        cpu, assumed = snapshot.cpu, [*snapshot.assumed, *assumed]
        snapshot = replace(snapshot, registers=report.rest, assumed=tuple(assumed))
        if report.code is not None and report.address is not None:
            snapshot, _, _ = seen_of(cpu).reproduced(
                *(snapshot, hex(report.code), Virtual(report.address)),
                *(report.instruction, False, report.accesses),
            )
        if report.code is None and report.address is None:
            snapshot = replace(
                snapshot, notes=(*snapshot.notes, raised(snapshot, source.vcpu).said)
            )
        yield snapshot


def _without_tables(arch: str, report: Report, as_json: bool) -> None:
    """What the report says where there are no entries at all."""
    from harness.inspect.fault import faults_of
    from harness.inspect.oops import texts_of
    from harness.report import fault as reports

    if report.general:
        _bare(report, report.notes, as_json)
        return
    tables = f"There are no entries in the text: {_SOURCES}, whose tables are then read."
    if report.code is None:
        found = texts_of(arch).facts(report)
        notes = [*(report.notes or found.missing), tables]
        _bare(report, notes, as_json, found.told, found.address)
        return
    seen = faults_of(arch).told(
        hex(report.code), report.address, report.instruction, report.accesses
    )
    if as_json:
        told = reports.seen_object(arch, seen, report.address, report.instruction)
        _print_object(report, notes=[*report.notes, tables], seen=told)
        return
    for line in (report.what, "", *reports.seen_lines(arch, seen, report.address), ""):
        show(line)
    for line in (*report.notes, tables):
        show(f"Note: {line}")


_SOURCES: Final = "add --qmp SOCKET, --core FILE or --ram FILE"


def _bare(
    report: Report,
    notes: Sequence[str],
    as_json: bool,
    told: Sequence[str] = (),
    address: int | None = None,
) -> None:
    """What a report says by itself, without a code."""
    if as_json:
        virtual = None if address is None else hex(address)
        _print_object(report, notes=[*told, *notes], virtual=virtual)
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
        from harness.inspect.fault import explain_all, seen_of
        from harness.inspect.last import raised
        from harness.inspect.translation import agreement, translate
        from harness.paging.address import Virtual

        snapshot = alone or tables
        assert snapshot is not None
        self.report, self.tables = report, tables
        linux = report.linux and _keeps(snapshot.cpu)
        self.seen: Any = None
        self.found: Reproduction | None = None
        self.outcomes: list[Explanation] = []
        self.walk: Translation | None = None
        self.in_full = True
        address = report.address
        if report.code is not None and address is not None:
            snapshot, self.seen, self.found = seen_of(snapshot.cpu).reproduced(
                *(snapshot, hex(report.code), Virtual(address)),
                *(report.instruction, linux, report.accesses),
            )
            self.outcomes = [*(self.found.giving or self.found.instead)]
        elif address is not None and report.accesses:
            self.outcomes = explain_all(snapshot, Virtual(address), report.accesses, linux)
            self.in_full = False
        elif address is not None:
            self.walk = translate(snapshot, Virtual(address), linux)
        else:
            last = raised(snapshot, vcpu)
            address = last.address
            self.outcomes = explain_all(snapshot, Virtual(address), last.accesses, linux)
        self.address, self.snapshot = address, snapshot
        self.differing: tuple[Differing, ...] | None = None
        if alone is not None and tables is not None:
            self.other = translate(tables, Virtual(address))
            self.differing = agreement(translate(snapshot, Virtual(address)), self.other)

    def print_lines(self) -> None:
        """The answer as text."""
        from harness.report import fault as reports
        from harness.report.translation import agreement_lines, translation_lines

        cpu, lines = self.snapshot.cpu, list[str]()
        if self.found is not None:
            lines += [*reports.seen_lines(cpu.architecture, self.seen, self.address), ""]
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

        cpu, found, report = self.snapshot.cpu, self.found, self.report
        told = (self.seen, report.address, report.instruction)
        _print_object(
            report,
            **looked_at(self.snapshot),
            virtual=hex(self.address),
            seen=reports.seen_object(cpu.architecture, *told) if found else None,
            given=None if found is None or found.unknown else bool(found.giving),
            explanations=list(found.explanations) if found else [],
            outcomes=[reports.as_object(cpu, one) for one in self.outcomes],
            walk=self.walk and as_object(cpu, self.walk),
            agreement=None
            if self.differing is None or self.tables is None
            else agreement_object(self.tables.title, self.differing),
        )


def _print_object(report: Report, **content: Any) -> None:
    from harness.report.objects import fault_object

    say(json.dumps(fault_object(report=report.what, **content)))
