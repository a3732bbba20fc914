"""What init.c told, as values; its head describes the lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.paging.address import Span
from harness.paging.memory import Mask, Words

READY: Final = r"@ ready\r?\n"
FAILED: Final = r"@ failed ([^\r\n]*)\r?\n"
"""Patterns for the line after which no other comes."""

_PAGES: Final = {"4K": 4 << 10, "64K": 64 << 10, "2M": 2 << 20}
_PAGEMAP_PAGE: Final = _PAGES["4K"]

SWAP_AREAS: Final = 32
"""Of a page in swap, pagemap says the number of the area, below this, and above it the place there
(Linux, Documentation/admin-guide/mm/pagemap.rst)."""


@dataclass(frozen=True)
class Process:
    """One of the two.  `spins` is the address of the instruction that it ends in, on `cpu`."""

    space: str
    pid: int
    cpu: int
    spins: int


@dataclass(frozen=True, eq=False)
class Map:
    """One line of a process's /proc/self/maps.

    rights   as there: three letters of `rwx`, or `-` in their place
    shared   whether writes are seen by other processes
    page     size of a page in bytes, where there are pages
    stamped  whether each page holds its virtual address and then the writer's pid
    frames   the physical address of every 4096 bytes; `present` shows where there is one, and
             `absent` where there is none: of addresses beyond those that a process can map, such
             as [vsyscall], pagemap says neither
    swap     of those that are in swap, by address, the number of the area and the place there
    """

    space: str
    name: str
    span: Span
    rights: str
    shared: bool
    page: int
    stamped: bool
    frames: Words
    present: Mask
    absent: Mask
    swap: Mapping[int, tuple[int, int]]

    @property
    def addresses(self) -> Words:
        """The virtual address of each frame."""
        return np.arange(self.span.first, self.span.last, _PAGEMAP_PAGE, dtype=np.uint64)

    def __str__(self) -> str:
        return f"{self.space}'s {self.name} at {self.span}"


@dataclass(frozen=True)
class Facts:
    """All that was told.  `release` is the kernel's; the maps are in order of address, the
    child's first."""

    release: str
    processes: Mapping[str, Process]
    maps: tuple[Map, ...]

    def of(self, space: str, name: str) -> tuple[Map, ...]:
        """The maps of that name in one space; a pattern of several rights has several."""
        found = tuple(m for m in self.maps if (m.space, m.name) == (space, name))
        if not found:
            raise KeyError(f"the {space} told of no {name}")
        return found


def parse(text: str) -> Facts:
    """What the lines say; others than init's are passed over.

    Raises `ValueError` for a line that does not read as it should.
    """
    release, processes, maps = "", {}, []
    for line in text.splitlines():
        kind, fields = _fields(line)
        try:
            if kind == "kernel":
                release = fields["release"]
            elif kind == "process":
                process = _process(fields)
                processes[process.space] = process
            elif kind == "map":
                maps.append(_map(fields))
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a line of init: {line[:200]!r} ({error})") from error
    return Facts(release, processes, tuple(maps))


def _fields(line: str) -> tuple[str, dict[str, str]]:
    mark, _, rest = line.partition(" ")
    if mark != "@":
        return "", {}
    kind, *words = rest.split()
    return kind, dict(re.findall(r"^(\w+)=(.*)$", "\n".join(words), re.M))


def _process(fields: Mapping[str, str]) -> Process:
    spins = int(fields["spins"], 16)
    return Process(fields["space"], int(fields["pid"]), int(fields["cpu"]), spins)


def _map(fields: Mapping[str, str]) -> Map:
    span = Span.of(int(fields["first"], 16), int(fields["size"], 16))
    runs = list(_runs(fields["frames"]))
    numbers = np.concatenate([run for run, _ in runs])
    sign = np.concatenate([np.full(len(run), sign) for run, sign in runs])
    if len(numbers) * _PAGEMAP_PAGE != span.size:
        raise ValueError(f"{len(numbers)} frames for {span.size} bytes")
    present = sign == ""
    return Map(
        fields["space"],
        fields["name"],
        span,
        fields["rights"],
        {"shared": True, "private": False}[fields["sharing"]],
        _PAGES[fields["page"]],
        {"yes": True, "no": False}[fields["stamped"]],
        np.where(present, numbers, 0).astype(np.uint64) * np.uint64(_PAGEMAP_PAGE),
        present,
        (sign == "-") | (sign == "s"),
        {
            span.first + at * _PAGEMAP_PAGE: (number % SWAP_AREAS, number // SWAP_AREAS)
            for at, number in enumerate(numbers.tolist())
            if sign[at] == "s"
        },
    )


def _runs(text: str) -> Iterator[tuple[Words, str]]:
    """The numbers of each run, and the sign before them, "s" of places in swap; or in their place,
    "-" where there are none, "?" where it is not known."""
    for run in text.split(","):
        first, _, count = run.partition("*")
        n = int(count or 1)
        if first in ("-", "?"):
            yield np.zeros(n, np.uint64), first
        else:
            sign = "s" if first.startswith("s") else ""
            yield int(first.removeprefix("s"), 16) + np.arange(n, dtype=np.uint64), sign
