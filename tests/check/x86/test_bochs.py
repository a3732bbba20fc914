"""The second engine: what it agrees on, what it departs in, and what only it executes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pytest import MonkeyPatch

from harness.check.layouts import find, load
from harness.check.matrix import Report
from harness.check.x86 import quirks
from harness.check.x86.matrix import chain
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.families import KEY_0_NO_WRITE
from harness.check.x86.matrix.stage import MODES
from harness.check.x86.validate import validate
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest
from harness.paging.x86 import load as loading
from harness.paging.x86.access import Fault, Reason, Vector
from tests.machine.bochs import PROGRAM, needs_bochs

pytestmark = pytest.mark.hw


@pytest.fixture(autouse=True)
def present() -> None:
    needs_bochs()


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    needs_bochs()
    with Guest("bochs", ram_bytes=ARENA.stop + RAM_UNIT, program=PROGRAM) as guest:
        yield guest


def tried(guest: Guest, mode: str, where: str) -> Report:
    """What comes of the cases of quick that satisfy a condition."""
    if mode == "5" and not guest.info.has("la57"):
        pytest.skip(f"Bochs {'.'.join(map(str, guest.version))} has no five-level paging")
    plan = matrix.plan("quick", [mode], "bochs", guest.info, where, executor=executor(guest))
    report = Report(plan.engine)
    for part in matrix.run(plan, program=PROGRAM):
        report.add(part)
    return report


@pytest.mark.parametrize("layout", ["linux-4", "linux-5", "malformed", "page-sizes"])
def test_it_reads_a_layout_as_the_reference_does(layout: str) -> None:
    space = load(find(layout))
    for levels in space.levels:
        report = validate(space, levels, "bochs", program=PROGRAM)
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


_LEGACY = (Reason.CR0_INVALID, Reason.CR4_RESERVED, Reason.PCIDE_SET)
_LONG = (
    *(Reason.CR0_INVALID, Reason.CR3_RESERVED, Reason.CR4_RESERVED),
    *(Reason.PAE_CLEARED, Reason.PCIDE_SET, Reason.CET_WITHOUT_WP),
)
OF_LOADS = {"32": _LEGACY, "pae": _LEGACY, "4": _LONG, "5": _LONG}
"""What control registers refuse in each mode; LA57 where the processor has it."""


@pytest.mark.parametrize("mode", MODES)
def test_every_refusal_of_a_control_register_has_a_witness(guest: Guest, mode: str) -> None:
    report = tried(guest, mode, "family=load")
    assert report.comparison.disagreed == 0, report.failures
    assert not report.comparison.quirks
    refused = {reason for _, reason in report.by_rule} - {None, Reason.SMAP}
    la57 = mode in "45" and guest.info.has("la57")
    assert refused == {*OF_LOADS[mode], *((Reason.LA57_CHANGED,) if la57 else ())}
    assert report.by_rule[mode, None] > 10


def without(reason: Reason, move: Callable[..., Any], *given: Any, **registers: int) -> Any:
    """What comes of a move where one rule is not known."""
    came = move(*given, **registers)
    return given[0] if isinstance(came, Fault) and came.reason is reason else came


REFUSALS = [(mode, reason) for mode in ("pae", "4") for reason in OF_LOADS[mode]]


@pytest.mark.parametrize(
    ("mode", "reason"), REFUSALS, ids=[f"{mode} {one.name}" for mode, one in REFUSALS]
)
def test_a_refusal_that_the_reference_does_not_know_disagrees(
    guest: Guest, mode: str, reason: Reason, monkeypatch: MonkeyPatch
) -> None:
    count = tried(guest, mode, "family=load").by_rule[mode, reason]
    monkeypatch.setattr(chain, "move", partial(without, reason, loading.move))
    disagreed = tried(guest, mode, "family=load").comparison.disagreed
    assert 0 < disagreed == count


@pytest.mark.parametrize("flush", ["cr0", "cr3", "cr4"])
def test_a_refusal_of_what_the_machine_takes_disagrees(
    guest: Guest, flush: str, monkeypatch: MonkeyPatch
) -> None:
    fault = Fault(Vector.GP, 0, None, None, Reason.CR4_RESERVED)
    where = f"family=load and flush={flush} and changed in (16, 3, 23)"
    assert tried(guest, "4", where).by_rule["4", None] > 0
    monkeypatch.setattr(chain, "move", lambda *given, **registers: fault)
    assert tried(guest, "4", where).comparison.disagreed > 0


def flushed_by(name: str, instead: str) -> Callable[[Guest, Any, Any], None]:
    """Hands a batch to the guest in which one way to flush is another."""
    start = Guest.start

    def started(guest: Guest, state: Any, jobs: Any) -> None:
        enums, jobs = guest.image.enums, jobs.copy()
        jobs["flush"][jobs["flush"] == enums[f"FLUSH_{name}"]] = enums[f"FLUSH_{instead}"]
        start(guest, state, jobs)

    return started


@pytest.mark.parametrize("pcide", [0, 1])
@pytest.mark.parametrize("way", chain.INVPCID)
def test_invpcid_drops_what_its_type_says(
    guest: Guest, way: str, pcide: int, monkeypatch: MonkeyPatch
) -> None:
    where = f"family=flush and flush={way} and PGE=1 and PCIDE={pcide}"
    assert tried(guest, "4", where).comparison.disagreed == 0
    name = way.upper().replace("-", "_")
    monkeypatch.setattr(Guest, "start", flushed_by(name, "NONE"))
    assert tried(guest, "4", where).comparison.disagreed > 0


def test_no_other_type_of_invpcid_drops_global_pages(
    guest: Guest, monkeypatch: MonkeyPatch
) -> None:
    where = "family=flush and flush=invpcid-all and PGE=1 and G=1"
    assert tried(guest, "4", where).comparison.disagreed == 0
    monkeypatch.setattr(Guest, "start", flushed_by("INVPCID_ALL", "INVPCID_REST"))
    assert tried(guest, "4", where).comparison.disagreed > 0


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


def test_one_control_state_after_the_other_costs_no_guest(guest: Guest) -> None:
    """Between two states there are some in which the supervisor can store nothing."""
    if not guest.info.has("pks"):
        pytest.skip("keys are left out here")
    where = "family=key and level=0 and by=user and access=read"
    plan = matrix.plan("quick", ["4"], "bochs", guest.info, where, executor=executor(guest))
    denied = replace(plan.work[0].controls[0].first, wp=False, pkru=KEY_0_NO_WRITE)
    states = (
        replace(denied, pke=True),
        replace(denied, pke=True, wp=True, pkru=0),
        replace(denied, pke=True),
        replace(denied, pke=False),
        replace(denied, pke=True, wp=True, pkru=0),
    )
    some = replace(plan, work=(replace(plan.work[0], controls=states),))
    assert sum(part.comparison.disagreed for part in matrix.run(some, program=PROGRAM)) == 0
