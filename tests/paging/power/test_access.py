"""What single accesses come to, written from the manual's tables: encoded access authority, key 0,
storage attributes, DSISR and SRR1, with both sizes of page tables in one tree."""

from __future__ import annotations

import numpy as np
import pytest

from harness.paging.address import Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.power import Access, Allowed, Cpu, Fault, Kind, bulk, outcome
from harness.paging.power.access import Interrupt, Unbacked

V, L = 1 << 63, 1 << 62
PRIV, R, RW, X = 8, 4, 2, 1
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
GIGABYTES, LARGE, SMALL = 0x10000, 0x11000, 0x12000


def memory(bits: int) -> BigEndianMemory:
    """A tree with a page of 4K at 0x1000 and of 64K at 0x210000, and one of 2M at 0x400000."""
    made = BigEndianMemory(bytearray(0x20000))
    words = {
        0: V | GIGABYTES | 9,
        GIGABYTES: V | LARGE | 9,
        LARGE: V | SMALL | 9,
        LARGE + 8: V | (SMALL + 0x900) | 5,
        LARGE + 16: V | L | 0x1234_5678_9000 | bits,
        SMALL + 8: V | L | 0x7654_3000 | bits,
        SMALL + 0x908: V | L | 0x7654_3000 | bits,
    }
    for address, word in words.items():
        made.octets[address : address + 8] = list(word.to_bytes(8, "big"))
    return made


def comes_to(cpu: Cpu, made: BigEndianMemory, address: int, access: Access) -> str:
    found = outcome(cpu, made, Virtual(address), access)
    if isinstance(found, Fault):
        return f"{found.interrupt:#x} {found.status:#x} {found.reason.name}"
    assert isinstance(found, Allowed)
    return (
        f"reaches {found.physical:#x} {'R' if found.accessed else ''}{'C' if found.dirty else ''}"
    )


ACCESSES = [
    (R, READ, False, "reaches 0x76543008 R"),
    (R, READ, True, "reaches 0x76543008 R"),
    (R, WRITE, True, "0x300 0xa000000 WRITE_DENIED"),
    (R, FETCH, True, "0x400 0x10000000 EXECUTE_DENIED"),
    (RW, READ, True, "reaches 0x76543008 R"),
    (RW, WRITE, False, "reaches 0x76543008 RC"),
    (X, READ, False, "0x300 0x8000000 READ_DENIED"),
    (X, FETCH, False, "reaches 0x76543008 R"),
    (R | X | PRIV, READ, True, "0x300 0x8000000 PRIVILEGED"),
    (R | X | PRIV, FETCH, True, "0x400 0x10000000 PRIVILEGED"),
    (R | X | PRIV, FETCH, False, "reaches 0x76543008 R"),
    (R | X | 0x20, FETCH, False, "0x400 0x10000000 GUARDED"),
    (R | X | 0x30, FETCH, False, "reaches 0x76543008 R"),
    (R | X | 0x10, FETCH, False, "reaches 0x76543008 R"),
    (R | RW | 0x20, WRITE, False, "reaches 0x76543008 RC"),
]


@pytest.mark.parametrize(("bits", "kind", "user", "text"), ACCESSES)
@pytest.mark.parametrize("page_bits", [12, 16])
def test_an_access_comes_to_what_the_manual_says(
    page_bits: int, bits: int, kind: Kind, user: bool, text: str
) -> None:
    cpu = Cpu.of(0, page_bits=page_bits)
    assert comes_to(cpu, memory(bits), 0x1008, Access(kind, user)) == text


@pytest.mark.parametrize("page_bits", [12, 16])
def test_a_tree_may_have_page_tables_of_both_sizes(page_bits: int) -> None:
    cpu, read = Cpu.of(0, page_bits=page_bits), Access(READ, False)
    assert comes_to(cpu, memory(R), 0x1FF8, read) == "reaches 0x76543ff8 R"
    assert comes_to(cpu, memory(R), 0x21FFF8, read) == "reaches 0x7654fff8 R"
    assert comes_to(cpu, memory(R), 0x5FFFF8, read) == "reaches 0x1234567ffff8 R"
    assert comes_to(cpu, memory(R), 0x220000, read) == "0x300 0x40000000 NOT_PRESENT"


def test_key_0_denies_others_the_pages_of_the_user() -> None:
    stores, loads = 1 << 63, 1 << 62
    for amr, iamr, kind, text in (
        (stores, 0, READ, "reaches 0x76543008 R"),
        (stores, 0, WRITE, "0x300 0xa000000 KEY"),
        (loads, 0, READ, "0x300 0x8000000 KEY"),
        (loads, 0, WRITE, "reaches 0x76543008 RC"),
        (~0 & 2**64 - 1, 0, FETCH, "reaches 0x76543008 R"),
        (0, loads, FETCH, "0x400 0x10000000 KEY"),
        (0, stores, FETCH, "reaches 0x76543008 R"),
    ):
        cpu, mine = Cpu.of(0, amr=amr, iamr=iamr), R | RW | X
        assert comes_to(cpu, memory(mine), 0x1008, Access(kind, False)) == text
        assert "reaches" in comes_to(cpu, memory(mine), 0x1008, Access(kind, True))
        assert "reaches" in comes_to(cpu, memory(mine | PRIV), 0x1008, Access(kind, False))


