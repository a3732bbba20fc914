"""What Linux keeps in an entry covers just what the machine ignores, and says what was written."""

from __future__ import annotations

import random
from functools import reduce
from operator import or_

import pytest

from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.x86 import linux
from harness.paging.address import Physical
from harness.paging.linux.entries import (
    EXCLUSIVE,
    SAVED_DIRTY,
    SOFT_DIRTY,
    UFFD_WP,
    Away,
    Device,
    Linux,
    Marker,
    Migration,
    Notes,
    Poison,
    Swap,
    Type,
)
from harness.paging.x86.cpu import Cpu, Mode

CPU = Cpu.in_mode(Mode.LEVEL_4, 0)
FRAME = Physical(0x12_3000)
PAGE = CPU.format.leaf(FRAME, 0, CPU.format.granting("write", "user"))


def said(raw: int, level: int = 0) -> str:
    return linux.read(CPU, decode.read(CPU, raw, level)).said


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        *((0, "WB"), (1 << 3, "WC"), (1 << 4, "UC-"), (3 << 3, "UC")),
        *((1 << 7 | 1 << 3, "WP"), (1 << 7 | 3 << 3, "WT")),
    ],
)
def test_the_memory_type_is_by_the_pat_as_linux_loads_it(bits: int, name: str) -> None:
    """WB WC UC- UC, WB WP UC- WT (arch/x86/mm/pat/memtype.c); nothing else has a type."""
    assert linux.read(CPU, decode.read(CPU, PAGE | bits, 0)).memory_type == name
    assert linux.read(CPU, decode.read(CPU, 0x2067 | 1 << 4, 1)).memory_type is None
    assert linux.read(CPU, decode.read(CPU, 0, 0)).memory_type is None


@pytest.mark.parametrize("mode", [Mode.LEVEL_4, Mode.LEVEL_5])
def test_linux_has_what_the_machine_ignores_and_no_more(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0)
    source = random.Random(1)
    for _ in range(400):
        level, raw = source.randrange(cpu.levels), source.getrandbits(64)
        raw &= ~source.choice([0, 1, 1 << 8, 0x181, 0x1FF])
        reading = decode.read(cpu, raw, level)
        parts = linux.read(cpu, reading).parts
        ignored = reduce(or_, (part.mask for part in decode.named(reading, Role.IGNORED)), 0)
        assert sum(part.mask for part in parts) == reduce(or_, (p.mask for p in parts)) == ignored
        assert all(
            part.meaning and part.mask == (2 << part.high) - (1 << part.low) for part in parts
        )


@pytest.mark.parametrize(
    ("away", "phrase"),
    [
        (Swap(3, 0x1234), "a page in swap: number 0x1234 of area 3"),
        (Poison(FRAME), "the page at 0x123000 is lost to a memory error"),
        (Marker(Notes.UFFD_WP), "no page, a marker: UFFD_WP"),
        (
            Migration(Type.MIGRATION_WRITE, FRAME, young=True, dirty=True),
            "the page at 0x123000 is being moved, comes back writable, and was accessed and dirty",
        ),
        (
            Device(Type.DEVICE_READ, FRAME),
            "the page at 0x123000 is a device's own memory, read-only",
        ),
        (Device(Type.LENT_WRITE, FRAME), "the page at 0x123000 is lent to a device, writable"),
    ],
)
def test_a_page_that_is_away_is_said_to_be_where_it_is(away: Away, phrase: str) -> None:
    assert said(Linux(CPU.format).encode(away)) == phrase


def test_marks_are_named_in_every_state_that_can_have_them() -> None:
    dialect = Linux(CPU.format)
    none = dialect.protect(PAGE, 0, None)
    swap = dialect.encode(Swap(0, 5))
    for raw in (PAGE, none, swap):
        marked = dialect.mark(dialect.mark(raw, 0, SOFT_DIRTY), 0, UFFD_WP)
        names = "uffd-wp, soft-dirty"
        assert said(marked) == f"{said(raw)}; {'soft-dirty, uffd-wp' if raw != swap else names}"
    assert said(none) == "the page at 0x123000, which nobody may access (PROT_NONE)"
    assert said(PAGE | SAVED_DIRTY) == "a page; saved dirty"


def test_the_address_of_a_page_nobody_may_access_is_read_back() -> None:
    raw = Linux(CPU.format).protect(PAGE, 0, None)
    parts = {part.name: part for part in linux.read(CPU, decode.read(CPU, raw, 0)).parts}
    assert (parts["address"].value, parts["PROT_NONE"].value) == (FRAME, 1)


def names(raw: int, level: int = 0) -> dict[str, int]:
    """What the bits that the machine ignores are called, and the value of each such part."""
    parts = linux.read(CPU, decode.read(CPU, raw, level)).parts
    return {part.name: part.value for part in parts}


