"""A run of the matrix, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from harness.check.compare import Answer
from harness.check.matrix import ByRule, Failure, Plan, Report
from harness.check.quirk import known_of
from harness.check.replay import replays_of
from harness.report import files
from harness.report.objects import bare, rule_name
from harness.report.terminal import NOT_RUN, count_lines, print_all
from harness.report.text import (
    agreeing,
    disagreeing,
    disagreement_lines,
    every_engine_lines,
    quirk_lines,
    ran_on,
)

ALLOWED = "allowed"
"""In place of the name of a rule: the access is allowed."""


@dataclass(frozen=True)
class Result:
    """What came of a plan.

    cases    the failures, each with the file from which it can be replayed, None if there is none
    seconds  wall time
    failure  why not all was tried, None where it was
    answers  what every engine of this host says of each failure, in their order
    """

    plan: Plan[Any]
    report: Report
    cases: tuple[tuple[Failure, Path | None], ...]
    seconds: float
    failure: str | None = None
    answers: tuple[tuple[Answer, ...], ...] = ()

    @property
    def told(self) -> tuple[tuple[Failure, Path | None, tuple[Answer, ...]], ...]:
        """Each failure with its file and its answers."""
        answers = self.answers or ((),) * len(self.cases)
        return tuple((*case, more) for case, more in zip(self.cases, answers, strict=True))

    @property
    def unsaved(self) -> bool:
        """Whether a failure could not be written to the file from which it can be replayed."""
        there = replays_of(self.plan.arch) is not None
        return there and any(path is None for _, path in self.cases)

    @property
    def rules(self) -> dict[str, dict[str, int]]:
        """By mode, and by the name of a rule or ALLOWED: how many accesses come to it."""
        return _by_name(self.report.by_rule)

    @property
    def departed(self) -> dict[str, dict[str, int]]:
        """In the same way, how many of them came to something else, as a known quirk has it."""
        return _by_name(self.report.departed)

    @property
    def disagreed(self) -> dict[str, dict[str, int]]:
        """How many did without one."""
        return _by_name(self.report.disagreed)


def _by_name(counts: ByRule) -> dict[str, dict[str, int]]:
    named: dict[str, dict[str, int]] = {}
    for (mode, reason), count in counts.items():
        named.setdefault(mode, {})[rule_name(reason) if reason else ALLOWED] = count
    return named


def as_object(result: Result) -> dict[str, Any]:
    """A run as what JSON can hold."""
    comparison = result.report.comparison
    return bare(
        "matrix",
        arch=result.plan.arch,
        engine=result.plan.engine,
        qemu=result.report.qemu,
        executor=result.report.executor,
        not_run_on=result.report.not_run_on,
        accesses=comparison.compared,
        compared=comparison.compared,
        disagreements=comparison.disagreed,
        quirks=comparison.quirks,
        not_comparable=result.plan.left_out,
        masked=result.report.masked,
        skipped=[
            {"reason": reason, "accesses": count} for reason, count in result.plan.skipped.items()
        ],
        news=comparison.news,
        rules=result.rules,
        departed=result.departed,
        disagreed=result.disagreed,
        findings=[
            {
                **files.disagreement(case.disagreement, path, answers),
                "mode": case.mode,
                "values": case.values,
                "words": [hex(word) for word in case.words],
            }
            for case, path, answers in result.told
        ],
        seconds=round(result.seconds, 3),
        failure=result.failure,
    )


def show(result: Result) -> None:
    """Prints what came of a run: a table by mode and rule, and what stands out."""
    print_all(_table(result), _sections(result), verdict(result))


def _table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("mode")
    table.add_column("outcome")
    table.add_column("accesses", justify="right")
    for _, rows in groupby(outcomes(result.report), itemgetter(0)):
        for mode, outcome, count in rows:
            table.add_row(mode, outcome, f"{count:,}")
        table.add_section()
    table.add_row("all", "", f"{result.report.comparison.compared:,}")
    return table


def outcomes(report: Report) -> list[tuple[str, str, int]]:
    """By mode, what accesses came to, and how many did."""
    reasons = next((tuple(type(reason)) for _, reason in report.by_rule if reason), ())
    return [
        (mode, reason.value if reason else "allowed", report.by_rule[mode, reason])
        for mode in sorted({mode for mode, _ in report.by_rule})
        for reason in (None, *reasons)
        if report.by_rule[mode, reason]
    ]


def _sections(result: Result) -> Iterator[tuple[str, Iterable[str]]]:
    """What stands below the table, each with its heading; nothing where there is nothing."""
    comparison = result.report.comparison
    if result.report.not_run_on:
        yield NOT_RUN, result.report.not_run_on
    if comparison.quirks:
        yield "Known quirks", quirk_lines(comparison.quirks, known_of(result.plan.arch))
    for title, counts in (
        ("Left to the machine: not compared", result.report.masked),
        ("Left out by rule", result.plan.left_out),
        ("Skipped", result.plan.skipped),
        ("News", comparison.news),
    ):
        if counts:
            yield title, count_lines(counts)
    if result.cases:
        yield "Disagreements", [line for one in result.cases for line in (*_case_lines(*one), "")]


def answers_of_all(result: Result) -> Iterator[str]:
    """What every engine says of each disagreement; nothing where none was asked."""
    return every_engine_lines((case.values for case, _ in result.cases), result.answers)


def _case_lines(case: Failure, path: Path | None) -> Iterator[str]:
    """A disagreement: its values, both answers, the walk, and the file to replay."""
    yield case.values
    yield from list(disagreement_lines(case.disagreement))[1:]
    if path is not None:
        yield f"  replay    pagetable replay {path}"


def verdict(result: Result) -> str:
    """What came of it, in a sentence."""
    comparison, plan = result.report.comparison, result.plan
    where = f"on {ran_on(plan.engine, result.report.qemu)}"
    speed = f"{comparison.compared / result.seconds:,.0f} a second"
    if comparison.disagreed:
        said = disagreeing(comparison.disagreed, comparison.compared, "access")
        return f"{said} {where}; {speed}."
    said = agreeing(comparison.compared, "access", all_of_them=not result.failure)
    if result.failure:
        return f"{said} {where}, and then the machine failed."
    return f"{said} {where}; {speed}."
