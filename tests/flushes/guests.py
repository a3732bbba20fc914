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

from harness.check.flushes import Flushes, flushes
from harness.machine.plugin import DEADLINE, watched

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "guest"
PLUGIN = ROOT / "guest" / "plugin"
PAGE = 4096
SHORT = 50_000
"""Blocks after which a change is late, where no processor waits for another."""


@dataclass(frozen=True)
class Ran:
    """What the guest says of each case, by name, and the verdicts on its page."""

    expected: dict[str, str]
    found: dict[str, str]
    flushes: Flushes


Mode = int | str
"""2 (32-bit), 3 (PAE), 4 and 5 levels on x86; sv32, sv39, sv48 and sv57 on RISC-V."""


def arch_of(mode: Mode) -> str:
    return "x86" if isinstance(mode, int) else "riscv"


@cache
def built(arch: str) -> None:
    """Makes the guests, and the plugin in which each rule can be broken: one process at a time, or
    another loads what this one is about to write again."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with Path(BUILD, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder, target in ((PLUGIN / arch / "cases", "all"), (PLUGIN, "planted")):
            subprocess.run(["make", "-s", "-C", str(folder), target], check=True)


def guest(mode: Mode) -> Path:
    built(arch_of(mode))
    return BUILD / f"flushes-cases-{mode}.elf"


def command(
    qemu: str, mode: Mode, processors: int = 1, wanted: str = "", ram: str = "64M"
) -> list[str]:
    """What starts the guest, which prints to standard output and ends QEMU with exit code 1;
    `wanted` says which cases run: all, if it is empty."""
    start = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
    start += ["-no-reboot", "-m", ram, "-smp", str(processors), "-serial", "stdio"]
    start += ["-kernel", str(guest(mode))]
    if arch_of(mode) == "x86":
        start += ["-machine", "microvm", "-cpu", "max", "-append", wanted or str(processors)]
        return [*start, "-device", "isa-debug-exit,iobase=0xf4"]
    cpu, extensions = "rv32", ""
    if mode != "sv32":
        cpu, extensions = "rv64,svnapot=on,svinval=on,v=on", "nv"
    start += ["-append", f"wanted={wanted or f'{processors}{extensions}'}"]
    return [*start, "-machine", "virt", "-bios", "none", "-cpu", cpu]


def ran(
    qemu: str,
    mode: Mode,
    processors: int = 1,
    plant: str = "NO_PLANT",
    wanted: str = "",
    ram: str = "64M",
) -> Ran:
    """The cases, run under the plugin, with a rule of it broken or none."""
    started, arch = command(qemu, mode, processors, wanted, ram), arch_of(mode)
    planted = plant != "NO_PLANT"
    with tempfile.TemporaryFile() as console:
        seen = watched(
            started,
            limit=60,
            deadline=SHORT if processors == 1 else DEADLINE,
            arch=arch,
            plugin=BUILD / f"flushes-{arch}-planted.so" if planted else None,
            plant=plants(arch).index(plant),
            stdout=console,
        )
        console.seek(0)
        text = console.read().decode("ascii", "replace")
    assert text.splitlines()[-1:] == ["done"], text
    found = flushes(arch, seen)
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
def plants(arch: str) -> list[str]:
    """The names of the rules that can be broken, in the order of their numbers."""
    common = re.search(r"enum plant \{(.*?)ARCH", (PLUGIN / "shadow.h").read_text(), re.DOTALL)
    assert common
    return re.findall(r"\w+", common[1]) + own_plants(arch)


def own_plants(arch: str) -> list[str]:
    """Those of an architecture alone."""
    own = re.search(r"define ARCH_PLANTS(.*?)#", (PLUGIN / arch / "arch.h").read_text(), re.DOTALL)
    assert own
    return re.findall(r"\w+", own[1])


def asked(*folders: Path) -> set[str]:
    """The rules that can be broken by the source of the plugin in some folders."""
    paths = (path for folder in folders for path in folder.glob("*.[ch]"))
    return {*re.findall(r"\bplanted\(([A-Z0-9_]+)\)", "".join(path.read_text() for path in paths))}


def rules(heading: str) -> dict[str, set[str]]:
    """The cases of each rule in a part of the plugin's README."""
    text = (PLUGIN / "README.md").read_text()
    part = text.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (.+?) \|.*?\| (`.+`) \|$", part, re.MULTILINE)
    return {rule: set(cases.split("` `")) for rule, cases in ((a, b.strip("`")) for a, b in rows)}


def made(arch: str) -> set[str]:
    """The cases that there are."""
    text = (PLUGIN / arch / "cases" / "cases.c").read_text()
    return {*re.findall(r'"(?:legal|stale|late|denied)", "([a-z0-9-]+)"', text)}
