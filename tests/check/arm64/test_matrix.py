"""arm64's matrix on the machine: no disagreement, each quirk where it is expected, and a library
that is wrong is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.arm64 import quirks
from harness.check.arm64.matrix import setting
from harness.check.arm64.matrix.judged import Arm64Quirk, chosen
from harness.check.arm64.matrix.run import MODES, Plan
from harness.check.arm64.matrix.run import planned as plan
from harness.check.quirk import expected_of
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.paging.arm64 import bulk as arrays
from harness.paging.arm64 import cpu as cpus
from harness.paging.arm64.access import Access, Kind, Reason
from harness.paging.arm64.cpu import Cpu, Tcr
from harness.paging.arm64.formats import AP_EL0, UXN
from harness.paging.format import Grant
from tests.check.arm64.samples import found_out_in, planned, sampled, tried, tried_in
from tests.machine.arm64.present import QEMU, why_absent
from tests.paging.arm64.test_planted_faults import (
    DENIED,
    SPAN,
    SYNDROME,
    accepts_too_large,
    address_one_bit_short,
    amo_reads_alone,
    amo_writes_alone,
    arrays_end,
    block_at_the_bottom,
    blocks_everywhere,
    denied_otherwise,
    el1_executes_el0s,
    grants,
    no_blocks,
    pan_in_fetches,
    pan_of_ldtr,
    spans,
    takes,
    with_levels,
    wxn_of_el1,
)

pytestmark = pytest.mark.hw

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("mode", MODES)
def test_accesses_come_to_what_the_rules_say(mode: str) -> None:
    report = tried(sampled(planned(mode), 61))
    assert report.failures == [] and report.disagreed.total() == 0
    assert report.comparison.compared > 5000 and not report.comparison.news
    assert {reason for _, reason in report.by_rule} == {None, *Reason}


def test_every_quirk_of_the_version_shows(version: tuple[int, ...]) -> None:
    shown = set[str]()
    for mode in ("4k", "4k-52", "64k"):
        few = sampled(planned(mode), 7, ("leaf", "type", "size", "device"))
        shown |= set(tried(few).comparison.quirks)
    assert shown == {one.name for one in quirks.judged_of("tcg", version)}


@pytest.fixture(scope="module")
def running() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as one:
        yield one


@pytest.fixture(scope="module")
def version(running: Guest) -> tuple[int, ...]:
    return running.version


@pytest.fixture(scope="module")
def few(running: Guest) -> Plan:
    """A small part of the matrix, which any of the faults below must disturb."""
    some = sampled(planned("4k-52"), 11, ("leaf", "table", "type", "size", "hole"))
    aligned = sampled(planned("4k-52"), 11, ("align", "device"))
    return replace(some, work=(*some.work[::5], *aligned.work))


@pytest.fixture
def forgetful() -> Iterator[None]:
    """States of processors are not kept from one test to the next."""
    setting._cpu.cache_clear()
    yield
    setting._cpu.cache_clear()


def flag(**changed: bool) -> Plant:
    """Plants a library that takes a control bit for another."""

    def always(value: bool) -> property:
        return property(lambda cpu: value)

    def plant(patch: pytest.MonkeyPatch) -> None:
        for name, value in changed.items():
            patch.setattr(Cpu, name, always(value))

    return plant


def reported(change: Callable[[Access, Reason, int], int]) -> Plant:
    """Plants other values of ESR_EL1."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(arrays, "syndrome", change)
        found = [
            arrays._syndrome(reason, level, kind, bool(el0))
            for reason in arrays.REASONS
            for level in range(arrays.LEVELS)
            for kind in Kind
            for el0 in range(2)
        ]
        patch.setattr(arrays, "_SYNDROMES", np.array(found, np.uint32))

    return plant


JUDGE = arrays.judge
UNWALKED = arrays._unwalked
WITHOUT_TAGS = arrays.without_tags


def judged_otherwise(change: Callable[..., arrays.Outcomes]) -> Plant:
    return lambda patch: patch.setattr(arrays, "judge", change)


def far_has_no_tag(*asked: Any, pointers: object, **states: Any) -> arrays.Outcomes:
    return JUDGE(*asked, **states)


def permission_before_the_access_flag(cpu: Cpu, *asked: Any, **states: Any) -> arrays.Outcomes:
    found = JUDGE(cpu, *asked, **states)
    flagged = found.reason == arrays.REASONS.index(Reason.ACCESS_FLAG)
    other = JUDGE(replace(cpu, tcr=cpu.tcr | Tcr.HA), *asked, **states)
    return chosen(flagged & (other.reason != 0), other, found)


