"""Spaces in a guest of x86 as the pytest plugin has them compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.check import fixtures as generic
from harness.check.compare import PROBE, Disagreement
from harness.check.x86 import fixtures
from harness.check.x86.cases import AC
from harness.machine.errors import Misuse
from harness.machine.machine import Processor
from harness.machine.ram import MIB
from harness.paging.address import Virtual
from harness.paging.arm64.cpu import Cpu as Halves
from harness.paging.arm64.cpu import Half
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu
from tests.check.x86.by_rules import ByRules, info_of

PAGE = Virtual(0x40_0000)


def guest_of(*lacking: str) -> Any:
    return ByRules(info=info_of(Processor(), *lacking), ram_bytes=128 * MIB)


def test_a_guest_has_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fixtures, "Guest", lambda *given, **named: asked.append((given, named)))
    fixtures.new_guest("tcg", 128 * MIB, "/opt/qemu")
    assert asked == [(("tcg",), {"ram_bytes": 128 * MIB, "program": "/opt/qemu"})]


@pytest.mark.parametrize("version", [(3, 0), (3, 1)])
def test_who_answers_in_a_version_that_was_not_run_is_named(version: tuple[int, ...]) -> None:
    guest = guest_of()
    guest.version = version
    said = fixtures.new_versions(guest)
    assert [one.split(":")[0] for one in said] == (["bochs 3.1"] if version == (3, 1) else [])


@pytest.mark.parametrize("levels", fixtures.LEVELS)
def test_a_space_has_the_levels_that_it_is_called_by(levels: int) -> None:
    space = fixtures.new_space(guest_of(), levels)
    assert (space.cpu.levels, fixtures.LEVELS[levels]) == (levels, f"{levels}-level")
    live = fixtures.new_live(guest_of(), space)
    assert live.cpu == space.cpu


def test_a_space_is_compared_and_addresses_are_asked_about_besides() -> None:
    guest = guest_of()
    space = fixtures.new_space(guest, 4)
    space.map(PAGE, space.frames(2), 0, space.format.granting("user")).done()
    # Of a page, its first and its last word alone are tried.
    (plain,), (more,) = (
        fixtures.compared(guest, space.memory, space.cpu, asked)
        for asked in (None, np.array([PAGE + 0x128], np.uint64))
    )
    assert (plain.oracle, plain.disagreed, more.disagreed) == (PROBE, 0, 0)
    assert more.compared > plain.compared > 0


@pytest.mark.parametrize("ac", [False, True])
def test_a_question_is_asked_again_as_it_was(ac: bool) -> None:
    """With SMAP, EFLAGS.AC decides whether the supervisor reads a user page."""
    guest = guest_of()
    space = fixtures.new_space(guest, 4)
    space.map(PAGE, space.frames(1), 0, space.format.granting("user")).done()
    read = Access(Kind.READ, user=False)
    found = Disagreement(PROBE, PAGE, read, "", "", flags=AC if ac else frozenset())
    one = fixtures.compare_one(guest, space.memory, space.cpu, found)
    assert (one.oracle, one.compared, one.disagreed) == (PROBE, 1, 0)
    assert (guest.last.vector is None) is ac


def test_a_root_is_where_tables_can_be() -> None:
    guest = guest_of()
    space = fixtures.new_space(guest, 4)
    fixtures.check_root(guest, space.cpu)
    with pytest.raises(Misuse, match="CR3 0x0 has the root table at 0x0, where there is no memory"):
        fixtures.check_root(guest, Cpu.long_mode(4, 0))


def test_a_root_is_called_by_cr3() -> None:
    cpu = Cpu.long_mode(4, 0x1000)
    assert {fixtures.root(cpu, one) for one in cpu.roots} == {"CR3 0x1000"}


def test_the_registers_of_a_state_are_those_that_lead_to_its_roots() -> None:
    assert generic.registers(Cpu.long_mode(4, 0x1000)) == {"CR3": "CR3 0x1000"}
    halves = Halves.of(Half("4K", 39, 0x4000_0000), Half("4K", 48, 0x4100_0000))
    assert generic.registers(halves) == {
        "TTBR0_EL1": "TTBR0_EL1 0x40000000",
        "TTBR1_EL1": "TTBR1_EL1 0x41000000",
    }
