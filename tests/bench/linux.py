"""The space of a Linux that runs in QEMU, from the socket to merged ranges as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from harness.inspect import architecture
from harness.inspect.ranges import dump
from harness.inspect.sources import qmp
from harness.machine.foreign import ForeignMonitor, conversation
from harness.report.objects import answer
from harness.report.ranges import dump_object
from images.linux.build import Image
from images.linux.machine import AnyVariant, booted
from tests.bench.measure import SAMPLES, Figure, seconds


def dumped(
    name: str,
    image: Image,
    variant: AnyVariant,
    qemu: str,
    beside: str,
    asked: Callable[[ForeignMonitor], object],
) -> Figure:
    """The seconds of one dump, with what QEMU is `asked` in turn, which is called `beside`."""
    with (
        TemporaryDirectory() as directory,
        booted(image, variant, Path(directory) / "qmp", qemu=qemu, deadline=120) as guest,
    ):

        def ours() -> None:
            found = qmp.snapshot(guest.qmp, 0, False, {})
            types = architecture.of(found.cpu).memory_types.types(None, found.cpu)
            ranges = dump(found.memory, found.cpu.format, found.cpu.roots)
            assert ranges.total > 65_536
            content = dump_object(found.cpu, types, ranges, len(ranges.ranges))
            json.dumps(answer("dump", found, **content))

        def theirs() -> None:
            with conversation(guest.qmp, 0, 60, targets=None) as monitor:
                asked(monitor)

        ours()
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(SAMPLES)]
    ratio = median(first / second for first, second in pairs)
    return Figure(name, "s", tuple(first for first, _ in pairs), beside, ratio)
