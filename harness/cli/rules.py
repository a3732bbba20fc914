"""`pagetable rules`: the rules of the reference, and what executing them showed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.complete import one_of
from harness.cli.ending import CASES, DISAGREEMENT, sentences
from harness.cli.engine import Bochs, Engine, Qemu, programs, usable
from harness.cli.matrix import JOBS, known, planned, tried


def rules(
    mode: Annotated[
        str,
        typer.Option(
            help="32, pae, 4 or 5 (levels).", autocompletion=one_of("32", "pae", "4", "5")
        ),
    ] = "4",
    engine: Engine = "auto",
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="What `pagetable matrix --json` printed, instead of a run; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the rules by which accesses fault, and the engines that depart from them.

    Each has its section of the manual (Intel SDM, volume 3A), and how many accesses exercised it.

    The counts are those of a quick run of the matrix, made now, or those of saved reports, of
    several engines for instance.  The rules are the reference's own, so that this table cannot
    drift from what is checked.

    Example: pagetable rules --mode 5
    """
    with sentences():
        from harness.report.matrix import Executed, rules_table
        from harness.report.terminal import print_all
        from harness.report.text import counted

        known(mode)
        if reports:
            found = [_read(path) for path in reports]
        else:
            found = [_run(mode, *usable(engine, programs(qemu, bochs)))]
        executed = [
            Executed(one["engine"], one["rules"].get(mode, {}), one["departed"].get(mode, {}))
            for one in found
        ]
        disagreed = sum(one["disagreements"] for one in found)
        verb = "disagrees" if disagreed == 1 else "disagree"
        verdict = f"{counted(disagreed, 'access')} {verb}." if disagreed else "All accesses agree."
        print_all(rules_table(mode, executed), (), verdict)
        if disagreed:
            raise typer.Exit(DISAGREEMENT)


def _run(mode: str, engine: str, program: str) -> dict[str, Any]:
    """The report of a quick run."""
    from harness.machine.errors import MachineError
    from harness.report.matrix import as_object

    plan = planned("quick", mode, engine, program, None)
    result = tried(plan, JOBS, program, CASES, time.monotonic())
    if result.failure is not None:
        raise MachineError(result.failure)
    return as_object(result)


def _read(path: Path) -> dict[str, Any]:
    """A saved report; Misuse where the file holds none."""
    from harness.check import written
    from harness.machine.errors import Misuse
    from harness.report.matrix import saved_report

    try:
        return saved_report(written.read(path))
    except OSError as error:
        raise Misuse(f"{path} cannot be read as a report: {error.strerror}") from None
    except ValueError as error:
        raise Misuse(
            f"{path} is not what this version's `pagetable matrix --json` prints: {error}"
        ) from None
