"""A running QEMU as a source, whatever its guest: asked through its QMP socket.

The guest stands still while its registers and tables are read, and for no longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.inspect.held import HeldMemory, hold_tables
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.registers import AC, WIDTHS, cpu_with, unseen_keys
from harness.machine.errors import ProtocolError
from harness.machine.foreign import DEADLINE, ForeignMonitor, Guard, conversation
from harness.machine.physical import PhysicalMemory, regions, share
from harness.paging.address import Span
from harness.paging.x86.cpu import Cpu

AMD = ("AuthenticAMD", "HygonGenuine")
"""The vendors whose processors read entries as AMD's do."""


@dataclass(frozen=True)
class Connection:
    """A conversation with a QEMU about one of its processors, and the memory of its guest.

    memory  every table that is read is kept, as it was when it was read first
    backed  where there is memory, in order
    """

    monitor: ForeignMonitor
    title: str
    memory: HeldMemory
    backed: tuple[Span, ...]

    def snapshot(self, registers: Mapping[str, int]) -> Snapshot:
        """The processor as it is now, and all tables that its root leads to.

        registers  in place of its own

        Raises SourceError where it translates nothing, MachineError where QEMU does not answer.
        """
        own, assumed = _model(self.monitor, registers)
        own |= _control(self.monitor.registers())
        cpu = cpu_with(Cpu.long_mode(4, 0), {**own, **registers}, self.memory)
        hold_tables(self.memory, cpu.roots)
        return Snapshot(
            self.title, cpu, self.memory, self.backed, (*assumed, *unseen_keys(cpu, "QEMU"))
        )


def _control(registers: Mapping[str, int]) -> dict[str, int]:
    """The registers that decide how a processor pages, from those that QEMU shows."""
    names = ("cr0", "cr3", "cr4", "efer")
    if missing := [name for name in names if name.upper() not in registers]:
        raise ProtocolError(f"info registers does not show {' and '.join(missing)}", "")
    flags = registers.get("RFL", registers.get("EFL", 0))
    return {"ac": bool(flags & AC), **{name: registers[name.upper()] for name in names}}


def _model(
    monitor: ForeignMonitor, given: Mapping[str, int]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """What QEMU tells of the model of the processor, and what is assumed where it does not."""
    told: dict[str, int] = {"amd": monitor.cpu_property("vendor") in AMD}
    for field, name in (("page1gb", "pdpe1gb"), ("pse36", "pse36"), ("lam", "lam")):
        value = monitor.cpu_property(name)
        if isinstance(value, bool):
            told[field] = value
    width = monitor.cpu_property("phys-bits")
    told["maxphyaddr"] = width if isinstance(width, int) and width in WIDTHS else WIDTHS[-1]
    if told["maxphyaddr"] == width or "maxphyaddr" in given:
        return told, ()
    return told, (f"QEMU does not tell MAXPHYADDR: it is taken to be {WIDTHS[-1]} bits",)


@contextmanager
def connected(
    path: Path, vcpu: int, *, deadline: float = DEADLINE, shared: bool = True
) -> Iterator[Connection]:
    """The QEMU at a socket, asked about a processor; its guest runs or stands as it did.

    deadline  seconds for each answer
    shared    whether memory that QEMU shares is mapped, where it can be

    Raises Misuse where no QEMU talks to us there, MachineError where it breaks off.
    """
    unit = Cpu.long_mode(4, 0).format.table_bytes(0)
    with conversation(path, vcpu, deadline) as monitor, monitor.with_scratch() as scratch:
        found = regions(monitor.human("info mtree -f"), vcpu)
        if shared:
            found = share(monitor, monitor.pid, found)
        memory = HeldMemory(unit, PhysicalMemory(monitor, found, unit, scratch).read)
        backed = tuple(Span(region.span.start, region.span.stop - 1) for region in found)
        try:
            yield Connection(monitor, f"QEMU at {path}, processor {vcpu}", memory, backed)
        finally:
            memory.release()


def snapshot(
    path: Path, vcpu: int, live: bool, registers: Mapping[str, int], *, shared: bool = True
) -> Snapshot:
    """The processor and all its tables, read while the guest stands still unless `live`.

    Raises as `connected` does, and SourceError where the processor translates nothing.
    """
    if live:
        with connected(path, vcpu, shared=shared) as connection:
            return connection.snapshot(registers)
    with (
        closing(Guard(path)) as guard,
        connected(path, vcpu, shared=shared) as connection,
        connection.monitor.paused(guard),
    ):
        return connection.snapshot(registers)
