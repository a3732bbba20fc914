"""`pagetable replay`: a saved case, asked again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.ending import DISAGREEMENT, sentences
from harness.cli.engine import Bochs, Qemu, program_of, programs
from harness.cli.output import show

if TYPE_CHECKING:
    from harness.check.compare import Comparison
    from harness.check.matrix_case import MatrixCase
    from harness.check.replay import Case


def replay(
    case: Annotated[Path, typer.Argument(metavar="FILE", help="A case that was saved.")],
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
) -> None:
    """Ask the question of a saved case again.

    The case carries its layout or its entries, which are built in a new guest; the same oracle is
    asked on the same engine, and the answers of then and of now are printed.

    Example: pagetable replay build/cases/halves-5-tcg-probe-user-read-at-0x1000.json
    """
    with sentences():
        from harness.report.text import replay_lines

        saved, comparison = _asked(case, programs(qemu, bochs))
        for line in replay_lines(saved, comparison):
            show(line)
        if comparison.disagreed:
            raise typer.Exit(DISAGREEMENT)


def _asked(path: Path, chosen: Mapping[str, str]) -> tuple[Case | MatrixCase, Comparison]:
    """The case in a file, of whichever kind, and what came of it now."""
    from harness.check import matrix_case, replay

    case = matrix_case.saved(path)
    program = program_of(case.engine, chosen)
    if isinstance(case, matrix_case.MatrixCase):
        return case, matrix_case.replay(case, program=program)
    return case, replay.replay(case, program=program)
