"""What each bit of each entry means, as the tables of the manual have it (SDM volume 3A, 4.3 to
4.5), bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging.address import Physical
from harness.paging.bits import stale
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.x86 import formats
from harness.paging.x86.formats import long_mode, pae, paging32, pdpte

BITS = {
    **{"P": (0, 0), "RW": (1, 1), "US": (2, 2), "PWT": (3, 3), "PCD": (4, 4), "A": (5, 5)},
    **{"D": (6, 6), "PS": (7, 7), "PAT": (7, 7), "G": (8, 8), "PAT_LARGE": (12, 12)},
    **{"ADDRESS": (51, 12), "KEY": (62, 59), "XD": (63, 63)},
}
"""Tables 4-15 to 4-20: bits high:low; those of an address go as far as any processor's."""


def test_the_names_of_bits_stand_for_those_of_the_manual() -> None:
    for name, (high, low) in BITS.items():
        assert getattr(formats, name) == (1 << high + 1) - (1 << low), name


def test_pdptes_are_entries_of_level_2_that_lead_to_tables_of_level_1() -> None:
    format = pae(40, True, pdpte(40))
    assert [level.name for level in format.levels].index("PDPTE") == formats.PDPTE_LEVEL == 2


def test_no_a_is_kept_in_a_pdpte() -> None:
    """A of a PDE can be set without a flush; bit 5 of a PDPTE is none (tables 4-8 and 4-9), also
    where nothing checks it."""
    format = pae(40, True, pdpte(40, 0))
    before, after = (np.array([0x1001 | bit], np.uint64) for bit in (0, 1 << 5))
    assert [bool(stale(format, level, before, after)[0]) for level in (1, 2)] == [False, True]


Ranges = dict[tuple[int, int], str]
"""Bits high:low to what they are; all others mean nothing to the translation."""

# Present entries of a kind: format, level, the bits that make the kind, and what the others are.
KINDS: dict[str, tuple[Format, int, int, Ranges]] = {
    "32-bit PTE": (paging32(40, True, True), 0, 1, {(31, 12): "address"}),
    "32-bit PDE": (paging32(40, True, True), 1, 1, {(31, 12): "address", (7, 7): "kind"}),
    "32-bit PDE, no PSE": (paging32(40, False, True), 1, 1, {(31, 12): "address"}),
    "32-bit PDE with PS, no PSE": (paging32(40, False, True), 1, 0x81, {(31, 12): "address"}),
    "4M page, no PSE-36": (
        *(paging32(40, True, False), 1, 0x81),
        {(31, 22): "address", (21, 13): "reserved", (7, 7): "kind"},
    ),
    "4M page, PSE-36, M=32": (
        *(paging32(32, True, True), 1, 0x81),
        {(31, 22): "address", (21, 13): "reserved", (7, 7): "kind"},
    ),
    "4M page, PSE-36, M=36": (
        *(paging32(36, True, True), 1, 0x81),
        {(31, 22): "address", (21, 17): "reserved", (16, 13): "high address", (7, 7): "kind"},
    ),
    "4M page, PSE-36, M=40": (
        *(paging32(40, True, True), 1, 0x81),
        {(31, 22): "address", (21, 21): "reserved", (20, 13): "high address", (7, 7): "kind"},
    ),
    "4M page, PSE-36, M=52": (
        *(paging32(52, True, True), 1, 0x81),
        {(31, 22): "address", (21, 21): "reserved", (20, 13): "high address", (7, 7): "kind"},
    ),
    "PAE PTE": (pae(36, True), 0, 1, {(62, 36): "reserved", (35, 12): "address"}),
    "PAE PTE, M=52": (pae(52, True), 0, 1, {(62, 52): "reserved", (51, 12): "address"}),
    "PAE PTE, no NXE": (pae(40, False), 0, 1, {(63, 40): "reserved", (39, 12): "address"}),
    "PAE PDE": (pae(40, True), 1, 1, {(62, 40): "reserved", (39, 12): "address", (7, 7): "kind"}),
    "PAE 2M page": (
        *(pae(40, True), 1, 0x81),
        {(62, 40): "reserved", (39, 21): "address", (20, 13): "reserved", (7, 7): "kind"},
    ),
    "PAE 2M page, no NXE": (
        *(pae(36, False), 1, 0x81),
        {(63, 36): "reserved", (35, 21): "address", (20, 13): "reserved", (7, 7): "kind"},
    ),
    "PTE": (long_mode(4, 40, True, True), 0, 1, {(51, 40): "reserved", (39, 12): "address"}),
    "PTE, M=52": (long_mode(4, 52, True, True), 0, 1, {(51, 12): "address"}),
    "PTE, M=36, no NXE": (
        *(long_mode(5, 36, False, True), 0, 1),
        {(63, 63): "reserved", (51, 36): "reserved", (35, 12): "address"},
    ),
    "PDE": (
        *(long_mode(4, 46, True, True), 1, 1),
        {(51, 46): "reserved", (45, 12): "address", (7, 7): "kind"},
    ),
    "2M page": (
        *(long_mode(4, 46, True, True), 1, 0x81),
        {(51, 46): "reserved", (45, 21): "address", (20, 13): "reserved", (7, 7): "kind"},
    ),
    "PDPTE": (
        *(long_mode(4, 39, True, True), 2, 1),
        {(51, 39): "reserved", (38, 12): "address", (7, 7): "kind"},
    ),
    "1G page": (
        *(long_mode(4, 39, True, True), 2, 0x81),
        {(51, 39): "reserved", (38, 30): "address", (29, 13): "reserved", (7, 7): "kind"},
    ),
    "PDPTE, no 1G pages": (
        *(long_mode(5, 40, True, False), 2, 1),
        {(51, 40): "reserved", (39, 12): "address", (7, 7): "reserved"},
    ),
    "PML4E": (
        *(long_mode(4, 40, True, True), 3, 1),
        {(51, 40): "reserved", (39, 12): "address", (7, 7): "reserved"},
    ),
    "PML4E, no NXE": (
        *(long_mode(4, 40, False, True), 3, 1),
        {(63, 63): "reserved", (51, 40): "reserved", (39, 12): "address", (7, 7): "reserved"},
    ),
    "PML4E on AMD": (
        *(long_mode(4, 40, True, True, amd=True), 3, 1),
        {(51, 40): "reserved", (39, 12): "address", (8, 7): "reserved"},
    ),
    "PDPTE on AMD": (
        *(long_mode(4, 40, True, True, amd=True), 2, 1),
        {(51, 40): "reserved", (39, 12): "address", (7, 7): "kind"},
    ),
    "PML5E": (
        *(long_mode(5, 40, True, True), 4, 1),
        {(51, 40): "reserved", (39, 12): "address", (7, 7): "reserved"},
    ),
    "PML5E on AMD": (
        *(long_mode(5, 40, True, True, amd=True), 4, 1),
        {(51, 40): "reserved", (39, 12): "address", (8, 7): "reserved"},
    ),
}


