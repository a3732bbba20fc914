"""Exactly what must be flushed, for every way in which a present entry can change.

What is expected is written from the manual (SDM volume 3A, 4.10.4.2 and 4.10.4.3) for x86, and by
the same rules for the made-up formats; it is what `slots.put` returns, at every level and in every
format that knows the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from harness.paging import slots
from harness.paging.address import Virtual
from harness.paging.bits import stale
from harness.paging.format import Format
from harness.paging.value import Value
from harness.paging.x86.formats import pae, paging32
from tests.paging.spaces import FORMATS, World, software_bit

NOTHING: tuple[list[int], bool, bool] = ([], False, False)


@dataclass(frozen=True)
class Place:
    """A slot in which entries are changed, at an address that has pages on both sides."""

    world: World
    level: int

    @property
    def format(self) -> Format:
        return self.world.format

    @cached_property
    def at(self) -> int:
        return 3 * self.format.levels[self.level].size

    def leaf(self, bits: int = 0, frame: int = 8) -> int:
        return self.format.leaf(frame * self.format.levels[self.level].size, self.level, bits)

    def table(self, bits: int | None = None) -> int:
        """A pointer to a table of its own, below which one page is mapped."""
        raw, level = 0, 0
        while level < self.level:
            table = self.world.allocator.allocate(self.format, level)
            entry = raw if level else self.format.leaf(8 * self.world.page, 0, 0)
            self.world.space.put(table.slot(1), np.array([entry], np.uint64))
            level += 1
            open = self.format.open_pointer(level)
            given = open if bits is None or level < self.level else bits
            raw = self.format.pointer(table.address, level, given)
        return raw

    def change(self, before: int, after: int) -> tuple[list[int], bool, bool]:
        """Addresses, everything, global pages."""
        space, address = self.world.space, Virtual(self.at)
        slot = space.slot(address, self.level)
        space.write(slot, before)
        with slots.put(space, slot, Value(self.format, self.level, after), address) as flush:
            assert space.read(slot) == after
            return flush.addresses.tolist(), flush.everything, flush.global_pages


def places(*shapes: str) -> list[ParameterSet]:
    """Every level of every format that has all of the shapes."""
    return [
        pytest.param(name, level, id=f"{name}-{here.name}")
        for name, format in FORMATS.items()
        for level, here in enumerate(format.levels)
        if all(getattr(here, shape) for shape in shapes)
    ]


def place(name: str, level: int) -> Place:
    return Place(World(FORMATS[name]), level)


LEAVES = pytest.mark.parametrize(("name", "level"), places("leaf"))
POINTERS = pytest.mark.parametrize(("name", "level"), places("pointer"))


@LEAVES
def test_another_frame_is_flushed_whatever_the_rights(name: str, level: int) -> None:
    here = place(name, level)
    write = here.format.rights["write"]
    only = ([here.at], False, False)
    assert here.change(here.leaf(), here.leaf(frame=9)) == only
    assert here.change(here.leaf(), here.leaf(write, frame=9)) == only  # a copy on write
    assert here.change(here.leaf(write), here.leaf(write, frame=9)) == only  # a migration
    assert here.change(here.leaf(), here.leaf()) == NOTHING


@LEAVES
def test_every_bit_of_a_frame_s_address_counts(name: str, level: int) -> None:
    here = place(name, level)
    leaf = here.format.levels[level].leaf
    assert leaf is not None
    before = np.array([here.leaf(frame=0)], np.uint64)
    for field in leaf.address:
        for bit in range(8 * here.format.entry_bytes):
            if field.mask & ~leaf.reserved_mask & 1 << bit:
                assert stale(here.format, level, before, before | np.uint64(1 << bit))


@LEAVES
def test_what_is_no_longer_there_is_flushed_and_what_was_not_is_not(name: str, level: int) -> None:
    here = place(name, level)
    leaf = here.format.levels[level].leaf
    assert leaf is not None
    page = here.leaf()
    only = ([here.at], False, False)
    assert here.change(page, 0) == only
    assert here.change(page, page ^ here.format.levels[level].presence) == only
    assert here.change(0, page) == NOTHING
    for bit in range(8 * here.format.entry_bytes):
        reserved = leaf.reserved_mask & 1 << bit
        if reserved:
            assert here.change(page, page | reserved) == only, hex(reserved)
            assert here.change(page | reserved, here.leaf(frame=9)) == NOTHING


@LEAVES
def test_rights_of_pages_are_flushed_where_they_narrow(name: str, level: int) -> None:
    here = place(name, level)
    narrows_both_ways = here.format.exclusive
    only = ([here.at], False, False)
    for right, bit in here.format.rights.items():
        none, given = here.leaf(here.format.granting()), here.leaf(here.format.granting(right))
        assert here.change(given, none) == only
        assert here.change(none, given) == (only if bit & narrows_both_ways else NOTHING)


@LEAVES
def test_write_given_to_a_dirty_page_takes_a_shadow_stack_away(name: str, level: int) -> None:
    here = place(name, level)
    write, dirty = here.format.rights["write"], here.format.dirty
    clean, only = here.leaf(), ([here.at], False, False)
    assert here.change(clean | dirty, clean | dirty | write) == (only if name in X86 else NOTHING)
    assert here.change(clean | dirty, clean | dirty) == NOTHING
    assert here.change(clean, clean | dirty | write) == NOTHING
    assert here.change(clean, clean | dirty) == NOTHING  # a shadow stack is gained
    assert here.change(clean | dirty, clean) == only


@pytest.mark.parametrize("format", [paging32(40, True, True), pae(40, True)], ids=repr)
@pytest.mark.parametrize("level", [0, 1])
def test_shadow_stacks_of_other_modes_of_x86(format: Format, level: int) -> None:
    leaf = 0x41 | (0x80 if level else 0)  # P and D, and PS of a PDE
    before = np.array([leaf], np.uint64)
    assert stale(format, level, before, before | np.uint64(2)).tolist() == [True]
    table = np.array([0x1041], np.uint64)  # of which D is ignored
    assert stale(format, 1, table, table | np.uint64(2)).tolist() == [False]


@LEAVES
def test_what_a_page_s_other_bits_need(name: str, level: int) -> None:
    here = place(name, level)
    format, only = here.format, ([here.at], False, False)
    used = format.accessed | format.dirty
    for bit in (format.accessed, format.dirty):
        assert here.change(here.leaf(used), here.leaf(used & ~bit)) == only
        assert here.change(here.leaf(used & ~bit), here.leaf(used)) == NOTHING
    assert here.change(here.leaf(), here.leaf(format.lasting)) == only
    assert here.change(here.leaf(format.lasting), here.leaf()) == ([here.at], False, True)
    assert here.change(here.leaf(format.lasting), 0) == ([here.at], False, True)
    software = software_bit(format)
    if not level:
        assert here.change(here.leaf(), here.leaf(software)) == NOTHING
        assert here.change(here.leaf(software), here.leaf()) == NOTHING


X86 = [name for name in FORMATS if name.startswith("x86")]


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize(
    "bit", [*(1 << n for n in (3, 4)), "PAT", *(1 << n for n in range(59, 63))]
)
@pytest.mark.parametrize("name", X86)
def test_memory_type_and_key_of_a_page_are_flushed_both_ways(
    name: str, bit: int | str, level: int
) -> None:
    here = place(name, level)
    mask = (1 << 12 if level else 1 << 7) if bit == "PAT" else int(bit)
    only = ([here.at], False, False)
    assert here.change(here.leaf(), here.leaf(mask)) == only
    assert here.change(here.leaf(mask), here.leaf()) == only


@POINTERS
def test_a_pointer_that_leads_elsewhere_is_flushed_with_all_that_lay_below(
    name: str, level: int
) -> None:
    here = place(name, level)
    wide = ([here.at], True, True)  # there may be global pages below
    one, other = here.table(), here.table()
    assert here.change(one, other) == wide
    assert here.change(one, 0) == wide
    assert here.change(one, one ^ here.format.levels[level].presence) == wide
    assert here.change(0, one) == NOTHING
    pointer = here.format.levels[level].pointer
    assert pointer is not None
    for bit in range(8 * here.format.entry_bytes):
        reserved = pointer.reserved_mask & 1 << bit
        if reserved:
            assert here.change(one, one | reserved) == wide, hex(reserved)
            assert here.change(one | reserved, one) == NOTHING


@POINTERS
def test_rights_and_a_of_pointers_are_flushed_where_they_narrow(name: str, level: int) -> None:
    here = place(name, level)
    format, wide = here.format, ([here.at], True, True)
    for right, bit in format.rights.items():
        given = here.table(format.granting(right))
        none = given ^ bit
        assert here.change(given, none) == wide
        assert here.change(none, given) == (wide if bit & format.exclusive else NOTHING)
    plain = here.table()
    assert here.change(plain | format.accessed, plain) == wide
    assert here.change(plain, plain | format.accessed) == NOTHING


@POINTERS
def test_what_the_machine_ignores_in_pointers_needs_nothing(name: str, level: int) -> None:
    here = place(name, level)
    plain, format = here.table(), here.format
    ignored = [format.dirty, *([0xF << 59, 1 << 52, 1 << 11] if name in X86 else [])]
    if level < 3:  # of PML4Es and PML5Es, AMD reserves bit 8
        ignored.append(format.lasting)
    for bits in ignored:
        assert here.change(plain, plain | bits) == NOTHING, hex(bits)
        assert here.change(plain | bits, plain) == NOTHING, hex(bits)


@pytest.mark.parametrize("name", X86)
@pytest.mark.parametrize("bit", [3, 4])
@pytest.mark.parametrize("level", range(1, 4))
def test_the_memory_type_of_a_table_is_flushed_both_ways(name: str, bit: int, level: int) -> None:
    here = place(name, level)
    plain = here.table()
    for before, after in ((plain, plain | 1 << bit), (plain | 1 << bit, plain)):
        assert here.change(before, after) == ([here.at], True, True)


@pytest.mark.parametrize(("name", "level"), places("leaf", "pointer"))
def test_a_page_that_becomes_a_table_and_back_is_flushed(name: str, level: int) -> None:
    here = place(name, level)
    lasting = here.format.lasting
    page, table = here.leaf(here.world.rights("write")), here.table()
    assert here.change(page, table) == ([here.at], False, False)
    assert here.change(here.leaf(lasting), table) == ([here.at], False, True)
    assert here.change(table, page) == ([here.at], True, True)


@pytest.mark.parametrize("name", FORMATS)
def test_of_many_pages_those_that_only_gain_are_left_out(name: str) -> None:
    world = World(FORMATS[name])
    space, page, write = world.space, world.page, world.format.rights["write"]
    first = world.rights("write") ^ write
    space.map(Virtual(0), world.frames(1), 0, first | world.format.lasting)
    space.map(Virtual(page), world.frames(1), 0, first | write)
    space.map(Virtual(2 * page), world.frames(1), 0, first | world.format.lasting)
    with space.rewrite(world.pages(0, 3), lambda raw, level: raw ^ np.uint64(write)) as flush:
        assert flush.addresses.tolist() == [page]
        assert not flush.global_pages


@pytest.mark.parametrize(
    ("format", "level", "bit", "flushed"),
    [
        pytest.param(paging32(40, False, False), 1, 1 << 7, False, id="PS while CR4.PSE=0"),
        pytest.param(paging32(40, True, True), 1, 1 << 7, True, id="PS of a PDE"),
        pytest.param(paging32(40, True, True), 1, 1 << 8, False, id="G of a pointer, 32-bit"),
        pytest.param(paging32(40, True, True), 0, 1 << 7, True, id="PAT of a PTE, 32-bit"),
        pytest.param(pae(40, True), 1, 1 << 8, False, id="G of a pointer, PAE"),
        pytest.param(pae(40, True), 0, 1 << 59, True, id="a bit that PAE reserves"),
        pytest.param(pae(40, False), 0, 1 << 63, True, id="XD while EFER.NXE=0"),
    ],
)
def test_other_modes_of_x86(format: Format, level: int, bit: int, flushed: bool) -> None:
    before = np.array([0x1003], np.uint64)
    after = before | np.uint64(bit)
    assert stale(format, level, before, after).tolist() == [flushed]
