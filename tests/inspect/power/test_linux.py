"""What Linux keeps in an entry of POWER covers just what the machine ignores, and says what was
written."""

from __future__ import annotations

import random
from functools import reduce
from operator import or_

import pytest

from harness.inspect import decode
from harness.inspect.decode import Role
from harness.inspect.power import linux
from harness.inspect.power.mode import MODES, in_mode
from harness.paging.entry import Leaf
from harness.paging.linux.away import Away
from harness.paging.linux.entries import Marker, Migration, Poison, Swap, Type, Unknown
from harness.paging.power.linux import EXCLUSIVE, INVALID, SOFT_DIRTY, Linux
from tests.inspect.power.handmade import PRIV, READ, RW, C, L, R, V

CPU = in_mode("radix-64k", {})
PAGE = V | L | 0x80_0000 | R | C | READ | RW


def said(raw: int, level: int = 0) -> str:
    return linux.read(CPU, decode.read(CPU, raw, level)).said


@pytest.mark.parametrize("mode", MODES)
def test_linux_has_what_the_machine_ignores_and_no_more(mode: str) -> None:
    cpu, source = in_mode(mode, {}), random.Random(1)
    for _ in range(400):
        level, raw = source.randrange(cpu.levels), source.getrandbits(64)
        reading = decode.read(cpu, raw, level)
        ignored = sum(part.mask for part in reading.parts if part.role is Role.IGNORED)
        found = [part.mask for part in linux.read(cpu, reading).parts]
        assert reduce(or_, found, 0) == sum(found) == ignored


@pytest.mark.parametrize(
    ("raw", "level", "meaning", "words"),
    [
        (0, 0, None, "nothing"),
        (PAGE, 0, Leaf, "a page"),
        (PAGE | 1 << 9, 0, Leaf, "a page; soft-dirty"),
        (PAGE | 1 << 10, 0, Leaf, "a page; special"),
        (PAGE | 1 << 11, 0, Leaf, "a page; devmap"),
        (V | L | 0x80_0000 | R | PRIV, 0, Leaf, "a page, which nobody may access (PROT_NONE)"),
        (V | 0x80_0000 | 9, 2, None, "a table"),
        (L | 0x5_0001, 0, Swap, "a page in swap: number 0x5 of area 1"),
        (L | 0x5_0001 | EXCLUSIVE, 0, Swap, "a page in swap: number 0x5 of area 1; exclusive"),
        (L | 0x5_0001 | SOFT_DIRTY, 0, Swap, "a page in swap: number 0x5 of area 1; soft-dirty"),
        (L | 0x7_0000 | 28, 0, Migration, "the page at 0x70000 is being moved, comes back read-on"),
        (L | 0x7_0000 | 27, 0, Poison, "the page at 0x70000 is lost to a memory error"),
        (L | 0x2_0000 | 31, 0, Marker, "no page, a marker: POISONED"),
        (PAGE & ~V | INVALID, 0, Leaf, "the page at 0x800000, whose entry is being changed or sp"),
        (0x5_0001, 0, Unknown, "nothing that Linux writes"),
        (L | 0x1_0003, 0, Swap, "a page in swap: number 0x1 of area 3"),
        *(
            (
                L | 0x1_0003 | 1 << bit,
                0,
                Unknown,
                "nothing that Linux writes: in swap it would be "
                "page 0x1 of area 3, but other bits are set or missing",
            )
            for bit in (6, 15, 53, 58, 60)
        ),
        (
            L | 0x0_0003,
            0,
            Unknown,
            "nothing that Linux writes: in swap it would be page 0x0 of "
            "area 3, and that is its header",
        ),
        (
            L | 1 << 48 | 3,
            0,
            Unknown,
            "nothing that Linux writes: in swap it would be page "
            "0x100000000 of area 3, and no area has so many",
        ),
        (L | 0x5_0001, 2, Unknown, "nothing that Linux writes at this level"),
    ],
)
def test_an_entry_says_what_linux_wrote(
    raw: int, level: int, meaning: type | None, words: str
) -> None:
    found = linux.read(CPU, decode.read(CPU, raw, level))
    assert found.said.startswith(words), found.said
    assert meaning is None or isinstance(found.meaning, meaning)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0, 1])
def test_of_a_page_that_is_changed_each_bit_has_the_name_that_it_will_have(
    mode: str, level: int
) -> None:
    """_PAGE_INVALID is bit 61, _PAGE_PTE bit 62; R and C are bits 8 and 7, and EAA bits 3 to 0."""
    cpu = in_mode(mode, {})
    kept = {8: "R", 7: "C", 3: "EAA0", 2: "EAA1", 1: "EAA2", 0: "EAA3", 61: "invalid", 62: "pte"}
    kept |= {9: "soft-dirty", 10: "special", 11: "devmap", 4: "ATT", 5: "ATT", 30: "RPN"}
    for bit, name in kept.items():
        raw = L | INVALID | 0x400_0000 | 1 << bit
        found = linux.read(cpu, decode.read(cpu, raw, level))
        [part] = (part for part in found.parts if part.mask >> bit & 1)
        assert part.name == name and part.value and "means nothing" not in part.meaning, bit
        assert sum(part.mask for part in found.parts) == V - 1


@pytest.mark.parametrize("mode", MODES)
def test_what_is_away_is_read_as_it_was_written(mode: str) -> None:
    dialect = Linux(in_mode(mode, {}).format)
    page = 1 << dialect.format.levels[0].shift
    aways: tuple[Away, ...] = (
        Swap(3, 0x1234),
        Poison(7 * page),  # type: ignore[arg-type]
        *(
            Migration(Type.MIGRATION_WRITE, 9 * page, young, dirty)  # type: ignore[arg-type]
            for young in (False, True)
            for dirty in (False, True)
        ),
    )
    for away in aways:
        raw = dialect.encode(away)
        assert raw >> 62 == 1 and dialect.written(raw, 0)
        assert dialect.decode(raw, 0) == away
        assert dialect.written(raw | SOFT_DIRTY, 0) and not dialect.written(raw | 1 << 8, 0)
