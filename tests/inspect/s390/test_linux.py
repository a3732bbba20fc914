"""What Linux reads into entries of s390: the combinations that its pgtable.h lists."""

from __future__ import annotations

import pytest

from harness.inspect.decode import read
from harness.inspect.s390 import linux
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.linux.entries import ProtNone, Swap, Unknown
from harness.paging.s390.cpu import Cpu, Mode

CPU = Cpu.in_mode(Mode.REGION_FIRST, 0, edat1=True, edat2=True, iep=True)
PAGE = 0x1234_5000


@pytest.mark.parametrize(
    ("raw", "meaning", "said"),
    [
        (0x400, Absent, "nothing"),
        (PAGE | 0x601, ProtNone, "the page at 0x12345000, which nobody may access (PROT_NONE)"),
        (PAGE | 0x60D, ProtNone, "the page at 0x12345000, which nobody may access (PROT_NONE)"),
        (PAGE | 0x611, Leaf, "a page that is old: the next access faults, and has Linux clear I"),
        (PAGE | 0x215, Leaf, "a page; read, young, present"),
        (PAGE | 0x43B & ~2, Leaf, "a page that is old: the next access faults, and has Linux"),
        (PAGE | 0x03D, Leaf, "a page; write, read, dirty, young, present"),
        (PAGE | 0x0FF, Leaf, "a page; unused, special, write, read, dirty, young, soft-dirty, pre"),
        (0x7_7000 | 0x600 | 3 << 2, Swap, "a page in swap: number 0x77 of area 3"),
        (0x7_7000 | 0xE00 | 3 << 2, Swap, "a page in swap: number 0x77 of area 3; exclusive"),
        (0x7_7000 | 0x600 | 28 << 2, Unknown, "nothing that Linux writes"),
        (PAGE | 0x400, Unknown, "nothing that Linux writes"),
        (
            PAGE,
            Unknown,
            "nothing that Linux writes, though I=0, so that the processor reads a page",
        ),
        (
            PAGE | 0x200,
            Swap,
            "a page in swap: number 0x12345 of area 0, though I=0, so that the pro",
        ),
    ],
)
def test_entries_of_pages(raw: int, meaning: type, said: str) -> None:
    found = linux.read(CPU, read(CPU, raw, 0))
    assert isinstance(found.meaning, meaning)
    assert found.said.startswith(said)


@pytest.mark.parametrize(
    ("raw", "level", "meaning", "said"),
    [
        (0x20, 1, Absent, "nothing"),
        (0x2C, 4, Absent, "nothing"),
        (0x5800, 1, Pointer, "a table"),
        (0x5007, 2, Pointer, "a table"),
        (0x0070_0000 | 0x3403, 1, Leaf, "a page; dirty, young, write, read"),
        (0x0070_0000 | 0x1621, 1, Leaf, "a page that is old"),
        (0x0070_0000 | 0x0620, 1, ProtNone, "the page at 0x700000, which nobody may access"),
        (1 << 31 | 0x3407, 2, Leaf, "a page; dirty, young, write, read"),
        (0x0070_0020, 1, Unknown, "nothing that Linux writes"),
    ],
)
def test_entries_of_tables(raw: int, level: int, meaning: type, said: str) -> None:
    found = linux.read(CPU, read(CPU, raw, level))
    assert isinstance(found.meaning, meaning)
    assert found.said.startswith(said)


def test_of_each_entry_the_bits_that_translation_does_not_look_at_are_shown_once() -> None:
    for raw, level in ((PAGE | 0x215, 0), (0x77600, 0), (0x700000 | 0x3403, 1), (0x20, 1)):
        shown = 0
        for part in linux.read(CPU, read(CPU, raw, level)).parts:
            assert not shown & part.mask
            shown |= part.mask
        looked_at = (1 << 64) - 1 - shown
        assert looked_at & (0x400 if level == 0 else 0x20)


@pytest.mark.parametrize(
    ("raw", "level", "said"),
    [
        (
            PAGE | 0x215,
            0,
            {"read": "may be read", "write": "no", "dirty": "no", "young": "was used"},
        ),
        (PAGE | 0x03D, 0, {"write": "may be written", "dirty": "was written", "unused": "no"}),
        (0x7_7000 | 0xE00 | 3 << 2, 0, {"type": "swap area 3", "offset": "which page"}),
        (0x7_7000 | 0xE00, 0, {"P": "set, as I, in all entries of pages that are away"}),
        (0x7_7000 | 0xE00, 0, {"exclusive": "the page belongs to one process alone"}),
        (0x7_7000 | 0x600 | 31 << 2, 0, {"unused bits": "set, and means nothing to Linux"}),
        (0x0070_0000 | 0x3403, 1, {"dirty": "was written", "young": "was used"}),
    ],
)
def test_each_bit_says_what_linux_means_by_it(raw: int, level: int, said: dict[str, str]) -> None:
    found = {part.name: part.meaning for part in linux.read(CPU, read(CPU, raw, level)).parts}
    assert said.items() <= found.items()


def test_of_a_page_that_is_away_the_address_is_what_the_hardware_will_read() -> None:
    parts = linux.read(CPU, read(CPU, PAGE | 0x601, 0)).parts
    [address] = [part for part in parts if part.mask & PAGE]
    assert address.meaning == "as the hardware will read it"
    parts = linux.read(CPU, read(CPU, 0x0070_0000 | 0x3403, 1)).parts
    assert {part.meaning for part in parts if part.name == "unused bits"} == {"nothing"}


@pytest.mark.parametrize(
    ("raw", "level", "bit"),
    [
        pytest.param(0x7_7000 | 0x600 | 1 << 7, 0, 7, id="a page in swap"),
        pytest.param(0x7_7000 | 0x600 | 1 << 8, 0, 8, id="a page in swap, above the type"),
        pytest.param(0x500_0400, 0, 24, id="nothing that Linux writes, of a page"),
        pytest.param(0x0070_0020, 1, 20, id="nothing that Linux writes, of a table"),
        pytest.param(0x5000 | 1 << 6, 1, 6, id="a table"),
    ],
)
def test_where_there_is_no_page_a_bit_without_a_name_means_nothing(
    raw: int, level: int, bit: int
) -> None:
    parts = linux.read(CPU, read(CPU, raw, level)).parts
    [part] = (part for part in parts if part.mask >> bit & 1)
    assert (part.name, part.meaning) == ("unused bits", "set, and means nothing to Linux")
