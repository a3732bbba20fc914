"""How a command ends: errors as a sentence on stderr, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

import typer

CASES = Path("build/cases")
"""Where disagreements and the evidence of failures are saved, unless a report says where."""

DISAGREEMENT, MISUSE, MACHINE_FAILURE, INTERRUPTED, UNREAD = 1, 2, 3, 130, 141
"""Exit codes; 0 says that all agree.  The last two are the shell's for a program that Ctrl-C ended,
and for one whose output no one reads any more."""


@contextmanager
def sentences() -> Iterator[None]:
    """Ends the command with a sentence and a code where the block fails or is interrupted."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        complain("interrupted.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise typer.Exit(UNREAD) from None
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        complain(told(error))
        raise typer.Exit(code) from None


def complain(sentence: str) -> None:
    """Says on stderr what is amiss, if that can be said."""
    with suppress(OSError):
        typer.echo(f"pagetable: {sentence}", err=True)


def told(error: Exception) -> str:
    """The sentence of an error."""
    if isinstance(error, OSError) and error.errno == ENOSPC:
        return f"nothing more can be written: {error.strerror}"
    return str(error)


def drop_unwritten() -> None:
    """What could not be written goes nowhere: Python would try it again at its end, and answer with
    an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def kept(error: Exception, directory: Path) -> str:
    """The sentence of a failure, with where its evidence is."""
    path = directory / "failure.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join((str(error), *getattr(error, "__notes__", ()))) + "\n")
    except OSError as unwritten:
        return f"{error} Its evidence could not be kept: {unwritten}"
    return f"{error} The evidence is in {path}."


def _code(error: Exception) -> int | None:
    """The exit code of an error that is foreseen; None for a fault of this program."""
    from harness.check.layouts import LayoutError
    from harness.check.replay import CaseError
    from harness.inspect.snapshot import QuestionError, SourceError
    from harness.machine.errors import MachineError, Misuse
    from harness.paging.space import SpaceError

    misplaced = FileExistsError | NotADirectoryError | PermissionError
    asked = LayoutError | SpaceError | CaseError | SourceError | QuestionError | Misuse
    if isinstance(error, asked | misplaced):
        return MISUSE
    return MACHINE_FAILURE if isinstance(error, MachineError | OSError) else None
