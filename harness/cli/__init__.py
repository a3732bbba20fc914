"""The command `pagetable`: one module a command.

`help`      how help is laid out
`ending`    errors as sentences, and the exit codes
`engine`    the options by which a machine is chosen
`validate`  layouts, built and compared with the machine
`matrix`    accesses enumerated, executed and compared
`rules`     the rules, with what executing them showed
`replay`    a saved case, asked again
`prove`     the tables of any program, proved on the machine
`check`     a foreign guest's own tables, compared with its machine
`flushes`   the missing flushes of any guest, found while it runs in QEMU
`source`    the options by which tables are chosen that are looked at
`decode`    an entry, bit by bit
`walk`      an address, step by step
`fault`     what an access comes to, and faults that were seen
`crash`     the text of a crash, for `fault --oops`
`pages`     the options of commands that look at many pages
`dump`      all that a space holds
`explore`   tables in the terminal, moved through by keys
`output`    the options that write files beside what is printed
`overwriting`  files that are read and written, kept apart
`complete`  what TAB offers in a shell
`find`      from physical memory to the addresses that lead there
`lint`      what is odd about a space
`diff`      what is different between two spaces
`schema`    the form of what commands print as JSON
`gdb`       the commands for gdb
`witnesses`  every engine of this host, asked about a disagreement

Their top level imports typer and nothing of the package but these, so that `--help` answers at
once: what a command works with is imported when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated

import typer

from harness.cli import complete
from harness.cli.ending import complain, drop_unwritten, ending, open_standard_streams
from harness.cli.help import LOOKING, MACHINE, Command, Commands


def print_version(wanted: bool) -> None:
    """Prints the version of the package, and ends there."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pagetable-harness {version('pagetable-harness')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What is given before a command."""


GROUPS: dict[str | None, tuple[str, ...]] = {
    MACHINE: ("prove", "validate", "matrix", "rules", "replay", "check", "flushes"),
    LOOKING: ("decode", "walk", "fault", "dump", "explore", "find", "lint", "diff", "gdb"),
    None: ("schema",),
}
"""The commands, each a function of a module of its own with the same name."""


def application(first: str = "") -> typer.Typer:
    """All commands; or the one that `first` names, without the time that the others take."""
    app = typer.Typer(
        cls=Commands,
        name="pagetable",
        help="Page tables, and the proof on a running guest that the machine reads them the same"
        " way.",
        epilog="Exit codes: 0 all agree, 1 a disagreement, 2 misuse or no engine, 3 the machine"
        " failed, 4 all agree but a known quirk did not show, 130 interrupted.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(no_args_is_help=True)(options)
    chosen = {first} & {name for names in GROUPS.values() for name in names}
    for group, names in GROUPS.items():
        for name in names:
            if name in chosen or not chosen:
                member: Callable[..., None] = getattr(import_module(f"harness.cli.{name}"), name)
                app.command(cls=Command, rich_help_panel=group)(member)
    return app


def main() -> None:
    """Runs the command with the arguments of this process."""
    open_standard_streams()
    # Nothing here multiplies matrices; the threads that numpy starts for it would spin for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    app = application(next(iter(sys.argv[1:]), ""))
    run = partial(app, prog_name=app.info.name)  # however it was started, for completion too
    if complete.INSTRUCTION in os.environ:
        sys.exit(complete.answer(run))
    try:
        run()
    except (Exception, KeyboardInterrupt) as error:  # beside the commands: help, misuse, completion
        code, sentence = ending(error)
        complain(sentence)
        sys.exit(code)
    finally:
        drop_unwritten()
