"""The engines of an architecture by name: those of its module `engines`."""

from __future__ import annotations

from collections.abc import Mapping

from harness.architectures import USUAL, module_of
from harness.machine.errors import Misuse
from harness.machine.machine import Engine


def engines_of(arch: str) -> Mapping[str, Engine]:
    """The engines that run guests of an architecture, by name."""
    found: Mapping[str, Engine] = module_of(arch, "machine", "engines").ENGINES
    return found


def engine_named(name: str, arch: str) -> Engine:
    """The engine of that name; raises `Misuse` if there is none that runs an architecture."""
    engines, such = engines_of(arch), "" if arch == USUAL else f" for {arch}"
    if name not in engines:
        raise Misuse(f"there is no engine {name!r}{such}: choose one of {', '.join(engines)}")
    return engines[name]


def why_absent(name: str, arch: str, program: str) -> str | None:
    """Why this host cannot run an engine of an architecture by an emulator that is there, as a
    sentence; None if it can, or if the emulator's start will tell: `why_absent` of its module
    `engines`."""
    reason: str | None = module_of(arch, "machine", "engines").why_absent(name, program=program)
    return reason
