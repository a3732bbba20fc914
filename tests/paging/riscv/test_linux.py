"""The entries that Linux writes on RISC-V; expected values worked out by hand from its headers
(6.12)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging import BufferMemory, Space, Span, TableAllocator, Virtual, walk
from harness.paging.address import Physical
from harness.paging.copy import ForkRefused, copy_range
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.linux.away import Away
from harness.paging.linux.entries import (
    Counted,
    Marker,
    Migration,
    Notes,
    ProtNone,
    Swap,
    Type,
    Unknown,
)
from harness.paging.linux.folded import Folded
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, G, N, R, U, V, W, X, sv
from harness.paging.riscv.linux import DEVMAP, EXCLUSIVE, PROT_NONE, SPECIAL, Linux
from harness.paging.value import Value
from tests.paging.test_linux_folded import fill, locate

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


# ---- a fork ----

PRIVATE = [
    ("written", 0, SMALL, SMALL & ~W, SMALL & ~(W | A), Counted.PAGE),
    ("read-only", 0, SMALL & ~W, SMALL & ~W, SMALL & ~(W | A), Counted.PAGE),
    ("large", 1, LARGE, LARGE & ~W, LARGE & ~(W | A), Counted.PAGE),
    ("special", 0, SMALL | SPECIAL, (SMALL | SPECIAL) & ~W, (SMALL | SPECIAL) & ~(W | A), 2),
    ("devmap", 0, SMALL | DEVMAP, (SMALL | DEVMAP) & ~W, (SMALL | DEVMAP) & ~(W | A), 3),
    ("hidden", 0, SMALL & ~(V | W) | G, SMALL & ~(V | W) | G, SMALL & ~(V | W | A) | G, 1),
    ("swap", 0, 0x50C0, 0x5080, 0x5080, Counted.SWAP),
    ("moving", 0, 0x1F00, 0x1E00, 0x1E00, Counted.MIGRATION),
    ("moving alone", 0, 0x1E80, 0x1E00, 0x1E00, Counted.MIGRATION),
    ("moving, young", 0, 0x0100_0000_0000_0F00, 0x0100_0000_0000_0E00, 0x0100_0000_0000_0E00, 5),
    ("poisoned", 0, 0x2F80, 0x2F80, 0x2F80, Counted.MARKER),
]
"""What a fork of private memory makes of an entry: the parent's, the child's, and what it counts
as (copy_present_pte, copy_nonpresent_pte, copy_huge_pmd)."""


def words(*raws: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(raws, np.uint64)


@pytest.mark.parametrize(
    ("level", "raw", "parent", "child", "counted"),
    [case[1:] for case in PRIVATE],
    ids=[case[0] for case in PRIVATE],
)
def test_in_a_private_fork(level: int, raw: int, parent: int, child: int, counted: int) -> None:
    fork = SV39.fork(words(raw), level, private=True)
    assert [hex(int(lanes[0])) for lanes in fork[:2]] == [hex(parent), hex(child)]
    assert fork.counted.tolist() == [counted]


def test_entries_of_all_kinds_are_forked_together() -> None:
    cases = [case for case in PRIVATE if not case[1]]
    fork = SV39.fork(words(*(case[2] for case in cases)), 0, private=True)
    assert fork.parent.tolist() == [case[3] for case in cases]
    assert fork.child.tolist() == [case[4] for case in cases]
    assert fork.counted.tolist() == [case[5] for case in cases]


def test_in_a_shared_fork_the_child_has_pages_that_are_neither_accessed_nor_written() -> None:
    raw = words(SMALL, 0x50C0, 0x1F00)
    fork = SV39.fork(raw, 0, private=False)
    assert fork.parent.tolist() == [SMALL, 0x5080, 0x1F00]
    assert fork.child.tolist() == [SMALL & ~(A | D), 0x5080, 0x1F00]


@pytest.mark.parametrize(
    ("level", "raw", "why"),
    [
        (0, SMALL & ~R, "it has reserved bits set"),
        (1, 0x5080, "Linux writes no such entry at level 1"),
        (2, 0x1E00, "Linux writes no such entry at level 2"),
    ],
)
def test_what_linux_never_writes_is_not_copied(level: int, raw: int, why: str) -> None:
    with pytest.raises(ForkRefused, match=why) as refused:
        SV39.fork(words((SMALL, LARGE, 0x80000 << 10 | LARGE & 0x3FF)[level], raw), level, True)
    assert refused.value.index == 1


@pytest.mark.parametrize("mode", [Mode.SV39, Mode.SV48, Mode.SV57])
def test_a_space_is_copied_on_write_and_what_narrows_is_flushed(mode: Mode) -> None:
    parent, child = spaces(mode, 2)
    memory, format = parent.memory, parent.format
    page, swapped = Virtual(0x40_0000), Virtual(0x40_1000)
    granted = format.granting("read", "write", "user") | A | D
    frames = np.array([0x8040_0000, 0x8040_1000], np.uint64)
    parent.map(page, frames, 0, granted).done()
    slot = walk(memory, parent.roots[0], swapped).steps[-1].slot
    parent.write(slot, 0x50C0)
    done = copy_range(parent, child, Span(0x40_0000, 0x40_1FFF), Linux(format))
    assert done.counts == {Counted.PAGE: 1, Counted.SWAP: 1}
    assert done.flush.addresses.tolist() == [page]
    done.flush.done()
    for space in (parent, child):
        found = walk(memory, space.roots[0], page)
        assert found.physical == 0x8040_0000
        assert found.steps[-1].raw & W == 0
        assert walk(memory, space.roots[0], swapped).steps[-1].raw == 0x5080


@given(st.integers(0, (1 << 54) - 1), st.booleans())
def test_nobody_can_write_a_private_page_after_a_fork(raw: int, shown: bool) -> None:
    raw = raw & ~V | (V | R if shown else PROT_NONE)
    if not raw & (R | X) or not isinstance(SV39.format.decode(raw | V, 0), Leaf):
        return
    fork = SV39.fork(words(raw), 0, private=True)
    for side in (int(fork.parent[0]), int(fork.child[0])):
        assert not side & W and side | W | A == raw | W | A


# ---- the old names ----


def spaces(mode: Mode, count: int = 1) -> list[Space]:
    """Empty spaces in one memory."""
    memory = BufferMemory(np.zeros(8 << 20, np.uint8), 0x8000_0000)
    tables = TableAllocator(memory, Span(0x8000_0000, 0x803F_FFFF))
    format = Cpu.in_mode(mode, 0).format
    roots = [tables.allocate(format, len(format.levels) - 1) for _ in range(count)]
    return [Space(memory, Cpu.in_mode(mode, one.address).roots, tables) for one in roots]


modes = pytest.mark.parametrize("mode", [Mode.SV39, Mode.SV48, Mode.SV57])


@modes
def test_old_code_fills_and_finds_pages(mode: Mode) -> None:
    [space] = spaces(mode)
    k = Folded(space.format, Linux(space.format))
    for address in (0x1000, 0x20_1000, 0x12_3456_7000, (1 << mode.address_bits - 1) - 0x1000):
        page = Virtual(address)
        assert locate(k, space, page) is None
        assert fill(k, space, page, 0x8040_0000 >> 2, V | R | W | U | A) == 0
        steps = walk(space.memory, space.roots[0], page).steps
        assert len(steps) == len(space.format.levels)
        assert [step.raw & 0x3FF for step in steps[:-1]] == [V] * (len(steps) - 1)
        place = locate(k, space, page)
        assert place is not None and place[1] == steps[-1].slot
        pte = k.ptep_get(place)
        assert (k.pte_pfn(pte), k.pte_write(pte), k.pte_young(pte)) == (0x80400, True, True)
        assert (k.pte_dirty(pte), k.pte_special(pte)) == (False, False)
        assert not k.pte_write(k.pte_wrprotect(pte)) and not k.pte_young(k.pte_mkold(pte))


@modes
def test_levels_that_the_mode_lacks_are_the_pgd(mode: Mode) -> None:
    [space] = spaces(mode)
    k = Folded(space.format, Linux(space.format))
    levels = len(space.format.levels)
    assert (k.pgtable_l4_enabled(), k.pgtable_l5_enabled()) == (levels > 3, levels > 4)
    shift = {3: 30, 4: 39, 5: 48}[levels]
    assert (shift, 30, 21) == (k.PGDIR_SHIFT, k.PUD_SHIFT, k.PMD_SHIFT)
    pgd = k.pgd_offset(space, Virtual(0))
    empty = k.pgdp_get(pgd)
    assert (k.pgd_none(empty), k.p4d_none(empty), k.pud_none(empty)) == (
        *(levels > 4, levels > 3),
        True,
    )
    if levels == 3:
        assert k.p4d_alloc(space, pgd, Virtual(0)) == pgd
        assert k.pud_alloc(space, pgd, Virtual(0)) == pgd
        assert fill(k, space, Virtual(0), 0x8040_0000 >> 2, V | R) == 0
        k.pgd_clear(pgd)
        k.p4d_clear(pgd)
        assert not k.pud_none(k.pudp_get(pgd))
        k.pud_clear(pgd)
        assert k.pud_none(k.pudp_get(pgd))


def test_a_large_page_is_a_leaf_and_a_table_is_not() -> None:
    [space] = spaces(Mode.SV39)
    k = Folded(space.format, Linux(space.format))
    large, table = Value(space.format, 1, LARGE), Value(space.format, 1, 0x8000_1000 >> 2 | V)
    assert (k.pmd_leaf(large), k.pmd_trans_huge(large), k.pmd_bad(large)) == (True, True, True)
    assert (k.pmd_leaf(table), k.pmd_bad(table)) == (False, False)
    hidden = Value(space.format, 1, LARGE & ~V | G)
    assert (k.pmd_present(hidden), k.pmd_pfn(hidden)) == (True, 0x80200)


def test_what_makes_an_entry_a_page_is_any_right() -> None:
    """pmd_leaf of asm/pgtable.h: R, W or X; X alone is a page that is only executed."""
    for right in (R, W, X):
        assert SV39.large(LARGE & ~(R | W | X) | right, 1)
    assert not SV39.large(LARGE & ~(R | W | X), 1)


def test_what_stays_of_a_large_page_that_is_withheld_is_its_rights_and_prot_none() -> None:
    assert SV39.stays(0) == V | PROT_NONE
    assert SV39.stays(1) == V | PROT_NONE | R | W | X
    assert SV39.stays(2) == V
