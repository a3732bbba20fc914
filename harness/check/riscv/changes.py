"""Which change of an entry of RISC-V needs which flush: the table of `harness.check.changes`.

From "Supervisor Memory-Management Fence Instruction" of the privileged specification 1.13: any
entry may have been read before it was changed, one that is absent or denies an access as well, and
is used until a fence; one with an address is for leaves alone, and one of an address space for no
entry that is global, before or after.  QEMU shows a part of that: it keeps
translations that allow an access, and drops all of them at every fence.
"""

from __future__ import annotations

from typing import Final

from harness.check import changes
from harness.check.changes import ALL, GLOBAL_PAGE, NOTHING, OWN, PAGE, Change, Says
from harness.check.riscv.live import Live
from harness.check.riscv.space import GuestSpace
from harness.machine.riscv.guest import Guest
from harness.paging.riscv.formats import RSW

_PAGE, _OTHER = Says("page", ("R", "W", "U", "A", "D")), Says("page", ("R", "W", "U", "A", "D"), 1)
_CLEAN = _PAGE.without("D")
_READ_ONLY = _CLEAN.without("W")
_TABLE, _ELSEWHERE = Says("table"), Says("table", (), 1)
_ABSENT = Says("absent")
_FENCE: Final = '"Supervisor Memory-Management Fence Instruction"'
_DENIED: Final = "QEMU walks again before it denies an access"
_SAME: Final = "QEMU's fences drop what is global too, and no other root is loaded"
_TYPES: Final = "a memory type has no effect that an access by one hart could show"

CHANGES: Final = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _FENCE),
    Change("a page made malformed", _PAGE, _PAGE.without("R"), PAGE, _FENCE),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _FENCE),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _FENCE),
    Change("write taken from a page", _PAGE, _PAGE.without("W"), PAGE, _FENCE),
    Change("read taken from a page", _PAGE.and_("X"), Says("page", ("X", "U", "A")), PAGE, _FENCE),
    Change("a page taken from users", _PAGE, _PAGE.without("U"), PAGE, _FENCE),
    Change("execute taken from a page", _PAGE.and_("X"), _PAGE, PAGE, _FENCE),
    Change("a page given to users", _PAGE.without("U"), _PAGE, PAGE, _FENCE),
    Change("write given to a page", _READ_ONLY, _CLEAN, PAGE, _FENCE, _DENIED),
    Change("execute given to a page", _PAGE, _PAGE.and_("X"), PAGE, _FENCE, _DENIED),
    Change("A of a page cleared", _PAGE, _PAGE.without("A"), PAGE, _FENCE),
    Change("D of a page cleared", _PAGE, _PAGE.without("D"), PAGE, _FENCE),
    Change("a page made global", _PAGE, _PAGE.and_("G"), GLOBAL_PAGE, _FENCE, _SAME),
    Change("a page no longer global", _PAGE.and_("G"), _PAGE, GLOBAL_PAGE, _FENCE, _SAME),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, '"Sv32", RSW'),
    Change("a page mapped", _ABSENT, _PAGE, PAGE, _FENCE, _DENIED),
    Change("a malformed page mended", _PAGE.without("R"), _PAGE, PAGE, _FENCE, _DENIED),
    Change("a page split into other frames", _PAGE, _TABLE, OWN, _FENCE),
    Change("a table made one page", _TABLE, _PAGE, ALL, _FENCE),
    Change("a table unlinked", _TABLE, _ABSENT, ALL, _FENCE),
    Change("a pointer made malformed", _TABLE, _TABLE.and_("reserved"), ALL, _FENCE),
    Change("another table", _TABLE, _ELSEWHERE, ALL, _FENCE),
    Change("software's bit of a pointer set", _TABLE, _TABLE.and_(""), NOTHING, '"Sv32", RSW'),
    Change("a table linked", _ABSENT, _TABLE, OWN, _FENCE, _DENIED),
)
"""Of every mode."""


def execute(guest: Guest, mode: str, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `changes.RAM_BYTES`."""
    return changes.execute(
        guest,
        lambda: GuestSpace(guest, mode),
        lambda space: Live(guest, space.memory, space.cpu),
        change,
        level,
        software=RSW,
        apart=True,
    )
