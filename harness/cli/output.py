"""The options that write a file beside what a command prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a page for the browser: one file that loads nothing.",
        show_default=False,
    ),
]


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
