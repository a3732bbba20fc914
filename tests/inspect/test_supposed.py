"""A fault that depends on an entry which is not known is neither claimed nor denied."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from operator import eq
from pathlib import Path
from typing import Any

import pytest

from harness.architectures import NAMES, USUAL
from harness.inspect import architecture
from harness.inspect.fault import explain_all
from harness.inspect.overlay import Overlay
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout
from harness.inspect.supposed import _entries, depends
from harness.inspect.trial import each
from harness.paging.address import Physical, Virtual
from harness.paging.entry import Leaf, Pointer
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import root_for
from harness.paging.table import Slot
from harness.paging.walk import walk
from tests.cli.commands import run


class Cut:
    """Memory that ends below an address, where another goes on: or one table of it is missing."""

    def __init__(self, memory: Memory, lacking: range) -> None:
        self._memory, self._lacking = memory, lacking

    def load(self, address: Physical, size: int) -> int | None:
        return None if address in self._lacking else self._memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        raise NotImplementedError


def pages(memory: Memory, slots: Iterator[tuple[int, Slot]]) -> Iterator[int]:
    """The addresses of pages of the smallest size."""
    for address, slot in slots:
        format = slot.table.format
        raw = memory.load(slot.address, format.entry_bytes)
        entry = None if raw is None else format.decode(raw, slot.level)
        if isinstance(entry, Leaf) and not slot.level:
            yield address
        if isinstance(entry, Pointer):
            table, size = entry.table, format.levels[slot.level - 1].size
            entries = format.levels[slot.level - 1].entries
            yield from pages(
                memory, ((address + size * one, table.slot(one)) for one in range(entries))
            )


def machine(arch: str) -> tuple[Snapshot, Virtual]:
    """A file of tables, and the address of a page."""
    name = "smallest" if arch == USUAL else f"{arch}/smallest"
    made = replace(layout.snapshot(name, 4, {}), partial=True, backed=None)
    found = (page for root in made.cpu.roots for page in pages(made.memory, root.slots()))
    return made, Virtual(next(found))


@pytest.mark.parametrize("arch", NAMES)
def test_the_faults_of_a_missing_entry_are_open_and_those_of_the_entries_above_are_not(
    arch: str,
) -> None:
    made, address = machine(arch)
    asked = architecture.of(made.cpu)
    root = root_for(made.cpu, address)
    assert root is not None
    steps = walk(made.memory, root, address).steps
    assert len(steps) > 1
    for above, below in pairwise(steps):
        table = below.slot.table
        size = table.format.entry_bytes << table.format.levels[table.level].index_bits
        lacking = range(table.address, table.address + size)
        cut = replace(made, memory=Cut(made.memory, lacking))
        explained = explain_all(cut, address, asked.accesses(None, None, False))
        for one in explained:

            def raised(slot: Slot, raw: int, access: Any = one.access) -> Any:
                there = Overlay(made.memory, {slot.address: raw})
                return asked.outcome(made.cpu, there, address, access)

            absent = [
                raised(step.slot, step.slot.table.format.levels[step.slot.level].empty)
                for step in (above, below)
            ]
            assert not any(isinstance(outcome, asked.allowed) for outcome in absent)
            assert absent[0] != absent[1]
            assert depends(cut, [one], partial(eq, absent[1]))
            if one is explained[0]:
                last = steps[-1].slot
                lowest = raised(last, last.table.format.levels[last.level].empty)
                assert depends(cut, [one], partial(eq, lowest))
            assert not depends(cut, [one], partial(eq, absent[0]))
            live = replace(cut, partial=False)  # a machine has no more memory than that
            assert not depends(live, [one], partial(eq, absent[1]))


@pytest.mark.parametrize("arch", NAMES)
def test_entries_of_each_kind_are_supposed_and_none_twice(arch: str) -> None:
    """Absent by each pattern, malformed by each rule, and whatever decides of those that are not;
    of fields with many values as many as are looked at."""
    made, _ = machine(arch)
    source = random.Random(arch)
    formats = {root.table.format for root in made.cpu.roots}
    for format, level in product(formats, range(made.cpu.levels)):
        here, supposed = format.levels[level], [*_entries(format, level)]
        assert not any(raw >> 8 * format.entry_bytes for raw in supposed)
        absent = [raw for raw in supposed if here.is_absent(raw)]
        assert all(any(map(pattern.matches, absent)) for pattern in here.absent)
        for shape in here.shapes:
            mine = [raw for raw in supposed if raw not in absent and here.shape(raw) is shape]
            wrong = {shape.offending(raw) & shape.reserved_mask for raw in mine}
            assert wrong >= {0, *each(shape.reserved_mask)}
            assert all(any(map(one.pattern.matches, mine)) for one in shape.forbidden)
            assert any(raw & shape.address_mask == shape.address_mask for raw in mine)

            def decides(raw: int, level: int = level, format: Format = format) -> tuple[int, ...]:
                return format.granted(raw, level), raw & format.accessed, raw & format.dirty

            good = [raw for raw in mine if not shape.offending(raw)]
            assert shape.points or len(good) == len(set(good))
            fields = [0, *(one for one in shape.bits.values() if not one & shape.taken)]
            seen = {field: {(*decides(raw), raw & field) for raw in good} for field in fields}
            for _ in range(20):
                raw = source.getrandbits(8 * format.entry_bytes) & ~shape.clean.mask
                raw |= shape.clean.value
                if here.is_absent(raw) or here.shape(raw) is not shape or shape.offending(raw):
                    continue
                for field in fields:
                    if raw & field <= LOOKED_AT * (field & -field):
                        assert (*decides(raw), raw & field) in seen[field]


LOOKED_AT = 16
"""Values of a field."""

X86 = ("0x801000", "--entries")
RISCV = ("--satp", "0x8000000000080000", "0x801000", "--entries")
ARM64 = ("--tcr", "0x5003d1510", "0x801000", "--entries")


@pytest.mark.parametrize(
    ("asked", "depends_on"),
    [
        ((*X86, "PMD=0x33a1a065", "--code", "7"), "PTE"),
        ((*X86, "PMD=0x33a1a067", "--code", "7"), "PTE"),
        ((*X86, "PMD=0x33a1a067", "--code", "6"), "PTE"),
        ((*X86, "PMD=0x33a1a067", "--code", "0xf"), "PTE"),
        ((*X86, "PUD=0x33a1a067", "--code", "7"), "PDE"),
        ((*X86, "PMD=0x33a1a065", "--code", "3", "--access", "write", "--supervisor"), "PTE"),
        ((*X86, "PMD=0x33a1a065", "--code", "0x27"), None),  # no key decides here
        ((*RISCV, "PMD=0x20000401", "--code", "15"), "PTE"),
        ((*RISCV, "PMD=0x20000401", "--code", "12"), "PTE"),
        ((*ARM64, "PMD=0x4000000040001003", "--esr", "0x9200004f"), "L3"),
        ((*ARM64, "PMD=0x4000000040001003", "--esr", "0x92000047"), "L3"),
        ((*ARM64, "PMD=0x4000000040001003", "--esr", "0x9200004e"), None),  # at L2, which is good
    ],
)
def test_a_fault_that_an_entry_decides_which_is_not_given_is_neither_claimed_nor_denied(
    asked: tuple[str, ...], depends_on: str | None, tmp_path: Path
) -> None:
    lines = run("fault", *asked, cwd=tmp_path)[1].splitlines()
    [at] = (number for number, line in enumerate(lines) if line.startswith("These entries"))
    found = json.loads(run("fault", *asked, "--json", cwd=tmp_path)[1])
    if depends_on:
        assert lines[at].startswith("These entries may give this fault: it depends on the")
        assert lines[at].endswith(f" {depends_on}, which is not given.")
        assert not lines[at + 1]
        assert (found["given"], found["explanations"]) == (None, [])
    else:
        assert lines[at] == "These entries do not give this fault. It may be that"
        assert found["given"] is False
        assert found["explanations"][-1].startswith("the entries are what the handler read")
    changes = [line.split(maxsplit=1)[1] for line in lines if line.startswith("  change ")]
    assert set(changes) == {"none is known without that entry"}
    assert not any("outside this memory" in line or "here TTBR" in line for line in lines)


def test_a_table_behind_the_end_of_a_file_decides(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes((0x2007).to_bytes(8, "little") * 512)
    where = ("--ram", "ram@0x1000", "--cr3", "0x1000")
    out = run("fault", "0x801000", *where, "--code", "7", cwd=tmp_path)[1]
    heading = "The tables as they are may give this fault: it depends on the level-2 table at"
    assert f"{heading} 0x2000, which lies outside memory." in out
