"""Descriptors of arm64 bit by bit, their memory types, and the registers that say where tables
are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from harness.inspect import architecture, decode
from harness.inspect.arm64 import decode as decoded
from harness.inspect.arm64 import linux, memory_type
from harness.inspect.arm64.mode import MODES, assumed, in_mode
from harness.inspect.arm64.registers import read as read_register
from harness.inspect.decode import Part, Role
from harness.inspect.snapshot import QuestionError
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.entry import Absent, Leaf, Malformed, Pointer


def states() -> Iterator[Cpu]:
    yield from (in_mode(name, {}) for name in MODES)
    half = Half("4K", 48, 0, hpd=True)
    yield Cpu.of(half, half, ha=True, hd=True, output_bits=40)


def raws(count: int) -> Iterator[int]:
    source = random.Random(64)
    yield from (1 << bit | low for bit in range(64) for low in range(4))
    yield from (source.getrandbits(64) | source.choice((0, 1, 3)) for _ in range(count))


def test_every_bit_is_accounted_for_once_and_the_entry_is_what_the_format_says() -> None:
    for cpu in states():
        for level in decode.levels_of(cpu):
            for raw in raws(100):
                found = decode.read(cpu, raw, level)
                masks = [part.mask for part in found.parts]
                assert sum(masks) == (1 << 64) - 1 and all(masks)
                assert found.entry == cpu.format.decode(raw, level)
                wrong = sum(part.mask & raw for part in found.parts if part.wrong)
                assert bool(wrong) == isinstance(found.entry, Malformed)
                address = sum(part.value for part in found.parts if part.role is Role.ADDRESS)
                match found.entry:
                    case Leaf(there, _):
                        assert address == there
                    case Pointer(table):
                        assert address == table.address


def parts(raw: int, level: int, mode: str = "4k") -> dict[str, Part]:
    return {part.name: part for part in decode.read(in_mode(mode, {}), raw, level).parts}


def test_a_page_is_told_in_the_manuals_words() -> None:
    """The kernel's text on Debian: read-only, for EL1, inner shareable, of type 0."""
    found = parts(0x0050_0000_8021_0F93, 0)
    assert found["type"].meaning == "a page"
    assert found["AttrIndx"].meaning == "NC, byte 4 of MAIR_EL1, 0x04" or (
        found["AttrIndx"].meaning == "nGnRE, byte 4 of MAIR_EL1, 0x04"
    )
    assert found["AP[1]"].meaning == "for EL1 alone"
    assert found["AP[2]"].meaning == "read-only"
    assert found["SH"].meaning == "inner shareable"
    assert found["AF"].meaning == "used by an access"
    assert found["nG"].meaning == "of one address space (ASID)"
    assert found["Contiguous"].meaning.startswith("a hint: one of 16 entries, all alike")
    assert found["PXN"].meaning == "EL1 executes, unless EL0 may write"
    assert found["UXN"].meaning == "EL0 does not execute"
    assert found["address"].meaning == "the page is at 0x80210000"


def test_a_table_is_told_in_the_manuals_words() -> None:
    found = parts(0x5800_0000_4000_3003, 2)
    assert found["type"].meaning == "a table"
    assert found["PXNTable"].meaning == "EL1 executes nothing below"
    assert found["UXNTable"].meaning == "EL0 executes nothing below"
    assert found["APTable[0]"].meaning == "EL0 reaches what entries below say"
    assert found["APTable[1]"].meaning == "nothing below is written"
    assert found["address"].meaning == "the table is at 0x40003000"


@pytest.mark.parametrize(
    ("mode", "level", "raw", "entry"),
    [
        ("4k", 0, 1, Absent()),
        ("4k", 3, 0x8000_0000_0001, Absent()),
        ("4k", 1, 0x4020_0001, Leaf(0x4020_0000, 1 << 21)),  # type: ignore[arg-type]
        ("4k-52", 3, 0x0000_0000_0000_0001, Leaf(0, 1 << 39)),  # type: ignore[arg-type]
        ("16k", 1, 0x0200_0001, Leaf(0x0200_0000, 1 << 25)),  # type: ignore[arg-type]
        ("64k", 0, 0x0001_0003, Leaf(0x1_0000, 1 << 16)),  # type: ignore[arg-type]
        ("64k-52", 0, 0x0001_F003, Leaf(0xF_0000_0001_0000, 1 << 16)),  # type: ignore[arg-type]
        ("4k-52", 0, 0x1303, Leaf(0xC_0000_0000_1000, 1 << 12)),  # type: ignore[arg-type]
    ],
)
def test_types_and_addresses_are_those_of_the_manual(
    mode: str, level: int, raw: int, entry: object
) -> None:
    assert decode.read(in_mode(mode, {}), raw, level).entry == entry


