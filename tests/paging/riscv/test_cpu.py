"""The state of a hart: registers by the manual's fields, roots, pointer masking, MPRV."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.paging.address import Span
from harness.paging.processor import root_for
from harness.paging.riscv import bulk
from harness.paging.riscv.access import Access, Kind, access_from
from harness.paging.riscv.cpu import Cpu, Mode, Privilege, Satp, transformed
from harness.paging.riscv.formats import sv

# satp.MODE in bits 63:60 or in bit 31, ASID in 59:44 or 30:22, PPN below ("satp", its figures).
SATPS = [
    (64, 0x8000_0000_0008_0000, Mode.SV39, 0, 0x8000_0000, 3),
    (64, 0x9ABC_D000_0008_0123, Mode.SV48, 0xABCD, 0x8012_3000, 4),
    (64, 0xAFFF_FFFF_FFFF_FFFF, Mode.SV57, 0xFFFF, 0xFF_FFFF_FFFF_F000, 5),
    (32, 0x8008_0001, Mode.SV32, 0, 0x8000_1000, 2),
    (32, 0xFFFF_FFFF, Mode.SV32, 0x1FF, 0x3_FFFF_F000, 2),
]


@pytest.mark.parametrize(("xlen", "raw", "mode", "asid", "root", "levels"), SATPS)
def test_satp_is_read_and_made_by_its_fields(
    xlen: int, raw: int, mode: Mode, asid: int, root: int, levels: int
) -> None:
    cpu = Cpu(raw, xlen=xlen)
    assert (cpu.mode, cpu.asid, cpu.base, cpu.levels) == (mode, asid, root, levels)
    assert Cpu.in_mode(mode, root, asid=asid) == cpu
    assert Satp.of(raw, xlen).raw == raw
    assert {one.table.address for one in cpu.roots} == {root}


@pytest.mark.parametrize(
    ("mode", "spans"),
    [
        (Mode.SV32, [Span(0, 0xFFFF_FFFF)]),
        (Mode.SV39, [Span(0, 0x3F_FFFF_FFFF), Span(0xFFFF_FFC0_0000_0000, (1 << 64) - 1)]),
        (Mode.SV48, [Span(0, 0x7FFF_FFFF_FFFF), Span(0xFFFF_8000_0000_0000, (1 << 64) - 1)]),
        (Mode.SV57, [Span(0, (1 << 56) - 1), Span(0xFF00_0000_0000_0000, (1 << 64) - 1)]),
    ],
)
def test_roots_serve_the_canonical_addresses(mode: Mode, spans: list[Span]) -> None:
    cpu = Cpu.in_mode(mode, 0x8000_0000)
    assert [root.span for root in cpu.roots] == spans
    for span in spans:
        for address in (span.first, span.last):
            root = root_for(cpu, address)
            assert root is not None and root.span == span
    if len(spans) > 1:
        assert root_for(cpu, spans[0].last + 1) is root_for(cpu, spans[1].first - 1) is None


def test_bits_of_registers_are_where_the_manual_has_them() -> None:
    plain = Cpu(8 << 60)
    assert not (plain.sum or plain.mxr or plain.sets_marks or plain.pbmte)
    assert Cpu(8 << 60, mstatus=1 << 18).sum and Cpu(8 << 60, mstatus=1 << 19).mxr
    assert Cpu(8 << 60, menvcfg=1 << 61).sets_marks and Cpu(8 << 60, menvcfg=1 << 62).pbmte
    assert Cpu(8 << 60, svade=False).sets_marks
    assert [Cpu(8 << 60, menvcfg=pmm << 32).pmlen(False) for pmm in (0, 2, 3)] == [0, 7, 16]
    assert [Cpu(8 << 60, senvcfg=pmm << 32).pmlen(True) for pmm in (0, 2, 3)] == [0, 7, 16]
    assert Cpu(8 << 60, senvcfg=3 << 32).pmlen(False) == 0
    hart = Cpu(8 << 60)
    assert (hart.mstatus, hart.menvcfg, hart.senvcfg) == (0, 0, 0)
    made = Cpu.in_mode(Mode.SV39, 0, sum=True, mxr=True, adue=True, pbmte=True)
    assert (made.mstatus, made.menvcfg) == (3 << 18, 3 << 61)


def test_the_format_has_what_the_hart_has() -> None:
    assert Cpu(8 << 60).format is sv(39, False, False, False)
    assert Cpu(9 << 60, menvcfg=1 << 62).format is sv(48, False, True, False)
    assert Cpu(10 << 60, svnapot=True, svrsw60t59b=True).format is sv(57, True, False, True)
    assert Cpu(1 << 31, menvcfg=1 << 62, xlen=32).format is sv(32, False, False, False)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"satp": 0}, "paging is off: satp is 0x0, MODE Bare"),
        ({"satp": 1 << 44}, "paging is off"),
        ({"satp": 7 << 60}, "has the reserved MODE 7"),
        ({"satp": 11 << 60}, "has the reserved MODE 11"),
        ({"satp": 8 << 60, "xlen": 32}, "wider than the 32 bits"),
        ({"satp": 1 << 64}, "wider than the 64 bits"),
        ({"satp": 1 << 31}, "paging is off"),
        ({"satp": 0x7FFF_FFFF, "xlen": 32}, "paging is off"),
        ({"satp": 8 << 60, "xlen": 128}, "registers have 32 or 64 bits, not 128"),
        ({"satp": 8 << 60, "menvcfg": 1 << 32}, "menvcfg 0x100000000 has the reserved PMM 1"),
        ({"satp": 8 << 60, "senvcfg": 1 << 32}, "senvcfg 0x100000000 has the reserved PMM 1"),
        ({"satp": 1 << 31, "xlen": 32, "menvcfg": 2 << 32}, "has the reserved PMM 2"),
        ({"satp": 8 << 60, "mstatus": 2 << 11}, "mstatus 0x1000 has the reserved MPP 2"),
        ({"satp": 1 << 31, "xlen": 32, "svnapot": True}, "Sv32 have no bits for Svnapot"),
        ({"satp": 1 << 31, "xlen": 32, "svrsw60t59b": True}, "or Svrsw60t59b"),
    ],
)
def test_a_state_that_no_hart_can_be_in_is_refused(state: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Cpu(8 << 60), **state)  # type: ignore[arg-type]


def test_a_root_that_satp_cannot_hold_is_refused() -> None:
    for mode, root in ((Mode.SV39, 0x8000_0800), (Mode.SV32, 1), (Mode.SV57, -8)):
        with pytest.raises(ValueError, match="which is inside a page"):
            Cpu.in_mode(mode, root)
    with pytest.raises(ValueError, match=r"satp\.PPN of sv32 has 22 bits: 0x400000"):
        Cpu.in_mode(Mode.SV32, 1 << 34)
    with pytest.raises(ValueError, match=r"satp\.PPN of sv57 has 44 bits"):
        Cpu.in_mode(Mode.SV57, 1 << 56)
    with pytest.raises(ValueError, match=r"satp\.ASID of sv32 has 9 bits: 0x200"):
        Cpu.in_mode(Mode.SV32, 0, asid=0x200)


# The example of "Pointer Masking Extensions", and others by its Verilog.
POINTERS = [
    (2, 0xABFF_FFFF_1234_5678, 0xFFFF_FFFF_1234_5678),
    (2, 0xFEFF_FFFF_1234_5678, 0x00FF_FFFF_1234_5678),
    (2, 0xFE7F_FFFF_1234_5678, 0x007F_FFFF_1234_5678),
    (2, 0x01FF_0000_0000_0000, 0xFFFF_0000_0000_0000),
    (3, 0xABCD_7FFF_1234_5678, 0x0000_7FFF_1234_5678),
    (3, 0xABCD_8FFF_1234_5678, 0xFFFF_8FFF_1234_5678),
    (0, 0xABCD_8FFF_1234_5678, 0xABCD_8FFF_1234_5678),
]


@pytest.mark.parametrize(("pmm", "pointer", "address"), POINTERS)
def test_the_upper_bits_of_pointers_are_masked(pmm: int, pointer: int, address: int) -> None:
    cpu = Cpu(10 << 60, senvcfg=pmm << 32)
    assert transformed(cpu, pointer, True) == address
    assert transformed(cpu, pointer, False) == pointer
    assert transformed(replace(cpu, mstatus=1 << 19), pointer, True) == pointer


def test_arrays_of_pointers_are_masked_as_single_ones_are() -> None:
    source = random.Random(1)
    pointers = [source.getrandbits(64) for _ in range(500)]
    kinds = [Kind(source.randrange(4)) for _ in pointers]
    users = [source.random() < 0.5 for _ in pointers]
    mxrs = [source.random() < 0.3 for _ in pointers]
    for pmms in ((0, 2), (3, 0), (2, 3), (3, 2)):
        cpu = Cpu(9 << 60, menvcfg=pmms[0] << 32, senvcfg=pmms[1] << 32)
        found = bulk.transformed(
            cpu,
            np.array(pointers, np.uint64),
            np.array(kinds, np.uint8),
            np.array(users),
            np.array(mxrs),
        )
        assert found.tolist() == [
            pointer
            if kind is Kind.FETCH
            else transformed(replace(cpu, mstatus=mxr << 19), pointer, user)
            for pointer, kind, user, mxr in zip(pointers, kinds, users, mxrs, strict=True)
        ]


# MPRV and MPP of mstatus, the mode the hart runs in, and as whom a load and a fetch are made.
PRIVILEGES = [
    (0, "M", None, None),
    (0, "S", "S", "S"),
    (0, "U", "U", "U"),
    (1 << 17, "M", "U", None),
    (1 << 17 | 1 << 11, "M", "S", None),
    (1 << 17 | 3 << 11, "M", None, None),
    (1 << 11, "M", None, None),
]


@pytest.mark.parametrize(("mstatus", "runs", "load", "fetch"), PRIVILEGES)
def test_mprv_makes_data_accesses_of_m_mode_those_of_mpp(
    mstatus: int, runs: str, load: str | None, fetch: str | None
) -> None:
    cpu = Cpu(8 << 60, mstatus=mstatus)
    for kind in Kind:
        wanted = fetch if kind is Kind.FETCH else load
        made = access_from(cpu, Privilege[runs], kind)
        assert made == (None if wanted is None else Access(kind, wanted == "U"))
