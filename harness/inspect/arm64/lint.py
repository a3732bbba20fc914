"""What arm64 adds to the rules about spaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Final

import numpy as np

from harness.inspect.arm64.decode import GROUP, read, reserved_type
from harness.inspect.decode import Reading
from harness.inspect.garbage import words_of
from harness.inspect.graph import RowKind, Rows
from harness.inspect.graph import rows as rows_of
from harness.inspect.lint import ERROR, NOTE, WARNING, Breaks, LintSpace, Need, Rule, pages_of
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Physical, Span
from harness.paging.arm64.cpu import Cpu, Tcr, span_of
from harness.paging.arm64.formats import AF, AP_READ_ONLY, CONTIGUOUS, DBM, NT, TYPE, VALID
from harness.paging.bits import address_mask, read_by_machine
from harness.paging.memory import Mask
from harness.paging.table import Slot, Table

SECTIONS: Final = {
    "reserved-bits": "address size faults",
    "write-execute": "memory access control",
    "global-user": "nG",
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


def _apart(space: LintSpace, rows: Rows) -> Mask:
    """Pages with the contiguous bit whose group is not whole: fewer entries have it, or they do not
    say the same but for the access flag and the dirty state, or lead to memory that is not in
    order or not aligned."""
    format, level = space.graph.format, rows.level
    found: Mask = pages_of(rows) & (rows.raw & np.uint64(CONTIGUOUS) != 0)
    count = GROUP.get((format.levels[0].shift, level))
    if count is None or not found.any():
        return np.zeros(len(found), np.bool_)
    size = np.uint64(count * format.levels[level].size)
    chosen = np.flatnonzero(found)
    virtual, physical = rows.virtual[chosen], rows.physical[chosen]
    said = rows.raw[chosen] & np.uint64(_said(space, level))
    _, first, number, held = np.unique(
        virtual // size, return_index=True, return_inverse=True, return_counts=True
    )
    start = virtual[first] // size * size
    base = physical[first] - (virtual[first] - start)
    wrong = (said != said[first][number]) | (physical - base[number] != virtual - start[number])
    bad = np.zeros(len(first), np.bool_)
    np.logical_or.at(bad, number, wrong)
    bad |= (held != count) | (base % size != 0)
    found[chosen] = bad[number]
    return found


def _said(space: LintSpace, level: int) -> int:
    """The bits of a page in which the entries of a group must be alike."""
    format = space.graph.format
    changes = AF | (AP_READ_ONLY | DBM if space.cpu.keeps_dirty_state else 0)
    return read_by_machine(format, level) & ~(address_mask(format, level) | changes)


def _left_behind(_: LintSpace, rows: Rows) -> Mask:
    found: Mask = pages_of(rows) & (rows.raw & np.uint64(NT) != 0) & (rows.level > 0)
    return found


RULES: Final[tuple[tuple[str, Rule, Breaks], ...]] = (
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

NEEDS: Final = (
    Rule(
        "reserved-type",
        ERROR,
        "descriptors of type 0b01 where no blocks can be: any access faults",
        "descriptor formats",
    ),
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


def reserved(space: LintSpace) -> Iterator[Need]:
    """Descriptors of type 0b01 where no blocks can be: to the processor they are invalid as those
    with bit 0 clear, but these are software's, and nobody keeps anything in those."""
    format = space.graph.format
    for floor in space.graph.floors:
        level = floor.layer.level
        if format.levels[level].is_absent(VALID):
            tables = np.setdiff1d(floor.layer.table, space.garbage.tables)
            found = dict[int, list[tuple[int, int]]]()
            for part, words in words_of(space.memory, format, floor, tables):
                odd = words & np.uint64(TYPE) == np.uint64(VALID)
                for row, index in np.argwhere(odd).tolist():
                    found.setdefault(int(part[row]), []).append((index, int(words[row, index])))
            if found:
                yield from _at_each_address(space, level, found)


def _at_each_address(
    space: LintSpace, level: int, found: dict[int, list[tuple[int, int]]]
) -> Iterator[Need]:
    """Descriptors of a level, each an index and what it holds, by their tables: at the lowest
    address at which each is, for each set of rights with which its table is reached."""
    format = space.graph.format
    starts = [(int(root.table.address), root.first_address(0), 1) for root in space.cpu.roots]
    if level < len(format.levels) - 1:
        starts = []
        for rows in rows_of(space.graph, pointers=True):
            if rows.level == level + 1:
                chosen = (rows.kind == RowKind.POINTER) & ~rows.window
                columns = (rows.physical[chosen], rows.virtual[chosen], rows.paths[chosen])
                starts += zip(*(column.tolist() for column in columns), strict=True)
    size = format.levels[level].size
    for table, base, paths in sorted(starts, key=itemgetter(1)):
        for index, raw in found.get(table, ()):
            slot = Slot(Table(format, Physical(table), level), index)
            where = Span.of(base + index * size, size)
            said = reserved_type(read(space.cpu, raw, level))
            yield Need("reserved-type", where, slot, paths, f"{raw:#x}: {said}")


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
