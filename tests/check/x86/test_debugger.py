"""What a monitor says of a space is compared one by one: of one that reads tables as QEMU's debug
walker does, by the rules written a second time, all agrees; and each thing that one says otherwise
is told where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.compare import Comparison
from harness.check.debugger import MONITOR_MEMORY
from harness.check.tables import TABLE_BYTES, TableImage
from harness.check.translations import GVA2GPA
from harness.check.x86 import debugger as module
from harness.check.x86 import foreign
from harness.check.x86.debugger import INFO_TLB, MEMSAVE, TLB_BITS, Debugger
from harness.check.x86.quirks import DEBUG_WALKER, TLB_PRINTS_ENTRIES
from harness.check.x86.window import new_root
from harness.machine.monitor import TLB_FLAGS
from harness.machine.ram import DEVICES, MIB
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.check.x86.machines import DebugWalker
from tests.paging.rules import Machine

PAGE = 0x1000
RAM = 16 * MIB
SMALL, LARGE, FRAMES = 0x40_0000, 0x4000_0000, 8 * MIB
"""Where pages of 4K and large ones are, and the first of their frames."""

P, RW, US, PWT, PCD, A, D, PS, G = (1 << bit for bit in range(9))
XD = 1 << 63
OTHERS = (RW, US, PWT, PCD, A, D, PS, G)
"""The bits of an entry of 4K that say something else than where it leads; the eighth is PAT."""


LEVELS = {Mode.BITS_32: 2, Mode.PAE: 3, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}


@dataclass
class Made:
    """A space, and what the monitor says of it."""

    cpu: Cpu
    memory: BufferMemory
    monitor: DebugWalker

    def debugger(self, **given: Any) -> Debugger:
        return Debugger(self.monitor, self.cpu, self.memory, given.pop("outside", None), **given)

    def asked(self, thorough: bool = False, **given: Any) -> dict[str, Comparison]:
        written = TableImage.of(self.memory, self.cpu.roots)
        every = self.debugger(**given).questions(written, thorough)
        return {name: ask() for name, ask in every.items()}


class Space4:
    """A space of a mode that is being made, with its root at an address that is no power of 2."""

    def __init__(self, cpu: Cpu, ram: int = RAM) -> None:
        self.memory = BufferMemory(np.zeros(ram, np.uint8))
        tables = TableAllocator(self.memory, Span(MIB + 0x3000, FRAMES - 1))
        self.cpu = new_root(self.memory, cpu, tables)
        self.space = Space(self.memory, self.cpu.roots, tables)
        self.rights = self.cpu.format.granting(*self.cpu.format.rights)

    def map(
        self, first: int, frames: Iterable[int], level: int = 0, bits: int | None = None
    ) -> None:
        raw = self.rights if bits is None else bits
        there = np.array(list(frames), np.uint64)
        self.space.map(Virtual(first), there, level, raw, self.rights)

    def write(self, address: int, level: int, raw: int) -> None:
        slot = self.space.slot(Virtual(address), level)
        self.memory.store(slot.address, self.cpu.format.entry_bytes, raw)

    def read(self, address: int, level: int) -> int:
        slot = self.space.slot(Virtual(address), level)
        found = self.memory.load(slot.address, self.cpu.format.entry_bytes)
        assert found is not None
        return found

    def made(self, monitor: type[DebugWalker] = DebugWalker, **given: Any) -> Made:
        """All frames hold what tells each byte from those of others."""
        octets = self.memory.octets
        octets[FRAMES:] = np.arange(len(octets) - FRAMES) * 251 >> 3 & 0xFF
        cpu = self.cpu
        machine = Machine(
            LEVELS[cpu.mode], pse=bool(cpu.cr4 & Cr4.PSE), cr3=cpu.cr3, pdptes=cpu.pdptes
        )
        return Made(cpu, self.memory, monitor(machine, octets, given.pop("version", (10, 0, 13))))


def cpu_of(mode: Mode, **given: Any) -> Cpu:
    return replace(Cpu.in_mode(mode, 0, cr4=Cr4.PGE | Cr4.PSE), **given)


def furnished(mode: Mode, **given: Any) -> Space4:
    """Eight pages of 4K side by side, two large ones, and one of 1G where there are any, on frames
    in no order; the bits of each small page are others."""
    made = Space4(cpu_of(mode, **given))
    frames = [FRAMES + PAGE * (number * 5 % 8) for number in range(8)]
    made.map(SMALL, frames)
    for number, bit in enumerate(OTHERS):
        made.write(SMALL + PAGE * number, 0, frames[number] | P | bit)
    size = made.cpu.format.levels[1].size
    made.map(LARGE, [size * 3, size * 2], 1)
    if made.cpu.long:
        made.map(-(1 << 30) % (1 << 64), [1 << 30], 2)
        made.map(0xFFFF_8000_0000_0000 if mode is Mode.LEVEL_4 else 0xFF00 << 48, [FRAMES])
    return made


def rows_of(mode: Mode) -> int:
    return 12 if mode in (Mode.LEVEL_4, Mode.LEVEL_5) else 10


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_of_a_space_without_reserved_bits_all_agrees(mode: Mode) -> None:
    found = furnished(mode).made().asked(thorough=True)
    rows = rows_of(mode)
    assert {name: one.disagreed for name, one in found.items()} == dict.fromkeys(found, 0)
    assert all(not one.quirks and not one.not_comparable for one in found.values())
    assert list(found) == [TABLE_BYTES, MONITOR_MEMORY, INFO_TLB, GVA2GPA, MEMSAVE]
    assert found[INFO_TLB].compared == rows
    assert found[MONITOR_MEMORY].compared == rows
    assert found[MEMSAVE].compared == (9 if rows == 12 else 8)  # of 4K
    # The root, the page table of the small pages, and what is between; PAE has four directories,
    # long mode two pages more, in the upper half.
    tables = {
        Mode.BITS_32: 1 + 1,
        Mode.PAE: 4 + 1,
        Mode.LEVEL_4: 1 + 3 + 1 + 1 + 3,
        Mode.LEVEL_5: 1 + 4 + 1 + 2 + 4,
    }
    assert found[TABLE_BYTES].compared == tables[mode]


# ---- what is said otherwise ----


def otherwise(change: Callable[[dict[str, Any]], None]) -> type[DebugWalker]:
    """A monitor that says of the page at SMALL + 3 pages something else."""

    class Otherwise(DebugWalker):
        def info_tlb(self) -> npt.NDArray[np.void]:
            rows = super().info_tlb().copy()
            [row] = np.flatnonzero(rows["virtual"] == SMALL + 3 * PAGE)
            change(rows[row : row + 1])  # type: ignore[arg-type]
            return rows

    return Otherwise


def flipped(field: str, by: int) -> Callable[[Any], None]:
    def change(row: Any) -> None:
        row[field] = row[field] ^ (bool(by) if field in TLB_FLAGS else np.uint64(by))

    return change


@pytest.mark.parametrize("mode", [Mode.LEVEL_4, Mode.PAE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    ("field", "by"),
    [
        *((flag, 1) for flag in TLB_FLAGS),
        ("physical", PAGE),
        ("physical", 1 << 49),
        ("virtual", 1 << 31),
    ],
)
def test_a_row_of_info_tlb_that_says_otherwise_is_told_both_ways(
    mode: Mode, field: str, by: int
) -> None:
    made = furnished(mode).made(otherwise(flipped(field, by)))
    found = made.debugger().compare_tlb()
    assert found.disagreed == 2 and found.compared == rows_of(mode)
    missing, more = found.disagreements
    at = SMALL + 3 * PAGE
    assert missing.address == at and missing.observed == "no such row"
    assert more.address == (at ^ by if field == "virtual" else at)
    assert more.expected == "no such row"
    # The fourth page has PCD alone.
    frame = FRAMES + PAGE * 7
    assert missing.expected == f"{at:016x}: {frame:016x} -----C---"
    flags = {name: name == "C" for name in TLB_BITS}
    if field in flags:
        flags[field] = not flags[field]
    shown = "".join(name if there else "-" for name, there in flags.items())
    physical = frame ^ by if field == "physical" else frame
    assert more.observed == f"{more.address:016x}: {physical:016x} {shown}"
    assert more.oracle == missing.oracle == INFO_TLB


class NoRows(DebugWalker):
    def info_tlb(self) -> npt.NDArray[np.void]:
        return super().info_tlb()[:0]


def test_without_any_row_each_is_missing() -> None:
    found = furnished(Mode.LEVEL_4).made(NoRows).debugger().compare_tlb()
    assert (found.disagreed, found.compared) == (12, 12)
    assert {one.observed for one in found.disagreements} == {"no such row"}


class OneByte(DebugWalker):
    """By virtual addresses, one byte of the page at SMALL + 3 pages is another."""

    asked: list[tuple[int, int]]

    def read_virtual(self, address: int, size: int) -> bytes | None:
        found = super().read_virtual(address, size)
        assert found is not None
        at = SMALL + 3 * PAGE + 0xFFF - address
        return found[:at] + bytes([found[at] ^ 1]) + found[at + 1 :] if 0 <= at < size else found


def test_a_byte_of_a_page_that_is_another_is_told_of_its_page() -> None:
    found = furnished(Mode.LEVEL_4).made(OneByte).debugger().compare_contents()
    assert (found.disagreed, found.compared) == (1, 9)
    [one] = found.disagreements
    assert (one.oracle, one.address) == (MEMSAVE, SMALL + 3 * PAGE)
    assert one.expected == f"the bytes at {FRAMES + PAGE * 7:#x}"


class Nothing(DebugWalker):
    def read_virtual(self, address: int, size: int) -> bytes | None:
        return None


def test_pages_that_cannot_be_read_are_each_told() -> None:
    found = furnished(Mode.LEVEL_4).made(Nothing).debugger().compare_contents()
    assert (found.disagreed, found.compared) == (9, 9)


class Reads(DebugWalker):
    """Notes what it was asked for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked = list[tuple[int, int]]()

    def read_virtual(self, address: int, size: int) -> bytes | None:
        self.asked.append((address, size))
        return super().read_virtual(address, size)


