"""A space of one's own in a guest's RAM, to build in and compare."""

from __future__ import annotations

from dataclasses import replace

from harness.check import space
from harness.machine.x86.engines import reads_as_amd
from harness.machine.x86.guest import Guest
from harness.paging.x86.cpu import Cpu


class GuestSpace(space.GuestSpace):
    """An empty space with 4 or 5 levels in the RAM of a guest."""

    cpu: Cpu

    def __init__(self, guest: Guest, levels: int, beside: GuestSpace | None = None) -> None:
        cpu = Cpu.long_mode(
            levels,
            0,
            smep=guest.info.has("smep"),
            smap=guest.info.has("smap"),
            maxphyaddr=guest.info.physical_bits,
            page1gb=guest.info.has("gigabyte_pages"),
        )
        amd = reads_as_amd(guest.info)
        super().__init__(guest, lambda root: replace(cpu, amd=amd, cr3=root), beside)
