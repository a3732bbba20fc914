"""What a running QEMU tells of a processor of x86."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Final

import numpy as np

from harness.check.held import HeldMemory
from harness.inspect.architecture import Seen
from harness.inspect.held import MOST_TABLES, hold_tables
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.x86 import engine, needs
from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.frame import last_fault
from harness.inspect.x86.likely import unshifted
from harness.inspect.x86.processor import AC, cpu_with, tables_of, unseen_rights
from harness.machine.errors import ProtocolError
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.machine.monitor import registers_in, segments_in
from harness.machine.x86.engines import AMD_VENDORS
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr0

Monitor = ForeignMonitor | StubMonitor


def seen(monitor: Monitor, given: Mapping[str, int], memory: HeldMemory) -> Seen:
    """The processor as it is now, with the registers that are given in place of its own; all tables
    that its root leads to are held.

    Raises SourceError where it translates nothing, MachineError where QEMU does not answer.
    """
    own, assumed = _model(monitor, given)
    state = monitor.state()
    shown = registers_in(state)
    own |= _control(shown)
    if not own["cr0"] & Cr0.PG and "cr0" not in given:
        raise SourceError(
            f"paging is off (CR0 is {own['cr0']:#x}): addresses are physical, and there are no"
            " tables to look at. If the guest faults and is reset again and again, run its QEMU"
            " with -no-reboot -no-shutdown, which keeps it as it was at the fault"
        )
    cpu = cpu_with(Cpu.long_mode(4, 0), {**own, **given}, memory)
    hold_tables(memory, cpu.roots)
    cpu, notes = engine.as_read(cpu, memory, monitor.engine_in_use(), monitor.version, given)
    rest = _rest(shown) | tables_of(segments_in(state))
    left_open = tuple(unseen_rights(cpu, {**own, **given}, "QEMU"))
    return Seen(cpu, assumed, notes, rest, left_open=left_open)


def hold_beside(snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
    """Reads what else is looked at: why the root may be another, where tables outside memory were
    probably meant to be, and with `stack` what the processor pushed at its last page fault, and
    what it needs for the next."""
    doubt(snapshot.cpu, memory)
    _hold_meant(snapshot.cpu, memory, snapshot.backed or ())
    if stack:
        last_fault(snapshot)
        list(needs.broken(snapshot))


def _hold_meant(cpu: Cpu, memory: HeldMemory, backed: Sequence[Span]) -> None:
    """Reads what is where tables were probably meant to be that lie outside memory."""
    tables = chain.from_iterable(
        layer.tables.tolist() for layer in bulk.layers(memory, cpu.roots, MOST_TABLES)
    )
    outside = (one for one in tables if not any(one in span for span in backed))
    meant = [other for one in islice(outside, _MEANT) for other in unshifted(one).values()]
    there = [one for one in meant if any(one in span for span in backed)]
    memory.hold(np.array(there, np.uint64))


_MEANT: Final = 16
"""Tables outside memory of which that is asked."""


def _control(registers: Mapping[str, int]) -> dict[str, int]:
    """The registers that decide how a processor pages, from those that QEMU shows."""
    names = ("cr0", "cr3", "cr4", "efer")
    if missing := [name for name in names if name.upper() not in registers]:
        raise ProtocolError(f"info registers does not show {' and '.join(missing)}", "")
    flags = registers.get("RFL", registers.get("EFL", 0))
    return {"ac": bool(flags & AC), **{name: registers[name.upper()] for name in names}}


def _rest(shown: Mapping[str, int]) -> dict[str, int]:
    """What else of the processor a snapshot has, from the registers that QEMU shows."""
    names = {"CR2": "cr2", "RIP": "rip", "EIP": "rip", "RSP": "rsp", "ESP": "rsp", "CPL": "cpl"}
    return {name: shown[theirs] for theirs, name in names.items() if theirs in shown}


def _model(monitor: Monitor, given: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    """What QEMU tells of the model of the processor, and what is assumed where it does not."""
    told: dict[str, int] = {"amd": monitor.cpu_property("vendor") in AMD_VENDORS}
    for field, name in (("page1gb", "pdpe1gb"), ("pse36", "pse36"), ("lam", "lam")):
        value = monitor.cpu_property(name)
        if isinstance(value, bool):
            told[field] = value
    assumed = []
    if "page1gb" not in {**told, **given}:
        assumed.append("the processor has 1G pages, since QEMU does not show it (--no-page1gb)")
    width = monitor.cpu_property("phys-bits")
    told["maxphyaddr"] = next((one for one in WIDTHS if one == width), WIDTHS[-1])
    if told["maxphyaddr"] != width and "maxphyaddr" not in given:
        assumed.append(f"MAXPHYADDR={WIDTHS[-1]}, since QEMU does not show it (--maxphyaddr)")
    return told, tuple(assumed)
