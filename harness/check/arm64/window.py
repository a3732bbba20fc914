"""The page from which the stub makes its accesses: `harness.check.window`.

EL0 and EL1 both execute it, so EL0 may read it and nobody may write it.  It has AF, so that no
engine writes to it or faults there.
"""

from __future__ import annotations

from harness.machine.stub import StubImage
from harness.paging.address import Physical
from harness.paging.arm64.cpu import Cpu, is_high
from harness.paging.format import Format
from harness.paging.table import Root


def open_roots(cpu: Cpu) -> tuple[Root, ...]:
    """Those of halves in which EL0 may execute it: E0PDx closes none of them."""
    closed = {high for half, high in ((cpu.low, False), (cpu.high, True)) if half and half.e0pd}
    return tuple(root for root in cpu.roots if is_high(root.span.first) not in closed)


def entries(format: Format, image: StubImage) -> tuple[int, ...]:
    """The descriptor of the page that leads to the accesses of the stub."""
    granted = format.granting("user", "user execute", "supervisor execute")
    return (format.leaf(Physical(image.user.start), 0, granted | format.accessed),)
