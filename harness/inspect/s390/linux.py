"""What Linux keeps in the bits of an entry that translation does not look at, bit by bit."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Final

from harness.inspect.decode import Bits, LinuxReading, Reading, Role
from harness.inspect.linux import cut, phrase
from harness.paging.entry import Absent, Leaf
from harness.paging.linux.entries import ProtNone, Swap
from harness.paging.s390.cpu import Cpu
from harness.paging.s390.linux import OF_AWAY, OF_FRAMES, OF_PAGES, Meaning, decode

_SAID: Final = {
    "unused": "the host's program does not need the page (of a guest)",
    "special": "neither counted nor held by Linux",
    "write": "may be written",
    "read": "may be read",
    "dirty": "was written",
    "young": "was used",
    "soft-dirty": "was written since that was asked last",
    "present": "Linux has a page here",
    "exclusive": "the page belongs to one process alone",
}
"""What bits say when they are set."""


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry."""
    meaning = decode(cpu.format, reading.raw, reading.level)
    names: dict[str, int] = {}
    if isinstance(meaning, Leaf | ProtNone):
        names = OF_FRAMES if reading.level else OF_PAGES
    elif isinstance(meaning, Swap):
        names = OF_AWAY
    roles = (Role.IGNORED, Role.UNCHECKED)
    free = reduce(or_, (part.mask for part in reading.parts if part.role in roles), 0)

    def name(bit: int) -> str:
        return next((called for called, mask in names.items() if mask & bit), "unused bits")

    parts = tuple(
        Bits(mask, called, value, _words(meaning, called, value))
        for mask, called, value in cut(reading.raw, free, name)
    )
    marks = [part.name for part in parts if part.value and part.name in _SAID]
    said = phrase(meaning)
    if isinstance(meaning, Leaf) and isinstance(reading.entry, Absent):
        said = "a page that is old: the next access faults, and has Linux clear I"
    elif isinstance(reading.entry, Leaf) and not isinstance(meaning, Leaf):
        said += ", though I=0, so that the processor reads a page"
    return LinuxReading(meaning, said + (f"; {', '.join(marks)}" if marks else ""), None, parts)


def _words(meaning: Meaning, name: str, value: int) -> str:
    if name in _SAID:
        return _SAID[name] if value else "no"
    if name == "type":
        return f"swap area {value}"
    if name == "offset":
        return "which page"
    if name == "P":
        return "set, as I, in all entries of pages that are away"
    if not value:
        return "nothing"
    of_page = isinstance(meaning, Leaf | ProtNone)
    return "as the hardware will read it" if of_page else "set, and means nothing to Linux"
