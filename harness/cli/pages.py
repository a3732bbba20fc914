"""The options of commands that look at many pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.inspect.architecture import Types
    from harness.inspect.graph import Rows
    from harness.inspect.ranges import Chosen
    from harness.inspect.snapshot import Snapshot
    from harness.paging.address import Span
    from harness.paging.format import Format
    from harness.paging.memory import Mask
    from harness.paging.processor import Cpu

LIMIT = 100_000
"""Lines or rows that are printed, unless told otherwise."""

Limit = Annotated[int, typer.Option("--limit", metavar="N", help="How many are shown at most.")]
Pat = Annotated[
    str | None,
    typer.Option(
        "--pat", metavar="N", help="IA32_PAT; its value after a reset.", show_default=False
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="The pages to show: 'w and x and not user', 'size=4K and type=UC', 'D and not A',"
        " 'own-w and not w'.",
        show_default=False,
    ),
]
User = Annotated[bool, typer.Option("--user", help="Only what user mode can reach.")]
Within = Annotated[
    str | None,
    typer.Option(
        "--range", metavar="A..B", help="Only what lies in these addresses.", show_default=False
    ),
]


def types_of(cpu: Cpu, pat: str | None) -> Types:
    """The memory types of a value of IA32_PAT; QuestionError where a byte of it is none."""
    from harness.cli.source import number
    from harness.inspect import architecture

    register = None if pat is None else number("IA32_PAT", pat)
    return architecture.of(cpu).memory_types.types(register, cpu)


def chosen_of(cpu: Cpu, types: Types, where: str | None, user: bool) -> Chosen | None:
    """The condition that pages must meet; QuestionError where it is none."""
    from harness.inspect.select import condition
    from harness.inspect.snapshot import QuestionError

    parts = [f"({where})"] if where is not None else []
    if user:
        if not cpu.format.rights.get("user"):
            raise QuestionError(f"of {cpu.format.name} --user means nothing: entries know no user")
        parts.append("user")
    if not parts:
        return None
    if where is not None:
        condition(cpu, types, where)  # by itself first, so that a sentence is about that
    return condition(cpu, types, " and ".join(parts))


def chosen_in(
    parts: Sequence[Snapshot], types: Types, where: str | None, user: bool
) -> list[Chosen | None]:
    """The same for each part of a snapshot; of a part that does not have what the condition names,
    no page is chosen.  QuestionError where none has it."""
    from harness.inspect.snapshot import QuestionError

    found: list[Chosen | None] = []
    error = None
    for one in parts:
        try:
            found.append(chosen_of(one.cpu, types, where, user))
        except QuestionError as refused:
            error = refused
            found.append(_none)
    if error is not None and all(one is _none for one in found):
        raise error
    return found


def _none(_: Format, rows: Rows) -> Mask:
    """No row."""
    found: Mask = rows.slots < 0
    return found


def one_format(parts: Sequence[Snapshot], option: str) -> None:
    """Misuse for an option where tables have several formats."""
    from harness.machine.errors import Misuse

    if len(parts) > 1:
        formats = " and ".join(one.cpu.format.name for one in parts)
        raise Misuse(f"{option} shows tables of one format, and these have {formats}")


def span_of(text: str | None) -> Span | None:
    """The span written A..B, both included; Misuse where it is none."""
    from harness.cli.source import number
    from harness.machine.errors import Misuse
    from harness.paging.address import Span

    if text is None:
        return None
    first, dots, last = text.partition("..")
    if not dots:
        raise Misuse(f"{text!r} is not a range: write it like 0x1000..0x1fff, both included")
    try:
        return Span(number("the range's first address", first), number("its last", last))
    except ValueError as error:
        raise Misuse(str(error)) from None


def positive(limit: int) -> None:
    """Misuse for a limit of nothing."""
    from harness.machine.errors import Misuse

    if limit < 1:
        raise Misuse(f"--limit {limit} shows nothing: choose 1 or more")
