"""`pagetable schema`: the form of what commands print with `--json`."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.ending import sentences
from harness.cli.output import say


def _commands() -> list[str]:
    """Those that are offered when TAB is pressed."""
    from harness.report.schema import COMMANDS

    return [*COMMANDS]


def schema(
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND",
            help="One that has --json; by default all of them.",
            show_default=False,
            autocompletion=_commands,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    It is of draft 2020-12, and has every key with its meaning, its unit and its form.

    The form stays: its version grows when a key or a name changes its meaning or goes away, and not
    when one is added.  Programs can be written by reading it, or generated from it, and outputs can
    be held against it.

    Example: pagetable schema walk
    """
    with sentences():
        import json

        from harness.check.keys import instead
        from harness.machine.errors import Misuse
        from harness.report.schema import COMMANDS, schema

        if command not in (None, *COMMANDS):
            raise Misuse(f"{command!r} prints no JSON: {instead(command, COMMANDS)}")
        say(json.dumps(schema(command), indent=2))
