"""Tables written by hand, so that the machine is tested without the library.

The words are the manual's (SDM 3A, 4.5): the tests that use them know what the processor must do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.machine.guest import Guest, State
from harness.machine.ram import RAM_UNIT

PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
NX = 1 << 63
PAGE = 4096

CR0 = 0x8001_0033  # PG, WP, NE, ET, MP, PE
CR0_WP = 1 << 16
CR4_PAE, CR4_PGE, CR4_LA57, CR4_SMEP, CR4_SMAP = 1 << 5, 1 << 7, 1 << 12, 1 << 20, 1 << 21
EFER = 0x901  # NXE, LME, SCE

WINDOW = 0xFFFF_FF00_0000_0000
"""Canonical with four and with five levels."""


class HandMade:
    """Entry tables and tested tables of one level count in a guest's RAM.

    `state` runs batches under them; `frame()` and `table()` hand out zeroed pages; `map()` writes a
    path to a page; `slot()` answers where the entry of a level lies. `frames` are the addresses of
    free frames, none twice in the life of a guest: TCG does not see that this process rewrites
    code, and a KVM that shadows tables does not see that it rewrites tables.
    """

    def __init__(
        self,
        guest: Guest,
        levels: int,
        frames: Iterator[int],
        *,
        window: int = WINDOW,
        nx: int = NX,
    ) -> None:
        self._guest = guest
        self.levels = levels
        self._frames = frames
        entry, tested = self.table(), self.table()
        for large in range(0, guest.ram.size, RAM_UNIT):
            self.map(entry, large, large | LARGE | WRITE, level=1)
        for large in range(0, guest.ram.size, RAM_UNIT):
            self.map(entry, window + large, large | LARGE | WRITE | nx, level=1)
        self._map_stub(entry, window, nx)
        self.root = tested
        top = 8 * self.index(window, levels - 1)
        self[tested + top] = self[entry + top]
        cr4 = CR4_PAE | CR4_PGE | (CR4_LA57 if levels == 5 else 0)
        self.state = State(cr0=CR0, cr3=tested, cr4=cr4, efer=EFER, window=window, entry_cr3=entry)

    def __getitem__(self, address: int) -> int:
        return int(self._guest.ram.buffer.view("<u8")[address // 8])

    def __setitem__(self, address: int, word: int) -> None:
        self._guest.ram.buffer.view("<u8")[address // 8] = np.uint64(word)

    def _map_stub(self, entry: int, window: int, nx: int) -> None:
        image = self._guest.image
        self[self.slot(entry, window, 1)] = 0
        for page in range(0, RAM_UNIT, PAGE):
            rights = WRITE | nx
            if page in image.text:
                rights = 0
            elif page in image.user:
                rights = USER
            self.map(entry, window + page, page | rights, level=0)

    def table(self) -> int:
        return self.frame()

    def frame(self, content: bytes = b"") -> int:
        address = next(self._frames)
        page = self._guest.ram.buffer[address : address + PAGE]
        page[:] = 0
        page[: len(content)] = np.frombuffer(content, dtype=np.uint8)
        return address

    @staticmethod
    def index(address: int, level: int) -> int:
        return address >> (12 + 9 * level) & 511

    def slot(self, root: int, address: int, level: int) -> int:
        """Where the entry of `address` at `level` lies; missing tables are made."""
        table = root
        for upper in range(self.levels - 1, level, -1):
            slot = table + 8 * self.index(address, upper)
            if not self[slot]:
                self[slot] = self.table() | PRESENT | WRITE | USER
            table = self[slot] & 0x000F_FFFF_FFFF_F000
        return table + 8 * self.index(address, level)

    def map(self, root: int, address: int, word: int, *, level: int = 0) -> int:
        """Let the entry of `address` at `level` be `word`, present; answers its place."""
        slot = self.slot(root, address, level)
        self[slot] = word | PRESENT
        return slot
