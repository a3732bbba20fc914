"""Of which versions a departure is to be expected."""

from __future__ import annotations

import pytest

from harness.architectures import NAMES, has
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


def test_a_version_that_was_not_run_is_named_with_those_that_were() -> None:
    asked = {"tcg": ((11, 0, 1), ((7, 2, 22), (10, 0, 13))), "kvm": ((6, 1), ((6, 1),))}
    assert not_yet_run(asked) == (
        "tcg 11.0.1: not yet run on this version; runs of: 7.2.22, 10.0.13",
    )
