"""A space of one's own in the RAM of a POWER guest, to build in and compare."""

from __future__ import annotations

from harness.check import space
from harness.machine.power.guest import Guest
from harness.paging.address import Physical, Virtual
from harness.paging.flush import Flush
from harness.paging.memory import Words
from harness.paging.power.cpu import Cpu


class GuestSpace(space.GuestSpace):
    """An empty space of a process, in quadrant 0, with smallest pages of 1 << page_bits bytes;
    process 0 has no tree."""

    cpu: Cpu

    def __init__(self, guest: Guest, page_bits: int, beside: GuestSpace | None = None) -> None:
        """Raises ValueError for pages of another size than 12 or 16 bits."""

        def cpu_of(root: int) -> Cpu:
            return Cpu.of(root, page_bits=page_bits, sets_marks=guest.info.sets_marks)

        super().__init__(guest, cpu_of, beside)


class MarkedSpace(GuestSpace):
    """The same whose pages are referenced and changed from the first, so that they can be used
    where the processor leaves R and C to software."""

    def map(
        self,
        first: Virtual,
        frames: Words,
        level: int,
        bits: int,
        table_bits: int | None = None,
        size: int | None = None,
    ) -> Flush:
        return super().map(first, frames, level, bits | self._marks, table_bits, size)

    def map_range(
        self,
        first: Virtual,
        frame: Physical,
        size: int,
        bits: int,
        table_bits: int | None = None,
    ) -> Flush:
        return super().map_range(first, frame, size, bits | self._marks, table_bits)

    @property
    def _marks(self) -> int:
        return self.format.accessed | self.format.dirty
