"""Spaces in a guest of arm64 as the pytest plugin has them compared."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check import validation
from harness.check.arm64 import fixtures
from harness.check.arm64.window import open_roots
from harness.check.compare import Disagreement
from harness.check.translations import GVA2GPA
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.paging.address import Virtual
from harness.paging.arm64.cpu import Cpu, Half
from tests.check.arm64.by_rules import ByRules
from tests.machine.arm64.present import QEMU, why_absent

PAGE, BESIDE = Virtual(0x40_0000), Virtual(0x40_1000)


@pytest.fixture(scope="module", params=["rules", pytest.param("QEMU", marks=pytest.mark.hw)])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    if request.param == "rules":
        yield ByRules((10, 0, 13), ram_bytes=128 * MIB)  # type: ignore[misc]
        return
    if reason := why_absent():
        pytest.skip(reason)
    with fixtures.new_guest("tcg", 128 * MIB, QEMU) as one:
        yield one


def test_a_page_that_holds_a_table_is_not_overwritten(guest: Guest) -> None:
    space = fixtures.new_space(guest, 3)
    write = space.format.granting("write", "user")
    space.map(PAGE, space.frames(1), 0, write).done()
    root = np.array([space.cpu.roots[0].table.address], np.uint64)
    space.map(BESIDE, root, 0, write).done()
    found = fixtures.compared(guest, space.memory, space.cpu, None)
    assert not sum(one.disagreed for one in found), found[0].disagreements
    assert found[0].not_comparable["the page holds a table"] > 0
    assert found[0].not_comparable.keys() == {"the page holds a table"}


def test_addresses_are_asked_about_besides_and_a_question_again(guest: Guest) -> None:
    space = fixtures.new_space(guest, 4)
    space.map(PAGE, space.frames(2), 0, space.format.granting("user")).done()
    plain, more = (
        fixtures.compared(guest, space.memory, space.cpu, asked)[0].compared
        for asked in (None, np.array([PAGE + 0x1238], np.uint64))
    )
    assert more > plain
    led = Disagreement(GVA2GPA, PAGE, None, "", "")
    one = fixtures.compare_one(guest, space.memory, space.cpu, led)
    assert (one.oracle, one.compared, one.disagreed) == (GVA2GPA, 1, 0)


@pytest.mark.parametrize(("low", "high", "said"), [(0, 1, "TTBR1_EL1"), (1, 0, "TTBR0_EL1")])
def test_each_root_is_where_tables_can_be(low: int, high: int, said: str) -> None:
    there = 0x4400_0000
    free: Any = SimpleNamespace(free=(range(there, there + 64 * MIB),))
    places = (there, 0x4000_0000)
    cpu = Cpu.of(Half("4K", 39, places[low]), Half("64K", 42, places[high]))
    with pytest.raises(Misuse, match=f"{said} 0x40000000 leads to no table where there is memory"):
        fixtures.check_root(free, cpu)
    fixtures.check_root(free, Cpu.of(Half("4K", 39, there), None))


@pytest.mark.parametrize(("low", "high"), [(False, False), (False, True), (True, False)])
def test_the_window_is_in_no_half_that_is_closed_to_el0(low: bool, high: bool) -> None:
    cpu = Cpu.of(Half("4K", 39, 0, e0pd=low), Half("4K", 48, 0, e0pd=high))
    open_ = [root.span.first for root in open_roots(cpu)]
    assert open_ == [0] * (not low) + [(1 << 64) - (1 << 48)] * (not high)
    assert not open_roots(Cpu.of(Half("4K", 39, 0, e0pd=True), None))


def test_a_processor_without_pages_of_4k_is_said() -> None:
    info: Any = SimpleNamespace(granules=frozenset({"16K", "64K"}))
    guest: Any = SimpleNamespace(info=info, engine=SimpleNamespace(name="tcg"), version=(12, 0, 0))
    assert fixtures.lacking(guest, 4) == "tcg has no 4K"
    info.granules |= {"4K"}
    assert fixtures.lacking(guest, 4) is None
    assert fixtures.executor(guest) == ("tcg", (12, 0, 0))
    [said] = fixtures.new_versions(guest)
    assert "12.0.0" in said


def test_a_root_is_called_by_its_register() -> None:
    cpu = Cpu.of(Half("4K", 39, 0x4000_0000), Half("4K", 48, 0x4100_0000))
    said = [fixtures.root(cpu, one) for one in cpu.roots]
    assert said == ["TTBR0_EL1 0x40000000", "TTBR1_EL1 0x41000000"]


def test_accesses_that_are_too_many_are_counted(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "MOST", 100)
    space = fixtures.new_space(guest, 3)
    space.map(PAGE, space.frames(2), 0, space.format.granting("user")).done()
    [probed, translated, *_] = fixtures.compared(guest, space.memory, space.cpu, None)
    assert probed.compared == 100 > translated.compared > 20
    (reason, count), *others = probed.not_comparable.items()
    assert reason.startswith("not asked: of a space a guest is given 100") and count > 100
    assert not others and not translated.not_comparable
