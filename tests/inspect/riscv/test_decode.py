"""A reading of a RISC-V entry accounts for every bit once, and what it says of a bit is what the
bit does; what is wrong with entries is as the privileged specification has it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import reduce
from operator import or_

import numpy as np
import pytest

from harness.inspect.decode import Reading, Role, levels_of, named, read
from harness.inspect.riscv import decode as words
from harness.inspect.riscv import memory_type
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Satp
from harness.paging.riscv.formats import A, D, G, R, U, V, W, X
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


NAMED = {
    **dict(enumerate("VRWXUGAD")),
    **dict.fromkeys((8, 9), "RSW"),
    **dict.fromkeys(range(10, 54), "PPN"),
    **dict.fromkeys(range(54, 61), "reserved"),
    **dict.fromkeys((61, 62), "PBMT"),
    63: "N",
}
"""The bits of an entry ("Sv39 page table entry")."""

SECTIONS = {**dict.fromkeys("AD", "Svade, Svadu"), "PBMT": "Svpbmt", "N": "Svnapot"}
"""What describes those of extensions."""


@pytest.mark.parametrize(("cpu", "level"), EVERY)
def test_every_bit_has_the_name_that_the_manual_gives_it(cpu: Cpu, level: int) -> None:
    section = cpu.mode.value.capitalize()
    seen = set[str]()
    for raw in entries(cpu, level):
        reading, absent = read(cpu, raw, level), not raw & 1
        assert (reading.level, reading.raw, reading.entry_bytes) == (level, raw, cpu.xlen // 8)
        assert reading.table == section
        for part in reading.parts:
            for bit in range(part.low, part.high + 1):
                name = NAMED[bit]
                if absent and bit:
                    assert part.name == "ignored" and part.role is Role.IGNORED
                elif part.name == "XWR":  # which are wrong together
                    assert bit in (1, 2, 3) and not raw & 0xE
                elif part.name == "ignored":
                    assert bit in (59, 60) and cpu.svrsw60t59b
                elif part.name == "reserved" and name == "PPN":
                    assert part.role is Role.RESERVED
                else:
                    assert part.name == name, (hex(raw), bit)
                means = part.role not in (Role.RESERVED, Role.IGNORED)
                if means:
                    assert part.section == SECTIONS.get(name, section)
                seen.add(part.name)
    assert seen >= {"V", "R", "W", "X", "U", "G", "A", "D", "RSW", "PPN", "ignored"}


@pytest.mark.parametrize("cpu", [cpu for mode in Mode for cpu in states(mode)])
def test_single_bits_say_what_they_give(cpu: Cpu) -> None:
    for raw in range(1, 256, 2):
        reading, entry = read(cpu, raw, 0), cpu.format.decode(raw, 0)
        if not isinstance(entry, Leaf):
            continue
        said = {part.name: part.meaning for part in reading.parts}
        for bit, verb in ((R, "reads"), (W, "writes"), (X, "fetches")):
            given = said["RWX"[[R, W, X].index(bit)]]
            assert given.startswith(verb if raw & bit else f"no {verb}")
        assert said["U"].startswith("for U-mode; S-mode never" if raw & U else "for S-mode alone")
        assert said["G"].startswith("global" if raw & G else "of one address space")
        marks = "sets it" if cpu.sets_marks else "faults (Svade)"
        assert said["A"] == (
            "used by an access" if raw & A else f"not used since it was cleared: an access {marks}"
        )
        assert said["D"] == (
            "written" if raw & D else f"not written since it was cleared: a write {marks}"
        )
        assert said["V"] == "valid"
    assert read(cpu, 0, 0).parts[-1].meaning == "not valid: every access faults"
    for global_ in (0, G):
        pointer = {part.name: part.meaning for part in read(cpu, global_ | V, 1).parts}
        below = "all that lies below is global" if global_ else "not global by this entry"
        assert pointer["G"] == below
        assert {pointer[name] for name in "RWX"} == {
            "0, as R and W and X of all that lead to a table"
        }


FULL = Cpu.in_mode(Mode.SV39, 0, pbmte=True, svnapot=True)


@pytest.mark.parametrize("cpu", [cpu for mode in Mode for cpu in states(mode)])
def test_the_type_of_a_page_is_its_pbmt_where_the_hart_has_that(cpu: Cpu) -> None:
    """One by one, and as arrays."""
    source = random.Random(5)
    for level, here in enumerate(cpu.format.levels):
        raws = [source.getrandbits(cpu.xlen) | 3 for _ in range(64)]
        wanted = [(raw >> 61) % 4 % 3 if cpu.pbmte else 0 for raw in raws]
        assert [memory_type.index_of(here.bits, raw) for raw in raws] == wanted
        assert memory_type.index(here, np.array(raws, np.uint64)).tolist() == wanted
        assert memory_type.selecting(here.bits, 0) == 0
        for number in (1, 2):
            if cpu.pbmte:
                bits = memory_type.selecting(here.bits, number)
                assert bits == number << 61
                made = bits | 0xCF
                found = read(cpu, made, level).memory_type
                assert found is not None
                assert (found.index, found.name) == (number, ("PMA", "NC", "IO")[number])
                assert found.said == f"PBMT={number}"
                said = {part.name: part.meaning for part in read(cpu, made, level).parts}["PBMT"]
                assert said.startswith(f"{found.name}: ")
            else:
                with pytest.raises(ValueError, match="no PBMT"):
                    memory_type.selecting(here.bits, number)
    plain = read(cpu, 0x20000000 | 0xCF, 0).memory_type
    assert plain is not None and (plain.index, plain.name) == (0, "PMA")
    assert plain.said == ("PBMT=0" if cpu.pbmte else "no entry says otherwise")
    with pytest.raises(QuestionError, match="RISC-V has no PAT"):
        memory_type.types(0x0007_0406)


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
