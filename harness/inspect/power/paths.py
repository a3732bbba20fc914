"""Trees that lead to page tables of both sizes, those of 4K and those of 64K pages.

Each path is of one of two formats, as a directory entry above the page tables says.  What is asked
about one address is asked in the format of its path, and what is asked about all of them once in
each: in both, only the paths are there that are of that format, so that none is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cache, cached_property
from typing import Final

import numpy as np

from harness.inspect.trial import each
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.errors import TooManyTables
from harness.paging.format import Format, Level, Pattern
from harness.paging.memory import Memory, Words
from harness.paging.power.cpu import OTHER_SIZE, PAGE_BITS, Cpu
from harness.paging.power.cpu import is_of_other_size as is_other
from harness.paging.power.formats import LEAF, NEXT_SIZE, VALID
from harness.paging.processor import root_for
from harness.paging.walk import walk

MOST_TABLES: Final = 1 << 16
"""Tables of which it is looked at what they lead to: in larger trees both sizes are looked for."""

_ABOVE_PAGE_TABLES: Final = 1


def part(cpu: Cpu, memory: Memory, address: int) -> Cpu:
    """The state whose format is that of the path of an address."""
    root = root_for(cpu, address)
    if root is None:
        return cpu
    found = walk(memory, root, Virtual(address))
    if found.unbacked is None and is_other(found.steps[-1].entry, found.level):
        return replace(cpu, page_bits=sum(PAGE_BITS) - cpu.page_bits)
    return cpu


def parts(cpu: Cpu, memory: Memory) -> Sequence[Cpu]:
    """States that together read all that a state's trees lead to: one, where all page tables are of
    one size, else one for each size, whose format has the paths to such page tables alone; what
    leads to none is with those of 4K pages."""
    sizes = _sizes(cpu, memory)
    if len(sizes) < len(PAGE_BITS):
        return (replace(cpu, page_bits=min(sizes)),) if sizes else (cpu,)
    return split(cpu)


def split(cpu: Cpu) -> Sequence[Cpu]:
    """The states for both sizes, whatever is there."""
    own = {one.name: getattr(cpu, one.name) for one in fields(Cpu)}
    return tuple(_Alone(**{**own, "page_bits": size}) for size in PAGE_BITS)


class _Alone(Cpu):
    """A state that reads the paths to page tables of its size alone."""

    @cached_property
    def format(self) -> Format:
        return _alone(super().format)


def _sizes(cpu: Cpu, memory: Memory) -> set[int]:
    """log2 of the pages in the page tables that the trees of a state lead to."""
    usual = replace(cpu, page_bits=min(PAGE_BITS))
    formats = {size: replace(cpu, page_bits=size).format for size in PAGE_BITS}
    try:
        for pieces in bulk.layers(memory, usual.roots, MOST_TABLES):
            if pieces.level == _ABOVE_PAGE_TABLES:
                tables = pieces.tables
                return {
                    size for size, format in formats.items() if _leads_to(memory, format, tables)
                }
    except TooManyTables:
        return set(PAGE_BITS)
    return set()


def _leads_to(memory: Memory, format: Format, tables: Words) -> bool:
    """Whether an entry of some tables leads to a page table of a format."""
    level = _ABOVE_PAGE_TABLES
    slots = np.arange(format.levels[level].entries, dtype=np.uint64)
    for table in tables:
        places = table + slots * np.uint64(format.entry_bytes)
        words, backed = memory.gather(places, format.entry_bytes)
        if (bulk.kinds(format, level, words, backed) == bulk.POINTER).any():
            return True
    return False


@cache
def _alone(format: Format) -> Format:
    """The format that sets aside what belongs to paths of the other size; with that of 4K pages is
    what belongs to neither."""
    pointer = format.levels[_ABOVE_PAGE_TABLES].pointer
    assert pointer is not None
    smallest = format.levels[0].shift == min(PAGE_BITS)
    other = Pattern(VALID | LEAF | NEXT_SIZE, VALID | pointer.clean.value & NEXT_SIZE ^ OTHER_SIZE)

    def aside(number: int, level: Level) -> tuple[Pattern, ...]:
        if smallest:
            return (other,) if number == _ABOVE_PAGE_TABLES else ()
        return tuple(_all_but_pointers(level)) if level.pointer else ()

    levels = [replace(one, aside=aside(n, one)) for n, one in enumerate(format.levels)]
    return replace(format, name=f"{format.name} pages", levels=tuple(levels))


def _all_but_pointers(level: Level) -> Iterator[Pattern]:
    """The entries that lead to no table of the format."""
    assert level.pointer is not None
    yield Pattern(LEAF, LEAF)
    for bit in each(NEXT_SIZE):
        yield Pattern(bit, ~level.pointer.clean.value & bit)
