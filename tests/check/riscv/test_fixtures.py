"""Spaces in a guest of RISC-V as the pytest plugin has them compared."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.compare import PROBE, Disagreement
from harness.check.riscv import fixtures
from harness.check.riscv.cases import Stated
from harness.check.tables import TABLE_BYTES
from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.machine.riscv.guest import Guest
from harness.paging.address import Virtual
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import PAGE_BITS
from tests.machine.riscv.present import QEMU, why_absent

PAGE = Virtual(0x40_0000)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent(64):
        pytest.skip(reason)
    with fixtures.new_guest("tcg", 128 * MIB, QEMU) as one:
        yield one


@pytest.mark.hw
def test_a_guest_has_the_memory_that_is_asked_for_and_says_what_it_is(guest: Guest) -> None:
    assert len(guest.ram.buffer) == 128 * MIB
    assert fixtures.executor(guest) == ("tcg", guest.version)
    newer: Any = SimpleNamespace(version=(99, 0))
    assert "99.0" in fixtures.new_versions(newer)[0]


@pytest.mark.hw
def test_a_root_where_no_tables_can_be_is_refused(guest: Guest) -> None:
    cpu = Cpu.in_mode(Mode.SV39, guest.ram.base)
    with pytest.raises(Misuse, match="where there is no memory for tables"):
        fixtures.compared(guest, fixtures.new_space(guest, 3).memory, cpu, None)


@pytest.mark.hw
@pytest.mark.parametrize("levels", fixtures.LEVELS)
def test_addresses_are_asked_about_besides_and_a_question_again(guest: Guest, levels: int) -> None:
    assert fixtures.lacking(guest, levels) is None
    space = fixtures.new_space(guest, levels)
    assert space.cpu.levels == levels
    assert fixtures.root(space.cpu, space.cpu.roots[0]) == f"satp {space.cpu.satp:#x}"
    read = space.format.granting("read", "user")
    space.map(PAGE, space.frames(2), 0, read).done()
    plain, more = (
        fixtures.compared(guest, space.memory, space.cpu, asked)
        for asked in (None, np.array([PAGE + 0x1238], np.uint64))
    )
    assert [one.oracle for one in plain] == [PROBE, TABLE_BYTES]
    assert not any(one.disagreed for one in (*plain, *more))
    assert more[0].compared - plain[0].compared == 3 * 2 * 4 + 2 * 4
    asked = Stated(Kind.READ, user=True, sum=False, mxr=False)
    led = Disagreement(PROBE, PAGE, asked, "", "")
    one = fixtures.compare_one(guest, space.memory, space.cpu, led)
    assert (one.oracle, one.compared, one.disagreed) == (PROBE, 1, 0)


def test_the_modes_of_64_bits_are_tried_where_the_processor_has_them() -> None:
    assert fixtures.LEVELS == {3: "sv39", 4: "sv48", 5: "sv57"}
    info = SimpleNamespace(modes={"sv39"})
    small: Any = SimpleNamespace(info=info, engine=SimpleNamespace(name="tcg"))
    assert [fixtures.lacking(small, levels) for levels in fixtures.LEVELS] == [
        *(None, "tcg has no sv48", "tcg has no sv57")
    ]


def test_the_root_is_where_tables_can_be() -> None:
    there = range(0x8200_0000, 0x8400_0000)
    free: Any = SimpleNamespace(free=(there,))
    for place in (there.start, there.stop - (1 << PAGE_BITS)):
        fixtures.check_root(free, Cpu.in_mode(Mode.SV39, place))
    for place in (there.start - (1 << PAGE_BITS), there.stop):
        with pytest.raises(Misuse, match=f"has the root table at {place:#x}, where there is no"):
            fixtures.check_root(free, Cpu.in_mode(Mode.SV39, place))
