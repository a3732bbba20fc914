"""Reports for the terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column, Table
from rich.text import Text

from harness.check.quirk import known_of
from harness.check.validation import SpaceReport
from harness.report.run import Run
from harness.report.screen import STYLES, folded
from harness.report.text import (
    agreeing,
    disagreeing,
    every_engine_lines,
    finding_lines,
    quirk_lines,
    ran_on,
)
from harness.report.visible import visible

Part = TypeVar("Part")

WIDTH = 100
"""Columns of what is no terminal, if no row of a table needs more."""

WIDEST = 400
"""Columns of a row at most: the rest is put below."""

BETWEEN_LINES = 60
"""Seconds from one line of progress to the next, where there is no bar."""

NOT_RUN = "Not yet run"
"""The heading of versions of which it is not known that they are like those before them."""


class _Screen(Console):
    """A console that lets its user say how a command ends whose output no one reads any more."""

    def on_broken_pipe(self) -> None:
        raise  # the error that it is called for


def following(
    reports: Iterable[Part], total: int, step: Callable[[Part], tuple[int, str]]
) -> Iterator[Part]:
    """The reports as they come, with a bar that shows how far it is, where one can see it; else
    with a line now and then.

    step  how much of the total a report is, and its name

    The bar is drawn by this thread alone, so that processes can be forked meanwhile.
    """
    screen = _Screen(stderr=True)
    # What is said has its room first.
    columns = (BarColumn(bar_width=None), _Progress(Column(no_wrap=True)))
    said = began = time.monotonic()
    bar = Progress(
        *columns,
        console=screen,
        auto_refresh=False,
        transient=True,
        expand=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=total)
        bar.refresh()
        for report in reports:
            advance, name = step(report)
            bar.update(task, advance=advance, description=name, refresh=True)
            now = time.monotonic()
            if bar.disable and now - said >= BETWEEN_LINES:
                said = now
                done = bar.tasks[task].completed
                screen.print(progress(done, total, name, done / (now - began)), soft_wrap=True)
            yield report


class _Progress(ProgressColumn):
    """How far a task is, how fast it is, and how long it will take, in words."""

    def render(self, task: Task) -> Text:
        """What is shown beside the bar."""
        return Text(progress(task.completed, task.total or 0, task.description, task.speed))


def progress(done: float, total: float, name: str, speed: float | None) -> str:
    """How much is done of how much; and, once it is known, how much a second and the time left."""
    said = f"{done:,.0f} of {total:,.0f}, {name}"
    if not speed or done >= total:
        return said
    rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
    minutes, seconds = divmod(round((total - done) / speed), 60)
    left = f"{minutes:,} min {seconds:02} s" if minutes else f"{seconds} s"
    return f"{said}; {rate} a second, {left} left"


def show(run: Run) -> None:
    """Prints what came of a run: a table, quirks, news, and each disagreement in full."""
    print_all(_table(run), _sections(run), verdict(run))


def print_all(table: Table, sections: Iterable[tuple[str, Iterable[str]]], verdict: str) -> None:
    """Prints a table, sections below it with their headings, and a verdict."""
    screen = _Screen(highlight=False, emoji=False, markup=False)
    wide = screen.options.update(max_width=WIDEST)
    needs = Measurement.get(screen, wide, table)
    # Of words and numbers none is cut; and a program reads lines, so that there each row is one.
    screen.width = (
        max(screen.width, needs.minimum) if screen.is_terminal else max(WIDTH, needs.maximum)
    )
    screen.print(table)
    for title, lines in sections:
        screen.print(f"\n{title}", style="bold")
        for line in lines:
            for part in _parts(line, screen):
                screen.print(part, soft_wrap=True)
    said = Text("\n".join(("", *_parts(verdict, screen))))
    for expression, style in STYLES:
        said.highlight_regex(re.compile(expression, re.MULTILINE), style)
    screen.print(said, soft_wrap=True)


def _parts(line: str, screen: Console) -> Iterable[str]:
    """A line as a terminal shows it, in several where it is too wide; else whole."""
    return folded(visible(line), screen.width) if screen.is_terminal else [visible(line)]


def count_lines(counts: Mapping[str, int]) -> list[str]:
    """Counts, each before what it is of."""
    return [f"{count:>11,}  {what}" for what, count in counts.items()]


def _table(run: Run) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layout")
    mode = run.heading
    for heading in (mode, "compared", "disagree", "quirks", "not comparable", "seconds"):
        table.add_column(heading, justify="right")
    for space in run.spaces:
        name = visible(space.layout.name)
        mode = space.layout.mode(space.levels).removesuffix(" levels")
        if space.skipped is not None:
            table.add_row(name, mode, "skipped", style="dim")
            continue
        table.add_row(
            name,
            mode,
            *_counts(space),
            f"{space.seconds:.1f}",
            style="red" if space.disagreed else None,
        )
    table.add_section()
    table.add_row("all", "", *_counts(run), f"{run.seconds:.1f}")
    return table


def _counts(part: SpaceReport | Run) -> tuple[str, ...]:
    counts = (
        part.compared,
        part.disagreed,
        part.count("quirks").total(),
        part.count("not_comparable").total(),
    )
    return tuple(f"{count:,}" for count in counts)


def _sections(run: Run) -> Iterator[tuple[str, Iterable[str]]]:
    """What stands below the table, each with its heading; nothing where there is nothing."""
    oracles = by_oracle(run)
    if oracles:
        yield "Compared, by oracle", count_lines(oracles)
    if run.not_run_on:
        yield NOT_RUN, run.not_run_on
    if counts := run.count("quirks"):
        yield "Known quirks", quirk_lines(counts, known_of(run.arch))
    if counts := run.count("not_comparable"):
        yield "Not comparable", count_lines(counts)
    if skipped := skipped_lines(run):
        yield "Skipped", skipped
    if counts := run.count("news"):
        yield "News", count_lines(counts)
    if run.findings:
        yield "Disagreements", [line for one in run.findings for line in (*finding_lines(one), "")]


def answers_of_all(run: Run) -> Iterator[str]:
    """What every engine says of disagreements; nothing where none was asked."""
    titles = (next(finding_lines(one)) for one in run.findings)
    return every_engine_lines(titles, (one.answers for one in run.findings))


def skipped_lines(run: Run) -> list[str]:
    """The spaces that were skipped, each with the reason."""
    return [
        f"{one.layout.name}, {one.layout.mode(one.levels)}: {one.skipped}"
        for one in run.spaces
        if one.skipped is not None
    ]


def by_oracle(run: Run) -> dict[str, int]:
    """How many questions each oracle answered."""
    counts: dict[str, int] = {}
    for space in run.spaces:
        for one in space.comparisons:
            counts[one.oracle] = counts.get(one.oracle, 0) + one.compared
    return counts


def verdict(run: Run) -> str:
    """What came of it, in a sentence."""
    where = f"on {ran_on(run.engine, run.qemu)}"
    if run.disagreed:
        described = len(run.findings)
        are = "is" if described == 1 else "are"
        rest = f", of which {described} {are} described" if described < run.disagreed else ""
        return f"{disagreeing(run.disagreed, run.compared, 'answer')} {where}{rest}."
    if run.failure:
        agree = agreeing(run.compared, "answer", all_of_them=False)
        return f"{agree} {where}, and then the machine failed."
    return f"{agreeing(run.compared, 'answer')} {where}."
