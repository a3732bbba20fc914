"""A running QEMU as a source, whatever its guest: asked through its QMP socket.

The guest stands still while its registers and tables are read, and for no longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np

from harness.check.held import HeldMemory
from harness.inspect.held import MOST_TABLES, hold_tables, refuse
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.x86 import engine, needs
from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.frame import last_fault
from harness.inspect.x86.likely import unshifted
from harness.inspect.x86.processor import AC, cpu_with, tables_of, unseen_keys
from harness.machine.errors import ProtocolError
from harness.machine.foreign import DEADLINE, ForeignMonitor, conversation
from harness.machine.gdbstub import StubMonitor
from harness.machine.gdbstub import conversation as conversation_with_stub
from harness.machine.monitor import registers_in, segments_in
from harness.machine.patience import Clock
from harness.machine.physical import ROM, PhysicalMemory, Reader, Region, regions, share
from harness.machine.x86.engines import AMD_VENDORS
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import Memory
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr0

PATIENCE = 3.0
"""Seconds that reading tables through the monitor may take, and so keep the guest from running."""


M = TypeVar("M", ForeignMonitor, StubMonitor)
"""How a QEMU is asked: by QMP or by its gdb stub."""


@dataclass(frozen=True)
class Connection(Generic[M]):
    """A conversation with a QEMU about one of its processors, and the memory of its guest.

    regions  where there is memory, in order
    devices  where there are registers of devices
    reader   how memory is read through it
    memory   every table that is read is kept, as it was when it was read first
    """

    monitor: M
    title: str
    regions: tuple[Region, ...]
    devices: tuple[Region, ...]
    reader: Reader
    memory: HeldMemory

    @property
    def shared(self) -> bool:
        """Whether memory is read without QEMU."""
        return any(region.shared is not None for region in self.regions)

    def through_monitor(self) -> HeldMemory:
        """The same memory, all of it read through the monitor."""
        alone = [replace(region, shared=None) for region in self.regions]
        return _held(self.reader, self.monitor.clock, alone, math.inf)

    def snapshot(self, registers: Mapping[str, int], stack: bool = False) -> Snapshot:
        """The processor as it is now, and all tables that its root leads to.

        registers  in place of its own
        stack      whether what the processor pushed at its last page fault is read, too, and what
                   it needs for the next

        Raises SourceError where it translates nothing, MachineError where QEMU does not answer.
        """
        own, assumed = _model(self.monitor, registers)
        state = self.monitor.state()
        shown = registers_in(state)
        own |= _control(shown)
        if not own["cr0"] & Cr0.PG and "cr0" not in registers:
            raise SourceError(
                f"paging is off (CR0 is {own['cr0']:#x}): addresses are physical, and there are no"
                " tables to look at. If the guest faults and is reset again and again, run its QEMU"
                " with -no-reboot -no-shutdown, which keeps it as it was at the fault"
            )
        cpu = cpu_with(Cpu.long_mode(4, 0), {**own, **registers}, self.memory)
        hold_tables(self.memory, cpu.roots)
        who, version = self.monitor.engine_in_use(), self.monitor.version
        cpu, notes = engine.as_read(cpu, self.memory, who, version, registers)
        backed = tuple(Span(one.span.start, one.span.stop - 1) for one in self.regions)
        assumed += tuple(unseen_keys(cpu, "QEMU"))
        notes += tuple(_ill_placed(cpu, self.memory, (*self.regions, *self.devices)))
        rest, rom = _rest(shown) | tables_of(segments_in(state)), self._rom()
        found = Snapshot(self.title, cpu, self.memory, backed, assumed, notes, rest, rom=rom)
        doubt(cpu, self.memory)  # what it looks at is held by that
        _hold_meant(cpu, self.memory, backed)
        if stack:
            last_fault(found)  # by which it is held
            list(needs.broken(found))
        return found

    def _rom(self) -> tuple[Span, ...]:
        """Where stores vanish."""
        rom = (one.span for one in self.regions if one.kind in ROM)
        return tuple(Span(span.start, span.stop - 1) for span in rom)


def _held(reader: Reader, clock: Clock, found: Sequence[Region], patience: float) -> HeldMemory:
    """The memory in some regions."""
    unit = Cpu.long_mode(4, 0).format.table_bytes(0)
    return HeldMemory(unit, PhysicalMemory(reader, clock, found, unit, patience).read)


def _ill_placed(cpu: Cpu, memory: Memory, found: Sequence[Region]) -> Iterator[str]:
    """Which tables are where nothing can be written, or no memory is, a sentence for each place."""
    placed = [one for one in found if one.kind != "ram"]
    levels = reversed(range(cpu.levels))
    tables = [
        (f"the level-{level} table at {address:#x}", address)
        for level, layer in zip(levels, bulk.layers(memory, cpu.roots, MOST_TABLES), strict=False)
        for address in (layer.tolist() if placed else ())
    ]
    for region in placed:
        names = [name for name, address in tables if address in region.span]
        if not names:
            continue
        few = ", ".join(names[:_NAMED])
        if (more := len(names) - _NAMED) > 0:
            few += f" and {more:,} more"
        span = f"{region.span.start:#x}..{region.span.stop - 1:#x}"
        where = f"{span}, {region.block} in info mtree -f"
        if region.kind in ROM:
            yield f"In ROM ({where}), where stores vanish: {few}"
        else:
            yield f"In a device ({where}), whose answers are no entries: {few}"


def _hold_meant(cpu: Cpu, memory: HeldMemory, backed: Sequence[Span]) -> None:
    """Reads what is where tables were probably meant to be that lie outside memory."""
    tables = chain.from_iterable(
        layer.tolist() for layer in bulk.layers(memory, cpu.roots, MOST_TABLES)
    )
    outside = (one for one in tables if not any(one in span for span in backed))
    meant = [other for one in islice(outside, _MEANT) for other in unshifted(one).values()]
    there = [one for one in meant if any(one in span for span in backed)]
    memory.hold(np.array(there, np.uint64))


_MEANT: Final = 16
"""Tables outside memory of which that is asked."""

_NAMED: Final = 3
"""Tables that a sentence names."""


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


def _model(monitor: M, given: Mapping[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
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
    told["maxphyaddr"] = width if isinstance(width, int) and width in WIDTHS else WIDTHS[-1]
    if told["maxphyaddr"] != width and "maxphyaddr" not in given:
        assumed.append(f"MAXPHYADDR={WIDTHS[-1]}, since QEMU does not show it (--maxphyaddr)")
    return told, tuple(assumed)


@contextmanager
def connected(
    path: Path,
    vcpu: int,
    *,
    patience: float = PATIENCE,
    shared: bool = True,
    holds: bool = False,
) -> Iterator[Connection[ForeignMonitor]]:
    """The QEMU at a socket, asked about a processor; its guest runs or stands as it did.

    patience  seconds for all that is read through the monitor, and for a list of all mappings
    shared    whether memory that QEMU shares is read from its file, where it can be
    holds     whether the guest is to be paused meanwhile

    Raises Misuse where no QEMU talks to us there, MachineError where it breaks off.
    """
    with (
        conversation(path, vcpu, DEADLINE, patience, holds=holds) as monitor,
        monitor.with_scratch() as scratch,
    ):
        reader = Reader.of(monitor, scratch)
        with _connection(monitor, f"QEMU at {path}", vcpu, reader, patience, shared) as connection:
            yield connection


@contextmanager
def debugged(
    path: Path, vcpu: int, *, patience: float = PATIENCE, held: bool = False
) -> Iterator[Connection[StubMonitor]]:
    """The QEMU at a gdb stub, likewise; its guest stands meanwhile.

    held  whether the guest stood before, and is to be left so

    Raises as `connected`.
    """
    with conversation_with_stub(path, vcpu, DEADLINE, patience, held=held) as stub:
        reader, title = Reader(stub.read_physical, at_once=False), f"QEMU at the gdb stub {path}"
        with _connection(stub, title, vcpu, reader, patience, shared=True) as connection:
            yield connection


@contextmanager
def _connection(
    monitor: M,
    who: str,
    vcpu: int,
    reader: Reader,
    patience: float,
    shared: bool,
) -> Iterator[Connection[M]]:
    flat_view = monitor.human("info mtree -f")
    found = regions(flat_view, vcpu)
    registers = regions(flat_view, vcpu, devices=True)
    if shared:
        found = share(monitor, monitor.pid, found)
    memory = _held(reader, monitor.clock, found, patience)
    try:
        yield Connection(monitor, f"{who}, processor {vcpu}", found, registers, reader, memory)
    finally:
        memory.read = refuse


def snapshot(
    path: Path,
    vcpu: int,
    live: bool,
    registers: Mapping[str, int],
    *,
    shared: bool = True,
    stack: bool = False,
) -> Snapshot:
    """The processor and all its tables, read while the guest stands still unless `live`; `stack` as
    of `Connection.snapshot`.

    Raises as `connected` does, and SourceError where the processor translates nothing.
    """
    if live:
        with connected(path, vcpu, shared=shared) as connection:
            return connection.snapshot(registers, stack)
    with (
        connected(path, vcpu, shared=shared, holds=True) as connection,
        connection.monitor.paused(),
    ):
        return connection.snapshot(registers, stack)


def snapshot_of_stub(
    path: Path, vcpu: int, registers: Mapping[str, int], *, held: bool = False, stack: bool = False
) -> Snapshot:
    """The same of a QEMU at its gdb stub; raises as `debugged` does, and SourceError likewise."""
    with debugged(path, vcpu, held=held) as connection:
        return connection.snapshot(registers, stack)
