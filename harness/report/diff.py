"""What two spaces differ in, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from harness.check.keys import in_units
from harness.inspect import architecture
from harness.inspect.architecture import Types
from harness.inspect.diff import Change, Difference
from harness.inspect.graph import RowKind
from harness.inspect.ranges import Range
from harness.inspect.snapshot import Snapshot
from harness.paging.processor import Cpu
from harness.report import state
from harness.report.ranges import as_objects, cells
from harness.report.text import aligned, counted, limited

NAMES = {
    Change.MAPPED: "mapped",
    Change.UNMAPPED: "unmapped",
    Change.KIND: "kind",
    Change.MOVED: "moved",
    Change.RIGHTS: "rights",
    Change.ATTRIBUTES: "attributes",
    Change.SIZE: "size",
    Change.USED: "A/D",
    Change.SOFTWARE: "software",
}
"""What changes are called."""


def names(change: Change) -> list[str]:
    """All that is different, the weightiest first."""
    return [name for kind, name in NAMES.items() if change & kind]


def head_lines(before: Snapshot, after: Snapshot, again: bool) -> Iterator[str]:
    """What is compared, by which root, and a note where one source, looked at `again`, has another
    root now."""
    for sign, side in zip("-+", (before, after), strict=True):
        yield from (f"{sign} {line}" for line in state.head_lines(side))
    if again and before.cpu.roots != after.cpu.roots:
        roots = architecture.of(before.cpu).roots
        kept = (f",{root}={getattr(before.cpu, root):#x}" for root in roots)
        yield (
            "The root changed between the two moments, so these are two spaces;"
            f" {''.join(kept)} after the source keeps to the first."
        )
    yield ""


def diff_lines(cpus: Sequence[Cpu], types: Types, found: Difference, limit: int) -> Iterator[str]:
    """What is different: a line of a range as it was, with -, and one as it is, with +."""
    rows: list[Sequence[str]] = []
    for one in islice(found, limit):
        head = ", ".join(names(one.change)), f"{one.before.first:#x}..{one.before.last:#x}"
        for sign, cpu, side, size in zip(
            "-+", cpus, (one.before, one.after), (one.then, one.now), strict=True
        ):
            if side.kind != RowKind.ABSENT:
                rows.append((*head, sign, *_cells(cpu, types, side, size)))
                head = "", ""
    if rows:
        yield from aligned(rows)
    yield summary(found)
    yield from found.cut
    yield from limited(len(found), "ranges", limit)


def summary(found: Difference) -> str:
    """How many entries differ in each way."""
    if found.same:
        return "The spaces are the same."
    if not len(found):
        return "What was compared is the same."
    each = [f"{NAMES[kind]} {count:,}" for kind, count in found.pages().items()]
    return f"{counted(len(found), 'range')}; entries, at all addresses: {', '.join(each)}."


def _cells(cpu: Cpu, types: Types, side: Range, size: int) -> tuple[str, ...]:
    """One side, without its addresses; `size` is that of the pages themselves."""
    if side.kind != RowKind.PAGE:
        # It is told by the level of the slot where it was found.
        sizes = [level.size for level in cpu.format.levels]
        side = side._replace(level=sizes.index(size))
    _, _, pages, *rest = cells(cpu, types, side, part=True)
    return (_pages(side, size) if side.kind == RowKind.PAGE else pages, *rest)


def _pages(side: Range, size: int) -> str:
    if size == side.size:
        return f"{side.pages:,} x {in_units(size)}"
    return f"{in_units(side.pages * side.size)} of {in_units(size)}"


def diff_object(cpus: Sequence[Cpu], types: Types, found: Difference, limit: int) -> dict[str, Any]:
    """The same as what JSON can hold, with at most `limit` ranges."""
    changes = list(islice(found, limit))

    def side(cpu: Cpu, ranges: list[Range]) -> list[dict[str, Any] | None]:
        objects = as_objects(cpu, types, ranges)
        return [
            one if each.kind != RowKind.ABSENT else None
            for each, one in zip(ranges, objects, strict=True)
        ]

    before = side(cpus[0], [one.before for one in changes])
    after = side(cpus[1], [one.after for one in changes])
    return {
        "pat": list(types),
        "same": found.same,
        "total": len(found),
        "counts": {NAMES[kind]: count for kind, count in found.pages().items()},
        "changes": [
            {
                "change": names(one.change),
                "first": hex(one.before.first),
                "last": hex(one.before.last),
                "paths": one.before.paths,
                "before": then and {**then, "page_size": one.then},
                "after": now and {**now, "page_size": one.now},
            }
            for one, then, now in zip(changes, before, after, strict=True)
        ],
        "cut": list(found.cut),
    }
