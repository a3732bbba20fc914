"""The engines by name: the one place that lists them.

To add one: a module beside `bochs` with its `Machine`, which starts the emulator in memory that is
shared, and its `Engine`, which says what it can; and its name here.  All else asks these two.  Its
departures from the rules are quirks (`harness.check.x86.quirks`), each with evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.machine.errors import Misuse
from harness.machine.machine import Ability, Engine
from harness.machine.x86.bochs import BOCHS
from harness.machine.x86.qemu import KVM, TCG

ENGINES: Final[Mapping[str, Engine]] = {engine.name: engine for engine in (TCG, KVM, BOCHS)}


DEFAULT: Final = tuple(name for name, engine in ENGINES.items() if engine.by_default)
"""Those that are tried, in this order, where none is asked for."""


def engine_named(name: str) -> Engine:
    """The engine of that name; raises `Misuse` if there is none."""
    if name not in ENGINES:
        raise Misuse(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


def engines_with(ability: Ability) -> tuple[str, ...]:
    """The names of the engines that can do something."""
    return tuple(name for name, engine in ENGINES.items() if ability in engine.can)