def test_pages_in_a_row_are_read_together_up_to_2_mib() -> None:
    made = Space4(cpu_of(Mode.LEVEL_4))
    made.map(SMALL - PAGE, [FRAMES] * (512 + 2))
    made.map(SMALL + 600 * PAGE, [FRAMES])
    ready = made.made(Reads)
    assert not ready.debugger().compare_contents().disagreed
    assert ready.monitor.asked == [  # type: ignore[attr-defined]
        (SMALL - PAGE, 2 * MIB),
        (SMALL + 511 * PAGE, 2 * PAGE),
        (SMALL + 600 * PAGE, PAGE),
    ]


def test_of_many_runs_of_pages_a_sample_is_read_and_the_rest_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAMPLE", 3)
    made = Space4(cpu_of(Mode.LEVEL_4))
    for number in range(5):
        made.map(SMALL + 4 * PAGE * number, [FRAMES, FRAMES + PAGE])
    ready = made.made(Reads)
    found = ready.debugger().compare_contents()
    assert (found.compared, found.disagreed) == (6, 0)
    assert found.not_comparable == {"not asked: a sample of scattered pages is read": 4}
    assert [at for at, _ in ready.monitor.asked] == [  # type: ignore[attr-defined]
        SMALL + 4 * PAGE * number for number in (0, 2, 4)
    ]
    whole = ready.debugger().compare_contents(thorough=True)
    assert (whole.compared, whole.not_comparable) == (10, Counter())


