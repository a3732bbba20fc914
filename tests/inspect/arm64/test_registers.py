"""TCR_EL1 and TTBRn_EL1, field by field as the Arm ARM's register descriptions have them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from harness.inspect.arm64.mode import in_mode
from harness.inspect.arm64.registers import read
from harness.inspect.decode import Part, Register, Role
from harness.paging.arm64.cpu import Cpu, Half

CPU = in_mode("4k", {})

FIELDS = {
    "T0SZ": (5, 0),
    "EPD0": (7, 7),
    "IRGN0": (9, 8),
    "ORGN0": (11, 10),
    "SH0": (13, 12),
    "TG0": (15, 14),
    "T1SZ": (21, 16),
    "A1": (22, 22),
    "EPD1": (23, 23),
    "IRGN1": (25, 24),
    "ORGN1": (27, 26),
    "SH1": (29, 28),
    "TG1": (31, 30),
    "IPS": (34, 32),
    "AS": (36, 36),
    "TBI0": (37, 37),
    "TBI1": (38, 38),
    "HA": (39, 39),
    "HD": (40, 40),
    "HPD0": (41, 41),
    "HPD1": (42, 42),
    "TBID0": (51, 51),
    "TBID1": (52, 52),
    "NFD0": (53, 53),
    "NFD1": (54, 54),
    "E0PD0": (55, 55),
    "E0PD1": (56, 56),
    "DS": (59, 59),
}
"""The fields of TCR_EL1 that are about translation, with their highest and lowest bits."""


def parts(name: str, raw: int, cpu: Cpu = CPU) -> dict[str, Part]:
    """The parts that have a name of their own."""
    return {part.name: part for part in read(cpu, name, raw).parts if part.role is not Role.IGNORED}


def tcr(field: str, value: int) -> str:
    """What a field of TCR_EL1 says of a value, all others being 0."""
    return parts("tcr", value << FIELDS[field][1])[field].meaning


def in_order(register: Register) -> list[tuple[int, int]]:
    """The highest and the lowest bit of each part."""
    return [(part.mask.bit_length() - 1, part.low) for part in register.parts]


@pytest.mark.parametrize("raw", [0, (1 << 64) - 1, 0x5555_5555_5555_5555])
def test_every_bit_of_tcr_is_of_one_field(raw: int) -> None:
    found = read(CPU, "tcr", raw)
    assert (found.name, found.raw, found.leads_to, found.reserved) == ("TCR_EL1", raw, None, 0)
    ranges = in_order(found)
    assert ranges[0][0] == 63 and ranges[-1][1] == 0
    assert all(low == high + 1 for (_, low), (high, _) in pairwise(ranges))
    named = {part.name: part for part in found.parts if part.role is not Role.IGNORED}
    assert {name: (part.mask.bit_length() - 1, part.low) for name, part in named.items()} == FIELDS
    for part in found.parts:
        assert part.value == (raw & part.mask) >> part.low
        assert part.section == "TCR_EL1"
    ignored = [part for part in found.parts if part.role is Role.IGNORED]
    assert [(part.mask.bit_length() - 1, part.low) for part in ignored] == [
        *((63, 60), (58, 57), (50, 43), (35, 35), (6, 6)),
    ]
    assert {part.meaning for part in ignored} == {part.reason for part in ignored}
    assert {part.reason for part in ignored} == {
        "RES0, or of a feature that has no part in translation"
    }
    assert {part.reason for part in named.values()} == {""}
    types = {part.name for part in found.parts if part.role is Role.TYPE}
    assert types == {f"{name}{half}" for name in ("IRGN", "ORGN", "SH") for half in (0, 1)}


def test_what_the_fields_of_tcr_say_is_what_the_manual_says() -> None:
    for number, half in ((0, "lower"), (1, "upper")):
        assert tcr(f"T{number}SZ", 16) == f"addresses of the {half} half have 48 bits"
        assert tcr(f"T{number}SZ", 39) == f"addresses of the {half} half have 25 bits"
        walks = f"walks of the {half} half: "
        for field, said in (
            (
                "IRGN",
                ("non-cacheable", "write-back, write-allocate", "write-through", "write-back"),
            ),
            (
                "ORGN",
                ("non-cacheable", "write-back, write-allocate", "write-through", "write-back"),
            ),
            ("SH", ("non-shareable", "reserved", "outer shareable", "inner shareable")),
        ):
            found = [tcr(f"{field}{number}", value) for value in range(4)]
            assert found == [walks + one for one in said]
    assert [tcr("TG0", value).split()[0] for value in range(4)] == ["4K", "64K", "16K", "reserved"]
    assert [tcr("TG1", value).split()[0] for value in range(4)] == ["reserved", "16K", "4K", "64K"]
    widths = [tcr("IPS", value) for value in range(8)]
    assert widths[:6] == [
        f"physical addresses have {width} bits" for width in (32, 36, 40, 42, 44, 48)
    ]
    # IPS=0b110 is 48 bits where DS=0, unless pages have 64K (AArch64.PhysicalAddressSize).
    with_64k = "physical addresses have 52 bits with pages of 64K, 48 with others (DS=0)"
    assert widths[6] == with_64k
    assert parts("tcr", 6 << 32 | 1 << 59)["IPS"].meaning == "physical addresses have 52 bits"
    assert widths[7] == "reserved"


@pytest.mark.parametrize(
    ("field", "clear", "set_"),
    [
        ("EPD0", "TTBR0_EL1 is used", "the lower half is turned off"),
        ("EPD1", "TTBR1_EL1 is used", "the upper half is turned off"),
        ("A1", "the ASID is TTBR0_EL1's", "the ASID is TTBR1_EL1's"),
        ("AS", "the ASID has 8 bits", "the ASID has 16 bits"),
        ("TBI0", "bits 63:56 of the lower half's pointers count", "they are ignored"),
        ("TBI1", "bits 63:56 of the upper half's pointers count", "they are ignored"),
        ("NFD0", "no effect", "non-faulting loads of EL0 fail in the lower half"),
        ("NFD1", "no effect", "non-faulting loads of EL0 fail in the upper half"),
        ("HA", "AF=0 faults", "the processor sets AF"),
        ("HPD1", "tables of the upper half withhold rights", "they withhold none"),
    ],
)
def test_a_bit_of_tcr_says_one_thing_clear_and_another_set(
    field: str, clear: str, set_: str
) -> None:
    assert (tcr(field, 0), tcr(field, 1)) == (clear, set_)


ADDRESS, ASID = 0x0000_8765_4321_A040, 0x1235
"""A root's table that is aligned to 64 bytes, and an address space."""


