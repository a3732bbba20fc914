"""The arrays give the scalar walker's answers."""

import random
from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.errors import TooManyTables
from harness.paging.memory import BufferMemory, Memory
from harness.paging.table import Root, Table
from harness.paging.walk import Walk, leaves, walk
from harness.paging.x86.cpu import Cpu, Mode
from tests.paging.machines import READERS, cpu_of, memory_of, random_addresses, random_memory
from tests.paging.rules import Machine
from tests.paging.test_walk import mixed_entries
from tests.paging.toys import MIXED_ROOTS

ENDS = {Leaf: bulk.End.LEAF, Absent: bulk.End.ABSENT, Malformed: bulk.End.MALFORMED}
FEW = (0, 255, 511)


def lane(found: Walk) -> tuple[int, int, int, int, int]:
    """End, level, raw entry, rights and translation, as the arrays hold them."""
    if found.unbacked is not None:
        return bulk.End.UNBACKED, found.level, 0, found.granted, 0
    step = found.steps[-1]
    return ENDS[type(step.entry)], found.level, step.raw, found.granted, found.physical or 0


def scalar(memory: Memory, roots: Iterable[Root], address: int) -> tuple[int, int, int, int, int]:
    for root in roots:
        if address in root.span:
            return lane(walk(memory, root, Virtual(address)))
    return bulk.End.NO_ROOT, 0, 0, 0, 0


def lanes(walks: bulk.Walks) -> list[tuple[int, ...]]:
    columns = (walks.end, walks.level, walks.raw, walks.granted, walks.physical)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("machine", READERS, ids=str)
def test_array_walks_are_the_scalar_ones(machine: Machine) -> None:
    roots = cpu_of(machine).roots
    for seed in range(5):
        memory = random_memory(seed, machine)
        addresses = random_addresses(seed, machine, 200)
        walks = bulk.walk(memory, roots, np.array(addresses, np.uint64))
        assert walks.address.tolist() == addresses
        assert lanes(walks) == [scalar(memory, roots, address) for address in addresses]


@pytest.mark.parametrize("seed", range(5))
def test_roots_with_tables_of_their_own_each_serve_their_addresses(seed: int) -> None:
    source = random.Random(seed)
    memory = memory_of(mixed_entries(source))
    addresses = [source.randrange(0x200000) for _ in range(500)]
    walks = bulk.walk(memory, MIXED_ROOTS, np.array(addresses, np.uint64))
    assert lanes(walks) == [scalar(memory, MIXED_ROOTS, address) for address in addresses]


def test_no_addresses_have_no_walks() -> None:
    assert (
        lanes(bulk.walk(memory_of([0] * 512), cpu_of(Machine()).roots, np.zeros(0, np.uint64)))
        == []
    )


