"""Which cases a guest is asked, without one."""

from __future__ import annotations

import numpy as np

from harness.check.x86.cases import Cases
from harness.check.x86.probes import _entries, expect
from harness.check.x86.window import Window
from harness.machine.ram import ARENA, DEVICES, MIB
from harness.machine.x86.processor import State
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86 import formats
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import Cpu

RAM = ARENA.stop + 4 * MIB
OURS, FREE = ARENA.stop + MIB, ARENA.stop + 2 * MIB
ROOM, EDGE, OWN, TABLE, NOWHERE, ROM, LOST, STUB = (Virtual(n * MIB * 4) for n in range(1, 9))
BETWEEN = 1 << 47
"""An address that is not canonical."""


def test_what_a_guest_is_not_asked_is_counted_by_its_reason_and_all_else_is_asked() -> None:
    memory = BufferMemory(np.zeros(RAM, np.uint8))
    allocator = TableAllocator(memory, Span(OURS, FREE - 1))
    cpu = Cpu.long_mode(4, allocator.allocate(formats.long_mode(4, 40, True, True), 3).address)
    space = Space(memory, cpu.roots, allocator)
    frames = {EDGE: ARENA.stop, ROOM: FREE, OWN: ARENA.start, TABLE: OURS, NOWHERE: RAM}
    frames[ROM] = DEVICES.start
    for virtual, frame in frames.items():
        space.map(virtual, np.array([frame], np.uint64), 0, formats.RW)
    # A table where there is no memory, as there is none behind a page: its cases count once.
    space.write(space.slot(LOST, 1), RAM | formats.P | formats.RW)
    # A table of the stub's own, as the window's are.
    space.write(space.slot(STUB, 1), ARENA.start | formats.P | formats.RW)
    kinds = [Kind.READ, Kind.WRITE, Kind.FETCH]
    addresses = [*frames, LOST, BETWEEN, STUB]
    cases = Cases(
        np.repeat(np.array(addresses, np.uint64), len(kinds)),
        np.tile(np.array(kinds, np.uint8), len(addresses)),
        *np.zeros((2, len(kinds) * len(addresses)), np.bool_),
    )
    window = Window((Span(0, 0),), State(0, 0, 0, 0, 0, 0), (), ARENA)
    tables = bulk.leaves(memory, cpu.roots).tables.address
    before = memory.octets[: ARENA.stop].copy()
    expected, counted = expect(cpu, memory, tables, cases, window)

    asked = list(zip(expected.cases.address.tolist(), expected.cases.kind.tolist(), strict=True))
    edge, room, between, stub = (
        [(at, kind) for kind in kinds] for at in (EDGE, ROOM, BETWEEN, STUB)
    )
    assert asked == [*edge, *room, (TABLE, Kind.READ), (TABLE, Kind.WRITE), *between, *stub]
    assert expected.paths.used.all(axis=0).tolist() == [True] * 8 + [False] * 3 + [True] * 3
    assert not expected.paths.used[:, 8:11].any(), "nothing is read where no root serves"
    in_stub = expected.window[0] & expected.paths.used[0]
    assert in_stub.tolist() == [False] * 11 + [True] * 3, "nor is another's entry the stub's own"
    assert counted == {
        "the page holds the harness's own memory": 2 * len(kinds),
        "the page has no memory behind it": len(kinds),
        "a table is not code": 1,
        "an entry of the path has no memory behind it": len(kinds),
    }
    assert (memory.octets[: ARENA.stop] == before).all(), "nothing of the stub's is marked"
    root = memory.load(Physical(OURS), 8)
    assert expected.content[6:8].tolist() == [root, root], "nor is a table"
    # The first entry of the root leads to all of these, and is what TABLE's accesses reach.
    care = _entries(cpu, expected)[1][3]
    used = formats.A | formats.D
    assert (~care[:8]).tolist() == [0, 0, 0, 0, 0, 0, 0, used], (
        "a read leaves A and D to be compared"
    )
