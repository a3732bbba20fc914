"""The page from which the stub makes its accesses in problem state: `harness.check.window`.

Only the user's rights to execute it are given; it is referenced, so that no engine writes to its
entry or fails there.
"""

from __future__ import annotations

from harness.machine.stub import StubImage
from harness.paging.address import Physical
from harness.paging.format import Format


def entries(format: Format, image: StubImage) -> tuple[int, ...]:
    """The entry of the page that leads to the accesses of the stub."""
    granted = format.granting("user", "execute") | format.accessed
    return (format.leaf(Physical(image.user.start), 0, granted),)
