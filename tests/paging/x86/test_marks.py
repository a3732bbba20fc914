"""The bit that marks encrypted or shared memory is part of no address, reserved nowhere, and else
changes nothing: tables with it say what the same tables say without it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Physical, Virtual
from harness.paging.entry import Leaf, Malformed, Pointer
from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Fault
from harness.paging.x86.cpu import Cpu, Mode
from harness.paging.x86.load import load, reserved_in_cr3
from tests.paging.x86 import drawn
from tests.paging.x86.made import come_to

LONG = (Mode.LEVEL_4, Mode.LEVEL_5)


def marked(
    source: random.Random, memory: BufferMemory, bit: int
) -> tuple[BufferMemory, BufferMemory]:
    """The memory with the bit set in some of its words, and with it clear in all."""
    words = memory.octets.view("<u8").copy()
    clear = words & ~np.uint64(1 << bit)
    some = np.array([source.random() < 0.5 for _ in words], np.uint64) << np.uint64(bit)
    return BufferMemory((clear | some).tobytes()), BufferMemory(clear.tobytes())


@pytest.mark.parametrize("mode", LONG)
@pytest.mark.parametrize("field", ["c_bit", "shared_bit"])
@pytest.mark.parametrize("bit", [39, 47, 51])
def test_tables_with_the_bit_say_what_they_say_without_it(mode: Mode, field: str, bit: int) -> None:
    reached = set[str]()
    for seed in range(12):
        source = random.Random(f"{bit} {seed}")
        plain, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        with_bit, without = marked(source, memory, bit)
        cpu = replace(plain, cr3=plain.cr3 | 1 << bit, **{field: bit})  # type: ignore[arg-type]
        assert cpu.base == plain.base
        asked = [(Virtual(drawn.address(source, mode)), drawn.access(source)) for _ in range(20)]
        addresses, accesses = [one for one, _ in asked], [one for _, one in asked]
        accesses = [replace(one, implicit=False) for one in accesses]
        found = come_to(cpu, with_bit, addresses, accesses)
        assert found == come_to(plain, without, addresses, accesses)
        reached |= {one.split()[0] for one in found}
    assert {"reaches", "#PF(05)"} <= reached


@pytest.mark.parametrize("mode", LONG)
def test_every_level_has_the_bit_and_no_address_does(mode: Mode) -> None:
    cpu = replace(Cpu.in_mode(mode, 0), c_bit=47, maxphyaddr=52)
    for number, level in enumerate(cpu.format.levels):
        for shape in level.shapes:
            assert not shape.address_of(-1) >> 47 & 1
        raw = 1 << 47 | 0x4000_0000 | (0xE7 if number in (1, 2) else 0x67)
        entry = cpu.format.decode(raw, number)
        place = entry.table.address if isinstance(entry, Pointer) else None
        assert (entry.address if isinstance(entry, Leaf) else place) == 0x4000_0000
        with pytest.raises(ValueError, match="no entry of this kind can hold"):
            cpu.format.levels[3].pointer.encode(1 << 47)  # type: ignore[union-attr]


def test_what_is_reserved_for_the_bit_alone_is_not_reserved_at_all() -> None:
    """With MAXPHYADDR 51 bit 51 is all that is beyond it."""
    cpu = replace(Cpu.in_mode(Mode.LEVEL_4, 0), c_bit=51, maxphyaddr=51)
    reserved = [
        part for level in cpu.format.levels for one in level.shapes for part in one.reserved
    ]
    assert reserved and all(part.mask for part in reserved)


def test_without_it_the_bit_is_reserved_and_other_bits_stay_reserved() -> None:
    plain = Cpu.in_mode(Mode.LEVEL_4, 0)
    raw = 1 << 47 | 0x2067
    assert plain.format.decode(raw, 0) == Malformed(1 << 47)
    cpu = replace(plain, c_bit=47)
    assert cpu.format.decode(raw | 1 << 46, 0) == Malformed(1 << 46)
    assert not cpu.format.malformed(raw, 0)


def test_cr3_can_be_loaded_with_the_bit() -> None:
    plain = Cpu.in_mode(Mode.LEVEL_4, 1 << 47 | 0x1000)
    memory = BufferMemory(bytes(0x2000))
    assert isinstance(load(plain, plain, memory), Fault)
    cpu = replace(plain, c_bit=47)
    assert load(cpu, cpu, memory) == cpu and cpu.base == Physical(0x1000)
    assert (plain.marked, cpu.marked) == (0, 1 << 47)
    assert reserved_in_cr3(cpu) == reserved_in_cr3(plain) & ~(1 << 47)


@pytest.mark.parametrize(
    ("mode", "fields", "sentence"),
    [
        (Mode.LEVEL_4, {"c_bit": 47, "shared_bit": 51}, "not both"),
        (Mode.LEVEL_4, {"c_bit": 31}, "one of 32 to 51 in long mode: 31 is not"),
        (Mode.LEVEL_5, {"shared_bit": 52}, "52 is not"),
        (Mode.PAE, {"c_bit": 47}, "in long mode: 47 is not"),
        (Mode.BITS_32, {"c_bit": 47}, "in long mode: 47 is not"),
    ],
)
def test_what_cannot_be_is_refused(mode: Mode, fields: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(Cpu.in_mode(mode, 0), **fields)  # type: ignore[arg-type]


def test_formats_with_the_same_bit_are_the_same() -> None:
    one, other = (replace(Cpu.in_mode(Mode.LEVEL_4, at), c_bit=47) for at in (0, 0x1000))
    assert one.format is other.format
    assert one.format is not replace(one, c_bit=None, shared_bit=47).format


def test_a_whole_space_is_listed_without_the_bit() -> None:
    memory = BufferMemory(bytearray(0x5000))
    for place, word in ((0x1000, 0x2067), (0x2000, 0x3067), (0x3000, 0x4067), (0x4008, 0x5067)):
        memory.store(Physical(place), 8, word | 1 << 51)
    cpu = replace(Cpu.in_mode(Mode.LEVEL_4, 0x1000 | 1 << 51), c_bit=51)
    leaves = bulk.leaves(memory, cpu.roots)
    assert leaves.total == 1
