"""One path of tables in a guest's memory, whose entries each case writes anew.

Wherever a path ends, at a page of whatever size, an address leads to itself: the lower bits of the
address tried are those of the memory that it reaches, so that one word serves pages of all sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.ram import MIB
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import State
from harness.paging.bulk import Bytes, Paths
from harness.paging.format import Format
from harness.paging.memory import Mask, Words
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import PAGE_BITS, A, D, R, U, V, X

ACCESSES: Final = ("read", "write", "fetch", "amo", "lr")
"""What a case does; LR is a load (privileged specification, "Addressing and Memory Protection")."""

KINDS: Final = np.array([Kind.READ, Kind.WRITE, Kind.FETCH, Kind.AMO, Kind.READ], np.uint8)
"""The kind of each of ACCESSES."""

_NAMED: Final = np.array([ACCESSES.index(kind.name.lower()) for kind in Kind], np.uint8)
"""Which of ACCESSES each kind is."""

NONE_MISSING: Final = 255
"""In place of the level of a table that is missing."""

REGION: Final = 1 << 16
"""Bytes of the data, and of the code, that pages lead to: a 64K page of each."""

WINDOW_INDEX: Final = 170
"""The entry of the root that is the stub's own, and no case's."""

CODE_BYTES: Final = 16
"""From the code that can be fetched at one address to that at the next."""

NOWHERE: Final = {64: (48, 52, 55), 32: (32, 33)}
"""Bits of physical addresses: with any of them in addition, the machine has neither memory nor a
device there.  By the width of registers."""

TABLE: Final = 1 << PAGE_BITS


@dataclass(frozen=True)
class Lanes:
    """Cases as arrays, a lane each.

    words    uint64, shape (levels, n): the entries of the path, from level 0 up
    missing  the level whose table is where no memory is; NONE_MISSING for none
    address  the pointer by which the access is made
    access   uint8, index into ACCESSES
    mprv     whether machine mode makes it, by MPRV
    """

    words: Words
    missing: Bytes
    address: Words
    access: Bytes
    user: Mask
    sum: Mask
    mxr: Mask
    mprv: Mask

    @classmethod
    def along(
        cls,
        paths: Paths,
        missing: Bytes,
        address: Words,
        kind: Bytes,
        user: Mask,
        sum: Mask,
        mxr: Mask,
        mprv: Mask,
    ) -> Lanes:
        """Accesses whose paths are in memory; `kind` are `Kind` values."""
        words = np.where(paths.used, paths.raw, np.uint64(0))
        return cls(words, missing, address, _NAMED.take(kind), user, sum, mxr, mprv)

    def __len__(self) -> int:
        return len(self.address)

    @property
    def kind(self) -> Bytes:
        """`Kind` values."""
        return KINDS.take(self.access)

    def take(self, chosen: Mask | slice | npt.NDArray[np.intp]) -> Lanes:
        """The chosen lanes."""
        parts = {field.name: getattr(self, field.name)[..., chosen] for field in fields(self)}
        return Lanes(**parts)


class Chain:
    """The tables of one mode in a guest's memory, the window, and what pages lead to.

    tables  physical, from level 0 up
    data, code  physical: where each begins, REGION bytes long
    window  the virtual address of the stub's two pages
    """

    def __init__(self, guest: Guest, format: Format) -> None:
        arena = guest.image.table_arena
        levels = len(format.levels)
        self.guest, self.format = guest, format
        self.tables = tuple(range(arena.start, arena.start + TABLE * levels, TABLE))
        self.data = guest.free[0].start + 16 * MIB
        self.code = self.data + REGION
        self.window = WINDOW_INDEX << format.levels[-1].shift
        ram, base = guest.ram.buffer, guest.ram.base
        ram[arena.start - base : arena.start - base + 2 * TABLE * levels] = 0
        self._map_window(arena.start + TABLE * levels)
        ram[self.code - base :][:REGION] = code_in(self.code).view(np.uint8)

    @property
    def root(self) -> int:
        """Where the root's table is."""
        return self.tables[-1]

    def state(self, cpu: Cpu) -> State:
        """What the guest is asked to be."""
        return State(cpu.satp, self.window, cpu.menvcfg, cpu.senvcfg, cpu.xlen)

    def _map_window(self, first: int) -> None:
        """Leads the window to the stub's page, by tables of its own from `first` on."""
        table = self.root
        for level in range(len(self.tables) - 1, 0, -1):
            self._write(table, self.format.levels[level].index(self.window), first >> 2 | V)
            table, first = first, first + TABLE
        page = self.guest.image.user.start >> 2 | V | R | X | A | D
        self._write(table, 0, page)
        self._write(table, 1, page | U)

    def _write(self, table: int, index: int, word: int) -> None:
        width = self.format.entry_bytes
        at = table + index * width - self.guest.ram.base
        self.guest.ram.buffer[at : at + width].view(f"<u{width}")[0] = word

    def slots(self, addresses: Words) -> Words:
        """Where the entries of paths are, shape (levels, n)."""
        width = np.uint64(self.format.entry_bytes)
        return np.array(
            [
                np.uint64(table)
                + (addresses >> np.uint64(here.shift) & _mask(here.entries)) * width
                for table, here in zip(self.tables, self.format.levels, strict=True)
            ]
        )


def _mask(entries: int) -> np.uint64:
    return np.uint64(entries - 1)


def content(physical: Words, width: int) -> Words:
    """What a word of `width` bytes at a physical address of the data holds.

    Multiplied by what is odd, a multiple of the size of a word remains one; inverted, its lowest
    bits are set, so that a read that loses them does not find the same.
    """
    mixed = ~(physical * np.uint64(0x9E37_79B9_7F4A_7C15))
    return mixed & np.uint64((1 << 8 * width) - 1)


def token(physical: Words) -> Words:
    """What a0 holds after the code at a physical address has run."""
    return np.uint64(0x1000_0000) | physical >> np.uint64(4) & np.uint64(0xFF_FFFF)


def code_in(first: int) -> npt.NDArray[np.uint32]:
    """The code of a region that begins at `first`: LUI a0; ADDI a0, a0; ECALL, at each CODE_BYTES
    ("RV32I Base Integer Instruction Set")."""
    value = token(np.arange(first, first + REGION, CODE_BYTES, dtype=np.uint64)).astype(np.uint32)
    low = value & np.uint32(0xFFF)
    high = value + np.uint32(0x800) >> np.uint32(12)
    code = np.zeros((len(value), CODE_BYTES // 4), np.uint32)
    code[:, 0] = high << np.uint32(12) | np.uint32(10 << 7 | 0x37)
    code[:, 1] = low << np.uint32(20) | np.uint32(10 << 15 | 10 << 7 | 0x13)
    code[:, 2] = 0x73
    return code.reshape(-1)
