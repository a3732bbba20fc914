"""What tables hold otherwise than they did was stored since: in those of the loaded space and in
those of an earlier one, and in tables that are new."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.stores import KnownTables, format_of, parts_of
from harness.paging.address import Physical
from harness.paging.bulk import Tables
from harness.paging.memory import BufferMemory, Words
from harness.paging.s390.formats import dat
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import long_mode

PAGE, P, W, U = 0x1000, 1, 2, 4
TABLE = P | W | U
ARENA = 0x1000
"""The machine's own memory ends there."""
ROOT, OTHER_ROOT, THIRD, SECOND, FIRST, NEW, FRAME = (0x2000 + PAGE * n for n in range(7))


class World:
    """Four tables, one below the other, that lead to one page."""

    def __init__(self) -> None:
        self.memory = BufferMemory(np.zeros(16 * PAGE, np.uint8))
        self.cpu, self.other = Cpu.long_mode(4, ROOT), Cpu.long_mode(4, OTHER_ROOT)
        for table, index, below in ((ROOT, 3, THIRD), (THIRD, 2, SECOND), (SECOND, 1, FIRST)):
            self.store(table + 8 * index, below | TABLE)
        self.store(FIRST + 8 * 7, FRAME | P)
        self.known = KnownTables(self.memory, ARENA)

    def store(self, at: int, value: int) -> None:
        self.memory.store(Physical(at), 8, value)

    def changed(self, cpu: Cpu | None = None, whole: bool = False) -> list[tuple[int, int, bool]]:
        found = self.known.changed(cpu or self.cpu, whole=whole)
        columns = found.addresses.tolist(), found.before.tolist(), found.in_use.tolist()
        return list(zip(*columns, strict=True))


@pytest.fixture
def world() -> World:
    made = World()
    made.known.learn(made.cpu)
    return made


def words(*values: int) -> Words:
    return np.array(values, np.uint64)


def test_where_nothing_was_stored_nothing_is_found(world: World) -> None:
    assert world.changed() == [] == world.changed(whole=True)


def test_what_was_not_learned_is_new() -> None:
    """All words of it where those are wanted, and else none: what was there before is not known."""
    made = World()
    assert made.changed() == []
    made = World()
    found = made.changed(whole=True)
    assert [at for at, _, _ in found] == [
        table + 8 * n for table in (ROOT, THIRD, SECOND, FIRST) for n in range(512)
    ]
    assert all(not in_use for _, _, in_use in found)
    assert (FIRST + 8 * 7, FRAME | P, False) in found


@pytest.mark.parametrize("table", [ROOT, THIRD, SECOND, FIRST])
def test_each_word_that_is_another_is_found_once_with_what_was_there(
    world: World, table: int
) -> None:
    world.store(table + 8 * 511, 0x55 << 1)
    world.store(table, 0x33 << 1)
    assert world.changed() == [(table, 0, True), (table + 8 * 511, 0, True)]
    assert world.changed() == []
    world.store(table, 0)
    assert world.changed() == [(table, 0x33 << 1, True)]


def test_what_lies_beside_tables_is_not_looked_at(world: World) -> None:
    for at in (ROOT - 8, OTHER_ROOT, NEW, FRAME):
        world.store(at, 0x1234)
    assert world.changed() == []


def test_a_table_that_is_linked_is_known_from_then_on(world: World) -> None:
    world.store(NEW + 8 * 3, FRAME | P)
    world.store(SECOND + 8 * 2, NEW | TABLE)
    assert world.changed() == [(SECOND + 8 * 2, 0, True)]
    world.store(NEW + 8 * 3, 0)
    assert world.changed() == [(NEW + 8 * 3, FRAME | P, True)]


def test_of_a_new_table_all_words_are_told_where_they_are_wanted(world: World) -> None:
    world.store(NEW + 8 * 3, FRAME | P)
    world.store(SECOND + 8 * 2, NEW | TABLE)
    first, *others = world.changed(whole=True)
    assert first == (SECOND + 8 * 2, 0, True)
    assert others == [(NEW + 8 * n, FRAME | P if n == 3 else 0, False) for n in range(512)]


