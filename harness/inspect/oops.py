"""What a text says of a page fault or of a wrong entry, as kernels and emulators print it.

The module `oops` of each architecture reads its texts; the text tells which it is.  There may be
anything around what is read: the times of dmesg and of journals, levels, quotation marks, colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from harness.architectures import NAMES, USUAL, has, module_of
from harness.inspect.snapshot import Snapshot
from harness.paging.processor import Cpu

LONGEST_LINE: Final = 4096
"""Characters of a line that are looked at."""

LONGEST_REPORT: Final = 400
"""Lines of one report that are looked at."""


@dataclass(frozen=True)
class Report:
    """What a text tells.

    what         it is, for people
    address      that faulted, or whose entry is wrong; None where that is not told
    code         what the processor reported of the fault; None where there is none
    instruction  where it was raised
    mode         of paging, as far as the form of the text tells it
    entries      each after its name, from the root down
    registers    those that decide how the processor pages, and of accesses, by the fields of its
                 CPU state
    rest         others, as `Snapshot.registers` has them
    accesses     those that may have raised it, as far as the code does not tell
    linux        whether it is of Linux
    general      whether it is of a fault about which no table decides
    notes        what else is to be said of it, a sentence each
    """

    what: str
    address: int | None = None
    code: int | None = None
    instruction: int | None = None
    mode: Any = None
    entries: tuple[tuple[str, int], ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    rest: Mapping[str, int] = field(default_factory=dict)
    accesses: tuple[Any, ...] = ()
    linux: bool = False
    general: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What follows from registers alone, a sentence each, and what is missing; `address` is that of
    the last fault, where they tell it."""

    told: tuple[str, ...]
    missing: tuple[str, ...]
    address: int | None


class Texts(Protocol):
    """The module `oops` of an architecture.

    SIGNS    what stands in a line of its texts and in none of another's
    read     the report in a text; QuestionError where there is none
    alone    the entries that a report prints, with the registers given; None where it prints none
    bare     a CPU of which no more is known than a report and the registers given tell, and what is
             assumed, for entries without an address
    usual    registers that a report does not print, and that are assumed where memory is a file
    facts    what registers alone say
    """

    @property
    def SIGNS(self) -> re.Pattern[str]: ...  # noqa: N802
    def read(self, text: str, /) -> Report: ...
    def alone(self, report: Report, title: str, given: Mapping[str, int], /) -> Snapshot | None: ...
    def bare(self, report: Report, given: Mapping[str, int], /) -> tuple[Cpu, Sequence[str]]: ...
    def usual(self, report: Report, /) -> Mapping[str, int]: ...
    def facts(self, report: Report, /) -> Facts: ...


def texts_of(arch: str) -> Texts:
    """What reads the texts of an architecture."""
    found: Texts = module_of(arch, "inspect", "oops")
    return found


def architecture_of(text: str) -> str:
    """The architecture whose texts have a line as the first one that tells; the usual one where
    none does."""
    known = {arch: texts_of(arch).SIGNS for arch in NAMES if has(arch, "inspect", "oops")}
    for line in lines_of(text):
        for arch, signs in known.items():
            if signs.search(line):
                return arch
    return USUAL


def lines_of(text: str) -> Iterator[str]:
    """The lines, without the colours of terminals and what else is no letter."""
    for match in re.finditer(r"[^\r\n]+", text):
        line = match[0][:LONGEST_LINE]
        yield _COLOUR.sub("", line)


_COLOUR: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

COMM: Final = re.compile(
    r"\bComm: (?P<comm>.{1,32}?) (?:Not tainted|Tainted|Kdump)|comm: (?P<old>\S+)"
)
"""The name of the process, as Linux prints it of any architecture."""


def reports_of(lines: Iterable[str], head: re.Pattern[str]) -> Iterator[list[str]]:
    """The lines of each report, which begins where `head` is found; a line that begins another ends
    it."""
    report: list[str] = []
    for line in lines:
        if head.search(line):
            if report:
                yield report
            report = [line]
        elif report and len(report) < LONGEST_REPORT:
            report.append(line)
    if report:
        yield report


def number(pattern: re.Pattern[str], text: str) -> int | None:
    """The hexadecimal number that a pattern finds first, in any of its groups."""
    found = pattern.search(text)
    return None if found is None else int(next(filter(None, found.groups())), 16)


def told_address(text: str) -> int | None:
    """The address whose walk stands first in a report, as `told_entries` finds it."""
    return number(_WALK, text)


def told_entries(text: str) -> tuple[tuple[str, int], ...]:
    """The entries of the first walk in a report, as the show_pte of several architectures has
    them."""
    walk = _WALK.search(text)
    if walk is None:
        return ()
    found: dict[str, int] = {}
    for match in _ENTRY.finditer(text, walk.end(), walk.end() + _WALK_LENGTH):
        found.setdefault(match["name"], int(match["raw"], 16))
    return tuple(found.items())


_WALK: Final = re.compile(r"\[([0-9a-f]{8,16})\] (?=\*?pgd=)")
_ENTRY: Final = re.compile(r"\b(?P<name>pgd|p4d|pud|pmd|pte)=(?P<raw>[0-9a-f]{8,16})\b")
_WALK_LENGTH: Final = 512
"""Characters of the entries of a walk, with what mails put around them."""

SEVERAL: Final = "The text has {} more: the first is explained, since others often come of it."
"""That there are more reports than the one that is explained."""
