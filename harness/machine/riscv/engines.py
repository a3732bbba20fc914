"""The engines that run RISC-V by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.machine.machine import Engine
from harness.machine.riscv.qemu import TCG

ENGINES: Final[Mapping[str, Engine]] = {TCG[64].name: TCG[64]}
"""The QEMU for 64 bits, beside which lies that for 32."""


def why_absent(name: str, *, program: str | None = None) -> str | None:
    """None: a QEMU that is not for RISC-V says so when it is started."""
    del name, program
    return None
