"""A running QEMU as a source, whatever its guest: asked through its QMP socket.

The guest stands still while its registers and tables are read, and for no longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Generic, TypeVar

from harness.check.held import HeldMemory
from harness.inspect.architecture import Seen, byte_order_of, of_target, refuse_others
from harness.inspect.held import MOST_TABLES, refuse
from harness.inspect.snapshot import Snapshot
from harness.machine.foreign import DEADLINE, ForeignMonitor, conversation
from harness.machine.gdbstub import StubMonitor
from harness.machine.gdbstub import conversation as conversation_with_stub
from harness.machine.patience import Clock
from harness.machine.physical import ROM, PhysicalMemory, Reader, Region, regions, share
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import Memory, Order
from harness.paging.processor import Cpu

UNIT: Final = 4096
"""Bytes that are read at once: a table."""

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
        order = byte_order_of(self.monitor.target)
        return _held(self.reader, self.monitor.clock, alone, math.inf, order)

    def snapshot(self, registers: Mapping[str, int], stack: bool = False) -> Snapshot:
        """The processor as it is now, and all tables that its root leads to.

        registers  in place of its own
        stack      whether what the processor pushed at its last page fault is read, too, and what
                   it needs for the next

        Raises SourceError where it translates nothing, MachineError where QEMU does not answer.
        """
        asked = of_target(self.monitor.target, self.title)
        refuse_others(asked, registers, self.title)
        seen: Seen = asked.seen(self.monitor, registers, self.memory)
        backed = tuple(Span(one.span.start, one.span.stop - 1) for one in self.regions)
        notes = (*seen.notes, *_ill_placed(seen.cpu, self.memory, (*self.regions, *self.devices)))
        found = Snapshot(
            self.title,
            seen.cpu,
            self.memory,
            backed,
            seen.assumed,
            notes,
            seen.registers,
            rom=self._rom(),
            unsure=seen.unsure,
            left_open=seen.left_open,
        )
        asked.hold_beside(found, self.memory, stack)
        return found

    def _rom(self) -> tuple[Span, ...]:
        """Where stores vanish."""
        rom = (one.span for one in self.regions if one.kind in ROM)
        return tuple(Span(span.start, span.stop - 1) for span in rom)


def _held(
    reader: Reader, clock: Clock, found: Sequence[Region], patience: float, order: Order
) -> HeldMemory:
    """The memory in some regions."""
    return HeldMemory(UNIT, PhysicalMemory(reader, clock, found, UNIT, patience).read, order)


def _ill_placed(cpu: Cpu, memory: Memory, found: Sequence[Region]) -> Iterator[str]:
    """Which tables are where nothing can be written, or no memory is, a sentence for each place."""
    placed = [one for one in found if one.kind != "ram"]
    levels = reversed(range(cpu.levels))
    tables = [
        (f"the level-{cpu.format.number(level)} table at {address:#x}", address)
        for level, layer in zip(levels, bulk.layers(memory, cpu.roots, MOST_TABLES), strict=False)
        for address in (layer.tables.tolist() if placed else ())
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


_NAMED: Final = 3
"""Tables that a sentence names."""


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
        conversation(path, vcpu, DEADLINE, patience, holds=holds, targets=None) as monitor,
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
    order = byte_order_of(monitor.target)
    memory = _held(reader, monitor.clock, found, patience, order)
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
