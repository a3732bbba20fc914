"""What came of a space is the sum of what its oracles say, and a space to be asked about is built
in a guest's own memory."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.architectures import NAMES
from harness.check.compare import Comparison, Disagreement
from harness.check.layouts import Layout, load, shipped
from harness.check.translations import compare_translations
from harness.check.validation import SpaceReport, built_in, in_place, reported, validate_of
from harness.machine.ram import ARENA
from harness.paging.address import Span
from harness.paging.memory import BigEndianMemory, BufferMemory
from harness.paging.processor import root_for
from tests.check.test_window import entries
from tests.paging.spaces import RISCV, World, look, physical

LAYOUT: Layout = load(shipped("riscv")[0])


def comparison(compared: int, *found: int, quirk: str = "", reason: str = "") -> Comparison:
    """What an oracle says that was asked so often, with a disagreement at each of some addresses,
    of ten that it counts, and a quirk and a reason that showed twice."""
    made = Comparison("some", compared)
    made.disagree(10 * len(found), [Disagreement("some", at, None, "", "") for at in found])
    made.quirks.update([quirk] * 2)
    made.not_comparable.update([reason] * 3)
    return made


def test_a_report_is_the_sum_of_its_oracles() -> None:
    parts = (
        comparison(100, 1, 2, quirk="one", reason="no memory"),
        comparison(10),
        comparison(1, 3, quirk="one", reason="a table"),
    )
    report = SpaceReport(LAYOUT, 3, "tcg", "7.2", None, parts, 1.5)
    assert (report.compared, report.disagreed) == (111, 30)
    assert [one.address for one in report.disagreements] == [1, 2, 3]
    assert report.count("quirks") == Counter({"one": 4, "": 2})
    assert report.count("not_comparable") == Counter({"no memory": 3, "a table": 3, "": 3})
    assert report.count("news") == Counter()
    assert report.not_run_on == ()
    nothing = SpaceReport(LAYOUT, 3, "tcg", "7.2", "why", (), 0.0)
    assert (nothing.compared, nothing.disagreed, nothing.disagreements) == (0, 0, [])


class Guest:
    """A guest whose RAM is that of a world, with its tables in the first quarter."""

    def __init__(self, world: World, *, little_endian: bool = True) -> None:
        self.ram = SimpleNamespace(buffer=world.memory.octets, base=0)
        quarter = world.memory.span.size // 4
        arena = range(3 * quarter, 4 * quarter)
        self.image = SimpleNamespace(little_endian=little_endian, table_arena=arena, first=20)
        self.free = (range(quarter, 2 * quarter), range(2 * quarter, 3 * quarter))
        self.engine, self.version, self.info = SimpleNamespace(name="tcg"), (10, 0, 13), "its info"


def test_a_space_that_is_there_is_asked_about_where_it_is() -> None:
    world = World(RISCV["sv39"])
    guest: Any = Guest(world)
    cpu = SimpleNamespace(roots=world.space.roots)
    quarter = world.memory.span.size // 4
    with in_place(guest, world.memory, cpu, entries) as built:
        assert (built.memory, built.cpu) == (world.memory, cpu)
        assert built.frames == (Span.of(quarter, quarter), Span.of(2 * quarter, quarter))
        assert physical(world.space, built.window.first) == 23 << 12
        seen = built.window
    assert not look(world.space, seen.first).steps[-1].raw


@pytest.mark.parametrize("little", [True, False])
def test_a_layout_is_built_in_the_guest_s_memory_in_its_byte_order(little: bool) -> None:
    world = World(RISCV["sv39"])
    guest: Any = Guest(world, little_endian=little)
    asked = []

    def build(*given: Any) -> Any:
        asked.append(given)
        memory = given[3]
        memory.store(0x1230, 8, 0x0102030405060708)
        cpu = SimpleNamespace(roots=world.space.roots)
        return cpu

    with built_in(guest, LAYOUT, 3, build, entries) as built:
        assert isinstance(built.memory, BufferMemory)
        assert isinstance(built.memory, BigEndianMemory) is not little
        assert asked == [(LAYOUT, 3, "its info", built.memory)]
        assert built.cpu.roots == world.space.roots
        [frames] = built.frames
        first = 0x8000_0000 + ARENA.stop + LAYOUT.tables
        assert frames == Span(first, 0x8000_0000 + LAYOUT.ram - 1)
        assert root_for(built.cpu, built.window.first) is not None
    stored = range(1, 9) if not little else range(8, 0, -1)
    assert world.memory.octets[0x1230:0x1238].tolist() == list(stored)
    assert np.shares_memory(built.memory.octets, world.memory.octets)


def test_a_report_names_the_engine_and_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.check.validation.time.monotonic", lambda: 107.5)
    guest: Any = Guest(World(RISCV["sv39"]))
    found = reported(guest, LAYOUT, 3, (comparison(1),), 100.0, ("newer",))
    assert found == SpaceReport(
        LAYOUT, 3, "tcg", "10.0.13", None, (comparison(1),), 7.5, ("newer",)
    )


def test_a_debugger_s_translations_are_compared_one_by_one() -> None:
    class Monitor:
        """One that is wrong of all addresses but the first two."""

        asked: list[int]

        def translations(self, addresses: list[int]) -> list[int | None]:
            self.asked = addresses
            answers = [0x1000, None, None, 0x4000, *(one + 1 for one in addresses[4:])]
            return answers[: len(addresses)]

    monitor: Any = Monitor()
    addresses = [0x10, 0x20, 0x30, *range(0x40, 0x48)]
    expected = [0x1000, None, 0x3000, None, *addresses[4:]]
    found = compare_translations(monitor, addresses, expected)
    assert monitor.asked == addresses
    assert (found.oracle, found.compared, found.disagreed) == ("gva2gpa", 11, 9)
    told = [(one.address, one.access, one.expected, one.observed) for one in found.disagreements]
    assert told == [
        (0x30, None, "0x3000", "unmapped"),
        (0x40, None, "unmapped", "0x4000"),
        *((0x40 + n, None, f"{0x40 + n:#x}", f"{0x41 + n:#x}") for n in (1, 2, 3)),
    ]
    right = compare_translations(monitor, addresses[:2], expected[:2])
    assert (right.compared, right.disagreed, right.disagreements) == (2, 0, [])


@pytest.mark.parametrize("arch", NAMES)
def test_each_architecture_validates_its_own_layouts(arch: str) -> None:
    assert validate_of(arch).__module__ == f"harness.check.{arch}.validate"
