"""What arm64 adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from harness.inspect.arm64.decode import GROUP, unchecked
from harness.inspect.decode import Reading
from harness.inspect.graph import RowKind, Rows
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
    reserved,
)
from harness.inspect.ranges import Range
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.arm64.cpu import Cpu, Tcr, span_of
from harness.paging.arm64.formats import AF, AP_READ_ONLY, CONTIGUOUS, DBM, NT
from harness.paging.memory import Mask
from harness.paging.table import Slot

SECTIONS: Final = {
    "reserved-bits": "address size faults",
    "write-execute": "memory access control",
    "global-user": "nG",
    "marks-missing": "hardware updates",
    "mixed-types": "mismatched memory attributes",
}
"""Where the Arm ARM speaks of a rule."""

CHANGED: Final[Mapping[str, Rule]] = {
    "cached-outside-ram": Rule(
        "cached-outside-ram", NOTE, "pages outside memory of a type that is cached"
    ),
    "mixed-types": Rule(
        "mixed-types",
        NOTE,
        "pieces of memory that are mapped with several memory types: coherent where software"
        " manages the caches, as Linux does of memory that devices share",
    ),
}
"""Mismatched attributes are defined: what is lost is coherence, until caches are maintained."""
LEFT_OUT: Final[frozenset[str]] = frozenset()


def _grouping(space: LintSpace, level: int) -> Grouping | None:
    """The contiguous groups of a level, whose entries may differ in the access flag and the dirty
    state; None where it has none."""
    count = GROUP.get((space.graph.format.levels[0].shift, level))
    changes = AF | (AP_READ_ONLY | DBM if space.cpu.keeps_dirty_state else 0)
    return None if count is None else Grouping(CONTIGUOUS, count, changes)


def _apart(space: LintSpace, rows: Rows) -> Mask:
    """Pages with the contiguous bit whose group is not whole."""
    grouping, pages = _grouping(space, rows.level), pages_of(rows)
    return apart(space.graph.format, rows, pages, grouping) if grouping else pages & False


def _what_is_wrong(space: LintSpace, one: Range, slot: Slot) -> str:
    grouping = _grouping(space, one.level)
    assert grouping is not None
    return what_is_wrong(space.cpu, space.memory, slot, grouping)


def _group_bytes(space: LintSpace, level: int) -> int:
    grouping = _grouping(space, level)
    return space.graph.format.levels[level].size * (grouping.count if grouping else 1)


def _unchecked(space: LintSpace, rows: Rows) -> Mask:
    """Descriptors with bits set that should be zero, where an address would have them."""
    found = np.zeros(len(rows.raw), np.bool_)
    for shape in space.graph.format.levels[rows.level].shapes:
        kind = RowKind.POINTER if shape.points else RowKind.PAGE
        odd = rows.raw & np.uint64(unchecked(shape)) != 0
        found |= (rows.kind == kind) & odd & ~rows.window
    return found


def _what_is_dropped(space: LintSpace, one: Range, _: Slot) -> str:
    shape = space.graph.format.levels[one.level].shape(one.raw)
    odd, name = one.raw & unchecked(shape), space.graph.format.levels[one.level].name
    return f"{name} has {odd:#x}, which is no part of its address, {shape.address_of(one.raw):#x}"


def _left_behind(_: LintSpace, rows: Rows) -> Mask:
    found: Mask = pages_of(rows) & (rows.raw & np.uint64(NT) != 0) & (rows.level > 0)
    return found


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
    (
        "table-without-memory",
        Rule(
            "reserved-type",
            ERROR,
            "descriptors of type 0b01 where no blocks can be: any access faults",
            "descriptor formats",
        ),
        reserved,
    ),
    (
        "table-user-writable",
        Rule(
            "contiguous-apart",
            ERROR,
            "pages with the contiguous bit whose groups are not whole: what accesses there do is up"
            " to the machine",
            "contiguous bit",
        ),
        _apart,
    ),
    (
        "user-in-kernel-half",
        Rule(
            "unchecked-bits",
            WARNING,
            "descriptors that hold more of an address than the processor reads: bits that are RES0,"
            " and not checked",
            "descriptor formats",
        ),
        _unchecked,
    ),
    (
        "withheld-above",
        Rule(
            "block-being-changed",
            NOTE,
            "blocks with nT set, as while one is changed without break-before-make",
            "nT, FEAT_BBM",
        ),
        _left_behind,
    ),
)
"""Rules about entries, each with the name of the one before which it stands."""

DETAILS: Final[Mapping[str, Detail]] = {
    "contiguous-apart": Detail(_what_is_wrong, _group_bytes),
    "unchecked-bits": Detail(_what_is_dropped),
}
"""What else there is to say of a finding, by its rule."""

NEEDS: Final = (
    Rule("tcr-reserved", WARNING, "fields of TCR_EL1 that are reserved, or come to nothing"),
)
KEEPS: Final = ""


def executes(space: LintSpace, rows: Rows) -> Mask:
    """Which rows EL0 or EL1 may execute: EL1 nothing that EL0 may write, and with WXN=1 neither
    what it may write itself.  What EL0 may write is as entries say, also where E0PDx closes the
    half to it."""
    write = space.has(rows, "write")
    by_el0 = (rows.granted & np.uint64(space.graph.format.rights["user"]) != 0) & write
    el0, el1 = space.has(rows, "user execute"), space.has(rows, "supervisor execute") & ~by_el0
    if space.cpu.wxn:
        el0, el1 = el0 & ~by_el0, el1 & ~write
    found: Mask = el0 | el1
    return found


def globals(_: Cpu) -> bool:
    """Whether the lack of nG means something: always."""
    return True


def closed(cpu: Cpu) -> tuple[bool, bool]:
    """Whether EL0 reaches nothing of the lower half, and of the upper one: with E0PD0 and E0PD1."""
    lower, upper = (half is not None and half.e0pd for half in (cpu.low, cpu.high))
    return lower, upper


def lower(_: Cpu, __: Reading) -> str:
    """What an entry is in a table of a lower level: its type tells no more."""
    return ""


def needs(snapshot: Snapshot) -> Iterator[Need]:
    """Fields of TCR_EL1 that are reserved or come to nothing: what software set there was meant to
    do something."""
    cpu: Cpu = snapshot.cpu
    every = Span.of(0, 1 << 64)
    said = [(every, sentence) for sentence in _of_both(cpu)]
    for half, high in ((cpu.low, False), (cpu.high, True)):
        if half is not None:
            span, number = span_of(half, high), int(high)
            said += [(span, sentence) for sentence in _of_half(cpu, number, half.granule)]
    yield from (Need("tcr-reserved", span, None, 1, sentence) for span, sentence in said)


def _of_both(cpu: Cpu) -> Iterator[str]:
    tcr, features = cpu.tcr, cpu.features
    if odd := tcr & (1 << 6 | 1 << 35):
        yield f"TCR_EL1 has {odd:#x}, which is RES0"
    if tcr & Tcr.HD and not tcr & Tcr.HA:
        yield "HD=1 comes to nothing with HA=0: the processor keeps no dirty state"
    if tcr & Tcr.HA and not features.hafdbs:
        yield "HA=1 comes to nothing on this processor, which does not set the access flag"
    if tcr & Tcr.DS and not features.lpa2:
        yield "DS=1 comes to nothing on this processor, without FEAT_LPA2"


def _of_half(cpu: Cpu, number: int, granule: str) -> Iterator[str]:
    tcr, at = cpu.tcr, 16 * number
    if tcr >> at + 12 & 3 == 1:
        yield f"SH{number}=1 is reserved"
    if tcr & Tcr.DS and granule == "64K":
        yield f"DS=1 comes to nothing for TG{number}: pages of 64K have 52 bits without it"
    if tcr >> 51 + number & 1 and not tcr >> 37 + number & 1:
        yield f"TBID{number}=1 comes to nothing with TBI{number}=0"
