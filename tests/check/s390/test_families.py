"""The cases of s390's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import SimpleNamespace
from typing import Any

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
        [upper] = [axis for axis in product.axes if axis.name == "upper"]
        bits = {1: 0x20 | 0x10 | 0x200 | 0xC | 0x800}.get(level, 0x20 | 0x10 | 0x200 | 0xC | 0xC3)
        assert reduce(or_, map(int, upper.values)) == bits and bits.bit_count() == 6 + 3 * (
            level > 1
        )


@pytest.mark.parametrize("mode", MODES)
def test_every_access_is_tried_in_every_state_that_matters(mode: str) -> None:
    def states(one: Family, name: str) -> set[object]:
        return {getattr(control, name) for control in one.controls}

    for one in families("quick", mode, INFO):
        axes = {axis.name: axis.values for axis in one.product.axes}
        assert axes["access"] == ("read", "write", "fetch")
        assert axes["by"] == ("supervisor", "problem")
        assert len(set(one.controls)) == len(one.controls)
        places = [int(at) for name in ("offset", "address") for at in axes.get(name, ())]
        assert all(at % 16 == 0 for at in places)
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


SHIFTS = (12, 20, 31, 42, 53)
"""Page, segment and region indexes ("Virtual Address"): of 8 bits, and of 11."""


def quarter_of(address: int, level: int) -> int:
    return address >> SHIFTS[level] + 9 & 3


def changes(one: Family, value: dict[str, Any], top: int) -> dict[int, int]:
    """The bits of entries, by their level, that a case sets in those that permit everything; of
    `entry` and `bounds`, which put others in their place, without what was there."""
    level, found = one.level, dict.fromkeys(range(top + 1), 0)
    for number in range(top + 1):
        found[number] |= 0x200 * value.get(f"P{number}", 0)
    found[level] |= 0x200 * value.get("P", 0)
    found[0] |= 0x100 * value.get("IEP", 0)
    invalid = {"bounds": (level - 1, 0x20), "root": (level, 0x20), "low": (0, 0x400)}
    if value.get("invalid"):
        where, bit = invalid[one.name]
        found[where] |= bit
    if one.name == "nowhere":
        found[level] |= 1 << value["bit"]
    if one.name == "bounds":
        found[level] |= value["TF"] << 6 | value["TL"]
    if one.name == "entry":
        found[level] |= value["low"]
    return found


@pytest.mark.parametrize("mode", MODES)
def test_entries_and_addresses_are_what_the_axes_say(mode: str) -> None:
    chain, source, top = chain_of(mode), np.random.default_rng(2), MODES.index(mode) + 1
    usual = None
    for one in families("full", mode, INFO):
        numbers = source.choice(np.prod(one.product.shape), 24, replace=False)
        made, places = lanes(one, chain, numbers), one.product.places(numbers)
        for lane in range(len(made)):
            value: dict[str, Any] = {
                axis.name: axis.values[int(places[axis.name][lane])] for axis in one.product.axes
            }
            kind, address = Kind(int(made.kind[lane])), int(made.address[lane])
            assert (kind.name.lower(), bool(made.user[lane])) == (
                value["access"],
                value["by"] == "problem",
            )
            page = chain.code if kind is Kind.FETCH else chain.data
            permits = [page, chain.tables[0]]
            permits += [chain.tables[level - 1] | level - 1 << 2 | 3 for level in range(2, top + 1)]
            changed = changes(one, value, top)
            if one.name == "entry":
                permits[one.level] &= ~0xFFF
            if one.name == "bounds":
                permits[one.level] &= ~3
            for level, word in enumerate(made.words[:, lane].tolist()):
                flips = {one.level: "upper", one.level - 1: "lower"} if one.name == "two" else {}
                flipped = value[flips[level]] if level in flips else 0
                assert word == (permits[level] | changed[level]) ^ flipped, (one.name, level, value)
            if one.name in ("bounds", "root"):
                which = one.level - (one.name == "bounds")
                assert quarter_of(address, which) == value["quarter"]
                rest = address & ~(3 << SHIFTS[which] + 9)
                assert usual is None or rest == usual & ~(3 << SHIFTS[which] + 9)
            elif one.name == "low":
                assert address == value["address"]
            else:
                address ^= 1 << value["bit"] if one.name == "wide" else value.get("offset", 0)
                usual = address if usual is None else usual
                assert address == usual, one.name
    assert usual is not None and not usual & 0xFFF
    assert usual < 1 << SHIFTS[top] + 11 and all(
        usual >> shift & 0xFF for shift in SHIFTS[: top + 1]
    )
