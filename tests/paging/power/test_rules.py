"""The library says of random accesses in random memory what the rules, written a second time, say:
both sizes of page tables, every quadrant, every kind of access."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.paging import power_rules
from tests.paging.power import beside, drawn
from tests.paging.power.beside import disagreements
from tests.paging.power_rules import Answer

MACHINES = 300
LANES = 200
ONE_BY_ONE = 25
"""Machines, their accesses, and how many of these are asked about one by one."""


def test_the_library_follows_the_rules_and_each_shows_at_every_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access, shown, vectors = power_rules.access, Counter[tuple[str, int]](), set()
    updates, statuses = set(), set()

    def answered(*given: object) -> Answer:
        found = access(*given)  # type: ignore[arg-type]
        shown["missing" if found.missing else found.why, found.read] += 1
        vectors.add(found.vector)
        statuses.add(found.status)
        if found.updated:
            updates.add(found.updated[1] >> 7 & 3)
        return found

    monkeypatch.setattr(power_rules, "access", answered)
    source = random.Random(0)
    for seed in range(MACHINES):
        assert list(disagreements(drawn.machine(source), seed, LANES, ONE_BY_ONE)) == []

    def levels(why: str) -> set[int]:
        return {read for one, read in shown if one == why}

    assert {why for why, _ in shown} == {*beside.WHY, "", "missing"}
    assert levels("not valid") == levels("bad size") == {1, 2, 3, 4}
    assert levels("denied") == levels("not recorded") == levels("") == {2, 3, 4}
    assert levels("bad page") == {1}
    assert levels("missing") == {1, 2, 3}
    assert vectors == {None, 0x300, 0x380, 0x400, 0x480}
    assert updates >= {2, 3}
    plain = {1 << 30, 1 << 27, 1 << 19, 1 << 18}
    assert statuses == {0, 1 << 28, *plain, *(one | 1 << 25 for one in plain)}
