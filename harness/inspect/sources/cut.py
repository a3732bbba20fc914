"""Files of memory that end before the tables that lie in them do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.inspect import architecture
from harness.inspect.held import MOST_TABLES
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Physical
from harness.paging.bulk import layers
from harness.paging.errors import TooManyTables
from harness.paging.memory import within
from harness.paging.table import Table

UNIT: Final = 4096
"""Memory comes in multiples of this many bytes."""


def doubt(path: Path) -> str:
    """What is assumed of a file whose size is no multiple of UNIT."""
    return f"{path} was not cut short (its size is not a multiple of {UNIT})"


def told(snapshot: Snapshot, ends: Mapping[int, Path]) -> Snapshot:
    """The snapshot of memory in files, with a note where a table that is in use shows that one was
    cut short, which is then no longer doubted.

    ends  the address after the last word of each file
    """
    notes, cut = [], set[str]()
    backed = snapshot.backed or ()
    for end, path in ends.items():
        if any(end in span for span in backed):  # another file goes on from there
            continue
        doubted = doubt(path) in snapshot.assumed
        found = next(_tables(snapshot, end, beyond=False), None)
        if found is not None:
            notes.append(f"{path} was cut short: it ends at {end:#x}, in the middle of {found}.")
        elif doubted and (found := next(_tables(snapshot, end, beyond=True), None)):
            notes.append(
                f"{path} was cut short, or is a part of memory: it ends at {end:#x}, and {found} is"
                " in use."
            )
        if found is not None:
            cut.add(doubt(path))
    assumed = tuple(one for one in snapshot.assumed if one not in cut)
    return replace(snapshot, notes=(*snapshot.notes, *notes), assumed=assumed)


def _tables(snapshot: Snapshot, end: int, beyond: bool) -> Iterator[Table]:
    """The tables in use that begin before an address that ends memory and end in no memory, or else
    begin beyond it, and in no memory."""
    backed = snapshot.backed or ()
    for part in architecture.parts(snapshot):
        format = part.cpu.format
        largest = max(map(format.table_bytes, range(len(format.levels))))
        if not beyond and not end % largest:
            continue
        try:
            for pieces in layers(part.memory, part.cpu.roots, MOST_TABLES):
                first, last = pieces.memory
                chosen = (first < end) & (last >= end) & ~within(last, *backed)
                if beyond:
                    chosen = (first >= end) & ~within(first, *backed)
                for address in pieces.address[chosen].tolist():
                    yield Table(pieces.format, Physical(address), pieces.level)
        except TooManyTables:  # what was found of them is enough
            continue
