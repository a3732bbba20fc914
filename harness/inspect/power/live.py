"""What a running QEMU tells of a processor of POWER.

`info registers` shows PTCR and LPCR, DSISR and DAR; PIDR, AMR and IAMR are shown by the gdb stub
alone, of a guest that stands (QEMU, target/ppc/gdbstub.c: gdb_get_spr_reg), in the byte order that
the guest has at the moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from harness.check.held import HeldMemory
from harness.inspect.architecture import Seen
from harness.inspect.held import hold_tables
from harness.inspect.power.processor import cpu_with, keys, unsure
from harness.inspect.snapshot import Snapshot, SourceError
from harness.machine.errors import ProtocolError
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.machine.power.registers import described, registers_in
from harness.paging.power.cpu import PAGE_BITS, Cpu

Monitor = ForeignMonitor | StubMonitor

ENOUGH: Final = frozenset(("pid", "amr", "iamr"))
"""The registers with which QEMU's gdb stub is not asked."""

HV: Final = 1 << 60
IR: Final = 1 << 5
DR: Final = 1 << 4
"""Bits of the MSR: hypervisor state, translation of fetches and of data."""

UPRT: Final = 1 << 22
HR: Final = 1 << 20
"""Bits of LPCR: whether process tables are used, and radix trees by the hypervisor."""

SETS_MARKS: Final = (8, 2)
"""The first version of QEMU that leaves R and C to software (target/ppc/mmu-radix64.c:
ppc_radix64_check_rc)."""


def seen(monitor: Monitor, given: Mapping[str, int], memory: HeldMemory) -> Seen:
    """The processor as it is now, with the registers that are given in place of its own; all tables
    that its roots lead to are held.

    Raises SourceError where it translates nothing, or in a way that is not known here, MachineError
    where QEMU does not answer, Misuse where its gdb stub cannot be asked.
    """
    shown = registers_in(monitor.state())
    registers, notes = dict(given), tuple[str, ...]()
    if not {"quadrant0", "quadrant3"} & given.keys():
        notes = tuple(_state(shown))
        registers = {"ptcr": shown["PTCR"], **given}
        if not given.keys() >= ENOUGH:
            registers = {**described(monitor, shown), **registers}
    cpu = cpu_with(Cpu(None, sets_marks=monitor.version < SETS_MARKS), memory, registers)
    hold(memory, cpu)
    last = {name.lower(): shown[name] for name in ("DSISR", "DAR") if name in shown}
    return Seen(cpu, tuple(keys(registers)), notes, last, unsure(registers))


def hold(memory: HeldMemory, cpu: Cpu) -> None:
    """Reads all tables of both sizes."""
    for size in PAGE_BITS:
        hold_tables(memory, Cpu(cpu.quadrant0, cpu.quadrant3, page_bits=size).roots)


def hold_beside(snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
    """Nothing: a processor pushes nothing at an interrupt, and the tables are held."""


def _state(shown: Mapping[str, int]) -> Iterator[str]:
    """What there is to know of the state that a processor is in.

    Raises SourceError for one that is not known here, ProtocolError where a register is missing.
    """
    if missing := [name for name in ("MSR", "LPCR") if name not in shown]:
        raise ProtocolError(f"info registers does not show {' and '.join(missing)}", "")
    msr, lpcr = shown["MSR"], shown["LPCR"]
    if "PTCR" not in shown or not msr & HV:
        raise SourceError(
            f"the processor runs in a partition (MSR is {msr:#x}), whose addresses are translated"
            " in two stages, which is not known here; name its trees with --quadrant0 and"
            " --quadrant3"
        )
    if not (lpcr & UPRT and lpcr & HR):
        raise SourceError(
            f"the processor uses no radix trees (LPCR is {lpcr:#x}, of which UPRT and HR are not"
            " both 1), and hashed page tables are not known here"
        )
    off = [name for name, bit in (("IR", IR), ("DR", DR)) if not msr & bit]
    if off:
        yield f"At this moment MSR.{'=0 and MSR.'.join(off)}=0: the trees are not used for that"
