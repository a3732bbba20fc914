"""Which change of an entry of x86 needs which flush: the table of `harness.check.changes`."""

from __future__ import annotations

from dataclasses import replace

from harness.check import changes
from harness.check.changes import ALL, GLOBAL_PAGE, NOTHING, PAGE, Change, Says
from harness.check.x86.live import Live
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from harness.paging.x86.cpu import Cr4

_PAGE, _OTHER = Says("page", ("W", "U", "A", "D")), Says("page", ("W", "U", "A", "D"), 1)
_CLEAN, _STACK = _PAGE.without("D"), _PAGE.without("W")
_READ_ONLY = _CLEAN.without("W")
_TABLE, _ELSEWHERE = Says("table", ("W", "U", "A")), Says("table", ("W", "U", "A"), 1)
_ABSENT = Says("absent")
_MODIFIED, _OPTIONAL = "SDM volume 3A, 4.10.4.2", "SDM volume 3A, 4.10.4.3"
_MAPS, _IGNORED, _USED = "SDM volume 3A, 4.10.2.3", "SDM volume 3A, 4.5", "SDM volume 3A, 4.8"
_TYPES = "a memory type has no effect that an access by one processor could show"
_SAME = "until CR3 is loaded both translate alike, and TCG drops what is global then too"
_REFUSED = "what a key denies is not kept: TCG looks at keys when it fills its TLB"

_SHADOW = "SDM volume 3A, 4.6.1 and 4.10.4.2"
_NO_SHADOW = "only with CR4.CET is it a shadow stack, and TCG has none"

CHANGES = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _MODIFIED),
    Change("a page made malformed", _PAGE, _PAGE.and_("reserved"), PAGE, _MODIFIED),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _MODIFIED),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _MODIFIED),
    Change("write taken from a page", _PAGE, _PAGE.without("W"), PAGE, _MODIFIED),
    Change("a page taken from users", _PAGE, _PAGE.without("U"), PAGE, _MODIFIED),
    Change("execute taken from a page", _PAGE, _PAGE.and_("XD"), PAGE, _MODIFIED),
    Change("a page given to users", _PAGE.without("U"), _PAGE, PAGE, _OPTIONAL),
    Change("write given to a page", _READ_ONLY, _CLEAN, NOTHING, _OPTIONAL),
    Change("write given to a shadow stack", _STACK, _PAGE, PAGE, _SHADOW, _NO_SHADOW),
    Change("a shadow stack made of a page", _READ_ONLY, _STACK, NOTHING, _OPTIONAL),
    Change("D of a shadow stack cleared", _STACK, _READ_ONLY, PAGE, _USED, _NO_SHADOW),
    Change("execute given to a page", _PAGE.and_("XD"), _PAGE, NOTHING, _OPTIONAL),
    Change("A of a page cleared", _PAGE, _PAGE.without("A"), PAGE, _USED),
    Change("D of a page cleared", _PAGE, _PAGE.without("D"), PAGE, _USED),
    Change("A and D of a page set", _PAGE.without("A", "D"), _PAGE, NOTHING, _OPTIONAL),
    Change("a page made global", _PAGE, _PAGE.and_("G"), PAGE, _MODIFIED, _SAME),
    Change("a page no longer global", _PAGE.and_("G"), _PAGE, GLOBAL_PAGE, _MODIFIED, _SAME),
    Change("another key for a page", _PAGE, _PAGE.and_("KEY"), PAGE, _MODIFIED),
    Change("a key that allows a page", _PAGE.and_("KEY"), _PAGE, PAGE, _MODIFIED, _REFUSED),
    Change("PWT of a page set", _PAGE, _PAGE.and_("PWT"), PAGE, _MODIFIED, _TYPES),
    Change("PCD of a page set", _PAGE, _PAGE.and_("PCD"), PAGE, _MODIFIED, _TYPES),
    Change("PAT of a page set", _PAGE, _PAGE.and_("PAT"), PAGE, _MODIFIED, _TYPES),
    Change("PAT of a page cleared", _PAGE.and_("PAT"), _PAGE, PAGE, _MODIFIED, _TYPES),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, _IGNORED),
    Change("a page mapped", _ABSENT, _PAGE, NOTHING, _MAPS),
    Change("a malformed page mended", _PAGE.and_("reserved"), _PAGE, NOTHING, _MAPS),
    Change("a page split into other frames", _PAGE, _TABLE, PAGE, _MODIFIED),
    Change("a table made one page", _TABLE, _PAGE, ALL, _MODIFIED),
    Change("a table unlinked", _TABLE, _ABSENT, ALL, _MODIFIED),
    Change("a pointer made malformed", _TABLE, _TABLE.and_("reserved"), ALL, _MODIFIED),
    Change("another table", _TABLE, _ELSEWHERE, ALL, _MODIFIED),
    Change("write taken from a table", _TABLE, _TABLE.without("W"), ALL, _MODIFIED),
    Change("a table taken from users", _TABLE, _TABLE.without("U"), ALL, _MODIFIED),
    Change("execute taken from a table", _TABLE, _TABLE.and_("XD"), ALL, _MODIFIED),
    Change("a table given to users", _TABLE.without("U"), _TABLE, ALL, _OPTIONAL),
    Change("write given to a table", _TABLE.without("W"), _TABLE, NOTHING, _OPTIONAL),
    Change("execute given to a table", _TABLE.and_("XD"), _TABLE, NOTHING, _OPTIONAL),
    Change("A of a pointer cleared", _TABLE, _TABLE.without("A"), ALL, _USED),
    Change("A of a pointer set", _TABLE.without("A"), _TABLE, NOTHING, _OPTIONAL),
    Change("PWT of a pointer set", _TABLE, _TABLE.and_("PWT"), ALL, _MODIFIED, _TYPES),
    Change("PCD of a pointer set", _TABLE, _TABLE.and_("PCD"), ALL, _MODIFIED, _TYPES),
    Change("software's bit of a pointer set", _TABLE, _TABLE.and_(""), NOTHING, _IGNORED),
    Change("a table linked", _ABSENT, _TABLE, NOTHING, _MAPS),
)
"""Of 4- and 5-level paging.  A right that is given may fault once more, not again (4.10.4.3)."""


def keyed(change: Change) -> bool:
    """Whether protection keys are to be on; the last of them denies all then."""
    return "KEY" in change.before.bits + change.after.bits


def execute(guest: Guest, levels: int, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `changes.RAM_BYTES`."""

    def new_live(space: GuestSpace) -> Live:
        cpu = space.cpu
        if keyed(change):
            cpu = replace(cpu, cr4=cpu.cr4 | Cr4.PKE, pkru=3 << 30)
        return Live(guest, space.memory, cpu)

    return changes.execute(
        guest, lambda: GuestSpace(guest, levels), new_live, change, level, software=1 << 52
    )