def pan_and_uao_exchanged(*asked: Any, pan: Any, uao: Any, **more: Any) -> arrays.Outcomes:
    return JUDGE(*asked, pan=uao, uao=pan, **more)


def kept_out(change: Callable[[Any], object]) -> Plant:
    """Plants another idea of which accesses are as EL0's, which E0PD keeps out."""
    return lambda patch: patch.setattr(
        arrays,
        "_unwalked",
        lambda cpu, walks, as_el0: UNWALKED(cpu, walks, change(as_el0)),  # type: ignore[arg-type]
    )


def tags(change: Callable[..., object]) -> Plant:
    return lambda patch: patch.setattr(arrays, "without_tags", change)


def writing(value: bool) -> Plant:
    """Plants a library that takes all accesses, or none, for writes that make dirty."""
    return lambda patch: patch.setattr(
        arrays, "writes", lambda kind: np.full(len(kind), value, np.bool_)
    )


def field_of_the_other_half(name: str) -> Plant:
    return lambda patch: patch.setattr(
        cpus, "_LOW", replace(cpus._LOW, **{name: getattr(cpus._HIGH, name)})
    )


def library_level(access: Access, reason: Reason, level: int) -> int:
    return SYNDROME(access, reason, 3 - level if level >= 0 else level)


ANY = (7, 2)
TEN, ELEVEN = (10, 0), (11, 1)
"""The series from which on QEMU's answers tell a fault from what is right: QEMU 7.2 departs itself
where a fault is of a later one, or has not what the fault is about."""

FAULTS: dict[str, tuple[tuple[int, int], Plant]] = {
    "a block at every level": (TEN, with_levels(blocks_everywhere)),
    "no blocks": (TEN, with_levels(no_blocks)),
    "type 01 at the lowest level": (ANY, with_levels(block_at_the_bottom)),
    "tables beyond the output size accepted": (ANY, accepts_too_large(points=True)),
    "pages beyond the output size accepted": (ANY, accepts_too_large(points=False)),
    "the address of a page one bit short": (ANY, address_one_bit_short(points=False)),
    "the output size is 48 bits at least": (ANY, takes(2, lambda given: max(48, given))),
    "AP[1] inverted": (ANY, grants(False, user=Grant(AP_EL0, AP_EL0))),
    "AP[2] ignored": (ANY, grants(False, write=Grant(1, 0))),
    "UXN ignored": (ANY, grants(False, user_execute=Grant(1, 0))),
    "PXN taken for UXN": (ANY, grants(False, supervisor_execute=Grant(UXN, UXN))),
    "APTable[0] ignored": (ANY, grants(True, user=Grant(1, 0))),
    "APTable[1] ignored": (ANY, grants(True, write=Grant(1, 0))),
    "UXNTable ignored": (ANY, grants(True, user_execute=Grant(1, 0))),
    "PXNTable ignored": (ANY, grants(True, supervisor_execute=Grant(1, 0))),
    "HPD taken as set": (ANY, takes(4, lambda _: False)),
    "HPD ignored": (ANY, takes(4, lambda _: True)),
    "dirty state never kept": (ANY, flag(keeps_dirty_state=False)),
    "dirty state always kept": (ANY, flag(keeps_dirty_state=True)),
    "the access flag never set": (ANY, flag(sets_access_flag=False)),
    "the access flag always set": (ANY, flag(sets_access_flag=True)),
    "A ignored": (ANY, flag(aligns=False)),
    "A always set": (ANY, flag(aligns=True)),
    "all memory is Normal": (
        ELEVEN,
        lambda patch: patch.setattr(arrays, "_devices", lambda cpu: np.zeros(8, np.bool_)),
    ),
    "WXN ignored": (ANY, flag(wxn=False)),
    "EPAN ignored": (TEN, flag(epan=False)),
    "EPAN always set": (ANY, flag(epan=True)),
    "EL1 executes what EL0 writes": (ANY, denied_otherwise(el1_executes_el0s)),
    "WXN counts what EL1 writes for EL0": (ANY, denied_otherwise(wxn_of_el1)),
    "PAN keeps from fetches": (ANY, denied_otherwise(pan_in_fetches)),
    "PAN keeps from LDTR": (ANY, denied_otherwise(pan_of_ldtr)),
    "PAN ignored": (
        ANY,
        denied_otherwise(
            lambda cpu, access, rights, pan, uao: DENIED(cpu, access, rights, False, uao)
        ),
    ),
    "UAO ignored": (
        ANY,
        denied_otherwise(
            lambda cpu, access, rights, pan, uao: DENIED(cpu, access, rights, pan, False)
        ),
    ),
    "PAN and UAO exchanged": (ANY, judged_otherwise(pan_and_uao_exchanged)),
    "an atomic reads alone": (ANY, denied_otherwise(amo_reads_alone)),
    "an atomic that may not read has WnR": (ANY, denied_otherwise(amo_writes_alone)),
    "permission before the access flag": (ANY, judged_otherwise(permission_before_the_access_flag)),
    "EC of LDTR is EL0's": (
        ANY,
        reported(
            lambda access, reason, level: SYNDROME(
                replace(access, el0=access.el0 or access.kind.unprivileged), reason, level
            )
        ),
    ),
    "WnR of an atomic is set": (
        ANY,
        reported(
            lambda access, reason, level: SYNDROME(
                replace(access, kind=Kind.WRITE) if access.kind is Kind.AMO else access,
                reason,
                level,
            )
        ),
    ),
    "the code has the library's level": (ANY, reported(library_level)),
    "loads make dirty": (ANY, writing(True)),
    "stores do not make dirty": (ANY, writing(False)),
    "E0PD lets all through": (ANY, kept_out(np.zeros_like)),
    "E0PD keeps EL1 out": (ANY, kept_out(np.ones_like)),
    "E0PD of the other half": (ANY, field_of_the_other_half("e0pd")),
    "HPD of the other half": (ANY, field_of_the_other_half("hpd")),
    "TBI of the other half": (ANY, field_of_the_other_half("tbi")),
    "tags stay": (ANY, tags(lambda cpu, pointers, kind: pointers)),
    "TBID ignored": (
        ANY,
        tags(lambda cpu, pointers, kind: WITHOUT_TAGS(cpu, pointers, np.zeros_like(kind))),
    ),
    "FAR has no tag": (ANY, judged_otherwise(far_has_no_tag)),
    "the hole begins a bit later": (
        ANY,
        spans(lambda half, high: SPAN(replace(half, address_bits=half.address_bits + 1), high)),
    ),
    "no memory is a translation fault": (ANY, arrays_end(3, Reason.INVALID)),
    "an address size fault is a translation fault": (ANY, arrays_end(2, Reason.INVALID)),
}


