"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from harness.inspect.decode import Bits, LinuxReading, Part, Reading
from harness.inspect.linux import Spelling, cut, ignored, spelled
from harness.inspect.power import decode
from harness.paging.entry import Leaf
from harness.paging.format import bits
from harness.paging.power.cpu import Cpu
from harness.paging.power.formats import EXECUTE, LEAF, READ, VALID, WRITE
from harness.paging.power.linux import DEVMAP, EXCLUSIVE, INVALID, SOFT_DIRTY, SPECIAL, Linux

_SOFT_DIRTY: Final = (SOFT_DIRTY, "soft-dirty", "written since it was last asked")

_SET_IN_PAGES: Final = "set in all that lead to no table (_PAGE_PTE)"

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
    fixed=((LEAF, "pte", _SET_IN_PAGES),),
)


_CHANGING: Final = {
    INVALID: ("invalid", "the entry is being changed, or its page split (_PAGE_INVALID)"),
    LEAF: ("pte", _SET_IN_PAGES),
    **{mask: (called, said) for mask, called, said in _SPELLING.present},
}
"""What Linux has in a page whose entry is being changed, besides what the machine will read."""


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
        return replace(found, meaning=page, said=said, parts=tuple(_changing(cpu, reading)))
    return found


def _changing(cpu: Cpu, reading: Reading) -> Iterator[Bits]:
    """The bits of a page whose entry is being changed, as it will be read once V is set again."""
    whole = decode.read(cpu, reading.raw | VALID, reading.level)
    labels = {mask: label for part in whole.parts for mask, label in _labels(part)}

    def name(bit: int) -> str:
        return labels[bit][0]

    for mask, called, value in cut(reading.raw, ignored(reading), name):
        words = labels[1 << mask.bit_length() - 1][1]
        value = reading.raw & mask if called == "RPN" else value
        yield Bits(mask, called, value, words if value or called not in _MARKS else "no")


_MARKS: Final = frozenset(called for called, _ in _CHANGING.values())


def _labels(part: Part) -> Iterator[tuple[int, tuple[str, str]]]:
    """What each bit of a part is called, and what it says."""
    for place in range(64):
        if (mask := 1 << place) & part.mask:
            yield mask, _CHANGING.get(mask, (part.name, part.meaning or "no"))
