"""What the QEMU of someone's own arm64 guest is asked, answered by one that does as its source has
it, and by others that do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.arm64.foreign import new_versions, of_foreign
from harness.check.arm64.layouts import build
from harness.check.compare import Comparison
from harness.check.debugger import MONITOR_MEMORY, edges
from harness.check.layouts import Layout, divided, load, parse, shipped
from harness.check.translations import GVA2GPA, SAMPLE
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.arm64.cpu import Cpu
from harness.paging.memory import BufferMemory
from tests.check.arm64.by_rules import MAX, Monitor
from tests.paging.arm64_rules import Machine

LAYOUTS = {path.stem: path for path in shipped("arm64")}

STATES = {"EL0 with PAN": 1 << 22, "EL1": 0x5, "EL1 with PAN": 1 << 22 | 0x5}
"""The processor's cpsr; at EL0 PSTATE.PAN says nothing of loads."""

ONCE, AGAIN = ((7, 2, 22), (10, 0, 13)), ((10, 1, 0), (11, 1, 3))
"""Versions that ask as the processor alone, and that then ask as EL1 without PAN; of the versions
between those that were run it is taken that they do as the later one."""

E0PD0, E0PD1 = 1 << 55, 1 << 56


def built(layout: Layout, levels: int, closed: int = 0) -> tuple[Cpu, BufferMemory]:
    tables, _ = divided(layout)
    memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
    cpu: Any = build(layout, levels, MAX, memory)
    return replace(cpu, tcr=cpu.tcr | closed), memory


def qemu(cpu: Cpu, memory: BufferMemory, state: str, version: tuple[int, ...]) -> Monitor:
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr, ram=memory.span.first)
    return Monitor(machine, memory, STATES[state], version, version in AGAIN)


def asked(
    monitor: Any, cpu: Cpu, memory: BufferMemory, seen: BufferMemory | None = None
) -> list[Comparison]:
    return list(of_foreign(monitor, cpu, memory, seen, thorough=False))


SPACES = {
    "rights": ("rights", 3, 0),
    "no hardware": ("no-hardware", 3, 0),
    "the lower half closed": ("rights", 3, E0PD0),
    "the upper half closed": ("rights", 4, E0PD1),
    "two granules": ("two-granules", 4, 0),
}


@pytest.mark.parametrize("version", [ONCE[-1], AGAIN[-1]])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("space", SPACES)
def test_it_asks_as_the_processor_and_later_ones_again_as_el1(
    space: str, state: str, version: tuple[int, ...]
) -> None:
    name, levels, closed = SPACES[space]
    cpu, memory = built(load(LAYOUTS[name]), levels, closed)
    monitor = qemu(cpu, memory, state, version)
    found = asked(monitor, cpu, memory)
    assert [one.oracle for one in found] == [GVA2GPA] * len(cpu.parts)
    assert not any(one.disagreed for one in found), found[0].disagreements
    for one, part in zip(found, cpu.parts, strict=True):
        leaves = bulk.leaves(memory, part.roots)
        assert one.compared == len(edges(part, leaves, SAMPLE)) > 20 and not one.not_comparable
    otherwise = replace(monitor, again=not monitor.again)
    apart = sum(one.disagreed for one in asked(otherwise, cpu, memory))
    shut = state == "EL0 with PAN" and space == "the lower half closed"
    assert apart == 0 if state == "EL1" or shut else apart >= 4


@pytest.mark.parametrize("version", ONCE + AGAIN)
def test_a_series_asks_alike(version: tuple[int, ...]) -> None:
    cpu, memory = built(load(LAYOUTS["rights-64k"]), 3)
    monitor = qemu(cpu, memory, "EL0 with PAN", version)
    [found] = asked(monitor, cpu, memory)
    assert not found.disagreed, found.disagreements


NOWHERE = """
title = "Descriptors that lead nowhere"
arch = "arm64"
levels = [4]
ram = "128M"
map = [
    { virtual = 0x40_0000, size = "4K" },
    { virtual = 0x7f_ffff_f000, size = "4K" },
]
entry = [
    { virtual = 0x40_1000, level = 0, value = 0x4400_0401 },
    { virtual = 0x80_0000_0000, level = 3, value = 0x4000_0401 },
]
"""


@pytest.mark.parametrize("version", ONCE + AGAIN)
def test_what_leads_nowhere_is_asked_where_qemu_and_the_rules_can_agree(
    version: tuple[int, ...],
) -> None:
    """A table beyond the memory, and beside pages type 01 above 1G, and where pages are."""
    cpu, memory = built(parse(NOWHERE, "nowhere.toml"), 4)
    [beside] = bulk.paths(memory, cpu.roots[0], np.array([0x60_0000], np.uint64)).slot[1]
    memory.store(Physical(beside), 8, 0x4700_0003)
    monitor = qemu(cpu, memory, "EL1", version)
    [found] = asked(monitor, cpu, memory)
    assert not found.disagreed, found.disagreements
    below = {"a descriptor of the path has no memory behind it": 3}
    blocks = {"descriptors that QEMU reads otherwise (tcg-arm-block-anywhere)": 1}
    assert found.not_comparable == below | (blocks if version < (10, 0) else {})
    every = edges(cpu, bulk.leaves(memory, cpu.roots), SAMPLE)
    assert found.compared == len(every) - found.not_comparable.total()


def test_all_mappings_are_asked_about_or_a_sample() -> None:
    cpu, memory = built(load(LAYOUTS["dense"]), 3)
    monitor = qemu(cpu, memory, "EL1", (10, 0, 13))
    few, many = (
        next(of_foreign(monitor, cpu, memory, None, thorough)).compared  # type: ignore[arg-type]
        for thorough in (False, True)
    )
    assert SAMPLE < few < 5 * SAMPLE < 2048 < many


def test_tables_that_the_monitor_reads_otherwise_are_found() -> None:
    cpu, memory = built(load(LAYOUTS["rights"]), 3)
    monitor = qemu(cpu, memory, "EL1", (10, 0, 13))
    same = BufferMemory(memory.octets.copy(), memory.span.first)
    found = asked(monitor, cpu, memory, same)
    assert [(one.oracle, one.disagreed) for one in found] == [(MONITOR_MEMORY, 0), (GVA2GPA, 0)]
    same.store(cpu.roots[0].table.slot(0).address, 8, 0)
    assert asked(monitor, cpu, memory, same)[0].disagreed


def test_a_version_that_was_not_run_is_said() -> None:
    assert [new_versions("tcg", one) for one in ((7, 2, 22), (10, 0, 13), (11, 1, 3))] == [()] * 3
    [said] = new_versions("tcg", (12, 0, 0))
    assert "12.0.0" in said