def test_pages_without_ram_are_not_read_and_large_ones_neither() -> None:
    """What the devices of a PC have, in front of 1 MiB, is nobody's."""
    made = Space4(cpu_of(Mode.LEVEL_4))
    edges = (
        DEVICES.start - PAGE,
        DEVICES.start,
        DEVICES.stop - PAGE,
        DEVICES.stop,
        RAM - PAGE,
        RAM,
    )
    made.map(SMALL, edges)
    made.map(LARGE, [4 * MIB], 1)
    ready = made.made(Reads)
    found = ready.debugger().compare_contents()
    assert (found.compared, found.disagreed, found.not_comparable) == (3, 0, Counter())
    assert ready.monitor.asked == [  # type: ignore[attr-defined]
        (SMALL, PAGE),
        (SMALL + 3 * PAGE, 2 * PAGE),
    ]


class Elsewhere(DebugWalker):
    """By its walker one page is elsewhere, and one address that is not mapped is."""

    def translations(self, addresses: Sequence[int]) -> list[int | None]:
        true = super().translations(addresses)
        wrong = {SMALL + 3 * PAGE: 0x1234, SMALL + 8 * PAGE: 0x5678}
        return [wrong.get(at, one) for at, one in zip(addresses, true, strict=True)]


def test_a_translation_that_is_another_is_told() -> None:
    found = furnished(Mode.LEVEL_4).made(Elsewhere).debugger().compare_translations()
    assert found.disagreed == 2 and found.compared > 30
    told = {(one.address, one.expected, one.observed) for one in found.disagreements}
    assert told == {
        (SMALL + 3 * PAGE, f"{FRAMES + 7 * PAGE:#x}", "0x1234"),
        (SMALL + 8 * PAGE, "unmapped", "0x5678"),
    }


