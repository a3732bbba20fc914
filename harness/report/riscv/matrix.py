"""A run of RISC-V's matrix, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from harness.check.riscv.matrix.run import Finding, Plan, Report
from harness.check.riscv.quirks import KNOWN
from harness.paging.riscv.access import Reason
from harness.report.objects import bare
from harness.report.terminal import NOT_RUN, count_lines, print_all
from harness.report.text import agreeing, disagreeing, quirk_lines, ran_on

ENGINE = "tcg"


@dataclass(frozen=True)
class Result:
    """What came of a plan.

    seconds  wall time
    failure  why not all was tried, None where it was
    """

    plan: Plan
    report: Report
    seconds: float
    failure: str | None = None


def as_object(result: Result) -> dict[str, Any]:
    """A run as what JSON can hold."""
    report = result.report
    return bare(
        "matrix",
        arch="riscv",
        engine=ENGINE,
        qemu=report.qemu,
        executor=f"{ENGINE} {report.qemu}" if report.qemu else "",
        not_run_on=report.not_run_on,
        accesses=report.compared,
        compared=report.compared,
        disagreements=report.disagreed.total(),
        quirks=report.quirks,
        not_comparable=result.plan.left_out,
        masked=report.masked,
        skipped=[
            {"reason": reason, "accesses": count} for reason, count in result.plan.skipped.items()
        ],
        news=report.news,
        rules=_by_name(report.by_rule),
        departed=_by_name(report.departed),
        disagreed=_by_name(report.disagreed),
        findings=[_finding(one) for one in report.findings],
        seconds=round(result.seconds, 3),
        failure=result.failure,
    )


def _by_name(counts: Mapping[tuple[str, Reason | None], int]) -> dict[str, dict[str, int]]:
    named: dict[str, dict[str, int]] = {}
    for (mode, reason), count in counts.items():
        named.setdefault(mode, {})[_name(reason)] = count
    return named


def _name(reason: Reason | None) -> str:
    return reason.name.lower().replace("_", "-") if reason else "allowed"


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "oracle": "probe",
        "address": hex(one.address),
        "access": None,
        "ac": False,
        "expected": one.expected,
        "observed": one.observed,
        "walk": None,
        "case": None,
        "answers": [],
        "mode": one.mode,
        "values": one.values,
        "words": [hex(word) for word in one.words],
    }


def show(result: Result) -> None:
    """Prints what came of a run: a table by mode and rule, and what stands out."""
    print_all(_table(result.report), _sections(result), verdict(result))


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("mode")
    table.add_column("outcome")
    table.add_column("accesses", justify="right")
    for mode in sorted({mode for mode, _ in report.by_rule}):
        for reason in (None, *Reason):
            if count := report.by_rule[mode, reason]:
                table.add_row(mode, reason.value if reason else "allowed", f"{count:,}")
        table.add_section()
    table.add_row("all", "", f"{report.compared:,}")
    return table


def _sections(result: Result) -> Iterator[tuple[str, Iterable[str]]]:
    """What stands below the table, each with its heading; nothing where there is nothing."""
    report = result.report
    if report.not_run_on:
        yield NOT_RUN, report.not_run_on
    if report.quirks:
        yield "Known quirks", quirk_lines(report.quirks, KNOWN)
    for title, counts in (
        ("News", report.news),
        ("Left to the machine: not compared", report.masked),
        ("Left out by rule", result.plan.left_out),
        ("Skipped", result.plan.skipped),
    ):
        if counts:
            yield title, count_lines(counts)
    if report.findings:
        yield "Disagreements", [line for one in report.findings for line in _lines(one)]


def _lines(one: Finding) -> Iterator[str]:
    yield one.values
    yield f"  expected  {one.expected}"
    yield f"  observed  {one.observed}"
    yield ""


def verdict(result: Result) -> str:
    """What came of it, in a sentence."""
    report = result.report
    where = f"on {ran_on(ENGINE, report.qemu)}"
    speed = f"{report.compared / result.seconds:,.0f} a second"
    if wrong := report.disagreed.total():
        return f"{disagreeing(wrong, report.compared, 'access')} {where}; {speed}."
    said = agreeing(report.compared, "access", all_of_them=not result.failure)
    if result.failure:
        return f"{said} {where}, and then the machine failed."
    return f"{said} {where}; {speed}."
