"""What leads to the trees: registers, the partition table and the process table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.paging.address import Span, Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.power import Access, Cpu, Fault, Kind, Reason, load, outcome, root_descriptor
from harness.paging.power.cpu import ChainError, is_supported, root_address

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
    for wrong in ((0x80, 13, 52), (0, 32, 52), (0, 13, 30), (1 << 60, 13, 52)):
        with pytest.raises(ValueError, match="a process table entry cannot"):
            root_descriptor(*wrong)


def test_the_registers_lead_to_the_trees_of_the_process_and_of_process_0() -> None:
    cpu = load(shifted(), PARTITIONS | 4, 5, amr=1, iamr=2, page_bits=16)
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


def test_an_address_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no address 0x10000000000000000"):
        outcome(Cpu.of(0), memory(), Virtual(1 << 64), Access(Kind.READ, False))
