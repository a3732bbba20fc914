"""arm64: the probes that a guest executes, and the space of a Linux."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from harness.check.arm64.validate import state_of
from harness.check.arm64.window import entries
from harness.check.window import window_in
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.qemu import BUILD, PROGRAM
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.memory import BufferMemory
from harness.paging.space import TableAllocator
from images.linux.build import build_arm64
from images.linux.machine import Arm64Variant
from tests.bench.linux import dumped
from tests.bench.measure import Figure, rate

PROBES, ASKED = 60_000, 256
QEMU = os.environ.get("QEMU_ARM64", PROGRAM)


def figures() -> Iterator[Figure]:
    """arm64_probes_per_s and arm64_dump_s, where there is a QEMU for arm64 and its guest."""
    if shutil.which(QEMU) is not None and BUILD.path.exists():
        yield probes()
        yield linux_dumped()


def probes() -> Figure:
    """One patched descriptor and TLBI of its page each, with pages of 4K and 39 bits, mixed rights,
    two in three faulting."""
    with Guest(program=QEMU) as guest:
        memory = BufferMemory(guest.ram.buffer, guest.ram.base)
        arena = guest.image.arena
        allocator = TableAllocator(memory, Span(arena.stop, arena.stop + (1 << 20) - 1))
        cpu = Cpu.of(Half("4K", 39, arena.stop), None)
        format = cpu.roots[0].table.format
        tables = [allocator.allocate(format, level) for level in (2, 1, 0)]
        page, frame = 0x1234_5000, Physical(arena.stop + (2 << 20))
        for upper, lower in pairwise(tables):
            entry = format.pointer(lower.address, upper.level, 0)
            memory.store(upper.slot_for(page).address, 8, entry)
        with window_in(guest, memory, cpu.roots, entries) as window:
            state = state_of(cpu, window)
            random, enums = np.random.default_rng(3), guest.image.enums
            jobs = guest.image.new_jobs(PROBES)
            jobs["address"], jobs["size"], jobs["flush"] = page, 8, enums["FLUSH_PAGE"]
            jobs["access"] = random.choice([enums["ACCESS_READ"], enums["ACCESS_WRITE"]], PROBES)
            jobs["user"] = random.integers(0, 2, PROBES)
            jobs["patched"] = 1
            addresses = np.array([page], np.uint64)
            jobs["where"][:, 0] = bulk.paths(memory, cpu.roots[0], addresses).slot[0]
            mine = format.leaf(frame, 0, format.granting("write") | format.accessed)
            read = format.leaf(frame, 0, format.granting("user") | format.accessed)
            words = np.array([mine, read, 0, mine & ~format.accessed, read & ~1], np.uint64)
            jobs["word"][:, 0] = random.choice(words, PROBES)
            idle = guest.image.new_jobs(PROBES)
            faults = guest.run(state, jobs)["completed"] == 0
            assert 0.6 < faults.mean() < 0.9
            return rate(
                "arm64_probes_per_s",
                PROBES,
                lambda: guest.run(state, jobs),
                "as many jobs that do nothing",
                lambda: guest.run(state, idle),
            )


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