def meaning(ranges: Ranges, bit: int) -> str:
    """What a bit is: "address", "high address", "reserved", "kind" or "nothing"."""
    if bit == 0:
        return "kind"
    found = [what for (high, low), what in ranges.items() if low <= bit <= high]
    return found[0] if found else "nothing"


def address_of(entry: Entry) -> int:
    assert isinstance(entry, Leaf | Pointer)
    return entry.address if isinstance(entry, Leaf) else entry.table.address


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_an_entry_means_what_the_manual_says(kind: str) -> None:
    format, level, base, ranges = KINDS[kind]
    plain = format.decode(base, level)
    assert address_of(plain) == 0
    for bit in range(8 * format.entry_bytes):
        raw, what = base | 1 << bit, meaning(ranges, bit)
        entry = format.decode(raw, level)
        if what == "reserved":
            assert entry == Malformed(1 << bit), bit
        elif what == "address":
            assert type(entry) is type(plain) and address_of(entry) == 1 << bit, bit
        elif what == "high address":
            assert type(entry) is type(plain) and address_of(entry) == 1 << bit - 13 + 32, bit
        elif what == "nothing":
            assert entry == plain, bit


@pytest.mark.parametrize("kind", KINDS)
def test_of_an_entry_without_p_nothing_else_counts(kind: str) -> None:
    format, level, base, _ = KINDS[kind]
    for bit in range(1, 8 * format.entry_bytes):
        assert format.decode(base & ~1 | 1 << bit, level) == Absent()
    assert format.decode((1 << 8 * format.entry_bytes) - 2, level) == Absent()


@pytest.mark.parametrize(
    ("format", "level", "kind", "size"),
    [
        (paging32(40, True, True), 0, Leaf, 0x1000),
        (paging32(40, True, True), 1, Leaf, 0x40_0000),
        (paging32(40, False, True), 1, Pointer, None),
        (pae(40, True), 0, Leaf, 0x1000),
        (pae(40, True), 1, Leaf, 0x20_0000),
        (long_mode(4, 40, True, True), 1, Leaf, 0x20_0000),
        (long_mode(4, 40, True, True), 2, Leaf, 0x4000_0000),
    ],
    ids=lambda value: getattr(value, "name", None) and f"{value.name}",
)
def test_ps_makes_a_page_of_the_size_that_the_level_has(
    format: Format, level: int, kind: type, size: int | None
) -> None:
    entry = format.decode(0x81, level)
    assert type(entry) is kind
    assert getattr(entry, "size", None) == size


