"""One path of tables in a guest's memory, whose entries each case writes anew."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from harness.check.marks import mark
from harness.check.s390.marks import put_code
from harness.machine.ram import MIB
from harness.machine.s390.guest import Guest
from harness.machine.s390.processor import MachineInfo, State
from harness.paging.bulk import Bytes
from harness.paging.memory import BigEndianMemory, Mask, Words
from harness.paging.s390.access import Kind
from harness.paging.s390.cpu import PARTS, Asce, Cpu, Cr0, Mode

MODES: Final = tuple(mode.value for mode in Mode)
"""What the tables are called at which walks begin."""

ACCESSES: Final = {kind.name.lower(): kind for kind in Kind}
"""What a case does."""

TABLE: Final = 0x4000
"""Bytes from one table to the next: as large as the largest."""

FRAME: Final = 4096
CODE_STEP: Final = 16
"""From the code that can be fetched at one address to that at the next."""

NOWHERE: Final = range(32, 64)
"""Bits of physical addresses: with any of them the machine has no memory there."""

NO_LEVEL: Final = 255


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals.

    private   P of the ASCE
    quarters  how many quarters of its table are there
    iep, edat, lap  bits of control register 0: instruction-execution protection, enhanced DAT, and
              low-address protection
    """

    private: bool = False
    quarters: int = PARTS
    iep: bool = True
    edat: bool = False
    lap: bool = False

    def values(self) -> dict[str, int]:
        """What it has on its axes."""
        return {one.name.upper(): int(getattr(self, one.name)) for one in fields(self)}

    def lacks(self, info: MachineInfo) -> str | None:
        """Why no cases can be tried in it on a processor, as a reason; None if they can."""
        if self.edat and info.has("edat1"):
            return "the engine's processor has enhanced DAT, whose frames have no cases yet"
        return None

    def cpu(self, mode: str, root: int, info: MachineInfo) -> Cpu:
        """The state of a processor that has its root's table at a physical address."""
        cr0 = (Cr0.IEP if self.iep else 0) | (Cr0.EDAT if self.edat else 0)
        cr0 |= Cr0.LOW_ADDRESS_PROTECTION if self.lap else 0
        asce = Asce(Mode(mode), root, self.quarters, self.private)  # type: ignore[arg-type]
        return Cpu(asce.raw, int(cr0), info.has("edat1"), info.has("edat2"), info.has("iep"))


@dataclass(frozen=True)
class Lanes:
    """Cases as arrays, a lane each.

    words    uint64, shape (levels, n): the entries of the path, from level 0 up
    address  of the access
    kind     uint8, a `Kind`
    user     in problem state
    """

    words: Words
    address: Words
    kind: Bytes
    user: Mask

    def __len__(self) -> int:
        return len(self.address)

    @property
    def fetch(self) -> Mask:
        """Which are fetches."""
        fetches: Mask = self.kind == Kind.FETCH
        return fetches


class Chain:
    """The tables of one mode in a guest's memory, and what pages lead to.

    tables      physical, from level 0 up
    data, code  physical: a frame for each
    """

    def __init__(self, guest: Guest, mode: str) -> None:
        first = guest.free[0].start
        self.guest, self.mode = guest, mode
        self.levels = Mode(mode).level + 1
        self.tables = tuple(range(first, first + TABLE * self.levels, TABLE))
        self.data = first + 8 * MIB
        self.code = self.data + FRAME
        self.memory = BigEndianMemory(guest.ram.buffer, guest.ram.base)
        places = np.arange(self.code, self.code + FRAME, CODE_STEP, dtype=np.uint64)
        put_code(self.memory, places)

    @property
    def root(self) -> int:
        """Where the root's table is."""
        return self.tables[-1]

    def cpu(self, control: Control) -> Cpu:
        """The state of the guest's processor."""
        return control.cpu(self.mode, self.root, self.guest.info)

    def state(self, control: Control) -> State:
        """What the guest is asked to be."""
        cpu = self.cpu(control)
        return State(cpu.asce, cpu.cr0)

    def slots(self, made: Lanes) -> Words:
        """Where the entries of paths are, shape (levels, n); of one that a pointer leads away from,
        where it would be."""
        found = np.empty_like(made.words)
        for level, table in enumerate(self.tables):
            here = self.cpu(Control()).format.levels[level]
            base = np.full(len(made), table, np.uint64)
            if level == 0:  # of two page tables in 4 KiB, the one that the segment names
                base += made.words[1] & np.uint64(0x800)
            index = (made.address >> np.uint64(here.shift)) & np.uint64(here.entries - 1)
            found[level] = base + index * np.uint64(8)
        return found

    def reached(self, made: Lanes) -> Words:
        """The word, or the code, that an access is meant to reach."""
        there = np.where(made.fetch, np.uint64(self.code), np.uint64(self.data))
        found: Words = there | made.address & np.uint64(FRAME - 1)
        return found


def content(physical: Words) -> Words:
    """What a word at a physical address of the data holds, and r2 after the code at one."""
    return mark(physical)
