"""Of which versions a departure is to be expected."""

from __future__ import annotations

from collections import defaultdict

import pytest

from harness.architectures import NAMES, has, module_of
from harness.check.quirk import Quirk, Version, expected_of, known_of, not_yet_run

OF_A_SERIES = Quirk(
    name="one",
    engine="tcg",
    since=(7, 2),
    until=(8, 2, 3),
    again=(((9, 0), (9, 1)), ((10, 0, 5), (10, 2))),
    runs=((7, 2, 22),),
    rule="",
    departs="",
    evidence="",
)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((7, 1, 9), False),
        ((7, 2), True),
        ((7, 2, 0), True),
        ((8, 2, 2), True),
        ((8, 2, 3), False),
        ((8, 9), False),
        ((9, 0, 1), True),
        ((9, 1), False),
        ((10, 0, 4), False),
        ((10, 0, 5), True),
        ((10, 1, 7), True),
        ((10, 2, 0), False),
    ],
)
def test_a_departure_is_expected_between_its_first_version_and_its_end(
    version: Version, expected: bool
) -> None:
    assert expected_of(OF_A_SERIES, "tcg", version) == expected
    assert not expected_of(OF_A_SERIES, "bochs", version)


@pytest.mark.parametrize("arch", [name for name in NAMES if has(name, "check", "quirks")])
def test_every_departure_is_expected_where_it_was_run_and_ends_after_it_began(arch: str) -> None:
    known = known_of(arch)
    for name, one in known.items():
        assert one.name == name
        assert one.rule and one.departs and one.evidence
        assert one.until is None or one.since < one.until
        assert all(since < until for since, until in one.again)
        for version in one.runs:
            assert expected_of(one, one.engine, version), (name, version)


@pytest.mark.parametrize("arch", [name for name in NAMES if has(name, "check", "quirks")])
def test_a_departure_begins_and_ends_with_versions_on_which_it_was_seen_to(arch: str) -> None:
    tried = defaultdict[str, set[Version]](set)
    for one in known_of(arch).values():
        tried[one.engine] |= set(one.runs)
    for one in known_of(arch).values():
        shows, gone = set(one.runs), tried[one.engine] - set(one.runs)
        assert not any(expected_of(one, one.engine, version) for version in gone), one.name
        if one.again:  # of stable series the sources tell more than was run
            continue
        assert any(version[: len(one.since)] == one.since for version in shows), one.name
        until = one.until
        assert until is None or any(version[: len(until)] == until for version in gone), one.name


@pytest.mark.parametrize("version", [(7, 2, 22), (10, 0, 13), (11, 1, 3)])
@pytest.mark.parametrize("arch", [name for name in NAMES if name != "x86"])
def test_the_qemus_of_debian_were_run(arch: str, version: Version) -> None:
    quirks = module_of(arch, "check", "quirks")
    assert quirks.not_run_on(version) == ()
    for near in ((*version[:2], version[2] + 1), (version[0], version[1] + 1, version[2])):
        assert quirks.not_run_on(near)
    if has(arch, "check", "flushes"):
        assert version in module_of(arch, "check", "flushes").RUNS


def test_a_version_that_was_not_run_is_named_with_those_that_were() -> None:
    asked = {"tcg": ((11, 0, 1), ((7, 2, 22), (10, 0, 13))), "kvm": ((6, 1), ((6, 1),))}
    assert not_yet_run(asked) == (
        "tcg 11.0.1: not yet run on this version; runs of: 7.2.22, 10.0.13",
    )
