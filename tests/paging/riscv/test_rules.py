"""The library says of random accesses in random memory what the rules, written a second time, say:
every mode, every bit of the state, every kind of access."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from harness.paging.riscv.access import Kind, access_from
from harness.paging.riscv.cpu import Privilege
from tests.paging import riscv_rules
from tests.paging.riscv import beside, drawn
from tests.paging.riscv.beside import disagreements
from tests.paging.riscv_rules import KINDS, Answer

HARTS = 300
LANES = 200
ONE_BY_ONE = 25
"""Harts of each kind, their accesses, and how many of these are asked about one by one."""


@pytest.mark.parametrize("mode", drawn.LEVELS)
def test_the_library_follows_the_rules_and_every_step_shows_at_every_level(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, shown, causes = riscv_rules.access, Counter[tuple[int, int | None]](), set()
    updates = set()

    def answered(*given: object) -> Answer:
        found = access(*given)  # type: ignore[arg-type]
        shown[found.step, found.level] += 1
        causes.add(found.cause)
        updates.add(found.updated is not None and found.updated[1] >> 6 & 3)
        return found

    monkeypatch.setattr(riscv_rules, "access", answered)
    source = random.Random(mode)
    for seed in range(HARTS):
        assert list(disagreements(drawn.machine(source, mode), seed, LANES, ONE_BY_ONE)) == []
    levels = set(range(drawn.LEVELS[mode]))
    for step in (2, 3, 6, 8, 9, 10):
        assert {level for one, level in shown if one == step} == levels, step
    assert {level for one, level in shown if one == 4} == {0}
    assert {level for one, level in shown if one == 5} == levels - {0}
    assert {one for one, _ in shown} == {*beside.STEPS, 10} - ({0} if mode == "sv32" else set())
    assert causes == {None, 1, 5, 7, 12, 13, 15}
    assert updates == {False, 1, 3}


@pytest.mark.parametrize("mode", ["sv32", "sv48"])
def test_mprv_makes_data_accesses_those_of_mpp(mode: str) -> None:
    source = random.Random(1)
    for _ in range(100):
        machine = drawn.machine(source, mode)
        for privilege in Privilege:
            for kind in Kind:
                made = access_from(beside.cpu_of(machine), privilege, kind)
                name = riscv_rules.effective_privilege(machine, privilege.name, KINDS[kind])
                assert (made and (made.kind, made.user)) == (
                    None if name == "M" else (kind, name == "U")
                )
