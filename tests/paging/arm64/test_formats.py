"""What each bit of each descriptor means, as the Arm ARM has it (DDI 0487, chapter D8: "Translation
table descriptor formats", "Memory access control"), bit by bit."""

from __future__ import annotations

import pytest

from harness.paging.arm64 import formats
from harness.paging.arm64.formats import stage1
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format
from tests.paging.tables import KIND, RESERVED, RIGHT, Entry, complaints

K4, K16, K64 = stage1("4K", 48, 48), stage1("16K", 48, 48), stage1("64K", 48, 48)
LPA2, LPA2_16 = stage1("4K", 52, 52, wide=True), stage1("16K", 52, 52, wide=True)
WIDE = stage1("64K", 52, 52, wide=True)

BITS = {
    **{"VALID": (0, 0), "TYPE": (1, 0), "ATTR": (4, 2), "NS": (5, 5), "AP_EL0": (6, 6)},
    **{"AP_READ_ONLY": (7, 7), "SH": (9, 8), "AF": (10, 10), "NG": (11, 11), "NT": (16, 16)},
    **{"GP": (50, 50), "DBM": (51, 51), "CONTIGUOUS": (52, 52), "PXN": (53, 53), "UXN": (54, 54)},
    **{"PXN_TABLE": (59, 59), "UXN_TABLE": (60, 60), "AP_TABLE_NO_EL0": (61, 61)},
    **{"AP_TABLE_READ_ONLY": (62, 62), "NS_TABLE": (63, 63), "PO_INDEX": (62, 60)},
}
"""Bits high:low of descriptors: "Stage 1 attribute fields"."""


def test_the_names_of_bits_stand_for_those_of_the_manual() -> None:
    for name, (high, low) in BITS.items():
        assert getattr(formats, name) == (1 << high + 1) - (1 << low), name


LEAF = {(54, 53): RIGHT, (7, 6): RIGHT, (1, 0): KIND}
TABLE = {(62, 59): RIGHT, (1, 0): KIND}

