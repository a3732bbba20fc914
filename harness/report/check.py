"""What came of checking a foreign guest's tables, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich import box
from rich.table import Table

from harness.check.quirk import known_of
from harness.inspect.check import Checked
from harness.report import files
from harness.report.objects import answer
from harness.report.state import not_given_lines, notes, roots_text
from harness.report.terminal import NOT_RUN, count_lines, print_all
from harness.report.text import (
    agreeing,
    disagreeing,
    disagreement_lines,
    every_engine_lines,
    question,
    quirk_lines,
    ran_on,
)


def as_object(checked: Checked) -> dict[str, Any]:
    """A check as what JSON can hold."""
    return answer(
        "check",
        checked.snapshot,
        engine=checked.engine,
        qemu=checked.qemu,
        not_run_on=checked.not_run_on,
        compared=compared(checked),
        disagreements=disagreed(checked),
        quirks=total(checked, "quirks"),
        not_comparable=total(checked, "not_comparable"),
        news=total(checked, "news"),
        oracles=[files.oracle(one) for one in checked.comparisons],
        findings=[files.disagreement(found, answers=answers) for found, answers in checked.told],
    )


def show(checked: Checked) -> None:
    """Prints a table of the oracles, quirks, and each disagreement in full."""
    print_all(table(checked), sections(checked), verdict(checked))


def compared(checked: Checked) -> int:
    """Questions with a verdict."""
    return sum(one.compared for one in checked.comparisons)


def disagreed(checked: Checked) -> int:
    """How many of them disagree."""
    return sum(one.disagreed for one in checked.comparisons)


def total(checked: Checked, what: str) -> Counter[str]:
    """One of the counters of a comparison (`quirks`, `not_comparable`, `news`), over all."""
    return sum((getattr(one, what) for one in checked.comparisons), Counter[str]())


def table(checked: Checked) -> Table:
    """The oracles, a row each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("asked")
    for heading in ("compared", "disagree", "quirks", "not comparable"):
        table.add_column(heading, justify="right")
    for one in checked.comparisons:
        counts = (one.compared, one.disagreed, one.quirks.total(), one.not_comparable.total())
        style = "red" if one.disagreed else None
        table.add_row(one.oracle, *(f"{count:,}" for count in counts), style=style)
    return table


def sections(checked: Checked) -> Iterator[tuple[str, Iterable[str]]]:
    """What there is to say below them, each part with its heading."""
    if checked.not_run_on:
        yield NOT_RUN, checked.not_run_on
    if counts := total(checked, "quirks"):
        yield "Known quirks", quirk_lines(counts, known_of(checked.snapshot.cpu.architecture))
    if counts := total(checked, "not_comparable"):
        yield "Not comparable", count_lines(counts)
    if told := [*notes(checked.snapshot)]:
        yield "Notes", told
    if checked.snapshot.assumed:
        yield "Assumed", checked.snapshot.assumed
    if missing := [*not_given_lines(checked.snapshot)]:
        yield "Not looked at", missing
    if disagreed(checked):
        found = checked.disagreements
        yield "Disagreements", [line for one in found for line in (*disagreement_lines(one), "")]


def answers_of_all(checked: Checked) -> Iterator[str]:
    """What every engine says of disagreements; nothing where none was asked."""
    return every_engine_lines(map(question, checked.disagreements), checked.answers)


def verdict(checked: Checked) -> str:
    """What came of it, in a sentence."""
    what = f"{checked.snapshot.title}, {roots_text(checked.snapshot)}"
    where = f"about {what}, on {ran_on(checked.engine, checked.qemu)}"
    count, wrong = compared(checked), disagreed(checked)
    if wrong:
        return f"{disagreeing(wrong, count, 'answer')} {where}."
    return f"{agreeing(count, 'answer')} {where}."
