"""What Linux reads into entries of s390, worked out by hand from the comments of its pgtable.h
(6.12): page-table entries, segment-table entries, and entries of pages in swap."""

from __future__ import annotations

import pytest

from harness.paging.address import Physical
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.linux.entries import ProtNone, Swap, Unknown
from harness.paging.s390.formats import dat
from harness.paging.s390.linux import OF_AWAY, OF_FRAMES, OF_PAGES, Meaning, decode

FORMAT = dat(edat1=True, edat2=True, iep=True)
PAGE, FRAME, REGION = 0x1234_5000, 0x1230_0000, 0x1_8000_0000
IEP, PROTECT, PAGE_INVALID, INVALID, FC = 0x100, 0x200, 0x400, 0x20, 0x400
TOP = (1 << 52) - 1


def page(size: int, address: int) -> ProtNone:
    return ProtNone(Physical(address), size)


def test_the_bits_are_those_of_the_header() -> None:
    """_PAGE_*, _SEGMENT_ENTRY_*, and the layout of a swap entry."""
    assert OF_PAGES == {
        "unused": 0x080,
        "special": 0x040,
        "write": 0x020,
        "read": 0x010,
        "dirty": 0x008,
        "young": 0x004,
        "soft-dirty": 0x002,
        "present": 0x001,
    }
    assert OF_FRAMES == {
        "soft-dirty": 0x4000,
        "dirty": 0x2000,
        "young": 0x1000,
        "write": 0x0002,
        "read": 0x0001,
    }
    assert OF_AWAY == {
        "offset": 0xFFFF_FFFF_FFFF_F000,
        "exclusive": 0x800,
        "P": 0x200,
        "type": 0x07C,
        "soft-dirty": 0x002,
    }


# "HW-bits: R read-only, I invalid; SW-bits: p present, y young, d dirty, r read, w write", and the
# table of page protections below that, IR.U....wrdytp.
NONE, OLD_READ, YOUNG_READ = 0x601, 0x611, 0x215
OLD_WRITE, CLEAN, DIRTY = 0x631, 0x235, 0x03D


@pytest.mark.parametrize(
    ("raw", "meaning"),
    [
        (PAGE_INVALID, Absent()),
        (PAGE | NONE, page(0x1000, PAGE)),
        (PAGE | NONE | 0x00C, page(0x1000, PAGE)),
        (PAGE | NONE | IEP, page(0x1000, PAGE)),
        (PAGE_INVALID | 0x001, page(0x1000, 0)),
        (PAGE | 0x401, page(0x1000, PAGE)),
        (0x7_7000 | 0x600, Swap(0, 0x77)),
        (0x7_7000 | 0x600 | 1 << 2, Swap(1, 0x77)),
        (0x7_7000 | 0xE02 | 27 << 2, Swap(27, 0x77)),
        (TOP << 12 | 0x600 | 16 << 2, Swap(16, TOP)),
        (0x7_7000 | 0x600 | 28 << 2, Unknown(0x7_7000 | 0x600 | 28 << 2)),
        (0x7_7000 | 0x600 | 31 << 2, Unknown(0x7_7000 | 0x600 | 31 << 2)),
        (PAGE | 0x400, Unknown(PAGE | 0x400)),
        (PAGE | 0x404, Unknown(PAGE | 0x404)),
        (PAGE | 0x800 | NONE, Unknown(PAGE | 0x800 | NONE)),
        (PAGE | 0x800, Malformed(0x800)),
        # pte_present() asks for bit 0 alone, and pte_swap is (pte & 0x201) == 0x200, whatever I is.
        (PAGE | 0x300, Swap(0, PAGE >> 12)),
        (PAGE | 0x200 | 5 << 2, Swap(5, PAGE >> 12)),
        (PAGE | 0x100, Unknown(PAGE | 0x100)),
        (PAGE, Unknown(PAGE)),
    ],
)
def test_what_is_in_a_page_table(raw: int, meaning: Meaning) -> None:
    assert decode(FORMAT, raw, 0) == meaning


@pytest.mark.parametrize("bits", [OLD_READ, YOUNG_READ, OLD_WRITE, CLEAN, DIRTY, 0x411, 0xFF])
def test_a_page_is_one_whether_it_is_old_or_not(bits: int) -> None:
    found = decode(FORMAT, PAGE | bits, 0)
    assert isinstance(found, Leaf)
    assert (found.address, found.size) == (PAGE, 0x1000)
    assert found == FORMAT.decode(PAGE | bits & ~PAGE_INVALID, 0)


@pytest.mark.parametrize(
    ("level", "address", "type"), [(1, FRAME, 0), (2, REGION, 1)], ids=["1M", "2G"]
)
def test_what_is_in_a_table_of_frames(level: int, address: int, type: int) -> None:
    size, tables = (1 << 20, 1 << 31)[level - 1], type << 2
    valid = address | FC | tables
    assert decode(FORMAT, INVALID | tables, level) == Absent()
    assert decode(FORMAT, valid | INVALID | PROTECT, level) == page(size, address)
    assert decode(FORMAT, valid | INVALID | PROTECT | 0x3002, level) == page(size, address)
    old = decode(FORMAT, valid | INVALID | PROTECT | 0x0001, level)
    assert isinstance(old, Leaf)
    assert (old.address, old.size) == (address, size)
    for bits in 0x3003, 0x1001 | PROTECT, 0:
        assert isinstance(decode(FORMAT, valid | bits, level), Leaf)
    for nothing in address | INVALID | tables | 1, 0x8000 | INVALID | tables, 2 | INVALID:
        assert decode(FORMAT, nothing, level) == Unknown(nothing)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_tables_are_those_of_the_hardware(level: int) -> None:
    type = (level - 1) << 2
    found = decode(FORMAT, 0x5000 | type | (3 if level > 1 else 0), level)
    assert isinstance(found, Pointer)
    assert found.table.address == 0x5000
    for any_type in range(0, 16, 4):
        assert decode(FORMAT, INVALID | any_type, level) == Absent()
    assert decode(FORMAT, 0x5000 | INVALID | type, level) == Unknown(0x5000 | INVALID | type)


def test_no_frame_is_in_a_table_that_has_none() -> None:
    """FC is a bit like others of an entry where its facility does not apply, and above 2G."""
    for format, level in (dat(), 1), (dat(edat1=True), 2), (FORMAT, 3):
        raw = 0x8000_0000 | FC | INVALID | (level - 1) << 2 | 1
        assert decode(format, raw, level) == Unknown(raw)
