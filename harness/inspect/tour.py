"""A tour through tables, a table at a time: where one is, what is there, and where one can go.

Nothing is read but the table that is looked at, so tables that lead back to themselves are walked
like any others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.paging.address import Span, Virtual
from harness.paging.entry import Absent, Entry, Pointer
from harness.paging.memory import Memory
from harness.paging.processor import Cpu, root_for
from harness.paging.table import Root, Slot, Table
from harness.paging.walk import walk


@dataclass(frozen=True)
class Place:
    """A table as it is reached on one way.

    roots  those that begin at the table, or at the one where the way began
    way    the slots that lead here, from the root's table down; empty in that table
    raws   what they hold
    """

    roots: tuple[Root, ...]
    table: Table
    way: tuple[Slot, ...] = ()
    raws: tuple[int, ...] = ()

    @property
    def granted(self) -> int:
        """The rights that the entries on the way give together."""
        granted = self.table.format.rights_mask
        for slot, raw in zip(self.way, self.raws, strict=True):
            granted &= self.table.format.granted(raw, slot.level)
        return granted

    def address(self, index: int) -> Virtual | None:
        """The first address that slot `index` spans here; None where it serves no address."""
        slots = (*self.way, self.table.slot(index))
        levels = self.table.format.levels
        for root in self.roots:
            first = root.first_address(slots[0].index)
            if first in root.span:
                below = sum(slot.index << levels[slot.level].shift for slot in slots[1:])
                return Virtual(first + below)
        return None

    @property
    def there(self) -> range:
        """The slots that the table has here, by the pointer to it or by its root."""
        if self.way:
            return self.table.format.slots_below(self.raws[-1], self.way[-1].level)
        own = [root.indices for root in self.roots]
        return range(min(one.start for one in own), max(one.stop for one in own))

    @property
    def span(self) -> Span | None:
        """The addresses that the table spans here; None in a root's table, which may serve
        several spans."""
        first = self.address(0) if self.way else None
        return None if first is None else Span.of(first, self.way[-1].size)

    def above(self) -> Place | None:
        """The table with the slot that leads here."""
        if not self.way:
            return None
        return Place(self.roots, self.way[-1].table, self.way[:-1], self.raws[:-1])


@dataclass(frozen=True, slots=True)
class Line:
    """One slot of a table; `raw` and `entry` are None where there is no memory, or no such slot.

    there  whether the table has the slot, by what the pointer to it says
    """

    slot: Slot
    raw: int | None
    entry: Entry | None
    there: bool = True


def starts(cpu: Cpu) -> tuple[Place, ...]:
    """The tables in which walks begin: one in most modes, none where nothing is translated."""
    tables = dict.fromkeys(root.table for root in cpu.roots)
    return tuple(
        Place(tuple(root for root in cpu.roots if root.table == table), table) for table in tables
    )


def lines(memory: Memory, table: Table, there: range | None = None) -> list[Line]:
    """Every slot of a table.

    there  those that are there, where it is not all; others are not read
    """
    format, slots = table.format, list(table.slots())
    shown = range(len(slots)) if there is None else there
    places = np.array([slots[index].address for index in shown], np.uint64)
    words, backed = memory.gather(places, format.entry_bytes)
    has = [True] * len(shown) if backed is None else backed.tolist()
    held = {
        index: raw
        for index, raw, is_there in zip(shown, words.tolist(), has, strict=True)
        if is_there
    }
    entry_of = cache(lambda raw: format.decode(raw, table.level))  # most of a table are alike
    return [
        Line(slot, held[slot.index], entry_of(held[slot.index]))
        if slot.index in held
        else Line(slot, None, None, slot.index in shown)
        for slot in slots
    ]


def nowhere(cpu: Cpu, memory: Memory, tables: str, entry: str = "entry") -> str | None:
    """Why no walk comes further than the tables in which walks begin, a clause about what `tables`
    and an `entry` of theirs are called; None where one may."""
    held = [line for start in starts(cpu) for line in lines(memory, start.table)]
    if all(line.raw is None for line in held):
        return f"there is no memory where {tables} would be"
    if all(line.raw is None or isinstance(line.entry, Absent) for line in held):
        return f"no {entry} of {tables} is valid"
    return None


def entered(place: Place, line: Line) -> Place | None:
    """The table that a line leads to; None where it leads to none."""
    if line.raw is None or not isinstance(line.entry, Pointer):
        return None
    return Place(place.roots, line.entry.table, (*place.way, line.slot), (*place.raws, line.raw))


def reached(cpu: Cpu, memory: Memory, address: Virtual) -> tuple[Place, int] | None:
    """The table where the walk of an address ends, and the slot in it; None where there is no
    root for the address."""
    root = root_for(cpu, address)
    if root is None:
        return None
    found = walk(memory, root, address)
    slots = [step.slot for step in found.steps]
    if found.unbacked is not None:
        slots.append(found.unbacked)
    *way, last = slots
    place = next(place for place in starts(cpu) if root in place.roots)
    raws = tuple(step.raw for step in found.steps[: len(way)])
    return Place(place.roots, last.table, tuple(way), raws), last.index


def next_held(lines: list[Line], index: int, step: int) -> int | None:
    """The next slot after `index`, or with step -1 before it, that is not absent; None where all
    are."""
    end = len(lines) if step > 0 else -1
    for number in range(index + step, end, step):
        if lines[number].there and not isinstance(lines[number].entry, Absent):
            return number
    return None
