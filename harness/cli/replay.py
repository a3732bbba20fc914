"""`pagetable replay`: a saved case, asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.ending import DISAGREEMENT, sentences
from harness.cli.engine import Qemu


def replay(
    case: Annotated[Path, typer.Argument(metavar="FILE", help="A case that was saved.")],
    qemu: Qemu = "qemu-system-x86_64",
) -> None:
    """Ask the one question of a saved case again.

    The case carries its layout, which is built in a new guest; the same oracle is asked on the
    same engine, and the answers of then and of now are printed.

    Example: pagetable replay build/cases/halves-5-tcg-probe-user-read-at-0x1000.json
    """
    with sentences():
        from harness.check.replay import load
        from harness.check.replay import replay as ask
        from harness.report.text import replay_lines

        saved = load(case)
        comparison = ask(saved, qemu=qemu)
        for line in replay_lines(saved, comparison):
            typer.echo(line)
        if comparison.disagreed:
            raise typer.Exit(DISAGREEMENT)
