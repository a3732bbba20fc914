"""One space, every oracle: what a guest, and QEMU's monitor, make of it beside the reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np

from harness.check.compare import Access, Comparison
from harness.check.layouts import Layout
from harness.check.product import evenly
from harness.check.tables import TableImage, add_walks
from harness.check.validation import DEADLINE, SpaceReport
from harness.check.x86 import probes
from harness.check.x86.cases import Cases, of_places, of_space, together
from harness.check.x86.debugger import Debugger
from harness.check.x86.layouts import Control, build
from harness.check.x86.quirks import fault_quirks, not_run_on
from harness.check.x86.window import Window, check_root, open_window
from harness.machine.machine import Processor, dotted
from harness.machine.x86.engines import executor, interprets, present, reads_as_amd
from harness.machine.x86.guest import Guest, MachineInfo
from harness.machine.x86.registry import engine_named
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import BufferMemory, Words
from harness.paging.space import TableAllocator
from harness.paging.x86.cpu import Cpu, Mode

PROBES_IN_SOFTWARE: Final = 3_000
"""Probes of a space that are executed where KVM does without the processor's virtualization."""


def validate(
    layout: Layout,
    levels: int,
    engine: str,
    *,
    program: str | None = None,
    thorough: bool = False,
) -> SpaceReport:
    """Builds a layout in a new guest's memory and asks every oracle about it.

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no
    hole for the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """
    started = time.monotonic()
    with guest_for(layout, engine, program) as guest:
        comparisons: tuple[Comparison, ...] = ()
        skipped = lacking(layout, levels, guest.info)
        if skipped is None:
            memory, cpu = build_in(guest, layout, levels)
            comparisons = compare_space(guest, memory, cpu, thorough=thorough)
        return SpaceReport(
            layout,
            levels,
            engine,
            dotted(guest.version),
            skipped,
            comparisons,
            time.monotonic() - started,
            not_run_on(*executor(guest), guest.version),
        )


@contextmanager
def guest_for(layout: Layout, engine: str, program: str | None) -> Iterator[Guest]:
    """A guest with the RAM of a layout, and where the engine can choose it the MAXPHYADDR and
    LASS."""
    cpu = _processor(layout, engine, program)
    with Guest(engine, ram_bytes=layout.ram, cpu=cpu, program=program, deadline=DEADLINE) as guest:
        yield guest


def _processor(layout: Layout, engine: str, program: str | None) -> str | None:
    """The processor that a layout needs, of those that the engine can be here; None for its usual
    one."""
    control: Control = layout.control
    if control.maxphyaddr is None and not control.lass:
        return None
    usual, can_be = Processor(), engine_named(engine)
    wanted = Processor(maxphyaddr=control.maxphyaddr or usual.maxphyaddr, lass=control.lass)
    if wanted.lass and can_be.processor(wanted) is not None:
        _, version = present(engine, program).executor
        if version < can_be.since(wanted):
            return None
    return can_be.processor(wanted)


def lacking(layout: Layout, levels: int, info: MachineInfo) -> str | None:
    """What the layout needs and the guest's processor has not, as a reason; None if nothing."""
    control: Control = layout.control
    if levels == 5 and not info.has("la57"):
        return "the engine's processor has no five-level paging (LA57)"
    if control.maxphyaddr not in (None, info.physical_bits):
        return (
            f"the engine's processor has MAXPHYADDR {info.physical_bits},"
            f" and the layout asks for {control.maxphyaddr}"
        )
    if "1G" in layout.page_sizes(levels) and not info.has("gigabyte_pages"):
        return "the engine's processor has no 1-GByte pages"
    asked = {"smep": control.smep, "smap": control.smap, "lass": control.lass, "nx": control.nxe}
    for feature, wanted in asked.items():
        if wanted and not info.has(feature):
            return f"the engine's processor has no {feature.upper()}"
    return None


def build_in(guest: Guest, layout: Layout, levels: int) -> tuple[BufferMemory, Cpu]:
    """Builds a layout in a guest's RAM, for what its processor has."""
    memory = BufferMemory(guest.ram.buffer)
    built = build(
        layout,
        levels,
        memory,
        maxphyaddr=guest.info.physical_bits,
        page1gb=guest.info.has("gigabyte_pages"),
    )
    return memory, replace(built.cpu, amd=reads_as_amd(guest.info))


