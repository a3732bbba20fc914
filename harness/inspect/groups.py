"""Groups of entries that stand for one larger page: arm64's contiguous bit, RISC-V's Svnapot.

The machine may use any entry of a group for all of its addresses, so that all must say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.check.keys import in_units
from harness.inspect import decode
from harness.inspect.graph import Rows
from harness.paging.bits import address_mask, read_by_machine
from harness.paging.bulk import Counts, End, frames_of, kinds
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import Cpu
from harness.paging.table import Slot


@dataclass(frozen=True)
class Grouping:
    """How the entries of a level form groups.

    mark    the bit that makes a page one of a group
    count   how many entries a group has
    varies  the bits in which its entries may differ, besides their addresses
    """

    mark: int
    count: int
    varies: int

    def compared(self, format: Format, level: int) -> np.uint64:
        """The bits of a page in which the entries of a group must be alike."""
        alike = read_by_machine(format, level) & ~(address_mask(format, level) | self.varies)
        return np.uint64(alike)


def apart(format: Format, rows: Rows, pages: Mask, grouping: Grouping) -> Mask:
    """Which rows, of some pages of a format, are of a group that is not whole: fewer entries have
    the mark, or they do not say the same, or lead to memory that is not in order or not aligned."""
    found: Mask = pages & (rows.raw & np.uint64(grouping.mark) != 0)
    if not found.any():
        return found
    size = np.uint64(grouping.count * format.levels[rows.level].size)
    chosen = np.flatnonzero(found)
    virtual, physical = rows.virtual[chosen], rows.physical[chosen]
    said = rows.raw[chosen] & grouping.compared(format, rows.level)
    _, first, number, held = np.unique(
        virtual // size, return_index=True, return_inverse=True, return_counts=True
    )
    start = virtual[first] // size * size
    base = physical[first] - (virtual[first] - start)
    wrong = (said != said[first][number]) | (physical - base[number] != virtual - start[number])
    bad = np.zeros(len(first), np.bool_)
    np.logical_or.at(bad, number, wrong)
    bad |= (held != grouping.count) | (base % size != 0)
    found[chosen] = bad[number]
    return found


def what_is_wrong(cpu: Cpu, memory: Memory, slot: Slot, grouping: Grouping) -> str:
    """What is wrong with the group of which a slot is one, for people; entries are counted from 0
    in their group."""
    table = slot.table
    format, level, count = table.format, slot.level, grouping.count
    each, first = format.entry_bytes, slot.index // count * count
    places = table.slot(first).address + each * np.arange(count, dtype=np.uint64)
    raw, _ = memory.gather(places, each)
    ends = kinds(format, level, raw)
    page = ends == End.LEAF
    marked = page & (raw & np.uint64(grouping.mark) != 0)
    size = np.uint64(format.levels[level].size)
    offset = np.arange(count, dtype=np.uint64) * size
    frames = np.where(page, frames_of(format.levels[level], raw, offset), np.uint64(0))
    return "; ".join(
        [
            *_lacking(ends == End.ABSENT, "missing", "missing"),
            *_lacking(~page & (ends != End.ABSENT), "no page", "no pages"),
            *_lacking(page & ~marked, "without the bit", "without the bit"),
            *_differing(cpu, level, raw[marked], np.flatnonzero(marked), grouping),
            *_misplaced(frames - offset, frames, marked, count * int(size)),
        ]
    )


def _lacking(there: Mask, one: str, several: str) -> Iterator[str]:
    numbers = np.flatnonzero(there)
    if len(numbers):
        yield f"{_entries(numbers)} {f'is {one}' if len(numbers) == 1 else f'are {several}'}"


def _differing(
    cpu: Cpu, level: int, raw: Words, numbers: Counts, grouping: Grouping
) -> Iterator[str]:
    """What is not alike in entries that have these numbers, each with those that are fewer."""
    said = raw & grouping.compared(cpu.format, level)
    differ = int(np.bitwise_or.reduce(said) ^ np.bitwise_and.reduce(said))
    for part in decode.read(cpu, int(raw[0]), level).parts:
        if part.mask & differ:
            _, which = np.unique(said & np.uint64(part.mask), return_inverse=True)
            usual = np.bincount(which).argmax()
            yield f"{part.name} differs in {_entries(numbers[which != usual])}"


def _misplaced(base: Words, frames: Words, marked: Mask, size: int) -> Iterator[str]:
    """That memory is not in order, or not aligned; `base` is where the group would begin by each
    entry."""
    numbers = np.flatnonzero(marked)
    starts, which = np.unique(base[numbers], return_inverse=True)
    usual = np.bincount(which).argmax()
    strays = numbers[which != usual]
    if len(strays):
        yield f"{_entries(strays)} {'does' if len(strays) == 1 else 'do'} not lead on in order"
    elif int(starts[0]) % size:
        first = int(frames[numbers[0]])
        yield f"the memory at {first:#x}, of entry {numbers[0]}, is not aligned to {in_units(size)}"


def _entries(numbers: Counts) -> str:
    """Entries by their numbers: "entry 4", "entries 4 to 7 and 9"."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    runs = [(int(run[0]), int(run[-1])) for run in np.split(numbers, breaks)]
    said = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]
    if len(said) > 3:
        said = [*said[:3], f"{len(numbers)} in all"]
    listed = " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
    return f"{'entry' if len(numbers) == 1 else 'entries'} {listed}"
