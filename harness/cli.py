"""The command `pagetable`.

Everything but typer is imported when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.check.layouts import Layout
    from harness.check.validate import SpaceReport
    from harness.machine.errors import MachineError
    from harness.report.run import Run

DISAGREEMENT, MISUSE, MACHINE_FAILURE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes; 0 says that all agree.  The last is the shell's for a program that Ctrl-C ended."""

CASES = Path("build/cases")
"""Where disagreements are saved, unless a report says where."""

app = typer.Typer(
    name="pagetable",
    help="Page tables, and the proof on a running guest that the machine reads them the same way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
    epilog="Exit codes: 0 all agree, 1 a disagreement, 2 misuse or no engine, 3 the machine"
    " failed, 130 interrupted.",
)

Qemu = Annotated[str, typer.Option("--qemu", help="The QEMU to run: a name or a path.")]


@app.callback()
def _pagetable() -> None:
    """Makes typer expect the name of a command, however many there are."""


@app.command()
def validate(
    layouts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAYOUT]...",
            help="Names of shipped layouts, or paths of TOML files; all shipped ones unless given.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="tcg, kvm, or auto: tcg where this host can run it, else kvm."),
    ] = "auto",
    levels: Annotated[
        int | None,
        typer.Option(
            help="4 or 5: this number of levels alone; all of each layout unless given.",
            show_default=False,
        ),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Ask the monitor about all mappings, not a sample.")
    ] = False,
    qemu: Qemu = "qemu-system-x86_64",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write report.json, junit.xml and the cases of disagreements there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Build layouts in a guest's memory, and compare what the machine makes of them with the
    reference.

    Every mapping is read, written and fetched in the guest, as supervisor and as user, and QEMU's
    monitor is asked for translations and contents.  For each disagreement the whole walk is shown,
    and a case is saved that `pagetable replay` asks again: in DIR, or in build/cases.

    Example: pagetable validate smallest halves --levels 5
    """
    with _sentences():
        from harness.report import files, terminal

        started = time.monotonic()
        spaces = _chosen(layouts or [], levels)
        if report is not None:
            report.mkdir(parents=True, exist_ok=True)
        engine = _usable(engine, qemu)
        if not as_json:
            typer.echo(f"{len(spaces)} spaces on {engine}")
        run = _validated(spaces, engine, qemu, thorough, report or CASES, started)
        if as_json:
            typer.echo(json.dumps(files.as_object(run), indent=2))
        else:
            terminal.show(run)
        if report is not None:
            files.write(run, report)
        _leave(run)


def _chosen(names: list[str], levels: int | None) -> list[tuple[Layout, int]]:
    """The layouts, each with every number of levels at which it is to be built."""
    from harness.check.layouts import find, load, shipped
    from harness.machine.errors import Misuse

    layouts = [load(find(name)) for name in names] if names else [load(path) for path in shipped()]
    spaces = [(one, n) for one in layouts for n in one.levels if levels in (None, n)]
    for layout in layouts if names else ():
        if levels not in (None, *layout.levels):
            written = " and ".join(map(str, layout.levels))
            raise Misuse(f"{layout.name} is written for {written} levels, not {levels}.")
    if not spaces:
        raise Misuse(f"no layout is written for {levels} levels: choose 4 or 5.")
    return spaces


def _usable(engine: str, qemu: str) -> str:
    """The engine asked for, or with `auto` the first that this host can run."""
    from harness.machine.engines import why_absent
    from harness.machine.errors import Misuse
    from harness.machine.qemu import ENGINES

    reasons = {}
    for name in ENGINES if engine == "auto" else (engine,):
        reason = why_absent(name, qemu=qemu)
        if reason is None:
            return name
        reasons[name] = reason
    said = " ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise Misuse(f"no engine can run here. {said}")


def _validated(
    spaces: list[tuple[Layout, int]],
    engine: str,
    qemu: str,
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
        with closing(validate_all(spaces, engine, qemu=qemu, thorough=thorough)) as coming:
            for report in following(coming, len(spaces)):
                reports.append(report)
                findings += find(report, directory)
    except MachineError as error:
        failure = _kept(error, directory)
    order = [(layout.name, levels) for layout, levels in spaces]
    reports.sort(key=lambda report: order.index((report.layout.name, report.levels)))
    seconds = time.monotonic() - started
    return Run(engine, tuple(reports), tuple(findings), seconds, failure)


def _kept(error: MachineError, directory: Path) -> str:
    """The sentence of a failure, with where its evidence is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "failure.txt"
    path.write_text("\n".join((str(error), *getattr(error, "__notes__", ()))) + "\n")
    return f"{error} The evidence is in {path}."


def _leave(run: Run) -> None:
    """Ends with the exit code that a run deserves, and says on stderr what is amiss."""
    unsaved = [finding.unsaved for finding in run.findings if finding.unsaved]
    if unsaved:
        _complain(f"{len(unsaved)} cases could not be saved: {unsaved[0]}")
    if run.failure is not None:
        _complain(run.failure)
    if unsaved or run.failure is not None:
        raise typer.Exit(MACHINE_FAILURE)
    if run.disagreed:
        raise typer.Exit(DISAGREEMENT)
    if not run.compared:
        _complain("nothing was compared: the engine lacks what the layouts need.")
        raise typer.Exit(MISUSE)


@app.command()
def replay(
    case: Annotated[Path, typer.Argument(metavar="FILE", help="A case that validate saved.")],
    qemu: Qemu = "qemu-system-x86_64",
) -> None:
    """Ask the one question of a saved case again.

    The case carries its layout, which is built in a new guest; the same oracle is asked on the
    same engine, and both answers are printed, those of then and those of now.

    Example: pagetable replay build/cases/halves-5-tcg-probe-user-read-at-0x1000.json
    """
    with _sentences():
        from harness.check.replay import load
        from harness.check.replay import replay as ask
        from harness.report.text import replay_lines

        saved = load(case)
        comparison = ask(saved, qemu=qemu)
        for line in replay_lines(saved, comparison):
            typer.echo(line)
        if comparison.disagreed:
            raise typer.Exit(DISAGREEMENT)


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns errors into a sentence on stderr and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        _complain("interrupted.")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _complain(str(error))
        raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    """The exit code of an expected error; None for a fault of this program."""
    from harness.check.layouts import LayoutError
    from harness.check.replay import CaseError
    from harness.machine.errors import MachineError, Misuse
    from harness.paging.space import SpaceError

    if isinstance(error, LayoutError | SpaceError | CaseError | Misuse):
        return MISUSE
    if isinstance(error, FileExistsError | NotADirectoryError | PermissionError):
        return MISUSE
    return MACHINE_FAILURE if isinstance(error, MachineError | OSError) else None


def _complain(sentence: str) -> None:
    typer.echo(f"pagetable: {sentence}", err=True)


def main() -> None:
    """The command."""
    app()


if __name__ == "__main__":
    main()
