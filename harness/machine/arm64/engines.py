"""The engines that run arm64 by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.machine.arm64.qemu import TCG
from harness.machine.machine import Engine

ENGINES: Final[Mapping[str, Engine]] = {TCG.name: TCG}


def why_absent(name: str, *, program: str | None = None) -> str | None:
    """None: a QEMU that is not for arm64 says so when it is started."""
    del name, program
    return None
