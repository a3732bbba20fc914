"""Radix trees written by hand, so that the machine is tested without the library.

The words are the manual's (Power ISA 3.0, Book III, "Radix Tree Translation").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine.power.guest import Guest
from harness.machine.power.processor import State

V, L, R, C = 1 << 63, 1 << 62, 1 << 8, 1 << 7
PRIVILEGED, READ, WRITE, EXECUTE = 8, 4, 2, 1
GUARDED: Final = 2 << 4
TREE: Final = 0x4000_0000_0000_00AD
"""A process table entry for 52 bits and a root of 13: what Linux's radix__get_tree_size() gives."""

WINDOW, ADDRESS = 3 << 62 | 0x0800_0000, 0x0001_2345_6234_0000

NOT_PRESENT, NO_EXECUTE, PROTECTION, STORE, UNSUPPORTED = (
    1 << 30,
    1 << 28,
    1 << 27,
    1 << 25,
    1 << 19,
)
NOT_RECORDED: Final = 1 << 18

MOVED: Final = 0x1234_5678
CODE: Final = np.array([0x3C60_1234, 0x6063_5678, 0x4400_0002], ">u4")
"""lis r3, 0x1234; ori r3, r3, 0x5678; sc."""

SIZES: Final = {12: (13, 9, 9, 9), 16: (13, 9, 9, 5)}
"""log2 of the tables' entries from the root down, by log2 of the smallest page."""


class HandMade:
    """A tree in a guest's RAM, for the process, and one for process 0, with the window.

    `state` runs batches under them; `map()` writes a path to a page and answers its slot; indexing
    reads and writes an entry; `ask()` has one access made.
    """

    def __init__(self, guest: Guest, page_bits: int, frames: Iterator[int]) -> None:
        self.guest, self.page_bits, self._frames = guest, page_bits, frames
        self.root, self.kernel = self.frame(), self.frame()
        self.state = State(TREE | self.root, TREE | self.kernel, window=WINDOW)
        self.map(WINDOW, guest.image.user.start, EXECUTE | R)

    def under(self, **changes: Any) -> None:
        """Runs batches with these parts of the state."""
        self.state = replace(self.state, **changes)

    def frame(self) -> int:
        """Zeroed RAM that nothing uses, as large as a root."""
        address = next(self._frames)
        self.words(address, ">u8")[:] = 0
        return address

    def words(self, address: int, dtype: str) -> npt.NDArray[Any]:
        """What lies at a real address, to the end of its 64 KiB."""
        return self.guest.ram.buffer[address : (address | 0xFFFF) + 1].view(dtype)

    def __getitem__(self, slot: int) -> int:
        return int(self.words(slot, ">u8")[0])

    def __setitem__(self, slot: int, word: int) -> None:
        self.words(slot, ">u8")[0] = word

    def slots(self, address: int, depth: int = 4) -> list[int]:
        """Where the entries of an address lie, from the root down; missing tables are made."""
        table, left, found = self.kernel if address >> 63 else self.root, 52, []
        sizes = SIZES[self.page_bits]
        for number, size in enumerate(sizes[:depth]):
            left -= size
            found.append(table + 8 * (address >> left & (1 << size) - 1))
            if number < depth - 1:
                if not self[found[-1]]:
                    self[found[-1]] = V | self.frame() | sizes[number + 1]
                table = self[found[-1]] & 0x0FFF_FFFF_FFFF_FF00
        return found

    def map(self, address: int, frame: int, bits: int, depth: int = 4) -> int:
        """Lets an address lead to a frame; answers the slot of its leaf."""
        slot = self.slots(address, depth)[-1]
        self[slot] = V | L | frame | bits
        return slot

    def job(self, access: str, address: int = ADDRESS, **fields: int) -> npt.NDArray[np.void]:
        """One job: an access by its name, of 8 bytes, privileged, all flushed before it."""
        enums, jobs = self.guest.image.enums, self.guest.image.new_jobs(1)
        jobs["access"] = enums[f"ACCESS_{access}"]
        jobs["flush"] = enums["FLUSH_ALL"]
        jobs["address"] = address
        jobs["size"] = 8
        for name, value in fields.items():
            jobs[name] = value
        return jobs

    def ask(self, access: str, address: int = ADDRESS, *, watch: int = 0, **fields: int) -> Any:
        """The result of one access; `watch` is a slot whose entry is read after it."""
        job = self.job(access, address, **fields)
        if watch:
            job["watched"], job["where"][0, 0] = 1, watch
        return self.guest.run(self.state, job)[0]


def fault(result: Any) -> tuple[int, int]:
    """The vector of a result, which failed, and DSISR or what SRR1 says of a fetch."""
    assert (result["completed"], result["data"]) == (0, 0)
    vector = int(result["vector"])
    if vector in (0x400, 0x480):
        return vector, int(result["srr1"]) & 0x780F_0000
    return vector, int(result["dsisr"])