@pytest.mark.parametrize("name", ["ttbr0", "ttbr1"])
def test_a_root_is_where_the_register_says(name: str) -> None:
    raw = ASID << 48 | ADDRESS
    found = read(CPU, name, raw | 1)
    section = f"{name.upper()}_EL1"
    assert (found.name, found.leads_to, found.reserved) == (section, ADDRESS, 0)
    assert in_order(found) == [(63, 48), (47, 6), (5, 1), (0, 0)]
    said = [(part.name, part.value, part.role) for part in found.parts]
    assert said == [
        ("ASID", ASID, Role.KEY),
        ("BADDR", ADDRESS, Role.ADDRESS),
        ("BADDR", 0, Role.ADDRESS),
        ("CnP", 1, Role.KIND),
    ]
    assert found.parts[1].meaning == f"the root table is at {ADDRESS:#x}"
    assert found.parts[3].meaning.startswith("Common not Private")
    assert parts(name, raw)["CnP"].meaning == "of this processor"
    small = read(CPU, name, raw | 0x3E)
    assert small.leads_to == ADDRESS | 0x3E and small.parts[2].value == 0x3E


@pytest.mark.parametrize("mode", ["4k-52", "64k-52"])
@pytest.mark.parametrize("name", ["ttbr0", "ttbr1"])
def test_a_root_of_52_bits_has_its_highest_in_bits_5_to_2(name: str, mode: str) -> None:
    wide, raw = in_mode(mode, {}), ADDRESS | 0xA << 2
    found = read(wide, name, raw)
    assert (found.leads_to, found.reserved) == (0xA << 48 | ADDRESS, 0)
    assert in_order(found) == [(63, 48), (47, 6), (5, 2), (1, 1), (0, 0)]
    high = found.parts[2]
    assert (high.name, high.value, high.role) == ("BADDR[51:48]", 0xA << 48, Role.ADDRESS)
    assert high.meaning == f"bits 51:48 of the address, which is {found.leads_to:#x}"
    wrong = read(wide, name, raw | 2)
    assert (wrong.leads_to, wrong.reserved) == (found.leads_to, 2)
    assert [part.name for part in wrong.parts if part.wrong] == ["reserved"]
    assert wrong.parts[3].reason == "RES0"