@pytest.mark.parametrize(
    ("octet", "name"),
    [
        (0x00, "nGnRnE"),
        (0x04, "nGnRE"),
        (0x08, "nGRE"),
        (0x0C, "GRE"),
        (0x01, "nGnRnE"),
        (0x05, "nGnRE"),
        (0x09, "nGRE"),
        (0x0D, "GRE"),
        (0x0F, "0x0f"),
        (0x44, "NC"),
        (0xFF, "WB"),
        (0xBB, "WT"),
        (0x77, "WB"),
        (0x33, "WT"),
        (0xF4, "NC/WB"),
        (0x4F, "WB/NC"),
        (0x40, "NC"),
        (0xA0, "WT"),
        (0xF0, "WB, tagged"),
        (0x02, "0x02"),
        (0x50, "0x50"),
    ],
)
def test_memory_types_are_those_of_mair(octet: int, name: str) -> None:
    cpu = Cpu.of(Half("4K", 48, 0), None, mair=octet << 24)
    found = memory_type.types(None, cpu)
    assert len(found) == len(memory_type.AT_RESET) == 8
    assert found[3] == name and found[0] == "nGnRnE"
    assert memory_type.name_of(octet) in memory_type.NAMES or name.startswith("0x")


def test_registers_of_roots_are_read() -> None:
    cpu = in_mode("4k", {})
    found = read_register(cpu, "ttbr0", 0x0012_0000_4123_4001)
    assert (found.name, found.leads_to) == ("TTBR0_EL1", 0x4123_4000)
    assert {part.name: part.value for part in found.parts}["ASID"] == 0x12
    wide = read_register(in_mode("4k-52", {}), "ttbr1", 0x4123_4000 | 0xA << 2)
    assert wide.leads_to == 0xA_0000_4123_4000
    assert architecture.of(cpu).read_root(cpu, "ttbr1", 0).leads_to == 0


def test_tcr_is_read_bit_by_bit() -> None:
    """Debian's, on `max`: 52 bits, HA, HD, TBI0, TBI1, E0PD1, A1, AS."""
    raw = 1 << 59 | 1 << 56 | 3 << 39 | 3 << 37 | 1 << 36 | 6 << 32 | 2 << 30 | 3 << 28
    raw |= 1 << 22 | 12 << 16 | 12
    found = {part.name: part.meaning for part in read_register(in_mode("4k", {}), "tcr", raw).parts}
    assert (
        sum(part.mask for part in read_register(in_mode("4k", {}), "tcr", raw).parts) == 2**64 - 1
    )
    assert found["T0SZ"] == "addresses of the lower half have 52 bits"
    assert found["TG0"] == found["TG1"] == "4K granule"
    assert found["SH1"] == "walks of the upper half: inner shareable"
    assert found["IPS"] == "physical addresses have 52 bits"
    assert found["DS"] == "descriptors hold 52 bits (4K and 16K)"
    assert found["E0PD1"] == "EL0 is kept out of the upper half"
    assert found["A1"] == "the ASID is TTBR1_EL1's"
    assert found["EPD0"] == "TTBR0_EL1 is used"
    other = read_register(in_mode("4k", {}), "tcr", 1 << 14 | 1 << 30)
    names = {part.name: part.meaning for part in other.parts}
    assert (names["TG0"], names["TG1"]) == ("64K granule", "16K granule")


@pytest.mark.parametrize(
    ("name", "mode", "given"),
    [
        ("arm64", "4k", {"mair": 0, "no_nxe": True}),
        ("riscv", "sv39", {"no_nxe": True}),
        ("x86", "4", {"mair": 0xFF}),
    ],
)
def test_options_of_another_architecture_are_refused(
    name: str, mode: str, given: dict[str, int]
) -> None:
    asked, wrong = architecture.named(name), list(given)[-1].replace("_", "-")
    match = f"{mode} is a mode of {asked.called}, where --{wrong} means nothing"
    with pytest.raises(QuestionError, match=match):
        architecture.in_mode(asked, mode, given)


