"""What makes no sense is guessed from what public reports of such entries turned out to be; and
what makes sense is never guessed about."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import architecture, decode
from harness.inspect.data import filled, text
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.inspect.x86 import data, linux
from harness.inspect.x86.likely import highest_bit, likely, narrower
from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Leaf, Pointer
from harness.paging.linux.entries import (
    EXCLUSIVE,
    SOFT_DIRTY,
    SWAP_PAGES,
    UFFD_WP,
    Away,
    Device,
    Linux,
    Marker,
    Migration,
    Notes,
    Poison,
    Swap,
    Type,
)
from harness.paging.memory import BufferMemory
from harness.paging.table import Table
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode
from tests.paging.x86.made import path

CPU = Cpu.in_mode(Mode.LEVEL_4, 0)
PAE = Cpu.in_mode(Mode.PAE, 0)
BITS_32 = Cpu.in_mode(Mode.BITS_32, 0)
NARROW = replace(CPU, maxphyaddr=39)
INVERTED = 0x800F_FFFF_A759_8063
"""A PTE of an oops with error code 000b, at 0xffff888058a67000."""


def word(octets: bytes) -> int:
    return int.from_bytes(octets, "little")


def guess(raw: int, level: int = 0, cpu: Cpu = CPU, dialect: bool = False) -> str:
    reading = decode.read(cpu, raw, level)
    return "; ".join(likely(cpu, reading, linux.read(cpu, reading) if dialect else None))


@pytest.mark.parametrize(
    ("raw", "level", "cpu", "said"),
    [
        (INVERTED, 0, CPU, "the 4K page at 0x58a67000, by the entry 0x8000000058a67063: Linux inv"),
        (0x000F_FFFF_A740_00E3, 1, CPU, "the 2M page at 0x58a00000, by the entry 0x0000000058a"),
        (0xFFFF_FFFF_FEE0_0083, 1, CPU, "the number 0xfee00083 of 32 bits, sign-extended: the 2M"),
        (0xFFFF_FFFF_82DB_4001, 2, PAE, "the number 0x82db4001 of 32 bits, sign-extended: the tab"),
        (0xFFFF_8880_03FF_F067, 2, CPU, "a virtual address, 0xffff888003fff000, in place of a ph"),
        (0xFFFF_8000_3F00_0000, 1, CPU, "a pointer to 0xffff80003f000000: this may be data"),
        (0xFFFF_FFFF_8100_0000, 1, CPU, "a pointer to 0xffffffff81000000, or a number of 32 bits"),
        (1 << 45 | 0x2067, 0, CPU, "the 4K page at 0x2000, with bit 45 set by mistake"),
        (0x1_2345_7000 << 12 | 0x67, 0, CPU, "the 4K page at 0x123457000, whose address was shif"),
        (0x1_2345_7000 << 12 | 0x67, 0, PAE, "the 4K page at 0x123457000, whose address was shif"),
        (0x1_2345_7000 << 12 | 0x67, 1, PAE, "the table at 0x123457000, whose address was shif"),
        (0x1_2345_6000 << 12 | 0x67, 1, CPU, "the table at 0x123456000, whose address was shif"),
        (0x1000_0000 << 12 | 0x67, 3, CPU, "the table at 0x10000000, whose address was shifted"),
        (0x1_2340_0000 << 12 | 0xE7, 1, CPU, "the 2M page at 0x123400000, whose address was sh"),
        (1 << 51 | 0x2067, 1, CPU, "the table at 0x2000, with bit 51 set by mistake, or marked as"),
        (1 << 51 | 0x83, 1, CPU, "the 2M page at 0x0, with bit 51 set by mistake, or marked as"),
        (1 << 51 | 0x100_0083, 1, CPU, "the 2M page at 0x1000000, with bit 51 set by mistake"),
        (1 << 47 | 0x100_0083, 1, CPU, "the 2M page at 0x1000000, with bit 47 set by mistake"),
        (0x8000_00FF_FFFE_E163, 0, NARROW, "the 4K page at 0xfffffee000, at the end of addresses"),
        (0x8000_3FFF_FFFE_E163, 0, NARROW, "the 4K page at 0x3ffffffee000, at the end of addr"),
        (0x0000_00FF_FFE0_00E3, 1, NARROW, "the 2M page at 0xffffe00000, at the end of addresses"),
        (0x8000_00EF_FFFE_E163, 0, NARROW, "the 4K page at 0x6ffffee000, with bit 39 set by mis"),
        (0x8000_01FF_FFFE_E163, 0, CPU, "the 4K page at 0x1fffffee000, at the end of addresses"),
        (0x6B6B_6B6B_6B6B_6B6B, 0, CPU, "the byte 0x6b throughout, with which Linux fills an obj"),
        (0xCCCC_CCCC, 1, BITS_32, "the byte 0xcc throughout, with which Linux fills what is bes"),
        (0x1717_1717_1717_1717, 2, CPU, "the byte 0x17 throughout: this may be data and no table"),
        (INVERTED, 0, replace(CPU, maxphyaddr=52), "the 4K page at 0x58a67000, by the entry 0x8"),
        (0xFFFF_FFFF_8048_A025, 0, replace(CPU, maxphyaddr=52), "the number 0x8048a025 of 32 bits"),
        (0x2E2E_2E2E_2E20_5D31, 3, CPU, "the letters '1] .....': text was written over the table"),
        (0x83, 1, BITS_32, "the 4M page at 0x0: PS is set, and ignored, since CR4.PSE=0"),
        ((1 << 64) - 1, 0, CPU, "all ones: memory that is not there reads so, a device that does"),
        ((1 << 64) - 1, 3, replace(CPU, maxphyaddr=52), "all ones: memory that is not there reads"),
        ((1 << 32) - 1, 1, BITS_32, "all ones: memory that is not there reads so, a device that"),
        ((1 << 64) - 1, 2, PAE, "all ones: memory that is not there reads so, a device that does"),
        (word(b"Hello wo"), 0, CPU, "the letters 'Hello wo': text was written"),
        # One reserved bit, and none of an address.
        (0x1234_5083, 3, CPU, ""),
        (0x1234_5103, 3, replace(CPU, amd=True), ""),
        (0x8000_0000_1234_5003, 0, replace(CPU, efer=CPU.efer & ~Efer.NXE), ""),
        (word(b"init\n"), 0, CPU, ""),  # too few letters
        (word(b" o ~~ o "), 0, CPU, "the letters ' o ~~ o ': text was written"),
        (word(b"hello"), 0, CPU, "the letters 'hello': text was written over"),
        (word(b"error"), 0, CPU, ""),  # as good a page
        (word(b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5"), 1, CPU, "code, with endbr64"),
        (word(b"\x55\x48\x89\xe5\x41\x57\x41\x56"), 0, CPU, "code, with push"),
        (0x0000_7FFF_1234_5678, 0, CPU, "an address of a process, 0x7fff12345678: this may be"),
        (0x0000_5555_5555_4001, 0, CPU, "an address of a process, 0x555555554001: this may be"),
        (0x0000_54FF_5555_4001, 0, CPU, ""),
        (0x0000_5500_5555_4001, 0, CPU, "an address of a process, 0x550055554001: this may be"),
        (0x0000_56FF_5555_4001, 0, CPU, "an address of a process, 0x56ff55554001: this may be"),
        (0x0000_5700_5555_4001, 0, CPU, ""),
        (0x0000_7EFF_5555_4001, 0, CPU, ""),
        (0x0000_7F00_5555_4001, 0, CPU, "an address of a process, 0x7f0055554001: this may be"),
        (0x0000_4321_0000_8765, 0, CPU, "two numbers of 32 bits, 0x8765 and 0x4321, unless MAX"),
        (0x6EC6_6D49_8352_734B, 0, CPU, "no entry at all: its address, 0x66d4983527000, needs 51"),
        (0x6EC6_6D49_8352_734B, 1, PAE, "no entry at all: its address, 0x66d4983527000, needs 51"),
    ],
)
def test_what_an_entry_probably_is_is_said(raw: int, level: int, cpu: Cpu, said: str) -> None:
    found = guess(raw, level, cpu)
    assert found.startswith(said) and bool(found) == bool(said)


def table_of(raws: list[int], at: int, address: int = 0) -> tuple[str, ...]:
    """What is guessed of one of the entries of a page table."""
    memory = BufferMemory(np.zeros(0x1000, np.uint8))
    memory.octets[: 8 * len(raws)].view("<u8")[:] = raws
    slot = Table(CPU.format, Physical(0), 0).slot(at)
    return likely(CPU, decode.read(CPU, raws[at], 0), None, slot, memory, address)


@pytest.mark.parametrize("flags", [0x1, 0x3, 0x5, 0x7])
@pytest.mark.parametrize("at", [0, 9, 300, 511])
def test_a_number_of_a_frame_that_was_not_shifted_is_told_by_its_neighbours(
    flags: int, at: int
) -> None:
    first = 0x12340
    (said,) = table_of([first + n | flags for n in range(512)], at)
    number = first + at & ~7
    assert said == (
        f"the 4K page at {number << 12:#x}, or one of the 7 behind it, whose number {number:#x} was"
        " not shifted left by 12 bits"
    )
    assert table_of([(first + n) << 12 | flags for n in range(512)], at) == ()
    assert table_of([first << 12 | flags] * 512, at) == ()  # one page everywhere
    assert table_of([n | flags for n in range(512)], at) == ()  # all lead to frame 0


@pytest.mark.parametrize("near", [(), (-16,), (-8,), (8,), (16,), (-16, 8), (-8, 16), (8, 16)])
def test_two_neighbours_speak_for_such_a_number_and_one_is_chance(near: tuple[int, ...]) -> None:
    raws = [0] * 512
    for step in (0, *near):
        raws[100 + step] = 0x12345 + step
    assert bool(table_of(raws, 100)) == (len(near) == 2)


@pytest.mark.parametrize(
    ("raw", "level", "said"),
    [
        (0x1_0000, 0, "an empty entry, with bit 16 set by mistake"),  # Bad page map pte:00010000
        (0x100, 0, "an empty entry, with bit 8 set by mistake"),
        (0x80, 1, "an empty entry, with bit 7 set by mistake"),
        (0x4_0000_1000, 0, "an empty entry, with bits 12 and 34 set by mistake"),
        (0x8000_0000_1234_5066, 0, "the 4K page at 0x12345000, of which P was cleared"),
        (0x1234_5066, 1, "the table at 0x12345000, of which P was cleared"),
    ],
)
def test_what_linux_does_not_write_is_no_page_in_swap(raw: int, level: int, said: str) -> None:
    assert guess(raw, level, dialect=True) == said
    assert guess(raw, level) == ""
    told = linux.read(CPU, decode.read(CPU, raw, level)).said
    assert told.startswith("nothing that Linux writes")


@pytest.mark.parametrize(
    ("raw", "level", "cpu"),
    [
        (0x2067, 0, CPU),
        (0x3000_2345_6067, 0, CPU),  # a page where another processor has memory
        (0x80, 1, CPU),
        (0, 0, CPU),
        (0xFFFF_FFFF_FFFF_FFF0, 0, CPU),  # -16
        (INVERTED, 2, CPU),
        (0x83, 1, replace(BITS_32, cr4=int(Cr4.PSE))),
        (0x82, 1, BITS_32),
        (0x83, 0, BITS_32),
    ],
)
def test_what_makes_sense_or_none_at_all_is_not_guessed_about(
    raw: int, level: int, cpu: Cpu
) -> None:
    assert guess(raw, level, cpu) == ""


FIVE = Cpu.in_mode(Mode.LEVEL_5, 0)


@pytest.mark.parametrize(
    ("cpu", "lowest", "beyond"),
    [
        (CPU, 0xFFFF_8000_0000_0067, 0xFFFF_7FFF_FFFF_F067),
        (FIVE, 0xFF00_0300_0000_0067, 0xFEFF_FFFF_FFFF_F067),
    ],
    ids=["4 levels", "5 levels"],
)
def test_a_pointer_is_an_address_of_the_upper_half_and_none_below_it(
    cpu: Cpu, lowest: int, beyond: int
) -> None:
    """The upper half has bits 63:47 set, that of 5 levels 63:56."""
    assert guess(lowest, 2, cpu).startswith("a virtual address")
    assert "a virtual address" not in guess(beyond, 2, cpu)


@pytest.mark.parametrize("width", [40, 46, 51, 52])
def test_an_inverted_address_has_every_bit_set_that_no_address_has(width: int) -> None:
    """Memory ends below the highest bit that an address can have, so that one is set, too."""
    cpu = replace(CPU, maxphyaddr=width)
    inverted = INVERTED | (1 << 52) - (1 << width)
    assert guess(inverted, 0, cpu).startswith("the 4K page at 0x58a67000, by the entry")
    for bit in range(min(width, 46), 52):
        assert "inverts" not in guess(inverted & ~(1 << bit), 0, cpu)


@pytest.mark.parametrize("flag", [1, 2, 5, 6], ids=["RW", "US", "A", "D"])
@pytest.mark.parametrize("level", [0, 1])
def test_p_was_cleared_where_an_address_and_a_flag_are_left(flag: int, level: int) -> None:
    page = 0x1234_5000 | 1 << flag
    what = "table" if level else "4K page"
    assert guess(page, level, dialect=True) == f"the {what} at 0x12345000, of which P was cleared"
    for other in (0x1234_5000, 0x1234_5018, 0x18 | 1 << 52 | 1 << flag):
        assert guess(other, level, dialect=True) == ""


def test_p_was_not_cleared_in_what_would_be_malformed() -> None:
    assert guess(0x1234_5066 | 1 << 45, 0, dialect=True) == ""


@pytest.mark.parametrize(
    ("address", "bit", "said"),
    [
        (0x7_F000_0000, 34, ""),
        (0xF_F000_0000, 35, ""),
        (0x10_0000_0000, 36, ", and with 36 or less bit 36 of the address is reserved"),
        (0x80_0000_1000, 39, ", and with 39 or less bit 39 of the address is reserved"),
    ],
)
def test_what_a_narrower_processor_would_make_of_an_address_is_said(
    address: int, bit: int, said: str
) -> None:
    """No processor of 64 bits has addresses of less than 36."""
    far, near = Leaf(Physical(address), 0x1000), Leaf(Physical(0x1000), 0x1000)
    assert highest_bit(far, Absent(), near) == highest_bit(near, Absent(), far) == bit
    assert highest_bit(Pointer(Table(CPU.format, Physical(address), 0))) == bit
    assert highest_bit() == highest_bit(Absent()) == -1
    assert narrower(bit) == said


@pytest.mark.parametrize("mode", Mode)
def test_no_wellformed_entry_is_guessed_about(mode: Mode) -> None:
    """Drawn with the bits clear that are reserved in some entry, but for those of software."""
    cpu, source = Cpu.in_mode(mode, 0, cr4=Cr4.PSE), random.Random(mode.value)
    width, seen = 8 * cpu.format.entry_bytes, 0
    high = 0x800 << 52 | (0x7FF << 52 if cpu.long else 0)
    for _ in range(300):
        raw = source.getrandbits(width) & (high | 0xFF_FFFF_FFFF & ~0x1FE000) | 1
        level = source.randrange(cpu.levels)
        reading = decode.read(cpu, raw, level)
        if isinstance(reading.entry, Leaf | Pointer):
            assert likely(cpu, reading) == ()
            seen += 1
    assert seen > 100


FRAME = Physical(0x12_3000)
AWAY: tuple[Away, ...] = (
    *(Swap(area, offset) for area in (0, 22) for offset in (1, 0x1234, SWAP_PAGES - 1)),
    *(Migration(one, FRAME, True, False) for one in list(Type)[1:4]),
    Device(Type.LENT_READ, FRAME),
    Poison(FRAME),
    Marker(Notes.UFFD_WP),
    Marker(Notes.POISONED),
)


@pytest.mark.parametrize("away", AWAY, ids=str)
def test_all_that_linux_writes_is_taken_for_what_it_says(away: Away) -> None:
    dialect = Linux(CPU.format)
    raw = dialect.encode(away)
    for marks in (0, SOFT_DIRTY.away, UFFD_WP.away | EXCLUSIVE.away, 0x60):
        if isinstance(away, Marker) and marks & UFFD_WP.away:
            continue
        assert dialect.written(raw | marks, 0)
        assert not linux.read(CPU, decode.read(CPU, raw | marks, 0)).said.startswith("nothing")
        assert guess(raw | marks, dialect=True) == ""
    for wrong in (0x10, 0x80):
        assert not dialect.written(raw | wrong, 0)


def test_pages_without_rights_are_what_linux_writes_where_it_can_have_memory() -> None:
    dialect = Linux(CPU.format)
    for address in (0x1000, (1 << 46) - 0x1000):
        page = CPU.format.leaf(Physical(address % (1 << 40)), 0, 0)
        assert dialect.written(dialect.protect(page, 0, None), 0)
    assert not dialect.written(0x100, 0)  # the page at 0xffffffffff000


def test_no_page_of_swap_is_its_header_or_beyond_the_largest_area() -> None:
    dialect = Linux(CPU.format)
    for offset, written in ((0, False), (1, True), ((1 << 32) - 1, True), (1 << 32, False)):
        assert dialect.written(dialect.encode(Swap(3, offset)), 0) == written


def snapshot(*words: tuple[int, int]) -> Snapshot:
    """Address 0x1000 is mapped by the word at 0x4008."""
    cpu, memory = path(CPU, 7, 7, 7, 7)
    for address, word in words:
        memory.store(Physical(address), 8, word)
    return Snapshot("made", cpu, memory, (memory.span,))


def guesses(made: Snapshot, address: int, dialect: bool = False) -> tuple[str, ...]:
    *_, last = translate(made, Virtual(address), dialect).stages
    return last.likely


MODES = pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE, Mode.LEVEL_4, Mode.LEVEL_5])


@MODES
@pytest.mark.parametrize("shift", [1, 2, 5, 7, 9, 12])
def test_a_pointer_that_was_shifted_too_far_is_found_by_the_table_that_was_meant(
    mode: Mode, shift: int
) -> None:
    """0x1000 holds a page; the table at level 0 is at 0x15000, and all memory ends at 0x20000."""
    cpu = Cpu.in_mode(mode, 0)
    size = cpu.format.entry_bytes
    memory = BufferMemory(np.zeros(0x2_0000, np.uint8))
    memory.store(Physical(0x1_5000 + 4 * size), size, 0x1023)
    slot = Table(cpu.format, Physical(0x2000), 1).slot(3)
    raw = 0x1_5000 << shift | 0x23
    reading = decode.read(cpu, raw, 1)

    def said() -> tuple[str, ...]:
        return likely(cpu, reading, None, slot, memory, None, (memory.span,))

    outside = 0x1_5000 << shift > memory.span.last
    number = " as if it were the number of a frame" if shift == 12 else ""
    whole = f"the table at 0x15000, whose address was shifted left by {shift} bits{number}"
    assert said() == ((whole,) if outside else ())
    memory.store(Physical(0x1_5000 + 4 * size), size, 0x7FFF_F000 | 0x23)  # leads out of memory
    assert said() == ()
    memory.store(Physical(0x1_5000 + 4 * size), size, 0)  # nothing is there
    assert said() == ()


@MODES
@pytest.mark.parametrize("shift", [1, 4, 7, 9, 12])
@pytest.mark.parametrize("level", [0, 1])
def test_a_page_that_was_shifted_too_far_is_found_by_the_pages_beside_it(
    mode: Mode, shift: int, level: int
) -> None:
    cpu = Cpu.in_mode(mode, 0, cr4=Cr4.PSE)
    size, page = cpu.format.entry_bytes, cpu.format.levels[level].size
    first, flags = 8 * page, 0x63 | (0x1080 if level else 0)  # PAT, of a large page, too
    if size == 4 and (first + 10 * page) << shift >= 1 << 32:
        pytest.skip("such an address does not fit in an entry of 32 bits")

    def said(step: int, at: int = 4) -> str:
        memory = BufferMemory(np.zeros(0x4000, np.uint8))
        table = Table(cpu.format, Physical(0x2000), level)
        raws = [first + number * step << shift | flags for number in range(10)]
        for number, raw in enumerate(raws):
            memory.store(table.slot(number).address, size, raw)
        reading = decode.read(cpu, raws[at], level)
        return likely(cpu, reading, None, table.slot(at), memory, None, (memory.span,))[0]

    assert f"at {first + 4 * page:#x}, whose address was shifted left by {shift} bits" in said(page)
    with pytest.raises(IndexError):
        said(0)  # one page everywhere


def test_neighbours_speak_for_a_guess() -> None:
    """They lead to the frames before and after that of the inverted one."""
    plain = guesses(snapshot((0x4008, INVERTED)), 0x1000)
    assert len(plain) == 1
    beside = snapshot((0x4008, INVERTED), (0x4000, 0x58A6_6063), (0x4010, 0x58A6_8063))
    assert guesses(beside, 0x1000)[1:] == (
        "the entry beside it, at 0x4000, leads to 0x58a66000",
        "the entry beside it, at 0x4010, leads to 0x58a68000",
    )
    alike = snapshot((0x4008, 1 << 45 | 0x2067), (0x4000, 1 << 45 | 0x1067), (0x4010, 1 << 44 | 1))
    assert guesses(alike, 0x1000)[1:] == (
        "the entry beside it, at 0x4000, is wrong in the same way",
    )
    other = snapshot((0x4008, INVERTED), (0x4000, 0x58A6_7063))
    assert len(guesses(other, 0x1000)) == 1


def test_another_address_speaks_for_no_guess() -> None:
    """Linux's map of all memory begins at a multiple of 1 GiB of the upper half."""
    memory = BufferMemory(bytearray(0x5000))
    for address, word in {0x1888: 0x2067, 0x2008: 0x3067, 0x3628: 0x4067}.items():
        memory.store(Physical(address), 8, word)
    made = Snapshot("oops", replace(CPU, cr3=0x1000), memory, (memory.span,))
    for page, frame in (0xFFFF_8880_58A6_7000, 0x58A6_8000), (0xFFFF_8880_58A6_8000, 0x58A6_7000):
        words = {0x4000 + 8 * (page >> 12 & 511): 1 << 45 | frame | 0x67}
        for address, word in words.items():
            memory.store(Physical(address), 8, word)
        assert not any("map of all memory" in said for said in guesses(made, page))
        memory.store(
            Physical(0x4000 + 8 * (page >> 12 & 511)), 8, 1 << 45 | page & 0x3FFF_F000 | 0x67
        )
        assert sum("map of all memory" in said for said in guesses(made, page)) == 1
    lower = {0x1000: 0x2067, 0x2008: 0x3067}
    for address, word in lower.items():
        memory.store(Physical(address), 8, word)
    memory.store(Physical(0x4338), 8, 1 << 45 | 0x58A6_7067)
    assert len(guesses(made, 0x58A6_7000)) == 1