def test_of_a_frame_that_becomes_a_table_what_differs_is_told(world: World) -> None:
    world.store(NEW + 8 * 3, 0x77)
    world.known.hold_frames(world.cpu, words(NEW + 0xFF8))
    world.store(NEW + 8 * 3, 0x78)
    world.store(NEW + 8 * 4, 0x79)
    world.store(SECOND + 8 * 2, NEW | TABLE)
    assert world.changed() == [
        (SECOND + 8 * 2, 0, True),
        (NEW + 8 * 3, 0x77, False),
        (NEW + 8 * 4, 0, False),
    ]


def test_a_pointer_that_leads_elsewhere_leads_to_a_new_table(world: World) -> None:
    world.store(SECOND + 8, NEW | TABLE)
    world.known.hold_frames(world.cpu, words(NEW))
    world.store(NEW, 0x10)
    assert world.changed() == [(SECOND + 8, FIRST | TABLE, True), (NEW, 0, False)]
    # The table that was there is known still, and is one of the space no more.
    world.store(FIRST, 0x20)
    world.store(NEW, 0x30)
    assert world.changed() == [(FIRST, 0, False), (NEW, 0x10, True)]


@pytest.mark.parametrize("raw", [NEW | TABLE | 1 << 7, NEW | TABLE & ~P, NEW | TABLE | 1 << 51])
def test_what_is_no_pointer_leads_to_no_table(world: World, raw: int) -> None:
    """A large page, an absent entry, and one that is malformed."""
    world.store(SECOND + 8 * 2, raw)
    assert world.changed(whole=True) == [(SECOND + 8 * 2, 0, True)]
    assert world.known.in_use(world.cpu, words(NEW, FIRST)).tolist() == [False, True]


def test_tables_of_another_root_are_found_where_it_is_loaded(world: World) -> None:
    world.store(OTHER_ROOT + 8 * 4, THIRD | TABLE)
    assert world.changed() == []
    assert world.changed(world.other) == []
    at = words(ROOT, ROOT + 0xFF8, OTHER_ROOT, THIRD, SECOND, FIRST, FIRST + 8 * 9, NEW, FRAME)
    assert world.known.in_use(world.other, at).tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    world.store(ROOT, 0x40)
    world.store(OTHER_ROOT, 0x50)
    assert world.changed(world.other) == [(ROOT, 0, False), (OTHER_ROOT, 0, True)]
    assert world.changed(world.cpu) == []
    assert world.known.in_use(world.cpu, at).tolist() == [1, 1, 0, 1, 1, 1, 1, 0, 0]


def test_what_the_machine_has_for_itself_and_what_has_no_memory_is_none(world: World) -> None:
    own, beyond = ARENA - PAGE, 16 * PAGE
    for index, table in ((4, own), (5, beyond), (6, ARENA)):
        world.store(SECOND + 8 * index, table | TABLE)
    world.changed()
    at = words(own, ARENA, beyond)
    assert world.known.in_use(world.cpu, at).tolist() == [False, True, False]


def test_what_is_forgotten_was_never_known(world: World) -> None:
    world.known.hold_frames(world.cpu, words(NEW))
    world.known.forget()
    world.store(FIRST, 0x11)
    assert not world.known.in_use(world.cpu, words(ROOT, FIRST)).any()
    assert world.changed() == []
    assert world.known.in_use(world.cpu, words(ROOT, FIRST)).all()
    world.store(NEW, 0x22)
    world.store(SECOND + 8 * 2, NEW | TABLE)
    assert world.changed() == [(SECOND + 8 * 2, 0, True)]


def test_large_tables_are_cut_to_the_size_of_the_smallest() -> None:
    """A segment table has 16 KiB where a page table has 2."""
    format = dat(edat1=True, edat2=True, iep=True)
    tables = Tables(words(0x10_0000, 0x20_0000), np.array([0, 1], np.uint8), words(3, 5))
    parts = parts_of(format, tables)
    assert parts.address.tolist() == [0x10_0000, *range(0x20_0000, 0x20_4000, 0x800)]
    assert parts.level.tolist() == [0] + [1] * 8
    assert parts.paths.tolist() == [3] + [5] * 8
    same = parts_of(long_mode(4, 40, True, True), tables)
    assert (same.address.tolist(), same.paths.tolist()) == ([0x10_0000, 0x20_0000], [3, 5])


def test_a_space_has_the_format_of_its_first_root() -> None:
    cpu: Any = SimpleNamespace(roots=Cpu.long_mode(5, 0).roots)
    assert format_of(cpu) is long_mode(5, 40, True, True)
