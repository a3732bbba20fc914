"""Spaces in a guest of arm64 as the pytest plugin has them compared."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.arm64 import fixtures
from harness.check.compare import Disagreement
from harness.check.translations import GVA2GPA
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.paging.address import Virtual
from harness.paging.arm64.cpu import Cpu, Half
from tests.machine.arm64.present import QEMU, why_absent

PAGE, BESIDE = Virtual(0x40_0000), Virtual(0x40_1000)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with fixtures.new_guest("tcg", 128 * MIB, QEMU) as one:
        yield one


@pytest.mark.hw
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


@pytest.mark.hw
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