def test_amr_and_iamr_can_be_given_for_each_access() -> None:
    """Instead of the processor's, which deny all of these."""
    cpu, stores, loads = Cpu.of(0, amr=3 << 62, iamr=3 << 62), 1 << 63, 1 << 62
    found = bulk.outcomes(
        cpu,
        memory(R | RW | X),
        np.full(6, 0x1008, np.uint64),
        np.array([READ, READ, WRITE, WRITE, FETCH, FETCH], np.uint8),
        np.zeros(6, np.bool_),
        np.array([stores, loads, loads, stores, loads, 0], np.uint64),
        np.array([loads, 0, loads, 0, stores, loads], np.uint64),
    )
    assert (found.interrupt != 0).tolist() == [False, True, False, True, False, True]


def test_what_no_tree_translates_is_a_segment_interrupt() -> None:
    cpu = Cpu.of(0)
    for address, kind, text in (
        (1 << 52, READ, "0x380 0x0 SEGMENT"),
        (1 << 61, WRITE, "0x380 0x0 SEGMENT"),
        (1 << 57, FETCH, "0x480 0x0 SEGMENT"),
        (3 << 62, WRITE, "0x300 0x2080000 BAD_TREE"),
        (3 << 62 | 1 << 52, FETCH, "0x480 0x0 SEGMENT"),
    ):
        assert comes_to(cpu, memory(R), address, Access(kind, False)) == text


def test_what_sets_r_and_c_is_the_processor_or_the_software() -> None:
    """R and C are bits 55 and 56 of an entry as the manual counts."""
    referenced, changed = 1 << 63 - 55, 1 << 63 - 56
    for marks, kind, text in (
        (0, READ, "0x300 0x40000 NOT_REFERENCED"),
        (0, WRITE, "0x300 0x2040000 NOT_REFERENCED"),
        (0, FETCH, "0x400 0x40000 NOT_REFERENCED"),
        (changed, WRITE, "0x300 0x2040000 NOT_REFERENCED"),
        (referenced, READ, "reaches 0x76543008 "),
        (referenced, FETCH, "reaches 0x76543008 "),
        (referenced, WRITE, "0x300 0x2040000 NOT_CHANGED"),
        (referenced | changed, WRITE, "reaches 0x76543008 "),
    ):
        made, access = memory(RW | X | marks), Access(kind, True)
        assert comes_to(Cpu.of(0, sets_marks=False), made, 0x1008, access) == text
        sets = "RC" if kind is WRITE else "R"
        assert comes_to(Cpu.of(0), made, 0x1008, access) == f"reaches 0x76543008 {sets}"
    denied = Access(WRITE, True)
    assert comes_to(Cpu.of(0, sets_marks=False), memory(R), 0x1008, denied).endswith("WRITE_DENIED")


@pytest.mark.parametrize(
    ("word", "level", "reason"),
    [(0, 1, "NOT_PRESENT"), (V | SMALL | 7, 1, "UNSUPPORTED"), (V | SMALL | 9, 0, "READ_DENIED")],
)
def test_a_fault_says_at_which_level_the_walk_ended(word: int, level: int, reason: str) -> None:
    made = memory(0)
    made.octets[LARGE : LARGE + 8] = list(word.to_bytes(8, "big"))
    found = outcome(Cpu.of(0), made, Virtual(0x1008), Access(READ, False))
    assert isinstance(found, Fault)
    assert (found.level, found.reason.name, found.address) == (level, reason, 0x1008)


def test_an_entry_where_no_memory_is_is_a_machine_check() -> None:
    made = memory(R)
    made.octets[LARGE : LARGE + 8] = list((V | 0x4000_0000 | 9).to_bytes(8, "big"))
    found = outcome(Cpu.of(0), made, Virtual(0x1008), Access(READ, False))
    assert isinstance(found, Unbacked)
    assert (found.slot.address, found.slot.level) == (0x4000_0008, 0)


def test_the_first_and_the_last_address_are_ones() -> None:
    cpu, made = Cpu.of(0), memory(R)
    for address in (0, (1 << 64) - 1):
        assert "reaches" not in comes_to(cpu, made, address, Access(READ, False))
    with pytest.raises(ValueError, match="there is no address -0x1 of 64 bits"):
        outcome(cpu, made, Virtual(-1), Access(READ, False))


def test_interrupts_and_accesses_are_called_as_in_the_manual() -> None:
    assert [one.called for one in Interrupt] == [
        "data storage interrupt",
        "data segment interrupt",
        "instruction storage interrupt",
        "instruction segment interrupt",
    ]
    assert str(Access(FETCH, True)) == "problem-state fetch"
    assert str(Access(WRITE, False)) == "privileged write"
