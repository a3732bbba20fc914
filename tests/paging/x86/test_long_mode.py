"""Long mode: its formats against the manual's tables, written out by hand, and its halves."""

import random
from collections.abc import Callable
from itertools import chain, combinations

import pytest

from harness.paging.address import Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.processor import root_for
from harness.paging.x86.cpu import Cpu, canonical_halves
from tests.paging.machines import READERS, SIZES, cpu_of
from tests.paging.rules import Machine, reserved_in_long

FLAGS = {"W": 1, "U": 2, "PWT": 3, "PCD": 4, "A": 5, "XD": 63}
LEAF_FLAGS = {**FLAGS, "D": 6, "G": 8}
NAMES = ("PTE", "PDE", "PDPTE", "PML4E", "PML5E")

Test = Callable[[Machine, int], None]


def below(count: Callable[[Machine], int]) -> Callable[[Test], Callable[[Machine], None]]:
    """Makes a test for each machine, of as many of its levels, from 0 up."""

    def at_each(test: Test) -> Callable[[Machine], None]:
        @pytest.mark.parametrize("machine", READERS, ids=str)
        def made(machine: Machine) -> None:
            for level in range(count(machine)):
                test(machine, level)

        return made

    return at_each


every_slot = below(lambda machine: machine.levels)
every_page = below(lambda machine: 2 + machine.page1gb)


def subsets(names: list[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)))


def entries(machine: Machine, level: int) -> list[int]:
    """A pointer and a leaf, as far as the level has them, with no bit set that need not be."""
    return [1] + ([0x81] if 0 < level < 2 or (level == 2 and machine.page1gb) else [])


@every_slot
def test_without_p_every_other_bit_is_the_softwares(machine: Machine, level: int) -> None:
    format = cpu_of(machine).format
    for raw in (0, (1 << 64) - 2, *(1 << bit for bit in range(1, 64))):
        assert format.decode(raw, level) == Absent()


@every_slot
def test_each_reserved_bit_is_named_and_no_other(machine: Machine, level: int) -> None:
    format = cpu_of(machine).format
    for start in entries(machine, level):
        for bit in range(64):
            raw = start | 1 << bit
            offending = reserved_in_long(machine, level, raw)
            entry = format.decode(raw, level)
            got = entry.bits if isinstance(entry, Malformed) else 0
            assert got == offending, f"{raw:#x}"


@every_slot
def test_all_offending_bits_are_named_together(machine: Machine, level: int) -> None:
    format, source = cpu_of(machine).format, random.Random(level)
    for _ in range(200):
        raw = source.getrandbits(64) & source.getrandbits(64) | 1
        entry = format.decode(raw, level)
        got = entry.bits if isinstance(entry, Malformed) else 0
        assert got == reserved_in_long(machine, level, raw)


@every_slot
def test_bits_62_to_52_are_never_reserved(machine: Machine, level: int) -> None:
    format = cpu_of(machine).format
    for start in entries(machine, level):
        assert not isinstance(format.decode(start | 0x7FF << 52, level), Malformed)


@pytest.mark.parametrize(
    ("machine", "level", "raw", "bits", "reasons"),
    [
        (Machine(), 0, 1 << 40 | 1, 1 << 40, ["beyond MAXPHYADDR 40"]),
        (Machine(), 0, 0xFFF << 40 | 1, 0xFFF << 40, ["beyond MAXPHYADDR 40"]),
        (Machine(maxphyaddr=36), 1, 1 << 36 | 1, 1 << 36, ["beyond MAXPHYADDR 36"]),
        (Machine(nxe=False), 1, 1 << 63 | 0x81, 1 << 63, ["XD while EFER.NXE=0"]),
        (Machine(nxe=False), 3, 1 << 63 | 1, 1 << 63, ["XD while EFER.NXE=0"]),
        (Machine(), 1, 0x1FE081, 0x1FE000, ["below a 2M page"]),
        (Machine(), 2, 0x3FFFE081, 0x3FFFE000, ["below a 1G page"]),
        (Machine(page1gb=False), 2, 0x81, 0x80, ["PS where no page can be"]),
        (Machine(), 3, 0x81, 0x80, ["PS where no page can be"]),
        (Machine(5), 4, 0x81, 0x80, ["PS where no page can be"]),
        (
            Machine(nxe=False),
            1,
            1 << 63 | 1 << 51 | 0x2081,
            1 << 63 | 1 << 51 | 0x2000,
            ["beyond MAXPHYADDR 40", "XD while EFER.NXE=0", "below a 2M page"],
        ),
    ],
    ids=str,
)
def test_offending_bits_come_with_their_reasons(
    machine: Machine, level: int, raw: int, bits: int, reasons: list[str]
) -> None:
    format = cpu_of(machine).format
    parts = format.malformed(raw, level)
    assert format.decode(raw, level) == Malformed(bits)
    assert [part.reason for part in parts] == reasons
    assert sum(part.mask for part in parts) == bits


@pytest.mark.parametrize(
    ("machine", "level", "raw"),
    [
        (Machine(), 1, 0x1081),
        (Machine(), 2, 0x1081),
        (Machine(), 0, 0x81),
        (Machine(), 3, 0x101),
        (Machine(maxphyaddr=52), 0, 0xF_FFFF_FFFF_F001),
        (Machine(), 0, 0x7FF << 52 | 1),
        (Machine(), 1, 0x7FF << 52 | 0x81),
    ],
    ids=str,
)
def test_what_is_often_taken_for_reserved_is_not(machine: Machine, level: int, raw: int) -> None:
    assert not isinstance(cpu_of(machine).format.decode(raw, level), Malformed)


