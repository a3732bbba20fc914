"""Guests of x86 made of the rules that keep translations, or have memory wherever an address leads;
and a monitor that reads tables as QEMU's debug walker does."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from harness.machine.descriptors import anonymous_file
from harness.machine.monitor import TLB_FLAGS, TLB_ROW, Monitor
from harness.machine.patience import Clock
from harness.machine.ram import HIGH
from tests.check.x86.by_rules import ByRules
from tests.paging import rules
from tests.paging.rules import Answer, Machine, bit, field

KEEPS_CODE = "a flush drops code of its own 4K of a large page alone"


@dataclass(frozen=True)
class Kept:
    """A translation that is kept: where its page begins, how large it is, and whether it is a
    global one."""

    physical: int
    size: int
    is_global: bool


class Keeping(ByRules):
    """A guest that keeps the translation of an access that was made, for the same kind of access by
    the same to the same 4K of addresses, until a flush drops it (SDM volume 3A, 4.10.4.1)."""

    def _executed(self, state: Any, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        self._kept = dict[tuple[int, str, bool, bool], Kept]()  # it comes from tables of its own
        return super()._executed(state, jobs)

    def _flushed(self, state: Any, job: np.void) -> bool:
        way, address = self._flushes[int(job["flush"])], int(job["address"])
        assert way in ("NONE", "PAGE", "ALL", "GLOBAL")

        def stays(page: int, kind: str, kept: Kept) -> bool:
            if way == "PAGE":
                size = 0x1000 if kind == "fetch" and KEEPS_CODE in self.departs else kept.size
                return page // size != address // size
            return way == "NONE" or (way == "ALL" and kept.is_global)

        self._kept = {one: kept for one, kept in self._kept.items() if stays(*one[:2], kept)}
        return super()._flushed(state, job)

    def _comes_to(
        self, machine: Machine, address: int, kind: str, user: bool, implicit: bool
    ) -> Answer:
        key = address & -0x1000, kind, user, machine.ac
        if key in self._kept:
            kept = self._kept[key]
            return Answer(None, physical=kept.physical | address % kept.size)
        found = super()._comes_to(machine, address, kind, user, implicit)
        if found.vector is None:
            memory: Any = self.ram.buffer
            leaf = rules.walk(machine, memory, address)
            assert leaf.level is not None and found.physical is not None
            size = 1 << (12, 22 if machine.levels == 2 else 21, 30)[leaf.level]
            is_global = bit(leaf.used[-1][1], 8) and bit(self._control.cr4, 7)
            self._kept[key] = Kept(found.physical & -size, size, is_global)
        return found


class Spacious(ByRules):
    """A guest that has memory wherever addresses of 40 bits lead; only what is written to takes
    any."""

    def __init__(self) -> None:
        super().__init__("bochs", (3, 0))
        file = anonymous_file("everywhere")
        os.ftruncate(file, HIGH.stop)
        self._map = mmap.mmap(file, HIGH.stop)
        os.close(file)
        whole = np.frombuffer(self._map, np.uint8)
        self.ram = SimpleNamespace(buffer=whole, high=whole[HIGH.start :], base=0, size=len(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It is gone with what holds it."""


class DebugWalker(Monitor):
    """A monitor whose debug walker follows the rules, but that it knows no reserved bit, and no
    canonical form where it looks for all pages."""

    def __init__(self, machine: Machine, octets: Any, version: tuple[int, int, int]) -> None:
        self.machine = replace(
            machine, maxphyaddr=52, nxe=True, page1gb=True, pse36=True, amd=False
        )
        self.octets, self.version, self.clock = octets, version, Clock(0)

    @contextmanager
    def unreserved(self) -> Iterator[None]:
        """No bit is reserved."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("pde32", "pdpte", "pae", "long"):
                patch.setattr(rules, f"reserved_in_{name}", lambda *_: 0)
            yield

    def walk(self, address: int) -> rules.Translation:
        return rules.walk(self.machine, self.octets, address)

    def translations(self, addresses: Sequence[int]) -> list[int | None]:
        with self.unreserved():
            found = [self.walk(address) for address in addresses]
        return [one.physical if one.end == "page" else None for one in found]

    def read_physical(self, address: int, size: int) -> bytes:
        return bytes(self.octets[address : address + size])

    def read_virtual(self, address: int, size: int) -> bytes | None:
        pages = self.translations(range(address, address + size, 0x1000))
        if None in pages:
            return None
        return b"".join(self.read_physical(at, 0x1000) for at in pages if at is not None)

    def info_tlb(self) -> npt.NDArray[np.void]:
        """By tables of 512 or 1,024 entries, whose pages are found by the walk of their first
        address."""
        bits = 10 if self.machine.levels == 2 else 9
        count = 2 if self.machine.levels == 3 else self.machine.levels
        begin = range(0, 1 << 32, 1 << 30) if self.machine.levels == 3 else (0,)
        with self.unreserved():
            rows = [row for first in begin for row in self._rows(first, count - 1, bits)]
        return np.array(rows, TLB_ROW)

    def _rows(self, first: int, level: int, bits: int) -> Iterator[tuple[Any, ...]]:
        for number in range(1 << bits):
            address = first | number << 12 + bits * level
            top = 12 + bits * self.machine.levels
            if self.machine.levels > 3 and bit(address, top - 1):
                address |= field(-1, 63, top) & (1 << 64) - 1
            found = self.walk(address)
            if found.level is not None and found.level < level:
                yield from self._rows(address, level - 1, bits)
            elif found.level == level and found.end == "page":
                entry = found.used[-1][1]
                flags = {
                    "X": bit(entry, 63),
                    "G": bit(entry, 8),
                    "P": level > 0 and bit(entry, 7),
                    "D": bit(entry, 6),
                    "A": bit(entry, 5),
                    "C": bit(entry, 4),
                    "T": bit(entry, 3),
                    "U": bit(entry, 2),
                    "W": bit(entry, 1),
                }
                yield (address, self._shown(found), *(flags[name] for name in TLB_FLAGS))

    def _shown(self, found: rules.Translation) -> int:
        """The address that a row shows: bits 49:12 of it; outside long mode, of the entry all bits
        from the lowest one up."""
        entry, level = found.used[-1][1], found.level
        if self.machine.levels > 3:
            return field(found.physical, 49, 12)
        lowest = 12 if not level else 20 if self.machine.levels == 3 else 21
        return entry >> lowest << lowest
