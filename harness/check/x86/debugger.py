"""Asking QEMU's monitor: its debug walker, and memory as it sees it.

The debug walker is not the path that the guest's accesses take.  It answers for translation
and never for rights, and it ignores reserved bits: a known quirk, which is counted wherever
it makes a difference.  To tell that from a wrong answer, the reference is asked twice, once by
the rules and once with a format that has no reserved bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

import numpy as np

from harness.check.compare import Comparison
from harness.check.debugger import (
    MONITOR_MEMORY,
    MOST_ROWS,
    compare_walkers,
    edges,
    report,
)
from harness.check.held import HeldMemory
from harness.check.product import evenly
from harness.check.quirk import expected_of
from harness.check.tables import TABLE_BYTES, TableImage
from harness.check.translations import GVA2GPA, SAMPLE, compare_translations
from harness.check.x86.cases import reads
from harness.check.x86.quirks import DEBUG_WALKER, TLB_PRINTS_ENTRIES
from harness.check.x86.second_reading import NO_LAPSE, Lapse, Reading, Stop, at
from harness.machine.gdbstub import StubMonitor
from harness.machine.monitor import Monitor
from harness.machine.physical import PhysicalMemory, Reader, Region
from harness.machine.ram import DEVICES
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import End, Leaves
from harness.paging.format import Format
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.table import Root, Table
from harness.paging.x86 import formats
from harness.paging.x86.cpu import LEGACY_SPAN, WIDTHS, Cpu, Efer, Mode

INFO_TLB = "info tlb"
MEMSAVE = "memsave"
"""The oracles; the address of a question about table bytes is a physical one."""

RUN = 2 << 20
"""Bytes of virtual memory fetched at once."""

TLB_BITS = {
    "X": formats.XD,
    "G": formats.G,
    "P": formats.PS,
    "D": formats.D,
    "A": formats.A,
    "C": formats.PCD,
    "T": formats.PWT,
    "U": formats.US,
    "W": formats.RW,
}
"""The entry bit that each flag of a row of `info tlb` shows."""

TLB_ADDRESS = formats.bits(49, 12)
"""The address bits that `info tlb` prints in long mode."""

TLB_LOWEST = {Mode.PAE: (12, 20), Mode.BITS_32: (12, 21)}
"""The lowest bit of an entry that it prints in other modes, by level: all from there up."""


@dataclass(frozen=True)
class Debugger:
    """The monitor of a stopped guest whose CPU has the tables of a space loaded.

    memory   the guest's memory; its RAM, shared with this process, where contents are compared
    outside  the span that is left out of every comparison, if there is one
    only     the one address that is asked about, or None for all that the space suggests
    seen     the same memory through the monitor; None reads all of RAM so
    """

    monitor: Monitor | StubMonitor
    cpu: Cpu
    memory: Memory
    outside: Span | None
    only: int | None = None
    seen: Memory | None = None

    def questions(
        self, written: TableImage, thorough: bool = False
    ) -> dict[str, Callable[[], Comparison]]:
        """What can be asked, by oracle: about tables that were written so, as much as wanted."""
        return {
            TABLE_BYTES: lambda: self.compare_tables(written),
            MONITOR_MEMORY: self.compare_walkers,
            INFO_TLB: self.compare_tlb,
            GVA2GPA: lambda: self.compare_translations(thorough),
            MEMSAVE: lambda: self.compare_contents(thorough),
        }

    def compare_tables(self, written: TableImage) -> Comparison:
        """Table bytes through the monitor against those written, accessed and dirty aside."""
        comparison = Comparison(TABLE_BYTES)
        seen = TableImage.of(self._monitor_memory, self.cpu.roots)
        if self.only is not None:
            written = written.holding(self.only)
        comparison.compared = len(written.address)
        position = np.searchsorted(seen.address, written.address).clip(max=len(seen.address) - 1)
        used = np.uint64(self.cpu.format.accessed | self.cpu.format.dirty)
        wrong: Mask = ((seen.words[position] ^ written.words) & ~used).any(axis=1)
        wrong = wrong | (seen.address[position] != written.address)
        report(
            comparison,
            wrong,
            lambda lane: (int(written.address[lane]), "the table as written", "other bytes"),
        )
        return comparison

    def compare_walkers(self) -> Comparison:
        """As `debugger.compare_walkers`, the window too."""
        return compare_walkers(self.cpu, self.memory, self._monitor_memory, self.only)

    def compare_tlb(self) -> Comparison:
        """Every row of `info tlb` against every mapping of the space, in both directions."""
        comparison = Comparison(INFO_TLB)
        total = bulk.leaves(self.memory, self._debug_roots, limit=0).total
        if total > MOST_ROWS:
            reason = f"not asked: info tlb would print more than {MOST_ROWS:,} rows"
            comparison.not_comparable[reason] = total
            return comparison
        leaves = self._mapped()
        rows = self.monitor.info_tlb()
        rows = rows[self._asked(rows["virtual"])]
        seen = np.stack([rows["virtual"], rows["physical"], _flags(rows)])
        flags = leaves.raw & np.uint64(sum(TLB_BITS.values()))
        # The same bit is PAT in the leaf of a small page, and not printed.
        flags[leaves.level == 0] &= ~np.uint64(formats.PS)
        expected = np.stack([leaves.virtual, self._printed(comparison, leaves), flags])
        comparison.compared = expected.shape[1]
        self._count_quirk(comparison, leaves.virtual)
        for ours, theirs, missing in ((expected, seen, "no such row"), (seen, expected, None)):
            wrong = ~_present(ours, theirs)
            report(
                comparison,
                wrong,
                lambda lane, ours=ours, missing=missing: (  # type: ignore[misc]
                    int(ours[0, lane]),
                    _tlb(ours[:, lane]) if missing else "no such row",
                    missing or _tlb(ours[:, lane]),
                ),
            )
        return comparison

    def compare_translations(self, thorough: bool = False) -> Comparison:
        """`gva2gpa` at the edges of mappings, beside them, and at addresses with no translation."""
        if self.only is not None:
            addresses = np.array([self.only], np.uint64)
        else:
            addresses = self._edges(self._mapped(), None if thorough else SAMPLE)
        walks = bulk.walk(self.memory, self._debug_roots, addresses)
        unbacked = walks.end == End.UNBACKED
        asked = np.flatnonzero(~unbacked)
        expected = [
            int(walks.physical[lane]) if walks.end[lane] == End.LEAF else None for lane in asked
        ]
        comparison = compare_translations(self.monitor, addresses[asked].tolist(), expected)
        if unbacked.any():
            reason = "an entry of the path has no memory behind it"
            comparison.not_comparable[reason] += int(unbacked.sum())
        self._count_quirk(comparison, addresses[walks.end == End.LEAF])
        return comparison

    def compare_contents(self, thorough: bool = False) -> Comparison:
        """Memory by virtual address against RAM, for every small page that has RAM behind it.

        Of many runs of pages without a gap, a sample is compared unless all are wanted.
        """
        comparison = Comparison(MEMSAVE)
        leaves = self._mapped()
        size = self.cpu.format.levels[0].size
        memory = self._ram
        small = (leaves.level == 0) & (leaves.physical <= np.uint64(memory.span.last))
        small &= (leaves.physical < DEVICES.start) | (leaves.physical >= DEVICES.stop)
        virtual, physical = leaves.virtual[small], leaves.physical[small]
        ram = memory.octets.reshape(-1, size)
        frame = physical // np.uint64(size)
        assert isinstance(self.monitor, Monitor)
        runs = list(_runs(virtual, size, RUN // size))
        if not thorough:
            runs = [runs[i] for i in evenly(len(runs), SAMPLE)]
        for part in runs:
            n = part.stop - part.start
            comparison.compared += n
            self._count_quirk(comparison, virtual[part])
            content = self.monitor.read_virtual(int(virtual[part.start]), n * size)
            wrong = np.ones(n, np.bool_)
            if content is not None:
                pages = np.frombuffer(content, np.uint8).reshape(n, size)
                wrong = (pages != ram[frame[part]]).any(axis=1)
            report(
                comparison,
                wrong,
                lambda lane, part=part: (  # type: ignore[misc]
                    int(virtual[part.start + lane]),
                    f"the bytes at {int(physical[part.start + lane]):#x}",
                    "other bytes, or none",
                ),
            )
        if left_out := len(virtual) - comparison.compared:
            comparison.not_comparable["not asked: a sample of scattered pages is read"] = left_out
        return comparison

    @cached_property
    def _debug_roots(self) -> tuple[Root, ...]:
        """The roots as the debug walker reads them, by a format without reserved bits."""
        cpu = replace(
            self.cpu,
            maxphyaddr=WIDTHS[-1],
            efer=self.cpu.efer | Efer.NXE,
            page1gb=True,
            pse36=True,
            amd=False,
            pdptes_checked=0 if self.cpu.mode is Mode.PAE else None,
        )
        format = unchecked(cpu.format)
        return tuple(
            Root(Table(format, root.table.address, root.table.level), root.span)
            for root in cpu.roots
        )

    def _printed(self, comparison: Comparison, leaves: Leaves) -> Words:
        """The physical addresses that `info tlb` prints of pages."""
        if self.cpu.long:
            return leaves.physical & np.uint64(TLB_ADDRESS)
        if not expected_of(TLB_PRINTS_ENTRIES, "monitor", self.monitor.version):
            return leaves.physical
        lowest = np.array(TLB_LOWEST[self.cpu.mode], np.uint64)[leaves.level]
        printed: Words = leaves.raw >> lowest << lowest
        if departs := int((printed != leaves.physical).sum()):
            comparison.quirks[TLB_PRINTS_ENTRIES.name] += departs
        return printed

    @cached_property
    def _monitor_memory(self) -> Memory:
        if self.seen is not None:
            return self.seen
        assert isinstance(self.monitor, Monitor)
        ram, unit = self._ram.span, self.cpu.format.table_bytes(0)
        region = Region(range(ram.first, ram.last + 1), "", 0)
        read = PhysicalMemory(
            Reader.of(self.monitor, True), self.monitor.clock, [region], unit, math.inf
        ).read
        return HeldMemory(unit, read)

    @property
    def _ram(self) -> BufferMemory:
        assert isinstance(self.memory, BufferMemory)
        return self.memory

    def _mapped(self) -> Leaves:
        """Every page that the debug walker should find, outside the window."""
        leaves = bulk.leaves(self.memory, self._debug_roots, limit=MOST_ROWS)
        return leaves.take((leaves.end == End.LEAF) & self._asked(leaves.virtual))

    def _asked(self, address: Words) -> Mask:
        """Which of the addresses are asked about."""
        asked: Mask
        if self.only is not None:
            asked = address == np.uint64(self.only)
        elif self.outside is None:
            asked = np.ones(len(address), np.bool_)
        else:
            first, last = np.uint64(self.outside.first), np.uint64(self.outside.last)
            asked = (address < first) | (address > last)
        return asked

    def _count_quirk(self, comparison: Comparison, translated: Words) -> None:
        """Counts the addresses that the debug walker translates and the rules do not: those at
        which an entry has a reserved bit set, by a second reading.

        Here no machine is a witness to reserved bits: where the reference takes others for
        reserved, it disagrees.
        """
        walks = bulk.walk(self.memory, self.cpu.roots, translated)
        asked = at(self.cpu, self.memory, reads(translated))
        lapses = NO_LAPSE if self.cpu.pdptes_checked is None else Lapse.PDPTES
        stop = Reading(asked, lapses).walked.stop
        departs = np.isin(stop, (Stop.RESERVED, Stop.REFUSED))
        if departs.any():
            comparison.quirks[DEBUG_WALKER.name] += int(departs.sum())
        report(
            comparison,
            departs != (walks.end != End.LEAF),
            lambda lane: (
                int(translated[lane]),
                f"{End(int(walks.end[lane])).name.lower()} at level {int(walks.level[lane])}",
                "a reserved bit is set, by a second reading of the entries"
                if departs[lane]
                else "no reserved bit is set, by a second reading of the entries",
            ),
        )

    def _edges(self, leaves: Leaves, sample: int | None) -> Words:
        """The edges of mappings and of the roots, where there are such addresses."""
        addresses = edges(self.cpu, leaves, sample)
        if not self.cpu.long:
            addresses = addresses[addresses <= np.uint64(LEGACY_SPAN.last)]
        return addresses[self._asked(addresses)]


@cache
def unchecked(format: Format) -> Format:
    """A format as the debug walker reads it; one object of each."""
    return format.without_reserved()


def _flags(rows: np.ndarray) -> Words:
    """The entry bits that rows of `info tlb` show."""
    flags = np.zeros(len(rows), np.uint64)
    for name, bit in TLB_BITS.items():
        flags[rows[name]] |= np.uint64(bit)
    return flags


def _present(ours: Words, theirs: Words) -> Mask:
    """Which columns of `ours` stand in `theirs` too; both of shape (3, n)."""
    order = np.argsort(theirs[0], kind="stable")
    position = np.searchsorted(theirs[0], ours[0], sorter=order)
    if not len(order):
        return np.zeros(ours.shape[1], np.bool_)
    candidate = theirs[:, order[position.clip(max=len(order) - 1)]]
    same: Mask = (candidate == ours).all(axis=0)
    return same


def _runs(virtual: Words, size: int, longest: int) -> Iterator[slice]:
    """Cuts pages, sorted by address, into runs without gaps of at most `longest` pages."""
    gaps = np.flatnonzero(np.diff(virtual) != size) + 1
    for first, last in pairwise([0, *gaps.tolist(), len(virtual)]):
        for start in range(first, last, longest):
            yield slice(start, min(start + longest, last))


def _tlb(row: np.ndarray) -> str:
    flags = "".join(name if int(row[2]) & bit else "-" for name, bit in TLB_BITS.items())
    return f"{int(row[0]):016x}: {int(row[1]):016x} {flags}"
