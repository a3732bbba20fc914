"""The entries that Linux writes on RISC-V; expected values worked out by hand from its headers
(6.12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.address import Physical
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.linux.away import Away
from harness.paging.linux.entries import (
    Marker,
    Migration,
    Notes,
    ProtNone,
    Swap,
    Type,
    Unknown,
)
from harness.paging.riscv.formats import A, D, G, N, R, U, V, W, X, sv
from harness.paging.riscv.linux import DEVMAP, EXCLUSIVE, PROT_NONE, SPECIAL, Linux

LINUX = {width: Linux(sv(width, svnapot=True, svpbmt=True)) for width in (39, 48, 57)}
SV39 = LINUX[39]

every = pytest.mark.parametrize("linux", LINUX.values(), ids=lambda linux: linux.format.name)

# A 4K page at 0x80123000 and a 2M page at 0x80200000, writable and for users.
SMALL = 0x80123 << 10 | V | R | W | U | A | D
LARGE = 0x80200 << 10 | V | R | W | U | A | D

ENTRIES: list[tuple[Away, int, int]] = [
    (Swap(0, 1), 0, 0x1000),
    (Swap(1, 5), 0, 0x5080),
    (Swap(27, (1 << 52) - 1), 0, 0xFFFF_FFFF_FFFF_FD80),
    (Migration(Type.MIGRATION_READ, Physical(0x1000)), 0, 0x1E00),
    (Migration(Type.MIGRATION_READ_EXCLUSIVE, Physical(0x1000)), 0, 0x1E80),
    (Migration(Type.MIGRATION_WRITE, Physical(0x20_0000)), 1, 0x20_0F00),
    # Young and dirty are the two offset bits above the 44 of the frame number.
    (Migration(Type.MIGRATION_READ, Physical(0), young=True), 0, 0x0100_0000_0000_0E00),
    (Migration(Type.MIGRATION_READ, Physical(0), dirty=True), 0, 0x0200_0000_0000_0E00),
    (Marker(Notes.POISONED), 0, 0x2F80),
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
    assert linux.format.decode(raw, level) == Absent()
    assert not linux.present(raw, level)


def test_the_bits_that_linux_names_are_those_of_its_header() -> None:
    """_PAGE_SPECIAL, _PAGE_DEVMAP, _PAGE_PROT_NONE and _PAGE_SWP_EXCLUSIVE of pgtable-bits.h."""
    assert (SPECIAL, DEVMAP, PROT_NONE, EXCLUSIVE) == (0x100, 0x200, 0x20, 0x40)


def test_what_is_away_is_nothing_else() -> None:
    for meaning, level, raw in ENTRIES:
        # No area has as many pages as an offset can count.
        assert SV39.written(raw, level) == (not isinstance(meaning, Swap) or meaning.area < 27)


@every
@given(data=st.data())
def test_what_is_encoded_is_decoded(linux: Linux, data: st.DataObject) -> None:
    frames = st.integers(0, (1 << 44) - 1).map(lambda frame: Physical(frame << 12))
    moving = [Type.MIGRATION_READ, Type.MIGRATION_READ_EXCLUSIVE, Type.MIGRATION_WRITE]
    away = st.one_of(
        st.builds(Swap, st.integers(0, 27), st.integers(1, (1 << 52) - 1)),
        st.builds(Migration, st.sampled_from(moving), frames, st.booleans(), st.booleans()),
    )
    meaning = data.draw(away)
    raw = linux.encode(meaning)
    assert linux.decode(raw, 0) == meaning
    assert linux.decode(raw | EXCLUSIVE, 0) == meaning


@pytest.mark.parametrize(
    ("meaning", "level", "said"),
    [
        (Swap(28, 1), 0, "areas end at 27"),
        (Swap(0, 0), 0, "offsets are 1 to"),
        (Swap(0, 1 << 52), 0, "offsets are 1 to 0xfffffffffffff"),
        (Swap(0, 1), 1, "no level-1 entry"),
        (Migration(Type.MIGRATION_READ, Physical(0)), 2, "no level-2 entry"),
        (Migration(Type.POISON, Physical(0)), 0, "POISON is not the type of a migration"),
        (Migration(Type.MARKER, Physical(0)), 0, "MARKER is not the type of a migration"),
        (Migration(Type.MIGRATION_READ, Physical(0x800)), 0, "not the address of a page"),
        (Migration(Type.MIGRATION_READ, Physical(1 << 56)), 0, "56 bits wide"),
        (Marker(Notes.UFFD_WP), 0, "a marker remembers"),
        (Marker(Notes(0)), 0, "a marker remembers"),
    ],
)
def test_what_linux_has_no_entry_for_is_refused(meaning: Away, level: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SV39.encode(meaning, level)


@every
def test_pages_without_rights_are_absent_to_the_hardware_alone(linux: Linux) -> None:
    for raw, level, first, size in (
        (SMALL, 0, 0x8012_3000, 4 << 10),
        (LARGE, 1, 0x8020_0000, 2 << 20),
        (0x80008 << 10 | N | V | R | U, 0, 0x8000_0000, 64 << 10),
    ):
        withheld = linux.protect(raw, level, None)
        assert withheld == raw & ~(V | W | U) | G
        assert linux.format.decode(withheld, level) == Absent()
        assert linux.decode(withheld, level) == ProtNone(Physical(first), size)
        assert linux.present(withheld, level)
        assert linux.written(withheld, level)
        rights = linux.format.granting("read", "write", "user")
        assert linux.protect(withheld, level, rights) == raw | W


def test_a_large_page_stays_one_while_it_is_split() -> None:
    split = LARGE & ~V
    assert SV39.decode(split, 1) == ProtNone(Physical(0x8020_0000), 2 << 20)
    assert SV39.present(split, 1)
    assert not SV39.present(SMALL & ~V, 0)
    assert not SV39.written(SMALL & ~V, 0)


def test_present_entries_say_what_they_say_to_the_hardware() -> None:
    assert isinstance(SV39.decode(SMALL | SPECIAL | DEVMAP, 0), Leaf)
    assert isinstance(SV39.decode(0x80123 << 10 | V, 1), Pointer)
    assert SV39.decode(0, 0) == Absent()


@pytest.mark.parametrize(
    ("raw", "level", "meaning"),
    [
        (0x3000, 2, Unknown(0x3000)),  # in swap, above the lowest level
        (0x3000, 1, Unknown(0x3000)),
        (G | SMALL & ~V, 2, Unknown(G | SMALL & ~V)),  # no PROT_NONE above 2M
        (0x80123 << 10 | G, 0, Unknown(0x80123 << 10 | G)),  # no rights: no page with V=1
    ],
)
def test_what_linux_does_not_write_is_unknown(raw: int, level: int, meaning: Unknown) -> None:
    assert SV39.decode(raw, level) == meaning
    assert not SV39.written(raw, level)


@pytest.mark.parametrize(
    "raw",
    [
        0x80,  # page 0 of an area is its header
        1 << 45 | 0x80,  # more pages than an area has
        0x1000 | U,  # no bit of a page in swap
        0x1F80,  # a marker of userfaultfd, which there is not
        1 << 60 | 0x1E00,  # above A and D of a page that moves
    ],
)
def test_entries_of_the_form_that_linux_cannot_have_written(raw: int) -> None:
    assert not SV39.written(raw, 0)


def test_what_is_no_page_is_not_protected() -> None:
    with pytest.raises(ValueError, match="no page to be protected"):
        SV39.protect(0x80123 << 10 | V, 1, None)
    with pytest.raises(ValueError, match="no PROT_NONE at level 2"):
        SV39.protect(0x80000 << 10 | V | R | X, 2, None)


def test_sv32_has_other_widths() -> None:
    with pytest.raises(ValueError, match="Sv32 is not known here"):
        Linux(sv(32))
