"""The library says of random accesses in random memory what the rules, written a second time, say:
every granule, every bit of the state, every kind of access."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.paging import arm64_rules
from tests.paging.arm64 import beside, drawn
from tests.paging.arm64.beside import disagreements
from tests.paging.arm64_rules import Answer

PROCESSORS = 225
ACCESSES = 200
ONE_BY_ONE = 25
"""Processors of each kind, their accesses, and how many of these are asked about one by one."""


# The levels of the manual at which walks begin, and at which blocks can be.
LEVELS = {"4K": 0, "16K": 0, "64K": 1, "4K wide": -1, "16K wide": 0, "64K wide": 1}
BLOCKS = {
    **{"4K": {1, 2}, "16K": {2}, "64K": {2}},
    **{"4K wide": {0, 1, 2}, "16K wide": {1, 2}, "64K wide": {1, 2}},
}


@pytest.mark.parametrize("tables", drawn.KINDS_OF_TABLES)
def test_the_library_follows_the_rules_and_every_fault_shows_at_every_level(
    tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, shown, updates = arm64_rules.access, Counter[tuple[str, int | None]](), set()

    def answered(*given: object) -> Answer:
        found = access(*given)  # type: ignore[arg-type]
        machine, _, pointer, *_ = given
        p = arm64_rules.params(machine, pointer)  # type: ignore[arg-type]
        if p.granulebits == drawn.GRANULES[tables.split()[0]]:
            shown[found.why, found.level] += 1
            updates.add(found.updated is not None)
        return found

    monkeypatch.setattr(arm64_rules, "access", answered)
    source = random.Random(tables)
    for seed in range(PROCESSORS):
        machine = drawn.machine(source, tables)
        assert list(disagreements(machine, seed, ACCESSES, ONE_BY_ONE)) == []
    levels, pages = set(range(LEVELS[tables], 4)), {3, *BLOCKS[tables]}
    seen: dict[str, set[int | None]] = {}
    for why, level in shown:
        seen.setdefault(why, set()).add(level)
    assert seen["translation"] == {None, *levels}
    assert seen["external"] == levels
    assert {3, None} <= seen["address size"] <= {None, *levels}
    for why in ("", "access flag", "permission"):
        assert seen[why] == pages, why
    assert None in seen["alignment"] <= {None, *pages}
    assert set(seen) == {why for why, _ in beside.WHY} | {""}
    assert updates == {False, True}
