"""The tables of a space, copied at one moment, for questions that are asked when it has passed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.check.held import HeldMemory, Octets
from harness.inspect.snapshot import SourceError
from harness.paging import bulk
from harness.paging.bulk import Pieces
from harness.paging.errors import TooManyTables
from harness.paging.memory import Mask, Words
from harness.paging.table import Root

MOST_TABLES = 1 << 16
"""Tables of one space that are looked at: those of 128 GiB in pages of 4 KiB.  A space that has
more may be none, but data that were taken for tables."""


def hold_tables(memory: HeldMemory, roots: Iterable[Root]) -> None:
    """Reads all tables of a space, and nothing else; raises as `held_layers` does."""
    for _ in held_layers(memory, roots):
        pass


def held_layers(memory: HeldMemory, roots: Iterable[Root]) -> Iterator[Pieces]:
    """All tables of a space, a level at a time, each read by then.

    Raises SourceError where there are more than can be.
    """
    try:
        for tables in bulk.layers(memory, roots, MOST_TABLES):
            memory.hold_spans(*tables.memory)
            yield tables
    except TooManyTables as error:
        raise SourceError(f"this is hardly a space: {error}; is the root right?") from None


class UnreadError(SourceError):
    """Memory that was not read while it could be: what lies there is not known."""


def refuse(units: Words) -> tuple[Octets, Mask]:
    """Reads nothing, when the moment has passed: UnreadError for what was not read before."""
    raise UnreadError(
        f"the memory at {int(units[0]):#x} was not read: it belongs to no table of the space; name"
        " the root that leads there, with --cr3 or --satp"
    )
