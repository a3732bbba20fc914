"""Spaces to test with: x86 at both level counts, RISC-V, and made-up formats that share nothing
with them but the rules of the library.

Their tables have 8, 4 and 16 entries and their pages 64, 512 and 2048 bytes.  The flags are the
highest bits of an entry, and one field lies elsewhere at every level.  A space has two root
tables, one above the other.  `UNEVEN` has entries of 8 bytes, and the right of users may keep
others out; `SHORT` has entries of 4 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.paging.address import Physical, Span, Virtual
from harness.paging.allocator import TableAllocator
from harness.paging.arm64.formats import stage1
from harness.paging.entry import Absent, Leaf
from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape
from harness.paging.memory import BigEndianMemory, BufferMemory, Words
from harness.paging.power.formats import radix
from harness.paging.riscv.formats import sv
from harness.paging.s390.formats import dat
from harness.paging.space import Space
from harness.paging.table import Root, Table
from harness.paging.walk import Walk, walk
from harness.paging.x86.formats import long_mode


def bits(high: int, low: int | None = None) -> int:
    return (1 << high + 1) - (1 << (high if low is None else low))


def _made_up(name: str, entry_bytes: int, divided: bool) -> Format:
    top = 8 * entry_bytes - 1
    present, write, user, still, page, accessed, dirty, lasting = (
        bits(top - flag) for flag in range(8)
    )
    beyond = Reserved(bits(top - 8, top - 9), "beyond physical addresses")

    def level(number: int, shift: int, index_bits: int) -> Level:
        low = (Reserved(bits(shift - 1, 6), "below the page"),) if shift > 6 else ()
        names = {"G": lasting, "COLOR": bits(number + 1, number)}
        told = present | page if number else present
        leaf = Shape(
            Pattern(told, told), False, (Field(bits(top - 10, shift)),), (beyond, *low), bits=names
        )
        pointer = Shape(
            Pattern(told, present), True, (Field(bits(top - 10, 4)),), (beyond,), bits=names
        )
        shapes = (pointer, leaf) if number else (leaf,)
        return Level(f"U{number}", shift, index_bits, shapes, (Pattern(present, 0),))

    return Format(
        name=name,
        entry_bytes=entry_bytes,
        levels=(level(0, 6, 3), level(1, 9, 2), level(2, 11, 4)),
        rights={"write": write, "user": user, "execute": still},
        denied=still,
        accessed=accessed,
        dirty=dirty,
        lasting=lasting,
        exclusive=user if divided else 0,
    )


UNEVEN = _made_up("uneven", 8, divided=True)
SHORT = _made_up("short", 4, divided=False)
FORMATS = {
    "x86-4": long_mode(4, 40, True, True),
    "x86-5": long_mode(5, 40, True, True),
    "uneven": UNEVEN,
    "short": SHORT,
}
RISCV = {
    "sv32": sv(32),
    "sv39": sv(39, svnapot=True),
    "sv48": sv(48, svpbmt=True, svvptc=True),
    "sv57": sv(57, svnapot=True, svpbmt=True, svrsw60t59b=True),
}
ARM64 = {
    "arm64 4K": stage1("4K", 37, 40),
    "arm64 LPA2": stage1("4K", 52, 52, wide=True, hardware_dirty=True),
}
"""Of the upper half, each with a root that is shorter than a page."""
POWER = {"POWER 4K": radix(12), "POWER 64K": radix(16)}
"""Each with two roots, those of quadrants 0 and 3."""
S390 = {
    "s390": dat(edat1=True, edat2=True, iep=True),
    "s390 without EDAT": dat(iep=True, levels=3),
}
"""Entries of zero are pages here; without EDAT all pages have one size."""
ROOM = Span(0, (1 << 20) - 1)
"""Where the tables of a test lie.  Frames are numbers only: no test reads what is in them."""


@dataclass
class World:
    """A memory with spaces in it."""

    format: Format
    memory: BufferMemory = field(init=False)

    def __post_init__(self) -> None:
        kind = BigEndianMemory if self.format.byte_order == "big" else BufferMemory
        self.memory = kind(np.zeros(ROOM.size, np.uint8))
        self.allocator = TableAllocator(self.memory, ROOM)
        self.space = self.new_space()

    def new_roots(self) -> tuple[Root, ...]:
        """Roots with new tables: one for both halves, or one for each."""
        level = len(self.format.levels) - 1
        top = self.format.levels[level]
        if self.format in ARM64.values():
            size = top.size * top.entries
            table = self.allocator.allocate(self.format, level)
            return (Root(table, Span.of((1 << 64) - size, size)),)
        if self.format in POWER.values():
            size = top.size * top.entries
            return tuple(
                Root(self.allocator.allocate(self.format, level), Span.of(quadrant << 62, size))
                for quadrant in (0, 3)
            )
        if self.format.name == dat().name:
            table = self.allocator.allocate(self.format, level)
            return (Root(table, Span.of(0, top.size * top.entries)),)
        if self.format not in (UNEVEN, SHORT):
            table = self.allocator.allocate(self.format, level)
            half, all = top.size * top.entries // 2, 1 << 8 * self.format.entry_bytes
            return Root(table, Span.of(0, half)), Root(table, Span.of(all - half, half))
        return tuple(
            Root(
                self.allocator.allocate(self.format, level), Span.of(first, top.size * top.entries)
            )
            for first in (0, top.size * top.entries)
        )

    def new_space(self) -> Space:
        return Space(self.memory, self.new_roots(), self.allocator)

    def size(self, level: int) -> int:
        return self.format.levels[level].size

    @property
    def page(self) -> int:
        """Bytes of the smallest page."""
        return self.size(0)

    @property
    def table_span(self) -> int:
        """Bytes that a level-0 table spans."""
        return self.size(1)

    def pages(self, first: int, count: int) -> Span:
        """`count` of the smallest pages."""
        return Span.of(first, count * self.page)

    def frames(self, count: int, level: int = 0, first: int = 8) -> Words:
        """Physical addresses of pages in a row."""
        size = self.size(level)
        return np.array([(first + n) * size for n in range(count)], np.uint64)

    def rights(self, *names: str) -> int:
        return self.format.granting(*names)

    def snapshot(self) -> tuple[bytes, object]:
        """Everything that a refused request must leave as it was."""
        return self.memory.octets.tobytes(), self.space.account()


def look(space: Space, address: int) -> Walk:
    """The walk of an address, by the definition."""
    return walk(space.memory, space.root_for(address), Virtual(address))


def physical(space: Space, address: int) -> Physical | None:
    return look(space, address).physical


def leaf_level(space: Space, address: int) -> int | None:
    found = look(space, address)
    return found.level if isinstance(found.steps[-1].entry, Leaf) else None


def empty(space: Space, address: int) -> bool:
    found = look(space, address)
    step = found.steps[-1]
    return isinstance(step.entry, Absent) and step.raw == space.format.levels[found.level].empty


def granted(space: Space, address: int) -> set[str]:
    return set(space.format.rights_of(look(space, address).granted))


def software_bit(format: Format) -> int:
    """A bit that a level-0 leaf may have and that the hardware has no name for."""
    named = format.rights_mask | format.accessed | format.dirty
    for mask in format.levels[0].bits.values():
        named |= mask
    leaf = format.levels[0].leaf
    assert leaf is not None
    named |= leaf.clean.mask | leaf.address_mask
    return next(1 << n for n in range(8 * format.entry_bytes) if not named >> n & 1)


def given(world: World) -> set[int]:
    """The addresses of all tables that the allocator gave and does not have back."""
    levels = range(len(world.format.levels))
    smallest = min(world.format.table_bytes(level) for level in levels)
    return {
        address
        for address in range(0, world.allocator.next, smallest)
        for level in levels
        if world.allocator.gave(Table(world.format, Physical(address), level))
    }


def tables_under(space: Space) -> list[Table]:
    """Every table that the roots lead to, found one entry at a time."""
    tables = list({root.table.address: root.table for root in space.roots}.values())
    for table in tables:
        for slot in table.slots():
            entry = space.format.decode(space.read(slot), table.level)
            if hasattr(entry, "table") and entry.table not in tables:
                tables.append(entry.table)
    return tables
