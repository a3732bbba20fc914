"""The entries that an expectation asks for where nothing is mapped."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from harness.inspect.architecture import Types
from harness.inspect.remedy import Missing, NewEntry
from harness.inspect.x86 import memory_type
from harness.paging.address import Span, Virtual
from harness.paging.entry import Absent
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86.access import denied
from harness.paging.x86.cpu import Cpu

if TYPE_CHECKING:
    from harness.inspect.x86.expect import Expect


def lacking(
    cpu: Cpu, memory: Memory, expect: Expect, address: Virtual, types: Types
) -> tuple[Missing, int | None] | None:
    """What must be made from the entry on that is absent on the way of an address, and the raw
    entry of the page; None for that where no address of a page is expected.

    types  the memory types of the PAT

    None where no entries meet the expectation, where it does not say who may do what, and where the
    absent entry is a PDPTE, which is a register.
    """
    root, rights = root_for(cpu, address), _rights(cpu, expect)
    steps = walk(memory, root, address).steps if root is not None else ()
    if rights is None or not steps or not isinstance(steps[-1].entry, Absent):
        return None
    slot, old = steps[-1].slot, steps[-1].raw
    level = _page_level(cpu, expect, address, slot.level)
    if level is None:
        return None
    try:
        raw = _page(cpu, expect, address, level, rights, types)
        entries = [_table(cpu, rights, here) for here in range(slot.level, level, -1)]
    except ValueError:  # no entry can say that
        return None
    leaf = cpu.format.levels[level].leaf
    assert leaf is not None
    entries.append(NewEntry(level, cpu.format.levels[level].name, raw & ~leaf.address_mask, True))
    return Missing(slot, old, tuple(entries)), None if expect.physical is None else raw


def _rights(cpu: Cpu, expect: Expect) -> tuple[str, ...] | None:
    """The fewest rights with which accesses are allowed and denied as expected."""
    known, asked = cpu.format.rights, expect.allows(cpu)
    if not asked:
        return None
    names = [name for name in known if name != "read"]
    sets = [one for n in range(len(names) + 1) for one in combinations(names, n)]
    if expect.rights is not None:
        sets = [tuple(name for name in expect.rights if name != "read")]
    for chosen in sets:
        granted = sum(known[name] for name in ("read", *chosen) if name in known)
        if all((denied(cpu, one, granted) is None) == asked[one] for one in asked):
            return tuple(name for name in chosen if name in known)
    return None


def _page_level(cpu: Cpu, expect: Expect, address: Virtual, highest: int) -> int | None:
    """The level of the page that is to be made, at an entry of level `highest` or below it."""
    levels = cpu.format.levels
    own, size = expect.span(cpu), expect.size or levels[0].size
    for level in reversed([one for one in cpu.format.page_levels() if one <= highest]):
        page = Span.of(address - address % levels[level].size, levels[level].size)
        fits = level == 0 or (page.size <= size and own.covers(page))
        if page.size == expect.page or (expect.page is None and fits):
            return level
    return None


def _page(
    cpu: Cpu,
    expect: Expect,
    address: Virtual,
    level: int,
    rights: tuple[str, ...],
    types: Types,
) -> int:
    """The entry of the page at an address; ValueError where none is as expected."""
    here = cpu.format.levels[level]
    if here.leaf is None:
        raise ValueError(f"there are no pages at level {level}")
    bits = cpu.format.granting_in(here.leaf, *rights)
    if expect.type is not None:
        index = types.index(expect.type)
        bits |= sum(
            here.bits[name] for place, name in enumerate(memory_type.BITS) if index >> place & 1
        )
    bits |= sum(here.bits[name] for name in expect.bits or ())
    base = address - address % here.size
    physical = 0 if expect.physical is None else expect.physical + base - expect.virtual
    return cpu.format.leaf(physical, level, bits)


def _table(cpu: Cpu, rights: tuple[str, ...], level: int) -> NewEntry:
    """The entry of a table above the page, which withholds none of its rights."""
    here = cpu.format.levels[level]
    assert here.pointer is not None
    given = dict.fromkeys([*rights, *(name for name in cpu.format.rights if name == "execute")])
    bits = cpu.format.granting_in(here.pointer, *given)
    return NewEntry(level, here.name, cpu.format.pointer(0, level, bits), False)
