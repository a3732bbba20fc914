"""What TAB offers in a shell, where an option or an argument is one of the names known here.

Options, commands and what is a choice complete by typer, which also leaves out what does not begin
as the word does; where nothing is offered, the shell offers files.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from contextlib import redirect_stderr, redirect_stdout
from glob import escape, glob
from pathlib import Path

INSTRUCTION = "_PAGETABLE_COMPLETE"
"""The environment variable by which a shell asks."""


def one_of(*names: str) -> Callable[[], list[str]]:
    """Offers these names."""
    return lambda: list(names)


def layouts(incomplete: str) -> list[str]:
    """Offers the shipped layouts, and files that may be others."""
    from harness.check.layouts import shipped

    ends = ("/", ".toml") if "/" in incomplete else ".toml"
    files = [path for path in _paths(incomplete) if path.endswith(ends)]
    return [*(path.stem for path in shipped()), *files]


def lint_rules() -> list[str]:
    """Offers the rules of lint."""
    from harness.architectures import NAMES, has, module_of
    from harness.inspect.lint import rules

    reading = (name for name in NAMES if has(name, "inspect", "lint"))
    added = (module_of(name, "inspect", "lint") for name in reading)
    return list(dict.fromkeys(rule.name for own in added for rule in rules(own)))


def sources(incomplete: str) -> list[str]:
    """Offers sources in one word: the kinds, and where one is meant, what it may name."""
    from harness.cli.source import KINDS

    kind, colon, rest = incomplete.partition(":")
    meant = [one for one in KINDS if one == kind or (one.startswith(kind) and not colon)]
    if len(meant) != 1:
        return [f"{one}:" for one in meant]
    name, at, _ = rest.partition("@")
    if meant != ["layout"]:
        names = _paths(rest)
    else:
        names = [f"{name}@{levels}" for levels in (4, 5)] if at else layouts(rest)
    return [f"{meant[0]}:{name}" for name in names or [""]]


def _paths(start: str) -> list[str]:
    """The files that begin so; a directory that is alone is entered, since a shell takes a word
    that is alone for whole."""
    found = sorted(glob(escape(start) + "*"))
    while len(found) == 1 and (within := sorted(glob(escape(found[0]) + "/*"))):
        found = within
    return [f"{path}/" if Path(path).is_dir() else path for path in found]


def answer(app: Callable[[], None]) -> int:
    """Prints what a shell asks for, and nothing where that fails: a shell shows what is said in
    the middle of the line that is being written.  The exit code is for the shell."""
    said = io.StringIO()
    kept, code = "", 0
    try:
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            if os.environ[INSTRUCTION] == "complete_bash":
                kept = _rejoin(os.environ)
            app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except Exception:
        return 1
    for line in said.getvalue().splitlines():
        if line:
            sys.stdout.write(f"{line.removeprefix(kept)}\n")
    return code


def _rejoin(environment: MutableMapping[str, str]) -> str:
    """Undoes how bash divides words at : and =, in what it tells of the line; returns what it keeps
    of the word that is being written, and adds by itself to what it is answered."""
    words = environment["COMP_WORDS"].split("\n")
    cursor = int(environment["COMP_CWORD"])
    whole: list[str] = []
    divided = True
    for word in words[: cursor + 1]:
        sign = bool(whole) and _SIGNS.fullmatch(word) is not None
        if sign or not divided:
            whole[-1] += word
        else:
            whole.append(word)
        divided = not sign
    environment["COMP_WORDS"] = "\n".join(whole)
    environment["COMP_CWORD"] = str(len(whole) - 1)
    if whole[-1] == words[cursor]:
        return ""
    return whole[-1][: whole[-1].rfind(":") + 1]  # of what stands before =, typer tells nothing


_SIGNS = re.compile("[:=]+")