def test_translations_are_asked_at_the_edges_of_pages_beside_them_and_where_roots_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside long mode no address has more than 32 bits."""
    for mode in (Mode.BITS_32, Mode.PAE, Mode.LEVEL_4):
        asked = list[int]()
        made = furnished(mode).made()
        monkeypatch.setattr(
            DebugWalker,
            "translations",
            lambda self, addresses, asked=asked: (asked.extend(addresses), [None] * len(addresses))[
                1
            ],
        )
        made.debugger().compare_translations(thorough=True)
        monkeypatch.undo()
        size = made.cpu.format.levels[1].size
        pages = [(SMALL + PAGE * n, PAGE) for n in range(8)] + [
            (LARGE + size * n, size) for n in (0, 1)
        ]
        if mode is Mode.LEVEL_4:
            pages += [(0xFFFF_8000_0000_0000, PAGE), (2**64 - 2**30, 1 << 30)]
        served = {
            Mode.LEVEL_4: [(0, 1 << 47), (2**64 - 2**47, 1 << 47)],
            Mode.PAE: [(number << 30, 1 << 30) for number in range(4)],  # by each PDPTE
            Mode.BITS_32: [(0, 1 << 32)],
        }[mode]
        edges = {
            edge % 2**64
            for first, size in (*pages, *served)
            for edge in (first - 1, first, first + size - 1, first + size)
        }
        most = 2**64 if mode is Mode.LEVEL_4 else 2**32
        assert sorted(asked) == sorted(edge for edge in edges if edge < most)


def test_an_address_whose_table_has_no_memory_has_no_translation_to_compare() -> None:
    made = furnished(Mode.LEVEL_4)
    made.write(SMALL + LARGE, 1, RAM | P | RW | US)
    ready = made.made()
    for only, compared in ((SMALL + LARGE, 0), (SMALL, 1)):
        found = ready.debugger(only=only).compare_translations()
        assert (found.compared, found.disagreed) == (compared, 0)
        unbacked = {"an entry of the path has no memory behind it": 1} if not compared else {}
        assert found.not_comparable == unbacked


class OneWord(DebugWalker):
    """In the monitor's memory, a word of a table is another."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.wrong = dict[int, int]()

    def read_physical(self, address: int, size: int) -> bytes:
        found = bytearray(super().read_physical(address, size))
        for at, by in self.wrong.items():
            if address <= at < address + size:
                found[at - address] ^= by
        return bytes(found)


@pytest.mark.parametrize(
    ("byte", "wrong"), [(A, False), (D, False), (P, True), (RW, True), (PS, True)]
)
def test_bytes_of_a_table_are_told_by_the_table_but_a_and_d(byte: int, wrong: bool) -> None:
    made = furnished(Mode.LEVEL_4)
    ready = made.made(OneWord)
    written = TableImage.of(ready.memory, ready.cpu.roots)
    slot = made.space.slot(Virtual(SMALL + 511 * PAGE), 0)
    ready.monitor.wrong[slot.address] = byte  # type: ignore[attr-defined]
    for only, compared, told in (
        (None, len(written.address), wrong),
        (slot.table.address, 1, wrong),
        (slot.address, 1, wrong),
        (ready.cpu.cr3, 1, False),
    ):
        found = ready.debugger(only=only).compare_tables(written)
        assert (found.compared, found.disagreed) == (compared, told)
        assert [one.address for one in found.disagreements] == [slot.table.address] * told


