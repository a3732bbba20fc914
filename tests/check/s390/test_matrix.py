"""s390's matrix on the machine: no disagreement, and a library that is wrong is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.check.s390.matrix import run, verdicts
from harness.check.s390.matrix.chain import MODES, Chain, Control, Lanes
from harness.check.s390.matrix.families import families, lanes
from harness.check.s390.matrix.run import Plan
from harness.check.s390.matrix.run import planned as plan
from harness.machine.errors import Misuse
from harness.machine.s390.guest import Guest, State
from harness.machine.s390.processor import MachineInfo
from harness.paging import bulk as walks
from harness.paging.s390 import access as rules
from harness.paging.s390.access import Reason
from harness.paging.s390.cpu import Cpu
from tests.check.s390.samples import found_out_in, planned, sampled, tried, tried_in
from tests.check.tampered import Seen, entries, looked_at, noted
from tests.machine.s390.present import QEMU, why_absent
from tests.paging.plants import without_absence
from tests.paging.s390.test_planted_faults import (
    CODE_OF,
    Plant,
    accepts,
    address_one_bit_short,
    bounded,
    denied_to_all,
    ends,
    invalid_as_elsewhere,
    leaves,
    level_above,
    pointers,
    rule,
    with_level,
    with_shapes,
)

INFO = MachineInfo(frozenset({130}), 0)


def test_every_axis_of_the_quick_preset_is_met_in_every_mode() -> None:
    for mode in MODES:
        names = {one.name for one in families("quick", mode, INFO)}
        expected = {"entry", "nowhere", "root", "rights", "low", "place"}
        expected |= {"bounds"} if mode != "segment" else set()
        expected |= {"wide"} if mode != "region-first" else set()
        assert names == expected
        assert {"two", *expected} == {one.name for one in families("full", mode, INFO)}


def test_enhanced_dat_is_not_tried_where_it_is() -> None:
    """Its frames are no cases yet, and are not passed over in silence."""
    there = MachineInfo(frozenset({8, 130}), 0)
    assert Control(edat=True).lacks(INFO) is None
    reason = Control(edat=True).lacks(there)
    assert reason is not None and "frames have no cases yet" in reason


@pytest.mark.hw
@pytest.mark.parametrize("mode", MODES)
def test_accesses_come_to_what_the_rules_say(mode: str) -> None:
    report = tried(sampled(planned(mode), 17))
    assert report.failures == [] and report.disagreed.total() == 0
    assert report.comparison.compared > 10_000 and not report.comparison.news
    unseen = {Reason.ASCE_TYPE} if mode == "region-first" else set()
    assert {reason for _, reason in report.by_rule} == {None, *Reason} - unseen


@pytest.mark.hw
def test_quick_tries_what_it_is_said_to() -> None:
    assert sum(len(planned(mode)) for mode in MODES) == 1_417_104


@pytest.mark.hw
def test_a_condition_selects_cases_and_what_is_none_is_refused() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    some = plan("quick", ["segment"], "tcg", QEMU, "family=rights and P1=1 and access=write")
    assert {part.family.name for part in some.work} == {"rights"} and len(some) == 4 * 2 * 2 * 2
    with pytest.raises(Misuse, match="no case satisfies"):
        plan("quick", ["segment"], "tcg", QEMU, "family=rights and level=1")
    with pytest.raises(Misuse, match="not in PATH as no-qemu"):
        plan("quick", ["segment"], "tcg", "no-qemu")


# ---- faults ----


@pytest.fixture(scope="module")
def running() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as one:
        yield one


@pytest.fixture(scope="module")
def few(running: Guest) -> Plan:
    """A small part of the matrix, which any of the faults below must disturb."""
    return sampled(planned("region-second"), 31)


def control(change: Callable[[Control], Control]) -> Plant:
    """Plants a library that takes the control state for another; the guest has the true one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(
            Chain,
            "cpu",
            lambda self, given: change(given).cpu(self.mode, self.root, self.guest.info),
        )
        patch.setattr(Chain, "state", _true_state)

    return plant


def _true_state(self: Chain, given: Control) -> object:
    cpu = given.cpu(self.mode, self.root, self.guest.info)
    return State(cpu.asce, cpu.cr0)


def processor(**changed: bool) -> Plant:
    """Plants a library that takes the processor for another."""
    original = Control.cpu

    def cpu(self: Control, mode: str, root: int, info: MachineInfo) -> Cpu:
        return replace(original(self, mode, root, info), **changed)

    return lambda patch: patch.setattr(Control, "cpu", cpu)


def tables_are_there(walks: object, lanes: Lanes) -> object:
    return walks


