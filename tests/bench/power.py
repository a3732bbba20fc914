"""POWER: the probes that a guest executes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.check.power.space import GuestSpace
from harness.check.power.validate import state_of
from harness.check.power.window import entries
from harness.check.window import window_in
from harness.machine.power.guest import Guest
from harness.machine.power.qemu import BUILD, PROGRAM
from harness.paging.power.formats import PRIVILEGED, VALID
from tests.bench import patched
from tests.bench.measure import Figure

QEMU = os.environ.get("QEMU_POWER", PROGRAM)


def figures() -> Iterator[Figure]:
    """power_probes_per_s, where there is a QEMU for POWER and its guest."""
    if not patched.missing(QEMU, BUILD):
        yield probes()


def probes() -> Figure:
    """With pages of 4K, two in three faulting."""
    with Guest(program=QEMU) as guest:
        space = GuestSpace(guest, 12)
        format, frame = space.format, patched.frame_in(space)
        marked = format.accessed | format.dirty
        both = format.leaf(frame, 0, format.granting("read", "write", "user") | marked)
        read = format.leaf(frame, 0, format.granting("read", "user") | marked)
        words = [both | PRIVILEGED, read, 0, both & ~VALID, read | PRIVILEGED]
        with window_in(guest, space.memory, space.cpu.roots, entries) as window:
            state = state_of(space.cpu, window)
            name = "power_probes_per_s"
            return patched.probes(name, guest, space, state, words, ("READ", "WRITE"))