def test_bit_7_of_a_pte_and_bit_12_of_a_large_page_are_pat_in_every_mode() -> None:
    for format in (paging32(40, True, True), pae(40, True), long_mode(5, 40, True, True)):
        assert format.levels[0].bits["PAT"] == 1 << 7
        for level in format.page_levels()[1:]:
            assert format.levels[level].bits["PAT"] == 1 << 12
            entry = format.decode(0x1081, level)
            assert isinstance(entry, Leaf) and entry.address == 0


def test_a_4m_page_is_encoded_with_its_high_address_scattered() -> None:
    format = paging32(40, True, True)
    raw = format.leaf(0xAB_CDC0_0000, 1, 0x6)
    assert raw == 0xCDC0_0000 | 0xAB << 13 | 0x87
    assert format.decode(raw, 1) == Leaf(Physical(0xAB_CDC0_0000), 0x40_0000)


@pytest.mark.parametrize(
    ("format", "address"),
    [
        (paging32(40, True, False), 0x1_0000_0000),
        (paging32(32, True, True), 0x1_0000_0000),
        (paging32(36, True, True), 0x10_0000_0000),
        (paging32(52, True, True), 0x100_0000_0000),
    ],
)
def test_a_4m_page_above_what_its_entry_can_hold_is_refused(format: Format, address: int) -> None:
    assert isinstance(format.decode(format.leaf(address >> 1, 1, 0), 1), Leaf)
    with pytest.raises(ValueError, match="can hold physical address"):
        format.leaf(address, 1, 0)


def test_tables_have_the_geometry_of_the_manual() -> None:
    def geometry(format: Format) -> list[tuple[str, int, int]]:
        return [(one.name, one.shift, one.entries) for one in format.levels]

    assert geometry(paging32(40, True, True)) == [("PTE", 12, 1024), ("PDE", 22, 1024)]
    assert geometry(pae(40, True)) == [("PTE", 12, 512), ("PDE", 21, 512)]
    assert geometry(long_mode(5, 40, True, True)) == [
        ("PTE", 12, 512),
        ("PDE", 21, 512),
        ("PDPTE", 30, 512),
        ("PML4E", 39, 512),
        ("PML5E", 48, 512),
    ]
    assert long_mode(4, 40, True, True).levels == long_mode(5, 40, True, True).levels[:4]


def test_32_bit_paging_has_no_right_to_execute_to_deny() -> None:
    assert set(paging32(40, True, True).rights) == {"write", "user"}
    assert set(pae(40, True).rights) == {"write", "user", "execute"}


@pytest.mark.parametrize("maxphyaddr", [32, 36, 40, 52])
def test_a_pdpte_holds_an_address_and_reserves_all_but_pwt_pcd_and_what_software_has(
    maxphyaddr: int,
) -> None:
    shape = pdpte(maxphyaddr)
    for bit in range(1, 64):
        reserved = bit in (1, 2, 5, 6, 7, 8) or bit >= maxphyaddr
        assert bool(shape.reserved_mask >> bit & 1) == reserved, bit
        held = 1 << bit if 12 <= bit < maxphyaddr else 0
        assert shape.address_of(1 << bit) == held, bit


@pytest.mark.parametrize("maxphyaddr", [31, 53])
def test_a_width_that_no_machine_has_is_refused(maxphyaddr: int) -> None:
    for make in (
        lambda: long_mode(4, maxphyaddr, True, True),
        lambda: pae(maxphyaddr, True),
        lambda: pdpte(maxphyaddr),
        lambda: paging32(maxphyaddr, True, True),
    ):
        with pytest.raises(ValueError, match=f"32 to 52 bits, not {maxphyaddr}"):
            make()


def test_long_mode_has_four_levels_or_five() -> None:
    for levels in (3, 6):
        with pytest.raises(ValueError, match=f"4 or 5 levels, not {levels}"):
            long_mode(levels, 40, True, True)


def test_a_format_is_made_once_however_it_is_asked_for() -> None:
    assert long_mode(4, 40, True, True) is long_mode(4, 40, nxe=True, page1gb=True, amd=False)
    assert long_mode(4, 40, True, True) is not long_mode(4, 40, True, True, amd=True)
