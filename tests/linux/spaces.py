"""The two address spaces of the Linux guest, as the machine holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from harness.machine.foreign import conversation
from harness.paging import arm64, bulk, riscv, x86
from harness.paging.arm64.linux import Linux as Arm64Linux
from harness.paging.bulk import Leaves, Walks
from harness.paging.format import Format
from harness.paging.linux.entries import Linux
from harness.paging.memory import BufferMemory, Words
from harness.paging.riscv.linux import Linux as RiscvLinux
from harness.paging.table import Root
from harness.paging.x86.cpu import Cpu
from images.linux.facts import Map, Process
from images.linux.machine import PC, VIRT, Booted

USER_ROOT = 0x1000
"""With isolation a process has two root tables, side by side: the user's is the upper one
(PTI_USER_PGTABLE_BIT in Linux, arch/x86/entry/calling.h)."""


State = x86.Cpu | riscv.Cpu | arm64.Cpu

HART = riscv.Cpu(8 << 60, menvcfg=riscv.Envcfg.PBMTE, svnapot=True, svade=False)
"""What of the board's processor is in no register that every QEMU shows."""


@dataclass(frozen=True)
class LinuxSpace:
    """The space of one process, under the CR3, satp or TTBR0_EL1 that its processor has in user
    mode."""

    guest: Booted
    process: Process
    state: State
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

    @property
    def processor(self) -> arm64.Cpu:
        """The state of a processor of arm64."""
        assert isinstance(self.state, arm64.Cpu)
        return self.state

    @property
    def format(self) -> Format:
        """The format of all its tables."""
        return self.state.roots[0].table.format

    def root_for(self, address: int) -> Root | None:
        """Where the walk of an address begins."""
        return next((root for root in self.state.roots if address in root.span), None)

    @cached_property
    def dialect(self) -> Linux | RiscvLinux | Arm64Linux:
        if self.guest.board is PC:
            return Linux(self.format)
        return RiscvLinux(self.format) if self.guest.board is VIRT else Arm64Linux(self.format)

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
            yield LinuxSpace(guest, process, _state(guest, held), memory)


def _state(guest: Booted, held: Mapping[str, int]) -> State:
    if guest.board is PC:
        return Cpu(held["CR0"], held["CR3"], held["CR4"], held["EFER"])
    if guest.board is VIRT:
        return replace(HART, satp=held["satp"], mstatus=held["mstatus"])
    ttbr0, ttbr1, tcr, mair, sctlr = (
        held[f"{name}_EL1"] for name in ("TTBR0", "TTBR1", "TCR", "MAIR", "SCTLR")
    )
    zero, one, two = (held[f"ID_AA64MMFR{number}_EL1"] for number in range(3))
    features = arm64.Features.of(zero, one, two)
    return arm64.Cpu(ttbr0, ttbr1, tcr, mair, sctlr, features=features)
