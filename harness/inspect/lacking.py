"""The entries that an expectation asks for where nothing is mapped."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from harness.inspect import architecture
from harness.inspect.architecture import Types
from harness.inspect.remedy import Missing, NewEntry
from harness.paging.address import Span, Virtual
from harness.paging.entry import Absent
from harness.paging.memory import Memory
from harness.paging.processor import Cpu, root_for
from harness.paging.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.inspect.expect import Expect


def lacking(
    cpu: Cpu, memory: Memory, expect: Expect, address: Virtual, types: Types
) -> tuple[Missing, int | None] | None:
    """What must be made from the entry on that is absent on the way of an address, and the raw
    entry of the page; None for that where no address of a page is expected.

    types  the names of the memory types

    None where no entries meet the expectation, where it does not say who may do what, and where the
    absent entry is a register.
    """
    root = root_for(cpu, address)
    steps = walk(memory, root, address).steps if root is not None else ()
    if not steps or not isinstance(steps[-1].entry, Absent):
        return None
    slot, old = steps[-1].slot, steps[-1].raw
    level = _page_level(cpu, expect, address, slot.level)
    if level is None:
        return None
    for rights in _rights(cpu, expect):
        try:
            raw = _page(cpu, expect, address, level, rights, types)
            entries = [_table(cpu, rights, one) for one in range(slot.level, level, -1)]
        except ValueError:  # no entry can say that
            continue
        here = cpu.format.levels[level]
        leaf = here.page(_bytes(cpu, expect, level))
        assert leaf is not None
        entries.append(NewEntry(level, here.name, raw & ~leaf.address_mask, True))
        return Missing(slot, old, tuple(entries)), None if expect.physical is None else raw
    return None


def _rights(cpu: Cpu, expect: Expect) -> Iterator[tuple[str, ...]]:
    """The rights with which accesses are allowed and denied as expected, the fewest first."""
    known, asked, denied = cpu.format.rights, expect.allows(cpu), architecture.of(cpu).denied
    sets = [one for n in range(len(known) + 1) for one in combinations(known, n)]
    if expect.rights is not None:
        sets = [cpu.format.rights_of(expect.granted(cpu))]
    for chosen in sets if asked else ():
        granted = sum(known[name] for name in chosen)
        if all((denied(cpu, one, granted, None) is None) == asked[one] for one in asked):
            yield chosen


def _page_level(cpu: Cpu, expect: Expect, address: Virtual, highest: int) -> int | None:
    """The level of the page that is to be made, at an entry of level `highest` or below it."""
    levels = cpu.format.levels
    own, size = expect.span(cpu), expect.size or levels[0].size
    for level in reversed([one for one in cpu.format.page_levels() if one <= highest]):
        page = Span.of(address - address % levels[level].size, levels[level].size)
        fits = level == 0 or (page.size <= size and own.covers(page))
        meant = expect.page is not None and levels[level].page(expect.page) is not None
        if meant or (expect.page is None and fits):
            return level
    return None


def _bytes(cpu: Cpu, expect: Expect, level: int) -> int:
    """The size of that page."""
    return cpu.format.levels[level].size if expect.page is None else expect.page


def _page(
    cpu: Cpu,
    expect: Expect,
    address: Virtual,
    level: int,
    rights: tuple[str, ...],
    types: Types,
) -> int:
    """The entry of the page at an address; ValueError where none is as expected."""
    here, size, asked = cpu.format.levels[level], _bytes(cpu, expect, level), architecture.of(cpu)
    shape = here.page(size)
    if shape is None:
        raise ValueError(f"there are no pages of {size} bytes at level {level}")
    bits = cpu.format.granting_in(shape, *rights) | asked.marks(cpu, rights)
    if expect.type is not None:
        bits |= asked.memory_types.selecting(here.bits, types.index(expect.type))
    bits |= sum(here.bits[name] for name in expect.bits or ())
    base = address - address % size
    physical = 0 if expect.physical is None else expect.physical + base - expect.virtual
    return cpu.format.leaf(physical, level, bits, size)


def _table(cpu: Cpu, rights: tuple[str, ...], level: int) -> NewEntry:
    """The entry of a table above the page, which withholds none of its rights."""
    here = cpu.format.levels[level]
    assert here.pointer is not None
    # What entries give by a clear bit they give unless they are told otherwise.
    known, clear = cpu.format.rights, cpu.format.denied
    given = dict.fromkeys([*rights, *(name for name in known if known[name] & clear)])
    bits = cpu.format.granting_in(here.pointer, *given)
    return NewEntry(level, here.name, cpu.format.pointer(0, level, bits), False)
