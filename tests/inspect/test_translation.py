"""A translation says of an address what the walker and the rules of access say, with the steps
between, on random memory under random CPU state."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import reduce
from operator import or_

import pytest

from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import Translation, split, translate
from harness.paging.address import Span, Virtual
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Reason, outcome
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode, linear
from tests.paging.x86 import drawn
from tests.paging.x86.made import path

FIXED = {Reason.NOT_CANONICAL, Reason.NO_PDPTE, Reason.NOT_PRESENT, Reason.RESERVED}
"""What faults whatever the access."""

WIDTH = {Mode.BITS_32: 32, Mode.PAE: 32, Mode.LEVEL_4: 48, Mode.LEVEL_5: 57}


def of(cpu: Cpu, memory: BufferMemory, address: int) -> Translation:
    return translate(Snapshot("made", cpu, memory, (memory.span,)), Virtual(address))


@pytest.mark.parametrize("mode", Mode)
def test_a_translation_agrees_with_the_rules_of_access(mode: Mode) -> None:
    ends = set()
    for seed in range(40):
        source = random.Random(seed)
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        cpu = replace(cpu, cr4=cpu.cr4 & ~Cr4.LASS)  # it decides about accesses, not about walks
        for _ in range(40):
            address = Virtual(drawn.address(source, mode))
            found = of(cpu, memory, address)
            answer = outcome(cpu, memory, address, Access(Kind.READ, user=True))
            fault = answer.reason if isinstance(answer, Fault) else None
            assert found.reason == (fault if fault in FIXED else None)
            if isinstance(answer, Allowed):
                assert found.physical == answer.physical
            assert found.canonical == (fault is not Reason.NOT_CANONICAL)
            agree_in_rights(cpu, found)
            ends.add(found.end)
    never = {End.OUTSIDE} | ({End.NO_ROOT} if mode is Mode.BITS_32 else set())
    assert ends == set(End) - never  # tables of x86 are whole


def agree_in_rights(cpu: Cpu, found: Translation) -> None:
    """Rights only ever go, each is taken by one entry, and what is left is the walk's."""
    every = cpu.format.rights_mask
    for stage in found.stages:
        assert not stage.granted & stage.taken
        assert stage.granted | stage.taken == every
        every = stage.granted
    if found.end is End.LEAF:
        assert found.walk and found.granted == found.walk.granted


@pytest.mark.parametrize("mode", Mode)
def test_an_address_splits_into_parts_that_make_it_up(mode: Mode) -> None:
    source, cpu = random.Random(2), Cpu.in_mode(mode, 0)
    for level in cpu.format.page_levels():
        address = source.getrandbits(WIDTH[mode])
        parts = split(cpu, address, level)
        assert sum(part.value << part.low for part in parts) == address
        bits = [(2 << part.high) - (1 << part.low) for part in parts]
        assert sum(bits) == reduce(or_, bits) == (1 << WIDTH[mode]) - 1
        assert parts[-1].value == address % cpu.format.levels[level].size


@pytest.mark.parametrize(
    ("mode", "address", "said"),
    [
        (Mode.LEVEL_4, 0x7FFF_FFFF_FFFF, "bits 63:47 are all 0"),
        (Mode.LEVEL_4, 0xFFFF_8000_0000_0000, "bits 63:47 are all 1"),
        (
            Mode.LEVEL_4,
            0x8000_0000_0000,
            "bits 63:47 are not all the same: bit 63 is 0, bit 47 is 1",
        ),
        (Mode.LEVEL_5, 0x8000_0000_0000, "bits 63:56 are all 0"),
        (
            Mode.LEVEL_5,
            0xFE00_0000_0000_0000,
            "bits 63:56 are not all the same: bit 56 is 0, bit 63 is 1",
        ),
        (Mode.PAE, 0xFFFF_FFFF, "every address of 32 bits is translated"),
    ],
)
def test_the_form_of_an_address_is_told_with_the_bits_that_decide(
    mode: Mode, address: int, said: str
) -> None:
    assert of(Cpu.in_mode(mode, 0), BufferMemory(bytes(0x1000)), address).why == said


def test_the_entry_that_takes_a_right_is_known() -> None:
    cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0), 7, 5, 7 | 1 << 63, 3)
    rights = cpu.format.rights
    taken = [stage.taken for stage in of(cpu, memory, 0).stages]
    assert taken == [0, rights["write"], rights["execute"], rights["user"]]