def test_a_table_that_the_monitor_does_not_find_is_told() -> None:
    """The last of all, too."""
    made = furnished(Mode.LEVEL_4)
    ready = made.made(OneWord)
    written = TableImage.of(ready.memory, ready.cpu.roots)
    for level in (1, 2, 3):
        slot = made.space.slot(Virtual(SMALL), level)
        ready.monitor.wrong = {slot.address: P}  # type: ignore[attr-defined]
        found = ready.debugger().compare_tables(written)
        below = {made.space.slot(Virtual(SMALL), n).table.address for n in range(level)}
        gone = {slot.table.address, *below}
        if level == 3:  # by which the large pages, too, are found
            gone.add(made.space.slot(Virtual(LARGE), 1).table.address)
        assert found.disagreed == len(gone)


def test_a_table_in_the_last_page_of_ram_is_read() -> None:
    made = furnished(Mode.LEVEL_4)
    made.write(SMALL + LARGE, 1, RAM - PAGE | P | RW | US)
    ready = made.made(OneWord)
    ready.memory.octets[RAM - PAGE :] = 0
    written = TableImage.of(ready.memory, ready.cpu.roots)
    assert RAM - PAGE in written.address.tolist()
    assert not ready.debugger().compare_tables(written).disagreed


# ---- what is asked about ----


def test_nothing_outside_is_asked_about_and_all_beside_it() -> None:
    made = furnished(Mode.LEVEL_4).made(Reads)
    outside = Span.of(SMALL + 3 * PAGE, 2 * PAGE)
    found = made.asked(thorough=True, outside=outside)
    assert all(not one.disagreed for one in found.values())
    assert (found[INFO_TLB].compared, found[MEMSAVE].compared) == (10, 7)
    asked = made.monitor.asked  # type: ignore[attr-defined]
    assert [one for one in asked if one[0] < LARGE] == [
        (SMALL, 3 * PAGE),
        (SMALL + 5 * PAGE, 3 * PAGE),
    ]


def test_one_address_is_asked_about_alone() -> None:
    made = furnished(Mode.LEVEL_4).made(Reads)
    found = made.asked(only=SMALL + 3 * PAGE, outside=Span.of(SMALL, PAGE))
    del found[TABLE_BYTES]
    assert {name: (one.compared, one.disagreed) for name, one in found.items()} == dict.fromkeys(
        found, (1, 0)
    )
    assert made.monitor.asked == [(SMALL + 3 * PAGE, PAGE)]  # type: ignore[attr-defined]


def test_info_tlb_is_not_asked_for_more_rows_than_can_be_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = furnished(Mode.LEVEL_4).made()
    for most, asked in ((12, True), (11, False)):
        monkeypatch.setattr(module, "MOST_ROWS", most)
        found = made.debugger().compare_tlb()
        assert (found.compared, found.disagreed) == (12 * asked, 0)
        reason = f"not asked: info tlb would print more than {most} rows"
        assert found.not_comparable == ({} if asked else {reason: 12})


# ---- where the debug walker departs ----

Malformed = tuple[Cpu, int, int, int]
"""The processor, an address, the level of its entry, and the reserved bits that are set in it."""

LONG = cpu_of(Mode.LEVEL_4)
MALFORMED: dict[str, Malformed] = {
    "beyond MAXPHYADDR": (LONG, SMALL, 0, 1 << 51),
    "beyond MAXPHYADDR, in a pointer": (LONG, SMALL + 512 * PAGE, 1, 0),
    "XD without NXE": (replace(LONG, efer=LONG.efer & ~(1 << 11)), SMALL, 0, XD),
    "below a 2M page": (LONG, LARGE, 1, 1 << 13),
    "PS of a PDPTE without 1G pages": (replace(LONG, page1gb=False), -(1 << 30) % 2**64, 2, PS),
    "bit 8 of a PML4E of AMD's": (replace(LONG, amd=True), 0xFFFF_8000_0000_0000, 3, G),
    "beyond MAXPHYADDR, PAE": (cpu_of(Mode.PAE), SMALL, 0, 1 << 62),
    "bit 13 of a 4M page without PSE-36": (
        cpu_of(Mode.BITS_32, pse36=False),
        LARGE,
        1,
        1 << 13,
    ),
    "bit 21 of a 4M page": (cpu_of(Mode.BITS_32), LARGE, 1, 1 << 21),
}


