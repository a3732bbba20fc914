"""The files that a command line names: none that is read is written, and none is written twice."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

REPORTS = ("report.json", "junit.xml", "flushes.txt", "flushes.json")
"""What is written into a folder that is named for a report."""

_READ = re.compile("FILE|LAYOUT|ARGS")
"""In the metavar of what is, or may hold, the name of a file."""


def keep_apart(outputs: Iterable[Any], inputs: Iterable[Any], given: Mapping[str, Any]) -> None:
    """Raises Misuse where an output is an input, or another output: the same file, by whatever
    name.

    outputs  the options that name what is written
    inputs   the other options and arguments
    given    the value of each, by name
    """
    from harness.machine.errors import Misuse

    written = [
        (_shown(one), path)
        for one in outputs
        for word in _words(given.get(one.name))
        for path in _outputs(one, Path(word))
    ]
    read = [
        (_shown(one), path)
        for one in inputs
        if written and _READ.search(str(one.metavar))
        for word in _words(given.get(one.name))
        for path in _inputs(word)
    ]
    for number, (output, path) in enumerate(written):
        for other, named in chain(written[:number], read):
            if _same(path, named):
                raise Misuse(
                    f"{other} and {output} name the same file, {path}, which {output} would"
                    " overwrite: name another"
                )


def _shown(one: Any) -> str:
    """How a person calls an option, or what stands beside options."""
    return str(one.opts[0]) if one.param_type_name == "option" else "an argument"


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str | os.PathLike):
        yield os.fspath(value)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)


def _outputs(one: Any, path: Path) -> Iterator[Path]:
    if one.metavar == "DIR":
        yield from (path / name for name in REPORTS)
    elif one.metavar == "FILE":
        yield path


def _inputs(word: str) -> Iterator[Path | int]:
    """The files that a word may name: it is FILE, FILE@ADDRESS, a layout by its name, - for
    standard input, or an argument of QEMU's such as file=disk.img,format=raw."""
    from harness.check.layouts import LayoutError, find

    if word == "-":
        yield 0
        return
    for part in {word, word.rpartition("@")[0], *re.split("[,=:]", word)} - {""}:
        yield Path(part)
    with suppress(LayoutError, ValueError, OSError):
        yield find(word)


def _same(path: Path, other: Path | int) -> bool:
    """Whether both are one file, which need not be there yet where both are names.  A device, such
    as /dev/null, may stand for several."""
    with suppress(OSError, ValueError):
        mine = path.stat()
        return stat.S_ISREG(mine.st_mode) and os.path.samestat(mine, os.stat(other))
    return not isinstance(other, int) and os.path.realpath(path) == os.path.realpath(other)