def test_memory_behind_the_page_is_told_where_the_source_tells_it() -> None:
    cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0), 7, 7, 7, 7)
    for backed, told in (
        ((memory.span,), True),
        ((Span(0, 0x7FFF), Span(0x9000, 0xFFFF)), False),
        (None, None),
    ):
        snapshot = Snapshot("made", cpu, memory, backed)
        assert translate(snapshot, Virtual(0x10)).backed is told


def test_what_leads_to_no_page_has_no_physical_address() -> None:
    cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0), 7, 7, 7, 7)
    for address, end in ((0x2000, End.ABSENT), (1 << 47, End.NO_ROOT)):
        found = of(cpu, memory, address)
        assert (found.end, found.physical, found.leaf) == (end, None, None)
        assert (found.memory_type, found.backed) == (None, None)
    assert of(cpu, memory, 1 << 47).granted == 0


@pytest.mark.parametrize(
    ("flags", "levels", "offset"),
    [((7, 7, 7, 7), [3, 2, 1, 0], 11), ((7, 7, 0x87), [3, 2, 1], 20), ((7, 0x87), [3, 2], 29)],
)
def test_an_address_splits_as_far_as_its_page_is_small(
    flags: tuple[int, ...], levels: list[int], offset: int
) -> None:
    *indices, last = of(*path(Cpu.in_mode(Mode.LEVEL_4, 0), *flags), 0x10).indices
    assert [one.level for one in indices] == levels
    assert (last.level, last.name, last.high, last.low, last.value) == (
        *(None, "offset", offset, 0, 0x10),
    )


@pytest.mark.parametrize("checked", [None, 1 << 63], ids=["registers", "entries"])
def test_an_address_of_pae_paging_has_one_pdpte(checked: int | None) -> None:
    cpu = Cpu(0x8000_0001, 0, 0x20, 0, pdptes=(0, 0, 0x2001, 0), pdptes_checked=checked)
    indices = split(cpu, 2 << 30 | 3 << 21 | 4 << 12 | 5)
    assert [(one.level, one.name, one.value) for one in indices] == [
        *((2, "PDPTE", 2), (1, "PDE", 3), (0, "PTE", 4), (None, "offset", 5)),
    ]


def test_an_entry_that_is_absent_takes_no_right() -> None:
    cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0), 7, 7, 0, 7)
    last = of(cpu, memory, 0).stages[-1]
    assert (last.reading.level, last.taken, last.granted) == (1, 0, cpu.format.rights_mask)


def test_where_no_walk_begins_the_rule_is_that_of_the_mode() -> None:
    memory = BufferMemory(bytes(0x1000))
    long = of(Cpu.in_mode(Mode.LEVEL_4, 0), memory, 1 << 47)
    assert (long.reason, long.canonical) == (Reason.NOT_CANONICAL, False)
    pae = of(Cpu.in_mode(Mode.PAE, 0), memory, 0x1000)
    assert (pae.reason, pae.canonical) == (Reason.NO_PDPTE, True)


def test_metadata_is_masked_before_the_walk() -> None:
    cpu, memory = path(Cpu.in_mode(Mode.LEVEL_4, 0), 7, 7, 7, 7)
    cpu = Cpu(cpu.cr0, cpu.cr3 | Cr3.LAM_U48, cpu.cr4, cpu.efer, lam=True)
    found = of(cpu, memory, 0x7ABC_0000_0000_0010)
    assert (found.asked, found.address) == (0x7ABC_0000_0000_0010, linear(cpu, found.asked))
    assert found.physical == 0x8010


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_an_address_wider_than_the_mode_has_is_refused(mode: Mode) -> None:
    with pytest.raises(ValueError, match="outside long mode there is no address 0x100000000"):
        of(Cpu.in_mode(mode, 0), BufferMemory(bytes(0x1000)), 1 << 32)


def test_a_page_has_the_memory_type_of_its_own_entry_and_what_is_none_has_no_type() -> None:
    """PWT and PCD of the entries above say how the tables are cached (SDM 4.9.2)."""
    for flags, type_of in ((0x07, 0x07, 0x07, 0x1F), 3), ((0x1F, 0x07, 0x1F, 0x0F), 1):
        found = of(*path(Cpu.long_mode(4, 0), *flags), 0).memory_type
        assert found and found.index == type_of
    assert of(*path(Cpu.long_mode(4, 0), 0x07, 0x07, 0x1F, 0), 0).memory_type is None
