"""The entries that Linux writes; expected values worked out by hand from its headers (6.12)."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.address import Physical
from harness.paging.copy import Dialect, ForkRefused
from harness.paging.entry import Absent, Leaf
from harness.paging.linux.entries import (
    DEVMAP,
    EXCLUSIVE,
    SAVED_DIRTY,
    SOFT_DIRTY,
    SPECIAL,
    UFFD_WP,
    Away,
    Cache,
    Counted,
    Device,
    Linux,
    Mark,
    Marker,
    Migration,
    Notes,
    Poison,
    ProtNone,
    Swap,
    Type,
    Unknown,
)
from harness.paging.memory import Words
from harness.paging.x86 import formats
from harness.paging.x86.formats import PS, RW, US, XD, A, D, G, P

LINUX = {levels: Linux(formats.long_mode(levels, 46, True, True)) for levels in (4, 5)}
FOUR, FIVE = LINUX[4], LINUX[5]

both = pytest.mark.parametrize("linux", LINUX.values(), ids=lambda linux: linux.format.name)

# A 4K page at 0x12345000 and a 2M page at 0x40000000, writable and for users.
SMALL = 0x1234_5000 | P | RW | US | A | D
LARGE = 0x4000_0000 | P | RW | US | A | D | PS

ENTRIES: list[tuple[Linux, Away, int, int]] = [
    (FOUR, Swap(0, 0), 0, 0x07FF_FFFF_FFFF_FE00),
    (FOUR, Swap(0, 1), 0, 0x07FF_FFFF_FFFF_FC00),
    (FOUR, Swap(1, 5), 0, 0x0FFF_FFFF_FFFF_F400),
    (FOUR, Swap(22, (1 << 50) - 2), 0, 0xB000_0000_0000_0200),
    (FOUR, Poison(Physical(0x1000)), 0, 0xBFFF_FFFF_FFFF_FC00),
    (FOUR, Migration(Type.MIGRATION_READ, Physical(0x1000)), 0, 0xC7FF_FFFF_FFFF_FC00),
    (FOUR, Migration(Type.MIGRATION_WRITE, Physical(0x20_0000)), 1, 0xD7FF_FFFF_FFFB_FE00),
    # Young and dirty are the two offset bits above the frame number: 34 bits of it with four
    # levels, 40 with five.
    (FOUR, Migration(Type.MIGRATION_READ, Physical(0), young=True), 0, 0xC7FF_F7FF_FFFF_FE00),
    (FIVE, Migration(Type.MIGRATION_READ, Physical(0), young=True), 0, 0xC7FD_FFFF_FFFF_FE00),
    (FIVE, Migration(Type.MIGRATION_READ, Physical(0), dirty=True), 0, 0xC7FB_FFFF_FFFF_FE00),
    (FOUR, Device(Type.DEVICE_WRITE, Physical(0x3000)), 0, 0xDFFF_FFFF_FFFF_F800),
    (FOUR, Device(Type.LENT_READ, Physical(0)), 0, 0xF7FF_FFFF_FFFF_FE00),
    (FOUR, Marker(Notes.UFFD_WP), 0, 0xFFFF_FFFF_FFFF_FC00),
    (FOUR, Marker(Notes.POISONED), 0, 0xFFFF_FFFF_FFFF_FA00),
]


def words(*raw: int) -> Words:
    return np.array(raw, np.uint64)


def frames(linux: Linux) -> st.SearchStrategy[Physical]:
    width = 46 if linux is FOUR else 52
    return st.integers(0, (1 << width - 12) - 1).map(lambda frame: Physical(frame << 12))


def away(linux: Linux) -> st.SearchStrategy[Away]:
    migrating = [Type.MIGRATION_READ, Type.MIGRATION_READ_EXCLUSIVE, Type.MIGRATION_WRITE]
    device = [Type.DEVICE_WRITE, Type.DEVICE_READ, Type.LENT_WRITE, Type.LENT_READ]
    return st.one_of(
        st.builds(Swap, st.integers(0, 22), st.integers(0, (1 << 50) - 2)),
        st.builds(
            Migration, st.sampled_from(migrating), frames(linux), st.booleans(), st.booleans()
        ),
        st.builds(Device, st.sampled_from(device), frames(linux)),
        st.builds(Poison, frames(linux)),
        st.builds(Marker, st.sampled_from([Notes(1), Notes(2), Notes(3)])),
    )


@pytest.mark.parametrize(
    ("linux", "meaning", "level", "raw"), ENTRIES, ids=[f"{entry[1]}" for entry in ENTRIES]
)
def test_entries_are_those_of_the_headers(
    linux: Linux, meaning: Away, level: int, raw: int
) -> None:
    assert linux.encode(meaning, level) == raw
    assert linux.decode(raw, level) == meaning


@both
@given(data=st.data())
def test_what_is_encoded_is_not_empty_is_decoded_and_is_absent_to_the_hardware(
    linux: Linux, data: st.DataObject
) -> None:
    meaning = data.draw(away(linux))
    level = data.draw(st.integers(0, 1)) if isinstance(meaning, Migration) else 0
    raw = linux.encode(meaning, level)
    assert raw
    assert linux.decode(raw, level) == meaning
    assert linux.format.decode(raw, level) == Absent()
    assert not linux.present(raw, level)


@given(data=st.data())
def test_no_entry_without_a_page_holds_an_address_that_memory_can_have(
    data: st.DataObject,
) -> None:
    """L1TF: a processor of 46 bits (MAXPHYADDR) or fewer has half of that in memory at most."""
    area, page = data.draw(st.integers(0, 22)), data.draw(st.integers(0, (1 << 45 - 9) - 1))
    raw = FOUR.encode(Swap(area, page))
    assert raw & formats.bits(51, 12) >= 1 << 45


@pytest.mark.parametrize(
    ("meaning", "level", "text"),
    [
        (Swap(23, 0), 0, "areas end at 22"),
        (Swap(-1, 0), 0, "areas end at 22"),
        (Swap(0, (1 << 50) - 1), 0, "offsets at 0x3fffffffffffe"),
        (Swap(0, -1), 0, "does not fit"),
        (Swap(0, 0), 1, "no level-1 entry"),
        (Marker(Notes(0)), 0, "remembers"),
        (Marker(Notes(4)), 0, "remembers"),
        (Poison(Physical(0x1001)), 0, "0x1001 is not the address of a page"),
        (Poison(Physical(1 << 46)), 0, "46 bits wide"),
        (Migration(Type.DEVICE_READ, Physical(0)), 0, "DEVICE_READ is not the type wanted"),
        (Device(Type.MARKER, Physical(0)), 0, "MARKER is not the type wanted"),
        (Migration(Type.MIGRATION_READ, Physical(0)), 2, "no level-2 entry"),
        (Migration(Type.MIGRATION_READ, Physical(0)), -1, "no level--1 entry"),
    ],
    ids=str,
)
def test_what_linux_cannot_write_is_refused(meaning: Away, level: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FOUR.encode(meaning, level)


def test_a_present_entry_says_what_it_says_to_the_hardware() -> None:
    assert FOUR.decode(SMALL, 0) == Leaf(Physical(0x1234_5000), 1 << 12)
    assert FOUR.decode(SMALL | SPECIAL | DEVMAP, 0) == Leaf(Physical(0x1234_5000), 1 << 12)
    assert FOUR.decode(LARGE, 1) == Leaf(Physical(0x4000_0000), 1 << 21)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("raw", [0, A, D, A | D])
def test_stray_accessed_and_dirty_bits_say_nothing(raw: int, level: int) -> None:
    assert FOUR.decode(raw, level) == Absent()


@pytest.mark.parametrize("level", [2, 3])
@pytest.mark.parametrize("raw", [entry[3] for entry in ENTRIES], ids=hex)
def test_no_page_is_away_above_level_1(raw: int, level: int) -> None:
    assert FOUR.decode(raw, level) == Unknown(raw)


@pytest.mark.parametrize("raw", [entry[3] for entry in ENTRIES if entry[2] == 0][:5], ids=hex)
def test_only_migrations_are_away_at_level_1(raw: int) -> None:
    expected = Migration if raw >> 59 == Type.MIGRATION_READ else Unknown
    assert isinstance(FOUR.decode(raw, 1), expected)


# PROT_NONE


@pytest.mark.parametrize(
    ("raw", "level", "none"),
    [
        # Address inverted up to bit 51; A stays; D is saved, since W goes.
        (SMALL, 0, 0x000F_FFFF_EDCB_A000 | SAVED_DIRTY | A | G),
        (LARGE, 1, 0x000F_FFFF_BFE0_0000 | SAVED_DIRTY | A | G | PS),
        # The PAT bit of a large page, bit 12, is no part of the address.
        (LARGE | 1 << 12, 1, 0x000F_FFFF_BFE0_1000 | SAVED_DIRTY | A | G | PS),
    ],
    ids=["4K", "2M", "2M with PAT"],
)
def test_prot_none_inverts_the_address_and_takes_every_right(
    raw: int, level: int, none: int
) -> None:
    assert FOUR.protect(raw, level, None) == none
    leaf = FOUR.format.decode(raw, level)
    assert isinstance(leaf, Leaf)
    assert FOUR.decode(none, level) == ProtNone(leaf.address, leaf.size)
    assert FOUR.present(none, level)
    assert FOUR.format.decode(none, level) == Absent()


@pytest.mark.parametrize(("raw", "level"), [(SMALL, 0), (SMALL | PS, 0), (LARGE | 1 << 12, 1)])
def test_a_prot_none_page_gets_its_rights_back_and_all_else_as_it_was(raw: int, level: int) -> None:
    rights = FOUR.format.granting("write", "user", "execute")
    marked = FOUR.mark(FOUR.mark(raw, level, SOFT_DIRTY), level, UFFD_WP) | SPECIAL
    none = FOUR.protect(marked, level, None)
    assert FOUR.marked(none, level, SOFT_DIRTY) and FOUR.marked(none, level, UFFD_WP)
    assert FOUR.protect(none, level, None) == none
    assert FOUR.protect(none, level, rights) == marked


def test_a_large_page_without_rights_is_present_to_linux_by_either_bit() -> None:
    """pmd_present: any of P, PROT_NONE (bit 8) and PSE; at level 0 bit 7 says nothing."""
    for bits, level, present in ((G, 1, True), (PS, 1, True), (G, 0, True), (PS, 0, False)):
        raw = ~0x4000_0000 & (1 << 52) - 0x20_0000 | bits
        assert FOUR.present(raw, level) is present
        assert isinstance(FOUR.decode(raw, level), ProtNone) is present


def test_a_large_page_being_split_is_present_to_linux_alone() -> None:
    splitting = 0x000F_FFFF_BFE0_0000 | PS
    assert FOUR.present(splitting, 1)
    assert FOUR.decode(splitting, 1) == ProtNone(Physical(0x4000_0000), 1 << 21)
    assert not FOUR.present(splitting, 2)


def test_dirty_is_saved_while_a_page_is_read_only() -> None:
    format = FOUR.format
    readonly = FOUR.protect(SMALL, 0, format.granting("user"))
    assert readonly == 0x1234_5000 | P | US | A | SAVED_DIRTY | XD
    assert FOUR.protect(readonly, 0, format.granting("write", "user", "execute")) == SMALL


@pytest.mark.parametrize(
    ("raw", "level"),
    [(0, 0), (0x1000 | P | RW, 1), (0xC7FF_FFFF_FFFF_FC00, 0), (1 << 50 | P, 0)],
    ids=["nothing", "table", "migration", "malformed"],
)
def test_only_pages_are_protected(raw: int, level: int) -> None:
    with pytest.raises(ValueError, match=f"the level-{level} entry {raw:#x} is no page"):
        FOUR.protect(raw, level, None)


def test_there_is_no_prot_none_of_a_1g_page() -> None:
    with pytest.raises(ValueError, match="no PROT_NONE at level 2"):
        FOUR.protect(LARGE, 2, None)


def test_a_page_is_dirty_after_protect_only_if_it_was() -> None:
    """pte_modify keeps the dirty bit: as D while writable, else as saved dirty, bit 58."""
    dirty, saved = 1 << 6, 1 << 58
    writable, readable = FOUR.format.granting("write", "user"), FOUR.format.granting("user")
    page = FOUR.format.leaf(0x200000, 0, writable)
    for start in (page, page & ~0x2):
        assert FOUR.protect(start, 0, writable) & (dirty | saved) == 0
        assert FOUR.protect(start, 0, readable) & (dirty | saved) == 0
        assert FOUR.protect(start, 0, None) & (dirty | saved) == 0
    for start in (page | dirty, page & ~0x2 | saved):
        assert FOUR.protect(start, 0, writable) & (dirty | saved) == dirty
        assert FOUR.protect(start, 0, readable) & (dirty | saved) == saved
        assert FOUR.protect(start, 0, None) & (dirty | saved) == saved


def test_a_marker_remembers_its_notes_and_no_other_bit_of_its_offset() -> None:
    for notes in Notes.UFFD_WP, Notes.POISONED, Notes.UFFD_WP | Notes.POISONED:
        raw = FOUR.encode(Marker(notes))
        for bit in range(9 + 2, 59):  # the offset is in bits 58:9, inverted; notes are its lowest
            assert FOUR.decode(raw ^ 1 << bit, 0) == Marker(notes)


def test_a_page_without_rights_lies_where_linux_can_have_memory() -> None:
    """With four levels it has 46 bits of it (MAX_PHYSMEM_BITS)."""
    for address, written in ((1 << 46, False), (3 << 46, False), ((1 << 46) - 0x1000, True)):
        raw = ~address & (1 << 52) - 0x1000 | G  # PROT_NONE, the address inverted
        assert FOUR.decode(raw, 0) == ProtNone(Physical(address), 0x1000)
        assert FOUR.written(raw, 0) is written


def test_nothing_is_written_where_nothing_is_and_all_else_is_not() -> None:
    assert FOUR.written(0, 0) is FOUR.written(0x60, 0) is True
    for raw, level in ((0x1000, 2), (0x8000_0000_0000_0000, 3), (0x1000 << 40, 1)):
        assert FOUR.decode(raw, level) == Unknown(raw)
        assert FOUR.written(raw, level) is False


def test_a_marker_that_remembers_nothing_is_none_that_linux_writes() -> None:
    raw = FOUR.encode(Marker(Notes.POISONED))
    nothing = raw | 1 << 10  # the note, bit 1 of the inverted offset
    assert FOUR.decode(nothing, 0) == Marker(Notes(0))
    assert FOUR.written(raw, 0) and not FOUR.written(nothing, 0)


# marks


@pytest.mark.parametrize(
    ("mark", "present", "absent"),
    [(SOFT_DIRTY, 1 << 11, 1 << 1), (UFFD_WP, 1 << 10, 1 << 2)],
    ids=["soft-dirty", "uffd-wp"],
)
def test_a_mark_has_one_bit_while_present_and_one_while_away(
    mark: Mark, present: int, absent: int
) -> None:
    swap = FOUR.encode(Swap(1, 5))
    assert FOUR.mark(SMALL, 0, mark) == SMALL | present
    assert FOUR.mark(swap, 0, mark) == swap | absent
    for raw in (SMALL, swap):
        assert not FOUR.marked(raw, 0, mark)
        assert FOUR.marked(FOUR.mark(raw, 0, mark), 0, mark)
        assert FOUR.mark(FOUR.mark(raw, 0, mark), 0, mark, on=False) == raw
    assert FOUR.decode(swap | absent, 0) == Swap(1, 5)


def test_the_writable_and_user_bits_of_a_present_page_are_no_marks() -> None:
    assert not FOUR.marked(SMALL, 0, SOFT_DIRTY)
    assert not FOUR.marked(SMALL, 0, UFFD_WP)


@pytest.mark.parametrize(("raw", "mark"), [(SMALL, EXCLUSIVE), (0, SOFT_DIRTY)])
def test_a_mark_that_has_no_place_is_refused(raw: int, mark: Mark) -> None:
    with pytest.raises(ValueError, match=f"{raw:#x} has no place for {mark.name}"):
        FOUR.mark(raw, 0, mark)


# memory types


@pytest.mark.parametrize(
    ("cache", "small", "large"),
    [
        (Cache.WB, 0, 0),
        (Cache.WC, 0x8, 0x8),
        (Cache.UC_MINUS, 0x10, 0x10),
        (Cache.UC, 0x18, 0x18),
        (Cache.WP, 0x88, 0x1008),
        (Cache.WT, 0x98, 0x1018),
    ],
    ids=lambda value: str(value),
)
def test_pat_is_bit_7_of_a_small_page_and_bit_12_of_a_large_one(
    cache: Cache, small: int, large: int
) -> None:
    for start in Cache:
        assert FOUR.with_cache(FOUR.with_cache(SMALL, 0, start), 0, cache) == SMALL | small
        assert FOUR.with_cache(FOUR.with_cache(LARGE, 1, start), 1, cache) == LARGE | large
    assert FOUR.cache(SMALL | small, 0) is cache
    assert FOUR.cache(LARGE | large, 1) is cache
    assert FOUR.cache(LARGE | large, 2) is cache


@pytest.mark.parametrize("cache", Cache)
@pytest.mark.parametrize("level", [0, 1])
def test_another_memory_type_changes_that_and_no_more(cache: Cache, level: int) -> None:
    """PWT, PCD and PAT; not A, which is beside them, and not P."""
    pat = 1 << (12 if level else 7)
    present = 0x4000_0000 | P | US | (PS if level else 0)
    for page in (present, FOUR.protect(present, level, None)):
        changed = FOUR.with_cache(page, level, cache)
        assert (changed ^ page) & ~(0x18 | pat) == 0
        assert FOUR.cache(changed, level) is cache


def test_the_spare_entries_of_the_pat_repeat_others() -> None:
    assert FOUR.cache(SMALL | 0x80, 0) is Cache.WB
    assert FOUR.cache(SMALL | 0x90, 0) is Cache.UC_MINUS


# a fork

PRIVATE_FORKS: list[tuple[str, int, int, int, int, Counted]] = [
    # name, level, raw, parent, child, counted
    (
        "a writable page loses W on both sides; the child has not accessed it",
        *(0, SMALL, 0x1234_5000 | P | US | A | SAVED_DIRTY),
        *(0x1234_5000 | P | US | SAVED_DIRTY, Counted.PAGE),
    ),
    (
        "a clean page stays clean",
        *(0, 0x1000 | P | RW | US, 0x1000 | P | US, 0x1000 | P | US, Counted.PAGE),
    ),
    (
        "a read-only page stays as it is",
        *(0, 0x1000 | P | US | A, 0x1000 | P | US | A, 0x1000 | P | US, Counted.PAGE),
    ),
    (
        "a shadow stack is one no longer on either side (pte_write, pte_wrprotect)",
        *(0, 0x1000 | P | US | A | D, 0x1000 | P | US | A | SAVED_DIRTY),
        *(0x1000 | P | US | SAVED_DIRTY, Counted.PAGE),
    ),
    (
        "a 2M page",
        *(1, LARGE, 0x4000_0000 | P | US | A | PS | SAVED_DIRTY),
        *(0x4000_0000 | P | US | PS | SAVED_DIRTY, Counted.PAGE),
    ),
    (
        "a 1G page",
        *(2, LARGE, 0x4000_0000 | P | US | A | PS | SAVED_DIRTY),
        *(0x4000_0000 | P | US | PS | SAVED_DIRTY, Counted.PAGE),
    ),
    (
        "soft-dirty goes to the child and uffd-wp does not",
        *(0, 0x1000 | P | US | 0xC00, 0x1000 | P | US | 0xC00, 0x1000 | P | US | 0x800),
        Counted.PAGE,
    ),
    (
        "a special page",
        *(0, 0x1000 | P | SPECIAL, 0x1000 | P | SPECIAL, 0x1000 | P | SPECIAL, Counted.SPECIAL),
    ),
    (
        "a device's page mapped like a file",
        *(0, 0x1000 | P | RW | SPECIAL | DEVMAP, 0x1000 | P | SPECIAL | DEVMAP),
        *(0x1000 | P | SPECIAL | DEVMAP, Counted.DEVMAP),
    ),
    (
        "a PROT_NONE page",
        *(0, 0x000F_FFFF_FFFF_E000 | G | A, 0x000F_FFFF_FFFF_E000 | G | A),
        *(0x000F_FFFF_FFFF_E000 | G, Counted.PAGE),
    ),
    (
        "a page in swap is exclusive no longer",
        *(0, 0x0FFF_FFFF_FFFF_F40E, 0x0FFF_FFFF_FFFF_F406, 0x0FFF_FFFF_FFFF_F402, Counted.SWAP),
    ),
    (
        "a migration with the right to write is one to read; soft-dirty stays",
        *(0, 0xD7FF_FFFF_FFFF_FC06, 0xC7FF_FFFF_FFFF_FC06, 0xC7FF_FFFF_FFFF_FC02),
        Counted.MIGRATION,
    ),
    (
        "an exclusive migration is exclusive no longer; young stays",
        *(0, 0xCFFF_F7FF_FFFF_FC00, 0xC7FF_F7FF_FFFF_FC00, 0xC7FF_F7FF_FFFF_FC00),
        Counted.MIGRATION,
    ),
    (
        "a migration of a 2M page",
        *(1, 0xD7FF_FFFF_FFFB_FE02, 0xC7FF_FFFF_FFFB_FE02, 0xC7FF_FFFF_FFFB_FE02),
        Counted.MIGRATION,
    ),
    (
        "a device's page with the right to write is one to read, and soft-dirty is lost",
        *(0, 0xDFFF_FFFF_FFFF_F806, 0xE7FF_FFFF_FFFF_F804, 0xE7FF_FFFF_FFFF_F800),
        Counted.DEVICE,
    ),
    (
        "a device's page to read",
        *(0, 0xE7FF_FFFF_FFFF_F802, 0xE7FF_FFFF_FFFF_F802, 0xE7FF_FFFF_FFFF_F802),
        Counted.DEVICE,
    ),
    (
        "a failed page",
        *(0, 0xBFFF_FFFF_FFFF_FC00, 0xBFFF_FFFF_FFFF_FC00, 0xBFFF_FFFF_FFFF_FC00),
        Counted.POISON,
    ),
    (
        "a marker of uffd-wp is not copied",
        *(0, 0xFFFF_FFFF_FFFF_FC00, 0xFFFF_FFFF_FFFF_FC00, 0, Counted.MARKER),
    ),
    (
        "a marker of poison is, alone",
        *(0, 0xFFFF_FFFF_FFFF_F800, 0xFFFF_FFFF_FFFF_F800, 0xFFFF_FFFF_FFFF_FA00),
        Counted.MARKER,
    ),
    ("stray bits", 3, A | D, A | D, 0, Counted.NOTHING),
]


@pytest.mark.parametrize(
    ("level", "raw", "parent", "child", "counted"),
    [case[1:] for case in PRIVATE_FORKS],
    ids=[case[0] for case in PRIVATE_FORKS],
)
def test_in_a_private_fork(level: int, raw: int, parent: int, child: int, counted: Counted) -> None:
    fork = FOUR.fork(words(raw), level, private=True)
    assert [hex(int(lanes[0])) for lanes in fork[:2]] == [hex(parent), hex(child)]
    assert fork.counted.tolist() == [counted]


def test_entries_of_all_kinds_are_forked_together() -> None:
    cases = [case for case in PRIVATE_FORKS if case[1] == 0]
    raw = words(*(case[2] for case in cases))
    given_raw = raw.copy()
    fork = FOUR.fork(raw, 0, private=True)
    assert fork.parent.tolist() == [case[3] for case in cases]
    assert fork.child.tolist() == [case[4] for case in cases]
    assert fork.counted.tolist() == [case[5] for case in cases]
    assert raw.tolist() == given_raw.tolist()


@pytest.mark.parametrize(
    ("level", "raw", "parent", "child"),
    [
        (0, SMALL, SMALL, 0x1234_5000 | P | RW | US),
        (0, 0x1000 | P | SAVED_DIRTY, 0x1000 | P | SAVED_DIRTY, 0x1000 | P),
        (0, SMALL | UFFD_WP.present, SMALL | UFFD_WP.present, 0x1234_5000 | P | RW | US),
        (0, 0xD7FF_FFFF_FFFF_FC00, 0xD7FF_FFFF_FFFF_FC00, 0xD7FF_FFFF_FFFF_FC00),
        (0, 0xDFFF_FFFF_FFFF_F802, 0xDFFF_FFFF_FFFF_F802, 0xDFFF_FFFF_FFFF_F802),
        (0, 0x0FFF_FFFF_FFFF_F408, 0x0FFF_FFFF_FFFF_F400, 0x0FFF_FFFF_FFFF_F400),
    ],
    ids=["page", "dirty read-only page", "uffd-wp", "migration", "device", "swap"],
)
def test_shared_memory_keeps_its_rights_and_is_clean_to_the_child(
    level: int, raw: int, parent: int, child: int
) -> None:
    fork = FOUR.fork(words(raw), level, private=False)
    assert [hex(int(lanes[0])) for lanes in fork[:2]] == [hex(parent), hex(child)]


@pytest.mark.parametrize(
    ("level", "raw", "why"),
    [
        (0, 0xEFFF_FFFF_FFFF_FE00, "lent to a device"),
        (0, 0xF7FF_FFFF_FFFF_FE00, "lent to a device"),
        (1, 0x0FFF_FFFF_FFFF_F400, "no such entry at level 1"),
        (2, 0xC7FF_FFFF_FFFF_FC00, "no such entry at level 2"),
        (2, 2, "no such entry at level 2"),
        (0, 1 << 46 | P, "reserved bits"),
    ],
    ids=["lent to write", "lent to read", "swap", "migration", "nonsense", "malformed"],
)
def test_what_cannot_be_copied_is_named(level: int, raw: int, why: str) -> None:
    page = 0x4000_0000 | P | RW | (PS if level else 0)
    with pytest.raises(ForkRefused, match=why) as refused:
        FOUR.fork(words(page, page, raw, page), level, private=True)
    assert refused.value.index == 2


@both
@given(data=st.data())
def test_nobody_can_write_a_private_page_after_a_fork(linux: Linux, data: st.DataObject) -> None:
    address = data.draw(frames(linux)) & formats.bits(45, 12)
    raw = address | P | data.draw(st.integers(0, (1 << 12) - 1))
    fork = linux.fork(words(raw), 0, private=True)
    for side in (int(fork.parent[0]), int(fork.child[0])):
        assert linux.format.decode(side, 0) == Leaf(Physical(address), 1 << 12)
        assert not side & (RW | D)


def test_it_is_a_dialect() -> None:
    dialect: Dialect = FOUR
    assert dialect.format is FOUR.format
    assert set(dialect.counted) == set(Counted)
    assert len(get_args(Away)) == 5
