"""Tables, slots, roots."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import pytest

from harness.paging import arm64, power, riscv, s390, x86
from harness.paging.address import Physical, Span
from harness.paging.format import Format
from harness.paging.table import Root, Slot, Table
from tests.paging.machines import cpu_of
from tests.paging.rules import Machine
from tests.paging.toys import MIXED, MIXED_ROOTS, SCATTERED

X86_4, X86_5 = (cpu_of(Machine(levels)).format for levels in (4, 5))
GEOMETRY = {
    (MIXED, 0): (8, 8),
    (MIXED, 1): (8, 32),
    (MIXED, 2): (8, 4),
    (SCATTERED, 0): (4, 1024),
    (SCATTERED, 1): (4, 1024),
    **{(X86_4, level): (8, 512) for level in range(4)},
    **{(X86_5, level): (8, 512) for level in range(5)},
}
"""Bytes of an entry and entries of a table, by format and level."""

every_table = pytest.mark.parametrize(
    ("format", "level"),
    list(GEOMETRY),
    ids=[f"{f.name}-{n}".replace(" ", "-") for f, n in GEOMETRY],
)


@every_table
def test_a_packed_slot_is_its_address_with_the_level_in_the_low_bits(
    format: Format, level: int
) -> None:
    width, entries = GEOMETRY[format, level]
    table = Table(format, Physical(3 * width * entries), level)
    for index in range(entries):
        slot = Slot(table, index)
        assert slot.packed() == 3 * width * entries + width * index + level
        assert Slot.unpack(format, slot.packed()) == slot


@every_table
def test_slots_lie_one_entry_apart_from_the_table_on(format: Format, level: int) -> None:
    width, entries = GEOMETRY[format, level]
    table = Table(format, Physical(0x10000), level)
    assert table.size == width * entries
    assert [slot.address for slot in table.slots()] == [
        0x10000 + width * index for index in range(entries)
    ]
    assert [slot.index for slot in table.slots()] == list(range(entries))


@every_table
def test_there_is_no_slot_beyond_a_table(format: Format, level: int) -> None:
    _, entries = GEOMETRY[format, level]
    table = Table(format, Physical(0x10000), level)
    assert table.slot(entries - 1).index == entries - 1
    for index in (-1, entries):
        message = f"the level-{level} table at 0x10000 has slots 0 to {entries - 1}, not {index}"
        with pytest.raises(IndexError, match=message):
            table.slot(index)


@pytest.mark.parametrize(("format", "level"), [(X86_4, 4), (X86_5, 7), (SCATTERED, 2), (MIXED, 3)])
def test_a_packed_slot_of_a_level_that_is_not_there_is_refused(format: Format, level: int) -> None:
    with pytest.raises(ValueError, match=f"names level {level}, which {format.name} lacks"):
        Slot.unpack(format, 0x1000 + level)


def test_a_walk_uses_the_slot_that_the_address_bits_say() -> None:
    address = 0o777_123_456_321_7654
    indexes = [0o321, 0o456, 0o123, 0o777]
    for level, index in enumerate(indexes):
        slot = Table(X86_4, Physical(0), level).slot_for(address)
        assert (slot.index, slot.level, slot.size) == (index, level, 4096 * 512**level)


def test_tables_of_different_widths_split_an_address_each_in_its_own_way() -> None:
    address = 0b10_10011_101_11110000
    for level, index in enumerate((0b101, 0b10011, 0b10)):
        assert Table(MIXED, Physical(0), level).slot_for(address).index == index


def test_the_slots_of_a_root_are_those_that_serve_its_span() -> None:
    table = Table(X86_4, Physical(0x1000), 3)
    upper = Root(table, Span(0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF))
    firsts = [(first, slot.index) for first, slot in upper.slots()]
    assert len(firsts) == 256
    assert firsts[0] == (0xFFFF_8000_0000_0000, 256)
    assert firsts[-1] == (0xFFFF_FF80_0000_0000, 511)
    lower = Root(table, Span(0, 0x7FFF_FFFF_FFFF))
    assert [slot.index for _, slot in lower.slots()] == list(range(256))


def test_roots_of_their_own_tables_each_begin_at_slot_0() -> None:
    for root, first in zip(MIXED_ROOTS, (0, 0x180000), strict=True):
        assert list(root.slots()) == [
            (first + 0x10000 * index, Slot(root.table, index)) for index in range(4)
        ]


def test_places_say_where_they_are() -> None:
    slot = Table(X86_4, Physical(0x5000), 2).slot(17)
    assert str(slot) == "slot 17 of the level-2 table at 0x5000"


def test_values_are_equal_by_content_and_cannot_be_changed() -> None:
    table = Table(X86_4, Physical(0x5000), 2)
    for left, right in product([table.slot(1), table.slot(2)], repeat=2):
        assert (left == right) == (left.index == right.index)
    with pytest.raises(AttributeError):
        table.slot(1).index = 2  # type: ignore[misc]


def _roots() -> Iterator[tuple[str, Callable[[int], object], int]]:
    """What makes a processor with its root somewhere, and above which it can be nowhere."""
    for levels in (4, 5):
        yield f"x86-{levels}", partial(x86.cpu.Cpu.long_mode, levels), 1 << 40
    for mode in riscv.cpu.Mode:
        yield mode.name, partial(riscv.cpu.Cpu.in_mode, mode), 1 << (34 if mode.xlen == 32 else 56)
    half = arm64.cpu.Half("4K", 48, 0)
    yield "low", lambda root: arm64.cpu.Cpu.of(replace(half, root=root), None), 1 << 48
    yield "high", lambda root: arm64.cpu.Cpu.of(None, replace(half, root=root)), 1 << 48
    yield "user", power.cpu.Cpu.of, 1 << 60
    yield "kernel", lambda root: power.cpu.Cpu.of(0, root), 1 << 60
    for dt in s390.cpu.Mode:
        yield dt.name, partial(s390.cpu.Cpu.in_mode, dt), 1 << 64


@pytest.mark.parametrize(
    ("made", "end"), [pytest.param(made, end, id=name) for name, made, end in _roots()]
)
def test_a_root_that_no_register_can_hold_is_refused(
    made: Callable[[int], object], end: int
) -> None:
    made(end - (1 << 16))
    for root in (0x1001, 0x1800, end, end << 4, 1 << 70, -0x1000, -1):
        with pytest.raises(ValueError, match=r"cannot hold|has \d+ bits|is not aligned"):
            made(root)
