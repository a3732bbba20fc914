"""What leads to the trees: registers, the partition table and the process table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.paging.address import Span, Virtual
from harness.paging.entry import Malformed
from harness.paging.memory import BigEndianMemory
from harness.paging.power import (
    Access,
    Cpu,
    Fault,
    Kind,
    Reason,
    bulk,
    load,
    outcome,
    root_descriptor,
)
from harness.paging.power.cpu import ChainError, is_supported, root_address, walk_of

V, L, HR = 1 << 63, 1 << 62, 1 << 63

PARTITIONS, HOST, GIGABYTES, PAGES, PROCESSES = 0x10000, 0x20000, 0x30000, 0x31000, 0x40000
"""Where the tables of the example are: the process table is at 0x80_0000 to LPID 0."""
SEEN_AT = 0x80_0000
TREE = 0x4000_0000_0000_00A0


def memory() -> BigEndianMemory:
    """A partition table, LPID 0's tree, which has one 2M page for the process table, and that."""
    made = BigEndianMemory(bytearray(1 << 20))
    words = {
        PARTITIONS: HR | TREE | HOST | 13,
        PARTITIONS + 8: SEEN_AT | 0,
        HOST: V | GIGABYTES | 9,
        GIGABYTES: V | PAGES | 9,
        PAGES + 8 * (SEEN_AT >> 21): V | L | 0x7,
        PROCESSES: TREE | 0x50000 | 13,
        PROCESSES + 16 * 5: TREE | 0x60000 | 13,
        PROCESSES + 16 * 255: TREE | 0x70000 | 13,
    }
    for address, word in words.items():
        made.octets[address : address + 8] = list(word.to_bytes(8, "big"))
    return made


def store(made: BigEndianMemory, address: int, word: int) -> BigEndianMemory:
    made.octets[address : address + 8] = list(word.to_bytes(8, "big"))
    return made


def shifted() -> BigEndianMemory:
    """The same with the process table where that page begins."""
    made = memory()
    return store(made, PARTITIONS + 8, SEEN_AT + PROCESSES)


def test_a_descriptor_holds_the_tree_as_linux_writes_it() -> None:
    # radix__get_tree_size(): RTS_FIELD | rts_field, for 52 bits 0x4000000000000000 | 0xa0.
    assert root_descriptor(0x50000) == 0x4000_0000_0005_00AD
    assert is_supported(root_descriptor(0x50000))
    assert root_address(0x4000_0000_0005_80AD) == 0x50000
    for other in (root_descriptor(0, 12), root_descriptor(0, 13, 51), root_descriptor(0, 13, 60)):
        assert not is_supported(other)
    for wrong in ((0x80, 13, 52), (0, 32, 52), (0, 13, 30), (1 << 60, 13, 52), (0x8000, 13, 52)):
        with pytest.raises(ValueError, match="a process table entry cannot"):
            root_descriptor(*wrong)


@pytest.mark.parametrize("root_bits", [5, 13, 16])
def test_a_root_is_at_a_multiple_of_its_size(root_bits: int) -> None:
    """RPDB is bits 59:8; 1 << RPDS entries have 8 bytes each."""
    for bit in range(8, 64):
        counts = max(8, root_bits + 3) <= bit <= 59
        assert root_address(1 << bit | root_bits) == counts << bit


@pytest.mark.parametrize("page_bits", [12, 16])
def test_a_size_of_page_tables_that_is_none_is_held_against_the_processor_s(page_bits: int) -> None:
    """The bits of NLS that are wrong are those in which it differs from 9 or 5."""
    cpu, made = Cpu.of(0x50000, page_bits=page_bits), memory()
    for offset, word in ((0, V | 0x60000 | 9), (0x10000, V | 0x70000 | 9)):
        store(made, 0x50000 + offset, word)
    for size in (0, 4, 6, 7, 8, 13, 31):
        store(made, 0x70000, V | 0x80000 | size)
        walk = walk_of(cpu, made, cpu.roots[0], Virtual(0))
        assert walk.level == 1
        assert walk.steps[-1].entry == Malformed(size ^ (9 if page_bits == 12 else 5))


def test_the_registers_lead_to_the_trees_of_the_process_and_of_process_0() -> None:
    cpu = load(shifted(), PARTITIONS | 24, 5, amr=1, iamr=2, page_bits=16)
    assert (cpu.quadrant0, cpu.quadrant3) == (TREE | 0x60000 | 13, TREE | 0x50000 | 13)
    assert (cpu.amr, cpu.iamr, cpu.page_bits, cpu.hv) == (1, 2, 16, True)
    assert cpu.base == 0x60000
    spans = [(root.table.address, root.span) for root in cpu.roots]
    tree = 1 << 52
    assert spans == [(0x60000, Span.of(0, tree)), (0x50000, Span.of(3 << 62, tree))]


def test_a_process_beyond_the_process_table_has_no_tree() -> None:
    made = shifted()
    assert load(made, PARTITIONS, 255).quadrant0 == TREE | 0x70000 | 13
    beyond = load(made, PARTITIONS, 256)
    assert beyond.quadrant0 is None and beyond.base == 0x50000
    assert (
        load(store(made, PARTITIONS + 8, SEEN_AT + PROCESSES + 1), PARTITIONS, 256).quadrant0 == 0
    )
    found = outcome(beyond, made, Virtual(0x1000), Access(Kind.READ, False))
    assert isinstance(found, Fault) and found.reason is Reason.NO_PROCESS


