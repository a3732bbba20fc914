"""LASS: the machine follows each of its rules, and says no to a reference that does not.

Bochs 3.0 executes it; no other engine has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.layouts import find, parse
from harness.check.matrix import Report
from harness.check.x86 import quirks
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.chain import Answers
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.run import Work
from harness.check.x86.matrix.stage import Model
from harness.check.x86.second_reading import Reading
from harness.check.x86.validate import validate
from harness.machine.x86.bochs import BOCHS
from harness.machine.x86.engines import executor, present
from harness.machine.x86.guest import Guest
from harness.paging.memory import Mask
from harness.paging.x86 import access as scalar
from harness.paging.x86.access import Access, Kind, Reason, Vector
from harness.paging.x86.cpu import Cpu
from tests.check.x86.plants import Plant, in_vector, kept
from tests.machine.bochs import PROGRAM, needs_bochs

pytestmark = pytest.mark.hw

HEEDS_AC = quirks.BOCHS_IMPLICIT_HEEDS_AC.name
OF_HALVES = (Reason.LASS_USER, Reason.LASS_FETCH, Reason.LASS_DATA)


@pytest.fixture(scope="module", params=["4", "5"])
def guest(request: pytest.FixtureRequest) -> Iterator[tuple[Guest, str]]:
    needs_bochs()
    wanted = Model(request.param, lass=True)
    found = present("bochs", PROGRAM)
    if found.executor[1] < BOCHS.since(wanted.processor):
        pytest.skip(f"{found.called} has no processor with LASS")
    with guest_of("bochs", wanted.guest, PROGRAM) as made:
        yield made, request.param


def work_of(guest: tuple[Guest, str], where: str) -> tuple[Work, ...]:
    one, mode = guest
    condition = where if "family=" in where else f"family=halves and ({where})"
    return matrix.plan("quick", [mode], "bochs", one.info, condition, executor=executor(one)).work


def tried(guest: tuple[Guest, str], work: tuple[Work, ...]) -> Report:
    report = Report("bochs")
    for part in matrix.tried_on(Rig(guest[0]), work):
        report.add(part)
    return report


def test_every_access_to_either_half_agrees(guest: tuple[Guest, str]) -> None:
    report = tried(guest, work_of(guest, "lower=0 or offset=first or offset=last-byte"))
    assert report.comparison.disagreed == 0, report.failures
    assert set(report.comparison.quirks) == {HEEDS_AC}
    assert not report.comparison.news
    for reason in OF_HALVES:
        case = guest[1], reason
        assert report.by_rule[case] - report.departed[case] > 1000


def in_separation(
    change: Callable[[Callable[..., Reason | None], Cpu, int, Access], Reason | None],
) -> Plant:
    """LASS keeps other accesses apart."""
    rule = scalar.separated
    return lambda patch: patch.setattr(
        scalar, "separated", lambda cpu, half, access: change(rule, cpu, half, access)
    )


def without(reason: Reason) -> Plant:
    """One rule is not known."""

    def change(
        rule: Callable[..., Reason | None], cpu: Cpu, half: int, access: Access
    ) -> Reason | None:
        found = rule(cpu, half, access)
        return None if found is reason else found

    return in_separation(change)


def on(**flags: bool) -> Plant:
    """The state is taken for another."""
    return in_separation(
        lambda rule, cpu, half, access: rule(
            replace(cpu, ac=flags.get("ac", cpu.ac), cr4=cpu.cr4 | flags.get("smap", False) << 21),
            half,
            access,
        )
    )


def explicit(
    rule: Callable[..., Reason | None], cpu: Cpu, half: int, access: Access
) -> Reason | None:
    return rule(cpu, half, replace(access, implicit=False))


FAULTS: dict[str, tuple[str, Plant]] = {
    "the user may access the upper half": ("by=user", without(Reason.LASS_USER)),
    "the supervisor may fetch from the lower half": ("access=fetch", without(Reason.LASS_FETCH)),
    "the supervisor may read the lower half": ("access=read", without(Reason.LASS_DATA)),
    "the supervisor may write the lower half": ("access=write", without(Reason.LASS_DATA)),
    "descriptors may be in the lower half": ("access=descriptor", without(Reason.LASS_DATA)),
    "pushes may be in the lower half": ("access=push", without(Reason.LASS_DATA)),
    "SMAP=0 does not let data through": ("SMAP=0 and access=read", on(smap=True)),
    "AC=1 does not let data through": ("SMAP=1 and ac=1 and access=read", on(ac=False)),
    "AC=1 lets fetches through": (
        "ac=1 and access=fetch",
        in_separation(
            lambda rule, cpu, half, access: (
                None if cpu.ac and access.kind is Kind.FETCH else rule(cpu, half, access)
            )
        ),
    ),
    "SMAP=0 lets fetches through": (
        "SMAP=0 and access=fetch",
        in_separation(
            lambda rule, cpu, half, access: (
                None if not cpu.smap and access.kind is Kind.FETCH else rule(cpu, half, access)
            )
        ),
    ),
    "SMEP decides about fetches": (
        "SMEP=0 and access=fetch",
        in_separation(
            lambda rule, cpu, half, access: (
                None if not cpu.smep and access.kind is Kind.FETCH else rule(cpu, half, access)
            )
        ),
    ),
    "AC=1 lets the user through": (
        "by=user and ac=1 and access=read",
        in_separation(
            lambda rule, cpu, half, access: (
                None if cpu.ac and access.user else rule(cpu, half, access)
            )
        ),
    ),
    "halves are the other way round": (
        "access=read",
        in_separation(lambda rule, cpu, half, access: rule(cpu, 1 - half, access)),
    ),
    "the user's half is heeded by the supervisor alone": (
        "access=write",
        in_separation(
            lambda rule, cpu, half, access: (
                rule(cpu, half, replace(access, user=False))
                if access.kind is not Kind.FETCH
                else rule(cpu, half, access)
            )
        ),
    ),
    "what LASS ends is a stack fault": ("access=read", in_vector(Reason.LASS_DATA, Vector.SS)),
    "what LASS ends is a page fault": ("access=fetch", in_vector(Reason.LASS_FETCH, Vector.PF)),
    "a push that LASS ends is no stack fault": (
        "access=push",
        in_vector(Reason.LASS_USER, Vector.GP),
    ),
    "implicit accesses are as explicit ones": (
        "access=descriptor and ac=1",
        in_separation(explicit),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_rule_disagrees(
    guest: tuple[Guest, str], fault: str, monkeypatch: MonkeyPatch
) -> None:
    where, plant = FAULTS[fault]
    work = work_of(guest, f"lower=0 and upper=1 and {where}")
    assert tried(guest, work).comparison.disagreed == 0
    plant(monkeypatch)
    assert tried(guest, work).comparison.disagreed > 0


@pytest.mark.parametrize("first", [0, 1])
def test_a_change_of_lass_counts_at_the_next_access(
    guest: tuple[Guest, str], first: int, monkeypatch: MonkeyPatch
) -> None:
    """Without a flush, and back again: it is no part of a translation."""
    where = f"family=change and level=0 and LASS={first} and then.LASS={1 - first} and RW=1"
    work = work_of(guest, where)
    report = tried(guest, work)
    assert report.comparison.disagreed == 0, report.failures
    for reason in OF_HALVES:
        assert report.by_rule[guest[1], reason] > 50
    kept("cr4")(monkeypatch)
    assert tried(guest, work).comparison.disagreed > 0


def test_an_entry_that_is_marked_without_a_walk_disagrees(
    guest: tuple[Guest, str], monkeypatch: MonkeyPatch
) -> None:
    """Where LASS ends an access, A must stay clear at every level."""
    work = work_of(guest, "lower=0 and upper=1 and access=read and by=user")
    collect = Guest.finish

    def marked(one: Guest) -> object:
        results = collect(one).copy()
        results["after"][results["vector"] == Vector.GP, 0] |= 1 << 5
        return results

    monkeypatch.setattr(Guest, "finish", marked)
    seen = tried(guest, work)
    assert seen.comparison.disagreed == seen.by_rule[guest[1], Reason.LASS_USER] > 0
    monkeypatch.setattr(Answers, "unwalked", lambda answers, lanes: answers)
    assert tried(guest, work).comparison.disagreed == 0


def test_a_departure_that_is_not_named_disagrees(
    guest: tuple[Guest, str], monkeypatch: MonkeyPatch
) -> None:
    work = work_of(guest, "lower=0 and upper=1 and access=descriptor")
    report = tried(guest, work)
    shown = report.comparison.quirks[HEEDS_AC]
    assert report.departed[guest[1], Reason.LASS_DATA] > 100
    assert report.comparison.disagreed == 0 < shown
    others = tuple(one for one in quirks.FAULT_QUIRKS if one.name != HEEDS_AC)
    monkeypatch.setattr(quirks, "FAULT_QUIRKS", others)
    assert tried(guest, work).comparison.disagreed == shown


WITH_LASS = (
    find("halves").read_text().replace("smap = true", "smap = true\nlass = true"),
    find("rights").read_text() + "\n[cpu]\nlass = true\n",
)


@pytest.mark.parametrize("text", WITH_LASS, ids=["halves", "rights"])
def test_a_layout_with_lass_agrees(guest: tuple[Guest, str], text: str) -> None:
    layout = parse(text, "with-lass.toml")
    report = validate(layout, int(guest[1]), "bochs", program=PROGRAM)
    assert report.skipped is None
    assert report.disagreed == 0, report.disagreements
    assert report.compared > 1000


def test_a_layout_with_lass_and_a_wrong_rule_disagrees(
    guest: tuple[Guest, str], monkeypatch: MonkeyPatch
) -> None:
    layout = parse(WITH_LASS[0], "with-lass.toml")
    for reason in OF_HALVES:
        with monkeypatch.context() as patch:
            without(reason)(patch)
            assert validate(layout, int(guest[1]), "bochs", program=PROGRAM).disagreed > 0


def test_a_second_reading_that_knows_no_halves_disagrees_where_a_quirk_applies(
    guest: tuple[Guest, str], monkeypatch: MonkeyPatch
) -> None:
    def none(reading: Reading) -> Mask:
        return np.zeros(len(reading.asked.cases), np.bool_)

    work = work_of(guest, "lower=0 and upper=1 and access=descriptor and ac=1")
    monkeypatch.setattr(Reading, "separated", property(none))
    assert tried(guest, work).comparison.disagreed > 0
