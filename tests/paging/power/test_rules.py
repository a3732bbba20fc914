"""The library says of random accesses in random memory what the rules, written a second time, say:
both sizes of page tables, every quadrant, every kind of access."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import BigEndianMemory
from harness.paging.power import bulk
from harness.paging.power.cpu import Cpu, walk_of
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


def test_entries_that_are_given_are_walked_as_those_that_are_read() -> None:
    """In trees with page tables of both sizes, whichever the processor's smallest pages are."""
    source, ends = random.Random(0), Counter[tuple[int, bool]]()
    for page_bits in (12, 16):
        made, cpu = BigEndianMemory(drawn.memory(source)), Cpu.of(0, page_bits=page_bits)
        addresses = [drawn.address(source, False) % (1 << 52) for _ in range(200)]
        words, walks = np.zeros((4, len(addresses)), np.uint64), []
        for lane, address in enumerate(addresses):
            walks.append(walk_of(cpu, made, cpu.roots[0], Virtual(address)))
            for step in walks[-1].steps:
                words[step.slot.level, lane] = step.raw
        found = bulk.walk_words(cpu, words, np.array(addresses, np.uint64))
        for lane, walk in enumerate(walks):
            if walk.unbacked is not None:
                continue
            assert found.raw[lane] == walk.steps[-1].raw and found.level[lane] == walk.level
            assert (found.end[lane] == End.LEAF) == (walk.physical is not None)
            assert walk.physical in (None, found.physical[lane])
            size = walk.leaf.size if walk.leaf else 0
            ends[size, page_bits == 12] += 1
    assert {(size, small) for size in (1 << 12, 1 << 16) for small in (True, False)} <= ends.keys()
