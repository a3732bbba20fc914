"""How `--help` is laid out: options and commands in groups, each command with a whole sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from harness.cli.ending import MISUSE, complain, sentences
from harness.cli.overwriting import keep_apart

UsageError: Any = typer.BadParameter.__base__
"""Of typer's own copy of click in some versions, and of click itself in others."""

ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"

MACHINE = "Commands on the machine"
LOOKING = "Commands that look at tables"

TABLES = "Tables from"
REGISTERS = "Registers, in place of what the source says"
OUTPUT = "Output"

GROUPS = (ARGUMENTS, OPTIONS, TABLES, REGISTERS, OUTPUT, MACHINE, LOOKING, COMMANDS)
"""All of them, in the order in which they are shown."""

Record = tuple[str, str]
"""What is explained, and the explanation."""


class Command(TyperCommand):
    """A command whose options are shown in groups, and whose files are kept apart."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, unless it would write where it reads, or twice to one file."""
        with sentences():
            params = self.get_params(ctx)
            outputs = [one for one in params if _group(one) == OUTPUT]
            inputs = [one for one in params if _group(one) != OUTPUT]
            keep_apart(outputs, inputs, ctx.params)
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then each group of options."""
        records: list[tuple[str | None, Record]] = []
        for one in self.get_params(ctx):
            if (record := one.get_help_record(ctx)) is not None:
                is_argument = one.param_type_name == "argument"
                records.append((ARGUMENTS if is_argument else _group(one), record))
        _write(formatter, OPTIONS, records)


class Commands(TyperGroup):
    """The command of commands, each shown with the first sentence of its help; what is wrong with
    the line that was typed is one sentence, as any other error is."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Reads what stands before the command."""
        with _said():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Reads the line of the command, and runs it."""
        with _said():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes each group of commands."""
        records = [
            (_group(command), (name, first_sentence(command.help or "")))
            for name, command in self.commands.items()
        ]
        _write(formatter, COMMANDS, records)


@contextmanager
def _said() -> Iterator[None]:
    """Ends with a sentence where the line cannot be read; where nothing was typed, with the
    help."""
    try:
        yield
    except UsageError as error:
        if error.ctx and error.message == error.ctx.get_help():
            raise
        said = error.format_message()
        stop = "" if said.endswith((".", "?")) else "."
        see = f" See {error.ctx.command_path} --help." if error.ctx else ""
        complain(f"{said}{stop}{_meant(error)}{see}")
        raise typer.Exit(MISUSE) from None


def _meant(error: Any) -> str:
    """What may have been meant by a choice that there is not."""
    typed = _CHOICE.search(error.message)
    choices = getattr(getattr(getattr(error, "param", None), "type", None), "choices", ())
    alike = get_close_matches(typed[1], map(str, choices)) if typed else []
    return f" Did you mean {' or '.join(map(repr, alike))}?" if alike else ""


_CHOICE = re.compile("^'(.*?)' is not one of")
"""How a choice begins that there is not."""


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".") + "."


def _group(one: Any) -> str | None:
    """The group that was given as `rich_help_panel`, typer's name for it."""
    return getattr(one, "rich_help_panel", None)


def _write(formatter: Any, otherwise: str, records: Iterable[tuple[str | None, Record]]) -> None:
    """Writes records group by group, and below `otherwise` those of none."""
    groups: dict[str, list[Record]] = {}
    for group, record in records:
        groups.setdefault(group or otherwise, []).append(record)
    for name in GROUPS:
        if name in groups:
            with formatter.section(name):
                formatter.write_dl(groups[name])
