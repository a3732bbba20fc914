"""`pagetable matrix`: every access at every level, executed and compared with the reference."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import riscv
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
    AllowNews,
    Arch,
    Bochs,
    Engine,
    Qemu,
    program_of,
    programs,
    riscv_program,
    usable,
)
from harness.cli.help import OUTPUT
from harness.cli.output import Html, Json, make_folder, say, show, writable, write
from harness.cli.witnesses import answers_of_all

if TYPE_CHECKING:
    from harness.check.x86.matrix.case import MatrixCase
    from harness.check.x86.matrix.run import Plan, Report
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


def _modes(context: typer.Context) -> list[str]:
    """Offers the modes of the architecture that is named before."""
    if context.params.get("arch") == "riscv":
        return ["sv32", "sv39", "sv48", "sv57", "all"]
    return ["32", "pae", "4", "5", "all"]


Mode = Annotated[
    str,
    typer.Option(
        help="32, pae, 4 or 5 (levels), or all; with --arch riscv sv32, sv39, sv48 or sv57.",
        autocompletion=_modes,
    ),
]


def matrix(
    context: typer.Context,
    preset: Preset = "quick",
    arch: Arch = "x86",
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
        from harness.machine.errors import Misuse
        from harness.report import matrix as reports
        from harness.report.text import counted

        if jobs < 1:
            raise Misuse(f"{jobs} guests can try nothing: choose 1 or more")
        if arch not in ("x86", "riscv"):
            raise Misuse(f"there is no architecture {arch!r}: choose x86 or riscv")
        writable(html)
        make_folder(report)
        if arch == "riscv":
            if html is not None:
                raise Misuse("--html shows x86's matrix alone: use --json for RISC-V's")
            riscv.matrix(
                preset=preset,
                mode=mode,
                engine=engine,
                where=where,
                jobs=jobs,
                program=riscv_program(context, qemu),
                as_json=as_json,
                report=report,
                allow_news=allow_news,
            )
            return
        started = time.monotonic()
        chosen = programs(qemu, bochs)
        engine, program = usable(engine, chosen)
        plan = planned(preset, mode, engine, program, where)
        if not as_json:
            say(f"{counted(len(plan), 'access')} on {engine}")
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


def planned(preset: str, mode: str, engine: str, program: str, where: str | None) -> Plan:
    """What is to be tried; Misuse for names that there are not, and where it is nothing."""
    from harness.check.x86.matrix.families import PRESETS
    from harness.check.x86.matrix.run import plan
    from harness.check.x86.matrix.stage import MODES
    from harness.machine.engines import present
    from harness.machine.errors import Misuse

    if preset not in PRESETS:
        raise Misuse(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    if mode != "all":
        known(mode)
    here = present(engine, program)
    modes = MODES if mode == "all" else (mode,)
    return plan(preset, modes, engine, here.info, where, here.long_mode_only, here.executor)


def known(mode: str) -> None:
    """Misuse for the name of a mode that there is not."""
    from harness.check.x86.matrix.stage import MODES
    from harness.machine.errors import Misuse

    if mode not in MODES:
        raise Misuse(f"there is no mode {mode!r}: choose one of {', '.join(MODES)}")


def tried(
    plan: Plan, jobs: int, chosen: Mapping[str, str], directory: Path, started: float
) -> Result:
    """Tries a plan, and keeps in the directory what tells against the machine."""
    from harness.check.x86.matrix.run import Report, run
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
    return Result(plan, total, cases, seconds, failure)


def everyone_asked(
    result: Result, chosen: Mapping[str, str]
) -> tuple[Result, KeyboardInterrupt | None]:
    """The result with what every engine says of its cases; where that fails or is interrupted, with
    what was said until then, and the interruption."""
    from harness.check.x86.witnesses import ask_every

    cases = [case for case, _ in result.cases]
    answers, interrupted = answers_of_all(len(cases), partial(ask_every, cases), chosen)
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
