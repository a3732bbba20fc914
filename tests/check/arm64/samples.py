"""Samples of what arm64's matrix tries, for its tests, and what answers may hold besides."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache, partial

import pytest

from harness.check.arm64.matrix.run import Plan, Work, run, tried_on
from harness.check.arm64.matrix.run import planned as plan_of
from harness.check.matrix import Report
from harness.machine.arm64.guest import Guest
from tests.check.samples import total, until_found_out
from tests.machine.arm64.present import QEMU, why_absent

UNSAID = {"esr": (7, 8, 9, 10, 14, 24, 37, 38)}
"""Bits of ESR_EL1 of which the reference says nothing: S1PTW, CM, EA, FnV, AR, ISV, and of ISS2."""


@cache
def planned(mode: str) -> Plan:
    """The quick preset in a mode."""
    if reason := why_absent():
        pytest.skip(reason)
    return plan_of("quick", [mode], "tcg", QEMU)


def sampled(of: Plan, step: int, families: Collection[str] = ()) -> Plan:
    """One in `step` of the cases of each batch, a prime number by which all values are met, from
    another one on in each; of small batches several, and of these families alone if some are
    given."""

    def few(number: int, part: Work) -> Work:
        one_in = min(step, max(1, len(part) // 24))
        return Work(part.family, part.control, part.numbers[number % one_in :: one_in])

    chosen = (part for part in of.work if not families or part.family.name in families)
    return replace(of, work=tuple(few(*numbered) for numbered in enumerate(chosen)))


def tried(of: Plan) -> Report:
    """What came of all of it."""
    return total(run(of, program=QEMU))


def tried_in(running: Guest, of: Plan) -> Report:
    """The same in a guest that runs already."""
    return total(tried_on(running, of.work))


def found_out_in(running: Guest, of: Plan) -> Report:
    """The same, up to where something disagrees."""
    return until_found_out(partial(tried_on, running), of.work)
