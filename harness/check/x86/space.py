"""A space of one's own in a guest's RAM, to build in and compare."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from harness.check.region import Region, astray
from harness.machine.engines import reads_as_amd
from harness.machine.ram import ARENA
from harness.machine.x86.guest import Guest
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory, Words
from harness.paging.space import Space, SpaceError, TableAllocator
from harness.paging.x86.cpu import Cpu

TABLES = Span.of(ARENA.stop, 32 << 20)
"""Where its tables come from; all RAM above is for frames."""


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


class GuestSpace(Space):
    """An empty space with 4 or 5 levels in the RAM of a guest.

    memory  that RAM
    cpu     the state under which it translates, with the features of the guest's processor

    A guest holds one such space at a time: a new one uses the same memory, unless it is made
    `beside` another, with tables and frames of their own.
    """

    memory: NotedMemory

    def __init__(self, guest: Guest, levels: int, beside: GuestSpace | None = None) -> None:
        memory = beside.memory if beside else NotedMemory(guest.ram.buffer)
        allocator = beside.allocator if beside else TableAllocator(memory, TABLES)
        # No table is there yet, so the root's address does not matter before it is allocated.
        format = self._cpu(guest, levels, 0).format
        self.cpu = self._cpu(guest, levels, allocator.allocate(format, levels - 1).address)
        super().__init__(memory, self.cpu.roots, allocator)
        self._beside, self._ram = beside, guest.ram
        self._regions: list[Region] = beside._regions if beside else []
        self._unused, self._end = TABLES.last + 1, guest.ram.size

    @staticmethod
    def _cpu(guest: Guest, levels: int, root: int) -> Cpu:
        cpu = Cpu.long_mode(
            levels,
            root,
            smep=guest.info.has("smep"),
            smap=guest.info.has("smap"),
            maxphyaddr=guest.info.physical_bits,
            page1gb=guest.info.has("gigabyte_pages"),
        )
        return replace(cpu, amd=reads_as_amd(guest.info))

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
        and frames; SpaceError where RAM has no more of them."""
        frames = self.frames(-(-size // self.format.levels[0].size))
        made = Region(self._ram, Span.of(int(frames[0]), size))
        self._regions.append(made)
        return made

    def check_regions(self) -> None:
        """Raises SpaceError where C gave a frame back to a region, or to one of a space beside,
        that was not out."""
        for region in self._regions:
            region.check()

    def astray(self, cpu: Cpu) -> str | None:
        """Which table of code that keeps its root in a region is none of its own, in a sentence;
        None where there is none."""
        return astray(self.memory, cpu.roots, self._regions, TABLES)
