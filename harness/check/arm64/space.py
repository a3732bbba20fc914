"""A space of one's own in the RAM of an arm64 guest, to build in and compare."""

from __future__ import annotations

from harness.check import space
from harness.check.arm64.layouts import features_of
from harness.machine.arm64.guest import Guest
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import GRANULES


class GuestSpace(space.GuestSpace):
    """An empty space of the lower half, with so many levels of whole tables of a granule; the upper
    half is turned off.  The processor sets the access flag, and keeps no dirty state."""

    cpu: Cpu

    def __init__(
        self, guest: Guest, granule: str, levels: int, beside: GuestSpace | None = None
    ) -> None:
        """Raises ValueError for what the guest's processor does not have."""
        size, features = GRANULES[granule], features_of(guest.info)
        address_bits = min(48, size.page + size.stride * levels)

        def cpu_of(root: int) -> Cpu:
            low = Half(granule, address_bits, root)
            return Cpu.of(low, None, output_bits=48, ha=True, features=features)

        super().__init__(guest, cpu_of, beside)
