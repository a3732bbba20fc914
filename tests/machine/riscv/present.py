"""The QEMU for RISC-V that is tested."""

from __future__ import annotations

import os
import shutil
from typing import Final

from harness.machine.riscv.qemu import BUILDS, program_for

QEMU: Final = os.environ.get("QEMU_RISCV", "qemu-system-riscv64")


def program(xlen: int) -> str:
    """The one that is named, or that of so many bits beside it."""
    return program_for(xlen, QEMU)


def why_absent(xlen: int) -> str | None:
    """Why there is no guest of so many bits."""
    if shutil.which(program(xlen)) is None:
        return f"there is no {program(xlen)} in PATH"
    if not BUILDS[xlen].path.exists():
        return f"there is no {BUILDS[xlen].path.name}: riscv64-linux-gnu-gcc makes it"
    return None
