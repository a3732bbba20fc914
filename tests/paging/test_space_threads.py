"""Many threads in one space, and the order of the locks."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import TracebackType

import pytest

from harness.paging import slots
from harness.paging.address import Physical, Virtual
from harness.paging.copy import copy_range
from harness.paging.errors import SpaceError
from harness.paging.format import Format
from harness.paging.lock import SPLIT_LEVELS, TableLock, held
from harness.paging.table import Table
from tests.paging.spaces import FORMATS, World, given, physical, tables_under

THREADS = 8
ROUNDS = 20


def together(work: Callable[[int], object], threads: int = THREADS) -> list[object]:
    """What `work` returns for each thread's number, or the SpaceError that it raises."""
    start = Barrier(threads)

    def run(number: int) -> object:
        start.wait()
        try:
            return work(number)
        except SpaceError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.fixture(params=FORMATS)
def world(request: pytest.FixtureRequest) -> World:
    return World(FORMATS[request.param])


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Has threads change places far more often than by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_need_the_same_tables_get_one_of_each(world: World) -> None:
    for _ in range(ROUNDS):
        world = World(world.format)

        def work(number: int, world: World = world) -> None:
            frames = world.frames(1, first=16 + number)
            world.space.map(Virtual(number * world.page), frames, 0, world.rights())

        assert together(work) == [None] * THREADS
        for number in range(THREADS):
            frame = (16 + number) * world.page
            assert physical(world.space, number * world.page) == frame
        found = tables_under(world.space)
        assert sum(world.space.account().tables) == len(found)
        assert {table.address for table in found} == given(world)


def test_a_map_that_loses_a_race_for_a_slot_gives_its_tables_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = world.allocator.allocate

    def late(format: Format, level: int) -> Table:
        monkeypatch.undo()
        world.space.map(Virtual(world.page), world.frames(1), 0, world.rights())
        return allocate(format, level)

    monkeypatch.setattr(world.allocator, "allocate", late)
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    for address in 0, world.page:
        assert physical(world.space, address) == world.frames(1)[0]
    found = tables_under(world.space)
    assert sum(world.space.account().tables) == len(found)
    assert {table.address for table in found} == given(world)


def test_a_map_that_waits_for_a_lock_uses_the_table_that_was_linked_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = world.space.lock

    def late(table: Table) -> TableLock:
        monkeypatch.undo()
        world.space.map(Virtual(world.page), world.frames(1), 0, world.rights())
        return lock(table)

    monkeypatch.setattr(world.space, "lock", late)
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    for address in 0, world.page:
        assert physical(world.space, address) == world.frames(1)[0]
    assert {table.address for table in tables_under(world.space)} == given(world)


def test_of_threads_that_map_the_same_page_one_wins_and_the_others_are_told(world: World) -> None:
    for _ in range(ROUNDS):
        world = World(world.format)
        first = world.table_span - world.page

        def work(number: int, world: World = world, first: int = first) -> int:
            frames = world.frames(2, first=16 + 2 * number)
            world.space.map(Virtual(first), frames, 0, world.rights())
            return number

        results = together(work)
        [winner] = [number for number in results if isinstance(number, int)]
        assert sum(isinstance(result, SpaceError) for result in results) == THREADS - 1
        for page in range(2):
            frame = (16 + 2 * winner + page) * world.page
            assert physical(world.space, first + page * world.page) == frame


def test_pages_that_threads_map_protect_and_unmap_side_by_side_do_not_mix(world: World) -> None:
    each = world.table_span // world.page

    def work(number: int) -> None:
        space, span = world.space, world.pages(number * world.page, 1)
        for _ in range(ROUNDS):
            space.map(Virtual(span.first), world.frames(1, first=8 + number), 0, world.rights())
            with space.protect(span, world.rights("write")) as flush:
                assert not len(flush.addresses)
            with space.unmap(span) as flush:
                assert flush.addresses.tolist() == [span.first]
            space.map(Virtual(span.first), world.frames(1, first=8 + number), 0, 0)
            with space.unmap(span):
                pass
        space.map(Virtual(span.first), world.frames(1, first=8 + number), 0, world.rights())

    assert together(work, min(THREADS, each)) == [None] * min(THREADS, each)
    for number in range(min(THREADS, each)):
        assert physical(world.space, number * world.page) == (8 + number) * world.page


