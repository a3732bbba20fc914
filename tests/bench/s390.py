"""s390: the probes that a guest executes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.check.s390.space import GuestSpace
from harness.check.s390.validate import state_of
from harness.machine.s390.guest import Guest
from harness.machine.s390.qemu import BUILD, PROGRAM
from harness.paging.s390.formats import PAGE_INVALID, PROTECT
from tests.bench import patched
from tests.bench.measure import Figure

QEMU = os.environ.get("QEMU_S390", PROGRAM)


def figures() -> Iterator[Figure]:
    """s390_probes_per_s, where there is a QEMU for s390x and its guest."""
    if not patched.missing(QEMU, BUILD):
        yield probes()


def probes() -> Figure:
    """With three levels, three in five faulting."""
    with Guest(ram_bytes=patched.RAM, program=QEMU) as guest:
        space = GuestSpace(guest, "region-third")
        page = space.format.leaf(patched.frame_in(space), 0, space.format.granting("write"))
        reserved = 1 << 11
        words = [page, page | PROTECT, page | PAGE_INVALID, page | reserved]
        state, name = state_of(space.cpu), "s390_probes_per_s"
        return patched.probes(name, guest, space, state, words, ("LOAD", "STORE"))
