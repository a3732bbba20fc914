"""What RISC-V adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.inspect.decode import Reading
from harness.inspect.graph import Rows
from harness.inspect.lint import NOTE, WARNING, Breaks, LintSpace, Need, Rule, self_map
from harness.inspect.snapshot import Snapshot
from harness.paging.memory import Mask
from harness.paging.riscv.cpu import Cpu

SECTIONS: Final = {
    "reserved-bits": "Translation Process",
    "write-execute": "Addressing and Memory Protection",
    "global-user": "Addressing and Memory Protection",
    "mixed-types": "Svpbmt",
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

RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
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


def lower(_: Cpu, __: Reading) -> str:
    """What an entry is in a table of a lower level: entries of all levels look the same."""
    return ""


def needs(_: Snapshot) -> Iterable[Need]:
    """What a hart needs and is not mapped so: nothing that registers here tell."""
    return ()


def reserved(_: LintSpace) -> Iterable[Need]:
    """Entries that are absent and nothing of software's: absent ones are all software's."""
    return ()
