"""The library says of random accesses in random memory what the rules, written a second time, say:
every mode, every bit of the state, every kind of access."""

import random
from collections import Counter

import pytest

from tests.paging import rules
from tests.paging.machines import disagreements, random_machine

SEEDS = 400
LANES = 150
SCALAR = 20
"""Machines of each kind, their accesses, and how many of these are asked about one by one."""


ENDS = {"page", "not present", "reserved", "no memory"}
SHOWN = {
    2: ENDS,
    3: ENDS | {"no PDPTE"},
    4: ENDS | {"not canonical"},
    5: ENDS | {"not canonical"},
}
"""How walks can end in each mode."""


@pytest.mark.parametrize("levels", [2, 3, 4, 5], ids=["32-bit", "pae", "4-level", "5-level"])
def test_the_library_follows_the_rules_and_every_end_of_a_walk_shows_at_every_level(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, shown, codes = rules.walk, Counter[tuple[str, int | None]](), set()
    access = rules.access

    def noted(*given: object) -> rules.Translation:
        found = walk(*given)  # type: ignore[arg-type]
        shown[found.end, found.level] += 1
        return found

    def answered(*given: object) -> rules.Answer | None:
        found = access(*given)  # type: ignore[arg-type]
        codes.add(found and found.vector == rules.PF and found.error)
        return found

    monkeypatch.setattr(rules, "walk", noted)
    monkeypatch.setattr(rules, "access", answered)
    source = random.Random(levels)
    for seed in range(SEEDS):
        assert list(disagreements(random_machine(source, levels), seed, LANES, SCALAR)) == []
    assert {end for end, _ in shown} == SHOWN[levels]
    tables = 2 if levels == 3 else levels
    pages = min(levels, 3) if levels > 3 else 2
    assert {level for end, level in shown if end == "page"} == set(range(pages))
    assert {level for end, level in shown if end == "not present"} == set(range(tables))
    assert min(shown.values()) >= 5
    # Every bit of the error code that the mode has, both set and clear beside the others.
    bits = {number for code in codes if code for number in range(8) if code >> number & 1}
    assert bits == {0, 1, 2, 3, 4, 6} | ({5} if levels > 3 else set())
