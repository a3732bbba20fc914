"""One space of RISC-V: what a guest, and QEMU's memory, make of it beside the reference."""

from __future__ import annotations

import shutil
import time

from harness.check.compare import Comparison
from harness.check.layouts import Layout
from harness.check.riscv import probes
from harness.check.riscv.cases import Cases, Stated, of_places, of_space
from harness.check.riscv.layouts import build
from harness.check.riscv.quirks import not_run_on
from harness.check.riscv.window import entries
from harness.check.tables import TableImage, compare_tables
from harness.check.validation import (
    DEADLINE,
    Built,
    SpaceReport,
    built_in,
    chosen,
    note_left_out,
    reported,
)
from harness.machine.riscv.guest import Guest, State
from harness.machine.riscv.qemu import TCG, program_for
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import Words, within
from harness.paging.riscv.cpu import Cpu


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
    thorough changes nothing: QEMU's monitor is asked about all tables, and about no mapping
    program  a QEMU for 64 bits, beside which lies that for 32; the usual ones unless given.
             Without that for 32 Sv32 is skipped

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """
    del engine, thorough
    started = time.monotonic()
    xlen = 32 if layout.mode(levels) == "sv32" else 64
    program = program_for(xlen, program)
    if xlen == 32 and shutil.which(program) is None:  # the other modes can be had all the same
        name = TCG[xlen].name
        reason = f"there is no {program} in PATH"
        return SpaceReport(layout, levels, name, "", reason, (), time.monotonic() - started)
    with Guest(xlen, ram_bytes=layout.ram, program=program, deadline=DEADLINE) as guest:
        with built_in(guest, layout, levels, build, entries) as built:
            found = compare_space(guest, built)
        return reported(guest, layout, levels, found, started, not_run_on(guest.version))


def compare_space(
    guest: Guest, built: Built[Cpu], asked: Words | None = None
) -> tuple[Comparison, ...]:
    """Asks about a space in a guest's memory; `asked` are addresses that are tried besides."""
    memory, cpu, frames, window = built
    written = TableImage.of(memory, cpu.roots)
    leaves = bulk.leaves(memory, cpu.roots)
    beside = leaves.take(~within(leaves.virtual, window))
    every = of_space(cpu, memory, beside, window)
    cases = every.take(chosen(len(every)))
    if asked is not None:
        cases += of_places(cpu, asked, window)
    state = state_of(cpu, window)
    probed = probes.ask_guest(guest, state, cpu, memory, frames, written, cases)
    note_left_out(probed, len(every))
    with guest.parked(state) as monitor:
        return probed, compare_tables(monitor, written)


def compare_one(guest: Guest, built: Built[Cpu], address: int, access: Stated | None) -> Comparison:
    """Asks one question again: of a guest about an access to an address, or, without one, of QEMU
    about the table that the address lies in."""
    memory, cpu, frames, window = built
    state, written = state_of(cpu, window), TableImage.of(memory, cpu.roots)
    if access is not None:
        case = Cases.of(address, access)
        return probes.ask_guest(guest, state, cpu, memory, frames, written, case)
    with guest.parked(state) as monitor:
        return compare_tables(monitor, written.holding(address))


def state_of(cpu: Cpu, window: Span) -> State:
    """What a guest has to load to translate as `cpu` does, with the window there."""
    return State(cpu.satp, window.first, cpu.menvcfg, cpu.senvcfg, cpu.xlen)
