"""RISC-V: the probes that a guest executes, and the space of a Linux."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from harness.check.riscv.validate import state_of
from harness.check.riscv.window import entries
from harness.check.window import window_in
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.qemu import BUILDS
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.space import TableAllocator
from images.linux.build import build_riscv
from images.linux.machine import RiscvVariant
from tests.bench.linux import dumped
from tests.bench.measure import Figure, rate

PROBES = 60_000
QEMU = os.environ.get("QEMU_RISCV", "qemu-system-riscv64")


def figures() -> Iterator[Figure]:
    """riscv_probes_per_s and riscv_dump_s, where there is a QEMU for RISC-V and its guest."""
    if shutil.which(QEMU) is not None and BUILDS[64].path.exists():
        yield probes()
        yield linux_dumped()


def probes() -> Figure:
    """One patched entry and SFENCE.VMA each, in Sv39, mixed rights, three in four faulting."""
    with Guest(program=QEMU) as guest:
        memory = BufferMemory(guest.ram.buffer, guest.ram.base)
        arena = guest.image.arena
        allocator = TableAllocator(memory, Span(arena.stop, arena.stop + (1 << 20) - 1))
        format = Cpu.in_mode(Mode.SV39, 0).format
        tables = [allocator.allocate(format, level) for level in (2, 1, 0)]
        cpu = Cpu.in_mode(Mode.SV39, tables[0].address)
        page, frame = 0x1234_5000, arena.stop + (2 << 20)
        for upper, lower in pairwise(tables):
            entry = format.pointer(lower.address, upper.level, 0)
            memory.store(upper.slot_for(page).address, 8, entry)
        with window_in(guest, memory, cpu.roots, entries) as window:
            state = state_of(cpu, window)
            random, enums = np.random.default_rng(3), guest.image.enums
            jobs = guest.image.new_jobs(PROBES)
            jobs["address"], jobs["size"], jobs["flush"] = page, 8, enums["FLUSH_PAGE"]
            jobs["access"] = random.choice([enums["ACCESS_LOAD"], enums["ACCESS_STORE"]], PROBES)
            jobs["user"] = random.integers(0, 2, PROBES)
            jobs["patched"] = 1
            addresses = np.array([page], np.uint64)
            jobs["where"][:, 0] = bulk.paths(memory, cpu.roots[0], addresses).slot[0]
            marked = format.accessed | format.dirty
            mine = format.leaf(frame, 0, format.granting("read", "write") | marked)
            users = mine | format.rights["user"]
            words = np.array([mine, users, 0, mine & ~1, users | 1 << 60, users & ~2], np.uint64)
            jobs["word"][:, 0] = random.choice(words, PROBES)
            idle = guest.image.new_jobs(PROBES)
            faults = guest.run(state, jobs)["completed"] == 0
            assert 0.7 < faults.mean() < 0.9
            return rate(
                "riscv_probes_per_s",
                PROBES,
                lambda: guest.run(state, jobs),
                "as many jobs that do nothing",
                lambda: guest.run(state, idle),
            )


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
