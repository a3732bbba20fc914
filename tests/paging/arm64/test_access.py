"""What single accesses come to, by hand: each check of AArch64.S1Translate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.paging.address import Virtual
from harness.paging.arm64 import bulk
from harness.paging.arm64.access import Access, Allowed, Fault, Kind, judge, outcome
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.bulk import walk as walk_many
from harness.paging.memory import BufferMemory
from harness.paging.walk import walk

AP1, AP2, AF, DBM, PXN, UXN = 1 << 6, 1 << 7, 1 << 10, 1 << 51, 1 << 53, 1 << 54
NO_EL0, READ_ONLY, UXN_TABLE, PXN_TABLE = 1 << 61, 1 << 62, 1 << 60, 1 << 59
RAM = 0x4000_0000
READ, WRITE, FETCH, AMO, LDTR, STTR = Kind
PAGE = 0x1234_5000 | 3


def space(leaf: int, above: int = 0) -> BufferMemory:
    """Memory with a way to one descriptor of granules of 4K and 39 bits, from a root at its
    beginning: the page at 0x1000 of either half."""
    words = np.zeros((3, 512), np.uint64)
    words[0, 0] = RAM + 0x1000 | 3
    words[1, 0] = RAM + 0x2000 | 3 | above
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
        np.array([access.el0]),
        aligned=np.array([access.aligned]),
    )
    if isinstance(found, Allowed):
        assert not many.syndrome[0] and many.walks.physical[0] == found.physical
        marks = ("A" if many.changes[0] >> 10 & 1 else "") + ("D" if found.dirty else "")
        assert not found.accessed or cpu.sets_access_flag
        return f"reaches {found.physical:#x} {marks}".rstrip()
    assert isinstance(found, Fault)
    assert many.syndrome[0] == found.syndrome and bulk.REASONS[many.reason[0]] is found.reason
    assert many.far[0] == found.far and not many.changes[0]
    assert many.may[0] == found.may_access << 10
    where = "" if found.far == pointer else f" far {found.far:#x}"
    return (
        f"{found.syndrome >> 26:#x} {found.status:06b} {'w' if found.write else 'r'}"
        f" {found.reason.name}{where}"
    )


LOW = Half("4K", 39, RAM)
CPU = Cpu.of(LOW, LOW)

# What the processor has besides, the leaf, the access by kind and EL0, and what it comes to.
ACCESSES = [
    ({}, AF, READ, False, "reaches 0x12345008"),
    ({}, AF, WRITE, False, "reaches 0x12345008"),
    ({}, AF, READ, True, "0x24 001111 r READ_DENIED"),
    ({}, AF, WRITE, True, "0x24 001111 w READ_DENIED"),
    ({}, AF, AMO, True, "0x24 001111 r READ_DENIED"),
    ({}, AF | AP1, AMO, True, "reaches 0x12345008"),
    ({}, AF | AP1 | AP2, WRITE, True, "0x24 001111 w WRITE_DENIED"),
    ({}, AF | AP1 | AP2, AMO, True, "0x24 001111 w WRITE_DENIED"),
    ({}, AF | AP2, AMO, False, "0x25 001111 w WRITE_DENIED"),
    ({}, 0, WRITE, False, "0x25 001011 w ACCESS_FLAG"),
    ({}, 0, AMO, False, "0x25 001011 r ACCESS_FLAG"),
    ({}, AP2, WRITE, False, "0x25 001011 w ACCESS_FLAG"),
    ({}, AF, FETCH, False, "reaches 0x12345008"),
    ({}, AF, FETCH, True, "reaches 0x12345008"),
    ({}, AF | UXN, FETCH, True, "0x20 001111 r EXECUTE_DENIED"),
    ({}, AF | UXN, FETCH, False, "reaches 0x12345008"),
    ({}, AF | PXN, FETCH, False, "0x21 001111 r EXECUTE_DENIED"),
    ({}, AF | AP1, FETCH, False, "0x21 001111 r EL0_WRITABLE"),
    ({}, AF | AP1 | AP2, FETCH, False, "reaches 0x12345008"),
    ({"wxn": True}, AF, FETCH, False, "0x21 001111 r WXN"),
    ({"wxn": True}, AF, FETCH, True, "reaches 0x12345008"),
    ({"wxn": True}, AF | AP1, FETCH, True, "0x20 001111 r WXN"),
    ({"wxn": True}, AF | AP2, FETCH, False, "reaches 0x12345008"),
    ({"pan": True}, AF | AP1, READ, False, "0x25 001111 r PAN"),
    ({"pan": True}, AF | AP1, WRITE, False, "0x25 001111 w PAN"),
    ({"pan": True}, AF | AP1, AMO, False, "0x25 001111 r PAN"),
    ({"pan": True}, AF | AP1 | AP2, FETCH, False, "reaches 0x12345008"),
    ({"pan": True}, AF | AP1, READ, True, "reaches 0x12345008"),
    ({"pan": True}, AF | AP1, LDTR, False, "reaches 0x12345008"),
    ({"pan": True, "uao": True}, AF | AP1, LDTR, False, "0x25 001111 r PAN"),
    ({"pan": True}, AF, READ, False, "reaches 0x12345008"),
    ({"pan": True, "epan": True}, AF, READ, False, "0x25 001111 r PAN"),
    ({"pan": True, "epan": True}, AF | UXN, READ, False, "reaches 0x12345008"),
    ({}, AF, LDTR, False, "0x25 001111 r READ_DENIED"),
    ({"uao": True}, AF, LDTR, False, "reaches 0x12345008"),
    ({}, AF | AP1 | AP2, STTR, False, "0x25 001111 w WRITE_DENIED"),
    ({"ha": True}, 0, READ, False, "reaches 0x12345008 A"),
    ({"ha": True}, AP2, WRITE, False, "0x25 001111 w WRITE_DENIED"),
    ({"ha": True}, AP2 | DBM, WRITE, False, "0x25 001111 w WRITE_DENIED"),
    ({"ha": True, "hd": True}, AP2 | DBM, WRITE, False, "reaches 0x12345008 AD"),
    ({"ha": True, "hd": True}, AP2 | DBM, READ, False, "reaches 0x12345008 A"),
    ({"ha": True, "hd": True}, AF | AP2 | DBM, AMO, False, "reaches 0x12345008 D"),
    ({"ha": True, "hd": True}, AP2, WRITE, False, "0x25 001111 w WRITE_DENIED"),
    ({"ha": True, "hd": True}, AF | AP1 | AP2 | DBM, FETCH, False, "0x21 001111 r EL0_WRITABLE"),
    ({"ha": True, "hd": True, "wxn": True}, AF | AP2 | DBM, FETCH, False, "0x21 001111 r WXN"),
    ({"ha": True, "hd": True}, AF, WRITE, False, "reaches 0x12345008"),  # without DBM, software's
    ({"hd": True}, AF | AP2 | DBM, WRITE, False, "0x25 001111 w WRITE_DENIED"),
]


@pytest.mark.parametrize(("state", "bits", "kind", "el0", "text"), ACCESSES)
def test_an_access_comes_to_what_the_manual_says(
    state: dict[str, bool], bits: int, kind: Kind, el0: bool, text: str
) -> None:
    cpu = Cpu.of(LOW, LOW, **state)  # type: ignore[arg-type]
    assert comes_to(cpu, space(PAGE | bits), 0x1008, Access(kind, el0)) == text


def test_tables_withhold_unless_hpd() -> None:
    free = Cpu.of(replace(LOW, hpd=True), None)
    for bits, kind, el0, text in (
        (NO_EL0, READ, True, "0x24 001111 r READ_DENIED"),
        (NO_EL0, FETCH, False, "reaches 0x12345008"),  # EL0 does not write there any more
        (READ_ONLY, WRITE, False, "0x25 001111 w WRITE_DENIED"),
        (UXN_TABLE, FETCH, True, "0x20 001111 r EXECUTE_DENIED"),
        (PXN_TABLE | READ_ONLY, FETCH, False, "0x21 001111 r EXECUTE_DENIED"),
    ):
        memory, access = space(PAGE | AF | AP1, bits), Access(kind, el0)
        assert comes_to(CPU, memory, 0x1008, access) == text
        if kind is not FETCH or el0:
            assert comes_to(free, memory, 0x1008, access) == "reaches 0x12345008"


def test_before_a_descriptor_is_read() -> None:
    memory, read = space(PAGE | AF | AP1), Access(READ, True)
    hole, high = 1 << 39, (1 << 64) - (1 << 39) + 0x1008
    assert comes_to(CPU, memory, high, read) == "reaches 0x12345008"
    assert comes_to(CPU, memory, hole, read) == "0x24 000100 r OUT_OF_RANGE"
    assert comes_to(CPU, memory, (1 << 55) | hole, read) == "0x24 000100 r OUT_OF_RANGE"
    off = Cpu.of(None, LOW)
    assert comes_to(off, memory, 0x1008, Access(WRITE, False)) == "0x25 000100 w HALF_OFF"
    kept = Cpu.of(LOW, replace(LOW, e0pd=True))
    assert comes_to(kept, memory, high, read) == "0x24 000100 r EL0_KEPT_OUT"
    assert comes_to(kept, memory, high, Access(LDTR, False)) == "0x25 000100 r EL0_KEPT_OUT"
    assert comes_to(kept, memory, high, Access(READ, False)) == "reaches 0x12345008"
    assert comes_to(kept, memory, 0x1008, read) == "reaches 0x12345008"
    far = Cpu.of(replace(LOW, root=1 << 40), None, output_bits=40)
    assert comes_to(far, memory, 0x1008, read) == "0x24 000000 r ROOT_SIZE"


def test_the_codes_have_the_level_of_the_manual() -> None:
    read = Access(READ, False)
    assert comes_to(CPU, space(0), 0x1000, read) == "0x25 000111 r INVALID"
    assert comes_to(CPU, space(PAGE & ~2 | AF), 0x1000, read) == "0x25 000111 r INVALID"
    assert comes_to(CPU, space(0), 1 << 21, read) == "0x25 000110 r INVALID"
    assert comes_to(CPU, space(0), 1 << 30, read) == "0x25 000101 r INVALID"
    small = Cpu.of(LOW, None, output_bits=32)
    assert comes_to(small, space(PAGE | AF | 1 << 32), 0x1000, read) == (
        "0x25 000011 r ADDRESS_SIZE"
    )
    nowhere = Cpu.of(replace(LOW, root=0), None)
    assert comes_to(nowhere, space(0), 0x1000, read) == "0x25 010101 r NO_MEMORY"
    wide = Cpu.of(Half("4K", 52, RAM), None, ds=True)
    for text, raw in (
        ("0x25 101011 r INVALID", 0),
        ("0x25 101011 r INVALID", 1),  # no block at level -1
        ("0x25 101001 r ADDRESS_SIZE", 3 | 1 << 48),
        ("0x25 010100 r NO_MEMORY", 3),
    ):
        memory = space(0)
        memory.octets.view(np.uint64)[0] = raw
        assert comes_to(wide, memory, 0, read) == text
    wide = replace(wide, ttbr0=0x1000)
    assert comes_to(wide, space(0), 0, read) == "0x25 010011 r NO_MEMORY"


@pytest.mark.parametrize("kind", Kind)
def test_with_sctlr_a_what_is_not_aligned_faults_before_its_address_is_translated(
    kind: Kind,
) -> None:
    """It faults alike where the address is out of range, the half is off, nothing is mapped, and
    the page may not be accessed; a fetch is no data, and what is aligned is translated."""
    plain = Cpu.of(LOW, None, ha=True)
    checks = replace(plain, sctlr=plain.sctlr | 1 << 1)
    odd = Access(kind, False, aligned=False)
    wnr = "w" if kind in (WRITE, Kind.STTR) else "r"  # an atomic's read would have had it, too
    for leaf, pointer in ((PAGE, 0x1001), (0, 0x1001), (PAGE, 1 << 40 | 1), (PAGE, 2**64 - 7)):
        memory = space(leaf)
        aligned = comes_to(plain, memory, pointer, replace(odd, aligned=True))
        assert comes_to(checks, memory, pointer, replace(odd, aligned=True)) == aligned
        found = comes_to(checks, memory, pointer, odd)
        assert found == (aligned if kind is FETCH else f"0x25 100001 {wnr} UNALIGNED")
        assert comes_to(plain, memory, pointer, odd) == aligned
    tagged = replace(checks, tcr=checks.tcr | 1 << 37)  # FAR keeps the tag
    if kind is not FETCH:
        assert comes_to(tagged, space(PAGE), 0x5A << 56 | 0x1001, odd).endswith("UNALIGNED")


def test_data_in_device_memory_must_be_aligned() -> None:
    cpu = Cpu.of(LOW, None, mair=0xFF_04, ha=True)  # index 0 is Device-nGnRE, index 1 is Normal
    odd = Access(WRITE, False, aligned=False)
    assert comes_to(cpu, space(PAGE | AF | AP2), 0x1001, odd) == "0x25 100001 w ALIGNMENT"
    assert comes_to(cpu, space(PAGE), 0x1001, odd) == "0x25 100001 w ALIGNMENT"  # AF may be set
    assert comes_to(cpu, space(PAGE | AF | 1 << 2), 0x1001, odd) == "reaches 0x12345001"
    assert comes_to(cpu, space(PAGE | AF), 0x1001, replace(odd, aligned=True)) == (
        "reaches 0x12345001"
    )


def test_arrays_take_accesses_for_aligned_unless_told() -> None:
    """In Device memory, and with SCTLR_EL1.A."""
    cpu = Cpu.of(LOW, None, mair=0, aligns=True)
    given = np.array([0x1008], np.uint64), np.array([WRITE], np.uint8), np.array([False])
    found = bulk.outcomes(cpu, space(PAGE | AF), *given)
    assert (found.syndrome[0], found.walks.physical[0]) == (0, 0x12345008)


def test_far_has_the_tag_of_a_pointer_to_data_and_not_that_of_a_branch() -> None:
    cpu = Cpu.of(replace(LOW, tbi=True), replace(LOW, tbi=True, tbid=True))
    memory, tagged = space(PAGE | AF | PXN), 0x5A << 56 | 0x1008
    assert comes_to(cpu, memory, tagged, Access(READ, False)) == "reaches 0x12345008"
    assert comes_to(cpu, memory, tagged, Access(READ, True)) == "0x24 001111 r READ_DENIED"
    assert comes_to(cpu, memory, tagged, Access(FETCH, False)) == (
        "0x21 001111 r EXECUTE_DENIED far 0x1008"
    )
    high = (0x5A << 56 | (1 << 56) - (1 << 39)) + 0x1008
    assert comes_to(cpu, memory, high, Access(READ, False)) == "reaches 0x12345008"
    assert comes_to(cpu, memory, high, Access(FETCH, False)) == "0x21 000100 r OUT_OF_RANGE"


def test_pan_and_uao_can_be_given_for_each_access() -> None:
    memory, lanes = space(PAGE | AF | AP1), 4
    found = bulk.outcomes(
        CPU,
        memory,
        np.full(lanes, 0x1008, np.uint64),
        np.array([READ, READ, LDTR, LDTR], np.uint8),
        np.zeros(lanes, np.bool_),
        pan=np.array([False, True, True, True]),
        uao=np.array([False, False, False, True]),
    )
    assert (found.syndrome != 0).tolist() == [False, True, False, True]


def test_of_a_walk_without_its_pointer_far_is_the_address() -> None:
    memory, address = space(PAGE | AF), Virtual(0x1008)
    for kind in Kind:
        found = judge(CPU, walk(memory, CPU.roots[0], address), Access(kind, True))
        assert found == outcome(CPU, memory, address, Access(kind, True))
        assert not isinstance(found, Fault) or found.far == address
        walks = walk_many(memory, CPU.roots, np.array([address], np.uint64))
        many = bulk.judge(CPU, walks, np.array([kind], np.uint8), np.array([True]))
        assert many.far.tolist() == [address]


def test_an_access_is_said_with_the_name_of_its_instruction() -> None:
    assert [f"{Access(kind, True)}" for kind in Kind] == [
        *("EL0 read", "EL0 write", "EL0 fetch", "EL0 AMO", "EL0 LDTR", "EL0 STTR"),
    ]
    assert f"{Access(LDTR, False, aligned=False)}" == "EL1 LDTR, not aligned"


def test_a_pointer_has_64_bits() -> None:
    with pytest.raises(ValueError, match="there is no address 0x10000000000000000 of 64 bits"):
        outcome(CPU, space(0), Virtual(1 << 64), Access(READ, False))
