"""A guest that waits for a command leaves the processors to others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.architectures import NAMES, module_of
from harness.machine.patience import Clock
from harness.machine.x86.engines import why_absent
from tests.machine.arm64 import present as arm64
from tests.machine.power import present as power
from tests.machine.riscv import present as riscv
from tests.machine.s390 import present as s390

pytestmark = pytest.mark.hw

GUESTS: dict[str, tuple[Callable[[], str | None], dict[str, str]]] = {
    "x86": (lambda: why_absent("tcg"), {"engine": "tcg"}),
    "riscv": (lambda: riscv.why_absent(64), {"program": riscv.program(64)}),
    "arm64": (arm64.why_absent, {"program": arm64.QEMU}),
    "s390": (s390.why_absent, {"program": s390.QEMU}),
    "power": (power.why_absent, {"program": power.QEMU}),
}
"""Of an architecture why there is no guest, and by what there is one."""


def cpu_seconds(pid: int) -> float:
    """What a process has worked so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("arch", NAMES)
def test_a_guest_that_waits_for_a_command_does_not_work(arch: str) -> None:
    """POWER's looks after a line each half millisecond: there is no interrupt that could end its
    wait."""
    absent, chosen = GUESTS[arch]
    if reason := absent():
        pytest.skip(reason)
    with module_of(arch, "machine", "guest").Guest(**chosen) as guest:
        before, clock = cpu_seconds(guest.pid), Clock(guest.pid)
        while clock.now() < 0.5:
            time.sleep(0.05)
        assert cpu_seconds(guest.pid) - before < 0.2
