"""`pagetable validate`: layouts, built in a guest's memory and compared with the machine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.architectures import NAMES, USUAL
from harness.cli import complete
from harness.cli.ending import (
    CASES,
    DISAGREEMENT,
    MACHINE_FAILURE,
    MISUSE,
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
    given,
    known,
    on_each,
    programs,
    usable,
    whose,
)
from harness.cli.help import OUTPUT
from harness.cli.output import Html, Json, make_folder, say, show, writable, write
from harness.cli.witnesses import answers_of_all

if TYPE_CHECKING:
    from harness.check.layouts import Layout
    from harness.check.validation import SpaceReport
    from harness.report.run import Run


def _modes(context: typer.Context) -> list[str]:
    """Offers the modes that the architecture that is named before has names for."""
    from harness.check.layouts import described

    arch = context.params.get("arch")
    modes = described(arch if arch in NAMES else USUAL).modes.values()
    return [mode for mode in modes if " " not in mode]


def validate(
    context: typer.Context,
    layouts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAYOUT]...",
            help="Layouts by name (of another architecture than x86 as riscv/NAME), or TOML files,"
            " which say what they are written for; by default all that come along.",
            show_default=False,
            autocompletion=complete.layouts,
        ),
    ] = None,
    engine: Engine = "auto",
    arch: Arch = USUAL,
    levels: Annotated[
        int | None,
        typer.Option(
            help="This number of levels alone, like 4 or 5; by default all of each layout.",
            show_default=False,
            autocompletion=complete.one_of("4", "5"),
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="A mode by the architecture's name for it, such as sv39: this one alone.",
            show_default=False,
            autocompletion=_modes,
        ),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Ask the monitor about all mappings, not a sample.")
    ] = False,
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
    as_json: Json = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write report.json, junit.xml and the cases of disagreements there.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    html: Html = None,
    allow_news: AllowNews = False,
) -> None:
    """Build layouts in a guest's memory, and compare the machine with the reference.

    Every mapping is read, written and fetched in the guest, as supervisor and as user, and QEMU's
    monitor is asked for translations and contents.  Each disagreement is shown with its whole
    walk, and saved as a case that `pagetable replay` asks again: in DIR, or in build/cases.  Of the
    first few, what every engine of this host says is printed too.

    Example: pagetable validate smallest halves --levels 5
    """
    if arch == ALL:

        def of(one: str) -> None:
            kept = None if report is None else report / one
            rest = as_json, kept, None, allow_news
            validate(context, layouts, engine, one, None, None, False, qemu, bochs, *rest)

        with sentences():
            make_folder(report)
        on_each(context, of)
        return
    with sentences():
        from harness.report import files, terminal
        from harness.report.text import counted

        started = time.monotonic()
        writable(html)
        those = _layouts(layouts or [], arch if given("arch", context) else None)
        if layouts:
            arch = those[0].arch
        spaces = _spaces(those, bool(layouts), arch, _levels(arch, levels, mode))
        make_folder(report)
        interrupted = None
        _refuse_in_vain(arch, thorough)
        chosen = programs(qemu, bochs, arch, context)
        engine, program = usable(engine, chosen, arch)
        if not as_json:
            say(f"{counted(len(spaces), 'space')} on {engine}")
        run = _validated(spaces, engine, program, thorough, report or CASES, started)
        if not as_json:
            terminal.show(run)
        if run.findings:
            _keep(run, report, None)  # before all are asked, in which the run could be lost
            run, interrupted = _everyone_asked(run, chosen)
        if as_json:
            say(json.dumps(files.as_object(run)))
        else:
            for line in terminal.answers_of_all(run):
                show(line)
        _keep(run, report, html)
        if interrupted is not None:
            raise interrupted
        _leave(run, allow_news)


def _refuse_in_vain(arch: str, thorough: bool) -> None:
    """Raises Misuse for --thorough where there is nothing more to ask."""
    from harness.check.layouts import described
    from harness.machine.errors import Misuse

    if thorough and not described(arch).thorough:
        raise Misuse(f"--thorough has no use: QEMU's monitor is asked about no mapping of {arch}")


def _levels(arch: str, levels: int | None, mode: str | None) -> int | None:
    """The one number of levels that is asked for, None for all; raises Misuse where there is no
    such architecture, or no such mode of it."""
    from harness.check.layouts import described, either
    from harness.machine.errors import Misuse

    modes = described(known(arch)).modes
    if mode is None:
        return levels
    mode = mode.lower()
    of_mode = {name: count for count, name in modes.items() if " " not in name}
    if not of_mode:
        meant = whose(mode, NAMES, lambda one: described(one).modes.values())
        choice = f"--levels {either(modes)}{meant}"
        raise Misuse(f"--mode {mode} is not of {arch}: choose {choice}")
    if mode not in of_mode:
        meant = whose(mode, NAMES, lambda one: described(one).modes.values())
        choice = f"{', '.join(of_mode)}{meant}"
        raise Misuse(f"{arch} has no mode {mode!r}: choose one of {choice}")
    if levels not in (None, of_mode[mode]):
        raise Misuse(f"{mode} has {of_mode[mode]} levels, not {levels}")
    return of_mode[mode]


def _layouts(names: list[str], arch: str | None) -> list[Layout]:
    """The layouts of these names, all for one architecture; without names all that come along for
    it.

    arch  the architecture that was asked for; None where their own is meant

    Raises Misuse for a layout of another, or of several.
    """
    from harness.check.layouts import find, load, shipped
    from harness.machine.errors import Misuse

    asked = known(arch or USUAL)
    found = [load(path) for path in ([find(one, asked) for one in names] or shipped(asked))]
    meant = arch or found[0].arch
    for layout in found:
        if layout.arch != meant and arch:
            raise Misuse(f"{layout.name} is written for {layout.arch}: say --arch {layout.arch}")
        if layout.arch != meant:
            raise Misuse(
                f"{found[0].name} is written for {meant}, {layout.name} for {layout.arch}:"
                " validate those of one architecture at a time"
            )
    return found


def _spaces(
    layouts: list[Layout], named: bool, arch: str, levels: int | None
) -> list[tuple[Layout, int]]:
    """Layouts, each with every number of levels at which it is to be built.

    named  whether they were asked for by their names
    """
    from harness.check.layouts import described, either
    from harness.machine.errors import Misuse

    spaces = [(one, n) for one in layouts for n in one.levels if levels in (None, n)]
    for layout in layouts if named else ():
        if levels not in (None, *layout.levels):
            there = layout.written_for
            raise Misuse(f"{layout.name} is written for {there} levels, not {levels}.")
    if not spaces:
        known = either(described(arch).modes)
        raise Misuse(f"no layout is written for {levels} levels: choose {known}.")
    return spaces


def _validated(
    spaces: list[tuple[Layout, int]],
    engine: str,
    program: str,
    thorough: bool,
    directory: Path,
    started: float,
) -> Run:
    """Validates the spaces, and keeps in the directory what tells against the machine."""
    from harness.check.workers import validate_all
    from harness.machine.errors import MachineError
    from harness.report.run import Finding, Run, find
    from harness.report.terminal import following

    reports: list[SpaceReport] = []
    findings: list[Finding] = []
    failure = None
    try:
        with closing(validate_all(spaces, engine, program=program, thorough=thorough)) as coming:
            for report in following(coming, len(spaces), _step):
                reports.append(report)
                findings += find(report, directory)
    except MachineError as error:
        failure = kept(error, directory)
    order = [(layout.name, levels) for layout, levels in spaces]
    reports.sort(key=lambda report: order.index((report.layout.name, report.levels)))
    seconds = time.monotonic() - started
    return Run(engine, tuple(reports), tuple(findings), seconds, failure)


def _everyone_asked(run: Run, chosen: Mapping[str, str]) -> tuple[Run, KeyboardInterrupt | None]:
    """The run with what every engine says of its first disagreements, and the interruption if not
    all were asked."""
    from harness.check.compare import EXAMPLES
    from harness.check.replay import replays_of

    replays = replays_of(run.arch)
    if replays is None:
        return run, None
    first = run.findings[:EXAMPLES]
    cases = [replays.case_of(one.space, one.disagreement) for one in first]
    ask = partial(replays.ask_every, cases)
    answers, interrupted = answers_of_all(len(cases), ask, chosen, run.arch)
    told = (replace(one, answers=some) for one, some in zip(first, answers, strict=True))
    return replace(run, findings=(*told, *run.findings[EXAMPLES:])), interrupted


def _keep(run: Run, directory: Path | None, page: Path | None) -> None:
    """Writes what was asked to be written beside the output."""
    from harness.report import files

    if directory is not None:
        files.write(run, directory)
    if page is not None:
        from harness.report.html.run import run_page

        write(page, run_page(run))


def _step(report: SpaceReport) -> tuple[int, str]:
    return 1, f"{report.layout.name}, {report.layout.mode(report.levels)}"


def _leave(run: Run, allow_news: bool) -> None:
    """Ends with the exit code that a run deserves, and says on stderr what is amiss."""
    unsaved = [finding.unsaved for finding in run.findings if finding.unsaved]
    if unsaved:
        cases = "a case" if len(unsaved) == 1 else f"{len(unsaved)} cases"
        complain(f"{cases} could not be saved: {unsaved[0]}")
    if run.failure is not None:
        complain(run.failure)
    if unsaved or run.failure is not None:
        raise typer.Exit(MACHINE_FAILURE)
    if run.disagreed:
        raise typer.Exit(DISAGREEMENT)
    if not run.compared:
        complain("nothing was compared: the engine lacks what the layouts need.")
        raise typer.Exit(MISUSE)
    tell_news(run.count("news"), allow_news)
