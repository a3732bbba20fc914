"""Which change of an entry of POWER needs which flush: the table of `harness.check.changes`.

From "Translation Table Update Synchronization Requirements" of the Power ISA 3.0, Book III, whose
text was not at hand, and what Linux does for radix trees (`harness.paging.power.formats` names the
functions): what leads somewhere is kept until a tlbie, with RIC=0 of a page, with RIC=2 of what a
directory leads to; what is absent is not, and authority that is given needs none.  Where a table
comes in the place of a page the library asks for all, though a tlbie of the page may be enough.
QEMU shows a part of that: it keeps translations that allow an access, and no directories.
"""

from __future__ import annotations

from typing import Final

from harness.check import changes
from harness.check.changes import NOTHING, OWN, PAGE, Change, Says
from harness.check.power.live import Live
from harness.check.power.space import MarkedSpace
from harness.machine.power.guest import Guest

_PAGE = Says("page", ("EAA1", "EAA2", "R", "C"))
_OTHER = Says("page", ("EAA1", "EAA2", "R", "C"), 1)
_READ_ONLY = _PAGE.without("EAA2", "C")
_TABLE, _ELSEWHERE = Says("table"), Says("table", (), 1)
_ABSENT = Says("absent")
_UPDATE: Final = '"Translation Table Update Synchronization Requirements"'

CHANGES: Final = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _UPDATE),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _UPDATE),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _UPDATE),
    Change("write taken from a page", _PAGE, _PAGE.without("EAA2"), PAGE, _UPDATE),
    Change("a page taken from users", _PAGE, _PAGE.and_("EAA0"), PAGE, _UPDATE),
    Change("execute taken from a page", _PAGE.and_("EAA3"), _PAGE, PAGE, _UPDATE),
    Change("a page given to users", _PAGE.and_("EAA0"), _PAGE, NOTHING, _UPDATE),
    Change("write given to a page", _READ_ONLY, _PAGE, NOTHING, _UPDATE),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, _UPDATE),
    Change("a page mapped", _ABSENT, _PAGE, NOTHING, _UPDATE),
    Change("a page split into other frames", _PAGE, _TABLE, OWN, _UPDATE),
    Change("a table made one page", _TABLE, _PAGE, OWN, _UPDATE),
    Change("a table unlinked", _TABLE, _ABSENT, OWN, _UPDATE),
    Change("another table", _TABLE, _ELSEWHERE, OWN, _UPDATE),
    Change("a table linked", _ABSENT, _TABLE, NOTHING, _UPDATE),
)
"""Of trees of both sizes of pages."""


def execute(guest: Guest, page_bits: int, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `changes.RAM_BYTES`."""
    return changes.execute(
        guest,
        lambda: MarkedSpace(guest, page_bits),
        lambda space: Live(guest, space.memory, space.cpu),
        change,
        level,
        software=1 << 9,
    )
