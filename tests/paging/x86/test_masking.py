"""Linear-address masking: which bits of a pointer may hold metadata (SDM volume 3A, on LAM)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.paging.address import Virtual
from harness.paging.x86.access import Fault, Kind, outcome
from harness.paging.x86.bulk import linear_addresses
from harness.paging.x86.cpu import Cpu, Cr4, Mode, linear
from tests.paging.x86.made import ALL, FETCH, READ, comes_to, implicit, memory, path, user

U57, U48, SUP = 1 << 61, 1 << 62, Cr4.LAM_SUP
LEVEL_4, LEVEL_5 = Mode.LEVEL_4, Mode.LEVEL_5

LOW, HIGH = 0x0000_1234_5678_9ABC, 0xFFFF_9234_5678_9ABC

# Mode, CR3, CR4, the pointer, and its address; 0 for none, since it is not canonical.
POINTERS = [
    (LEVEL_4, U48, 0, 0x7FFF_1234_5678_9ABC, LOW),
    (LEVEL_4, U48, 0, 0x0001_1234_5678_9ABC, LOW),
    (LEVEL_4, U48, 0, 0x4000_1234_5678_9ABC, LOW),
    (LEVEL_4, U48, 0, 0x7FFF_9234_5678_9ABC, 0),  # bit 47 is not bit 63
    (LEVEL_4, U57, 0, 0x7E00_1234_5678_9ABC, LOW),
    (LEVEL_4, U57, 0, 0x0100_1234_5678_9ABC, 0),  # bit 56 is no metadata
    (LEVEL_4, U57, 0, 0x0001_1234_5678_9ABC, 0),
    (LEVEL_4, U57 | U48, 0, 0x0001_1234_5678_9ABC, 0),  # U57 wins
    (LEVEL_4, U57 | U48, 0, 0x7E00_1234_5678_9ABC, LOW),
    (LEVEL_4, U48, 0, 0xFFFE_9234_5678_9ABC, 0),  # a supervisor pointer
    (LEVEL_4, U48, 0, HIGH, HIGH),
    (LEVEL_4, 0, SUP, 0x8000_9234_5678_9ABC, HIGH),
    (LEVEL_4, 0, SUP, 0xA5A5_9234_5678_9ABC, HIGH),
    (LEVEL_4, 0, SUP, 0x8000_1234_5678_9ABC, 0),  # bit 47 is not bit 63
    (LEVEL_4, 0, SUP, 0x4000_1234_5678_9ABC, 0),  # a user pointer
    (LEVEL_4, 0, 0, 0x0001_1234_5678_9ABC, 0),
    (LEVEL_5, U48, 0, 0x7FFF_1234_5678_9ABC, LOW),
    (LEVEL_5, U48, 0, 0x00FF_1234_5678_9ABC, LOW),  # what U48 masks is never translated
    (LEVEL_5, U48, 0, 0x0000_9234_5678_9ABC, 0),  # bit 47 is not bit 63
    (LEVEL_5, U57, 0, 0x7E00_9234_5678_9ABC, 0x0000_9234_5678_9ABC),
    (LEVEL_5, U57, 0, 0x7EFF_1234_5678_9ABC, 0x00FF_1234_5678_9ABC),
    (LEVEL_5, U57, 0, 0x7F00_1234_5678_9ABC, 0),  # bit 56 is not bit 63
    (LEVEL_5, 0, SUP, 0x8100_1234_5678_9ABC, 0xFF00_1234_5678_9ABC),
    (LEVEL_5, 0, SUP, 0xFE00_1234_5678_9ABC, 0),  # bit 56 is not bit 63
]


def machine(mode: Mode, cr3: int, cr4: int) -> Cpu:
    return replace(Cpu.in_mode(mode, cr3, cr4=cr4), lam=True)


@pytest.mark.parametrize(("mode", "cr3", "cr4", "pointer", "address"), POINTERS)
def test_metadata_is_masked_and_what_is_left_must_be_canonical(
    mode: Mode, cr3: int, cr4: int, pointer: int, address: int
) -> None:
    cpu = machine(mode, cr3, cr4)
    text = comes_to(cpu, memory({}), pointer, user(READ))
    assert text == ("#PF(04) NOT_PRESENT" if address else "#GP(00) NOT_CANONICAL")
    if address:
        assert linear(cpu, Virtual(pointer)) == address
        fault = outcome(cpu, memory({}), Virtual(pointer), user(READ))
        assert isinstance(fault, Fault) and fault.cr2 == address


@pytest.mark.parametrize(
    ("mode", "pointer", "text"),
    [
        (LEVEL_4, 0x7E00_1234_5678_9ABC, "NOT_CANONICAL"),
        (LEVEL_4, 0x8000_9234_5678_9ABC, "NOT_CANONICAL"),
        (LEVEL_4, LOW, "NOT_PRESENT"),
        (LEVEL_4, HIGH, "NOT_PRESENT"),
        (LEVEL_5, 0x7E00_1234_5678_9ABC, "NOT_CANONICAL"),
        (LEVEL_5, 0x8100_1234_5678_9ABC, "NOT_CANONICAL"),
        (LEVEL_5, 0x00FF_1234_5678_9ABC, "NOT_PRESENT"),
    ],
)
def test_a_fetch_and_a_cpu_without_lam_have_no_metadata(
    mode: Mode, pointer: int, text: str
) -> None:
    cpu = machine(mode, U57 | U48, SUP)
    assert comes_to(cpu, memory({}), pointer, user(FETCH)).endswith(text)
    assert comes_to(replace(cpu, lam=False), memory({}), pointer, user(READ)).endswith(text)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not FETCH])
def test_all_data_accesses_are_masked_stacks_and_system_structures_too(kind: Kind) -> None:
    cpu = machine(LEVEL_4, U48, 0)
    for access in (user(kind), implicit(kind)):
        assert comes_to(cpu, memory({}), 1 << 62, access).endswith("NOT_PRESENT")


def test_the_page_is_found_at_the_masked_address() -> None:
    cpu, where = path(machine(LEVEL_4, 0, 0), ALL, ALL, ALL, ALL)
    cpu = replace(cpu, cr3=cpu.cr3 | U57)
    assert comes_to(cpu, where, 0x2A << 57 | 0x10, user(READ)) == "reaches 0x8010"


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_there_is_no_masking_outside_long_mode(mode: Mode) -> None:
    cpu = machine(mode, U57 | U48, SUP)
    assert linear(cpu, Virtual(0xFFFF_FFFF)) == 0xFFFF_FFFF


@pytest.mark.parametrize("mode", [LEVEL_4, LEVEL_5])
@pytest.mark.parametrize("cr3", [0, U48, U57, U48 | U57])
@pytest.mark.parametrize("cr4", [0, SUP])
def test_arrays_of_pointers_are_masked_as_single_ones_are(mode: Mode, cr3: int, cr4: int) -> None:
    cpu = machine(mode, cr3, cr4)
    pointers = np.random.default_rng(1).integers(0, 1 << 64, 500, np.uint64)
    masked = linear_addresses(cpu, pointers, np.zeros(500, np.uint8)).tolist()
    assert masked == [linear(cpu, Virtual(pointer)) for pointer in pointers.tolist()]
    fetched = linear_addresses(cpu, pointers, np.full(500, FETCH, np.uint8))
    assert fetched.tolist() == pointers.tolist()
