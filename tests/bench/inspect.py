"""Looking at tables: how soon a command says its first word, and how long a whole space takes.

The space is that of the Linux guest's larger process: some 140,000 pages, 65,536 of them its own in
pages of 4 KiB, and as many addresses of one page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from harness.inspect import graph
from harness.inspect.find import addresses
from harness.inspect.ranges import dump
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import qmp
from harness.inspect.x86 import memory_type
from harness.machine.foreign import conversation
from harness.paging import bulk
from harness.paging.address import Physical
from harness.report.objects import answer
from harness.report.ranges import dump_object
from images.linux.build import build
from images.linux.machine import Variant, booted
from tests.bench.measure import SAMPLES, Figure, seconds

ROOT = Path(__file__).parents[2]
COMMANDS = (
    ("decode", "0x8000000000000067", "--level", "0", "--mode", "4"),
    ("walk", "0x1000", "--ram", "RAM", "--cr3", "0"),
    ("walk", "0x400000", "--layout", "smallest"),
    ("dump", "--ram", "RAM", "--cr3", "0"),
    ("dump", "--layout", "smallest"),
    ("fault", "0x400000", "--layout", "smallest"),
    ("find", "0x3000000", "--layout", "smallest"),
    ("lint", "--layout", "smallest"),
    ("diff", "layout:halves@4", "layout:smallest@4"),
    ("schema",),
)
"""Every command that starts no machine, on little."""


def figures() -> Iterator[Figure]:
    """first_output_s, dump_ram_s, dump_qmp_s, find_s."""
    yield first_output()
    yield from whole_space()


def whole_space() -> Iterator[Figure]:
    """The space from the socket of its QEMU to merged ranges as JSON, by the memory that QEMU
    shares and by the socket alone; and from a physical address to all that lead there."""
    with (
        TemporaryDirectory() as directory,
        booted(build(), Variant(5, False), Path(directory) / "qmp", deadline=120) as guest,
    ):
        vcpu = guest.facts.processes["parent"].cpu

        def snapshot(shared: bool) -> Snapshot:
            return qmp.snapshot(guest.qmp, vcpu, False, {}, shared=shared)

        def dumped(shared: bool) -> None:
            found = snapshot(shared)
            cpu, types = found.cpu, memory_type.types(None)
            ranges = dump(found.memory, cpu.format, cpu.roots)
            assert ranges.total > 139_000
            content = dump_object(cpu, types, ranges, len(ranges.ranges))
            json.dumps(answer("dump", found, **content))

        def printed() -> None:
            with conversation(guest.qmp, 0, 60) as monitor:
                monitor.human("info tlb", vcpu)

        held = snapshot(True)

        def found() -> None:
            space = graph.read(held.memory, held.cpu.format, held.cpu.roots)
            assert addresses(space, Physical(frame), 64).total >= 1

        def listed() -> None:
            bulk.leaves(held.memory, held.cpu.roots)

        frame = int(guest.facts.of("parent", "shared")[0].frames[0])
        for name, work, beside, other in (
            ("dump_ram_s", partial(dumped, True), "QEMU printing info tlb", printed),
            ("dump_qmp_s", partial(dumped, False), "QEMU printing info tlb", printed),
            ("find_s", found, "a list of all pages", listed),
        ):
            work()
            other()
            pairs = [(seconds(work), seconds(other)) for _ in range(SAMPLES)]
            ratio = median(ours / theirs for ours, theirs in pairs)
            yield Figure(name, "s", tuple(ours for ours, _ in pairs), beside, ratio)


def first_output() -> Figure:
    """From the start of the process to the first byte it prints, the slowest command of all."""
    with TemporaryDirectory() as directory:
        ram = Path(directory) / "ram"
        ram.write_bytes(np.zeros(512, np.uint64).tobytes())

        def run(command: tuple[str, ...]) -> float:
            words = [str(ram) if word == "RAM" else word for word in command]
            return _first_byte(["-m", "harness", *words])

        def numpy() -> float:
            return _first_byte(["-c", "import numpy; print(1, flush=True)"])

        for command in COMMANDS:
            run(command)
        rounds = [(max(map(run, COMMANDS)), numpy()) for _ in range(SAMPLES)]
    return Figure(
        "first_output_s",
        "s",
        tuple(ours for ours, _ in rounds),
        "Python importing numpy",
        median(ours / theirs for ours, theirs in rounds),
    )


def _first_byte(arguments: list[str]) -> float:
    """Seconds from the start of a Python with these arguments to what it prints first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        took = time.perf_counter() - began
        process.stdout.read()
    assert process.returncode in (0, 1)  # 1 is an answer of lint and diff
    return took
