"""Every address bit of every kind of entry, proven by where the guest's accesses arrive.

The other oracles know an address from the data that is found there, and their guests have memory
below 4 GiB.  Here a guest has memory at every address of 40 bits but for the devices' GiB, nearly
all of it never touched.  An entry is tried with each of its bits changed in turn: a page must be
the one that the reference says, so its word is read and written; a table was moved to where the
reference says, and must be used there, so the guest finds its way by it and sets A in it.

Reserved bits are left to the matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check import marks
from harness.check.compare import EXAMPLES, Comparison, Disagreement
from harness.check.x86.window import new_root, open_window, with_pdptes
from harness.machine.machine import Processor
from harness.machine.ram import ARENA, HIGH, LARGEST_RAM, MIB
from harness.machine.x86.guest import Guest
from harness.machine.x86.qemu import TCG
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Entry, Leaf, Pointer
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.processor import root_for
from harness.paging.space import Space, TableAllocator
from harness.paging.table import Slot, Table
from harness.paging.walk import Walk, walk
from harness.paging.x86 import formats
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Cr4, Mode, canonical_halves, reserved_in_pdpte
from harness.paging.x86.load import load, reserved_in_cr3

REACH: Final = "reach"
"""The oracle: where an access of the guest arrives."""

LOW_BYTES: Final = 64 * MIB
"""The memory that the window shows, with all tables but the moved ones: it must leave room for the
tested address where addresses have 32 bits."""

ADDRESS: Final = 0x005A_5AA9_6B2D_7A58
"""The virtual address that is accessed, cut to what the mode has."""

PATTERN: Final = 0x25A0_00A5_2D5A_5000
"""What an entry has in its bits from 12 up, before one is changed.

