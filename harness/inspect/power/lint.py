"""What POWER adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    pages_of,
    self_map,
)
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.format import bits
from harness.paging.memory import Mask
from harness.paging.power.access import GUARDED
from harness.paging.power.cpu import (
    ADDRESS_BITS,
    ROOT_BASE,
    ROOT_SIZE,
    Cpu,
    is_supported,
    root_address,
    tree_bits,
)
from harness.paging.power.formats import ATT

SECTIONS: Final = {
    "reserved-bits": "Radix Tree Translation",
    "write-execute": "Encoded Access Authority",
    "mixed-types": "Radix Tree Storage Attributes",
}
"""Where the Power ISA speaks of a rule."""

CHANGED: Final[Mapping[str, Rule]] = {
    "reserved-bits": Rule(
        "reserved-bits",
        ERROR,
        "entries that lead to a table of a size that is not supported, or are a page, or none,"
        " where that may not be: any access faults",
    ),
    "cached-outside-ram": Rule(
        "cached-outside-ram", NOTE, "pages outside memory that are normal memory by ATT"
    ),
}

LEFT_OUT: Final = frozenset({"self-map", "self-map-executable", "global-user", "withheld-above"})
"""An entry that leads on is malformed at level 0, so that no self-map shows tables as pages; there
are no global pages, and directories withhold nothing."""

_LOWEST_TABLE: Final = bits(59, 8)
_LOWEST_PAGE: Final = bits(56, 12)
"""The bits of an entry that hold the address of a table, and of a page, of the smallest size."""


def _table_misaligned(space: LintSpace, rows: Rows) -> Mask:
    pointer = space.graph.format.levels[rows.level].pointer
    below = 0 if pointer is None else _LOWEST_TABLE & ~pointer.address_mask
    leads = np.isin(rows.kind, (RowKind.POINTER, RowKind.SELF_MAP, RowKind.UNREAD))
    found: Mask = leads & ~rows.window & (rows.raw & np.uint64(below) != 0)
    return found


def _page_misaligned(space: LintSpace, rows: Rows) -> Mask:
    leaf = space.graph.format.levels[rows.level].leaf
    below = 0 if leaf is None else _LOWEST_PAGE & ~leaf.address_mask
    found: Mask = pages_of(rows) & (rows.raw & np.uint64(below) != 0)
    return found


def _guarded_code(space: LintSpace, rows: Rows) -> Mask:
    found: Mask = pages_of(rows) & space.has(rows, "execute") & _is_guarded(rows)
    return found


def _is_guarded(rows: Rows) -> Mask:
    found: Mask = rows.raw & np.uint64(ATT) == np.uint64(GUARDED)
    return found


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
    (
        "table-user-writable",
        Rule(
            "table-misaligned",
            WARNING,
            "slots whose NLB is not aligned to the size of the table: its lowest bits are ignored",
            "Page Directory Entry",
        ),
        _table_misaligned,
    ),
    (
        "table-user-writable",
        Rule(
            "page-misaligned",
            WARNING,
            "pages whose RPN is not aligned to their size: its lowest bits are ignored",
            "Page Table Entry",
        ),
        _page_misaligned,
    ),
    (
        "table-mapped",
        Rule(
            "table-in-itself",
            WARNING,
            "slots that lead back up: no table is read as pages through them, for an entry that"
            " leads on is malformed at level 0",
            "Radix Tree Translation",
        ),
        self_map,
    ),
    (
        "table-mapped",
        Rule(
            "guarded-code",
            NOTE,
            "pages with EAA3=1 in guarded storage (ATT=2), from which nothing is fetched",
            "Radix Tree Storage Attributes",
        ),
        _guarded_code,
    ),
)
"""Rules about entries, each with the name of the one before which it stands."""

_TREE: Final = Rule(
    "tree-shape",
    ERROR,
    "process table entries that describe trees that are not supported: any access faults",
    "Process Table",
)
_ROOT: Final = Rule(
    "root-misaligned",
    WARNING,
    "process table entries whose RPDB is not aligned to the root's size, or with reserved bits set:"
    " these bits are ignored",
    "Process Table",
)
NEEDS: Final = (_TREE, _ROOT)
KEEPS: Final = ""
DETAILS: Final[Mapping[str, Detail]] = {}


def executes(space: LintSpace, rows: Rows) -> Mask:
    """Which rows someone may execute: of guarded storage none."""
    return space.has(rows, "execute") & ~_is_guarded(rows)


def globals(_: Cpu) -> bool:
    """Whether a bit means that pages are global: there is none."""
    return False


def closed(_: Cpu) -> tuple[bool, bool]:
    """Whether the user reaches nothing of the lower half, and of the upper one, whatever entries
    give: never."""
    return False, False


def lower(_: Cpu, __: Reading) -> str:
    """What an entry is in a table of a lower level: a page of any size looks the same."""
    return ""


def needs(snapshot: Snapshot) -> Iterator[Need]:
    """What process table entries say that is wrong or comes to nothing."""
    cpu: Cpu = snapshot.cpu
    for number, descriptor in ((0, cpu.quadrant0), (3, cpu.quadrant3)):
        if not descriptor:
            continue
        span = Span.of(number << 62, 1 << ADDRESS_BITS)
        if not is_supported(descriptor):
            said = (
                f"{descriptor:#x}: a tree of {tree_bits(descriptor)} bits, and a root of 1 <<"
                f" {descriptor & ROOT_SIZE} entries"
            )
            yield Need(_TREE.name, span, None, 1, said)
        if odd := descriptor & (ROOT_BASE & ~root_address(descriptor) | bits(63) | bits(60)):
            yield Need(_ROOT.name, span, None, 1, f"{descriptor:#x} has {odd:#x}")
