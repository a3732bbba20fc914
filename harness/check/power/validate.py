"""One space of POWER: what a guest, and QEMU's memory, make of it beside the reference."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from harness.check.compare import Comparison
from harness.check.layouts import Layout
from harness.check.power import probes
from harness.check.power.cases import of_space
from harness.check.power.layouts import build
from harness.check.power.quirks import not_run_on
from harness.check.power.window import entries
from harness.check.tables import TableImage, compare_tables
from harness.check.validation import DEADLINE, Built, SpaceReport, built_in, reported
from harness.machine.power.guest import Guest, State
from harness.machine.power.qemu import SMALLEST_RAM
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import within
from harness.paging.power.cpu import Cpu

KEYS: Final = ((0, 0), (1 << 62, 1 << 62), (1 << 63, 0), (3 << 62, 1 << 62))
"""AMR and IAMR, under each of which everything is asked: key 0 denies nothing, loads and fetches,
stores, all."""


def validate(
    layout: Layout,
    levels: int,
    engine: str = "tcg",
    *,
    program: str | None = None,
    thorough: bool = False,
) -> SpaceReport:
    """Builds a layout in a new guest's memory, and asks the guest and QEMU about it.

    engine   there is but one
    thorough changes nothing: the guest is asked about all mappings, and QEMU's monitor about all
             tables; of mappings it cannot be asked, since the stub is not translated
    program  a QEMU for POWER; the usual one unless given

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """
    del engine, thorough
    started = time.monotonic()
    ram = max(layout.ram, SMALLEST_RAM)
    with Guest(ram_bytes=ram, program=program, deadline=DEADLINE) as guest:
        with built_in(guest, layout, levels, build, entries) as built:
            found = compare_space(guest, built)
        return reported(guest, layout, levels, found, started, not_run_on(guest.version))


def compare_space(guest: Guest, built: Built[Cpu]) -> tuple[Comparison, ...]:
    """Asks about a space in a guest's memory."""
    memory, cpu, frames, window = built
    written = TableImage.of(memory, cpu.roots)
    leaves = bulk.leaves(memory, cpu.roots)
    beside = leaves.take(~within(leaves.virtual, window))
    cases = of_space(cpu, memory, beside, window)
    probed = []
    for amr, iamr in KEYS:
        keyed = replace(cpu, amr=amr, iamr=iamr)
        state = state_of(keyed, window)
        probed.append(probes.ask_guest(guest, state, keyed, memory, frames, cases))
    with guest.parked(state_of(cpu, window)) as monitor:
        return (*probed, compare_tables(monitor, written))


def state_of(cpu: Cpu, window: Span) -> State:
    """What a guest has to load to translate as `cpu` does, with the window there."""
    return State(cpu.quadrant0, cpu.quadrant3, cpu.amr, cpu.iamr, window.first)
