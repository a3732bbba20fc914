"""How `--help` is laid out: options and commands in groups, each command with a whole sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

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
    """A command whose options are shown in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments, then each group of options."""
        records: list[tuple[str | None, Record]] = []
        for one in self.get_params(ctx):
            if (record := one.get_help_record(ctx)) is not None:
                is_argument = one.param_type_name == "argument"
                records.append((ARGUMENTS if is_argument else _group(one), record))
        _write(formatter, OPTIONS, records)


class Commands(TyperGroup):
    """The command of commands, each shown with the first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes each group of commands."""
        records = [
            (_group(command), (name, first_sentence(command.help or "")))
            for name, command in self.commands.items()
        ]
        _write(formatter, COMMANDS, records)


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