def test_without_a_fault_nothing_is_found(running: Guest, few: Plan) -> None:
    assert found_out_in(running, few).failures == []


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_is_wrong_disagrees_with_the_machine(
    fault: str,
    running: Guest,
    few: Plan,
    version: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since, plant = FAULTS[fault]
    if version < since:
        pytest.skip(f"QEMU {version[0]}.{version[1]} departs in the same way, or has no such bit")
    plant(monkeypatch)
    assert found_out_in(running, few).disagreed.total() > 0


@pytest.mark.parametrize("one", quirks.JUDGED, ids=lambda one: one.name)
def test_a_quirk_that_is_not_known_is_a_disagreement(
    one: Arm64Quirk, running: Guest, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not expected_of(one, "tcg", version):
        pytest.skip(f"{one.name} is not of QEMU {'.'.join(map(str, version))}")
    monkeypatch.setattr(quirks, "JUDGED", tuple(x for x in quirks.JUDGED if x is not one))
    mode = {quirks.SIZE_64K: "64k", quirks.BLOCK_ANYWHERE: "4k"}.get(one, "4k-52")
    of = sampled(planned(mode), 7, ("leaf", "type", "size", "device"))
    assert found_out_in(running, of).disagreed.total() > 0


def test_a_quirk_that_is_gone_is_news_and_no_disagreement(
    running: Guest, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {one.name for one in quirks.JUDGED if not expected_of(one, "tcg", version)}
    known = tuple(replace(one, since=(7, 2), until=None) for one in quirks.JUDGED)
    monkeypatch.setattr(quirks, "JUDGED", known)
    few = sampled(planned("4k-52"), 31, ("leaf", "type", "size", "device"))
    report = tried_in(running, few)
    assert report.failures == [] and report.disagreed.total() == 0
    shown = {f"{name} did not show" for name in absent} if version >= TEN else set()
    assert set(report.comparison.news) == shown


def test_what_cannot_be_tried_is_one_sentence() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with pytest.raises(Misuse, match="there is no axis 'nothing'"):
        plan("quick", ["4k"], "tcg", QEMU, "nothing=1")
    with pytest.raises(Misuse, match="no case satisfies 'level=2 and family=hole'"):
        plan("quick", ["4k"], "tcg", QEMU, "level=2 and family=hole")
    with pytest.raises(Misuse, match="not in PATH as no-qemu"):
        plan("quick", ["4k"], "tcg", "no-qemu")