def test_no_address_was_shifted_where_no_page_of_that_size_is() -> None:
    assert guess(0x1_2345_7000 << 12 | 0xE7, 1) == ""


def test_no_address_was_shifted_where_it_would_have_been_within_a_page() -> None:
    assert "shifted" not in guess(0x1_2345_6800 << 12 | 0x67)


@pytest.mark.parametrize("upper", [0, 1, 0xFFFF, 0x1_0000])
@pytest.mark.parametrize("lower", [0, 1, 0xFFFF, 0x1_0000, 0x8000_0001])
def test_a_word_is_two_small_numbers_where_both_have_16_bits_and_neither_is_0(
    upper: int, lower: int
) -> None:
    small = {upper, lower} <= {1, 0xFFFF}
    said = f"two numbers of 32 bits, {lower:#x} and {upper:#x}"
    assert (data.numbers(upper << 32 | lower) or "").startswith(said) == small
    assert small or data.numbers(upper << 32 | lower) is None


@pytest.mark.parametrize("raw", [1 << 45 | 1 << 44 | 0x2067, 1 << 63 | 1 << 45 | 0x2067])
def test_more_than_a_bit_of_the_address_is_no_slip(raw: int) -> None:
    assert "by mistake" not in guess(raw, 0, replace(CPU, efer=CPU.efer & ~Efer.NXE))


