"""The bare-metal guest of the cases, and what the plugin makes of them."""

from __future__ import annotations

import fcntl
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.check.x86.flushes import Flushes, flushes
from harness.machine.plugin import BUILT_PLUGIN, DEADLINE, watched

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "guest"
PLUGIN = ROOT / "guest" / "plugin"
PLANTED = BUILD / "flushes-planted.so"
PAGE = 4096
SHORT = 50_000
"""Blocks after which a change is late, where no processor waits for another."""


@dataclass(frozen=True)
class Ran:
    """What the guest says of each case, by name, and the verdicts on its page."""

    expected: dict[str, str]
    found: dict[str, str]
    flushes: Flushes


@cache
def built() -> None:
    """Makes the guests, and the plugin in which each rule can be broken: one process at a time, or
    another loads what this one is about to write again."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with Path(BUILD, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder, target in ((PLUGIN / "cases", "all"), (PLUGIN, "planted")):
            subprocess.run(["make", "-s", "-C", str(folder), target], check=True)


def guest(mode: int) -> Path:
    built()
    return BUILD / f"flushes-cases-{mode}.elf"


def command(
    qemu: str, mode: int, processors: int = 1, wanted: str = "", ram: str = "64M"
) -> list[str]:
    """What starts the guest, which prints to standard output and ends QEMU with exit code 1;
    `wanted` is its command line."""
    return [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "microvm", "-m", ram, "-accel", "tcg", "-cpu", "max"),
        *("-smp", str(processors), "-append", wanted or str(processors)),
        *("-device", "isa-debug-exit,iobase=0xf4", "-serial", "stdio"),
        *("-kernel", str(guest(mode))),
    ]


def ran(
    qemu: str,
    mode: int,
    processors: int = 1,
    plant: str = "NO_PLANT",
    wanted: str = "",
    ram: str = "64M",
) -> Ran:
    """The cases, run under the plugin, with a rule of it broken or none."""
    started = command(qemu, mode, processors, wanted, ram)
    planted = plant != "NO_PLANT"
    with tempfile.TemporaryFile() as console:
        seen = watched(
            started,
            limit=60,
            deadline=SHORT if processors == 1 else DEADLINE,
            plugin=PLANTED if planted else BUILT_PLUGIN,
            plant=plants().index(plant),
            stdout=console,
        )
        console.seek(0)
        text = console.read().decode("ascii", "replace")
    assert text.splitlines()[-1:] == ["done"], text
    found = flushes(seen)
    expected, pages = {}, {}
    for _, name, address, verdict in told(text):
        expected[name] = verdict
        pages[int(address, 16) // PAGE] = name
    assert len(pages) == len(expected)
    verdicts = dict.fromkeys(expected, "legal")
    for cause in found.causes:
        verdict = "denied" if cause.denied else "late" if cause.late else "stale"
        name = pages.get(cause.address // PAGE, f"at {cause.address:#x}")
        verdicts[name] = verdict if verdicts.get(name) in ("legal", verdict) else "several"
    return Ran(expected, verdicts, found)


def told(text: str) -> Iterator[list[str]]:
    """The lines about cases, in words."""
    for line in text.splitlines():
        if line.startswith("case "):
            yield line.split()


@cache
def plants() -> list[str]:
    """The names of the rules that can be broken, in the order of their numbers."""
    header = (PLUGIN / "shadow.h").read_text()
    found = re.search(r"enum plant \{(.*?)\}", header, re.DOTALL)
    assert found is not None
    return re.findall(r"\w+", found[1])