def compare_space(
    guest: Guest,
    memory: BufferMemory,
    cpu: Cpu,
    *,
    thorough: bool = False,
    places: Words | None = None,
) -> tuple[Comparison, ...]:
    """Asks every oracle about the space whose root `cpu` holds, in the guest's memory.

    `memory` is the guest's RAM; `places` are addresses at which accesses are tried besides.  The
    frames that the space maps are overwritten with marks, and its entries may be accessed and dirty
    afterwards.  Raises SpaceError where the space has no hole for the window, Misuse for a CR3 that
    cannot be loaded or leads elsewhere.
    """
    with _window(guest, memory, cpu) as window:
        written = TableImage.of(memory, cpu.roots)
        leaves = bulk.leaves(memory, cpu.roots)
        cases = of_space(cpu, memory, leaves.take(~window.holds(leaves.virtual)), window.spans)
        places = _NONE if places is None else places
        named = of_places(cpu, memory, places, window.spans)
        tables = written.address
        if cpu.mode is Mode.PAE:  # no page shows another what is loaded, and TCG reads at walks
            tables = np.append(tables, np.uint64(cpu.base & ~(cpu.format.table_bytes(0) - 1)))
        probed = _ask_guest(guest, window, cpu, memory, tables, cases, named)
        if hidden := int(window.holds(places).sum()):
            probed.not_comparable["the stub runs there"] = hidden
        comparisons: tuple[Comparison, ...] = (probed,)
        if guest.has_monitor:
            with guest.parked(window.state) as monitor:
                questions = Debugger(monitor, cpu, memory, window.span).questions(written, thorough)
                comparisons += tuple(ask() for ask in questions.values())
    for comparison in comparisons:
        add_walks(comparison, memory, cpu)
    return comparisons


def compare_one(
    guest: Guest,
    memory: BufferMemory,
    cpu: Cpu,
    oracle: str,
    address: int,
    access: Access | None,
    ac: bool,
) -> Comparison:
    """Asks one oracle one question about a space.  Raises KeyError for an unknown oracle."""
    with _window(guest, memory, cpu) as window:
        written = TableImage.of(memory, cpu.roots)
        if access is not None:
            case = Cases(
                np.array([address], np.uint64),
                np.array([access.kind], np.uint8),
                np.array([access.user]),
                np.array([ac]),
            )
            comparison = _ask_guest(guest, window, cpu, memory, written.address, case)
        else:
            with guest.parked(window.state) as monitor:
                debugger = Debugger(monitor, cpu, memory, window.span, only=address)
                comparison = debugger.questions(written)[oracle]()
    add_walks(comparison, memory, cpu)
    return comparison


@contextmanager
def _window(guest: Guest, memory: BufferMemory, cpu: Cpu) -> Iterator[Window]:
    check_root(guest.free, cpu)
    arena = guest.image.table_arena
    allocator = TableAllocator(memory, Span.of(arena.start, len(arena)))
    window = open_window(memory, cpu, guest.image, allocator)
    try:
        yield window
    finally:
        window.close(memory)


_NONE: Final = np.empty(0, np.uint64)


def _ask_guest(
    guest: Guest,
    window: Window,
    cpu: Cpu,
    memory: BufferMemory,
    tables: Words,
    cases: Cases,
    named: Cases | None = None,
) -> Comparison:
    """The guest's answers: of `cases` as many as its executor is given, and all that are named."""
    name, version = executor(guest)
    asked = executed(cases, name)
    left_out = len(cases) - len(asked)
    if named is not None:
        asked = together([asked, named])
    quirks = fault_quirks(name, version)
    comparison = probes.ask_guest(guest, window, cpu, memory, tables, asked, quirks)
    if left_out:
        comparison.not_comparable[f"not asked: {name} executes a sample"] = left_out
    return comparison


def executed(cases: Cases, name: str) -> Cases:
    """Those of a space that the executor of this name is given: all, or a sample."""
    if not interprets(name):
        return cases
    return cases.take(evenly(len(cases), PROBES_IN_SOFTWARE))
