"""The pages from which the stub makes its accesses: `harness.check.window`.

The supervisor executes the first and the user the second; both lead to the page of the stub that
holds the accesses.  They are accessed, so that no engine writes to them or faults there.
"""

from __future__ import annotations

from harness.machine.stub import StubImage
from harness.paging.address import Physical
from harness.paging.format import Format


def entries(format: Format, image: StubImage) -> tuple[int, ...]:
    """The entries of the two pages."""
    shared = format.granting("read", "execute") | format.accessed
    code = Physical(image.user.start)
    return tuple(format.leaf(code, 0, bits) for bits in (shared, shared | format.rights["user"]))