def test_the_address_speaks_for_a_guess_where_linux_maps_all_memory() -> None:
    cpu, words = CPU, {0x1888: 0x2067, 0x2008: 0x3067, 0x3628: 0x4067, 0x4338: INVERTED}
    memory = BufferMemory(bytearray(0x5000))
    for address, word in words.items():
        memory.store(Physical(address), 8, word)
    made = Snapshot("oops", replace(cpu, cr3=0x1000), memory, (memory.span,))
    said = guesses(made, 0xFFFF_8880_58A6_7ABC, dialect=True)
    assert said[1:] == (
        "0x58a67000 is where 0xffff888058a67000 leads in Linux's map of all memory",
    )


def test_the_address_of_a_large_page_is_compared_without_that_of_a_byte_in_it() -> None:
    """A PDE of a 2M page with its address inverted, in Linux's map of all memory."""
    inverted, words = 0x000F_FFFF_A740_00E3, {0x1888: 0x2067, 0x2008: 0x3067}
    memory = BufferMemory(bytearray(0x5000))
    for address, word in {**words, 0x3628: inverted}.items():
        memory.store(Physical(address), 8, word)
    made = Snapshot("oops", replace(CPU, cr3=0x1000), memory, (memory.span,))
    said = guesses(made, 0xFFFF_8880_58BF_FABC, dialect=True)
    assert said[1:] == (
        "0x58a00000 is where 0xffff888058a00000 leads in Linux's map of all memory",
    )