FAULTS: dict[str, Plant] = {
    "I is ignored": with_level(1, without_absence),
    "I of pages where that of tables is": with_level(0, invalid_as_elsewhere),
    "bit 52 of pages accepted": accepts(0, "bit 52"),
    "the type of segments not looked at": accepts(1, "type"),
    "the type of regions not looked at": accepts(2, "type"),
    "common segments in private spaces": accepts(1, "private"),
    "TF ignored": bounded(lambda one: one._replace(first=0x100)),
    "TL ignored": bounded(lambda _: None),
    "TF and TL exchanged": bounded(lambda one: type(one)(one.last, one.first)),
    "the address of a page one bit short": with_shapes(0, leaves(address_one_bit_short)),
    "P of segments ignored": with_shapes(1, pointers(lambda one: replace(one, grants={}))),
    "P of regions without EDAT": processor(edat1=True),
    "IEP ignored": processor(iep=False),
    "IEP denies reads": rule(rules, "denied", denied_to_all),
    "low-address protection ignored": control(lambda one: replace(one, lap=False)),
    "low-address protection in private spaces": rule(
        Cpu, "low_address_protection", property(lambda self: bool(self.cr0 & 1 << 28))
    ),
    "low-address protection of one place": rule(rules, "LOW", (range(512),)),
    "low-address protection of whole pages": rule(rules, "LOW", (range(8192),)),
    "TL of the ASCE ignored": control(lambda one: replace(one, quarters=4)),
    "TL of the ASCE one too few": control(
        lambda one: replace(one, quarters=max(1, one.quarters - 1))
    ),
    "outside its table by the code of the table above": rule(rules, "code_of", level_above),
    "too wide an address by the code of its table": rule(
        rules,
        "code_of",
        lambda reason, level: CODE_OF(
            Reason.OUTSIDE if reason is Reason.ASCE_TYPE else reason, level
        ),
    ),
    "the TEID has bytes": rule(rules, "PAGE", 1),
    "the TEID of stores is that of fetches": rule(rules, "STORES", 0x800),
    "the TEID has no mark of IEP": rule(
        rules, "MARKS", {**rules.MARKS, Reason.EXECUTE_DENIED: 0x04}
    ),
    "the home space is the secondary": lambda patch: patch.setattr(
        verdicts, "SPACE_OF", np.array([2, 2, 2], np.uint8)
    ),
    "no memory is an absent entry": ends(walks.End.UNBACKED, Reason.NOT_PRESENT),
    "all memory is there": lambda patch: patch.setattr(
        verdicts, "_without_tables", tables_are_there
    ),
    "tables are whole": lambda patch: patch.setattr(
        walks, "_is_there", lambda format, level, raw, address: np.ones(len(raw), np.bool_)
    ),
    "reads set the change bit": lambda patch: patch.setattr(verdicts, "REFERENCED", 6),
    "stores set no change bit": lambda patch: patch.setattr(verdicts, "CHANGED", 0),
}


@pytest.mark.hw
def test_without_a_fault_nothing_is_found(running: Guest, few: Plan) -> None:
    assert found_out_in(running, few).comparison.disagreed == 0


@pytest.mark.hw
def test_every_field_of_a_result_is_looked_at(
    running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage key has reference and change in its bits 5 and 6, of 8."""
    batches, lanes = noted(monkeypatch, run, "agreeing"), Counter[str]()
    assert not tried_in(running, replace(few, work=few.work[::4])).failures
    for one in batches:
        _, made, _, _, wanted = one.asked
        done, every, levels = wanted.made, (0, 17, 63), len(made.words)
        seen: Seen = {
            **entries(levels, done),
            f"after {levels}": (~made.fetch, every),
            "completed": (done | ~done, (0,)),
            "code": (done | ~done, (0, 4)),
            "data": (done | ~done, every),
            "teid": (wanted.found.teid != 0, every),
            "address": (done & made.fetch, every),
            "key": (done, (8 - 1 - 5, 8 - 1 - 6)),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_is_wrong_is_found_out(
    fault: str, running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    report = found_out_in(running, few)
    assert report.comparison.disagreed > 0 and report.failures


@pytest.mark.hw
def test_words_of_a_path_stand_where_the_walk_reads_them(running: Guest) -> None:
    """Of the two page tables in 4 KiB, in the one that the segment names."""
    chain = Chain(running, "segment")
    [entry] = [
        one for one in families("quick", "segment", INFO) if (one.name, one.level) == ("entry", 1)
    ]
    made = lanes(entry, chain, np.array([0, 6 * 0x800]))
    first, second = (chain.slots(made)[0] & np.uint64(0x800)).tolist()
    assert (first, second) == (0, 0x800)