@pytest.mark.parametrize(
    ("away", "level", "type", "offset"),
    [
        (Swap(3, 0x1234), 0, 3, 0x1234),
        (Migration(Type.MIGRATION_WRITE, FRAME), 0, 26, 0x123),
        (Migration(Type.MIGRATION_READ, Physical(0x20_0000)), 1, 24, 0x200),
        (Device(Type.LENT_READ, FRAME), 0, 30, 0x123),
        (Poison(FRAME), 0, 23, 0x123),
        (Marker(Notes.POISONED), 0, 31, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_page_that_is_away_is_a_type_and_an_inverted_offset(
    away: Away, level: int, type: int, offset: int
) -> None:
    """The entry holds the offset inverted (__swp_entry in arch/x86/include/asm/pgtable_64.h)."""
    found = names(Linux(CPU.format).encode(away, level), level)
    assert (found["type"], found["offset"]) == (type, offset)
    assert (found["soft-dirty"], found["uffd-wp"], found["exclusive"]) == (0, 0, 0)


@pytest.mark.parametrize(("raw", "level"), [(0x1000, 2), (0, 0), (0x60, 0), (0x2007, 1)], ids=str)
def test_nothing_has_a_name_in_what_is_no_page(raw: int, level: int) -> None:
    assert set(names(raw, level)) == {"unused"}


@pytest.mark.parametrize("bit", [9, 57, 10, 11, 58])
def test_a_mark_of_a_page_says_what_it_means_where_it_is_set(bit: int) -> None:
    def part(raw: int) -> str:
        (found,) = (
            one for one in linux.read(CPU, decode.read(CPU, raw, 0)).parts if one.mask == 1 << bit
        )
        return found.meaning

    assert part(PAGE) == "no"
    assert part(PAGE | 1 << bit) not in ("no", "")


def meanings(raw: int, level: int = 0) -> dict[str, str]:
    parts = linux.read(CPU, decode.read(CPU, raw, level)).parts
    return {part.name: part.meaning for part in parts}


def test_every_mark_of_a_page_means_something_else() -> None:
    marks = PAGE | sum(1 << bit for bit in (9, 10, 11, 57, 58))
    found = meanings(marks)
    del found["unused"]
    assert len(found) == len(set(found.values())) == 5
    assert found["saved dirty"].startswith("written, kept here in place of D")
    assert found["soft-dirty"] == "written since soft-dirty was cleared"


def test_bits_that_linux_leaves_unused_say_whether_they_are_set() -> None:
    assert meanings(PAGE)["unused"] == "nothing"
    assert meanings(PAGE | 1 << 52)["unused"] == "set, and means nothing to Linux"


def test_a_page_without_rights_has_its_hardware_s_bits_and_its_own() -> None:
    none = Linux(CPU.format).protect(PAGE | 0x20 | SAVED_DIRTY, 0, None)
    found = names(none)
    assert found["address"] == FRAME
    assert (found["PROT_NONE"], found["A"], found["W"], found["saved dirty"]) == (1, 1, 0, 1)
    assert meanings(none)["PROT_NONE"] == "the page is there, and nobody may access it"
    assert meanings(none)["A"] == "as it will be when the page is present again"
    large = CPU.format.leaf(Physical(0x20_0000), 1, CPU.format.granting("user"))
    barred = Linux(CPU.format).protect(large, 1, None)
    parts = linux.read(CPU, decode.read(CPU, barred, 1)).parts
    (address,) = (part for part in parts if part.name == "address")
    assert (address.high, address.low, address.value) == (51, 21, 0x20_0000)
    half_split = barred & ~(1 << 8)  # pmd_mkinvalid
    split = {part.name: part for part in linux.read(CPU, decode.read(CPU, half_split, 1)).parts}
    assert (split["PROT_NONE"].value, split["PROT_NONE"].meaning) == (0, "not used")
    assert split["PS"].meaning == "a large page that is being split"


def test_types_are_named_and_areas_of_swap_numbered() -> None:
    dialect = Linux(CPU.format)
    assert meanings(dialect.encode(Swap(3, 5)))["type"] == "swap area 3"
    assert meanings(dialect.encode(Poison(FRAME)))["type"] == "poison"
    read_only = dialect.encode(Migration(Type.MIGRATION_READ, FRAME))
    assert meanings(read_only)["type"] == "migration read"
    assert said(read_only) == "the page at 0x123000 is being moved, comes back read-only"


def test_a_page_in_swap_may_belong_to_one_process_alone() -> None:
    swap = Linux(CPU.format).encode(Swap(0, 5))
    assert said(swap | EXCLUSIVE.away) == f"{said(swap)}; exclusive"
    assert meanings(swap)["exclusive"] == "no"
    assert meanings(swap | EXCLUSIVE.away)["exclusive"] == "the page belongs to one process alone"


def test_the_memory_type_is_that_of_the_pat_as_linux_loads_it() -> None:
    """Index 1 is WC to Linux and WT after a reset."""
    reading = decode.read(CPU, PAGE | 1 << 3, 0)
    assert (linux.read(CPU, reading).memory_type, reading.memory_type) == (
        "WC",
        decode.MemoryType(1, "WT", "PAT index 1, by the PAT as after a reset"),
    )


def test_empty_and_foreign_entries_are_told_apart() -> None:
    assert said(0) == said(0x60) == "nothing"
    assert said(0x1000, 2) == "nothing that Linux writes at this level"


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_another_mode_is_refused(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0)
    with pytest.raises(ValueError, match="is not known here"):
        linux.read(cpu, decode.read(cpu, 1, 0))
