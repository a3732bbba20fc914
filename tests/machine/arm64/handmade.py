"""Tables of arm64 written by hand, so that the machine is tested without the library.

The words are the manual's (DDI 0487, chapter D8, "Translation table descriptor formats").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine.arm64.guest import Guest
from harness.machine.arm64.processor import State

BLOCK, TABLE, PAGE = 1, 3, 3
USER, READ_ONLY, AF, NG, DBM, PXN, UXN = (1 << bit for bit in (6, 7, 10, 11, 51, 53, 54))

EPD0, EPD1, TBI0, HA, HD, HPD0 = (1 << bit for bit in (7, 23, 37, 39, 40, 41))
TBID0, E0PD0, DS = (1 << bit for bit in (51, 55, 59))
T1_4K: Final = 16 << 16 | 2 << 30
"""What TCR_EL1 says of a half that is not used: its granule must be one."""
IPS_48, IPS_52 = 5 << 32, 6 << 32
WXN, EPAN = 1 << 19, 1 << 57

WINDOW, ADDRESS = 0x0800_0000, 0x3234_0000
"""In every form, under different entries of level 2, and multiples of the largest page."""

MOVED: Final = 0x1234_5678
CODE: Final = np.array([0xD28ACF00, 0xF2A24680, 0xD4000001], "<u4")
"""movz x0, #0x5678; movk x0, #0x1234, lsl #16; svc #0."""

TRANSLATION, SIZE, ACCESS, PERMISSION, ABORT, WALK_ABORT = 0x4, 0x0, 0x8, 0xC, 0x10, 0x14
"""Fault status codes ("ESR_EL1, ISS encoding for an exception from a Data Abort"), those of the
first three and of the last with the level in bits 1:0."""


@dataclass(frozen=True)
class Form:
    """A granule, TxSZ, and whether TCR_EL1.DS is set."""

    granule: str
    size: int
    wide: bool = False

    @property
    def page(self) -> int:
        """log2 of a page."""
        return {"4K": 12, "16K": 14, "64K": 16}[self.granule]

    @property
    def top(self) -> int:
        """The level of the first table, as the manual counts."""
        return 4 - -(-(64 - self.size - self.page) // (self.page - 3))

    @property
    def tcr(self) -> int:
        """TCR_EL1 with this for TTBR0_EL1, and nothing for TTBR1_EL1."""
        code = {"4K": 0, "64K": 1, "16K": 2}[self.granule]
        bits = DS if self.wide else 0
        largest = IPS_52 if self.wide or self.size < 16 else IPS_48
        return self.size | code << 14 | T1_4K | EPD1 | largest | bits

    def shift(self, level: int) -> int:
        """log2 of what an entry covers."""
        return self.page + (3 - level) * (self.page - 3)


FORMS: Final = {
    "4k": Form("4K", 16),
    "4k-39": Form("4K", 25),
    "4k-lpa2": Form("4K", 12, wide=True),
    "16k": Form("16K", 16),
    "16k-lpa2": Form("16K", 12, wide=True),
    "64k": Form("64K", 16),
    "64k-52": Form("64K", 12),
}


class HandMade:
    """Tables of one form in a guest's RAM, with the window.

    `state` runs batches under them; `map()` writes a path to a page and answers its slot; indexing
    reads and writes an entry; `ask()` has one access made.
    """

    def __init__(self, guest: Guest, form: Form, frames: Any) -> None:
        self.guest, self.form, self._frames = guest, form, frames
        self.root = self.frame()
        self.state = State(self.root, 0, form.tcr, window=WINDOW)
        self.map(WINDOW, guest.image.user.start, USER | READ_ONLY | AF)

    def under(self, *, tcr: int = 0, sctlr: int = 0) -> None:
        """Runs batches with these bits set, too."""
        state = self.state
        self.state = replace(state, tcr=state.tcr | tcr, sctlr=state.sctlr | sctlr)

    def frame(self) -> int:
        """Zeroed RAM that nothing uses, a page of the largest granule."""
        address: int = next(self._frames)
        self.words(address, "<u8")[:] = 0
        return address

    def words(self, address: int, dtype: str) -> npt.NDArray[Any]:
        """What lies at a physical address, to the end of its 64 KiB."""
        first = address - self.guest.ram.base
        return self.guest.ram.buffer[first : first + 0x10000 - first % 0x10000].view(dtype)

    def __getitem__(self, slot: int) -> int:
        return int(self.words(slot, "<u8")[0])

    def __setitem__(self, slot: int, word: int) -> None:
        self.words(slot, "<u8")[0] = word

    def slot(self, address: int, level: int = 3) -> int:
        """Where the entry of an address at a level lies; missing tables are made."""
        table = self.root
        for upper in range(self.form.top, level):
            slot = table + 8 * self._index(address, upper)
            if not self[slot]:
                self[slot] = self.frame() | TABLE
            table = self[slot] & ~TABLE
        return table + 8 * self._index(address, level)

    def _index(self, address: int, level: int) -> int:
        """Which entry of a table an address uses."""
        top = 64 - self.form.size if level == self.form.top else self.form.shift(level - 1)
        return address >> self.form.shift(level) & (1 << top - self.form.shift(level)) - 1

    def map(self, address: int, frame: int, bits: int, level: int = 3) -> int:
        """Lets an address lead to a frame; answers the slot of its leaf."""
        slot = self.slot(address, level)
        self[slot] = frame | bits | (PAGE if level == 3 else BLOCK)
        return slot

    def job(self, access: str, address: int = ADDRESS, **fields: int) -> npt.NDArray[np.void]:
        """One job: an access by its name, of 8 bytes, at EL1, all flushed before it."""
        enums, jobs = self.guest.image.enums, self.guest.image.new_jobs(1)
        prefix = "" if access.startswith("TRANSLATE") else "ACCESS_"
        jobs["access"] = enums[f"{prefix}{access}"]
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


def fault(result: Any) -> tuple[int, int, int]:
    """Exception class, fault status code and WnR of a result, which failed."""
    assert (result["completed"], result["data"]) == (0, 0)
    esr = int(result["esr"])
    return esr >> 26, esr & 0x3F, esr >> 6 & 1
