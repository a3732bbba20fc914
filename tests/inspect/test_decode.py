"""What is said of each bit of an entry is what the walker does with it, on every architecture."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Any

import pytest

from harness.inspect import architecture
from harness.inspect.arm64 import mode as arm64
from harness.inspect.decode import Reading, Role
from harness.inspect.power import mode as power
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Entry, Leaf, Malformed, Pointer
from harness.paging.power.cpu import is_of_other_size
from harness.paging.riscv.cpu import Mode as RiscvMode
from harness.paging.s390.cpu import Mode as S390Mode
from harness.paging.x86.cpu import Mode as X86Mode

EVERY = [
    *(("x86", mode.value) for mode in X86Mode),
    *(("riscv", mode.value) for mode in RiscvMode),
    *(("arm64", mode) for mode in arm64.MODES),
    *(("s390", mode.value) for mode in S390Mode),
    *(("power", mode) for mode in power.MODES),
]
SAMPLES = 12

WITHOUT_EFFECT = {"Contiguous", "nT", "TF", "TL"}
"""What is a hint alone, and how much of a table is there."""


def entries(cpu: Any, level: int) -> Iterator[int]:
    """Entries at random, those that are malformed with what is wrong in them put right besides, and
    a page and a table of which most is zero."""
    source, width = random.Random(f"{cpu.format.name} {level}"), 8 * cpu.format.entry_bytes
    here = cpu.format.levels[level]
    drawn = [source.getrandbits(width) for _ in range(SAMPLES)]
    for shape in here.shapes:
        mask, value = shape.when
        drawn += [value | shape.clean.value]
        drawn += [source.getrandbits(width) & ~mask | value for _ in range(SAMPLES)]
    for raw in drawn:
        yield raw
        if isinstance(cpu.format.decode(raw, level), Malformed):
            clean = here.shape(raw).clean
            yield raw & ~clean.mask | clean.value


def where(entry: Entry) -> int | None:
    """Where an entry leads."""
    if isinstance(entry, Leaf):
        return int(entry.address)
    return int(entry.table.address) if isinstance(entry, Pointer) else None


def disagrees(cpu: Any, level: int, reading: Reading) -> Iterator[str]:
    """What is said of bits and is not so, where one bit is changed at a time."""
    format, types = cpu.format, architecture.of(cpu).memory_types
    raw, entry, masks = reading.raw, reading.entry, format.levels[level].page_bits
    for part in reading.parts:
        assert part.mask >> part.low & part.mask >> part.low + 1 == part.mask >> part.low + 1
        if part.role is not Role.ADDRESS and part.value != (raw & part.mask) >> part.low:
            yield f"{part.name} has {part.value:#x}"
    for part in reading.parts:
        for bit in range(part.low, part.high + 1):
            other = raw ^ 1 << bit
            after, role = format.decode(other, level), part.role
            same = type(after) is type(entry) and where(after) == where(entry)
            alike = same and after == entry
            gives = format.granted(raw, level) == format.granted(other, level)
            typed = not isinstance(entry, Leaf) or (
                types.index_of(masks, raw) == types.index_of(masks, other)
            )
            right = {
                Role.PRESENT: not alike,
                Role.RESERVED: isinstance(after, Malformed),
                Role.ADDRESS: where(after) != where(entry),
                Role.KIND: not alike or part.name in WITHOUT_EFFECT,
                Role.RIGHT: alike or isinstance(after, Malformed),
                Role.TYPE: alike or isinstance(after, Malformed),
            }.get(role, alike)
            if not right:
                yield f"{part.name}, {role.value}, bit {bit}: {entry} and {after}"
            elif same and not gives and role is not Role.RIGHT:
                yield f"{part.name}, {role.value}, bit {bit}: a right"
            elif same and not typed and role is not Role.TYPE:
                yield f"{part.name}, {role.value}, bit {bit}: a type"


@pytest.mark.parametrize(("name", "mode"), EVERY)
def test_what_is_said_of_a_bit_is_what_it_does(name: str, mode: str) -> None:
    asked = architecture.named(name)
    cpu = asked.in_mode(mode, {})
    every = (1 << 8 * cpu.format.entry_bytes) - 1
    for level in range(len(cpu.format.levels)):
        found = set[type]()
        for raw in entries(cpu, level):
            reading = asked.read(cpu, raw, level)
            masks = [part.mask for part in reading.parts]
            assert sum(masks) == reduce(or_, masks) == every
            assert masks == sorted(masks, reverse=True)
            assert all(part.meaning and part.section for part in reading.parts)
            entry = cpu.format.decode(raw, level)
            if name == "power" and is_of_other_size(entry, level):
                continue  # which is read in the other format
            found.add(type(entry))
            wrong = any(part.wrong for part in reading.parts)
            assert wrong == isinstance(entry, Malformed)
            if isinstance(entry, Leaf | Pointer):
                assert not list(disagrees(cpu, level, reading)), f"{raw:#x} at level {level}"
        here = cpu.format.levels[level]
        assert (Leaf in found) == bool(here.pages) and (Pointer in found) == bool(here.pointer)


def test_options_that_a_mode_has_not_are_refused_by_their_names() -> None:
    riscv = architecture.named("riscv")
    for given, said in (
        ({"nxe": False}, "sv39 is a mode of RISC-V, where --no-nxe means nothing"),
        ({"nxe": False, "c_bit": 47}, "of RISC-V, where --no-nxe and --c-bit mean nothing"),
    ):
        with pytest.raises(QuestionError, match=f"{said}$"):
            architecture.in_mode(riscv, "sv39", given)
