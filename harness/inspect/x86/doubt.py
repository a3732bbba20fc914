"""Why a root may be another than was meant, where its address was given and not built.

Where tables make no sense they are read as if CR3 were off by a table: by one of the walk, the
root's table then being of another level, or by one in memory.  A part of them is enough for that,
but for ENOUGH entries: a doubt is for people, and no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from harness.inspect.tour import lines, starts
from harness.inspect.x86.likely import LARGEST_WIDTH
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.bulk import POINTER, End
from harness.paging.entry import Absent
from harness.paging.memory import Memory, Words, distinct
from harness.paging.table import Table
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.paging.x86.formats import PS, XD


def doubt(cpu: Cpu, memory: Memory) -> str | None:
    """Why the root may be another than was meant, a sentence; None where it leads somewhere."""
    right = f"CR3 {cpu.cr3:#x} belongs to this memory"
    held = [line for start in starts(cpu) for line in lines(memory, start.table)]
    if held and all(line.raw is None for line in held):
        return f"{right}, though there is no memory where the root's table would be"
    if all(line.raw is None or isinstance(line.entry, Absent) for line in held):
        beside = "".join(_beside(cpu, memory))
        return f"{right}, though no entry of the root's table is present{beside}"
    if not cpu.long:
        return None
    found = _read(memory, Table(cpu.format, cpu.base, cpu.levels - 1))
    off = _too_low(cpu, memory, found) or _too_high(cpu, memory, found)
    return f"{right}, though {off}: CR3 may be off by a table" if off else None


@dataclass(frozen=True)
class _Found:
    """What is below a table, as far as it was read.

    tables  those that were read
    pages   how many entries lead to a page
    odd     how many make no sense: there is no memory where they lead, or there can be none; a
            table of which memory holds the beginning is not odd
    torn    whether there are such
    small   the pages' entries, where all pages are of the smallest size, else none
    frames  where those lead
    bare    whether a table at level 0 is empty, or one of its pages is at 0
    whole   whether nothing was left out
    """

    tables: Words
    pages: int
    odd: int
    torn: bool
    small: Words
    frames: Words
    bare: bool
    whole: bool

    @property
    def count(self) -> str:
        """How many pages, for people."""
        return f"{self.pages:,}{'' if self.whole else ' or more'}"


ENOUGH: Final = 4
"""Entries by which a root is doubted, no less: one or two may be what is asked about."""

_FEW: Final = 32
"""Tables that are read at each level."""

_NONE: Final = np.empty(0, np.uint64)


def _read(memory: Memory, root: Table) -> _Found:
    """What is below a table."""
    format, tables = root.format, np.array([root.address], np.uint64)
    found = _Found(_NONE, 0, 0, False, _NONE, _NONE, bare=False, whole=True)
    for level in range(root.level, -1, -1):
        slots = np.arange(format.levels[level].entries, dtype=np.uint64)
        layer = bulk.read_layer(memory, format, level, tables, slots)
        pages, frames = _pages(layer, root)
        misread, lost = _malformed(layer, root)
        far = np.count_nonzero(layer.kind == End.LEAF) - len(pages)
        ends = layer.index[layer.kind == End.UNBACKED]
        unbacked = np.count_nonzero(ends == 0)
        found = replace(
            found,
            tables=np.concatenate([found.tables, tables]),
            pages=found.pages + len(pages) + misread,
            odd=found.odd + int(far + unbacked) + lost,
            torn=found.torn or bool(unbacked < len(ends)),
        )
        pointer = format.levels[level].pointer
        if pointer is None:
            bare = bool((np.diff(layer.start) == 0).any() or (frames == 0).any())
            alone = found.pages == len(pages)
            small = (pages, frames) if alone else (_NONE, _NONE)
            return replace(found, small=small[0], frames=small[1], bare=bare)
        below = distinct(bulk.address_of(pointer, layer.raw[layer.kind == POINTER]))
        if not len(below):
            return found
        found = replace(found, whole=found.whole and len(below) <= _FEW)
        tables = below[:: -(-len(below) // _FEW)]
    return found


def _pages(layer: bulk.Layer, root: Table) -> tuple[Words, Words]:
    """The entries that lead to a page where one can be, and where they lead."""
    shape = root.format.levels[layer.level].leaf
    if shape is None:
        return _NONE, _NONE
    entries = layer.raw[layer.kind == End.LEAF]
    frames = bulk.address_of(shape, entries)
    near = frames < np.uint64(1 << LARGEST_WIDTH)
    return entries[near], frames[near]


def _malformed(layer: bulk.Layer, root: Table) -> tuple[int, int]:
    """How many malformed entries XD or PS alone make so, which says nothing of where they lead; and
    how many others there are."""
    wrong = layer.raw[layer.kind == End.MALFORMED]
    without = wrong & ~np.uint64(XD | PS)  # of a page table PS is PAT, which makes none malformed
    lost = np.count_nonzero(bulk.kinds(root.format, layer.level, without) == End.MALFORMED)
    return int(len(wrong) - lost), int(lost)


def _too_low(cpu: Cpu, memory: Memory, found: _Found) -> str | None:
    """That the root's table is one of the next level, by which what is found makes no sense and
    all that would be found does: pages were taken for tables."""
    lower = _read(memory, Table(cpu.format, cpu.base, cpu.levels - 2))
    if found.pages > found.odd or lower.odd or lower.pages < ENOUGH or 0 < found.odd < ENOUGH:
        return None
    if found.torn and not found.odd:  # what they map may be where memory ends
        return None
    what = "most entries of its tables make no sense" if found.odd else "its tables map nothing"
    name = cpu.format.levels[cpu.levels - 2].name
    return f"{what}; read as a table of {name}s, a level lower, the root's would map {lower.count}"


def _too_high(cpu: Cpu, memory: Memory, found: _Found) -> str | None:
    """That the root's table is one of a level more: what is found are small pages alone, by entries
    of large ones, or all of them are tables."""
    if cpu.mode is not Mode.LEVEL_4 or found.odd or not len(found.small):
        return None
    if np.isin(found.frames, found.tables).any():  # tables that map themselves
        return None
    above = replace(cpu, cr4=cpu.cr4 | Cr4.LA57)
    higher = _read(memory, Table(above.format, above.base, above.levels - 1))
    large = np.uint64(above.format.levels[1].size - 1)
    if higher.pages < ENOUGH:
        return None
    if (found.small & np.uint64(PS) != 0).all() and not (found.frames & large).any():
        what = "its tables map small pages alone, by the entries of large ones"
    elif not higher.bare and not higher.odd and len(higher.small):
        what = "all pages that its tables map are tables"
    else:
        return None
    name = above.format.levels[above.levels - 1].name
    return (
        f"{what}; read as a table of {name}s, a level higher (CR4.LA57, --cr4 {above.cr4:#x}), the"
        f" root's would map {higher.count}"
    )


def _beside(cpu: Cpu, memory: Memory) -> Iterator[str]:
    """The tables before and after the root's in memory, where they would map something."""
    if cpu.mode is Mode.PAE:
        return
    root = Table(cpu.format, cpu.base, cpu.levels - 1)
    for step, which in ((-1, "before"), (1, "after")):
        address = root.address + step * root.size
        if address < 0:
            continue
        found = _read(memory, replace(root, address=Physical(address)))
        if found.pages and not found.odd:
            yield f"; the table {which} it, at {address:#x}, would map {found.count}"
