"""Every oracle can say no: a fault that one of them alone can see is seen by that one, and what an
oracle is asked about is what it should be asked about."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check import debugger
from harness.check.compare import PROBE, Comparison
from harness.check.debugger import MONITOR_MEMORY
from harness.check.layouts import Layout, find, load, parse
from harness.check.tables import TABLE_BYTES, TableImage
from harness.check.translations import GVA2GPA
from harness.check.x86 import validate
from harness.check.x86.debugger import (
    INFO_TLB,
    MEMSAVE,
    Debugger,
)
from harness.check.x86.quirks import DEBUG_WALKER
from harness.machine.monitor import Monitor
from harness.machine.physical import PhysicalMemory
from harness.machine.x86.engines import why_absent
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.bulk import End, Leaves
from harness.paging.memory import BufferMemory
from harness.paging.table import Root
from harness.paging.x86 import formats
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu
from tests.check.x86.plants import also_reserved, not_reserved

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")

PAGES = """
title = "Pages of two sizes, and a reserved bit"
levels = [4]
ram = "64M"
[cpu]
maxphyaddr = 40
[[map]]
virtual = 0x4000_0000
size = "4K"
count = 8
[[map]]
virtual = 0x8000_0000
size = "2M"
count = 2
rights = "wx"
[[entry]]
virtual = 0x4000_a000
level = 0
value = 0x8_0000_0300_0007
"""
"""Bit 51 of the last entry is reserved."""
UNUSED = 0x4000_0000 + 9 * 0x1000
"""Its entry is in a table that is used, and is not."""


@pytest.fixture(scope="module")
def layout() -> Layout:
    return parse(PAGES, "pages.toml")


Space = tuple[Guest, BufferMemory, Cpu]


@pytest.fixture(scope="module")
def space(layout: Layout) -> Iterator[Space]:
    reason = why_absent("tcg", program=QEMU)
    if reason is not None:
        pytest.skip(f"tcg cannot run here: {reason}")
    with validate.guest_for(layout, "tcg", QEMU) as guest:
        memory, cpu = validate.build_in(guest, layout, 4)
        yield guest, memory, cpu


def compared(space: Space) -> dict[str, Comparison]:
    guest, memory, cpu = space
    asked = validate.compare_space(guest, memory, replace(cpu), thorough=True)
    return {one.oracle: one for one in asked}


def in_table_bytes(patch: MonkeyPatch, _: Space) -> None:
    """An entry that is absent has other bytes in the monitor's memory."""
    true = PhysicalMemory.read

    def read(self: PhysicalMemory, addresses: Any) -> Any:
        octets, there = true(self, addresses)
        octets = octets.copy()
        slots = octets.view("<u8")
        slots[slots == 0] = 2
        return octets, there

    patch.setattr(PhysicalMemory, "read", read)


def changed_rows(change: Callable[[Leaves], Leaves]) -> Callable[[MonkeyPatch, Space], None]:
    """All that a space holds is listed otherwise, whatever memory it is read from."""
    true = debugger._rows
    return lambda patch, _: patch.setattr(debugger, "_rows", lambda *asked: change(true(*asked)))


def without_a_row(rows: Leaves) -> Leaves:
    kept = rows.take(rows.virtual != np.uint64(0x4000_3000))
    return replace(kept, total=rows.total - 1)


def in_tlb(patch: MonkeyPatch, _: Space) -> None:
    true = Monitor.info_tlb

    def rows(self: Monitor) -> Any:
        found = true(self).copy()
        found["W"] ^= found["virtual"] == 0x4000_3000
        return found

    patch.setattr(Monitor, "info_tlb", rows)


def in_translations(patch: MonkeyPatch, _: Space) -> None:
    true = Monitor.translations

    def answers(self: Monitor, asked: Sequence[int]) -> list[int | None]:
        return [at if at is None else at ^ 0x1000 for at in true(self, asked)]

    patch.setattr(Monitor, "translations", answers)


def in_contents(patch: MonkeyPatch, _: Space) -> None:
    true = Monitor.read_virtual

    def content(self: Monitor, address: int, size: int) -> bytes | None:
        found = true(self, address, size)
        return found and found[:-1] + bytes([found[-1] ^ 1])

    patch.setattr(Monitor, "read_virtual", content)


PLANTS: dict[str, tuple[str, Callable[[MonkeyPatch, Space], None]]] = {
    "bytes of a table": (TABLE_BYTES, in_table_bytes),
    "a row is missing": (MONITOR_MEMORY, changed_rows(without_a_row)),
    **{
        f"rows have another {name}": (
            MONITOR_MEMORY,
            changed_rows(
                lambda rows, name=name, by=by: replace(  # type: ignore[misc]
                    rows, **{name: getattr(rows, name) ^ by}
                )
            ),
        )
        for name, by in (
            ("physical", np.uint64(0x1000)),
            ("granted", np.uint64(formats.US)),
            ("raw", np.uint64(1 << 9)),
            ("level", np.uint8(1)),
            ("end", np.uint8(End.LEAF ^ End.MALFORMED)),
        )
    },
    "a flag of a row": (INFO_TLB, in_tlb),
    "a translation": (GVA2GPA, in_translations),
    "a byte of a page": (MEMSAVE, in_contents),
}
"""What goes wrong, and the oracle that says so."""


