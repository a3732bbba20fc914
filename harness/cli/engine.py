"""The options by which a machine is chosen."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.complete import one_of
from harness.cli.ending import MISUSE, complain

Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="tcg, kvm, or auto: tcg where this host can run it, else kvm.",
        autocompletion=one_of("tcg", "kvm", "auto"),
    ),
]
Qemu = Annotated[
    str,
    typer.Option("--qemu", envvar="QEMU", help="The QEMU to run: a name or a path."),
]
AllowNews = Annotated[
    bool,
    typer.Option(
        "--allow-news", help="End with 0, not 4, where all agree but a known quirk did not show."
    ),
]


def usable(engine: str, qemu: str) -> str:
    """The engine asked for, or with `auto` the first that this host can run.

    Where there is none the command ends with the reason of each, a line an engine; raises Misuse
    where there is no QEMU, without which none is.
    """
    from harness.machine.engines import why_absent
    from harness.machine.qemu import ENGINES, installed

    installed(qemu)
    reasons = {}
    for name in ENGINES if engine == "auto" else (engine,):
        reason = why_absent(name, qemu=qemu)
        if reason is None:
            return name
        reasons[name] = reason
    for name, reason in reasons.items():
        complain(f"{name} cannot run here: {reason}")
    raise typer.Exit(MISUSE)
