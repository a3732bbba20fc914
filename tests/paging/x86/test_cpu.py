"""Which mode the control registers make, where its walks begin, and what can be loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.entry import Malformed
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86 import formats
from harness.paging.x86.access import Fault, Reason, Vector
from harness.paging.x86.cpu import MARKS, WIDTHS, Cpu, Cr0, Cr3, Cr4, Efer, Mode, lam_widths
from harness.paging.x86.formats import P
from harness.paging.x86.load import RELOADING_CR0, RELOADING_CR4, load, move, reserved_in_cr3
from tests.paging.x86.made import READ, comes_to, memory, path, supervisor

PG, WP, PE = 1 << 31, 1 << 16, 1
PAE, LA57 = 1 << 5, 1 << 12
LME, LMA, NXE = 1 << 8, 1 << 10, 1 << 11


def test_register_bits_are_where_the_manual_has_them() -> None:
    assert {bit.name: bit.value for bit in Cr0} == {"PE": PE, "WP": WP, "PG": PG}
    assert {bit.name: bit.value for bit in Efer} == {"LME": LME, "LMA": LMA, "NXE": NXE}
    assert {bit.name: bit.value.bit_length() - 1 for bit in Cr3} == {
        **{"LAM_U57": 61, "LAM_U48": 62, "KEEP_TLB": 63},
    }
    assert {bit.name: bit.value.bit_length() - 1 for bit in Cr4} == {
        **{"PSE": 4, "PAE": 5, "PGE": 7, "LA57": 12, "PCIDE": 17, "SMEP": 20, "SMAP": 21},
        **{"PKE": 22, "CET": 23, "PKS": 24, "LASS": 27, "LAM_SUP": 28},
    }


def test_widths_of_addresses_are_those_of_the_manual_and_a_mark_is_above_the_least() -> None:
    """Physical addresses have at most 52 bits, and entries hold 51:12 (SDM 4.1.4)."""
    assert (WIDTHS[0], WIDTHS[-1]) == (32, 52)
    assert (MARKS[0], MARKS[-1]) == (32, 51)


@pytest.mark.parametrize(
    ("cr4", "efer", "mode", "levels"),
    [
        (0, 0, Mode.BITS_32, 2),
        (LA57, 0, Mode.BITS_32, 2),
        (PAE, 0, Mode.PAE, 2),
        (PAE | LA57, 0, Mode.PAE, 2),
        (PAE, LMA, Mode.LEVEL_4, 4),
        (PAE | LA57, LMA, Mode.LEVEL_5, 5),
    ],
)
def test_the_control_registers_make_the_mode(cr4: int, efer: int, mode: Mode, levels: int) -> None:
    cpu = Cpu(PG | PE, 0, cr4, efer)
    assert (cpu.mode, cpu.levels, cpu.long) == (mode, levels, levels > 2)


@pytest.mark.parametrize(
    ("mode", "cr4", "efer"),
    [
        (Mode.BITS_32, 0, 0),
        (Mode.PAE, PAE, 0),
        (Mode.LEVEL_4, PAE, LME | LMA),
        (Mode.LEVEL_5, PAE | LA57, LME | LMA),
    ],
)
def test_a_cpu_made_for_a_mode_has_its_bits_and_those_asked_for(
    mode: Mode, cr4: int, efer: int
) -> None:
    cpu = Cpu.in_mode(mode, 0x5000, cr0=Cr0.WP, cr4=Cr4.SMEP, efer=Efer.NXE)
    assert (cpu.mode, cpu.cr0, cpu.cr3) == (mode, PG | WP | PE, 0x5000)
    assert (cpu.cr4, cpu.efer) == (cr4 | 1 << 20, efer | NXE)
    bare = Cpu.in_mode(mode, 0, cr0=0, cr4=0, efer=0)
    assert (bare.mode, bare.cr0, bare.cr4, bare.efer) == (mode, PG | PE, cr4, efer)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_cpu_made_in_long_mode_has_what_is_asked_for(levels: int) -> None:
    bare = Cpu.long_mode(levels, 0x1000, wp=False, nxe=False)
    assert (bare.levels, bare.cr0, bare.cr3, bare.efer) == (levels, PG | PE, 0x1000, LME | LMA)
    full = Cpu.long_mode(levels, 0, smep=True, smap=True, ac=True, maxphyaddr=52, page1gb=False)
    assert full.cr4 ^ bare.cr4 == 1 << 20 | 1 << 21
    assert (full.cr0, full.efer) == (PG | WP | PE, LME | LMA | NXE)
    assert (full.ac, full.maxphyaddr, full.page1gb) == (True, 52, False)
    with pytest.raises(ValueError, match=f"4 or 5 levels, not {levels + 2}"):
        Cpu.long_mode(levels + 2, 0)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ((PE, 0, PAE, LMA), "paging is off"),
        ((PG | PE, 0, 0, LMA), "long mode without PAE"),
    ],
)
def test_a_state_that_no_machine_can_be_in_is_refused(
    state: tuple[int, int, int, int], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Cpu(*state)


def test_cr3_locates_one_table_in_32_bit_paging() -> None:
    cpu = Cpu.in_mode(Mode.BITS_32, 0xFFFF_FFFF_FEDC_BFFF)
    (root,) = cpu.roots
    assert (root.table.address, root.table.level) == (0xFEDC_B000, 1)
    assert root.span == Span(0, 0xFFFF_FFFF)


@pytest.mark.parametrize(
    ("mode", "maxphyaddr", "cr3", "address"),
    [
        (Mode.LEVEL_4, 40, 0x12_3456_7FFF, 0x12_3456_7000),
        (Mode.LEVEL_4, 40, 0xFFFF_FF12_3456_7FFF, 0x12_3456_7000),
        (Mode.LEVEL_5, 52, 0xF_FFFF_FFFF_FFFF, 0xF_FFFF_FFFF_F000),
        (Mode.LEVEL_4, 52, 0xE00F_FFFF_FFFF_FFFF, 0xF_FFFF_FFFF_F000),
    ],
)
def test_cr3_locates_one_table_for_both_halves_of_long_mode(
    mode: Mode, maxphyaddr: int, cr3: int, address: int
) -> None:
    cpu = replace(Cpu.in_mode(mode, cr3), maxphyaddr=maxphyaddr)
    low, high = cpu.roots
    edge = 1 << (47 if mode is Mode.LEVEL_4 else 56)
    assert (low.span, high.span) == (Span(0, edge - 1), Span(2**64 - edge, 2**64 - 1))
    assert low.table == high.table and low.table.address == address
    assert low.table.level == cpu.levels - 1


def test_each_present_pdpte_is_the_root_of_one_gigabyte() -> None:
    cpu = replace(Cpu.in_mode(Mode.PAE, 0), pdptes=(0x1001, 0x2000, 0x3FFF_0E19, 0xF_FFFF_F001))
    found = [(root.table.address, root.table.level, root.span) for root in cpu.roots]
    assert found == [
        (0x1000, 1, Span(0, 0x3FFF_FFFF)),
        (0x3FFF_0000, 1, Span(0x8000_0000, 0xBFFF_FFFF)),
        (0xF_FFFF_F000, 1, Span(0xC000_0000, 0xFFFF_FFFF)),
    ]
    assert root_for(cpu, Virtual(0x4000_0000)) is None
    assert root_for(cpu, Virtual(0xFFFF_FFFF)) == cpu.roots[2]


def test_an_address_without_pdpte_is_a_page_fault_of_a_page_that_is_not_present() -> None:
    cpu = replace(Cpu.in_mode(Mode.PAE, 0), pdptes=(0x1001, 0x1000, 0, 0))
    where = memory({0x1000: 0x2007, 0x2000: 0x8007})
    assert comes_to(cpu, where, 0x123, supervisor(READ)) == "reaches 0x8123"
    assert comes_to(cpu, where, 0x4000_0000, supervisor(READ)) == "#PF(00) NO_PDPTE"


def test_pdptes_are_registers_which_memory_does_not_change() -> None:
    where = memory({0x20: 0x1001, 0x1000: 0x2007, 0x2000: 0x8007})
    cpu = load(Cpu.in_mode(Mode.PAE, 0), Cpu.in_mode(Mode.PAE, 0x20), where)
    assert isinstance(cpu, Cpu) and cpu.pdptes == (0x1001, 0, 0, 0)
    where.octets[0x20:0x28] = 0
    assert comes_to(cpu, where, 0x123, supervisor(READ)) == "reaches 0x8123"


@pytest.mark.parametrize(("cr3", "read"), [(0x20, 0x20), (0x3F, 0x20), (0x1_0000_0040, 0x40)])
def test_pdptes_are_read_where_bits_31_to_5_of_cr3_say(cr3: int, read: int) -> None:
    where = memory({read + 8 * n: 0x1001 + 0x1000 * n for n in range(4)})
    cpu = load(Cpu.in_mode(Mode.LEVEL_4, 0), Cpu.in_mode(Mode.PAE, cr3), where)
    assert isinstance(cpu, Cpu) and cpu.pdptes == (0x1001, 0x2001, 0x3001, 0x4001)


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 40, 51, 52, 62, 63])
def test_a_reserved_bit_in_a_present_pdpte_is_refused_when_it_is_loaded(bit: int) -> None:
    now, then = Cpu.in_mode(Mode.PAE, 0), Cpu.in_mode(Mode.PAE, 0x40)
    for number in range(4):
        raw = 0x1001 | 1 << bit
        answer = load(now, then, memory({0x40 + 8 * number: raw}))
        assert answer == Fault(Vector.GP, 0, None, None, Reason.PDPTE_RESERVED)
        with pytest.raises(ValueError, match=f"PDPTE {number} .* cannot be loaded"):
            replace(then, pdptes=tuple(raw if n == number else 0 for n in range(4)))
        absent = load(now, then, memory({0x40 + 8 * number: raw & ~1}))
        assert isinstance(absent, Cpu) and not absent.roots


@pytest.mark.parametrize("bit", [3, 4, 9, 10, 11, 12, 39])
def test_any_other_bit_of_a_pdpte_is_loaded(bit: int) -> None:
    cpu = Cpu.in_mode(Mode.PAE, 0)
    answer = load(cpu, cpu, memory({0: 1 | 1 << bit}))
    assert isinstance(answer, Cpu) and answer.pdptes[0] == 1 | 1 << bit


ADDRESSES = [Virtual(n << 30 | at) for n in range(4) for at in (0, 0x1234, 0x20_0000, 0x3FFF_FFFF)]


def test_pdptes_that_are_walked_lead_where_registers_do() -> None:
    words = {0x20: 0x1001, 0x28: 0x2001, 0x38: 0x1001, 0x1000: 0x3007, 0x1008: 0x40_0083}
    where = memory({**words, 0x2000: 0x8000_0000_0060_0087, 0x3008: 0x9005})
    registers = load(Cpu.in_mode(Mode.PAE, 0x20), Cpu.in_mode(Mode.PAE, 0x20), where)
    assert isinstance(registers, Cpu)
    walked = replace(registers, pdptes_checked=registers.pdpte.reserved_mask)
    assert (len(registers.roots), len(walked.roots), walked.levels) == (3, 1, 3)
    asked = np.array(ADDRESSES, np.uint64)
    several = [bulk.walk(where, cpu.roots, asked) for cpu in (registers, walked)]
    for lane, address in enumerate(ADDRESSES):
        root, other = root_for(registers, address), root_for(walked, address)
        assert other is not None
        found = walk(where, other, address)
        if root is None:
            assert (found.level, found.leaf) == (2, None)
            continue
        through = walk(where, root, address)
        assert found.steps[1:] == through.steps or found.physical == through.physical
        assert (found.physical, found.level) == (through.physical, through.level)
        assert found.granted == through.granted == int(several[0].granted[lane])
        assert int(several[1].granted[lane]) == found.granted
        assert int(several[1].physical[lane]) == (found.physical or 0)
    rows = [bulk.leaves(where, cpu.roots) for cpu in (registers, walked)]
    for name in ("virtual", "physical", "granted", "raw"):
        assert getattr(rows[0], name).tolist() == getattr(rows[1], name).tolist()


@pytest.mark.parametrize("checked", [-1, 1 << 63 | 2])
@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 40, 63])
def test_a_walk_ends_at_a_pdpte_with_a_bit_that_is_checked(bit: int, checked: int) -> None:
    raw = 0x1001 | 1 << bit
    cpu = replace(Cpu.in_mode(Mode.PAE, 0), pdptes_checked=checked, pdptes=(raw, 0, 0, 0))
    (root,) = cpu.roots
    (first, *_) = walk(memory({0: raw, 0x1000: 0x83}), root, Virtual(0)).steps
    wrong = raw & checked if checked > 0 else 1 << bit
    assert first.entry == (Malformed(wrong) if wrong else first.entry)
    assert isinstance(first.entry, Malformed) == bool(wrong)


def test_pdptes_without_memory_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="the PDPTEs at 0x10000 cannot be read"):
        load(Cpu.in_mode(Mode.PAE, 0), Cpu.in_mode(Mode.PAE, 0x10000), memory({}))


def test_pdptes_that_are_not_four_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 4 PDPTEs, not 1"):
        replace(Cpu.in_mode(Mode.PAE, 0), pdptes=(1,))


@pytest.mark.parametrize("mode", [Mode.LEVEL_4, Mode.LEVEL_5])
@pytest.mark.parametrize("maxphyaddr", [36, 40, 52])
def test_bits_of_cr3_at_and_above_maxphyaddr_are_refused_in_long_mode(
    mode: Mode, maxphyaddr: int
) -> None:
    now = replace(Cpu.in_mode(mode, 0), maxphyaddr=maxphyaddr)
    for bit in range(64):
        then = replace(now, cr3=1 << bit)
        answer = load(now, then, memory({}))
        if bit < maxphyaddr:
            assert answer == then
        else:
            assert answer == Fault(Vector.GP, 0, None, None, Reason.CR3_RESERVED)


@pytest.mark.parametrize(
    ("bits", "changes", "fine"),
    [
        (Cr3.LAM_U57, {"lam": True}, True),
        (Cr3.LAM_U48, {"lam": True}, True),
        (Cr3.LAM_U57 | Cr3.LAM_U48, {"lam": False}, False),
        (Cr3.KEEP_TLB, {"lam": True}, False),
        (1 << 60, {"lam": True}, False),
    ],
)
def test_lam_has_a_use_for_bits_62_and_61_of_cr3(
    bits: int, changes: dict[str, bool], fine: bool
) -> None:
    now = replace(Cpu.in_mode(Mode.LEVEL_4, 0), **changes)  # type: ignore[arg-type]
    assert isinstance(load(now, replace(now, cr3=bits), memory({})), Cpu) == fine


def test_pcide_has_a_use_for_bit_63_of_cr3_which_is_not_kept() -> None:
    """SDM 4.10.4.1: the bit says that the TLB may keep what it has, and is never stored."""
    now = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.PCIDE)
    loaded = replace(now, cr3=0x1FFF)
    assert load(now, replace(now, cr3=1 << 63 | 0x1FFF), memory({})) == loaded
    assert move(now, memory({}), cr3=1 << 63 | 0x1FFF) == loaded
    assert loaded.roots[0].table.address == 0x1000


def test_pcide_is_cleared_after_a_move_that_kept_the_tlb() -> None:
    now = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.PCIDE)
    then = move(now, memory({}), cr3=1 << 63 | 0x1000)
    assert isinstance(then, Cpu)
    assert type(then.cr3) is int
    cr4 = now.cr4 & ~int(Cr4.PCIDE)
    assert move(then, memory({}), cr4=cr4) == replace(now, cr3=0x1000, cr4=cr4)


@pytest.mark.parametrize("register", ["cr0", "cr4"])
def test_what_is_reserved_in_cr3_is_checked_when_that_is_written(register: str) -> None:
    now = replace(Cpu.in_mode(Mode.LEVEL_4, 0), cr3=1 << 63)
    changed = {register: getattr(now, register) ^ {"cr0": WP, "cr4": Cr4.PGE}[register]}
    assert move(now, memory({}), **changed) == replace(now, **changed)
    refused = Fault(Vector.GP, 0, None, None, Reason.CR3_RESERVED)
    assert move(now, memory({}), cr3=now.cr3) == refused


def test_low_bits_of_cr3_are_no_part_of_the_address_and_never_refused() -> None:
    now = Cpu.in_mode(Mode.LEVEL_4, 0)
    then = load(now, replace(now, cr3=0x1FFF), memory({}))
    assert isinstance(then, Cpu) and then.roots[0].table.address == 0x1000


def test_la57_is_changed_outside_long_mode_only() -> None:
    four, five = Cpu.in_mode(Mode.LEVEL_4, 0), Cpu.in_mode(Mode.LEVEL_5, 0)
    legacy = Cpu.in_mode(Mode.BITS_32, 0)
    refused = Fault(Vector.GP, 0, None, None, Reason.LA57_CHANGED)
    assert load(four, five, memory({})) == load(five, four, memory({})) == refused
    assert load(legacy, five, memory({})) == five
    assert load(five, legacy, memory({})) == legacy
    assert load(five, five, memory({})) == five


def with_cr4(cpu: Cpu, bits: int) -> Cpu:
    return replace(cpu, cr4=cpu.cr4 | bits)


CR0, CR4 = Cr0.PE | Cr0.PG, Cr4.PAE
CD, NW = 1 << 30, 1 << 29
LONG, LEGACY = (Cpu.in_mode(mode, 0, cr4=0) for mode in (Mode.LEVEL_4, Mode.BITS_32))
MOVES: dict[str, tuple[Cpu, dict[str, int], Reason | None]] = {
    "PE cleared with PG set": (LONG, {"cr0": CR0 & ~Cr0.PE}, Reason.CR0_INVALID),
    "the same outside long mode": (LEGACY, {"cr0": CR0 & ~Cr0.PE}, Reason.CR0_INVALID),
    "PG cleared in 64-bit mode": (LONG, {"cr0": Cr0.PE}, Reason.CR0_INVALID),
    "bit 32 of CR0": (LONG, {"cr0": CR0 | 1 << 32}, Reason.CR0_INVALID),
    **{
        f"NW set{where}": (cpu, {"cr0": cpu.cr0 | NW}, Reason.CR0_INVALID)
        for where, cpu in (("", LONG), (" outside long mode", LEGACY))
    },
    "CD cleared while NW stays": (
        replace(LONG, cr0=LONG.cr0 | CD | NW),
        {"cr0": LONG.cr0 | NW},
        Reason.CR0_INVALID,
    ),
    "CD set": (LONG, {"cr0": LONG.cr0 | CD}, None),
    "CD and NW set": (LONG, {"cr0": LONG.cr0 | CD | NW}, None),
    "WP cleared": (LONG, {"cr0": CR0}, None),
    "WP cleared under CET": (with_cr4(LONG, Cr4.CET), {"cr0": CR0}, Reason.CET_WITHOUT_WP),
    "CET set with WP": (LONG, {"cr4": CR4 | Cr4.CET}, None),
    "CET set without WP": (
        replace(LONG, cr0=CR0),
        {"cr4": CR4 | Cr4.CET},
        Reason.CET_WITHOUT_WP,
    ),
    "PAE cleared": (LONG, {"cr4": 0}, Reason.PAE_CLEARED),
    "PAE cleared while PGE is set": (LONG, {"cr4": Cr4.PGE}, Reason.PAE_CLEARED),
    "PAE set outside long mode": (LEGACY, {"cr4": Cr4.PAE}, None),
    "LA57 set": (LONG, {"cr4": CR4 | Cr4.LA57}, Reason.LA57_CHANGED),
    "PCIDE set": (replace(LONG, cr3=0x1000), {"cr4": CR4 | Cr4.PCIDE}, None),
    **{
        f"PCIDE set while bit {bit} of CR3 is": (
            replace(LONG, cr3=0x1000 | 1 << bit),
            {"cr4": CR4 | Cr4.PCIDE},
            Reason.PCIDE_SET,
        )
        for bit in range(12)
    },
    "PCIDE kept while CR3 has a PCID": (
        replace(with_cr4(LONG, Cr4.PCIDE), cr3=0x1008),
        {"cr4": CR4 | Cr4.PCIDE | Cr4.PGE},
        None,
    ),
    "PCIDE set outside long mode": (LEGACY, {"cr4": Cr4.PCIDE}, Reason.PCIDE_SET),
    "LAM_SUP without LAM": (LONG, {"cr4": CR4 | Cr4.LAM_SUP}, Reason.CR4_RESERVED),
    "LAM_SUP with LAM": (replace(LONG, lam=True), {"cr4": CR4 | Cr4.LAM_SUP}, None),
    "VME set with LAM": (replace(LONG, lam=True), {"cr4": CR4 | 1}, None),
    "a bit above MAXPHYADDR in CR3": (LONG, {"cr3": 1 << 40}, Reason.CR3_RESERVED),
    "another CR3": (LONG, {"cr3": 0x5018}, None),
    **{
        f"bit {bit} of CR4": (LONG, {"cr4": CR4 | 1 << bit}, Reason.CR4_RESERVED)
        for bit in (15, 26, 29, 30, 31, *range(33, 64))
    },
    **{
        f"bit {bit} of CR4, of which a processor may have the feature": (
            LONG,
            {"cr4": CR4 | 1 << bit},
            None,
        )
        for bit in (*range(5), 7, 8, 9, 10, 11, 13, 14, 16, 18, 19, 20, 21, 22, 24, 25, 27, 32)
    },
}
"""What MOV to a control register comes to (SDM 2.5, 4.1.2, 4.10.1, and MOV in volume 2)."""


@pytest.mark.parametrize("name", MOVES)
def test_a_control_register_takes_what_it_can_hold_and_refuses_the_rest(name: str) -> None:
    cpu, registers, reason = MOVES[name]
    came = move(cpu, memory(dict.fromkeys(range(0, 32, 8), 0)), **registers)
    if reason is None:
        assert came == replace(cpu, **registers)  # type: ignore[arg-type]
    else:
        assert came == Fault(Vector.GP, 0, None, None, reason)


def test_only_some_moves_load_the_pdptes() -> None:
    # SDM 4.4.1: CD, NW and PG of CR0; PAE, PGE, PSE and SMEP of CR4.
    assert RELOADING_CR0 == 1 << 30 | 1 << 29 | 1 << 31
    assert RELOADING_CR4 == 1 << 5 | 1 << 7 | 1 << 4 | 1 << 20
    kept = (P | 0x1000, 0, 0, 0)
    cpu = replace(Cpu.in_mode(Mode.PAE, 0), pdptes=kept)
    stored = memory(dict.fromkeys(range(0, 32, 8), P | 0x2000))
    loaded = replace(cpu, pdptes=(P | 0x2000,) * 4)
    assert move(cpu, stored, cr3=0) == loaded
    for bit in (Cr4.PGE, Cr4.PSE, Cr4.SMEP):
        assert move(cpu, stored, cr4=cpu.cr4 ^ bit) == replace(loaded, cr4=cpu.cr4 ^ bit)
    for bit in (Cr4.SMAP, Cr4.PKE):
        assert move(cpu, stored, cr4=cpu.cr4 ^ bit) == replace(cpu, cr4=cpu.cr4 ^ bit)
    uncached = replace(cpu, cr0=cpu.cr0 | 1 << 30)
    for now, number in ((cpu, 30), (uncached, 30), (uncached, 29)):
        cr0 = now.cr0 ^ 1 << number
        assert move(now, stored, cr0=cr0) == replace(loaded, cr0=cr0)
    assert move(cpu, stored, cr0=cpu.cr0 ^ Cr0.WP) == replace(cpu, cr0=cpu.cr0 ^ Cr0.WP)
    wrong = memory(dict.fromkeys(range(0, 32, 8), P | 0x2002))
    refused = Fault(Vector.GP, 0, None, None, Reason.PDPTE_RESERVED)
    assert move(cpu, wrong, cr4=cpu.cr4 ^ Cr4.PGE) == refused


def test_a_move_that_ends_paging_leads_to_no_cpu() -> None:
    for cr0 in Cr0.PE, Cr0.WP, 0:
        with pytest.raises(ValueError, match="paging is off"):
            move(LEGACY, memory({}), cr0=cr0)


@pytest.mark.parametrize(
    ("mode", "address", "text"),
    [
        ("32", 0x0040_0123, "reaches 0x8123"),
        ("32", 0x0040_1000, "#PF(00) NOT_PRESENT"),
        ("32", 0xFFC0_0000, "#PF(00) NOT_PRESENT"),
        ("pae", 0x0020_0123, "reaches 0x8123"),
        ("pae", 0x0040_0123, "#PF(00) NOT_PRESENT"),
        ("4", 0x80_4020_0123, "reaches 0x8123"),
        ("4", 0x80_4020_1123, "#PF(00) NOT_PRESENT"),
        ("5", 0x1_0080_4020_0123, "reaches 0x8123"),
        ("5", 0x80_4020_0123, "#PF(00) NOT_PRESENT"),
    ],
)
def test_each_level_takes_its_index_from_its_bits_of_the_address(
    mode: str, address: int, text: str
) -> None:
    """Entry 1 of every table above the lowest, entry 0 of that."""
    width, levels = (4, 2) if mode == "32" else (8, {"pae": 2, "4": 4, "5": 5}[mode])
    tables = [0x1000 * (depth + 1) for depth in range(levels)]
    words = {table + width: table + 0x1001 for table in tables[:-1]} | {tables[-1]: 0x8001}
    cpu = Cpu.in_mode(Mode(mode), 0x1000)
    if mode == "pae":
        cpu = replace(cpu, pdptes=(0x1001, 0, 0, 0))
    assert comes_to(cpu, memory(words, width), address, supervisor(READ)) == text


@pytest.mark.parametrize("mode", ["32", "pae"])
def test_there_is_no_address_beyond_32_bits_outside_long_mode(mode: str) -> None:
    cpu, where = path(Cpu.in_mode(Mode(mode), 0), 1, 1)
    with pytest.raises(ValueError, match="there is no address 0x100000000"):
        comes_to(cpu, where, 1 << 32, supervisor(READ))


def test_pdptes_are_read_at_bits_31_to_5_of_cr3_and_no_other_bit_counts() -> None:
    """Outside long mode CR3 has 32 bits (SDM volume 3A, table 4-7)."""
    words = memory({0x20 + 8 * n: 0x1001 * (n + 1) & ~0xFFE for n in range(4)})
    pae = Cpu.in_mode(Mode.PAE, 0)
    for extra in (0, 0x1F, 1 << 32, 1 << 40, 1 << 63):
        found = load(pae, replace(pae, cr3=0x20 | extra), words)
        assert isinstance(found, Cpu)
        assert found.pdptes == (0x1001, 0x2000, 0x3001, 0x4000)


@pytest.mark.parametrize("maxphyaddr", [32, 40, 52])
def test_what_is_reserved_in_cr3_ends_at_bit_63_and_spares_what_is_used(maxphyaddr: int) -> None:
    """SDM volume 3A, 4.5.2: LAM uses bits 62:61, and PCIDE bit 63."""
    plain = replace(Cpu.in_mode(Mode.LEVEL_4, 0), maxphyaddr=maxphyaddr, lam=False)
    every = (1 << 64) - (1 << maxphyaddr)
    assert reserved_in_cr3(plain) == every
    assert reserved_in_cr3(replace(plain, lam=True)) == every & ~(0b11 << 61)
    keeps = replace(plain, cr4=plain.cr4 | Cr4.PCIDE)
    assert reserved_in_cr3(keeps) == every & ~(1 << 63)


@pytest.mark.parametrize(
    ("mode", "base"),
    [
        (Mode.BITS_32, 0xFFFF_F000),
        (Mode.PAE, 0xFFFF_FFE0),
        (Mode.LEVEL_4, 0xFF_FFFF_F000),
        (Mode.LEVEL_5, 0xFF_FFFF_F000),
    ],
    ids=str,
)
def test_the_base_of_the_tables_is_what_the_manual_says_of_cr3(mode: Mode, base: int) -> None:
    """SDM volume 3A, 4.3, 4.4.1 and 4.5.2: bits 31:12, 31:5 and M-1:12, of 40 here."""
    ones = (1 << (40 if mode in (Mode.LEVEL_4, Mode.LEVEL_5) else 32)) - 1
    assert replace(Cpu.in_mode(mode, 0), maxphyaddr=40, cr3=ones).base == base


@pytest.mark.parametrize("raw", [0x6, 0x1E0, 1 << 63])
def test_a_pdpte_that_is_not_present_has_nothing_reserved(raw: int) -> None:
    """SDM 4.4.1: of a PDPTE with P=0 the other bits are ignored."""
    cpu = Cpu.in_mode(Mode.PAE, 0)
    assert (cpu.malformed_pdpte(raw), cpu.malformed_pdpte(raw | 1)) == (0, raw)


def test_a_pdpte_is_checked_in_the_bits_that_are_given_alone() -> None:
    assert [part.mask for part in formats.pdpte(40, 0x6).reserved] == [0x6]
    assert [part.mask for part in formats.pdpte(40, 1 << 63 | 0x20).reserved] == [0x20, 1 << 63]
    assert formats.pdpte(40, 0).reserved == ()


def test_there_are_four_pdptes_where_they_are_entries() -> None:
    made = formats.pae.__wrapped__(40, True, formats.pdpte(40))  # and not what was made before
    assert made.levels[2].entries == 4
    leaf = made.levels[0].leaf
    assert leaf and leaf.reserved_mask == (1 << 63) - (1 << 40)  # bits 62:40, below XD (table 4-11)


def test_of_cr4_pse_alone_makes_4m_pages() -> None:
    every = ~int(Cr4.PSE | Cr4.PAE | Cr4.LA57) & sum(Cr4)
    for cr4, pages in ((every, False), (int(Cr4.PSE), True)):
        format = Cpu.in_mode(Mode.BITS_32, 0, cr4=cr4).format
        assert (format.levels[1].leaf is not None) is pages


def test_fetches_are_reported_with_nxe_only_where_there_is_pae() -> None:
    """SDM 4.7: CR4.SMEP=1, or CR4.PAE=1 and IA32_EFER.NXE=1."""
    assert not Cpu.in_mode(Mode.BITS_32, 0, cr4=Cr4.PGE | Cr4.PSE, efer=Efer.NXE).reports_fetches
    assert Cpu.in_mode(Mode.BITS_32, 0, cr4=Cr4.SMEP, efer=0).reports_fetches
    assert Cpu.in_mode(Mode.PAE, 0, efer=Efer.NXE).reports_fetches
    assert not Cpu.in_mode(Mode.PAE, 0, efer=0).reports_fetches


def test_metadata_is_masked_where_lam_is_on_and_in_long_mode_alone() -> None:
    on = {"lam": True}
    plain = replace(Cpu.in_mode(Mode.LEVEL_4, 0x7FF_F018), **on)  # type: ignore[arg-type]
    assert lam_widths(plain) == (None, None)
    pae = Cpu.in_mode(Mode.PAE, int(Cr3.LAM_U48), cr4=Cr4.LAM_SUP)
    assert lam_widths(replace(pae, **on)) == (None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("bit", [Cr4.PGE, Cr4.SMEP, Cr4.SMAP, Cr4.PKE, Cr4.PSE])
def test_of_cr4_la57_alone_cannot_change_in_long_mode(bit: Cr4) -> None:
    now = Cpu.in_mode(Mode.LEVEL_4, 0x1000, cr4=0)
    then = replace(now, cr4=now.cr4 | bit)
    assert load(now, then, memory({})) == then
    assert load(then, now, memory({})) == now
