"""Looking at tables: how soon a command says its first word."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench.measure import SAMPLES, Figure

ROOT = Path(__file__).parents[2]
COMMANDS = (
    ("decode", "0x8000000000000067", "--level", "0", "--mode", "4"),
    ("walk", "0x1000", "--ram", "RAM", "--cr3", "0"),
    ("walk", "0x400000", "--layout", "smallest"),
    ("dump", "--ram", "RAM", "--cr3", "0"),
    ("dump", "--layout", "smallest"),
)
"""Every command on little, where it starts quickest, with the sources that bring most along."""


def figures() -> Iterator[Figure]:
    """first_output_s."""
    yield first_output()


def first_output() -> Figure:
    """From the start of the process to the first byte it prints, the slowest command of all."""
    with TemporaryDirectory() as directory:
        ram = Path(directory) / "ram"
        ram.write_bytes(np.zeros(512, np.uint64).tobytes())

        def run(command: tuple[str, ...]) -> float:
            words = [str(ram) if word == "RAM" else word for word in command]
            return _first_byte(["-m", "harness.cli", *words])

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
    assert process.returncode == 0
    return took
