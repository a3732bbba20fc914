"""Shadow stacks: the machine follows each of their rules, and says no to a reference that does not.

Bochs executes them; TCG has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.matrix import Report
from harness.check.x86 import quirks
from harness.check.x86.matrix import chain
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.run import Plan, Work
from harness.check.x86.matrix.stage import MODES, Model
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest
from harness.paging.bulk import Walks
from harness.paging.memory import Mask
from harness.paging.x86 import access as scalar
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Access, Reason
from harness.paging.x86.cpu import Cpu
from tests.check.x86.plants import (
    RW,
    US,
    A,
    D,
    Plant,
    all_granted,
    error_bits,
    in_keys,
    in_marks,
    in_question,
    without_in,
)
from tests.check.x86.test_matrix_faults import disagrees
from tests.machine.bochs import PROGRAM, needs_bochs

pytestmark = pytest.mark.hw

SS_ERROR, W_ERROR = 64, 2
OF_EACH_PRIVILEGE = [
    *(("supervisor", access) for access in ("shadow-read", "shadow-write", "return", "call")),
    *(("user", access) for access in ("shadow-read", "shadow-write", "return")),
    ("wruss", "shadow-write"),
]
"""Who makes which access: the user's CALL is not made here, and WRUSS only writes."""

DEPARTURES = {quirks.BOCHS_KEYS_BY_ACCESS.name, quirks.BOCHS_KEY_OF_SUPERVISOR_PAGE.name}


def guest_for(mode: str) -> Iterator[Guest]:
    needs_bochs()
    with guest_of("bochs", Model(mode, shadow_stacks=True).guest, PROGRAM) as guest:
        yield guest


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    yield from guest_for("4")


@pytest.fixture(scope="module")
def small() -> Iterator[Guest]:
    """A guest whose memory leaves room for the window outside long mode."""
    yield from guest_for("32")


def work_of(guest: Guest, mode: str, where: str) -> tuple[Work, ...]:
    if mode == "5" and not guest.info.has("la57"):
        pytest.skip(f"Bochs {'.'.join(map(str, guest.version))} has no five-level paging")
    condition = f"family=shadow and {where}"
    return matrix.plan(
        "quick", [mode], "bochs", guest.info, condition, executor=executor(guest)
    ).work


def tried(guest: Guest, work: tuple[Work, ...]) -> Report:
    report = Report("bochs")
    for part in matrix.tried_on(Rig(guest), work):
        report.add(part)
    return report


@pytest.mark.parametrize("mode", MODES)
def test_every_access_to_a_shadow_stack_agrees(guest: Guest, small: Guest, mode: str) -> None:
    guest = guest if mode in "45" else small
    report = tried(guest, work_of(guest, mode, "lower=0"))
    assert report.comparison.disagreed == 0, report.failures
    assert set(report.comparison.quirks) <= DEPARTURES
    assert not report.comparison.news
    denied = report.by_rule[mode, Reason.SHADOW_STACK]
    assert denied - report.departed[mode, Reason.SHADOW_STACK] > 100


@pytest.mark.parametrize("mode", ["32", "pae"])
@pytest.mark.parametrize(("by", "access"), [("user", "shadow-read"), ("wruss", "shadow-write")])
def test_so_is_the_user_s_outside_long_mode(
    small: Guest, mode: str, by: str, access: str, monkeypatch: MonkeyPatch
) -> None:
    work = work_of(small, mode, f"lower=0 and by={by} and access={access}")
    report = tried(small, work)
    assert report.comparison.disagreed == 0, report.failures
    assert report.by_rule[mode, None] > 0
    stacks(lambda cpu, walks: of(walks, 0, 1))(monkeypatch)
    assert tried(small, work).comparison.disagreed > 0


@pytest.mark.parametrize(("by", "access"), OF_EACH_PRIVILEGE)
def test_a_shadow_stack_is_reached_by_whom_it_belongs_to(
    guest: Guest, by: str, access: str
) -> None:
    where = f"lower=0 and by={by} and access={access} and SMAP=1 and PKE=0 and PKS=0"
    report = tried(guest, work_of(guest, "4", where))
    assert report.comparison.disagreed == 0, report.failures
    assert report.by_rule["4", None] > 0


