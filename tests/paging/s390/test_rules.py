"""The library says of random accesses in random storage what the rules, written a second time,
say: every table to begin at, every bit of the state, every kind of access."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.paging import s390_rules
from tests.paging.s390 import drawn
from tests.paging.s390.beside import disagreements
from tests.paging.s390_rules import Answer

CPUS = 180
LANES = 250
ONE_BY_ONE = 40
"""CPUs of each kind, their accesses, and how many of these are asked about one by one."""


@pytest.mark.parametrize("mode", drawn.LEVELS)
def test_the_library_follows_the_rules_and_every_exception_shows_at_every_level(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    access, shown = s390_rules.access, Counter[tuple[int | None, int | None]]()
    marks = set()

    def answered(*given: object) -> Answer:
        found = access(*given)  # type: ignore[arg-type]
        shown[found.code, found.level] += 1
        if found.code == 4 and found.teid is not None:
            marks.add(found.teid & 0x84)
        return found

    monkeypatch.setattr(s390_rules, "access", answered)
    source = random.Random(mode)
    for seed in range(CPUS):
        assert list(disagreements(drawn.machine(source, mode), seed, LANES, ONE_BY_ONE)) == []
    top = drawn.LEVELS[mode]
    levels = range(top + 1)
    translation = {(s390_rules.TRANSLATION[level], level) for level in levels}
    assert translation <= set(shown)
    assert {(code, level) for level in levels for code in (0x05, 0x12)} <= set(shown)
    pages = {level for level in levels if level <= 2}
    assert {level for code, level in shown if code is None} == pages
    assert {level for code, level in shown if code == 4} == pages | {None}
    assert ((0x38, None) in shown) == (mode != "region-first")
    assert marks == {0x80, 0x04, 0x84}
