"""The cases of s390's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from harness.check.s390.matrix.chain import MODES, Chain
from harness.check.s390.matrix.families import Family, families, lanes
from harness.check.s390.matrix.verdicts import expected
from harness.machine.s390.processor import MachineInfo
from harness.paging.s390.access import Code, Kind, Reason
from harness.paging.s390.bulk import REASONS
from tests.paging import s390_rules
from tests.paging.s390.beside import lane_agrees
from tests.paging.s390_rules import KINDS, Machine

INFO = MachineInfo(frozenset({130}), 0)
FIRST, SIZE = 0x1_0000, 9 << 20
SPACES = {Kind.READ: 2, Kind.WRITE: 2, Kind.FETCH: 3}
"""Data is of the secondary space and code of the home space, as a TEID numbers them."""


def chain_of(mode: str) -> Chain:
    """A chain in the memory of a guest that does not run."""
    ram = SimpleNamespace(buffer=np.zeros(SIZE, np.uint8), base=0)
    guest = SimpleNamespace(ram=ram, free=(range(FIRST, SIZE),), info=INFO)
    return Chain(guest, mode)  # type: ignore[arg-type]


def axes_of(mode: str, name: str, level: int) -> dict[str, tuple[object, ...]]:
    [found] = [
        one for one in families("full", mode, INFO) if (one.name, one.level) == (name, level)
    ]
    return {axis.name: axis.values for axis in found.product.axes}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_expected_of_cases_is_what_the_rules_written_a_second_time_say(mode: str) -> None:
    chain, source = chain_of(mode), np.random.default_rng(1)
    storage, shown = bytearray(SIZE), set[Reason | None]()
    every = [(one, state) for one in families("full", mode, INFO) for state in one.controls]
    for one, control in every:
        few = 40 if one.name == "low" else 4
        numbers = source.choice(np.prod(one.product.shape), few, replace=False)
        made, cpu = lanes(one, chain, numbers), chain.cpu(control)
        wanted, slots = expected(cpu, made), chain.slots(made)
        for lane in range(len(made)):
            for slot, word in zip(
                slots[:, lane].tolist(), made.words[:, lane].tolist(), strict=True
            ):
                storage[slot : slot + 8] = word.to_bytes(8)
            kind = Kind(int(made.kind[lane]))
            machine = Machine(cpu.asce, SPACES[kind], cpu.cr0, False, False, True)
            rules = s390_rules.access(machine, storage, int(made.address[lane]), KINDS[kind])
            case = one.case(control, int(numbers[lane]))
            assert lane_agrees(wanted.found, lane, rules, KINDS[kind]), (case, rules)
            shown.add(REASONS[wanted.found.reason[lane]])
            beyond = rules.code is None and rules.absolute >= 1 << 32
            code = Code.ADDRESSING if beyond else rules.code
            assert bool(wanted.made[lane]) == (code is None)
            assert code is None or int(wanted.code[lane]) == code, case
    assert shown == {None, *Reason} - ({Reason.ASCE_TYPE} if mode == "region-first" else set())


def test_every_bit_and_every_combination_that_the_rules_name_is_there() -> None:
    top = 3
    mode = MODES[top - 1]
    for level in range(top + 1):
        assert axes_of(mode, "entry", level)["low"] == tuple(range(4096))
        assert axes_of(mode, "nowhere", level)["bit"] == tuple(range(32, 64))
        assert axes_of(mode, "nowhere", level)["P"] == (0, 1)
    for level in (2, 3):
        bounds = axes_of(mode, "bounds", level)
        assert bounds["TF"] == bounds["TL"] == bounds["quarter"] == (0, 1, 2, 3)
        assert bounds["P"] == bounds["invalid"] == (0, 1)
    rights = axes_of(mode, "rights", 0)
    assert all(rights[f"P{level}"] == (0, 1) for level in range(top + 1))
    assert rights["IEP"] == (0, 1)
    assert axes_of(mode, "wide", top)["bit"] == tuple(range(53, 64))
    low = axes_of(mode, "low", 0)["address"]
    for edge in (0, 512, 4096, 4096 + 512):  # addresses 0 to 511 and 4096 to 4607
        assert {edge - 16, edge} & set(low) == {one for one in (edge - 16, edge) if one >= 0}
    together = {(one.name, one.level): one for one in families("full", mode, INFO)}
    # I, FC, P and IEP of a page; I, CS, P, TT and one bit of the origin; TF and TL beside these.
    counts = {0: 2**4, 1: 2**6, 2: 2**9, 3: 2**9}
    for level in (1, 2, 3):
        product = together["two", level].product
        sizes = {axis.name: len(set(axis.values)) for axis in product.axes}
        assert (sizes["upper"], sizes["lower"]) == (counts[level], counts[level - 1])


@pytest.mark.parametrize("mode", MODES)
def test_every_access_is_tried_in_every_state_that_matters(mode: str) -> None:
    def states(one: Family, name: str) -> set[object]:
        return {getattr(control, name) for control in one.controls}

    for one in families("quick", mode, INFO):
        axes = {axis.name: axis.values for axis in one.product.axes}
        assert axes["access"] == ("read", "write", "fetch")
        assert axes["by"] == ("supervisor", "problem")
        assert len(set(one.controls)) == len(one.controls)
        flags = {"entry": ("private", "iep"), "rights": ("iep", "edat"), "low": ("private", "lap")}
        for flag in flags.get(one.name, ()):
            assert states(one, flag) == {False, True}
        if one.name in ("root", "wide"):
            assert states(one, "quarters") == {1, 2, 3, 4} and states(one, "private") == {
                False,
                True,
            }
        if one.name in ("nowhere", "bounds", "place"):
            assert states(one, "edat") == {False, True}
