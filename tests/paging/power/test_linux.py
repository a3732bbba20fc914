"""The entries that Linux writes on POWER; expected values worked out by hand from its headers
(6.12: pgtable.h and radix.h of book3s/64, swap.h, swapops.h)."""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging.address import Physical
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.linux.away import Away
from harness.paging.linux.entries import (
    Counted,
    Marker,
    Migration,
    Notes,
    Poison,
    Swap,
    Type,
    Unknown,
)
from harness.paging.power.formats import radix
from harness.paging.power.linux import DEVMAP, EXCLUSIVE, INVALID, SOFT_DIRTY, SPECIAL, Linux

LINUX = {shift: Linux(radix(shift)) for shift in (12, 16)}
K64 = LINUX[16]

PRESENT, PTE = 1 << 63, 1 << 62
"""_PAGE_PRESENT and _PAGE_PTE."""

PAGE = PRESENT | PTE | 0x80_0000 | 0x186
"""A page of users, to be read and written, accessed and dirty."""

every = pytest.mark.parametrize("shift", LINUX)


def test_the_bits_that_linux_names_are_those_of_its_header() -> None:
    """_PAGE_SOFT_DIRTY, _PAGE_SPECIAL, _PAGE_DEVMAP, _PAGE_INVALID and _PAGE_SWP_EXCLUSIVE."""
    assert (SOFT_DIRTY, SPECIAL, DEVMAP) == (0x200, 0x400, 0x800)
    assert (INVALID, EXCLUSIVE) == (1 << 61, 0x20)


def away(shift: int) -> list[tuple[Away, int, int, int]]:
    """What is away: its highest level, its type, and its offset, which begins at PAGE_SHIFT.

    Addresses of memory have 51 bits (R_MAX_PHYSMEM_BITS); above the frame number of a page that
    moves are young and dirty, which are bits 51 and 52 of the entry, the last of an offset.
    """
    young, dirty = 1 << 51 - shift, 1 << 52 - shift
    last = (1 << 51) - (1 << shift)
    return [
        (Swap(0, 1), 0, 0, 1),
        (Swap(1, 5), 0, 1, 5),
        (Swap(26, (1 << 53 - shift) - 1), 0, 26, (1 << 53 - shift) - 1),
        (Poison(Physical(7 << shift)), 0, 27, 7),
        (Poison(Physical(last)), 0, 27, last >> shift),
        (Migration(Type.MIGRATION_READ, Physical(1 << shift)), 1, 28, 1),
        (Migration(Type.MIGRATION_READ_EXCLUSIVE, Physical(last)), 1, 29, last >> shift),
        (Migration(Type.MIGRATION_WRITE, Physical(0)), 1, 30, 0),
        (Migration(Type.MIGRATION_READ, Physical(0), young=True), 1, 28, young),
        (Migration(Type.MIGRATION_READ, Physical(0), dirty=True), 1, 28, dirty),
        (Marker(Notes.POISONED), 0, 31, 2),
    ]


@every
def test_entries_are_those_of_the_headers(shift: int) -> None:
    linux = LINUX[shift]
    for meaning, highest, type, offset in away(shift):
        raw = PTE | offset << shift | type
        for level in range(highest + 1):
            assert linux.encode(meaning, level) == raw, meaning
            for marks in (0, SOFT_DIRTY, EXCLUSIVE, SOFT_DIRTY | EXCLUSIVE):
                assert linux.decode(raw | marks, level) == meaning
                # No area has as many pages as an offset can count.
                assert linux.written(raw | marks, level) == (meaning != away(shift)[2][0])
            assert linux.format.decode(raw, level) == Absent() and not linux.present(raw, level)
            for stray in (1 << 6, 1 << 8, 1 << 11, 1 << 53, 1 << 60):
                assert not linux.written(raw | stray, level), meaning
        assert linux.decode(raw, highest + 1) == Unknown(raw)
        assert not linux.written(raw, highest + 1)


@pytest.mark.parametrize(
    ("meaning", "level", "said"),
    [
        (Swap(27, 1), 0, "areas end at 26"),
        (Swap(0, 1 << 37), 0, "offsets are 1 to 0x1fffffffff"),
        (Poison(Physical(1 << 51)), 0, "51 bits wide"),
        (Poison(Physical(0x1000)), 0, "not the address of a page"),
        (Migration(Type.MIGRATION_READ, Physical(0)), 2, "no level-2 entry"),
        (Marker(Notes.UFFD_WP), 0, "a marker remembers"),
    ],
)
def test_what_linux_has_no_entry_for_is_refused(meaning: Away, level: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        K64.encode(meaning, level)


@every
def test_a_page_that_is_invalid_for_a_while_stays_one(shift: int) -> None:
    linux, shifts = LINUX[shift], (shift, 21, 30)
    for level in range(2):  # pte_present and pmd_present; there is none of 1G
        raw = PTE | INVALID | 3 << shifts[level] | 0x186
        assert linux.present(raw, level)
        assert linux.decode(raw, level) == Leaf(Physical(3 << shifts[level]), 1 << shifts[level])
        assert linux.format.decode(raw, level) == Absent()
    assert not linux.present(PTE | INVALID, 2)
    assert linux.present(PAGE, 0) and linux.present(PRESENT, 3)


def test_present_entries_say_what_they_say_to_the_hardware() -> None:
    assert K64.decode(PAGE | SPECIAL | DEVMAP | SOFT_DIRTY, 0) == Leaf(Physical(0x80_0000), 1 << 16)
    assert isinstance(K64.decode(PRESENT | 0x80_0000 | 9, 2), Pointer)
    assert K64.decode(0, 0) == Absent() and K64.written(0, 0)


def test_what_is_no_page_and_not_empty_linux_does_not_write() -> None:
    for raw in (0x5_0001, INVALID | 0x5_0001):
        assert K64.decode(raw, 0) == Unknown(raw) and not K64.written(raw, 0)
    # A page that is invalid for a while is a leaf.
    assert K64.decode(PTE | INVALID, 3) == Unknown(PTE | INVALID)


def test_a_fork_takes_the_right_to_write_and_what_the_child_has_not_done() -> None:
    read_only, swapped = PAGE & ~2, PTE | 0x5_0001
    pages = [PAGE, read_only, PAGE | SPECIAL, PAGE | DEVMAP]
    raw = np.array([*pages, swapped | EXCLUSIVE, 0], np.uint64)
    private = K64.fork(raw, 0, private=True)
    closed = [page & ~2 for page in pages]
    assert private.parent.tolist() == [*closed, swapped, 0]
    assert private.child.tolist() == [*(page & ~0x100 for page in closed), swapped, 0]  # old
    assert private.counted.tolist() == [
        *(Counted.PAGE, Counted.PAGE, Counted.SPECIAL, Counted.DEVMAP),
        *(Counted.SWAP, Counted.NOTHING),
    ]
    shared = K64.fork(raw[:4], 0, private=False)
    assert shared.parent.tolist() == pages
    assert shared.child.tolist() == [page & ~0x180 for page in pages]  # clean, too
    assert K64.wrprotect(PAGE, 0) == read_only
