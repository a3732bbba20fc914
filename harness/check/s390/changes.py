"""Which change of an entry of s390 needs which flush: the table of `harness.check.changes`.

From "Modification of Translation Tables" of the Principles of Operation: an entry that is valid may
become another only by way of an invalid one, and what was made of it is purged in between, by IPTE
of a page-table entry, and with PTLB of all others; one that was invalid is not kept.  QEMU shows a
part of that: it walks again before it denies.
"""

from __future__ import annotations

from typing import Final

from harness.check import changes
from harness.check.changes import NOTHING, OWN, PAGE, Change, Says
from harness.check.s390.live import Live
from harness.check.s390.space import GuestSpace
from harness.machine.s390.guest import Guest

_PAGE, _OTHER = Says("page"), Says("page", (), 1)
_READ_ONLY = _PAGE.and_("P")
_TABLE, _ELSEWHERE = Says("table"), Says("table", (), 1)
_ABSENT = Says("absent")
_RULE: Final = '"Modification of Translation Tables"'
_DENIED: Final = "QEMU walks again before it denies an access"

CHANGES: Final = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _RULE),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _RULE),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _RULE),
    Change("write taken from a page", _PAGE, _READ_ONLY, PAGE, _RULE),
    Change("write given to a page", _READ_ONLY, _PAGE, PAGE, _RULE, _DENIED),
    Change("execute taken from a page", _PAGE, _PAGE.and_("IEP"), PAGE, _RULE),
    Change("execute given to a page", _PAGE.and_("IEP"), _PAGE, PAGE, _RULE, _DENIED),
    Change("a page made malformed", _PAGE, _PAGE.and_("reserved"), PAGE, _RULE),
    Change("a page mapped", _ABSENT, _PAGE, NOTHING, _RULE),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, '"Page-Table Entries"'),
    Change("a table unlinked", _TABLE, _ABSENT, OWN, _RULE),
    Change("another table", _TABLE, _ELSEWHERE, OWN, _RULE),
    Change("a pointer made malformed", _TABLE, _TABLE.and_("reserved"), OWN, _RULE),
    Change("a table linked", _ABSENT, _TABLE, NOTHING, _RULE),
)
"""Of every mode."""

_SOFTWARE: Final = 1
"""A bit of a page-table entry that is the software's."""


def execute(guest: Guest, mode: str, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `changes.RAM_BYTES`."""
    return changes.execute(
        guest,
        lambda: GuestSpace(guest, mode),
        lambda space: Live(guest, space.memory, space.cpu),
        change,
        level,
        software=_SOFTWARE,
        apart=True,
    )
