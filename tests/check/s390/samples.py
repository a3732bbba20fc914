"""Samples of what s390's matrix tries, for its tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest

from harness.check.matrix import Report
from harness.check.s390.matrix.run import Plan, Work, run, tried_on
from harness.check.s390.matrix.run import planned as plan_of
from harness.machine.s390.guest import Guest
from tests.check.samples import total, until_found_out
from tests.machine.s390.present import QEMU, why_absent


@cache
def planned(mode: str, preset: str = "quick") -> Plan:
    """A preset in a mode."""
    if reason := why_absent():
        pytest.skip(reason)
    return plan_of(preset, [mode], "tcg", QEMU)


def sampled(of: Plan, step: int) -> Plan:
    """One in `step` of the cases of each batch, a prime number by which all values are met; of
    small batches all."""

    def few(part: Work) -> Work:
        small = len(part) < 3000
        return part if small else replace(part, numbers=part.numbers[::step])

    return replace(of, work=tuple(map(few, of.work)))


def tried(of: Plan) -> Report:
    """What came of all of it."""
    return total(run(of, program=QEMU))


def tried_in(running: Guest, of: Plan) -> Report:
    """The same in a guest that runs already."""
    return total(tried_on(running, of.work))


def found_out_in(running: Guest, of: Plan) -> Report:
    """The same, up to where something disagrees."""
    return until_found_out(partial(tried_on, running), of.work)
