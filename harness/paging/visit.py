"""What a range holds, holes included, shown one by one from the lowest address up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from harness.paging.address import Span
from harness.paging.entry import Entry, Pointer
from harness.paging.table import Slot, Table
from harness.paging.tree import Tree


class Visit(NamedTuple):
    """One thing that was found.

    span   its addresses, clipped to the range
    slot   the slot that spans them; of a hole the first of several in one table
    raw    the entry, which in a hole is that of a new table
    entry  the same, decoded
    """

    span: Span
    slot: Slot
    raw: int
    entry: Entry


class Visitor(Protocol):
    """Who is shown a range."""

    def table(self, visit: Visit) -> bool:
        """Shown a pointer; answers whether to be shown what lies below."""

    def filled(self, visit: Visit) -> None:
        """Shown a page, a malformed entry, or one that only software understands."""

    def hole(self, visit: Visit) -> None:
        """Shown where nothing is."""


def visits(tree: Tree, span: Span) -> Iterator[Visit]:
    """All but the pointers: the spans of what is returned tile the range without a gap.

    A hole ends where its table does.  Tables of other spaces are read as well.
    """
    return _visits(tree, span, lambda visit: True)


def visit(tree: Tree, span: Span, visitor: Visitor) -> None:
    """Shows the range to a visitor, pointers before what lies below them."""
    for found in _visits(tree, span, visitor.table):
        if found.raw == tree.format.levels[found.slot.level].empty:
            visitor.hole(found)
        else:
            visitor.filled(found)


def _visits(tree: Tree, span: Span, enter: Callable[[Visit], bool]) -> Iterator[Visit]:
    for served in tree.served(span):
        yield from _table_visits(tree, tree.root_for(served.first).table, served, enter)


def _table_visits(
    tree: Tree, table: Table, span: Span, enter: Callable[[Visit], bool]
) -> Iterator[Visit]:
    """What one table and those below it hold for a span that lies in it, but for pointers, which
    `enter` is shown."""
    format, here = tree.format, tree.format.levels[table.level]
    start = table.slot_for(span.first)
    raws = tree.words(start, here.index(span.last) - start.index + 1).tolist()
    cut = list(span.pieces(here.size))
    first = 0
    for step, raw in enumerate(raws):
        if raw == here.empty and raws[step + 1 : step + 2] == [here.empty]:
            continue
        found = Visit(
            Span(cut[first].first, cut[step].last),
            table.slot(start.index + first),
            raw,
            format.decode(raw, table.level),
        )
        first = step + 1
        if not isinstance(found.entry, Pointer):
            yield found
        elif enter(found):
            tree.check_whole(raw, table.level)
            yield from _table_visits(tree, found.entry.table, found.span, enter)
