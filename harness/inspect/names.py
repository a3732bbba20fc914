"""What the levels of tables are called: by their numbers, by the manual, by Linux and by Windows.

Linux has five names whatever the mode, and folds those that the mode has no tables for into the
highest level; so does this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from harness.inspect import decode
from harness.inspect.snapshot import QuestionError
from harness.paging.processor import Cpu

LINUX: Final = ("pte", "pmd", "pud", "p4d", "pgd")
"""Linux's names, from level 0 up."""

_WINDOWS: Final = ("pte", "pde", "ppe", "pxe")
"""The same of Windows' debugger."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")


def name_of(cpu: Cpu, level: int) -> str:
    """What the manual calls an entry of a level."""
    levels = cpu.format.levels
    return levels[level].name if level < len(levels) else "PDPTE"  # PAE's are no table's


def _word(text: str) -> str:
    return text.strip().lstrip("*").lower()


def folded(cpu: Cpu, texts: Iterable[str]) -> set[str]:
    """Those of the names, which all are levels' names, that are Linux's for a level which this
    CPU's mode lacks."""
    above = LINUX[decode.levels_of(cpu)[-1] + 1 :]
    return {word for word in map(_word, texts) if word in above}


def level_named(cpu: Cpu, text: str) -> int:
    """The level that a name or a number of the manual is for in this CPU's mode.

    Raises QuestionError for a level that the mode lacks, and a name that is none.
    """
    known = decode.levels_of(cpu)
    top = known[-1]
    if _NUMBER.fullmatch(text.strip()):
        level = cpu.format.number(int(text))
        if level not in known:
            raise QuestionError(
                f"{cpu.format.name} has levels {decode.numbers_of(cpu)}, not {text.strip()}"
            )
        return level
    word = _word(text)
    own = [name_of(cpu, level).lower() for level in known]
    tables = [name.removesuffix("e") for name in own]
    for names in (own, tables, _WINDOWS[: top + 1]):
        if word in names:
            return names.index(word)
    if word in LINUX:
        return min(LINUX.index(word), top)
    manual = ", ".join(name.upper() for name in dict.fromkeys(own))
    raise QuestionError(
        f"{cpu.format.name} has no level {text.strip()!r}: it has {decode.numbers_of(cpu)}, or"
        f" {manual}, or as"
        f" Linux calls them {', '.join((*LINUX[:top], LINUX[-1]))}"
    )
