"""A space of one's own in the RAM of a RISC-V guest, to build in and compare."""

from __future__ import annotations

from harness.check import space
from harness.check.riscv.layouts import cpu_of
from harness.machine.riscv.guest import Guest
from harness.paging.riscv.cpu import Cpu


class GuestSpace(space.GuestSpace):
    """An empty space in a mode, sv39 for instance, in the RAM of a guest."""

    cpu: Cpu

    def __init__(self, guest: Guest, mode: str, beside: GuestSpace | None = None) -> None:
        """Raises LayoutError where the guest's processor does not have the mode."""
        super().__init__(guest, lambda root: cpu_of(mode, guest.info, root), beside)
