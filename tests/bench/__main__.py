"""Measures all figures, or those of the modules named, and writes build/bench.json."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from harness.architectures import NAMES, USUAL, module_of
from harness.machine.machine import Engine
from tests.bench.measure import Figure

MODULES = (
    *("paging", "space", "machine", "matrix", "inspect", "flushes"),
    *("riscv", "arm64", "s390", "power"),
)


def main(names: list[str]) -> None:
    """Prints a line a figure as it comes, then writes them all."""
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    figures: list[Figure] = []
    for name in names or MODULES:
        for figure in import_module(f"tests.bench.{name}").figures():
            print(
                f"{figure.name:24} {figure.value:15,.2f} {figure.unit:4}"
                f" ({min(figure.samples):,.2f} to {max(figure.samples):,.2f});"
                f" {figure.ratio:.2f} times as long as {figure.beside}",
                flush=True,
            )
            figures.append(figure)
    path = Path("build/bench.json")
    path.parent.mkdir(exist_ok=True)
    content = {
        "machine": about,
        "figures": {
            figure.name: {
                "value": figure.value,
                "unit": figure.unit,
                "samples": figure.samples,
                "beside": figure.beside,
                "ratio": figure.ratio,
            }
            for figure in figures
        },
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, str]:
    """What the figures were taken on: processor, cores, engine and versions."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": "tcg",
        **{"qemu" if arch == USUAL else f"qemu of {arch}": version_of(arch) for arch in NAMES},
    }


def version_of(arch: str) -> str:
    """The version of the QEMU that runs an architecture's guests."""
    engine: Engine = module_of(arch, "machine", "engines").ENGINES["tcg"]
    qemu = os.environ.get(engine.environment, engine.program)
    if shutil.which(qemu) is None:
        return "missing"
    said = subprocess.run([qemu, "--version"], check=True, capture_output=True, text=True).stdout
    return said.splitlines()[0].removeprefix("QEMU emulator version ")


main(sys.argv[1:])
