"""What single accesses come to, by hand: each rule of "Virtual Address Translation Process"."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv import bulk
from harness.paging.riscv.access import Access, Allowed, Cause, Fault, Kind, outcome
from harness.paging.riscv.cpu import Cpu, Mode

V, R, W, X, U, G, A, D = (1 << number for number in range(8))
SUM, MXR, ADUE, PBMTE = 1 << 18, 1 << 19, 1 << 61, 1 << 62
RAM = 0x8000_0000
READ, WRITE, FETCH, AMO = Kind


def space(leaf: int, above: int = V) -> BufferMemory:
    """Memory with a way of an Sv39 hart to one entry, from a root at its beginning: virtual 0x1000
    is the page of `leaf`, whose address is added here."""
    words = np.zeros((3, 512), np.uint64)
    words[0, 0] = RAM + 0x1000 >> 2 | V
    words[1, 0] = RAM + 0x2000 >> 2 | above
    words[2, 1] = leaf
    return BufferMemory(words.view(np.uint8).reshape(-1), RAM)


def comes_to(cpu: Cpu, memory: BufferMemory, pointer: int, access: Access) -> str:
    """The outcome in short; arrays give the same."""
    found = outcome(cpu, memory, Virtual(pointer), access)
    many = bulk.outcomes(
        cpu,
        memory,
        np.array([pointer], np.uint64),
        np.array([access.kind], np.uint8),
        np.array([access.user]),
    )
    if isinstance(found, Allowed):
        assert many.cause[0] == bulk.ALLOWED and many.walks.physical[0] == found.physical
        marks = "A" * len(found.accessed) + ("D" if found.dirty else "")
        return f"reaches {found.physical:#x} {marks}".rstrip()
    assert isinstance(found, Fault)
    assert many.cause[0] == found.cause and bulk.REASONS[many.reason[0]] is found.reason
    assert many.walks.address[0] == found.tval and not many.sets[0]
    where = "" if found.tval == pointer else f" tval {found.tval:#x}"
    return f"{int(found.cause)} {found.reason.name}{where}"


CPU = Cpu.in_mode(Mode.SV39, RAM)
PAGE = 0x1234_5000 >> 2 | V

# mstatus, menvcfg, the leaf, the access by kind and user, and what it comes to.
ACCESSES = [
    (0, 0, R | A, READ, False, "reaches 0x12345008"),
    (0, ADUE, R, READ, False, "reaches 0x12345008 A"),
    (0, ADUE, R | W | A, WRITE, False, "reaches 0x12345008 AD"),
    (0, ADUE, R | W | A, AMO, False, "reaches 0x12345008 AD"),
    (0, ADUE, R | W | A, READ, False, "reaches 0x12345008 A"),
    (0, 0, R, READ, False, "13 NOT_ACCESSED"),
    (0, 0, R | X, FETCH, False, "12 NOT_ACCESSED"),
    (0, 0, R | W | A, WRITE, False, "15 NOT_DIRTY"),
    (0, 0, R | W | A, AMO, False, "15 NOT_DIRTY"),
    (0, 0, R | W | D, READ, False, "13 NOT_ACCESSED"),
    (0, 0, R | W | A, READ, False, "reaches 0x12345008"),
    (0, 0, X | A, READ, False, "13 READ_DENIED"),
    (MXR, 0, X | A, READ, False, "reaches 0x12345008"),
    (MXR, 0, X | A | D, WRITE, False, "15 WRITE_DENIED"),
    (MXR, 0, X | A | D, AMO, False, "15 WRITE_DENIED"),
    (0, 0, X | A | D, AMO, False, "15 WRITE_DENIED"),
    (0, 0, R | A, AMO, False, "15 WRITE_DENIED"),
    (0, 0, R | W | A | D, FETCH, False, "12 EXECUTE_DENIED"),
    (0, 0, R | A, READ, True, "13 USER_DENIED"),
    (SUM, 0, R | A, READ, True, "13 USER_DENIED"),
    (0, 0, R | U | A, READ, True, "reaches 0x12345008"),
    (0, 0, R | U | A, READ, False, "13 SUM"),
    (SUM, 0, R | U | A, READ, False, "reaches 0x12345008"),
    (0, 0, R | X | U | A, FETCH, False, "12 SUPERVISOR_FETCH"),
    (SUM, 0, R | X | U | A, FETCH, False, "12 SUPERVISOR_FETCH"),
    (0, 0, R | X | U | A, FETCH, True, "reaches 0x12345008"),
    (0, 0, W | A, READ, False, "13 RESERVED"),
    (0, 0, W | X | A, FETCH, False, "12 RESERVED"),
    (0, 0, A, READ, False, "13 RESERVED"),
    (0, 0, 0, WRITE, False, "15 RESERVED"),
    (0, 0, R | A | 1 << 61, READ, False, "13 RESERVED"),
    (0, PBMTE, R | A | 1 << 61, READ, False, "reaches 0x12345008"),
    (0, PBMTE, R | A | 3 << 61, READ, False, "13 RESERVED"),
    (0, PBMTE, R | A | 1 << 63, READ, False, "13 RESERVED"),
    (0, PBMTE, R | A | 1 << 54, AMO, False, "15 RESERVED"),
]


@pytest.mark.parametrize(("mstatus", "menvcfg", "bits", "kind", "user", "text"), ACCESSES)
def test_an_access_comes_to_what_the_manual_says(
    mstatus: int, menvcfg: int, bits: int, kind: Kind, user: bool, text: str
) -> None:
    cpu = replace(CPU, mstatus=mstatus, menvcfg=menvcfg)
    assert comes_to(cpu, space(PAGE | bits), 0x1008, Access(kind, user)) == text


def test_pointers_with_what_is_reserved_fault() -> None:
    for bits, text in ((G, "reaches 0x12345008"), (U, "13 RESERVED"), (A, "13 RESERVED")):
        memory = space(PAGE | R | A, V | bits)
        assert comes_to(CPU, memory, 0x1008, Access(READ, False)) == text


@pytest.mark.parametrize("kind", Kind)
def test_where_no_memory_holds_the_table_the_cause_is_an_access_fault(kind: Kind) -> None:
    memory = space(0)
    memory.octets.view(np.uint64)[512] = 0x9000_0000 >> 2 | V
    cause = {READ: 5, WRITE: 7, FETCH: 1, AMO: 7}[kind]
    assert comes_to(CPU, memory, 0x1000, Access(kind, True)) == f"{cause} NO_MEMORY"
    nowhere = Cpu.in_mode(Mode.SV39, 0)
    assert comes_to(nowhere, memory, 0x1000, Access(kind, True)) == f"{cause} NO_MEMORY"


@pytest.mark.parametrize("kind", Kind)
def test_an_address_that_is_not_canonical_is_a_page_fault_of_its_kind(kind: Kind) -> None:
    cause = {READ: 13, WRITE: 15, FETCH: 12, AMO: 15}[kind]
    for bit in range(39, 64):
        for pointer in (1 << bit, (1 << 64) - 1 ^ 1 << bit):
            found = comes_to(CPU, space(0), pointer, Access(kind, False))
            assert found == f"{cause} NOT_CANONICAL"
    assert comes_to(CPU, space(0), 1 << 38, Access(kind, False)) == f"{cause} NOT_CANONICAL"


def test_tval_is_the_address_without_its_tag_but_in_fetches() -> None:
    cpu = replace(CPU, senvcfg=3 << 32)
    tagged, memory = 0xABCD_0000_0000_1008, space(PAGE | R | X | A)
    said = "13 USER_DENIED tval 0x1008"
    assert comes_to(cpu, memory, tagged, Access(READ, True)) == said
    assert comes_to(cpu, memory, tagged, Access(READ, False)) == "13 NOT_CANONICAL"
    assert comes_to(cpu, memory, tagged, Access(FETCH, True)) == "12 NOT_CANONICAL"


def test_all_sixteen_entries_of_a_64k_page_lead_to_their_own_4k_of_it() -> None:
    memory = space(0)
    memory.octets.view(np.uint64)[1024:1040] = 0x1235_0000 >> 2 | 8 << 10 | 1 << 63 | V | R | A
    for slot in range(16):
        address = slot << 12 | 0x10
        for svnapot, text in (
            (True, f"reaches {0x1235_0000 | address:#x}"),
            (False, "13 RESERVED"),
        ):
            cpu = replace(CPU, svnapot=svnapot)
            assert comes_to(cpu, memory, address, Access(READ, False)) == text


def test_sv32_reaches_addresses_of_34_bits() -> None:
    words = np.zeros((2, 1024), np.uint32)
    words[0, 1] = RAM + 0x1000 >> 2 | V
    words[1, 2] = 0x3_FFFF_F000 >> 2 | V | R | A
    words[0, 2] = 0x3_FFC0_0000 >> 2 | V | R | A
    memory, cpu = BufferMemory(words.view(np.uint8).reshape(-1), RAM), Cpu.in_mode(Mode.SV32, RAM)
    assert comes_to(cpu, memory, 0x40_2004, Access(READ, False)) == "reaches 0x3fffff004"
    assert comes_to(cpu, memory, 0x8F_F00C, Access(READ, False)) == "reaches 0x3ffcff00c"


def test_an_address_wider_than_the_registers_is_refused() -> None:
    memory, cpu = BufferMemory(bytearray(0x1000)), Cpu.in_mode(Mode.SV32, 0)
    with pytest.raises(ValueError, match="no address 0x100000000 on a hart of 32 bits"):
        outcome(cpu, memory, Virtual(1 << 32), Access(READ, True))
    with pytest.raises(ValueError, match="no address 0x100000000 on a hart of 32 bits"):
        bulk.outcomes(
            *(cpu, memory, np.array([1 << 32], np.uint64)),
            *(np.zeros(1, np.uint8), np.array([True])),
        )


def test_sum_and_mxr_may_be_those_of_each_lane() -> None:
    memory, n = space(PAGE | X | U | A), 4
    many = bulk.outcomes(
        CPU,
        memory,
        np.full(n, 0x1000, np.uint64),
        np.full(n, READ, np.uint8),
        np.zeros(n, np.bool_),
        sum=np.array([False, True, False, True]),
        mxr=np.array([False, False, True, True]),
    )
    names = [reason and reason.name for reason in map(bulk.REASONS.__getitem__, many.reason)]
    assert names == ["SUM", "READ_DENIED", "SUM", None]


def test_no_accesses_come_to_nothing() -> None:
    none = np.zeros(0, np.bool_)
    for mode in Mode:
        many = bulk.outcomes(
            Cpu.in_mode(mode, 0),
            BufferMemory(bytearray(0x1000)),
            *(np.zeros(0, np.uint64), np.zeros(0, np.uint8), none),
        )
        assert len(many.cause) == len(many.sets) == 0


def test_the_kinds_that_write_are_told() -> None:
    kinds = np.array(list(Kind), np.uint8)
    assert [Kind(kind) for kind in kinds[bulk.writes(kinds)]] == [WRITE, AMO]
    assert [kind for kind in Kind if kind.writes] == [WRITE, AMO]


def test_accesses_are_named() -> None:
    assert str(Access(AMO, True)) == "user AMO" and str(Access(READ, False)) == "supervisor read"


def test_causes_are_called_as_in_the_table_of_scause() -> None:
    assert {int(cause): cause.called for cause in Cause} == {
        1: "instruction access fault",
        5: "load access fault",
        7: "store/AMO access fault",
        12: "instruction page fault",
        13: "load page fault",
        15: "store/AMO page fault",
    }