def test_more_lanes_than_are_worked_on_together_are_all_walked() -> None:
    machine = Machine()
    memory, roots = random_memory(1, machine), cpu_of(machine).roots
    some = random_addresses(1, machine, 97)
    many = np.tile(np.array(some, np.uint64), bulk.LANES // 40)
    expected = [scalar(memory, roots, address) for address in some]
    assert lanes(bulk.walk(memory, roots, many)) == expected * (bulk.LANES // 40)


@pytest.mark.parametrize("machine", READERS, ids=str)
def test_every_step_of_many_walks_is_kept(machine: Machine) -> None:
    memory, root = random_memory(2, machine), cpu_of(machine).roots[0]
    addresses = [a for a in random_addresses(2, machine, 200) if a in root.span]
    paths = bulk.paths(memory, root, np.array(addresses, np.uint64))
    for number, address in enumerate(addresses):
        steps = walk(memory, root, Virtual(address)).steps
        assert {
            level: (int(paths.slot[level, number]), int(paths.raw[level, number]))
            for level in np.flatnonzero(paths.used[:, number]).tolist()
        } == {step.slot.level: (step.slot.address, step.raw) for step in steps}


@pytest.mark.parametrize("machine", READERS, ids=str)
def test_layers_of_every_format_begin_at_its_roots(machine: Machine) -> None:
    memory, roots = random_memory(3, machine, FEW), cpu_of(machine).roots
    tables: set[tuple[int, int]] = set()
    todo = [root.table for root in roots]
    while todo:
        table = todo.pop()
        if (table.level, table.address) not in tables:
            tables.add((table.level, table.address))
            raws = [memory.load(slot.address, table.format.entry_bytes) for slot in table.slots()]
            entries = [table.format.decode(raw, table.level) for raw in raws if raw is not None]
            todo += [entry.table for entry in entries if isinstance(entry, Pointer)]
    found = bulk.layers(memory, roots, 1 << 16)
    levels = reversed(range(max((level for level, _ in tables), default=-1) + 1))
    assert [layer.tables.tolist() for layer in found] == [
        sorted(address for at, address in tables if at == level) for level in levels
    ]


def test_the_layers_under_a_single_root_are_found() -> None:
    memory = memory_of([0x2007 << 32 | 0x1007, *[0] * 511])  # two PDEs of 32-bit paging
    roots = Cpu.in_mode(Mode.BITS_32, 0).roots
    assert [layer.tables.tolist() for layer in bulk.layers(memory, roots, 9)] == [
        [0],
        [0x1000, 0x2000],
    ]


def test_lines_are_those_of_the_tables_asked_for_in_their_order() -> None:
    start, index = np.array([0, 3, 6, 7]), np.arange(7, dtype=np.uint16)
    words = np.zeros(7, np.uint64)
    layer = bulk.Layer(0, words[:3], start, index, words, np.zeros(7, np.uint8))
    for tables, expected in (
        ([0, 1], [0, 1, 2, 3, 4, 5]),
        ([1, 0], [3, 4, 5, 0, 1, 2]),
        ([2, 0], [6, 0, 1, 2]),
        ([1, 1], [3, 4, 5, 3, 4, 5]),
        ([1], [3, 4, 5]),
    ):
        lines, counts = layer.lines(np.array(tables))
        assert index[lines].tolist() == expected
        assert counts.tolist() == [int(start[table + 1] - start[table]) for table in tables]


@pytest.mark.parametrize("lanes", [1024, 1536])
def test_how_much_is_read_together_changes_nothing(
    lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    for seed in range(4):
        memory, roots = random_memory(seed, machine, FEW), cpu_of(machine).roots
        with monkeypatch.context() as patched:
            expected = bulk.leaves(memory, roots)
            listed = [layer.tables.tolist() for layer in bulk.layers(memory, roots, 1 << 16)]
            patched.setattr(bulk, "LANES", lanes)
            assert rows(bulk.leaves(memory, roots)) == rows(expected)
            assert [
                layer.tables.tolist() for layer in bulk.layers(memory, roots, 1 << 16)
            ] == listed


def rows(found: bulk.Leaves) -> list[tuple[int, ...]]:
    columns = (found.end, found.level, found.raw, found.granted, found.physical)
    return list(zip(found.virtual.tolist(), *(c.tolist() for c in columns), strict=True))


@pytest.mark.parametrize("machine", READERS, ids=str)
def test_array_leaves_are_the_scalar_ones_whatever_the_limit(machine: Machine) -> None:
    roots = cpu_of(machine).roots
    for seed in range(4):
        memory = random_memory(seed, machine, FEW)
        expected = [(found.address, *lane(found)) for found in leaves(memory, roots)]
        total = len(expected)
        for limit in {0, 1, total // 2, max(total - 1, 0), total, 1 << 26}:
            found = bulk.leaves(memory, roots, limit)
            assert rows(found) == expected[:limit]
            assert found.total == total
            assert found.complete == (limit >= total)


@pytest.mark.parametrize("limit", [0, 1, 511, 512, 513, 2000, 1 << 20])
def test_dense_leaves_in_random_order_are_cut_where_the_limit_says(limit: int) -> None:
    source = random.Random(limit)
    order = source.sample(range(4), 4)
    words = [0] * 512 * 7
    words[0], words[512] = 0x1007, 0x2007
    for place, table in enumerate(order):
        words[1024 + place] = (3 + table) << 12 | 7
    frames = source.sample(range(1 << 20), 2048)
    words[1536:] = [frame << 12 | 0x67 for frame in frames]
    found = bulk.leaves(memory_of(words), cpu_of(Machine()).roots, limit)
    listed = [frames[512 * table + slot] << 12 for table in order for slot in range(512)]
    assert found.physical.tolist() == listed[:limit]
    assert found.virtual.tolist() == [4096 * n for n in range(min(limit, 2048))]
    assert (found.total, set(found.level.tolist())) == (2048, {0} if limit else set())


def tables_by_hand(words: list[int], machine: Machine) -> dict[tuple[int, int], int]:
    """Paths to every table of a space, found by following each pointer."""
    paths: dict[tuple[int, int], int] = {}
    memory, format = memory_of(words), cpu_of(machine).format

    def follow(address: int, level: int, slots: range) -> None:
        paths[address, level] = paths.get((address, level), 0) + 1
        for slot in slots:
            raw = memory.load(Physical(address + 8 * slot), 8)
            entry = format.decode(raw, level) if raw else None
            if isinstance(entry, Pointer):
                follow(entry.table.address, level - 1, range(512))

    follow(0, machine.levels - 1, range(256))
    follow(0, machine.levels - 1, range(256, 512))
    return paths


@pytest.mark.parametrize("levels", [4, 5])
def test_every_table_is_reported_with_the_ways_it_is_reached(levels: int) -> None:
    for seed in range(2):
        machine = Machine(levels)
        memory = random_memory(seed, machine, (0, 256, 511))
        words = memory.octets.view(np.uint64).tolist()
        tables = bulk.leaves(memory, cpu_of(machine).roots).tables
        got = zip(tables.address.tolist(), tables.level.tolist(), strict=True)
        assert dict(zip(got, tables.paths.tolist(), strict=True)) == tables_by_hand(words, machine)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_table_of_self_maps_is_counted_to_the_last_and_listed_to_the_limit(levels: int) -> None:
    found = bulk.leaves(memory_of([3] * 512), cpu_of(Machine(levels)).roots, limit=5000)
    assert found.total == 512**levels
    assert not found.complete
    assert found.virtual.tolist() == [4096 * n for n in range(5000)]
    assert set(found.physical.tolist()) == {0}
    assert found.tables.level.tolist() == list(range(levels))
    # Each half of the root's slots is a root of its own, so its table is reached twice.
    assert found.tables.paths.tolist() == [*(512**n for n in range(levels - 1, 0, -1)), 2]


def test_65536_aliases_of_one_page_are_one_table_and_as_many_rows() -> None:
    words = [0] * 512 * 4
    words[0] = 0x1007
    words[512:640] = [0x2007] * 128
    words[1024:1536] = [0x3007] * 512
    words[1536 + 4] = 0x5067
    found = bulk.leaves(memory_of(words), cpu_of(Machine()).roots)
    assert found.total == 65536
    assert set(found.physical.tolist()) == {0x5000}
    assert found.virtual.tolist() == [
        a << 30 | b << 21 | 4 << 12 for a, b in product(range(128), range(512))
    ]
    by_level = dict(zip(found.tables.level.tolist(), found.tables.paths.tolist(), strict=True))
    assert by_level == {0: 65536, 1: 128, 2: 1, 3: 2}


def by_level(memory: BufferMemory, cpu: Cpu) -> list[list[int]]:
    """The addresses of all tables by the definition, level by level from the root down."""
    found: dict[int, set[int]] = {}

    def visit(table: Table) -> None:
        if table.address in found.setdefault(table.level, set()):
            return
        found[table.level].add(table.address)
        for slot in table.slots():
            raw = memory.load(slot.address, 8)
            entry = cpu.format.decode(raw, table.level) if raw is not None else None
            if isinstance(entry, Pointer):
                visit(entry.table)

    for root in cpu.roots:
        visit(root.table)
    return [sorted(found[level]) for level in sorted(found, reverse=True)]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", range(3))
def test_layers_are_the_tables_of_each_level_once_and_in_order(levels: int, seed: int) -> None:
    machine = Machine(levels)
    memory, cpu = random_memory(seed, machine, (0, 256, 511)), cpu_of(machine)
    expected = by_level(memory, cpu)
    count = sum(map(len, expected))
    assert [found.tables.tolist() for found in bulk.layers(memory, cpu.roots, count)] == expected
    with pytest.raises(TooManyTables, match=f"there are more than {count - 1} tables"):
        list(bulk.layers(memory, cpu.roots, count - 1))


def test_layers_begin_at_every_root_of_their_level() -> None:
    found = [part.tables.tolist() for part in bulk.layers(memory_of([0] * 512), MIXED_ROOTS, 2)]
    assert found == [[0x000, 0x100], [], []]
    assert list(bulk.layers(memory_of([0] * 512), (), 0)) == []


def test_the_pointers_of_layers_are_bounded_by_64_for_each_table() -> None:
    """Four tables, 1,536 pointers: 512 in each but the last."""
    words = [0x1007] * 512 + [0x2007] * 512 + [0x3007] * 512 + [0] * 512
    memory, roots = memory_of(words), cpu_of(Machine(4)).roots
    assert [found.tables.tolist() for found in bulk.layers(memory, roots, 24)] == [
        *([0], [0x1000], [0x2000], [0x3000])
    ]
    with pytest.raises(TooManyTables, match="there are more than 1,472 pointers"):
        list(bulk.layers(memory, roots, 23))


def test_more_tables_than_layers_may_find_are_refused_before_they_are_listed() -> None:
    """Of one root, 512 tables: found while the root's level is read."""
    words = [0x1007 + 0x1000 * n for n in range(512)]
    memory, roots = memory_of(words), cpu_of(Machine(4)).roots
    listing = bulk.layers(memory, roots, 100)
    assert next(listing).tables.tolist() == [0]
    with pytest.raises(TooManyTables, match="there are more than 100 tables"):
        next(listing)


def test_layers_stop_reading_a_level_once_it_leads_to_too_many_tables() -> None:
    """200 tables of 512 pointers, 64 of which are read together: 32,768 pointers, all different."""
    words = [0x1007 + 0x1000 * n for n in range(200)] + [0] * 312
    words += [0x100_0007 + 0x1000 * n for n in range(200 * 512)]
    listing = bulk.layers(memory_of(words), cpu_of(Machine(4)).roots, 600)
    assert [len(next(listing).tables) for _ in range(2)] == [1, 200]
    with pytest.raises(TooManyTables, match="there are more than 600 tables"):
        next(listing)


def test_tables_that_are_found_again_and_again_are_not_too_many() -> None:
    """256 tables, 64 of which are read together, lead to the same 300 in each of four parts: 1,200
    are more than twice as many as there may be, and 300 are not."""
    words = [0x1007 + 0x1000 * n for n in range(256)] + [0] * 256
    for table in range(256):
        targets = [(5 * table + slot) % 300 for slot in range(5)]
        words += [0x100_0007 + 0x1000 * target for target in targets] + [0] * 507
    found = bulk.layers(memory_of(words), cpu_of(Machine(4)).roots, 557)
    assert [len(one.tables) for one in found] == [1, 256, 300, 0]


def test_of_the_slots_without_memory_the_first_of_each_table_stands_for_all() -> None:
    words = [0] * 700
    words[0], words[1], words[2] = 0x1007, 0x1005, 0x9007
    words[512] = 0x87
    found = bulk.leaves(memory_of(words), cpu_of(Machine()).roots)
    gigabyte, slot = 1 << 30, 1 << 39
    assert rows(found) == [
        (0, bulk.End.LEAF, 2, 0x87, 1 << 63 | 6, 0),
        (188 * gigabyte, bulk.End.UNBACKED, 2, 0, 1 << 63 | 6, 0),
        (slot, bulk.End.LEAF, 2, 0x87, 1 << 63 | 4, 0),
        (slot + 188 * gigabyte, bulk.End.UNBACKED, 2, 0, 1 << 63 | 4, 0),
        (2 * slot, bulk.End.UNBACKED, 2, 0, 1 << 63 | 6, 0),
    ]


def test_taking_rows_keeps_the_total_and_the_tables() -> None:
    words = [0x4000_0083] * 512 + [0x4000_0083] * 512
    words[:512] = [0x1003] * 512
    found = bulk.leaves(memory_of(words), cpu_of(Machine()).roots)
    few = found.take(found.virtual < np.uint64(3 << 30))
    assert few.virtual.tolist() == [0, 1 << 30, 2 << 30]
    assert (few.total, few.tables) == (found.total, found.tables)


@pytest.mark.parametrize(("mode", "width"), [(Mode.BITS_32, 4), (Mode.LEVEL_4, 8)])
def test_a_piece_of_a_table_is_the_memory_of_its_slots(mode: Mode, width: int) -> None:
    address, first, last = (
        np.array(column, np.uint64) for column in ([0x1000, 0x5000], [0, 3], [511, 3])
    )
    begins, ends = bulk.Pieces(Cpu.in_mode(mode, 0).format, 0, address, first, last).memory
    assert begins.tolist() == [0x1000, 0x5000 + 3 * width]
    assert ends.tolist() == [0x1000 + 512 * width - 1, 0x5000 + 4 * width - 1]
