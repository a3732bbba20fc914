"""What a fork makes of entries of pages that are away, on each architecture that has them as most
do: expected by what they say, as copy_nonpresent_pte and copy_huge_pmd (Linux 6.12) have it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from harness.paging.address import Physical
from harness.paging.arm64.formats import stage1
from harness.paging.arm64.linux import Linux as Arm64Linux
from harness.paging.copy import ForkRefused
from harness.paging.linux.away import Away, Dialect
from harness.paging.linux.entries import Counted, Marker, Migration, Notes, Poison, Swap, Type
from harness.paging.memory import Words
from harness.paging.riscv.formats import sv
from harness.paging.riscv.linux import Linux as RiscvLinux

LINUX: dict[str, Dialect] = {
    "riscv": RiscvLinux(sv(39, svnapot=True, svpbmt=True)),
    "arm64": Arm64Linux(stage1("4K", 48, 44)),
}
every = pytest.mark.parametrize("linux", LINUX.values(), ids=LINUX)
privately = pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])

MOVING = (Type.MIGRATION_READ, Type.MIGRATION_READ_EXCLUSIVE, Type.MIGRATION_WRITE)
TOP = Physical((1 << 52) - 0x20_0000)


def moving() -> list[Away]:
    return [
        Migration(type, address, young, dirty)
        for type, address, young, dirty in product(
            MOVING, (Physical(0), Physical(0x4020_0000), TOP), (False, True), (False, True)
        )
    ]


def away(linux: Dialect) -> list[Away]:
    """Something of every kind that this kernel has."""
    areas, last = linux.fields.areas, linux.fields.last
    found: list[Away] = [Swap(area, at) for area in (0, 1, areas - 1) for at in (1, 5, last)]
    found += moving()
    found += [Marker(Notes(n)) for n in (1, 2, 3) if not n & ~linux.fields.notes]
    if linux.fields.number(Type.POISON) is not None:
        found += [Poison(Physical(0x5000)), Poison(TOP)]
    return found


def forked(meaning: Away, private: bool) -> tuple[Away, Away | None, Counted]:
    """What the parent's and the child's say, and as what it counts."""
    match meaning:
        case Swap():
            return meaning, meaning, Counted.SWAP
        case Migration():
            moved = replace(meaning, type=Type.MIGRATION_READ) if private else meaning
            return moved, moved, Counted.MIGRATION
        case Marker(notes):
            kept = Marker(Notes.POISONED) if notes & Notes.POISONED else None
            return meaning, kept, Counted.MARKER
    return meaning, meaning, Counted.POISON


def words(raws: list[int]) -> Words:
    return np.array(raws, np.uint64)


@privately
@every
def test_a_fork_goes_by_what_an_entry_says(linux: Dialect, private: bool) -> None:
    exclusive, uffd_wp = linux.fields.exclusive, linux.fields.uffd_wp
    cases = [*product(away(linux), {0, exclusive, uffd_wp, exclusive | uffd_wp}), (None, 0)]
    wanted = []
    for meaning, marks in cases:
        if meaning is None:
            wanted.append((0, 0, Counted.NOTHING))
            continue
        parent, child, counted = forked(meaning, private)
        kept = marks & ~exclusive if counted is Counted.SWAP else marks
        below = linux.encode(child) | kept & ~uffd_wp if child else 0
        wanted.append((linux.encode(parent) | kept, below, counted))
    raw = words([linux.encode(meaning) | marks if meaning else 0 for meaning, marks in cases])
    found = linux.fork(raw, 0, private)
    sides = zip(found.parent.tolist(), found.child.tolist(), found.counted.tolist(), strict=True)
    assert list(zip(cases, sides, strict=True)) == list(zip(cases, wanted, strict=True))


@privately
@every
def test_of_large_pages_those_that_move_are_away_and_no_others(
    linux: Dialect, private: bool
) -> None:
    meanings = moving()
    raws = [0, *(linux.encode(meaning, 1) for meaning in meanings)]
    wanted = [0, *(linux.encode(forked(meaning, private)[0], 1) for meaning in meanings)]
    found = linux.fork(words(raws), 1, private)
    assert found.parent.tolist() == found.child.tolist() == wanted
    assert found.counted.tolist() == [Counted.NOTHING, *[Counted.MIGRATION] * len(meanings)]
    for meaning in away(linux):
        for level in (2,) if isinstance(meaning, Migration) else (1, 2):
            raw = words([0, 0, linux.encode(meaning, 0)])
            with pytest.raises(ForkRefused, match=f"no such entry at level {level}") as refused:
                linux.fork(raw, level, private)
            assert refused.value.index == 2
    assert linux.fork(words([0, 0]), 2, private).counted.tolist() == [Counted.NOTHING] * 2


@every
def test_what_is_written_has_marks_besides_and_nothing_else(linux: Dialect) -> None:
    marks = {linux.fields.exclusive, linux.fields.uffd_wp}
    known = linux.fields.type | linux.fields.offset | sum(marks) | linux.stays(0)
    strange = [1 << bit for bit in range(64) if not known >> bit & 1]
    for meaning in away(linux):
        raw = linux.encode(meaning)
        # No area has as many pages as an offset can count (union swap_header).
        possible = not isinstance(meaning, Swap) or meaning.offset < 1 << 32
        for mark in {0, sum(marks), *marks}:
            assert linux.written(raw | mark, 0) == possible, meaning
        assert not any(linux.written(raw | bit, 0) for bit in strange), meaning


def test_a_kernel_without_poison_has_no_entry_for_it() -> None:
    with pytest.raises(ValueError, match="loses no pages to errors of memory"):
        LINUX["riscv"].encode(Poison(Physical(0x1000)))
