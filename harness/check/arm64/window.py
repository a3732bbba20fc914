"""The page from which the stub makes its accesses: `harness.check.window`.

EL0 and EL1 both execute it, so EL0 may read it and nobody may write it.  It has AF, so that no
engine writes to it or faults there.
"""

from __future__ import annotations

from harness.machine.stub import StubImage
from harness.paging.address import Physical
from harness.paging.format import Format


def entries(format: Format, image: StubImage) -> tuple[int, ...]:
    """The descriptor of the page that leads to the accesses of the stub."""
    granted = format.granting("user", "user execute", "supervisor execute")
    return (format.leaf(Physical(image.user.start), 0, granted | format.accessed),)