def test_each_half_has_roots_of_its_own_width() -> None:
    narrow, wide = Half("4K", 48, 0), Half("64K", 52, 0)
    for low, high, wide_one in ((narrow, wide, "ttbr1"), (wide, narrow, "ttbr0")):
        cpu = Cpu.of(low, high, output_bits=52)
        for name in "ttbr0", "ttbr1":
            leads = 0xF_0000_0000_0000 if name == wide_one else 0x3C
            assert read(cpu, name, 0x3C).leads_to == leads


@pytest.mark.parametrize("a1", [0, 1])
@pytest.mark.parametrize(("wide", "asid"), [(0, "0x35"), (1, "0x1235")])
def test_the_asid_is_that_of_the_register_that_a1_names(a1: int, wide: int, asid: str) -> None:
    cpu = replace(CPU, tcr=CPU.tcr & ~(1 << 22 | 1 << 36) | a1 << 22 | wide << 36)
    for number in 0, 1:
        said = parts(f"ttbr{number}", ASID << 48, cpu)["ASID"].meaning
        used = f"address space {asid} of the TLB (TCR_EL1.AS={wide})"
        other = f"not used: that of TTBR{a1}_EL1 is (TCR_EL1.A1={a1})"
        assert said == (used if number == a1 else other)


@pytest.mark.parametrize(("field", "needed"), [("HD", "HA"), ("TBID0", "TBI0"), ("TBID1", "TBI1")])
def test_a_bit_that_comes_to_nothing_says_so(field: str, needed: str) -> None:
    """HD without HA, and TBIDx without TBIx (TCR_EL1)."""
    own, other = 1 << FIELDS[field][1], 1 << FIELDS[needed][1]
    nothing = f"comes to nothing with {needed}=0"
    assert parts("tcr", own)[field].meaning == nothing
    assert parts("tcr", own | other)[field].meaning == SET[field]
    clear = parts("tcr", 0)[field].meaning
    assert clear not in (nothing, SET[field])
    assert parts("tcr", ~own & (1 << 64) - 1 & ~other)[field].meaning == clear


SET = {
    "HD": "the processor clears AP[2] where DBM=1",
    "TBID0": "TBI0 is for data alone",
    "TBID1": "TBI1 is for data alone",
}


def test_mair_is_eight_types_from_the_highest_down() -> None:
    raw = 0x0102_0304_0506_0708
    found = read(CPU, "mair", raw)
    assert (found.name, found.raw, found.leads_to, found.reserved) == ("MAIR_EL1", raw, None, 0)
    assert in_order(found) == [(8 * index + 7, 8 * index) for index in reversed(range(8))]
    for number, part in enumerate(found.parts):
        index = 7 - number
        assert (part.name, part.value, part.role) == (f"Attr{index}", number + 1, Role.TYPE)
        assert part.meaning.startswith(f"AttrIndx={index}: ") and part.section == "MAIR_EL1"
        assert not part.wrong
