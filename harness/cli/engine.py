"""The options by which a machine is chosen."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.complete import one_of

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

    Raises Misuse, with the reason of each, where there is none.
    """
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
