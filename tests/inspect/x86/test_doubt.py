"""A root that is off by a table is doubted, and one that is right is not, whatever it leads to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.likely import LARGEST_WIDTH
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.x86.cpu import Cpu, Mode

XD, PS = 1 << 63, 1 << 7
PML5, PML4, PDPT, PD, PT, PAGES = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
ABOVE = {PML5: PML4 | 3, PML4: PDPT | 3, PDPT: PD | 3}
SMALL = {**ABOVE, PD: PT | 3, **{PT + 8 * n: PAGES + 0x1000 * n | 3 for n in range(5)}}
LARGE = {**ABOVE, **{PD + 8 * n: n << 21 | PS | 3 for n in range(4)}}
LOW = "CR3 0x3000 belongs to this memory, though "
HIGH = "CR3 0x1000 belongs to this memory, though "


def memory_of(words: Mapping[int, int], size: int = 0x1_0000) -> BufferMemory:
    memory = BufferMemory(np.zeros(size, np.uint8))
    for slot, raw in words.items():
        memory.store(Physical(slot), 8, raw)
    return memory


def with_data(octets: bytes) -> BufferMemory:
    """Five small pages that begin with these bytes."""
    memory = memory_of(SMALL)
    for n in range(5):
        at = PAGES + 0x1000 * n
        memory.octets[at : at + len(octets)] = np.frombuffer(octets, np.uint8)
    return memory


DATA = {
    "random": random.Random(1).randbytes(4096),
    "text": b"The quick brown fox jumps over the lazy dog, and then again. " * 60,
    "code": bytes.fromhex("554889e54883ec10897dfc488b45f8488b00c9c30f1f4400") * 100,
}


@pytest.mark.parametrize("width", [40, 52])
@pytest.mark.parametrize("data", DATA)
def test_a_root_too_low_whose_pages_hold_data_is_doubted(data: str, width: int) -> None:
    memory = with_data(DATA[data])
    assert doubt(Cpu.long_mode(4, PML4, maxphyaddr=width), memory) is None
    assert doubt(Cpu.long_mode(4, PDPT, maxphyaddr=width), memory) == (
        f"{LOW}most entries of its tables make no sense; read as a table of PDPTEs, a level lower,"
        " the root's would map 5: CR3 may be off by a table"
    )


def test_a_root_too_low_whose_pages_are_empty_is_doubted() -> None:
    assert doubt(Cpu.long_mode(4, PDPT), memory_of(SMALL)) == (
        f"{LOW}its tables map nothing; read as a table of PDPTEs, a level lower, the root's would"
        " map 5: CR3 may be off by a table"
    )
    # The first page holds what looks like an entry, or one word that is none.
    for word in 0x9003, 1 << 45 | 3:
        assert doubt(Cpu.long_mode(4, PDPT), memory_of({**SMALL, PAGES: word})) is None


def test_five_levels_have_none_above_and_one_below() -> None:
    memory = memory_of(SMALL)
    assert doubt(Cpu.long_mode(5, PML5), memory) is None
    assert "read as a table of PML4Es, a level lower, the root's would map 5" in (
        doubt(Cpu.long_mode(5, PML4), memory) or ""
    )


def test_a_root_too_high_is_doubted() -> None:
    filled = {PAGES + 0x1000 * n: 0x6F6C_6C65_4800_0001 for n in range(5)}
    for words in (SMALL, {**SMALL, **filled}):
        assert doubt(Cpu.long_mode(4, PML5), memory_of(words)) == (
            f"{HIGH}all pages that its tables map are tables; read as a table of PML5Es, a level"
            " higher (CR4.LA57, --cr4 0x10a0), the root's would map 5: CR3 may be off by a table"
        )
    assert doubt(Cpu.long_mode(4, PML5), memory_of(LARGE)) == (
        f"{HIGH}its tables map small pages alone, by the entries of large ones; read as a table of"
        " PML5Es, a level higher (CR4.LA57, --cr4 0x10a0), the root's would map 4: CR3 may be off"
        " by a table"
    )


def test_a_root_too_low_whose_pages_are_not_in_memory_is_doubted() -> None:
    pages = {PT + 8 * n: 0xFEC0_0000 + (n << 12) | 3 for n in range(5)}
    said = doubt(Cpu.long_mode(4, PDPT), memory_of({**SMALL, **pages}))
    assert said is not None
    assert said.startswith(f"{LOW}most entries of its tables make no sense; read as")


@pytest.mark.parametrize(("beyond", "doubted"), [(0, True), (1, False)])
def test_pages_that_no_processor_has_memory_for_are_no_reason_to_doubt(
    beyond: int, doubted: bool
) -> None:
    """Five pages, the last of which ends with 46 bits of address, and the next five."""
    first = (1 << LARGEST_WIDTH) - (5 << 12) * (1 - beyond)
    pages = {PT + 8 * n: first + (n << 12) | 3 for n in range(5)}
    cpu = Cpu.long_mode(4, PDPT, maxphyaddr=52)
    assert bool(doubt(cpu, memory_of({**SMALL, **pages}))) is doubted


def test_a_root_by_which_something_makes_no_sense_is_not_taken_for_one_too_high() -> None:
    assert doubt(Cpu.long_mode(4, PML5), memory_of({**LARGE, PML4 + 8: 1 << 45 | 3})) is None


def beneath(**words: int) -> dict[int, int]:
    """A right space with a page at PAGES, in which these words are: w0 is the first."""
    page = {PAGES + 8 * int(name[1:]): raw for name, raw in words.items()}
    return {PML4: PDPT | 3, PDPT: PD | 3, PD: PT | 3, PT: PAGES | 3, **page}


RIGHT = {
    "large pages": LARGE,
    "a page with a one in it": beneath(w0=1),
    "a page with small numbers in it": beneath(w0=1, w3=3, w4=0x203),
    "a page with odd data": beneath(w0=0x0123_4567_89AB_CDEF),
    "tables that map themselves alone": {PML4 + 8 * 511: PML4 | 3},
    "tables that map themselves, too": {**beneath(w0=0x9003), PML4 + 8 * 511: PML4 | 3},
    "pages of a device": {
        **beneath(),
        **{PT + 8 * n: 0xFEC0_0000 + (n << 12) | 3 for n in range(9)},
    },
    "pages with PAT set": {**beneath(), PT: 0x1_2000 | PS | 3},
    "a page that only a processor of more address bits can have": {**beneath(), PT: 0xFF_FFFE_E163},
    "a page whose entry is inverted": {**beneath(), PT: 0x800F_FFFF_A759_8063},
    "three pages beyond all memory": {
        **ABOVE,
        **{PD + 8 * n: PT + 0x1000 * n | 3 for n in range(3)},
        **{PT + 0x1000 * n: 0xFF_FFFE_E163 for n in range(3)},
    },
    "one page beyond all memory, beside empty tables": {
        **ABOVE,
        **{PD + 8 * n: PT + 0x1000 * n | 3 for n in range(5)},
        PT: 0xFF_FFFE_E163,
    },
    "one small page with PAT set, where a large one could be": {**beneath(), PT: 0x20_0083},
    "a large page beside a table": {**beneath(w0=0x9003), PD + 8: 0x20_0000 | PS | 3},
    "no entry that makes sense": {
        **beneath(),
        PD: 0xFFFF_FFFF_8000_0083,
        PD + 8: 0xFFFF_FFFF_8020_0083,
        PD + 16: PT | 3,
    },
    "an empty table": {PML4: PDPT | 3},
    "a page that looks like a table, and one that is empty": {
        **beneath(w0=0x9003),
        PT + 8: 0xA003,
    },
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_root_that_is_right_is_not_doubted(name: str) -> None:
    assert doubt(Cpu.long_mode(4, PML4), memory_of(RIGHT[name])) is None


def test_a_file_that_ends_inside_tables_is_no_doubt_of_the_root() -> None:
    tables = {**ABOVE, **{PD + 8 * n: PT | 3 for n in range(5)}}
    for pages in ({PT: PT | 3}, {PT: 0xFF_FFFE_E163}, {}):
        whole = memory_of({**tables, **pages}, 0x6000)
        assert doubt(Cpu.long_mode(4, PML4), BufferMemory(whole.octets[: PT + 46 * 8])) is None


def test_what_xd_and_ps_are_reserved_by_is_no_doubt_of_the_root() -> None:
    pages = {PT + 8 * n: PAGES + 0x1000 * n | XD | 3 for n in range(5)}
    assert doubt(Cpu.long_mode(4, PML4, nxe=False), memory_of({**SMALL, **pages})) is None
    gigabytes = {PML4: PDPT | 3, **{PDPT + 8 * n: n << 30 | PS | 3 for n in range(4)}}
    assert doubt(Cpu.long_mode(4, PML4, page1gb=False), memory_of(gigabytes)) is None


def test_an_empty_root_names_a_table_beside_it_that_is_not() -> None:
    empty = "though no entry of the root's table is present"
    after = doubt(Cpu.long_mode(4, 0x1_0000), memory_of({0x1_1000: PDPT | 3, **LARGE}, 0x2_0000))
    assert after is not None
    assert after.endswith(f"{empty}; the table after it, at 0x11000, would map 4")
    before = doubt(Cpu.long_mode(4, 0x1_2000), memory_of({0x1_1000: PDPT | 3, **SMALL}, 0x2_0000))
    assert before is not None
    assert before.endswith(f"{empty}; the table before it, at 0x11000, would map 5")
    odd = doubt(Cpu.long_mode(4, 0x1_0000), memory_of({0x1_1000: 1 << 45 | 3, **LARGE,
                                                       0x1_1008: PDPT | 3}, 0x2_0000))  # fmt: skip
    assert odd is not None
    assert odd.endswith(empty)
    alone = doubt(Cpu.long_mode(4, 0), memory_of({}))
    assert alone is not None
    assert alone.endswith(empty)
    pse = memory_of({0x1000: 0x83}, 0x4000)
    assert (doubt(Cpu(0x8000_0001, 0, 0x10, 0), pse) or "").endswith("at 0x1000, would map 1")
    assert (doubt(Cpu(0x8000_0001, 0, 0x20, 0, pdptes=(0x1001, 0, 0, 0)), memory_of({})) or ""
            ).endswith(empty)  # fmt: skip


class Endless:
    """Memory in which every word leads to a table, or a page, of its own; counts what is read."""

    def __init__(self) -> None:
        self.words = 0

    def load(self, address: Physical, size: int) -> int:
        return int(self.gather(np.array([address], np.uint64), size)[0][0])

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        self.words += len(addresses)
        return addresses << np.uint64(9) & np.uint64(0xFF_FFFF_F000) | np.uint64(3), None


def test_of_a_space_of_any_size_a_little_is_read() -> None:
    memory = Endless()
    doubt(Cpu.long_mode(4, PML5), memory)
    assert 512 * 32 < memory.words < 512 * 32 * 4 * 3


def test_what_was_left_out_is_said() -> None:
    """A root too low, by which there is one page for each of 100 page tables."""
    tables = {PDPT: PD | 3, **{PD + 8 * n: 0x10_0000 + 0x1000 * n | 3 for n in range(100)}}
    pages = {0x10_0000 + 0x1000 * n: 0x20_0000 | 3 for n in range(100)}
    memory = memory_of({**tables, **pages}, 0x40_0000)
    assert "the root's would map 25 or more: CR3" in (doubt(Cpu.long_mode(4, PDPT), memory) or "")


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("seed", range(8))
def test_of_memory_that_is_anything_there_is_a_doubt_or_none(mode: Mode, seed: int) -> None:
    source = np.random.default_rng(seed)
    words = source.integers(0, 1 << 64, 0x4000 // 8, np.uint64)
    if seed % 2:  # that lead to each other
        words &= np.uint64(0x3FFF)
    memory = BufferMemory(words.view(np.uint8))
    cpu = Cpu.in_mode(mode, 0x1000)
    if mode is Mode.PAE:
        cpu = replace(cpu, pdptes=(0x1001, 0x9001, 0, 0x2001))
    said = doubt(cpu, memory)
    assert said is None or said.startswith("CR3 0x1000 belongs to this memory, though ")