def test_what_leads_to_a_wrong_place_is_said_of_any_entry_on_the_way() -> None:
    made = replace(snapshot(), cpu=replace(BITS_32, cr3=0x1000))
    made.memory.store(Physical(0x1000), 4, 0x83)  # type: ignore[attr-defined]
    first, *_ = translate(made, Virtual(0x1000)).stages
    assert first.likely and first.reading.name == "PDE"


def test_a_root_that_is_one_table_too_low_is_named_where_its_large_pages_are() -> None:
    """CR3 holds the address of the PDPT of a kernel that maps itself in pages of 2M."""
    memory = BufferMemory(np.zeros(1 << 16, np.uint8))
    for at, raw in ((0x2000, 0x3007), (0x3000, 0x83), (0x3008, 0x20_0083), (0x3010, 0x40_0083)):
        memory.store(Physical(at), 8, raw)
    low = Snapshot("", Cpu.long_mode(4, 0x2000), memory, (memory.span,))
    found = translate(low, Virtual(2 << 30 | 5))
    assert found.stages[-1].likely[0] == (
        "the 2M page at 0x400000, by a PDE: then this table is one of PDEs, and CR3, or the entry"
        " that leads to it, is off by a table"
    )
    assert "off by" not in guess(0x40_0083, 2)  # of an entry that is in no table
    right = replace(low, cpu=Cpu.long_mode(4, 0x1000))
    memory.store(Physical(0x1000), 8, 0x2007)
    assert not translate(right, Virtual(2 << 21 | 5)).stages[-1].likely


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (0, "a null pointer"),
        (8, "a null pointer, with a member's offset of 0x8"),
        (0xFFF, "a null pointer, with a member's offset of 0xfff"),
        (0x1000, None),
        (0xFFFF_FFFF_FFFF_FFF4, "an error code in place of a pointer, -12"),
        (0xFFFF_FFFF_FFFF_F001, "an error code in place of a pointer, -4095"),
        (0xFFFF_FFFF_FFFF_F000, None),
        (0xDEAD_0000_0000_0108, "a pointer of a list entry that was removed (LIST_POISON1 + 0x8,"),
        (0xDEAD_0000_0000_0122, "a pointer of a list entry that was removed (LIST_POISON2, of"),
        (0xDEAD_0000_0000_0000, "a pointer that Linux made invalid (POISON_POINTER_DELTA)"),
        (0xDEAD_0000_0000_00FF, "a pointer that Linux made invalid (POISON_POINTER_DELTA)"),
        (0xDEAD_0000_0000_0100, "a pointer of a list entry that was removed (LIST_POISON1, of"),
        (0xDEAD_0000_0000_0121, "a pointer of a list entry that was removed (LIST_POISON1 + 0x21,"),
        (0xDEAD_0000_0000_0FFF, "a pointer of a list entry that was removed (LIST_POISON2 + 0xe"),
        (0xDEAD_0000_0000_1000, None),
        (0x6B6B_6B6B_6B6B_6B83, "the byte 0x6b throughout, with which Linux fills an object that"),
        (0xCCCC_CCCC_CCCC_DCCB, "the byte 0xcc throughout, with which Linux fills what is beside"),
        (0xCCCC_CCCC_CCCC_BCCD, "the byte 0xcc throughout, with which Linux fills what is beside"),
        (0xCCCC_CCCC_CCCC_DCCC, None),
        (0xCCCC_CCCC_CCCC_BCCC, None),
        (0xDFFF_FC00_0000_0000, "the shadow that KASAN keeps of 0x0: a null pointer"),
        (0xDFFF_FC00_0000_0FFF, "the shadow that KASAN keeps of 0x7ff8: a null pointer"),
        (0xDFFF_FC00_0000_1000, None),
        (0xDFFF_FC00_0000_0001, "the shadow that KASAN keeps of 0x8: a null pointer"),
        (int.from_bytes(b"/dev/sda", "little"), "the letters '/dev/sda': text was written over a"),
        (int.from_bytes(b" ~~~~~~ ", "little"), "the letters ' ~~~~~~ ': text was written over a"),
        (int.from_bytes(b"/dev\x7fsda", "little"), None),
        (int.from_bytes(b"/dev\x1fsda", "little"), None),
        (0xFFFF_8880_0000_1000, None),
        (0x7FFF_1234_5000, None),
    ],
)
def test_what_a_pointer_probably_is_that_was_never_meant_as_one_is_said(
    address: int, said: str | None
) -> None:
    found = data.pointer(address)
    assert "member" not in (found or "") or address
    assert found is None if said is None else (found or "").startswith(said)