BROKEN: dict[str, tuple[Callable[[BigEndianMemory], object], int, str]] = {
    "no partition table": (lambda made: None, 1 << 40, "no memory is at 0x10000000000"),
    "a hash partition": (lambda made: store(made, PARTITIONS, 0), PARTITIONS, "without HR"),
    "another tree": (
        lambda made: store(made, PARTITIONS, HR | TREE | HOST | 12),
        PARTITIONS,
        "describes no tree",
    ),
    "no page": (lambda made: store(made, HOST, 0), PARTITIONS, "does not map the process table's"),
    "too far": (
        lambda made: store(made, PARTITIONS + 8, 1 << 55),
        PARTITIONS,
        "beyond the tree of LPID 0",
    ),
    "no memory": (
        lambda made: store(made, PAGES + 8 * (SEEN_AT >> 21), V | L | 1 << 30),
        PARTITIONS,
        "no memory is at 0x40040050, where the process table's entry for PID 5",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_chain_that_breaks_says_where(name: str) -> None:
    change, ptcr, reason = BROKEN[name]
    made = shifted()
    change(made)
    with pytest.raises(ChainError, match=reason):
        load(made, ptcr, 5)


def test_a_state_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="12 or 16 bits, not 13"):
        Cpu(0, page_bits=13)
    with pytest.raises(ValueError, match="amr has 64 bits"):
        Cpu(0, amr=1 << 64)
    with pytest.raises(ValueError, match="no process has a tree"):
        _ = Cpu(None).base


@pytest.mark.parametrize("quadrant", [1, 2])
def test_what_a_hypervisor_translates_in_two_stages_is_refused(quadrant: int) -> None:
    address = Virtual(quadrant << 62)
    with pytest.raises(ValueError, match=f"quadrant {quadrant}, which a hypervisor"):
        outcome(Cpu.of(0), memory(), address, Access(Kind.READ, False))
    found = outcome(Cpu.of(0, hv=False), memory(), address, Access(Kind.FETCH, True))
    assert isinstance(found, Fault) and found.interrupt == 0x480
    lanes = np.array([0, address], np.uint64), np.array([Kind.FETCH] * 2, np.uint8)
    with pytest.raises(ValueError, match=f"{address:#x} is in quadrant {quadrant}"):
        bulk.outcomes(Cpu.of(0), memory(), *lanes, np.array([True, True]))
    many = bulk.outcomes(Cpu.of(0, hv=False), memory(), *lanes, np.array([True, True]))
    assert many.interrupt.tolist() == [0x400, 0x480]


def test_an_address_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no address 0x10000000000000000"):
        outcome(Cpu.of(0), memory(), Virtual(1 << 64), Access(Kind.READ, False))


def test_a_descriptor_has_room_for_every_size_that_its_fields_can_say() -> None:
    for root_bits in (0, 13, 31):
        for tree_bits in (31, 38, 39, 52, 62):
            raw = root_descriptor(1 << 40, root_bits, tree_bits)
            rts = (raw >> 61 & 3) << 3 | raw >> 5 & 7  # RTS1 and RTS2, log2 of the size less 31
            assert (raw & 0x1F, rts + 31) == (root_bits, tree_bits)
            assert raw & ~(3 << 61 | 7 << 5 | 0x1F) == 1 << 40
    for wrong in ((0, -1, 52), (0, 13, 63), (-256, 13, 52)):
        with pytest.raises(ValueError, match="a process table entry cannot"):
            root_descriptor(*wrong)


def test_a_processor_is_what_it_is_made_of() -> None:
    cpu = Cpu.of(0x50000, 0x60000, amr=1, iamr=2, hv=False, page_bits=16, sets_marks=False)
    assert cpu == Cpu(TREE | 0x5000D, TREE | 0x6000D, 1, 2, False, 16, False)
    plain = Cpu.of(0x50000)
    assert plain == Cpu(TREE | 0x5000D, 0, 0, 0, True, 12, True) == Cpu(TREE | 0x5000D)
    for one, other in (cpu, plain), (plain, cpu):
        assert one.other_format is other.format
        assert one.levels == 4
        assert {root.table.format for root in one.roots_in(one.other_format)} == {other.format}


def test_a_quadrant_without_a_tree_has_no_root() -> None:
    process, kernel = TREE | 0x5000D, TREE | 0x6000D
    assert [root.table.address for root in Cpu(None, kernel).roots] == [0x60000]
    assert [root.table.address for root in Cpu(process ^ 1, kernel).roots] == [0x60000]
    assert [root.table.address for root in Cpu(process, 0).roots] == [0x50000]
    assert Cpu(process, kernel).base == 0x50000
    assert Cpu(None, kernel).base == Cpu(0, kernel).base == 0x60000


@pytest.mark.parametrize("name", ["quadrant0", "quadrant3", "amr", "iamr"])
def test_a_register_has_64_bits(name: str) -> None:
    given = {"quadrant0": 0}
    assert getattr(Cpu(**{**given, name: (1 << 64) - 1}), name) == (1 << 64) - 1  # type: ignore[arg-type]
    for wrong in (-1, 1 << 64):
        with pytest.raises(ValueError, match=f"{name} has 64 bits"):
            Cpu(**{**given, name: wrong})  # type: ignore[arg-type]


def test_the_process_table_may_be_mapped_by_pages_of_64k() -> None:
    made, small = shifted(), 0x32000
    store(made, PAGES + 8 * (SEEN_AT >> 21), V | small | 5)
    store(made, small + 8 * (PROCESSES >> 16), V | L | PROCESSES | 7)
    assert load(made, PARTITIONS, 5).quadrant0 == TREE | 0x60000 | 13


def test_the_process_table_is_within_the_tree_of_lpid_0() -> None:
    for table, why in ((1 << 52) - 0x1000, "does not map"), (1 << 52, "beyond the tree of LPID 0"):
        with pytest.raises(ChainError, match=why):
            load(store(memory(), PARTITIONS + 8, table), PARTITIONS, 5)
