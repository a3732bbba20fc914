"""What x86 adds to the rules about spaces."""

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
    pages_of,
)
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86 import needs as needed
from harness.inspect.x86.likely import of_lower_table
from harness.paging.memory import Mask
from harness.paging.x86.cpu import Cpu, Cr4
from harness.paging.x86.formats import PS

SECTIONS: Final = {
    "reserved-bits": "4.7",
    "write-execute": "4.6",
    "self-map-executable": "4.6",
    "global-user": "4.10.2.4",
    "withheld-above": "4.6",
    "cached-outside-ram": "12.11",
    "mixed-types": "12.12.4",
}
"""Where volume 3A of the SDM speaks of a rule."""

KEEPS: Final = "CR0.WP=0"
LEFT_OUT: Final = frozenset({"marks-missing"})
"""Processors set A and D themselves."""

CHANGED: Final[dict[str, Rule]] = {}


def executes(space: LintSpace, rows: Rows) -> Mask:
    """Which rows someone may execute."""
    return space.has(rows, "execute")


def globals(cpu: Cpu) -> bool:
    """Whether the bit G means something."""
    return bool(cpu.cr4 & Cr4.PGE)


def closed(cpu: Cpu) -> tuple[bool, bool]:
    """Whether the user reaches nothing of the lower half, and of the upper one, whatever entries
    give: of the upper one with LASS."""
    return False, cpu.lass


def lower(cpu: Cpu, reading: Reading) -> str:
    """What an entry is in a table of a lower level, where it makes sense there alone."""
    found = of_lower_table(cpu, reading)
    return found.said if found else ""


def needs(snapshot: Snapshot) -> Iterable[Need]:
    """What a processor needs and is not mapped so."""
    return needed.broken(snapshot)


def _shadow_stack(space: LintSpace, rows: Rows) -> Mask:
    format = space.graph.format
    write, dirty = np.uint64(format.rights["write"]), np.uint64(format.dirty)
    own = (rows.raw & (write | dirty) == dirty) & (rows.above & write != 0)
    found: Mask = pages_of(rows) & own & bool(space.cpu.cr4 & Cr4.CET)
    return found


def _large_without_pse(space: LintSpace, rows: Rows) -> Mask:
    """Pointers with PS set in 32-bit paging with CR4.PSE=0, the one mode that ignores it."""
    found: Mask = (rows.kind == RowKind.POINTER) & (rows.raw & np.uint64(PS) != 0)
    return found & np.bool_(space.cpu.ignores_ps) & ~rows.window


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
    (
        "empty-table",
        Rule(
            "large-page-without-pse",
            WARNING,
            "PDEs with PS set that lead to tables all the same, since CR4.PSE=0",
            "4.3",
        ),
        _large_without_pse,
    ),
    (
        "self-map",
        Rule(
            "shadow-stack",
            NOTE,
            "shadow-stack pages: read-only and dirty, below tables that grant writing",
            "4.6.1",
        ),
        _shadow_stack,
    ),
)
"""Rules about entries, each with the name of the one before which it stands."""

DETAILS: Final[Mapping[str, Detail]] = {}

NEEDS: Final = (
    Rule(needed.CODE, ERROR, "RIP is where nothing can be executed: a fault at once", "4.6.1"),
    Rule(
        needed.STACK,
        ERROR,
        "stacks to which the processor cannot push what an exception pushes",
        "6.14.2",
    ),
    Rule(needed.GDT, ERROR, "parts of the GDT that the processor cannot read", "3.5.1"),
    Rule(
        needed.GDT_READ_ONLY,
        WARNING,
        "descriptors whose accessed bit the processor cannot set: loading one faults",
        "3.4.5.1",
    ),
    Rule(
        needed.IDT,
        ERROR,
        "gates that the processor cannot read: their vectors double fault",
        "6.10",
    ),
    Rule(
        needed.HANDLER,
        ERROR,
        "gates that lead to what the processor cannot execute",
        "6.12.1",
    ),
    Rule(needed.TSS, ERROR, "a TSS that the processor cannot read", "7.7"),
)
"""About what the processor itself needs, where a source has its registers."""