def test_slots_are_populated_once(world: World) -> None:
    top = slots.root(world.space, Virtual(0))
    assert together(lambda n: slots.populate(world.space, top)) == [None] * THREADS
    assert world.space.account().tables[top.level - 1] == 1
    assert world.allocator.gave(slots.table(world.space, top))


def test_tables_at_the_split_levels_have_their_own_lock_and_one_stands_for_the_rest(
    world: World,
) -> None:
    world.space.populate(world.pages(0, 1))
    world.space.populate(world.pages(world.table_span, 1))
    tables = tables_under(world.space)
    locks = {table: world.space.lock(table) for table in tables}
    split = [table for table in tables if table.level < SPLIT_LEVELS]
    assert len({locks[table] for table in split}) == len(split) >= 3
    assert len({locks[table] for table in tables if table.level >= SPLIT_LEVELS}) == 1


class Watched:
    """Locks that notice when they are taken out of order, or when memory is allocated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
        self.held: list[tuple[int, int]] = []
        self.most = 0
        enter, leave, allocate = (
            TableLock.__enter__,
            TableLock.__exit__,
            world.allocator.allocate,
        )

        def watched_enter(lock: TableLock) -> None:
            assert all(rank < lock.rank for rank in self.held), f"{lock.rank} after {self.held}"
            enter(lock)
            self.held.append(lock.rank)
            self.most = max(self.most, len(self.held))

        def watched_leave(
            lock: TableLock,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            self.held.remove(lock.rank)
            leave(lock, kind, error, trace)

        def watched_allocate(format: Format, level: int) -> Table:
            assert not self.held, "memory is allocated under a lock"
            return allocate(format, level)

        monkeypatch.setattr(TableLock, "__enter__", watched_enter)
        monkeypatch.setattr(TableLock, "__exit__", watched_leave)
        monkeypatch.setattr(world.allocator, "allocate", watched_allocate)


def test_locks_are_taken_in_order_and_never_around_an_allocation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, world)
    space, child = world.space, world.new_space()
    span = world.pages(world.table_span - 2 * world.page, 4)
    space.map(Virtual(span.first), world.frames(4), 0, world.rights("write"))
    copied = copy_range(space, child, span)
    copied.flush.done()
    copied = copy_range(child, world.new_space(), span)
    assert not copied.flush
    for user in space, child:
        with user.protect(span, world.rights()), user.unmap(span), user.free_empty(span):
            pass
        with user.tear_down():
            pass
    assert watched.most >= 2
    assert not watched.held


def test_spaces_that_are_copied_to_each_other_at_once_do_not_wait_for_ever(world: World) -> None:
    spaces = [world.space, world.new_space()]
    spans = [world.pages(n * world.table_span, 4) for n in range(2)]
    for space, span in zip(spaces, spans, strict=True):
        space.map(Virtual(span.first), world.frames(4), 0, world.rights("write"))

    def work(number: int) -> int:
        copied = copy_range(spaces[number], spaces[1 - number], spans[number])
        copied.flush.done()
        return sum(copied.counts.values())

    assert together(work, 2) == [4, 4]


def test_locks_are_held_once_each_and_in_order() -> None:
    format = FORMATS["x86-4"]
    locks = [
        TableLock(Table(format, Physical(address), level))
        for address, level in ((0x3000, 0), (0x1000, 0), (0x9000, 3), (0x2000, 1))
    ]
    taken: list[TableLock] = []

    class Noting(TableLock):
        def __enter__(self) -> None:
            taken.append(self)
            super().__enter__()

    noting = [Noting(Table(format, Physical(lock.rank[1]), -lock.rank[0])) for lock in locks]
    with held([*noting, *noting]):
        assert [lock.rank for lock in taken] == [
            (-3, 0x9000),
            (-1, 0x2000),
            (0, 0x1000),
            (0, 0x3000),
        ]


def test_locks_are_given_back_after_an_exception() -> None:
    lock = TableLock(Table(FORMATS["x86-4"], Physical(0), 0))
    with pytest.raises(KeyError), held([lock]):
        raise KeyError
    with lock:
        pass