def test_the_memory_type_is_that_of_the_mair_that_is_given() -> None:
    raw = 0x4000_0000 | 2 << 2 | 1 << 10 | 3
    for mair, said in ((0x44_04FF, "NC, byte 2 of MAIR_EL1, 0x44"), (0xFF_0000, "WB, byte 2 of")):
        (part,) = (
            one
            for one in decode.read(in_mode("4k", {"mair": mair}), raw, 0).parts
            if one.name == "AttrIndx"
        )
        assert part.meaning.startswith(said)
    with pytest.raises(QuestionError, match="MAIR_EL1 has 64 bits, not as many as 0x1000000000"):
        in_mode("4k", {"mair": 1 << 64})


def test_every_part_says_something() -> None:
    """Whether set or clear, at every level."""
    for name in MODES:
        cpu = in_mode(name, {})
        for level in decode.levels_of(cpu):
            for raw in (1, 3, 0xFFFF_FFFF_FFFF_FFFD, 0xFFFF_FFFF_FFFF_FFFF):
                assert all(part.meaning for part in decode.read(cpu, raw, level).parts)


def test_each_byte_of_mair_is_a_memory_type() -> None:
    found = read_register(in_mode("4k", {}), "mair", 0x0004_0C44_BBF0_FF00)
    assert found.leads_to is None
    assert [(part.high, part.low, part.name, part.meaning) for part in reversed(found.parts)] == [
        (8 * index + 7, 8 * index, f"Attr{index}", f"AttrIndx={index}: {name}")
        for index, name in enumerate(
            ("nGnRnE", "WB", "WB, tagged", "WT", "NC", "GRE", "nGnRE", "nGnRnE")
        )
    ]


def test_each_byte_of_mair_that_has_xs_clear_says_so() -> None:
    """MAIR_EL1, Attr<n>: 0b0000dd01, 0b01000000 and 0b10100000, with FEAT_XS; of the others, none
    says it by itself."""
    without = (0x01, 0x05, 0x09, 0x0D, 0x40, 0xA0)
    for octet in range(256):
        (part,) = (one for one in read_register(CPU, "mair", octet).parts if one.name == "Attr0")
        assert part.meaning.endswith(", XS=0 (FEAT_XS)") == (octet in without), hex(octet)
        entry = decode.read(in_mode("4k", {"mair": octet}), 0x4000_0403, 0).parts
        (said,) = (one.meaning for one in entry if one.name == "AttrIndx")
        assert ("XS=0" in said) == (octet in without), hex(octet)


CPU = in_mode("4k", {})


def test_the_upper_bits_of_a_leaf_may_be_an_overlays_number_at_every_level() -> None:
    """Table D8-52: bits 62:60 of blocks and pages are POIndex[2:0], bit 59 is AttrIndx[3]; in table
    descriptors they are rights."""
    raw = 0b1011 << 59 | 0x4000_0000
    for cpu in states():
        for level in decode.levels_of(cpu):
            for type in (1, 3):
                found = decode.read(cpu, raw | type, level)
                names = {part.name: part for part in found.parts}
                assert ("POIndex" in names) == isinstance(found.entry, Leaf)
                if isinstance(found.entry, Leaf):
                    part = names["POIndex"]
                    assert (part.high, part.low, part.value) == (62, 60, 5)
                    assert part.role is Role.IGNORED and "FEAT_S1POE" in part.meaning
                    (below,) = (one for one in found.parts if one.mask == 1 << 59)
                    assert "AttrIndx[3] (FEAT_AIE)" in below.meaning


@pytest.mark.parametrize(("raw", "level"), [(0x0040_0000_4000_0FC3, 0), (0x0040_0000_4000_0FC1, 1)])
@pytest.mark.parametrize("key", range(8))
def test_linux_keeps_the_protection_key_in_the_bits_of_the_overlay(
    raw: int, level: int, key: int
) -> None:
    """PTE_PO_IDX_0 to PTE_PO_IDX_2, since Linux 6.12 (arch/arm64/include/asm/pgtable-hwdef.h)."""
    found = linux.read(CPU, decode.read(CPU, raw | key << 60, level))
    (part,) = (one for one in found.parts if one.name == "pkey")
    assert (part.high, part.low, part.value) == (62, 60, key)
    assert part.meaning == "the protection key, by which POR_EL0 may withhold rights"
    assert ("pkey" in found.said) == (key > 0)
    hidden = linux.read(CPU, decode.read(CPU, (raw | key << 60) & ~0x41, level))  # PROT_NONE
    (part,) = (one for one in hidden.parts if one.name == "pkey")
    assert part.value == key


