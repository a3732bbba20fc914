"""RISC-V: the probes that a guest executes, and the space of a Linux."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import state_of
from harness.check.riscv.window import entries
from harness.check.window import window_in
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.qemu import BUILDS
from images.linux.build import build_riscv
from images.linux.machine import RiscvVariant
from tests.bench import patched
from tests.bench.linux import dumped
from tests.bench.measure import Figure

QEMU = os.environ.get("QEMU_RISCV", "qemu-system-riscv64")


def figures() -> Iterator[Figure]:
    """riscv_probes_per_s and riscv_dump_s, where there is a QEMU for RISC-V and its guest."""
    if not patched.missing(QEMU, BUILDS[64]):
        yield probes()
        yield linux_dumped()


def probes() -> Figure:
    """In Sv39, three in four faulting."""
    with Guest(ram_bytes=patched.RAM, program=QEMU) as guest:
        space = GuestSpace(guest, "sv39")
        format, frame = space.format, patched.frame_in(space)
        marked = format.accessed | format.dirty
        mine = format.leaf(frame, 0, format.granting("read", "write") | marked)
        users = mine | format.rights["user"]
        words = [mine, users, 0, mine & ~1, users | 1 << 60, users & ~2]
        with window_in(guest, space.memory, space.cpu.roots, entries) as window:
            state = state_of(space.cpu, window)
            name = "riscv_probes_per_s"
            return patched.probes(name, guest, space, state, words, ("LOAD", "STORE"))


def linux_dumped() -> Figure:
    """The space of a Linux in Sv57."""
    return dumped(
        "riscv_dump_s",
        build_riscv(),
        RiscvVariant(5),
        QEMU,
        "QEMU printing info mem",
        lambda monitor: monitor.human("info mem", 0),
    )
