"""Tables of RISC-V written by hand, so that the machine is tested without the library.

The words are the manual's (privileged specification 1.13, "Sv32" to "Sv57").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import MENVCFG, State

V, R, W, X, U, G, A, D = (1 << number for number in range(8))
PAGE = 4096
LEVELS = {"sv32": 2, "sv39": 3, "sv48": 4, "sv57": 5}
CAUSES = {"FETCH": 12, "LOAD": 13, "LR": 13, "STORE": 15, "AMO": 15}
"""The page fault of each access (table "Supervisor cause register (scause) values")."""

WINDOW, ADDRESS = 0x0800_0000, 0x1234_5000
"""In every mode, and in another entry of every table but the highest ones."""

MOVED = 0x1234_5678
CODE = np.array([0x12345537, 0x67850513, 0x00000073], "<u4")
"""lui a0, 0x12345; addi a0, a0, 0x678; ecall."""


class HandMade:
    """Tables of one mode in a guest's RAM, with the window.

    `state` runs batches under them; `map()` writes a path to a page and answers its slot; indexing
    reads and writes an entry; `ask()` has one access made.
    """

    def __init__(self, guest: Guest, mode: str, frames: Any) -> None:
        self.guest, self.levels, self._frames = guest, LEVELS[mode], frames
        self.width = 4 if mode == "sv32" else 8
        self.bits = 10 if mode == "sv32" else 9
        self.root = self.frame()
        # Where the processor can fault instead, A and D are to be set.
        self.state = State.of(mode, self.root, WINDOW, menvcfg=guest.info.menvcfg & MENVCFG["ADUE"])
        code = guest.image.user.start
        self.map(WINDOW, code, R | X | A | D)
        self.map(WINDOW + PAGE, code, R | X | A | D | U)

    def frame(self) -> int:
        """A zeroed page of RAM that nothing uses."""
        address: int = next(self._frames)
        self._octets[address - self.guest.ram.base :][:PAGE] = 0
        return address

    @property
    def _octets(self) -> npt.NDArray[np.uint8]:
        return self.guest.ram.buffer

    def words(self, address: int, dtype: str) -> npt.NDArray[Any]:
        """What lies at a physical address, to the end of its page."""
        first = address - self.guest.ram.base
        return self._octets[first : first + PAGE - first % PAGE].view(dtype)

    def content(self, address: int, size: int) -> bytes:
        """What lies at a physical address."""
        return self._octets[address - self.guest.ram.base :][:size].tobytes()

    def __getitem__(self, slot: int) -> int:
        return int(self.words(slot, f"<u{self.width}")[0])

    def __setitem__(self, slot: int, word: int) -> None:
        self.words(slot, f"<u{self.width}")[0] = word

    def slot(self, address: int, level: int = 0) -> int:
        """Where the entry of an address at a level lies; missing tables are made."""
        table = self.root
        for upper in range(self.levels - 1, level, -1):
            slot = table + self.width * self.index(address, upper)
            if not self[slot]:
                self[slot] = self.frame() >> 2 | V
            table = (self[slot] >> 10) * PAGE
        return table + self.width * self.index(address, level)

    def index(self, address: int, level: int) -> int:
        """Which entry of a table an address uses."""
        return address >> 12 + self.bits * level & (1 << self.bits) - 1

    def map(self, address: int, frame: int, rights: int, level: int = 0) -> int:
        """Lets an address lead to a frame; answers the slot of its leaf."""
        slot = self.slot(address, level)
        self[slot] = frame >> 2 | V | rights
        return slot

    def job(self, access: str, address: int = ADDRESS, **fields: int) -> npt.NDArray[np.void]:
        """One job: an access by its name, as wide as it can be; as supervisor, with SFENCE.VMA."""
        enums, jobs = self.guest.image.enums, self.guest.image.new_jobs(1)
        jobs["access"] = enums[f"ACCESS_{access}"]
        jobs["flush"] = enums["FLUSH_ALL"]
        jobs["address"] = address
        jobs["size"] = self.width
        for name, value in fields.items():
            jobs[name] = value
        return jobs

    def ask(self, access: str, address: int = ADDRESS, *, watch: int = 0, **fields: int) -> Any:
        """The result of one access; `watch` is a slot whose entry is read after it."""
        job = self.job(access, address, **fields)
        if watch:
            job["watched"], job["where"][0, 0] = 1, watch
        return self.guest.run(self.state, job)[0]
