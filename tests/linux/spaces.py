"""The two address spaces of the Linux guest, as the machine holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from harness.machine.foreign import conversation
from harness.paging import bulk, riscv, x86
from harness.paging.bulk import Leaves, Walks
from harness.paging.linux.entries import Linux
from harness.paging.memory import BufferMemory, Words
from harness.paging.riscv.linux import Linux as RiscvLinux
from harness.paging.table import Root
from harness.paging.x86.cpu import Cpu
from images.linux.facts import Map, Process
from images.linux.machine import PC, Booted

USER_ROOT = 0x1000
"""With isolation a process has two root tables, side by side: the user's is the upper one
(PTI_USER_PGTABLE_BIT in Linux, arch/x86/entry/calling.h)."""


HART = riscv.Cpu(8 << 60, menvcfg=riscv.Envcfg.PBMTE, svnapot=True, svade=False)
"""What of the board's processor is in no register that every QEMU shows."""


@dataclass(frozen=True)
class LinuxSpace:
    """The space of one process, under the CR3 or satp that its processor has in user mode."""

    guest: Booted
    process: Process
    state: x86.Cpu | riscv.Cpu
    memory: BufferMemory

    @property
    def name(self) -> str:
        return self.process.space

    @property
    def maps(self) -> tuple[Map, ...]:
        return tuple(m for m in self.guest.facts.maps if m.space == self.name)

    def map(self, name: str) -> Map:
        """The one map of that name."""
        (only,) = self.guest.facts.of(self.name, name)
        return only

    def walks(self, addresses: Words) -> Walks:
        return bulk.walk(self.memory, self.state.roots, addresses)

    @cached_property
    def leaves(self) -> Leaves:
        return bulk.leaves(self.memory, self.state.roots)

    @property
    def cpu(self) -> Cpu:
        """The state of a processor of x86."""
        assert isinstance(self.state, Cpu)
        return self.state

    @property
    def hart(self) -> riscv.Cpu:
        """The state of a processor of RISC-V."""
        assert isinstance(self.state, riscv.Cpu)
        return self.state

    def root_for(self, address: int) -> Root | None:
        """Where the walk of an address begins."""
        return next((root for root in self.state.roots if address in root.span), None)

    @cached_property
    def dialect(self) -> Linux | RiscvLinux:
        format = self.state.format
        return Linux(format) if self.guest.board is PC else RiscvLinux(format)

    def under(self, cr3: int) -> LinuxSpace:
        """The same process with another CR3."""
        return replace(self, state=replace(self.cpu, cr3=cr3))

    def words(self, physical: Words) -> Words:
        """What memory holds at these addresses."""
        words, missing = self.memory.gather(physical, 8)
        assert missing is None
        return words


def spaces_of(guest: Booted) -> dict[str, LinuxSpace]:
    memory = BufferMemory(np.memmap(guest.ram, np.uint8, mode="r"), guest.board.ram_base)
    return {space.name: space for space in _read(guest, memory)}


def _read(guest: Booted, memory: BufferMemory) -> Iterator[LinuxSpace]:
    with conversation(guest.qmp, 0, 20, targets=(guest.board.target,)) as monitor:
        for process in guest.facts.processes.values():
            held = guest.registers(monitor, process)
            state: x86.Cpu | riscv.Cpu
            if guest.board is PC:
                state = Cpu(held["CR0"], held["CR3"], held["CR4"], held["EFER"])
            else:
                state = replace(HART, satp=held["satp"], mstatus=held["mstatus"])
            yield LinuxSpace(guest, process, state, memory)