Several of the bits of an address above 31 are set, wherever the entry has them, so that one change
leaves it above the devices; and where it has none, one change leaves it below them, and above
`LOW_BYTES`."""


@dataclass(frozen=True)
class Reach:
    """What came of one kind of entry in one mode.

    proven      the bits of the address it holds that were seen to lead elsewhere, as the
                reference says
    comparison  an answer for each entry that was tried
    """

    mode: Mode
    entry: str
    proven: int
    comparison: Comparison


def spacious(program: str | None = None) -> Guest:
    """A guest of TCG that has memory wherever `HIGH` reaches."""
    return Guest(
        TCG.name,
        ram_bytes=LARGEST_RAM,
        high_bytes=len(HIGH),
        cpu=TCG.processor(Processor(maxphyaddr=HIGH[-1].bit_length())),
        program=program,
    )


def reached(guest: Guest, modes: Iterable[Mode] = Mode) -> Iterator[Reach]:
    """Tries every kind of entry of each mode on a `spacious` guest: what came of each.

    Raises GuestLost where the machine finds a root table elsewhere than the reference, since it
    finds no window there.
    """
    memory = _Memory(guest)
    allocator = TableAllocator(memory.window, Span(ARENA.stop, LOW_BYTES - 1))
    for mode in modes:
        yield from _Trial(guest, memory, mode, allocator).families()


class _Memory:
    """All memory of a guest: what lies below the devices, the part of it in the window, and what
    lies above."""

    def __init__(self, guest: Guest) -> None:
        self.low = BufferMemory(guest.ram.buffer)
        self.window = BufferMemory(guest.ram.buffer[:LOW_BYTES])
        self._high = BufferMemory(guest.ram.high, HIGH.start)

    def load(self, address: Physical, size: int) -> int | None:
        return self._piece(address).load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        words = [self.load(Physical(address), size) for address in addresses.tolist()]
        backed = np.array([word is not None for word in words])
        return np.array([word or 0 for word in words], np.uint64), backed

    def store(self, address: Physical, size: int, value: int) -> None:
        self._piece(address).store(address, size, value)

    def scatter(self, addresses: Words, size: int, values: Words) -> None:
        """Writes words side by side."""
        self._piece(int(addresses[0])).scatter(addresses, size, values)

    def backs(self, address: int) -> bool:
        """Whether there is memory at the address, and not what the machine itself needs."""
        return address in self._piece(address).span and address not in ARENA

    def _piece(self, address: int) -> BufferMemory:
        return self._high if address >= HIGH.start else self.low


@dataclass(frozen=True)
class _Tried:
    """A state in which all is in place for an access, and the address that the tried entry, or
    register, holds in it."""

    cpu: Cpu
    held: int


class _Trial:
    """A page at one address of a mode, whose path is led elsewhere at one entry after the other."""

    def __init__(
        self, guest: Guest, memory: _Memory, mode: Mode, allocator: TableAllocator
    ) -> None:
        self.guest, self.memory, self.mode = guest, memory, mode
        usual = replace(
            Cpu.in_mode(mode, 0, cr4=Cr4.PGE | Cr4.PSE),
            maxphyaddr=guest.info.physical_bits,
            page1gb=guest.info.has("gigabyte_pages"),
            pse36=guest.info.has("pse36"),
        )
        self.cpu = new_root(memory.window, usual, allocator)
        # Before the path, so that it has none of its tables: these are moved.
        self.state = open_window(memory.window, self.cpu, guest.image, allocator).state
        span = canonical_halves(usual.levels)[0] if usual.long else LEGACY_SPAN
        self.address = Virtual(ADDRESS & span.last)
        self.format = usual.format
        self.rights = self.format.granting(*self.format.rights)
        self.widest = marks.WORD if usual.long else marks.WORD // 2
        frame = allocator.allocate(self.format, 0).address
        page = Virtual(self.address & -self.format.levels[0].size)
        space = Space(memory.window, self.cpu.roots, allocator)
        space.map(page, np.array([frame], np.uint64), 0, self.rights)
        path = self._walk(self.cpu)
        assert path is not None
        self.path = path.steps

    def families(self) -> Iterator[Reach]:
        """What comes of every kind of entry, from the root down."""
        if self.mode is Mode.PAE:
            yield self._family("CR3", self._pdpte_registers())
            yield self._family("PDPTE", self._pdptes())
        else:
            yield self._family("CR3", self._roots())
        for step, below in zip(self.path, (*self.path[1:], None), strict=True):
            number, level = step.slot.level, self.format.levels[step.slot.level]
            if below is not None:
                pointer = self.format.pointer(0, number, self.rights)
                tried = self._pointers(step.slot, step.raw, pointer, below.slot.table)
                yield self._family(f"{level.name}, pointer", tried)
            if level.leaf is not None:
                leaf = self.format.leaf(0, number, self.rights)
                yield self._family(f"{level.name}, leaf", self._leaves(step.slot, step.raw, leaf))

    # ---- what is tried, in place while it is looked at ----

    def _roots(self) -> Iterator[_Tried]:
        """CR3 with each of its bits changed, and the root table, with the window, moved there."""
        pattern = PATTERN & ~reserved_in_cr3(self.cpu)
        for cr3 in _changed(pattern, formats.PAGE_BITS, self.widest):
            cpu = load(self.cpu, replace(self.cpu, cr3=cr3), self.memory)
            if isinstance(cpu, Cpu):
                to = cpu.roots[0].table
                with self._moved(self.path[0].slot.table, to):
                    yield _Tried(cpu, to.address)

    def _pdpte_registers(self) -> Iterator[_Tried]:
        """The same where CR3 leads to the PDPTEs, whose table is smaller than a page."""
        size = formats.PDPTES * formats.PDPTE_BYTES
        for cr3 in _changed(PATTERN, size.bit_length() - 1, self.widest):
            there = with_pdptes(self.memory.low, replace(self.cpu, cr3=cr3), self.cpu.pdptes)
            cpu = load(self.cpu, replace(there, pdptes=(0,) * formats.PDPTES), self.memory)
            if isinstance(cpu, Cpu):
                yield _Tried(cpu, cr3)
            with_pdptes(self.memory.low, there, (0,) * formats.PDPTES)

    def _pdptes(self) -> Iterator[_Tried]:
        """The PDPTE of the address with each of its bits changed, and its table moved there."""
        number = self.address // (LEGACY_SPAN.size // formats.PDPTES)
        free = ~formats.pdpte(self.cpu.maxphyaddr).reserved_mask
        for raw in _changed(formats.P | PATTERN & free, formats.PAGE_BITS, formats.PDPTE_BYTES):
            if reserved_in_pdpte(raw, self.cpu.maxphyaddr):
                continue
            pdptes = (*self.cpu.pdptes[:number], raw, *self.cpu.pdptes[number + 1 :])
            cpu = with_pdptes(self.memory.low, self.cpu, pdptes)
            root = root_for(cpu, self.address)
            assert root is not None
            with self._moved(self.path[0].slot.table, root.table):
                yield _Tried(cpu, root.table.address)
        with_pdptes(self.memory.low, self.cpu, self.cpu.pdptes)

    def _pointers(self, slot: Slot, usual: int, raw: int, below: Table) -> Iterator[_Tried]:
        """An entry of the path with each of its bits changed, and the table below moved there."""
        for entry in self._entries(slot, usual, raw):
            if isinstance(entry, Pointer):
                with self._moved(below, entry.table):
                    yield _Tried(self.cpu, entry.table.address)

    def _leaves(self, slot: Slot, usual: int, raw: int) -> Iterator[_Tried]:
        """An entry of the path made a leaf, with each of its bits changed."""
        for entry in self._entries(slot, usual, raw):
            if isinstance(entry, Leaf):
                yield _Tried(self.cpu, entry.address)

    def _entries(self, slot: Slot, usual: int, raw: int) -> Iterator[Entry]:
        """What is in a slot of the path, while it holds `raw` with one bit changed."""
        size = self.format.entry_bytes
        free = ~self.format.levels[slot.level].shape(raw).reserved_mask
        for changed in _changed(raw | PATTERN & free, formats.PAGE_BITS, size):
            self.memory.store(slot.address, size, changed)
            yield self.format.decode(changed, slot.level)
        self.memory.store(slot.address, size, usual)

    @contextmanager
    def _moved(self, table: Table, to: Table) -> Iterator[None]:
        """A table is at another place too, if there is memory that is free, and no entry in it is
        accessed."""
        size = self.format.entry_bytes
        if to.address in self.memory.window.span or not self.memory.backs(to.address):
            yield
            return
        offsets = np.arange(0, table.size, size, dtype=np.uint64)
        words, _ = self.memory.low.gather(offsets + np.uint64(table.address), size)
        there = offsets + np.uint64(to.address)
        self.memory.scatter(there, size, words & ~np.uint64(self.format.accessed))
        yield
        self.memory.scatter(there, size, np.zeros_like(words))

    # ---- where it leads ----

    def _family(self, entry: str, tried: Iterable[_Tried]) -> Reach:
        comparison, proven, first = Comparison(REACH), 0, None
        for one in tried:
            path = self._walk(one.cpu)
            observed = self._access(one.cpu, path)
            comparison.compared += 1
            if observed:
                expected = f"{entry} holds {one.held:#x}: {_leads(path)}"
                access = Access(Kind.WRITE, user=False)
                example = Disagreement(
                    REACH, self.address, access, expected, "; ".join(observed), path
                )
                comparison.disagree(1, [example][: EXAMPLES - len(comparison.disagreements)])
            else:
                first = one.held if first is None else first
                proven |= one.held ^ first
        return Reach(self.mode, entry, proven, comparison)

    def _walk(self, cpu: Cpu) -> Walk | None:
        root = root_for(cpu, self.address)
        return walk(self.memory, root, self.address) if root else None

    def _access(self, cpu: Cpu, path: Walk | None) -> list[str]:
        """Reads and writes the word at the address: what is not as the reference says."""
        if path is None or path.physical is None or not self.memory.backs(path.physical):
            return ["nothing was accessed, since the reference finds no memory there"]
        physical = path.physical
        mark = int(marks.mark(np.array([physical], np.uint64))[0])
        self.memory.store(physical, marks.WORD, mark)
        results = self.guest.run(replace(self.state, cr3=cpu.cr3), self._jobs(~mark))
        wrong = [*self._not_found(results, mark), *self._not_marked(path)]
        if self.memory.load(physical, marks.WORD) != ~mark % (1 << 8 * marks.WORD):
            wrong.append("what it wrote is not there")
        self.memory.store(physical, marks.WORD, 0)
        many = bulk.walk(self.memory, cpu.roots, np.array([self.address], np.uint64))
        if many.physical[0] != physical:
            wrong.append(f"bulk.walk says {int(many.physical[0]):#x}")
        return wrong

    def _jobs(self, value: int) -> npt.NDArray[np.void]:
        """Reads of all parts of the word, then writes of all of them."""
        enums, offsets = self.guest.image.enums, range(0, marks.WORD, self.widest)
        jobs = self.guest.image.new_jobs(2 * len(offsets))
        jobs["size"], jobs["flush"] = self.widest, enums["FLUSH_NONE"]
        for first, name in ((0, "ACCESS_READ"), (len(offsets), "ACCESS_WRITE")):
            for part, offset in enumerate(offsets):
                job = jobs[first + part]
                job["address"], job["access"] = self.address + offset, enums[name]
                job["value"] = value >> 8 * offset & (1 << 8 * self.widest) - 1
        return jobs

    def _not_found(self, results: npt.NDArray[np.void], mark: int) -> Iterator[str]:
        """What is wrong with the accesses."""
        failed = results[results["completed"] == 0]
        if len(failed):
            yield f"vector {failed['vector'][0]}, error code {failed['error'][0]:#x}"
            return
        reads = results["data"][: len(results) // 2].tolist()
        found = sum(part << 8 * self.widest * number for number, part in enumerate(reads))
        if found != mark:
            yield f"it read {found:#x}, not the mark {mark:#x}"

    def _not_marked(self, path: Walk) -> Iterator[str]:
        """The entries that are not as the write must leave them."""
        for step in path.steps:
            sets = self.format.accessed
            sets |= self.format.dirty if isinstance(step.entry, Leaf) else 0
            after = self.memory.load(step.slot.address, self.format.entry_bytes)
            if after != step.raw | sets:
                yield f"{step.slot} went from {step.raw:#x} to {after:#x}"


def _changed(raw: int, lowest: int, size: int) -> Iterator[int]:
    """A word of `size` bytes as it is, then with each of its bits from the lowest up changed."""
    raw %= 1 << 8 * size
    yield raw
    for bit in range(lowest, 8 * size):
        yield raw ^ 1 << bit


def _leads(path: Walk | None) -> str:
    if path is None:
        return "no walk begins there"
    if path.physical is None:
        return f"the walk ends at level {path.level}"
    return f"leads to {path.physical:#x}"
