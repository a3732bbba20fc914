"""Which change of an entry of arm64 needs which flush: the table of `harness.check.changes`.

From "TLB maintenance" and "Using break-before-make when updating translation table entries" of the
Arm ARM (DDI 0487): entries that are invalid or fault for want of AF are not kept, all others are,
until a TLBI of their address.  QEMU shows a part of that: it walks again before it denies.
"""

from __future__ import annotations

from typing import Final

from harness.check import changes
from harness.check.arm64.live import Live
from harness.check.arm64.space import GuestSpace
from harness.check.changes import ALL, GLOBAL_PAGE, NOTHING, PAGE, Change, Says
from harness.machine.arm64.guest import Guest

_PAGE, _OTHER = Says("page", ("AP[1]", "AF", "nG")), Says("page", ("AP[1]", "AF", "nG"), 1)
_READ_ONLY = _PAGE.and_("AP[2]")
_TABLE, _ELSEWHERE = Says("table"), Says("table", (), 1)
_ABSENT = Says("absent")
_TLB: Final = '"TLB maintenance requirements"'
_BREAK: Final = '"Using break-before-make"'
_DENIED: Final = "QEMU walks again before it denies an access"
_SAME: Final = "both translate alike until another address space is loaded"

CHANGES: Final = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _TLB),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _BREAK),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _BREAK),
    Change("write taken from a page", _PAGE, _READ_ONLY, PAGE, _TLB),
    Change("a page taken from users", _PAGE, _PAGE.without("AP[1]"), PAGE, _TLB),
    Change("a page given to users", _PAGE.without("AP[1]"), _PAGE, PAGE, _TLB),
    Change("execute taken from users", _READ_ONLY, _READ_ONLY.and_("UXN"), PAGE, _TLB),
    Change("execute taken from the supervisor", _READ_ONLY, _READ_ONLY.and_("PXN"), PAGE, _TLB),
    Change("write given to a page", _READ_ONLY, _PAGE, PAGE, _TLB),
    Change("AF of a page cleared", _PAGE, _PAGE.without("AF"), PAGE, _TLB),
    Change("a page made global", _PAGE, _PAGE.without("nG"), PAGE, _BREAK, _SAME),
    Change("a page no longer global", _PAGE.without("nG"), _PAGE, GLOBAL_PAGE, _TLB, _SAME),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, _TLB),
    Change("a page mapped", _ABSENT, _PAGE, NOTHING, _TLB),
    Change("a page split into other frames", _PAGE, _TABLE, PAGE, _BREAK),
    Change("a table made one page", _TABLE, _PAGE, ALL, _BREAK),
    Change("a table unlinked", _TABLE, _ABSENT, ALL, _TLB),
    Change("another table", _TABLE, _ELSEWHERE, ALL, _BREAK),
    Change("software's bit of a pointer set", _TABLE, _TABLE.and_(""), NOTHING, _TLB),
    Change("a table linked", _ABSENT, _TABLE, NOTHING, _TLB),
)
"""Of every granule."""


def execute(guest: Guest, granule: str, levels: int, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `changes.RAM_BYTES`."""
    return changes.execute(
        guest,
        lambda: GuestSpace(guest, granule, levels),
        lambda space: Live(guest, space.memory, space.cpu),
        change,
        level,
        software=1 << 55,
    )
