"""Memory as a program leaves it that makes page tables: an image from 32 MiB on, or elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86.cpu import Cpu

BEGIN = 32 << 20
TABLES = 1 << 20
TEXT, STACK, IMAGE = 0x40_0000, 0x7F12_3456_7000, 0xFFFF_FFFF_8000_0000

MEANT = f"""
strict = true

[[expect]]
virtual = {TEXT:#x}
count = 16
rights = "ur-x"
physical = 0x500_0000

[[expect]]
virtual = {STACK:#x}
count = 8
rights = "urw-"
physical = 0x510_0000

[[expect]]
virtual = {IMAGE:#x}
size = "2M"
count = 4
rights = "-rwx"
page = "2M"
bits = ["G"]
"""


class Program:
    """Tables whose root is at `begin`, for a user's text and stack, and a kernel's image."""

    def __init__(
        self, levels: int = 4, stack: int = STACK, text: str = "ux", begin: int = BEGIN
    ) -> None:
        self.memory = BufferMemory(np.zeros(TABLES, np.uint8), begin)
        self.cpu = Cpu.long_mode(levels, begin)
        allocator = TableAllocator(self.memory, Span.of(begin, TABLES))
        allocator.allocate(self.cpu.format, levels - 1)
        self.space = Space(self.memory, self.cpu.roots, allocator)
        self._map(TEXT, 0x500_0000, 16, text)
        self._map(stack, 0x510_0000, 8, "uw")
        self._map(IMAGE, 0x400_0000, 4, "wx", level=1, bits=1 << 8)

    def _map(
        self, at: int, to: int, count: int, letters: str, level: int = 0, bits: int = 0
    ) -> None:
        format = self.cpu.format
        names = {"u": "user", "w": "write", "x": "execute"}
        bits |= format.granting(*(names[one] for one in letters))
        step = np.uint64(format.levels[level].size)
        frames = np.uint64(to) + np.arange(count, dtype=np.uint64) * step
        self.space.map(Virtual(at), frames, level, bits)

    def write(self, address: int, level: int, raw: int) -> None:
        """Puts a raw entry into the slot of an address."""
        self.space.write(self.space.slot(Virtual(address), level), raw)

    def save(self, path: Path) -> tuple[object, ...]:
        """Writes the memory; the options that name it."""
        path.write_bytes(self.memory.octets.tobytes())
        registers = ("--cr4", "0x10a0") if self.cpu.levels == 5 else ()
        begin = hex(self.cpu.cr3)
        return "--ram", f"{path.name}@{begin}", "--cr3", begin, *registers
