"""The rules of the reference beside all that executed them, by saved reports of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from rich import box
from rich.table import Table

from harness.check.typed import decode
from harness.check.witnesses import Answer
from harness.paging.x86.access import Reason
from harness.report.objects import VERSION, bare, rule_name
from harness.report.text import answer_lines, counted

Count = Annotated[int, msgspec.Meta(ge=0)]
ByMode = dict[str, dict[str, Count]]


class Differing(msgspec.Struct, frozen=True):
    """A case on which an engine is not as the rules have it: the answers of all to it."""

    mode: str
    values: str
    expected: str
    observed: str
    case: str | None
    answers: tuple[Answer, ...]


class SavedReport(msgspec.Struct, frozen=True):
    """What the table needs of what `pagetable matrix --json` printed."""

    version: int
    command: str
    engine: str
    executor: str
    rules: ByMode
    departed: ByMode
    disagreed: ByMode
    disagreements: Count
    findings: tuple[Differing, ...]


def saved_report(text: bytes) -> SavedReport:
    """The report in a file; ValueError, a sentence, where it holds none."""
    saved: SavedReport = decode(text, SavedReport)
    if (saved.version, saved.command) != (VERSION, "matrix"):
        raise ValueError(f"it is version {saved.version} of {saved.command}")
    return saved


@dataclass(frozen=True)
class Execution:
    """How often an engine in one version executed accesses that come to one rule.

    departed   how many of them came to something else, as a known quirk has it
    disagreed  how many did without one
    """

    engine: str
    executor: str
    accesses: int
    departed: int
    disagreed: int

    @property
    def witness(self) -> bool:
        """Whether it did as the rule says, at least once, and never otherwise without a name."""
        return not self.disagreed and self.departed < self.accesses

    @property
    def says(self) -> str:
        """The executor, and how often it does not follow the rule, if not always."""
        says = self.executor
        for verb, count in (("departs", self.departed), ("disagrees", self.disagreed)):
            if count:
                often = f" {counted(count, 'time')}" if count < self.accesses else ""
                says += f" {verb}{often}"
        return says


@dataclass(frozen=True)
class Row:
    """A rule by which an access can fault, and all that executed it."""

    rule: Reason
    executions: tuple[Execution, ...]

    @property
    def witnesses(self) -> int:
        """How many engines, whatever their version, do as it says."""
        return len({one.engine for one in self.executions if one.witness})


COUNTED = ("rules", "departed", "disagreed")
"""What a report counts by mode and rule."""


def cross_table(modes: Sequence[str], reports: Iterable[SavedReport]) -> list[Row]:
    """Every rule with who executed it in some modes. Of several reports of one executor that with
    the most accesses counts, in each mode: the same access is not counted twice."""
    fullest = dict[tuple[str, str], SavedReport]()
    for report in reports:
        for mode in modes:
            known = fullest.get((report.executor, mode))
            if known is None or _size(known, mode) < _size(report, mode):
                fullest[report.executor, mode] = report
    return [Row(rule, tuple(_executions(rule_name(rule), fullest))) for rule in Reason]


def _size(report: SavedReport, mode: str) -> int:
    return sum(report.rules.get(mode, {}).values())


def _executions(rule: str, fullest: Mapping[tuple[str, str], SavedReport]) -> Iterator[Execution]:
    """Who executed accesses that come to a rule."""
    counts, engines = dict[str, Counter[str]](), dict[str, str]()
    for (who, mode), report in fullest.items():
        engines[who] = report.engine
        for key in COUNTED:
            count = getattr(report, key).get(mode, {}).get(rule, 0)
            counts.setdefault(who, Counter())[key] += count
    for who, count in counts.items():
        if count["rules"]:
            yield Execution(engines[who], who, *(count[key] for key in COUNTED))


def table(mode: str, rows: Iterable[Row]) -> Table:
    """The rows for people: a line for each that executed a rule."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("rule", "section", "witnesses", "accesses", "executed by"):
        shown.add_column(heading, justify="right" if heading == "accesses" else "left")
    nothing = "none" if mode == "all" else f"none in mode {mode}"
    for row in rows:
        sentence, section = sentence_and_section(row.rule)
        named = (sentence, section, _witnesses(row))
        for one in row.executions:
            shown.add_row(*named, f"{one.accesses:,}", one.says)
            named = ("", "", "")
        if not row.executions:
            shown.add_row(*named, nothing, "")
    return shown


def _witnesses(row: Row) -> str:
    return {0: "none", 1: "one"}.get(row.witnesses, str(row.witnesses))


def sentence_and_section(reason: Reason) -> tuple[str, str]:
    """What a reason says, and where SDM volume 3A does."""
    sentence, _, section = reason.value.rpartition(" (")
    return sentence, section.removesuffix(")")


def differing(modes: Sequence[str], reports: Iterable[SavedReport]) -> list[Differing]:
    """The cases on which engines differ, each once."""
    found = {(one.mode, one.values): one for report in reports for one in report.findings}
    return [one for one in found.values() if one.mode in modes]


def differing_lines(cases: Iterable[Differing]) -> Iterator[str]:
    """Each case with the answers of all engines."""
    for one in cases:
        yield f"mode {one.mode}: {one.values}"
        yield f"  expected  {one.expected}"
        yield f"  observed  {one.observed}"
        yield from answer_lines(one.answers)
        if one.case is not None:
            yield f"  replay    pagetable replay --engine all {one.case}"
        yield ""


def verdict(rows: Iterable[Row], disagreed: int) -> str:
    """What came of it, in a sentence or two."""
    verb = "disagrees" if disagreed == 1 else "disagree"
    said = f"{counted(disagreed, 'access')} {verb}." if disagreed else "All accesses agree."
    witnesses = Counter(row.witnesses for row in rows)
    for many, name in ((1, "one witness"), (0, "no witness")):
        if count := witnesses[many]:
            said += f" {counted(count, 'rule')} {'has' if count == 1 else 'have'} {name}."
    return said


def as_object(mode: str, rows: Iterable[Row], cases: Iterable[Differing]) -> Mapping[str, Any]:
    """The table as what JSON can hold."""
    return bare(
        "rules",
        mode=mode,
        rules=[
            {
                "rule": rule_name(row.rule),
                "reason": row.rule.value,
                "witnesses": row.witnesses,
                "executions": [
                    {
                        "engine": one.engine,
                        "executor": one.executor,
                        "accesses": one.accesses,
                        "departed": one.departed,
                        "disagreed": one.disagreed,
                    }
                    for one in row.executions
                ],
            }
            for row in rows
        ],
        differing=[msgspec.to_builtins(one) for one in cases],
    )