@every_page
def test_every_subset_of_flags_comes_back_from_a_leaf(machine: Machine, level: int) -> None:
    format = cpu_of(machine).format
    names = format.levels[level].bits
    address = 3 * SIZES[level]
    pat = 7 if level == 0 else 12
    places = {**LEAF_FLAGS, "PAT": pat, "KEY": 59}
    for chosen in subsets([n for n in places if n != "XD" or machine.nxe]):
        expected = sum((0xF if n == "KEY" else 1) << places[n] for n in chosen)
        bits = sum(names[name] for name in chosen)
        raw = format.leaf(address, level, bits)
        assert raw == address | 1 | (0x80 if level else 0) | expected
        assert format.decode(raw, level) == Leaf(address, SIZES[level])  # type: ignore[arg-type]
        assert {n for n in places if raw & names[n] == names[n]} == set(chosen)


@every_slot
def test_every_subset_of_flags_comes_back_from_a_pointer(machine: Machine, level: int) -> None:
    if level == 0:
        assert cpu_of(machine).format.levels[0].pointer is None
        return
    format = cpu_of(machine).format
    names = format.levels[level].bits
    for chosen in subsets([n for n in FLAGS if n != "XD" or machine.nxe]):
        raw = format.pointer(0x5000, level, sum(names[name] for name in chosen))
        assert raw == 0x5001 | sum(1 << FLAGS[name] for name in chosen)
        entry = format.decode(raw, level)
        assert isinstance(entry, Pointer)
        assert (entry.table.address, entry.table.level) == (0x5000, level - 1)


@every_page
def test_a_leaf_holds_the_address_bits_from_its_size_up_to_maxphyaddr(
    machine: Machine, level: int
) -> None:
    format = cpu_of(machine).format
    for bit in range(64):
        address = 1 << bit
        if SIZES[level] <= address < 1 << machine.maxphyaddr:
            entry = format.decode(format.leaf(address, level, 0), level)
            assert entry == Leaf(address, SIZES[level])  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=f"can hold physical address {address:#x}"):
                format.leaf(address, level, 0)


@every_slot
def test_the_entries_of_each_level_have_the_manuals_name_and_reach(
    machine: Machine, level: int
) -> None:
    here = cpu_of(machine).format.levels[level]
    assert (here.name, here.size, here.entries) == (NAMES[level], 4096 * 512**level, 512)


def test_only_machines_with_the_cpuid_bit_have_1g_pages() -> None:
    assert cpu_of(Machine()).format.page_levels() == [0, 1, 2]
    assert cpu_of(Machine(page1gb=False)).format.page_levels() == [0, 1]


CANONICAL = {
    4: [0, 0x7FFF_FFFF_FFFF, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF],
    5: [0, 0xFF_FFFF_FFFF_FFFF, 0xFF00_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF],
}
"""First and last address of each half, by levels."""

EDGES = [(levels, *CANONICAL[levels][1:3]) for levels in (4, 5)]


@pytest.mark.parametrize("levels", [4, 5])
def test_the_canonical_halves_are_those_of_the_manual(levels: int) -> None:
    low, high = canonical_halves(levels)
    assert [low.first, low.last, high.first, high.last] == CANONICAL[levels]


@pytest.mark.parametrize(("levels", "last", "first"), EDGES)
def test_an_address_beyond_an_edge_has_no_root(levels: int, last: int, first: int) -> None:
    cpu = cpu_of(Machine(levels))
    lower, upper = cpu.roots
    assert root_for(cpu, Virtual(last)) is lower
    assert root_for(cpu, Virtual(last + 1)) is None
    assert root_for(cpu, Virtual(first - 1)) is None
    assert root_for(cpu, Virtual(first)) is upper


@pytest.mark.parametrize("address", [0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 55])
def test_some_addresses_are_canonical_with_five_levels_only(address: int) -> None:
    assert root_for(cpu_of(Machine(4)), Virtual(address)) is None
    assert root_for(cpu_of(Machine(5)), Virtual(address)) is not None


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("maxphyaddr", [32, 40, 52])
def test_the_root_table_is_where_the_address_bits_of_cr3_say(levels: int, maxphyaddr: int) -> None:
    cr3 = 0xE0F3_4567_89AB_CDEF
    tables = {root.table for root in cpu_of(Machine(levels, maxphyaddr), cr3).roots}
    assert [(one.level, one.address) for one in tables] == [
        (levels - 1, 0xE0F3_4567_89AB_CDEF % 2**maxphyaddr // 4096 * 4096)
    ]


def test_long_mode_sets_the_register_bits_of_the_manual() -> None:
    bare = Cpu.long_mode(4, 0x1000, wp=False, nxe=False)
    assert (bare.cr0, bare.cr3, bare.cr4, bare.efer) == (0x8000_0001, 0x1000, 0xA0, 0x500)
    full = Cpu.long_mode(5, 0x1000, smep=True, smap=True)
    assert (full.cr0, full.cr4, full.efer) == (0x8001_0001, 0x30_10A0, 0xD00)


@pytest.mark.parametrize("levels", [4, 5])
def test_the_state_is_read_from_the_registers(levels: int) -> None:
    state = {"wp": False, "nxe": False, "smep": False, "smap": False}
    for name in state:
        cpu = Cpu.long_mode(levels, 0, **{**state, name: True})
        assert {other: getattr(cpu, other) for other in state} == {**state, name: True}
        assert cpu.levels == levels
