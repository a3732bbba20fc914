"""One path of tables in a guest's memory, whose entries each case writes anew.

Wherever a path ends, at a page or a block of whatever size, an address leads to itself: the lower
bits of the address tried are those of the memory that it reaches, so that one word serves all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.arm64.marks import code_mark, put_code
from harness.check.arm64.matrix.setting import WINDOW_BITS, WINDOW_TYPE, Control, Setting
from harness.machine.arm64.guest import Guest, State
from harness.machine.arm64.processor import SCTLR
from harness.machine.ram import MIB
from harness.paging.address import Physical
from harness.paging.arm64.access import Kind
from harness.paging.arm64.cpu import Cpu
from harness.paging.arm64.formats import GRANULES, stage1
from harness.paging.bulk import Bytes
from harness.paging.memory import BufferMemory, Mask, Words

ACCESSES: Final = {
    "read": Kind.READ,
    "write": Kind.WRITE,
    "fetch": Kind.FETCH,
    "swap": Kind.AMO,
    "ldtr": Kind.LDTR,
    "sttr": Kind.STTR,
}
"""What a case does, by name."""

REGION: Final = 1 << 16
"""Bytes of the data, and of the code, that pages lead to: a 64K page of each."""

CODE_STEP: Final = 16
"""From the code that can be fetched at one address to that at the next."""

NOWHERE: Final = (*range(32, 38), *range(40, 52))
"""Bits of physical addresses: with any of them in addition, the machine `virt` has neither memory
nor a device there.  Bits 38 and 39 lead to its windows for PCI."""

_ROOM: Final = 1 << 17
"""From one table to the next: a table of 64K, and as much again for a root that begins later."""


@dataclass(frozen=True)
class Lanes:
    """Cases as arrays, a lane each.

    words     uint64, shape (levels, n): the descriptors of the path, from level 0 up
    address   the pointer by which the access is made
    kind      uint8, a `Kind`
    el0       whether it is made at EL0
    pan, uao  the bits of PSTATE
    size      of data in bytes, 4 or 8, all of them in one aligned word of 8
    """

    words: Words
    address: Words
    kind: Bytes
    el0: Mask
    pan: Mask
    uao: Mask
    size: Bytes

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | npt.NDArray[np.intp]) -> Lanes:
        """The chosen lanes."""
        parts = {field.name: getattr(self, field.name)[..., chosen] for field in fields(self)}
        return Lanes(**parts)

    @property
    def fetch(self) -> Mask:
        """Which are fetches."""
        found: Mask = self.kind == Kind.FETCH
        return found

    @property
    def aligned(self) -> Mask:
        """Which addresses are multiples of the size."""
        found: Mask = self.address & (self.size.astype(np.uint64) - np.uint64(1)) == 0
        return found


class Chain:
    """The tables of one setting in a guest's memory, the window, and what pages lead to.

    tables       physical, from level 0 up
    window_roots physical, the roots of the half that has the window, by its granule
    data, code   physical: where each begins, REGION bytes long
    """

    def __init__(self, guest: Guest, setting: Setting) -> None:
        arena, levels = guest.image.table_arena, setting.levels
        self.guest, self.setting = guest, setting
        tables = [arena.start + _ROOM * level for level in range(levels)]
        if setting.root_bytes < REGION:  # the root as far down as its size, and TTBRx, allow
            tables[-1] += max(64, setting.root_bytes)
        self.tables = tuple(tables)
        rooms = range(arena.start + _ROOM * levels, arena.stop, _ROOM)
        self.window_roots = dict(zip(GRANULES, rooms, strict=False))
        self.data = -(-guest.free[0].start // REGION) * REGION + 16 * MIB
        self.code = self.data + REGION
        ram, base = guest.ram.buffer, guest.ram.base
        ram[arena.start - base : max(self.window_roots.values()) + _ROOM - base] = 0
        memory = BufferMemory(ram, base)
        for granule, table in self.window_roots.items():
            self._map_window(memory, granule, table)
        put_code(memory, np.arange(self.code, self.code + REGION, CODE_STEP, dtype=np.uint64))

    @property
    def root(self) -> int:
        """Where the root's table is."""
        return self.tables[-1]

    def cpu(self, control: Control) -> Cpu:
        """The state of the processor."""
        return self.setting.cpu(control, self.root, self.window_roots[control.beside])

    def state(self, control: Control) -> State:
        """What the guest is asked to be."""
        cpu, first = self.cpu(control), (1 << 64) - (1 << WINDOW_BITS)
        window = 0 if control.high else first
        return State(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr | SCTLR, window)

    def _map_window(self, memory: BufferMemory, granule: str, table: int) -> None:
        """Leads the first page of a half to the stub's page, by tables from its root's on."""
        format = stage1(granule, WINDOW_BITS, 48)
        for level in range(len(format.levels) - 1, 0, -1):
            below = table + format.table_bytes(0)
            memory.store(Physical(table), 8, format.pointer(Physical(below), level, 0))
            table = below
        granted = format.granting("user", "user execute", "supervisor execute")
        page = Physical(self.guest.image.user.start)
        bits = granted | format.accessed | WINDOW_TYPE << 2
        memory.store(Physical(table), 8, format.leaf(page, 0, bits))

    def slots(self, addresses: Words) -> Words:
        """Where the descriptors of paths are, shape (levels, n)."""
        levels = self.setting.format(Control(), self.cpu(Control())).levels
        return np.array(
            [
                np.uint64(table)
                + (addresses >> np.uint64(here.shift) & np.uint64(here.entries - 1)) * np.uint64(8)
                for table, here in zip(self.tables, levels, strict=True)
            ]
        )


def content(physical: Words) -> Words:
    """What the word at a physical address of the data holds.

    Multiplied by what is odd, a multiple of the size of a word remains one; inverted, its lowest
    bits are set, so that a read that loses them does not find the same.
    """
    return ~(physical * np.uint64(0x9E37_79B9_7F4A_7C15))


def token(physical: Words) -> Words:
    """What x0 holds after the code at a physical address has run."""
    return code_mark(physical)