@pytest.mark.parametrize("name", ["ha", "hd", "hpd", "as", "a1"])
def test_tcr_decides_what_a_mode_leaves_open(name: str) -> None:
    bit = {"ha": 1 << 39, "hd": 3 << 39, "hpd": 3 << 41, "as": 1 << 36, "a1": 1 << 22}[name]
    for mode in MODES:
        cpu, usual = in_mode(mode, {"tcr": bit}), in_mode(mode, {})
        assert cpu.tcr ^ usual.tcr == bit
        # what a mode says itself, TCR_EL1 does not change
        assert in_mode(mode, {"tcr": 0x0800_0007_C03F_C03F}) == usual
    with pytest.raises(QuestionError, match="TCR_EL1 has 64 bits, not as many as 0x1000000000"):
        in_mode("4k", {"tcr": 1 << 64})


@pytest.mark.parametrize("name", MODES)
def test_a_granule_that_tcr_has_otherwise_is_said(name: str) -> None:
    """TG0 and TG1 (TCR_EL1) of each half that is on; reserved ones say nothing."""
    low, high = ("4K", "64K", "16K", None), (None, "16K", "4K", "64K")
    own = MODES[name][0]
    for tg0, tg1, off in product(range(4), range(4), range(4)):
        tcr = tg0 << 14 | tg1 << 30 | (off & 1) << 7 | (off >> 1) << 23
        cpu = in_mode(name, {"tcr": tcr})
        said = [
            f"pages of {own} (--mode), where TCR_EL1 has TG{number} of {granule}"
            for number, granule in ((0, low[tg0]), (1, high[tg1]))
            if granule not in (None, own) and not off >> number & 1
        ]
        assert list(assumed(cpu, {"tcr": tcr, "mair": 0}, ())) == said


def test_linux_finds_the_page_of_prot_none_in_bits_47_to_12() -> None:
    raw = 0x0040_FFFF_FFFF_FFC3 & ~0x41
    found = linux.read(CPU, decode.read(CPU, raw, 0))
    [part] = [part for part in found.parts if part.name == "address"]
    assert (part.mask, part.value) == (((1 << 36) - 1) << 12, ((1 << 36) - 1) << 12)
    assert "0xfffffffff000" in part.meaning


@pytest.mark.parametrize(("mode", "level"), [("4k-52", 3), ("16k-52", 2), ("64k-52", 2)])
def test_the_contiguous_bit_is_ignored_where_there_are_no_groups(mode: str, level: int) -> None:
    """There are none of 512G, of 64G and of 4T ("The Contiguous bit")."""
    assert (
        parts(1 << 52 | 1 << 10 | 1, level, mode)["Contiguous"].meaning == "ignored at this level"
    )
    assert "32" in parts(1 << 52 | 1 << 10 | 1, 1, "16k-52")["Contiguous"].meaning


def test_what_is_checked_is_not_said_to_be_unchecked() -> None:
    for cpu in states():
        for level in cpu.format.levels:
            for shape in level.shapes:
                odd = decoded.unchecked(shape)
                assert not odd & (shape.reserved_mask | shape.address_mask)
                assert not any(odd & bits for bits in shape.bits.values())


@pytest.mark.parametrize("given", [{}, {"mair": 0}, {"tcr": 0}, {"tcr": 0, "mair": 0}])
def test_what_is_not_given_of_a_mode_is_assumed(given: dict[str, int]) -> None:
    tcr, mair = "TCR_EL1.HA=0", "MAIR_EL1=0x40044ffff, as Linux has it (--mair)"
    found = list(assumed(in_mode("4k", given), given, ()))
    assert len(found) == ("tcr" not in given) + ("mair" not in given)
    assert any(tcr in one for one in found) == ("tcr" not in given)
    assert (mair in found) == ("mair" not in given)


@pytest.mark.parametrize("bits", [1 << 41, 1 << 42, 3 << 41, 0])
def test_tables_withhold_no_rights_where_tcr_says_so_of_both_halves(bits: int) -> None:
    """HPD0 and HPD1 are bits 41 and 42; a mode has halves that are alike."""
    cpu, given = in_mode("4k", {"tcr": bits}), {"tcr": bits, "mair": 0}
    assert [half.hpd for half in (cpu.low, cpu.high) if half] == [bits == 3 << 41] * 2
    said = "tables withhold rights: TCR_EL1 says so of one half alone (HPD0, HPD1)"
    assert list(assumed(cpu, given, ())) == [said] * (bits in (1 << 41, 1 << 42))


