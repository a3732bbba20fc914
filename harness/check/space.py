"""A space of one's own in a guest's RAM, to build in and compare; an architecture has its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Self

import numpy as np

from harness.check.region import FRAME, Region, astray
from harness.check.stores import format_of
from harness.machine.guest import StubGuest
from harness.paging.address import Physical, Span
from harness.paging.memory import BigEndianMemory, BufferMemory, Words
from harness.paging.space import Space, SpaceError, TableAllocator

TABLES = 32 << 20
"""Bytes of RAM, after what is the machine's own, for tables."""


class Note(NamedTuple):
    """Where words were stored, and what was there before; one lane each."""

    addresses: Words
    before: Words


class NotedMemory(BufferMemory):
    """Memory that notes what is stored, while there are `notes` to put it in."""

    notes: list[Note] | None = None

    def store(self, address: Physical, size: int, value: int) -> None:
        if self.notes is None:
            super().store(address, size, value)
        else:
            self.scatter(np.array([address], np.uint64), size, np.array([value], np.uint64))

    def scatter(self, addresses: Words, size: int, values: Words) -> None:
        if self.notes is not None:
            before, _ = self.gather(addresses, size)
            self.notes.append(Note(addresses, before))
        super().scatter(addresses, size, values)


class BigEndianNotedMemory(NotedMemory, BigEndianMemory):
    """The same for formats whose `byte_order` is big."""


class GuestSpace(Space):
    """An empty space in the RAM of a guest; an architecture says under which state.

    memory  that RAM
    cpu     the state under which it translates, with the features of the guest's processor
    tables  where its tables come from; all RAM above is for frames

    A guest holds one such space at a time: a new one uses the same memory, unless it is made
    `beside` another, with tables and frames of their own.
    """

    memory: NotedMemory
    cpu: Any

    def __init__(
        self,
        guest: StubGuest[Any, Any],
        cpu_of: Callable[[Physical], Any],
        beside: Self | None = None,
    ) -> None:
        """`cpu_of` gives the state whose root has its table at a physical address."""
        self.tables = Span.of(guest.image.arena.stop, TABLES)
        # No table is there yet, so the root's address does not matter before it is allocated.
        format = format_of(cpu_of(Physical(0)))
        made = NotedMemory if format.byte_order == "little" else BigEndianNotedMemory
        memory = beside.memory if beside else made(guest.ram.buffer, guest.ram.base)
        allocator = beside.allocator if beside else TableAllocator(memory, self.tables)
        self.cpu = cpu_of(allocator.allocate(format, len(format.levels) - 1).address)
        super().__init__(memory, self.cpu.roots, allocator)
        self._beside, self._ram = beside, guest.ram
        self._regions: list[Region] = beside._regions if beside else []
        self._unused, self._end = self.tables.last + 1, guest.ram.base + guest.ram.size

    def frames(self, count: int, level: int = 0) -> Words:
        """Physical addresses of `count` consecutive free frames of the page size of `level`.

        Raises SpaceError where RAM has no more of them.
        """
        if self._beside:
            return self._beside.frames(count, level)
        size = self.format.levels[level].size
        first = -(-self._unused // size) * size
        if first + count * size > self._end:
            free = f"{self._unused:#x}..{self._end - 1:#x}"
            raise SpaceError(f"RAM has no {count} free frames of {size:#x} bytes in {free}")
        self._unused = first + count * size
        return np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(size)

    def region(self, size: int) -> Region:
        """`size` bytes of RAM, a multiple of the smallest page, for code that keeps its own tables
        and frames; SpaceError where RAM has no more of them, or for less than one frame."""
        if size < FRAME:
            raise SpaceError(
                f"a region of {size} bytes has no room for its first frame: ask for {FRAME} or more"
            )
        frames = self.frames(-(-size // self.format.levels[0].size))
        made = Region(self._ram, Span.of(int(frames[0]), size))
        self._regions.append(made)
        return made

    def check_regions(self) -> None:
        """Raises SpaceError where C gave a frame back to a region, or to one of a space beside,
        that was not out."""
        for region in self._regions:
            region.check()

    def astray(self, cpu: Any, own: Collection[int] = ()) -> str | None:
        """Which table of code that keeps its root in a region is none of its own, in a sentence;
        None where there is none.  `own` are tables that the harness has there for itself."""
        return astray(self.memory, cpu.roots, self._regions, self.tables, own)
