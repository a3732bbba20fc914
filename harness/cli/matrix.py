"""`pagetable matrix`: every access at every level, executed and compared with the reference."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.architectures import USUAL
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
from harness.cli.engine import (
    ALL,
    AllowNews,
    Arch,
    Bochs,
    Engine,
    Qemu,
    known,
    on_each,
    program_of,
    programs,
    usable,
    whose,
)
from harness.cli.help import OUTPUT
from harness.cli.output import Html, Json, make_folder, say, show, writable, write
from harness.cli.witnesses import answers_of_all

if TYPE_CHECKING:
    from harness.check.matrix import Failure, Plan, Report
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


def modes_offered(context: typer.Context) -> list[str]:
    """Offers the modes of the architecture that is named before."""
    from harness.check.matrix import matrix_of, with_matrix

    arch = context.params.get("arch")
    return [*matrix_of(arch if arch in with_matrix() else USUAL).MODES, "all"]


Mode = Annotated[
    str,
    typer.Option(
        help="A mode by the architecture's name for it, such as pae, 4 (levels) or sv39; or all.",
        autocompletion=modes_offered,
    ),
]


def matrix(
    context: typer.Context,
    preset: Preset = "quick",
    arch: Arch = USUAL,
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
    if arch == ALL:
        from harness.check.matrix import with_matrix

        def of(one: str) -> None:
            kept = None if report is None else report / one
            rest = as_json, kept, None, allow_news
            matrix(context, preset, one, "all", engine, where, jobs, qemu, bochs, *rest)

        with sentences():
            make_folder(report)
        on_each(context, of, with_matrix())
        return
    with sentences():
        from harness.machine.errors import Misuse
        from harness.report import matrix as reports
        from harness.report.text import counted

        if jobs < 1:
            raise Misuse(f"{jobs} guests can try nothing: choose 1 or more")
        known(arch)
        writable(html)
        make_folder(report)
        started = time.monotonic()
        chosen = programs(qemu, bochs, arch, context)
        plan = planned(preset, mode, *usable(engine, chosen, arch), where, arch)
        if not as_json:
            say(f"{counted(len(plan), 'access')} on {plan.engine}")
        result = tried(plan, jobs, chosen, report or CASES, started)
        _keep(result, report, html)
        if not as_json:
            reports.show(result)
        result, interrupted = everyone_asked(result, chosen)
        if result.answers:
            _keep(result, report, html)
        if as_json:
            say(json.dumps(reports.as_object(result)))
        else:
            for line in reports.answers_of_all(result):
                show(line)
        if interrupted is not None:
            raise interrupted
        _leave(result, allow_news)


def planned(
    preset: str, mode: str, engine: str, program: str, where: str | None, arch: str = USUAL
) -> Plan[Any]:
    """What is to be tried; Misuse for names that there are not, and where it is nothing."""
    from harness.check.matrix import matrix_of
    from harness.machine.errors import Misuse

    matrix = matrix_of(arch)
    if preset not in matrix.PRESETS:
        raise Misuse(f"there is no preset {preset!r}: choose one of {', '.join(matrix.PRESETS)}")
    return matrix.planned(preset, modes_of(mode, arch), engine, program, where)


def modes_of(mode: str, arch: str) -> tuple[str, ...]:
    """The mode of an architecture, or all of them; Misuse for the name of a mode that there is
    not."""
    from harness.check.matrix import matrix_of, with_matrix
    from harness.machine.errors import Misuse

    modes, mode = matrix_of(arch).MODES, mode.lower()
    if mode not in (*modes, "all"):
        meant = whose(mode, with_matrix(), lambda one: matrix_of(one).MODES)
        choice = f"{', '.join(modes)}, or all{meant}"
        raise Misuse(f"{arch} has no mode {mode!r}: choose one of {choice}")
    return modes if mode == "all" else (mode,)


def tried(
    plan: Plan[Any], jobs: int, chosen: Mapping[str, str], directory: Path, started: float
) -> Result:
    """Tries a plan, and keeps in the directory what tells against the machine."""
    from harness.check.matrix import Report, matrix_of
    from harness.machine.errors import MachineError
    from harness.report.matrix import Result
    from harness.report.terminal import following

    total, failure = Report(plan.engine), None
    try:
        program = program_of(plan.engine, chosen, plan.arch)
        with closing(matrix_of(plan.arch).run(plan, jobs=jobs, program=program)) as coming:
            for part in following(coming, len(plan), _step):
                total.add(part)
    except MachineError as error:
        failure = kept(error, directory)
    cases = tuple((case, path) for case, path in _saved(total.failures, directory))
    seconds = time.monotonic() - started
    return Result(plan, total, cases, seconds, failure)


def everyone_asked(
    result: Result, chosen: Mapping[str, str]
) -> tuple[Result, KeyboardInterrupt | None]:
    """The result with what every engine says of its cases; where that fails or is interrupted, with
    what was said until then, and the interruption."""
    from harness.check.replay import replays_of

    replays = replays_of(result.plan.arch)
    if replays is None:
        return result, None
    cases = [case for case, _ in result.cases]
    ask = partial(replays.ask_every, cases)
    answers, interrupted = answers_of_all(len(cases), ask, chosen, result.plan.arch)
    return replace(result, answers=answers), interrupted


def _keep(result: Result, directory: Path | None, page: Path | None) -> None:
    """Writes what was asked to be written beside the output."""
    from harness.check import written
    from harness.report.matrix import as_object

    if directory is not None:
        written.write(directory / "report.json", json.dumps(as_object(result)) + "\n")
    if page is not None:
        from harness.report.html.run import matrix_page

        write(page, matrix_page(result))


def _step(part: Report) -> tuple[int, str]:
    wrong = part.comparison.disagreed
    return part.comparison.compared, "disagreements" if wrong else "accesses"


def _saved(cases: list[Failure], directory: Path) -> Iterator[tuple[Failure, Path | None]]:
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
    if result.failure is not None or result.unsaved:
        raise typer.Exit(MACHINE_FAILURE)
    if result.report.comparison.disagreed:
        raise typer.Exit(DISAGREEMENT)
    tell_news(result.report.comparison.news, allow_news)
