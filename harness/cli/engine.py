"""The options by which a machine is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final

import typer

from harness.architectures import NAMES, USUAL
from harness.cli.complete import one_of
from harness.cli.ending import (
    DISAGREEMENT,
    MACHINE_FAILURE,
    MISUSE,
    NEWS,
    complain,
    say_warnings,
    sentences,
)
from harness.cli.output import say

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
        help=f"The architecture: {' or '.join(NAMES)}, or all, one after the other. Of others than"
        " x86 the environment names the QEMU as QEMU_RISCV does: that for 64 bits.",
        autocompletion=one_of(*NAMES, "all"),
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
        raise Misuse(f"there is no architecture {arch!r}: choose {' or '.join(NAMES)}, or all")
    return arch


ALL: Final = "all"
"""In place of an architecture: each, one after the other."""

_OF_ONE: Final = ("qemu", "bochs", "html", "levels", "mode", "thorough")
"""Options that mean something for one architecture alone."""

_WORST: Final = (MACHINE_FAILURE, DISAGREEMENT, MISUSE, NEWS)
"""Exit codes, of which a command for all architectures ends with the first that there was."""


def whose(mode: str, archs: Iterable[str], modes: Callable[[str], Iterable[str]]) -> str:
    """The architecture that has a mode, where another was asked for one: the end of a sentence."""
    return next((f"; --arch {one} has {mode}" for one in archs if mode in modes(one)), "")


def on_each(
    context: typer.Context, run: Callable[[str], None], those: Iterable[str] = NAMES
) -> None:
    """Runs a command for each of these architectures, and ends with the worst of its exit codes."""
    with sentences():
        from harness.machine.errors import Misuse

        for option in _OF_ONE:
            if given(option, context):
                raise Misuse(f"--{option} is of one architecture: name that with --arch")
    codes = set()
    for one in those:
        if not context.params["as_json"]:
            say(f"{one}:")
        try:
            run(one)
        except typer.Exit as end:
            if end.exit_code not in _WORST:
                raise
            codes.add(end.exit_code)
    if codes:
        raise typer.Exit(min(codes, key=_WORST.index))


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

    named = {"qemu": qemu, "bochs": bochs}
    if context is not None:  # what the environment says is of the usual architecture
        named = {name: one for name, one in named.items() if given(name, context)}
    engines, chosen = engines_of(arch).values(), dict[str, str]()
    for engine in engines:
        other = named.get(engine.maker.lower()) or os.environ.get(engine.environment)
        chosen[engine.maker] = other or engine.program
    for name in named:
        if name not in map(str.lower, chosen):
            raise Misuse(f"--{name} has no use: {', '.join(chosen)} alone runs {arch}")
    for engine in engines:
        if chosen[engine.maker] != engine.program:
            engine.installed(chosen[engine.maker])
    return chosen


def given(option: str, context: typer.Context) -> bool:
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