@pytest.mark.parametrize("name", [name for name in MALFORMED if "pointer" not in name])
def test_what_a_reserved_bit_makes_malformed_the_debug_walker_translates(name: str) -> None:
    """Which is a quirk, counted once for each address."""
    cpu, address, level, bits = MALFORMED[name]
    made = Space4(cpu)
    made.map(SMALL, [FRAMES])
    size = made.cpu.format.levels[1].size
    made.map(LARGE, [size], 1)
    if cpu.long:
        made.map(0xFFFF_8000_0000_0000, [FRAMES])
        made.write(-(1 << 30) % 2**64, 2, P | RW | US | 1 << 30) if level == 2 else None
    made.write(address, level, made.read(address, level) | bits)
    ready = made.made()
    found = ready.debugger(only=address).compare_tlb()
    assert (found.compared, found.disagreed) == (1, 0), found.disagreements
    assert found.quirks[DEBUG_WALKER.name] == 1
    found = ready.debugger().compare_tlb()
    assert found.quirks[DEBUG_WALKER.name] == 1 and not found.disagreed
    found = ready.debugger(only=address).compare_translations()
    assert (found.compared, found.disagreed, found.quirks) == (1, 0, {DEBUG_WALKER.name: 1})
    if level == 0:
        found = ready.debugger().compare_contents()
        # Bit 51 is one of the address, to that walker, at which there is no RAM.
        assert found.quirks.get(DEBUG_WALKER.name, 0) == (bits != 1 << 51)


@pytest.mark.parametrize(("bit", "malformed"), [(1, False), (8, False), (52, True), (62, True)])
def test_pdptes_that_are_read_at_every_walk_are_entries(bit: int, malformed: bool) -> None:
    """As TCG has them, of whose bits 63:M alone are reserved."""
    made = Space4(cpu_of(Mode.PAE))
    made.map(SMALL, [FRAMES])
    raw = made.cpu.pdptes[0] | 1 << bit
    made.memory.store(Physical(made.cpu.cr3), 8, raw)
    ready = made.made()
    walked = replace(made.cpu, pdptes=(0,) * 4, pdptes_checked=bits_from(40))
    ready.monitor.machine = replace(ready.monitor.machine, pdptes=(raw, *made.cpu.pdptes[1:]))
    debugger = Debugger(ready.monitor, walked, ready.memory, None)
    quirks = {DEBUG_WALKER.name: 1} if malformed else {}
    for found in (
        debugger.compare_tlb(),
        Debugger(ready.monitor, walked, ready.memory, None, SMALL).compare_translations(),
    ):
        assert (found.compared, found.disagreed, found.quirks) == (1, 0, quirks), found


def bits_from(lowest: int) -> int:
    return (1 << 64) - (1 << lowest)


