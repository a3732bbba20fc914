"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.linux import Spelling, spelled
from harness.paging.entry import Leaf
from harness.paging.format import bits
from harness.paging.power.cpu import Cpu
from harness.paging.power.formats import EXECUTE, LEAF, READ, VALID, WRITE
from harness.paging.power.linux import DEVMAP, EXCLUSIVE, SOFT_DIRTY, SPECIAL, Linux

_SOFT_DIRTY: Final = (SOFT_DIRTY, "soft-dirty", "written since it was last asked")

_SPELLING: Final = Spelling(
    valid=VALID,
    present=(
        (DEVMAP, "devmap", "a page of a device's memory, mapped like a file"),
        (SPECIAL, "special", "neither counted nor held by Linux"),
        _SOFT_DIRTY,
    ),
    away=(
        _SOFT_DIRTY,
        (EXCLUSIVE, "exclusive", "the page belongs to one process alone"),
    ),
    kept=0,
    address=bits(56, 12),
    rights=frozenset(),
    fixed=((LEAF, "pte", "set in all that lead to no table (_PAGE_PTE)"),),
)


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry."""
    found = spelled(_SPELLING, Linux(cpu.format), reading)
    if isinstance(found.meaning, Leaf):
        if not reading.raw & (READ | WRITE | EXECUTE):
            return replace(found, said=f"{found.said}, which nobody may access (PROT_NONE)")
        return found
    page = Linux(cpu.format).decode(reading.raw, reading.level)
    if isinstance(page, Leaf):
        said = f"the page at {page.address:#x}, whose entry is being changed or split"
        return replace(found, meaning=page, said=said)
    return found
