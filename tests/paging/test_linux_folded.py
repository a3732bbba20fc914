"""The old names, by code that was written for them: shaped as in Linux, at both level counts."""

import errno
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.paging.address import Physical, Span, Virtual
from harness.paging.copy import copy_range
from harness.paging.errors import SpaceError
from harness.paging.linux.entries import DEVMAP, SPECIAL, Linux, Migration, Swap, Type
from harness.paging.linux.folded import Folded, Place
from harness.paging.riscv.formats import sv
from harness.paging.space import Space
from harness.paging.sync import sync_roots
from harness.paging.value import Value
from harness.paging.visit import visits
from harness.paging.x86.cpu import canonical_halves
from harness.paging.x86.formats import PS, RW, US, XD, A, D, G, P, long_mode
from tests.paging.spaces import World, look

FORMATS = {levels: long_mode(levels, 46, True, True) for levels in (4, 5)}
ENOMEM = errno.ENOMEM

KERNEL = {4: Virtual(0xFFFF_8000_0000_0000), 5: Virtual(0xFF00_0000_0000_0000)}
"""The first address of the kernel's half."""


@pytest.fixture(params=FORMATS, ids="{} levels".format)
def world(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


@pytest.fixture(params=FORMATS, ids="{} levels".format)
def count(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def k(world: World) -> Folded:
    return Folded(world.format)


def levels(world: World) -> int:
    return len(world.format.levels)


def held(space: Space) -> list[tuple[Span, int, int]]:
    """All that a space holds but tables and holes: addresses, level, entry."""
    found = (visit for root in space.roots for visit in visits(space, root.span))
    return [(visit.span, visit.slot.level, visit.raw) for visit in found if visit.raw]


def locate(k: Folded, mm: Space, address: Virtual) -> Place | None:
    """The pte of an address: the loop that every walker of Linux has."""
    pgd = k.pgd_offset(mm, address)
    if k.pgd_none(k.pgdp_get(pgd)) or k.pgd_bad(k.pgdp_get(pgd)):
        return None
    p4d = k.p4d_offset(pgd, address)
    if k.p4d_none(k.p4dp_get(p4d)) or k.p4d_bad(k.p4dp_get(p4d)):
        return None
    pud = k.pud_offset(p4d, address)
    if k.pud_none(k.pudp_get(pud)) or k.pud_bad(k.pudp_get(pud)):
        return None
    pmd = k.pmd_offset(pud, address)
    if k.pmd_none(k.pmdp_get(pmd)) or k.pmd_bad(k.pmdp_get(pmd)):
        return None
    return k.pte_offset_map(pmd, address)


def fill(k: Folded, mm: Space, address: Virtual, frame: int, rest: int = P | RW | US) -> int:
    """Maps one page, allocating on the way; -ENOMEM as in Linux."""
    p4d = k.p4d_alloc(mm, k.pgd_offset(mm, address), address)
    if p4d is None:
        return -ENOMEM
    pud = k.pud_alloc(mm, p4d, address)
    if pud is None:
        return -ENOMEM
    pmd = k.pmd_alloc(mm, pud, address)
    if pmd is None:
        return -ENOMEM
    pte = k.pte_alloc_map(mm, pmd, address)
    if pte is None:
        return -ENOMEM
    with k.pte_lockptr(mm, pmd):
        k.set_pte_at(mm, address, pte, Value(mm.format, 0, frame | rest))
    return 0


@given(pages=st.sets(st.integers(0, (1 << 36) - 1), max_size=8), missing=st.integers(0, 1 << 35))
@pytest.mark.parametrize("count", FORMATS)
def test_old_code_fills_and_finds_what_the_definition_finds(
    count: int, pages: set[int], missing: int
) -> None:
    world = World(FORMATS[count])
    k = Folded(world.format)
    lower, upper = canonical_halves(count)

    def address(page: int) -> Virtual:
        half = upper if page & 1 else lower
        return Virtual(half.first + page % (1 << 9 * count - 1) * world.page)

    for page in pages:
        assert fill(k, world.space, address(page), page % (1 << 33) << 12) == 0
    for page in {*pages, missing}:
        walked = look(world.space, address(page))
        place = locate(k, world.space, address(page))
        if place is None:
            assert walked.level > 0
        else:
            assert place[1] == walked.steps[-1].slot
            assert k.ptep_get(place).raw == walked.steps[-1].raw
    assert len(held(world.space)) == len({address(page) for page in pages})


def test_old_code_is_told_when_there_is_no_memory(world: World, k: Folded) -> None:
    needed = levels(world) - 1
    for allowed in range(needed):
        world.allocator.remaining = allowed
        assert fill(k, world.space, Virtual(0x7000_0000_0000 >> 1), 0) == -ENOMEM
        world.space.free_empty(Span(0, (1 << 47) - 1)).done()
    world.allocator.remaining = needed
    assert fill(k, world.space, Virtual(0x7000_0000_0000 >> 1), 0) == 0


def test_tables_are_linked_with_all_that_linux_sets(world: World, k: Folded) -> None:
    fill(k, world.space, Virtual(0x1000), 0x5000)
    steps = look(world.space, 0x1000).steps
    assert [step.raw & 0xFFF for step in steps[:-1]] == [P | Linux.table_bits] * (levels(world) - 1)
    assert Linux.table_bits | P == 0x67


# What the folding of the p4d comes to.


def test_with_four_levels_the_p4d_is_the_pgd_itself() -> None:
    world = World(FORMATS[4])
    k = Folded(world.format)
    pgd = k.pgd_offset(world.space, Virtual(0))
    assert not k.pgtable_l5_enabled()
    assert k.p4d_offset(pgd, Virtual(0)) == pgd
    assert k.p4d_alloc(world.space, pgd, Virtual(0)) == pgd
    assert pgd[1].level == 3
    # Nothing is there, which is for the p4d to say.
    empty = k.pgdp_get(pgd)
    assert (k.pgd_none(empty), k.pgd_present(empty), k.pgd_bad(empty)) == (False, True, False)
    assert (k.p4d_none(empty), k.p4d_present(empty), k.p4d_bad(empty)) == (True, False, True)
    assert not k.pgd_none_or_clear_bad(pgd)
    assert k.p4d_none_or_clear_bad(pgd)


def test_with_four_levels_clearing_or_filling_a_pgd_does_nothing() -> None:
    world = World(FORMATS[4])
    k = Folded(world.format)
    fill(k, world.space, Virtual(0), 0x5000)
    before = world.snapshot()
    pgd = k.pgd_offset(world.space, Virtual(0))
    k.pgd_clear(pgd)
    k.pgd_populate(world.space, pgd, world.space.roots[0].table)
    assert world.snapshot() == before
    k.p4d_clear(k.p4d_offset(pgd, Virtual(0)))
    assert held(world.space) == []


def test_with_five_levels_the_p4d_is_a_table_of_its_own() -> None:
    world = World(FORMATS[5])
    k = Folded(world.format)
    pgd = k.pgd_offset(world.space, Virtual(0))
    assert k.pgtable_l5_enabled()
    empty = k.pgdp_get(pgd)
    assert (k.pgd_none(empty), k.pgd_present(empty), k.pgd_bad(empty)) == (True, False, True)
    assert k.pgd_none_or_clear_bad(pgd)
    table = world.allocator.allocate(world.format, 3)
    k.pgd_populate(world.space, pgd, table)
    p4d = k.p4d_offset(pgd, Virtual(5 << 39))
    assert p4d == (world.space, table.slot(5))
    full = k.pgdp_get(pgd)
    assert (k.pgd_none(full), k.pgd_present(full), k.pgd_bad(full)) == (False, True, False)
    assert k.pgd_page_paddr(full) == table.address
    assert k.pgd_pfn(full) == table.address >> 12
    k.pgd_clear(pgd)
    assert k.pgd_none(k.pgdp_get(pgd))


def test_shifts_and_counts_are_those_of_linux() -> None:
    four, five = Folded(FORMATS[4]), Folded(FORMATS[5])
    for k in four, five:
        assert (k.PAGE_SHIFT, k.PMD_SHIFT, k.PUD_SHIFT, k.P4D_SHIFT) == (12, 21, 30, 39)
        assert (k.PTRS_PER_PTE, k.PTRS_PER_PMD, k.PTRS_PER_PUD) == (512, 512, 512)
        assert k.PTRS_PER_PGD == 512
    assert (four.PGDIR_SHIFT, four.PTRS_PER_P4D) == (39, 1)
    assert (five.PGDIR_SHIFT, five.PTRS_PER_P4D) == (48, 512)


def test_indices_are_those_of_linux() -> None:
    four, five = Folded(FORMATS[4]), Folded(FORMATS[5])
    address = 1 << 48 | 2 << 39 | 3 << 30 | 4 << 21 | 5 << 12
    for k in four, five:
        assert (k.pte_index(address), k.pmd_index(address), k.pud_index(address)) == (5, 4, 3)
    assert (five.p4d_index(address), five.pgd_index(address)) == (2, 1)
    assert (four.p4d_index(address), four.pgd_index(address)) == (0, 2)


@pytest.mark.parametrize(
    ("count", "name", "address", "end", "expected"),
    [
        (4, "pmd", 0x1000, 0x20_0000, 0x20_0000),
        (4, "pmd", 0x1000, 0x30_0000, 0x20_0000),
        (4, "pmd", 0x1000, 0x20_0001, 0x20_0000),
        (4, "pmd", 0x20_0000, 0x20_1000, 0x20_1000),
        (4, "pud", 0x1000, 1 << 40, 1 << 30),
        (4, "p4d", 0x1000, 1 << 40, 1 << 39),
        (4, "pgd", 0x1000, 1 << 40, 1 << 39),
        (5, "p4d", 0x1000, 1 << 50, 1 << 39),
        (5, "pgd", 0x1000, 1 << 50, 1 << 48),
        # The boundary after the last entry is 0, which is no address before the end.
        (4, "pgd", 0xFFFF_FFFF_FFFF_F000, 0, 0),
        (5, "pgd", 0xFFFF_0000_0000_0000, 0, 0),
        (4, "pmd", 0xFFFF_FFFF_FFE0_0000, 0xFFFF_FFFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000),
        (4, "pmd", 0xFFFF_FFFF_FFC0_0000, 0, 0xFFFF_FFFF_FFE0_0000),
    ],
)
def test_a_range_ends_with_its_entry_or_with_the_whole(
    count: int, name: str, address: int, end: int, expected: int
) -> None:
    k = Folded(FORMATS[count])
    addr_end: Callable[[Virtual, Virtual], Virtual] = getattr(k, f"{name}_addr_end")
    assert addr_end(Virtual(address), Virtual(end)) == expected


def test_a_kernel_knows_the_spaces_of_its_own_level_count_only() -> None:
    with pytest.raises(SpaceError, match="has no pgd under x86-64 5-level"):
        Folded(FORMATS[5]).pgd_offset(World(FORMATS[4]).space, Virtual(0))


def test_only_three_to_five_levels_have_these_names() -> None:
    with pytest.raises(ValueError, match="for 3 to 5 levels, Sv32 has others"):
        Folded(sv(32))


# What entries say.

SMALL = 0x1234_5000 | P | RW | US | A | D
LARGE = 0x4000_0000 | P | RW | US | A | D | PS
NONE = 0x000F_FFFF_EDCB_A000 | G
LARGE_NONE = 0x000F_FFFF_BFE0_0000 | G | PS
SWAP = Linux(FORMATS[4]).encode(Swap(1, 5))
MIGRATION = Linux(FORMATS[4]).encode(Migration(Type.MIGRATION_WRITE, Physical(0x20_0000)), 1)
TABLE = 0x7000 | P | Linux.table_bits


@pytest.mark.parametrize(
    ("raw", "true"),
    [
        (0, {"pte_none"}),
        (SMALL, {"pte_present", "pte_write", "pte_young", "pte_dirty"}),
        (0x1000 | P | 1 << 7, {"pte_present"}),
        (0x1000 | P | SPECIAL, {"pte_present", "pte_special"}),
        (0x1000 | P | SPECIAL | DEVMAP, {"pte_present", "pte_special", "pte_devmap"}),
        (0x1000 | P | 1 << 58, {"pte_present", "pte_dirty"}),
        (NONE, {"pte_present"}),
    ],
    ids=["none", "page", "pat", "special", "devmap", "saved dirty", "PROT_NONE"],
)
def test_what_a_pte_says(raw: int, true: set[str]) -> None:
    k = Folded(FORMATS[4])
    names = ["none", "present", "write", "young", "dirty", "special", "devmap"]
    asked = [*(f"pte_{name}" for name in names), "is_swap_pte"]
    assert {name for name in asked if getattr(k, name)(Value(k.format, 0, raw))} == true


def test_a_pte_in_swap_is_neither_present_nor_nothing() -> None:
    k = Folded(FORMATS[4])
    swap = Value(k.format, 0, SWAP)
    assert k.is_swap_pte(swap)
    assert not k.pte_present(swap) and not k.pte_none(swap) and not k.pte_devmap(swap)


def test_what_is_not_present_is_neither_special_nor_a_page() -> None:
    """PS alone makes a pmd present (pmd_present), one that is being split; a pud it does not."""
    k = Folded(FORMATS[4])
    assert not k.pte_special(Value(k.format, 0, SWAP | SPECIAL))
    assert k.pmd_leaf(Value(k.format, 1, LARGE & ~P))
    assert not k.pud_leaf(Value(k.format, 2, LARGE & ~P))
    assert k.pud_leaf(Value(k.format, 2, LARGE))


@pytest.mark.parametrize(
    ("raw", "true"),
    [
        (0, {"none", "bad"}),
        (TABLE, {"present"}),
        (LARGE, {"present", "bad", "leaf", "trans_huge"}),
        (LARGE | DEVMAP, {"present", "bad", "leaf", "devmap"}),
        (LARGE_NONE, {"present", "bad", "leaf", "trans_huge"}),
        (MIGRATION, {"bad", "is_swap"}),
        (TABLE | 1 << 50, {"present", "bad"}),
    ],
    ids=["none", "table", "2M", "devmap", "PROT_NONE", "migration", "malformed"],
)
def test_what_a_pmd_says(raw: int, true: set[str]) -> None:
    k = Folded(FORMATS[4])
    names = ["none", "present", "bad", "leaf", "trans_huge", "devmap"]
    asked = {**{name: f"pmd_{name}" for name in names}, "is_swap": "is_swap_pmd"}
    said = {name for name, f in asked.items() if getattr(k, f)(Value(k.format, 1, raw))}
    assert said == true


def test_no_p4d_or_pgd_is_a_page() -> None:
    k = Folded(FORMATS[5])
    assert not k.p4d_leaf(Value(k.format, 3, TABLE | PS))
    assert not k.pgd_leaf(Value(k.format, 4, TABLE | PS))


@pytest.mark.parametrize(
    ("level", "raw", "pfn"),
    [(0, SMALL, 0x1_2345), (0, NONE, 0x1_2345), (1, LARGE, 0x4_0000), (1, LARGE_NONE, 0x4_0000)],
)
def test_the_frame_of_a_page_can_be_taken_even_if_nobody_may_access_it(
    level: int, raw: int, pfn: int
) -> None:
    k = Folded(FORMATS[4])
    take = k.pmd_pfn if level else k.pte_pfn
    assert take(Value(k.format, level, raw)) == pfn
    assert k.pmd_pfn(Value(k.format, 1, TABLE)) == 7


def test_values_are_numbers_again_at_every_level() -> None:
    k = Folded(FORMATS[5])
    for level, name in enumerate(["pte", "pmd", "pud", "p4d", "pgd"]):
        assert getattr(k, f"{name}_val")(Value(k.format, level, TABLE | level)) == TABLE | level


@pytest.mark.parametrize("raw", [0, LARGE, TABLE | 1 << 50], ids=["none", "2M", "malformed"])
def test_what_is_no_table_has_no_address_of_one(raw: int) -> None:
    k = Folded(FORMATS[4])
    with pytest.raises(SpaceError, match="leads to no table"):
        k.pmd_page_paddr(Value(k.format, 1, raw))
    assert k.pmd_page_paddr(Value(k.format, 1, TABLE)) == 0x7000


def test_write_protection_saves_the_dirty_bit() -> None:
    k = Folded(FORMATS[4])
    protected = k.pte_wrprotect(Value(k.format, 0, SMALL | XD))
    assert protected.raw == 0x1234_5000 | P | US | A | XD | 1 << 58
    assert k.pte_wrprotect(protected) == protected
    assert k.pte_mkold(protected).raw == 0x1234_5000 | P | US | XD | 1 << 58
    clean = Value(k.format, 0, 0x1000 | P | RW | US)
    assert k.pte_wrprotect(clean).raw == 0x1000 | P | US
    shadow_stack = Value(k.format, 0, 0x1000 | P | US | D)
    assert k.pte_wrprotect(shadow_stack).raw == 0x1000 | P | US | 1 << 58


# Changes.


def test_a_value_is_set_at_its_own_level_only(world: World, k: Folded) -> None:
    fill(k, world.space, Virtual(0), 0x5000)
    place = locate(k, world.space, Virtual(0))
    assert place is not None
    before = world.snapshot()
    with pytest.raises(SpaceError, match=r"PDE 0x400000e7 .* cannot stand in slot 0"):
        k.set_pte(place, Value(world.format, 1, LARGE))
    assert world.snapshot() == before


def test_a_pte_is_cleared(world: World, k: Folded) -> None:
    world.space.map(Virtual(0x1000), world.frames(2), 0, world.rights())
    pte = locate(k, world.space, Virtual(0x1000))
    assert pte is not None
    k.pte_clear(world.space, 0x1000, pte)
    assert k.pte_none(k.ptep_get(pte))
    assert world.space.read(world.space.slot(Virtual(0x2000), 0))


def test_an_entry_is_taken_out_with_what_it_was(world: World, k: Folded) -> None:
    fill(k, world.space, Virtual(0x3000), 0x5000)
    place = locate(k, world.space, Virtual(0x3000))
    assert place is not None
    assert k.ptep_get_and_clear(world.space, 0x3000, place).raw == 0x5000 | P | RW | US
    assert k.pte_none(k.ptep_get(place))


def test_a_malformed_entry_is_cleared_and_a_page_is_not(world: World, k: Folded) -> None:
    address = Virtual(0)
    fill(k, world.space, address, 0x5000)
    pud = k.pud_offset(k.p4d_offset(k.pgd_offset(world.space, address), address), address)
    pmd = k.pmd_offset(pud, Virtual(1 << 21))
    k.set_pmd(pmd, Value(world.format, 1, LARGE))
    assert not k.pmd_none_or_clear_bad(pmd)
    with pytest.raises(SpaceError, match="leads to no table"):
        k.pte_offset_map(pmd, Virtual(1 << 21))
    k.set_pmd(pmd, Value(world.format, 1, TABLE | 1 << 50))
    with pytest.warns(RuntimeWarning, match="cleared: slot 1"):
        assert k.pmd_none_or_clear_bad(pmd)
    assert k.pmd_none(k.pmdp_get(pmd))


def test_locks_are_those_of_the_tables(world: World, k: Folded) -> None:
    address = Virtual(0)
    fill(k, world.space, address, 0x5000)
    pud = k.pud_offset(k.p4d_offset(k.pgd_offset(world.space, address), address), address)
    pmd = k.pmd_offset(pud, address)
    pte = k.pte_offset_map(pmd, address)
    assert k.pte_lockptr(world.space, pmd) is world.space.lock(pte[1].table)
    assert k.pmd_lockptr(world.space, pmd) is world.space.lock(pmd[1].table)
    assert k.pud_lockptr(world.space, pud) is world.space.lock(world.space.roots[0].table)
    assert k.pte_lockptr(world.space, pmd) is not k.pmd_lockptr(world.space, pmd)


# copy_page_range as it was when the generic API was proposed, a function a level.


def ranges(
    addr_end: Callable[[Virtual, Virtual], Virtual], address: Virtual, end: Virtual
) -> Iterator[tuple[Virtual, Virtual]]:
    """What `do { next = addr_end(addr, end); ... } while (addr = next, addr != end)` goes by."""
    while True:
        following = addr_end(address, end)
        yield address, following
        if following == end:
            return
        address = following


class OldFork:
    """The chain of functions, for two spaces."""

    def __init__(self, k: Folded, dst: Space, src: Space) -> None:
        self.k, self.dst, self.src = k, dst, src

    def copy_page_range(self, address: Virtual, end: Virtual) -> int:
        k = self.k
        for first, following in ranges(k.pgd_addr_end, address, end):
            dst_pgd, src_pgd = k.pgd_offset(self.dst, first), k.pgd_offset(self.src, first)
            if k.pgd_none_or_clear_bad(src_pgd):
                continue
            if self.copy_p4d_range(dst_pgd, src_pgd, first, following):
                return -ENOMEM
        return 0

    def copy_p4d_range(self, dst: Place, src: Place, address: Virtual, end: Virtual) -> int:
        k = self.k
        for first, following in ranges(k.p4d_addr_end, address, end):
            dst_p4d, src_p4d = k.p4d_alloc(self.dst, dst, first), k.p4d_offset(src, first)
            if dst_p4d is None:
                return -ENOMEM
            if k.p4d_none_or_clear_bad(src_p4d):
                continue
            if self.copy_pud_range(dst_p4d, src_p4d, first, following):
                return -ENOMEM
        return 0

    def copy_pud_range(self, dst: Place, src: Place, address: Virtual, end: Virtual) -> int:
        k = self.k
        for first, following in ranges(k.pud_addr_end, address, end):
            dst_pud, src_pud = k.pud_alloc(self.dst, dst, first), k.pud_offset(src, first)
            if dst_pud is None:
                return -ENOMEM
            pud = k.pudp_get(src_pud)
            if k.pud_trans_huge(pud) or k.pud_devmap(pud):
                k.set_pud_at(self.src, first, src_pud, k.pud_wrprotect(pud))
                k.set_pud_at(self.dst, first, dst_pud, k.pud_mkold(k.pud_wrprotect(pud)))
                continue
            if k.pud_none_or_clear_bad(src_pud):
                continue
            if self.copy_pmd_range(dst_pud, src_pud, first, following):
                return -ENOMEM
        return 0

    def copy_pmd_range(self, dst: Place, src: Place, address: Virtual, end: Virtual) -> int:
        k = self.k
        for first, following in ranges(k.pmd_addr_end, address, end):
            dst_pmd, src_pmd = k.pmd_alloc(self.dst, dst, first), k.pmd_offset(src, first)
            if dst_pmd is None:
                return -ENOMEM
            pmd = k.pmdp_get(src_pmd)
            if k.pmd_trans_huge(pmd) or k.pmd_devmap(pmd):
                k.set_pmd_at(self.src, first, src_pmd, k.pmd_wrprotect(pmd))
                k.set_pmd_at(self.dst, first, dst_pmd, k.pmd_mkold(k.pmd_wrprotect(pmd)))
                continue
            if k.pmd_none_or_clear_bad(src_pmd):
                continue
            if self.copy_pte_range(dst_pmd, src_pmd, first, following):
                return -ENOMEM
        return 0

    def copy_pte_range(self, dst: Place, src: Place, address: Virtual, end: Virtual) -> int:
        k = self.k
        while address != end:
            dst_pte, src_pte = (
                k.pte_alloc_map(self.dst, dst, address),
                k.pte_offset_map(src, address),
            )
            if dst_pte is None:
                return -ENOMEM
            pte = k.ptep_get(src_pte)
            if k.is_swap_pte(pte):
                k.set_pte_at(self.dst, address, dst_pte, pte)
            elif not k.pte_none(pte):
                k.set_pte_at(self.src, address, src_pte, k.pte_wrprotect(pte))
                k.set_pte_at(self.dst, address, dst_pte, k.pte_mkold(k.pte_wrprotect(pte)))
            address = Virtual((address + (1 << k.PAGE_SHIFT)) % (1 << 64))
        return 0


TOP = Span((1 << 64) - (1 << 31), (1 << 64) - 1)
"""The last two gigabytes, whose end is 0 to the old code."""


def parent(world: World, first: int) -> Space:
    """Pages of all sizes, swapped and PROT_NONE ones from `first` on, a gigabyte."""
    space, linux = world.space, Linux(world.format)
    space.map(Virtual(first), world.frames(3), 0, RW | US | A | D)
    space.map(Virtual(first + (5 << 12)), world.frames(1, first=99), 0, US | A | SPECIAL)
    space.write(space.slot(Virtual(first + (6 << 12)), 0), linux.encode(Swap(2, 7)))
    none = linux.protect(0x9000 | P | RW | US, 0, None)
    space.write(space.slot(Virtual(first + (7 << 12)), 0), none)
    space.map(Virtual(first + (1 << 29)), world.frames(2, 1), 1, RW | US | A | D)
    return space


@pytest.mark.parametrize("span", [Span.of(1 << 46, 2 << 30), TOP], ids=["user half", "top"])
def test_an_old_fork_leaves_what_the_generic_one_does(count: int, span: Span) -> None:
    old, new = World(FORMATS[count]), World(FORMATS[count])
    for world in old, new:
        parent(world, span.first)
        size = world.size(2)
        frames = world.frames(1, 2)
        world.space.map(Virtual(span.last + 1 - size), frames, 2, RW | US | D)
    old_child, new_child = old.new_space(), new.new_space()
    fork = OldFork(Folded(old.format), old_child, old.space)
    end = Virtual((span.last + 1) % (1 << 64))
    assert fork.copy_page_range(Virtual(span.first), end) == 0
    copy_range(new.space, new_child, span, Linux(new.format)).flush.done()
    assert len(held(old_child)) == 9
    assert held(old_child) == held(new_child)
    assert held(old.space) == held(new.space)


def test_an_old_fork_without_memory_says_so(world: World, k: Folded) -> None:
    parent(world, 1 << 46)
    child = world.new_space()
    for allowed in range(levels(world) - 1):
        world.allocator.remaining = allowed
        fork = OldFork(k, child, world.space)
        assert fork.copy_page_range(Virtual(1 << 46), Virtual((1 << 46) + (1 << 30))) == -ENOMEM
        child.free_empty(Span(0, (1 << 47) - 1)).done()


# sync_global_pgds as it was: a function for each level count.


def sync_global_pgds_l5(
    k: Folded, init_mm: Space, pgd_list: list[Space], start: Virtual, end: Virtual
) -> None:
    address = start
    while start <= address <= end:
        pgd_ref = k.pgdp_get(k.pgd_offset(init_mm, address))
        if not k.pgd_none(pgd_ref):
            for mm in pgd_list:
                pgd = k.pgd_offset(mm, address)
                if k.pgd_none(k.pgdp_get(pgd)):
                    k.set_pgd(pgd, pgd_ref)
                assert k.pgd_page_paddr(k.pgdp_get(pgd)) == k.pgd_page_paddr(pgd_ref)
        address = Virtual(((address >> k.PGDIR_SHIFT) + 1 << k.PGDIR_SHIFT) % (1 << 64))


def sync_global_pgds_l4(
    k: Folded, init_mm: Space, pgd_list: list[Space], start: Virtual, end: Virtual
) -> None:
    address = start
    while start <= address <= end:
        pgd_ref = k.pgd_offset(init_mm, address)
        assert not k.pgd_none(k.pgdp_get(pgd_ref))
        p4d_ref = k.p4dp_get(k.p4d_offset(pgd_ref, address))
        if not k.p4d_none(p4d_ref):
            for mm in pgd_list:
                p4d = k.p4d_offset(k.pgd_offset(mm, address), address)
                if k.p4d_none(k.p4dp_get(p4d)):
                    k.set_p4d(p4d, p4d_ref)
                assert k.p4d_page_paddr(k.p4dp_get(p4d)) == k.p4d_page_paddr(p4d_ref)
        address = Virtual(((address >> k.PGDIR_SHIFT) + 1 << k.PGDIR_SHIFT) % (1 << 64))


def test_the_old_sync_leaves_what_the_generic_one_does(world: World, k: Folded) -> None:
    kernel = Virtual(KERNEL[levels(world)])
    for address in (kernel, TOP.first):
        fill(k, world.space, Virtual(address), 0x5000)
    old = [world.new_space(), world.new_space()]
    new = [world.new_space(), world.new_space()]
    sync = sync_global_pgds_l5 if k.pgtable_l5_enabled() else sync_global_pgds_l4
    sync(k, world.space, old, kernel, Virtual(TOP.last))
    sync_roots(world.space, new, Span(kernel, TOP.last))

    def entries(space: Space) -> list[int]:
        return [space.read(slot) for root in space.roots for _, slot in root.slots()]

    assert sum(raw != 0 for raw in entries(world.space)) == 2
    for space in (*old, *new):
        assert entries(space) == entries(world.space)
