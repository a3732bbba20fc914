"""`pagetable rules`: the rules of the reference, and what executing them showed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.architectures import USUAL
from harness.cli.ending import CASES, DISAGREEMENT, MACHINE_FAILURE, complain, sentences
from harness.cli.engine import ALL, Arch, Bochs, Engine, Qemu, known, on_each, programs, usable
from harness.cli.matrix import JOBS, everyone_asked, modes_of, modes_offered, planned, tried
from harness.cli.output import Json, make_folder, say

if TYPE_CHECKING:
    from harness.report.matrix import Result
    from harness.report.rules import SavedReport


def rules(
    context: typer.Context,
    arch: Arch = USUAL,
    mode: Annotated[
        str | None,
        typer.Option(
            help="A mode by the architecture's name for it, such as pae, 4 (levels) or sv39, or all"
            " of them together; by default the most usual one, as 4.",
            show_default=False,
            autocompletion=modes_offered,
        ),
    ] = None,
    engine: Engine = "auto",
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run, keep the report there, and show it beside those of earlier runs; of several"
            " of one engine and version the newest counts.",
            show_default=False,
        ),
    ] = None,
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="What `pagetable matrix --json` printed, or a folder of such files, instead of a"
            " run; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the rules by which accesses fault, and every engine that executed them.

    Each has its section of the manual (x86: Intel SDM, volume 3A); how many accesses exercised it,
    on which engine and version; and whether that departs from it.  The column `witnesses` says how
    many engines follow the rule: in some version they did as it says at least once, and otherwise
    only by a known quirk.  kvm_amd and kvm_intel are two, as the processors are that answer there.

    The counts are those of a quick run of the matrix, made now, or those of saved reports.  With
    --results, several engines stand side by side.  The rules are the reference's own, so that this
    table cannot drift from what is checked.

    Example: pagetable rules --engine bochs --results results
    """
    if arch == ALL:
        from harness.check.matrix import with_matrix

        def of(one: str) -> None:
            rules(context, one, None, engine, qemu, bochs, results, reports, as_json)

        on_each(context, of, with_matrix())
        return
    with sentences():
        from harness.check.matrix import matrix_of
        from harness.machine.errors import Misuse
        from harness.report import rules as table
        from harness.report.terminal import print_all

        mode = (mode or matrix_of(known(arch)).USUAL_MODE).lower()
        modes = modes_of(mode, arch)
        if results is not None and reports:
            raise Misuse("--results keeps a run, and --from makes none: choose one of them")
        make_folder(results)
        interrupted = None
        if reports:
            found = _read(reports, arch)
        else:
            found, interrupted = _run(
                arch, mode, engine, programs(qemu, bochs, arch, context), results
            )
        those = table.chosen(modes, found)
        rows, cases = table.cross_table(those, arch), table.differing(those)
        disagreed, failures = table.disagreements(those), table.broken_off(those, found)
        if not those and not failures:
            raise Misuse(f"no access of mode {mode} is in what was read: choose another by --mode")
        if as_json:
            say(json.dumps(table.as_object(arch, mode, rows, cases, failures)))
        else:
            sections = [("Not executed on any engine", table.unseen_lines(arch))]
            if cases:
                sections.append(("Where engines differ", table.differing_lines(cases)))
            print_all(table.table(mode, rows), sections, table.verdict(rows, disagreed, failures))
        if interrupted is not None:
            raise interrupted
        for who, why in failures.items():
            complain(f"the run on {who} was broken off: {why}")
        if failures:
            raise typer.Exit(MACHINE_FAILURE)
        if disagreed:
            raise typer.Exit(DISAGREEMENT)


def _run(
    arch: str, mode: str, engine: str, chosen: Mapping[str, str], results: Path | None
) -> tuple[list[SavedReport], KeyboardInterrupt | None]:
    """The report of a quick run, kept among earlier ones where there is a folder for them; and the
    interruption where not every engine could be asked about it."""
    from harness.check import written
    from harness.machine.errors import MachineError
    from harness.report.matrix import as_object
    from harness.report.rules import saved_report

    def kept(result: Result) -> bytes:
        text = json.dumps(as_object(result)) + "\n"
        if results is not None:
            name = f"{result.report.executor} {mode}.json".replace(" ", "-")
            written.write(results / name, text)
        return text.encode()

    cases = CASES if results is None else results / "cases"
    plan = planned("quick", mode, *usable(engine, chosen, arch), None, arch)
    result = tried(plan, JOBS, chosen, cases, time.monotonic())
    if result.failure is not None:
        raise MachineError(result.failure)
    kept(result)  # before all are asked, in which the run could be lost
    result, interrupted = everyone_asked(result, chosen)
    text = kept(result)
    return [saved_report(text)] if results is None else _read([results], arch), interrupted


def _read(paths: Sequence[Path], arch: str) -> list[SavedReport]:
    """The reports of an architecture in files, and all in folders, where those of others may lie
    too; the oldest first.  Misuse where one is none, or none is there."""
    from harness.machine.errors import Misuse

    files: list[tuple[int, SavedReport]] = []
    path = Path()
    try:
        for path in paths:
            some = _beside_cases(path) if path.is_dir() else [path]
            if not some:
                raise Misuse(f"{path} holds no report: no file *.json in it can be one")
            read = [(one.stat().st_mtime_ns, _report(one)) for one in some]
            those = [one for one in read if one[1].arch == arch]
            if not those or (len(those) < len(read) and not path.is_dir()):
                other = read[0][1].arch
                raise Misuse(f"{path} has no report of {arch}, but of {other}: say --arch {other}")
            files += those
    except OSError as error:
        raise Misuse(f"{path} cannot be read as a report: {error.strerror}") from None
    return [found for _, found in sorted(files, key=itemgetter(0))]


def _beside_cases(folder: Path) -> list[Path]:
    """The JSON files of a folder without the cases that `pagetable matrix --report` saves there."""
    from harness.check.replay import CaseError, saved

    others = []
    for path in sorted(folder.glob("*.json")):
        try:
            saved(path)
        except CaseError:
            others.append(path)
    return others


def _report(path: Path) -> SavedReport:
    from harness.check import written
    from harness.machine.errors import Misuse
    from harness.report.rules import saved_report

    try:
        found = saved_report(written.read(path))
    except OSError as error:
        raise Misuse(f"{path} cannot be read as a report: {error.strerror}") from None
    except ValueError as error:
        raise Misuse(
            f"{path} is not what this version's `pagetable matrix --json` prints: {error}"
        ) from None
    return found
