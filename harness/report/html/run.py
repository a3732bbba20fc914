"""What came of a validation or of the matrix, as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.architectures import has, module_of
from harness.check.compare import Disagreement
from harness.check.quirk import Quirk, known_of
from harness.report import matrix, terminal
from harness.report.files import versions
from harness.report.html.page import page
from harness.report.matrix import Result
from harness.report.run import Run
from harness.report.text import question, walk_rows


class Told(NamedTuple):
    """One disagreement in full.

    title  what was asked, and of whom
    case   the file from which it can be replayed, None where it could not be written
    """

    title: str
    found: Disagreement
    case: Path | None


def run_page(run: Run) -> str:
    """The page of a validation: a row a space, and what stands out."""
    told = [
        Told(
            f"{one.space.layout.name}, {one.space.layout.mode(one.space.levels)},"
            f" {question(one.disagreement)}",
            one.disagreement,
            one.case,
        )
        for one in run.findings
    ]
    return page(
        "validation.html",
        register=_root(run.arch),
        title=f"validate: {terminal.verdict(run)}",
        run=run,
        verdict=terminal.verdict(run),
        wrong=bool(run.disagreed or run.failure),
        engine=run.engine,
        qemu=run.qemu,
        not_run_on=run.not_run_on,
        failure=run.failure,
        versions=versions(),
        oracles=terminal.by_oracle(run),
        quirks=_known(run.count("quirks"), known_of(run.arch)),
        skipped=terminal.skipped_lines(run),
        told=told,
        walk_rows=walk_rows,
    )


def matrix_page(result: Result) -> str:
    """The page of a run of the matrix: a row a mode and outcome, and what stands out."""
    report = result.report
    told = [Told(case.values, case.disagreement, path) for case, path in result.cases]
    return page(
        "matrix.html",
        title=f"matrix: {matrix.verdict(result)}",
        result=result,
        verdict=matrix.verdict(result),
        wrong=bool(report.comparison.disagreed or result.failure),
        engine=result.plan.engine,
        qemu=report.qemu,
        not_run_on=report.not_run_on,
        failure=result.failure,
        versions=versions(),
        rows=matrix.outcomes(report),
        quirks=_known(report.comparison.quirks, known_of(result.plan.arch)),
        told=told,
        walk_rows=walk_rows,
    )


def _root(arch: str) -> Callable[[int], str]:
    """The register that leads to the root of an address, as far as reports know the architecture's
    state."""
    if not has(arch, "report", "state"):
        return lambda _: "root"
    found: Callable[[int], str] = module_of(arch, "report", "state").root
    return found


def _known(counts: Mapping[str, int], known: Mapping[str, Quirk]) -> list[tuple[Quirk, int]]:
    """The known departures that showed, each with how often."""
    return [(known[name], count) for name, count in counts.items()]