@pytest.mark.parametrize(
    ("octet", "name"),
    [
        (0x5A, "POISON_INUSE"),
        (0x6B, "POISON_FREE"),
        (0xA5, "POISON_END"),
        (0xAA, "PAGE_POISON"),
        (0xBB, "SLUB_RED_INACTIVE"),
        (0xCC, "SLUB_RED_ACTIVE"),
    ],
)
def test_what_linux_fills_memory_with_is_named(octet: int, name: str) -> None:
    """include/linux/poison.h."""
    for size in 4, 8:
        word = int.from_bytes(bytes([octet]) * size)
        assert name in (filled(word, size) or "")
        assert name in (data.pointer(word + 8, 8 * size) or "")


def test_a_pointer_of_32_bits_ends_where_its_addresses_do() -> None:
    assert data.pointer(0xFFFF_FFF4, 32) == "an error code in place of a pointer, -12"
    assert data.pointer(0xFFFF_FFF4) is None
    for cpu, narrow in (CPU, False), (PAE, True), (BITS_32, True):
        found = architecture.of(cpu).pointer(cpu, Virtual(0xFFFF_FFF4))
        assert (found == data.pointer(0xFFFF_FFF4, 32)) is narrow
    assert (data.pointer(0x6B6B_6B73, 32) or "").startswith("the byte 0x6b throughout, with which")


