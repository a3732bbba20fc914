"""From an address to its walk, and all that a space maps.  This is the definition.

It reads like the rules and is written to be checked against them; `bulk` gives the same
answers fast.  Nothing here changes memory, and nothing here knows an architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Entry, Leaf, Pointer
from harness.paging.memory import Memory
from harness.paging.table import Root, Slot


class Step(NamedTuple):
    """One entry that a walk read."""

    slot: Slot
    raw: int
    entry: Entry


class Walk(NamedTuple):
    """Every step from the root to the answer.

    `unbacked` is the slot that the walk needed and that has no memory behind it, `outside` one
    that its table does not have, by what the pointer to it says; where both are None, the last
    step holds the answer and every step before it a Pointer.
    """

    address: Virtual
    root: Root
    steps: tuple[Step, ...]
    unbacked: Slot | None = None
    outside: Slot | None = None

    @property
    def leaf(self) -> Leaf | None:
        """The page that the address lies in, if the walk found one."""
        if self.unbacked is not None or self.outside is not None:
            return None
        entry = self.steps[-1].entry
        return entry if isinstance(entry, Leaf) else None

    @property
    def physical(self) -> Physical | None:
        """The physical address that the address translates to, if the walk found a page."""
        leaf = self.leaf
        if leaf is None:
            return None
        return Physical(leaf.address | self.address & leaf.size - 1)

    @property
    def level(self) -> int:
        """The level at which the walk ended."""
        return (self.unbacked or self.outside or self.steps[-1].slot).level

    @property
    def granted(self) -> int:
        """The rights that all entries of the walk give together."""
        format = self.root.table.format
        granted = format.rights_mask
        for step in self.steps:
            granted &= format.granted(step.raw, step.slot.level)
        return granted


def walk(memory: Memory, root: Root, address: Virtual) -> Walk:
    """Translates an address, which must lie in the root's span, keeping every step.

    At most one step a level: a pointer leads one level down, and level 0 has none.
    """
    if address not in root.span:
        raise ValueError(f"{address:#x} is not in the root's span {root.span}")
    format = root.table.format
    slot = root.table.slot_for(address)
    steps: list[Step] = []
    while True:
        raw = memory.load(slot.address, format.entry_bytes)
        if raw is None:
            return Walk(address, root, tuple(steps), unbacked=slot)
        level = slot.table.level
        entry = format.decode(raw, level)
        steps.append(Step(slot, raw, entry))
        if not isinstance(entry, Pointer):
            return Walk(address, root, tuple(steps))
        slot = entry.table.slot_for(address)
        if format.bounded and slot.index not in format.slots_below(raw, level):
            return Walk(address, root, tuple(steps), outside=slot)


def leaves(memory: Memory, roots: Iterable[Root]) -> Iterator[Walk]:
    """What a space holds, in order of address: the walk of the first address of every leaf and
    of every malformed entry, and of the first slot without memory of every table that has one.
    Only absence is left out, and what of a table is not there.

    A table that is reached in several ways is visited in each; `bulk.leaves` folds them.
    """
    for root in roots:
        yield from _held(memory, root, root.slots(), ())


def _held(
    memory: Memory, root: Root, slots: Iterable[tuple[Virtual, Slot]], above: tuple[Step, ...]
) -> Iterator[Walk]:
    format = root.table.format
    unbacked = False
    for first, slot in slots:
        raw = memory.load(slot.address, format.entry_bytes)
        if raw is None:
            if not unbacked:
                yield Walk(first, root, above, unbacked=slot)
            unbacked = True
            continue
        entry = format.decode(raw, slot.level)
        if isinstance(entry, Absent):
            continue
        steps = (*above, Step(slot, raw, entry))
        if isinstance(entry, Pointer):
            size = format.levels[entry.table.level].size
            there = format.slots_below(raw, slot.level)
            below = ((Virtual(first + i * size), Slot(entry.table, i)) for i in there)
            yield from _held(memory, root, below, steps)
        else:
            yield Walk(first, root, steps)