def stacks(change: Callable[[Cpu, Walks], Mask]) -> Plant:
    """Other pages are taken for shadow stacks."""
    return lambda patch: patch.setattr(x86, "_shadow_stacks", change)


def of(walks: Walks, bits: int, value: int) -> Mask:
    found: Mask = walks.raw & np.uint64(bits) == np.uint64(value)
    return found


def above(walks: Walks) -> Mask:
    found: Mask = walks.above & np.uint64(RW) != 0
    return found


def in_denials(change: Callable[[Any, Cpu, Access, int, bool], Reason | None]) -> Plant:
    """Rights deny otherwise."""
    rule = scalar.denied
    return lambda patch: patch.setattr(
        scalar, "denied", lambda cpu, access, *page: change(rule, cpu, access, *page)
    )


def of_any_mode(
    rule: Any, cpu: Cpu, access: Access, granted: int, stack: bool = False
) -> Reason | None:
    """The supervisor's accesses to a user's shadow stack are made."""
    if access.kind.shadow and not access.user:
        granted &= ~US
    found: Reason | None = rule(cpu, access, granted, stack)
    return found


def write_as_data(
    rule: Any, cpu: Cpu, access: Access, granted: int, stack: bool = False
) -> Reason | None:
    """A shadow-stack access needs what others do, and no more."""
    if access.kind.shadow:
        plain = scalar.Kind.WRITE if access.kind.writes else scalar.Kind.READ
        access = replace(access, kind=plain)
    found: Reason | None = rule(cpu, access, granted, False)
    return found


def placed_still(question: chain.Question, results: Any) -> Any:
    """The data as if nothing had been stored."""
    return question.placed


FAULTS: dict[str, tuple[str, Plant]] = {
    "R/W above the page does not count": (
        "upper.RW=0",
        stacks(lambda cpu, walks: of(walks, RW | D, D)),
    ),
    "D does not count": (
        "lower.D=0",
        stacks(lambda cpu, walks: of(walks, RW, 0) & above(walks)),
    ),
    "R/W in the page does not count": (
        "lower.RW=1",
        stacks(lambda cpu, walks: of(walks, D, D) & above(walks)),
    ),
    "no page is a shadow stack": ("lower.D=1", stacks(lambda cpu, walks: of(walks, 0, 1))),
    "the supervisor has the user's shadow stack": (
        "lower.US=1 and by=supervisor",
        in_denials(of_any_mode),
    ),
    "a shadow-stack access is any other": ("lower.RW=1", in_denials(write_as_data)),
    "other writes reach a shadow stack": ("access=write", all_granted(RW)),
    "SS is never set": ("access=shadow-read", error_bits(SS_ERROR)),
    "SS is set by other reads": ("access=read", error_bits(0, SS_ERROR)),
    "W is never set": ("access=shadow-write", error_bits(W_ERROR)),
    "WRUSS is the supervisor's access": (
        "by=wruss",
        in_question(user=lambda user: np.zeros_like(user)),
    ),
    "a key does not deny a shadow-stack access": (
        "PKE=1 and by=user and access=shadow-write",
        in_keys(lambda rule, cpu, access, *page: None),
    ),
    "RET reads as any other does": ("access=return and lower.D=0", in_denials(write_as_data)),
    "CALL writes as any other does": ("access=call and lower.RW=1", in_denials(write_as_data)),
    "CALL stores no return address": (
        "access=call and lower.D=1",
        lambda patch: patch.setattr(chain, "data_after", placed_still),
    ),
    "A is not set": (
        "access=shadow-write and lower.D=1",
        in_marks(lambda sets: without_in(sets, 0, A)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_rule_disagrees(guest: Guest, fault: str, monkeypatch: MonkeyPatch) -> None:
    """That the right ones agree about these accesses and all others is tested above."""
    where, plant = FAULTS[fault]
    work = work_of(guest, "4", f"lower=0 and {where}")
    plant(monkeypatch)
    assert disagrees(Rig(guest), Plan("bochs", work, Counter(), Counter()))
