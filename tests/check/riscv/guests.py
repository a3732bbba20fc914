"""Guests of RISC-V for the tests of its matrix, and samples of what it tries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import pytest

from harness.check.matrix import Report
from harness.check.riscv.matrix.families import Family, families
from harness.check.riscv.matrix.hart import Hart
from harness.check.riscv.matrix.run import Plan, Work, run, tried_on
from harness.check.riscv.matrix.run import planned as plan_of
from harness.machine.riscv.guest import Guest
from tests.check.samples import total, until_found_out
from tests.machine.riscv.present import QEMU, program, why_absent


def guest(xlen: int) -> Guest:
    """A guest; the test is skipped, with the reason, where there can be none."""
    if reason := why_absent(xlen):
        pytest.skip(reason)
    return Guest(xlen, program=program(xlen))


@cache
def planned(mode: str) -> Plan:
    """The quick preset in a mode."""
    if reason := why_absent(32 if mode == "sv32" else 64):
        pytest.skip(reason)
    return plan_of("quick", [mode], "tcg", QEMU)


def sampled(of: Plan, step: int) -> Plan:
    """One in `step` of the cases of each batch, a prime number by which all values are met."""
    few = (Work(part.family, part.control, part.numbers[::step]) for part in of.work)
    return replace(of, work=tuple(few))


def tried(of: Plan) -> Report:
    """What came of all of it."""
    return total(run(of, program=QEMU))


def found_out(of: Plan) -> Report:
    """The same, up to where something disagrees."""
    return until_found_out(lambda work: run(replace(of, work=tuple(work)), program=QEMU), of.work)


def tried_in(running: Guest, of: Plan) -> Report:
    """The same of what is for the usual processor, in a guest that runs already."""
    return total(tried_on(running, _usual(of)))


def found_out_in(running: Guest, of: Plan) -> Report:
    """The same, up to where something disagrees."""
    return until_found_out(partial(tried_on, running), _usual(of))


def _usual(of: Plan) -> list[Work]:
    return [part for part in of.work if not part.family.hart.processor]


def family(name: str, level: int, hart: Hart) -> Family:
    """A family of the quick preset."""
    [found] = [one for one in families("quick", hart) if (one.name, one.level) == (name, level)]
    return found
