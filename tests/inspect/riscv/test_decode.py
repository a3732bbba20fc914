"""A reading of a RISC-V entry accounts for every bit once, and what it says of a bit is what the
bit does; what is wrong with entries is as the privileged specification has it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import reduce
from operator import or_

import pytest

from harness.inspect.decode import Reading, Role, levels_of, named, read
from harness.inspect.riscv import decode as words
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Satp
from harness.report.decode import says

SAMPLES = 80
"""Random entries a level of a state."""


def states(mode: Mode) -> Iterator[Cpu]:
    """Harts in a mode that read entries differently."""
    yield Cpu.in_mode(mode, 0)
    if mode is Mode.SV32:
        return
    yield Cpu.in_mode(mode, 0, pbmte=True, svnapot=True, adue=True)
    yield Cpu(Satp(mode, 0).raw, menvcfg=Envcfg.PBMTE, svrsw60t59b=True)


EVERY = [
    pytest.param(cpu, level, id=f"{mode.value}-state{number}-level{level}")
    for mode in Mode
    for number, cpu in enumerate(states(mode))
    for level in levels_of(cpu)
]


def entries(cpu: Cpu, level: int) -> Iterator[int]:
    """Random entries of all kinds: most are well-formed, or were made so."""
    source = random.Random(f"{cpu} {level}")
    width = 8 * cpu.format.entry_bytes
    yield from (0, 1, 3, 7, 0xCF, (1 << width) - 1)
    for _ in range(SAMPLES):
        raw = (
            source.getrandbits(width) & ~0xE | source.choice((0, 0, 2, 6, 8, 0xA, 0xE, 4, 0xC)) | 1
        )
        if width == 64 and source.random() < 0.9:
            raw &= ~(0x3FF << 54) | source.choice((0, 1 << 63, 1 << 61, 2 << 61))
        if level and source.random() < 0.7:
            raw &= ~((1 << 10 + (9 if width == 64 else 10) * level) - (1 << 10))
        yield raw
        if isinstance(wrong := cpu.format.decode(raw, level), Malformed):
            yield raw & ~wrong.bits | 1


def where(entry: object) -> int:
    """Where the entry leads, if anywhere."""
    if isinstance(entry, Leaf):
        return int(entry.address)
    return int(entry.table.address) if isinstance(entry, Pointer) else 0


def role_of(reading: Reading, bit: int) -> Role:
    (role,) = {part.role for part in reading.parts if part.mask >> bit & 1}
    return role


def check(cpu: Cpu, raw: int, level: int) -> None:
    """A reading agrees with what the walker does when any bit is changed."""
    format = cpu.format
    reading, entry = read(cpu, raw, level), format.decode(raw, level)
    width = 8 * format.entry_bytes
    masks = [part.mask for part in reading.parts]
    assert sum(masks) == reduce(or_, masks) == (1 << width) - 1
    assert masks == sorted(masks, reverse=True)
    assert all(part.meaning and part.section for part in reading.parts)
    assert reading.entry == entry
    wrong = reduce(or_, (part.mask for part in reading.parts if part.wrong), 0)
    offending = entry.bits if isinstance(entry, Malformed) else 0
    assert bool(wrong) == bool(offending)
    for part in reading.parts:
        if part.wrong and part.must_be is not None:
            assert (raw ^ part.must_be << part.low) & part.mask & ~offending == 0
    if not isinstance(entry, Leaf | Pointer):
        return
    assert sum(part.value for part in named(reading, Role.ADDRESS)) == where(entry)
    for bit in range(width):
        role, after = role_of(reading, bit), format.decode(raw ^ 1 << bit, level)
        if role is Role.PRESENT:
            assert isinstance(after, Absent)
        elif role is Role.RESERVED:
            assert isinstance(after, Malformed)
        elif role is Role.ADDRESS:
            assert where(after) != where(entry)
        elif role is Role.KIND:
            assert type(after) is not type(entry) or after != entry
        elif role is Role.RIGHT:
            changed = format.granted(raw, level) != format.granted(raw ^ 1 << bit, level)
            assert changed or not isinstance(after, Leaf)
        elif role is Role.TYPE:
            assert after == entry or isinstance(after, Malformed)
        else:
            assert after == entry


@pytest.mark.parametrize(("cpu", "level"), EVERY)
def test_every_bit_is_accounted_for_once_and_does_what_is_said_of_it(cpu: Cpu, level: int) -> None:
    kinds = set()
    for raw in entries(cpu, level):
        check(cpu, raw, level)
        kinds.add(type(cpu.format.decode(raw, level)))
    assert kinds == {Absent, Malformed, Leaf, *([Pointer] if level else [])}


FULL = Cpu.in_mode(Mode.SV39, 0, pbmte=True, svnapot=True)


@pytest.mark.parametrize(
    ("raw", "level", "said"),
    [
        (0x20000000 | 0xCF, 0, "4K page at 0x80000000"),
        (0x20000000 | 0xCF, 2, "1G page at 0x80000000"),
        (0x20000000 | 0x01, 1, "table at 0x80000000"),
        (0x20000000 | 0xC0, 1, "not present"),
        (0x20000000 | 0x01, 0, "reserved: R=W=X=0 at level 0"),
        (0x20000000 | 0x05, 0, "reserved: 0x4 W without R"),
        (0x20000400 | 0x03, 1, "reserved: 0x400 below a superpage"),
        (
            0x20000000 | 0xC1,
            1,
            "reserved: 0x80 U, A or D in a pointer, 0x40 U, A or D in a pointer",
        ),
        (1 << 63 | 0x20002000 | 0xCF, 0, "64K page at 0x80000000"),
        (1 << 63 | 0x20000000 | 0xCF, 0, "reserved: a NAPOT page of another size than 64K"),
        (3 << 61 | 0x20000000 | 0xCF, 0, "reserved: 0x6000000000000000 PBMT=3"),
        (1 << 54 | 0x20000000 | 0xCF, 0, "reserved: 0x40000000000000 bits 60:54"),
    ],
)
def test_what_an_entry_says(raw: int, level: int, said: str) -> None:
    assert says(read(FULL, raw, level)) == said


def meanings(raw: int, level: int, cpu: Cpu = FULL) -> dict[str, str]:
    return {part.name: part.meaning for part in read(cpu, raw, level).parts}


def test_a_clear_a_or_d_faults_unless_the_hart_sets_it() -> None:
    page = 0x20000000 | 0xF
    setting = Cpu.in_mode(Mode.SV39, 0, adue=True)
    assert meanings(page, 0)["A"].endswith("an access faults (Svade)")
    assert meanings(page, 0, setting)["A"].endswith("an access sets it")
    assert meanings(page, 0)["D"].endswith("a write faults (Svade)")


def test_rights_mean_nothing_in_a_pointer_and_a_type_is_a_pages() -> None:
    pointer = read(FULL, 0x20000001, 1)
    assert role_of(pointer, 1) is Role.KIND and pointer.memory_type is None
    uncached = read(FULL, 2 << 61 | 0x200000CF, 0)
    assert uncached.memory_type is not None and uncached.memory_type.name == "IO"


@pytest.mark.parametrize(("raw", "level"), [(1, 3), (1, -1), (1 << 64, 0)])
def test_what_is_no_entry_is_refused(raw: int, level: int) -> None:
    with pytest.raises(QuestionError, match=r"levels 0 to 2|more than the 64 bits"):
        read(FULL, raw, level)


@pytest.mark.parametrize("name", ["W", "N", "A", "G"])
def test_a_name_with_the_wrong_role_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(words._ROLES, name, Role.ADDRESS)
    with pytest.raises(AssertionError):
        for raw in entries(FULL, 0):
            check(FULL, raw, 0)
