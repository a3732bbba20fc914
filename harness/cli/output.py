"""What a command prints, and the options that decide about it or write a file beside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.inspect.snapshot import Snapshot

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; `pagetable schema` tells its form.")
]

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a page for the browser: one file that loads nothing.",
        show_default=False,
    ),
]


def tell(snapshot: Snapshot, lines: Iterable[str]) -> None:
    """Prints what there is to say of a snapshot, below its title and above what was assumed."""
    from harness.report.state import head_lines
    from harness.report.text import assumed_lines

    head = head_lines(snapshot)
    typer.echo("\n".join((*head, "", *lines, *assumed_lines(snapshot.assumed))))


def writable(path: Path | None) -> None:
    """Raises Misuse where a file cannot be written, before the work that it is to tell of."""
    from harness.machine.errors import Misuse

    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        why = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise Misuse(f"{path} cannot be written: {why}")


def write(path: Path, text: str) -> None:
    """Writes a file; raises Misuse where that fails."""
    from harness.machine.errors import Misuse

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misuse(f"{path} cannot be written: {error.strerror}") from None
