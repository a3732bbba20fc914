"""The state of a processor: registers by the manual's fields, halves, roots, tags, and what the
architecture forbids.

TCR_EL1: T0SZ 5:0, EPD0 7, TG0 15:14, T1SZ 21:16, A1 22, EPD1 23, TG1 31:30, IPS 34:32, AS 36,
TBI0 37, TBI1 38, HA 39, HD 40, HPD0 41, HPD1 42, TBID0 51, TBID1 52, E0PD0 55, E0PD1 56, DS 59.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from harness.paging.address import Span
from harness.paging.arm64.cpu import (
    NORMAL,
    OUTPUT_BITS,
    Cpu,
    Features,
    Half,
    Sctlr,
    Tcr,
    untagged,
)
from harness.paging.arm64.formats import stage1
from tests.paging.arm64_rules import field

LAST = (1 << 64) - 1
K4, K16, K64 = 0 << 14 | 2 << 30, 2 << 14 | 1 << 30, 1 << 14 | 3 << 30
"""TG0 and TG1, which are encoded differently."""

LINUX_LPA2 = (
    1 << 59 | 1 << 56 | 3 << 39 | 3 << 37 | 1 << 36 | 6 << 32 | 1 << 22 | K4 | 12 << 16 | 12
)
"""Linux on a processor with LPA2: five levels, HA, HD, TBI, E0PD1, the ASID in TTBR1."""


def test_register_bits_are_where_the_manual_has_them() -> None:
    assert {bit.name: bit.value.bit_length() - 1 for bit in Sctlr} == {
        **{"M": 0, "A": 1, "WXN": 19, "EE": 25, "EPAN": 57},
    }
    assert {bit.name: bit.value.bit_length() - 1 for bit in Tcr} == {
        **{"A1": 22, "AS": 36, "HA": 39, "HD": 40, "DS": 59},
    }
    cpu = Cpu.of(None, None, aligns=True)
    assert cpu.sctlr == 1 << 1 | 1 and cpu.aligns and not cpu.big_endian


def test_the_halves_are_read_by_the_fields_of_the_registers() -> None:
    tcr = 16 | 1 << 14 | 25 << 16 | 2 << 30 | 5 << 32 | 1 << 38 | 1 << 41 | 1 << 52 | 1 << 55
    cpu = Cpu(0x1235_0000_4001_0001, 0x4000_3000, tcr)
    assert cpu.low == Half("64K", 48, 0x4001_0000, hpd=True, e0pd=True)
    assert cpu.high == Half("4K", 39, 0x4000_3000, tbi=True, tbid=True)
    assert [(root.table.address, root.table.level, root.span) for root in cpu.roots] == [
        (0x4001_0000, 2, Span(0, (1 << 48) - 1)),
        (0x4000_3000, 2, Span(LAST - (1 << 39) + 1, LAST)),
    ]
    assert cpu.roots[0].table.format is stage1("64K", 48, 48, wide=True, hierarchical=False)
    assert cpu.roots[1].table.format is stage1("4K", 39, 48)
    assert (cpu.asid, replace(cpu, tcr=tcr | 1 << 36).asid) == (0x35, 0x1235)
    assert not cpu.sets_access_flag and not cpu.keeps_dirty_state


@pytest.mark.parametrize(
    ("granule", "tcr"), [("4K", K4), ("16K", K16), ("64K", K64)], ids=["4K", "16K", "64K"]
)
def test_each_half_has_its_own_encoding_of_granules(granule: str, tcr: int) -> None:
    cpu = Cpu(0, 0, tcr | 5 << 32 | 20 | 20 << 16)
    assert cpu.low and cpu.high and (cpu.low.granule, cpu.high.granule) == (granule, granule)


def test_linux_with_five_levels_and_a_short_root() -> None:
    cpu = Cpu(0x4200_0000, 0xABCD_0000_4100_0480, LINUX_LPA2)
    assert cpu.high == Half("4K", 52, 0x4100_0480, tbi=True, e0pd=True)
    assert cpu.roots[1].table.size == 128
    assert cpu.roots[1].table.level == 4
    assert cpu.roots[1].table.format is stage1("4K", 52, 52, wide=True, hardware_dirty=True)
    assert cpu.asid == 0xABCD and cpu.keeps_dirty_state


@pytest.mark.parametrize("high", [Half("64K", 52, 0xA_0000_4000_0000), None])
def test_registers_are_made_of_what_they_say(high: Half | None) -> None:
    low = Half("16K", 47, 0x8_0000_0000_4000, hpd=True, tbi=True, tbid=True, e0pd=True)
    cpu = Cpu.of(low, high, output_bits=52, ds=True, ha=True, hd=True, wxn=True, epan=True)
    assert (cpu.low, cpu.high) == (low, high)
    assert len(cpu.roots) == (2 if high else 1)
    assert cpu.wxn and cpu.epan and cpu.keeps_dirty_state and not cpu.big_endian
    assert cpu.ttbr0 == 0x4020  # bits 51:48 of the address in 5:2


def test_bits_51_to_48_of_a_root_are_in_5_to_2_where_addresses_have_52_bits() -> None:
    ttbr = 0x4001_003C
    for tcr, root in (
        (K64 | 6 << 32 | 12, 0xF_0000_4001_0000),
        (K4 | 1 << 59 | 6 << 32 | 12, 0xF_0000_4001_0000),
        (K4 | 1 << 59 | 5 << 32 | 12, 0xF_0000_4001_0000),
    ):
        low = Cpu(ttbr, 0, tcr | 1 << 23).low
        assert low is not None and low.root == root
    short = Cpu(0x4001_0010, 0, K64 | 5 << 32 | 47 | 1 << 23)  # a root of 16 bytes
    assert short.low == Half("64K", 17, 0x4001_0010)


@pytest.mark.parametrize("bit", [16, 47, *range(48, 52)])
@pytest.mark.parametrize("high", [False, True])
def test_each_bit_of_a_roots_address_is_where_the_manual_has_it(bit: int, high: bool) -> None:
    half = Half("64K", 52, 1 << bit)
    cpu = Cpu.of(None if high else half, half if high else None, output_bits=52)
    assert (cpu.high if high else cpu.low) == half
    assert (cpu.ttbr1 if high else cpu.ttbr0) == (1 << bit if bit < 48 else 1 << bit - 48 + 2)


def test_a_root_beyond_the_output_size_is_none() -> None:
    cpu = Cpu.of(Half("4K", 48, 1 << 44), Half("4K", 48, 0x1000), output_bits=44)
    assert [root.span.last for root in cpu.roots] == [LAST]


def test_output_sizes_are_capped_by_the_processor_and_the_descriptors() -> None:
    small = Features(output_bits=44)
    tables = [(granule, Half(granule, 39, 0)) for granule in ("4K", "16K", "64K")]
    for granule, half in tables:
        assert Cpu.of(half, None, output_bits=40).output_bits(half) == 40
        assert Cpu.of(half, None, output_bits=52, features=small).output_bits(half) == 44
        wide = 52 if granule == "64K" else 48
        assert Cpu.of(half, None, output_bits=52).output_bits(half) == wide
        assert Cpu.of(half, None, output_bits=52, ds=True).output_bits(half) == 52
        less = Features(lpa2=frozenset())
        assert Cpu.of(half, None, output_bits=52, ds=True, features=less).output_bits(half) == wide


def test_the_highest_byte_is_ignored_where_tbi_says_so() -> None:
    cpu = Cpu(0, 0, K4 | 5 << 32 | 16 | 16 << 16 | 1 << 37 | 1 << 52 | 1 << 38)
    assert untagged(cpu, 0xAB00_1234_5678_9ABC, False) == 0x0000_1234_5678_9ABC
    assert untagged(cpu, 0xAB00_1234_5678_9ABC, True) == 0x0000_1234_5678_9ABC
    assert untagged(cpu, 0xABFF_F234_5678_9ABC, False) == 0xFFFF_F234_5678_9ABC
    assert untagged(cpu, 0xABFF_F234_5678_9ABC, True) == 0xABFF_F234_5678_9ABC  # TBID1
    without = replace(cpu, features=Features(tbid=False))
    assert untagged(without, 0xABFF_F234_5678_9ABC, True) == 0xFFFF_F234_5678_9ABC
    assert untagged(replace(cpu, tcr=cpu.tcr & ~(1 << 37)), 0xAB << 56, False) == 0xAB << 56
    off = replace(cpu, tcr=cpu.tcr | 1 << 7)  # EPD0
    assert untagged(off, 0xAB << 56 | 4, False) == 4


def test_features_are_read_from_their_registers() -> None:
    # ID_AA64MMFR0_EL1: PARange 3:0, TGran16 23:20, TGran64 27:24, TGran4 31:28; MMFR1: HAFDBS 3:0,
    # HPDS 15:12, PAN 23:20; MMFR2: UAO 7:4, VARange 19:16, ST 31:28, E0PD 63:60.
    everything = Features.of(0x1020_0006, 0x30_1002, 1 << 60 | 0x1001_0010)
    assert everything == Features()
    a57 = Features.of(0x0000_1124, 0, 0)
    assert a57 == Features(
        *(44, frozenset({"4K", "64K"}), frozenset(), False, False, 0, False, 0, False, False, True)
    )
    assert Features.of(0xFF10_0005, 0, 0).granules == {"16K"}
    assert Features.of(7, 3, 0).output_bits == 52
    assert Features.of(0, 4, 0).hafdbs == 2
    with pytest.raises(ValueError, match=r"ID_AA64MMFR0_EL1 0x8 has the reserved PARange 8"):
        Features.of(8, 0, 0)


def test_each_feature_is_read_from_its_field_alone() -> None:
    source = random.Random(0)
    for _ in range(400):
        mmfr0, mmfr1, mmfr2 = (source.getrandbits(64) for _ in range(3))
        # Values of a field that leave a feature out are rare among 16: half of them are these.
        for low in (20, 24, 28):
            value = source.choice([0, 1, 15, field(mmfr0, low + 3, low)])
            mmfr0 = mmfr0 & ~(15 << low) | value << low
        mmfr0 &= ~8  # a reserved PARange
        mmfr1 &= ~(source.choice([0, 15]) | source.choice([0, 15]) << 12)
        mmfr2 &= ~sum(source.choice([0, 15]) << low for low in (4, 16, 28, 60))
        found = Features.of(mmfr0, mmfr1, mmfr2)
        assert found.output_bits == [32, 36, 40, 42, 44, 48, 52, 52][field(mmfr0, 3, 0)]
        tgran4, tgran64, tgran16 = (field(mmfr0, low + 3, low) for low in (28, 24, 20))
        assert ("4K" in found.granules) == (tgran4 != 0b1111)
        assert ("64K" in found.granules) == (tgran64 != 0b1111)
        assert ("16K" in found.granules) == (tgran16 != 0b0000)
        assert ("4K" in found.lpa2) == (tgran4 == 0b0001)
        assert ("16K" in found.lpa2) == (tgran16 >= 0b0010)
        assert found.hafdbs == min(field(mmfr1, 3, 0), 2)
        assert found.hpds == (field(mmfr1, 15, 12) > 0)
        assert found.pan == min(field(mmfr1, 23, 20), 3)
        assert found.uao == (field(mmfr2, 7, 4) > 0)
        assert found.lva == (field(mmfr2, 19, 16) > 0)
        assert found.ttst == (field(mmfr2, 31, 28) > 0)
        assert found.e0pd == (field(mmfr2, 63, 60) > 0)
        assert found.tbid and not Features.of(mmfr0, mmfr1, mmfr2, tbid=False).tbid


def test_what_registers_encode_is_the_manual_s() -> None:
    """The widths of TCR_EL1.IPS and PARange; in MAIR_EL1, Normal memory, write-back inside and
    outside, not transient, with allocation at reads and at writes."""
    assert OUTPUT_BITS == (32, 36, 40, 42, 44, 48, 52)
    assert NORMAL == 0b1111_1111


def test_attrindx_of_a_leaf_chooses_a_byte_of_mair() -> None:
    cpu = Cpu.of(None, None, mair=0x0011_2233_4455_66FF)
    for index, byte in enumerate((0xFF, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00)):
        for others in (0, LAST & ~(7 << 2)):
            assert cpu.memory_type(index << 2 | others) == byte


def test_halves_whose_tables_differ_are_two_states() -> None:
    low, high = Half("16K", 36, 0x4000), Half("4K", 39, 0x8000)
    both = Cpu.of(low, high, big_endian=True)
    assert both.big_endian and not Cpu.of(low, high).big_endian
    formats = (stage1("16K", 36, 48, big_endian=True), stage1("4K", 39, 48, big_endian=True))
    assert both.formats == formats
    assert (both.levels, Cpu.of(high, low).levels, Cpu.of(low, None).levels) == (3, 3, 2)
    assert [(part.low, part.high) for part in both.parts] == [(low, None), (None, high)]
    assert [part.format for part in both.parts] == list(formats)
    assert [part.base for part in both.parts] == [0x4000, 0x8000] and both.base == 0x4000
    with pytest.raises(ValueError, match=r"TCR_EL1 0x[0-9a-f]+ has 2 formats of tables"):
        both.format  # noqa: B018
    alike = Cpu.of(high, replace(high, root=0x9000))
    assert alike.formats == (alike.format,) and alike.parts == (alike,)
    off = Cpu.of(None, None)
    assert (off.formats, off.roots, off.base, off.parts) == ((), (), 0, (off,))
    with pytest.raises(ValueError, match="has 0 formats of tables"):
        off.format  # noqa: B018


def test_pstate_is_clear_where_the_processor_lacks_its_bits() -> None:
    cpu = Cpu.of(Half("4K", 48, 0), None, features=Features(pan=0, uao=False))
    assert not cpu.pan and not cpu.uao


def test_what_the_processor_lacks_is_ignored_in_the_registers() -> None:
    bare = Features(hafdbs=0, hpds=False, pan=1, e0pd=False, tbid=False)
    tcr = K4 | 5 << 32 | 16 | 1 << 23 | 3 << 39 | 1 << 41 | 1 << 51 | 1 << 55
    cpu = Cpu(0, 0, tcr, sctlr=1 | 1 << 57, features=bare)
    assert cpu.low == Half("4K", 48, 0)
    assert not cpu.sets_access_flag and not cpu.keeps_dirty_state and not cpu.epan
    once = replace(cpu, features=replace(bare, hafdbs=1))
    assert once.sets_access_flag and not once.keeps_dirty_state


def test_a_half_that_is_off_may_hold_anything() -> None:
    cpu = Cpu(0x1000, 0x7, 0 << 30 | 63 << 16 | 1 << 23 | 5 << 32 | 16)
    assert cpu.high is None and len(cpu.roots) == 1


ON = 16 | 5 << 32 | 1 << 23

FAULTS = "by which every access to that half faults"
"""What the architecture says of a TxSZ below the least, of processors with FEAT_LVA."""

WRONG = [
    ((0, 0, ON, 0, 0), "paging is off: SCTLR_EL1 is 0x0, M=0"),
    ((0, 0, ON, 0, 1 << 25 | 2), "paging is off: SCTLR_EL1 is 0x2000002, M=0"),
    ((0, 0, ON | 3 << 14), r"the reserved TG0 3; EPD0=1 turns that half off"),
    ((0, 0, 16 | 5 << 32 | 16 << 16), r"TCR_EL1 0x500100010 has the reserved TG1 0; EPD1=1 turns"),
    ((0, 0, ON & ~16 | 15), f"T0SZ 15, {FAULTS}: a granule of 4K takes 16 to 48 here; EPD0=1 tur"),
    ((0, 0, ON & ~16 | 49), "T0SZ 49, which faults or is taken for 48: a granule of 4K takes 16"),
    ((0, 0, ON & ~16 | 48 | 1 << 14), "T0SZ 48, which faults or is taken for 47: a granule of 64K"),
    ((0, 0, ON & ~16 | 11 | 1 << 59), f"T0SZ 11, {FAULTS}: a granule of 4K takes 12 to 48 here"),
    ((0, 0, ON | 7 << 32), "has the reserved IPS 7"),
    ((0x800, 0, ON), r"TTBR0_EL1 0x800 is not aligned: .* must be at a multiple of 0x1000"),
    ((2, 0, ON & ~16 | 48), r"TTBR0_EL1 0x2 is not aligned: .* must be at a multiple of 0x80"),
    ((0x1002, 0, ON | 1 << 59), r"TTBR0_EL1 0x1002 is not aligned"),
    ((0x42, 0, ON & ~16 | 15 | 1 << 59), "TTBR0_EL1 0x42 is not .* must be at a multiple of 0x40"),
    ((0, 0x20, 16 | K4 | 15 << 16 | 6 << 32 | 1 << 59 | 1 << 7), None),
    ((1 << 64, 0, ON), "TTBR0_EL1 0x10000000000000000 has more than 64 bits"),
    ((0, 0, -1), "TCR_EL1 -0x1 has more than 64 bits"),
]


@pytest.mark.parametrize(("registers", "why"), WRONG)
def test_what_the_architecture_forbids_is_a_sentence(
    registers: tuple[int, ...], why: str | None
) -> None:
    if why is None:  # a root of two entries, at 64 bytes and with bits 51:48
        high = Cpu(*registers).high  # type: ignore[arg-type]
        assert high is not None and high.root == 8 << 48
        return
    with pytest.raises(ValueError, match=why):
        Cpu(*registers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "tcr", "why"),
    [
        (Features(granules=frozenset({"4K"}), lpa2=frozenset()), K64, "64K in TG0, which the proc"),
        (Features(ttst=False), 40, "T0SZ 40, which faults or is taken for 39: a granule of 4K"),
        (Features(lva=False), K64 | 12, "T0SZ 12, which faults or is taken for 16: a granule"),
        (Features(lpa2=frozenset({"16K"})), 1 << 59 | 12, f"T0SZ 12, {FAULTS}"),
    ],
)
def test_what_the_processor_lacks_cannot_be_asked_for(
    features: Features, tcr: int, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Cpu(0, 0, tcr | 5 << 32 | 1 << 23 | (0 if tcr & 63 else 16), features=features)


SHORT = Half("64K", 17, 1 << 50)
"""Of two entries, so that any multiple of 16 is a place for it."""


def test_a_root_of_two_entries_is_where_it_is_asked_to_be() -> None:
    assert Cpu.of(SHORT, SHORT, output_bits=52).low == SHORT
    for root in (0x10, 0x20, 0x7FFF_0000_0030):
        half = replace(SHORT, root=root)
        cpu = Cpu.of(half, half)
        assert (cpu.low, cpu.high) == (half, half)


def test_other_states_that_cannot_be() -> None:
    low = Half("4K", 48, 0)
    for make, why in (
        (lambda: Features(output_bits=50), "physical addresses have 32, .*, 52 bits, not 50"),
        (lambda: Features(granules=frozenset({"8K"})), "granules cannot have 8K"),
        (lambda: Features(lpa2=frozenset({"64K"})), "lpa2 cannot have 64K"),
        (lambda: Cpu.of(low, None, pan=True, features=Features(pan=0)), "without FEAT_PAN"),
        (lambda: Cpu.of(low, None, uao=True, features=Features(uao=False)), "without FEAT_UAO"),
        (lambda: Cpu.of(low, None, output_bits=50), "IPS says 32, .*, 52 bits, not 50"),
        (lambda: Cpu.of(replace(low, granule="8K"), None), "4K, 16K or 64K, not 8K"),
        (lambda: Cpu.of(replace(low, address_bits=64), None), "T0SZ cannot say 64 bits"),
        (lambda: Cpu.of(replace(low, address_bits=0), None), "T0SZ cannot say 0 bits"),
        (lambda: Cpu.of(replace(low, root=1 << 52), None), "cannot hold a root at 0x1000000"),
        (lambda: Cpu.of(replace(low, root=0x10), None), "TTBR0_EL1 0x10 is not aligned"),
        (lambda: Cpu.of(replace(low, root=2), None), "TTBR0_EL1 0x2 is not aligned"),
        (lambda: Cpu.of(None, replace(low, root=1)), "TTBR1_EL1 cannot hold a root at 0x1 here"),
        # Bits 51:48 are in 5:2 only where IPS says 52 bits: else those are of the address.
        (lambda: Cpu.of(SHORT, None), "TTBR0_EL1 cannot hold a root at 0x4000000000000 here"),
    ):
        with pytest.raises(ValueError, match=why):
            make()