@pytest.mark.parametrize(
    ("raw", "level", "free", "res0"),
    [
        (3, 1, {*range(2, 12), *range(52, 59)}, {*range(48, 52)}),
        (3, 0, {*range(55, 59)}, {48, 49}),
        (1, 1, {*range(55, 59)}, {*range(12, 16), *range(17, 21), 48, 49}),
    ],
    ids=["table", "page", "block of 2M"],
)
def test_bits_that_mean_nothing_are_the_manual_s(
    raw: int, level: int, free: set[int], res0: set[int]
) -> None:
    """Of 4K and 48 bits ("Translation table descriptor formats")."""
    found = decode.read(in_mode("4k", {}), raw, level).parts
    told = {why: set[int]() for why in ("free for software", "RES0, and not checked")}
    for part in found:
        if part.role in (Role.IGNORED, Role.UNCHECKED) and part.reason in told:
            told[part.reason] |= {bit for bit in range(64) if part.mask >> bit & 1}
    assert told["free for software"] == free
    assert told["RES0, and not checked"] - {63} == res0


def test_bits_beyond_the_output_size_fault_if_set() -> None:
    half = Half("4K", 48, 0)
    cpu = Cpu.of(half, half, output_bits=40)
    for raw, level in ((0x3 | 1 << 42, 2), (0x3 | 1 << 42, 0), (0x1 | 1 << 42, 1)):
        for value, said in ((raw, "an address size fault"), (raw & 3, "must be 0")):
            [part] = [
                part for part in decode.read(cpu, value, level).parts if part.role is Role.RESERVED
            ]
            assert (part.high, part.low, part.name) == (47, 40, "address")
            assert part.meaning.endswith(f": {said}")


@pytest.mark.parametrize(
    ("raw", "level", "called", "type"),
    [
        (0, 0, "invalid descriptor", "invalid: a translation fault"),
        (2, 2, "invalid descriptor", "invalid: a translation fault"),
        (1, 0, "invalid descriptor", "reserved at this level: a translation fault"),
        (1, 3, "invalid descriptor", "reserved at this level: a translation fault"),
        (3, 0, "page descriptor", "a page"),
        (1, 1, "block descriptor", "a block"),
        (1, 2, "block descriptor", "a block"),
        (3, 1, "table descriptor", "a table"),
        (3, 3, "table descriptor", "a table"),
    ],
)
def test_descriptors_are_called_as_the_manual_does(
    raw: int, level: int, called: str, type: str
) -> None:
    found = decode.read(in_mode("4k", {}), raw, level)
    assert found.table == called
    assert parts(raw, level)["type"].meaning == type


def half_of(bits: int) -> str:
    """Attr<n>[7:4], and [3:0] but for 0: 00RW and 10RW are write-through, 0100 is non-cacheable,
    01RW and 11RW are write-back."""
    return "NC" if bits == 0b0100 else ("WT", "WB")[bits >> 2 & 1]


def attr_of(octet: int) -> str:
    """MAIR_EL1, Attr<n>."""
    outer, inner = octet >> 4, octet & 15
    if outer == 0:
        device = ("nGnRnE", "nGnRE", "nGRE", "GRE")[inner >> 2]
        return device if inner & 2 == 0 else f"{octet:#04x}"
    if inner == 0:
        tagged = {0b0100: "NC", 0b1010: "WT", 0b1111: "WB, tagged"}
        return tagged.get(outer, f"{octet:#04x}")
    one, two = half_of(inner), half_of(outer)
    return one if one == two else f"{one}/{two}"


def test_every_byte_of_mair_is_called_as_the_manual_has_it() -> None:
    for octet in range(256):
        name = attr_of(octet)
        xs = octet in (0b0100_0000, 0b1010_0000) or (octet >> 4 == 0 and octet & 3 == 1)
        assert memory_type.name_of(octet) == name
        assert memory_type.described(octet) == name + ", XS=0 (FEAT_XS)" * xs
        device = octet >> 4 == 0 and not octet & 2
        assert (name in memory_type.UNCACHED) == (device or name == "NC")
        assert (name in memory_type.NAMES) != name.startswith("0x")


