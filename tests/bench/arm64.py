"""arm64: the probes that a guest executes, and the space of a Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.check.arm64.space import GuestSpace
from harness.check.arm64.validate import state_of
from harness.check.arm64.window import entries
from harness.check.window import window_in
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.qemu import BUILD, PROGRAM
from images.linux.build import build_arm64
from images.linux.machine import Arm64Variant
from tests.bench import patched
from tests.bench.linux import dumped
from tests.bench.measure import Figure

ASKED = 256
QEMU = os.environ.get("QEMU_ARM64", PROGRAM)


def figures() -> Iterator[Figure]:
    """arm64_probes_per_s and arm64_dump_s, where there is a QEMU for arm64 and its guest."""
    if not patched.missing(QEMU, BUILD):
        yield probes()
        yield linux_dumped()


def probes() -> Figure:
    """With pages of 4K and 39 bits, two in three faulting."""
    with Guest(ram_bytes=patched.RAM, program=QEMU) as guest:
        space = GuestSpace(guest, "4K", 3)
        format, frame = space.format, patched.frame_in(space)
        mine = format.leaf(frame, 0, format.granting("write") | format.accessed)
        read = format.leaf(frame, 0, format.granting("user") | format.accessed)
        words = [mine, read, 0, mine & ~format.accessed, read & ~1]
        with window_in(guest, space.memory, space.cpu.roots, entries) as window:
            state = state_of(space.cpu, window)
            name = "arm64_probes_per_s"
            return patched.probes(name, guest, space, state, words, ("READ", "WRITE"))


def linux_dumped() -> Figure:
    """The space of a Linux with five levels, the registers through the gdb stub."""
    return dumped(
        "arm64_dump_s",
        build_arm64(),
        Arm64Variant(5),
        QEMU,
        f"QEMU translating {ASKED} addresses",
        lambda monitor: monitor.translations(range(0x40_0000, 0x40_0000 + ASKED)),
    )
