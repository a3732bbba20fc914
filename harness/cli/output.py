"""What a command prints, and the options that decide about it or write a file beside."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.help import OUTPUT

if TYPE_CHECKING:
    from harness.inspect.snapshot import Snapshot

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object; `pagetable schema` shows its form.",
        rich_help_panel=OUTPUT,
    ),
]

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a page for the browser: one file that loads nothing.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]

Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help="Also draw one walk as a picture, to print or to paste.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


MOST_INPUT = 16 << 20
"""Bytes that are read of standard input, or of a file of text."""


def piped() -> str:
    """What stands in standard input, whatever bytes that is; Misuse where it is too long."""
    return _text(sys.stdin.buffer.read(MOST_INPUT + 1), "standard input")


def text_of(name: str) -> str:
    """What stands in a file, or in standard input where that is named with -; Misuse where it
    cannot be read or is too long."""
    from harness.machine.errors import Misuse

    if name == "-":
        return piped()
    try:
        with open(name, "rb") as file:
            return _text(file.read(MOST_INPUT + 1), name)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Misuse(f"{name} cannot be read: {why}") from None


def _text(octets: bytes, name: str) -> str:
    from harness.machine.errors import Misuse

    if len(octets) > MOST_INPUT:
        raise Misuse(f"{name} holds more than {MOST_INPUT >> 20} MiB: give the part that matters")
    return octets.decode("utf-8", errors="replace")


def say(text: str, *, nl: bool = True) -> None:
    """Prints text on stdout, of which some may come from a file, a guest or a monitor."""
    from harness.report.visible import visible_lines

    typer.echo(visible_lines(text), nl=nl)


def show(text: str) -> None:
    """Prints lines for people: on a terminal in its colours, and none wider than it is."""
    if not sys.stdout.isatty():
        say(text)
        return
    from harness.report import screen
    from harness.report.visible import visible_lines

    screen.show(visible_lines(text))


NARROW = 120
"""Columns of a terminal in which a table of ranges has room."""


def narrow() -> bool:
    """Whether what is printed goes to a terminal that is too narrow for a wide table."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < NARROW


def tell(snapshot: Snapshot, lines: Iterable[str]) -> None:
    """Prints what there is to say of a snapshot, below its title and above what was assumed."""
    from harness.report.state import head_lines
    from harness.report.text import assumed_lines

    head = head_lines(snapshot)
    show("\n".join((*head, "", *lines, *assumed_lines(snapshot.assumed))))


def writable(path: Path | None) -> None:
    """Raises Misuse where a file cannot be written, before the work that it is to tell of."""
    from harness.machine.errors import Misuse

    if str(path) == "-":
        raise Misuse("- is no file, and what is printed is the text: name a file to be written")
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        why = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise Misuse(f"{path} cannot be written: {why}")


def make_folder(path: Path | None) -> None:
    """Makes the folder of a report, before the work that it is to tell of; raises Misuse where it
    cannot be one."""
    from harness.machine.errors import Misuse

    if path is None:
        return
    if str(path) == "-":
        raise Misuse("- cannot hold a report: name a folder")
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        why = error.strerror
        if isinstance(error, FileExistsError):
            why = "it is not a folder"
        elif isinstance(error, FileNotFoundError) and not path.absolute().parent.is_dir():
            why = f"there is no folder {path.parent}"
        raise Misuse(f"{path} cannot hold a report: {why}") from None


def write(path: Path, text: str) -> None:
    """Writes a file that was named; raises Misuse where that fails. A device, a pipe or a link,
    such as /dev/stdout, is what was meant, and stays."""
    from harness.check import written
    from harness.machine.errors import Misuse

    try:
        if (path.is_file() and not path.is_symlink()) or not os.path.lexists(path):
            written.write(path, text)
        else:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise Misuse(f"{path} cannot be written: {error.strerror}") from None
