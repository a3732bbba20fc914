"""What the bits of entries say, and which changes of them the machine must be told of.

The expectations are written out bit by bit, from the manual for x86 and by hand for the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from harness.paging import slots
from harness.paging.address import Span, Virtual
from harness.paging.bits import (
    address_mask,
    attributes,
    carried,
    pointer_attributes,
    read_by_machine,
    stale,
    structure_mask,
    withheld,
)
from harness.paging.format import Format, Reserved
from harness.paging.memory import Words
from harness.paging.power.formats import radix
from harness.paging.value import Value
from harness.paging.x86.formats import long_mode, pae, paging32, pdpte
from tests.paging.spaces import FORMATS, SHORT, UNEVEN, World, bits
from tests.paging.toys import MIXED, SCATTERED

X86 = long_mode(5, 40, True, True)


class Flips(NamedTuple):
    """What must be flushed when one bit of a present, well-formed entry changes.

    always    whichever way it changes; presence and what must be clear among it
    cleared   when it was set: rights that are given, and what the machine notes
    given     when it was clear: rights that are taken, and those that keep others out
    """

    format: Format
    level: int
    raw: int
    always: int
    cleared: int
    given: int


# SDM volume 3A, tables 4-14 to 4-20, MAXPHYADDR 40, EFER.NXE=1.  P, PWT and PCD are bits 0, 3 and
# 4; R/W and U/S are 1 and 2; A and D are 5 and 6; XD is 63.  U/S counts both ways, since SMEP and
# SMAP keep the supervisor out of user pages (4.10.4.3).
LONG = {
    # PAT is bit 7, G 8, the frame 39:12, reserved 51:40, the key 62:59.
    "PTE": Flips(
        X86, 0, 0x1 | 0x5000, bits(0) | bits(4, 3) | bits(8, 7) | bits(51, 12) | bits(62, 59),
        bits(2, 1) | bits(6, 5), bits(2) | bits(63),
    ),
    # PS is bit 7, PAT 12, the frame 39:21, reserved 20:13 and 51:40.
    "a 2M page": Flips(
        X86, 1, 0x81 | 5 << 21, bits(0) | bits(4, 3) | bits(8, 7) | bits(51, 12) | bits(62, 59),
        bits(2, 1) | bits(6, 5), bits(2) | bits(63),
    ),
    # The same with the frame in 39:30.
    "a 1G page": Flips(
        X86, 2, 0x81 | 5 << 30, bits(0) | bits(4, 3) | bits(8, 7) | bits(51, 12) | bits(62, 59),
        bits(2, 1) | bits(6, 5), bits(2) | bits(63),
    ),
    # Bits 6 and 8 and 62:52 are ignored; PS makes a page of it.
    "a PDE": Flips(
        X86, 1, 0x1 | 0x5000, bits(0) | bits(4, 3) | bits(7) | bits(51, 12),
        bits(2, 1) | bits(5), bits(2) | bits(63),
    ),
    # Bit 7 is reserved; bit 8 is ignored (Intel).
    "a PML4E": Flips(
        X86, 3, 0x1 | 0x5000, bits(0) | bits(4, 3) | bits(7) | bits(51, 12),
        bits(2, 1) | bits(5), bits(2) | bits(63),
    ),
}  # fmt: skip
# SDM 4.3, tables 4-5 and 4-6, and 4.4, tables 4-10 and 4-11.
OTHERS = {
    "a 32-bit PTE": Flips(
        paging32(40, True, True), 0, 0x1 | 0x5000,
        bits(0) | bits(4, 3) | bits(8, 7) | bits(31, 12), bits(2, 1) | bits(6, 5), bits(2),
    ),
    # The frame's bits 39:32 are in 20:13, its bits 31:22 in 31:22; bit 21 is reserved.
    "a 4M page": Flips(
        paging32(40, True, True), 1, 0x81 | 5 << 22,
        bits(0) | bits(4, 3) | bits(8, 7) | bits(31, 12), bits(2, 1) | bits(6, 5), bits(2),
    ),
    # 62:40 are reserved: there are no keys.
    "a PTE of PAE": Flips(
        pae(40, True), 0, 0x1 | 0x5000,
        bits(0) | bits(4, 3) | bits(8, 7) | bits(62, 12), bits(2, 1) | bits(6, 5),
        bits(2) | bits(63),
    ),
    # Table 4-8: 2:1, 8:5 and 63:40 are reserved, 11:9 ignored; there are no rights and no marks.
    "a PDPTE of PAE": Flips(
        pae(40, True, pdpte(40)), 2, 0x1 | 0x5000, bits(8, 0) | bits(63, 12), 0, 0,
    ),
}  # fmt: skip
# Power ISA 3.0, Book III, "Radix Tree Page Directory Entry" and "Page Table Entry"; here bit 0 is
# the lowest.  V and L are bits 63 and 62, R and C 8 and 7, ATT 5:4, EAA 3:0: privileged, read, read
# and write, execute.  What is wrong in a page of the lowest level is L.
POWER = {
    "a radix PTE": Flips(
        radix(12), 0, bits(63, 62) | 0x5000, bits(63, 62) | bits(56, 12) | bits(5, 4),
        bits(8, 7) | bits(2, 0), bits(3),
    ),
    # NLB is 59:8, of a table of 256 bytes all of it; NLS 4:0.
    "a radix PDE": Flips(
        radix(16), 1, bits(63) | 0x5000 | 5, bits(63, 62) | bits(59, 8) | bits(4, 0), 0, 0,
    ),
}  # fmt: skip
# From the top down: present, write, user, still, page, accessed, dirty, lasting, two reserved.
MADE_UP = {
    "uneven": Flips(
        UNEVEN, 0, bits(63) | bits(8), bits(63) | bits(56, 6) | bits(1, 0),
        bits(62, 61) | bits(58, 57), bits(61, 60),
    ),
    "short": Flips(
        SHORT, 1, bits(31) | bits(27) | bits(10), bits(31) | bits(27) | bits(24, 6) | bits(2, 1),
        bits(30, 29) | bits(26, 25), bits(28),
    ),
}  # fmt: skip
FLIPS = {**LONG, **OTHERS, **POWER, **MADE_UP}


def words(*raw: int) -> Words:
    return np.array(raw, np.uint64)


def needed(case: Flips, raw: int, bit: int) -> bool:
    """Whether the change of one bit of the entry must be flushed."""
    return bool(bit & (case.always | (case.cleared if raw & bit else case.given)))


@pytest.mark.parametrize("case", FLIPS.values(), ids=FLIPS)
def test_each_bit_that_changes_what_the_machine_reads_makes_the_entry_stale(case: Flips) -> None:
    format, level = case.format, case.level
    reserved = format.levels[level].shape(case.raw).reserved_mask
    free = (case.cleared | case.given) & ~reserved
    for raw in (case.raw, case.raw | free):
        assert Value(format, level, raw).leaf or Value(format, level, raw).points
        for n in range(8 * format.entry_bytes):
            found = bool(stale(format, level, words(raw), words(raw ^ 1 << n))[0])
            assert found == needed(case, raw, 1 << n), f"bit {n} of {raw:#x}"


@pytest.mark.parametrize("case", FLIPS.values(), ids=FLIPS)
def test_what_was_absent_or_malformed_is_never_stale(case: Flips) -> None:
    format, level = case.format, case.level
    absent = case.raw ^ format.levels[level].presence
    assert not stale(format, level, words(absent, 0), words(case.raw, case.raw)).any()
    reserved = format.levels[level].shape(case.raw).reserved_mask
    malformed = case.raw | reserved & -reserved
    if reserved:
        assert not stale(format, level, words(malformed), words(case.raw)).any()


def test_no_pointer_gains_by_the_bit_that_says_of_a_page_that_it_was_written() -> None:
    pde = X86.levels[1].changed(
        lambda shape: replace(shape, reserved=(*shape.reserved, Reserved(bits(6), "planted")))
    )
    format = replace(X86, levels=(X86.levels[0], pde, *X86.levels[2:]))
    assert stale(format, 1, words(0x5001), words(0x5041)).all()
    assert not stale(X86, 1, words(0x5001), words(0x5041)).any()


@pytest.mark.parametrize("name", FORMATS)
def test_a_change_in_place_is_flushed_at_every_level(name: str) -> None:
    """Another frame (copy on write, migration), another size, an entry made to trap."""
    world = World(FORMATS[name])
    for level in world.format.page_levels():
        world, size = World(world.format), world.size(level)
        space = world.space
        space.map(Virtual(size), world.frames(2, level), level, world.rights("write"))
        slot = space.slot(Virtual(size), level)
        other = world.format.leaf(16 * size, level, world.rights("write"))
        with slots.put(space, slot, Value(world.format, level, other), Virtual(size)) as flush:
            assert flush.addresses.tolist() == [size]
        frame = slots.value(space, slot).frame
        lowest = frame & -frame
        with space.rewrite(Span.of(size, 2 * size), lambda raw, _, bit=lowest: raw ^ bit) as flush:  # type: ignore[misc]
            assert flush.addresses.tolist() == [size, 2 * size]
        leaf = world.format.levels[level].leaf
        assert leaf is not None
        trap = Value(world.format, level, other | leaf.reserved_mask & -leaf.reserved_mask)
        assert trap.bad
        with slots.put(space, slot, trap, Virtual(size)) as flush:
            assert flush.addresses.tolist() == [size]


@pytest.mark.parametrize("name", FORMATS)
def test_a_page_for_a_table_and_a_table_for_a_page_are_flushed(name: str) -> None:
    world = World(FORMATS[name])
    space, format, size = world.space, world.format, world.size(1)
    space.map(Virtual(0), world.frames(1), 0, world.rights("write"))
    slot = space.slot(Virtual(0), 1)
    pointer = slots.value(space, slot)
    page = Value(format, 1, format.leaf(8 * size, 1, world.rights("write")))
    for value in (page, pointer):
        with slots.put(space, slot, value, Virtual(0)) as flush:
            assert flush.addresses.tolist() == [0]


def test_the_bits_that_the_machine_reads_are_those_of_the_manual() -> None:
    # Reserved ones too, those above MAXPHYADDR.
    leaf = bits(8, 0) | bits(51, 12) | bits(63, 59)
    pointer_only = bits(7) | bits(5, 0) | bits(51, 12) | bits(63)
    found = [read_by_machine(X86, level) for level in range(5)]
    assert found == [leaf, leaf, leaf, pointer_only, pointer_only]


def test_a_bit_without_a_meaning_is_not_read_where_there_is_no_pointer() -> None:
    low, *rest = UNEVEN.levels
    plain = replace(UNEVEN, levels=(low.changed(lambda shape: replace(shape, bits={})), *rest))
    assert not read_by_machine(plain, 0) & bits(5, 0)
    assert address_mask(X86, 3) == address_mask(X86, 4) == 0
    assert pointer_attributes(X86, 0, bits(63)) == bits(63)


def test_what_makes_an_entry_a_page_or_a_pointer() -> None:
    assert [structure_mask(X86, level) for level in range(5)] == [1, 0x81, 0x81, 1, 1]
    assert [structure_mask(MIXED, level) for level in range(3)] == [3, 7, 3]
    assert [structure_mask(SCATTERED, level) for level in range(2)] == [1, 0x81]


def test_attributes_are_all_but_the_address_and_what_makes_it_a_page() -> None:
    ones = bits(63)
    ones |= ones - 1
    assert attributes(X86, 0, ones) == ones ^ bits(39, 12) ^ 1
    assert attributes(X86, 1, ones) == ones ^ bits(39, 21) ^ 0x81
    assert pointer_attributes(X86, 1, ones) == ones ^ bits(39, 12) ^ 0x81
    assert pointer_attributes(X86, 3, ones) == ones ^ bits(39, 12) ^ 1
    # The address of a large page is in two fields.
    assert attributes(SCATTERED, 1, 0xFFFFFFFF) == 0xFFFFFFFF ^ 0xFFC00000 ^ 0x1FE000 ^ 0x81


@pytest.mark.parametrize(
    ("format", "raw", "rights", "left"),
    [
        (X86, 0x7, 0x2, 0x5),  # R/W gives when set
        (X86, 0x7, bits(63), bits(63) | 0x7),  # XD takes
        (X86, 0x7, bits(63) | 0x6, bits(63) | 0x1),
        (X86, bits(63) | 0x5, 0, bits(63) | 0x5),
        (MIXED, 0b01010, 1 << 3, 0b00010),
        (MIXED, 0b01010, 1 << 4, 0b11010),
    ],
)
def test_a_right_is_withheld_by_clearing_it_or_by_setting_it(
    format: Format, raw: int, rights: int, left: int
) -> None:
    assert withheld(format, 0, raw, rights) == left
    assert isinstance(withheld(format, 0, raw, rights), int)
    assert withheld(format, 0, words(raw, raw), rights).tolist() == [left, left]


def test_a_bit_with_a_name_moves_to_where_the_level_has_it() -> None:
    # PAT is bit 7 of a PTE and bit 12 of a larger page; the others stay; bit 9 has no name.
    assert carried(X86, bits(7) | bits(9) | 0x2, 0, 1) == bits(12) | bits(9) | 0x2
    assert carried(X86, bits(12) | bits(63, 59), 2, 0) == bits(7) | bits(63, 59)
    # Bit 0 has no name in this format, and bit 9 is no bit of any level.
    assert carried(MIXED, 1 | bits(9), 0, 1) == 1 | bits(9)
    # COLOR is bits 1:0 at level 0 and 3:2 at level 2; bit 5 is the software's.
    assert carried(UNEVEN, 0b10, 0, 2) == 0b1000
    assert carried(UNEVEN, 0b01 | bits(5), 0, 2) == 0b0100 | bits(5)
    assert carried(UNEVEN, 0b0100 | 1, 2, 0) == 0b01 | 1


def test_a_name_that_the_other_level_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="a PML4E has no PAT, which the PTE sets"):
        carried(X86, bits(7), 0, 3)
    assert carried(X86, 0x2, 0, 3) == 0x2
