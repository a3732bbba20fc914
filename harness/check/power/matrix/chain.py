"""One path of tables in a guest's memory, whose entries each case writes anew.

Wherever a path ends, at a page of whatever size, an address leads to itself: the lower bits of the
address tried are those of the memory that it reaches, so that one word serves pages of all sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.power.guest import Guest
from harness.machine.power.processor import State
from harness.machine.ram import MIB
from harness.paging.address import Physical
from harness.paging.bulk import Bytes
from harness.paging.format import Format
from harness.paging.memory import BigEndianMemory, Mask, Words
from harness.paging.power.cpu import Cpu, root_descriptor
from harness.paging.power.formats import LEAF, NEXT_SIZE

ACCESSES: Final = ("read", "write", "fetch")
"""What a case does, in the order of `Kind`."""

MODES: Final[Mapping[str, int]] = {"4k": 12, "64k": 16}
"""log2 of the smallest page, by the names of modes."""

TREES: Final[Mapping[str, int]] = {
    "good": 0,
    **{f"RPDS^{bit}": 1 << bit for bit in range(5)},
    **{f"RTS^{bit}": 1 << bit for bit in (5, 6, 7, 61, 62)},
    "ignored": 1 << 63 | 1 << 60 | 0x8F00,
    "none": 0,
}
"""The bits by which what the process table says of a tree differs from what is good; `none` for a
process that the table has no entry for."""

REGION: Final = 1 << 16
"""Bytes of the data, and of the code, that pages lead to: a 64K page of each."""

CODE_BYTES: Final = 16
"""From the code that can be fetched at one address to that at the next."""

TABLE: Final = 4096
ROOT: Final = 65536
_WINDOW_INDEX: Final = 170
"""The entry of its root by which the window is reached."""


@dataclass(frozen=True)
class Control:
    """The control state that cases are tried under: each field an axis, its name in capitals.

    amr   key 0 of AMR: 1 denies loads, 2 stores
    iamr  key 0 of IAMR: 1 denies fetches
    tree  one of `TREES`
    """

    amr: int = 0
    iamr: int = 0
    tree: str = "good"

    def values(self) -> dict[str, int | str]:
        """What it has on its axes."""
        return {"AMR": self.amr, "IAMR": self.iamr, "TREE": self.tree}


@dataclass(frozen=True)
class Lanes:
    """Cases as arrays, a lane each.

    words    uint64, shape (levels, n): the entries of the path, from level 0 up
    address  by which the access is made
    kind     uint8, a `Kind`
    user     in problem state
    """

    words: Words
    address: Words
    kind: Bytes
    user: Mask

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | npt.NDArray[np.intp]) -> Lanes:
        """The chosen lanes."""
        parts = {field.name: getattr(self, field.name)[..., chosen] for field in fields(self)}
        return Lanes(**parts)


class Chain:
    """The tree of one quadrant in a guest's memory, the window in the other, and what pages lead
    to.

    tables      physical, from level 0 up
    data, code  physical: where each begins, REGION bytes long
    window      the address of the stub's page
    """

    def __init__(self, guest: Guest, mode: str, quadrant: int) -> None:
        self.guest, self.mode, self.quadrant = guest, mode, quadrant
        self.format: Format = Cpu.of(0, page_bits=MODES[mode]).format
        first = guest.image.table_arena.start
        self._other = first + ROOT
        small = first + 2 * ROOT
        self.tables = (*(small + TABLE * level for level in range(3)), first)
        self.data = guest.free[0].start + 16 * MIB
        self.code = self.data + REGION
        guest.ram.buffer[first : small + 6 * TABLE] = 0
        self.window = (3 - quadrant) << 62 | _WINDOW_INDEX << 39
        self._map_window(small + 3 * TABLE)
        guest.ram.buffer[self.code :][:REGION] = code_in(self.code).view(np.uint8)

    def cpu(self, control: Control) -> Cpu:
        """The processor under a control state."""
        tested = root_descriptor(self.tables[-1]) ^ TREES[control.tree]
        other = root_descriptor(self._other)
        user, kernel = (tested, other) if self.quadrant == 0 else (other, tested)
        return Cpu(
            None if control.tree == "none" else user,
            kernel,
            amr=control.amr << 62,
            iamr=control.iamr << 62,
            page_bits=MODES[self.mode],
            sets_marks=self.guest.info.sets_marks,
        )

    def state(self, cpu: Cpu) -> State:
        """What the guest is asked to be."""
        return State(cpu.quadrant0, cpu.quadrant3, cpu.amr, cpu.iamr, self.window)

    def _map_window(self, first: int) -> None:
        """Leads the window to the stub's page, by tables of its own from `first` on."""
        memory, format = BigEndianMemory(self.guest.ram.buffer), self.format
        table = self._other
        for level in (3, 2, 1):
            below = first + TABLE * (level - 1)
            at = table + 8 * format.levels[level].index(self.window)
            memory.store(Physical(at), 8, format.pointer(below, level, 0))
            table = below
        page = format.leaf(
            self.guest.image.user.start, 0, format.granting("user", "execute") | format.accessed
        )
        memory.store(Physical(table), 8, page)

    def slots(self, made: Lanes) -> Words:
        """Where the entries of paths are, shape (levels, n): at level 0 by the size of the table
        that the entry above has, and, of one of 64K pages, by the last bits of its address."""
        found = [
            np.uint64(table) + np.uint64(8) * _index(made.address, here.shift, here.index_bits)
            for table, here in zip(self.tables, self.format.levels, strict=True)
        ]
        above, lowest = made.words[1], np.uint64(self.tables[0])
        small = np.uint64(8) * _index(made.address, 12, 9)
        large = (above & np.uint64(0xF00)) + np.uint64(8) * _index(made.address, 16, 5)
        for bits, place in ((9, small), (5, large)):
            of_it = above & np.uint64(LEAF | NEXT_SIZE) == np.uint64(bits)
            found[0] = np.where(of_it, lowest + place, found[0])
        return np.array(found)


def _index(addresses: Words, shift: int, index_bits: int) -> Words:
    found: Words = addresses >> np.uint64(shift) & np.uint64((1 << index_bits) - 1)
    return found


def content(physical: Words) -> Words:
    """What a word at a physical address of the data holds.

    Multiplied by what is odd, a multiple of the size of a word remains one; inverted, its lowest
    bits are set, so that a read that loses them does not find the same.
    """
    return ~(physical * np.uint64(0x9E37_79B9_7F4A_7C15))


def token(physical: Words) -> Words:
    """What r3 holds after the code at a physical address has run."""
    return np.uint64(0x1000_0000) | physical >> np.uint64(4) & np.uint64(0xFF_FFFF)


def code_in(first: int) -> npt.NDArray[np.uint32]:
    """The code of a region that begins at `first`: lis r3; ori r3, r3; sc, at each CODE_BYTES."""
    value = token(np.arange(first, first + REGION, CODE_BYTES, dtype=np.uint64)).astype(np.uint32)
    code = np.zeros((len(value), CODE_BYTES // 4), ">u4")
    code[:, 0] = np.uint32(0x3C60_0000) | value >> np.uint32(16)
    code[:, 1] = np.uint32(0x6063_0000) | value & np.uint32(0xFFFF)
    code[:, 2] = 0x4400_0002
    return code.reshape(-1)