@pytest.mark.hw
@pytest.mark.parametrize("name", PLANTS)
def test_what_an_oracle_alone_can_see_it_sees(
    name: str, space: Space, monkeypatch: MonkeyPatch
) -> None:
    oracle, plant = PLANTS[name]
    plant(monkeypatch, space)
    disagreed = {name: one.disagreed for name, one in compared(space).items() if one.disagreed}
    assert set(disagreed) == {oracle}


@pytest.mark.hw
def test_with_nothing_planted_all_agree(space: Space) -> None:
    found = compared(space)
    assert {name: one.disagreed for name, one in found.items()} == dict.fromkeys(found, 0)
    assert set(found) == {PROBE, TABLE_BYTES, MONITOR_MEMORY, INFO_TLB, GVA2GPA, MEMSAVE}
    assert found[INFO_TLB].quirks == {DEBUG_WALKER.name: 1}


# ---- reserved bits, of which the monitor is no witness ----


@pytest.mark.hw
@pytest.mark.parametrize(
    "plant",
    [not_reserved(1 << 51), also_reserved(1 << 2), also_reserved(1 << 1, pointers=False)],
    ids=["none is reserved", "one more is", "one more is, of pages"],
)
def test_the_monitor_s_quirk_excuses_no_other_reserved_bits(
    plant: Callable[[MonkeyPatch], None], space: Space, monkeypatch: MonkeyPatch
) -> None:
    guest, memory, cpu = space
    with validate._window(guest, memory, cpu) as window, guest.parked(window.state) as monitor:
        plant(monkeypatch)
        wrong = replace(cpu)
        debugger = Debugger(monitor, wrong, memory, window.span)
        found = [debugger.compare_tlb(), debugger.compare_translations()]
    assert all(one.disagreed > 0 for one in found)


# ---- one question, and what is asked ----


@pytest.mark.hw
@pytest.mark.parametrize("oracle", [PROBE, MONITOR_MEMORY, INFO_TLB, GVA2GPA, MEMSAVE])
def test_one_question_can_be_asked_alone(oracle: str, space: Space) -> None:
    guest, memory, cpu = space
    access = Access(Kind.READ, False) if oracle == PROBE else None
    found = validate.compare_one(guest, memory, cpu, oracle, 0x4000_3000, access, False)
    assert (found.compared, found.disagreed) == (1, 0)


@pytest.mark.hw
def test_one_table_can_be_asked_about_alone(space: Space) -> None:
    guest, memory, cpu = space
    root = int(cpu.roots[0].table.address)
    found = validate.compare_one(guest, memory, cpu, TABLE_BYTES, root, None, False)
    assert (found.compared, found.disagreed) == (1, 0)


def test_translations_are_asked_one_byte_outside_what_the_roots_serve(space: Space) -> None:
    _, memory, cpu = space
    debugger = Debugger(None, cpu, memory, None)  # type: ignore[arg-type]
    leaves = bulk.leaves(memory, cpu.roots)
    edges = set(debugger._edges(leaves.take(leaves.end == End.LEAF), None).tolist())
    half = 1 << 47
    assert {0, half - 1, half, 2**64 - half - 1, 2**64 - half, 2**64 - 1} <= edges
    for page, size in ((0x4000_0000, 0x1000), (0x8000_0000, 0x20_0000)):
        assert {page, page + size - 1, page - 1, page + size} <= edges


def test_a_table_that_the_monitor_finds_elsewhere_is_another_though_it_holds_the_same() -> None:
    written, moved, changed = (BufferMemory(np.zeros(0x3000, np.uint8)) for _ in range(3))
    for memory, table in (written, 0x1000), (moved, 0x2000), (changed, 0x1000):
        memory.store(Physical(0), 8, table | 7)
    changed.store(Physical(0x1008), 8, 1 << 9)
    cpu = Cpu.long_mode(4, 0)
    image = TableImage.of(written, cpu.roots)
    for seen, wrong in (written, []), (moved, [0, 0x1000]), (changed, [0x1000]):
        debugger = Debugger(None, cpu, written, None, seen=seen)  # type: ignore[arg-type]
        found = debugger.compare_tables(image)
        assert (found.compared, found.disagreed) == (2, len(wrong))
        assert [one.address for one in found.disagreements] == wrong


def test_tables_without_memory_behind_all_of_them_are_no_table_bytes() -> None:
    octets = np.zeros(0x2800, np.uint8)
    memory = BufferMemory(octets)
    format = Cpu.long_mode(4, 0).format
    for slot, table in ((0, 0x1000), (1, 0x2000)):
        octets[8 * slot : 8 * slot + 8] = np.array([table | 7], "<u8").view(np.uint8)
    cpu = Cpu.long_mode(4, 0)
    roots: tuple[Root, ...] = cpu.roots
    assert roots[0].table.format is format
    assert TableImage.of(memory, roots).address.tolist() == [0, 0x1000]


@pytest.mark.hw
def test_what_memsave_is_not_asked_is_counted() -> None:
    layout = load(find("sparse"))
    with validate.guest_for(layout, "tcg", QEMU) as guest:
        memory, cpu = validate.build_in(guest, layout, 4)
        with validate._window(guest, memory, cpu) as window, guest.parked(window.state) as monitor:
            found = Debugger(monitor, cpu, memory, window.span).compare_contents()
    assert found.compared == 200
    assert found.not_comparable == {"not asked: a sample of scattered pages is read": 56}
