"""The machine: the start of a guest, and the probes it executes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial

import numpy as np

from harness.check.x86.window import open_window
from harness.machine.ram import ARENA, TABLE_ARENA
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86.cpu import Cpu
from tests.bench.measure import Figure, in_turn, rate, seconds

PROBES = 200_000
QEMU = os.environ.get("QEMU", "qemu-system-x86_64")


def figures() -> Iterator[Figure]:
    """boot_ms, probes_per_s."""
    yield boot()
    yield probes()


def boot() -> Figure:
    """From the start of QEMU to the stub's prompt, the monitor connected."""

    def start_and_end() -> float:
        guests: list[Guest] = []
        took = seconds(lambda: guests.append(Guest("tcg", program=QEMU)))
        guests[0].close()
        return took

    def version() -> object:
        return subprocess.run([QEMU, "--version"], check=True, stdout=subprocess.DEVNULL)

    return in_turn("boot_ms", start_and_end, "QEMU printing its version", partial(seconds, version))


def probes() -> Figure:
    """One patched entry and INVLPG each, mixed rights, three in four faulting."""
    with Guest("tcg", program=QEMU) as guest:
        memory = BufferMemory(guest.ram.buffer)
        allocator = TableAllocator(memory, Span(ARENA.stop, ARENA.stop + (1 << 20) - 1))
        root = allocator.allocate(Cpu.long_mode(4, 0).format, 3)
        cpu = Cpu.long_mode(4, root.address, maxphyaddr=guest.info.physical_bits)
        format, page = cpu.format, Virtual(0xFFFF_8000_0000_0000)
        frame = ARENA.stop + (2 << 20)
        Space(memory, cpu.roots, allocator).map(page, np.array([frame], np.uint64), 0, 0)
        window = open_window(
            memory, cpu, guest.image, TableAllocator(memory, Span(TABLE_ARENA.start, ARENA.stop))
        )
        random = np.random.default_rng(3)
        jobs = guest.image.new_jobs(PROBES)
        enums = guest.image.enums
        jobs["address"], jobs["size"], jobs["flush"] = page, 8, enums["FLUSH_PAGE"]
        jobs["access"] = random.choice([enums["ACCESS_READ"], enums["ACCESS_WRITE"]], PROBES)
        jobs["user"] = random.integers(0, 2, PROBES)
        jobs["patched"] = 1
        jobs["where"][:, 0] = bulk.paths(memory, cpu.roots[0], np.array([page], np.uint64)).slot[0]
        allowed = format.leaf(frame, 0, format.granting("write", "user"))
        denied = [0, format.leaf(frame, 0, 0) & ~1, allowed | 1 << 51]
        jobs["word"][:, 0] = random.choice(np.array([allowed, *denied], np.uint64), PROBES)
        idle = guest.image.new_jobs(PROBES)
        faults = guest.run(window.state, jobs)["completed"] == 0
        assert 0.7 < faults.mean() < 0.8
        return rate(
            "probes_per_s",
            PROBES,
            lambda: guest.run(window.state, jobs),
            "as many jobs that do nothing",
            lambda: guest.run(window.state, idle),
        )
