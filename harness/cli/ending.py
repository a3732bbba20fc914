"""How a command ends: errors as a sentence on stderr, and the exit code."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import (
    EACCES,
    EBADF,
    EEXIST,
    EISDIR,
    ELOOP,
    ENAMETOOLONG,
    ENOSPC,
    ENOTDIR,
    EPERM,
)
from pathlib import Path

import typer

from harness.machine.interrupts import raised_once

CASES = Path("build/cases")
"""Where disagreements and the evidence of failures are saved, unless a report says where."""

DISAGREEMENT, MISUSE, MACHINE_FAILURE, NEWS, INTERRUPTED, UNREAD = 1, 2, 3, 4, 130, 141
"""Exit codes; 0 says that all agree.  NEWS: all agree, but a known quirk did not show.  The last
two are the shell's for a program that Ctrl-C ended, and for one whose output no one reads."""


MISNAMED = (EACCES, EEXIST, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, EPERM)
"""What the system says of files that were named amiss."""

TRACE = "PAGETABLE_TRACE"
"""The environment variable with which a fault of this program shows where it came from."""


@contextmanager
def sentences() -> Iterator[None]:
    """Ends the command with a sentence and a code where the block fails or is interrupted."""
    with raised_once():
        try:
            yield
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            code, sentence = ending(error)
            complain(sentence)
            raise typer.Exit(code) from None


def ending(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its sentence; no sentence where no one reads any more."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted."
    if isinstance(error, BrokenPipeError):
        return UNREAD, ""
    if isinstance(error, OSError) and error.errno in (ENOSPC, EBADF):
        why = "the output is closed" if error.errno == EBADF else error.strerror
        return MACHINE_FAILURE, f"nothing more can be written: {why}"
    code = _code(error)
    if code is None:
        if _of_an_interrupt(error):
            return INTERRUPTED, "interrupted."
        return MACHINE_FAILURE, _fault(error)
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:
            return code, f"the system refuses what this needs: {error.strerror}"
        return code, f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}"
    return code, str(error)


def _of_an_interrupt(error: BaseException) -> bool:
    """Whether an error came of Ctrl-C: what is raised in `__set_name__` leaves a class as a
    RuntimeError before Python 3.12, and modules are imported as they are needed."""
    met = error.__cause__ or error.__context__
    return isinstance(met, KeyboardInterrupt) or (met is not None and _of_an_interrupt(met))


def _fault(error: BaseException) -> str:
    """The sentence of an error that was not foreseen, and with TRACE all that Python says."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory for this{': ' if str(error) else ''}{error}"
    import traceback

    if os.environ.get(TRACE):
        return "".join(traceback.format_exception(error)).strip()
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join("".join(traceback.format_exception_only(error)).split())[:LONGEST_FAULT]
    return (
        f"this is a fault of pagetable, please report it: {said}, in {last.name} at"
        f" {Path(last.filename).name}:{last.lineno} ({TRACE}=1 shows all of the way there)."
    )


LONGEST_FAULT = 300
"""Characters of what an unforeseen error says of itself."""


def tell_news(news: Counter[str], allowed: bool) -> None:
    """Ends the command where known quirks did not show, unless that is allowed."""
    if news and not allowed:
        complain(
            f"{news.total():,} answers follow a rule from which the engine is known to depart: see"
            " News. That has an exit code of its own unless --allow-news is given."
        )
        raise typer.Exit(NEWS)


def complain(sentence: str) -> None:
    """Says on stderr what is amiss, if that can be said."""
    from harness.report.visible import visible, visible_lines

    shown = visible_lines(sentence) if os.environ.get(TRACE) else visible(sentence)
    if sentence:
        with suppress(OSError):
            typer.echo(f"pagetable: {shown}", err=True)


def say_warnings() -> None:
    """Has what the package logs from here on said on stderr, once each: what is amiss beside the
    result."""
    import logging

    said = set[str]()

    class Sentences(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sentence = record.getMessage()
            if sentence not in said:
                said.add(sentence)
                complain(f"{sentence}.")

    package = logging.getLogger("harness")
    package.handlers.clear()  # what an earlier command of this process said is no news of this one
    package.addHandler(Sentences(logging.WARNING))


def open_standard_streams() -> None:
    """Opens those that are closed, as by `<&-`. Else a file that is opened next would take the
    place of one, and Python would have none at all. Errors go nowhere then; a result that cannot be
    written is an error, as on a full disk."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest number that is free: this one.
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


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
    from harness.check import written

    path = directory / "failure.txt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written.write(path, "\n".join((str(error), *getattr(error, "__notes__", ()))) + "\n")
    except OSError as unwritten:
        return f"{error} Its evidence could not be kept: {unwritten}"
    return f"{error} The evidence is in {path}."


def _code(error: BaseException) -> int | None:
    """The exit code of an error that is foreseen; None for a fault of this program."""
    from harness.check.layouts import LayoutError
    from harness.check.replay import CaseError
    from harness.inspect.snapshot import QuestionError, SourceError
    from harness.machine.errors import MachineError, Misuse
    from harness.paging.space import SpaceError

    asked = LayoutError | SpaceError | CaseError | SourceError | QuestionError | Misuse
    if isinstance(error, asked) or (isinstance(error, OSError) and error.errno in MISNAMED):
        return MISUSE
    return MACHINE_FAILURE if isinstance(error, MachineError | OSError) else None