@pytest.mark.parametrize("index", range(8))
def test_attrindx_is_bits_4_to_2_of_a_page(index: int) -> None:
    for level in decode.levels_of(CPU):
        here = CPU.format.levels[level]
        bits, raw = here.bits, ~(7 << 2) & (1 << 64) - 1 | index << 2
        has = "AttrIndx" in bits
        assert memory_type.index_of(bits, raw) == index * has
        [found] = memory_type.index(here, np.array([raw], np.uint64)).tolist()
        assert found == index * has
        if has:
            assert memory_type.selecting(bits, index) == index << 2
    assert memory_type.index_of({}, raw) == 0


def test_fields_that_play_no_part_say_why() -> None:
    """NS and NSTable outside the Secure state; what tables withhold, with HPDn=1."""
    secure, withheld = "ignored, outside the Secure state", "ignored, with TCR_EL1.HPDn=1"
    page, table = parts(1 << 5 | 3, 0)["NS"], parts(1 << 63 | 3, 1)["NSTable"]
    for part in page, table:
        assert (part.role, part.meaning, part.reason) == (Role.IGNORED, secure, secure)
    half = Half("4K", 48, 0, hpd=True)
    for part in decode.read(Cpu.of(half, half), 0xF << 59 | 3, 1).parts:
        if part.name in ("PXNTable", "UXNTable", "APTable[0]", "APTable[1]"):
            assert (part.role, part.meaning) == (Role.IGNORED, withheld)
            assert parts(0xF << 59 | 3, 1)[part.name].role is Role.RIGHT


@pytest.mark.parametrize(("ha", "hd"), list(product((False, True), repeat=2)))
def test_what_marks_say_is_as_the_processor_keeps_them(ha: bool, hd: bool) -> None:
    """AF, AP[2] and DBM: TCR_EL1.HD comes to nothing with HA=0."""
    half = Half("4K", 48, 0)
    cpu = Cpu.of(half, half, ha=ha, hd=hd)

    def said(raw: int) -> tuple[str, ...]:
        named = {part.name: part.meaning for part in decode.read(cpu, raw | 3, 0).parts}
        return tuple(named[name] for name in ("AF", "AP[2]", "DBM"))

    unused, keeps = "sets it" if ha else "faults (HA=0)", ha and hd
    none = "ignored, unless TCR_EL1.HA=1 and HD=1"
    assert said(0) == (
        f"not used since it was cleared: an access {unused}",
        "writes",
        "AP[2] is as it says" if keeps else none,
    )
    assert said(1 << 51 | 1 << 10 | 1 << 7) == (
        "used by an access",
        "read-only, unless DBM=1" if keeps else "read-only",
        "a write clears AP[2], which says whether it is dirty" if keeps else none,
    )


SHARED = ("non-shareable", "reserved", "outer shareable", "inner shareable")


@pytest.mark.parametrize(
    ("name", "bits", "said"),
    [
        ("SH", 8, SHARED),
        ("nG", 11, ("global: in all address spaces", "of one address space (ASID)")),
        ("Contiguous", 52, ("on its own", "a hint: one of 16 entries, all alike, that follow")),
        ("GP", 50, ("not guarded", "guarded: indirect branches need BTI")),
        ("AP[1]", 6, ("for EL1 alone", "for EL0 too; EL1 uses no data of it while PSTATE.PAN=1")),
        ("PXN", 53, ("EL1 executes, unless EL0 may write", "EL1 does not execute")),
        ("UXN", 54, ("EL0 executes", "EL0 does not execute")),
    ],
)
def test_each_value_of_a_field_of_a_page_is_told(
    name: str, bits: int, said: tuple[str, ...]
) -> None:
    for value, meaning in enumerate(said):
        part = parts(value << bits | 3, 0)[name]
        assert part.value == value and part.meaning.startswith(meaning)


@pytest.mark.parametrize(
    ("name", "bit", "said"),
    [
        ("PXNTable", 59, ("EL1 executes as entries below say", "EL1 executes nothing below")),
        ("UXNTable", 60, ("EL0 executes as entries below say", "EL0 executes nothing below")),
        ("APTable[0]", 61, ("EL0 reaches what entries below say", "EL0 reaches nothing below")),
        ("APTable[1]", 62, ("writes as entries below say", "nothing below is written")),
    ],
)
def test_each_value_of_a_field_of_a_table_is_told(
    name: str, bit: int, said: tuple[str, str]
) -> None:
    for value in range(2):
        assert parts(value << bit | 3, 1)[name].meaning == said[value]
