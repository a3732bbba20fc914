"""What Linux keeps in entries of s390, in bits that translation does not look at.

It is Linux 6.12 (6.12.117); source: arch/s390/include/asm/pgtable.h, its comments on page-table and
segment-table entries and on swap entries.  Of a page that is old, or that is written for the first
time, the hardware's bits are made so that the next access faults: I and P say less than `read`,
`write`, `young` and `dirty`.

page   7 unused, 6 special, 5 write, 4 read, 3 dirty, 2 young, 1 soft-dirty, 0 present
frame  of 1M and 2G: 14 soft-dirty, 13 dirty, 12 young, 1 write, 0 read
away   of a page: I and P set, bit 0 clear; 63:12 offset, 11 exclusive, 6:2 type, 1 soft-dirty

Not read: types of pages that are away from 28 on, which are no swap areas (migration, markers):
how they are numbered goes by the kernel's configuration.
"""

from __future__ import annotations

from typing import Final

from harness.paging.entry import Absent, Entry, Leaf
from harness.paging.format import Format, bits
from harness.paging.linux.entries import ProtNone, Swap, Unknown
from harness.paging.s390.formats import INVALID, PAGE_INVALID, PROTECT, TYPE

PRESENT: Final = bits(0)
PAGE_READ: Final = bits(4)
FRAME_READ: Final = bits(0)

OF_PAGES: Final = {
    "unused": bits(7),
    "special": bits(6),
    "write": bits(5),
    "read": PAGE_READ,
    "dirty": bits(3),
    "young": bits(2),
    "soft-dirty": bits(1),
    "present": PRESENT,
}
"""What Linux keeps in page-table entries."""

OF_FRAMES: Final = {
    "soft-dirty": bits(14),
    "dirty": bits(13),
    "young": bits(12),
    "write": bits(1),
    "read": FRAME_READ,
}
"""The same in entries of frames of 1M and 2G."""

OF_AWAY: Final = {
    "offset": bits(63, 12),
    "exclusive": bits(11),
    "P": PROTECT,
    "type": bits(6, 2),
    "soft-dirty": bits(1),
}
"""The same in page-table entries of pages that are away."""

AREAS: Final = 28
"""Types below are numbers of swap areas."""

Meaning = Entry | ProtNone | Swap | Unknown


def decode(format: Format, raw: int, level: int) -> Meaning:
    """What an entry says: to the processor where it is valid, else to Linux.

    A page whose I is set and that may be accessed is a Leaf: it is old, and the next access has
    Linux clear I.  One of a page table without `present` is none to Linux, whatever I is.
    """
    invalid = INVALID if level else PAGE_INVALID
    found = format.decode(raw, level)
    absent = level == 0 and isinstance(found, Leaf) and not raw & PRESENT
    if not raw & invalid and not absent:
        return found
    if not raw & ~(invalid | (TYPE if level else 0)):
        return Absent()
    if level == 0 and not raw & PRESENT:
        area = (raw & OF_AWAY["type"]) >> 2
        return Swap(area, raw >> 12) if raw & PROTECT and area < AREAS else Unknown(raw)
    page = format.decode(raw & ~invalid, level)
    if not isinstance(page, Leaf):
        return Unknown(raw)
    read = FRAME_READ if level else PAGE_READ
    return page if raw & read else ProtNone(page.address, page.size)
