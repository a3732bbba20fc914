"""What s390 adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from harness.inspect.decode import Reading
from harness.inspect.graph import RowKind, Rows
from harness.inspect.lint import (
    ERROR,
    NOTE,
    WARNING,
    Breaks,
    Detail,
    LintSpace,
    Need,
    Rule,
    self_map,
    shows_table,
)
from harness.inspect.snapshot import Snapshot
from harness.paging import bulk
from harness.paging.format import bits
from harness.paging.memory import Mask
from harness.paging.s390.cpu import Cpu

SECTIONS: Final = {
    "reserved-bits": "Translation-Specification Exception",
    "write-execute": "Instruction-Execution Protection",
}
"""Where the Principles of Operation speak of a rule."""

CHANGED: Final[Mapping[str, Rule]] = {
    "table-mapped": Rule(
        "table-mapped",
        NOTE,
        "pages that hold tables in use, by no self-map: problem state reaches them too, unless"
        " storage keys forbid it",
    ),
}
"""A kernel has all memory mapped in a space of its own, which tables do not tell from others."""

LEFT_OUT: Final = frozenset(
    (
        *("self-map", "self-map-executable", "global-user", "user-in-kernel-half"),
        *("cached-outside-ram", "device", "mixed-types", "marks-missing"),
        *("table-user-writable", "table-user-readable"),
    )
)
"""Of self-maps there are rules of its own; nothing in entries is about problem state, and memory
has one type."""


_UNUSED: Final = (
    0,
    bits(10) | bits(8, 6) | bits(1, 0),
    *([bits(11, 10) | bits(8) | bits(4)] * 3),
)
"""The bits of pointers, by level, that should be zero and are not looked at.  Of page-table entries
the lowest eight are software's, and of frames these bits are of the storage key."""


def _unchecked(space: LintSpace, rows: Rows) -> Mask:
    here = space.graph.format.levels[rows.level]
    meant = 0
    for shape in here.shapes:
        meant |= shape.when.mask | shape.reserved_mask
        for mask in shape.bits.values():
            meant |= mask
    unused = np.uint64(_UNUSED[rows.level] & ~meant)
    found: Mask = (rows.kind == RowKind.POINTER) & ~rows.window & (rows.raw & unused != 0)
    return found


def _no_part(space: LintSpace, rows: Rows) -> Mask:
    """Pointers of which TF is above TL."""
    format = space.graph.format
    found: Mask = (rows.kind == RowKind.POINTER) & ~rows.window
    if found.any():
        first, last = bulk.bounds_of(format, rows.level, rows.raw)
        found &= first > last
    return found


def _table_writable(space: LintSpace, rows: Rows) -> Mask:
    """Pages that self-maps make of tables, and that can be written: the entry of a segment leads to
    a page table, whose entries have no type, so that those of any table read as entries of it."""
    return shows_table(space, rows, rows.window & space.has(rows, "write"))


def _table_readable(space: LintSpace, rows: Rows) -> Mask:
    return shows_table(space, rows, rows.window & ~space.has(rows, "write"))


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
    (
        "table-user-writable",
        Rule(
            "self-map-writable",
            ERROR,
            "pages that self-maps make of tables in use, and that can be written: in problem state"
            " too, unless storage keys forbid it",
            "Page-Table Entries",
        ),
        _table_writable,
    ),
    (
        "table-user-writable",
        Rule(
            "self-map-readable",
            WARNING,
            "pages that self-maps make of tables in use, and that can be read: in problem state"
            " too, unless storage keys forbid it",
            "Page-Table Entries",
        ),
        _table_readable,
    ),
    (
        "empty-table",
        Rule(
            "no-part-of-table",
            WARNING,
            "pointers to tables of which nothing is there: TF is above TL",
            "Region-Table Entries",
        ),
        _no_part,
    ),
    (
        "table-mapped",
        Rule(
            "table-in-itself",
            WARNING,
            "slots that lead back up, to a table that is in use at their level or above: its"
            " entries are read as those of another table",
            "Translation Process",
        ),
        self_map,
    ),
    (
        "withheld-above",
        Rule(
            "unchecked-bits",
            NOTE,
            "pointers with bits set that are not looked at here, and that later processors may"
            " use: Linux 6.12 keeps its own in some",
            "Region-Table Entries, Segment-Table Entries",
        ),
        _unchecked,
    ),
)
"""Rules about entries, each with the name of the one before which it stands."""

DETAILS: Final[Mapping[str, Detail]] = {}
NEEDS: Final[tuple[Rule, ...]] = ()
KEEPS: Final = ""


def executes(space: LintSpace, rows: Rows) -> Mask:
    """Which rows someone may execute."""
    return space.has(rows, "execute")


def globals(_: Cpu) -> bool:
    """Whether a bit makes pages global: CS is of pointers and frames, and means another thing."""
    return False


def closed(_: Cpu) -> tuple[bool, bool]:
    """Whether problem state reaches nothing of the lower half, and of the upper one: never."""
    return False, False


def lower(_: Cpu, __: Reading) -> str:
    """What an entry is in a table of a lower level: its type would tell, and is then what is
    wrong."""
    return ""


def needs(_: Snapshot) -> Iterable[Need]:
    """What a processor needs and is not mapped so: nothing that registers here tell."""
    return ()
