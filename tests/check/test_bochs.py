"""The second engine: what it agrees on, what it departs in, and what only it executes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import pytest
from pytest import MonkeyPatch

from harness.check import matrix, quirks
from harness.check.layouts import find, load
from harness.check.matrix import Report
from harness.check.stage import MODES
from harness.check.validate import validate
from harness.machine.engines import executor, why_absent
from harness.machine.guest import Guest
from harness.machine.ram import ARENA, RAM_UNIT
from harness.paging.x86.access import Reason

BOCHS = os.environ.get("BOCHS", "bochs")

pytestmark = pytest.mark.hw


@cache
def absent() -> str | None:
    return why_absent("bochs", program=BOCHS)


@pytest.fixture(autouse=True)
def present() -> None:
    if absent():
        pytest.skip(f"bochs cannot run here: {absent()}")


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if absent():
        pytest.skip(f"bochs cannot run here: {absent()}")
    with Guest("bochs", ram_bytes=ARENA.stop + RAM_UNIT, program=BOCHS) as guest:
        yield guest


def tried(guest: Guest, mode: str, where: str) -> Report:
    """What comes of the cases of quick that satisfy a condition."""
    if mode == "5" and not guest.info.has("la57"):
        pytest.skip(f"Bochs {'.'.join(map(str, guest.version))} has no five-level paging")
    plan = matrix.plan("quick", [mode], "bochs", guest.info, where, executor=executor(guest))
    report = Report(plan.engine)
    for part in matrix.run(plan, program=BOCHS):
        report.add(part)
    return report


@pytest.mark.parametrize("layout", ["linux-4", "linux-5", "malformed", "page-sizes"])
def test_it_reads_a_layout_as_the_reference_does(layout: str) -> None:
    space = load(find(layout))
    for levels in space.levels:
        report = validate(space, levels, "bochs", program=BOCHS)
        if report.skipped is not None:
            assert (levels, "LA57" in report.skipped) == (5, True)
            continue
        assert report.compared > 1000
        assert report.disagreed == 0, report.disagreements
        assert not report.count("quirks")


@pytest.mark.parametrize("mode", MODES)
def test_it_agrees_on_rights_in_every_mode(guest: Guest, mode: str) -> None:
    few = {"4": " and level3.RW=1", "5": " and level4.RW=1 and level3.RW=1 and level2.XD=0"}
    report = tried(guest, mode, f"family=rights{few.get(mode, '')}")
    assert report.comparison.disagreed == 0, report.failures
    assert not report.comparison.news
    assert set(report.comparison.quirks) == {quirks.BOCHS_IMPLICIT_HEEDS_AC.name}


def test_pdptes_are_checked_when_they_are_loaded(guest: Guest) -> None:
    report = tried(guest, "pae", "family=pdpte")
    assert report.comparison.disagreed == 0, report.failures
    assert not report.comparison.quirks
    assert report.by_rule["pae", Reason.PDPTE_RESERVED] > 1000
    assert report.by_rule["pae", Reason.NO_PDPTE] > 100


DEPARTURES = {
    quirks.BOCHS_IMPLICIT_HEEDS_AC: ("32", "family=rights and access=descriptor"),
    quirks.BOCHS_BIT_8_IGNORED: ("4", "amd=1 and level=3 and set=11"),
    quirks.BOCHS_KEYS_BY_ACCESS: ("4", "family=key and level=0 and by=supervisor"),
    quirks.BOCHS_KEY_OF_SUPERVISOR_PAGE: ("4", "family=key and level=0 and by=user and US=0"),
}


@pytest.mark.parametrize("quirk", DEPARTURES, ids=lambda quirk: quirk.name)
def test_a_departure_shows_where_it_is_named_and_disagrees_where_it_is_not(
    guest: Guest, quirk: quirks.FaultQuirk, monkeypatch: MonkeyPatch
) -> None:
    if "key" in DEPARTURES[quirk][1] and not guest.info.has("pks"):
        version = ".".join(map(str, guest.version))
        pytest.skip(f"Bochs {version} has no PKS here, and does not survive what is left of keys")
    report = tried(guest, *DEPARTURES[quirk])
    assert report.comparison.disagreed == 0, report.failures
    shown = report.comparison.quirks[quirk.name]
    assert shown > 0
    others = tuple(one for one in quirks.FAULT_QUIRKS if one is not quirk)
    monkeypatch.setattr(quirks, "FAULT_QUIRKS", others)
    assert tried(guest, *DEPARTURES[quirk]).comparison.disagreed >= shown
