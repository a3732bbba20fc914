"""The rules of the reference beside all that executed them, by saved reports of the matrix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace
from rich import box
from rich.table import Table

from harness.architectures import NAMES, USUAL
from harness.check.compare import Answer
from harness.check.keys import instead
from harness.check.matrix import matrix_of, reasons_of
from harness.check.typed import decode
from harness.machine.registry import engines_of
from harness.report.objects import VERSION, bare, rule_name
from harness.report.text import answer_lines, counted

Count = Annotated[int, msgspec.Meta(ge=0)]
ByMode = dict[str, dict[str, Count]]


class Differing(msgspec.Struct, frozen=True):
    """A case on which an engine is not as the rules have it: the answers of all to it.

    Reports of earlier releases have the mode among the values alone, and no answers.
    """

    values: str
    expected: str
    observed: str
    case: str | None
    mode: str = ""
    answers: tuple[Answer, ...] = ()


class SavedReport(msgspec.Struct, frozen=True):
    """What the table needs of what `pagetable matrix --json` printed.

    Reports of earlier releases lack `executor`, `arch` and `disagreed`.  `failure` is why the run
    was broken off, if it was.
    """

    version: int
    command: str
    engine: str
    rules: ByMode
    departed: ByMode
    disagreements: Count
    findings: tuple[Differing, ...]
    qemu: str = ""
    executor: str = ""
    arch: str = USUAL
    disagreed: ByMode = {}
    failure: str | None = None


_READ: Final = range(1, VERSION + 1)
"""The versions of the form in which `matrix` printed what is read here as it does now."""


def saved_report(text: bytes) -> SavedReport:
    """The report in a file; ValueError, a sentence, where it holds none."""
    saved: SavedReport = decode(text, SavedReport)
    if saved.version not in _READ or saved.command != "matrix":
        raise ValueError(f"it is version {saved.version} of {saved.command}")
    if saved.arch not in NAMES:
        raise ValueError(f"arch is {saved.arch!r}: {instead(saved.arch, NAMES)}")
    return replace(
        saved,
        executor=saved.executor or _executor(saved),
        findings=tuple(replace(one, mode=one.mode or _mode(one)) for one in saved.findings),
    )


def _executor(saved: SavedReport) -> str:
    """Who executed, where the report does not say: the emulator, but under KVM the kernel."""
    engines = engines_of(saved.arch)
    if saved.engine in engines and engines[saved.engine].by_kernel:
        return saved.engine
    return f"{saved.engine} {saved.qemu}".strip()


def _mode(case: Differing) -> str:
    """The mode of a case by its values; ValueError where they have none."""
    for value in case.values.split():
        axis, _, mode = value.partition("=")
        if axis == "mode":
            return mode
    raise ValueError(f"findings: there is no mode in {case.values!r}")


@dataclass(frozen=True)
class Execution:
    """How often an engine in one version executed accesses that come to one rule.

    departed   how many of them came to something else, as a known quirk has it
    disagreed  how many did without one
    told       whether the report says which rules the accesses that disagree come to
    """

    engine: str
    executor: str
    accesses: int
    departed: int
    disagreed: int
    told: bool = True

    @property
    def witness(self) -> bool:
        """Whether it did as the rule says at least once, and otherwise only by a known quirk."""
        return self.told and not self.disagreed and self.departed < self.accesses

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

    rule: Enum
    executions: tuple[Execution, ...]

    @property
    def witnesses(self) -> int:
        """How many engines do as it says, in any version.

        Modules behind KVM count for themselves: kvm_amd and kvm_intel run on processors of
        different makers.
        """
        return len({_unversioned(one.executor) for one in self.executions if one.witness})


def _unversioned(executor: str) -> str:
    return executor.partition(" ")[0]


COUNTED = ("rules", "departed", "disagreed")
"""What a report counts by mode and rule."""


Chosen = Mapping[tuple[str, str], SavedReport]
"""The report that counts, by executor and mode."""


def chosen(modes: Iterable[str], reports: Sequence[SavedReport]) -> Chosen:
    """The reports that count in some modes: of several of one executor that have accesses in a mode
    the last, so that the same access is not counted twice and a new report replaces an old one."""
    return {
        (report.executor, mode): report
        for mode in modes
        for report in reports
        if any(report.rules.get(mode, {}).values())
    }


def disagreements(those: Chosen) -> int:
    """How many accesses disagree in the reports that count, in the modes for which they do.

    A report that does not say in which modes they were counts with all of them, once.
    """
    by_mode = sum(sum(one.disagreed.get(mode, {}).values()) for (_, mode), one in those.items())
    whole = {id(one): one.disagreements for one in those.values() if not one.disagreed}
    return by_mode + sum(whole.values())


def broken_off(those: Chosen, reports: Iterable[SavedReport]) -> Mapping[str, str]:
    """Why runs were broken off, by executor: of the reports that count, and of executors that have
    no other."""
    complete = {one.executor for one in reports if one.failure is None}
    of_others = (one for one in reports if one.executor not in complete)
    failures = {one.executor: one.failure for one in (*of_others, *those.values())}
    return {who: why for who, why in failures.items() if why is not None}


def cross_table(those: Chosen, arch: str) -> list[Row]:
    """Every rule of an architecture with who executed it."""
    return [Row(rule, tuple(_executions(rule_name(rule), those))) for rule in reasons_of(arch)]


def _executions(rule: str, those: Chosen) -> Iterator[Execution]:
    """Who executed accesses that come to a rule, by name and version."""
    counts, engines = dict[str, Counter[str]](), dict[str, str]()
    untold = {who for (who, _), one in those.items() if one.disagreements and not one.disagreed}
    for (who, mode), report in those.items():
        engines[who] = report.engine
        for key in COUNTED:
            count = getattr(report, key).get(mode, {}).get(rule, 0)
            counts.setdefault(who, Counter())[key] += count
    for who, count in sorted(counts.items(), key=lambda one: _by_version(one[0])):
        if count["rules"]:
            accesses, departed, disagreed = (count[key] for key in COUNTED)
            told = who not in untold
            yield Execution(engines[who], who, accesses, departed, disagreed, told)


def _by_version(executor: str) -> tuple[str, list[int]]:
    return _unversioned(executor), [int(number) for number in re.findall(r"\d+", executor)]


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


def sentence_and_section(reason: Enum) -> tuple[str, str]:
    """What a reason says, and where the manual does."""
    sentence, _, section = reason.value.rpartition(" (")
    return sentence, section.removesuffix(")")


def unseen_lines(arch: str) -> Iterator[str]:
    """What none of the accesses shows, whichever engine makes them, and why, for people."""
    for what, why in matrix_of(arch).UNSEEN.items():
        yield what
        yield f"  {why}"


def differing(those: Chosen) -> list[Differing]:
    """The cases on which engines differ, each once."""
    found = {
        (one.mode, one.values): one
        for (_, mode), report in those.items()
        for one in report.findings
        if one.mode == mode
    }
    return list(found.values())


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


def verdict(rows: Iterable[Row], disagreed: int, failures: Collection[str]) -> str:
    """What came of it, in a sentence or two; `failures` are the executors of runs that were broken
    off."""
    verb = "disagrees" if disagreed == 1 else "disagree"
    said = f"{counted(disagreed, 'access')} {verb}" if disagreed else "All accesses agree"
    if failures:
        broken = "run was" if len(failures) == 1 else "runs were"
        said += f", but the {broken} broken off on {', '.join(failures)}"
    said += "."
    witnesses = Counter(row.witnesses for row in rows)
    for many, name in ((1, "one witness"), (0, "no witness")):
        if count := witnesses[many]:
            said += f" {counted(count, 'rule')} {'has' if count == 1 else 'have'} {name}."
    return said


def as_object(
    arch: str,
    mode: str,
    rows: Iterable[Row],
    cases: Iterable[Differing],
    failures: Mapping[str, str],
) -> Mapping[str, Any]:
    """The table as what JSON can hold."""
    return bare(
        "rules",
        arch=arch,
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
        unseen=[{"rule": what, "why": why} for what, why in matrix_of(arch).UNSEEN.items()],
        failures=[{"executor": who, "failure": why} for who, why in failures.items()],
    )
