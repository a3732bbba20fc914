"""A whole space as a page: its map, and its ranges as a table that needs no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from harness.check.keys import in_units
from harness.inspect.architecture import Types
from harness.inspect.ranges import Dump, Range
from harness.inspect.snapshot import Snapshot
from harness.paging.format import Format
from harness.report.html import space_map
from harness.report.html.page import page
from harness.report.ranges import HEAD, cells, in_sum, notes
from harness.report.text import counted

LISTED: Final = 20_000
"""Ranges that a page lists; where there are more the map shows them all the same."""

FOLDED: Final = 100
"""Ranges that are listed in one piece; more are folded by the slots of the root's table."""


def space_page(snapshot: Snapshot, types: Types, dump: Dump, limit: int) -> str:
    """The page of a space, whose ranges may be a selection: the map shows all."""
    cpu, format = snapshot.cpu, snapshot.cpu.format
    listed = min(limit, LISTED)
    return page(
        "space.html",
        title=f"The address space of {snapshot.title}",
        snapshot=snapshot,
        told=in_sum(dump),
        notes=list(notes(dump, listed)),
        head=HEAD,
        parts=list(_parts(format, list(dump.ranges.take(slice(listed))))),
        cells=lambda one: cells(cpu, types, one),
        map=space_map.as_object(snapshot),
    )


class _Part(NamedTuple):
    """Ranges that begin in one slot of the root's table; `title` is empty where there is but one
    part."""

    title: str
    ranges: Sequence[Range]


def _parts(format: Format, ranges: list[Range]) -> Iterator[_Part]:
    if len(ranges) <= FOLDED:
        yield _Part("", ranges)
        return
    top = format.levels[-1]
    for _, group in groupby(ranges, key=lambda one: one.first >> top.shift):
        part = list(group)
        slot = f"{top.name} {top.index(part[0].first)}, from {part[0].first:#x}"
        size = in_units(sum(one.pages * one.size for one in part))
        yield _Part(f"{slot}: {counted(len(part), 'range')}, {size}", part)
