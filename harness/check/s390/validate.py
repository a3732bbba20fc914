"""One space of s390: what a guest, and QEMU's memory, make of it beside the reference."""

from __future__ import annotations

import time

from harness.check.compare import Comparison
from harness.check.layouts import Layout, divided
from harness.check.s390 import probes
from harness.check.s390.cases import of_space
from harness.check.s390.layouts import build
from harness.check.s390.quirks import not_run_on
from harness.check.tables import TableImage, compare_tables
from harness.check.validation import DEADLINE, SpaceReport, reported
from harness.machine.s390.guest import Guest, State
from harness.machine.s390.processor import CR0
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.cpu import Cpu


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
    thorough changes nothing: QEMU's monitor is asked about all tables, and about no mapping, since
             it translates as the space does from which instructions are fetched
    program  a QEMU for s390x; the usual one unless given

    Raises LayoutError for a layout that cannot be built, Misuse and MachineError for a guest that
    cannot be had or is lost.
    """
    del engine, thorough
    started = time.monotonic()
    with Guest(ram_bytes=layout.ram, program=program, deadline=DEADLINE) as guest:
        memory = BigEndianMemory(guest.ram.buffer, guest.ram.base)
        cpu = build(layout, levels, guest.info, memory)
        _, frames = divided(layout)
        found = compare_space(guest, memory, cpu, frames)
        return reported(guest, layout, levels, found, started, not_run_on(guest.version))


def compare_space(
    guest: Guest, memory: BigEndianMemory, cpu: Cpu, frames: Span
) -> tuple[Comparison, ...]:
    """Asks about the space whose root `cpu` holds, in the guest's memory.

    `memory` is the guest's RAM, `frames` the part of it in which pages are: they are overwritten
    with marks.
    """
    written = TableImage.of(memory, cpu.roots)
    cases = of_space(cpu, memory, bulk.leaves(memory, cpu.roots))
    state = state_of(cpu)
    probed = probes.ask_guest(guest, state, cpu, memory, frames, cases)
    with guest.parked(state) as monitor:
        return probed, compare_tables(monitor, written)


def state_of(cpu: Cpu) -> State:
    """What a guest has to load to translate as `cpu` does."""
    known = 0
    for bit in CR0.values():
        known |= bit
    return State(cpu.asce, cpu.cr0 & known)