def test_a_reference_that_knows_a_reserved_bit_less_disagrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The monitor is no witness to reserved bits; the second reading is."""
    made = Space4(LONG)
    made.map(SMALL, [FRAMES, FRAMES])
    made.write(SMALL, 0, FRAMES | P | 1 << 45)
    ready = made.made()
    wider, roots = replace(ready.cpu, maxphyaddr=46), ready.debugger()._debug_roots
    for reference, at, expected, said in (
        (LONG.format, None, "", ""),
        (wider.format, SMALL, "leaf at level 0", "a reserved bit is set, by a second"),
    ):
        monkeypatch.setattr(Cpu, "format", reference)
        debugger = Debugger(ready.monitor, replace(ready.cpu), ready.memory, None)
        debugger.__dict__["_debug_roots"] = roots
        found = debugger.compare_tlb()
        assert found.disagreed == (at is not None)
        for one in found.disagreements:
            assert (one.address, one.expected) == (at, expected)
            assert one.observed.startswith(said)


@pytest.mark.parametrize(
    ("mode", "level", "raw", "printed"),
    [
        (Mode.PAE, 0, FRAMES | P | XD, FRAMES | XD),
        (Mode.PAE, 0, FRAMES | P | 1 << 11, FRAMES),
        (Mode.BITS_32, 0, FRAMES | P | 1 << 11, FRAMES),
        (Mode.PAE, 1, 4 * MIB | P | PS | 1 << 12 | XD, 4 * MIB | XD),
        (Mode.PAE, 1, 4 * MIB | P | PS | 1 << 20, 5 * MIB),
        (Mode.BITS_32, 1, 8 * MIB | P | PS | 1 << 12 | 0x5 << 13, 8 * MIB),
        (Mode.BITS_32, 1, 8 * MIB | P | PS | 1 << 20, 8 * MIB),
        (Mode.BITS_32, 1, 8 * MIB | P | PS | 1 << 21, 10 * MIB),
        (Mode.LEVEL_4, 0, FRAMES | P | XD, FRAMES),
        (Mode.LEVEL_4, 0, 1 << 50 | FRAMES | P, FRAMES),
    ],
)
def test_outside_long_mode_info_tlb_prints_the_bits_of_entries(
    mode: Mode, level: int, raw: int, printed: int
) -> None:
    """From version 7.2 on; the address is right in `gva2gpa`."""
    made = Space4(cpu_of(mode, maxphyaddr=52))
    made.map(SMALL, [FRAMES])
    made.map(LARGE, [made.cpu.format.levels[1].size], 1)
    address = LARGE if level else SMALL
    made.write(address, level, raw)
    ready = made.made()
    [row] = [row for row in ready.monitor.info_tlb() if row["virtual"] == address]
    assert row["physical"] == printed
    found = ready.debugger().compare_tlb()
    long = mode in (Mode.LEVEL_4, Mode.LEVEL_5)
    departs = {} if long or raw & 1 << 11 else {TLB_PRINTS_ENTRIES.name: 1}
    reserved = {Mode.PAE: 1 << 20, Mode.BITS_32: 1 << 21}.get(mode, 0)
    malformed = {DEBUG_WALKER.name: 1} if level and raw & reserved else {}
    assert (found.disagreed, found.quirks) == (0, departs | malformed)
    assert not ready.debugger().compare_translations().disagreed
    if departs:
        older = made.made(version=(7, 1, 0)).debugger().compare_tlb()
        assert older.disagreed and older.quirks == malformed


# ---- of someone's own guest ----


def test_of_someone_s_guest_memory_is_read_twice_where_it_is_shared() -> None:
    made = furnished(Mode.LEVEL_4).made(OneWord)
    asked = list(foreign.of_foreign(made.monitor, made.cpu, made.memory, None, False))
    assert [one.oracle for one in asked] == [INFO_TLB, GVA2GPA]
    seen = BufferMemory(made.memory.octets.copy())
    asked = list(foreign.of_foreign(made.monitor, made.cpu, made.memory, seen, False))
    assert [one.oracle for one in asked] == [MONITOR_MEMORY, INFO_TLB, GVA2GPA]
    assert not any(one.disagreed for one in asked)
    seen.store(Physical(made.cpu.cr3), 8, 0)
    walkers, *others = foreign.of_foreign(made.monitor, made.cpu, made.memory, seen, False)
    assert walkers.disagreed and not any(one.disagreed for one in others)


def test_of_someone_s_guest_a_sample_is_asked_about_or_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAMPLE", 3)
    made = furnished(Mode.LEVEL_4).made()
    some, every = (
        list(foreign.of_foreign(made.monitor, made.cpu, made.memory, None, thorough))[-1].compared
        for thorough in (False, True)
    )
    assert some < every


def test_an_engine_and_its_version_that_were_not_run_are_named() -> None:
    assert foreign.new_versions("tcg", (10, 0, 13)) == ()
    [said] = foreign.new_versions("tcg", (6, 2, 0))
    assert said.startswith("tcg 6.2.0: not yet run")
    [said] = foreign.new_versions("kvm_amd", (12, 0, 0))
    assert said.startswith("QEMU 12.0.0: not yet run")
