"""Which engines this host can run, and why not the others.

An engine counts as present when it has brought the stub to its prompt: a /dev/kvm that opens says
little about what happens behind it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import Engine, dotted
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.x86.guest import Guest, MachineInfo
from harness.machine.x86.registry import ENGINES, engine_named

__all__ = [
    "ENGINES",
    "Present",
    "called",
    "executor",
    "interprets",
    "kvm_module",
    "present",
    "reads_as_amd",
    "why_absent",
    "why_long_mode_only",
    "why_not_started",
]

MODULES: Final = Path("/sys/module")


@dataclass(frozen=True)
class Module:
    """What a module of the host's kernel makes of a guest.

    long_mode_only  a guest has no processor left once it has left long mode and switches paging on
    interprets      what a guest's supervisor executes, a hundred times slower than TCG
    """

    long_mode_only: bool = False
    interprets: bool = False


KVM_MODULES: Final[Mapping[str, Module]] = {
    "kvm_amd": Module(),
    "kvm_intel": Module(),
    "kvm_pvm": Module(long_mode_only=True, interprets=True),
}
"""What can be behind /dev/kvm, one at a time: the two that use the processor's virtualization,
and one that does without."""

AMD_VENDORS: Final = ("AuthenticAMD", "HygonGenuine")
"""Whose processors read entries as the APM says (CPUID leaf 0)."""


@dataclass(frozen=True)
class Present:
    """An engine that this host can run.

    program         the emulator to run
    executor        who executes for it, and in which version
    info            the processor that a guest has where none is chosen
    long_mode_only  why a guest is lost outside long mode, as a sentence; None if it is not
    """

    program: str
    executor: tuple[str, tuple[int, ...]]
    info: MachineInfo
    long_mode_only: str | None

    @property
    def called(self) -> str:
        """Who executes, as people write it."""
        return called(*self.executor)


def why_absent(name: str, *, program: str | None = None) -> str | None:
    """Why this host cannot run the engine, as a sentence; None if it can.

    `program` is another emulator than the engine's own. Raises `Misuse` if there is no engine of
    that name.
    """
    reason = why_not_started(name, program=program)
    if reason is not None:
        return reason
    try:
        present(name, program)
        return None
    except (MachineError, Misuse) as error:
        return str(error)


def present(name: str, program: str | None = None) -> Present:
    """An engine as it is here; raises as `Guest` does.

    Boots the stub, which takes about 50 ms, once in a process for each emulator that comes up.
    """
    engine = engine_named(name)
    emulator = program or engine.program
    of_file = Path(engine.installed(emulator)).stat()
    return _brought_up(engine, emulator, (of_file.st_dev, of_file.st_ino, of_file.st_mtime_ns))


@cache
def _brought_up(engine: Engine, emulator: str, file: tuple[int, ...]) -> Present:
    with Guest(engine.name, ram_bytes=ARENA.stop + RAM_UNIT, program=emulator) as guest:
        return Present(emulator, executor(guest), guest.info, why_long_mode_only(guest))


def why_not_started(name: str, *, program: str | None = None) -> str | None:
    """Why the engine is not even started here, as a sentence: what it needs is missing; None if
    nothing is. Raises `Misuse` if there is no engine of that name."""
    engine = engine_named(name)
    try:
        engine.installed(program)
    except Misuse as error:
        return str(error)
    device = engine.device
    if device is not None:
        if not device.exists():
            return f"There is no {device}: load the kvm module, or allow nested virtualization."
        if not os.access(device, os.R_OK | os.W_OK):
            return f"{device} may not be opened by this user: join the group that owns it."
    return None


def why_long_mode_only(guest: Guest) -> str | None:
    """Why a guest is lost in 32-bit paging and PAE paging, as a sentence; None if it is not."""
    name, _ = executor(guest)
    only = name in KVM_MODULES and KVM_MODULES[name].long_mode_only
    return f"{name} runs guests in long mode only." if only else None


def interprets(name: str) -> bool:
    """Whether what `executor` names interprets what the supervisor executes."""
    return name in KVM_MODULES and KVM_MODULES[name].interprets


def executor(guest: Guest) -> tuple[str, tuple[int, ...]]:
    """Who executes a guest's instructions, and in which version.

    The engine with its emulator's version, or the host's module behind KVM with the kernel's; where
    the host does not tell which that is, `kvm`.
    """
    if not guest.engine.by_kernel:
        return guest.engine.name, guest.version
    release, _, _ = os.uname().release.partition("-")
    return kvm_module() or guest.engine.name, tuple(map(int, re.findall(r"\d+", release)))


def called(executor: str, version: tuple[int, ...]) -> str:
    """Who executes, and in which version, as people write it: `bochs 3.0`."""
    return f"{executor} {dotted(version)}"


def reads_as_amd(info: MachineInfo) -> bool:
    """Whether a processor reads entries as AMD's do where they differ from Intel's: it goes by the
    vendor that it shows. TCG does not, which is a quirk of it."""
    return info.vendor in AMD_VENDORS


def kvm_module(modules: Path = MODULES) -> str | None:
    """The one module of `KVM_MODULES` that the kernel holds; None if it holds none, or several.

    A module that is built into the kernel is listed even if it gave way to another one.
    """
    held = [name for name in KVM_MODULES if (modules / name).is_dir()]
    return held[0] if len(held) == 1 else None
