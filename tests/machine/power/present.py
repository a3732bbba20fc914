"""The QEMU for POWER that is tested."""

from __future__ import annotations

import os
import shutil
from typing import Final

from harness.machine.power.qemu import BUILD, PROGRAM

QEMU: Final = os.environ.get("QEMU_POWER", PROGRAM)


def why_absent() -> str | None:
    """Why there is no guest."""
    if shutil.which(QEMU) is None:
        return f"there is no {QEMU} in PATH"
    if not BUILD.path.exists():
        return f"there is no {BUILD.path.name}: powerpc64le-linux-gnu-gcc makes it"
    return None
