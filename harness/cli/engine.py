"""The options by which a machine is chosen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Annotated

import typer

from harness.cli.complete import one_of
from harness.cli.ending import MISUSE, complain, say_warnings

Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="tcg, kvm, bochs, or auto: tcg where this host can run it, else kvm.",
        autocompletion=one_of("tcg", "kvm", "bochs", "auto"),
    ),
]
Qemu = Annotated[
    str,
    typer.Option("--qemu", envvar="QEMU", help="The QEMU to run: a name or a path."),
]
Bochs = Annotated[
    str,
    typer.Option(
        "--bochs", envvar="BOCHS", help="The Bochs to run, for --engine bochs: a name or a path."
    ),
]
Arch = Annotated[
    str,
    typer.Option(
        "--arch",
        help="The architecture: x86, or riscv, for which --qemu or the environment's QEMU_RISCV"
        " names a QEMU for 64 bits.",
        autocompletion=one_of("x86", "riscv"),
    ),
]
AllowNews = Annotated[
    bool,
    typer.Option(
        "--allow-news", help="End with 0, not 4, where all agree but a known quirk did not show."
    ),
]


def programs(qemu: str, bochs: str) -> Mapping[str, str]:
    """The emulators that were chosen, by their makers.  Raises Misuse where one was named that is
    not there, even if it would not be run: what was asked for was a run on it."""
    from harness.machine.machine import installed
    from harness.machine.registry import ENGINES

    chosen = {"QEMU": qemu, "Bochs": bochs}
    for engine in ENGINES.values():
        if chosen[engine.maker] != engine.program:
            installed(chosen[engine.maker], engine.maker)
    return chosen


def riscv_program(context: typer.Context, qemu: str) -> str:
    """The QEMU for RISC-V of 64 bits: that of the command line, that of the environment's
    QEMU_RISCV, or the usual one.  Raises Misuse where it cannot be found."""
    from harness.machine.errors import Misuse
    from harness.machine.machine import installed

    usual, source = "qemu-system-riscv64", context.get_parameter_source("qemu")
    if source is None or source.name != "COMMANDLINE":
        qemu = os.environ.get("QEMU_RISCV") or usual
    if qemu == usual:
        installed(qemu)
    elif shutil.which(qemu) is None:
        raise Misuse(
            f"{qemu} is no program: name a QEMU for RISC-V of 64 bits with --qemu or the"
            " environment's QEMU_RISCV"
        )
    return qemu


def program_of(engine: str, chosen: Mapping[str, str]) -> str:
    """The chosen emulator of an engine.  Raises Misuse if there is no engine of that name."""
    from harness.machine.registry import engine_named

    return chosen[engine_named(engine).maker]


def usable(engine: str, chosen: Mapping[str, str]) -> tuple[str, str]:
    """The engine asked for, or with `auto` the first that this host can run, and its emulator.

    Where there is none the command ends with the reason of each, a line an engine; raises Misuse
    where the emulator itself is missing.
    """
    from harness.machine.engines import why_absent
    from harness.machine.machine import installed
    from harness.machine.registry import DEFAULT, engine_named

    say_warnings()
    reasons = {}
    for name in DEFAULT if engine == "auto" else (engine,):
        installed(program_of(name, chosen), engine_named(name).maker)
        program = program_of(name, chosen)
        reason = why_absent(name, program=program)
        if reason is None:
            return name, program
        reasons[name] = reason
    for name, reason in reasons.items():
        complain(f"{name} cannot run here: {reason}")
    raise typer.Exit(MISUSE)