@pytest.mark.parametrize(
    ("octets", "is_text"),
    [
        (b" a~~~\0\0\0", True),
        (b"a~~~\0\0\0\0", False),  # the end of a text has five letters or more
        (b"Hello\x7f\0\0", False),
        (b"Hello\x1f\0\0", False),
        (b"Hello\0wo", False),
    ],
)
def test_letters_are_those_that_are_printed(octets: bytes, is_text: bool) -> None:
    assert (text(octets) is not None) is is_text


@pytest.mark.parametrize(
    ("size", "present", "named"),
    [(0x2_0000, 1, True), (0x2_0000, 0, False), (1 << 24, 1, False)],
)
def test_a_table_that_is_in_memory_was_not_shifted_and_one_that_is_absent_is_none(
    size: int, present: int, named: bool
) -> None:
    memory = BufferMemory(np.zeros(size, np.uint8))
    memory.store(Physical(0x1000), 4, 0x1_5000 << 7 | 0x22 | present)
    memory.store(Physical(0x1_5000), 4, 0x1023)
    snapshot = Snapshot("", Cpu.in_mode(Mode.BITS_32, 0x1000), memory, (memory.span,))
    guesses = translate(snapshot, Virtual(0)).stages[0].likely
    assert any("was shifted left by 7 bits" in one for one in guesses) is named
