"""The smallest changes that would let an access pass: what they are.

The module `remedy` of each architecture finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from harness.paging.address import Physical, Span
from harness.paging.format import Format, Shape
from harness.paging.table import Slot


@dataclass(frozen=True)
class EntryChange:
    """An entry that is to hold other bits.

    slots  where it is: one slot, unless the walk comes through the same entry at several levels
    old    what it holds now
    new    what it must hold
    span   the addresses that the first of the slots spans
    flush  whether the TLB may go on using the old entry, so that its addresses must be flushed
    breaks whether it must be absent, and flushed, before it holds them (break-before-make)
    """

    slots: tuple[Slot, ...]
    old: int
    new: int
    span: Span
    flush: bool
    breaks: bool = False

    @property
    def slot(self) -> Slot:
        """The first of the slots."""
        return self.slots[0]

    @property
    def name(self) -> str:
        """What an entry of its level is called."""
        return self.slot.table.format.levels[self.slot.level].name


@dataclass(frozen=True)
class Setting:
    """A register that is to hold other bits.

    name      of the bit or bits, like CR0.WP
    register  the field of the CPU state
    """

    name: str
    register: str
    old: int
    new: int


class NewEntry(NamedTuple):
    """What an entry must hold that is to be made: `bits` besides the address of a page, or of the
    table that holds the next one."""

    level: int
    name: str
    bits: int
    page: bool


@dataclass(frozen=True)
class Missing:
    """An entry that is not there.

    slot     where; None of a register
    old      what it holds now
    entries  what must be made: in the slot itself, and in new tables below it
    """

    slot: Slot | None
    old: int
    entries: tuple[NewEntry, ...]


@dataclass(frozen=True)
class Remedy:
    """One change, in all its parts, that lets the access pass; without any one of them it does not.

    cost       how many bits it changes
    reaches    the physical address that the access then reaches; None where a page is made up, and
               where that is not known
    unread     the slot that the walk then needs and that was not read: what the access comes to is
               not known; else None
    in_memory  whether there is memory where it reaches; None where that is not known
    suspect    whether it changes an address: where the entry leads then may not be what was meant
    unprotects whether it switches off what protects pages other than this one
    """

    entries: tuple[EntryChange, ...]
    settings: tuple[Setting, ...]
    missing: Missing | None
    cost: int
    reaches: Physical | None = None
    unread: Slot | None = None
    in_memory: bool | None = None

    suspect: bool = False
    unprotects: bool = False

    def applied_to(self, cpu: Any) -> Any:
        """The CPU with its registers changed."""
        values = {one.register: one.new for one in self.settings}
        return replace(
            cpu, **{name: type(getattr(cpu, name))(value) for name, value in values.items()}
        )


def leading(format: Format) -> Shape:
    """The shape of the root's entries that lead on: of pointers, or, in a table of one level, which
    has none, of its pages."""
    top = format.levels[-1]
    return top.pointer or top.shapes[-1]


def free_tables(format: Format, used: Collection[int]) -> Iterator[Physical]:
    """Addresses for tables that are made up, from the end of what entries can lead to down, each
    with room for a table of any level; without those that are used."""
    size = max(map(format.table_bytes, range(len(format.levels))))
    for address in range(leading(format).address_of(-1) & -size, 0, -size):
        if address not in used:
            yield Physical(address)
