"""A space of one's own in the RAM of an s390 guest, to build in and compare."""

from __future__ import annotations

from harness.check import space
from harness.check.s390.layouts import cpu_of
from harness.machine.s390.guest import Guest
from harness.paging.s390.cpu import Cpu


class GuestSpace(space.GuestSpace):
    """An empty space whose walks begin at a mode's table, in the RAM of a guest."""

    cpu: Cpu

    def __init__(self, guest: Guest, mode: str, beside: GuestSpace | None = None) -> None:
        super().__init__(guest, lambda root: cpu_of(mode, guest.info, root), beside)
