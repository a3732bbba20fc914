"""What RISC-V adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from harness.check.keys import in_units
from harness.inspect.decode import Reading
from harness.inspect.graph import Rows
from harness.inspect.groups import Grouping, apart, what_is_wrong
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
from harness.paging.entry import Leaf, Malformed, Pointer
from harness.paging.memory import Mask
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import NAPOT_BITS, PAGE_BITS, A, D, N, R, W, X

SECTIONS: Final = {
    "reserved-bits": "Translation Process",
    "write-execute": "Addressing and Memory Protection",
    "global-user": "Addressing and Memory Protection",
    "mixed-types": "Svpbmt",
    "marks-missing": "Svade, Svadu",
}
"""Where the privileged specification speaks of a rule."""

CHANGED: Final = {
    "mixed-types": Rule(
        "mixed-types",
        NOTE,
        "pieces of memory that are mapped with several memory types: coherent where software"
        " manages the caches, as Linux does of memory that devices share",
    )
}
"""Mismatched attributes are defined: what is lost is coherence, until FENCE and CBO.FLUSH."""

LEFT_OUT: Final = frozenset({"self-map", "self-map-executable", "cached-outside-ram"})
"""A pointer is reserved at level 0, so that no self-map shows tables as pages.  And whether a page
without a memory type of its own is cached is for the platform to say (PMAs), not for its entry."""

_GROUPING: Final = Grouping(N, 1 << NAPOT_BITS - PAGE_BITS, A | D)
"""Pages of 64K, whose entries may differ in what a hart notes: it may do so in any of them."""


def _apart(space: LintSpace, rows: Rows) -> Mask:
    """Entries of 64K pages that are not 16, or not all alike."""
    pages = pages_of(rows)
    napot = rows.level == 0 and space.cpu.svnapot
    return apart(space.graph.format, rows, pages, _GROUPING) if napot else pages & False


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
    (
        "table-user-writable",
        Rule(
            "napot-apart",
            ERROR,
            "pages of 64K whose 16 entries are not all there and alike: an access may use any of"
            " them",
            "Svnapot",
        ),
        _apart,
    ),
    (
        "table-mapped",
        Rule(
            "table-in-itself",
            WARNING,
            "slots that lead back up: no table is read as pages through them, for pointers are"
            " reserved at level 0",
            "Translation Process",
        ),
        self_map,
    ),
)
"""Rules about entries, each with the name of the one before which it stands."""

DETAILS: Final[Mapping[str, Detail]] = {
    "napot-apart": Detail(
        lambda space, _, slot: what_is_wrong(space.cpu, space.memory, slot, _GROUPING),
        lambda _, __: 1 << NAPOT_BITS,
    ),
}
"""What else there is to say of a finding, by its rule."""

NEEDS: Final[tuple[Rule, ...]] = ()
KEEPS: Final = ""


def executes(space: LintSpace, rows: Rows) -> Mask:
    """Which rows someone may execute."""
    return space.has(rows, "execute")


def globals(_: Cpu) -> bool:
    """Whether the bit G means something: always."""
    return True


def closed(_: Cpu) -> tuple[bool, bool]:
    """Whether the user reaches nothing of the lower half, and of the upper one, whatever entries
    give: never."""
    return False, False


def lower(cpu: Cpu, reading: Reading) -> str:
    """What a superpage that is not aligned is in a table of a lower level, where pages are small
    enough, or as a pointer, where it has nothing of a page but rights; of all else there is nothing
    to tell, for entries of all levels look the same."""
    if not isinstance(reading.entry, Malformed):
        return ""
    pointer = cpu.format.decode(reading.raw & ~(R | W | X), reading.level)
    if isinstance(pointer, Pointer):
        return f"without R, W and X a pointer, to the table at {pointer.table.address:#x}"
    made = (cpu.format.decode(reading.raw, level) for level in reversed(range(reading.level)))
    page = next((one for one in made if isinstance(one, Leaf)), None)
    if page is None:
        return ""
    return f"in a table of a lower level, a {in_units(page.size)} page at {page.address:#x}"


def needs(_: Snapshot) -> Iterable[Need]:
    """What a hart needs and is not mapped so: nothing that registers here tell."""
    return ()
