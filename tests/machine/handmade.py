"""Tables written by hand, so that the machine is tested without the library.

The words are the manual's (SDM 3A, 4.3 to 4.5): the tests that use them know what the processor
must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.machine.x86.guest import Guest, State

PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
NX = 1 << 63
PAGE = 4096

CR0 = 0x8001_0033  # PG, WP, NE, ET, MP, PE
CR0_WP = 1 << 16
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57 = 1 << 4, 1 << 5, 1 << 7, 1 << 12
CR4_PCIDE, CR4_SMEP, CR4_SMAP, CR4_PKE, CR4_PKS = (1 << bit for bit in (17, 20, 21, 22, 24))
CR4_CET, CR4_LASS = 1 << 23, 1 << 27
EFER_LME, EFER_LMA, EFER_NXE = 1 << 8, 1 << 10, 1 << 11
EFER = 0x901  # NXE, LME, SCE

WINDOW = 0xFFFF_FF00_0000_0000
"""Canonical with four and with five levels."""

MOVED = 0x0123_4567_89AB_CDEF
UNDEFINED = b"\x0f\x0b"  # ud2


@dataclass(frozen=True)
class Mode:
    """A paging mode: where the indices lie in an address (the bottom one first), and the rest.

    `window` is an address for the window, `address` one for the tests, in another entry of every
    table. `large` tells whether entries at level 1 can be pages.
    """

    name: str
    shifts: tuple[int, ...]
    entry_bytes: int
    cr4: int
    efer: int
    window: int
    address: int
    large: bool = True

    @property
    def levels(self) -> int:
        return len(self.shifts)

    @property
    def long(self) -> bool:
        return self.levels > 3

    @property
    def width(self) -> int:
        """Bytes of the widest access."""
        return 8 if self.long else 4

    @property
    def nx(self) -> int:
        """The bit that forbids execution, if entries have one."""
        return NX if self.entry_bytes == 8 else 0

    @property
    def fetched(self) -> int:
        """Bit 4 of the error code of a fetch, which tells it from a read if there is NXE."""
        return 0x10 if self.efer & EFER_NXE else 0

    def cut(self, value: int) -> int:
        """What of `value` the widest access takes."""
        return value % (1 << 8 * self.width)

    @property
    def code(self) -> bytes:
        """What a fetch executes: it loads MOVED and stops."""
        opcode = b"\x48\xb8" if self.long else b"\xb8"  # mov $, %rax; mov $, %eax
        return opcode + self.cut(MOVED).to_bytes(self.width, "little") + UNDEFINED

    @property
    def last_byte(self) -> tuple[bytes, int, int]:
        """What a fetch executes where a page ends, its vector, and how far RIP gets."""
        return (b"\x06", 6, 0) if self.long else (b"\xcc", 3, 1)  # push %es; int3

    def link(self, level: int) -> int:
        """The bits of an entry that leads to a table and denies nothing."""
        no_rights = self.name == "pae" and level == 2  # SDM 3A, table 4-8: those bits are reserved
        return PRESENT if no_rights else PRESENT | WRITE | USER

    def index(self, address: int, level: int) -> int:
        return address >> self.shifts[level] & PAGE // self.entry_bytes - 1


MODES = {
    mode.name: mode
    for mode in (
        Mode("32", (12, 22), 4, CR4_PSE, 0, 0x4000_0000, 0xB456_7000),
        Mode("32-small", (12, 22), 4, 0, 0, 0xC000_0000, 0x1456_7000, large=False),
        Mode("pae", (12, 21, 30), 8, CR4_PAE, EFER_NXE, 0x4000_0000, 0xB456_7000),
        Mode("4", (12, 21, 30, 39), 8, CR4_PAE, EFER, WINDOW, 0x7F12_3456_7000),
        Mode("5", (12, 21, 30, 39, 48), 8, CR4_PAE | CR4_LA57, EFER, WINDOW, 0x7F_1234_5678_9000),
    )
}


class HandMade:
    """Entry tables and tested tables of one mode in a guest's RAM.

    `state` runs batches under them; `frame()` and `table()` hand out zeroed pages; `map()` writes a
    path to a page; `slot()` answers where the entry of a level lies; indexing reads and writes a
    word, of the size of an entry; `job()` makes a job and `ask()` has it done. `frames` are the
    addresses of free frames, none twice in the life of a guest: TCG does not see that this process
    rewrites code, and a KVM that shadows tables does not see that it rewrites tables.
    """

    def __init__(
        self,
        guest: Guest,
        mode: Mode,
        frames: Iterator[int],
        *,
        window: int | None = None,
        nx: int | None = None,
    ) -> None:
        self.guest, self.mode = guest, mode
        self._frames = frames
        window = mode.window if window is None else window
        entry, self.root = self.table(), self.table()
        for physical, word in self._ram(mode.nx if nx is None else nx):
            self[self.slot(entry, physical, 1)] = word
            self[self.slot(entry, window + physical, 1)] = word
            self[self.slot(self.root, window + physical, 1)] = word
        self.state = State(
            cr0=CR0,
            cr3=self.root,
            cr4=mode.cr4 | CR4_PGE,
            efer=mode.efer,
            window=window,
            entry_cr3=entry,
        )

    @property
    def _octets(self) -> npt.NDArray[np.uint8]:
        return self.guest.ram.buffer

    @property
    def _words(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        return self._octets.view(f"<u{self.mode.entry_bytes}")

    def __getitem__(self, address: int) -> int:
        return int(self._words[address // self.mode.entry_bytes])

    def __setitem__(self, address: int, word: int) -> None:
        self._words[address // self.mode.entry_bytes] = word

    def _ram(self, nx: int) -> Iterator[tuple[int, int]]:
        """Each piece of RAM that an entry at level 1 maps, with that entry.

        The stub's piece is in small pages, by what they hold; large pages are data.
        """
        image, size = self.guest.image, 1 << self.mode.shifts[1]
        for first in range(0, self.guest.ram.size, size):
            if self.mode.large and image.text.start not in range(first, first + size):
                yield first, first | PRESENT | WRITE | LARGE | nx
                continue
            pages = np.arange(first, first + size, PAGE, dtype=self._words.dtype)
            rights = np.full_like(pages, PRESENT | WRITE | nx)
            rights[(pages >= image.text.start) & (pages < image.text.stop)] = PRESENT | DIRTY
            rights[(pages >= image.user.start) & (pages < image.user.stop)] = PRESENT | USER
            table = self.table()
            index = table // self.mode.entry_bytes
            self._words[index : index + len(pages)] = pages | rights
            yield first, table | PRESENT | WRITE | USER

    def table(self) -> int:
        return self.frame()

    def frame(self, content: bytes = b"") -> int:
        address = next(self._frames)
        page = self._octets[address : address + PAGE]
        page[:] = 0
        page[: len(content)] = np.frombuffer(content, dtype=np.uint8)
        return address

    def content(self, address: int, size: int) -> bytes:
        return self._octets[address : address + size].tobytes()

    def slot(self, root: int, address: int, level: int) -> int:
        """Where the entry of `address` at `level` lies; missing tables are made."""
        table = root
        for upper in range(self.mode.levels - 1, level, -1):
            slot = table + self.mode.entry_bytes * self.mode.index(address, upper)
            if not self[slot]:
                self[slot] = self.table() | self.mode.link(upper)
            table = self[slot] & 0x000F_FFFF_FFFF_F000
        return table + self.mode.entry_bytes * self.mode.index(address, level)

    def map(self, root: int, address: int, word: int, *, level: int = 0) -> int:
        """Let the entry of `address` at `level` be `word`, present; answers its place."""
        slot = self.slot(root, address, level)
        self[slot] = word | PRESENT
        return slot

    def job(self, access: str, address: int, **fields: int) -> npt.NDArray[np.void]:
        """One job: an access by its name, as wide as it can be; as supervisor, with INVLPG."""
        enums, jobs = self.guest.image.enums, self.guest.image.new_jobs(1)
        jobs["access"] = enums[f"ACCESS_{access.upper()}"]
        jobs["flush"] = enums["FLUSH_PAGE"]
        jobs["address"] = address
        jobs["size"] = self.mode.width
        for name, value in fields.items():
            jobs[name] = value
        return jobs

    def ask(self, job: npt.NDArray[np.void], **registers: Any) -> Any:
        """The result of one job, under `state` with these registers in place of its own."""
        return self.guest.run(replace(self.state, **registers), job)[0]
