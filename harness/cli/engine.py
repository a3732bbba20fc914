"""The options by which a machine is chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import typer

from harness.architectures import NAMES, USUAL
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
        help=f"The architecture: {' or '.join(NAMES)}. Of others than x86 the environment names the"
        " QEMU as QEMU_RISCV does: that for 64 bits.",
        autocompletion=one_of(*NAMES),
    ),
]
AllowNews = Annotated[
    bool,
    typer.Option(
        "--allow-news", help="End with 0, not 4, where all agree but a known quirk did not show."
    ),
]


def known(arch: str) -> str:
    """An architecture by its name.  Raises Misuse if there is none of that name."""
    from harness.machine.errors import Misuse

    if arch not in NAMES:
        raise Misuse(f"there is no architecture {arch!r}: choose {' or '.join(NAMES)}")
    return arch


def programs(
    qemu: str, bochs: str, arch: str = USUAL, context: typer.Context | None = None
) -> Mapping[str, str]:
    """The emulators that were chosen for an architecture, by their makers: those of the command
    line, those that the environment names for it, or the usual ones.

    context  where it is not the usual architecture: what tells what was given on the command line

    Raises Misuse where one was named that is not there, even if it would not be run, or for whose
    maker there is no use: what was asked for was a run on it.
    """
    from harness.machine.errors import Misuse
    from harness.machine.registry import engines_of

    given = {"qemu": qemu, "bochs": bochs}
    if context is not None:  # what the environment says is of the usual architecture
        given = {name: one for name, one in given.items() if _given(name, context)}
    engines, chosen = engines_of(arch).values(), dict[str, str]()
    for engine in engines:
        named = given.get(engine.maker.lower()) or os.environ.get(engine.environment)
        chosen[engine.maker] = named or engine.program
    for name in given:
        if name not in map(str.lower, chosen):
            raise Misuse(f"--{name} has no use: {', '.join(chosen)} alone runs {arch}")
    for engine in engines:
        if chosen[engine.maker] != engine.program:
            engine.installed(chosen[engine.maker])
    return chosen


def _given(option: str, context: typer.Context) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def program_of(engine: str, chosen: Mapping[str, str], arch: str = USUAL) -> str:
    """The chosen emulator of an engine.  Raises Misuse if there is no engine of that name."""
    from harness.machine.registry import engine_named

    return chosen[engine_named(engine, arch).maker]


def usable(engine: str, chosen: Mapping[str, str], arch: str = USUAL) -> tuple[str, str]:
    """The engine asked for, or with `auto` the first that this host can run, and its emulator.

    Where there is none the command ends with the reason of each, a line an engine; raises Misuse
    where the emulator itself is missing.
    """
    from harness.machine.registry import engine_named, engines_of, why_absent

    say_warnings()
    by_default = [name for name, one in engines_of(arch).items() if one.by_default]
    reasons = {}
    for name in by_default if engine == "auto" else (engine,):
        program = program_of(name, chosen, arch)
        engine_named(name, arch).installed(program)
        reason = why_absent(name, arch, program)
        if reason is None:
            return name, program
        reasons[name] = reason
    for name, reason in reasons.items():
        complain(f"{name} cannot run here: {reason}")
    raise typer.Exit(MISUSE)
