"""Watching flushes: how much longer a guest takes."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from statistics import median

from harness.machine.plugin import watched
from images.linux.build import NoKernel, build_stress
from tests.bench.measure import Figure
from tests.flushes.linux import DONE

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
SAMPLES = 3


def figures() -> Iterator[Figure]:
    """flushes_slowdown, where there is a Linux to boot."""
    try:
        yield slowdown()
    except NoKernel as reason:
        print(f"no flushes_slowdown: {reason}")


def slowdown() -> Figure:
    """CPU seconds of a boot of Linux on one processor, with the plugin to without it."""
    image = build_stress()
    command = [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"),
        *("-no-reboot", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-machine", "q35"),
        *("-m", "512M", "-kernel", str(image.kernel), "-initrd", str(image.initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 no_timer_check operations=0"),
        *("-device", "isa-debug-exit,iobase=0xf4"),
    ]

    def boot() -> None:
        assert subprocess.run(command, check=False).returncode == DONE

    def boot_watched() -> None:
        assert watched(command).exit_code == DONE

    samples, alone = [], []
    for _ in range(SAMPLES):
        alone.append(cpu_seconds(boot))
        samples.append(cpu_seconds(boot_watched) / alone[-1])
    beside = f"the boot without the plugin, {median(alone):.1f} s of CPU time"
    return Figure("flushes_slowdown", "", tuple(samples), beside, median(samples))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds of CPU time of the processes that a call starts and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
