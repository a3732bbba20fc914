"""`pagetable matrix`: every access at every level, executed and compared with the reference."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.complete import one_of
from harness.cli.ending import (
    CASES,
    DISAGREEMENT,
    MACHINE_FAILURE,
    complain,
    kept,
    sentences,
    tell_news,
)
from harness.cli.engine import AllowNews, Bochs, Engine, Qemu, program_of, programs, usable
from harness.cli.help import OUTPUT
from harness.cli.output import Html, Json, make_folder, say, writable, write

if TYPE_CHECKING:
    from harness.check.matrix import Plan, Report
    from harness.check.matrix_case import MatrixCase
    from harness.report.matrix import Result

JOBS = 2
"""Guests side by side, unless told otherwise."""

Preset = Annotated[
    str,
    typer.Option(
        help="quick: millions of accesses, in seconds; full: tens of millions.",
        autocompletion=one_of("quick", "full"),
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        help="32, pae, 4 or 5 (levels), or all.",
        autocompletion=one_of("32", "pae", "4", "5", "all"),
    ),
]


def matrix(
    preset: Preset = "quick",
    mode: Mode = "all",
    engine: Engine = "auto",
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="The cases to try, by axes and values: 'level=3 and access=fetch'.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", help="Guests side by side.")] = JOBS,
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
    as_json: Json = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write report.json and the cases of disagreements there.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    html: Html = None,
    allow_news: AllowNews = False,
) -> None:
    """Try every access at every level under every control state.

    The cases are products of axes: bits of entries, accesses, control bits, addresses.  Each runs
    in the guest, and its exception, error code, CR2, data and the A and D bits of every entry are
    compared with the reference.  The first disagreements are shown in full, with what every other
    engine of this host says of them, and saved as cases that `pagetable replay` asks again: in
    DIR, or in build/cases.

    Example: pagetable matrix --mode 5 --where 'level=4 and P=1 and access=write'
    """
    with sentences():
        from harness.check import written
        from harness.machine.errors import Misuse
        from harness.report import matrix as reports
        from harness.report.text import counted

        if jobs < 1:
            raise Misuse(f"{jobs} guests can try nothing: choose 1 or more")
        writable(html)
        make_folder(report)
        started = time.monotonic()
        chosen = programs(qemu, bochs)
        engine, program = usable(engine, chosen)
        plan = planned(preset, mode, engine, program, where)
        if not as_json:
            say(f"{counted(len(plan), 'access')} on {engine}")
        result = tried(plan, jobs, chosen, report or CASES, started)
        if as_json or report is not None:
            text = json.dumps(reports.as_object(result))
        if as_json:
            say(text)
        else:
            reports.show(result)
        if report is not None:
            written.write(report / "report.json", text + "\n")
        if html is not None:
            from harness.report.html.run import matrix_page

            write(html, matrix_page(result))
        _leave(result, allow_news)


def planned(preset: str, mode: str, engine: str, program: str, where: str | None) -> Plan:
    """What is to be tried; Misuse for names that there are not, and where it is nothing."""
    from harness.check.families import PRESETS
    from harness.check.matrix import plan
    from harness.check.stage import MODES
    from harness.machine.engines import executor, why_long_mode_only
    from harness.machine.errors import Misuse
    from harness.machine.guest import Guest
    from harness.machine.ram import ARENA, RAM_UNIT

    if preset not in PRESETS:
        raise Misuse(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    if mode != "all":
        known(mode)
    with Guest(engine, ram_bytes=ARENA.stop + RAM_UNIT, program=program) as guest:
        info, long_only, by = guest.info, why_long_mode_only(guest), executor(guest)
    modes = MODES if mode == "all" else (mode,)
    return plan(preset, modes, engine, info, where, long_only, by)


def known(mode: str) -> None:
    """Misuse for the name of a mode that there is not."""
    from harness.check.stage import MODES
    from harness.machine.errors import Misuse

    if mode not in MODES:
        raise Misuse(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")


def tried(
    plan: Plan, jobs: int, chosen: Mapping[str, str], directory: Path, started: float
) -> Result:
    """Tries a plan, keeps in the directory what tells against the machine, and asks every engine
    about that."""
    from harness.check.matrix import Report, run
    from harness.check.witnesses import answers, engines
    from harness.machine.errors import MachineError
    from harness.report.matrix import Result
    from harness.report.terminal import following

    total, failure = Report(plan.engine), None
    try:
        program = program_of(plan.engine, chosen)
        with closing(run(plan, jobs=jobs, program=program)) as coming:
            for part in following(coming, len(plan), _step):
                total.add(part)
    except MachineError as error:
        failure = kept(error, directory)
    cases = tuple((case, path) for case, path in _saved(total.failures, directory))
    seconds = time.monotonic() - started
    here = engines(chosen) if cases else None
    asked = tuple(tuple(answers(case, here)) for case, _ in cases) if here else ()
    return Result(plan, total, cases, seconds, failure, asked)


def _step(part: Report) -> tuple[int, str]:
    wrong = part.comparison.disagreed
    return part.comparison.compared, "disagreements" if wrong else "accesses"


def _saved(cases: list[MatrixCase], directory: Path) -> Iterator[tuple[MatrixCase, Path | None]]:
    for case in cases:
        try:
            yield case, case.save(directory)
        except OSError as error:
            complain(f"a case could not be saved: {error}")
            yield case, None


def _leave(result: Result, allow_news: bool) -> None:
    """Ends with the exit code that a run deserves."""
    if result.failure is not None:
        complain(result.failure)
    if result.failure is not None or any(path is None for _, path in result.cases):
        raise typer.Exit(MACHINE_FAILURE)
    if result.report.comparison.disagreed:
        raise typer.Exit(DISAGREEMENT)
    tell_news(result.report.comparison.news, allow_news)
