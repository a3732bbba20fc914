"""The entries that Linux writes on arm64; expected values worked out by hand from its headers
(6.12), or taken from the tables of a guest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.address import Physical
from harness.paging.arm64.formats import stage1
from harness.paging.arm64.linux import (
    AWAY_UFFD_WP,
    DEVMAP,
    DIRTY,
    EXCLUSIVE,
    PRESENT_INVALID,
    SPECIAL,
    UFFD_WP,
    WRITE,
    Linux,
)
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux.away import Away
from harness.paging.linux.entries import (
    Marker,
    Migration,
    Notes,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
)

LINUX = {
    "48": Linux(stage1("4K", 48, 44)),
    "lpa2": Linux(stage1("4K", 52, 52, wide=True, hardware_dirty=True)),
}
FOUR = LINUX["48"]

every = pytest.mark.parametrize("linux", LINUX.values(), ids=lambda linux: linux.format.name)

NONE = 0x00E0_0000_6311_DF82
"""A page of 4K that nobody may access, as a guest's Linux wrote it."""

LARGE_NONE = 0x00E0_0000_4580_0F80
"""The same of 2M."""

ENTRIES: list[tuple[Away, int, int]] = [
    (Swap(0, 1), 0, 0x1000),
    (Swap(1, 5), 0, 0x5040),
    (Swap(26, (1 << 50) - 1), 0, 0x3FFF_FFFF_FFFF_F680),
    (Poison(Physical(0x8000_1000)), 0, 0x8000_16C0),
    (Migration(Type.MIGRATION_READ, Physical(0x1000)), 0, 0x1700),
    (Migration(Type.MIGRATION_READ_EXCLUSIVE, Physical(0x1000)), 0, 0x1740),
    (Migration(Type.MIGRATION_WRITE, Physical(0x20_0000)), 1, 0x20_0780),
    # Young and dirty are the two offset bits above the 40 of the frame number.
    (Migration(Type.MIGRATION_READ, Physical(0), young=True), 0, 0x0010_0000_0000_0700),
    (Migration(Type.MIGRATION_READ, Physical(0), dirty=True), 0, 0x0020_0000_0000_0700),
    (Marker(Notes.UFFD_WP), 0, 0x17C0),
    (Marker(Notes.POISONED), 0, 0x27C0),
]


@pytest.mark.parametrize(
    ("meaning", "level", "raw"), ENTRIES, ids=[f"{entry[0]}" for entry in ENTRIES]
)
@every
def test_entries_are_those_of_the_headers(
    linux: Linux, meaning: Away, level: int, raw: int
) -> None:
    assert linux.encode(meaning, level) == raw
    assert linux.decode(raw, level) == meaning
    assert linux.decode(raw | EXCLUSIVE | AWAY_UFFD_WP, level) == meaning
    assert linux.format.decode(raw, level) == Absent()
    assert not linux.present(raw, level)
    # No area has as many pages as an offset can count.
    assert linux.written(raw, level) == (not isinstance(meaning, Swap) or meaning.area < 26)


def test_the_bits_that_linux_names_are_those_of_its_headers() -> None:
    """PTE_WRITE, PTE_DIRTY, PTE_SPECIAL, PTE_DEVMAP and PTE_UFFD_WP, PTE_PRESENT_INVALID,
    PTE_SWP_EXCLUSIVE and PTE_SWP_UFFD_WP."""
    assert (WRITE, DIRTY, SPECIAL, DEVMAP, UFFD_WP) == (1 << 51, 1 << 55, 1 << 56, 1 << 57, 1 << 58)
    assert (PRESENT_INVALID, EXCLUSIVE, AWAY_UFFD_WP) == (1 << 11, 1 << 2, 1 << 3)


@every
@given(data=st.data())
def test_what_is_encoded_is_decoded(linux: Linux, data: st.DataObject) -> None:
    frames = st.integers(0, (1 << 40) - 1).map(lambda frame: Physical(frame << 12))
    moving = [Type.MIGRATION_READ, Type.MIGRATION_READ_EXCLUSIVE, Type.MIGRATION_WRITE]
    away = st.one_of(
        st.builds(Swap, st.integers(0, 26), st.integers(1, (1 << 50) - 1)),
        st.builds(Migration, st.sampled_from(moving), frames, st.booleans(), st.booleans()),
        st.builds(Poison, frames),
    )
    meaning = data.draw(away)
    assert linux.decode(linux.encode(meaning), 0) == meaning


