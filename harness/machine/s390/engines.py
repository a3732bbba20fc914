"""The engines that run s390 by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.machine.machine import Engine
from harness.machine.s390.qemu import TCG

ENGINES: Final[Mapping[str, Engine]] = {TCG.name: TCG}


def why_absent(name: str, *, program: str | None = None) -> str | None:
    """None: a QEMU that is not for s390 says so when it is started."""
    del name, program
    return None
