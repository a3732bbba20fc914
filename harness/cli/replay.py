"""`pagetable replay`: a saved case, asked again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.architectures import USUAL
from harness.cli.complete import one_of
from harness.cli.ending import DISAGREEMENT, MISUSE, sentences
from harness.cli.engine import Bochs, Qemu, program_of, programs
from harness.cli.output import show

if TYPE_CHECKING:
    from harness.check.replay import Case, Replays

EVERY = "all"
"""In place of an engine: every one that can run here."""


def replay(
    context: typer.Context,
    case: Annotated[Path, typer.Argument(metavar="FILE", help="A case that was saved.")],
    engine: Annotated[
        str | None,
        typer.Option(
            help="tcg, kvm or bochs instead of the case's own; all: each that can run here.",
            autocompletion=one_of("tcg", "kvm", "bochs", EVERY),
            show_default=False,
        ),
    ] = None,
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
) -> None:
    """Ask the question of a saved case again.

    The case carries its layout or its entries, which are built in a new guest; the same oracle is
    asked on the same engine, and the answers of then and of now are printed.  With --engine all,
    every engine is asked: where one alone differs from the rules, the fault is likely its own.

    Example: pagetable replay build/cases/halves-5-tcg-probe-user-read-at-0x1000.json
    """
    with sentences():
        from harness.check.quirk import known_of
        from harness.check.replay import arch_in, replays_of
        from harness.report.text import replay_lines

        arch = arch_in(case)
        replays = replays_of(arch)
        assert replays is not None
        found = replays.saved(case)
        chosen = programs(qemu, bochs, arch, None if arch == USUAL else context)
        if engine == EVERY:
            _on_every_engine(replays, found, chosen)
            return
        asked = replays.on(found, engine or found.engine)
        comparison = replays.replayed(asked, program_of(asked.engine, chosen, arch))
        for line in replay_lines(found, comparison, known_of(arch)):
            show(line)
        if comparison.disagreed:
            raise typer.Exit(DISAGREEMENT)


def _on_every_engine(replays: Replays, case: Case, chosen: Mapping[str, str]) -> None:
    """Prints what each says; ends with 1 where one disagrees, with 2 where none could be asked."""
    from harness.report.text import answer_lines, case_lines

    for line in case_lines(case):
        show(line)
    found = [answer for _, answer in replays.ask_every([case], replays.this_host(chosen))]
    for line in answer_lines(found):
        show(line)
    if any(one.agrees is False for one in found):
        raise typer.Exit(DISAGREEMENT)
    if all(one.agrees is None for one in found):
        raise typer.Exit(MISUSE)
