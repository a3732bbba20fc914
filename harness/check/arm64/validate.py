"""One space of arm64: what a guest, and QEMU's memory, make of it beside the reference."""

from __future__ import annotations

import time

import numpy as np

from harness.check.arm64 import at, debugger, probes
from harness.check.arm64.cases import Stated, alone, of_places, of_space
from harness.check.arm64.layouts import build
from harness.check.arm64.quirks import not_run_on
from harness.check.arm64.window import entries
from harness.check.compare import Comparison
from harness.check.layouts import Layout
from harness.check.tables import compare_tables, images_of
from harness.check.translations import GVA2GPA
from harness.check.validation import (
    DEADLINE,
    Built,
    SpaceReport,
    built_in,
    chosen,
    note_left_out,
    reported,
)
from harness.machine.arm64.guest import Guest, State
from harness.machine.arm64.processor import SCTLR
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.arm64.cpu import Cpu
from harness.paging.memory import Words, within


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
    thorough whether `gva2gpa` is asked about all mappings, and not a sample: the guest is asked
             about all of them, by accesses and by AT
    program  a QEMU for arm64; the usual one unless given

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """
    del engine
    started = time.monotonic()
    with Guest(ram_bytes=layout.ram, program=program, deadline=DEADLINE) as guest:
        with built_in(guest, layout, levels, build, entries) as built:
            found = compare_space(guest, built, thorough=thorough)
        return reported(guest, layout, levels, found, started, not_run_on(guest.version))


def compare_space(
    guest: Guest, built: Built[Cpu], asked: Words | None = None, *, thorough: bool = False
) -> tuple[Comparison, ...]:
    """Asks about a space in a guest's memory; `asked` are addresses that are tried besides,
    `thorough` is as for `validate`."""
    memory, cpu, frames, window = built
    written = images_of(memory, cpu.roots)
    leaves = bulk.leaves(memory, cpu.roots)
    beside = leaves.take(~within(leaves.virtual, window))
    every = of_space(cpu, memory, beside, window)
    cases = every.take(chosen(len(every)))
    if asked is not None:
        cases += of_places(asked, window)
    state = state_of(cpu, window)
    translated = at.ask_at(guest, state, cpu, memory, cases)
    probed = probes.ask_guest(guest, state, cpu, memory, frames, written, cases)
    note_left_out(probed, len(every))
    with guest.parked(state) as monitor:
        loads = debugger.asked_of(cases, thorough)
        led = debugger.ask_monitor(guest, monitor, cpu, memory, loads)
        return probed, translated, led, compare_tables(monitor, *written)


def compare_one(
    guest: Guest, built: Built[Cpu], oracle: str, address: int, access: Stated | None
) -> Comparison:
    """Asks one oracle one question again."""
    memory, cpu, frames, window = built
    state, written = state_of(cpu, window), images_of(memory, cpu.roots)
    if access is not None:
        asked = alone(address, access)
        if oracle == at.AT:
            return at.ask_at(guest, state, cpu, memory, asked)
        return probes.ask_guest(guest, state, cpu, memory, frames, written, asked)
    with guest.parked(state) as monitor:
        if oracle == GVA2GPA:
            only = np.array([address], np.uint64)
            return debugger.ask_monitor(guest, monitor, cpu, memory, only)
        return compare_tables(monitor, *(one.holding(address) for one in written))


def state_of(cpu: Cpu, window: Span) -> State:
    """What a guest has to load to translate as `cpu` does, with the window there."""
    return State(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr | SCTLR, window.first)
