"""The QEMU for s390x that is tested."""

from __future__ import annotations

import os
import shutil
from typing import Final

from harness.machine.s390.qemu import BUILD, PROGRAM

QEMU: Final = os.environ.get("QEMU_S390", PROGRAM)


def why_absent() -> str | None:
    """Why there is no guest."""
    if shutil.which(QEMU) is None:
        return f"there is no {QEMU} in PATH"
    if not BUILD.path.exists():
        return f"there is no {BUILD.path.name}: s390x-linux-gnu-gcc makes it"
    return None