@pytest.mark.parametrize(
    ("meaning", "level", "said"),
    [
        (Swap(27, 1), 0, "areas end at 26"),
        (Swap(0, 0), 0, "offsets are 1 to"),
        (Swap(0, 1 << 50), 0, "offsets are 1 to 0x3ffffffffffff"),
        (Swap(0, 1), 1, "no level-1 entry"),
        (Poison(Physical(0)), 1, "no level-1 entry"),
        (Migration(Type.MIGRATION_READ, Physical(0)), 2, "no level-2 entry"),
        (Migration(Type.POISON, Physical(0)), 0, "POISON is not the type of a migration"),
        (Migration(Type.DEVICE_READ, Physical(0)), 0, "DEVICE_READ is not the type of a migration"),
        (Poison(Physical(0x800)), 0, "not the address of a page"),
        (Poison(Physical(1 << 52)), 0, "52 bits wide"),
        (Marker(Notes(0)), 0, "a marker remembers"),
    ],
)
def test_what_linux_has_no_entry_for_is_refused(meaning: Away, level: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FOUR.encode(meaning, level)


def test_pages_without_rights_are_absent_to_the_hardware_alone() -> None:
    for raw, level, first, size in (
        (NONE, 0, 0x6311_D000, 4 << 10),
        (LARGE_NONE, 1, 0x4580_0000, 2 << 20),
    ):
        assert FOUR.format.decode(raw, level) == Absent()
        assert FOUR.decode(raw, level) == ProtNone(Physical(first), size)
        assert FOUR.present(raw, level)
        assert FOUR.written(raw, level)


def test_lpa2_keeps_the_highest_bits_of_an_address_where_shareability_was() -> None:
    raw = 0x00E0_0000_4221_3C82 | 3 << 8
    assert LINUX["lpa2"].decode(raw, 0) == ProtNone(Physical(3 << 50 | 0x4221_3000), 4 << 10)


def test_a_large_page_stays_one_while_it_is_split() -> None:
    user = LARGE_NONE | 1 << 6
    assert FOUR.decode(user, 1) == ProtNone(Physical(0x4580_0000), 2 << 20)
    # One of 4K is never in that state.
    assert FOUR.decode(NONE | 1 << 6, 0) == Unknown(NONE | 1 << 6)
    assert FOUR.decode(NONE & ~(1 << 54), 0) == Unknown(NONE & ~(1 << 54))


def test_present_entries_say_what_they_say_to_the_hardware() -> None:
    for level in range(4):  # pte_valid, as a table and a page of the kernel's are
        assert FOUR.present(0x4300_1003, level)
    page = NONE | 1
    assert isinstance(FOUR.decode(page | SPECIAL | DEVMAP | UFFD_WP, 0), Leaf)
    assert isinstance(FOUR.decode(0x4300_1003, 1), Pointer)
    assert isinstance(FOUR.decode(page | 1 << 45, 0), Malformed)
    assert FOUR.decode(0, 0) == Absent()


@pytest.mark.parametrize(
    ("raw", "level"),
    [
        (0x1000, 1),  # in swap, above the lowest level
        (LARGE_NONE, 2),  # no PROT_NONE above 2M
        (NONE & ~2, 0),  # with bit 0 set it would be no page
    ],
)
def test_what_linux_does_not_write_is_unknown(raw: int, level: int) -> None:
    assert FOUR.decode(raw, level) == Unknown(raw)
    assert not FOUR.written(raw, level)


@pytest.mark.parametrize(
    "raw",
    [
        0x40,  # page 0 of an area is its header
        1 << 44 | 0x40,  # more pages than an area has
        0x1000 | 1 << 4,  # no bit of a page in swap
        0x1000 | 1 << 62,
        0x47C0,  # a marker that remembers nothing known
        1 << 55 | 0x1700,  # above A and D of a page that moves
    ],
)
def test_entries_of_the_form_that_linux_cannot_have_written(raw: int) -> None:
    assert not FOUR.written(raw, 0)


@pytest.mark.parametrize("granule", ["16K", "64K"])
def test_other_granules_have_other_kernels(granule: str) -> None:
    with pytest.raises(ValueError, match="is not known here"):
        Linux(stage1(granule, 48, 48))


def test_in_a_fork_what_the_hardware_knew_of_a_write_is_kept_and_nobody_may_write() -> None:
    # A page of users, written as the hardware keeps it (DBM, AP[2] clear), clean, and read-only.
    page = 0x4000_0000 | 0b11 | 1 << 6 | 1 << 10 | 1 << 11
    written, clean, closed = page | WRITE, page | WRITE | 1 << 7, page | 1 << 7
    swapped = 0x5040 | EXCLUSIVE | AWAY_UFFD_WP
    raw = np.array([written, clean, closed, swapped, written | UFFD_WP, page], np.uint64)
    fork = FOUR.fork(raw, 0, private=True)
    kept = page | 1 << 7 | DIRTY
    swap = 0x5040 | AWAY_UFFD_WP
    # To Linux (pte_write) the last may not be written, so that nothing is taken from it.
    assert fork.parent.tolist() == [kept, closed, closed, swap, kept | UFFD_WP, page]
    old = ~(1 << 10)
    child = [kept & old, closed & old, closed & old, 0x5040, kept & old, page & old]
    assert fork.child.tolist() == child
    raw = np.array([written, clean, closed, kept], np.uint64)
    shared = FOUR.fork(raw, 0, private=False)  # clean in the child, which has not written it
    assert shared.parent.tolist() == raw.tolist()
    assert shared.child.tolist() == [clean & old, clean & old, closed & old, closed & old]