ENTRIES = {
    "4K page": Entry(K4, 0, 3, Leaf, 1 << 12, {**LEAF, (47, 12): 0}),
    "4K table": Entry(K4, 1, 3, Pointer, None, {**TABLE, (47, 12): 0}),
    "2M block": Entry(K4, 1, 1, Leaf, 1 << 21, {**LEAF, (47, 21): 0}),
    "1G block": Entry(K4, 2, 1, Leaf, 1 << 30, {**LEAF, (47, 30): 0}),
    "4K root table": Entry(K4, 3, 3, Pointer, None, {**TABLE, (47, 12): 0}),
    "16K page": Entry(K16, 0, 3, Leaf, 1 << 14, {**LEAF, (47, 14): 0}),
    "16K table": Entry(K16, 1, 3, Pointer, None, {**TABLE, (47, 14): 0}),
    "32M block": Entry(K16, 1, 1, Leaf, 1 << 25, {**LEAF, (47, 25): 0}),
    "64K page": Entry(K64, 0, 3, Leaf, 1 << 16, {**LEAF, (47, 16): 0}),
    "64K table": Entry(K64, 2, 3, Pointer, None, {**TABLE, (47, 16): 0}),
    "512M block": Entry(K64, 1, 1, Leaf, 1 << 29, {**LEAF, (47, 29): 0}),
    "4K page, LPA2": Entry(LPA2, 0, 3, Leaf, 1 << 12, {**LEAF, (49, 12): 0, (9, 8): 42}),
    "4K table, LPA2": Entry(LPA2, 4, 3, Pointer, None, {**TABLE, (49, 12): 0, (9, 8): 42}),
    "512G block, LPA2": Entry(LPA2, 3, 1, Leaf, 1 << 39, {**LEAF, (49, 39): 0, (9, 8): 42}),
    "64G block, LPA2": Entry(LPA2_16, 2, 1, Leaf, 1 << 36, {**LEAF, (49, 36): 0, (9, 8): 42}),
    "64K page, 52 bits": Entry(WIDE, 0, 3, Leaf, 1 << 16, {**LEAF, (47, 16): 0, (15, 12): 36}),
    "4T block, 52 bits": Entry(WIDE, 2, 1, Leaf, 1 << 42, {**LEAF, (47, 42): 0, (15, 12): 36}),
    "64K table, 52 bits": Entry(WIDE, 1, 3, Pointer, None, {**TABLE, (47, 16): 0, (15, 12): 36}),
    "4K page, IPS=1": Entry(
        *(stage1("4K", 48, 36), 0, 3, Leaf, 1 << 12),
        {**LEAF, (35, 12): 0, (47, 36): RESERVED},
    ),
    "4K table, IPS=1": Entry(
        *(stage1("4K", 48, 36), 2, 3, Pointer, None),
        {**TABLE, (35, 12): 0, (47, 36): RESERVED},
    ),
    "4K page, LPA2, IPS=5": Entry(
        *(stage1("4K", 52, 48, wide=True), 0, 3, Leaf, 1 << 12),
        {**LEAF, (47, 12): 0, (49, 48): RESERVED, (9, 8): RESERVED},
    ),
    "64K page, IPS=5 of a wide processor": Entry(
        *(stage1("64K", 48, 48, wide=True), 0, 3, Leaf, 1 << 16),
        {**LEAF, (47, 16): 0, (15, 12): RESERVED},
    ),
    "4K table, HPD": Entry(
        *(stage1("4K", 48, 48, hierarchical=False), 2, 3, Pointer, None),
        {(47, 12): 0, (1, 0): KIND},
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_bit_of_a_descriptor_means_what_the_manual_says(entry: str) -> None:
    assert not complaints(ENTRIES[entry])


BLOCKS = {
    "4K": (K4, {2, 1}),
    "16K": (K16, {2}),
    "64K": (K64, {2}),
    "4K, LPA2": (LPA2, {2, 1, 0}),
    "16K, LPA2": (LPA2_16, {2, 1}),
    "64K, 52 bits": (WIDE, {2, 1}),
}
"""The levels of the manual at which there are blocks."""


@pytest.mark.parametrize("name", BLOCKS)
def test_the_type_is_read_by_the_level(name: str) -> None:
    """00 and 10 are invalid; 01 is a block where one can be, else invalid too; 11 is a page at
    level 3, else a table."""
    format, blocks = BLOCKS[name]
    for number in range(len(format.levels)):
        manual = 3 - number
        assert format.decode(0, number) == format.decode(2, number) == Absent()
        assert isinstance(format.decode(1, number), Leaf if manual in blocks else Absent)
        assert isinstance(format.decode(3, number), Pointer if number else Leaf)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_bit_that_has_a_name_is_one_of_an_address(name: str) -> None:
    """With TCR_EL1.DS=1, where 4K and 16K have bits 51:50 of it, there is no SH."""
    format, _ = BLOCKS[name]
    for level in format.levels:
        for shape in level.shapes:
            assert not sum(shape.bits.values()) & (shape.address_mask | shape.reserved_mask)
            if not shape.points:
                assert ("SH" in shape.bits) == ("LPA2" not in name)
                assert ("nT" in shape.bits) == (level is not format.levels[0])


def test_tables_have_the_geometry_of_the_manual() -> None:
    def geometry(format: Format) -> list[tuple[int, int]]:
        return [(one.shift, one.index_bits) for one in format.levels]

    assert geometry(K4) == [(12, 9), (21, 9), (30, 9), (39, 9)]
    assert geometry(K16) == [(14, 11), (25, 11), (36, 11), (47, 1)]
    assert geometry(K64) == [(16, 13), (29, 13), (42, 6)]
    assert geometry(LPA2) == [(12, 9), (21, 9), (30, 9), (39, 9), (48, 4)]
    assert geometry(LPA2_16) == [(14, 11), (25, 11), (36, 11), (47, 5)]
    assert geometry(WIDE) == [(16, 13), (29, 13), (42, 10)]
    assert geometry(stage1("4K", 39, 40)) == [(12, 9), (21, 9), (30, 9)]
    assert geometry(stage1("4K", 25, 40)) == [(12, 9), (21, 4)]


@pytest.mark.parametrize(("granule", "least"), [("4K", 16), ("16K", 16), ("64K", 17)])
def test_a_half_may_be_as_small_and_as_large_as_the_manual_has_it(granule: str, least: int) -> None:
    for address_bits, output_bits, wide in (
        *((bits, output, False) for bits in (least, 48) for output in (32, 48)),
        *((bits, output, True) for bits in (least, 52) for output in (32, 52)),
    ):
        top = stage1(granule, address_bits, output_bits, wide=wide).levels[-1]
        assert top.shift + top.index_bits == address_bits


def rights(format: Format, raw: int, level: int = 0) -> set[str]:
    return set(format.rights_of(format.granted(raw, level)))


def test_a_page_gives_and_withholds_by_ap_uxn_and_pxn() -> None:
    assert rights(K4, 3) == {"write", "user execute", "supervisor execute"}
    assert rights(K4, 3 | 1 << 6) == {"user", "write", "user execute", "supervisor execute"}
    assert rights(K4, 3 | 1 << 7) == {"user execute", "supervisor execute"}
    assert rights(K4, 3 | 1 << 54) == {"write", "supervisor execute"}
    assert rights(K4, 3 | 1 << 53) == {"write", "user execute"}


def test_a_table_withholds_by_bits_of_its_own() -> None:
    everything = {"user", "write", "user execute", "supervisor execute"}
    assert rights(K4, 3, 2) == everything
    assert rights(K4, 3 | 1 << 61, 2) == everything - {"user"}
    assert rights(K4, 3 | 1 << 62, 2) == everything - {"write"}
    assert rights(K4, 3 | 1 << 60, 2) == everything - {"user execute"}
    assert rights(K4, 3 | 1 << 59, 2) == everything - {"supervisor execute"}
    assert rights(stage1("4K", 48, 48, hierarchical=False), 3 | 15 << 59, 2) == everything


def test_with_hardware_dirty_state_dbm_makes_a_page_writable() -> None:
    dirty = stage1("4K", 48, 48, hardware_dirty=True)
    for ap2, dbm in ((0, 0), (0, 1), (1, 0), (1, 1)):
        raw = 3 | ap2 << 7 | dbm << 51
        assert ("write" in rights(dirty, raw)) == (not ap2 or bool(dbm))
        assert ("write" in rights(K4, raw)) == (not ap2)


@pytest.mark.parametrize("output_bits", [32, 36, 40, 42, 44, 48, 52])
@pytest.mark.parametrize("granule", ["4K", "16K", "64K"])
def test_an_entry_holds_addresses_up_to_the_output_size_and_no_larger(
    granule: str, output_bits: int
) -> None:
    for wide in (False, True):
        if output_bits == 52 and not wide:
            continue
        format = stage1(granule, 48, output_bits, wide=wide)
        for level, here in enumerate(format.levels):
            for shape in here.shapes:
                lowest = 1 << format.levels[0 if shape.points else level].shift
                largest = max(1 << output_bits, lowest) - lowest  # a block may be larger than all
                assert shape.address_of((1 << 64) - 1) == largest


def test_descriptors_have_the_byte_order_of_sctlr_ee() -> None:
    assert (K4.byte_order, stage1("4K", 48, 48, big_endian=True).byte_order) == ("little", "big")


def test_of_the_bits_with_names_those_are_ignored_that_the_manual_says_are() -> None:
    """NS and NSTable outside of Secure state; DBM unless HA=HD=1; with HPD what tables withhold."""
    dirty = stage1("4K", 48, 48, hardware_dirty=True)
    free = stage1("4K", 48, 48, hierarchical=False)
    for format, in_leaves, in_tables in (
        (K4, 1 << 5 | 1 << 51, 1 << 63),
        (dirty, 1 << 5, 1 << 63),
        (free, 1 << 5 | 1 << 51, 31 << 59),
    ):
        for level in format.levels:
            for shape in level.shapes:
                assert shape.ignored == (in_tables if shape.points else in_leaves)


def test_an_address_beyond_the_output_size_is_malformed_by_the_bits_that_are() -> None:
    assert stage1("4K", 48, 40).decode(3 | 0x1F << 38, 0) == Malformed(7 << 40)


@pytest.mark.parametrize("format", [K4, K16, K64, LPA2, LPA2_16, WIDE], ids=lambda one: one.name)
def test_the_type_of_a_block_where_none_can_be_is_reserved_and_absent(format: Format) -> None:
    for number, level in enumerate(format.levels):
        blocks = number > 0 and level.leaf is not None
        assert isinstance(format.decode(1, number), Leaf if blocks else Absent)
        if not blocks:
            what = "which has none" if number else "where pages have 0b11"
            [one] = format.malformed(1, number)
            assert one.mask == 3 and one.reason.endswith(
                f"type 0b01 is reserved at L{3 - number}, {what}"
            )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("8K", 48, 48), "a granule is 4K, 16K or 64K, not 8K"),
        (("4K", 52, 48), "4K translates 16 to 48 bits here, not 52"),
        (("4K", 15, 48), "4K translates 16 to 48 bits here, not 15"),
        (("64K", 16, 48), "64K translates 17 to 52 bits here, not 16"),
        (("64K", 53, 48), "64K translates 17 to 52 bits here, not 53"),
        (("16K", 53, 52, True), "16K translates 16 to 52 bits here, not 53"),
        (("4K", 48, 31), "physical addresses have 32 to 48 bits here, not 31"),
        (("64K", 48, 52), "physical addresses have 32 to 48 bits here, not 52"),
        (("4K", 52, 53, True), "physical addresses have 32 to 52 bits here, not 53"),
    ],
)
def test_what_no_processor_has_is_refused(arguments: tuple[object, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        stage1(*arguments)  # type: ignore[arg-type]
